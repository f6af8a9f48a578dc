"""Scores of rows among a reference's own: how far a row is from where the reference's rows are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from rbpp.assessment.copies import index_of_equal
from rbpp.assessment.grid import HIGHEST, LOWEST
from rbpp.assessment.neighbours import kth_distance, neighbour_shares, unit_length
from rbpp.assessment.style import FINE, auc, auc_error, near_halves, style_offset
from rbpp.assessment.weighted_rows import Array, Sample

# The neighbour whose distance is a row's distance from the task, and the part of the pool of the
# coarse contrast, and of the finer one that joins where no style is left.
NEIGHBOUR, COARSE, FINER = 5, 0.2, 0.05
# An AUC of the near halves this far from ½ is no style yet; _STYLE_RANGE further it is full.
_NO_STYLE, _STYLE_RANGE = 0.06, 0.15
LEAST_ROWS = 10


@dataclass(frozen=True)
class Scores:
    """Normal scores of two sources, those of the reference standard normal.

    Attributes:
        reference: of the reference's rows (m,).
        rows: of the rows in question (n,), higher for what is further from the reference.
        style: from 0, no style is left between the sources, to 1.
        separation, saturation: AUC of the near halves of both sources by the finest and by the
            coarse contrast; ½ where they are one.
    """

    reference: Array
    rows: Array
    style: float
    separation: float = 0.5
    saturation: float = 0.5


def neighbour(count: int) -> int:
    """The neighbour whose distance is a row's, among so many: the fifth, or a sixtieth of them.

    With more rows a fixed neighbour looks at ever finer places, which a style saturates: with 1,000
    rows a source the fifth read 27 % of near content where nothing was planted, the 16th 5 %.

    >>> neighbour(300), neighbour(3000), neighbour(6)
    (5, 50, 3)
    """
    return min(max(NEIGHBOUR, count // 60), max(1, count // 2))


def off_task_scores(target: np.ndarray, synthetic: np.ndarray) -> Scores:
    """Scores of rows as `off_task` has them, of rows that are at unit length already."""
    return score_rows(target, without_style(target, synthetic))


def without_style(target: np.ndarray, synthetic: np.ndarray) -> np.ndarray:
    """Synthetic rows less half of their style offset, float32.

    The near halves that show a style differ in content too, and the whole offset takes that along:
    over 26 pairs of authors clean rows read .032 off the task with half of it and .041 with the
    whole, at the same error of far content, and one pair had half of its rows uncovered by it.
    """
    return (synthetic - style_offset(target, synthetic)[0] / 2).astype(np.float32)


def score_rows(
    reference: np.ndarray,
    rows: np.ndarray,
    rank: int = 0,
    weights: tuple[np.ndarray, np.ndarray] | None = None,
) -> Scores:
    """Scores of rows, style taken away.

    Args:
        reference: (m, D).
        rows: (n, D).
        rank: the neighbour of the reference's own distances, if it is not the rows' own.
        weights: of the reference's rows and of the others.
    """
    k = neighbour(len(reference))
    z = _normal_scores(
        kth_distance(reference, reference, min(max(rank, k), len(reference) - 1), own=True),
        kth_distance(rows, reference, k),
    )
    of_reference, of_rows = neighbour_shares(reference, rows, (COARSE, FINER, FINE), weights)
    coarse = _normal_scores(of_reference[0], of_rows[0])
    finer = _normal_scores(of_reference[1], of_rows[1])
    first, second = near_halves(reference, rows)
    apart = auc(of_reference[2][first], of_rows[2][second])
    saturation = auc(of_reference[0][first], of_rows[0][second])
    noise = 2 * auc_error(max(1, len(reference) // 2), max(1, len(rows) // 2))
    # Below a half rows lie next to the reference's own, as its copies do: no style does that.
    style = float(np.clip((apart - 0.5 - max(_NO_STYLE, noise)) / _STYLE_RANGE, 0, 1))
    joint = [z[i] + coarse[i] + 0.5 * (1 - style) * finer[i] for i in range(2)]
    spread = max(float(joint[0].std()), 1e-9)
    clipped = [np.clip(one / spread, LOWEST, HIGHEST) for one in joint]
    return Scores(clipped[0], clipped[1], style, apart, saturation)


def _normal_scores(reference: np.ndarray, rows: np.ndarray) -> tuple[Array, Array]:
    """Scores by rank among the reference's values, linear beyond its 95 % point.

    Ranks end at 1 / (m + 1) and forget how far out a row is.
    """
    count = len(reference)
    ordered = np.sort(reference)
    middle, edge = np.quantile(ordered, [0.5, 0.95])
    slope = ndtri(0.95) / max(float(edge - middle), 1e-9)

    def placed(values: np.ndarray) -> Array:
        low = np.searchsorted(ordered, values, side="left")
        high = np.searchsorted(ordered, values, side="right")
        inside = ndtri(np.clip((low + high) / (2 * count), 0.5 / count, 1 - 0.5 / count))
        far = ndtri(0.95) + slope * (values - edge)
        return np.clip(np.where(values > edge, far, inside), LOWEST, HIGHEST)

    return placed(reference), placed(rows)


def checked_rows(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of both sources at unit length.

    Raises:
        ValueError: if they are not finite, of different dimensions, or fewer than 10 a source.
    """
    for rows in (first, second):
        if np.ndim(rows) != 2 or len(rows) < LEAST_ROWS:
            raise ValueError(
                f"Expected rows (n, D), n of {LEAST_ROWS} or more; got shape {np.shape(rows)}"
            )
    if np.shape(first)[1] != np.shape(second)[1]:
        raise ValueError(
            f"Expected rows of one dimension; got {np.shape(first)[1]} and {np.shape(second)[1]}"
        )
    return unit_length(first), unit_length(second)


