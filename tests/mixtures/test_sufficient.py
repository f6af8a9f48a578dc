"""Sufficient statistics, their threads and their starts."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from rbpp.mixtures.ascent import Ascent, update
from rbpp.mixtures.cavi import cavi
from rbpp.mixtures.conjugate import default_prior
from rbpp.mixtures.engines import Gradient, draw_autoguide, fit_autoguide
from rbpp.mixtures.kmeans import kmeans_centres
from rbpp.mixtures.normal_wishart import expectations, kl_divergence
from rbpp.mixtures.sufficient import Rows, natural_parameters, responsibilities_, statistics
from rbpp.randomness import generator, seeded
from rbpp.threads import block_threads


def family(dimension=2, components=3):
    rows = torch.randn(50, dimension, generator=generator(0), dtype=torch.float64)
    fit = cavi(
        rows,
        default_prior(rows, components),
        components,
        generator=generator(1),
        ascent=Ascent(max_iterations=3),
    )
    return rows, fit


@pytest.mark.parametrize("dimension", [1, 2, 4])
def test_features_times_natural_parameters_is_the_expected_log_density(dimension, margin):
    rows, parameters = family(dimension)
    natural = natural_parameters(parameters, expectations(parameters))
    columns = rows.mT.unsqueeze(0)
    found = Rows(columns)
    features, _ = found.read(found.blocks(torch.zeros(1, dtype=torch.long), 3, None)[0])
    expected = natural[0] @ features
    draws = parameters.draw(20_000, generator(2))
    log_density = draws.mixture().component_log_prob_rows(rows[7:8])[:, 0, 0]
    error = log_density.std(0) / math.sqrt(len(log_density))
    margin(4.5 - (expected[:, 7] - log_density.mean(0)).abs() / error)


def test_statistics_of_chunks_add_up():
    rows, parameters = family()
    natural = natural_parameters(parameters, expectations(parameters))
    weights = torch.rand(1, 50, generator=generator(3), dtype=torch.float64)
    columns = rows.mT.unsqueeze(0)
    whole = statistics(Rows(columns, weights), natural)
    parts = [
        statistics(Rows(columns[..., start : start + 13], weights[:, start : start + 13]), natural)
        for start in range(0, 50, 13)
    ]
    total = parts[0] + parts[1] + parts[2] + parts[3]
    torch.testing.assert_close(total.moments, whole.moments)
    torch.testing.assert_close(total.evidence, whole.evidence)
    torch.testing.assert_close(total.weight, weights.sum(-1))
    doubled = statistics(Rows(columns, 2 * weights), natural)
    torch.testing.assert_close(2 * whole.moments, doubled.moments)
    torch.testing.assert_close(2 * whole.weight, doubled.weight)


def test_update_and_bound_are_those_of_the_ascent():
    rows, _ = family()
    prior = default_prior(rows, 3)
    fit = cavi(rows, prior, 3, generator=generator(1), ascent=Ascent(tolerance=1e-12)).best()
    natural = natural_parameters(fit, expectations(fit)).unsqueeze(0)
    found = statistics(Rows(rows.mT.unsqueeze(0)), natural)
    again = update(prior.parameters(3), found.moments[0])
    for own, other in zip(again, fit, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-3)  # a fixed point
    bound = found.evidence[0] - kl_divergence(fit, prior.parameters(3))
    torch.testing.assert_close(bound, fit.elbo)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_responsibilities_are_a_softmax(dtype):
    logits = 1e3 * torch.randn(2, 3, 7, generator=generator(0), dtype=dtype)
    weights = torch.rand(2, 1, 7, generator=generator(1), dtype=dtype)
    found = logits.clone()
    evidence = responsibilities_(found, weights)
    torch.testing.assert_close(found, logits.softmax(-2) * weights)
    expected = (logits.double().logsumexp(-2) * weights.squeeze(-2)).sum(-1)
    torch.testing.assert_close(evidence, expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_results_do_not_depend_on_the_number_of_threads(threads):
    before = torch.get_num_threads()
    rows = torch.randn(4, 60, 2, generator=generator(0), dtype=torch.float64)
    reference = cavi(rows, default_prior(rows, 3), 3, generator=generator(1))
    try:
        torch.set_num_threads(threads)
        with block_threads(rows.device) as mapper:
            assert torch.get_num_threads() == 1
            assert list(mapper(lambda x: 2 * x, range(5))) == [0, 2, 4, 6, 8]
        assert torch.get_num_threads() == threads
        again = cavi(rows, default_prior(rows, 3), 3, generator=generator(1))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(reference.elbo, again.elbo)
    assert torch.equal(reference.mean, again.mean)


def test_threads_are_restored_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), block_threads(torch.device("cpu")) as mapper:
        list(mapper({}.__getitem__, [1]))
    assert torch.get_num_threads() == before


def test_centres_find_the_clusters_whatever_the_weights(monkeypatch):
    rows = torch.randn(90, 2, generator=generator(0)) / 10
    rows += torch.arange(90).remainder(3).unsqueeze(-1) * 5
    columns = rows.mT.unsqueeze(0)
    members = torch.zeros(4, dtype=torch.long)
    wanted = torch.tensor([0.0, 5.0, 10.0])
    for limit in (20_000, 40):
        monkeypatch.setattr("rbpp.mixtures.kmeans.SEEDING_ROWS", limit)
        found = kmeans_centres(Rows(columns), members, 3, generator(1))
        assert ((found[:, 0].sort(-1).values - wanted).abs() < 0.5).all()
    weights = (torch.arange(90).remainder(3) != 1).float().unsqueeze(0)
    found = kmeans_centres(Rows(columns, weights), members, 2, generator(1))
    assert ((found[:, 0].sort(-1).values - wanted[[0, 2]]).abs() < 0.5).all()


def test_fewer_distinct_rows_than_components_have_a_start():
    rows = torch.tensor([[0.0], [0.0], [0.0], [1.0]], dtype=torch.float64)
    fit = cavi(rows, default_prior(rows, 3), 3, generator=generator(0))
    assert fit.elbo.isfinite().all()


def test_autoguides_fit_any_model(margin):
    observed = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)

    def model(rows):
        centre = pyro.sample("centre", dist.Normal(0 * rows[0], 2.0))
        with pyro.plate("rows", len(rows)):
            pyro.sample("row", dist.Normal(centre, 1.0), obs=rows)

    with pyro.get_param_store().scope(), seeded(0):
        how = Gradient(steps=600, particles=1)
        guide, ascended = fit_autoguide(model, (observed,), how, {})
        values, log_q = draw_autoguide(guide, (observed,), ["centre"], 400)
    variance = 1 / (1 / 4 + 3)
    assert len(ascended.elbos) == 600
    # Four standard errors of 400 draws, 0.11 and 0.14, and two steps of the optimiser, 0.04.
    margin(0.15 - abs(values["centre"].mean().item() - 7 * variance))
    margin(0.18 - abs(values["centre"].std().item() / variance**0.5 - 1))
    distribution = dist.Normal(values["centre"].mean(), values["centre"].std())
    torch.testing.assert_close(log_q, distribution.log_prob(values["centre"]), rtol=0.2, atol=0.3)
