"""An assessment as one HTML file that needs nothing else: no network, no other file.

It has a light and a dark face, fits a phone, and prints on two pages. Its one script sorts and
filters rows, and saves the marks of those that it asks to look at. The page is the template
`report.html.jinja`, which escapes every text; here its values are prepared.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup
from matplotlib import pyplot
from matplotlib.axes import Axes

from rbpp import plots
from rbpp.assessment.advice import (
    REPEATED,
    VERDICTS,
    advice,
    missed_in_words,
    missing_components,
)
from rbpp.assessment.assessment import Assessment
from rbpp.assessment.marks import rows_digest, rows_to_ask
from rbpp.checks import VERDICTS as VERDICT_ORDER
from rbpp.checks import Verdict
from rbpp.display import Terms, View, versions
from rbpp.files import written_whole
from rbpp.inference_data import Term, terms_of
from rbpp.plots.inline import inline_svg
from rbpp.variables import VARIABLES
from rbpp.wording import GROUPS, chance, count, is_main, is_share, is_side, quantity, term_quantity

_FOLDER = Path(__file__).parent

_EXAMPLES = 5
_LONGEST_EXAMPLE, _LONGEST_CELL = 240, 120  # characters; the row table has the rest
_MOST_ROWS = 1200
SIGNS = {"good": ("✓", "fine"), "bad": ("!", "act"), "unclear": ("?", "open")}
# Classes of the style sheet that both reports share.
VERDICT_CLASSES: dict[Verdict, str] = {
    "holds": "good",
    "violated": "bad",
    "undecided": "unclear",
    "unknown": "unclear",
}


def write_report(
    assessment: Assessment, path: str | os.PathLike[str], *, hdi_prob: float = 0.94
) -> None:
    """Write the report of an assessment, whole or not at all; see `render`.

    Raises:
        OSError: if the file cannot be written.
        ValueError: if `hdi_prob` is not inside (0, 1).
    """
    page = render(assessment, hdi_prob=hdi_prob)
    with written_whole(path) as aside:
        aside.write_text(page, encoding="utf-8")


def render(assessment: Assessment, *, hdi_prob: float = 0.94) -> str:
    """The report as HTML.

    Args:
        assessment: what `rbpp.assess` returned.
        hdi_prob: probability of the intervals.

    Raises:
        ValueError: if `hdi_prob` is not inside (0, 1).
    """
    table = assessment.table(hdi_prob)
    (terms,) = assessment._body(View(hdi_prob))
    counts = assessment.settings.get("rows", {})
    settings = {**assessment.settings, **versions()}
    verdict, steps = advice(assessment)
    references = assessment.references
    return page("report.html.jinja").render(
        **style_and_script(),
        rows=", ".join(f"{count:,} {source}" for source, count in counts.items()),
        verdict={"colour": verdict, "said": VERDICTS[verdict], "steps": map(_unbroken, steps)},
        answers=[_answer(answer) for answer in assessment.answers],
        map=inline_svg(plots.plot_map(assessment.rows, assessment.components, assessment.axes)),
        terms=[_groups(terms, names) for names in (("shares", "divergence"), GROUPS[2:])],
        all_terms=[_term(name, table, references) for name in table if not is_side(name, table)],
        hdi_percent=f"{100 * hdi_prob:g} %",
        forest=inline_svg(_forest(assessment, hdi_prob)),
        **_to_drop(assessment),
        missing=_to_generate(assessment),
        row_table=_row_table(assessment.rows),
        components=_components(assessment),
        checks=[
            (check.statement, check.verdict, VERDICT_CLASSES[check.verdict], check.message)
            for check in sorted(assessment.checks, key=lambda one: VERDICT_ORDER.index(one.verdict))
        ],
        labels=_labels(assessment.labels),
        sheet=_sheet(assessment),
        settings=[(name, plain(value)) for name, value in settings.items()],
    )


def page(name: str) -> Template:
    """A template of the reports, which escapes every text."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template(name)


def style_and_script() -> dict[str, Markup]:
    """What every report carries in itself."""
    files = {"style": "report.css", "script": "report.js"}
    return {
        key: Markup(_FOLDER.joinpath(name).read_text(encoding="utf-8"))
        for key, name in files.items()
    }


def _answer(answer: Mapping[str, Any]) -> dict[str, str]:
    sign, word = SIGNS[answer["verdict"]]
    return {
        "verdict": answer["verdict"],
        "sign": sign,
        "word": word,
        "question": answer["question"],
        "sentence": _sentence(answer),
    }


