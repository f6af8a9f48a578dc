"""Figure of a model's outputs, each by its surprise and by what its prompt says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes

from rbpp.plots.style import BLUE, GREEN, VERMILION

if TYPE_CHECKING:
    import pandas as pd


def plot_outputs(rows: pd.DataFrame, axis: Axes | None = None) -> Axes:
    """Surprise of every output against the information of its prompt, both sides of it, in nats.

    Args:
        rows: of `rbpp.channel.information.ChannelInformation`.
        axis: axes to draw on; made where absent.
    """
    axis = axis or pyplot.subplots(figsize=(5.6, 4.2), layout="constrained")[1]
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
    axis.legend(frameon=False, fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    return axis
