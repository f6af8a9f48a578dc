"""The posterior of what each source holds of shared components, and the partition it implies.

Independent Dirichlet posteriors of two sources never agree: of two halves of one data set they
report a difference of several per cent. Here every source follows the reference source's weight in
a component (up to one common factor) or has a weight of its own, and the posterior decides, so that
"no difference" has probability of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rbpp.internals import standard_gamma
from rbpp.sources.two_groups import Foreign
from rbpp.threads import one_thread

# Shape of the gamma prior of an intensity: below 1, components that a source lacks get nothing.
SHAPE = 0.5
# Prior odds that a source has a weight of its own in a component that holds all rows; in one with a
# tenth of the rows they are a tenth of that. Components were placed where the sources seem to
# differ, and of small places there are more to choose from: a scan of chance clusters, for which
# the odds must pay.
OWN_ODDS = 0.25
# Standard deviation of the log of the common factor, bounded at three of them. At 0.5, a source of
# 1,000 role-plays "followed" 252 users' tasks at five times their weight where there were none.
LOG_FACTOR = 0.2
# The anchors lack a component where they have under a quarter of what the task has. At a half,
# differences in emphasis count as absence.
RATIO = 0.25
_GRID = 61
_BURN_IN = 100


@dataclass(frozen=True)
class Shares:
    """Posterior draws of the weights and of the partition into the paper's parts.

    Attributes:
        weights: (chain, draw, source, component); sums to 1 over the components.
        unsampled: (chain, draw, component), in the reference and not in the anchors (J); all False
            where the anchors are the reference.
        follows: (chain, source, component), how often a source followed the reference.
        irrelevant: the synthetic rows that the reference does not account for (L).
        uncovered: the reference's rows that the synthetic data do not account for.
        irrelevant_output: the same of the rows before curation, or None.
        irrelevant_rate: (chain, component), the off-task share of a component's synthetic rows.
        uncovered_rate: likewise, the uncovered share of its reference rows.
    """

    weights: Tensor
    unsampled: Tensor
    follows: Tensor
    irrelevant: Foreign
    uncovered: Foreign
    irrelevant_output: Foreign | None
    irrelevant_rate: Tensor
    uncovered_rate: Tensor


@one_thread()
def source_weights(
    counts: Tensor,
    variances: Tensor,
    reference: int,
    *,
    draws: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draws of the weights of all sources by Gibbs sampling, every chain at once.

    N_sk ~ Poisson(n_s λ_sk), where λ_sk = φ_s λ_rk if source s follows the reference r in
    component k, and λ_sk ~ Gamma(a, aK) of its own if it does not; w_sk = λ_sk / Σ_k λ_sk.

    Args:
        counts: expected rows (chain, source, component), N_sk.
        variances: their variance from the rows' uncertain components, same shape.
        reference: index of the source that the others are compared with.
        draws: draws per chain.
        generator: source of all randomness.

    Returns:
        Weights (chain, draw, source, component); the factor (chain, draw, source) between the
        weight of a source and of the reference in the components where it follows; and the share
        (chain, source, component) of the draws in which it does.

    Raises:
        ValueError: if shapes disagree or a count is negative or not finite.
    """
    if counts.dim() != 3 or counts.shape != variances.shape:
        raise ValueError(
            "Expected counts and variances (chain, source, component); got shapes "
            f"{tuple(counts.shape)} and {tuple(variances.shape)}"
        )
    if not bool((counts.isfinite() & (counts >= 0)).all()) or not 0 <= reference < counts.shape[1]:
        raise ValueError("Expected finite counts ≥ 0 and a reference among the sources")
    chains, sources, components = counts.shape
    size = counts.sum(-1, keepdim=True)
    rate = SHAPE * components
    others = [source for source in range(sources) if source != reference]
    follows = torch.zeros_like(counts, dtype=torch.bool)
    follows[:, reference] = True
    factor = counts.new_ones(chains, sources, 1)
    grid = torch.linspace(-3, 3, _GRID, dtype=counts.dtype) * LOG_FACTOR
    prior = -0.5 * (grid / LOG_FACTOR).square()
    held = counts.sum(1) / counts.sum((1, 2)).clamp_min(1e-300).unsqueeze(-1)
    prior_odds = (OWN_ODDS * held).clamp_min(1e-300).log()
    followed = torch.zeros_like(counts)
    kept, factors = [], []

    def gamma(shape: Tensor, rates: Tensor) -> Tensor:
        return standard_gamma(shape, generator=generator) / rates

    for step in range(_BURN_IN + draws):
        noise = torch.randn(counts.shape, generator=generator, dtype=counts.dtype)
        rows = (counts + variances.sqrt() * noise).clamp_min(0)
        for source in others:
            rest = follows.clone()
            rest[:, source] = False
            shape = SHAPE + (rows * rest).sum(1)
            rates = rate + (size * factor * rest).sum(1)
            own = _log_evidence(rows[:, source], SHAPE, torch.tensor(rate), size[:, source])
            tied = _log_evidence(rows[:, source], shape, rates, size[:, source] * factor[:, source])
            # A source that differs in many components is likelier to differ in one more.
            other = (~follows[:, source]).sum(-1, keepdim=True) - (~follows[:, source]).long()
            urn = (1 + other) * components / (components - other)
            odds = tied - own - prior_odds - urn.log()
            uniform = torch.rand(odds.shape, generator=generator, dtype=odds.dtype)
            follows[:, source] = uniform < odds.sigmoid()
        shape = SHAPE + (rows * follows).sum(1)
        base = gamma(shape, rate + (size * factor * follows).sum(1))
        intensity = gamma(SHAPE + rows, rate + size)
        for source in others:
            tied_rows = (rows[:, source] * follows[:, source]).sum(-1, keepdim=True)
            tied_base = (base * follows[:, source]).sum(-1, keepdim=True)
            logits = prior + tied_rows * grid - size[:, source] * tied_base * grid.exp()
            choice = torch.multinomial(logits.softmax(-1), 1, generator=generator)
            factor[:, source] = grid[choice].exp()
        intensity = torch.where(follows, factor * base.unsqueeze(1), intensity)
        if step >= _BURN_IN:
            total = intensity.sum(-1, keepdim=True)
            kept.append(intensity / total)
            factors.append((factor * total[:, [reference]] / total).squeeze(-1))
            followed += follows
    return torch.stack(kept, 1), torch.stack(factors, 1), followed / draws


