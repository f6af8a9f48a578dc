"""Simulation-based calibration: do posterior intervals contain what they claim to?

Draw a mixture from the prior, rows from the mixture, a posterior from the rows. If the posterior is
exact, the rank of the true value of any functional among its posterior draws is uniform, and an
interval covers as often as it says. Functionals without labels only: entropy, log density at fixed
points, total variation from a reference.

Talts, Betancourt, Simpson, Vehtari and Gelman, Validating Bayesian inference algorithms with
simulation-based calibration, arXiv 1804.06788 (2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from scipy import stats
from torch import Tensor

from rbpp.mixtures.cavi import cavi
from rbpp.mixtures.conjugate import MixturePrior, VariationalMixture
from rbpp.mixtures.divergences import entropy
from rbpp.mixtures.mixture import GaussianMixture
from rbpp.mixtures.normal_wishart import Draws, log_prob
from rbpp.mixtures.psis import pareto_smooth
from rbpp.randomness import generator, spawn

FUNCTIONALS = ("entropy", "log density, centre", "log density, flank", "total variation")
_INTEGRATION_DRAWS = 512


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


def simulate_ranks(
    prior: MixturePrior,
    components: int,
    rows: int,
    *,
    replications: int = 200,
    draws: int = 199,
    correction: Literal["none", "psis"] = "none",
    restarts: int = 10,
    seed: int = 0,
) -> Ranks:
    """Ranks of true functionals among coordinate-ascent posteriors, all replications at once.

    Args:
        prior: of one data set; the truth is drawn from it.
        components: K. With one the posterior is exact.
        rows: n of every replication.
        replications: number of truths.
        draws: posterior draws of each.
        correction: `"psis"` weights the draws by p / q, Pareto-smoothed.
        restarts: starts of every fit.
        seed: of everything.
    """
    source = generator(spawn(seed, "calibration"))
    truth = prior.draw(replications, components, generator=source)
    data = truth.mixture().sample((rows,), generator=source).movedim(0, -2)
    fit = cavi(data, prior, components, restarts=restarts, generator=source).best()
    posterior = fit.draw(draws, source)
    ratios = _log_ratios(prior, fit, posterior, data)
    log_weights, pareto_k = pareto_smooth(ratios.mT)
    weights = log_weights.exp().mT if correction == "psis" else torch.full_like(ratios, 1 / draws)
    # Truth and draws in one batch: they share integration points, whose error then cancels.
    both = Draws(
        *(torch.cat([one.unsqueeze(0), many]) for one, many in zip(truth, posterior, strict=True))
    )
    values = _functionals(prior, both, generator(spawn(seed, "integration")))
    true, drawn = values[0], values[1:]
    below = (drawn < true).to(weights) + 0.5 * (drawn == true).to(weights)
    rank = (below * weights.unsqueeze(-1)).sum(0)
    if correction == "none":
        # Between the draws: with L of them the truth has L + 1 places, all as likely.
        jitter = torch.rand(rank.shape, generator=source, dtype=rank.dtype)
        rank = (rank * draws + jitter) / (draws + 1)
    mean = (drawn * weights.unsqueeze(-1)).sum(0)
    spread = ((drawn - mean).square() * weights.unsqueeze(-1)).sum(0)
    width = (spread.mean(0) / (mean - true).square().mean(0)).sqrt()
    return Ranks(rank, width, pareto_k)


def _functionals(prior: MixturePrior, draws: Draws, source: torch.Generator) -> Tensor:
    """Entropy, log density at two points, total variation from a normal: (…, functionals)."""
    mixture = draws.mixture()
    scale = prior.scale / prior.degrees_of_freedom
    spread = (scale.diagonal() * (1 + 1 / prior.mean_precision)).sqrt()
    points = torch.stack([prior.mean, prior.mean + spread])
    one = prior.mean.new_ones(1)
    reference = GaussianMixture(one, prior.mean.unsqueeze(0), torch.diag(spread**2).unsqueeze(0))
    # At fixed points the functional is the same for truth and draws: no integration error between
    # them, which at many rows would be as large as the posterior's spread.
    sheet = reference.sample((_INTEGRATION_DRAWS,), generator=source)
    ratio = mixture.log_prob_rows(sheet) - reference.log_prob_rows(sheet)
    variation = 0.5 * ratio.expm1().abs().mean(-1, keepdim=True)
    return torch.cat(
        [
            entropy(mixture, draws=_INTEGRATION_DRAWS, generator=source).value.unsqueeze(-1),
            mixture.log_prob_rows(points),
            variation,
        ],
        -1,
    )


def _log_ratios(prior: MixturePrior, fit: VariationalMixture, draws: Draws, data: Tensor) -> Tensor:
    """Log joint density less log q of draws (draws, replications)."""
    likelihood = torch.stack(
        [
            Draws(*(value[index] for value in draws)).mixture().log_prob_rows(data).sum(-1)
            for index in range(len(draws.means))
        ]
    )
    before = log_prob(prior.parameters(fit.components), draws)
    return before + likelihood - fit.log_prob(draws)
