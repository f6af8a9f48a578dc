"""Where a mixture's components start: one by one, where each raises the likelihood most.

Centres by k-means cut a wide component into pieces and leave a narrow one inside it unseen, and EM
does not find it afterwards: with eight components of unequal scales in 32 dimensions it ends 8 nats
a row below what these starts reach.

Verbeek, Vlassis and Kröse, Efficient greedy learning of Gaussian mixture models, Neural Computation
15 (2003).
"""

from __future__ import annotations

import numpy as np

from rbpp.assessment.weighted_rows import Array

CANDIDATES = 64
# Rows that a candidate is fitted to, as parts of those that a component has on average.
PARTS = (0.5, 1.0)
# Steps of EM after each component, and when all are there.
FEW_STEPS, LAST_STEPS = 4, 10


class _Rows:
    """Rows (n, d), to which spherical Gaussians are fitted."""

    def __init__(self, rows: Array) -> None:
        self.rows, self.squares = rows, np.square(rows).sum(1)

    def distances(self, centres: Array) -> Array:
        """(K, n), squared."""
        products = 2 * centres @ self.rows.T
        return np.maximum(np.square(centres).sum(1)[:, None] - products + self.squares, 0)

    def spheres(self, member: Array, variance: Array | float) -> tuple[Array, Array]:
        """Means (K, d) and variances (K,) of members (K, n); `variance` counts as one row."""
        mass, dimension = member.sum(1), self.rows.shape[1]
        mean = member @ self.rows / np.maximum(mass, 1e-9)[:, None]
        apart = (member * self.distances(mean)).sum(1) / dimension
        return mean, (apart + variance) / (mass + 1)

    def log_kernel(self, mean: Array, variance: Array) -> Array:
        """(K, n), but for a constant."""
        volume = self.rows.shape[1] * np.log(variance)[:, None]
        return -0.5 * (self.distances(mean) / variance[:, None] + volume)


def greedy_start(
    rows: Array, weight: Array, components: int, generator: np.random.Generator
) -> Array:
    """(K, n): memberships in K spherical Gaussians, each with a variance of its own.

    Args:
        rows: (n, d), roughly whitened.
        weight: (n,).
        components: K.
        generator: of the candidates.
    """
    table = _Rows(rows)
    mean, variance = table.spheres(weight[None], 1.0)
    log_weight = np.zeros(1)
    centres, variances = _candidates(table, weight, components, variance[0], generator)
    tried = table.log_kernel(centres, variances)
    for count in range(2, components + 1):
        log_joint = log_weight[:, None] + table.log_kernel(mean, variance)
        density = np.logaddexp.reduce(log_joint, axis=0) + np.log1p(-1 / count)
        best = int((np.logaddexp(density, tried - np.log(count)) @ weight).argmax())
        mean = np.concatenate([mean, centres[[best]]])
        variance = np.append(variance, variances[best])
        log_weight = np.append(log_weight + np.log1p(-1 / count), -np.log(count))
        for _ in range(FEW_STEPS if count < components else LAST_STEPS):
            member = _member(log_weight[:, None] + table.log_kernel(mean, variance)) * weight
            mean, variance = table.spheres(member, variance)
            mass = member.sum(1)
            log_weight = np.log((mass + 1) / (mass.sum() + count))
    return _member(log_weight[:, None] + table.log_kernel(mean, variance))


def _candidates(
    table: _Rows, weight: Array, components: int, variance: float, generator: np.random.Generator
) -> tuple[Array, Array]:
    """Means (C, d) and variances (C,) of the nearest rows of random ones."""
    count, dimension = table.rows.shape
    # Sorted, so that the order in which files come does not matter.
    order = np.lexsort(table.rows.T)
    cumulative = np.cumsum(weight[order])
    place = np.searchsorted(cumulative, generator.random(CANDIDATES) * cumulative[-1])
    near = table.distances(table.rows[order[np.minimum(place, count - 1)]]).argsort(axis=1)
    mass = weight[near]
    before = np.cumsum(mass, axis=1) - mass
    found = []
    for part in PARTS:
        most = max(dimension / 2 + 3, part * cumulative[-1] / components)
        member = np.zeros((CANDIDATES, count))
        # Mass and not rows: copies that share a weight are one row.
        np.put_along_axis(member, near, np.clip(most - before, 0, mass), 1)
        found.append(table.spheres(member, variance))
    means, variances = zip(*found, strict=True)
    return np.concatenate(means), np.concatenate(variances)


def _member(log_joint: Array) -> Array:
    member = np.exp(log_joint - log_joint.max(0))
    return member / member.sum(0)
