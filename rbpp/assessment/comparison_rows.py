"""The rows of a comparison as data, which terminal, HTML and Markdown render."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rbpp.wording import chance, count, is_share, quantity, shortened

# A difference is told with this probability, and a tie is called one.
SURE = 0.95
# Versions whose deciding rows are shown, rows of each on either side, characters of each.
_VERSIONS, _ROWS, _LONGEST = 8, 3, 200
# Pairs of versions in words; the figure has all of them.
_PAIRS = 15
# More lines than this of differences are in the JSON object alone.
_MOST_DIFFERENCES = 12
_FULL = ("score", "score_equal_size")
SCORED = {
    "labels": "the label of real rows given their text",
    "outputs": "the output of real rows given their prompt",
    "texts": "the text of real rows",
}


Line = Mapping[str, Any]


def ranking_table(ranking: Sequence[Line]) -> list[list[str]]:
    """Versions, best first, with precision and coverage where they are known; a heading first."""
    header = ["version", "score", "P(best)", "P(trained best)", "equal size: score", "P(best)"]
    shares = ("precision", "coverage") if any(_known(line["precision"]) for line in ranking) else ()
    lines = [[*header, *shares]]
    for line in ranking:
        lines.append(
            [
                f"{line['name']} ({count(line['rows'], 'row')})",
                _interval(line, "score"),
                chance(line["p_best"]),
                chance(line["p_trained_best"]),
                quantity(line["score_equal_size"]),
                chance(line["p_best_equal_size"]),
                *(quantity(line[key], share=True) for key in shares),
            ]
        )
    return lines


def difference_table(ranking: Sequence[Line], differences: Sequence[Line]) -> list[list[str]]:
    """Differences from the best version, those of scores first; a heading before them."""
    best = ranking[0]["name"]
    shown = [one for one in differences if best in (one["first"], one["second"])]
    shown = sorted(shown, key=lambda one: one["term"] not in _FULL)[:_MOST_DIFFERENCES]
    return [
        ["term", "first − second", "difference", "P(better)", "P(equal)"],
        *(
            [
                one["term"],
                f"{one['first']} − {one['second']}",
                _interval(one, "mean", share=is_share(one["term"])),
                chance(one["p_better"]),
                chance(one["p_equivalent"]),
            ]
            for one in shown
        ),
    ]


def ranking_rows(ranking: Sequence[Line]) -> list[list[str]]:
    """Rank, version, score [of real rows], probabilities, equal size and rows, best first."""
    found = []
    for place, line in enumerate(ranking, 1):
        score, real = _interval(line, "score"), line["score_of_real_rows"]
        found.append(
            [
                str(place),
                line["name"],
                f"{score} [{quantity(real)}]" if _known(real) else score,
                chance(line["p_best"]),
                chance(line["p_trained_best"]),
                f"{quantity(line['score_equal_size'])} ({chance(line['p_best_equal_size'])})",
                f"{line['rows']:,}",
            ]
        )
    return found


def pair_rows(differences: Sequence[Line]) -> list[list[str]]:
    """Who is better than whom in the score, best first."""
    lines = [line for line in differences if line["term"] == "score"]
    keys = ("p_larger", "p_equivalent", "p_trained_better")
    return [
        [line["first"], line["second"], _interval(line, "mean"), *(chance(line[k]) for k in keys)]
        for line in lines[:_PAIRS]
    ]


def diagnostic_rows(diagnostics: Sequence[Line]) -> dict[str, Any]:
    """What stands beside the score, a row a version."""
    names: dict[str, None] = {}
    for line in diagnostics:
        names |= dict.fromkeys(key for key in line if key != "name")
    return {
        "header": ["version", *(name.replace("_", " ") for name in names)],
        "rows": [[line["name"], *(quantity(line.get(n)) for n in names)] for line in diagnostics],
        "numbers": range(1, len(names) + 1),
    }


def deciding_rows(ranking: Sequence[Line], influence: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows that add most to the score of a version, and those that take most from it."""
    found: list[dict[str, Any]] = []
    for line in ranking:
        own = influence[influence["version"] == line["name"]]
        if own.empty or len(found) == _VERSIONS:
            continue
        ordered = own.sort_values("influence", ascending=False)
        helping, harming = ordered.head(_ROWS), ordered.tail(_ROWS).iloc[::-1]
        found.append(
            {"name": line["name"], "helping": _quotes(helping), "harming": _quotes(harming)}
        )
    return found


def _quotes(rows: pd.DataFrame) -> list[tuple[str, str]]:
    found = []
    for row in rows.itertuples():
        text = row.text if isinstance(row.text, str) else f"row {row.id}"
        label = f", label {row.label}" if isinstance(row.label, str) else ""
        found.append((shortened(text, _LONGEST), f"{row.id}{label}: {row.influence:+.2g} nats"))
    return found


def _interval(line: Line, key: str, *, share: bool = False) -> str:
    return quantity(line[key], line["hdi_low"], line["hdi_high"], share=share)


def _known(value: float | None) -> bool:
    return value is not None and bool(np.isfinite(value))