def _sentence(answer: Mapping[str, Any]) -> str:
    words = answer["sentence"]
    return _unbroken(f"{words[:1].upper()}{words[1:]}.")


def _unbroken(sentence: str) -> str:
    """A number stays on the line of its percent sign."""
    return sentence.replace(" %", "\N{NO-BREAK SPACE}%")


def _groups(terms: Any, names: Sequence[str]) -> Terms:
    """Some groups of a table."""
    return replace(
        terms, groups={name: terms.groups[name] for name in names if name in terms.groups}
    )


def _term(name: str, table: Mapping[str, Term], references: Mapping[str, float]) -> list[str]:
    """A line of all terms: name, mean, interval, halves of the task, units, meaning."""
    known, share = VARIABLES.get(name), is_share(name)
    number, _, interval = term_quantity(name, table).partition(" (")
    reference = quantity(references[name], share=share) if name in references else ""
    units = "" if known is None or known.units == "1" else known.units
    meaning = name if known is None else known.meaning
    return [name, number, interval.removesuffix(")"), reference, units, meaning]


def _forest(assessment: Assessment, hdi_prob: float) -> Axes:
    """The shares and distances that the table beside the figure has."""
    data, references = assessment.idata, assessment.references
    terms = terms_of(data)
    names = [name for name in assessment.terms if is_main(name) and is_share(name)]
    names = [name for name in names if float(terms[name].max()) <= 1]
    axis = pyplot.subplots(figsize=(4.8, 0.9 + 0.55 * len(names)), layout="constrained")[1]
    return plots.plot_forest(data, names, hdi_prob, axis, references=references)


def _to_drop(assessment: Assessment) -> dict[str, Any]:
    """The surest rows on either side, and those that repeat others."""
    synthetic = assessment.synthetic
    ordered = synthetic.sort_values("off_task", ascending=False)
    off = ordered[ordered["off_task"] > 0.5]
    kept = ordered[ordered["off_task"] <= 0.5].iloc[::-1]
    twice = synthetic[synthetic["redundancy"] > REPEATED]
    twice = twice.sort_values("redundancy", ascending=False)
    return {
        "off_task": {
            "said": _sentence(assessment.answers[-1]),
            "dropped": examples(off, _off_task),
            "kept": examples(kept, _off_task),
        },
        "repeated": {
            "count": count(len(twice), "row"),
            "examples": examples(twice, lambda line: "repeats another row"),
        },
    }


def _off_task(line: Any) -> str:
    return f"off the task with probability {chance(line.off_task)}"


def _to_generate(assessment: Assessment) -> dict[str, Any]:
    missing, rows = missing_components(assessment), assessment.rows
    share = "share_target" if "share_target" in missing else "share_anchor"
    likely = rows[rows["uncovered"] > 0.5].sort_values("uncovered", ascending=False)
    return {
        "said": missed_in_words(assessment),
        "components": [
            {
                "number": number,
                "share": quantity(line[share], share=True),
                "keywords": ", ".join(map(str, line["keywords"])),
                "examples": [(short(str(text)), "") for text in line["nearest"][:2]],
            }
            for number, line in missing.head(_EXAMPLES).iterrows()
        ],
        "rows": []
        if len(missing)
        else examples(likely, lambda line: f"missed with probability {chance(line.uncovered)}"),
    }


def examples(
    rows: pd.DataFrame, say: Callable[[Any], str], most: int = _EXAMPLES
) -> list[tuple[str, str]]:
    """Texts, each with what is said of it."""
    return [
        (short(_text(line.text, line.id)), f"{line.id}: {say(line)}")
        for line in rows.head(most).itertuples()
    ]


def short(text: str) -> str:
    """A text on one line, cut where it is long."""
    one = " ".join(text.split())
    return one if len(one) <= _LONGEST_EXAMPLE else one[: _LONGEST_EXAMPLE - 1] + "…"


def _text(text: Any, name: Any) -> str:
    return text if isinstance(text, str) else f"row {name}"


# Kinds that the rows can be filtered by: what they are called, and which rows are of them.
_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "off": ("off the task", lambda line: line.off_task > 0.5),
    "on": ("on the task", lambda line: line.off_task <= 0.5),
    "novel": ("new", lambda line: line.novel > 0.5),
    "missed": ("missed of the task", lambda line: line.uncovered > 0.5),
    "repeated": ("said already", lambda line: line.redundancy > REPEATED),
    "copy": ("near an anchor", lambda line: bool(line.copy)),
}


