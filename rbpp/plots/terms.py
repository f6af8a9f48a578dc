"""Figures of the terms of any result."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import pyplot
from matplotlib.axes import Axes

from rbpp.inference_data import InferenceData, term_table, terms_of
from rbpp.plots.style import ANCHOR_COLOUR, VERMILION, interval
from rbpp.wording import is_share

_LABEL_WIDTH = 34  # characters of a term's name on one line


def plot_forest(
    data: InferenceData,
    names: Sequence[str],
    hdi_prob: float = 0.94,
    axis: Axes | None = None,
    *,
    references: Mapping[str, float] | None = None,
) -> Axes:
    """Mean and highest-density interval of the named scalar terms, one a line.

    Args:
        data: InferenceData with the terms, in the group `posterior` or else `prior`.
        names: variables to show, top to bottom; those without a finite draw are left out.
        hdi_prob: probability of the interval.
        axis: axes to draw on; made where absent.
        references: of a name, the same number for two halves of the task, drawn as a diamond.

    Raises:
        ValueError: if `hdi_prob` is not inside (0, 1).
    """
    table = term_table(data, hdi_prob)
    shown = [name for name in names if name in table and table[name]["mean"] is not None]
    axis = axis or pyplot.subplots(figsize=(6.4, 0.8 + 0.28 * len(shown)), layout="constrained")[1]
    for position, name in enumerate(reversed(shown)):
        term = table[name]
        ends = term["hdi_low"], term["hdi_high"]
        interval(axis, position, ends, term["mean"], ANCHOR_COLOUR)
        if name in (references or {}):
            axis.plot((references or {})[name], position, "d", color=VERMILION, markersize=5)
    attrs: dict[str, dict[str, Any]] = {name: terms_of(data)[name].attrs for name in shown}
    described = [attrs[name].get("long_name", name) for name in reversed(shown)]
    labels = [textwrap.fill(str(label), _LABEL_WIDTH) for label in described]
    axis.set_yticks(range(len(shown)), labels, fontsize=8)
    axis.axvline(0, color="0.4", linewidth=0.8, linestyle=":")
    units = {attrs[name].get("units", "") for name in shown}
    if len(units) == 1:
        said = units.pop()
        axis.set_xlabel("share, 0 to 1" if said == "1" and _shares(shown) else said, fontsize=8)
    elif units:
        axis.set_xlabel(f"{' and '.join(sorted(units - {'1'}))}; shares without units", fontsize=8)
    return axis


def _shares(names: Sequence[str]) -> bool:
    return all(map(is_share, names))
