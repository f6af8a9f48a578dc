"""Copies: synthetic rows that repeat each other, or the rows that they were made from.

Repeated rows are one row's evidence: forty copies of a task are no forty tasks off the target. Rows
of the synthetic source that stand nearer to an anchor than real rows do to each other are copies or
paraphrases of it; how often real rows do so by chance is what held-out real rows show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import false_discovery_control

from rbpp.assessment.neighbours import distances, nearest, unit_length

Array = NDArray[np.float64]

# Two rows are near copies below this part of the median distance of a real row to its nearest one.
NEAR = 0.35
# Distances of unit-length rows in float32 are this uncertain: below it, the same row.
_SAME = 2e-3
_BLOCK = 512


@dataclass(frozen=True)
class Copies:
    """Copies within one source.

    Attributes:
        group: which rows are copies of each other, an index per row (n,).
        weights: 1 / rows of the group (n,); they add up to the number of groups.
        distinct: number of groups.
        exact, near: share of the rows that repeat an earlier row exactly, and at all.
        largest: rows of the largest group.
    """

    group: NDArray[np.int64]
    weights: Array
    distinct: int
    exact: float
    near: float
    largest: int

    @classmethod
    def of(cls, group: NDArray[np.int64], exact: float | None = None) -> Copies:
        """Of groups numbered from 0 (n,); repeats are exact, or this share of them is."""
        sizes = np.bincount(group)
        near = 1 - len(sizes) / len(group)
        exact = near if exact is None else exact
        return cls(group, 1 / sizes[group], len(sizes), exact, near, int(sizes.max()))


@dataclass(frozen=True)
class CopiedRows:
    """Synthetic rows that repeat real ones.

    Attributes:
        source: index of the real row that is nearest to every synthetic one (n,).
        exact: whether it is the same row (n,).
        p_value: share of real rows that are as near to another (n,).
        false_discovery_rate: Benjamini–Hochberg q of every row (n,).
        copied_share: of the synthetic rows, nearer to an anchor than 95 % of real rows are.
        reference_share: `copied_share` of held-out real rows; nan without them.
    """

    source: NDArray[np.int64]
    exact: NDArray[np.bool_]
    p_value: Array
    false_discovery_rate: Array
    copied_share: float
    reference_share: float

    def kind(self, rate: float = 0.1) -> list[str]:
        """What every row is at this false-discovery rate: "copy", "paraphrase" or ""."""
        return [
            "copy" if same else "paraphrase" if found <= rate else ""
            for same, found in zip(self.exact, self.false_discovery_rate, strict=True)
        ]


def exact_copies(rows: np.ndarray) -> Copies:
    """Groups of equal rows (n, D).

    >>> exact_copies(np.array([[1.0], [2.0], [1.0]])).weights
    array([0.5, 1. , 0.5])
    """
    return Copies.of(index_of_equal(rows))


def copies_within(
    rows: np.ndarray, reference: np.ndarray, texts: Sequence[str] | None = None
) -> Copies:
    """Groups of copies among rows, and the weights that make every group one row.

    Args:
        rows: (n, D).
        reference: real rows (m, D), whose distances to each other say what near is.
        texts: of the rows; equal texts are copies whatever their vectors.

    Raises:
        ValueError: if rows are not finite, or there are fewer than three of the reference.
    """
    rows, reference = unit_length(rows), _distinct(unit_length(reference))
    if len(reference) < 3:
        raise ValueError(f"Expected 3 distinct reference rows or more; got {len(reference)}")
    if texts is not None and len(texts) != len(rows):
        raise ValueError(f"Expected {len(rows)} texts; got {len(texts)}")
    radius = NEAR * float(np.median(nearest(reference, reference, 1, own=True)[0]))
    exact = index_of_equal(rows if texts is None else texts)
    # Chains of near copies would join what is far apart: exact copies are merged first, and near
    # ones by distances between rows.
    first, second = _pairs(rows, max(radius, _SAME))
    order = np.argsort(exact, kind="stable")
    same = exact[order][1:] == exact[order][:-1]
    first = np.concatenate([first, order[1:][same]])
    second = np.concatenate([second, order[:-1][same]])
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(len(rows), len(rows)))
    group = connected_components(graph, directed=False)[1].astype(np.int64)
    return Copies.of(group, exact=1 - len(np.unique(exact)) / len(rows))


def copied_rows(
    synthetic: np.ndarray, anchors: np.ndarray, held_out: np.ndarray | None = None
) -> CopiedRows:
    """Synthetic rows nearer to an anchor than real rows are to each other.

    p(s) = (1 + #{real rows as near to another as s to its anchor}) / (1 + real rows). The real rows
    are the held-out ones, at their distance to the nearest anchor; without them the anchors, each
    at its distance to the nearest other one.

    Args:
        synthetic: (n, D).
        anchors: real rows that the synthetic ones were made from (a, D), 3 or more.
        held_out: real rows that the generator has not seen (m, D), such as the target's.

    Raises:
        ValueError: if rows are not finite, or there are fewer than 3 anchors.

    Benjamini and Hochberg, Controlling the false discovery rate, JRSS B 57 (1995).
    """
    synthetic, anchors = unit_length(synthetic), unit_length(anchors)
    if len(anchors) < 3:
        raise ValueError(f"Expected 3 anchors or more; got {len(anchors)}")
    near, source = nearest(synthetic, anchors, 1)
    distance = near[:, 0].astype(float)
    # Repeated anchors are no measure of how near two tasks come.
    own = _distinct(anchors)
    among = nearest(own, own, 1, own=True)[0][:, 0] if len(own) > 1 else np.array([np.inf])
    reference_share = float("nan")
    real = among
    if held_out is not None and len(held_out):
        real = nearest(unit_length(held_out), anchors, 1)[0][:, 0]
        reference_share = float((real < np.quantile(among, 0.05)).mean())
    ordered = np.sort(real)
    p_value = (1 + np.searchsorted(ordered, distance, side="right")) / (1 + len(ordered))
    return CopiedRows(
        source=source[:, 0],
        exact=distance < _SAME,
        p_value=p_value,
        false_discovery_rate=false_discovery_control(p_value),
        copied_share=float((distance < np.quantile(among, 0.05)).mean()),
        reference_share=reference_share,
    )


def same_rows(first: Sequence[str] | np.ndarray, second: Sequence[str] | np.ndarray) -> bool:
    """Whether two sources hold the same rows, in any order, however often each.

    >>> same_rows(["a", "b"], ["b", "a", "a"]), same_rows(["a", "b"], ["a", "c"])
    (True, False)
    """
    return set(_keys(first)) == set(_keys(second))


def index_of_equal(rows: Sequence[str] | np.ndarray) -> NDArray[np.int64]:
    """The same number for equal rows (n,), from 0 in order of first appearance.

    >>> index_of_equal(["b", "a", "b"])
    array([0, 1, 0])
    """
    place: dict[bytes, int] = {}
    return np.array([place.setdefault(key, len(place)) for key in _keys(rows)], dtype=np.int64)


def _keys(rows: Sequence[str] | np.ndarray) -> list[bytes]:
    if isinstance(rows, np.ndarray) and rows.dtype != object and rows.ndim == 2:
        # Minus zero and zero are one value.
        return [row.tobytes() for row in np.ascontiguousarray(rows) + 0.0]
    return [str(row).encode("utf-8", "surrogatepass") for row in rows]


def _distinct(rows: np.ndarray) -> np.ndarray:
    return rows[np.unique(index_of_equal(rows), return_index=True)[1]]


def _pairs(rows: np.ndarray, radius: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of rows nearer than a radius, each once."""
    first, second = [], []
    for start in range(0, len(rows), _BLOCK):
        near = distances(rows[start : start + _BLOCK], rows[start:]) < radius
        one, other = np.nonzero(near)
        kept = other > one
        first.append(one[kept] + start)
        second.append(other[kept] + start)
    return np.concatenate(first), np.concatenate(second)
