"""What the figures share: colours, marks for an interval and for a component, and SVG for pages."""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

# Okabe and Ito's colours, told apart by colour-blind readers too.
BLACK, ORANGE, SKY_BLUE, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#999999"
# Drawn in a colour that stands nowhere else, then replaced by the page's ink.
_INK = "#010203"

ANCHOR_COLOUR, SYNTHETIC_COLOUR = BLUE, ORANGE
# The parts of a generating process.
PART_COLOURS = {"anchor-sampled": BLUE, "unsampled": GREEN, "irrelevant": VERMILION}


def axes_of(axis: Axes | None, width: float, height: float) -> Axes:
    """The axes to draw on: those that are given, or those of a new figure (inches)."""
    return axis or pyplot.subplots(figsize=(width, height), layout="constrained")[1]


def legend_above(
    axis: Axes, columns: int = 1, size: float | None = 8, markers: float | None = None
) -> None:
    """A legend above the axes, where it lies over no point, in columns.

    Args:
        axis: that it is of.
        columns: of the legend.
        size: of its letters, and None for matplotlib's own.
        markers: times as large as in the figure; matplotlib's own where absent.
    """
    axis.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        frameon=False,
        ncols=columns,
        fontsize=size,
        markerscale=markers,
    )


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
        axis.plot(centre, position, "o", markersize=4, color=colour, label=label)


def ellipse(mean: Any, covariance: Any, scale: float = 1, **style: Any) -> Ellipse:
    """The contour `scale` standard deviations out, in the first two dimensions."""
    mean, covariance = np.asarray(mean, dtype=float), np.asarray(covariance, dtype=float)
    values, vectors = np.linalg.eigh(covariance[:2, :2])
    width, height = 2 * scale * np.sqrt(values)
    angle = np.degrees(np.arctan2(vectors[1, 0], vectors[0, 0]))
    style.setdefault("facecolor", "none")
    return Ellipse((mean[0], mean[1]), width, height, angle=angle, **style)


def inline_svg(axis: Axes) -> Markup:
    """The axes' figure as inline SVG whose ink is that of the page; the figure is closed."""
    figure = axis.figure
    assert isinstance(figure, Figure)  # made here, and no part of another
    for text in figure.findobj(matplotlib.text.Text):
        if text.get_color() in ("black", "k"):
            text.set_color(_INK)
    for own in figure.axes:
        own.tick_params(colors=_INK)
        for spine in own.spines.values():
            spine.set_edgecolor(_INK)
    buffer = io.StringIO()
    # A fixed salt and no date: the same result gives the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": "rbpp", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    pyplot.close(figure)
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(_INK, "currentColor")
    # Sizes in points would keep the drawing from shrinking to a phone.
    drawing = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", drawing, count=1)
    drawing = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", drawing, count=1)
    return Markup(drawing)
