"""A result as a notebook shows it: the answer, what matters, and the rest to unfold."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from rbpp import display

if TYPE_CHECKING:
    from rbpp.result import Result


def page(result: Result) -> str:
    """HTML of a result; every text is escaped."""
    return "\n".join([*map(_part, result.parts()), _folded(result)])


def _part(part: display.Part) -> str:
    if isinstance(part, str):
        return f"<pre>{html.escape(part)}</pre>"
    return part._repr_html_().replace(" (--all shows each)", "").replace(" (--all)", "")


def _folded(result: Result) -> str:
    """All terms and all checks, folded."""
    found = ""
    if result.idata is not None:
        frame = result.summary().to_html(float_format="{:.4g}".format, na_rep="–")
        found += f"<details><summary>All terms</summary>{frame}</details>"
    if result.checks:
        checks = display.format_audit(result.audit())._repr_html_()
        found += f"<details><summary>All checks</summary>{checks}</details>"
    return found
