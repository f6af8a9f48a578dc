"""Normal approximations at the optima, judged and corrected by importance weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rbpp.internals import standard_gamma
from rbpp.mixtures.psis import pareto_smooth
from rbpp.posterior.density import ConditionedDensity
from rbpp.posterior.optimum import Optimum, values_of

# Draws that are weighed, and the shape above which weighted draws were not to be trusted: of 23
# approximations with k̂ below 0.5 none was off by 0.2 standard deviations, of 29 with k̂ from 0.5 to
# 0.7 thirteen were.
PROPOSED, LARGEST_K, LEAST_EFFICIENCY, NEARLY_ALL = 4000, 0.5, 0.2, 0.97
LEAST_DRAWS_PER_COORDINATE = 5
# Draws that show that an approximation is of no use, and the k̂ from which on weights are not either
# (Vehtari, Simpson, Gelman, Yao and Gabry, 2024).
FEW, HOPELESS_K = 500, 0.7
# Degrees of freedom of the Student's t that is tried where the normal's tails are too light: heavy
# ones where nothing but the optimum is known, lighter ones after its moments are matched.
FREEDOM, MATCHED_FREEDOM = 5.0, 12.0


@dataclass(frozen=True)
class Weighted:
    """Draws of an approximation with what they weigh.

    Attributes:
        vectors: (draws, D).
        log_density: of the posterior, up to its constant (draws,).
        log_q: of the approximation (draws,).
        log_weights: Pareto-smoothed and normalised (draws,).
        pareto_k: tail shape k̂ of the importance ratios.
        efficiency: effective sample size of the weights as a share of the draws.
        name: of the approximation.
    """

    vectors: Tensor
    log_density: Tensor
    log_q: Tensor
    log_weights: Tensor
    pareto_k: float
    efficiency: float
    name: str

    @property
    def trusted(self) -> bool:
        """Whether resampling by the weights gives draws of the posterior.

        Where nearly all draws count, k̂ is that of a tail that carries nothing: a mean of f without
        any weights is off by at most √(1/efficiency − 1) standard deviations of f.
        """
        enough = self.pareto_k < LARGEST_K and self.efficiency > LEAST_EFFICIENCY
        return enough or self.efficiency > NEARLY_ALL

    @property
    def hopeless(self) -> bool:
        """Whether as many draws as one would take could neither be weighed nor matched."""
        needed = LEAST_DRAWS_PER_COORDINATE * self.vectors.shape[-1]
        return self.pareto_k > HOPELESS_K and self.efficiency * PROPOSED < needed

    def resampled(self, count: int, generator: torch.Generator) -> Tensor:
        """Indices (count,) drawn by the weights, one uniform per stratum."""
        cumulative = self.log_weights.exp().cumsum(-1)
        grid = torch.arange(count, dtype=cumulative.dtype)
        points = (grid + torch.rand(count, generator=generator, dtype=cumulative.dtype)) / count
        index = torch.searchsorted(cumulative.cpu(), points * float(cumulative[-1]))
        index = index.clamp_max(len(cumulative) - 1)
        return index[torch.randperm(count, generator=generator)]


def approximate(
    density: ConditionedDensity,
    optima: Sequence[Optimum],
    freedom: float | None,
    generator: torch.Generator,
    count: int = PROPOSED,
) -> Weighted:
    """Draws of a mixture of normals (or Student's t) at the optima, with importance weights.

    Each optimum has the weight of its Laplace evidence, p(point) (2π)^{D/2} det(−H)^{−1/2}.

    Args:
        density: the posterior's.
        optima: sound ones.
        freedom: degrees of freedom of Student's t; None for the normal.
        generator: source of the draws.
        count: number of draws.
    """
    evidence = torch.tensor([one.value + float(_log_det(one.scale)) for one in optima])
    shares = evidence.softmax(-1)
    which = torch.multinomial(shares, count, replacement=True, generator=generator)
    noise = torch.randn(count, density.size, generator=generator, dtype=torch.float64)
    if freedom is not None:
        half = torch.full((count, 1), freedom / 2, dtype=torch.float64)
        noise = noise / (standard_gamma(half, generator=generator) / (freedom / 2)).sqrt()
    which, noise = which.to(optima[0].point.device), noise.to(optima[0].point)
    vectors = torch.empty_like(noise)
    for index, one in enumerate(optima):
        vectors[which == index] = one.point + noise[which == index] @ one.scale.mT
    parts = [
        share
        + log_standard((vectors - one.point) @ torch.linalg.inv(one.scale).mT, freedom)
        - _log_det(one.scale)
        for share, one in zip(shares.log().to(vectors), optima, strict=True)
    ]
    name = "normal" if freedom is None else "Student's t"
    where = "at the optimum" if len(optima) == 1 else f"at {len(optima)} optima"
    return weighed(density, vectors, torch.stack(parts).logsumexp(0), f"{name} {where}")


def log_standard(white: Tensor, freedom: float | None = None) -> Tensor:
    """Log density (draws,) of a standard normal, or Student's t, at vectors (draws, D)."""
    size, distance = white.shape[-1], white.square().sum(-1)
    if freedom is None:
        return -0.5 * distance - size / 2 * math.log(2 * math.pi)
    half = (freedom + size) / 2
    constant = math.lgamma(half) - math.lgamma(freedom / 2) - size / 2 * math.log(freedom * math.pi)
    return constant - half * torch.log1p(distance / freedom)


def weighed(density: ConditionedDensity, vectors: Tensor, log_q: Tensor, name: str) -> Weighted:
    """Draws (draws, D) of an approximation with their Pareto-smoothed importance weights."""
    log_p = values_of(density, vectors)
    weights, k = pareto_smooth(log_p - log_q)
    efficiency = float(1 / (weights.exp().square().sum() * len(vectors)))
    return Weighted(
        vectors, log_p, log_q, weights, pareto_k=float(k), efficiency=efficiency, name=name
    )


def matched(weighted: Weighted) -> Optimum | None:
    """A normal with the weighted mean and covariance of some draws, to draw from anew.

    None where too few draws count for a covariance.
    """
    count, size = weighted.vectors.shape
    if weighted.efficiency * count < LEAST_DRAWS_PER_COORDINATE * size:
        return None
    weights = weighted.log_weights.exp().unsqueeze(-1)
    mean = (weights * weighted.vectors).sum(0)
    centred = weighted.vectors - mean
    covariance = (weights * centred).mT @ centred
    try:
        scale = torch.linalg.cholesky(covariance)
    except RuntimeError:  # weights on draws that do not span all directions
        return None
    return Optimum(mean, 0.0, scale, eigenvalue_ratio=1.0, decrement=0.0)


def _log_det(scale: Tensor) -> Tensor:
    return torch.linalg.slogdet(scale)[1]
