"""Calibration: uniform ranks where the posterior is exact, and a test that sees where it is not."""

import pytest
import torch

from benchmarks.calibration import FUNCTIONALS, simulate_ranks
from benchmarks.ranks import Ranks
from rbpp.mixtures.cavi import cavi
from rbpp.mixtures.conjugate import MixturePrior
from rbpp.randomness import generator


def prior(dimension=2):
    mean = torch.zeros(dimension, dtype=torch.float64)
    return MixturePrior(1.0, mean, 0.1, dimension + 4.0, 3 * torch.eye(dimension))


@pytest.mark.parametrize("dimension", [1, 2])
def test_conjugate_posterior_is_calibrated(dimension, margin):
    ranks = simulate_ranks(prior(dimension), 1, 20, replications=300)
    assert ranks.rank.shape == (300, len(FUNCTIONALS))
    # Four functionals, two dimensions: a false alarm in 1,000 runs.
    assert (ranks.uniformity() > 1e-3 / 8).all()
    error = (0.9 * 0.1 / 300) ** 0.5
    margin(4 * error - (ranks.coverage(0.9) - 0.9).abs())
    assert (ranks.pareto_k < 0.7).all()


def test_a_posterior_of_the_wrong_prior_is_found_out(monkeypatch):
    """The same truths, fitted as if there were four rows for each: intervals half as wide."""

    def overconfident(data, *arguments, **named):
        weights = torch.full(data.shape[:-1], 4.0, dtype=data.dtype)
        return cavi(data, *arguments, sample_weights=weights, **named)

    monkeypatch.setattr("benchmarks.calibration.cavi", overconfident)
    ranks = simulate_ranks(prior(), 1, 20, replications=300)
    assert (ranks.uniformity()[:3] < 1e-6).all()
    assert (ranks.width[:3] < 0.8).all()


def test_importance_weights_leave_an_exact_posterior_alone():
    plain = simulate_ranks(prior(), 1, 20, replications=50)
    weighted = simulate_ranks(prior(), 1, 20, replications=50, correction="psis")
    assert ((plain.rank - weighted.rank).abs() < 0.01).all()


def test_uniform_ranks_cover_what_they_say(margin):
    rank = torch.rand(4000, 4, generator=generator(0), dtype=torch.float64)
    ranks = Ranks(rank, torch.ones(4), torch.zeros(4000))
    margin(4 * (0.25 / 4000) ** 0.5 - (ranks.coverage(0.5) - 0.5).abs())
    assert (ranks.uniformity() > 1e-4).all()
    assert (Ranks(rank**2, torch.ones(4), torch.zeros(4000)).uniformity() < 1e-10).all()
