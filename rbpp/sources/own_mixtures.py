"""A mixture of its own for every source: entropies, and divergences between the fitted models.

The shared mixture says which components a source has; what happens inside them it averages over.
Here π_s, the posterior predictive density of a mixture fitted to source s alone, is what a learner
that only sees s would deploy. Its divergence from that of the task is the paper's KL gap (4.4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rbpp.compute import Compute
from rbpp.estimate import Estimate, mean_estimate
from rbpp.internals import standard_gamma
from rbpp.mixtures.cavi import cavi
from rbpp.mixtures.conjugate import VariationalMixture, default_prior

# One component per 25 rows, up to 8: on 32 sets of 1,000 headlines in 16 to 48 dimensions the
# evidence is highest between 3 and 8, and divergences change little there.
ROWS_PER_COMPONENT, LARGEST_COUNT = 25, 8
# Refits per restart with the weights of the Bayesian bootstrap: the posterior spread. Each takes
# three steps from the restart's fit. On 999 headlines in 32 dimensions the standard deviation of
# their divergence was 1.81 nats after three steps and 1.90 after twenty, that of one step 0.40.
REFITS, REFIT_STEPS = 32, 3
# Points per fit; a divergence over four chains and their refits then has a standard error of about
# 1 / √32,000 of its log ratio's spread.
POINTS = 256
# Numbers that the rows of the refits made at once may take up: half a gigabyte.
_LARGEST_BLOCK = 2**26


@dataclass(frozen=True)
class OwnMixtures:
    """Predictive mixtures of every source, refits of every restart.

    Attributes:
        fits: per source, posterior with leading dimensions (chain, refit).
        points: per source, draws from each predictive, (point, chain, refit, d).
        own: per source, their log density under it, (point, chain, refit).
        components: per source.
    """

    fits: list[VariationalMixture]
    points: list[Tensor]
    own: list[Tensor]
    components: list[int]

    def entropy(self, source: int) -> Estimate:
        """h(π_s) in nats per row, (chain, refit)."""
        return mean_estimate(-self.own[source].movedim(0, -1))

    def divergence(self, first: int, second: int) -> Estimate:
        """D_KL(π_first ‖ π_second) in nats per row, (chain, refit)."""
        other = log_predictive(self.fits[second], self.points[first])
        return mean_estimate((self.own[first] - other).movedim(0, -1))


def fit_own(
    sources: list[Tensor],
    *,
    groups: list[Tensor | None],
    chains: int,
    compute: Compute,
) -> OwnMixtures:
    """Fit a mixture to each source, and refit it under the Bayesian bootstrap.

    Args:
        sources: rows (n, d) of every source.
        groups: group index (n,) of the rows of a source, or None; rows of one group have one
            bootstrap weight.
        chains: restarts.
        compute: device of the fits, workers over sources, seed of the starts and the weights. The
            result is on the CPU.
    """
    work = partial(_fit_one, sources=sources, groups=groups, chains=chains, compute=compute.task())
    found = zip(*compute.each(work, range(len(sources)), "sources"), strict=True)
    fits, points, own, counts = (list(part) for part in found)
    return OwnMixtures(fits, points, own, counts)


def _fit_one(
    index: int,
    *,
    sources: list[Tensor],
    groups: list[Tensor | None],
    chains: int,
    compute: Compute,
) -> tuple[VariationalMixture, Tensor, Tensor, int]:
    """Refits of one source, draws from them, their log density, and the number of components."""
    rows, group = sources[index].to(compute.device), groups[index]
    random = compute.generator("own", index, device=rows.device)
    components = max(1, min(LARGEST_COUNT, len(rows) // ROWS_PER_COMPONENT))
    start = cavi(
        rows,
        default_prior(rows, components),
        components,
        restarts=chains,
        generator=random,
        tolerance=1e-4,
        max_iterations=100,
    )
    own = torch.arange(len(rows), device=rows.device)
    unit = own if group is None else group.to(rows.device)
    fit = _refits(rows, unit, start, random)
    drawn = sample_predictive(fit, POINTS, random)
    return fit.to("cpu"), drawn.cpu(), log_predictive(fit, drawn).cpu(), components


def repeated(estimate: Estimate, draws: int) -> Estimate:
    """Refits repeated up to the draws of the other terms, (chain, draw, …).

    Diagnostics that count draws, as the effective sample size, then see more than there are.
    """
    refit = torch.arange(draws) % REFITS
    return estimate.map(lambda value: value[:, refit])


def bootstrap_weights(unit: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """Weights (draw, n) of the Bayesian bootstrap, of mean 1: Dirichlet(1, …, 1) over units."""
    ones = torch.ones(draws, int(unit.max()) + 1, dtype=torch.float64, device=unit.device)
    weights = standard_gamma(ones, generator=generator)[:, unit]
    return weights / weights.mean(-1, keepdim=True)


def sample_predictive(fit: VariationalMixture, count: int, generator: torch.Generator) -> Tensor:
    """Draws from the predictive mixtures of Student's t: (count, batch…, d)."""
    law = fit.predictive()
    weights = law.mixture_distribution.probs
    student: Any = law.component_distribution
    batch, d = weights.shape[:-1], fit.dimension
    chosen = torch.multinomial(
        weights.reshape(-1, weights.shape[-1]), count, replacement=True, generator=generator
    )
    chosen = chosen.T.reshape(count, *batch)
    mean = fit.mean
    normal = torch.randn(
        (count, *batch, d), dtype=mean.dtype, device=mean.device, generator=generator
    )

    def of_chosen(values: Tensor) -> Tensor:
        """The chosen component's values (count, batch…, …) of values (batch…, K, …)."""
        trailing = values.dim() - len(batch) - 1
        place = chosen.reshape(*chosen.shape, *[1] * (trailing + 1))
        shape = (*chosen.shape, 1, *values.shape[len(batch) + 1 :])
        return values.expand(count, *values.shape).gather(len(batch) + 1, place.expand(shape))

    freedom = of_chosen(student.df)
    mixing = standard_gamma(freedom / 2, generator=generator) * 2 / freedom
    centre = of_chosen(student.loc).squeeze(-2)
    scale = of_chosen(student.scale_tril).squeeze(-3)
    return centre + (scale @ normal.unsqueeze(-1)).squeeze(-1) / mixing.sqrt()


