"""The log density ratio of two samples, cross-fitted so that it reads 0 for one distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri

from rbpp.assessment.adaptation import FOLDS, candidates
from rbpp.assessment.pooled_mixture import fit_mixture
from rbpp.assessment.weighted_rows import Array, WeightedRows, weighted_rows

# Two independent units of a sample in every fold.
FEWEST_UNITS = 2 * FOLDS
MOST_COMPONENTS = 8
ROWS_PER_COMPONENT = 3
# Beyond this a candidate says nothing more: the lower bound stops at log n long before it.
LIMIT = 30.0
# Of the logistic regressions: the largest coefficient, and the penalty of squares.
LARGEST = 1.5
RIDGE = 1.0
# Newton steps at most, and sweeps over the coefficients in each.
_STEPS, _SWEEPS = 12, 25


@dataclass(frozen=True)
class LogRatio:
    """log p/q of two samples at their own rows, each value by a fit that did not see the row.

    Attributes:
        first: rows, units and weights of the sample of P.
        second: of the sample of Q.
        at_first: (J, n1), log p/q at rows of P: J = 0 by fits on 7/8 of the rows, the others by
            fits on 3/7 of those, for the learning curve.
        at_second: (J, n2), log p/q at rows of Q.
        occupancy: (2, K), rows of each sample in each component of the pooled mixture.
    """

    first: WeightedRows
    second: WeightedRows
    at_first: Array
    at_second: Array
    occupancy: Array

    @property
    def dimension(self) -> int:
        """d, the number of columns."""
        return self.first.rows.shape[1]

    def reversed(self) -> LogRatio:
        """log q/p."""
        return LogRatio(
            self.second, self.first, -self.at_second, -self.at_first, self.occupancy[::-1]
        )

    @property
    def resolution(self) -> float:
        """ρ = min(1, d max(2, K)(1/n1 + 1/n2)/2) nats: differences of this size can stay unseen.

        It is the mean Kullback–Leibler divergence by which the means of K components, estimated
        from n1 and n2 rows of one distribution, differ.
        """
        components = max(2, self.occupancy.shape[1])
        rate = 1 / self.first.count + 1 / self.second.count
        return min(1.0, self.dimension * components * rate / 2)


def log_ratio(first: Any, second: Any, seed: int = 0) -> LogRatio:
    """Fit log p/q of two samples of rows.

    One mixture is fitted to the pooled rows without labels and adapted to each sample in closed
    form, more and less flexibly, also on normal scores of each column and on the distance from the
    centre. A logistic regression with coefficients in [0, 1.5] combines these log ratios. All
    values are out of fold, by folds of whole units.

    Args:
        first, second: rows (n1, d) of P and (n2, d) of Q; each an array or a `Sample`.
        seed: of folds and of the pooled mixture's start.

    Raises:
        ValueError: for rows, weights or units of a wrong shape, or fewer than 16 units in a sample.

    >>> rows = np.random.default_rng(0).standard_normal((400, 2))
    >>> ratio = log_ratio(rows[:200], rows[200:])
    >>> bool(abs(ratio.at_first[0].mean()) < 0.05)
    True
    """
    one, other = weighted_rows("first", first), weighted_rows("second", second)
    if one.rows.shape[1] != other.rows.shape[1]:
        raise ValueError(
            "Expected two samples of one dimension; got "
            f"{one.rows.shape[1]} and {other.rows.shape[1]}"
        )
    for name, sample in (("first", one), ("second", other)):
        if sample.units < FEWEST_UNITS:
            raise ValueError(
                f"Expected {FEWEST_UNITS} or more independent units in {name}; got {sample.units}"
            )
    # One seed for both sides: row i of two paired files, a row and its rewrite, share a fold.
    fold = np.concatenate(
        [sample.folds(FOLDS, np.random.default_rng([seed, 0])) for sample in (one, other)]
    )
    generator = np.random.default_rng([seed, 1])
    source = np.repeat([0, 1], [len(one.rows), len(other.rows)])
    weight = np.concatenate([one.weight, other.weight])
    pooled = np.concatenate([one.rows, other.rows])
    rows = whitened(pooled, weight)
    count = one.count + other.count
    components = int(count / (ROWS_PER_COMPONENT * max(rows.shape[1], 4)))
    components = min(MOST_COMPONENTS, max(1, components))
    radius = np.log(np.sqrt(np.square(rows).sum(1)) + 1e-9)[:, None]
    scores = whitened(normal_scores(pooled, weight), weight)
    views = ((rows, components), (scores, components), (whitened(radius, weight), 3))
    found = []
    for index, (view, most) in enumerate(views):
        for size in sorted({1, most}):
            mixture = fit_mixture(view, weight, size, generator, greedy=True)
            values, mass = candidates(mixture, view, source, fold, weight)
            found.append(values)
            if index == 0:
                occupancy = mass
    features = np.clip(np.concatenate(found, axis=2), -LIMIT, LIMIT)
    label = np.where(source == 0, 1.0, -1.0)
    others = (fold != np.arange(FOLDS)[:, None]) * weight
    offset = math.log(one.weight.sum() / other.weight.sum())
    beta = stack(features, label, others, offset)
    values = np.einsum("jnc,jnc->jn", features, beta[:, fold])
    return LogRatio(one, other, values[:, source == 0], values[:, source == 1], occupancy)


def whitened(rows: Array, weight: Array) -> Array:
    """(n, at most d): rows on their principal axes at variance 1; axes without variance go."""
    return whitened_with_volume(rows, weight)[0]


def whitened_with_volume(rows: Array, weight: Array) -> tuple[Array, float]:
    """Whitened rows, and log |det| of the map back from the axes that are kept."""
    share = weight / weight.sum()
    centred = rows - share @ rows
    # In units of each column first: columns of very different scales lose no digits.
    scale = np.sqrt(share @ np.square(centred))
    moving = scale > 1e-12 * np.abs(rows).max(axis=0, initial=1e-300)
    if not moving.any():
        return np.zeros((len(rows), 1)), -np.inf
    centred = centred[:, moving] / scale[moving]
    values, axes = np.linalg.eigh((centred * share[:, None]).T @ centred)
    # An eigenvector's sign is arbitrary, and must not hang on the order of rows.
    axes = axes * np.where((1 / np.sqrt(1 + np.arange(len(values)))) @ axes < 0, -1.0, 1.0)
    kept = values > 1e-10 * values.max()
    log_volume = float(np.log(scale[moving]).sum() + 0.5 * np.log(values[kept]).sum())
    return centred @ (axes[:, kept] / np.sqrt(values[kept])), log_volume


def normal_scores(rows: Array, weight: Array) -> Array:
    """Φ⁻¹ of each column's weighted ranks; equal values share their middle rank."""
    found = np.empty_like(rows)
    for axis in range(rows.shape[1]):
        _, inverse = np.unique(rows[:, axis], return_inverse=True)
        mass = np.bincount(inverse.reshape(-1), weights=weight)
        middle = np.cumsum(mass) - mass / 2
        found[:, axis] = ndtri(middle / mass.sum())[inverse.reshape(-1)]
    return found


