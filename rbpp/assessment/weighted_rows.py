"""Rows with weights and independent units, and draws: what every estimator here begins with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbpp import validate

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """Rows as they are given, and what is known of them; `weighted_rows` checks it.

    Attributes:
        rows: (n, d).
        unit: labels (n,) of independent units, such as the prompt that a row comes from; None
            where each row is one.
        weight: what each row counts (n,); None where each counts 1. Copies of one row may share a
            weight of 1.
    """

    rows: Any
    unit: Any = None
    weight: Any = None

    @classmethod
    def of(cls, rows: Any) -> Sample:
        """The sample, or that of an array."""
        return rows if isinstance(rows, cls) else cls(rows)


@dataclass(frozen=True)
class Draws:
    """Independent draws of every number: how many of all chains, and what decides them."""

    count: int = 1000
    seed: int = 0
    chains: int = 1

    @classmethod
    def per_chain(cls, chains: int = 4, draws: int = 250, seed: int = 0) -> Draws:
        """So many of each chain.

        Raises:
            ValueError: if there is no chain, or fewer than two draws of each.
        """
        validate.count("chains", chains)
        return cls(chains * validate.count("draws", draws, least=2), seed, chains)

    @property
    def shape(self) -> tuple[int, int]:
        """(chain, draw)."""
        return self.chains, self.count // self.chains

    def enough(self) -> Draws:
        """The same, no fewer than `LEAST_DRAWS`."""
        return replace(self, count=max(LEAST_DRAWS, self.count))


DRAWS = Draws()
# Fewer have no quantiles at 2 and 3 %, which divergences and entropies read off.
LEAST_DRAWS = 100
PROBABILITY = 0.94


def interval(draws: Array) -> tuple[float, float]:
    """Ends of the equal-tailed 94 % interval of draws (draws,)."""
    lower, upper = np.quantile(draws, [(1 - PROBABILITY) / 2, (1 + PROBABILITY) / 2])
    return float(lower), float(upper)


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


def weighted_rows(name: str, sample: Any) -> WeightedRows:
    """Check a `Sample` or an array, and drop rows of weight 0.

    Raises:
        ValueError: naming the argument that is not what it has to be.

    >>> weighted_rows("first", [[1.0, float("nan")]])
    Traceback (most recent call last):
    ValueError: Expected first of finite numbers; got 1 that are not
    """
    sample = Sample.of(sample)
    found = np.asarray(sample.rows, dtype=np.float64)
    if found.ndim != 2 or found.shape[1] < 1:
        raise ValueError(f"Expected {name} of shape (rows, dimensions); got shape {found.shape}")
    bad = int((~np.isfinite(found)).sum())
    if bad:
        raise ValueError(f"Expected {name} of finite numbers; got {bad} that are not")
    size = len(found)
    weights, labels = np.ones(size), np.arange(size)
    if sample.weight is not None:
        weights = np.asarray(sample.weight, dtype=np.float64)
    if sample.unit is not None:
        labels = np.asarray(sample.unit)
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
