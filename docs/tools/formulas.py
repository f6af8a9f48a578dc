"""Formulas as MathML, which browsers draw by themselves: no script, no font, no network."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml


def setup(app: Any) -> None:
    """Make it the renderer of the site; what docutils cannot read stops the build."""

    def inline(translator: Any, node: Any) -> None:
        translator.body.append(tex2mathml(node.astext()))
        raise nodes.SkipNode

    def block(translator: Any, node: Any) -> None:
        translator.body.append(
            f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>'
        )
        raise nodes.SkipNode

    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.config.html_math_renderer = "mathml"