@dataclass(frozen=True)
class Distinct:
    """Rows without their copies, among which a row would look foreign to every other source.

    Attributes:
        rows: distinct ones (d, D).
        place: of every row among them (n,).
        weight: sum of those of the copies (d,).
        unit: that of the first copy of each (d,), or None.
    """

    rows: np.ndarray
    place: NDArray[np.int64]
    weight: Array
    unit: np.ndarray | None = None

    @classmethod
    def of(cls, rows: np.ndarray, sample: Sample | None = None) -> Distinct:
        """Of checked rows (n, D), with weights and units of the sample.

        Raises:
            ValueError: if weights are not finite and above 0, one per row.
        """
        count, sample = len(rows), sample or Sample(rows)
        weight = np.ones(count) if sample.weight is None else np.asarray(sample.weight, float)
        if weight.shape != (count,) or not np.isfinite(weight).all() or (weight <= 0).any():
            raise ValueError(f"Expected {count} finite weights above 0; got shape {weight.shape}")
        place = index_of_equal(rows)
        first = np.unique(place, return_index=True)[1]
        unit = None if sample.unit is None else np.asarray(sample.unit)[first]
        return cls(rows[first], place, np.bincount(place, weight).astype(np.float64), unit)


def design_effect(scores: np.ndarray, units: np.ndarray | None) -> float:
    """How many rows tell as much as one independent row, at least 1, after Rao and Scott.

    The variance of the sum of scores over units, over what it were if rows were independent.

    Args:
        scores: (n,).
        units: index of the independent unit of every row (n,); None if each row is one.

    Rao and Scott, The analysis of categorical data from complex sample surveys, JASA 76 (1981).

    >>> design_effect(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0, 0, 1, 1]))
    2.0
    """
    if units is None:
        return 1.0
    centred = scores - scores.mean()
    by_unit = np.bincount(np.unique(units, return_inverse=True)[1].reshape(-1), centred)
    return max(1.0, float(np.square(by_unit).sum() / max(np.square(centred).sum(), 1e-300)))
