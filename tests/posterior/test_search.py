"""The search for optima: its deadline, and starts at the means of a fitted mixture."""

import time

import pytest
import torch

import rbpp
from rbpp.compute import Compute
from rbpp.posterior.density import ConditionedDensity
from rbpp.posterior.labels import symmetries
from rbpp.posterior.limit import Limit
from rbpp.posterior.optimum import find_optima
from rbpp.posterior.starts import fitted_starts
from rbpp.processes.simulation import simulate_tensors
from rbpp.randomness import generator

KNOBS = {"K": 4, "J": 0, "L": 0, "anchors_per_component": 8, "outputs": 80, "noise": 0.1}


@pytest.fixture(scope="module")
def mixture() -> ConditionedDensity:
    process = rbpp.load_process("gaussian_mixture", **KNOBS)
    rows = simulate_tensors(process, compute=Compute(seed=3)).sites["synthetic"][0, 0]
    return ConditionedDensity(process, {"synthetic": rows})


def test_a_limit_that_has_passed_ends_the_search_at_once(mixture):
    begin = time.process_time()
    (found,) = find_optima(mixture, 0, out_of_time=Limit(0.0))
    assert time.process_time() - begin < 20  # without it minutes
    assert not found.sound
    assert found.scale.isfinite().all()
    assert mixture.hessian(found.point, Limit(0.0)) is None


def test_limits():
    assert not Limit.after(100)()
    assert Limit.after(100).allows(50)
    assert not Limit.after(100).allows(200)
    assert not Limit.after(100).before(60).allows(50)
    assert Limit(0.0)()


def test_products_with_the_hessian_are_its_rows():
    process = rbpp.load_process("gaussian_mixture", K=1, J=0, L=0, outputs=5, noise=0.1)
    rows = simulate_tensors(process, compute=Compute(seed=3)).sites["anchor"][0, 0]
    density = ConditionedDensity(process, {"anchor": rows})
    point = density.prior_vectors(1, 0)[0]
    directions = torch.randn(3, density.size, generator=generator(1), dtype=torch.float64)
    torch.testing.assert_close(
        density.times_hessian(point, directions), directions @ density.hessian(point)
    )


def test_starts_at_the_means_of_a_fit_are_higher_than_draws_of_the_prior(mixture):
    found = symmetries(mixture, 0)
    fitted = fitted_starts(mixture, found, 0)
    assert fitted is not None
    with torch.no_grad():
        by_fit = mixture(fitted).nan_to_num(-torch.inf).max()
        by_prior = mixture(mixture.prior_vectors(len(fitted), 1)).nan_to_num(-torch.inf).max()
    assert by_fit > by_prior
    # Where the fitted means went: to the world's means, in some order for each start.
    means = mixture.evaluate(fitted[:2], generator(0))[0]["means"][:, 0]
    first, second = (one[one[:, 0].argsort()] for one in means)
    torch.testing.assert_close(first, second)
    assert fitted_starts(mixture, [], 0) is None
