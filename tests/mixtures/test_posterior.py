"""What a mixture posterior gives its users: checks, labels, InferenceData, component counts."""

from dataclasses import replace

import arviz as az
import numpy as np
import pytest
import torch

from rbpp.inference_data import read
from rbpp.mixtures.ascent import Ascent
from rbpp.mixtures.component_count import compare_component_counts
from rbpp.mixtures.conjugate import default_prior
from rbpp.mixtures.engines import Gradient, Sampling
from rbpp.mixtures.fit import fit_mixture, fit_mixture_stream
from rbpp.mixtures.normal_wishart import Draws
from rbpp.mixtures.posterior import (
    MixturePosterior,
    Settings,
    mixture_posterior,
    relabelled,
    symmetric_divergence,
)
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
    return mixture_posterior(rows, 3, Settings(chains=2, draws=300))


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
    again = mixture_posterior(rows, 3, Settings(chains=2, draws=300))
    assert torch.equal(again.draws.means, posterior.draws.means)
    other = mixture_posterior(rows, 3, Settings(chains=2, draws=300, seed=1))
    assert not torch.equal(other.draws.means, posterior.draws.means)
    shifted = mixture_posterior(rows + 1, 3, Settings(draws=10))
    assert again.digest == posterior.digest != shifted.digest


def test_arviz_runs_on_a_fit(rows, tmp_path):
    fit = fit_mixture(rows, 3, chains=2, draws=300, log_likelihood=True)
    data = fit.idata
    summary = az.summary(data, var_names=["mean", "weight", "entropy"])
    assert (summary["r_hat"].astype(float) < 1.05).all()
    assert set(data["sample_stats"].data_vars) == {"lp", "log_q", "elbo", "pareto_k"}
    assert az.loo(data) is not None
    torch.testing.assert_close(
        torch.as_tensor(data["log_likelihood"]["row"].values), fit.posterior.log_likelihood(rows)
    )
    assert data["posterior"]["covariance"].dims[2:] == ("component", "dim", "dim_other")
    assert str(data["constant_data"]["engine"].values) == "cavi"
    fit.save(tmp_path / "fit.nc")
    back = read(tmp_path / "fit.nc")
    assert back["posterior"]["mean"].equals(data["posterior"]["mean"])


def test_a_fit_has_terms_checks_and_a_table(rows):
    fit = fit_mixture(rows, 3, chains=2, draws=50, points=64)
    assert set(fit.terms) == {"entropy", "effective_components"}
    assert fit.terms["entropy"].standard_error.min() > 0
    assert [check.verdict for check in fit.checks[:2]] == ["holds", "holds"]
    assert torch.equal(fit.mixture.means, fit.posterior.draws.means)
    assert "component  weight" in fit.text()
    assert set(fit.figures()) == {"fit"}
    again = fit_mixture(rows, 3, chains=2, draws=50, points=128)
    assert not torch.equal(again.terms["entropy"].value, fit.terms["entropy"].value)


def verdicts_of(fit):
    return {check.statement: check for check in fit.checks}


def test_chains_in_different_optima_are_said_to_be(margin):
    """One normal as two components: many decompositions have the one density."""
    one = torch.randn(80, 2, generator=torch.Generator().manual_seed(0))
    apart = one + 6 * (torch.arange(80) % 2).unsqueeze(-1)
    found = verdicts_of(fit_mixture(one, 2, chains=8, draws=200, points=64))
    components = found["chains agree on the components"]
    assert components.verdict == "undecided"
    assert "different optima" in components.message
    margin(components.measured["r_hat"] - components.measured["threshold"])
    # What a verdict rests on where ratios cannot vouch for it.
    near = found["the approximation is near the posterior"]
    assert near.measured["pareto_k"] > 0.7
    assert (near.verdict == "holds") == ("these alone vouch" in near.message)
    for draws in (20, 200):
        same = verdicts_of(fit_mixture(apart, 2, draws=draws, points=64))
        assert same["chains agree on the components"].verdict == "holds"


def test_labels_that_chains_have_exchanged_are_matched(rows, posterior):
    turned = posterior.draws.map(lambda value: value.clone())
    for value in turned:
        value[1] = value[1].roll(1, dims=1)  # the components of the second chain
    mixed = replace(posterior, draws=turned)
    gap = posterior.relabelled().draws.means.mean(1).diff(dim=0).abs().max()
    assert mixed.draws.means.mean(1).diff(dim=0).abs().max() > 1
    moved = mixed.relabelled(posterior.relabelled().draws.map(lambda value: value[0, 0]))
    assert moved.draws.means.mean(1).diff(dim=0).abs().max() == pytest.approx(gap)
    torch.testing.assert_close(moved.log_likelihood(rows), posterior.log_likelihood(rows))


def test_several_counts_choose_the_one_that_predicts(rows):
    fit = fit_mixture(rows, [1, 3], chains=1, draws=20)
    assert fit.posterior.components == 3
    assert [entry.components for entry in fit.comparison] == [3, 1]
    assert [entry["components"] for entry in fit.details()["comparison"]] == [3, 1]


