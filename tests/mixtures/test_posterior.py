"""What a mixture posterior gives its users: judgement, labels, InferenceData, component counts."""

import arviz as az
import numpy as np
import pytest
import torch

from rbpp.inference_data import read, write
from rbpp.mixtures.component_count import compare_component_counts, leave_one_out
from rbpp.mixtures.conjugate import default_prior
from rbpp.mixtures.normal_wishart import Draws
from rbpp.mixtures.posterior import MixturePosterior, fit_mixture
from rbpp.mixtures.relabelling import relabelled, symmetric_divergence
from rbpp.randomness import generator


def clusters(count=40, centres=(0.0, 5.0, 9.0), dimension=2, seed=1):
    source = generator(seed)
    parts = [
        torch.randn(count, dimension, generator=source, dtype=torch.float64) + centre
        for centre in centres
    ]
    return torch.cat(parts)


@pytest.fixture(scope="module")
def rows():
    return clusters(80, (0.0, 6.0, 12.0))


@pytest.fixture(scope="module")
def posterior(rows) -> MixturePosterior:
    return fit_mixture(rows, 3, restarts=2, draws=300)


def test_planted_switches_are_undone(posterior):
    source = generator(3)
    weights, means, precision = posterior.relabelled().draws
    order = torch.stack([torch.randperm(3, generator=source) for _ in range(600)]).reshape(
        2, 300, 3
    )
    switched = Draws(
        weights.gather(-1, order),
        means.gather(-2, order.unsqueeze(-1).expand_as(means)),
        precision.gather(-3, order[..., None, None].expand_as(precision)),
    )
    assert not torch.equal(switched.means, means)
    reference = Draws(*(value[0, 0] for value in (weights, means, precision)))
    restored = relabelled(switched, reference)
    for found, expected in zip(restored, (weights, means, precision), strict=True):
        torch.testing.assert_close(found, expected)


def test_relabelling_keeps_the_density(rows, posterior):
    moved = posterior.relabelled()
    torch.testing.assert_close(moved.log_likelihood(rows), posterior.log_likelihood(rows))
    spread = moved.draws.means.flatten(0, 1).std(0)
    assert (spread < 1).all()  # clusters are 5 apart: one label is one cluster


def test_symmetric_divergence_is_both_divergences(posterior):
    mixture = posterior.mixture.select((0, slice(0, 2)))
    left = torch.distributions.MultivariateNormal(
        mixture.means.unsqueeze(-2), mixture.covariances.unsqueeze(-3)
    )
    right = torch.distributions.MultivariateNormal(
        mixture.means.unsqueeze(-3), mixture.covariances.unsqueeze(-4)
    )
    kl = torch.distributions.kl_divergence
    torch.testing.assert_close(
        symmetric_divergence(mixture, mixture), kl(left, right) + kl(right, left)
    )


def test_posterior_is_reproducible_and_seeds_differ(rows, posterior):
    again = fit_mixture(rows, 3, restarts=2, draws=300)
    assert torch.equal(again.draws.means, posterior.draws.means)
    other = fit_mixture(rows, 3, restarts=2, draws=300, seed=1)
    assert not torch.equal(other.draws.means, posterior.draws.means)
    assert again.digest == posterior.digest != fit_mixture(rows + 1, 3, draws=10).digest


def test_arviz_runs_on_it(rows, posterior, tmp_path):
    data = posterior.relabelled().to_inference_data(rows, settings={"seed": 0})
    summary = az.summary(data, var_names=["mean", "weight"])
    assert (summary["r_hat"].astype(float) < 1.05).all()
    assert set(data["sample_stats"].data_vars) == {"lp", "log_q", "elbo", "pareto_k"}
    loo = az.loo(data)
    elpd = float(getattr(loo, "elpd_loo", getattr(loo, "elpd", 0)))
    own, _ = leave_one_out(posterior, rows)
    assert own.sum().item() == pytest.approx(elpd, abs=5)
    assert data["posterior"]["covariance"].dims[2:] == ("component", "dim", "dim_other")
    assert str(data["constant_data"]["engine"].values) == "cavi"
    write(data, tmp_path / "fit.nc")
    back = read(tmp_path / "fit.nc")
    assert back["posterior"]["mean"].equals(data["posterior"]["mean"])


def test_masked_rows_do_not_count(rows):
    kept = torch.rand(len(rows), generator=generator(0)) > 0.3
    holes = torch.where(kept.unsqueeze(-1), rows, torch.nan)
    # Sums in another order may end one pass earlier: both go on to their fixed point.
    options = {"restarts": 1, "draws": 20, "tolerance": 1e-13}
    masked = fit_mixture(holes, 3, mask=kept, **options)
    dropped = fit_mixture(rows[kept], 3, **options)
    torch.testing.assert_close(masked.log_prob, dropped.log_prob)


