"""What an assessment says: answers to whoever made the data, a verdict, and what to do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from rbpp.assessment.share_terms import Shares
from rbpp.assessment.sources import Sources
from rbpp.assessment.weighted_rows import Array
from rbpp.inference_data import highest_density_interval
from rbpp.wording import chance, count, listed, quantity

if TYPE_CHECKING:
    from rbpp.assessment.assessment import Assessment
    from rbpp.estimate import Estimate

VERDICTS = {
    "bad": "Change it before you train on it.",
    "unclear": "Not settled: these steps settle it.",
    "good": "Nothing speaks against training on it.",
}
# Of a verdict: a sign, and what a reader does.
SIGNS = {"good": ("✓", "fine"), "bad": ("!", "act"), "unclear": ("?", "open")}
QUESTIONS = (
    "Is any of it off-task?",
    "What does it miss?",
    "How faithful is it?",
    "How much does it add?",
    "Is it in another style?",
    "Does it repeat itself?",
    "Which rows should go?",
    "What to do?",
)
OFF_TASK, MISSED, FAITHFUL, ADDED, STYLE, REPEATED, ROWS, ADVICE = QUESTIONS
# Shares and divergences below these make no difference that anyone would act on.
SMALL_SHARE, SMALL_DIVERGENCE = 0.05, 0.1
# A probability beyond which a sentence is said without "perhaps".
SURE = 0.9
# Ends this far apart are worth twenty marks.
WIDE = 0.15
# Redundancy is a log ratio of distances: beyond log 3, a row is a third as far as is typical.
REDUNDANT = math.log(3)
_MOST_COMPONENTS = 3
# A sentence, the probability that its claim holds, and the verdict.
Said = tuple[str, float, str]


def answers(
    sources: Sources,
    shares: Shares,
    terms: Mapping[str, Estimate],
    references: Mapping[str, float],
    rows: pd.DataFrame,
) -> list[dict[str, Any]]:
    """Mappings with `question`, `sentence`, `probability` and `verdict`.

    Args:
        sources: what was assessed.
        shares: what is off the task, uncovered, novel and copied.
        terms: draws of each, (chain, draw).
        references: of two halves of the task.
        rows: the table of rows.
    """
    found = _Found(shares, terms, references, task_name(sources))
    said = {
        OFF_TASK: _off_task(found),
        MISSED: _missed(found),
        FAITHFUL: _faithful(found),
        ADDED: _added(found),
        STYLE: _style(shares),
        REPEATED: _repeated(sources, shares),
    }
    lines = [_line(question, *one) for question, one in said.items()]
    likely = rows.loc[rows["source"] == "synthetic", "off_task"].to_numpy(float)
    return [*lines, which_rows(found.task, Likely.of(likely), lines[0]["verdict"])]


class _Found(NamedTuple):
    """What answers are read off, and what stands for the task in them."""

    shares: Shares
    terms: Mapping[str, Estimate]
    references: Mapping[str, float]
    task: str

    def share(self, name: str) -> str:
        """A share with its interval."""
        draws = self.terms[name].value.flatten().numpy()
        low, high = highest_density_interval(draws, 0.94)
        return quantity(float(draws.mean()), low, high, share=True)

    def above(self, name: str, limit: float) -> float:
        """The probability that a share is above a limit."""
        return (self.terms[name].value > limit).double().mean().item()

    def halves(self, name: str) -> str:
        """The same number for two halves of the task, in brackets; empty where there is none."""
        if name not in self.references:
            return ""
        return f" [two halves of the {self.task}: {_percent(self.references[name])}]"

    def ends(self, name: str) -> tuple[float, float]:
        """At least and at most."""
        return self.shares.limits[f"{name}_at_least"], self.shares.limits[f"{name}_at_most"]

    def classes(self, name: str, other: str) -> str:
        """The upper end that counts classes too, in brackets; empty without classes."""
        most = self.shares.limits.get(f"{name}_at_most_with_classes")
        return "" if most is None else f" ({_percent(most)} if {other} counts too)"

    def told(self, name: str, sentence: str, more: str = "") -> Said:
        """What is said of a share: bad by its lower end alone, good by its upper or its draws."""
        (least, most), above = self.ends(name), self.above(name, SMALL_SHARE)
        sentence = f"{sentence}; {_side(above, SMALL_SHARE)}{more}"
        if least > SMALL_SHARE:
            return sentence, max(above, 1 - above), "bad"
        good = most <= SMALL_SHARE or above < 1 - SURE
        return sentence, 1 - above, "good" if good else "unclear"


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


def which_rows(task: str, likely: Likely, verdict: str) -> dict[str, Any]:
    """The last answer; `verdict` is that of how much is off the task."""
    if math.isnan(likely.total):
        sentence = f"no row is known to be off the {task}, or on it, as no share is"
        return _line(ROWS, sentence, math.nan, "unclear")
    expected = likely.total / likely.drop if likely.drop else 1.0
    each = "each of them" if likely.drop > 1 else "it is so"
    sentence = (
        f"{likely.drop} of {likely.rows} synthetic rows are more likely off the {task} than on it"
        + (f", {each} with probability {expected:.2f} on average" if likely.drop else "")
    )
    few = likely.drop <= SMALL_SHARE * likely.rows
    verdict = "good" if few else "unclear" if verdict == "unclear" else "bad"
    return _line(ROWS, sentence, expected, verdict)


def _off_task(found: _Found) -> Said:
    name, shares, task = "irrelevant_share", found.shares, found.task
    if shares.same:
        return f"none: the synthetic rows are the rows of the {task}", 1.0, "good"
    if name not in found.terms:
        return shares.irrelevant.refusal, math.nan, "unclear"
    sentence = f"{found.share(name)} of the synthetic rows{found.halves(name)}"
    least, most = found.ends(name)
    if shares.marked is not None:
        return found.told(name, f"{sentence} are off the {task}, from the marks")
    sentence += (
        f": at least {_percent(least)} whatever the style, and at most {_percent(most)} if "
        f"what is off the {task} is unlike it"
    )
    other = f"another class of the {task}"
    sentence += found.classes(name, other) or f" ({other} is not counted; label=… counts it)"
    more = "; twenty marked rows settle it (result.ask('FILE'))" if most - least > WIDE else ""
    return found.told(name, sentence, more)


def _missed(found: _Found) -> Said:
    name = "uncovered_share"
    if name not in found.terms:
        return found.shares.uncovered.refusal, math.nan, "unclear"
    least, most = found.ends(name)
    sentence = (
        f"{found.share(name)} of the {found.task}{found.halves(name)}: at least "
        f"{_percent(least)}, and at most {_percent(most)} if what it misses is unlike it"
    )
    sentence += found.classes(name, "a class that it leaves out")
    return found.told(name, sentence)


def _faithful(found: _Found) -> Said:
    name = "total_divergence"
    if name not in found.terms:
        return "too few rows for a total variation", math.nan, "unclear"
    above = found.above(name, SMALL_DIVERGENCE)
    sure = max(above, 1 - above)
    sentence = (
        f"it differs from the {found.task} by a total variation of {found.share(name)}"
        f"{found.halves(name)}, style taken away; {_side(above, SMALL_DIVERGENCE)}"
    )
    verdict = "unclear" if sure < SURE else "bad" if above >= 0.5 else "good"
    return sentence, sure, verdict


def _added(found: _Found) -> Said:
    name, novel = "novel_share", found.shares.novel
    if novel is None:
        sentence = (
            "without both target rows and ten anchors, what is novel cannot be told from what is "
            "irrelevant"
        )
        return sentence, math.nan, "unclear"
    if name not in found.terms:
        return novel.refusal, math.nan, "unclear"
    above = found.above(name, SMALL_SHARE)
    sentence = (
        f"{found.share(name)} of the synthetic data is on the task and beyond the anchors; "
        f"{_side(above, SMALL_SHARE)}"
    )
    return sentence, above, "good" if above > SURE else "unclear"


def _style(shares: Shares) -> Said:
    style = shares.style
    if shares.same:
        return "no: the rows are the same", 1.0, "good"
    before, after = style.separation_before, style.separation.value
    if style.shrinkage == 0 and before.interval(2)[0] <= 0.5:
        return "no style can be told from noise", math.nan, "good"
    sentence = (
        f"style tells rows apart with an AUC of {before.value:.2f} (0.50 is not at all), and with "
        f"{after:.2f} once a shift by {style.shift.value:.2f} of the task's own spread is taken "
        "away"
    )
    if shares.irrelevant.refusal:
        sentence += ": no share is told from it, and none is given"
        return sentence, math.nan, "bad"
    return f"{sentence}: no share above counts it", math.nan, "unclear"


def _repeated(sources: Sources, shares: Shares) -> Said:
    own = sources.copies["synthetic"]
    rows = len(own.group)
    sentence = f"{rows - own.distinct} of {rows} synthetic rows repeat another"
    if own.distinct < rows:
        times = "twice" if own.largest == 2 else f"{own.largest} times"
        sentence += f", {own.distinct} are distinct, and one stands there {times}"
    copied = shares.copied
    if copied is not None:
        sentence += f"; {_percent(copied.copied_share)} stand as near to an anchor as copies do"
        if math.isfinite(copied.reference_share):
            sentence += f" (held-out real rows: {_percent(copied.reference_share)})"
    bad = own.near > SMALL_SHARE
    return sentence, math.nan, "bad" if bad else "good"


def _line(question: str, sentence: str, probability: float, verdict: str) -> dict[str, Any]:
    return {
        "question": question,
        "sentence": sentence,
        "probability": probability,
        "verdict": verdict,
    }


def _percent(value: float) -> str:
    return quantity(value, share=True)


def _side(above: float, limit: float) -> str:
    """The likelier side of a limit and its probability."""
    side = "more than" if above >= 0.5 else "at most"
    return f"{side} {limit:.0%} with probability {chance(max(above, 1 - above))}".replace("%", " %")


def sentence(answer: Mapping[str, Any]) -> str:
    """An answer as a sentence of its own."""
    said: str = answer["sentence"]
    return f"{said[:1].upper()}{said[1:]}."


def headline(answers: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The answers as lines, the questions in a column."""
    width = max(map(len, QUESTIONS))
    return tuple(f"{line['question']:<{width}}  {line['sentence']}." for line in answers)


