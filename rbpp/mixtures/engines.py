"""What draws from a mixture posterior besides coordinate ascent: Pyro's SVI and its NUTS.

Both run on standardised rows, from a start that coordinate ascent gives, and fit `mixture_model`
with its assignments enumerated. NUTS is the slow reference that the others are held against.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import pyro
import torch
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide.initialization import init_to_value
from torch import Tensor

from rbpp.mixtures.autoguide import default_dtype, draw_autoguide, fit_autoguide
from rbpp.mixtures.conjugate import MixturePrior, VariationalMixture
from rbpp.mixtures.mixture_model import LATENTS, MAX_PLATE_NESTING, MixtureData, mixture_model
from rbpp.mixtures.normal_wishart import Draws
from rbpp.mixtures.standardisation import standardisation
from rbpp.randomness import generator, seeded, spawn

_SPREAD_DRAWS = 1000  # that a guide's first covariance is taken from, where it has few coordinates


@dataclass(frozen=True)
class Gradient:
    """How `svi` runs.

    Attributes:
        guide: name of an autoguide of `pyro.infer.autoguide`, such as `"AutoMultivariateNormal"`.
        steps: most of them; a chain ends where its ELBO is level (`until_level`).
        learning_rate: the first; it falls tenfold.
        particles: draws of the guide at every step.
        batch_rows: rows per step; fewer than n are subsampled at every step.
        warm_start: False begins at k-means centres, with the scale factors at the identity; True
            where coordinate ascent ended, `AutoMultivariateNormal` with its spread too.
    """

    guide: str = "AutoNormal"
    steps: int = 20_000
    learning_rate: float = 0.02
    particles: int = 8
    batch_rows: int | None = None
    warm_start: bool = True


@dataclass(frozen=True)
class Sampling:
    """How `nuts` runs.

    Attributes:
        warmup: adaptation steps, dropped.
        warm_start: as for `Gradient`.
    """

    warmup: int = 300
    warm_start: bool = True


class _Start(NamedTuple):
    """Where a chain starts, in standardised units: one mixture, and draws around it or None."""

    values: Draws
    spread: Draws | None


class Drawn(NamedTuple):
    """Draws of an engine and their density (chain, draw); which chains have settled (chain,)."""

    draws: Draws
    log_q: Tensor | None
    settled: Tensor | None


def draw_by_pyro(
    how: Gradient | Sampling,
    data: MixtureData,
    prior: MixturePrior,
    fits: VariationalMixture,
    *,
    draws: int,
    seed: int,
) -> Drawn:
    """Draws of SVI or NUTS in the units of the rows, and their log density under the guide.

    Args:
        how: which of the two, and its settings.
        data: rows in units of their own.
        prior: in the same units.
        fits: start of every chain, without other leading dimensions.
        draws: per chain.
        seed: of gradients, subsampling and draws.

    Raises:
        ValueError: if there is no such guide, it has no density, or its ELBO is not finite.
    """
    components, dimension = fits.components, fits.dimension
    units = standardisation(data.rows, data.weights)
    inside = replace(data, rows=units.rows(data.rows))
    spread_draws = 0
    if isinstance(how, Gradient) and how.guide == "AutoMultivariateNormal" and how.warm_start:
        coordinates = components * (1 + dimension * (dimension + 3) // 2) - 1
        spread_draws = max(_SPREAD_DRAWS, 4 * coordinates)
    starts = []
    for chain in range(fits.batch_shape[0]):
        own = fits.select(chain)
        mixture = own.expected()
        first = units.draws(Draws(mixture.weights, mixture.means, mixture.precision_cholesky))
        if not how.warm_start:
            identity = torch.eye(dimension).to(first.means)
            first = first._replace(
                weights=torch.full_like(first.weights, 1 / components),
                precision_cholesky=identity.expand_as(first.precision_cholesky).clone(),
            )
        spread = None
        if spread_draws:
            around = own.draw(spread_draws, generator(spawn(seed, "spread", chain)))
            spread = units.draws(around)
        starts.append(_Start(first, spread))
    model = (inside, prior.standardised(units), components)
    if isinstance(how, Gradient):
        drawn = _svi(how, *model, starts, draws, seed)
    else:
        drawn = _nuts(how, *model, starts, draws, seed)
    log_q = drawn.log_q
    if log_q is not None:
        log_q = log_q - units.log_jacobian(components)
    return Drawn(units.draws_back(drawn.draws), log_q, drawn.settled)


def _svi(
    how: Gradient,
    data: MixtureData,
    prior: MixturePrior,
    components: int,
    starts: Sequence[_Start],
    draws: int,
    seed: int,
) -> Drawn:
    """Fit an autoguide once per start, and draw from each fit."""
    if how.guide == "AutoLaplaceApproximation" and data.weights is None:
        # Its Hessian knows no enumeration: with row weights the model sums the components itself.
        data = replace(data, weights=data.rows.new_ones(len(data.rows)))
    found, densities, settled = [], [], []
    for chain, start in enumerate(starts):
        with (
            pyro.get_param_store().scope(),
            seeded(spawn(seed, "svi", chain)),
            default_dtype(data.rows.dtype),
        ):
            fitted, ascended = fit_autoguide(
                mixture_model,
                (data, prior, components, how.batch_rows),
                guide=how.guide,
                values=_by_site(start.values),
                spread=_by_site(start.spread) if start.spread else None,
                hide=("component",),
                steps=how.steps,
                learning_rate=how.learning_rate,
                particles=how.particles,
                max_plate_nesting=MAX_PLATE_NESTING,
            )
            values, log_q = draw_autoguide(fitted, (data, prior, components), LATENTS, draws)
        found.append(Draws(values["weights"], values["mean"], values["precision_cholesky"]))
        densities.append(log_q)
        settled.append(ascended.settled)
    return Drawn(_stacked(found), torch.stack(densities), torch.tensor(settled))


def _nuts(
    how: Sampling,
    data: MixtureData,
    prior: MixturePrior,
    components: int,
    starts: Sequence[_Start],
    draws: int,
    seed: int,
) -> Drawn:
    """One chain of the No-U-Turn sampler per start."""
    found = []
    for chain, start in enumerate(starts):
        with pyro.get_param_store().scope(), seeded(spawn(seed, "nuts", chain)):
            kernel = NUTS(
                mixture_model,
                max_plate_nesting=MAX_PLATE_NESTING,
                init_strategy=init_to_value(values=_by_site(start.values)),
                jit_compile=True,
                ignore_jit_warnings=True,
            )
            sampler = MCMC(kernel, num_samples=draws, warmup_steps=how.warmup, disable_progbar=True)
            pyro.poutine.trace(mixture_model).get_trace(data, prior, components)
            # Checked once above; checks at every step, and Python at every step, double the time.
            with pyro.validation_enabled(False), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                sampler.run(data, prior, components)
        samples = sampler.get_samples()
        found.append(Draws(samples["weights"], samples["mean"], samples["precision_cholesky"]))
    return Drawn(_stacked(found), None, None)


def _by_site(draws: Draws) -> dict[str, Tensor]:
    return dict(zip(("weights", "mean", "precision_cholesky"), draws, strict=True))


def _stacked(found: Sequence[Draws]) -> Draws:
    """Draws of every chain, the chain first."""
    return Draws(*(torch.stack(values) for values in zip(*found, strict=True)))
