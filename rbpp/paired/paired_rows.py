"""Two arrays whose rows belong together, checked for what would make their information infinite or
their estimate a wrong number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rbpp.data.arrays import as_numpy
from rbpp.paired.labels import FEWEST_VALUES

LEAST_ROWS = 50
# Ranks and densities are those of continuous rows: rounding may tie some, not most.
_LEAST_DISTINCT = 0.5
# More ties than that are due to rounding.
_MOST_TIED = 0.1
# Gap between a value and the line through its neighbours, over that between these, in the median:
# near zero where a smooth function links the columns, near one where noise does.
_SMALLEST_GAP = 0.02
# The median of |u − (v + w) / 2| of three rounding errors is 0.24 of a step; noise of a third of a
# step makes it this.
_ROUNDING_ALONE = 0.33
# Gaps of so many medians part classes, of so many rows; more classes than that are too many.
_CLUMP_GAP, _CLUMP_ROWS, _MOST_CLUMPS = 100, 5, 8
# A repeated row may be held out and fitted to at once.
_MOST_REPEATED = 0.01
# Correlation matrices with a smaller eigenvalue are singular up to rounding.
_LEAST_EIGENVALUE = 1e-10
# Sizes whose squares, summed over rows, neither overflow nor vanish.
_SIZES = 1e-100, 1e100


def paired_rows(x: Any, y: Any) -> tuple[Tensor, int]:
    """The joint rows (n, d) in float64 with X in the first columns, and the dimension of X.

    Raises:
        ValueError: naming the side, row or column: no numbers, no rows by columns, rows that do not
            pair, fewer than 50 or than columns, not finite, a constant or mostly tied column, rows
            repeated, or columns that are linear functions of others.
    """
    sides = _matrix("x", x), _matrix("y", y)
    counts = len(sides[0]), len(sides[1])
    if counts[0] != counts[1]:
        raise ValueError(f"Expected as many rows of x as of y; got {counts[0]} and {counts[1]}")
    if counts[0] < LEAST_ROWS:
        raise ValueError(f"Expected at least {LEAST_ROWS} paired rows; got {counts[0]}")
    columns = sum(side.shape[1] for side in sides)
    if counts[0] <= columns:
        raise ValueError(
            f"Expected more rows than the {columns} columns of x and y together; got {counts[0]}"
        )
    for name, side in zip("xy", sides, strict=True):
        _check_columns(name, side)
    rows = np.hstack(sides)
    distinct = np.unique(rows, axis=0)
    repeated = 1 - len(distinct) / len(rows)
    # Values that tie although their rows differ are rounded: whole rows then tie by themselves.
    tied = any(len(np.unique(column)) < (1 - _MOST_TIED) * len(distinct) for column in distinct.T)
    if repeated > _MOST_REPEATED and not tied:
        raise ValueError(
            f"Expected paired rows that differ; got {repeated:.1%} that repeat another (drop the "
            "copies: held-out rows must not be among those fitted to)"
        )
    _check_rounding(*sides)
    sides = _unrounded(sides[0], 0), _unrounded(sides[1], 1)
    _check_function(*sides)
    _check_clumps(*sides)
    rows = np.hstack(sides)
    _check_dependence(*sides)
    return torch.as_tensor(rows), sides[0].shape[1]


def measured_rows(name: str, values: Any) -> Tensor:
    """One side as (n, d) in float64, beside labels.

    Raises:
        ValueError: as `paired_rows`, of that side alone.
    """
    side = _matrix(name, values)
    if len(side) < LEAST_ROWS:
        raise ValueError(f"Expected at least {LEAST_ROWS} paired rows; got {len(side)}")
    _check_columns(name, side)
    side = _unrounded(side, 0)
    _check_side(name, side)
    return torch.as_tensor(side)


def _matrix(name: str, values: Any) -> np.ndarray:
    try:
        array = as_numpy(values)
    except ValueError:
        raise ValueError(f"Expected {name} of rows of one length; got ragged rows") from None
    if array.dtype.kind not in "fiu":
        raise ValueError(f"Expected {name} of real numbers; got dtype {array.dtype}")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"Expected {name} of shape (n, d) or (n,); got {array.shape}")
    array = array.astype(np.float64)
    wrong = np.argwhere(~np.isfinite(array))
    if len(wrong):
        row, column = wrong[0]
        raise ValueError(
            f"Expected finite {name}; got {array[row, column]} in row {row}, column {column} "
            f"({len(wrong)} such values)"
        )
    return array


def _check_columns(name: str, side: np.ndarray) -> None:
    least, most = _SIZES
    for column, values in enumerate(side.T):
        size = np.abs(values).max()
        if size > most or 0 < size < least:
            raise ValueError(
                f"Expected values of {name} between {least:g} and {most:g} in size; got up to "
                f"{size:g} in column {column}: their information is the same in another unit"
            )
        distinct = len(np.unique(values))
        if distinct == 1 or np.ptp(values) <= 1e-12 * size:
            raise ValueError(
                f"Expected {name} to vary in every column; got {values[0]:g} throughout column "
                f"{column}"
            )
        if distinct < FEWEST_VALUES and distinct < _LEAST_DISTINCT * len(values):
            raise ValueError(
                f"Expected continuous columns of {name}; got {distinct} distinct values in the "
                f"{len(values)} rows of column {column}: discrete rows need a count of their joint "
                "values, not a density"
            )


def _rounding(values: np.ndarray) -> np.ndarray | None:
    """Distance (n,) of the values of a rounded column from the next; None where few are tied.

    The values beside a value are as near as the rounding allows.
    """
    distinct, place = np.unique(values, return_inverse=True)
    if len(distinct) > (1 - _MOST_TIED) * len(values):
        return None
    step = np.diff(distinct)
    return np.minimum(np.r_[np.inf, step], np.r_[step, np.inf])[place.reshape(-1)]


def _unrounded(side: np.ndarray, place: int) -> np.ndarray:
    """Rounded columns with uniform noise of the rounding's width, which information forgives.

    A tie says that two values are within a step of each other. Without the noise it would say that
    they are equal, and the density would be infinite.
    """
    found = side.copy()
    random = np.random.default_rng(place)
    for column, values in enumerate(side.T):
        if (width := _rounding(values)) is not None:
            noise = random.uniform(-0.5, 0.5, len(values))
            found[:, column] = values + noise * np.median(width)
    return found


def _check_rounding(x: np.ndarray, y: np.ndarray) -> None:
    """Refuse a rounded column that one of the other side gives up to its rounding."""
    for name, column, cause, values in _beside_one_column(x, y):
        if (width := _rounding(values)) is None:
            continue
        away, _ = _off_the_line(cause, values)
        # Of rounding alone: three independent uniform errors, one against the mean of two.
        common = np.unique(values, return_counts=True)[1].max() > len(values) / 2
        if not common and np.median(away) < _ROUNDING_ALONE * np.median(width):
            raise ValueError(
                f"Expected x and y that differ by more than their rounding; got {column} as a "
                f"function of {name} up to it: give more digits"
            )


def _beside_one_column(
    x: np.ndarray, y: np.ndarray
) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Every column of one side beside the other side, where that is a single column."""
    for name, other, cause, effect in (("x", "y", x, y), ("y", "x", y, x)):
        if cause.shape[1] == 1:
            for column, values in enumerate(effect.T):
                yield name, f"column {column} of {other}", cause[:, 0], values


