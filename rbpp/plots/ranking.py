"""The figures of a comparison: axes from its ranking and differences, nothing computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from rbpp.plots.style import BLUE, GREY, ORANGE, axes_of, interval, legend_above

# Names and numbers of more versions than this would lie over each other.
_MOST_NAMES = 16


def plot_ranking(ranking: Sequence[Mapping[str, Any]], axis: Axes | None = None) -> Axes:
    """The versions of a comparison by score, best above, each with its interval.

    Args:
        ranking: that of `rbpp.assessment.comparison.Comparison`, best first.
        axis: axes to draw on; made where absent.
    """
    axis = axes_of(axis, 7, 0.9 + 0.35 * len(ranking))
    for place, line in enumerate(ranking):
        score, equal = ("as it is", "at equal size") if place == 0 else (None, None)
        interval(axis, place, (line["hdi_low"], line["hdi_high"]), line["score"], BLUE, score)
        axis.plot(line["score_equal_size"], place, "d", color=ORANGE, markersize=4, label=equal)
        axis.text(
            1.02,
            place,
            f"P(best) {line['p_best']:.2f}",
            transform=axis.get_yaxis_transform(),
            va="center",
            fontsize=8,
        )
    axis.set_yticks(range(len(ranking)), [line["name"] for line in ranking])
    axis.set_ylim(len(ranking) - 0.5, -0.5)
    axis.set_xlabel("score, nats a row: larger is better")
    legend_above(axis, 2)
    return axis


def plot_score_by_rows(ranking: Sequence[Mapping[str, Any]], axis: Axes | None = None) -> Axes:
    """Score beside number of rows, and beside what as many real rows teach.

    Args:
        ranking: that of `rbpp.assessment.comparison.Comparison`.
        axis: axes to draw on; made where absent.
    """
    axis = axes_of(axis, 6, 4)
    seen: dict[int, int] = {}
    for place, line in enumerate(ranking):
        # Versions of one size stand side by side.
        same = seen[line["rows"]] = seen.get(line["rows"], -1) + 1
        where = line["rows"] * 1.03**same
        axis.vlines(where, line["hdi_low"], line["hdi_high"], color=BLUE, linewidth=1.5)
        axis.plot(where, line["score"], "o", color=BLUE, markersize=4)
        if place < _MOST_NAMES:
            axis.annotate(
                line["name"],
                (where, line["score"]),
                xytext=(4 if same % 2 else -4, 3 + 4 * same),
                ha="left" if same % 2 else "right",
                textcoords="offset points",
                fontsize=7,
            )
    real = sorted(
        {(line["real_rows"], line["score_of_real_rows"]) for line in ranking if line["real_rows"]}
    )
    if real:
        axis.plot(*zip(*real, strict=True), "x--", color=GREY, label="real rows")
        legend_above(axis)
    axis.margins(x=0.2)  # for the names
    ticks: list[int] = []
    for size in [*sorted(seen), *(size for size, _ in real)]:
        if all(max(size, one) > 1.3 * min(size, one) for one in ticks):  # numbers side by side
            ticks.append(size)
    axis.set(xscale="log", xlabel="rows, log scale", ylabel="score, nats a row")
    axis.set_xticks(ticks, [f"{size:,}" for size in ticks])
    axis.set_xticks([], minor=True)
    return axis


def plot_pairs(
    ranking: Sequence[Mapping[str, Any]],
    differences: Sequence[Mapping[str, Any]],
    axis: Axes | None = None,
) -> Axes:
    """With what probability the score of a row's version is larger than that of a column's.

    Args:
        ranking, differences: those of `rbpp.assessment.comparison.Comparison`.
        axis: axes to draw on; made where absent.
    """
    names = [line["name"] for line in ranking]
    side = 2.2 + 0.45 * min(len(names), _MOST_NAMES)
    axis = axes_of(axis, side + 1, side)
    table = np.full((len(names), len(names)), np.nan)
    for line in differences:
        if line["term"] == "score":
            one, two = names.index(line["first"]), names.index(line["second"])
            table[one, two], table[two, one] = line["p_larger"], 1 - line["p_larger"]
    axis.imshow(table, cmap="PuOr", vmin=0, vmax=1, aspect="auto")
    if len(names) <= _MOST_NAMES:
        for one, two in np.argwhere(~np.isnan(table)):
            axis.text(
                two,
                one,
                f"{table[one, two]:.2f}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if abs(table[one, two] - 0.5) > 0.35 else "#222222",
            )
        axis.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
        axis.set_yticks(range(len(names)), names, fontsize=8)
    else:
        axis.set(xlabel="version, by rank", ylabel="version, by rank")
    axis.set_title("P(row's score is larger than column's)", fontsize=9)
    return axis


def plot_series(
    ranking: Sequence[Mapping[str, Any]], names: Sequence[str], axis: Axes | None = None
) -> Axes:
    """Scores of versions in the order in which they were stored.

    Args:
        ranking: that of `rbpp.assessment.comparison.Comparison`.
        names: in order.
        axis: axes to draw on; made where absent.
    """
    axis = axes_of(axis, 7, 3.6)
    lines = {line["name"]: line for line in ranking}
    scores = [lines[name]["score"] for name in names]
    places = range(len(names))
    low, high = ([lines[name][key] for name in names] for key in ("hdi_low", "hdi_high"))
    axis.vlines(places, low, high, color=BLUE, linewidth=1.5)
    axis.plot(places, scores, "o-", color=BLUE, markersize=4, label="as it is")
    equal = [lines[name]["score_equal_size"] for name in names]
    axis.plot(places, equal, "d:", color=ORANGE, markersize=4, label="at equal size")
    if len(names) <= 2 * _MOST_NAMES:
        axis.set_xticks(places, names, rotation=40, ha="right", fontsize=8)
    axis.set(xlabel="version, oldest first", ylabel="score, nats a row")
    legend_above(axis, 2)
    return axis