def _row_table(rows: pd.DataFrame) -> dict[str, Any]:
    """The rows with the largest probabilities, for searching, sorting and filtering."""
    largest = rows[["off_task", "uncovered"]].max(axis=1).fillna(0)
    shown = rows.loc[largest.sort_values(ascending=False, kind="stable").index].head(_MOST_ROWS)
    shown = shown.sort_values("source", key=lambda names: names != "synthetic", kind="stable")
    lines, kinds = [], set()
    for line in shown.itertuples():
        own = [key for key, (_, holds) in _KINDS.items() if holds(line)]
        kinds.update(own)
        numbers = (line.off_task, line.novel, line.uncovered, line.redundancy)
        cells = [line.source, line.id, *(_two(number) for number in numbers)]
        cells += [f"{line.component}", line.text if isinstance(line.text, str) else ""]
        cells[-1] = short(cells[-1])
        lines.append({"kind": " ".join(own), "cells": cells})
    header = ["source", "row", "off task", "new", "missed", "redundancy", "component", "text"]
    left = len(rows) - len(shown)
    return {
        "header": header,
        "rows": lines,
        "left": f"{left:,}" if left else "",
        "kinds": {key: words for key, (words, _) in _KINDS.items() if key in kinds},
        "sources": list(dict.fromkeys(rows["source"])),
    }


def _two(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else ""


def _components(assessment: Assessment) -> dict[str, Any]:
    """Components with their shares, keywords, and a row of either side."""
    components = assessment.components
    sources = [name for name in components.columns if name.startswith("share_")]
    task = "target" if "share_target" in components else "anchor"
    lines = []
    for number, line in components[components["part"] != "empty"].iterrows():
        shares = [quantity(line[name], share=True) for name in sources]
        sides = [
            _middle(assessment.rows, int(number), line, source) for source in (task, "synthetic")
        ]
        lines.append([number, line["part"], *shares, ", ".join(map(str, line["keywords"])), *sides])
    named = (name.removeprefix("share_") for name in sources)
    return {
        "header": ["no.", "part", *named, "keywords", f"a row of the {task}", "a synthetic row"],
        "rows": lines,
        "numbers": range(2, 2 + len(sources)),
    }


def _middle(rows: pd.DataFrame, component: int, line: Any, source: str) -> str:
    """The row of a source that is nearest to the middle of a component; nothing where none is."""
    own = rows[(rows["component"] == component) & (rows["source"] == source)]
    if own.empty:
        return ""
    away = (own["x"] - line["x"]) ** 2 + (own["y"] - line["y"]) ** 2
    nearest = own.loc[away.idxmin()]
    return short(_text(nearest["text"], nearest["id"]))[:_LONGEST_CELL]


def _labels(labels: pd.DataFrame | None) -> dict[str, Any]:
    """Labels with their rows, those that are missing or too few first."""
    if labels is None:
        return {"rows": []}
    header = ["label", "rows", "share"]
    wanted = [name for name in ("task_share", "p_missing", "p_too_few") if name in labels]
    ordered = labels.sort_values(wanted[-1], ascending=False) if wanted else labels
    names = {"task_share": "in the task", "p_missing": "missing", "p_too_few": "too few"}
    return {
        "header": [*header, *(names[name] for name in wanted)],
        "rows": [
            [
                line["label"],
                line["rows"],
                *(quantity(line[name], share=True) for name in ("share", *wanted)),
            ]
            for _, line in ordered.iterrows()
        ],
        "numbers": range(1, len(header) + len(wanted)),
    }


def _sheet(assessment: Assessment) -> dict[str, Any]:
    """The rows that are worth a mark, as `Assessment.ask` writes them."""
    if "sample_rows" in assessment.settings:
        return {"lines": [], "digest": ""}
    texts, names = assessment.texts, assessment.synthetic["id"].astype(str).tolist()
    return {
        "digest": rows_digest(texts),
        "lines": [
            {"row": int(row), "id": names[row], "text": texts[row]}
            for row in rows_to_ask(assessment.score)
        ],
    }


def plain(value: Any) -> str:
    """A setting as text."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(own)}" for key, own in value.items())
    return str(value)
