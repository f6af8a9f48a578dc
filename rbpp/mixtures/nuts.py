"""Pyro's No-U-Turn sampler on the mixture model, its assignments enumerated.

The slow reference that the variational engines are held against.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import pyro
import torch
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide.initialization import init_to_value

from rbpp.mixtures.conjugate import MixturePrior
from rbpp.mixtures.mixture_model import MAX_PLATE_NESTING, MixtureData, mixture_model
from rbpp.mixtures.normal_wishart import Draws
from rbpp.mixtures.svi import Drawn
from rbpp.randomness import seeded, spawn


def nuts(
    data: MixtureData,
    prior: MixturePrior,
    components: int,
    starts: Iterable[Draws],
    *,
    warmup: int = 300,
    draws: int = 1000,
    seed: int = 0,
) -> Drawn:
    """One chain per start.

    Args:
        data: rows in comparable units (standardised).
        prior: in the same units.
        components: K.
        starts: first values of every chain, without leading dimensions.
        warmup: adaptation steps, dropped.
        draws: posterior draws per chain.
        seed: of all chains.
    """
    found = []
    for chain, first in enumerate(starts):
        values = dict(zip(("weights", "mean", "precision_cholesky"), first, strict=True))
        with pyro.get_param_store().scope(), seeded(spawn(seed, "nuts", chain)):
            kernel = NUTS(
                mixture_model,
                max_plate_nesting=MAX_PLATE_NESTING,
                init_strategy=init_to_value(values=values),
                jit_compile=True,
                ignore_jit_warnings=True,
            )
            sampler = MCMC(kernel, num_samples=draws, warmup_steps=warmup, disable_progbar=True)
            pyro.poutine.trace(mixture_model).get_trace(data, prior, components)
            # Checked once above; checks at every step, and Python at every step, double the time.
            with pyro.validation_enabled(False), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                sampler.run(data, prior, components)
        samples = sampler.get_samples()
        found.append(Draws(samples["weights"], samples["mean"], samples["precision_cholesky"]))
    return Drawn(Draws(*(torch.stack(values) for values in zip(*found, strict=True))), None, None)
