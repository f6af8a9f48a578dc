"""Mixtures at random, for the tests."""

import torch

from rbpp.mixtures.mixture import GaussianMixture
from rbpp.randomness import generator


def random_mixture(batch, components, dimension, seed=0, spread=3.0):
    source = generator(seed)
    options = {"generator": source, "dtype": torch.float64}
    factor = torch.randn(*batch, components, dimension, dimension, **options)
    return GaussianMixture(
        torch._sample_dirichlet(torch.ones(*batch, components, dtype=torch.float64), source),
        spread * torch.randn(*batch, components, dimension, **options),
        factor @ factor.mT + 0.2 * torch.eye(dimension, dtype=torch.float64),
    )