def test_a_path_is_read_as_a_stream(rows, tmp_path, margin):
    np.save(tmp_path / "rows.npy", rows.numpy())
    fit = fit_mixture_stream(tmp_path / "rows.npy", 3, chains=2, draws=50)
    whole = fit_mixture(rows, 3, chains=2, draws=50)
    near, far = (found.terms["entropy"].value for found in (fit, whole))
    margin(4 * far.std() * (2 / 100) ** 0.5 - (near.mean() - far.mean()).abs())
    assert [check.verdict for check in fit.checks] == ["holds"] * 4 + ["unknown"]
    assert fit.settings["rows"] == len(rows)


def ordered(fit, name):
    """A parameter of the variational posterior, components by their weight."""
    order = fit.variational.concentration[0].argsort()
    return getattr(fit.variational, name)[0][order]


def test_weights_are_repetitions(rows):
    times = torch.randint(0, 3, (len(rows),), generator=generator(0))
    # Sums in another order may end one pass earlier: both go on to their fixed point.
    options = {"chains": 1, "draws": 20, "ascent": Ascent(tolerance=1e-13)}
    weighted = mixture_posterior(rows, 3, Settings(sample_weights=times.double(), **options))
    repeated = mixture_posterior(rows.repeat_interleave(times, 0), 3, Settings(**options))
    torch.testing.assert_close(weighted.elbo, repeated.elbo)
    # Starts that end at one optimum tie: which of them wins, and so the order, is rounding's.
    for name in ("concentration", "mean", "scale"):
        one, other = (ordered(fit, name) for fit in (weighted, repeated))
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_importance_weights_correct_the_evidence():
    # One Gaussian: q is the posterior, the ratios are all the log evidence.
    rows = clusters(20, (0.0,))
    fit = mixture_posterior(rows, 1, Settings(chains=1, draws=100))
    ratio = fit.log_prob - fit.log_q
    torch.testing.assert_close(ratio, fit.elbo.unsqueeze(-1).expand_as(ratio))
    assert fit.pareto_k.item() < 0
    torch.testing.assert_close(fit.log_weights.exp(), torch.full_like(ratio, 0.01))


def test_resampling_moves_the_mean_towards_the_posterior(posterior, margin):
    again = posterior.resampled()
    weights = posterior.log_weights.exp()
    weighted = (weights.unsqueeze(-1).unsqueeze(-1) * posterior.draws.means).sum(1)
    error = posterior.draws.means.std(1) / 300**0.5
    margin(4.5 * error - (again.draws.means.mean(1) - weighted).abs())
    assert again.log_q is None


def test_starts_and_concentration_reach_the_fit(rows):
    many = mixture_posterior(rows, 6, Settings(chains=1, draws=10, ascent=Ascent(starts=20)))
    few = mixture_posterior(rows, 6, Settings(chains=1, draws=10, ascent=Ascent(starts=1)))
    assert many.elbo > few.elbo
    sparse = mixture_posterior(rows, 6, Settings(chains=1, draws=10, concentration=0.01))
    assert sparse.prior.concentration.item() == pytest.approx(0.01)
    cut = mixture_posterior(rows, 6, Settings(chains=1, draws=10, ascent=Ascent(max_iterations=2)))
    assert cut.elbo < many.elbo


def test_component_counts_are_ranked(rows, margin):
    ranked = compare_component_counts(rows, [1, 2, 3], Settings(chains=2, draws=300))
    assert [entry.components for entry in ranked] == [3, 2, 1]
    assert ranked[0].difference.value == 0
    margin(0 - (ranked[-1].difference.value + 4 * ranked[-1].difference.standard_error))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "gibbs"}, "engine to be one of cavi, svi, nuts; got 'gibbs'"),
        ({"gradient": Gradient()}, "engine svi with gradient settings; got engine cavi"),
        ({"draws": 0}, "draws to be a whole number of 1 or more; got 0"),
        ({"chains": 0}, "chains to be a whole number of 1 or more; got 0"),
        ({"ascent": Ascent(starts=0)}, "starts to be a whole number of 1 or more; got 0"),
        ({"engine": "svi", "sampling": Sampling()}, "engine nuts with sampling settings"),
        (
            {"prior": default_prior(torch.randn(9, 3, generator=generator(0)), 2)},
            r"rows \(…, n, 3\)",
        ),
    ],
)
def test_bad_options_are_named(rows, options, message):
    with pytest.raises(ValueError, match=message):
        mixture_posterior(rows, 3, Settings(**options))


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        ([], {}, "at least one"),
        ([2], {"sample_weights": torch.ones(240)}, "without sample_weights"),
    ],
)
def test_bad_comparisons_are_named(rows, counts, options, message):
    with pytest.raises(ValueError, match=message):
        compare_component_counts(rows, counts, Settings(**options))


def test_rows_have_two_dimensions(rows):
    with pytest.raises(ValueError, match=r"rows \(n, d\)"):
        mixture_posterior(rows.unsqueeze(0), 3)


def test_arrays_lists_and_tensors_are_the_same_rows():
    rows = torch.randn(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    first, *others = (
        mixture_posterior(given, 2, Settings(chains=2, draws=20)).draws.means
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
        (np.eye(4), 1.5, "components to be a whole number of 1 or more; got 1.5"),
        (np.eye(4), None, "components to be a whole number of 1 or more; got None"),
    ],
)
def test_what_are_no_rows_or_components_is_named(rows, components, message):
    with pytest.raises(ValueError, match=message):
        mixture_posterior(rows, components)
