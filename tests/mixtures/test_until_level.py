"""When stochastic gradients stop, and what is said of guides that are too narrow."""

import pytest
import torch

from rbpp.mixtures.engines import Gradient
from rbpp.mixtures.fit import fit_mixture
from rbpp.mixtures.gibbs import gibbs_movement
from rbpp.mixtures.posterior import Settings, mixture_posterior
from rbpp.mixtures.until_level import RATES, until_level
from rbpp.randomness import generator


def rising(until, noise=0.0):
    """A step whose ELBO rises by one until a step; the parameter counts steps."""
    source, parameter = generator(0), torch.zeros(())

    def step():
        parameter.add_(1)
        noisy = noise * torch.randn((), generator=source)
        return float(parameter.clamp_max(until) + noisy)

    return step, parameter


@pytest.mark.parametrize("noise", [0.0, 5.0])
def test_steps_go_on_while_the_elbo_rises(noise):
    step, parameter = rising(450, noise)
    rates = []
    found = until_level(step, rates.append, lambda: [("count", parameter)])
    assert found.settled
    assert rates == list(RATES)
    # From 500 on it is level: seen at 700; at the other rates two windows are enough.
    assert len(found.elbos) == 700 + 200 + 200
    assert float(parameter) == pytest.approx(len(found.elbos) - 99.5)  # the mean of the last 200


def test_a_larger_window_sees_a_slower_rise():
    def steps(window):
        step, parameter = rising(1500, 300.0)
        found = until_level(step, lambda _: None, lambda: [("count", parameter)], window=window)
        return len(found.elbos)

    assert steps(400) > steps(100) + 1500


def test_a_limit_leaves_it_unsettled():
    step, parameter = rising(10_000)
    found = until_level(step, lambda _: None, lambda: [("count", parameter)], most=300)
    assert not found.settled
    assert len(found.elbos) == 300  # a third at every rate
    assert float(parameter) == 250.5  # the mean of the last hundred


def test_time_that_is_up_leaves_the_parameters_where_they_are():
    step, parameter = rising(10_000)
    found = until_level(
        step, lambda _: None, lambda: [("count", parameter)], out_of_time=lambda: parameter >= 250
    )
    assert not found.settled
    assert len(found.elbos) == float(parameter) == 250


def correlated_rows(count=200, correlation=0.95):
    rows = torch.randn(count, 2, generator=generator(0), dtype=torch.float64)
    rows[:, 1] = correlation * rows[:, 0] + (1 - correlation**2) ** 0.5 * rows[:, 1]
    return rows


@pytest.mark.parametrize(("factor", "seen"), [(1.0, False), (0.7, True), (0.25, True)])
def test_sweeps_see_means_that_are_too_narrow(factor, seen):
    """Of one component coordinate ascent is exact: its means are drawn together by a factor."""
    rows = correlated_rows()
    exact = mixture_posterior(rows, 1, Settings(chains=1, draws=1000))
    means = exact.draws.means
    centre = means.mean(1, keepdim=True)
    narrow = exact.draws._replace(means=centre + factor * (means - centre))
    moved = gibbs_movement(rows, exact.prior, narrow, most_draws=1000)
    assert moved is not None
    assert moved.is_seen == seen


def test_a_fit_that_ran_out_of_steps_says_so():
    posterior = mixture_posterior(
        correlated_rows(40),
        1,
        Settings("svi", gradient=Gradient(steps=5), chains=2, draws=20),
    )
    assert posterior.settled is not None
    assert posterior.settled.tolist() == [False, False]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("guide", "verdict", "least", "correlation"),
    [
        ("AutoNormal", "violated", 0.2, 0.95),
        ("AutoMultivariateNormal", "holds", 0.9, 0.0),
        ("AutoMultivariateNormal", "holds", 0.9, 0.95),
        ("AutoMultivariateNormal", "holds", 0.9, 0.99),
    ],
)
def test_the_check_sees_the_spread_of_a_guide(guide, verdict, least, correlation):
    rows = correlated_rows(correlation=correlation)
    exact = mixture_posterior(rows, 1, Settings(chains=1, draws=2000))
    fit = fit_mixture(rows, 1, engine="svi", gradient=Gradient(guide=guide), chains=1, draws=1000)
    spread = fit.posterior.draws.means[0, :, 0].std(0) / exact.draws.means[0, :, 0].std(0)
    assert float(spread.min()) > least
    checks = {check.statement: check for check in fit.checks}
    assert checks["the approximation is near the posterior"].verdict == verdict
    assert checks["the ascent of every chain has settled"].verdict == "holds"
