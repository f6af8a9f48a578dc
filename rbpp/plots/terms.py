"""Figures of the terms of any result, of a language model's outputs, and of fine-tunes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes

from rbpp.inference_data import (
    InferenceData,
    group_datasets,
    highest_density_interval,
    term_table,
    terms_of,
)
from rbpp.plots.style import (
    ANCHOR_COLOUR,
    BLUE,
    GREEN,
    SYNTHETIC_COLOUR,
    VERMILION,
    axes_of,
    interval,
    legend_above,
)
from rbpp.wording import is_share

if TYPE_CHECKING:
    import pandas as pd

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
    axis = axes_of(axis, 6.4, 0.8 + 0.28 * len(shown))
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


def plot_outputs(rows: pd.DataFrame, axis: Axes | None = None) -> Axes:
    """Surprise of every output against the information of its prompt, both sides of it, in nats.

    Args:
        rows: of `rbpp.channel.information.ChannelInformation`.
        axis: axes to draw on; made where absent.
    """
    axis = axes_of(axis, 5.6, 4.2)
    axis.set_xlabel("surprise under its prompt (nats)")
    if "prompt_information_upper" not in rows:
        axis.hist(rows["surprise"], bins=min(40, 1 + len(rows) // 4), color=BLUE)
        axis.set_ylabel("outputs")
        return axis
    upper = rows["prompt_information_upper"].to_numpy()
    lower = rows["prompt_information_lower"].to_numpy()
    shown = np.where(np.isfinite(upper), upper, lower)
    surprise = rows["surprise"].to_numpy()
    ignored, determined = (
        rows[name].to_numpy() for name in ("ignores_prompt", "determined_by_prompt")
    )
    for chosen, colour, label in (
        (~ignored & ~determined, BLUE, "neither"),
        (ignored, VERMILION, "ignore their prompt"),
        (determined, GREEN, "all but determined by it"),
    ):
        if chosen.any():
            ends = lower[chosen], shown[chosen]
            axis.vlines(surprise[chosen], *ends, color=colour, linewidth=0.6, alpha=0.5)
            axis.plot(surprise[chosen], shown[chosen], ".", color=colour, label=label)
    axis.set_ylabel("what its prompt says of it, at least and at most (nats)")
    axis.axhline(0, color="0.4", linewidth=0.8, linestyle=":")
    legend_above(axis, 3)
    return axis


def plot_fine_tune_bounds(
    data: InferenceData, hdi_prob: float = 0.94, axis: Axes | None = None
) -> Axes:
    """Posterior of every bound with its plug-in estimate and null, and the gap as a band.

    Args:
        data: InferenceData of `rbpp.fine_tuning.fine_tunes.fine_tune_bounds`.
        hdi_prob: probability of the intervals.
        axis: axes to draw on; made where absent.
    """
    groups = group_datasets(data)
    posterior, constant = groups["posterior"], groups["constant_data"]
    names = [str(name) for name in constant["bound"].values]
    axis = axes_of(axis, 7.6, 1.2 + 0.36 * len(names))
    low, high = highest_density_interval(
        posterior["generalization_gap"].values.reshape(-1), hdi_prob
    )
    axis.axvspan(low, high, color="0.85", label=f"gap, {hdi_prob:.0%}")
    left = min(0.0, low)
    axis.axvline(float(constant["measured_gap"]), color="0.4", linewidth=1, label="measured gap")
    for position, name in enumerate(reversed(names)):
        index = names.index(name)
        draws, first = posterior[name].values.reshape(-1), position == 0
        low, high = highest_density_interval(draws, hdi_prob)
        axis.hlines(position, low, high, color=ANCHOR_COLOUR, linewidth=2)
        axis.plot(
            draws.mean(),
            position,
            "o",
            color=ANCHOR_COLOUR,
            markersize=5,
            label=f"posterior, {hdi_prob:.0%}" if first else None,
        )
        for key, marker, label in (
            ("plug_in", "x", "plug-in"),
            ("null_plug_in", "|", "plug-in, masks permuted"),
        ):
            axis.plot(
                float(constant[key].values[index]),
                position,
                marker,
                color=SYNTHETIC_COLOUR,
                label=label if first else None,
            )
    labels = [name.removeprefix("bound_cmi_").replace("_", " ") for name in reversed(names)]
    axis.set_yticks(range(len(names)), labels, fontsize=8)
    axis.set_xlabel("loss")
    axis.set_xlim(left=left)
    legend_above(axis, 3)
    return axis
