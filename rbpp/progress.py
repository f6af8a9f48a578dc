"""A progress bar for people, silence for pipes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import TYPE_CHECKING, TypeVar

from rbpp import terminal

if TYPE_CHECKING:
    from rich.progress import Progress

Item = TypeVar("Item")

# The bars that are shown now: a bar that begins inside another stands below it.
_open: list[Progress] = []


def progress(
    iterable: Iterable[Item], total: int | None = None, label: str = "", quiet: bool = False
) -> Iterator[Item]:
    """Iterate with a bar on standard error where that is a terminal; print nothing elsewhere.

    Args:
        iterable: what to iterate over.
        total: its length, where it has none of its own.
        label: stands before the bar.
        quiet: no bar.

    >>> list(progress(range(3), label="worlds"))
    [0, 1, 2]
    """
    if quiet or not sys.stderr.isatty():
        return iter(iterable)
    return _shown(iterable, total, label)


def _shown(iterable: Iterable[Item], total: int | None, label: str) -> Iterator[Item]:
    outermost = not _open
    if outermost:
        _open.append(_bars())
        _open[0].start()
    bars = _open[0]
    length = len(iterable) if total is None and isinstance(iterable, Sized) else total
    task = bars.add_task(label, total=length)
    try:
        for item in iterable:
            yield item
            bars.advance(task)
    finally:
        bars.remove_task(task)
        if outermost:
            _open.clear()
            bars.stop()


def _bars() -> Progress:
    console = terminal.console(sys.stderr)
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = TextColumn("{task.description}", markup=False), BarColumn()
    # Standard output belongs to the result; a warning on standard error is written above the bar.
    return Bars(
        *columns,
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,
    )
