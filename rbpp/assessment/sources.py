"""Sources: rows, vectors and coordinates of what is assessed, whole or sampled from a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbpp import validate
from rbpp.assessment.copies import Copies, copies_within, exact_copies, index_of_equal
from rbpp.assessment.weighted_rows import Array, Sample
from rbpp.compute import Compute
from rbpp.data import measurements
from rbpp.data.embed import Embedding, embed
from rbpp.data.embed import Representation as Representation
from rbpp.data.moments import StreamSummary, summarise
from rbpp.data.reduce import (
    Projection,
    moment_components,
    pooled_moments,
    principal_components,
)
from rbpp.data.rows import Fields as Fields
from rbpp.data.rows import Rows, read_rows
from rbpp.data.stream import (
    CHUNK_ROWS,
    Stream,
    row_stream,
    scaled_stream,
    shard_files,
    tensor_stream,
)

ROLES = ("anchor", "target", "output", "unprompted", "synthetic")
GENERATED = ("synthetic", "output", "unprompted")
# Rows of each source that numbers are of: neighbours are sought among all pairs of rows.
SAMPLE_ROWS = 4_000
# Vectors whose lengths differ by more than this are no unit-length embeddings.
_UNIT = 0.01
# Rows at this many times their spread from a further axis lie on a sphere nearly as they lay.
_LIFT = 3.0


@dataclass(frozen=True)
class Sampling:
    """How sources larger than memory are read.

    Attributes:
        chunk_rows: rows in memory at a time.
        sample_rows: rows of each source that numbers are of.
    """

    chunk_rows: int = CHUNK_ROWS
    sample_rows: int = SAMPLE_ROWS

    def __post_init__(self) -> None:
        validate.count("chunk_rows", self.chunk_rows)
        validate.count("sample_rows", self.sample_rows, least=2)


@dataclass(frozen=True)
class Sources:
    """What is assessed or compared, by name: a role, or a version's name.

    Attributes:
        rows: ids, texts, groups, labels and paired fields; of the sample where a source has one.
        roles: of every name, one of `ROLES`.
        vectors: embeddings (n, D), as they are.
        coordinates: principal components (n, d) of them.
        projection: the principal components.
        embedding: how text became vectors.
        streams: of sources that were sampled, all their rows, in order.
        places: of sources that were sampled, which rows are in the sample (n,), counted from 0.
    """

    rows: Mapping[str, Rows]
    roles: Mapping[str, str]
    vectors: Mapping[str, np.ndarray]
    coordinates: Mapping[str, Array]
    projection: Projection
    embedding: Embedding
    streams: Mapping[str, Stream] = field(default_factory=dict)
    places: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        rows: Mapping[str, Rows],
        roles: Mapping[str, str],
        vectors: Mapping[str, np.ndarray],
        projection: Projection,
        embedding: Embedding,
    ) -> Sources:
        """Sources whose coordinates are the principal components of their vectors."""
        coordinates = {name: projection(one) for name, one in vectors.items()}
        return cls(rows, roles, vectors, coordinates, projection, embedding)

    def select(self, places: Mapping[str, NDArray[np.int64]]) -> Sources:
        """The same with the rows at these places, counted from 0, of the sources that are named."""

        def chosen(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {**arrays, **{name: arrays[name][place] for name, place in places.items()}}

        return replace(
            self,
            rows={**self.rows, **{n: self.rows[n].select(place) for n, place in places.items()}},
            vectors=chosen(self.vectors),
            coordinates=chosen(self.coordinates),
        )

    @property
    def names(self) -> list[str]:
        """Names of the sources, real ones first."""
        return list(self.rows)

    @property
    def task(self) -> str:
        """The source that stands for the task: the target, or the anchors in its place."""
        for role in ("target", "anchor"):
            if role in self.roles.values():
                return next(name for name in self.names if self.roles[name] == role)
        raise ValueError(f"Expected anchor or target rows; got {', '.join(self.names)}")

    def content(self, name: str, vectors: np.ndarray | None = None) -> np.ndarray:
        """Vectors at unit length: what nearest neighbours and copies are sought among.

        Embeddings keep their direction. Rows of numbers, whose length says something, are placed on
        a sphere: x ↦ (x − x̄, 3 s) / |(x − x̄, 3 s)|, s the spread of all rows.

        Args:
            name: of the source.
            vectors: of rows of it that are not in the sample.
        """
        rows = np.asarray(self.vectors[name] if vectors is None else vectors, np.float64)
        if self.lifted:
            rows = rows - self.projection.mean
            rows = np.concatenate([rows, np.full((len(rows), 1), _LIFT * self._spread)], 1)
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.asarray(rows / np.where(length > 0, length, 1))

    @cached_property
    def lifted(self) -> bool:
        """Whether the vectors are numbers and no embeddings of unit length."""
        lengths = np.concatenate([np.linalg.norm(v, axis=1) for v in self.vectors.values()])
        return not self.embedding.text and bool(lengths.std() > _UNIT * lengths.mean())

    @cached_property
    def copies(self) -> dict[str, Copies]:
        """Groups of copies within every source; near copies too where vectors are embeddings."""
        reference = self.content(self.task)
        few = len(np.unique(reference, axis=0)) < 3
        return {
            name: exact_copies(self.vectors[name])
            if self.lifted or few
            else copies_within(self.content(name), reference, self.rows[name].text)
            for name in self.names
        }

    @cached_property
    def _spread(self) -> float:
        """Root mean square distance of all rows from their mean."""
        squares = [np.square(v - self.projection.mean).sum(1) for v in self.vectors.values()]
        return max(float(np.sqrt(np.concatenate(squares).mean())), 1e-300)

    def weights(self, name: str) -> Array:
        """What each row of a source counts (n,): 1 / copies for generated rows, 1 for real ones."""
        if self.roles[name] not in GENERATED:
            return np.ones(len(self.rows[name]))
        return self.copies[name].weights

    def units(self, name: str) -> NDArray[np.int64]:
        """Index (n,) of the independent unit of every row: its group, or its group of copies."""
        groups = self.rows[name].groups
        if groups is not None:
            return np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
        if self.roles[name] in GENERATED:
            return self.copies[name].group
        return index_of_equal(self.vectors[name])

    def unit_count(self, name: str) -> int:
        """Number of independent units of a source."""
        return int(self.units(name).max()) + 1

    def sample(self, name: str, rows: np.ndarray | None = None) -> Sample:
        """Rows of a source, by default `content`, with their units and what each counts."""
        content = self.content(name) if rows is None else rows
        return Sample(content, self.units(name), self.weights(name))

    def chunks(self, name: str) -> Iterator[tuple[int, np.ndarray]]:
        """Number of the first row, and vectors, of every part of all rows of a source."""
        if name not in self.streams:
            yield 0, self.vectors[name]
            return
        start = 0
        for part in self.streams[name]:
            for chunk in part():
                yield start, chunk.rows.numpy()
                start += len(chunk.rows)


def read_sources(
    given: Mapping[str, Any],
    fields: Fields | None = None,
    representation: Representation | None = None,
    sampling: Sampling | None = None,
    compute: Compute | None = None,
    roles: Mapping[str, str] | None = None,
) -> Sources:
    """Read, embed and project sources.

    Args:
        given: files, folders, Python objects or `Rows` by name; None is left out.
        fields: of the files.
        representation: how rows become numbers.
        sampling: read files of numbers in chunks, and keep samples of them.
        compute: device of the embedding model, workers, progress, seed.
        roles: of the names; by default every name is a role itself.

    Raises:
        ValueError: naming the source, file, row and field of bad input.

    >>> rows = np.random.default_rng(0).normal(size=(60, 3))
    >>> found = read_sources({"target": rows[:30], "synthetic": rows[30:]})
    >>> found.names, found.coordinates["target"].shape
    (['target', 'synthetic'], (30, 3))
    """
    compute = Compute.of(compute)
    fields, representation = fields or Fields(), representation or Representation()
    present = {name: data for name, data in given.items() if data is not None}
    roles = {name: name for name in present} if roles is None else dict(roles)
    unknown = sorted({roles.get(name, name) for name in present} - set(ROLES))
    if unknown:
        raise ValueError(f"Expected roles of {', '.join(ROLES)}; got {', '.join(unknown)}")
    names = sorted(present, key=lambda name: ROLES.index(roles[name]))
    if sampling is not None:
        return _sampled(
            {n: present[n] for n in names}, fields, representation, roles, sampling, compute
        )
    pair_role = "output" if "output" in roles.values() else "synthetic"
    rows = {
        name: _read(present[name], name, roles[name], fields, roles[name] == pair_role)
        for name in names
    }
    vectors, embedding = embed(list(rows.values()), representation, compute)
    projection = principal_components(vectors, representation.dimension)
    named = dict(zip(names, vectors, strict=True))
    return _limited(Sources.of(rows, roles, named, projection, embedding), compute)


def _read(data: Any, name: str, role: str, fields: Fields, paired: bool) -> Rows:
    if isinstance(data, Rows):
        return data
    if role not in GENERATED:
        fields = replace(fields, group=None)
    called = role if name == role else f"version {name}"
    return read_rows(data, called, fields, paired=fields.pairs if paired else None)


def _limited(sources: Sources, compute: Compute) -> Sources:
    """Sources with samples in place of those that have more rows than numbers are of."""
    import torch

    places = random_places(sources, "rows", compute)
    whole = {name: torch.as_tensor(sources.vectors[name]) for name in places}
    streams = {name: tensor_stream(rows, CHUNK_ROWS) for name, rows in whole.items()}
    return replace(sources.select(places), streams=streams, places=places)


def random_places(sources: Sources, label: str, compute: Compute) -> dict[str, NDArray[np.int64]]:
    """Places of `SAMPLE_ROWS` rows of every source that has more, in order."""
    places = {}
    for name, own in sources.vectors.items():
        if len(own) > SAMPLE_ROWS:
            random = np.random.default_rng([compute.spawn(label, name).seed])
            places[name] = np.sort(random.choice(len(own), SAMPLE_ROWS, replace=False))
    return places


def _sampled(
    given: Mapping[str, Any],
    fields: Fields,
    representation: Representation,
    roles: Mapping[str, str],
    sampling: Sampling,
    compute: Compute,
) -> Sources:
    """Sources of files of numbers that need not fit in memory."""
    rows, streams, summaries = {}, {}, {}
    for name, path in given.items():
        if fields.embedding is None and any(s.suffix != ".npy" for s in shard_files(path)):
            raise ValueError(
                f"{path}: Expected an embedding field of a file with columns; got none"
            )
        streams[name] = row_stream(
            Path(path).resolve(), field=fields.embedding, chunk_rows=sampling.chunk_rows
        )
        if not streams[name]:
            raise ValueError(f"{path}: Expected rows for {name}; got none")
        summaries[name] = one = _summary(path, name, streams[name], sampling, compute)
        measurements.refuse_far_rows(f" of {path}", one.sample.numpy())
        rows[name] = Rows(
            roles[name],
            str(path),
            [str(place + 1) for place in one.place.tolist()],
            embedding=one.sample.numpy(),
            whole=one.count,
        )
    first = next(iter(rows))
    wanted = len(summaries[first].mean)
    for name, one in summaries.items():
        if len(one.mean) != wanted:
            raise ValueError(
                f"{rows[name].origin}: Expected embeddings of dimension {wanted} as in "
                f"{rows[first].origin}; got {len(one.mean)}"
            )
    counts = [one.count for one in summaries.values()]
    means = [one.mean.numpy() for one in summaries.values()]
    covariances = [one.covariance.numpy() for one in summaries.values()]
    centre, spread = pooled_moments(counts, means, covariances)
    divisor, how = measurements.units(spread, None, fields.reading.standardise)
    samples = {name: one.sample.numpy() for name, one in summaries.items()}
    if how:
        streams = {n: scaled_stream(part, centre, divisor) for n, part in streams.items()}
        samples = {name: (part - centre) / divisor for name, part in samples.items()}
        means = [(mean - centre) / divisor for mean in means]
        covariances = [one / np.outer(divisor, divisor) for one in covariances]
    projection = moment_components(counts, means, covariances, representation.dimension)
    return replace(
        Sources.of(rows, roles, samples, projection, Embedding(how or "embeddings as given")),
        streams={n: s for n, s in streams.items() if summaries[n].count > len(rows[n])},
        places={n: s.place.numpy() for n, s in summaries.items() if s.count > len(rows[n])},
    )


def _summary(
    path: Any, name: str, stream: Stream, sampling: Sampling, compute: Compute
) -> StreamSummary:
    found = summarise(stream, sampling.sample_rows, compute.spawn("rows", name))
    if found.count < 2 or not bool((found.covariance.diagonal() > 0).any()):
        raise ValueError(f"{path} ({name}): Expected at least 2 rows that differ; got others")
    order = found.place.argsort()
    return replace(found, sample=found.sample[order], place=found.place[order])
