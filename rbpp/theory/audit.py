"""What holds, and with what probability: verdicts of estimates.

A slack has a distribution over worlds, and in every world a Monte Carlo error. The probability that
a bound holds averages over both.
"""

from __future__ import annotations

import math

import torch

from rbpp.checks import Check, verdict_of_probability
from rbpp.estimate import Estimate, mean_estimate

_ROUNDING = 1e-6  # nats or units of loss: an identity computed in two ways differs by less


def probability_holds(slack: Estimate) -> float:
    """P(slack ≥ 0) over worlds and, within each, over the Monte Carlo error (normal).

    >>> zero = torch.zeros(2)
    >>> probability_holds(Estimate(torch.tensor([1.0, -1.0]), zero, 1))
    0.5
    """
    value, error = slack.value.double(), slack.standard_error.double()
    sure = (value >= -_ROUNDING).double()
    likely = torch.special.ndtr((value + _ROUNDING) / error.clamp_min(1e-300))
    # Neither a slack without error nor an identity is a matter of chance.
    exact = (error <= _ROUNDING) | (value.abs() <= _ROUNDING)
    chance = torch.where(exact, sure, likely)
    return float(chance.mean()) if bool(value.isfinite().any()) else math.nan


def check_at_most_zero(statement: str, excess: Estimate, message: str) -> Check:
    """The check that something is at most zero.

    Args:
        statement: what has to be so.
        excess: what must not be positive, per world.
        message: its numbers in words.
    """
    probability = probability_holds(_ROUNDING - excess)
    measured = {"probability_holds": probability}
    return Check(statement, verdict_of_probability(probability), message, measured)


def number(estimate: Estimate) -> str:
    """Mean over worlds with the error of that mean, in words.

    >>> number(Estimate(torch.tensor([1.0, 3.0]), torch.zeros(2), 1))
    '2 ± 1'
    """
    value = estimate.value
    if value.numel() < 2:
        return f"{float(value.mean()):.3g} ± {root_mean_square(estimate.standard_error):.1g}"
    spread = mean_estimate(value.flatten())
    return f"{float(spread.value):.3g} ± {float(spread.standard_error):.1g}"


def mean_of(estimate: Estimate | None) -> float:
    """Mean over worlds; nan where there is no estimate."""
    return math.nan if estimate is None else float(estimate.value.mean())


def spread_of(estimate: Estimate | None) -> float:
    """Standard deviation over worlds; nan where there are fewer than two."""
    if estimate is None or estimate.value.numel() < 2:
        return math.nan
    return float(estimate.value.std())


def root_mean_square(error: torch.Tensor) -> float:
    """The Monte Carlo error of a world."""
    return float(error.square().mean().sqrt())
