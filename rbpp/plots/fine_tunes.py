"""The figure of `rbpp cmi`: every bound beside the gap that it bounds."""

from __future__ import annotations

from typing import Any

from matplotlib import pyplot
from matplotlib.axes import Axes

from rbpp.inference_data import group_datasets, highest_density_interval
from rbpp.plots.style import ANCHOR_COLOUR, SYNTHETIC_COLOUR


def plot_fine_tune_bounds(data: Any, hdi_prob: float = 0.94, axis: Axes | None = None) -> Axes:
    """Posterior of every bound with its plug-in estimate and null, and the gap as a band.

    Args:
        data: InferenceData of `rbpp.fine_tuning.fine_tunes.fine_tune_bounds`.
        hdi_prob: probability of the intervals.
        axis: axes to draw on; made where absent.
    """
    groups = group_datasets(data)
    posterior, constant = groups["posterior"], groups["constant_data"]
    names = [str(name) for name in constant["bound"].values]
    axis = axis or pyplot.subplots(figsize=(7.6, 1.2 + 0.36 * len(names)), layout="constrained")[1]
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
    axis.legend(frameon=False, fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    return axis
