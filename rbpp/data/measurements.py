"""Which columns of a table are measurements, and how columns of different kinds become vectors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, NoReturn

import numpy as np

from rbpp.data.delimited import as_numbers
from rbpp.data.table import Table

Standardise = Literal["auto", "yes", "no"]
# Largest over smallest standard deviation from which units decide, and not what is measured.
LARGEST_RATIO = 10.0
# An array with more columns is taken for embeddings, unless one holds this share of the variance.
WIDEST_TABLE, NEARLY_ALL = 32, 0.9
# Categories have few values, each of them often.
FEW_CATEGORIES, MOST_CATEGORIES, LONGEST_CATEGORY, LEAST_ROWS = 20, 100, 60, 8
_INDEX_NAMES = re.compile(
    r"unnamed(: [\d.]+|_\d+)?|level_0|index|row(_?(number|id|nr|no))?|idx|rownames", re.I
)
# Names of ids alone, whose numbers may come back; and those of numbers too, which then do not.
_SURE_ID_NAMES = re.compile(r"(?i:(.*[_\- .])?(id|ids|uid|uuid|guid))|.*[a-z](ID|Id)s?")
_ID_NAMES = re.compile(r"(.*[_\- .])?(key|nr|no|number|code)", re.I)
_TIME_NAMES = re.compile(
    r"(.*[_\- .])?(timestamp|datetime|date|created(_at)?|updated(_at)?|unix(_?time)?|epoch)", re.I
)
_LABEL_NAMES = re.compile(
    r"(.*[_\- .])?(label|labels|class|classes|cls|target|category|cluster|split|fold)|y", re.I
)
_CODE = re.compile(r"[+-]?0\d+")
# Below these numbers of rows nothing can be said of a column by its values.
_FEW_ROWS, _SEVEN_NATS, _LEAST_COUNTED = 20, 7.0, 5
# Interquartile ranges from the median, and factor of the standard deviation, of rows that no scale
# fits together with the others; and what share of the rows are few.
_ABSURD, FEW = (1e3, 30.0), 0.1
# A label has values from 0 or 1 on.
_MOST_CLASSES = 20


def number_columns(
    table: Table, chosen: Sequence[str], labels: set[str | None], *, named: bool
) -> tuple[list[str], list[np.ndarray], dict[str, list[str]]]:
    """Names and values (n,) of the columns of numbers, and the columns of categories.

    Args:
        table: of named columns.
        chosen: the columns to read, all others but labels being left out; empty for all.
        labels: columns that are ids or groups.
        named: the user has said which columns are measurements: none is looked at for being none.

    Raises:
        ValueError: naming a column that is no measurement (an index, ids, a label), or the row
            that holds neither a number nor a category.
    """
    names, numbers = [], []
    categories: dict[str, list[str]] = {}
    for name in chosen or [name for name in table.columns if name not in labels]:
        values = table.columns[name]
        found = as_numbers(values)
        if isinstance(found, np.ndarray):
            if not named and len(table.columns) > 1:
                _refuse_no_measurement(table, name, found)
            names.append(name)
            numbers.append(found)
        elif are_categories(values):
            categories[name] = ["" if value is None else str(value) for value in values]
        else:
            raise ValueError(
                f"{table.place(found)}, field {name!r}: Expected a number; "
                f"got {str(values[found])[:40]!r} (--ignore {name} leaves the column out)"
            )
    if not named and not categories:
        _refuse_label(table, names, numbers)
    return names, numbers, categories


def measured(names: Sequence[str]) -> list[str]:
    """Those of the columns of numbers whose names are not of an index, ids, a time or a label."""
    kinds = (_INDEX_NAMES, _SURE_ID_NAMES, _ID_NAMES, _TIME_NAMES, _LABEL_NAMES)
    return [name for name in names if not any(kind.fullmatch(name) for kind in kinds)]


def _refuse_label(table: Table, names: Sequence[str], numbers: Sequence[np.ndarray]) -> None:
    """Refuse the only column of whole numbers if they are those of a label."""
    whole = [place for place, one in enumerate(numbers) if (one == np.round(one)).all()]
    if len(whole) == 1 < len(numbers) and (what := _classes(numbers[whole[0]])):
        _refuse_column(table, names[whole[0]], what)


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
    # A wrong word among numbers is a wrong word.
    if 2 * sum(isinstance(as_numbers([word]), np.ndarray) for word in words) >= len(kept):
        return False
    distinct = len(set(map(str, kept)))
    few = len(values) / (2 if distinct <= FEW_CATEGORIES else 4)
    return len(values) >= LEAST_ROWS and 0 < distinct <= min(MOST_CATEGORIES, few)


def _refuse_no_measurement(table: Table, name: str, values: np.ndarray) -> None:
    """Refuse a column whose name or values are those of an index, of ids, or of a label."""
    what = None
    whole = np.isfinite(values).all() and bool((values == np.round(values)).all())
    distinct = len(np.unique(values))
    if name in table.indices or (_INDEX_NAMES.fullmatch(name) and whole):
        what = "a saved index"
    elif whole and (
        _SURE_ID_NAMES.fullmatch(name) or (distinct == len(values) and _ID_NAMES.fullmatch(name))
    ):
        what = "ids"
    elif whole and distinct == len(values) and _TIME_NAMES.fullmatch(name):
        what = "points in time"
    elif any(
        isinstance(cell, str) and _CODE.fullmatch(cell.strip()) for cell in table.columns[name]
    ):
        what = "digits behind a zero: codes, or decimals behind a comma,"
    elif whole and distinct <= 50 and _LABEL_NAMES.fullmatch(name):
        what = f"a label of {distinct} values"
    else:
        what = _counts(values)
    if what is not None:
        _refuse_column(table, name, what)


def _refuse_column(table: Table, name: str, what: str) -> NoReturn:
    others = [other for other in table.columns if other != name]
    raise ValueError(
        f"{table.origin}, field {name!r}: Expected measurements; got {what} (--ignore {name} "
        f"leaves it out, --columns {','.join(others[:3])}{',…' if len(others) > 3 else ''} "
        "names what to read)"
    )


def _counts(values: np.ndarray) -> str | None:
    """In words what whole numbers are, each of which stands once: an index, or ids."""
    if len(values) < _FEW_ROWS or not bool((values == np.round(values)).all()):
        return None
    steps = np.diff(values)
    if bool((np.abs(steps) == 1).all()):
        return "an index"
    if len(np.unique(values)) < len(values):
        return None
    if bool((steps > 0).all()) or bool((steps < 0).all()):
        return "numbers in order, each once: an index or points in time"
    # Independent whole numbers from so short a range would have met.
    if len(values) ** 2 / (2 * (np.ptp(values) + 1)) > _SEVEN_NATS:
        return "ids: whole numbers, each once,"
    return None


def refuse_no_measurements(origin: str, matrix: np.ndarray) -> None:
    """Refuse an array one of whose columns counts the rows, or holds ids or a label.

    Raises:
        ValueError: naming the column, from 1.
    """
    if matrix.ndim != 2 or matrix.shape[1] < 2 or len(matrix) < _LEAST_COUNTED:
        return
    whole = (matrix == np.round(matrix)).all(0)
    for place in np.flatnonzero(whole):
        column = matrix[:, place].astype(np.float64)
        counted = column[0] in (0, 1) and bool((np.diff(column) == 1).all())
        what = "the number of every row" if counted else _counts(column)
        if what is None and whole.sum() == 1:
            what = _classes(column)
        if what is not None:
            raise ValueError(
                f"{origin}, column {place + 1}: Expected measurements; got {what} "
                f"(--ignore 'column {place + 1}' leaves it out, --columns names what to read)"
            )


def _classes(values: np.ndarray) -> str | None:
    """In words what a column of whole numbers is whose values are 0, 1, …, each of them often."""
    found = np.unique(values)
    few = 1 < len(found) <= min(_MOST_CLASSES, len(values) / _FEW_ROWS + 1)
    if few and found[0] in (0, 1) and bool((np.diff(found) == 1).all()):
        return f"a label of {len(found)} values"
    return None


class FarRow(NamedTuple):
    """The farthest of a few rows that hold the spread of a column.

    Attributes:
        row, column: its place, from 0.
        value: what stands there.
        distance: from the median, in widths of the middle half.
        ratio: standard deviation of the column over that without such rows.
        rows: how many such rows there are.
    """

    row: int
    column: int
    value: float
    distance: float
    ratio: float
    rows: int


def far_rows(values: np.ndarray, limit: float, factor: float) -> FarRow | None:
    """The worst of the few rows (n, d) that hold a column; None where none do.

    Args:
        values: the rows.
        limit: widths of the middle half from the median, from which a row is far.
        factor: how many times wider than without them a column has to be.
    """
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
    distance = np.abs(values - median) / np.where(high > low, high - low, np.inf)
    whole, worst = values.std(0), None
    for column in map(int, np.flatnonzero(distance.max(0) > limit)):
        near = distance[:, column] <= limit
        own = values[near, column].std()
        ratio = float(whole[column] / own) if own > 0 else np.inf
        # Of many rows that are far away the others are a part, whose scale is not the only one.
        if (~near).mean() > FEW or ratio <= max(factor, worst.ratio if worst else 0.0):
            continue
        row = int(distance[:, column].argmax())
        worst = FarRow(
            row,
            column,
            float(values[row, column]),
            float(distance[row, column]),
            ratio,
            int((~near).sum()),
        )
    return worst


def refuse_far_rows(of: str, values: np.ndarray) -> None:
    """Refuse rows (n, d) of which a few are so far away that no scale fits them and the others.

    Raises:
        ValueError: naming row and column, both from 0, and what to do.
    """
    found = far_rows(np.asarray(values, np.float64), *_ABSURD)
    if found is not None:
        raise ValueError(
            f"Expected rows{of} of one scale; got {found.value:g} in row {found.row}, column "
            f"{found.column}, {found.distance:.2g} times the middle half's width from the median, "
            f"one of {found.rows} such rows: they alone would set the scale (drop them, mark what "
            "is missing as missing, or take logarithms)"
        )


def standardised(
    parts: Sequence[np.ndarray], names: Sequence[str] | None, standardise: Standardise
) -> tuple[list[np.ndarray], str]:
    """Columns of all sources over their standard deviation, where their units differ.

    Args:
        parts: (n, d) of every source.
        names: of the columns; None of an array, or of embeddings.
        standardise: see `units`.

    Returns:
        The parts, and in words what was done; empty if nothing was.

    Raises:
        ValueError: naming a column that is the same number in every row.
    """
    pool = np.concatenate(parts).astype(np.float64)
    centre, spread = pool.mean(0), pool.std(0)
    spread = np.where(spread <= 1e-12 * np.abs(pool).max(0, initial=0.0), 0.0, spread)
    divisor, how = units(spread, names, standardise)
    return ([(part - centre) / divisor for part in parts] if how else list(parts)), how


def units(
    spread: np.ndarray, names: Sequence[str] | None, standardise: Standardise
) -> tuple[np.ndarray, str]:
    """What to divide every column by, and in words why; empty if columns stay as they are.

    Args:
        spread: standard deviation of every column, 0 of one that does not vary.
        names: of the columns; None of an array, or of embeddings.
        standardise: whether to, or `"auto"`: where the largest is above `LARGEST_RATIO` times the
            smallest. Of embeddings, whose axes have one unit, that is so of some models; an array
            of more than `WIDEST_TABLE` columns is one unless a single column holds nearly all.

    Raises:
        ValueError: naming a column that does not vary.
    """
    constant = np.flatnonzero(spread == 0)
    if names is not None and len(names) > 1 and 0 < len(constant) < len(names):
        name = names[constant[0]]
        raise ValueError(
            f"Expected columns that vary; got {name!r} with the same number in every row "
            f"(--ignore {name} leaves it out)"
        )
    varying = np.delete(spread, constant)
    ratio = varying.max() / varying.min() if len(varying) else 1.0
    table = names is not None or len(spread) <= WIDEST_TABLE
    alone = len(varying) > 0 and varying.max() ** 2 > NEARLY_ALL * np.square(varying).sum()
    differ = ratio > LARGEST_RATIO and (table or alone)
    if standardise == "no" or (standardise == "auto" and not differ):
        return np.ones_like(spread), ""
    return (
        np.where(spread > 0, spread, 1.0),
        f"every column over its standard deviation (they differ by up to {ratio:.3g} times)",
    )


def encoded(
    numbers: Sequence[np.ndarray], categories: Sequence[Mapping[str, list[str]]]
) -> tuple[list[np.ndarray], str]:
    """Vectors of tables that have numbers and categories: every column of about equal variance.

    A number becomes its quantile among the rows of all sources, √12 times that less a half, of
    variance one where ties are few: no outlier and no unit holds the variance. A category of the
    values v with shares p(v) becomes one coordinate a value, (1[v] − p(v)) / √(1 − Σ p²), whose
    variances add up to one: a rare category is as wide as a number, and no wider.

    Args:
        numbers: (n, d) of every source, d ≥ 0.
        categories: of every source a label per row, by column.

    Returns:
        Vectors of every source, and in words how they were made.
    """
    ends = np.cumsum([len(part) for part in numbers])[:-1]
    pool = np.concatenate(numbers)
    blocks = [_quantiles(pool[:, place])[:, None] for place in range(pool.shape[1])]
    for name in categories[0]:
        labels = np.asarray(
            [label for source in categories for label in source[name]], dtype=object
        )
        values, index = np.unique(labels.astype(str), return_inverse=True)
        share = np.bincount(index) / len(index)
        if len(values) < 2:
            raise ValueError(
                f"Expected columns that vary; got {name!r} with the same word in every row "
                f"(--ignore {name} leaves it out)"
            )
        one_hot = np.eye(len(values))[index] - share
        blocks.append(one_hot / np.sqrt(1 - np.square(share).sum()))
    made = np.concatenate(blocks, 1)
    how = (
        f"quantiles of {pool.shape[1]} columns and one-hot of {len(categories[0])}, variance 1 each"
    )
    return np.split(made, ends), how


def _quantiles(values: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    return np.sqrt(12) * ((rankdata(values) - 0.5) / len(values) - 0.5)
