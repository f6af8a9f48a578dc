"""Entropies and divergences of own mixtures against Gaussians, whose values are known."""

import math

import pytest
import torch

from rbpp.compute import Compute
from rbpp.randomness import generator
from rbpp.sources.own_mixtures import (
    REFITS,
    bootstrap_weights,
    fit_own,
    log_predictive,
    sample_predictive,
)


@pytest.fixture(scope="module")
def fitted():
    random = generator(0)
    first = torch.randn(1500, 2, generator=random, dtype=torch.float64)
    second = torch.randn(1500, 2, generator=random, dtype=torch.float64) + 0.5
    third = torch.randn(1500, 2, generator=random, dtype=torch.float64)
    return fit_own([first, second, third], groups=[None] * 3, chains=2, compute=Compute())


def test_entropy_is_the_gaussians(fitted):
    """Tolerance: 4 posterior standard deviations of an entropy from 1,500 rows, √(d / 2n)."""
    value = fitted.entropy(0).value
    assert value.shape == (2, REFITS)
    truth = math.log(2 * math.pi * math.e)
    assert value.mean().item() == pytest.approx(truth, abs=4 * math.sqrt(1 / 1500) + 0.02)


def test_divergence_is_near_half_the_squared_distance(fitted):
    """D_KL of unit Gaussians at distance √½ is 1/4; fits of 8 components cost up to 0.3 more."""
    found = fitted.divergence(0, 1)
    value, error = found.value, found.standard_error
    assert 0.25 - 4 * error.mean() / 4 < value.mean() < 0.55
    assert value.mean() > 3 * fitted.divergence(0, 2).value.mean()


def test_fits_to_one_distribution_hardly_diverge(fitted):
    assert fitted.divergence(0, 2).value.mean() < 0.1
    torch.testing.assert_close(fitted.divergence(0, 0).value, torch.zeros(2, REFITS).double())


def test_predictive_draws_have_the_predictive_density(fitted):
    """E[N(x; 0, I) / p(x)] over draws of p is 1: within 4 standard errors."""
    fit = fitted.fits[0]
    points = sample_predictive(fit, 4000, generator(1))
    assert points.shape == (4000, 2, REFITS, 2)
    normal = -0.5 * points.square().sum(-1) - math.log(2 * math.pi)
    ratio = (normal - log_predictive(fit, points)).exp()
    error = ratio.std(0) / math.sqrt(4000)
    assert ((ratio.mean(0) - 1).abs() < 5 * error + 1e-3).all()


def test_log_predictive_is_that_of_the_mixture_of_students(fitted):
    fit, points = fitted.fits[0], fitted.points[1][:50]
    torch.testing.assert_close(log_predictive(fit, points), fit.predictive().log_prob(points))


def test_refits_spread_as_fits_to_fresh_samples_do():
    """d = 2 Gaussian: an entropy from n rows has standard deviation √(d / 2n).

    Of 32 refits it is known to 13 %: within three of those, and what a mixture of 8 adds.
    """
    rows = torch.randn(400, 2, generator=generator(3), dtype=torch.float64)
    found = fit_own([rows], groups=[None], chains=1, compute=Compute(seed=1)).entropy(0)
    spread = (found.value.var() - found.standard_error.square().mean()).sqrt().item()
    assert spread == pytest.approx(math.sqrt(1 / 400), rel=0.4)


def test_bootstrap_weights_are_shared_in_a_group_and_average_to_one():
    weights = bootstrap_weights(torch.tensor([0, 0, 1, 2]), 500, generator(0))
    torch.testing.assert_close(weights[:, 0], weights[:, 1])
    torch.testing.assert_close(weights.mean(-1), torch.ones(500).double())
    # Dirichlet(1, …, 1) over 100 rows: each weight has variance 99 / 101.
    single = bootstrap_weights(torch.arange(100), 2000, generator(0))
    assert single.var(0).mean() == pytest.approx(99 / 101, abs=0.05)
