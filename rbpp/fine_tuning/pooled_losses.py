"""Posterior of the joint distribution of training and held-out loss, all pairs pooled.

Losses count as what random rounding to 0 or C makes of them: their means stay, and so does the gap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rbpp.fine_tuning.supersample import Supersample, rounded
from rbpp.internals import standard_gamma

# Precisions of the symmetric Beta priors of how discordant pairs split: no scale is preferred.
_PRECISIONS = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0)
_LEAST_DESIGN_EFFECT = 0.02


@dataclass(frozen=True)
class PooledLosses:
    """Draws of the distribution of (training loss, held-out loss), each 0 or C, of a random pair.

    Attributes:
        table: (draw, 2, 2) probability of training loss (row) and held-out loss (column).
        none: (draw,) whether the draw is symmetric: no memorisation on average.
    """

    table: Tensor
    none: Tensor


def mean_tables(data: Supersample) -> Tensor:
    """(k, 2, 2): share of the pairs of each fine-tune by rounded training and held-out loss."""
    sides = rounded(data.training), rounded(data.held_out)
    return torch.einsum("kna,knb->kab", *sides) / data.training.shape[1]


def pooled_losses(data: Supersample, draws: int, generator: torch.Generator) -> PooledLosses:
    """Draws of the pooled table.

    Concordant and discordant shares have a Dirichlet prior (½ each). How the discordant ones split
    is even, or entirely against the held-out row (interpolation), or a Beta of unknown precision.
    Fine-tunes that differ as a whole make their pairs count less, by the design effect.

    Args:
        data: the supersample.
        draws: number of draws, independent.
        generator: source of randomness.
    """
    tables = mean_tables(data)
    effect = _design_effect(data, tables)
    count = tables.mean(0) * (data.training.numel() / effect)
    held, trained = count[0, 1], count[1, 0]
    shares = torch.stack([count[0, 0], held + trained, count[1, 1]]) + 0.5
    shares = standard_gamma(shares.expand(draws, 3), generator)
    shares = shares / shares.sum(-1, keepdim=True)

    precisions = torch.tensor(_PRECISIONS, dtype=torch.float64)
    even = -(held + trained) * math.log(2)
    # All discordant pairs against the held-out row: only where not one contradicts.
    extreme = torch.zeros(()) if float(trained) == 0 else torch.tensor(-torch.inf)
    beta = _log_beta(precisions + held, precisions + trained) - _log_beta(precisions, precisions)
    evidence = torch.cat([torch.stack([even, extreme.to(even)]), beta])
    prior = torch.full_like(evidence, 1.0 / (2 * (len(evidence) - 1)))
    prior[0] = 0.5
    weights = prior * (evidence - evidence.max()).exp()
    kind = torch.multinomial(weights, draws, replacement=True, generator=generator)
    precision = precisions[(kind - 2).clamp_min(0)]
    up = standard_gamma(precision + held, generator)
    down = standard_gamma(precision + trained, generator)
    split = torch.where(kind == 0, 0.5, torch.where(kind == 1, 1.0, up / (up + down)))
    table = torch.stack(
        [shares[:, 0], shares[:, 1] * split, shares[:, 1] * (1 - split), shares[:, 2]], dim=-1
    )
    return PooledLosses(table.reshape(draws, 2, 2), kind == 0)


def _design_effect(data: Supersample, tables: Tensor) -> float:
    """Variance of the gap between fine-tunes, over that of as many independent rounded pairs."""
    gap = tables[:, 0, 1] - tables[:, 1, 0]
    mean = tables.mean(0)
    alone = float(mean[0, 1] + mean[1, 0] - gap.mean().square()) / data.training.shape[1]
    if alone <= 0:
        return 1.0
    # Pairs of 0-1 losses cannot vary less than independent ones but by chance; others can.
    least = 1.0 if data.binary else _LEAST_DESIGN_EFFECT
    return max(float(gap.var()) / alone, least)


def _log_beta(a: Tensor, b: Tensor) -> Tensor:
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
