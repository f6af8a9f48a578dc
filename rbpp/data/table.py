"""A table of named columns, which every format is read to, and what of it is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rbpp import validate

Standardise = Literal["auto", "yes", "no"]


@dataclass(frozen=True)
class Reading:
    """What of a table is read, and which of several.

    Attributes:
        columns: the columns that are coordinates; without them all but those that cannot be.
        ignore: columns that are left out.
        split: which of several splits of a folder or a `DatasetDict`.
        numbers_only: refuse columns of categories, for which a density has no place.
        standardise: columns over their standard deviation in all sources: `"auto"`, where the
            largest is above ten times the smallest; or `"yes"`, `"no"`.
        instead: what a reader who cannot choose columns does about one that is no measurement.
    """

    columns: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    split: str | None = None
    numbers_only: bool = False
    standardise: Standardise = "auto"
    instead: str = ""

    def __post_init__(self) -> None:
        validate.choice("standardise", self.standardise, ("auto", "yes", "no"))

    def way_out(self, name: str, others: Sequence[str] = ()) -> str:
        """What to do about a column that is no measurement, in brackets.

        Arguments are written as `rbpp.run_options.name_option` finds them, which names options.

        >>> Reading().way_out("id", ["height", "weight"])
        "(ignore='id' leaves it out, columns='height,weight' names what to read)"
        """
        if self.instead:
            return f"({self.instead})"
        named = f", columns={','.join(others)!r} names what to read" if others else ""
        return f"(ignore={name!r} leaves it out{named})"


ANY = Reading()


@dataclass(frozen=True)
class Fields:
    """Which fields of the files are read; see `rbpp.data.rows.read_rows`.

    Attributes:
        text: fields whose texts are joined in this order, one below the other. A name may be a path
            into nested records, `instances.0.input`, may give alternatives, `output|response`, of
            which the first that the file has is taken, and may name a role of chat records,
            `messages.user`; `messages` is all that user and model say. With neither text nor
            embedding named, the file's only text field or its numbers are taken.
        embedding: field with a vector per row.
        id: distinct ids; without it `id` where every row has one.
        group: generated rows with equal values are not independent.
        label: a class of every row; files that lack it have none.
        prompt, output: fields of generated rows whose pairs carry ΔI and I(p; M(p)); in a
            comparison also of the reference.
        generator: what made the rows; in a comparison, sets of one generator share one vote.
        reading: which columns of tables, and which of several splits.
    """

    text: Sequence[str] = ()
    embedding: str | None = None
    id: str | None = None
    group: str | None = None
    label: str | None = None
    prompt: str | None = None
    output: str | None = None
    generator: str | None = None
    reading: Reading = ANY

    def __post_init__(self) -> None:
        if (self.prompt is None) != (self.output is None):
            raise ValueError("Expected a prompt field and an output field; got one of them")

    @property
    def pairs(self) -> dict[str, str]:
        """Fields of paired rows by name; empty where there are none."""
        named = {"prompt": self.prompt, "output": self.output}
        return {name: one for name, one in named.items() if one is not None}


@dataclass(frozen=True)
class Table:
    """Columns of equal length, with the place every row came from.

    Attributes:
        origin: the file, or a description of the Python object.
        columns: values by field name; `None` where a row has no such field.
        numbers: the number of every row in its file, counted from 1.
        unit: what the numbers count, `"row"` or `"line"`.
        indices: columns that are a saved index of a data frame.
        notes: what the reader decided, in words.
    """

    origin: str
    columns: Mapping[str, Sequence[Any] | np.ndarray]
    numbers: Sequence[int]
    unit: str = "row"
    indices: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    def place(self, index: int, field: str | None = None) -> str:
        """Where row `index` (from 0), or a field of it, stands, for error messages."""
        row = f"{self.origin}, {self.unit} {self.numbers[index]}"
        return row if field is None else f"{row}, field {field!r}"


def repeated(names: Iterable[str]) -> str | None:
    """The first name that stands there a second time."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def refuse_repeated(names: Sequence[str], expected: str) -> None:
    """Raises ValueError if a name stands twice among the names of columns."""
    name = repeated(names)
    if name is not None:
        raise ValueError(f"{expected}; got {name} twice")


def from_rows(rows: list[Any], origin: str, numbers: Sequence[int], unit: str) -> Table:
    """Columns of rows that are all records, all texts, or all vectors."""
    kinds = [_kind(row) for row in rows]
    for index, kind in enumerate(kinds):
        if kind is None or kind != kinds[0]:
            expected = kinds[0] or "a record, a text or a vector"
            raise ValueError(
                f"{origin}, {unit} {numbers[index]}: Expected {expected}; "
                f"got {kind or type(rows[index]).__name__}"
            )
    if not rows:
        return Table(origin, {}, [], unit)
    if kinds[0] in _FIELD_OF:
        return Table(origin, {_FIELD_OF[kinds[0]]: rows}, numbers, unit)
    fields = list(dict.fromkeys(str(field) for row in rows for field in row))
    columns = {field: [row.get(field) for row in rows] for field in fields}
    return Table(origin, columns, numbers, unit)


# What rows that are no records are read as.
_FIELD_OF = {"a text": "text", "a conversation": "messages", "a vector": "embedding"}


def _kind(row: Any) -> str | None:
    if isinstance(row, dict):
        return "a record"
    if isinstance(row, str):
        return "a text"
    if isinstance(row, list) and row and isinstance(row[0], dict):
        return "a conversation"
    if isinstance(row, list | tuple | np.ndarray):
        return "a vector"
    return None
