"""The three engines against each other on the same Pyro model."""

import math

import arviz as az
import pyro
import pytest
import torch
from pyro.infer import TraceEnum_ELBO

from rbpp.mixtures.cavi import cavi
from rbpp.mixtures.conjugate import default_prior
from rbpp.mixtures.divergences import entropy
from rbpp.mixtures.engines import Gradient, Sampling
from rbpp.mixtures.mixture_model import MixtureData, mixture_model
from rbpp.mixtures.posterior import Settings, mixture_posterior
from rbpp.randomness import generator, seeded
from tests.mixtures.conjugate_guide import conjugate_guide


def clusters(count=50, centres=(0.0, 5.0), dimension=1, seed=1):
    source = generator(seed)
    parts = [
        torch.randn(count, dimension, generator=source, dtype=torch.float64) + centre
        for centre in centres
    ]
    return torch.cat(parts)


def pyro_elbo(model_arguments, guide, particles=400):
    """Mean and standard error of Pyro's ELBO over particles."""
    loss = TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False)
    with seeded(0), torch.no_grad():
        values = torch.tensor(
            [-loss.loss(mixture_model, guide, *model_arguments) for _ in range(particles)]
        )
    return values.mean().item(), values.std().item() / math.sqrt(particles)


@pytest.mark.parametrize("dimension", [1, 2])
def test_pyro_finds_the_closed_form_elbo_on_the_guide(dimension, margin):
    rows = clusters(30, (0.0, 2.0), dimension)
    prior = default_prior(rows, 2)
    fit = cavi(rows, prior, 2, restarts=5, generator=generator(0)).best()
    arguments = (MixtureData(rows), prior.parameters(2))
    mean, error = pyro_elbo(arguments, conjugate_guide(fit, assignments=True), 200)
    margin(4.5 - abs(mean - fit.elbo.item()) / error)
    tighter, error = pyro_elbo(arguments, conjugate_guide(fit), 200)
    margin(tighter - (fit.elbo.item() - 4.5 * error))


def test_weighted_rows_in_the_model_are_repeated_rows():
    rows = clusters(20)
    times = torch.randint(1, 4, (40,), generator=generator(0))
    prior = default_prior(rows, 2)
    fit = cavi(rows, prior, 2, sample_weights=times.double(), generator=generator(0)).best()
    guide, own = conjugate_guide(fit), prior.parameters(2)
    repeated, _ = pyro_elbo((MixtureData(rows.repeat_interleave(times, 0)), own), guide, 5)
    weighted, _ = pyro_elbo((MixtureData(rows, weights=times.double()), own), guide, 5)
    assert weighted == pytest.approx(repeated)


@pytest.mark.parametrize(
    "guide",
    [
        "AutoNormal",
        "AutoDiagonalNormal",
        "AutoMultivariateNormal",
        "AutoLaplaceApproximation",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                "AutoGaussian",
                "AutoIAFNormal",
                "AutoLowRankMultivariateNormal",
                "AutoStructured",
            )
        ),
    ],
)
def test_no_autoguide_beats_coordinate_ascent_on_separate_components(guide, margin):
    rows = clusters(40, (0.0, 8.0), 2)
    ours = mixture_posterior(rows, 2, Settings(chains=1, draws=2000))
    theirs = mixture_posterior(
        rows,
        2,
        Settings("svi", gradient=Gradient(guide=guide, steps=400), chains=1, draws=400),
    )
    # Both with the assignments summed out, as TraceEnum_ELBO has them.
    ratio = ours.log_prob - ours.log_q
    other = theirs.log_prob - theirs.log_q
    error = math.hypot(ratio.std() / math.sqrt(2000), other.std() / 20)
    margin(ratio.mean() - (theirs.elbo.item() - 4 * error))
    if guide != "AutoIAFNormal":  # which needs far more steps
        assert theirs.elbo.item() > ratio.mean() - 5  # and it is a serious rival


def test_pyro_evaluates_both_guides_alike(margin):
    rows = clusters(40, (0.0, 8.0), 2)
    ours = mixture_posterior(rows, 2, Settings(chains=1, draws=2000))
    ratio = (ours.log_prob - ours.log_q)[0]
    arguments = (MixtureData(rows), ours.prior.parameters(2))
    mean, error = pyro_elbo(arguments, conjugate_guide(ours.variational.select(0)))
    margin(4.5 * error + 0.01 - abs(mean - ratio.mean().item()))


