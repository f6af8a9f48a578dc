"""Figures of terms and bounds: functions of an InferenceData that compute nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes

from rbpp.inference_data import InferenceData, terms_of
from rbpp.plots.style import BLACK, BLUE, GREEN, SKY_BLUE, VERMILION
from rbpp.renamed import renamed
from rbpp.theory.world_intervals import interval_over_worlds
from rbpp.variables import VARIABLES, Panel

_PANELS: dict[str, Panel] = {
    "information [nats]": "information",
    "entropy [nats]": "entropy",
    "rates": "rates",
}


@renamed(hdi_prob="probability")
def plot_terms(data: InferenceData, hdi_prob: float = 0.94) -> np.ndarray:
    """Forest plot of all terms but bounds, in panels of informations, entropies and rates.

    Point: mean over worlds. Thick line: interval over worlds. Thin line: from the lower to the
    upper side of the estimate, where it has both. A label says where the lower side is saturated,
    in how many worlds a term is infinite, and which side a term is that is known from one alone.
    """
    terms = terms_of(data)
    saturated = json.loads(data.attrs.get("saturated", "[]"))
    one_sided = _one_sided(data)
    there = [name for name in map(str, terms.data_vars) if np.isfinite(terms[name].values).any()]
    panels = {
        heading: [name for name in there if name in VARIABLES and VARIABLES[name].panel == panel]
        for heading, panel in _PANELS.items()
    }
    heights = [max(1, len(names)) for names in panels.values()]
    _, axes = pyplot.subplots(
        len(panels),
        1,
        figsize=(9, 1.5 + 0.24 * sum(heights)),
        height_ratios=heights,
        layout="constrained",
    )
    for axis, (heading, names) in zip(axes, panels.items(), strict=True):
        for position, name in enumerate(reversed(names)):
            for side in ("_lower", "_upper"):
                if f"{name}{side}" in terms:
                    ends = [terms[name].values.mean(), terms[f"{name}{side}"].values.mean()]
                    axis.plot(ends, [position] * 2, color=SKY_BLUE, linewidth=1.2)
            _interval(axis, terms[name], position, BLUE, hdi_prob)
        labels = [
            _label(name, terms[name].values, name in saturated) + one_sided.get(name, "")
            for name in reversed(names)
        ]
        axis.set_yticks(range(len(names)), labels, fontsize=8)
        axis.set_title(heading, fontsize=9, loc="left")
        axis.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    # λ and the vacuous rates span decades; what lies within [0, 1] should not vanish beside them.
    for axis, names in zip(axes, panels.values(), strict=True):
        axis.set_ylim(-0.6, max(1, len(names)) - 0.4)
        if axis is not axes[0]:
            axis.set_xscale("symlog", linthresh=1)
            axis.set_xlabel("symmetric log scale, linear within ±1", fontsize=8)
            axis.margins(x=0.05)  # of the axis as it is shown, and not as it was
    return np.asarray(axes)


@renamed(hdi_prob="probability")
def plot_bounds(
    data: InferenceData, audit: Sequence[Mapping[str, Any]] | None = None, hdi_prob: float = 0.94
) -> np.ndarray:
    """Every bound with what it bounds, a panel each, with the verdict of the audit in its title.

    Args:
        data: InferenceData of `rbpp.bounds`.
        audit: its audit; by default what a written file has of it.
        hdi_prob: of the intervals over worlds.

    Raises:
        ValueError: if no statement of the audit could be judged.
    """
    terms, one_sided = terms_of(data), _one_sided(data)
    entries = json.loads(data.attrs.get("audit", "[]")) if audit is None else audit
    there = [
        entry
        for entry in entries
        if entry["verdict"] != "unknown" and {entry.get("bounds"), entry.get("by")} <= set(terms)
    ]
    if not there:
        raise ValueError("Expected an audit with bounds that could be judged; got none")
    columns = min(2, len(there))
    lines = -(-len(there) // columns)
    _, axes = pyplot.subplots(
        lines,
        columns,
        figsize=(5.2 * columns, 1.25 * lines + 0.3),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat[len(there) :]:
        axis.set_visible(False)
    for axis, entry in zip(axes.flat, there, strict=False):
        left, right, verdict = entry["bounds"], entry["by"], entry["verdict"]
        colour = {"holds": GREEN, "violated": VERMILION}.get(verdict, SKY_BLUE)
        _interval(axis, terms[left], 0, BLACK, hdi_prob)
        _interval(axis, terms[right], 1, colour, hdi_prob)
        title = f"{entry['statement']}: {verdict}"
        if verdict != "holds" and not math.isnan(entry["probability_holds"]):
            title += f", P(holds) = {entry['probability_holds']:.2f}"
        ink = colour if verdict in ("holds", "violated") else "black"
        axis.set_title(title, fontsize=8, color=ink, loc="left")
        labels = [name + one_sided.get(name, "") for name in (left, right)]
        axis.set_yticks([0, 1], labels, fontsize=7)
        axis.set_ylim(-0.6, 1.6)
        axis.tick_params(axis="x", labelsize=7)
        axis.set_xlabel(str(terms[right].attrs.get("units", "")).replace("1", ""), fontsize=7)
    return axes


def _one_sided(data: InferenceData) -> dict[str, str]:
    """What a label says of a term that is known from one side alone, by name."""
    said = {"lower": " (at least)", "upper": " (at most)"}
    known = json.loads(data.attrs.get("one_sided", "{}"))
    return {name: said[side] for name, side in known.items()}


def _label(name: str, draws: np.ndarray, saturated: bool) -> str:
    infinite = int(np.isinf(draws).sum())
    if infinite:
        return f"{name} (∞ in {infinite} of {draws.size} worlds)"
    return f"{name} (lower side saturated)" if saturated else name


def _interval(axis: Axes, term: Any, position: int, colour: str, hdi_prob: float) -> None:
    values = term.values[np.isfinite(term.values)].ravel()
    if values.size == 0:
        return
    if values.size > 1:
        # A file may have a bound that was described where it was written, and is not here.
        known = VARIABLES.get(str(term.name))
        limits = () if known is None else (known.least, known.most)
        low, high = interval_over_worlds(values, hdi_prob, *limits)
        axis.plot([low, high], [position] * 2, color=colour, linewidth=3, alpha=0.5)
    axis.plot(values.mean(), position, "o", color=colour, markersize=4)