def advice(assessment: Assessment) -> tuple[str, list[str]]:
    """The verdict, a key of `VERDICTS`, and what to do, a sentence each.

    The verdict is the worst of what is off the task, what is missed and what repeats; style and
    divergence alone ask for no change.
    """
    verdicts = {line["question"]: line["verdict"] for line in assessment.answers}
    off, missed = verdicts[OFF_TASK], verdicts[MISSED]
    repeated = verdicts[REPEATED]
    steps = [_drop(assessment, off), _generate(assessment, missed)]
    if repeated == "bad":
        twice = int((assessment.synthetic["redundancy"] > REDUNDANT).sum())
        steps.append(f"Thin out {count(twice, 'row')} that nearly say what another row says.")
    if verdicts[FAITHFUL] == "bad" and "bad" not in (off, missed):
        steps.append(
            "Its proportions differ from the task's although hardly a row is sure to be off it: "
            "compare the shares of the components, and weight or add rows where they are apart."
        )
    worst = next((one for one in ("bad", "unclear") if one in (off, missed, repeated)), "good")
    return worst, [assessment.said(step) for step in steps if step]


def missing_components(assessment: Assessment) -> pd.DataFrame:
    """Components of the task that the synthetic data lacks, the heaviest first."""
    components = assessment.components
    missing = components[components["part"] == "uncovered"]
    share = f"share_{assessment.task}"
    return missing.sort_values(share, ascending=False) if share in components else missing[:0]


