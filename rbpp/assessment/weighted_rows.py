"""Rows with weights and independent units, checked once: what every estimator here begins with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True)
class WeightedRows:
    """Rows (n, d), how much each counts, and which independent unit each belongs to.

    Attributes:
        rows: (n, d), float64.
        unit: (n,), 0 … units − 1. Units are independent of each other; rows of one need not be.
        weight: (n,), above 0: a row of weight ½ counts as half a row.
    """

    rows: Array
    unit: Index
    weight: Array

    @property
    def units(self) -> int:
        """Number of independent units: the sample size that limits every answer."""
        return int(self.unit.max(initial=-1)) + 1

    @property
    def count(self) -> float:
        """Number of independent units, and at most the sum of weights."""
        return min(float(self.units), float(self.weight.sum()))

    def folds(self, folds: int, generator: np.random.Generator) -> Index:
        """(n,): a fold for every row, whole units to folds of nearly equal numbers of units."""
        of_unit = np.empty(self.units, dtype=np.int64)
        of_unit[generator.permutation(self.units)] = np.arange(self.units) % folds
        return of_unit[self.unit]

    def bootstrap(self, draws: int, generator: np.random.Generator) -> Array:
        """(draws, n): weights of the Bayesian bootstrap over units; every row of it sums to 1."""
        found = generator.standard_exponential((draws, self.units))[:, self.unit] * self.weight
        return found / found.sum(1, keepdims=True)


def weighted_rows(name: str, rows: Any, unit: Any = None, weight: Any = None) -> WeightedRows:
    """Check rows, and drop those of weight 0.

    Raises:
        ValueError: naming the argument that is not what it has to be.

    >>> weighted_rows("first", [[1.0, float("nan")]])
    Traceback (most recent call last):
    ValueError: Expected first of finite numbers; got 1 that are not
    """
    found = np.asarray(rows, dtype=np.float64)
    if found.ndim != 2 or found.shape[1] < 1:
        raise ValueError(f"Expected {name} of shape (rows, dimensions); got shape {found.shape}")
    bad = int((~np.isfinite(found)).sum())
    if bad:
        raise ValueError(f"Expected {name} of finite numbers; got {bad} that are not")
    size = len(found)
    weights = np.ones(size) if weight is None else np.asarray(weight, dtype=np.float64)
    labels = np.arange(size) if unit is None else np.asarray(unit)
    for kind, value in (("weight", weights), ("unit", labels)):
        if value.shape != (size,):
            raise ValueError(
                f"Expected one {kind} for each of the {size} rows of {name}; "
                f"got shape {value.shape}"
            )
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(f"Expected finite weights of 0 or more for {name}; got {weights.min():g}")
    kept = weights > 0
    # Numbered in order of first appearance: dropped copies then leave every draw as it was.
    _, first, inverse = np.unique(labels[kept], return_index=True, return_inverse=True)
    numbers = np.argsort(np.argsort(first))[inverse.reshape(-1)]
    return WeightedRows(found[kept], numbers.astype(np.int64), weights[kept])
