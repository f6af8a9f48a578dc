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
    """Surprise of every output against the information of its prompt, in nats.

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
    information = np.where(np.isfinite(upper), (lower + upper) / 2, lower)
    ignored, determined = rows["ignores_prompt"], rows["determined_by_prompt"]
    for chosen, colour, label in (
        (~ignored & ~determined, BLUE, "others"),
        (ignored, VERMILION, "ignore their prompt"),
        (determined, GREEN, "determined by it"),
    ):
        if chosen.any():
            axis.plot(rows["surprise"][chosen], information[chosen], ".", color=colour, label=label)
    axis.set_ylabel("what its prompt says of it (nats)")
    axis.axhline(0, color="0.4", linewidth=0.8, linestyle=":")
    axis.legend(frameon=False, fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    return axis