def missed_in_words(assessment: Assessment) -> str:
    """What of the task is missed, in a sentence that agrees with the share and with the parts."""
    table, name = assessment.table(), "uncovered_share"
    if name not in table:
        return next(line["sentence"] for line in assessment.answers if line["question"] == MISSED)
    share, most = _term(assessment, name), assessment.numbers[f"{name}_at_most"].value.item()
    missing = len(missing_components(assessment))
    if missing:
        whole = f"of which {count(missing, 'component')} of the task {_is(missing)} the most"
    elif most > 0:
        whole = "spread thinly: no component as a whole"
    else:
        return "Nothing of the task is missed."
    upper = f"at most {quantity(most, share=True)} if that is unlike the synthetic rows"
    return f"{share} of the task is missed, {upper}, {whole}."


def _drop(assessment: Assessment, verdict: str) -> str:
    synthetic = assessment.synthetic
    likely = int((synthetic["off_task"] > 0.5).sum())
    rows = f"{likely:,} of {len(synthetic):,} synthetic rows"
    least, most = (
        assessment.numbers.get(f"irrelevant_share_at_{end}") for end in ("least", "most")
    )
    if verdict == "bad":
        return (
            f"Drop the {rows} that are more likely off the task than on it: "
            "result.rows.to_parquet('FILE.parquet') has the probability of every row, in the "
            "column off_task."
        )
    if verdict == "unclear" and least is not None and most is not None:
        ends = f"{_percent(least.value.item())} and {_percent(most.value.item())}"
        return (
            f"Mark twenty rows before you drop any: the share has ends of {ends}, and {rows} look "
            "off the task. result.ask('FILE.csv') writes them, rbpp mark FILE.csv asks, "
            "marks='FILE.csv' counts."
        )
    if verdict == "unclear":
        return "Give more rows of the task, or an embedding of what rows are about: see the checks."
    return f"Look at {rows} that may be off the task; the rest can stay." if likely else ""


def _generate(assessment: Assessment, verdict: str) -> str:
    missing = missing_components(assessment).head(_MOST_COMPONENTS)
    if len(missing):
        named = [
            f"component {number}"
            + (f" ({', '.join(map(str, line['keywords'][:3]))})" if line["keywords"] else "")
            for number, line in missing.iterrows()
        ]
        return f"Generate more like the real rows of {listed(named)}."
    if verdict == "bad":
        return (
            f"Generate more of what is missed: {_term(assessment, 'uncovered_share')} of the task."
        )
    if verdict == "unclear" and "uncovered_share_at_most" in assessment.numbers:
        most = _percent(assessment.numbers["uncovered_share_at_most"].value.item())
        return (
            f"Up to {most} of the task may be missed if that is unlike the synthetic rows: "
            "more rows of the task would tell."
        )
    return ""


def _term(assessment: Assessment, name: str) -> str:
    term: Any = assessment.table()[name]
    return quantity(term["mean"], term["hdi_low"], term["hdi_high"], share=True)


def _is(number: int) -> str:
    return "is" if number == 1 else "are"
