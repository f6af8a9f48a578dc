"""What one reading of a stream tells before any fit: moments of all rows, and a sample."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rbpp.compute import Compute
from rbpp.data.stream import Chunk, Part, Stream
from rbpp.randomness import generator, spawn

# Parts that are asked for rows of the sample before those found so far say which can be in it: few
# at first, when every part sends a sample of its own, then twice as many each time, up to a limit.
_FIRST_WINDOW, _LARGEST_WINDOW = 16, 256


@dataclass(frozen=True)
class StreamSummary:
    """Moments of all rows of a stream, and a sample that fits in memory.

    Attributes:
        count: rows.
        weight: their total weight.
        mean, covariance: weighted, (d,) and (d, d), in float64.
        sample: rows drawn with odds of their weight, without replacement (n', d).
        keys: what decided that they are in the sample, (n',): the smallest of all rows.
        place: number of each of them among the rows of the stream, from 0, (n',).
        parts: rows of every part of the stream.
        digest: SHA-256 of rows and weights, part by part.
    """

    count: int
    weight: float
    mean: Tensor
    covariance: Tensor
    sample: Tensor
    keys: Tensor
    place: Tensor
    parts: Tensor
    digest: str = ""

    def arrays(self) -> dict[str, np.ndarray]:
        """As named arrays, for a checkpoint."""
        return {name: np.asarray(value) for name, value in vars(self).items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> StreamSummary:
        """Inverse of `arrays`."""
        values: dict[str, Any] = {
            name: torch.from_numpy(value) if value.ndim else value.item()
            for name, value in arrays.items()
        }
        return cls(**values)


def summarise(stream: Stream, sample_rows: int, compute: Compute | None = None) -> StreamSummary:
    """Read a stream once.

    Args:
        stream: parts of rows.
        sample_rows: most rows of the sample.
        compute: workers over parts, and the seed that decides the sample, together with the parts
            that the stream has.

    Raises:
        ValueError: on an empty stream, or chunks that are not finite or differ in dimension.
    """
    compute = Compute.of(compute)
    found: StreamSummary | None = None
    digest = hashlib.sha256()
    numbered = list(enumerate(stream))
    sizes: list[int] = []
    first, window = 0, _FIRST_WINDOW
    while first < len(numbered):
        full = found is not None and len(found.keys) == sample_rows
        largest = float(found.keys.max()) if found is not None and full else torch.inf
        work = partial(_of_part, sample_rows, compute.seed, largest)
        for part in compute.workers(work, numbered[first : first + window]):
            sizes.append(0 if part is None else part.count)
            if part is None:
                continue
            digest.update(bytes.fromhex(part.digest))
            found = part if found is None else _both(found, part, sample_rows)
        first, window = first + window, min(2 * window, _LARGEST_WINDOW)
    if found is None or found.weight == 0:
        raise ValueError("Expected rows of positive weight in the stream; got none")
    return replace(found, digest=digest.hexdigest(), parts=torch.tensor(sizes))


def _of_part(
    sample_rows: int, seed: int, largest: float, numbered: tuple[int, Part]
) -> StreamSummary | None:
    index, part = numbered
    source = generator(spawn(seed, "sample", index))
    digest = hashlib.sha256()
    found: StreamSummary | None = None
    for chunk in _checked(part, index):
        for value in chunk:
            if value is not None:
                digest.update(np.ascontiguousarray(value.numpy()).data)
        own = _of_chunk(chunk, largest, source)
        found = own if found is None else _both(found, own, sample_rows)
    if found is None:
        return None
    kept = found.keys.topk(min(sample_rows, len(found.keys)), largest=False).indices
    return replace(_kept(found, kept), digest=digest.hexdigest())


def _of_chunk(chunk: Chunk, largest: float, generator: torch.Generator) -> StreamSummary:
    rows = chunk.rows.double()
    weights = torch.ones(len(rows)) if chunk.weights is None else chunk.weights
    weights = weights.double()
    total = weights.sum().item()
    # Exponential keys: the smallest belong to a sample with odds of the weights.
    keys = -torch.rand(len(rows), generator=generator, dtype=torch.float64).log() / weights
    origin = rows[weights.argmax()]
    share = (weights / max(total, torch.finfo(torch.float64).tiny)).unsqueeze(-1)
    centred = rows - origin
    shift = (centred * share).sum(0)
    centred -= shift
    covariance = (centred * share).mT @ centred
    whole = StreamSummary(
        count=len(rows),
        weight=total,
        mean=origin + shift,
        covariance=covariance,
        sample=chunk.rows,
        keys=keys,
        place=torch.arange(len(rows)),
        parts=torch.tensor([len(rows)]),
    )
    return _kept(whole, (keys.isfinite() & (keys <= largest)).nonzero().squeeze(-1))


def _kept(summary: StreamSummary, index: Tensor) -> StreamSummary:
    """The summary with these rows of its sample."""
    return replace(
        summary,
        sample=summary.sample[index],
        keys=summary.keys[index],
        place=summary.place[index],
    )


def _both(one: StreamSummary, two: StreamSummary, sample_rows: int) -> StreamSummary:
    """The summary of the rows of both."""
    if len(one.mean) != len(two.mean):
        raise ValueError(
            f"Expected rows of dimension {len(one.mean)} throughout; got {len(two.mean)} from row "
            f"{one.count}"
        )
    weight = one.weight + two.weight
    part = two.weight / weight if weight > 0 else 0.0
    shift = two.mean - one.mean
    covariance = one.covariance.lerp(two.covariance, part)
    merged = StreamSummary(
        count=one.count + two.count,
        weight=weight,
        mean=one.mean + part * shift,
        covariance=covariance + part * (1 - part) * torch.outer(shift, shift),
        sample=torch.cat([one.sample, two.sample]),
        keys=torch.cat([one.keys, two.keys]),
        place=torch.cat([one.place, two.place + one.count]),
        parts=one.parts,
    )
    if len(merged.keys) <= sample_rows:
        return merged
    return _kept(merged, merged.keys.topk(sample_rows, largest=False).indices)


def _checked(part: Part, index: int) -> Iterator[Chunk]:
    before = 0
    for chunk in part():
        if len(chunk.rows):
            _check(chunk, index, before)
            yield chunk
        before += len(chunk.rows)


def _check(chunk: Chunk, part: int, before: int) -> None:
    """Refuse a chunk of a part, `before` rows from its start."""
    rows = chunk.rows
    if rows.dim() != 2 or not rows.is_floating_point():
        raise ValueError(
            f"Expected chunks of floating-point rows (n, d); got {rows.dtype} of shape "
            f"{tuple(rows.shape)}"
        )
    finite = rows.isfinite().all(-1)
    if not bool(finite.all()):
        row = before + int((~finite).nonzero()[0])
        raise ValueError(f"Expected finite rows; got a violation in part {part}, row {row}")
    weights = chunk.weights
    if weights is None:
        return
    if weights.shape != rows.shape[:1]:
        raise ValueError(
            f"Expected one weight for each of {len(rows)} rows; got {tuple(weights.shape)}"
        )
    if not bool((weights.isfinite() & (weights >= 0)).all()):
        raise ValueError(f"Expected finite weights ≥ 0; got others from part {part}, row {before}")
