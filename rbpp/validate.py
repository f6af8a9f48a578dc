"""Refusals of arguments, in one wording: what was expected, and what came.

Every function takes the argument's name first. With an empty name the message is without it, for a
caller that says itself what it is about.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any, NoReturn


def count(name: str, value: Any, least: int = 1, most: float = math.inf) -> int:
    """A whole number of at least `least` and at most `most`.

    Raises:
        ValueError: naming the argument.

    >>> count("draws", 0)
    Traceback (most recent call last):
    ValueError: Expected draws to be a whole number of 1 or more; got 0
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not least <= int(value) <= most:
        limit = f"{least} or more" if most == math.inf else f"{least} to {most}"
        _refuse(f"{name} to be", f"a whole number of {limit}", value)
    return int(value)


def probability(name: str, value: Any) -> float:
    """A number inside (0, 1).

    Raises:
        ValueError: naming the argument.

    >>> probability("hdi_prob", 0.94)
    0.94
    """
    if not isinstance(value, Real) or not 0 < float(value) < 1:
        _refuse(name, "between 0 and 1" if name else "a number between 0 and 1", value)
    return float(value)


def number(
    name: str, value: Any, *, above: float | None = None, least: float | None = None
) -> float:
    """A finite number, above one limit or at least another.

    Raises:
        ValueError: naming the argument.

    >>> number("resolution", -1.0, above=0)
    Traceback (most recent call last):
    ValueError: Expected resolution to be a finite number above 0; got -1.0
    """
    real = isinstance(value, Real) and not isinstance(value, bool)
    found = float(value) if real else math.nan
    low = (above is not None and found <= above) or (least is not None and found < least)
    if not math.isfinite(found) or low:
        limit = "" if above is None else f" above {above:g}"
        limit = limit if least is None else f" of {least:g} or more"
        _refuse(f"{name} to be", f"a finite number{limit}", value)
    return found


def choice(name: str, value: Any, allowed: Collection[Any]) -> Any:
    """One of the allowed values.

    Raises:
        ValueError: naming the argument and the values.
    """
    if value not in allowed:
        _refuse(f"{name} to be", f"one of {', '.join(map(str, allowed))}", value)
    return value


def _refuse(name: str, wanted: str, value: Any) -> NoReturn:
    subject = "" if name in ("", " to be") else f"{name} "
    raise ValueError(f"Expected {subject}{wanted}; got {value!r}")
