"""What the figures share: colours, and the marks for an interval and for a component."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse

# Okabe and Ito's colours, told apart by colour-blind readers too.
BLACK, ORANGE, SKY_BLUE, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#999999"

ANCHOR_COLOUR, SYNTHETIC_COLOUR = BLUE, ORANGE
# The parts of a generating process.
PART_COLOURS = {"anchor-sampled": BLUE, "unsampled": GREEN, "irrelevant": VERMILION}


def interval(
    axis: Axes,
    position: float,
    ends: tuple[float | None, float | None],
    centre: float | None,
    colour: str,
    label: str | None = None,
) -> None:
    """A point and the line of its interval, at a height.

    Args:
        axis: axes to draw on.
        position: height of the line.
        ends: lower and upper end of the interval; without one of them no line is drawn.
        centre: the point; without it no point is drawn.
        colour: of both.
        label: for the legend.
    """
    low, high = ends
    if low is not None and high is not None:
        axis.hlines(position, low, high, color=colour, linewidth=2)
    if centre is not None:
        axis.plot(centre, position, "o", color=colour, markersize=4, label=label)


def ellipse(mean: Any, covariance: Any, scale: float = 1, **style: Any) -> Ellipse:
    """The contour `scale` standard deviations out, in the first two dimensions."""
    mean, covariance = np.asarray(mean, dtype=float), np.asarray(covariance, dtype=float)
    values, vectors = np.linalg.eigh(covariance[:2, :2])
    width, height = 2 * scale * np.sqrt(values)
    angle = np.degrees(np.arctan2(vectors[1, 0], vectors[0, 0]))
    style.setdefault("facecolor", "none")
    return Ellipse((mean[0], mean[1]), width, height, angle=angle, **style)
