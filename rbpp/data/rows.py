"""Tables to the rows of one source: ids, text or embeddings, groups, and paired fields."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rbpp.data.read import Table, read_tables

# Covariances are sums of squares.
_LARGEST = 1e150


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

        return Rows(
            source=self.source,
            origin=self.origin,
            ids=of(self.ids),
            text=of(self.text),
            embedding=of(self.embedding),
            groups=of(self.groups),
            paired={name: of(values) for name, values in self.paired.items()},
            whole=self.size,
            labels=of(self.labels),
        )


def read_rows(
    data: Any,
    source: str,
    *,
    text_fields: Sequence[str] = (),
    embedding_field: str | None = None,
    id_field: str | None = None,
    group_field: str | None = None,
    paired_fields: dict[str, str] | None = None,
    label_field: str | None = None,
) -> Rows:
    """Rows of one source from a file, a folder or a Python object (see `read_tables`).

    Args:
        data: what to read.
        source: the role of these rows.
        text_fields: fields whose texts are joined in this order, one below the other. A name may
            be a path into nested records, `instances.0.input`, and may give alternatives,
            `output|response`, of which the first that the file has is taken. With neither text
            nor embedding named, the file's only text field or its only numbers are taken.
        embedding_field: the field that holds a vector per row.
        id_field: the field that holds distinct ids; without it `id` where every row has one.
        group_field: the field whose equal values mark rows that are not independent.
        paired_fields: further fields to read, by the name under which they are returned.
        label_field: the field with a class of every row; rows may lack it.

    Raises:
        ValueError: naming file, row and field: no rows, all rows identical, a missing field (with
            the closest name), a missing or empty value, vectors of different length, not finite,
            or not numbers, or repeated ids.

    >>> read_rows([{"id": "a", "text": "one"}, {"id": "b", "text": "two"}], "anchor").ids
    ['a', 'b']
    """
    if isinstance(text_fields, str):  # one name is a sequence of names, of a letter each
        text_fields = [text_fields]
    tables = [table for table in read_tables(data) if len(table)]
    origin = str(data) if len(tables) != 1 else tables[0].origin
    if not tables:
        raise ValueError(f"{_origin(data)}: Expected rows for {source}; got none")
    if text_fields and embedding_field:
        raise ValueError("Expected text fields or an embedding field; got both")
    text: list[str] | None = None
    embedding: np.ndarray | None = None
    if not text_fields and embedding_field is None:
        text_fields, embedding_field = _only_field(
            tables[0], {id_field or "id", group_field, label_field, *(paired_fields or {}).values()}
        )
    if text_fields:
        text = [value for table in tables for value in _texts(table, text_fields)]
    else:
        embedding = _embedding(
            tables, embedding_field, {id_field or "id", group_field, label_field}
        )
    ids, groups = _labels(tables, id_field, group_field)
    _refuse_identical(text if text is not None else embedding, f"{origin} ({source})")
    paired = {name: _paired(tables, fields, name) for name, fields in (paired_fields or {}).items()}
    return Rows(
        source=source,
        origin=origin,
        ids=ids,
        text=text,
        embedding=embedding,
        groups=groups,
        paired=paired,
        labels=None if label_field is None else _classes(tables, label_field),
    )


def is_text_field(data: Any, name: str) -> bool:
    """Whether a field of a file, folder or Python object holds text.

    Raises:
        ValueError: if there are no rows or no such field.
    """
    table = next((table for table in read_tables(data) if len(table)), None)
    if table is None:
        raise ValueError(f"{_origin(data)}: Expected rows; got none")
    _, values = _column(table, name)
    return any(isinstance(value, str) for value in values)


def _only_field(table: Table, named: set[str | None]) -> tuple[list[str], str | None]:
    """The field to read where the user named none and only one can be meant."""
    first = {name: values[0] for name, values in table.columns.items() if name not in named}
    if len(first) == 1:
        (name,) = first
        values = table.columns[name]
        # The only array is what is meant, whatever it holds: reading it says what is wrong with it.
        if isinstance(values, np.ndarray) and values.dtype.kind not in "UO":
            return [], name
    if first and all(_is_number(value) for value in first.values()):
        return [], None
    texts = [name for name, value in first.items() if isinstance(value, str)]
    vectors = [name for name, value in first.items() if isinstance(value, list | np.ndarray)]
    vectors = [name for name in vectors if _is_vector(first[name])]
    if len(vectors) == 1 and not texts:
        return [], vectors[0]
    if len(texts) == 1 and not vectors:
        return texts, None
    raise ValueError(
        f"{table.origin}: Expected the name of a text field (--text-field) or an embedding field "
        f"(--embedding-field); got none, and the file has {_listed(table.columns)}"
    )


def _texts(table: Table, fields: Sequence[str]) -> list[str]:
    columns = [_column(table, name) for name in fields]
    joined = []
    for index, parts in enumerate(zip(*(values for _, values in columns), strict=True)):
        kept = []
        for (name, _), part in zip(columns, parts, strict=True):
            if part is not None and not isinstance(part, str):
                raise ValueError(
                    f"{table.place(index)}, field {name!r}: Expected text; "
                    f"got {type(part).__name__}"
                )
            if part is not None and part.strip():
                kept.append(part)
        if not kept:
            names = ", ".join(repr(name) for name, _ in columns)
            raise ValueError(f"{table.place(index)}, field {names}: Expected text; got nothing")
        joined.append("\n".join(kept))
    return joined


def _embedding(
    tables: list[Table], embedding_field: str | None, labels: set[str | None]
) -> np.ndarray:
    parts = []
    for table in tables:
        if embedding_field is None:
            parts.append(_number_columns(table, labels))
        else:
            parts.append(_vectors(table, *_column(table, embedding_field)))
    width = parts[0].shape[1]
    for table, part in zip(tables, parts, strict=True):
        if part.shape[1] != width:
            raise ValueError(
                f"{table.origin}: Expected vectors of dimension {width} as in "
                f"{tables[0].origin}; got {part.shape[1]}"
            )
    return np.concatenate(parts)


def _vectors(table: Table, name: str, values: Sequence[Any] | np.ndarray) -> np.ndarray:
    where = f"field {name!r}"
    if isinstance(values, np.ndarray):
        matrix = values[:, None] if values.ndim == 1 else values
        if matrix.ndim != 2:
            raise ValueError(
                f"{table.origin}, {where}: Expected an array (rows, dimension); got shape "
                f"{values.shape}"
            )
        if matrix.dtype.kind not in "fiu":
            raise ValueError(f"{table.origin}, {where}: Expected numbers; got {matrix.dtype}")
    else:
        rows = [_vector(table, index, where, value) for index, value in enumerate(values)]
        for index, row in enumerate(rows):
            if len(row) != len(rows[0]):
                raise ValueError(
                    f"{table.place(index)}, {where}: Expected a vector of dimension "
                    f"{len(rows[0])} as in {table.unit} {table.numbers[0]}; got {len(row)}"
                )
        matrix = np.stack(rows)
    if matrix.shape[1] == 0:
        raise ValueError(f"{table.origin}, {where}: Expected vectors; got dimension 0")
    if matrix.dtype != np.float32:
        matrix = matrix.astype(np.float64)
    wrong = ~np.isfinite(matrix).all(1)
    if wrong.any():
        index = int(wrong.argmax())
        value = matrix[index][~np.isfinite(matrix[index])][0]
        raise ValueError(
            f"{table.place(index)}, {where}: Expected finite numbers; got {value} "
            f"({int(wrong.sum())} of {len(wrong)} rows have some)"
        )
    largest = np.abs(matrix).max(1).astype(np.float64)
    if (largest > _LARGEST).any():
        index = int((largest > _LARGEST).argmax())
        raise ValueError(
            f"{table.place(index)}, {where}: Expected numbers up to {_LARGEST:g}, whose squares "
            f"are numbers too; got {largest[index]:g}"
        )
    return matrix


def _vector(table: Table, index: int, where: str, value: Any) -> np.ndarray:
    if isinstance(value, str):  # CSV has no lists: a JSON list in a cell
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            pass
    try:
        row = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        row = np.empty(())
    if row.ndim != 1:
        got = "nothing" if value is None else f"{str(value)[:40]!r}"
        raise ValueError(f"{table.place(index)}, {where}: Expected a vector of numbers; got {got}")
    return row


def _number_columns(table: Table, labels: set[str | None]) -> np.ndarray:
    """Every column of a table of numbers is a coordinate, but for ids and groups."""
    columns = []
    for name, values in table.columns.items():
        if name in labels:
            continue
        numbers = []
        for index, value in enumerate(values):
            try:
                numbers.append(float(value))
            except (TypeError, ValueError, OverflowError):
                raise ValueError(
                    f"{table.place(index)}, field {name!r}: Expected a number; "
                    f"got {str(value)[:40]!r}"
                ) from None
        columns.append(_vectors(table, name, np.asarray(numbers)))
    return np.concatenate(columns, 1)


def _is_number(value: Any) -> bool:
    # NumPy turns a complex number to a real one, and loses what is imaginary.
    if isinstance(value, list | np.ndarray | np.complexfloating):
        return False
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    except OverflowError:  # a number, for which there is no place: said where it is read
        return True
    return True


def _is_vector(value: Any) -> bool:
    return (
        isinstance(value, list | tuple | np.ndarray)
        and len(value) > 0
        and isinstance(value[0], int | float | np.number | np.ndarray)
    )


def _labels(
    tables: list[Table], id_field: str | None, group_field: str | None
) -> tuple[list[str], list[str] | None]:
    groups = None
    if group_field is not None:
        groups = [label for table in tables for label in _names(table, group_field)]
    name = id_field
    if name is None and all(_has_every(table, "id") for table in tables):
        name = "id"
    if name is None:
        return [str(number) for number in range(1, sum(map(len, tables)) + 1)], groups
    seen: dict[str, tuple[Table, int]] = {}
    ids: list[str] = []
    for table in tables:
        for index, label in enumerate(_names(table, name)):
            if label in seen:
                if group_field != name:
                    first, place = seen[label]
                    raise ValueError(
                        f"{table.place(index)}, field {name!r}: Expected distinct ids; got "
                        f"{label!r} as in {first.place(place)}: name another with --id-field, or "
                        f"mark rows that belong together with --group-field {name}"
                    )
                label = f"{label}#{len(ids) + 1}"  # one of a group: its place makes it distinct
            seen[label] = (table, index)
            ids.append(label)
    return ids, groups


def _classes(tables: list[Table], name: str) -> list[str | None] | None:
    """The label of every row, None where it is missing; None if no table has the field."""
    if not any(choice.split(".")[0] in t.columns for t in tables for choice in name.split("|")):
        return None
    found = []
    for table in tables:
        _, values = _column(table, name)
        for index, value in enumerate(values):
            if isinstance(value, list | dict):
                raise ValueError(
                    f"{table.place(index)}, field {name!r}: Expected a label; "
                    f"got {type(value).__name__}"
                )
            missing = value is None or value != value or not str(value).strip()
            found.append(None if missing else str(value))
    return found


def _names(table: Table, name: str) -> list[str]:
    name, values = _column(table, name)
    for index, value in enumerate(values):
        if value is None or isinstance(value, list | dict):
            got = "nothing" if value is None else type(value).__name__
            raise ValueError(f"{table.place(index)}, field {name!r}: Expected a label; got {got}")
    return [str(value) for value in values]


def _has_every(table: Table, name: str) -> bool:
    values = table.columns.get(name)
    return values is not None and all(isinstance(value, str | int) for value in values)


def _paired(tables: list[Table], fields: str, name: str) -> list[str] | np.ndarray:
    _, first = _column(tables[0], fields)
    if len(first) and (isinstance(first, np.ndarray) or _is_vector(first[0])):
        return _embedding(tables, fields, set())
    return [value for table in tables for value in _texts(table, fields.split(","))]


def _column(table: Table, name: str) -> tuple[str, Sequence[Any] | np.ndarray]:
    """The values of a field, a path into nested fields, or the first alternative that exists."""
    for choice in name.split("|"):
        if choice in table.columns:
            return choice, table.columns[choice]
        head, *path = choice.split(".")
        if path and head in table.columns:
            return choice, [_descend(value, path) for value in table.columns[head]]
    closest = difflib.get_close_matches(name, table.columns, n=1, cutoff=0.5)
    hint = f": did you mean {closest[0]!r}?" if closest else ""
    raise ValueError(
        f"{table.origin}: Expected a field {name!r}; got {_listed(table.columns)}{hint}"
    )


def _descend(value: Any, path: list[str]) -> Any:
    for step in path:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _refuse_identical(values: list[str] | np.ndarray | None, where: str) -> None:
    assert values is not None
    if len(values) < 2:
        raise ValueError(f"{where}: Expected at least 2 rows; got {len(values)}")
    if all(bool(np.all(row == values[0])) for row in values):
        raise ValueError(f"{where}: Expected rows that differ; got {len(values)} identical rows")


def _listed(columns: Mapping[str, Any]) -> str:
    names = [repr(name) for name in columns]
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "")


def _origin(data: Any) -> str:
    return (
        str(data) if isinstance(data, str) or hasattr(data, "name") else f"<{type(data).__name__}>"
    )
