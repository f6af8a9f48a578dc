"""A progress bar for people, silence for pipes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress(
    iterable: Iterable[Item], total: int | None = None, label: str = "", quiet: bool = False
) -> Iterator[Item]:
    """Iterate with a bar on standard error where that is a terminal; print nothing elsewhere."""
    silent = quiet or not sys.stderr.isatty()
    return iter(tqdm(iterable, total=total, desc=label, disable=silent, leave=False))
