"""Pyro's autoguides, fitted to any model: by name, from given first values, with their density."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import pyro
import torch
from pyro.infer import SVI, TraceEnum_ELBO, autoguide
from pyro.infer.autoguide import (
    AutoGuide,
    AutoLaplaceApproximation,
    AutoMessenger,
    AutoMultivariateNormal,
)
from pyro.infer.autoguide.initialization import init_to_median, init_to_value
from torch import Tensor
from torch.distributions import biject_to

from rbpp.mixtures.until_level import Ascended, set_pyro_rate, until_level

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

# From a diagonal covariance a full-rank guide of rows with a correlation of 0.95 ends at 0.82 of
# their spread with this one, and with half of it at 0.75, at 0.05 nats less.
_WINDOW = 200


def fit_autoguide(
    model: Callable[..., Any],
    arguments: tuple[Any, ...],
    *,
    guide: str,
    values: Mapping[str, Tensor] | None = None,
    spread: Mapping[str, Tensor] | None = None,
    hide: tuple[str, ...] = (),
    steps: int = 20_000,
    learning_rate: float = 0.02,
    particles: int = 1,
    max_plate_nesting: int,
) -> tuple[AutoGuide, Ascended]:
    """Fit the named autoguide to a Pyro model; run it inside `seeded` and a parameter-store scope.

    It stops by itself (`until_level`).

    Args:
        model, arguments: the model and what it is called with.
        guide: name of a class in `pyro.infer.autoguide`.
        values: first values of latent sites; the others start at their prior median.
        spread: draws (N, …) of all latent sites, of `AutoMultivariateNormal` the first covariance.
        hide: sites the guide leaves alone, such as those that are enumerated.
        steps: most of them.
        learning_rate, particles: of the optimiser.
        max_plate_nesting: of the model.

    Returns:
        The guide, the ELBO of every step, and whether it was level in the end.

    Raises:
        ValueError: if there is no such guide, or it has no density.
    """
    first = init_to_value(values=dict(values or {}), fallback=init_to_median)
    # The autoregressive flow starts at the identity map and warns of any other start.
    start = {} if guide == "AutoIAFNormal" else {"init_loc_fn": first}
    made = _guide_class(guide)(pyro.poutine.block(model, hide=list(hide)), **start)
    if spread is not None:
        _spread_out(made, arguments, spread)
    optimiser = pyro.optim.ClippedAdam({"lr": learning_rate})
    loss = TraceEnum_ELBO(
        max_plate_nesting=max_plate_nesting,
        num_particles=particles,
        vectorize_particles=particles > 1,
        strict_enumeration_warning=False,
    )
    inference = SVI(model, made, optimiser, loss)
    ascended = until_level(
        lambda: -float(inference.step(*arguments)),
        partial(set_pyro_rate, optimiser, learning_rate),
        made.named_parameters,
        most=steps,
        window=_WINDOW,
    )
    if ascended.elbos and not math.isfinite(ascended.elbos[-1]):
        raise ValueError(
            f"Expected a finite ELBO from {guide} after {len(ascended.elbos)} steps; got "
            f"{ascended.elbos[-1]}: lower the learning rate of {learning_rate}"
        )
    if isinstance(made, AutoLaplaceApproximation):
        try:
            made = made.laplace_approximation(*arguments)
        except torch.linalg.LinAlgError:
            raise ValueError(
                f"Expected a maximum of the log density after {steps} steps; got a point of "
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
