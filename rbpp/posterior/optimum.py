"""The highest point of a log density, and whether it is one that a normal can stand on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from rbpp.posterior.density import ConditionedDensity
from rbpp.posterior.limit import NEVER, Limit, OutOfTime
from rbpp.randomness import generator

STARTS = 4
# Starts of one density that end further apart than this (nats) have found different modes.
APART = 2.0
# Screening for densities with several modes: draws of the prior, of which the best go on.
SCREENED, KEPT = 256, 32
_HALVINGS = ((40, 16), (60, 8), (90, 4))  # Adam steps, and how many starts go on
_LEARNING_RATE, _FEW_STEPS = 0.05, 30
_NEWTON_STEPS, _DECREMENT = 30, 1e-4
# In many coordinates curvature is dear, and what a few steps do not end is a ridge, no optimum: of
# the highest point alone, in time that the climbs leave.
_MANY, _FEW_NEWTON_STEPS, _RESERVED = 100, 4, 2.5
# A ridge in many coordinates takes all iterations that it gets; sound optima took 6 to 32.
_ITERATIONS, _FEW_ITERATIONS = 500, 200
# A Hessian of more coordinates takes longer than chains do; then its diagonal from random probes.
LARGEST_HESSIAN, _PROBES = 1000, 16
# A Hessian whose eigenvalues differ by more has a direction without curvature: no optimum.
LEAST_EIGENVALUE_RATIO = 1e-8
_NO_POLE = 1e-6
# Prior standard deviations.
_FAR = 10.0


@dataclass(frozen=True)
class Optimum:
    """A local maximum in unconstrained coordinates.

    Attributes:
        point: (D,).
        value: log density there, in nats.
        scale: W (D, D) with W Wᵀ the inverse of the negative Hessian: point + W ε are the draws of
            the normal approximation.
        eigenvalue_ratio: smallest to largest eigenvalue of the negative Hessian; not positive where
            the point is no maximum, nan where only the Hessian's diagonal was looked at.
        decrement: Newton decrement, what another Newton step would gain (nats).
        stray: whether it is no sound optimum, and so far from the prior that it may be a pole.
    """

    point: Tensor
    value: float
    scale: Tensor
    eigenvalue_ratio: float
    decrement: float
    stray: bool = False

    @property
    def sound(self) -> bool:
        """Whether it is a maximum with curvature in every direction."""
        return self.eigenvalue_ratio > LEAST_EIGENVALUE_RATIO and self.decrement < 1e-2


def find_optima(
    density: ConditionedDensity,
    seed: int,
    fitted: Tensor | None = None,
    *,
    arrange: Callable[[Tensor, Tensor], Tensor] = lambda vectors, _: vectors,
    out_of_time: Limit = NEVER,
) -> list[Optimum]:
    """Local maxima, the highest first.

    Four draws of the prior start L-BFGS, or two of them and the best two of `fitted`. Where they
    end apart, 256 draws are screened, the best follow Adam in one batch and are halved, and L-BFGS
    polishes the last four; not where a fitted start is the highest, which knows more than draws of
    the prior. Newton's method with line search ends each.

    Args:
        density: what is maximised.
        seed: of the starts.
        fitted: other starts (N, D), such as `rbpp.posterior.starts.fitted_starts` has them.
        arrange: takes vectors (N, D) to copies of the same density in the order of a reference
            (D,): copies of an optimum count once.
        out_of_time: asked at every step; the search then ends with what it has, unpolished.

    Raises:
        ValueError: if the density is zero at every start.
    """
    starts = density.prior_vectors(STARTS, seed)
    known = 0
    if fitted is not None:
        high = climbed(density, fitted, KEPT // 2, out_of_time)
        known = min(len(high), STARTS // 2)
        starts = torch.cat([high[:known], starts[known:]])
    climbs: list[tuple[Tensor, float]] = []
    end = out_of_time.before(_RESERVED * _hessian_seconds(density, starts[0]))
    begin = time.monotonic()
    for start in starts:
        climbs.append(_climb(density, start, end))
        if not end.allows((time.monotonic() - begin) / len(climbs)):
            break
    found = [one for one in climbs if math.isfinite(one[1])]
    values = [value for _, value in climbs]
    by_fit = known and max(values[:known]) >= max(values) - APART
    apart = max(values) - min(values) > APART and not by_fit
    if not found or (apart and not end()):
        found += _screened(density, seed + 1, end)
    if not found:
        raise ValueError(
            f"Expected data that {density.process.name} can have made; got density zero or nan at "
            f"{SCREENED} draws of the prior"
        )
    found.sort(key=lambda one: -one[1])
    best = [found[0]]
    for point, value in found[1:]:  # other modes, within what a posterior could notice
        point = arrange(point.unsqueeze(0), best[0][0])[0]
        far = all((point - other).norm() > 1e-2 * (1 + other.norm()) for other, _ in best)
        if far and found[0][1] - value < 10 and len(best) < STARTS:
            best.append((point, value))
    highest = _polished(density, best[0][0], out_of_time)
    if density.size > _MANY and not highest.sound:
        return [highest]
    return [highest, *(_polished(density, point, out_of_time) for point, _ in best[1:])]


def _hessian_seconds(density: ConditionedDensity, point: Tensor) -> float:
    """About how long the second derivatives take; none where they are quick or left out."""
    if not _MANY < density.size <= LARGEST_HESSIAN:
        return 0.0
    begin = time.monotonic()
    density.times_hessian(point, torch.eye(density.size).to(point)[: density.at_once])
    return (time.monotonic() - begin) * density.size / density.at_once


def _climb(density: ConditionedDensity, start: Tensor, out_of_time: Limit) -> tuple[Tensor, float]:
    """L-BFGS from one start; the highest point seen, once time is up."""
    highest, place = -math.inf, start.double()

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal highest, place
        vector = torch.as_tensor(point, dtype=torch.float64, device=start.device)
        value, slope = _at(density, vector)
        if float(value) > highest:
            highest, place = float(value), vector.clone()
        if out_of_time():
            raise OutOfTime
        if not math.isfinite(float(value)):
            return 1e30, np.zeros_like(point)
        return -float(value), -slope.cpu().numpy()

    with suppress(OutOfTime):
        minimize(
            loss,
            start.double().cpu().numpy(),
            jac=True,
            method="L-BFGS-B",
            options={
                "maxcor": 20,
                "gtol": 1e-4,
                "maxiter": _ITERATIONS if density.size <= _MANY else _FEW_ITERATIONS,
            },
        )
    return place, highest


def _screened(
    density: ConditionedDensity, seed: int, out_of_time: Limit
) -> list[tuple[Tensor, float]]:
    points = _highest(density, density.prior_vectors(SCREENED, seed), KEPT)
    for steps, kept in _HALVINGS:
        points, values = _adam(density, points, steps, out_of_time)
        points = points[values.argsort(descending=True)[:kept]].clone()
    found = [_climb(density, point, out_of_time) for point in points]
    return [one for one in found if math.isfinite(one[1])]


def climbed(density: ConditionedDensity, points: Tensor, kept: int, out_of_time: Limit) -> Tensor:
    """The highest (kept, D) of some points, each after a few steps uphill, the best first."""
    points, values = _adam(density, _highest(density, points, kept), _FEW_STEPS, out_of_time)
    return points[values.argsort(descending=True)]


def values_of(density: ConditionedDensity, points: Tensor) -> Tensor:
    """Log densities (N,), −∞ where they are no numbers."""
    with torch.no_grad():
        return density(points).nan_to_num(-math.inf, -math.inf, -math.inf)


def _highest(density: ConditionedDensity, points: Tensor, kept: int) -> Tensor:
    return points[values_of(density, points).argsort(descending=True)[:kept]].clone()


def _adam(
    density: ConditionedDensity, points: Tensor, steps: int, out_of_time: Limit
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


def _at(density: ConditionedDensity, point: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient (D,) at one point."""
    value, slope = density.gradient(point.unsqueeze(0))
    return value[0], slope[0]


