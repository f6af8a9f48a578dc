"""The questions of whoever made the data, answered in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rbpp import wording
from rbpp.assessment.share_terms import Shares
from rbpp.assessment.sources import Sources
from rbpp.inference_data import highest_density_interval

Array = NDArray[np.float64]

# Shares and divergences below these make no difference that anyone would act on.
SMALL_SHARE, SMALL_DIVERGENCE = 0.05, 0.1
# A probability beyond which a sentence is said without "perhaps".
SURE = 0.9
# Ends this far apart are worth twenty marks.
WIDE = 0.15


def answers(
    sources: Sources,
    shares: Shares,
    draws: Mapping[str, Array],
    references: Mapping[str, float],
    rows: pd.DataFrame,
) -> list[dict[str, Any]]:
    """Mappings with `question`, `sentence`, `probability` and `verdict`.

    Args:
        sources: what was assessed.
        shares: what is off the task, uncovered, novel and copied.
        draws: of all terms (num_samples,).
        references: of two halves of the task.
        rows: the table of rows.
    """
    task = task_name(sources)
    found = [
        _off_task(shares, draws, references, task),
        _missed(shares, draws, references, task),
        _faithful(draws, references, task),
        _added(shares, draws),
        _style(shares),
        _repeated(sources, shares),
    ]
    likely = rows.loc[rows["source"] == "synthetic", "off_task"].to_numpy(float)
    settled = found[0]["verdict"] != "unclear"
    return [*found, which_rows(task, Likely.of(likely), settled=settled)]


class Likely(NamedTuple):
    """How many synthetic rows there are, how many are likely off the task, and how likely.

    Attributes:
        rows: all of them.
        drop: those that are more likely off the task than on it.
        total: the sum of their probabilities; nan where no row has one.
    """

    rows: int = 0
    drop: int = 0
    total: float = 0.0

    @classmethod
    def of(cls, likely: Array) -> Likely:
        """Of rows with these probabilities (n,), nan where they are not known."""
        above = likely[likely > 0.5]
        known = not np.isnan(likely).all()
        return cls(len(likely), len(above), float(above.sum()) if known else math.nan)

    def with_more(self, other: Likely) -> Likely:
        """Of both parts of the rows."""
        return Likely(self.rows + other.rows, self.drop + other.drop, self.total + other.total)


def task_name(sources: Sources) -> str:
    """What stands for the task in sentences."""
    return "task" if sources.roles[sources.task] == "target" else "anchor set"


def which_rows(task: str, likely: Likely, *, settled: bool) -> dict[str, Any]:
    """The last answer; `settled` is whether it is, how much is off the task."""
    question = "Which rows should go?"
    if math.isnan(likely.total):
        sentence = f"no row is known to be off the {task}, or on it, as no share is"
        return _line(question, sentence, math.nan, "unclear")
    expected = likely.total / likely.drop if likely.drop else 1.0
    each = "each of them" if likely.drop > 1 else "it is so"
    sentence = (
        f"{likely.drop} of {likely.rows} synthetic rows are more likely off the {task} than on it"
        + (f", {each} with probability {expected:.2f} on average" if likely.drop else "")
    )
    few = likely.drop <= SMALL_SHARE * likely.rows
    return _line(question, sentence, expected, "good" if few else "bad" if settled else "unclear")


def _off_task(
    shares: Shares, draws: Mapping[str, Array], references: Mapping[str, float], task: str
) -> dict[str, Any]:
    question, name = "Is any of it off-task?", "irrelevant_share"
    if shares.same:
        return _line(question, f"none: the synthetic rows are the rows of the {task}", 1.0, "good")
    if name not in draws:
        return _line(question, shares.irrelevant.refusal, math.nan, "unclear")
    sentence = f"{_share(draws[name])} of the synthetic rows{_halves(name, references, task)}"
    least, most = ends = _ends(name, shares)
    if shares.marked is not None:
        return _told(question, f"{sentence} are off the {task}, from the marks", draws[name], ends)
    sentence += (
        f": at least {_percent(least)} whatever the style, and at most {_percent(most)} if "
        f"what is off the {task} is unlike it"
    )
    other = f"another class of the {task}"
    sentence += _classes(name, shares, other) or f" ({other} is not counted: --label-field does)"
    more = "; twenty marked rows settle it (--ask FILE)" if most - least > WIDE else ""
    return _told(question, sentence, draws[name], ends, more)


def _missed(
    shares: Shares, draws: Mapping[str, Array], references: Mapping[str, float], task: str
) -> dict[str, Any]:
    question, name = "What does it miss?", "uncovered_share"
    if name not in draws:
        return _line(question, shares.uncovered.refusal, math.nan, "unclear")
    least, most = ends = _ends(name, shares)
    sentence = (
        f"{_share(draws[name])} of the {task}{_halves(name, references, task)}: at least "
        f"{_percent(least)}, and at most {_percent(most)} if what it misses is unlike it"
    )
    sentence += _classes(name, shares, "a class that it leaves out")
    return _told(question, sentence, draws[name], ends)


def _classes(name: str, shares: Shares, other: str) -> str:
    """The upper end that counts classes too, in brackets; empty without classes."""
    most = shares.limits.get(f"{name}_at_most_with_classes")
    return "" if most is None else f" ({_percent(most)} if {other} counts too)"


def _told(
    question: str, sentence: str, value: Array, ends: tuple[float, float], more: str = ""
) -> dict[str, Any]:
    """What is said of a share: bad by its lower end alone, good by its upper end or its draws."""
    least, most = ends
    above = float((value > SMALL_SHARE).mean())
    sentence = f"{sentence}; {_side(above, SMALL_SHARE)}{more}"
    if least > SMALL_SHARE:
        return _line(question, sentence, max(above, 1 - above), "bad")
    good = most <= SMALL_SHARE or above < 1 - SURE
    return _line(question, sentence, 1 - above, "good" if good else "unclear")


def _ends(name: str, shares: Shares) -> tuple[float, float]:
    return shares.limits[f"{name}_at_least"], shares.limits[f"{name}_at_most"]


def _faithful(
    draws: Mapping[str, Array], references: Mapping[str, float], task: str
) -> dict[str, Any]:
    question, name = "How faithful is it?", "total_divergence"
    if name not in draws:
        return _line(question, "too few rows for a total variation", math.nan, "unclear")
    value = draws[name]
    above = float((value > SMALL_DIVERGENCE).mean())
    chance = max(above, 1 - above)
    sentence = (
        f"it differs from the {task} by a total variation of {_share(value)}"
        f"{_halves(name, references, task)}, style taken away; {_side(above, SMALL_DIVERGENCE)}"
    )
    verdict = "unclear" if chance < SURE else "bad" if above >= 0.5 else "good"
    return _line(question, sentence, chance, verdict)


def _added(shares: Shares, draws: Mapping[str, Array]) -> dict[str, Any]:
    question, name = "How much does it add?", "novel_share"
    if shares.novel is None:
        sentence = (
            "without both target rows and ten anchors, what is novel cannot be told from what is "
            "irrelevant"
        )
        return _line(question, sentence, math.nan, "unclear")
    if name not in draws:
        return _line(question, shares.novel.refusal, math.nan, "unclear")
    chance = float((draws[name] > SMALL_SHARE).mean())
    sentence = (
        f"{_share(draws[name])} of the synthetic data is on the task and beyond the anchors; "
        f"{_side(chance, SMALL_SHARE)}"
    )
    return _line(question, sentence, chance, "good" if chance > SURE else "unclear")


def _style(shares: Shares) -> dict[str, Any]:
    question, style = "Is it in another style?", shares.style
    if shares.same:
        return _line(question, "no: the rows are the same", 1.0, "good")
    away = style.separation_before - 0.5 > 2 * style.separation_error
    if style.shrinkage == 0 and not away:
        return _line(question, "no style can be told from noise", math.nan, "good")
    sentence = (
        f"style tells rows apart with an AUC of {style.separation_before:.2f} (0.50 is not at "
        f"all), and with {style.separation:.2f} once a shift by {style.shift:.2f} of the task's "
        "own spread is taken away"
    )
    if shares.irrelevant.refusal:
        sentence += ": no share is told from it, and none is given"
        return _line(question, sentence, math.nan, "bad")
    return _line(question, f"{sentence}: no share above counts it", math.nan, "unclear")


def _repeated(sources: Sources, shares: Shares) -> dict[str, Any]:
    question, own = "Does it repeat itself?", sources.copies["synthetic"]
    count = len(own.group)
    sentence = f"{count - own.distinct} of {count} synthetic rows repeat another"
    if own.distinct < count:
        times = "twice" if own.largest == 2 else f"{own.largest} times"
        sentence += f", {own.distinct} are distinct, and one stands there {times}"
    copied = shares.copied
    if copied is not None:
        sentence += f"; {_percent(copied.copied_share)} stand as near to an anchor as copies do"
        if math.isfinite(copied.reference_share):
            sentence += f" (held-out real rows: {_percent(copied.reference_share)})"
    bad = own.near > SMALL_SHARE
    return _line(question, sentence, math.nan, "bad" if bad else "good")


def _line(question: str, sentence: str, probability: float, verdict: str) -> dict[str, Any]:
    return {
        "question": question,
        "sentence": sentence,
        "probability": probability,
        "verdict": verdict,
    }


def _share(value: Array) -> str:
    low, high = highest_density_interval(np.asarray(value), 0.94)
    return wording.quantity(float(np.mean(value)), low, high, share=True)


def _percent(value: float) -> str:
    return wording.quantity(value, share=True)


def _halves(name: str, references: Mapping[str, float], task: str) -> str:
    """The same number for two halves of the task, in brackets."""
    if name not in references:
        return ""
    return f" [two halves of the {task}: {_percent(references[name])}]"


def _side(above: float, limit: float) -> str:
    """The likelier side of a limit and its probability."""
    side = "more than" if above >= 0.5 else "at most"
    return f"{side} {limit:.0%} with probability {wording.chance(max(above, 1 - above))}".replace(
        "%", " %"
    )
