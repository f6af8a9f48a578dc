"""Simulation-based calibration: do posterior intervals contain what they claim to?

Draw a truth from the prior, data from the truth, a posterior from the data. If the posterior is
exact, the rank of the true value of any functional among its posterior draws is uniform, and an
interval covers as often as it says.

Talts, Betancourt, Simpson, Vehtari and Gelman, Validating Bayesian inference algorithms with
simulation-based calibration, arXiv 1804.06788 (2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """Where true values fall among posterior draws.

    Attributes:
        rank: share of the draws below the truth, (replications, functionals), in [0, 1].
        width: standard deviation of the draws over that of the error of their mean, (functionals,):
            below one the posterior is too narrow.
        pareto_k: k̂ of every replication.
    """

    rank: Tensor
    width: Tensor
    pareto_k: Tensor

    @property
    def replications(self) -> int:
        """Number of replications."""
        return len(self.rank)

    def coverage(self, probability: float) -> Tensor:
        """How often the central interval of `probability` has the truth, per functional."""
        tail = (1 - probability) / 2
        return ((self.rank >= tail) & (self.rank <= 1 - tail)).double().mean(0)

    def uniformity(self, bins: int = 10) -> Tensor:
        """P-value of a χ² test that the ranks are uniform, per functional."""
        values = []
        for column in self.rank.T:
            counts = torch.histc(column, bins, 0, 1)
            values.append(float(stats.chisquare(counts.numpy()).pvalue))
        return torch.tensor(values, dtype=torch.float64)


def ranks(
    truth: Tensor,
    drawn: Tensor,
    log_weights: Tensor,
    pareto_k: Tensor,
    jitter: torch.Generator | None = None,
) -> Ranks:
    """Ranks of true functionals among weighted posterior draws.

    Args:
        truth: (replications, functionals).
        drawn: (draws, replications, functionals).
        log_weights: of the draws, normalised, (draws, replications).
        pareto_k: k̂ of every replication.
        jitter: spreads ranks of equally weighted draws between the draws: with L of them the truth
            has L + 1 places, all as likely.
    """
    weights = log_weights.exp().unsqueeze(-1)
    below = (drawn < truth).to(weights) + 0.5 * (drawn == truth).to(weights)
    rank = (below * weights).sum(0)
    if jitter is not None:
        uniform = torch.rand(rank.shape, generator=jitter, dtype=rank.dtype)
        rank = (rank * len(drawn) + uniform) / (len(drawn) + 1)
    mean = (drawn * weights).sum(0)
    spread = ((drawn - mean).square() * weights).sum(0)
    return Ranks(rank, (spread.mean(0) / (mean - truth).square().mean(0)).sqrt(), pareto_k)
