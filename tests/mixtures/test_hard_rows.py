"""Rows that fits got wrong: thin directions, very different widths, atoms, outliers, heavy tails.

True entropies are in closed form.
"""

import math

import numpy as np
import pytest
import torch

import rbpp
from rbpp.mixtures.ascent import _assert_monotone
from rbpp.mixtures.cavi import cavi, fitted_prior
from rbpp.mixtures.continuous import continuous_rows
from rbpp.mixtures.gibbs import gibbs_movement
from rbpp.mixtures.goodness_of_fit import SMALLEST_PROBABILITY, goodness_of_fit
from rbpp.mixtures.posterior import Settings, mixture_posterior

NORMAL = 0.5 * math.log(2 * math.pi * math.e)


def entropy_of(rows, components):
    fit = rbpp.fit_mixture(rows, components, draws=200, chains=2)
    assert fit.idata is not None
    found = fit.idata["posterior"]["entropy"]
    return float(found.mean()), float(found.std()), {one.statement: one for one in fit.checks}


@pytest.mark.parametrize("components", [1, 3])
def test_a_nearly_collinear_column_has_its_entropy(components, margin):
    random = np.random.default_rng(0)
    normal = random.normal(size=(400, 4))
    rows = np.c_[normal, 2 * normal[:, 0] + 1e-5 * random.normal(size=400)]
    mean, sd, _ = entropy_of(rows, components)
    # Of the rows that were drawn: their own covariance, five standard errors of 5 / √(2 · 400).
    margin(5 * math.sqrt(5 / 800) - abs(mean - (5 * NORMAL + math.log(1e-05))))
    assert 0.5 < sd / math.sqrt(5 / 800) < 1.5


def test_components_of_very_different_width_settle(margin):
    random = np.random.default_rng(3)
    narrow = random.normal(size=(500, 2)) * 1e-3 + 5
    rows = torch.tensor(np.r_[random.normal(size=(500, 2)), narrow])
    prior = fitted_prior(rows, 2, torch.Generator().manual_seed(0))
    fit = cavi(rows, prior, 2, generator=torch.Generator().manual_seed(0), restarts=5).best()
    entropy = -fit.expected().log_prob_rows(rows).mean()
    truth = math.log(2) + 2 * NORMAL + math.log(1e-3)
    # Σ log density of a row varies by log 1000 with the component, and by 1 within it.
    margin(4 * math.sqrt((math.log(1000.0) / 2) ** 2 + 1) / math.sqrt(1000) - abs(entropy - truth))
    covariance = fit.scale / fit.degrees_of_freedom[..., None, None]
    assert covariance[..., 0, 0].min() == pytest.approx(1e-6, rel=0.2)


def test_an_elbo_that_truly_falls_is_an_error_of_the_program():
    with pytest.raises(ArithmeticError, match="never falls"):
        _assert_monotone(
            torch.zeros(1),
            torch.tensor([-1e-3]),
            torch.zeros(1, dtype=torch.bool),
            torch.ones(1) * 1e-4,
        )


def rows_without_density():
    random = np.random.default_rng(0)
    normal = random.normal(size=(400, 4))
    far = np.r_[normal, np.full((1, 4), 1e8)]
    sentinel = normal.copy()
    sentinel[:4] = -9999
    inflated = normal.copy()
    inflated[:120, 2] = 0
    one = np.r_[random.normal(size=(299, 1)), [[1e6]]]
    return {
        "exact": (np.c_[normal, 2 * normal[:, 0]], "got columns 0, 4,"),
        "shares": (random.dirichlet([2, 3, 4], size=400), "got columns 0, 1, 2,"),
        "points": (np.repeat(random.normal(size=(5, 4)), 80, 0), "5 distinct rows of 400"),
        "inflated": (inflated, "got 0 in 30% of the rows of column 2"),
        "far": (far, "1e\\+08 in row 400, column"),
        "sentinel": (sentinel, "-9999 in 4 of 400 rows of column 0, the first row 0"),
        "one": (one, "1e\\+06 in row 299, column 0"),
    }