@pytest.mark.parametrize(
    ("options", "limit"),
    [({"batch_rows": 20}, 2.0), ({"particles": 4}, 0.5), ({"warm_start": False}, 0.5)],
)
def test_svi_options_reach_the_same_optimum(options, limit, margin):
    """Five coordinates of standard deviation 40^(-1/2): a step of 0.04 in each is 0.16 nats.

    Three such steps are allowed. Batches have noise of their own; a batch of 20 of 80 rows that was
    not scaled would be off by 5 (3 - log 4) / 2 = 4 nats, of which half is allowed.
    """
    rows = clusters(40)
    gradient = Gradient(**{"steps": 300, "learning_rate": 0.04, **options})
    ours = mixture_posterior(rows, 2, Settings(chains=1, draws=500))
    theirs = mixture_posterior(rows, 2, Settings("svi", chains=1, draws=200, gradient=gradient))
    assert theirs.mixture.batch_shape == (1, 200)
    gap = (ours.log_prob - ours.log_q).mean() - theirs.elbo
    margin(limit - gap.abs())


def test_svi_leaves_no_trace():
    pyro.clear_param_store()
    before = torch.random.get_rng_state()
    mixture_posterior(
        clusters(10), 2, Settings("svi", gradient=Gradient(steps=3), chains=1, draws=2)
    )
    assert not list(pyro.get_param_store().keys())
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.get_default_dtype() == torch.float32


def compare_with_nuts(rows, components, draws, warmup, mean_tolerance, sd_tolerance):
    """Log density on a grid and entropy: mean and sd of `cavi`, corrected, against `nuts`."""
    low, high = rows.min(0).values - 1, rows.max(0).values + 1
    grid = low + (high - low) * torch.linspace(0, 1, 9).double().unsqueeze(-1)
    reference = mixture_posterior(
        rows,
        components,
        Settings("nuts", sampling=Sampling(warmup=warmup), chains=1, draws=draws),
    )
    ours = mixture_posterior(rows, components, Settings(chains=1, draws=4000))
    assert ours.pareto_k.item() < 0.7

    def functionals(posterior):
        spread = entropy(posterior.mixture, generator=generator(0)).value.unsqueeze(-1)
        return torch.cat([posterior.log_likelihood(grid), spread], -1)[0]

    truth = functionals(reference)
    effective = torch.tensor([float(az.ess(column[None].numpy())) for column in truth.T])
    sd = truth.std(0)
    error = (sd.square() / effective + sd.square() / 4000).sqrt()
    for posterior in (ours, ours.resampled()):
        found = functionals(posterior)
        # Mean-field bias allowed, in posterior standard deviations, beyond 4 standard errors.
        assert ((found.mean(0) - truth.mean(0)).abs() < mean_tolerance * sd + 4 * error).all()
        relative = (found.std(0) / sd).log().abs()
        assert (relative < sd_tolerance + 4 * (0.5 / effective).sqrt()).all()


def test_density_and_entropy_are_those_of_nuts():
    compare_with_nuts(clusters(30, (0.0, 6.0)), 2, 250, 150, 0.1, 0.1)


@pytest.mark.slow
def test_density_and_entropy_are_those_of_nuts_in_two_dimensions():
    compare_with_nuts(clusters(60, (0.0, 5.0, 10.0), 2), 3, 1000, 400, 0.1, 0.1)


def test_guide_wants_one_data_set():
    rows = clusters(10)
    fit = cavi(rows, default_prior(rows, 2), 2, generator=generator(0))
    with pytest.raises(ValueError, match="posterior of one data set"):
        conjugate_guide(fit)


@pytest.mark.parametrize(
    "name", ["AutoNothing", "AutoDelta", "AutoNormalMessenger", "AutoContinuous"]
)
def test_guides_without_a_density_are_refused(name):
    with pytest.raises(ValueError, match="Expected an autoguide with a density"):
        mixture_posterior(
            clusters(10),
            2,
            Settings("svi", gradient=Gradient(guide=name, steps=2), chains=1, draws=2),
        )


def test_log_density_of_the_model_is_that_of_the_posterior():
    rows = clusters(20)
    fit = mixture_posterior(rows, 2, Settings(chains=1, draws=3))
    values = {
        "weights": fit.draws.weights[0, 0],
        "means": fit.draws.means[0, 0],
        "precision_cholesky": fit.draws.precision_cholesky[0, 0],
    }
    conditioned = pyro.poutine.condition(
        pyro.poutine.block(mixture_model, hide=["component", "row"]), data=values
    )
    with seeded(0):
        trace = pyro.poutine.trace(conditioned).get_trace(
            MixtureData(rows), fit.prior.parameters(2)
        )
    joint = trace.log_prob_sum() + fit.log_likelihood(rows)[0, 0].sum()
    torch.testing.assert_close(joint, fit.log_prob[0, 0])
    sampled = pyro.poutine.condition(conjugate_guide(fit.variational.select(0)), data=values)
    density = pyro.poutine.trace(sampled).get_trace(MixtureData(rows), fit.prior.parameters(2))
    torch.testing.assert_close(density.log_prob_sum(), fit.log_q[0, 0])