def unsampled_components(
    weights: Tensor, factors: Tensor, *, reference: int, anchor: int
) -> Tensor:
    """Which components (chain, draw, component) the reference has and the anchors have not.

    The anchors lack a component where their weight is under a quarter (`RATIO`) of the reference's,
    and of what it would be if they followed the reference. The factor can only excuse.

    Args:
        weights, factors: from `source_weights`.
        reference, anchor: indices of the sources; the same where there is no target.
    """
    task = weights[:, :, reference]
    return weights[:, :, anchor] < RATIO * task * factors[:, :, [anchor]].clamp_max(1)


def design_effect(responsibilities: Tensor, groups: Tensor) -> float:
    """How many rows of grouped data tell as much as one independent row, at least 1.

    The first-order correction of Rao and Scott: the variance of the component counts over groups,
    in units of the multinomial one.

    Args:
        responsibilities: (n, component).
        groups: group index of every row (n,).

    Rao and Scott, The analysis of categorical data from complex sample surveys, JASA 76 (1981).
    """
    share = responsibilities.mean(0)
    centred = responsibilities - share
    count = int(groups.max()) + 1
    by_group = centred.new_zeros(count, centred.shape[1]).index_add_(0, groups, centred)
    independent = centred.square().sum()
    return max(1.0, float(by_group.square().sum() / independent.clamp_min(1e-300)))


def _log_evidence(rows: Tensor, shape: Tensor | float, rate: Tensor, exposure: Tensor) -> Tensor:
    """log of the negative binomial ∫ Poisson(N; nλ) Gamma(λ; a, b) dλ, without log N!."""
    shape = torch.as_tensor(shape, dtype=rows.dtype)
    rate = rate.to(rows.dtype)
    if rate.dim() == 1:
        rate = rate.unsqueeze(-1)
    total = rate + exposure
    return (
        torch.lgamma(shape + rows)
        - torch.lgamma(shape)
        + shape * (rate / total).log()
        + rows * (exposure / total).log()
    )