def log_predictive(fit: VariationalMixture, points: Tensor) -> Tensor:
    """Log predictive density (point, batch…) of points (point, batch…, d), each of its own fit.

    As `fit.predictive().log_prob`, by one matrix product per batch member in place of a triangular
    solve per point and component.
    """
    law = fit.predictive()
    student: Any = law.component_distribution
    d, components = fit.dimension, fit.components
    identity = torch.eye(d, dtype=points.dtype, device=points.device).expand_as(student.scale_tril)
    whiten = torch.linalg.solve_triangular(student.scale_tril, identity, upper=False)
    rows = points.movedim(0, -1)
    place = (whiten.flatten(-3, -2) @ rows).unflatten(-2, (components, d))
    distance = (place - whiten @ student.loc.unsqueeze(-1)).square().sum(-2)
    freedom = student.df.unsqueeze(-1)
    constant = (
        torch.lgamma((freedom + d) / 2)
        - torch.lgamma(freedom / 2)
        - d / 2 * (freedom * math.pi).log()
        + whiten.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True)
    )
    each = constant - (freedom + d) / 2 * torch.log1p(distance / freedom)
    weights = law.mixture_distribution.logits.unsqueeze(-1)
    return (weights + each).logsumexp(-2).movedim(-1, 0)


def _refits(
    rows: Tensor, unit: Tensor, start: VariationalMixture, generator: torch.Generator
) -> VariationalMixture:
    """Fits (chain, refit) to bootstrap weights of the units, each from its chain's fit."""
    first = VariationalMixture(
        **{
            name: value.repeat_interleave(REFITS, 0)
            for name, value in start.parameters._asdict().items()
        }
    )
    count = len(first.mean)
    at_once = max(1, _LARGEST_BLOCK // rows.numel())
    parts = [
        _refit(rows, unit, first.select(slice(low, low + at_once)), generator)
        for low in range(0, count, at_once)
    ]
    return VariationalMixture(
        **{
            name: torch.cat([getattr(part, name) for part in parts]).unflatten(0, (-1, REFITS))
            for name in start.parameters._fields
        }
    )


def _refit(
    rows: Tensor, unit: Tensor, start: VariationalMixture, generator: torch.Generator
) -> VariationalMixture:
    """Fits (refit,), each to weights of its own and from its own start."""
    count, components = len(start.mean), start.components
    weights = bootstrap_weights(unit, count, generator).to(rows.dtype)
    data = rows.expand(count, *rows.shape)
    initial = {name: value.unsqueeze(0) for name, value in start.parameters._asdict().items()}
    return cavi(
        data,
        default_prior(data, components, sample_weights=weights),
        components,
        sample_weights=weights,
        initial=VariationalMixture(**initial),
        tolerance=1e-4,
        max_iterations=REFIT_STEPS,
    ).select(0)