def _polished(density: ConditionedDensity, point: Tensor, out_of_time: Limit) -> Optimum:
    """Newton's method with line search, and the curvature where it ends."""
    value, slope = _at(density, point)
    found: Optimum | None = None
    for _ in range(_NEWTON_STEPS if density.size <= _MANY else _FEW_NEWTON_STEPS):
        curvature = None
        if density.size <= LARGEST_HESSIAN:
            curvature = density.hessian(point, out_of_time)
        if curvature is None:
            break
        values, vectors = torch.linalg.eigh(-curvature)
        # A direction without curvature is followed along its slope, not thrown to infinity.
        safe = values.abs().clamp_min(float(values.abs().max()) * _NO_POLE)
        step = vectors @ ((vectors.mT @ slope) / safe)
        decrement = float(slope @ step) / 2
        last = decrement < _DECREMENT  # the curvature is that of the end, up to its square
        sizes = 0.5 ** torch.arange(8, dtype=point.dtype, device=point.device)
        tried = point + sizes.unsqueeze(-1) * step
        reached = values_of(density, tried)
        best = int(reached.argmax())
        higher = float(reached[best]) > float(value)
        if higher:
            point = tried[best]
            value, slope = _at(density, point)
        found = Optimum(
            point,
            float(value),
            vectors * safe.rsqrt(),
            eigenvalue_ratio=float(values.min() / values.max().clamp_min(1e-300)),
            decrement=decrement,
        )
        if last or not higher:
            break
    if found is not None and found.sound:
        return found
    prior = density.prior_vectors(SCREENED, 0).to(point)
    spread = prior.std(0).clamp_min(1e-3)
    far = bool(((point - prior.mean(0)) / spread).abs().max() > _FAR)
    # Without curvature, as along a ridge, and where a probe says so, the prior's.
    if found is None:
        probes = torch.randn(_PROBES, density.size, generator=generator(0)).sign().to(point)
        diagonal = (probes * density.times_hessian(point, probes)).mean(0).neg()
        scale = torch.diag_embed(diagonal.clamp_min(spread.pow(-2)).rsqrt())
        found = Optimum(point, float(value), scale, eigenvalue_ratio=math.nan, decrement=math.inf)
    else:
        least = spread.pow(-2) @ vectors.square()
        found = replace(found, scale=vectors * torch.maximum(values, least).rsqrt())
    return replace(found, stray=far)
