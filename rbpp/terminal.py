"""The terminal, by rich: loaded where one is written to, and nowhere else."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console


def console(stream: TextIO) -> Console:
    """A console on `stream`: its width, and colours unless `NO_COLOR` is set."""
    before = random.getstate()  # rich draws from it when it is first imported
    try:
        from rich.console import Console
    finally:
        random.setstate(before)
    return Console(file=stream, highlight=False)
