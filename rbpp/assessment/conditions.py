"""Conditions on the versions of a comparison, such as a continuous integration asks."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

_CONDITION = re.compile(
    r"\s*(?:(?P<version>.+):)?\s*(?P<term>\w+)\s*(?P<sign>[<>])\s*(?P<value>[-+.\deE]+)"
    r"(?:\s+with\s+(?P<probability>[.\d]+))?\s*"
)

# What a condition may ask, and of which of them there are draws, so that a probability is asked.
DRAWN = {
    "score": "log-probability of real rows, nats a row",
    "score_equal_size": "the same at equal size",
    "precision": "1 − share of rows off the task",
    "coverage": "1 − share of the task that is missed",
    "irrelevant_share": "share of rows off the task",
    "uncovered_share": "share of the task that is missed",
    "kl_synthetic": "divergence of the texts from the task's, nats",
    "kl_synthetic_coverage": "divergence of the task's texts from these, nats",
    "kl_gap": "how much nearer the texts are to the task than the anchors, nats",
}
NUMBERS = {
    "p_best": "probability that the score is the largest",
    "p_best_equal_size": "the same at equal size",
    "p_trained_best": "probability that the model trained on it is the best",
    "rank_mean": "mean rank, 1 is best",
    "rows": "rows that are scored",
    "repeated_share": "share of rows that repeat others",
    "reference_copied_share": "share of rows that are rows of the reference",
    "copied_share": "share of rows nearer to an anchor than anchors are to each other",
    "label_disagreement": "share of labels that the reference contradicts",
    "label_balance_distance": "total variation of label shares from the reference's",
}
_WITH_SHARES = {name for name in DRAWN if not name.startswith("score")} | {"copied_share"}
_WITH_ANCHOR = {"kl_gap", "copied_share"}
_WITH_LABELS = {"label_disagreement", "label_balance_distance"}


class Condition(NamedTuple):
    """`TERM SIGN VALUE with PROBABILITY`, of these versions."""

    versions: list[str]
    term: str
    sign: str
    value: float
    probability: float


def names_for(*, shares: bool, anchor: bool, labels: bool) -> list[str]:
    """What a condition may ask of a comparison with these parts."""
    absent = set() if shares else set(_WITH_SHARES)
    absent |= set() if anchor else _WITH_ANCHOR
    absent |= set() if labels else _WITH_LABELS
    return [name for name in (*DRAWN, *NUMBERS) if name not in absent]


def explained() -> str:
    """A line for each name that a condition may ask, for `--help`."""
    width = max(map(len, (*DRAWN, *NUMBERS)))
    lines = [f"  {name:<{width}}  {text}" for name, text in DRAWN.items()]
    lines += ["", "and, without a probability, as 'p_trained_best < 0.5',", ""]
    return "\n".join([*lines, *(f"  {name:<{width}}  {text}" for name, text in NUMBERS.items())])


def check_condition(
    condition: str, versions: Sequence[str], names: Collection[str] | None = None
) -> Condition:
    """The condition, read before there is a comparison to ask.

    Args:
        condition: `NAME > VALUE with PROBABILITY` (or `<`), for any version, or for the one named
            before a colon, `new: irrelevant_share > 0.1 with 0.9`. Names without draws take no
            probability.
        versions: the names of all.
        names: that may be asked; by default all.

    Raises:
        ValueError: if the condition cannot be read, or names an unknown term or version.

    >>> check_condition("new: irrelevant_share > 0.1 with 0.9", ["old", "new"]).versions
    ['new']
    """
    match = _CONDITION.fullmatch(condition)
    if match is None:
        raise ValueError(
            f"Expected a condition as 'irrelevant_share > 0.1 with 0.9'; got {condition!r}"
        )
    term = match["term"]
    names = [*DRAWN, *NUMBERS] if names is None else names
    if term not in names:
        closest = difflib.get_close_matches(term, names, n=1)
        hint = f": did you mean {closest[0]!r}?" if closest else ""
        raise ValueError(f"Expected one of {', '.join(names)} in a condition; got {term!r}{hint}")
    if term in DRAWN and match["probability"] is None:
        raise ValueError(
            f"Expected a condition with a probability, as '{term} {match['sign']} "
            f"{match['value']} with 0.9'; got {condition!r}"
        )
    try:
        value, required = float(match["value"]), float(match["probability"] or 1)
    except ValueError:
        raise ValueError(f"Expected numbers in the condition; got {condition!r}") from None
    if not 0 < required <= 1:
        raise ValueError(
            f"Expected a probability above 0, up to 1; got {required} in {condition!r}"
        )
    chosen = list(versions) if match["version"] is None else [match["version"].strip()]
    if chosen[0] not in versions:
        raise ValueError(f"Expected one of the versions {', '.join(versions)}; got {chosen[0]!r}")
    return Condition(chosen, term, match["sign"], value, required)


def answer(
    asked: Condition,
    draws: Mapping[str, Mapping[str, np.ndarray]],
    numbers: Mapping[str, Mapping[str, Any]],
) -> tuple[list[str], list[str]]:
    """Versions for which a condition holds, and those for which it cannot be answered.

    Args:
        asked: the condition.
        draws: by version and name.
        numbers: by version and name.
    """
    holding, open_ = [], []
    for version in asked.versions:
        found = draws[version].get(asked.term)
        if found is None:
            value = numbers[version].get(asked.term)
            found = np.array([np.nan if value is None else value], dtype=float)
        if np.isnan(found).any():
            open_.append(version)
            continue
        holds = found > asked.value if asked.sign == ">" else found < asked.value
        if holds.mean() >= asked.probability:
            holding.append(version)
    return holding, open_
