"""The Cholesky coordinates of the Wishart against torch's own distribution, and their bijection."""

import pytest
import torch
from torch.distributions import MultivariateNormal, Wishart, biject_to

from rbpp.mixtures.wishart import CholeskyFactorTransform, PrecisionNormal, WishartCholesky
from rbpp.randomness import generator


def factor(*shape, seed=0):
    source = generator(seed)
    square = torch.randn(*shape, shape[-1], generator=source, dtype=torch.float64)
    identity = torch.eye(shape[-1], dtype=torch.float64)
    return torch.linalg.cholesky(square @ square.mT + identity)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
@pytest.mark.parametrize("dimension", [1, 2, 4])
def test_log_prob_is_the_wisharts_with_the_jacobian(batch, dimension):
    scale = factor(*batch, dimension)
    freedom = torch.full(batch, dimension + 1.5, dtype=torch.float64)
    distribution = WishartCholesky(freedom, scale)
    value = distribution.draw((5,), generator(1))
    assert value.shape == (5, *batch, dimension, dimension)
    power = torch.arange(dimension, 0, -1)
    diagonal = value.diagonal(dim1=-2, dim2=-1).log()
    jacobian = dimension * torch.tensor(2.0).log() + (power * diagonal).sum(-1)
    expected = Wishart(freedom, scale_tril=scale).log_prob(value @ value.mT) + jacobian
    torch.testing.assert_close(distribution.log_prob(value), expected, rtol=1e-6, atol=1e-6)
    assert distribution.expand((4, *batch)).batch_shape == (4, *batch)


def test_draws_have_the_wisharts_mean(margin):
    scale = factor(3)
    distribution = WishartCholesky(torch.tensor(7.0, dtype=torch.float64), scale)
    draws = distribution.draw((20_000,), generator(0))
    precision = draws @ draws.mT
    error = precision.std(0) / len(draws) ** 0.5
    expected = 7 * scale @ scale.mT
    margin(4.5 - (precision.mean(0) - expected).abs() / error)  # 1 false alarm in 16,000


@pytest.mark.parametrize("dimension", [1, 2, 4])
def test_bijection_and_its_jacobian(dimension):
    transform = biject_to(WishartCholesky.support)
    assert transform == CholeskyFactorTransform()
    size = dimension * (dimension + 1) // 2
    vector = torch.randn(6, size, generator=generator(0), dtype=torch.float64)
    matrix = transform(vector)
    assert transform.codomain.check(matrix).all()
    assert matrix.shape == transform.forward_shape(vector.shape)
    assert vector.shape == transform.inverse_shape(matrix.shape)
    torch.testing.assert_close(transform.inv(matrix), vector)
    row, column = torch.tril_indices(dimension, dimension)

    def entries(one):
        return transform(one)[row, column]

    slopes = torch.stack([torch.autograd.functional.jacobian(entries, one) for one in vector])
    torch.testing.assert_close(
        transform.log_abs_det_jacobian(vector, matrix), slopes.det().abs().log()
    )


@pytest.mark.parametrize("batch", [(), (1,), (4,), (3, 1)])
def test_precision_normal_is_torchs(batch, margin):
    cholesky = factor(*batch, 3)
    loc = torch.randn(*batch, 3, generator=generator(0), dtype=torch.float64)
    ours = PrecisionNormal(loc, cholesky)
    theirs = MultivariateNormal(loc, precision_matrix=cholesky @ cholesky.mT)
    value = torch.randn(7, *batch, 3, generator=generator(1), dtype=torch.float64)
    torch.testing.assert_close(ours.log_prob(value), theirs.log_prob(value))
    draws = ours.draw((20_000,), generator(2))
    error = theirs.stddev / len(draws) ** 0.5
    margin(4.5 - (draws.mean(0) - loc).abs() / error)
    margin(4.5 * (2 / len(draws)) ** 0.5 - (draws.var(0) / theirs.variance - 1).abs())


def test_a_factor_shared_by_the_rows_gives_the_same_density():
    cholesky = factor(4, 1, 3)
    loc = torch.randn(4, 1, 3, generator=generator(0), dtype=torch.float64)
    rows = torch.randn(9, 3, generator=generator(1), dtype=torch.float64)
    shared = PrecisionNormal(loc, cholesky).log_prob(rows)
    own = PrecisionNormal(loc.expand(4, 9, 3), cholesky.expand(4, 9, 3, 3).contiguous())
    torch.testing.assert_close(shared, own.log_prob(rows))


def test_bad_parameters_are_named():
    with pytest.raises(ValueError, match="above d − 1 = 1"):
        WishartCholesky(torch.tensor(0.5), torch.eye(2))
    with pytest.raises(ValueError, match="scale_tril"):
        WishartCholesky(torch.tensor(5.0), -torch.eye(2))
