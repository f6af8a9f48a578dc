"""Mixtures against torch's own distributions, over batch shapes and dimensions."""

import pytest
import torch
from random_mixtures import random_mixture
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from rbpp.mixtures.mixture import GaussianMixture
from rbpp.randomness import generator

BATCHES = [(), (3,), (2, 3)]
SIZES = [(1, 1), (3, 1), (4, 2), (2, 5)]


def peer(mixture):
    return MixtureSameFamily(
        Categorical(mixture.weights), MultivariateNormal(mixture.means, mixture.covariances)
    )


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(("components", "dimension"), SIZES)
@pytest.mark.parametrize("sample", [(), (7,), (2, 4)])
@pytest.mark.parametrize("own_rows", [True, False])
def test_log_prob_is_that_of_torch(batch, components, dimension, sample, own_rows):
    mixture = random_mixture(batch, components, dimension)
    middle = batch if own_rows else (1,) * len(batch)
    value = torch.randn(*sample, *middle, dimension, dtype=torch.float64, generator=generator(1))
    expected = peer(mixture).log_prob(value)
    torch.testing.assert_close(mixture.log_prob(value), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("batch", BATCHES)
def test_rows_shared_by_the_batch_and_rows_of_their_own_agree(batch):
    mixture = random_mixture(batch, 3, 2)
    rows = torch.randn(11, 2, dtype=torch.float64, generator=generator(1))
    shared = mixture.log_prob_rows(rows)
    assert shared.shape == (*batch, 11)
    torch.testing.assert_close(shared, mixture.log_prob_rows(rows.expand(*batch, 11, 2)))
    torch.testing.assert_close(shared, mixture.component_log_prob_rows(rows).logsumexp(-1))
    torch.testing.assert_close(
        mixture.responsibilities(rows).sum(-1), torch.ones(*batch, 11, dtype=torch.float64)
    )


@pytest.mark.parametrize("argument", ["weights", "means", "covariances", "value"])
def test_gradients(argument):
    mixture = random_mixture((2,), 3, 2)
    values = {name: getattr(mixture, name) for name in ("weights", "means", "covariances")}
    values["value"] = torch.randn(5, 1, 2, dtype=torch.float64, generator=generator(1))

    def log_prob(changed):
        given = {**values, argument: changed}
        value = given.pop("value")
        # Off the simplex and off symmetry the derivative means nothing.
        given["weights"] = given["weights"] / given["weights"].sum(-1, keepdim=True)
        given["covariances"] = (given["covariances"] + given["covariances"].mT) / 2
        return GaussianMixture(**given).log_prob(value)

    assert torch.autograd.gradcheck(log_prob, values[argument].clone().requires_grad_())


def test_chunks_do_not_change_the_log_prob(monkeypatch):
    mixture = random_mixture((3,), 4, 2)
    rows = torch.randn(500, 2, dtype=torch.float64, generator=generator(1))
    whole = mixture.log_prob_rows(rows)
    monkeypatch.setattr("rbpp.mixtures.mixture._CHUNK_ELEMENTS", 100)
    torch.testing.assert_close(mixture.log_prob_rows(rows), whole)


def test_far_from_the_origin_nothing_is_lost():
    near = random_mixture((), 3, 2)
    offset = 1e6 * near.variance.sqrt()
    far = GaussianMixture(near.weights, near.means + offset, near.covariances)
    rows = near.sample((100,), generator=generator(1))
    torch.testing.assert_close(
        far.log_prob_rows(rows + offset), near.log_prob_rows(rows), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("batch", BATCHES)
def test_draws_have_the_mean_and_covariance(batch, margin):
    mixture = random_mixture(batch, 4, 2)
    count = 40_000
    draws = mixture.sample((count,), generator=generator(2))
    assert draws.shape == (count, *batch, 2)
    error = (draws.mean(0) - mixture.mean) / (mixture.variance / count).sqrt()
    margin(4.5 - error.abs())  # at most 12 normals: false alarm below 1e-4
    centred = draws - mixture.mean
    products = centred.unsqueeze(-1) * centred.unsqueeze(-2)
    error = (products.mean(0) - mixture.covariance) / (products.std(0) / count**0.5)
    margin(4.5 - error.abs())


def test_draws_come_from_the_generator_alone():
    mixture = random_mixture((), 3, 2)
    state = torch.get_rng_state()
    first, second = (mixture.sample((5,), generator=generator(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, mixture.sample((5,), generator=generator(4)))
    assert torch.equal(state, torch.get_rng_state())


def test_marginal_is_the_mixture_of_the_coordinates():
    mixture = random_mixture((2,), 3, 4)
    marginal = mixture.marginal([2, 0])
    torch.testing.assert_close(marginal.mean, mixture.mean[..., [2, 0]])
    torch.testing.assert_close(marginal.covariance, mixture.covariance[..., [2, 0], :][..., [2, 0]])


def test_select_and_expand_move_along_the_batch():
    mixture = random_mixture((4,), 3, 2)
    rows = torch.randn(6, 2, dtype=torch.float64, generator=generator(1))
    torch.testing.assert_close(
        mixture.select(2).log_prob_rows(rows), mixture.log_prob_rows(rows)[2]
    )
    assert mixture.expand((5, 4)).log_prob_rows(rows).shape == (5, 4, 6)
    assert repr(mixture) == "GaussianMixture(batch_shape=(4,), components=3, dimension=2)"


EYE = torch.eye(2)[None]
BAD = {
    "weights that do not sum to one": ((torch.tensor([0.5]), torch.zeros(1, 2), EYE), "sum to one"),
    "a negative weight": (
        (torch.tensor([1.5, -0.5]), torch.zeros(2, 2), EYE.expand(2, 2, 2)),
        "non-negative",
    ),
    "a NaN mean": ((torch.ones(1), torch.full((1, 2), torch.nan), EYE), "finite means"),
    "an indefinite covariance": ((torch.ones(1), torch.zeros(1, 2), -EYE), "positive definite"),
    "an asymmetric covariance": (
        (torch.ones(1), torch.zeros(1, 2), torch.tensor([[[1.0, 0.5], [0.0, 1.0]]])),
        "symmetric",
    ),
    "integers": ((torch.ones(1), torch.zeros(1, 2, dtype=torch.int64), EYE), "floating-point"),
    "shapes that disagree": ((torch.ones(1), torch.zeros(1, 3), EYE), "dimension 3 throughout"),
    "no component axis": ((torch.tensor(1.0), torch.zeros(2), torch.eye(2)), "Expected weights"),
}


@pytest.mark.parametrize("case", BAD)
def test_refuses(case):
    arguments, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        GaussianMixture(*arguments)


def test_refuses_rows_of_another_dimension_and_two_parametrisations():
    mixture = random_mixture((), 2, 2)
    with pytest.raises(ValueError, match="dimension 2"):
        mixture.log_prob_rows(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="both or none"):
        GaussianMixture(torch.ones(1), torch.zeros(1, 2), EYE, precision_cholesky=EYE)
    with pytest.raises(ValueError, match="at least one dimension"):
        mixture.marginal([])