@pytest.mark.parametrize("name", rows_without_density())
def test_rows_without_a_density_are_refused_by_name(name):
    rows, message = rows_without_density()[name]
    with pytest.raises(ValueError, match=message):
        rbpp.fit_mixture(rows, 2, draws=100)


def test_doubtful_rows_are_named_in_the_checks():
    random = np.random.default_rng(1)
    rows = random.normal(size=(300, 2))
    atoms, outliers = continuous_rows(torch.tensor(rows))
    assert (atoms.verdict, outliers.verdict) == ("holds", "holds")
    rows[17, 1] = 500
    rows[20:50, 0] = 0.25
    atoms, outliers = continuous_rows(torch.tensor(rows))
    assert atoms.verdict == "violated"
    assert "0.25 in column 0" in atoms.message
    assert outliers.verdict == "violated"
    assert "row 17, column 1 is 500" in outliers.message


def mixture_rows(random):
    centres = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    return centres[random.integers(0, 3, 300)] + random.normal(size=(300, 2))


def rejections(make, components, seeds):
    found = [
        goodness_of_fit(torch.tensor(make(np.random.default_rng(seed))), components, seed=seed)
        for seed in range(seeds)
    ]
    return sum(one.probability <= SMALLEST_PROBABILITY for one in found)


def test_goodness_of_fit_seldom_rejects_what_is_right():
    # At a level of 2 %, four of 30 and more have a probability of 0.003.
    assert rejections(lambda random: random.normal(size=(200, 2)), 1, 30) < 4
    assert rejections(mixture_rows, 3, 30) < 4


@pytest.mark.parametrize(
    ("make", "least"),
    [
        (lambda random: random.standard_t(3, size=(300, 2)), 6),
        (lambda random: random.standard_t(5, size=(300, 2)), 5),
        (lambda random: random.random(size=(300, 2)), 6),
    ],
    ids=["t3", "t5", "uniform"],
)
def test_goodness_of_fit_sees_another_family(make, least):
    assert rejections(make, 1, 6) >= least


def test_goodness_of_fit_needs_rows_and_sees_many_dimensions():
    random = np.random.default_rng(0)
    assert goodness_of_fit(torch.tensor(random.normal(size=(10, 2))), 2) is None
    heavy = random.normal(size=(400, 12)) / np.sqrt(random.chisquare(3, size=(400, 1)) / 3)
    found = goodness_of_fit(torch.tensor(heavy), 1)
    assert found is not None
    assert found.dimension == 6
    assert found.probability <= SMALLEST_PROBABILITY


def test_a_misspecified_fit_says_so():
    rows = np.random.default_rng(0).standard_t(3, size=(300, 2))
    _, _, checks = entropy_of(rows, 1)
    assert checks["held-out rows look like the mixture's own"].verdict == "violated"


def test_exact_sweeps_leave_an_exact_posterior_and_move_a_wrong_one():
    random = np.random.default_rng(0)
    rows = torch.tensor(random.normal(size=(300, 2)))
    fit = mixture_posterior(rows, 1, Settings(draws=200, chains=1))
    moved = gibbs_movement(rows, fit.prior, fit.draws)
    assert moved is not None
    assert not moved.is_seen
    wide = fit.draws._replace(precision_cholesky=fit.draws.precision_cholesky / 1.2)
    moved = gibbs_movement(rows, fit.prior, wide)
    assert moved is not None
    assert moved.is_seen


def test_overlapping_components_are_not_called_wrong_for_their_labels():
    random = np.random.default_rng(1)
    rows = random.normal(size=(300, 2))
    rows[:150, 0] += 2.0
    _, _, checks = entropy_of(rows, 2)
    assert checks["the approximation is near the posterior"].verdict == "holds"


@pytest.mark.parametrize(("rows", "verdict"), [(8, "violated"), (60, "holds")])
def test_rows_that_are_too_few_for_a_covariance_are_said_to_be(rows, verdict):
    found = rbpp.fit_mixture(np.random.default_rng(0).normal(size=(rows, 4)), 1, chains=1, draws=20)
    (one,) = [check for check in found.checks if "and not the prior" in check.statement]
    assert one.verdict == verdict
