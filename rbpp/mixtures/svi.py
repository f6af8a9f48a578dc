"""Stochastic variational inference by Pyro: any autoguide, restarts, mini-batches.

`fit_autoguide` and `draw_autoguide` take any Pyro model; `svi` is the engine for mixtures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import pyro
import torch
from pyro.infer import SVI, TraceEnum_ELBO, autoguide
from pyro.infer.autoguide import AutoGuide, AutoLaplaceApproximation, AutoMessenger
from pyro.infer.autoguide.initialization import init_to_median, init_to_value
from torch import Tensor

from rbpp.mixtures.conjugate import MixturePrior
from rbpp.mixtures.mixture_model import LATENTS, MAX_PLATE_NESTING, MixtureData, mixture_model
from rbpp.mixtures.normal_wishart import Draws
from rbpp.progress import progress
from rbpp.randomness import seeded, spawn

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


class Drawn(NamedTuple):
    """Draws of an engine: leading dimensions (chain, draw); losses (chain, steps)."""

    draws: Draws
    log_q: Tensor | None
    losses: Tensor | None


def svi(
    data: MixtureData,
    prior: MixturePrior,
    components: int,
    starts: Iterable[Draws],
    *,
    guide: str = "AutoNormal",
    steps: int = 2000,
    learning_rate: float = 0.02,
    particles: int = 1,
    batch_rows: int | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Drawn:
    """Fit an autoguide to the mixture model once per start, and draw from each fit.

    Args:
        data: rows in comparable units (standardised).
        prior: in the same units.
        components: K.
        starts: one set of first values per chain, without leading dimensions.
        guide: name of an autoguide of `pyro.infer.autoguide`, such as `"AutoMultivariateNormal"`.
        steps, learning_rate, particles: of the optimiser; the rate falls tenfold over the steps.
        batch_rows: rows per step; fewer than n are subsampled at every step.
        draws: posterior draws per chain.
        seed: of the subsampling, the gradients and the draws.

    Raises:
        ValueError: if there is no such guide, or it has no density.
    """
    if guide == AutoLaplaceApproximation.__name__ and data.weights is None:
        # Its Hessian knows no enumeration: with row weights the model sums the components itself.
        data = replace(data, weights=data.rows.new_ones(len(data.rows)))
    found, densities, losses = [], [], []
    for chain, first in enumerate(starts):
        with (
            pyro.get_param_store().scope(),
            seeded(spawn(seed, "svi", chain)),
            _default_dtype(data.rows.dtype),
        ):
            fitted, loss = fit_autoguide(
                mixture_model,
                (data, prior, components, batch_rows),
                guide=guide,
                values=dict(zip(("weights", "mean", "precision_cholesky"), first, strict=True)),
                hide=("component",),
                steps=steps,
                learning_rate=learning_rate,
                particles=particles,
                max_plate_nesting=MAX_PLATE_NESTING,
            )
            values, log_q = draw_autoguide(fitted, (data, prior, components), LATENTS, draws)
        found.append(Draws(values["weights"], values["mean"], values["precision_cholesky"]))
        densities.append(log_q)
        losses.append(loss)
    return Drawn(
        Draws(*(torch.stack(values) for values in zip(*found, strict=True))),
        torch.stack(densities),
        torch.stack(losses),
    )


def fit_autoguide(
    model: Callable[..., Any],
    arguments: tuple[Any, ...],
    *,
    guide: str,
    values: Mapping[str, Tensor] | None = None,
    hide: tuple[str, ...] = (),
    steps: int = 2000,
    learning_rate: float = 0.02,
    particles: int = 1,
    max_plate_nesting: int,
) -> tuple[AutoGuide, Tensor]:
    """Fit the named autoguide to a Pyro model; run it inside `seeded` and a parameter-store scope.

    Args:
        model, arguments: the model and what it is called with.
        guide: name of a class in `pyro.infer.autoguide`.
        values: first values of latent sites; the others start at their prior median.
        hide: sites the guide leaves alone, such as those that are enumerated.
        steps, learning_rate, particles: of the optimiser.
        max_plate_nesting: of the model.

    Returns:
        The guide and the loss of every step.

    Raises:
        ValueError: if there is no such guide, or it has no density.
    """
    first = init_to_value(values=dict(values or {}), fallback=init_to_median)
    # The autoregressive flow starts at the identity map and warns of any other start.
    start = {} if guide == "AutoIAFNormal" else {"init_loc_fn": first}
    made = _guide_class(guide)(pyro.poutine.block(model, hide=list(hide)), **start)
    optimiser = pyro.optim.ClippedAdam({"lr": learning_rate, "lrd": 0.1 ** (1 / max(1, steps))})
    loss = TraceEnum_ELBO(
        max_plate_nesting=max_plate_nesting,
        num_particles=particles,
        vectorize_particles=particles > 1,
        strict_enumeration_warning=False,
    )
    inference = SVI(model, made, optimiser, loss)
    losses = [inference.step(*arguments) for _ in progress(range(steps), steps, guide)]
    if losses and not math.isfinite(losses[-1]):
        raise ValueError(
            f"Expected a finite ELBO from {guide} after {steps} steps; got {-losses[-1]}: "
            f"lower the learning rate of {learning_rate}"
        )
    if isinstance(made, AutoLaplaceApproximation):
        try:
            made = made.laplace_approximation(*arguments)
        except torch.linalg.LinAlgError:
            raise ValueError(
                f"Expected a maximum of the log density after {steps} steps; got a point of "
                "indefinite curvature: take more steps or another guide"
            ) from None
    return made, torch.tensor(losses, dtype=torch.float64)


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
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Flow guides build their networks in the default precision: make it that of the rows."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _guide_class(name: str) -> Any:
    found = getattr(autoguide, name, None)
    usable = sorted(name for name in set(autoguide.__all__) - _REFUSED if _is_guide(name))
    if found is None or name not in usable:
        raise ValueError(f"Expected an autoguide with a density ({', '.join(usable)}); got {name}")
    return found


def _is_guide(name: str) -> bool:
    found = getattr(autoguide, name)
    # `TraceEnum_ELBO` takes no messengers.
    return (
        isinstance(found, type)
        and issubclass(found, AutoGuide)
        and not issubclass(found, AutoMessenger)
    )
