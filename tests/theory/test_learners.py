"""Learners: what a distribution q(W | S) says of itself, against closed forms and each other."""

import math
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch

from rbpp.mixtures.mixture import GaussianMixture
from rbpp.mixtures.normal_wishart import Draws, kl_divergence
from rbpp.randomness import generator
from rbpp.theory import matching
from rbpp.theory.finite_learner import finite_learner
from rbpp.theory.guide_learner import guide_learner
from rbpp.theory.information import contrastive_bounds, variational_upper_bound
from rbpp.theory.learners import (
    divergences,
    gaussian_divergence,
    mixture_learner,
    point_learner,
)

ERRORS = 4.0


def mixture_data(worlds=2, replicates=48, rows=120, seed=0):
    """Data sets of two well-separated clusters in the plane, and pilot rows."""
    distribution = GaussianMixture(
        torch.tensor([0.5, 0.5]).double(),
        torch.tensor([[-4.0, 0.0], [4.0, 1.0]]).double(),
        torch.eye(2).expand(2, 2, 2).double(),
    )
    g = generator(seed)
    return distribution.sample((worlds, replicates, rows), generator=g), distribution.sample(
        (worlds, rows), generator=g
    )


def normal_guide(rows):
    pyro.sample("centre", dist.Normal(rows.mean(-2), 0.1).to_event(1))


