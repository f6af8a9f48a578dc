"""The rows of an assessment's report as data, which HTML and Markdown render."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from rbpp.assessment.answers import REDUNDANT, missed_in_words, missing_components, sentence
from rbpp.assessment.assessment import Assessment
from rbpp.assessment.marks import rows_digest, rows_to_ask
from rbpp.inference_data import Term
from rbpp.variables import VARIABLES
from rbpp.wording import (
    chance,
    count,
    is_share,
    is_side,
    quantity,
    shortened,
    term_quantity,
)

_EXAMPLES = 5
_LONGEST_EXAMPLE, _LONGEST_CELL = 240, 120  # characters; the row table has the rest
_MOST_ROWS = 1200


def all_terms(table: Mapping[str, Term], references: Mapping[str, float]) -> list[list[str]]:
    """Of every term: name, mean, interval, halves of the task, units, meaning."""
    return [_term(name, table, references) for name in table if not is_side(name, table)]


def _term(name: str, table: Mapping[str, Term], references: Mapping[str, float]) -> list[str]:
    known, share = VARIABLES.get(name), is_share(name)
    number, _, interval = term_quantity(name, table).partition(" (")
    reference = quantity(references[name], share=share) if name in references else ""
    units = "" if known is None or known.units == "1" else known.units
    meaning = name if known is None else known.meaning
    return [name, number, interval.removesuffix(")"), reference, units, meaning]


def to_drop(assessment: Assessment) -> dict[str, Any]:
    """The surest rows on either side, and those that repeat others."""
    synthetic = assessment.synthetic
    ordered = synthetic.sort_values("off_task", ascending=False)
    off = ordered[ordered["off_task"] > 0.5]
    kept = ordered[ordered["off_task"] <= 0.5].iloc[::-1]
    twice = synthetic[synthetic["redundancy"] > REDUNDANT]
    twice = twice.sort_values("redundancy", ascending=False)
    return {
        "off_task": {
            "said": sentence(assessment.answers[-1]),
            "dropped": _examples(off, _off_task),
            "kept": _examples(kept, _off_task),
        },
        "repeated": {
            "count": count(len(twice), "row"),
            "examples": _examples(twice, lambda line: "repeats another row"),
        },
    }


def _off_task(line: Any) -> str:
    return f"off the task with probability {chance(line.off_task)}"


def to_generate(assessment: Assessment) -> dict[str, Any]:
    missing, rows = missing_components(assessment), assessment.rows
    likely = rows[rows["uncovered"] > 0.5].sort_values("uncovered", ascending=False)
    return {
        "said": missed_in_words(assessment),
        "components": [
            {
                "number": number,
                "share": quantity(line[f"share_{assessment.task}"], share=True),
                "keywords": ", ".join(map(str, line["keywords"])),
                "examples": [(_text(str(text), ""), "") for text in line["nearest"][:2]],
            }
            for number, line in missing.head(_EXAMPLES).iterrows()
        ],
        "rows": []
        if len(missing)
        else _examples(likely, lambda line: f"missed with probability {chance(line.uncovered)}"),
    }


def _examples(rows: pd.DataFrame, say: Callable[[Any], str]) -> list[tuple[str, str]]:
    """Texts, each with what is said of it."""
    return [
        (_text(line.text, line.id), f"{line.id}: {say(line)}")
        for line in rows.head(_EXAMPLES).itertuples()
    ]


def _text(text: Any, name: Any) -> str:
    return shortened(text if isinstance(text, str) else f"row {name}", _LONGEST_EXAMPLE)


# Kinds that the rows can be filtered by: what they are called, and which rows are of them.
_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "off": ("off the task", lambda line: line.off_task > 0.5),
    "on": ("on the task", lambda line: line.off_task <= 0.5),
    "novel": ("new", lambda line: line.novel > 0.5),
    "missed": ("missed of the task", lambda line: line.uncovered > 0.5),
    "repeated": ("said already", lambda line: line.redundancy > REDUNDANT),
    "copy": ("near an anchor", lambda line: bool(line.copy)),
}


def row_table(rows: pd.DataFrame) -> dict[str, Any]:
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
        text = _text(line.text, line.id) if isinstance(line.text, str) else ""
        cells += [f"{line.component}", text]
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


def component_rows(assessment: Assessment) -> dict[str, Any]:
    """Components with their shares, keywords, and a row of either side."""
    components = assessment.components
    sources = [name for name in components.columns if name.startswith("share_")]
    task, lines = assessment.task, []
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
    return _text(nearest["text"], nearest["id"])[:_LONGEST_CELL]


def label_rows(labels: pd.DataFrame | None) -> dict[str, Any]:
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


def sheet_rows(assessment: Assessment) -> dict[str, Any]:
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