def test_importance_weights_correct_the_evidence():
    # One Gaussian: q is the posterior, the ratios are all the log evidence.
    rows = clusters(20, (0.0,))
    fit = fit_mixture(rows, 1, restarts=1, draws=100)
    ratio = fit.log_prob - fit.log_q
    torch.testing.assert_close(ratio, fit.elbo.unsqueeze(-1).expand_as(ratio))
    assert fit.pareto_k.item() < 0
    torch.testing.assert_close(fit.log_weights.exp(), torch.full_like(ratio, 0.01))


def test_resampling_moves_the_mean_towards_the_posterior(posterior):
    again = posterior.resampled()
    weights = posterior.log_weights.exp()
    weighted = (weights.unsqueeze(-1).unsqueeze(-1) * posterior.draws.means).sum(1)
    error = posterior.draws.means.std(1) / 300**0.5
    assert ((again.draws.means.mean(1) - weighted).abs() < 4.5 * error).all()
    assert again.log_q is None


def test_not_judging_saves_the_densities(rows):
    fit = fit_mixture(rows, 3, restarts=1, draws=10, judge=False)
    assert fit.log_prob.isnan().all()
    assert fit.pareto_k.isnan().all()


def test_starts_and_concentration_reach_the_fit(rows):
    many = fit_mixture(rows, 6, restarts=1, starts=20, draws=10)
    few = fit_mixture(rows, 6, restarts=1, starts=1, draws=10)
    assert many.elbo > few.elbo
    sparse = fit_mixture(rows, 6, restarts=1, draws=10, concentration=0.01)
    assert sparse.prior.concentration.item() == pytest.approx(0.01)
    cut = fit_mixture(rows, 6, restarts=1, draws=10, max_iterations=2)
    assert cut.elbo < many.elbo


@pytest.mark.parametrize("method", ["folds", "psis"])
def test_component_counts_are_ranked(rows, method):
    ranked = compare_component_counts(rows, [1, 2, 3], method=method, restarts=2, draws=300)
    assert [entry.components for entry in ranked] == [3, 2, 1]
    assert ranked[0].difference.value == 0
    assert ranked[-1].difference.value + 4 * ranked[-1].difference.standard_error < 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "gibbs"}, "engine of cavi, svi, nuts"),
        ({"steps": 3}, "options of cavi"),
        ({"draws": 0}, "draws ≥ 1; got 0"),
        ({"restarts": 0}, "restarts ≥ 1; got 0"),
        ({"starts": 0}, "starts ≥ 1; got 0"),
        ({"engine": "nuts", "guide": "AutoNormal"}, "options of nuts"),
        (
            {"prior": default_prior(torch.randn(9, 3, generator=generator(0)), 2)},
            r"rows \(…, n, 3\)",
        ),
    ],
)
def test_bad_options_are_named(rows, options, message):
    with pytest.raises(ValueError, match=message):
        fit_mixture(rows, 3, **options)


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        ([], {}, "at least one"),
        ([2], {"method": "aic"}, "method folds or psis"),
        ([2], {"folds": 1}, "folds from 2"),
        ([2], {"mask": torch.ones(120, dtype=torch.bool)}, "without mask"),
    ],
)
def test_bad_comparisons_are_named(rows, counts, options, message):
    with pytest.raises(ValueError, match=message):
        compare_component_counts(rows, counts, **options)


def test_rows_have_two_dimensions(rows):
    with pytest.raises(ValueError, match=r"rows \(n, d\)"):
        fit_mixture(rows.unsqueeze(0), 3)


def test_arrays_lists_and_tensors_are_the_same_rows():
    rows = torch.randn(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    first, *others = (
        fit_mixture(given, 2, restarts=2, draws=20).draws.means
        for given in (rows, rows.numpy(), rows.tolist())
    )
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize(
    ("rows", "components", "message"),
    [
        ("abc", 2, "rows of real numbers"),
        (np.eye(5)[:4], 2, "at least as many rows as dimensions; got 4 rows of 5"),
        ([["a"], ["b"]], 2, "rows of real numbers"),
        (np.zeros((3, 2), dtype=complex), 2, "rows of real numbers"),
        ([[1.0], [1.0, 2.0]], 2, "rows of one length"),
        (np.zeros((0, 2)), 2, r"rows \(n, d\); got shape \(0, 2\)"),
        (np.arange(4.0), 2, r"rows \(n, d\); got shape \(4,\)"),
        ([[0.0, 1.0], [np.nan, 2.0]], 2, "finite rows; got nan in row 1, column 0"),
        (np.eye(4), 1.5, "whole number of components; got 1.5"),
        (np.eye(4), None, "whole number of components; got None"),
    ],
)
def test_what_are_no_rows_or_components_is_named(rows, components, message):
    with pytest.raises(ValueError, match=message):
        fit_mixture(rows, components)
