"""An assessment or a comparison as one HTML file, which needs no network and no other file.

It has a light and a dark face, fits a phone, and prints on two pages. Its one script sorts and
filters rows, and saves the marks of those that it asks to look at. Pages are templates,
`report.html.jinja` and `comparison.html.jinja`, which escape every text.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib import pyplot
from matplotlib.axes import Axes

from rbpp import plots, validate
from rbpp.assessment import comparison_words, report_rows
from rbpp.assessment.answers import SIGNS, VERDICTS, advice, sentence
from rbpp.assessment.assessment import Assessment
from rbpp.assessment.comparison import Comparison
from rbpp.checks import Verdict, severity
from rbpp.display import Terms, View, versions
from rbpp.files import written_whole
from rbpp.inference_data import terms_of
from rbpp.plots.style import inline_svg
from rbpp.variables import GROUPS
from rbpp.wording import is_main, is_share

_FOLDER = Path(__file__).parent
# Classes of the style sheet.
_CLASSES: dict[Verdict, str] = {
    "holds": "good",
    "violated": "bad",
    "undecided": "unclear",
    "unknown": "unclear",
}


def write_report(
    result: Assessment | Comparison, path: str | os.PathLike[str], *, hdi_prob: float = 0.94
) -> None:
    """Write the report, whole or not at all; see `render`.

    Raises:
        OSError: if the file cannot be written.
        ValueError: if `hdi_prob` is not inside (0, 1).
    """
    page = render(result, hdi_prob)
    with written_whole(path) as aside:
        aside.write_text(page, encoding="utf-8")


def render(result: Assessment | Comparison, hdi_prob: float = 0.94) -> str:
    """The report as HTML.

    Args:
        result: what `rbpp.assess` or `rbpp.compare` returned.
        hdi_prob: probability of the intervals; those of a comparison were made with it.

    Raises:
        ValueError: if `hdi_prob` is not inside (0, 1).
    """
    validate.probability("hdi_prob", hdi_prob)
    found = _of_assessment if isinstance(result, Assessment) else _of_comparison
    name = "report" if isinstance(result, Assessment) else "comparison"
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined
    )
    files = {"style": "report.css", "script": "report.js"}
    return environment.get_template(f"{name}.html.jinja").render(
        **{key: Markup(_FOLDER.joinpath(one).read_text("utf-8")) for key, one in files.items()},
        rows=rows_said(result.settings),
        hdi_percent=f"{100 * hdi_prob:g} %",
        checks=[
            (check.statement, check.verdict, _CLASSES[check.verdict], check.message)
            for check in sorted(result.checks, key=lambda one: severity(one.verdict))
        ],
        settings=[(name, _plain(one)) for name, one in {**result.settings, **versions()}.items()],
        **found(result, hdi_prob),  # type: ignore[arg-type]
    )


def rows_said(settings: Mapping[str, Any]) -> str:
    """How many rows there are of what."""
    return ", ".join(f"{count:,} {name}" for name, count in settings.get("rows", {}).items())


def _of_assessment(assessment: Assessment, hdi_prob: float) -> dict[str, Any]:
    (terms,) = assessment._body(View(hdi_prob))
    verdict, steps = advice(assessment)
    drop = report_rows.to_drop(assessment)
    drop["off_task"]["said"] = _unbroken(drop["off_task"]["said"])
    return {
        "verdict": {"colour": verdict, "said": VERDICTS[verdict], "steps": map(_unbroken, steps)},
        "answers": [_answer(answer) for answer in assessment.answers],
        "map": inline_svg(plots.plot_map(assessment.rows, assessment.components, assessment.axes)),
        "terms": [_groups(terms, names) for names in (("shares", "divergence"), GROUPS[2:])],
        "all_terms": report_rows.all_terms(assessment.table(hdi_prob), assessment.references),
        "forest": inline_svg(_forest(assessment, hdi_prob)),
        **drop,
        "missing": report_rows.to_generate(assessment),
        "row_table": report_rows.row_table(assessment.rows),
        "components": report_rows.component_rows(assessment),
        "labels": report_rows.label_rows(assessment.labels),
        "sheet": report_rows.sheet_rows(assessment),
        "named": assessment.said,
    }


def _of_comparison(comparison: Comparison, hdi_prob: float) -> dict[str, Any]:
    ranking, series = comparison.ranking, None
    if comparison.series:
        series = inline_svg(plots.plot_series(ranking, comparison.series))
    sure = ranking[0]["p_best"] >= comparison_words.SURE
    return {
        "colour": "good" if sure else "unclear",
        "scored": comparison_words.SCORED[comparison.kind],
        "headline": comparison.headline,
        "notes": comparison.notes,
        "ranking": comparison_words.ranking_rows(ranking),
        "ranking_figure": inline_svg(plots.plot_ranking(ranking)),
        "rows_figure": inline_svg(plots.plot_score_by_rows(ranking)),
        "pairs_figure": inline_svg(plots.plot_pairs(ranking, comparison.differences)),
        "pairs": comparison_words.pair_rows(comparison.differences),
        "series": series,
        "diagnostics": comparison_words.diagnostic_rows(comparison.diagnostics),
        "deciding": comparison_words.deciding_rows(ranking, comparison.influence),
        "fail_if": [
            (condition, ", ".join(names) or "no version")
            for condition, names in comparison.fail_if.items()
        ],
    }


def _answer(answer: Mapping[str, Any]) -> dict[str, str]:
    sign, word = SIGNS[answer["verdict"]]
    return {**answer, "sign": sign, "word": word, "sentence": _unbroken(sentence(answer))}


def _unbroken(sentence: str) -> str:
    """A number stays on the line of its percent sign."""
    return sentence.replace(" %", "\N{NO-BREAK SPACE}%")


def _groups(terms: Any, names: Sequence[str]) -> Terms:
    """Some groups of a table."""
    return replace(
        terms, groups={name: terms.groups[name] for name in names if name in terms.groups}
    )


def _forest(assessment: Assessment, hdi_prob: float) -> Axes:
    """The shares and distances that the table beside the figure has."""
    data, references = assessment.idata, assessment.references
    terms = terms_of(data)
    names = [name for name in assessment.terms if is_main(name) and is_share(name)]
    names = [name for name in names if float(terms[name].max()) <= 1]
    axis = pyplot.subplots(figsize=(4.8, 0.9 + 0.55 * len(names)), layout="constrained")[1]
    return plots.plot_forest(data, names, hdi_prob, axis, references=references)


def _plain(value: Any) -> str:
    """A setting as text."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(own)}" for key, own in value.items())
    return str(value)
