"""The fitted scale maximises the ELBO, and entropies of far components are covered."""

from dataclasses import replace

import pytest
import torch

from rbpp.mixtures.ascent import Ascent
from rbpp.mixtures.cavi import cavi, fitted_prior
from rbpp.mixtures.conjugate import default_prior
from rbpp.mixtures.divergences import entropy
from rbpp.mixtures.mixture import GaussianMixture
from rbpp.mixtures.posterior import Settings, mixture_posterior
from rbpp.randomness import generator


def far_apart(separation=12.0):
    means = separation * torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.3, 1.0]], dtype=torch.float64)
    unit = torch.eye(2, dtype=torch.float64).expand(3, 2, 2)
    return GaussianMixture(torch.full((3,), 1 / 3, dtype=torch.float64), means, unit)


def test_scale_is_where_the_elbo_is_largest():
    rows = far_apart().sample((400,), generator=generator(0))
    prior = fitted_prior(rows, 3, generator(1))

    def elbo(factor):
        near = replace(prior, scale=prior.scale * factor)
        return cavi(rows, near, 3, restarts=5, generator=generator(1)).best().elbo.item()

    best = elbo(1.0)
    assert best > elbo(1.2)
    assert best > elbo(0.8)
    broad = cavi(rows, default_prior(rows, 3), 3, restarts=5, generator=generator(1)).best()
    assert best > broad.elbo.item()


def test_entropies_of_components_far_apart_are_covered(margin):
    truth = far_apart()
    expected = entropy(truth, num_samples=16384, generator=generator(0)).value
    covered = []
    for seed in range(40):
        rows = truth.sample((400,), generator=generator(seed))
        posterior = mixture_posterior(rows, 3, Settings(chains=1, draws=200, seed=seed))
        drawn = entropy(posterior.mixture, num_samples=512, generator=generator(seed)).value
        covered.append(
            bool((drawn.quantile(0.03) <= expected) & (expected <= drawn.quantile(0.97)))
        )
    # Of 40 intervals of 94 %, 32 or fewer cover by chance once in 400.
    margin(sum(covered) - 32)


def test_rows_that_repeat_keep_a_floor():
    rows = torch.cat([torch.zeros(50, 2), torch.ones(50, 2)]).double()
    prior = fitted_prior(rows, 2, generator(0))
    assert (prior.scale / default_prior(rows, 2).scale).min() > 0.9e-4


@pytest.mark.parametrize(
    "changed",
    [
        {"concentration": 0.01},
        {"sample_weights": torch.linspace(0, 2, 60)},
        {"ascent": Ascent(starts=1)},
    ],
)
def test_options_reach_the_prior(changed):
    rows = far_apart(3.0).sample((60,), generator=generator(0))
    plain = fitted_prior(rows, 4, generator(1))
    other = fitted_prior(rows, 4, generator(1), **changed)
    assert not torch.equal(plain.scale, other.scale)
