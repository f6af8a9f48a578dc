"""What is ranked: rows of sets and real rows, checked once and turned into tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rbpp.assessment import density_score, label_score, output_score
from rbpp.assessment.copies import index_of_equal
from rbpp.assessment.set_scores import Learn

Kind = Literal["labels", "outputs", "texts"]
# Fewer real rows with labels say nothing of a temperature.
_LEAST_FITTED = 10
# A larger share of a set's rows that are real rows is no chance.
MOST_GIVEN = 0.01


@dataclass(frozen=True)
class Source:
    """Rows of one set, or the real rows.

    Attributes:
        rows: embeddings of the text or of the prompt, (n, d), taken as they are.
        labels: (n,), text or numbers; a missing one is None, nan or "".
        outputs: embeddings of the outputs, or numbers, (n, q) or (n,).
        units: (n,): rows of one unit, such as one document, are drawn together.
        generator: what made the set. Sets of one generator share one vote in the consensus.
    """

    rows: Any
    labels: Any = None
    outputs: Any = None
    units: Any = None
    generator: str | None = None


@dataclass(frozen=True)
class PreparedSet:
    """One set: the rows of it that are scored, and what belongs to them.

    Attributes:
        name: of the set.
        rows: (n, d).
        second: labels as whole numbers (n,), outputs (n, q), or nothing (n, 0).
        units: (n,) from 0, or None.
        voter: who casts its vote in a consensus.
        digest: of rows, with their labels or outputs, in any order.
        kept: places of these rows in the source: of those that have a label.
        missing: rows without a label, which are left out.
        given: share of these rows that are real rows.
        repeated: share of these rows that repeat others of the set.
    """

    name: str
    rows: Tensor
    second: Tensor
    units: np.ndarray | None
    voter: str
    digest: str
    kept: np.ndarray
    missing: int
    given: float
    repeated: float


@dataclass(frozen=True)
class Prepared:
    """Sets and real rows as tensors of one kind of score.

    `prior_rows` and `temperature` are of `label_score.log_probabilities`.
    """

    kind: Kind
    sets: list[PreparedSet]
    real: Tensor
    real_second: Tensor
    real_units: np.ndarray | None
    label_names: list[str]
    prior_rows: float
    temperature: float

    @property
    def names(self) -> list[str]:
        """Of the sets, in the order given."""
        return [one.name for one in self.sets]

    @cached_property
    def copies(self) -> np.ndarray:
        """One number for all sets of one digest, (K,)."""
        return index_of_equal([one.digest for one in self.sets])

    @property
    def leave_nearest(self) -> bool:
        """Whether sets hold real rows, of which others may be made: for `density_score`."""
        return max(one.given for one in self.sets) > MOST_GIVEN


def prepare(
    sets: Mapping[str, Source], real: Source, least: int = 2, label_names: list[str] | None = None
) -> Prepared:
    """Check the sources and turn them into tensors; see `rank_sets` for what is refused.

    `label_names` are those of earlier results, whose order is kept and which have every label.
    """
    if len(sets) < least:
        raise ValueError(f"Expected {least} sets or more to rank; got {len(sets)}")
    everything = [("the real rows", real), *((f"set {n!r}", s) for n, s in sets.items())]
    rows = [_matrix(source.rows, who) for who, source in everything]
    width = rows[0].shape[1]
    for (who, _), one in zip(everything, rows, strict=True):
        if one.shape[1] != width:
            raise ValueError(
                f"Expected {width} columns as the real rows have; {who} has {one.shape[1]}"
            )
    if float((rows[0] - rows[0].mean(0)).square().sum()) == 0:
        raise ValueError("Expected real rows that differ; got copies of one row")
    units = [_units(s.units, len(x), who) for (who, s), x in zip(everything, rows, strict=True)]
    kind = _kind(list(sets.values()), real)
    names_of_labels: list[str] = []
    kept = [np.arange(len(one)) for one in rows]
    second = [one.new_zeros(len(one), 0) for one in rows]
    sharpness = label_score.PRIOR_ROWS, 1.0
    if kind == "labels":
        for (who, source), x in zip(everything, rows, strict=True):
            if source.labels is not None or source is not real:
                _same_length(source.labels, len(x), who, "labels")
        coded, real_coded, names_of_labels = label_score.encode_labels(
            {name: s.labels for name, s in sets.items()}, real.labels, label_names or None
        )
        codes = [np.full(len(rows[0]), -1) if real_coded is None else real_coded, *coded]
        kept[1:] = [np.flatnonzero(one >= 0) for one in coded]
        for name, known in zip(sets, kept[1:], strict=True):
            if not len(known):
                raise ValueError(f"Expected labels in set {name!r}; got missing ones alone")
        second = [torch.as_tensor(one[own]) for one, own in zip(codes, kept, strict=True)]
        sharpness = _sharpness(rows[0], second[0], len(names_of_labels))
    elif kind == "outputs":
        second = [
            _matrix(source.outputs, f"outputs of {who}", column=True) for who, source in everything
        ]
        for (who, _), one, two in zip(everything, rows, second, strict=True):
            if len(one) != len(two) or two.shape[1] != second[0].shape[1]:
                raise ValueError(
                    f"Expected outputs of {who} of shape ({len(one)}, {second[0].shape[1]}); "
                    f"got {tuple(two.shape)}"
                )
    real_digests = set(_row_digests(rows[0]))
    made = []
    for place, (name, source) in enumerate(sets.items(), 1):
        known, unit = kept[place], units[place]
        own = rows[place][torch.as_tensor(known)]
        digests = _row_digests(own)
        made.append(
            PreparedSet(
                name,
                own,
                second[place],
                units=None if unit is None else _numbered(unit[known]),
                voter=source.generator or f"set {name}",
                digest=_digest(digests, second[place]),
                kept=known,
                missing=len(rows[place]) - len(known),
                given=float(np.mean([one in real_digests for one in digests])),
                repeated=1 - len(set(digests)) / len(digests),
            )
        )
    return Prepared(
        kind,
        made,
        rows[0],
        second[0],
        real_units=units[0],
        label_names=names_of_labels,
        prior_rows=sharpness[0],
        temperature=sharpness[1],
    )


def _sharpness(real: Tensor, labels: Tensor, classes: int) -> tuple[float, float]:
    """Prior rows and temperature: one of all sets, at which real rows predict each other best.

    Where votes stand in for labels of some real rows, the root of it; of all, none: votes as flat
    as such predictions tell sets apart less.
    """
    known = labels >= 0
    if bool(known.all()) and len(real) >= _LEAST_FITTED:
        return label_score.PRIOR_ROWS, label_score.fitted_temperature(real, labels, classes)
    prior = label_score.PRIOR_ROWS_OF_VOTES
    if int(known.sum()) < _LEAST_FITTED:
        return prior, 1.0
    found = label_score.fitted_temperature(real[known], labels[known], classes, prior)
    return prior, found**0.5


def learned(
    prepared: Prepared,
    rows: Tensor,
    second: Tensor,
    real: tuple[Tensor, Tensor],
    weights: Tensor | None = None,
    like: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """What rows, with weights, teach about real ones: log p of each label (m, K), or of each (m,).

    `real` are rows and what belongs to them; `like` those whose origin and scale are taken, by
    default `real`.
    """
    like_rows, like_second = like or real
    scale = output_score.total_variance(like_rows)
    width = rows.shape[1]
    if prepared.kind == "labels":
        return label_score.log_probabilities(
            rows,
            second,
            real[0],
            len(prepared.label_names),
            weights,
            like_rows.mean(0),
            scale / width,
            prior_rows=prepared.prior_rows,
            temperature=prepared.temperature,
        )
    if prepared.kind == "outputs":
        output_scale = output_score.total_variance(like_second) / like_second.shape[1]
        return output_score.log_densities(rows, second, *real, weights, scale, output_scale)
    return density_score.log_densities(
        rows, real[0], weights, scale / width, leave_nearest=prepared.leave_nearest
    )


def learner(prepared: Prepared, place: int, target: Tensor | None) -> Learn:
    """What real rows score when rows of one set, with weights, are learned from."""
    own, real = prepared.sets[place], (prepared.real, prepared.real_second)

    def learn(index: Tensor, weights: Tensor) -> Tensor:
        found = learned(prepared, own.rows[index], own.second[index], real, weights)
        return found if target is None else label_score.row_scores(found, target)

    return learn


def _kind(sources: list[Source], real: Source) -> Kind:
    kinds: tuple[Kind, ...] = ("outputs", "labels")
    for kind in kinds:
        have = [getattr(source, kind) is not None for source in sources]
        real_has = getattr(real, kind) is not None
        if any(have) and not all(have):
            raise ValueError(
                f"Expected {kind} in every set or in none; got {sum(have)} of {len(have)} with them"
            )
        if real_has and not any(have):
            raise ValueError(f"Expected {kind} in the sets as the real rows have them; got none")
        if kind == "outputs" and any(have) and not real_has:
            raise ValueError("Expected outputs of the real rows as the sets have them; got none")
        if any(have):
            return kind
    return "texts"


def _matrix(values: Any, who: str, column: bool = False) -> Tensor:
    found = np.asarray(values, dtype=np.float64)
    if column and found.ndim == 1:
        found = found[:, None]
    if found.ndim != 2 or found.shape[1] == 0:
        raise ValueError(f"Expected {who} of shape (rows, columns); got {found.shape}")
    if len(found) < 2:
        raise ValueError(f"Expected at least 2 rows in {who}; got {len(found)}")
    if not np.isfinite(found).all():
        row = int(np.flatnonzero(~np.isfinite(found).all(1))[0])
        raise ValueError(f"Expected finite numbers in {who}; row {row} has others")
    return torch.as_tensor(found)


def _units(units: Any, count: int, who: str) -> np.ndarray | None:
    if units is None:
        return None
    _same_length(units, count, who, "units")
    return _numbered(np.asarray(units).astype(str))


def _numbered(units: np.ndarray) -> np.ndarray:
    return np.unique(units, return_inverse=True)[1]


def _same_length(values: Any, count: int, who: str, what: str) -> None:
    if values is None or len(values) != count:
        got = "none" if values is None else len(values)
        raise ValueError(f"Expected {count} {what} in {who}; got {got}")


def _row_digests(rows: Tensor) -> list[bytes]:
    """A digest of each row; equal rows have equal ones."""
    return [hashlib.blake2b(row.tobytes(), digest_size=12).digest() for row in rows.numpy() + 0.0]


def _digest(of_rows: list[bytes], second: Tensor) -> str:
    """One digest of the rows of a set, with their labels or outputs, in any order."""
    beside = second.double().numpy().reshape(len(of_rows), -1) + 0.0
    both = sorted(row + more.tobytes() for row, more in zip(of_rows, beside, strict=True))
    return hashlib.blake2b(b"".join(both), digest_size=16).hexdigest()
