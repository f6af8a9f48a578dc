"""Versions of a synthetic data set beside one reference: read, embedded, and what is scored."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rbpp.assessment.copies import same_rows
from rbpp.assessment.ranking_checks import unless
from rbpp.assessment.ranking_sources import Source
from rbpp.assessment.sources import Fields, Representation, Sampling, Sources, read_sources
from rbpp.checks import Check
from rbpp.compute import Compute
from rbpp.data.embed import Embedding, embed
from rbpp.data.reduce import moment_components, principal_components
from rbpp.data.rows import Rows, is_text_field, read_rows

# Principal components of a table with categories in which its density is taken.
_COMPONENTS = 8


@dataclass(frozen=True)
class Versions:
    """What is compared.

    Attributes:
        rows: of the target, anchors where there are any, and the versions, by name; versions are
            named as `key` says.
        names: of the versions, in the order given.
        vectors: embeddings by name, all rows.
        outputs: embeddings of outputs, of the target and the versions; empty without.
        embedding: how text became vectors.
        sampled: sources that are samples of a stream, with principal components of all rows.
    """

    rows: Mapping[str, Rows]
    names: list[str]
    vectors: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]
    embedding: Embedding
    sampled: Sources | None = None

    def scored(self) -> tuple[dict[str, Source], Source]:
        """The versions and the reference as `rank_sets` takes them."""
        real = self._source("target")
        versions = {name: self._source(key(name)) for name in self.names}
        bare = not self.outputs and all(one.labels is None for one in versions.values())
        if not (self.rows["target"].categories and bare and len(real.rows) > _COMPONENTS):
            return versions, real
        # One rare category that a version lacks decides a density of all columns of a table.
        axes = principal_components([real.rows])
        axes = principal_components([real.rows], min(_COMPONENTS, axes.dimension))

        def reduced(source: Source) -> Source:
            return replace(source, rows=axes(source.rows) * axes.scale)

        return {name: reduced(one) for name, one in versions.items()}, reduced(real)

    def sources(self, dimension: int | None) -> Sources:
        """With principal components, for what stands beside the score."""
        if self.sampled is not None:
            return self.sampled
        rows = [np.asarray(one, np.float64) for one in self.vectors.values()]
        projection = moment_components(
            [len(one) for one in rows],
            [one.mean(0) for one in rows],
            [np.cov(one.T, bias=True).reshape(one.shape[1], -1) for one in rows],
            dimension,
        )
        return Sources.of(self.rows, _roles(self.rows), self.vectors, projection, self.embedding)

    def checks(self, fields: Fields) -> Iterator[Check]:
        """What may mislead before anything is computed."""
        yield self._read()
        if fields.prompt is not None and fields.group is None:
            yield self._dependence()
        if "anchor" in self.rows:
            yield unless(
                "the anchors are other rows than the reference",
                same_rows(*(_content(self.rows[name]) for name in ("anchor", "target"))),
                "both hold the same rows: copies of anchors score as if they were learned",
            )
        if sizes := {n: (len(r), r.size) for n, r in self.rows.items() if len(r) < r.size}:
            some = [f"{n:,} of {whole:,} of {name}" for name, (n, whole) in sizes.items()]
            message = f"scores are those of {', '.join(some)} rows, drawn uniformly"
            yield Check("rows of the samples", "unknown", message)

    def _source(self, name: str) -> Source:
        rows = self.rows[name]
        made = rows.paired.get("generator")
        return Source(
            rows=self.vectors[name],
            labels=rows.labels,
            outputs=self.outputs.get(name),
            units=rows.groups,
            generator=None if made is None else " + ".join(sorted(set(map(str, made)))),
        )

    def _read(self) -> Check:
        said = []
        for what, counts in (
            ("without a word it knows", self.embedding.unread),
            ("cut", self.embedding.cut),
        ):
            some = [f"{n} rows of {name}" for name, n in zip(self.rows, counts, strict=False) if n]
            said += [f"{what}: {', '.join(some)}"] if some else []
        return unless(
            "the embedding reads every row",
            said,
            "; ".join(said),
            {"embedding": str(self.embedding)},
        )

    def _dependence(self) -> Check:
        """Rows of one prompt are not independent; the bootstrap counts them as if they were."""
        repeated = {}
        for name in self.names:
            prompts = self.rows[key(name)].paired.get("prompt")
            if prompts is not None:
                distinct = len(np.unique(np.asarray(prompts), axis=0))
                repeated[name] = 1 - distinct / len(prompts)
        many = [name for name, share in repeated.items() if share > 0.1]
        return unless(
            "the rows of a version are independent",
            many,
            f"prompts repeat in {', '.join(many[:5])}: name their group with group=…",
            {"repeated_prompts": repeated},
            "undecided",
        )


def key(name: str) -> str:
    """The name of a version among the sources, where roles have names too."""
    return f"version {name}"


def name_versions(versions: Mapping[str, Any] | Sequence[Any], least: int = 2) -> dict[str, Any]:
    """Versions by name; files by their stems.

    Raises:
        ValueError: on fewer than `least`, or two of one name.
    """
    if isinstance(versions, Mapping):
        named = dict(versions)
    elif not isinstance(versions, list | tuple):  # one version: its letters or rows are none
        raise ValueError(
            f"Expected versions by name or a list of them; got <{type(versions).__name__}>"
        )
    else:
        names = [
            Path(data).stem if isinstance(data, str | Path) else f"version {place}"
            for place, data in enumerate(versions, 1)
        ]
        if len(set(names)) < len(names):  # the same file name in several folders
            names = [str(data) for data in versions]
        named = dict(zip(names, versions, strict=True))
        if len(named) < len(names):
            raise ValueError(f"Expected versions of different names; got {', '.join(names)}")
    if len(named) < least:
        raise ValueError(f"Expected at least {least} versions to compare; got {len(named)}")
    return named


def read_versions(
    named: Mapping[str, Any],
    reference: Any,
    anchor: Any,
    fields: Fields,
    representation: Representation,
    sampling: Sampling | None,
    compute: Compute,
) -> Versions:
    """Read and embed what is compared.

    Raises:
        ValueError: naming the source, file, row and field of bad input.
    """
    given = {"target": reference, "anchor": anchor, **{key(n): d for n, d in named.items()}}
    given = {name: data for name, data in given.items() if data is not None}
    if sampling is not None:
        unread = {"label": fields.label, "output": fields.output, "generator": fields.generator}
        if asked := [name for name, field in unread.items() if field is not None]:
            raise ValueError(f"Expected streams of vectors alone; got a {asked[0]} field")
        found = read_sources(given, fields, representation, sampling, compute, _roles(given))
        return Versions(
            found.rows, list(named), found.vectors, {}, embedding=found.embedding, sampled=found
        )
    rows = {name: _read(data, name, fields) for name, data in given.items()}
    made = [rows[key(name)] for name in named]
    if fields.label is not None and all(one.labels is None for one in made):
        raise ValueError(
            f"{made[0].origin}: Expected a field {fields.label!r} with labels in the versions; "
            "got none"
        )
    vectors, embedding = _embedded(rows, representation, compute)
    outputs: dict[str, np.ndarray] = {}
    if fields.output is not None:
        judged = {n: _as_rows(r, "output") for n, r in rows.items() if n != "anchor"}
        outputs, _ = _embedded(judged, representation, compute)
    return Versions(rows, list(named), vectors, outputs, embedding)


def _roles(names: Iterable[str]) -> dict[str, str]:
    return {name: name if name in ("target", "anchor") else "synthetic" for name in names}


def _read(data: Any, name: str, fields: Fields) -> Rows:
    if isinstance(data, Rows):
        return data
    paired = {}
    if fields.output is not None and fields.prompt is not None and name != "anchor":
        paired = fields.pairs
    if not fields.text and fields.embedding is None and fields.prompt is not None:
        prompt = fields.prompt.split(",")
        if is_text_field(data, prompt[0]):
            fields = replace(fields, text=prompt)
        else:
            fields = replace(fields, embedding=fields.prompt)
    if name in ("target", "anchor"):
        fields = replace(fields, group=None, label=fields.label if name == "target" else None)
    elif fields.generator is not None:
        paired = {**paired, "generator": fields.generator}
    return read_rows(data, name, fields, paired=paired)


def _embedded(
    rows: Mapping[str, Rows], representation: Representation, compute: Compute
) -> tuple[dict[str, np.ndarray], Embedding]:
    if next(iter(rows.values())).text is None:
        representation = replace(representation, model=None)
    vectors, embedding = embed(list(rows.values()), representation, compute)
    return dict(zip(rows, vectors, strict=True)), embedding


def _as_rows(rows: Rows, name: str) -> Rows:
    """A paired field as rows of their own."""
    values = rows.paired[name]
    rows = replace(rows, absent=frozenset())
    if isinstance(values, np.ndarray):
        return replace(rows, text=None, embedding=values)
    return replace(rows, text=values, embedding=None)


def _content(rows: Rows) -> Any:
    return rows.text if rows.text is not None else rows.embedding


def read_record(against: Any) -> dict[str, Any]:
    """Stored results from a file, or as they are.

    Raises:
        ValueError: if they are none.
        OSError: if there is no such file.
    """
    if isinstance(against, Mapping):
        return dict(against)
    try:
        record = json.loads(Path(against).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{against}: Expected stored results in JSON; got {error}") from error
    if not isinstance(record, dict) or "sets" not in record:
        raise ValueError(
            f"{against}: Expected stored results of result.store(…); got JSON without any version"
        )
    return record
