"""What holds, with what probability, and on which assumptions: one entry per statement.

A bound is audited beside a direct estimate of what it bounds. Its slack has a posterior over
worlds, and in every world a Monte Carlo error; P(bound holds) averages over both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from rbpp.estimate import Estimate
from rbpp.theory.information import mean_estimate

Verdict = Literal["holds", "violated", "violated in some worlds", "unknown"]
_SURE = 0.95  # P(bound holds) from which on a statement holds, and below 1 − which it is violated
_ROUNDING = 1e-6  # nats or units of loss: an identity computed in two ways differs by less


@dataclass(frozen=True)
class Assumption:
    """A precondition, and what was measured of it.

    Attributes:
        text: what has to be so.
        verdict: whether it is, as far as can be told.
        measured: the numbers or the fact behind the verdict.
    """

    text: str
    verdict: Verdict
    measured: str


@dataclass(frozen=True)
class Statement:
    """An inequality between two terms: left ≤ right.

    Attributes:
        name: the paper's name of it.
        left, right: names of the terms.
        slack: name of their difference, right − left.
        assumptions: what it rests on.
    """

    name: str
    left: str
    right: str
    slack: str
    assumptions: Sequence[Assumption] = field(default_factory=tuple)


def probability_holds(slack: Estimate) -> float:
    """P(slack ≥ 0) over worlds and, within each, over the Monte Carlo error (normal).

    >>> zero = torch.zeros(2)
    >>> probability_holds(Estimate(torch.tensor([1.0, -1.0]), zero, 1))
    0.5
    """
    value, error = slack.value.double(), slack.standard_error.double()
    sure = (value >= -_ROUNDING).double()
    likely = torch.special.ndtr((value + _ROUNDING) / error.clamp_min(1e-300))
    # An error of zero leaves nothing to chance, and an identity is no matter of chance either.
    exact = (error <= _ROUNDING) | (value.abs() <= _ROUNDING)
    chance = torch.where(exact, sure, likely)
    return float(chance.mean()) if bool(value.isfinite().any()) else math.nan


def entry(
    statement: Statement, terms: Mapping[str, Estimate], missing: Mapping[str, str]
) -> dict[str, Any]:
    """One row of the audit, flat but for the list of assumptions.

    Args:
        statement: what is audited.
        terms: left, right and slack by name.
        missing: reasons of terms that the process does not give.
    """
    left, right, slack = (
        terms.get(name) for name in (statement.left, statement.right, statement.slack)
    )
    probability = math.nan if slack is None else probability_holds(slack)
    row: dict[str, Any] = {
        "statement": statement.name,
        "verdict": verdict(probability),
        "bounds": statement.left,
        "left": _mean(left),
        "by": statement.right,
        "right": _mean(right),
        "slack": _mean(slack),
        "slack_sd": _spread(slack),
        "slack_mcse": math.nan if slack is None else _size(slack.standard_error),
        "probability_holds": probability,
        "assumptions": [
            f"{a.verdict}: {a.text} ({a.measured})" if a.measured else f"{a.verdict}: {a.text}"
            for a in statement.assumptions
        ],
    }
    if math.isnan(probability):
        # One reason of several terms, or one part of such a reason, is said once.
        reasons = dict.fromkeys(part for text in missing.values() for part in text.split("; "))
        row["assumptions"].append(f"unknown: not every term is there ({'; '.join(reasons)})")
    return row


def verdict(probability: float) -> Verdict:
    """In a word, at what probability a statement counts as holding."""
    if math.isnan(probability):
        return "unknown"
    if probability >= _SURE:
        return "holds"
    return "violated" if probability <= 1 - _SURE else "violated in some worlds"


def judged(text: str, excess: Estimate, measured: str, tolerance: float = _ROUNDING) -> Assumption:
    """An assumption that something is at most zero, judged from its estimate.

    Args:
        text: the assumption.
        excess: what must not be positive, per world.
        measured: its numbers in words.
        tolerance: how much counts as none.
    """
    slack = Estimate(tolerance - excess.value, excess.standard_error, excess.count)
    return Assumption(text, verdict(probability_holds(slack)), measured)


def number(estimate: Estimate) -> str:
    """Mean over worlds with the error of that mean, in words.

    >>> number(Estimate(torch.tensor([1.0, 3.0]), torch.zeros(2), 1))
    '2 ± 1'
    """
    value = estimate.value
    if value.numel() < 2:
        return f"{float(value.mean()):.3g} ± {_size(estimate.standard_error):.1g}"
    spread = mean_estimate(value)
    return f"{float(spread.value):.3g} ± {float(spread.standard_error):.1g}"


def _mean(estimate: Estimate | None) -> float:
    return math.nan if estimate is None else float(estimate.value.mean())


def _spread(estimate: Estimate | None) -> float:
    if estimate is None or estimate.value.numel() < 2:
        return math.nan
    return float(estimate.value.std())


def _size(error: torch.Tensor) -> float:
    return float(error.square().mean().sqrt())