def stack(features: Array, label: Array, weight: Array, offset: float) -> Array:
    """Coefficients in [0, 1.5] of penalized logistic regressions without an intercept.

    min Σ_i w_i log(1 + exp(−y_i (o + x_iᵀβ))) + |β|²/2 by projected Newton steps. A coefficient
    below 0 would say that a log ratio misleads out of fold: then it has no part.

    Args:
        features: (J, n, C).
        label: (n,), 1 or −1.
        weight: (B, n), a problem for each row of it.
        offset: log odds of label 1 where all features are 0.

    Returns:
        (J, B, C).
    """
    parts, _, count = features.shape
    problems = len(weight)
    beta = np.zeros((parts, problems, count))
    loss = _loss(features, label, weight, offset, beta)
    for _ in range(_STEPS):
        log_odds = offset + beta @ features.transpose(0, 2, 1)
        miss = weight / (1 + np.exp(np.clip(label * log_odds, -500, 500)))
        gradient = RIDGE * beta - (miss * label) @ features
        curvature = miss * (1 - miss / np.where(weight > 0, weight, 1))
        hessian = np.stack(
            [
                [features[j].T @ (features[j] * curvature[j, b][:, None]) for b in range(problems)]
                for j in range(parts)
            ]
        )
        hessian = hessian + RIDGE * np.eye(count)
        step = _box_step(hessian, gradient, beta)
        size = np.ones((parts, problems))
        for _ in range(6):
            trial = np.clip(beta + size[..., None] * step, 0, LARGEST)
            tried = _loss(features, label, weight, offset, trial)
            worse = tried > loss + 1e-9
            if not worse.any():
                break
            size = np.where(worse, size / 3, size)
        moved = np.where(worse[..., None], beta, trial)
        gain = float((loss - np.where(worse, loss, tried)).max())
        beta, loss = moved, np.where(worse, loss, tried)
        if gain < 1e-4:
            break
    return beta


def _loss(features: Array, label: Array, weight: Array, offset: float, beta: Array) -> Array:
    log_odds = label * (offset + beta @ features.transpose(0, 2, 1))
    return (np.logaddexp(0, -log_odds) * weight).sum(-1) + RIDGE / 2 * np.square(beta).sum(-1)


def _box_step(hessian: Array, gradient: Array, beta: Array) -> Array:
    """The step to the minimum of the quadratic model inside the box, by coordinate descent."""
    step = np.zeros_like(beta)
    slope = gradient.copy()
    diagonal = np.diagonal(hessian, axis1=-2, axis2=-1)
    for _ in range(_SWEEPS):
        largest = 0.0
        for index in range(beta.shape[-1]):
            here = beta[..., index] + step[..., index]
            moved = np.clip(here - slope[..., index] / diagonal[..., index], 0, LARGEST) - here
            step[..., index] += moved
            slope += hessian[..., index] * moved[..., None]
            largest = max(largest, float(np.abs(moved).max()))
        if largest < 1e-3:
            break
    return step
