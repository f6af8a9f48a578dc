"""An assessment or comparison in Markdown: for a pull request, and for a data card.

What users wrote is escaped, so that a row can neither format the page nor link away from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rbpp.assessment.answers import SIGNS, VERDICTS, advice, missed_in_words
from rbpp.assessment.assessment import Assessment
from rbpp.assessment.comparison import Comparison
from rbpp.assessment.report import rows_said
from rbpp.assessment.report_rows import to_drop
from rbpp.checks import Check
from rbpp.display import Lines, Part, Table, Terms, View, versions
from rbpp.wording import count

_SPECIAL = re.compile(r"([\\`*_\[\]#|~])")
# What GitHub would link by itself, and HTML.
_ENTITIES = {"&": "&amp;", "<": "&lt;", "@": "&#64;", "://": "&#58;//", "www.": "www&#46;"}
_MOST_CHECKS = 20
# A tool that keeps a card up to date finds the block by these.
_START, _END = "<!-- rbpp: start -->", "<!-- rbpp: end -->"


def of_assessment(assessment: Assessment, *, hdi_prob: float = 0.94) -> str:
    """The report of an assessment: verdict, steps, answers, numbers, rows and checks."""
    verdict, steps = advice(assessment)
    drop = to_drop(assessment)["off_task"]
    lines = [
        "## Synthetic data, assessed",
        "",
        f"Rows: {rows_said(assessment.settings)}",
        "",
        f"**{SIGNS[verdict][0]} {VERDICTS[verdict]}**",
        "",
        *(f"{place}. {escaped(step)}" for place, step in enumerate(steps, 1)),
        "",
        *_answers(assessment),
        "",
        *_folded("Numbers", _parts(assessment._body(View(hdi_prob)))),
        *_folded(
            f"Rows that would go and stay: {escaped(drop['said'])}",
            _table(["would go", "would stay"], _side_by_side(drop)),
        ),
        *_folded("What to generate next", [escaped(missed_in_words(assessment))]),
        *_checks(assessment.checks),
        _made_by(assessment.settings),
    ]
    return "\n".join(lines) + "\n"


def of_comparison(comparison: Comparison, *, hdi_prob: float = 0.94) -> str:
    """The report of a comparison: who is first, conditions, ranking and checks."""
    headline, *rest = comparison.answer(View(hdi_prob))
    ranking, differences = comparison._body(View(hdi_prob))
    conditions = [
        f"- {'✗' if names else '✓'} `{condition.replace('`', '')}`: holds for "
        + (escaped(", ".join(names)) or "no version")
        for condition, names in comparison.fail_if.items()
    ]
    if conditions:
        failed = " (failed)" if any(comparison.fail_if.values()) else ""
        conditions = [f"### Conditions{failed}", "", *conditions, ""]
    lines = [
        "## Synthetic data, compared",
        "",
        f"**{escaped(headline)}**",
        "",
        *(f"- {escaped(line)}" for line in rest),
        "",
        *conditions,
        *_parts([ranking]),
        "",
        *_folded("Differences from the first", _parts([differences])),
        *_checks(comparison.checks),
        _made_by(comparison.settings),
    ]
    return "\n".join(lines) + "\n"


def data_card(assessment: Assessment, *, hdi_prob: float = 0.94) -> str:
    """A block for a Hugging Face data card: what was measured, on what, and how sure.

    It stands between two comments, by which a later run can replace it.
    """
    verdict, _ = advice(assessment)
    settings = assessment.settings
    violated = [check.statement for check in assessment.checks if check.verdict == "violated"]
    sure = f"{count(len(assessment.checks), 'check')}, {len(violated)} violated"
    lines = [
        _START,
        "## How this synthetic data was assessed",
        "",
        f"{VERDICTS[verdict]} Measured with [rbpp](https://arxiv.org/abs/2410.01720) "
        f"{versions()['rbpp']} on {rows_said(settings)} rows, embedded by "
        f"{escaped(str(settings['embedding']))}; "
        f"{100 * hdi_prob:g} % intervals in round brackets, two halves of the real rows in square "
        f"ones; {sure}{': ' + escaped('; '.join(violated)) if violated else ''}.",
        "",
        *_answers(assessment),
        "",
        *_parts(assessment._body(View(hdi_prob))),
        _END,
    ]
    return "\n".join(lines) + "\n"


def write(
    text: Callable[..., str], result: Assessment | Comparison, path: Path, *, hdi_prob: float = 0.94
) -> None:
    """Write what `of_assessment`, `of_comparison` or `data_card` says of a result."""
    path.write_text(text(result, hdi_prob=hdi_prob), encoding="utf-8")


def escaped(text: str) -> str:
    r"""A text that Markdown shows as it is, on one line.

    >>> print(escaped("a *b* | [c](http://d) <e>"))
    a \*b\* \| \[c\](http&#58;//d) &lt;e>
    """
    found = _SPECIAL.sub(r"\\\1", " ".join(text.split()))
    for sign, entity in _ENTITIES.items():
        found = found.replace(sign, entity)
    return found


def _answers(assessment: Assessment) -> list[str]:
    lines = [
        [" ".join(SIGNS[line["verdict"]]), line["question"], line["sentence"]]
        for line in assessment.answers
    ]
    return _table(["", "question", "answer"], lines)


def _parts(parts: Sequence[Part]) -> list[str]:
    """Tables and sentences in Markdown."""
    found: list[str] = []
    for part in parts:
        if isinstance(part, Terms):
            lines = [line for group in part.groups.values() for line in group]
            found += _table(part.heading, lines)
        elif isinstance(part, Table):
            found += _table(part.lines[0], part.lines[1:])
        elif isinstance(part, Lines):
            found += [f"- {escaped(line)}" for line in part.lines]
        else:
            found += ["```", part, "```"]
        found.append("")
    return found


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    cells = [[escaped(str(cell)) for cell in line] for line in [header, *rows]]
    lines = [f"| {' | '.join(line)} |" for line in cells]
    return [lines[0], f"|{'---|' * len(header)}", *lines[1:]]


def _side_by_side(off_task: Any) -> list[list[str]]:
    sides = [[f"{text} ({note})" for text, note in off_task[key]] for key in ("dropped", "kept")]
    return [list(line) for line in zip_longest(*sides, fillvalue="")]


def _folded(title: str, lines: Sequence[str]) -> list[str]:
    return [f"<details><summary>{title}</summary>", "", *lines, "", "</details>", ""]


def _checks(checks: Sequence[Check]) -> list[str]:
    """Violated checks in sight, the undecided and unknown ones folded."""
    violated = [check for check in checks if check.verdict == "violated"]
    others = [check for check in checks if check.verdict in ("undecided", "unknown")]
    shown = [[check.verdict, check.statement, check.message] for check in others[:_MOST_CHECKS]]
    holding = len(checks) - len(violated) - len(others)
    return [
        *(f"- ✗ {escaped(check.statement)}: {escaped(check.message)}" for check in violated),
        "",
        *_folded(
            f"{count(len(checks), 'check')}: {len(violated)} violated, {len(others)} undecided or "
            f"unknown, {holding} hold",
            _table(["verdict", "statement", "what was measured"], shown),
        ),
    ]


def _made_by(settings: Any) -> str:
    return f"<sub>rbpp {versions()['rbpp']}, seed {settings.get('seed', 0)}</sub>"
