"""When stochastic gradients stop: at falling rates, at each until the ELBO is level."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rbpp.estimate import mean_estimate

# Of the first rate, one after the other; and steps whose ELBOs are compared.
RATES, WINDOW = (1.0, 0.3, 0.1), 100
Parameters = Iterable[tuple[str, Tensor]]


class Ascended(NamedTuple):
    """The ELBO of every step, and whether it was level in the end."""

    elbos: list[float]
    settled: bool


def until_level(
    step: Callable[[], float],
    set_rate: Callable[[float], None],
    parameters: Callable[[], Parameters],
    *,
    most: int | None = None,
    out_of_time: Callable[[], bool] = lambda: False,
    window: int = WINDOW,
) -> Ascended:
    """Step until the ELBO of a window of steps is no higher than that of the one before.

    In the end the parameters are their mean over the steps at the last rate: without the noise of
    single steps.

    Args:
        step: makes a step, and returns the ELBO before it.
        set_rate: takes the share of the first learning rate.
        parameters: names and values.
        most: steps, of which every rate may take its part; what is not level then is unsettled.
        out_of_time: asked before every step, whether to end unsettled where the parameters are.
        window: steps whose ELBOs are compared; the more, the slower a rise is still seen.
    """
    elbos: list[float] = []
    sums: dict[str, Tensor] = {}
    count, settled = 0, True
    for place, share in enumerate(RATES, 1):
        set_rate(share)
        since = len(elbos)
        while not _level(elbos[since:], window):
            if out_of_time():
                return Ascended(elbos, settled=False)
            if most is not None and len(elbos) * len(RATES) >= most * place:
                settled = False
                break
            elbos.append(step())
            if place == len(RATES):
                count += 1
                for name, value in parameters():
                    sums[name] = sums.get(name, 0) + value.detach()
    with torch.no_grad():
        for name, value in parameters() if count else ():
            value.copy_(sums[name] / count)
    return Ascended(elbos, settled)


def set_pyro_rate(optimiser: Any, first: float, share: float) -> None:
    """Set the learning rate of Pyro's optimiser, which keeps what it knows of the gradients."""
    for own in optimiser.optim_objs.values():
        for group in own.param_groups:
            group["lr"] = first * share


def _level(elbos: list[float], window: int) -> bool:
    """Whether the last window's ELBO is no higher than the one before by two standard errors."""
    if len(elbos) < 2 * window or len(elbos) % window:
        return False
    before, last = torch.tensor(elbos[-2 * window :], dtype=torch.float64).split(window)
    rise = mean_estimate(last) - mean_estimate(before)
    return not bool(rise.value > 2 * rise.standard_error)
