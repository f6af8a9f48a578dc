"""The terminal: what may be written to it, and rich, loaded where one is written to."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console


# Control characters but line breaks and tabs; marks of direction; separators of lines.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str) -> str:
    r"""Text in which nothing moves a terminal's cursor, colours it or turns the order of letters.

    >>> print(visible("a" + chr(27) + "[31mb" + chr(0x202E) + "c"))
    a\x1b[31mb\u202ec
    """
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def console(stream: TextIO) -> Console:
    """A console on `stream`: its width, and colours unless `NO_COLOR` is set."""
    before = random.getstate()  # rich draws from it when it is first imported
    try:
        from rich.console import Console
    finally:
        random.setstate(before)
    return Console(file=stream, highlight=False)
