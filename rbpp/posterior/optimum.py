"""The highest point of a log density, and whether it is one that a normal can stand on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from rbpp.posterior.density import ConditionedDensity

STARTS = 4
# Starts of one density that end further apart than this (nats) have found different modes.
APART = 2.0
# Screening for densities with several modes: draws of the prior, of which the best go on.
SCREENED, KEPT = 256, 32
_HALVINGS = ((40, 16), (60, 8), (90, 4))  # Adam steps, and how many starts go on
_LEARNING_RATE, _FEW_STEPS = 0.05, 30
_NEWTON_STEPS, _DECREMENT = 30, 1e-4
# A Hessian whose eigenvalues differ by more has a direction without curvature: no optimum.
LEAST_EIGENVALUE_RATIO = 1e-8
_NO_POLE = 1e-6


@dataclass(frozen=True)
class Optimum:
    """A local maximum in unconstrained coordinates.

    Attributes:
        point: (D,).
        value: log density there, in nats.
        scale: W (D, D) with W Wᵀ the inverse of the negative Hessian: point + W ε are the draws of
            the normal approximation.
        eigenvalue_ratio: smallest to largest eigenvalue of the negative Hessian; not positive where
            the point is no maximum.
        decrement: Newton decrement, what another Newton step would gain (nats).
    """

    point: Tensor
    value: float
    scale: Tensor
    eigenvalue_ratio: float
    decrement: float

    @property
    def sound(self) -> bool:
        """Whether it is a maximum with curvature in every direction."""
        return self.eigenvalue_ratio > LEAST_EIGENVALUE_RATIO and self.decrement < 1e-2


def find_optima(
    density: ConditionedDensity, seed: int, *, out_of_time: Callable[[], bool] = lambda: False
) -> list[Optimum]:
    """Local maxima, the highest first.

    Four draws of the prior start L-BFGS. Where they end apart, 256 draws are screened, the best
    follow Adam in one batch and are halved, and L-BFGS polishes the last four. Newton's method with
    line search ends each.

    Args:
        density: what is maximised.
        seed: of the starts.
        out_of_time: asked between steps; the search ends early where it says so.

    Raises:
        ValueError: if the density is zero at every start.
    """
    starts = density.prior_vectors(STARTS, seed)
    found = [_climb(density, start) for start in starts]
    found = [one for one in found if math.isfinite(one[1])]
    values = [value for _, value in found]
    if not found or (max(values) - min(values) > APART and not out_of_time()):
        found += _screened(density, seed + 1, out_of_time)
    if not found:
        raise ValueError(
            f"Expected data that {density.process.name} can have made; got density zero or nan at "
            f"{SCREENED} draws of the prior"
        )
    found.sort(key=lambda one: -one[1])
    best = [found[0]]
    for point, value in found[1:]:  # other modes, within what a posterior could notice
        far = all((point - other).norm() > 1e-2 * (1 + other.norm()) for other, _ in best)
        if far and found[0][1] - value < 10 and len(best) < STARTS:
            best.append((point, value))
    return [_polished(density, point) for point, _ in best]


def _climb(density: ConditionedDensity, start: Tensor) -> tuple[Tensor, float]:
    """L-BFGS from one start."""

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        vector = torch.as_tensor(point, dtype=torch.float64, device=start.device).unsqueeze(0)
        value, slope = density.gradient(vector)
        if not math.isfinite(float(value)):
            return 1e30, np.zeros_like(point)
        return -float(value), -slope[0].cpu().numpy()

    found = minimize(
        loss,
        start.double().cpu().numpy(),
        jac=True,
        method="L-BFGS-B",
        options={"maxcor": 20, "gtol": 1e-4, "maxiter": 500},
    )
    value = -float(found.fun)
    return torch.as_tensor(found.x, device=start.device), value if value > -1e29 else -math.inf


def _screened(
    density: ConditionedDensity, seed: int, out_of_time: Callable[[], bool]
) -> list[tuple[Tensor, float]]:
    points = density.prior_vectors(SCREENED, seed)
    with torch.no_grad():
        values = density(points).nan_to_num(-math.inf, -math.inf, -math.inf)
    points = points[values.argsort(descending=True)[:KEPT]].clone()
    for steps, kept in _HALVINGS:
        points, values = _adam(density, points, steps, out_of_time)
        points = points[values.argsort(descending=True)[:kept]].clone()
    found = [_climb(density, point) for point in points]
    return [one for one in found if math.isfinite(one[1])]


def climbed(
    density: ConditionedDensity, points: Tensor, kept: int, out_of_time: Callable[[], bool]
) -> Tensor:
    """The highest (kept, D) of some points, each after a few steps uphill."""
    with torch.no_grad():
        values = density(points).nan_to_num(-math.inf, -math.inf, -math.inf)
    points = points[values.argsort(descending=True)[:kept]].clone()
    return _adam(density, points, _FEW_STEPS, out_of_time)[0]


def _adam(
    density: ConditionedDensity, points: Tensor, steps: int, out_of_time: Callable[[], bool]
) -> tuple[Tensor, Tensor]:
    first, second = torch.zeros_like(points), torch.zeros_like(points)
    value = points.new_full((len(points),), -math.inf)
    for step in range(1, steps + 1):
        value, slope = density.gradient(points)
        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope.square()
        move = first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        points = points + _LEARNING_RATE * move
        if out_of_time():
            break
    return points, value


def _polished(density: ConditionedDensity, point: Tensor) -> Optimum:
    """Newton's method with line search, and the curvature where it ends."""
    value, slope = (part[0] for part in density.gradient(point.unsqueeze(0)))
    for _ in range(_NEWTON_STEPS):
        values, vectors = torch.linalg.eigh(-density.hessian(point))
        # A direction without curvature is followed along its slope, not thrown to infinity.
        safe = values.abs().clamp_min(float(values.abs().max()) * _NO_POLE)
        step = vectors @ ((vectors.mT @ slope) / safe)
        decrement = float(slope @ step) / 2
        last = decrement < _DECREMENT  # the curvature is that of the end, up to its square
        sizes = 0.5 ** torch.arange(8, dtype=point.dtype, device=point.device)
        tried = point + sizes.unsqueeze(-1) * step
        with torch.no_grad():
            reached = density(tried).nan_to_num(-math.inf, -math.inf, -math.inf)
        best = int(reached.argmax())
        if not float(reached[best]) > float(value):
            break
        point = tried[best]
        value, slope = (part[0] for part in density.gradient(point.unsqueeze(0)))
        if last:
            break
    ratio = float(values.min() / values.max().clamp_min(1e-300))
    scale = vectors * safe.rsqrt()
    return Optimum(
        point=point,
        value=float(value),
        scale=scale,
        eigenvalue_ratio=ratio,
        decrement=decrement,
    )
