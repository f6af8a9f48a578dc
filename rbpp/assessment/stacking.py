"""Many logistic regressions with coefficients between 0 and a limit, all at once."""

from __future__ import annotations

import numpy as np

from rbpp.assessment.weighted_rows import Array

LARGEST = 1.5
RIDGE = 1.0


def stack(features: Array, label: Array, weight: Array, offset: float, steps: int = 12) -> Array:
    """Coefficients in [0, 1.5] of penalized logistic regressions without an intercept.

    min Σ_i w_i log(1 + exp(−y_i (o + x_iᵀβ))) + |β|²/2 by projected Newton steps. A coefficient
    below 0 would say that a log ratio misleads out of fold: then it has no part.

    Args:
        features: (J, n, C).
        label: (n,), 1 or −1.
        weight: (B, n), a problem for each row of it.
        offset: log odds of label 1 where all features are 0.
        steps: Newton steps at most.

    Returns:
        (J, B, C).
    """
    parts, _, count = features.shape
    problems = len(weight)
    beta = np.zeros((parts, problems, count))
    loss = _loss(features, label, weight, offset, beta)
    for _ in range(steps):
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
        moved = np.clip(beta + step, 0, LARGEST)
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


def _box_step(hessian: Array, gradient: Array, beta: Array, sweeps: int = 25) -> Array:
    """The step to the minimum of the quadratic model inside the box, by coordinate descent."""
    step = np.zeros_like(beta)
    slope = gradient.copy()
    diagonal = np.diagonal(hessian, axis1=-2, axis2=-1)
    for _ in range(sweeps):
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
