"""Which columns of a table are measurements, and how columns of different kinds become vectors."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, NoReturn

import numpy as np

from rbpp.data import column_kinds
from rbpp.data.delimited import as_numbers
from rbpp.data.source_files import refuse
from rbpp.data.table import ANY, Reading, Standardise, Table

# Largest over smallest standard deviation from which units decide, and not what is measured.
LARGEST_RATIO = 10.0
# An array with more columns is taken for embeddings, unless one holds this share of the variance.
WIDEST_TABLE, NEARLY_ALL = 32, 0.9
# Interquartile ranges from the median, and factor of the standard deviation, of rows that no scale
# fits together with the others; and what share of the rows are few.
_ABSURD, FEW = (1e3, 30.0), 0.1
# Rows from which a middle half is known, and its widths beyond which 99, -999 and their like are
# marks of what is missing.
_LEAST_OTHERS, _FAR_MARK = 8, 5.0


def number_columns(
    table: Table, reading: Reading = ANY, labels: Collection[str | None] = ()
) -> tuple[list[str], list[np.ndarray], dict[str, list[str]]]:
    """Names and values (n,) of the columns of numbers, and the columns of categories.

    Args:
        table: of named columns.
        reading: with the columns to read, which the user says are measurements; without any all
            are read, and each is looked at for being none.
        labels: columns that are ids or groups.

    Raises:
        ValueError: naming a column that is no measurement (an index, ids, a label), or the row
            that holds neither a number nor a category.
    """
    names, numbers, chosen = [], [], reading.columns
    categories: dict[str, list[str]] = {}
    for name in chosen or [name for name in table.columns if name not in labels]:
        values = table.columns[name]
        found = as_numbers(values)
        if isinstance(found, np.ndarray):
            if not chosen and len(table.columns) > 1:
                what = column_kinds.other_than_measured(
                    name, found, values, index=name in table.indices
                )
                if what is not None:
                    _refuse_column(table, name, what, reading)
            names.append(name)
            numbers.append(found)
        elif column_kinds.are_categories(values):
            categories[name] = ["" if value is None else str(value) for value in values]
        else:
            got = f"{str(values[found])[:40]!r} {reading.way_out(name)}"
            refuse(table.place(found, name), "a number", got)
    if not chosen and not categories:
        whole = [place for place, one in enumerate(numbers) if (one == np.round(one)).all()]
        if len(whole) == 1 < len(numbers) and (what := column_kinds.classes(numbers[whole[0]])):
            _refuse_column(table, names[whole[0]], what, reading)
    return names, numbers, categories


def _refuse_column(table: Table, name: str, what: str, reading: Reading) -> NoReturn:
    others = [other for other in table.columns if other != name]
    way = reading.way_out(name, others[:3])
    refuse(f"{table.origin}, field {name!r}", "measurements", f"{what} {way}")


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
            value=float(values[row, column]),
            distance=float(distance[row, column]),
            ratio=ratio,
            rows=int((~near).sum()),
        )
    return worst


def refuse_far_rows(of: str, values: np.ndarray) -> None:
    """Refuse rows (n, d) of which a few are so far away that no scale fits them and the others.

    Raises:
        ValueError: naming row and column, both from 0, and what to do: also of a number such as
            -999 that some rows repeat far from all others.
    """
    values = np.asarray(values, np.float64)
    for column in range(values.shape[1]):
        mark = _mark_of_missing(values[:, column])
        if mark is not None:
            same = np.flatnonzero(values[:, column] == mark)
            raise ValueError(
                f"Expected rows{of} of measurements; got {mark:g} in {len(same)} of {len(values)} "
                f"rows of column {column}, the first row {same[0]}, far from all others: if it "
                "marks what is missing, drop these rows or leave the column out"
            )
    found = far_rows(values, *_ABSURD)
    if found is not None:
        raise ValueError(
            f"Expected rows{of} of one scale; got {found.value:g} in row {found.row}, column "
            f"{found.column}, {found.distance:.2g} times the middle half's width from the median, "
            f"one of {found.rows} such rows: they alone would set the scale (drop them, mark what "
            "is missing as missing, or take logarithms)"
        )


def _mark_of_missing(values: np.ndarray) -> float | None:
    """A number that stands for none: repeated, and far below or above all others."""
    for mark in (values.min(), values.max()):
        rest = values[values != mark]
        if len(values) - len(rest) < 2 or len(rest) < _LEAST_OTHERS:
            continue
        low, high = np.quantile(rest, [0.25, 0.75])
        gap = max(rest.min() - mark, mark - rest.max())
        nines = re.fullmatch(r"-?9{2,}(\.0)?", str(float(mark))) is not None
        if high > low and gap > (_FAR_MARK if nines else _ABSURD[0]) * (high - low):
            return float(mark)
    return None


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
            f"{ANY.way_out(name)}"
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
                f"{ANY.way_out(name)}"
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
