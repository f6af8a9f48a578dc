"""The figures of an assessment: axes from its tables, nothing computed."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from rbpp.plots.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PART_COLOURS,
    PURPLE,
    axes_of,
    ellipse,
)

SOURCE_COLOURS = {
    "anchor": BLUE,
    "target": GREEN,
    "synthetic": ORANGE,
    "output": PURPLE,
    "unprompted": GREY,
}
# The parts of the shared mixture, in the colours of the generator's parts in the other figures.
COMPONENT_COLOURS = {
    "shared": PART_COLOURS["anchor-sampled"],
    "unsampled": PART_COLOURS["unsampled"],
    "irrelevant": PART_COLOURS["irrelevant"],
    "uncovered": PURPLE,
}


def plot_map(
    rows: pd.DataFrame,
    components: pd.DataFrame,
    axes: tuple[str, str],
    axis: Axes | None = None,
) -> Axes:
    """The sources in two coordinates, and the components in the colour of their part.

    Args:
        rows, components, axes: those of `rbpp.assessment.assessment.Assessment`.
        axis: axes to draw on; made where absent.
    """
    axis = axes_of(axis, 8.4, 4.6)
    for source in [name for name in SOURCE_COLOURS if name in set(rows["source"])]:
        own = rows[rows["source"] == source]
        # Thousands of marks as shapes would make the page heavy: they travel as one picture.
        axis.scatter(
            own["x"],
            own["y"],
            s=7,
            alpha=0.45,
            linewidth=0,
            color=SOURCE_COLOURS[source],
            label=f"{source} ({len(own)})",
            rasterized=True,
        )
    for number, line in components.iterrows():
        if line["part"] not in COMPONENT_COLOURS:
            continue
        colour = COMPONENT_COLOURS[line["part"]]
        covariance = [[line["xx"], line["xy"]], [line["xy"], line["yy"]]]
        axis.add_patch(
            ellipse(line[["x", "y"]], covariance, 1.5, edgecolor=colour, linewidth=1.2, alpha=0.9)
        )
        axis.annotate(
            str(number), (line["x"], line["y"]), color=colour, ha="center", va="center", fontsize=8
        )
    for part, colour in COMPONENT_COLOURS.items():
        if (components["part"] == part).any():
            axis.plot([], [], color=colour, label=f"{part} component")
    axis.set(xlabel=axes[0], ylabel=axes[1])
    # Beside the points, not over them.
    axis.legend(
        frameon=False, fontsize=8, markerscale=2, loc="upper left", bbox_to_anchor=(1.01, 1.0)
    )
    return axis
