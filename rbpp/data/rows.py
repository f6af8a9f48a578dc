"""Rows of a source: ids, text or embeddings, groups, and paired fields."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from rbpp.data import chat, column_kinds, fields, folders, measurements
from rbpp.data.delimited import as_numbers
from rbpp.data.read import Table, read_tables
from rbpp.data.source_files import refuse
from rbpp.data.table import Fields as Fields
from rbpp.data.table import Reading as Reading
from rbpp.data.table import Standardise

# Covariances are sums of squares.
_LARGEST = 1e150
_LOOKED_AT = 200
_PLACE = re.compile(r"column [1-9]\d*")


@dataclass(frozen=True)
class Rows:
    """The rows of one source, in the order of their files.

    Attributes:
        source: the role, such as `"anchor"` or `"synthetic"`.
        origin: the file or folder, or a description of the Python object.
        ids: one distinct id per row; the place in the source (from 1) where none was given.
        text: one text per row, or None where the rows came as embeddings.
        embedding: (n, d), or None where the rows came as text.
        groups: one label per row, or None; rows that share a label are not independent.
        paired: further text or embeddings of the same rows by name (`"prompt"`, `"output"`).
        whole: rows of the source, where these are a sample of them.
        labels: the class of every row, None where it is missing; None without any.
        columns: names of the coordinates of a table; None where a field holds a vector per row.
        categories: further columns of such a table, a label per row each.
        roles: of a field that is a place in chat records, who speaks there.
        notes: what was decided in reading them, in words.
        standardise: whether columns are divided by their standard deviation (see `Reading`).
        absent: columns to be ignored that these rows do not have.
    """

    source: str
    origin: str
    ids: list[str]
    text: list[str] | None = None
    embedding: np.ndarray | None = None
    groups: list[str] | None = None
    paired: dict[str, list[str] | np.ndarray] = field(default_factory=dict)
    whole: int | None = None
    labels: list[str | None] | None = None
    columns: list[str] | None = None
    categories: dict[str, list[str]] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    standardise: Standardise = "auto"
    absent: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def size(self) -> int:
        """Rows of the source, whether or not these are all of them."""
        return len(self) if self.whole is None else self.whole

    def select(self, place: np.ndarray) -> Rows:
        """A sample: the rows at these places, counted from 0."""

        def of(values: Any) -> Any:
            if values is None or isinstance(values, np.ndarray):
                return values if values is None else values[place]
            return [values[index] for index in place]

        return replace(
            self,
            ids=of(self.ids),
            text=of(self.text),
            embedding=of(self.embedding),
            groups=of(self.groups),
            paired={name: of(values) for name, values in self.paired.items()},
            categories={name: of(values) for name, values in self.categories.items()},
            whole=self.size,
            labels=of(self.labels),
        )


def read_rows(
    data: Any, source: str, asked: Fields | None = None, *, paired: Mapping[str, str] | None = None
) -> Rows:
    """Rows of one source from a file, a folder or a Python object (see `read_tables`).

    Args:
        data: what to read.
        source: the role of these rows.
        asked: which fields are read.
        paired: further fields to read, by the name under which they are returned.

    Raises:
        ValueError: naming file, row and field: no rows, all rows identical, a missing field (with
            the closest name), a missing or empty value, vectors of different length, not finite,
            or not numbers, repeated ids, or a column that is no measurement.

    >>> read_rows([{"id": "a", "text": "one"}, {"id": "b", "text": "two"}], "anchor").ids
    ['a', 'b']
    """
    asked = asked or Fields()
    # One name is a sequence of names, of a letter each.
    text_fields: Sequence[str] = [asked.text] if isinstance(asked.text, str) else asked.text
    embedding_field, reading = asked.embedding, asked.reading
    found = read_tables(data, split=reading.split, array=embedding_field)
    whole = [_split_array(table, reading) for table in found if len(table)]
    tables = [
        replace(table, columns={n: v for n, v in table.columns.items() if n not in reading.ignore})
        for table in whole
    ]
    tables = folders.of_split(tables, reading.split) if tables else []
    origin = str(data) if len(tables) != 1 else tables[0].origin
    if not tables:
        refuse(_origin(data), f"rows for {source}", "none")
    named = [
        name
        for name, given in (
            ("text fields", text_fields),
            ("an embedding field", embedding_field),
            ("columns", reading.columns),
        )
        if given
    ]
    if len(named) > 1:
        raise ValueError(
            "Expected text fields or an embedding field or columns; got both "
            f"{named[0]} and {named[1]}"
        )
    labels = {asked.id or "id", asked.group, asked.label}
    if not named:
        excluded = {*labels, *(paired or {}).values()}
        text_fields, embedding_field = _only_field(tables[0], excluded, reading)
    ids, groups = fields.labels(tables, asked.id, asked.group)
    rows = Rows(source, origin, ids, groups=groups)
    if text_fields:
        texts = [value for table in tables for value in fields.texts(table, text_fields)]
        rows = replace(rows, text=texts, roles=fields.roles(tables[0], text_fields))
    elif embedding_field is not None:
        matrix = _joined(tables, [_vectors(t, *fields.column(t, embedding_field)) for t in tables])
        column_kinds.refuse_no_measurements(origin, matrix, reading)
        rows = replace(rows, embedding=matrix)
    else:
        rows = _of_columns(rows, tables, labels, reading)
    if asked.label is not None:
        rows = replace(rows, labels=fields.classes(tables, asked.label))
    _refuse_identical(rows, f"{origin} ({source})")
    return replace(
        rows,
        paired={name: _paired(tables, path) for name, path in (paired or {}).items()},
        notes=tuple(dict.fromkeys(note for table in tables for note in table.notes)),
        standardise=reading.standardise,
        absent=frozenset(reading.ignore).difference(*(table.columns for table in whole)),
    )


def refuse_absent(sources: Sequence[Rows]) -> None:
    """Refuse a column that was to be ignored and that none of the sources has.

    Raises:
        ValueError: naming it, and the sources.
    """
    for name in sorted(frozenset.intersection(*(rows.absent for rows in sources))):
        where = ", ".join(dict.fromkeys(rows.origin for rows in sources[:3]))
        raise ValueError(f"Expected a column {name!r} to ignore in {where}; got none of that name")


def is_text_field(data: Any, name: str) -> bool:
    """Whether a field of a file, folder or Python object holds text.

    Raises:
        ValueError: if there are no rows or no such field.
    """
    table = next((table for table in read_tables(data) if len(table)), None)
    if table is None:
        refuse(_origin(data), "rows", "none")
    _, values = fields.column(table, name)
    return any(isinstance(value, str) for value in values)


def _split_array(table: Table, reading: Reading) -> Table:
    """The columns of an array by their places, `column 1` and on, where some are chosen."""
    named = any(_PLACE.fullmatch(name) for name in (*reading.columns, *reading.ignore))
    array = next(iter(table.columns.values()), None)
    if not named or len(table.columns) > 1 or not isinstance(array, np.ndarray) or array.ndim != 2:
        return table
    return replace(table, columns={f"column {n}": column for n, column in enumerate(array.T, 1)})


def _only_field(
    table: Table, named: set[str | None], reading: Reading
) -> tuple[list[str], str | None]:
    """The field to read where the user named none and only one can be meant."""
    columns = {name: values for name, values in table.columns.items() if name not in named}
    first = {
        name: next((value for value in values if value is not None), None)
        for name, values in columns.items()
    }
    if len(first) == 1:
        (name,) = first
        values = columns[name]
        # The only array is what is meant, whatever it holds: reading it says what is wrong with it.
        if isinstance(values, np.ndarray) and values.dtype.kind not in "UO":
            return [], name
    vectors = [name for name, value in first.items() if _is_vector(value)]
    talks = [name for name, value in first.items() if chat.are_turns(value)]
    numbers = [name for name in first if _are_numbers(columns[name])]
    others = [name for name in first if name not in (*vectors, *talks, *numbers)]
    words = [name for name in others if isinstance(first[name], str)]
    kinds = [name for name in others if column_kinds.are_categories(columns[name])]
    for name in words:
        if name in table.indices:
            got = f"a saved index {reading.way_out(name)}"
            refuse(f"{table.origin}, field {name!r}", "text or measurements", got)
    if numbers and not vectors and not talks and others == kinds:
        return [], None
    if len(vectors) == 1 and not words and not talks:
        return [], vectors[0]
    prose = not words or fields.is_prose(table, words[0], column_kinds.measured(numbers))
    if len(words) + len(talks) == 1 and not vectors and prose:
        for name in words:
            fields.refuse_digits(table, name)
        return [*words, *talks], None
    refuse(
        table.origin,
        "the name of a text field (text=…), vectors (embedding=…) or columns=…",
        f"none, and the file has {fields.listed(table.columns)}",
    )


def _of_columns(
    rows: Rows, tables: Sequence[Table], labels: set[str | None], reading: Reading
) -> Rows:
    """Rows whose coordinates are columns of a table, by their names in the first of its files."""
    names: list[str] = []
    parts: list[np.ndarray] = []
    categories: dict[str, list[str]] = {}
    for table in tables:
        missing = [name for name in reading.columns if name not in table.columns]
        if missing:
            fields.column(table, missing[0])  # says which is the closest
        found, numbers, kinds = measurements.number_columns(table, reading, labels)
        if kinds and reading.numbers_only:
            name, values = next(iter(kinds.items()))
            got = f"{values[0][:40]!r} {reading.way_out(name, found[:3])}"
            refuse(table.place(0, name), "a number", got)
        if not parts:
            names, categories = found, {name: [] for name in kinds}
        if set(found) != set(names) or set(kinds) != set(categories):
            differ = sorted({*found, *kinds} ^ {*names, *categories}) or sorted(kinds)
            got = f"others or of another kind: {', '.join(differ)}"
            refuse(table.origin, f"the columns of {tables[0].origin}", got)
        for name, values in kinds.items():
            categories[name] += values
        ordered = [numbers[found.index(name)] for name in names]
        columns = [
            _vectors(table, name, values) for name, values in zip(names, ordered, strict=True)
        ]
        parts.append(np.concatenate(columns, 1) if columns else np.empty((len(table), 0)))
    if not names and not categories:
        refuse(tables[0].origin, "columns of numbers", "none")
    return replace(rows, embedding=_joined(tables, parts), columns=names, categories=categories)


def _joined(tables: Sequence[Table], parts: Sequence[np.ndarray]) -> np.ndarray:
    width = parts[0].shape[1]
    for table, part in zip(tables, parts, strict=True):
        if part.shape[1] != width:
            expected = f"vectors of dimension {width} as in {tables[0].origin}"
            refuse(table.origin, expected, part.shape[1])
    return np.concatenate(parts)


def _vectors(table: Table, name: str, values: Sequence[Any] | np.ndarray) -> np.ndarray:
    whole = f"{table.origin}, field {name!r}"
    if isinstance(values, np.ndarray):
        matrix = values[:, None] if values.ndim == 1 else values
        if matrix.ndim != 2:
            refuse(whole, "an array (rows, dimension)", f"shape {values.shape}")
        if matrix.dtype.kind not in "fiu":
            refuse(whole, "numbers", matrix.dtype)
    else:
        rows = [_vector(table, index, name, value) for index, value in enumerate(values)]
        for index, row in enumerate(rows):
            if len(row) != len(rows[0]):
                first = f"{table.unit} {table.numbers[0]}"
                expected = f"a vector of dimension {len(rows[0])} as in {first}"
                refuse(table.place(index, name), expected, len(row))
        matrix = np.stack(rows)
    if matrix.shape[1] == 0:
        refuse(whole, "vectors", "dimension 0")
    if matrix.dtype != np.float32:
        matrix = matrix.astype(np.float64)
    wrong = ~np.isfinite(matrix).all(1)
    if wrong.any():
        index = int(wrong.argmax())
        value = matrix[index][~np.isfinite(matrix[index])][0]
        got = f"{value} ({int(wrong.sum())} of {len(wrong)} rows have some)"
        refuse(table.place(index, name), "finite numbers", got)
    largest = np.abs(matrix).max(1).astype(np.float64)
    if (largest > _LARGEST).any():
        index = int((largest > _LARGEST).argmax())
        expected = f"numbers up to {_LARGEST:g}, whose squares are numbers too"
        refuse(table.place(index, name), expected, f"{largest[index]:g}")
    # In one order in memory, whatever the file's: sums in another order round otherwise.
    return np.ascontiguousarray(matrix)


def _vector(table: Table, index: int, name: str, value: Any) -> np.ndarray:
    if isinstance(value, str):  # CSV has no lists: a JSON list in a cell
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            pass
    try:
        # NumPy takes truth values and digits of other alphabets for numbers.
        strange = isinstance(value, list | tuple) and {bool, str} & set(map(type, value))
        row = np.empty(()) if strange else np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        row = np.empty(())
    if row.ndim != 1:
        got = "nothing" if value is None else f"{str(value)[:40]!r}"
        refuse(table.place(index, name), "a vector of numbers", got)
    return row


def _are_numbers(values: Sequence[Any] | np.ndarray) -> bool:
    """Whether most of the first values are numbers; the others are named where they are read."""
    kept = [value for value in values[:_LOOKED_AT] if value is not None]
    kept = [value for value in kept if not (isinstance(value, str) and not value.strip())]
    return bool(kept) and 2 * sum(map(_is_number, kept)) >= len(kept)


def _is_number(value: Any) -> bool:
    # One for which there is no place is said to be so where it is read.
    large = isinstance(value, int) and not isinstance(value, bool)
    return large or isinstance(as_numbers([value]), np.ndarray)


def _is_vector(value: Any) -> bool:
    return (
        isinstance(value, list | tuple | np.ndarray)
        and len(value) > 0
        and isinstance(value[0], int | float | np.number | np.ndarray)
    )


def _paired(tables: Sequence[Table], path: str) -> list[str] | np.ndarray:
    _, first = fields.column(tables[0], path)
    if len(first) and (isinstance(first, np.ndarray) or _is_vector(first[0])):
        return _joined(tables, [_vectors(table, *fields.column(table, path)) for table in tables])
    return [value for table in tables for value in fields.texts(table, path.split(","))]


def _refuse_identical(rows: Rows, where: str) -> None:
    values: Any = rows.text if rows.text is not None else rows.embedding
    if len(values) < 2:
        refuse(where, "at least 2 rows", len(values))
    same = all(bool(np.all(row == values[0])) for row in values)
    if same and all(len(set(labels)) == 1 for labels in rows.categories.values()):
        refuse(where, "rows that differ", f"{len(values)} identical rows")


def _origin(data: Any) -> str:
    return (
        str(data) if isinstance(data, str) or hasattr(data, "name") else f"<{type(data).__name__}>"
    )
