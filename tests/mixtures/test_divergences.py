"""Divergences against quadrature, closed forms and their own bounds."""

import math

import pytest
import torch
from divergence_bounds import entropy_bounds, kl_bounds
from random_mixtures import random_mixture

from rbpp.mixtures.divergences import (
    entropy,
    expected_log_ratio,
    jensen_shannon,
    kl_divergence,
    total_variation,
)
from rbpp.mixtures.mixture import GaussianMixture
from rbpp.randomness import generator

PAIRS = {
    "kl_divergence": (kl_divergence, lambda p, q: p.exp() * (p - q)),
    "total_variation": (total_variation, lambda p, q: (p.exp() - q.exp()).abs() / 2),
    "jensen_shannon": (
        jensen_shannon,
        lambda p, q: (
            (
                p.exp() * (p - torch.logaddexp(p, q) + math.log(2))
                + q.exp() * (q - torch.logaddexp(p, q) + math.log(2))
            )
            / 2
        ),
    ),
    "entropy": (lambda p, q, **options: entropy(p, **options), lambda p, q: -p.exp() * p),
}


def quadrature(p, q, integrand, half_width=25.0):
    """Trapezoid over a cube that holds the mass: spectral accuracy for smooth densities."""
    count = 200_001 if p.dimension == 1 else 1601
    axis = torch.linspace(-half_width, half_width, count, dtype=torch.float64)
    grid = torch.cartesian_prod(*[axis] * p.dimension).reshape(-1, p.dimension)
    cell = (axis[1] - axis[0]) ** p.dimension
    return torch.nan_to_num(integrand(p.log_prob(grid), q.log_prob(grid))).sum() * cell


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_agrees_with_quadrature(name, dimension, seed, margin):
    estimator, integrand = PAIRS[name]
    p = random_mixture((), 3, dimension, seed=seed)
    q = random_mixture((), 2, dimension, seed=seed + 10)
    estimate = estimator(p, q, num_samples=2**14, generator=generator(seed))
    truth = quadrature(p, q, integrand)
    # |t| with 7 degrees of freedom exceeds 6.5 in 3 of 10,000 runs; 20 cases.
    margin(6.5 - (estimate.value - truth).abs() / (estimate.standard_error + 1e-9))
    margin((0.05 * (1 + truth.abs()) / estimate.standard_error).log())


@pytest.mark.parametrize("dimension", [1, 2, 6])
@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_lies_between_the_closed_form_bounds(dimension, spread):
    p = random_mixture((20,), 4, dimension, seed=1, spread=spread)
    q = random_mixture((20,), 3, dimension, seed=2, spread=spread)
    for estimate, (lower, upper) in (
        (entropy(p, generator=generator(0)), entropy_bounds(p)),
        (kl_divergence(p, q, generator=generator(0)), kl_bounds(p, q)),
    ):
        slack = 6.5 * estimate.standard_error
        assert (lower <= upper).all()
        assert (lower - slack <= estimate.value).all()
        assert (estimate.value <= upper + slack).all()


def test_bounds_are_tight_for_one_component():
    p, q = random_mixture((5,), 1, 3, seed=1), random_mixture((5,), 1, 3, seed=2)
    lower, upper = entropy_bounds(p)
    torch.testing.assert_close(lower, upper)
    normals = [
        torch.distributions.MultivariateNormal(m.means[:, 0], m.covariances[:, 0]) for m in (p, q)
    ]
    torch.testing.assert_close(upper, normals[0].entropy())
    _, upper = kl_bounds(p, q)
    torch.testing.assert_close(upper, torch.distributions.kl_divergence(*normals))


def test_standard_errors_cover(margin):
    """The 95 % t-interval over independent runs covers the truth about as often as it says."""
    p, q = random_mixture((), 3, 2, seed=3), random_mixture((), 3, 2, seed=4)
    for estimator, _ in PAIRS.values():
        truth = estimator(p, q, num_samples=2**18, generator=generator(99)).value
        runs = [estimator(p, q, num_samples=512, generator=generator(seed)) for seed in range(200)]
        covered = sum(bool((r.value - truth).abs() < 2.365 * r.standard_error) for r in runs)
        # Binomial(200, 0.95) falls below 178 with probability 2e-4.
        margin(covered - 178)


def test_a_distribution_does_not_differ_from_itself():
    p = random_mixture((4,), 3, 2)
    for estimator in (kl_divergence, total_variation, jensen_shannon):
        assert estimator(p, p, generator=generator(0)).value.abs().max() < 1e-12


def test_far_apart_distributions_reach_the_ceilings():
    p = random_mixture((), 2, 2)
    q = GaussianMixture(p.weights, p.means + 1e3, p.covariances)
    assert total_variation(p, q, generator=generator(0)).value == pytest.approx(1)
    assert jensen_shannon(p, q, generator=generator(0)).value == pytest.approx(math.log(2))


def test_batches_broadcast_and_more_draws_shrink_the_error(margin):
    p, q = random_mixture((3, 1), 2, 2), random_mixture((4,), 3, 2, seed=5)
    few = kl_divergence(p, q, num_samples=256, generator=generator(0))
    many = kl_divergence(p, q, num_samples=2**14, generator=generator(0))
    assert few.value.shape == few.standard_error.shape == (3, 4)
    assert few.count == 256
    # 64 times the draws: an eighth of the error.
    margin((few.standard_error.mean() / many.standard_error.mean() / 4).log())
    single = kl_divergence(p.select((1, 0)), q.select(2), num_samples=256, generator=generator(0))
    torch.testing.assert_close(single.value, few.value[1, 2])


def test_log_ratio_is_a_difference_of_divergences_with_less_error(margin):
    p, a = random_mixture((5,), 3, 2, seed=1), random_mixture((5,), 2, 2, seed=2)
    b = GaussianMixture(a.weights, a.means + 0.01, a.covariances)
    ratio = expected_log_ratio(p, a, b, num_samples=2**12, generator=generator(0))
    left, right = (kl_divergence(p, q, num_samples=2**12, generator=generator(1)) for q in (b, a))
    error = (left.standard_error**2 + right.standard_error**2).sqrt()
    margin(6.5 - (ratio.value - left.value + right.value).abs() / error)
    margin((error / ratio.standard_error / 3).log())


def test_refuses_few_draws_and_other_dimensions():
    p = random_mixture((), 2, 2)
    with pytest.raises(ValueError, match="at least 16 samples; got 8"):
        entropy(p, num_samples=8, generator=generator(0))
    with pytest.raises(ValueError, match="one dimension; got 2 and 3"):
        kl_divergence(p, random_mixture((), 2, 3), generator=generator(0))


def test_the_former_name_of_num_samples_is_taken_with_a_warning():
    p = random_mixture((), 3, 2)
    with pytest.warns(DeprecationWarning, match="entropy: draws is now num_samples"):
        former = entropy(p, draws=64)
    assert torch.equal(former.value, entropy(p, num_samples=64).value)
    with pytest.raises(TypeError, match="num_samples once; got it as draws too"):
        entropy(p, draws=64, num_samples=64)


def test_a_seed_is_a_generator_of_that_seed():
    p = random_mixture((), 3, 2)
    one = entropy(p, num_samples=64, seed=5)
    assert torch.equal(one.value, entropy(p, num_samples=64, generator=generator(5)).value)
    assert not torch.equal(one.value, entropy(p, num_samples=64).value)