def _check_clumps(x: np.ndarray, y: np.ndarray) -> None:
    """Refuse two columns that are each many classes with a little noise: no mixture is so large."""
    if x.shape[1] > 1 or y.shape[1] > 1:
        return
    counts = []
    for side in (x, y):
        ordered = np.sort(side[:, 0])
        gap = np.diff(ordered)
        cut = np.flatnonzero(gap > _CLUMP_GAP * np.median(gap))
        size = np.diff(np.r_[0, cut + 1, len(ordered)])
        # The middle of a heavy tail is one large clump.
        held = size[size >= _CLUMP_ROWS].sum() > 0.9 * len(ordered) > 2 * size.max()
        counts.append(len(size) if held else 1)
    if min(counts) > _MOST_CLUMPS:
        raise ValueError(
            f"Expected continuous x and y; got values around {counts[0]} and {counts[1]} classes: "
            "give the classes as labels"
        )


def _off_the_line(cause: np.ndarray, effect: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far each value is off the line between its neighbours by the cause, and their gap."""
    order = np.argsort(cause, kind="stable")
    place, values = cause[order], effect[order]
    share = (place[1:-1] - place[:-2]) / np.maximum(place[2:] - place[:-2], 1e-300)
    gap = values[2:] - values[:-2]
    return np.abs(values[1:-1] - values[:-2] - share * gap), np.abs(gap)


def _check_function(x: np.ndarray, y: np.ndarray) -> None:
    """Refuse a column of one side that is a function of the other, of one column, without noise."""
    for name, column, cause, values in _beside_one_column(x, y):
        away, gap = _off_the_line(cause, values)
        if np.median(away / np.maximum(gap, 1e-300)) < _SMALLEST_GAP:
            raise ValueError(
                f"Expected x and y with a joint density; got {column} as a function of {name}: "
                "their mutual information is infinite (add the noise that separates them)"
            )


def _check_dependence(x: np.ndarray, y: np.ndarray) -> None:
    for name, side in (("x", x), ("y", y)):
        _check_side(name, side)
    if _is_singular(np.hstack([x, y])):
        raise ValueError(
            "Expected x and y with a joint density; got a linear function of x that equals one of "
            "y: their mutual information is infinite (add the noise that separates them)"
        )


def _check_side(name: str, side: np.ndarray) -> None:
    if _is_singular(side):
        raise ValueError(
            f"Expected columns of {name} of which none is a linear function of the others; got "
            "such a column, without which the information is the same: drop it"
        )


def _is_singular(side: np.ndarray) -> bool:
    # Relative to the column's own size: constants were refused, so no division by zero.
    standardised = (side - side.mean(0)) / side.std(0)
    smallest = np.linalg.eigvalsh(standardised.T @ standardised / len(side))[0]
    return bool(smallest < _LEAST_EIGENVALUE)