LEARNERS = {
    "mixture": lambda: mixture_learner(2),
    "mixture, components chosen": lambda: mixture_learner(),
    "point": lambda: point_learner(0.1),
    "guide": lambda: guide_learner(normal_guide),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_sides_of_every_learner_enclose_each_other(name, margin):
    data, pilot = mixture_data(replicates=24)
    learned = LEARNERS[name]().prepare(pilot, generator(1)).fit(data)
    low, _ = learned.cross_log_prob(learned.draw(generator(2)))
    assert low.shape == (2, 24, 24)
    across, within = divergences(learned)
    assert across.shape == within.shape == (2, 24)
    lower, upper = contrastive_bounds(low)[0], variational_upper_bound(across)
    allowed = lower.standard_error + upper.standard_error
    margin(ERRORS + (upper.value - lower.value) / allowed)
    more = across - within
    if name == "guide":  # whose divergences are averages over draws
        margin(ERRORS + more.mean(-1) / (more.std(-1) / math.sqrt(24)))
    else:
        assert bool((more.mean(-1) >= -1e-9).all())
    part = learned.select(slice(0, 5))
    assert part.divergence(part).shape == (2, 5)


@pytest.mark.parametrize("name", LEARNERS)
def test_the_same_data_give_the_same_distribution(name):
    data, pilot = mixture_data(worlds=1, replicates=4)
    prepared = LEARNERS[name]().prepare(pilot, generator(1))
    w = prepared.fit(data).draw(generator(2))
    first, again = (prepared.fit(data).cross_log_prob(w)[0] for _ in range(2))
    assert torch.equal(first, again)


def test_point_learner_meets_its_closed_form(margin):
    """Mean of n rows of variance s² plus noise τ: I = d/2 log(1 + s²/(n τ²))."""
    g = generator(3)
    rows, noise, dimension = 20, 0.3, 2
    data = torch.randn(30, 200, rows, dimension, generator=g, dtype=torch.float64)
    learned = point_learner(noise).prepare(data[:, 0], g).fit(data)
    truth = 0.5 * dimension * math.log(1 + 1 / (rows * noise**2))
    across, within = divergences(learned)
    for values, sign in ((across, 1), (within, -1)):
        mean, error = values.mean(), values.mean(-1).std() / math.sqrt(30)
        margin(ERRORS * float(error) + sign * float(mean - truth))
        margin(0.05 - abs(float(mean - truth)))
    low, high = learned.cross_log_prob(learned.draw(g))
    lower, upper = contrastive_bounds(low)[0], contrastive_bounds(high)[1]
    error = float(lower.standard_error.square().mean().sqrt()) / math.sqrt(30)
    margin(truth + ERRORS * error - float(lower.value.mean()))
    margin(float(upper.value.mean()) - truth + ERRORS * error)
    loss = learned_loss = point_learner(noise).prepare(data[:, 0], g).loss(learned.centre, data)
    assert bool(((loss >= 0) & (learned_loss <= 1)).all())


def test_a_guide_is_the_learner_it_says():
    data, pilot = mixture_data(worlds=1, replicates=6, rows=30)
    point = point_learner(0.1).prepare(pilot, generator(0)).fit(data)
    guide = guide_learner(normal_guide).prepare(pilot, generator(0)).fit(data)
    w = point.draw(generator(1))
    expected = point.cross_log_prob(w)[0]
    found = guide.cross_log_prob({"centre": w})[0]
    shift = -2 * math.log(0.1) - math.log(2 * math.pi)
    torch.testing.assert_close(found, expected + shift)


def test_a_guide_without_continuous_sites_leaves_the_upper_side_to_the_leave_one_out_bound():
    def letters(rows):
        pyro.sample("letter", dist.Bernoulli(torch.sigmoid(rows.mean())))

    data, pilot = mixture_data(worlds=1, replicates=3, rows=10)
    learned = guide_learner(letters).prepare(pilot, generator(0)).fit(data)
    assert bool((learned.divergence(learned) == math.inf).all())
    assert torch.isfinite(learned.cross_log_prob(learned.draw(generator(1)))[0]).all()
    with pytest.raises(ValueError, match="sample sites"):
        guide_learner(lambda rows: None).prepare(pilot, generator(0)).fit(data).draw(generator(1))


def test_order_of_components_is_no_information():
    data, pilot = mixture_data(replicates=5)
    learned = mixture_learner(3).prepare(pilot, generator(0)).fit(data)
    w = learned.draw(generator(1))
    order = torch.tensor([2, 0, 1])
    shuffled = Draws(
        w.weights[..., order], w.means[..., order, :], w.precision_cholesky[..., order, :, :]
    )
    for one, other in zip(learned.cross_log_prob(w), learned.cross_log_prob(shuffled), strict=True):
        torch.testing.assert_close(one, other)


def test_finite_learner_meets_its_exact_information(margin):
    """Majority of three bits, replaced with probability 0.2, by enumeration of all eight."""
    bits = torch.cartesian_prod(*[torch.arange(2)] * 3).double()
    share = 0.3
    distribution = (share**bits * (1 - share) ** (1 - bits)).prod(-1)
    prepared = finite_learner(2, 0.2).prepare(bits[None, :, :1], generator(0))
    table = prepared.fit(bits[None, :, :, None]).probabilities[0]
    marginal = distribution @ table
    truth = float((distribution[:, None] * table * (table / marginal).log()).sum())
    data = (torch.rand(20, 500, 3, 1, generator=generator(1), dtype=torch.float64) < share).double()
    learned = prepared.fit(data)
    across, within = divergences(learned)
    for values in (across, within):
        error = float(values.mean(-1).std()) / math.sqrt(20)
        margin(ERRORS * error + 1e-3 - abs(float(values.mean()) - truth))
    w = learned.draw(generator(2))
    lower, upper = (contrastive_bounds(side)[k] for k, side in enumerate(learned.cross_log_prob(w)))
    for side, sign in ((lower.value, 1), (upper.value, -1)):
        error = float(side.std()) / math.sqrt(20)
        margin(ERRORS + sign * (truth - float(side.mean())) / error)
    wrong = prepared.loss(torch.zeros(20, 500), data)
    torch.testing.assert_close(wrong, data[..., 0])


@pytest.mark.parametrize("components", [1, 3])
def test_products_of_statistics_are_the_conjugate_densities(components):
    data, pilot = mixture_data(replicates=6)
    learned = mixture_learner(components).prepare(pilot, generator(0)).fit(data)
    q = learned.parameters
    w = q.draw(1, generator(1)).map(lambda value: value[0])
    other = q.map(lambda value: value.roll(1, dims=1))
    statistics, expected = matching.statistics(w), matching.expected_statistics(q)

    def density(parameters, values):
        natural, constant, total = matching.natural_parameters(parameters)
        return (values * natural).sum((-1, -2)) + constant.sum(-1) + total

    ratio = q.log_prob(w) - other.log_prob(w)
    torch.testing.assert_close(density(q, statistics) - density(other, statistics), ratio)
    divergence = density(q, expected) - density(other, expected)
    torch.testing.assert_close(divergence, kl_divergence(q, other))


def test_matching_returns_a_distribution_to_itself_and_is_the_closest_to_several():
    data, pilot = mixture_data(worlds=1, replicates=8)
    q = mixture_learner(2).prepare(pilot, generator(0)).fit(data).parameters
    found = matching.match(matching.expected_statistics(q), 2)
    for one, other in zip(found, q, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    mean = matching.expected_statistics(q).mean(1, keepdim=True)
    best = matching.match(mean, 2)
    least = kl_divergence(q, best).mean()
    for name in ("mean_precision", "degrees_of_freedom", "concentration"):
        for factor in (0.95, 1.05):
            worse = replace(best, **{name: getattr(best, name) * factor})
            assert float(kl_divergence(q, worse).mean()) > float(least), name


def test_gaussian_divergence_is_torchs():
    g = generator(0)
    centres = torch.randn(1, 40, 3, generator=g, dtype=torch.float64)
    found = gaussian_divergence(centres, centres)
    covariance = torch.cov(centres[0].mT, correction=0) + torch.eye(3)
    distribution = torch.distributions.MultivariateNormal(centres.mean(-2), covariance)
    each = torch.distributions.MultivariateNormal(centres[0], torch.eye(3).double())
    torch.testing.assert_close(found[0], torch.distributions.kl_divergence(each, distribution))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mixture_learner(0), "components"),
        (lambda: point_learner(0.0), "noise above 0"),
        (lambda: point_learner(math.nan), "noise above 0"),
        (lambda: finite_learner(2, 0.0), "noise"),
        (lambda: finite_learner(0), "letters"),
    ],
)
def test_refuses_learners_without_a_distribution(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_finite_learner_refuses_rows_of_several_numbers():
    data, pilot = mixture_data(worlds=1, replicates=2)
    with pytest.raises(ValueError, match="rows of one letter"):
        finite_learner(2).prepare(pilot, generator(0)).fit(data)
