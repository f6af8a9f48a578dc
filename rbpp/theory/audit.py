"""What holds, and with what probability: verdicts of estimates.

A slack has a value in every world, with a Monte Carlo error and two sides. A statement is judged in
every world, at a level that all worlds share: five of a hundred audits may be wrong, not five of a
hundred worlds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rbpp.checks import Check, Verdict, verdict_of_probability
from rbpp.estimate import Estimate, mean_estimate

_ROUNDING = 1e-6  # nats or units of loss: an identity computed in two ways differs by less
_LEVEL = 0.05
IDENTITY = "an identity of this process: both sides are the same number, by construction"


@dataclass(frozen=True)
class Judgement:
    """A verdict with what it is based on.

    Attributes:
        verdict: of all worlds.
        message: in how many worlds it holds and is violated, or why there is nothing to test.
        probability: that it holds, over worlds and errors, at what the verdict rests on: the value
            or a side of it; nan where there is nothing to test.
        nothing_known: whether no world has a finite slack.
    """

    verdict: Verdict
    message: str = ""
    probability: float = math.nan
    nothing_known: bool = False


def judge(slack: Estimate) -> Judgement:
    """Whether slack ≥ 0 in every world.

    It is violated where the largest slack that the sides leave open is negative beyond its error in
    some world; it holds where it does in all worlds together, by the value with its error (unless
    that bounds the slack from above alone), or by the least slack that the sides leave open. Else
    it is undecided. It is unknown where an error is unknown, and an identity where neither value
    nor error differ from zero.

    >>> zero = torch.zeros(2)
    >>> judge(Estimate(torch.tensor([1.0, -1.0]), zero, 1)).message
    'holds in 1 and is violated in 1 of 2 worlds'
    """
    value, error = slack.value.double().flatten(), slack.standard_error.double().flatten()
    if not bool(value.isfinite().any()):
        return Judgement("unknown", nothing_known=True)
    one_sided = slack.direction in ("lower", "upper", "biased")
    nothing = (value.abs() <= _ROUNDING) & (error <= _ROUNDING)
    if bool(nothing.all()) and not one_sided:
        return Judgement("holds", IDENTITY)
    worlds = value.numel()
    known = ~value.isnan() & error.isfinite() | (value == math.inf)
    plain = _probability(value, error)
    lower, upper = slack.end("lower"), slack.end("upper")
    least = torch.zeros_like(plain) if lower is None else _of_side(lower, plain)
    most = torch.ones_like(plain) if upper is None else _of_side(upper, torch.ones_like(plain))
    from_above = slack.direction in ("upper", "biased")
    holds = least if from_above else torch.maximum(plain, least)
    at_most = torch.maximum(most, plain)
    violated = (at_most * worlds <= _LEVEL) & known
    sure = (holds >= 1 - _LEVEL / worlds) & known
    verdict: Verdict = "undecided"
    if bool(violated.any()):
        verdict = "violated"
    elif not bool(known.all()):
        verdict = "unknown"
    elif float(holds.prod()) >= 1 - _LEVEL:
        verdict = "holds"
    of_verdict = (at_most if verdict == "violated" else holds)[known]
    probability = float(of_verdict.mean()) if bool(known.any()) else math.nan
    if one_sided and verdict == "undecided":
        probability = math.nan  # of the side that is known, and not of the slack
    return Judgement(verdict, _in_words(verdict, sure, violated, known), probability)


def _in_words(verdict: Verdict, sure: Tensor, violated: Tensor, known: Tensor) -> str:
    worlds = len(sure)
    if verdict == "holds":
        return ""
    if bool(violated.all()):
        return "violated in every world"
    open_ = known & ~sure & ~violated
    parts = [
        f"{text} in {int(which.sum())}"
        for text, which in (
            ("holds", sure),
            ("is violated", violated),
            ("is undecided", open_),
            ("is unknown (too few effective draws)", ~known),
        )
        if bool(which.any())
    ]
    joined = " and ".join(parts) if len(parts) < 3 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"{joined} of {worlds} worlds"


def _of_side(side: Estimate, otherwise: Tensor) -> Tensor:
    found = _probability(side.value.double().flatten(), side.standard_error.double().flatten())
    return torch.where(found.isnan(), otherwise, found)


def _probability(value: Tensor, error: Tensor) -> Tensor:
    """P(x ≥ 0) of every world, over its Monte Carlo error (normal)."""
    sure = (value >= -_ROUNDING).double()
    likely = torch.special.ndtr((value + _ROUNDING) / error.clamp_min(1e-300))
    # Neither a slack without error nor an identity is a matter of chance.
    exact = (error <= _ROUNDING) | (value.abs() <= _ROUNDING) | value.isinf()
    chance = torch.where(exact, sure, likely)
    return torch.where(value.isnan(), math.nan, chance)


def judge_draws(slack: Estimate) -> Judgement:
    """Whether slack ≥ 0, of draws of one slack: by its probability over draws and errors.

    Worlds are many slacks, each of which has to be at least zero: `judge`.

    >>> judge_draws(Estimate(torch.ones(100), torch.zeros(100))).verdict
    'holds'
    """
    probability = probability_holds(slack)
    return Judgement(verdict_of_probability(probability), probability=probability)


def probability_holds(slack: Estimate) -> float:
    """P(slack ≥ 0) over worlds and, within each, over the Monte Carlo error (normal).

    >>> zero = torch.zeros(2)
    >>> probability_holds(Estimate(torch.tensor([1.0, -1.0]), zero, 1))
    0.5
    """
    value, error = slack.value.double(), slack.standard_error.double()
    if not bool(value.isfinite().any()):
        return math.nan
    return float(_probability(value, error).mean())


def check_at_most_zero(statement: str, excess: Estimate, message: str) -> Check:
    """The check that something is at most zero.

    Args:
        statement: what has to be so.
        excess: what must not be positive, per world.
        message: its numbers in words.
    """
    judged = judge(-excess)
    measured = {"probability_holds": judged.probability}
    text = f"{message}; {judged.message}" if judged.message else message
    return Check(statement, judged.verdict, text, measured)


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
