"""Gaussian or Student mixtures of weighted rows by expectation maximization, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from rbpp.assessment.greedy_start import greedy_start
from rbpp.assessment.weighted_rows import Array

DEGREES_OF_FREEDOM = (np.inf, 15.0, 5.0)
# Steps of EM after which one of two starts goes on.
TRIAL_STEPS = 6


@dataclass(frozen=True)
class Mixture:
    """Σ_k π_k T_ν(x; m_k, S_k) with one ν for all components; ν = ∞ is a Gaussian mixture.

    Attributes:
        log_weights: (K,).
        means: (K, d).
        inverse_cholesky: (K, d, d), W_k = L_k⁻¹ of S_k = L_k L_kᵀ.
        log_volume: (K,), log det L_k.
        degrees_of_freedom: ν.
    """

    log_weights: Array
    means: Array
    inverse_cholesky: Array
    log_volume: Array
    degrees_of_freedom: float

    @property
    def components(self) -> int:
        return len(self.log_weights)

    def standardized(self, rows: Array) -> Array:
        """(K, n, d): W_k (x − m_k)."""
        return (rows[None] - self.means[:, None]) @ self.inverse_cholesky.transpose(0, 2, 1)

    def log_joint(self, squares: Array) -> Array:
        """(K, n): log π_k T(x), given the squared lengths (K, n) of the standardized rows."""
        dimension = self.means.shape[1]
        shift = (self.log_weights - self.log_volume)[:, None]
        return shift + log_kernel(squares, self.degrees_of_freedom, dimension)

    def log_density(self, rows: Array) -> Array:
        """(n,): log density of each row."""
        squares = np.square(self.standardized(rows)).sum(-1)
        return log_sum_exp(self.log_joint(squares), 0)


def log_sum_exp(values: Array, axis: int) -> Array:
    """log Σ exp along one axis: of finite values, where SciPy's takes three times as long."""
    largest = values.max(axis, keepdims=True)
    total = np.exp(values - largest).sum(axis, keepdims=True)
    return (largest + np.log(total)).squeeze(axis)


def log_kernel(squares: Array, degrees_of_freedom: float, dimension: int) -> Array:
    """Log density of a standard Student (or Gaussian) vector of this squared length."""
    if np.isinf(degrees_of_freedom):
        return -0.5 * (squares + dimension * np.log(2 * np.pi))
    nu = degrees_of_freedom
    constant = gammaln((nu + dimension) / 2) - gammaln(nu / 2) - dimension / 2 * np.log(nu * np.pi)
    return constant - (nu + dimension) / 2 * np.log1p(squares / nu)


def pull(squares: Array, degrees_of_freedom: float, dimension: int) -> Array:
    """How much a row counts in mean and scale: 1 for a Gaussian, less far out for a Student."""
    if np.isinf(degrees_of_freedom):
        return np.ones_like(squares)
    return (degrees_of_freedom + dimension) / (degrees_of_freedom + squares)


def fit_mixture(
    rows: Array,
    weight: Array,
    components: int,
    generator: np.random.Generator,
    steps: int = 20,
    greedy: bool = False,
) -> Mixture:
    """Fit a mixture to weighted rows by EM from k-means; ν is chosen by likelihood in each step.

    Scale matrices shrink to the shape of the scale within components, at each one's own size, by as
    much as d + 2 rows weigh: a component of few rows stays proper, a narrow one stays narrow.

    Args:
        rows: (n, d), roughly whitened.
        weight: (n,).
        components: K.
        generator: of the starting centres.
        steps: of EM.
        greedy: from `greedy_start` too; the start that is likelier after a few steps goes on.
    """
    starts = [_start(rows, weight, components, generator)]
    if greedy and components > 1:
        starts.append(greedy_start(rows, weight, components, generator))
    fits = [_Fit(rows, weight, member) for member in starts]
    if len(fits) > 1:
        for fit in fits:
            for _ in range(TRIAL_STEPS):
                fit.step()
        steps -= TRIAL_STEPS
    best = max(fits, key=lambda fit: fit.likelihood)
    for _ in range(steps):
        best.step()
    return best.mixture()


class _Fit:
    """EM of one start, a step at a time."""

    def __init__(self, rows: Array, weight: Array, member: Array) -> None:
        self.rows, self.weight, self.member = rows, weight, member
        self.factor = np.ones_like(member)
        self.degrees_of_freedom = 15.0
        self.likelihood = -np.inf

    def mixture(self) -> Mixture:
        """The likeliest mixture, given the memberships."""
        rows, weight = self.rows, self.weight
        components, dimension = len(self.member), rows.shape[1]
        total = weight.sum()
        mass = (self.member * weight).sum(1)
        pulled = self.member * self.factor * weight
        means = (pulled @ rows) / np.maximum(pulled.sum(1), 1e-9)[:, None]
        centred = rows[None] - means[:, None]
        scatter = (centred * pulled[:, :, None]).transpose(0, 2, 1) @ centred
        prior = dimension + 2.0
        within = scatter.sum(0) / total + 1e-6 * np.eye(dimension)
        size_of = np.einsum("kde,ed->k", scatter, np.linalg.inv(within)) / dimension
        size_of = (size_of + 1) / (mass + 1)
        target = size_of[:, None, None] * within
        scales = (scatter + prior * target) / (mass + prior)[:, None, None]
        cholesky = np.linalg.cholesky(scales)
        return Mixture(
            np.log((mass + 1.0) / (total + components)),
            means,
            np.linalg.inv(cholesky),
            np.log(np.diagonal(cholesky, axis1=1, axis2=2)).sum(1),
            self.degrees_of_freedom,
        )

    def step(self) -> None:
        """New memberships, ν and the likelihood."""
        found, dimension = self.mixture(), self.rows.shape[1]
        squares = np.square(found.standardized(self.rows)).sum(-1)
        shift = (found.log_weights - found.log_volume)[:, None]
        self.likelihood = -np.inf
        for tried in DEGREES_OF_FREEDOM:
            joint = shift + log_kernel(squares, tried, dimension)
            marginal = log_sum_exp(joint, 0)
            likelihood = float(self.weight @ marginal)
            if likelihood > self.likelihood:
                self.likelihood, self.degrees_of_freedom = likelihood, tried
                self.member = np.exp(joint - marginal)
        self.factor = pull(squares, self.degrees_of_freedom, dimension)


def _start(rows: Array, weight: Array, components: int, generator: np.random.Generator) -> Array:
    """(K, n): memberships of 0 or 1 by k-means++ and a few of Lloyd's steps."""
    # Sorted, copies lie side by side and are chosen as the one row that they weigh; and the order
    # in which files come does not matter.
    order = np.lexsort(rows.T)
    ordered, mass = rows[order], weight[order]

    def draw(probability: Array) -> Array:
        cumulative = np.cumsum(probability)
        place = np.searchsorted(cumulative, generator.random() * cumulative[-1])
        return ordered[[min(int(place), len(ordered) - 1)]]

    centres = draw(mass)
    nearest = np.square(ordered - centres).sum(1)
    for _ in range(components - 1):
        centre = draw(nearest * mass)
        centres = np.concatenate([centres, centre])
        nearest = np.minimum(nearest, np.square(ordered - centre).sum(1))
    for _ in range(5):
        distance = np.square(centres).sum(1)[:, None] - 2 * centres @ rows.T
        member = (np.arange(components)[:, None] == distance.argmin(0)) * 1.0
        size = (member * weight).sum(1)[:, None]
        moved = (member * weight) @ rows / np.maximum(size, 1e-9)
        centres = np.where(size > 0, moved, centres)
    return member
