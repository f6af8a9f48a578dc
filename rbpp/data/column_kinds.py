"""What a column is that holds no measurements: an index, ids, times, a label, categories."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rbpp.data.delimited import as_numbers
from rbpp.data.table import ANY, Reading

# Categories have few values, each of them often.
FEW_CATEGORIES, MOST_CATEGORIES, LONGEST_CATEGORY, LEAST_ROWS = 20, 100, 60, 8
_INDEX_NAMES = re.compile(
    r"unnamed(: [\d.]+|_\d+)?|level_0|index|row(_?(number|id|nr|no))?|idx|rownames", re.I
)
# Names of ids alone, whose numbers may come back; and those of numbers too, which then do not.
_SURE_ID_NAMES = re.compile(
    r"(?i:(.*[_\- .])?(id|ids|uid|uuid|guid|zip|zip_?code|post_?code|postal_?code|plz|phone|ssn|"
    r"fips|isbn|ean|sku|barcode))|.*[a-z](ID|Id)s?"
)
_ID_NAMES = re.compile(r"(.*[_\- .])?(key|nr|no|number|code)", re.I)
_TIME_NAMES = re.compile(
    r"(.*[_\- .])?(time|timestamp|datetime|date|created(_at)?|updated(_at)?|unix(_?time)?|epoch)",
    re.I,
)
_LABEL_NAMES = re.compile(
    r"(.*[_\- .])?(label|labels|class|classes|cls|target|category|cluster|split|fold)|y", re.I
)
_CODE = re.compile(r"[+-]?0\d+")
# Numbers with a sign of percent or money or with parted thousands, and dates.
_WRITTEN_NUMBER = re.compile(
    r"[$€£¥]?\s*[+-]?\d[\d,.'\u00a0\u202f ]*\s*[%‰$€£¥]?|\d{1,4}([-/.])\d{1,2}\1\d{1,4}(\D.*)?"
)
# Below these numbers of rows nothing can be said of a column by its values.
_FEW_ROWS, _SEVEN_NATS, _LEAST_COUNTED = 20, 7.0, 5
# A label has values from 0 or 1 on, or two or three of whatever size.
_MOST_CLASSES, _ANY_CLASSES = 20, 3
# An index that starts again with every shard counts on nearly everywhere; steps that are even but
# for the digits that a file keeps.
_COUNTED_ON, _EVEN = 0.9, 1e-3


def measured(names: Sequence[str]) -> list[str]:
    """Those of the columns of numbers whose names are not of an index, ids, a time or a label."""
    kinds = (_INDEX_NAMES, _SURE_ID_NAMES, _ID_NAMES, _TIME_NAMES, _LABEL_NAMES)
    return [name for name in names if not any(kind.fullmatch(name) for kind in kinds)]


def are_categories(values: Sequence[Any] | np.ndarray) -> bool:
    """Whether a column holds few short words or truth values, each of them often."""
    kept = [value for value in values if value is not None]
    words = [value for value in kept if isinstance(value, str)]
    if len(words) < len(kept) and not all(isinstance(value, bool | np.bool_) for value in kept):
        return False
    if isinstance(as_numbers(kept), np.ndarray) or any(
        len(word) > LONGEST_CATEGORY for word in words
    ):
        return False
    # A wrong word among numbers is a wrong word, and a number with a sign of percent is a number.
    if 2 * sum(map(_is_written_number, words)) >= len(kept) > len(kept) - len(words):
        return False
    distinct = len(set(map(str, kept)))
    few = len(values) / (2 if distinct <= FEW_CATEGORIES else 4)
    return len(values) >= LEAST_ROWS and 0 < distinct <= min(MOST_CATEGORIES, few)


def _is_written_number(word: str) -> bool:
    known = isinstance(as_numbers([word]), np.ndarray)
    return known or _WRITTEN_NUMBER.fullmatch(word.strip()) is not None


def other_than_measured(
    name: str, values: np.ndarray, cells: Iterable[Any], *, index: bool
) -> str | None:
    """In words what a column of numbers is by its name, its values or how they are written.

    Args:
        name: of the column.
        values: its numbers (n,).
        cells: as the file has them.
        index: whether the file says that the column is an index.

    Returns:
        None where it may hold measurements.
    """
    whole = np.isfinite(values).all() and bool((values == np.round(values)).all())
    distinct = len(np.unique(values))
    once = distinct == len(values)
    if index or (_INDEX_NAMES.fullmatch(name) and whole):
        return "a saved index"
    if whole and (_SURE_ID_NAMES.fullmatch(name) or (once and _ID_NAMES.fullmatch(name))):
        return "ids"
    if once and _TIME_NAMES.fullmatch(name) and (whole or bool((np.diff(values) > 0).all())):
        return "points in time"
    if any(isinstance(cell, str) and _CODE.fullmatch(cell.strip()) for cell in cells):
        return "digits behind a zero: codes, or decimals behind a comma,"
    if whole and distinct <= 50 and _LABEL_NAMES.fullmatch(name):
        return f"a label of {distinct} values"
    return counts(values)


def counts(values: np.ndarray) -> str | None:
    """In words what numbers are that follow from the places of their rows: an index, or ids."""
    if len(values) < _FEW_ROWS:
        return None
    steps = np.diff(values)
    if steps[0] != 0 and np.ptp(steps) <= _EVEN * abs(steps.mean()):
        return "an index" if abs(steps[0]) == 1 else "numbers at even steps: an index or times"
    if not bool((values == np.round(values)).all()):
        return None
    if max((steps == 1).mean(), (steps == -1).mean()) >= _COUNTED_ON:
        return "an index that starts again"
    found, often = np.unique(values, return_counts=True)
    place, size = np.arange(len(values)), int(often[0])
    if len(found) > 2 and (
        bool((values == values[0] + place % len(found)).all())
        or (size > 1 and bool((values == values[0] + place // size).all()))
    ):
        return "numbers that follow from the row's place: a time or a group"
    if size > 1 and bool((often == size).all()) and _are_dense(found):
        return f"ids: whole numbers, each {size} times,"
    if len(found) < len(values):
        return None
    if bool((steps > 0).all()) or bool((steps < 0).all()):
        return "numbers in order, each once: an index or points in time"
    return "ids: whole numbers, each once," if _are_dense(found) else None


def _are_dense(found: np.ndarray) -> bool:
    """Whether independent whole numbers from so short a range would have met."""
    return bool(len(found) ** 2 / (2 * (np.ptp(found) + 1)) > _SEVEN_NATS)


def classes(values: np.ndarray) -> str | None:
    """In words what a column of few whole numbers is, each of them often."""
    found = np.unique(values)
    if not 1 < len(found) <= min(_MOST_CLASSES, len(values) / _FEW_ROWS + 1):
        return None
    counted = found[0] in (0, 1) and bool((np.diff(found) == 1).all())
    return f"a label of {len(found)} values" if counted or len(found) <= _ANY_CLASSES else None


def refuse_no_measurements(origin: str, matrix: np.ndarray, reading: Reading = ANY) -> None:
    """Refuse an array one of whose columns counts the rows, or holds ids or a label.

    Raises:
        ValueError: naming the column, from 1.
    """
    if matrix.ndim != 2 or matrix.shape[1] < 2 or len(matrix) < _LEAST_COUNTED:
        return
    whole = (matrix == np.round(matrix)).all(0)
    for place in range(matrix.shape[1]):
        column = matrix[:, place].astype(np.float64)
        counted = column[0] in (0, 1) and bool((np.diff(column) == 1).all())
        what = "the number of every row" if counted else counts(column)
        if what is None and whole[place] and whole.sum() == 1:
            what = classes(column)
        if what is not None:
            way = reading.way_out(f"column {place + 1}", ["column 1", "column 2"])
            raise ValueError(
                f"{origin}, column {place + 1}: Expected measurements; got {what} {way}"
            )
