"""Candidate log density ratios: a pooled mixture adapted to each of two sources in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rbpp.assessment.pooled_mixture import Mixture, log_kernel, log_sum_exp, pull
from rbpp.assessment.weighted_rows import Array, Index

FOLDS = 8
# What a fit for the rows of fold f sees, as fold numbers after f: all others, and two parts of
# three. 3/7 of the training rows in two ways give the learning curve its second point.
TRAINING = (range(1, 8), range(1, 4), range(4, 7))
# Prior weight, in rows, of the pooled value of a mean.
WEAK = 5.0
PRIOR_WEIGHT = 2.0
PRIOR_SCALE = 10.0


class Statistics(NamedTuple):
    """Sums over the training rows of each fit (J, F), source (2) and component (K).

    Attributes:
        mass: (J, F, 2, K), Σ r.
        pulled: (J, F, 2, K), Σ r u, with u the pull of a Student component.
        first: (J, F, 2, K, d), Σ r u z of the standardized rows z.
        second: (J, F, 2, K, d, d), Σ r u z zᵀ.
    """

    mass: Array
    pulled: Array
    first: Array
    second: Array


def candidates(
    mixture: Mixture, rows: Array, source: Index, fold: Index, weight: Array
) -> tuple[Array, Array]:
    """Out-of-fold log ratios of the mixture adapted to source 0 over that adapted to source 1.

    Each source shrinks to the same pooled values: of one distribution the ratios tend to 0.

    Args:
        mixture: K components fitted to all rows without labels.
        rows: (n, d) rows.
        source: (n,), 0 or 1.
        fold: (n,), 0 … 7.
        weight: (n,).

    Returns:
        (J, n, C): log ratios of C adaptations, of fits on all training folds (J = 0) and on two
        smaller parts; and (2, K): the mass that each source has in each component.
    """
    dimension = rows.shape[1]
    standardized = mixture.standardized(rows)
    squares = np.square(standardized).sum(-1)
    joint = mixture.log_joint(squares)
    member = np.exp(joint - log_sum_exp(joint, 0)) * weight
    pulled = member * pull(squares, mixture.degrees_of_freedom, dimension)
    statistics, occupancy = _sums(standardized, member, pulled, source, fold)
    adapted = _adaptations(mixture, statistics)
    found = np.empty((len(TRAINING), len(rows), len(adapted)))
    for held_out in range(FOLDS):
        chosen = np.flatnonzero(fold == held_out)
        if len(chosen):
            local = standardized[:, chosen], squares[:, chosen]
            for index, one in enumerate(adapted):
                found[:, chosen, index] = one.log_ratio(mixture, *local, held_out)
    return found, occupancy


@dataclass(frozen=True)
class _Adapted:
    """Parameters (J, F, 2, K, …) in each component's standard units; None is the pool's."""

    log_weights: Array | None = None
    shift: Array | None = None
    log_scale: Array | None = None
    inverse_cholesky: Array | None = None
    log_volume: Array | None = None

    def log_ratio(
        self, mixture: Mixture, standardized: Array, squares: Array, held_out: int
    ) -> Array:
        """(J, rows), of the rows of one held-out fold."""
        dimension = standardized.shape[-1]
        weights, squares = mixture.log_weights[None, None], squares[None, None]
        if self.log_weights is not None:
            weights = self.log_weights[:, held_out]
        volume = mixture.log_volume + np.zeros_like(weights)
        if self.inverse_cholesky is not None and self.shift is not None:
            factor = self.inverse_cholesky[:, held_out]
            centred = standardized - self.shift[:, held_out, :, :, None, :]
            squares = np.square(centred @ np.swapaxes(factor, -1, -2)).sum(-1)
        elif self.shift is not None:
            shift = self.shift[:, held_out]
            inner = np.einsum("knd,jskd->jskn", standardized, shift, optimize=True)
            squares = squares - 2 * inner + np.square(shift).sum(-1)[..., None]
        if self.log_scale is not None:
            scale = self.log_scale[:, held_out]
            squares = np.maximum(squares, 0) * np.exp(-2 * scale)[..., None]
            volume = volume + dimension * scale
        if self.log_volume is not None:
            volume = volume + self.log_volume[:, held_out]
        kernel = log_kernel(np.maximum(squares, 0), mixture.degrees_of_freedom, dimension)
        marginal = log_sum_exp((weights - volume)[..., None] + kernel, 2)
        return marginal[:, 0] - marginal[:, 1]


def _sums(
    standardized: Array, member: Array, pulled: Array, source: Index, fold: Index
) -> tuple[Statistics, Array]:
    sums = []
    for group in range(2 * FOLDS):
        chosen = source * FOLDS + fold == group
        rows = standardized[:, chosen]
        weighted = rows * pulled[:, chosen, None]
        sums.append(
            (
                member[:, chosen].sum(1),
                pulled[:, chosen].sum(1),
                weighted.sum(1),
                weighted.transpose(0, 2, 1) @ rows,
            )
        )
    mass, total, first, second = (np.stack(one) for one in zip(*sums, strict=True))
    seen = np.zeros((len(TRAINING), FOLDS, FOLDS))
    for index, steps in enumerate(TRAINING):
        for held_out in range(FOLDS):
            seen[index, held_out, [(held_out + step) % FOLDS for step in steps]] = 1

    def over_training(value: Array) -> Array:
        by_fold = value.reshape(2, FOLDS, -1)
        found = np.einsum("jfg,sgx->jfsx", seen, by_fold, optimize=True)
        return found.reshape(*found.shape[:3], *value.shape[1:])

    statistics = Statistics(*map(over_training, (mass, total, first, second)))
    return statistics, mass.reshape(2, FOLDS, -1).sum(1)


def _adaptations(mixture: Mixture, statistics: Statistics) -> list[_Adapted]:
    """Of each component apart, and of all together where there are several."""
    dimension = mixture.means.shape[1]
    mass, pulled, first, second = statistics
    prior = PRIOR_WEIGHT * mixture.components * np.exp(mixture.log_weights)
    log_weights = np.log(mass + prior)
    log_weights = log_weights - log_sum_exp(log_weights, -1)[..., None]
    squares = np.trace(second, axis1=-2, axis2=-1)

    def scatter(shift: Array) -> Array:
        return squares - 2 * (shift * first).sum(-1) + pulled * np.square(shift).sum(-1)

    def log_scale(around: Array, counted: Array) -> Array:
        return 0.5 * np.log((around / dimension + PRIOR_SCALE) / (counted + PRIOR_SCALE))

    weak = first / (pulled + WEAK)[..., None]
    apart = _shift_where_apart(statistics)
    weak_scale = log_scale(scatter(weak), mass)
    cholesky, log_volume = _full(statistics, weak, weak_scale)
    own: Array | None = log_weights if mixture.components > 1 else None
    found = [
        _Adapted(own, apart, log_scale(scatter(apart), mass)),
        _Adapted(own, weak),
        _Adapted(own, weak, weak_scale),
        _Adapted(own, weak, None, cholesky, log_volume),
    ]
    if own is not None:
        common = _common_shift(mixture, statistics)
        one_scale = log_scale(scatter(common).sum(-1, keepdims=True), mass.sum(-1, keepdims=True))
        one_scale = np.broadcast_to(one_scale, log_weights.shape)
        found += [
            _Adapted(own),
            _Adapted(None, common),
            _Adapted(None, common, one_scale),
            _Adapted(own, common, one_scale),
        ]
    return found


def _shift_where_apart(statistics: Statistics) -> Array:
    """Shifts of the components' means, as far as the two sources' are apart beyond noise.

    Their difference shrinks by 1 − d (1/n₁ + 1/n₂) / |difference|², at least 0, as James and Stein
    do: where one component of many has moved the others add no noise.
    """
    counted = statistics.pulled + 1e-3
    total = counted.sum(2)
    mean = statistics.first / counted[..., None]
    common = statistics.first.sum(2) / (total + WEAK)[..., None]
    difference = mean[:, :, 1] - mean[:, :, 0]
    noise = mean.shape[-1] * (1 / counted).sum(2)
    kept = np.maximum(0, 1 - noise / np.maximum(np.square(difference).sum(-1), 1e-12))
    moved = kept[..., None] * difference
    share = (counted / total[:, :, None])[..., None]
    return np.stack([common - share[:, :, 1] * moved, common + share[:, :, 0] * moved], 2)


def _full(statistics: Statistics, shift: Array, log_scale: Array) -> tuple[Array, Array]:
    """Inverse Cholesky factors of full scales that shrink to a multiple of the pool's, log det."""
    dimension = shift.shape[-1]
    cross = statistics.first[..., :, None] * shift[..., None, :]
    outer = shift[..., :, None] * shift[..., None, :]
    around = statistics.second - cross - np.swapaxes(cross, -1, -2)
    around = around + statistics.pulled[..., None, None] * outer
    prior = PRIOR_SCALE + 2.0 * dimension
    target = np.exp(2 * log_scale)[..., None, None] * np.eye(dimension)
    scale = (around + prior * target) / (statistics.mass + prior)[..., None, None]
    cholesky = np.linalg.cholesky(scale)
    volume = np.log(np.diagonal(cholesky, axis1=-2, axis2=-1)).sum(-1)
    return np.linalg.inv(cholesky), volume


def _common_shift(mixture: Mixture, statistics: Statistics) -> Array:
    """One shift of all components by generalized least squares, in each one's standard units."""
    factor = mixture.inverse_cholesky
    precision = np.swapaxes(factor, -1, -2) @ factor
    average = np.einsum("k,kde->de", np.exp(mixture.log_weights), precision)
    normal = np.einsum("jfsk,kde->jfsde", statistics.pulled, precision, optimize=True)
    right = np.einsum("kde,jfskd->jfse", factor, statistics.first, optimize=True)
    shift = np.linalg.solve(normal + WEAK * average, right[..., None])[..., 0]
    return np.einsum("kde,jfse->jfskd", factor, shift, optimize=True)
