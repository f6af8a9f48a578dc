"""What was looked at, and what was found: one shape for every entry of every audit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Verdict = Literal["holds", "violated", "undecided", "unknown"]
VERDICTS: tuple[Verdict, ...] = ("violated", "undecided", "unknown", "holds")  # worst first
_SURE = 0.95


@dataclass(frozen=True)
class Check:
    """One statement and its verdict.

    Attributes:
        statement: what has to be so, or the name of a lemma.
        verdict: `"holds"`; `"violated"`; `"undecided"`, looked at and not decided at this
            precision; `"unknown"`, could not be looked at.
        message: what was seen, in words, and what to do about it.
        measured: the numbers behind the verdict, by name; nan where there is none.
        assumptions: checks of what the statement rests on.
        required: whether results depend on it; else it is an assumption of some of them only.
        about: what code finds it by, whatever its words are; not told to users.

    >>> Check("masks are fair coins", "holds", "seen", {"share": 0.501}).to_json()
    {'statement': 'masks are fair coins', 'verdict': 'holds', 'message': 'seen', 'share': 0.501}
    """

    statement: str
    verdict: Verdict
    message: str = ""
    measured: Mapping[str, Any] = field(default_factory=dict)
    assumptions: tuple[Check, ...] = ()
    required: bool = True
    about: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"Expected a verdict of {', '.join(VERDICTS)}; got {self.verdict!r}")

    def reworded(self, said: Callable[[str], str]) -> Check:
        """The same with its texts through `said`."""
        return replace(
            self,
            statement=said(self.statement),
            message=said(self.message),
            assumptions=tuple(one.reworded(said) for one in self.assumptions),
        )

    def to_json(self) -> dict[str, Any]:
        """The entry as every program prints it: `measured` stands beside the first three keys."""
        entry: dict[str, Any] = {
            "statement": self.statement,
            "verdict": self.verdict,
            "message": self.message,
            **self.measured,
        }
        if self.assumptions:
            entry["assumptions"] = [one.to_json() for one in self.assumptions]
        if not self.required:
            entry["required"] = False
        return entry

    def __str__(self) -> str:
        return f"{self.verdict}: {self.statement}" + (f" ({self.message})" if self.message else "")


def compared(
    left_name: str,
    right_name: str,
    *,
    left: float,
    right: float,
    slack: float,
    slack_sd: float = math.nan,
    slack_mcse: float = math.nan,
    probability_holds: float = math.nan,
) -> dict[str, Any]:
    """What the check of a bound has measured, in the keys that every audit has.

    Args:
        left_name, right_name: of the variable that is bounded and of its bound.
        left, right: their means.
        slack, slack_sd, slack_mcse: right − left, its spread and its Monte Carlo error.
        probability_holds: that it is at least zero; nan where that is no matter of chance.
    """
    return {
        "bounds": left_name,
        "left": left,
        "by": right_name,
        "right": right,
        "slack": slack,
        "slack_sd": slack_sd,
        "slack_mcse": slack_mcse,
        "probability_holds": probability_holds,
    }


def verdict_of(holds: bool | None) -> Verdict:
    """The verdict of a plain yes or no; None is `"unknown"`."""
    return "unknown" if holds is None else "holds" if holds else "violated"


def verdict_of_probability(probability: float) -> Verdict:
    """The verdict of a statement that holds with this probability; nan is `"unknown"`.

    >>> verdict_of_probability(0.99), verdict_of_probability(0.5), verdict_of_probability(0.01)
    ('holds', 'undecided', 'violated')
    """
    if math.isnan(probability):
        return "unknown"
    if probability >= _SURE:
        return "holds"
    return "violated" if probability <= 1 - _SURE else "undecided"


def severity(verdict: Verdict) -> int:
    """Where a verdict stands in every list of checks: the worst first.

    >>> sorted(["holds", "violated", "unknown"], key=severity)
    ['violated', 'unknown', 'holds']
    """
    return VERDICTS.index(verdict)


def worst(checks: Iterable[Check]) -> Check | None:
    """The check with the worst verdict, the first of several; None if there is none."""
    return min(checks, key=lambda check: severity(check.verdict), default=None)


def violations(checks: Iterable[Check], *, required: bool = True) -> list[Check]:
    """The violated ones, by default only those that results depend on."""
    return [c for c in checks if c.verdict == "violated" and (c.required or not required)]
