"""What draws from a mixture posterior besides coordinate ascent: Pyro's SVI and its NUTS.

Both run on standardised rows, from a start that coordinate ascent gives, and fit `mixture_model`
with its assignments enumerated. NUTS is the slow reference that the others are held against.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import pyro
import torch
from pyro.infer import MCMC, NUTS, SVI, TraceEnum_ELBO, autoguide
from pyro.infer.autoguide import (
    AutoGuide,
    AutoLaplaceApproximation,
    AutoMessenger,
    AutoMultivariateNormal,
)
from pyro.infer.autoguide.initialization import init_to_median, init_to_value
from torch import Tensor
from torch.distributions import biject_to

from rbpp.mixtures.conjugate import MixturePrior, VariationalMixture
from rbpp.mixtures.mixture_model import MAX_PLATE_NESTING, MixtureData, mixture_model
from rbpp.mixtures.normal_wishart import Draws
from rbpp.mixtures.standardisation import Standardisation, standardisation
from rbpp.mixtures.until_level import Ascended, set_pyro_rate, until_level
from rbpp.randomness import generator, seeded, spawn

_SPREAD_DRAWS = 1000  # that a guide's first covariance is taken from, where it has few coordinates
# From a diagonal covariance a full-rank guide of rows with a correlation of 0.95 ends at 0.82 of
# their spread with this one, and with half of it at 0.75, at 0.05 nats less.
_WINDOW = 200
# Guides without a density, which can be neither judged nor corrected, or put together by hand.
_REFUSED = {
    "AutoCallable",
    "AutoContinuous",
    "AutoDelta",
    "AutoDiscreteParallel",
    "AutoGuide",
    "AutoGuideList",
    "AutoNormalizingFlow",
}


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
    count: int,
    seed: int,
) -> Drawn:
    """Draws of SVI or NUTS in the units of the rows, and their log density under the guide.

    Args:
        how: which of the two, and its settings.
        data: rows in units of their own.
        prior: in the same units.
        fits: start of every chain, without other leading dimensions.
        count: draws per chain.
        seed: of gradients, subsampling and draws.

    Raises:
        ValueError: if there is no such guide, it has no density, or its ELBO is not finite.
    """
    units = standardisation(data.rows, data.weights)
    data = replace(data, rows=units.rows(data.rows))
    laplace = isinstance(how, Gradient) and how.guide == "AutoLaplaceApproximation"
    if laplace and data.weights is None:
        # Its Hessian knows no enumeration: with row weights the model sums the components itself.
        data = replace(data, weights=data.rows.new_ones(len(data.rows)))
    arguments = data, prior.standardised(units).parameters(fits.components)
    found, densities, settled = [], [], []
    for chain in range(fits.batch_shape[0]):
        own = fits.select(chain)
        start = _start(own, how.warm_start, units)
        if isinstance(how, Sampling):
            with pyro.get_param_store().scope(), seeded(spawn(seed, "nuts", chain)):
                found.append(_nuts(how.warmup, arguments, start, count))
            continue
        spread = _spread(own, generator(spawn(seed, "spread", chain)), units, how)
        with (
            pyro.get_param_store().scope(),
            seeded(spawn(seed, "svi", chain)),
            default_dtype(data.rows.dtype),
        ):
            model = partial(mixture_model, batch_rows=how.batch_rows)
            guide, ascended = fit_autoguide(model, arguments, how, start, spread, ("component",))
            values, log_q = draw_autoguide(guide, arguments, Draws._fields, count)
        found.append(Draws(**values))
        densities.append(log_q)
        settled.append(ascended.settled)
    stacked = Draws(*(torch.stack(values) for values in zip(*found, strict=True)))
    drawn = units.draws_back(stacked)
    if isinstance(how, Sampling):
        return Drawn(drawn, None, None)
    log_q = torch.stack(densities) - units.log_jacobian(fits.components)
    return Drawn(drawn, log_q, torch.tensor(settled))


def _start(fit: VariationalMixture, warm: bool, units: Standardisation) -> dict[str, Tensor]:
    """Where a chain starts, in standardised units, by site."""
    mixture = fit.expected()
    first = units.draws(Draws(mixture.weights, mixture.means, mixture.precision_cholesky))
    if not warm:
        identity = torch.eye(fit.dimension).to(first.means)
        first = first._replace(
            weights=torch.full_like(first.weights, 1 / fit.components),
            precision_cholesky=identity.expand_as(first.precision_cholesky).clone(),
        )
    return first._asdict()


def _spread(
    fit: VariationalMixture, generator: torch.Generator, units: Standardisation, how: Gradient
) -> dict[str, Tensor] | None:
    """Draws around a start, for a guide that begins with their covariance; else None."""
    if how.guide != "AutoMultivariateNormal" or not how.warm_start:
        return None
    coordinates = fit.components * (1 + fit.dimension * (fit.dimension + 3) // 2) - 1
    return units.draws(fit.draw(max(_SPREAD_DRAWS, 4 * coordinates), generator))._asdict()


def _nuts(warmup: int, arguments: tuple[Any, ...], start: dict[str, Tensor], count: int) -> Draws:
    """One chain of the No-U-Turn sampler."""
    kernel = NUTS(
        mixture_model,
        max_plate_nesting=MAX_PLATE_NESTING,
        init_strategy=init_to_value(values=start),
        jit_compile=True,
        ignore_jit_warnings=True,
    )
    sampler = MCMC(kernel, num_samples=count, warmup_steps=warmup, disable_progbar=True)
    pyro.poutine.trace(mixture_model).get_trace(*arguments)
    # Checked once above; checks at every step, and Python at every step, double the time.
    with pyro.validation_enabled(False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler.run(*arguments)
    return Draws(**sampler.get_samples())


def fit_autoguide(
    model: Callable[..., Any],
    arguments: tuple[Any, ...],
    how: Gradient,
    start: Mapping[str, Tensor],
    spread: Mapping[str, Tensor] | None = None,
    hide: Iterable[str] = (),
) -> tuple[AutoGuide, Ascended]:
    """Fit an autoguide to a Pyro model; run it inside `seeded` and a parameter-store scope.

    It stops by itself (`until_level`).

    Args:
        model, arguments: the model and what it is called with.
        how: guide and optimiser.
        start: first values of latent sites; the others start at their prior median.
        spread: draws (N, …) of all latent sites, of `AutoMultivariateNormal` the first covariance.
        hide: sites the guide leaves alone, such as those that are enumerated.

    Returns:
        The guide, the ELBO of every step, and whether it was level in the end.

    Raises:
        ValueError: if there is no such guide, or it has no density.
    """
    first = init_to_value(values=dict(start), fallback=init_to_median)
    # The autoregressive flow starts at the identity map and warns of any other start.
    options = {} if how.guide == "AutoIAFNormal" else {"init_loc_fn": first}
    made = _guide_class(how.guide)(pyro.poutine.block(model, hide=list(hide)), **options)
    if spread is not None:
        _spread_out(made, arguments, spread)
    optimiser = pyro.optim.ClippedAdam({"lr": how.learning_rate})
    loss = TraceEnum_ELBO(
        max_plate_nesting=MAX_PLATE_NESTING,
        num_particles=how.particles,
        vectorize_particles=how.particles > 1,
        strict_enumeration_warning=False,
    )
    inference = SVI(model, made, optimiser, loss)
    ascended = until_level(
        lambda: -float(inference.step(*arguments)),
        partial(set_pyro_rate, optimiser, how.learning_rate),
        made.named_parameters,
        most=how.steps,
        window=_WINDOW,
    )
    if ascended.elbos and not math.isfinite(ascended.elbos[-1]):
        raise ValueError(
            f"Expected a finite ELBO from {how.guide} after {len(ascended.elbos)} steps; got "
            f"{ascended.elbos[-1]}: lower the learning rate of {how.learning_rate}"
        )
    if isinstance(made, AutoLaplaceApproximation):
        try:
            made = made.laplace_approximation(*arguments)
        except torch.linalg.LinAlgError:
            raise ValueError(
                f"Expected a maximum of the log density after {how.steps} steps; got a point of "
                "indefinite curvature: take more steps or another guide"
            ) from None
    return made, ascended


def _spread_out(
    guide: AutoMultivariateNormal, arguments: tuple[Any, ...], spread: Mapping[str, Tensor]
) -> None:
    """Begin at the covariance of draws.

    From a diagonal one gradients take thousands of steps to strong correlations, the last of them
    within 0.1 nats of the best ELBO: noise hides that it still rises, and the guide stays narrow.
    """
    guide(*arguments)  # the parameters are made at the first call
    assert guide.prototype_trace is not None
    sites = guide.prototype_trace.iter_stochastic_nodes()
    latent = [biject_to(site["fn"].support).inv(spread[name]).flatten(1) for name, site in sites]
    factor = torch.linalg.cholesky(torch.cat(latent, -1).mT.cov())
    guide.scale = factor.diagonal()
    guide.scale_tril = factor / factor.diagonal().unsqueeze(-1)


def draw_autoguide(
    guide: AutoGuide, arguments: tuple[Any, ...], sites: Iterable[str], count: int
) -> tuple[dict[str, Tensor], Tensor]:
    """Draws (count, …) of the named sites from a fitted guide, and their log density (count,)."""
    values: dict[str, list[Tensor]] = {name: [] for name in sites}
    densities: list[Tensor] = []
    with torch.no_grad():
        for _ in range(count):
            trace = pyro.poutine.trace(guide).get_trace(*arguments)
            densities.append(torch.as_tensor(trace.log_prob_sum() or 0.0))
            for name, drawn in values.items():
                drawn.append(torch.as_tensor(trace.nodes[name]["value"]))
    return {name: torch.stack(drawn) for name, drawn in values.items()}, torch.stack(densities)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Another default precision inside: flow guides build their networks in it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _guide_class(name: str) -> Any:
    known = {name: getattr(autoguide, name) for name in sorted(set(autoguide.__all__) - _REFUSED)}
    guides = {own: found for own, found in known.items() if _is_guide(found)}
    if name not in guides:
        raise ValueError(f"Expected an autoguide with a density ({', '.join(guides)}); got {name}")
    return guides[name]


def _is_guide(found: Any) -> bool:
    # `TraceEnum_ELBO` takes no messengers.
    guide = isinstance(found, type) and issubclass(found, AutoGuide)
    return guide and not issubclass(found, AutoMessenger)
