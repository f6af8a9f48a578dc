"""The conjugate family: draws, densities and divergences against each other and closed forms."""

import math
from dataclasses import replace

import pytest
import torch

from rbpp.mixtures.cavi import cavi
from rbpp.mixtures.conjugate import MixturePrior, default_prior
from rbpp.mixtures.normal_wishart import kl_divergence
from rbpp.randomness import generator


def posterior(dimension=2, batch=(), components=3):
    rows = torch.randn(*batch, 60, dimension, generator=generator(0), dtype=torch.float64)
    rows = rows + torch.arange(60).remainder(3).unsqueeze(-1) * 2
    prior = default_prior(rows, components)
    fit = cavi(rows, prior, components, generator=generator(1))
    return prior, fit.best()


@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_kl_is_the_mean_log_ratio(batch, dimension, margin):
    prior, q = posterior(dimension, batch)
    p = prior.parameters(3)
    draws = q.draw(4000, generator(2))
    ratio = q.log_prob(draws) - p.log_prob(draws)
    error = ratio.std(0) / math.sqrt(len(ratio))
    margin(4.5 - (kl_divergence(q, p) - ratio.mean(0)).abs() / error)
    torch.testing.assert_close(
        kl_divergence(q, q),
        torch.zeros(batch, dtype=torch.float64),
        atol=1e-9,
        rtol=0,
    )


@pytest.mark.parametrize("dimension", [1, 2])
def test_predictive_is_the_mean_density_of_the_draws(dimension, margin):
    _, q = posterior(dimension)
    rows = torch.linspace(-3, 7, 6, dtype=torch.float64).unsqueeze(-1).expand(6, dimension)
    density = q.draw(20_000, generator(2)).mixture().log_prob_rows(rows).exp()
    error = density.std(0) / math.sqrt(len(density))
    margin(4.5 - (q.predictive().log_prob(rows).exp() - density.mean(0)).abs() / error)


def test_draws_have_the_moments_of_the_distribution(margin):
    _, q = posterior(2)
    draws = q.draw(20_000, generator(2))
    for value, expected in (
        (draws.weights, q.concentration / q.concentration.sum(-1, keepdim=True)),
        (draws.means, q.mean),
        (
            draws.precision_cholesky @ draws.precision_cholesky.mT,
            q.degrees_of_freedom[:, None, None] * torch.linalg.inv(q.scale),
        ),
    ):
        error = value.std(0) / math.sqrt(len(value))
        margin(4.5 - (value.mean(0) - expected).abs() / error)
    expected = q.expected()
    torch.testing.assert_close(expected.means, q.mean)
    torch.testing.assert_close(expected.covariances, q.scale / q.degrees_of_freedom[:, None, None])


def test_factor_of_the_scale():
    _, q = posterior(3)
    factor = q.scale_tril
    torch.testing.assert_close(factor, factor.tril())
    torch.testing.assert_close(factor @ factor.mT @ q.scale, torch.eye(3).double().expand(3, 3, 3))


def test_draws_of_tiny_concentrations_have_a_density():
    _, q = posterior()
    sparse = replace(q, concentration=q.concentration * 0 + 1e-4)
    draws = sparse.draw(200, generator(0))
    assert sparse.log_prob(draws).isfinite().all()
    torch.testing.assert_close(draws.weights.sum(-1), torch.ones(200, dtype=torch.float64))


def test_default_prior_follows_an_affine_map_of_the_rows():
    rows = torch.randn(50, 2, generator=generator(0), dtype=torch.float64)
    near = default_prior(rows, 4)
    far = default_prior(rows * 100 + 1e6, 4)
    torch.testing.assert_close(far.mean, near.mean * 100 + 1e6)
    torch.testing.assert_close(far.scale, near.scale * 1e4)
    assert default_prior(rows, 1).scale[0, 0] == pytest.approx(4 * near.scale[0, 0])
    collinear = torch.stack([rows[:, 0], rows[:, 0]], -1)
    assert torch.linalg.eigvalsh(default_prior(collinear, 2).scale).min() > 0


def test_prior_draws_have_the_shapes_of_the_family():
    prior, _ = posterior(2, (2,))
    draws = prior.parameters(3).draw(5, generator(0))
    assert draws.weights.shape == (5, 2, 3)
    assert draws.mixture().batch_shape == (5, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"concentration": 0.0}, "concentration of the prior above 0"),
        ({"mean_precision": -1.0}, "mean_precision of the prior above 0"),
        ({"degrees_of_freedom": 1.0}, "degrees_of_freedom of the prior above 1"),
        ({"scale": -torch.eye(2)}, "positive definite scale"),
        ({"scale": torch.eye(3)}, r"scale \(…, d, d\)"),
        ({"mean": torch.tensor([0.0, torch.nan])}, "finite mean"),
    ],
)
def test_bad_priors_are_named(change, message):
    good = {
        "concentration": 1.0,
        "mean": torch.zeros(2),
        "mean_precision": 1.0,
        "degrees_of_freedom": 3.0,
        "scale": torch.eye(2),
    }
    with pytest.raises(ValueError, match=message):
        MixturePrior(**{**good, **change})


def test_rows_that_do_not_vary_have_no_default_prior():
    rows = torch.randn(10, 2, generator=generator(0), dtype=torch.float64)
    rows[:, 1] = 3.3
    with pytest.raises(ValueError, match=r"constant coordinate 1 of the data, 3\.3 up"):
        default_prior(rows, 2)
    rows[:, 1] = 1e200 * rows[:, 0]
    with pytest.raises(ValueError, match=r"float64 can hold; got .*e\+200 in coordinate 1"):
        default_prior(rows, 2)
    with pytest.raises(ValueError, match="components ≥ 1"):
        default_prior(rows, 0)


def test_best_of_groups_of_restarts():
    rows = torch.randn(2, 40, 1, generator=generator(0), dtype=torch.float64)
    fit = cavi(rows, default_prior(rows, 3), 3, restarts=6, generator=generator(1))
    best = fit.best_of(3)
    assert best.batch_shape == (2, 2)
    torch.testing.assert_close(best.elbo, fit.elbo.unflatten(0, (2, 3)).amax(1))
    torch.testing.assert_close(fit.best_of(6).mean[0], fit.best().mean)
