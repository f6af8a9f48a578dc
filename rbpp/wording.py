"""Numbers as a reader takes them in: `33 % (22 to 44)`, in digits that mean something."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rbpp.variables import VARIABLES

_SIDES = ("_lower", "_upper")


def is_share(name: str) -> bool:
    """Whether a variable is a part of a whole, which is told in percent.

    >>> is_share("irrelevant_share_at_most"), is_share("total_divergence"), is_share("kl_gap")
    (True, True, False)
    """
    described = VARIABLES.get(base_name(name))
    return described is not None and described.is_share


def base_name(name: str) -> str:
    """The variable of an entry of a table: `a/kl_gap[2, 0]` is of `kl_gap`."""
    return name.rpartition("/")[2].partition("[")[0]


def is_main(name: str) -> bool:
    """Whether a table shows an entry where nobody asks for all; of what users name, it does."""
    described = VARIABLES.get(base_name(name))
    return described is None or described.main


def group(name: str) -> str:
    """The group of an entry in tables, one of `rbpp.variables.GROUPS`.

    >>> group("irrelevant_share"), group("kl_gap"), group("ggmi"), group("bound_anchor")
    ('shares', 'divergence', 'information', 'risk')
    """
    described = VARIABLES.get(base_name(name))
    return "size and style" if described is None else described.group


def is_side(name: str, table: Mapping[str, Any]) -> bool:
    """Whether an entry is a side of an estimate that the table has too."""
    base = base_name(name)
    return base.endswith(_SIDES) and name.replace(base, base[:-6]) in table


def quantity(
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    *,
    share: bool = False,
) -> str:
    """A number and its interval in brackets, in digits that mean something.

    Args:
        value: the number; None and nan are a dash.
        low, high: ends of its interval, each None where there is none.
        share: told in percent.

    >>> quantity(0.3253, 0.216, 0.4365, share=True), quantity(0.0032, 0.0, 0.0089, share=True)
    ('33 % (22 to 44)', '0.3 % (0.0 to 0.9)')
    >>> quantity(20.91, 4.23, 21.34), quantity(-1914.96, -1988.4, -1834.8), quantity(0.82, 0.271)
    ('20.9 (4.2 to 21.3)', '-1915 (-1988 to -1835)', '0.820 (0.271 or more)')
    >>> quantity(-10.0, -10.0000000001, -10.0)  # an interval without a width
    '-10.0'
    """
    known = [_finite(one) for one in (value, low, high)]
    scale, unit = (100.0, " %") if share else (1.0, "")
    number, first, last = (None if one is None else scale * one for one in known)
    if number is None:
        return "–"
    ends = [one for one in (first, last) if one is not None]
    if all(math.isclose(one, number, rel_tol=1e-9) for one in ends):
        ends = []
    digits = _digits([number, *ends], share=share)
    texts = [f"{_round(one, digits):,.{digits}f}" for one in ends]
    if len(texts) == 2:
        bracket = f" ({texts[0]} to {texts[1]})"
    elif texts:
        bracket = f" ({texts[0]} or {'more' if first is not None else 'less'})"
    else:
        bracket = ""
    shown = f"{_round(number, digits):,.{digits}f}{unit}{bracket}"
    return shown if abs(number) >= 10_000 else shown.replace(",", "")


def term_quantity(name: str, table: Mapping[str, Mapping[str, Any]]) -> str:
    """A term of `rbpp.inference_data.term_table` with its interval.

    Where an estimate has two sides, the interval reaches from the low end of the lower side to the
    high end of the upper one, and stands alone where there is no value.

    >>> side = {"hdi_low": None, "hdi_high": None}
    >>> term_quantity("ggmi", {"ggmi": side | {"mean": None}, "ggmi_lower": side | {"mean": 4.0},
    ...                        "ggmi_upper": side | {"mean": 9.5}})
    '4.00 to 9.50'
    """
    base, term = base_name(name), table[name]
    low, high = term["hdi_low"], term["hdi_high"]
    lower, upper = (table.get(name.replace(base, f"{base}{side}")) for side in _SIDES)
    if lower is not None and upper is not None:
        low = lower["mean"] if lower["hdi_low"] is None else lower["hdi_low"]
        high = upper["mean"] if upper["hdi_high"] is None else upper["hdi_high"]
    if _finite(term["mean"]) is None and _finite(low) is not None:
        both = quantity(low, low, high, share=is_share(base))
        return both.partition("(")[2].rstrip(")") or f"{both} or more"
    return quantity(term["mean"], low, high, share=is_share(base))


def chance(probability: float | None) -> str:
    """A probability, which is never told as certain.

    >>> chance(0.5), chance(1.0), chance(0.001), chance(None)
    ('0.50', 'over 0.99', 'under 0.01', '–')
    """
    known = _finite(probability)
    if known is None:
        return "–"
    if known > 0.99:
        return "over 0.99"
    return "under 0.01" if known < 0.01 else f"{known:.2f}"


def count(number: int, noun: str) -> str:
    """A number of things.

    >>> count(1, "row"), count(2000, "row")
    ('1 row', '2,000 rows')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: list[str], most: int = 4) -> str:
    """Names in a sentence, the first of many.

    >>> listed(["a", "b"]), listed(list("abcdef"))
    ('a and b', 'a, b, c, d and 2 others')
    """
    rest = len(names) - most
    if rest > 1:
        names = [*names[:most], f"{rest} others"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def shortened(text: str, most: int) -> str:
    """A text on one line, cut where it is longer than so many characters.

    >>> shortened("one\\ntwo three", 8)
    'one two…'
    """
    one = " ".join(text.split())
    return one if len(one) <= most else one[: most - 1] + "…"


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _round(value: float, digits: int) -> float:
    return round(value, digits) + 0.0  # no "-0"


def _digits(numbers: list[float], *, share: bool) -> int:
    """Decimal places: two digits of the width always, three of it and of the numbers at most."""
    width = max(numbers) - min(numbers)
    if share:
        wide = width if len(numbers) > 1 else max(map(abs, numbers))
        return 0 if wide >= 10 or wide == 0 else 1
    largest = max(map(abs, numbers))
    size = _exponent(largest)
    if width == 0 or len(numbers) == 1:
        return min(max(0, 2 - size), 6)
    least, most = 1 - _exponent(width), 2 - _exponent(width)
    return min(max(0, least, min(most, 2 - size)), 6)


def _exponent(value: float) -> int:
    return math.floor(math.log10(value)) if value > 0 else 0
