"""A comparison as one HTML file that needs nothing else: no network, no script, no other file.

The page is the template `comparison.html.jinja`, which escapes every text; here its values are
prepared.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from rbpp import plots, validate
from rbpp.assessment.comparison import Comparison
from rbpp.assessment.comparison_words import SURE
from rbpp.assessment.report import VERDICT_CLASSES, page, plain, style_and_script
from rbpp.checks import VERDICTS
from rbpp.display import versions
from rbpp.files import written_whole
from rbpp.plots.inline import inline_svg
from rbpp.wording import chance, quantity

# Versions whose deciding rows are shown, rows of each on either side, characters of each.
_VERSIONS, _ROWS, _LONGEST = 8, 3, 200
# Pairs of versions in words; the figure has all of them.
_PAIRS = 15
_SCORED = {
    "labels": "the label of real rows given their text",
    "outputs": "the output of real rows given their prompt",
    "texts": "the text of real rows",
}


def write_comparison(
    comparison: Comparison, path: str | os.PathLike[str], *, hdi_prob: float = 0.94
) -> None:
    """Write the report of a comparison, whole or not at all; see `render_comparison`.

    Raises:
        OSError: if the file cannot be written.
        ValueError: if `hdi_prob` is not inside (0, 1).
    """
    page = render_comparison(comparison, hdi_prob=hdi_prob)
    with written_whole(path) as aside:
        aside.write_text(page, encoding="utf-8")


def render_comparison(comparison: Comparison, *, hdi_prob: float = 0.94) -> str:
    """The report as HTML: ranking, pairs, diagnostics, the rows that decide, and checks.

    Args:
        comparison: what `rbpp.compare` returned.
        hdi_prob: the probability that its intervals were made with.

    Raises:
        ValueError: if `hdi_prob` is not inside (0, 1).
    """
    validate.probability("hdi_prob", hdi_prob)
    counts = comparison.settings["rows"]
    series = None
    if comparison.series:
        series = inline_svg(plots.plot_series(comparison.ranking, comparison.series))
    sure = comparison.ranking[0]["p_best"] >= SURE
    return page("comparison.html.jinja").render(
        **style_and_script(),
        colour="good" if sure else "unclear",
        rows=", ".join(f"{count:,} {name}" for name, count in counts.items()),
        scored=_SCORED[comparison.kind],
        headline=comparison.headline,
        notes=comparison.notes,
        hdi_percent=f"{100 * hdi_prob:g} %",
        ranking=[_line(place, line) for place, line in enumerate(comparison.ranking, 1)],
        ranking_figure=inline_svg(plots.plot_ranking(comparison.ranking)),
        rows_figure=inline_svg(plots.plot_score_by_rows(comparison.ranking)),
        pairs_figure=inline_svg(plots.plot_pairs(comparison.ranking, comparison.differences)),
        pairs=_pairs(comparison),
        series=series,
        diagnostics=_diagnostics(comparison),
        deciding=_deciding(comparison),
        checks=[
            (check.statement, check.verdict, VERDICT_CLASSES[check.verdict], check.message)
            for check in sorted(comparison.checks, key=lambda c: VERDICTS.index(c.verdict))
        ],
        fail_if=[
            (condition, ", ".join(names) or "no version")
            for condition, names in comparison.fail_if.items()
        ],
        settings=[(n, plain(v)) for n, v in {**comparison.settings, **versions()}.items()],
    )


def _line(place: int, line: Mapping[str, Any]) -> list[str]:
    real = line["score_of_real_rows"]
    score = quantity(line["score"], line["hdi_low"], line["hdi_high"])
    return [
        str(place),
        line["name"],
        score if real is None or not np.isfinite(real) else f"{score} [{quantity(real)}]",
        chance(line["p_best"]),
        chance(line["p_trained_best"]),
        f"{quantity(line['score_equal_size'])} ({chance(line['p_best_equal_size'])})",
        f"{line['rows']:,}",
    ]


def _pairs(comparison: Comparison) -> list[list[str]]:
    """Who is better than whom in the score, best first."""
    lines = [line for line in comparison.differences if line["term"] == "score"]
    return [
        [
            line["first"],
            line["second"],
            quantity(line["mean"], line["hdi_low"], line["hdi_high"]),
            chance(line["p_larger"]),
            chance(line["p_equivalent"]),
            chance(line["p_trained_better"]),
        ]
        for line in lines[:_PAIRS]
    ]


def _diagnostics(comparison: Comparison) -> dict[str, Any]:
    names: dict[str, None] = {}
    for line in comparison.diagnostics:
        names |= dict.fromkeys(key for key in line if key != "name")
    return {
        "header": ["version", *(name.replace("_", " ") for name in names)],
        "rows": [
            [line["name"], *(quantity(line.get(name)) for name in names)]
            for line in comparison.diagnostics
        ],
        "numbers": range(1, len(names) + 1),
    }


def _deciding(comparison: Comparison) -> list[dict[str, Any]]:
    """The rows that add most to the score of a version, and those that take most from it."""
    found: list[dict[str, Any]] = []
    for line in comparison.ranking:
        own = comparison.influence[comparison.influence["version"] == line["name"]]
        if own.empty or len(found) == _VERSIONS:
            continue
        ordered = own.sort_values("influence", ascending=False)
        found.append(
            {
                "name": line["name"],
                "helping": [_quote(row) for row in _rows(ordered.head(_ROWS))],
                "harming": [_quote(row) for row in _rows(ordered.tail(_ROWS).iloc[::-1])],
            }
        )
    return found


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [dict(zip(table.columns, values, strict=True)) for values in table.to_numpy()]


def _quote(row: Mapping[str, Any]) -> tuple[str, str]:
    text = row["text"] if isinstance(row["text"], str) else f"row {row['id']}"
    short = " ".join(text.split())
    short = short if len(short) <= _LONGEST else short[: _LONGEST - 1] + "…"
    label = f", label {row['label']}" if isinstance(row["label"], str) else ""
    return short, f"{row['id']}{label}: {row['influence']:+.2g} nats"
