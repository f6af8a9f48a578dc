"""A figure as part of an HTML page: SVG in the page's own ink, the same bytes every time."""

from __future__ import annotations

import io
import re

import matplotlib
from markupsafe import Markup
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Drawn in a colour that stands nowhere else, then replaced by the page's ink.
_INK = "#010203"


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
