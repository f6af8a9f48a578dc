"""What to do about synthetic data that was assessed: a verdict, and a sentence for each step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rbpp.wording import count, listed, quantity

if TYPE_CHECKING:
    import pandas as pd

    from rbpp.assessment.assessment import Assessment

VERDICTS = {
    "bad": "Change it before you train on it.",
    "unclear": "Not settled: these steps settle it.",
    "good": "Nothing speaks against training on it.",
}
# Redundancy is a log ratio of distances: beyond log 3, a row is a third as far as is typical.
REPEATED = math.log(3)
_MOST_COMPONENTS = 3


def advice(assessment: Assessment) -> tuple[str, list[str]]:
    """The verdict, a key of `VERDICTS`, and what to do, a sentence each.

    The verdict is the worst of what is off the task, what is missed and what repeats; style and
    divergence alone ask for no change.
    """
    verdicts = {line["question"]: line["verdict"] for line in assessment.answers}
    off, missed = verdicts["Is any of it off-task?"], verdicts["What does it miss?"]
    repeated = verdicts["Does it repeat itself?"]
    steps = [_drop(assessment, off), _generate(assessment, missed)]
    if repeated == "bad":
        twice = int((assessment.synthetic["redundancy"] > REPEATED).sum())
        steps.append(f"Thin out {count(twice, 'row')} that nearly say what another row says.")
    if verdicts["How faithful is it?"] == "bad" and "bad" not in (off, missed):
        steps.append(
            "Its proportions differ from the task's although hardly a row is sure to be off it: "
            "compare the shares of the components, and weight or add rows where they are apart."
        )
    worst = next((one for one in ("bad", "unclear") if one in (off, missed, repeated)), "good")
    return worst, [step for step in steps if step]


def missing_components(assessment: Assessment) -> pd.DataFrame:
    """Components of the task that the synthetic data lacks, the heaviest first."""
    components = assessment.components
    missing = components[components["part"] == "uncovered"]
    share = "share_target" if "share_target" in components else "share_anchor"
    return missing.sort_values(share, ascending=False) if share in components else missing[:0]


def missed_in_words(assessment: Assessment) -> str:
    """What of the task is missed, in a sentence that agrees with the share and with the parts."""
    table, name = assessment.table(), "uncovered_share"
    if name not in table:
        return next(
            line["sentence"] for line in assessment.answers if line["question"].startswith("What d")
        )
    share, most = _share(assessment, name), assessment.numbers[f"{name}_at_most"].value
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
            f"Drop the {rows} that are more likely off the task than on it: --rows FILE.parquet "
            "has the probability of every row, in the column off_task."
        )
    if verdict == "unclear" and least is not None and most is not None:
        ends = f"{quantity(least.value, share=True)} and {quantity(most.value, share=True)}"
        return (
            f"Mark twenty rows before you drop any: the share has ends of {ends}, and {rows} look "
            "off the task. --ask FILE.csv writes them, rbpp mark FILE.csv asks, --marks FILE.csv "
            "counts."
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
            f"Generate more of what is missed: {_share(assessment, 'uncovered_share')} of the task."
        )
    if verdict == "unclear" and "uncovered_share_at_most" in assessment.numbers:
        most = quantity(assessment.numbers["uncovered_share_at_most"].value, share=True)
        return (
            f"Up to {most} of the task may be missed if that is unlike the synthetic rows: "
            "more rows of the task would tell."
        )
    return ""


def _share(assessment: Assessment, name: str) -> str:
    term: Any = assessment.table()[name]
    return quantity(term["mean"], term["hdi_low"], term["hdi_high"], share=True)


def _is(number: int) -> str:
    return "is" if number == 1 else "are"
