"""An assessment as one HTML file that needs nothing else: no network, no other file.

It has a light and a dark face, fits a phone, and prints on two pages. Its one script saves the
marks of the rows that it asks to look at. The page is the template `report.html.jinja`, which
escapes every text; here its values are prepared.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib import pyplot
from matplotlib.axes import Axes

from rbpp import plots
from rbpp.assessment.assessment import Assessment
from rbpp.assessment.marks import rows_digest, rows_to_ask
from rbpp.checks import Check, Verdict
from rbpp.display import versions
from rbpp.files import written_whole
from rbpp.inference_data import InferenceData, Term, terms_of
from rbpp.plots.inline import inline_svg
from rbpp.variables import VARIABLES

_FOLDER = Path(__file__).parent

# What a reader acts on, in this order; the others follow in theirs.
_FIRST_TERMS = (
    "irrelevant_share",
    "uncovered_share",
    "novel_share",
    "total_divergence",
    "task_divergence",
    "generation_divergence",
    "distinguishability",
    "kl_gap",
    "kl_gap_coverage",
    "information_gain",
    "ggmi",
    "generalization_error",
    "bound_synthetic_sharp",
    "effective_components",
)
_EXAMPLES = 5
_LONGEST_EXAMPLE = 240  # characters; the row table has the rest
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
    data = assessment.idata
    table = assessment.table(hdi_prob)
    names = [name for name in _FIRST_TERMS if name in table]
    sides = ("_lower", "_upper")  # in the JSON; the table has the value between them
    names += [name for name in table if name not in names and not name.endswith(sides)]
    counts = assessment.settings.get("rows", {})
    settings = {**assessment.settings, **versions()}
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("report.html.jinja").render(
        style=Markup(_FOLDER.joinpath("report.css").read_text(encoding="utf-8")),
        rows=", ".join(f"{count:,} {source}" for source, count in counts.items()),
        answers=[_answer(answer) for answer in assessment.answers],
        map=inline_svg(plots.plot_map(assessment.rows, assessment.components, assessment.axes)),
        terms=[_term(name, table[name], assessment.references.get(name)) for name in names],
        hdi_percent=f"{hdi_prob:.0%}",
        forest=inline_svg(_forest(data, _shares(data, names), hdi_prob)),
        **_to_drop(assessment.rows),
        missing=_to_generate(assessment.components),
        components=_components(assessment.components),
        checks=[_check(check) for check in assessment.checks],
        labels=_labels(assessment.labels),
        sheet=_sheet(assessment),
        script=Markup(_FOLDER.joinpath("report.js").read_text(encoding="utf-8")),
        settings=[(name, _plain(value)) for name, value in settings.items()],
    )


def _answer(answer: Mapping[str, Any]) -> dict[str, str]:
    chance, sentence = answer.get("probability"), answer["sentence"]
    known = chance is not None and math.isfinite(chance)
    return {
        "verdict": answer["verdict"],
        "chance": f"{chance:.0%}" if known else "–",
        "question": answer["question"],
        "sentence": sentence[:1].upper() + sentence[1:],
    }


def _term(name: str, term: Term, reference: float | None) -> dict[str, str]:
    known = VARIABLES.get(name)
    ends = (_number(term["hdi_low"]), _number(term["hdi_high"]))
    return {
        "name": name,
        "description": name if known is None else known.long_name,
        "mean": _number(term["mean"]),
        "interval": "" if ends == ("–", "–") else f"{ends[0]} to {ends[1]}",
        "reference": "" if reference is None else _number(reference),
        "units": "" if known is None or known.units == "1" else known.units,
    }


def _shares(data: InferenceData, names: Sequence[str]) -> list[str]:
    """Terms between 0 and 1, which one axis can show."""
    terms = terms_of(data)
    return [
        name
        for name in names
        if name in terms and terms[name].attrs.get("units") == "1" and float(terms[name].max()) <= 1
    ]


def _forest(data: InferenceData, names: Sequence[str], hdi_prob: float) -> Axes:
    size = (4.8, 0.8 + 0.55 * len(names))
    axis = pyplot.subplots(figsize=size, layout="constrained")[1]
    return plots.plot_forest(data, names, hdi_prob, axis)


def _to_drop(rows: pd.DataFrame) -> dict[str, Any]:
    synthetic = rows[rows["source"] == "synthetic"]
    off = synthetic[synthetic["off_task"] > 0.5].sort_values("off_task", ascending=False)
    # Redundancy is a log ratio of distances: beyond log 3, a row is a third as far as is typical.
    twice = synthetic[synthetic["redundancy"] > math.log(3)]
    twice = twice.sort_values("redundancy", ascending=False)
    return {
        "off_task": {
            "count": f"{len(off):,}",
            "of": f"{len(synthetic):,}",
            "examples": _examples(
                off, lambda line: f"off-task with probability {line.off_task:.2f}"
            ),
        },
        "repeated": {
            "count": _count(len(twice), "row"),
            "examples": _examples(twice, lambda line: "repeats another row"),
        },
    }


def _to_generate(components: pd.DataFrame) -> dict[str, Any]:
    missing = components[components["part"] == "uncovered"]
    share = "share_target" if "share_target" in components else "share_anchor"
    if missing.empty or share not in components:
        return {"components": []}
    missing = missing.sort_values(share, ascending=False)
    return {
        "count": _count(len(missing), "component"),
        "verb": "is" if len(missing) == 1 else "are",
        "components": [
            {
                "number": number,
                "share": f"{line[share]:.1%}",
                "keywords": ", ".join(map(str, line["keywords"])),
                "examples": [(_short(str(text)), "") for text in line["nearest"][:2]],
            }
            for number, line in missing.head(_EXAMPLES).iterrows()
        ],
    }


def _examples(rows: pd.DataFrame, say: Callable[[Any], str]) -> list[tuple[str, str]]:
    """Texts, each with what is said of it."""
    quotes = []
    for line in rows.head(_EXAMPLES).itertuples():
        text = line.text if isinstance(line.text, str) else f"row {line.id}"
        quotes.append((_short(text), f"{line.id}: {say(line)}"))
    return quotes


def _short(text: str) -> str:
    short = " ".join(text.split())
    return short if len(short) <= _LONGEST_EXAMPLE else short[: _LONGEST_EXAMPLE - 1] + "…"


def _components(components: pd.DataFrame) -> dict[str, Any]:
    sources = [name for name in components.columns if name.startswith("share_")]
    rows = []
    for number, line in components[components["part"] != "empty"].iterrows():
        described = ", ".join(map(str, line["keywords"])) or "; ".join(map(str, line["nearest"]))
        shares = [f"{line[name]:.1%}" for name in sources]
        rows.append([number, line["part"], *shares, described[:_LONGEST_EXAMPLE]])
    return {
        "header": ["", "part", *(name.removeprefix("share_") for name in sources), "what it is"],
        "rows": rows,
        "numbers": range(2, 2 + len(sources)),
    }


def _check(check: Check) -> dict[str, str]:
    return {
        "statement": check.statement,
        "verdict": check.verdict,
        "colour": VERDICT_CLASSES[check.verdict],
        "message": check.message,
    }


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
            [line["label"], line["rows"], *(f"{line[name]:.1%}" for name in ("share", *wanted))]
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


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(own)}" for key, own in value.items())
    return str(value)


def _number(value: float | None) -> str:
    """Three digits, and none beyond the fourth decimal place: smaller is zero to a reader."""
    if value is None:
        return "–"
    return f"{round(value, 4):.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
