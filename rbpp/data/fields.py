"""Fields of records: paths into them, alternatives, turns by role, texts and labels."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rbpp.data import chat
from rbpp.data.source_files import refuse
from rbpp.data.table import Table

# Fields that hold text by their names; numbers of rows and of letters from which content tells.
_TEXT_NAMES = re.compile(
    r"(.*_)?(text|texts|instructions?|prompt|content|question|answer|response|output|input|body|"
    r"completion|sentence|review|title|headline|document|abstract|query|summary|message|task)",
    re.I,
)
_FEW_ROWS, _LOOKED_AT, _A_LINE = 8, 200, 40


def column(table: Table, name: str) -> tuple[str, Sequence[Any] | np.ndarray]:
    """The values of a field, a path into nested fields, or the first alternative that exists.

    Raises:
        ValueError: naming the closest field, or a place that is of different roles in chat records.
    """
    if name in table.columns:
        return name, table.columns[name]
    for choice in name.split("|"):
        if choice in table.columns:
            return choice, table.columns[choice]
        head, *path = choice.split(".")
        if path and head in table.columns:
            values = table.columns[head]
            _refuse_mixed_roles(table, choice, path, values)
            return choice, [_descend(value, path) for value in values]
    closest = difflib.get_close_matches(name, table.columns, n=1, cutoff=0.5)
    hint = f" (did you mean {closest[0]!r}?)" if closest else ""
    refuse(table.origin, f"a field {name!r}{hint}", listed(table.columns))


def texts(table: Table, fields: Sequence[str]) -> list[str]:
    """The texts of fields, joined in order, one below the other.

    Raises:
        ValueError: naming file, row and field of what is no text, is empty, or cannot be written
            as UTF-8.
    """
    columns = [column(table, name) for name in fields]
    joined = []
    for index, parts in enumerate(zip(*(values for _, values in columns), strict=True)):
        kept = []
        for (name, _), part in zip(columns, parts, strict=True):
            text = _as_text(part)
            if text is not None and not isinstance(text, str):
                refuse(table.place(index, name), "text", type(part).__name__)
            if text is not None and text.strip():
                if chat.is_unreadable(text):
                    got = f"{text[:40]!r}: write them with json.dumps"
                    refuse(table.place(index, name), "turns as JSON", got)
                _refuse_surrogate(table, index, name, text)
                kept.append(text)
        if not kept:
            names = ", ".join(repr(name) for name, _ in columns)
            refuse(f"{table.place(index)}, field {names}", "text", "nothing")
        joined.append("\n".join(kept))
    return joined


def roles(table: Table, fields: Sequence[str]) -> dict[str, str]:
    """Field to the one role that stands at its place, for places in chat records."""
    found = {}
    for name in fields:
        head, *path = name.split(".")
        if any(map(_is_place, path)) and head in table.columns:
            speakers = {_role_at(value, path) for value in table.columns[head]} - {None}
            if len(speakers) == 1:
                found[name] = str(speakers.pop())
    return found


def labels(
    tables: Sequence[Table], id_field: str | None, group_field: str | None
) -> tuple[list[str], list[str] | None]:
    """A distinct id for every row, and the group of every row where there are groups.

    Raises:
        ValueError: naming both rows of an id that stands twice.
    """
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
                    where = first.place(place)
                    if first is table:
                        where = f"{table.unit} {table.numbers[place]}"
                    refuse(
                        table.place(index, name),
                        "distinct ids",
                        f"{label!r} as in {where}: name another with id=…, or mark rows that "
                        f"belong together with group={name!r}",
                    )
                label = f"{label}#{len(ids) + 1}"  # one of a group: its place makes it distinct
            seen[label] = (table, index)
            ids.append(label)
    return ids, groups


def classes(tables: Sequence[Table], name: str) -> list[str | None] | None:
    """The label of every row, None where it is missing; None if no table has the field."""
    if not any(choice.split(".")[0] in t.columns for t in tables for choice in name.split("|")):
        return None
    found = []
    for table in tables:
        _, values = column(table, name)
        for index, value in enumerate(values):
            if isinstance(value, list | dict):
                refuse(table.place(index, name), "a label", type(value).__name__)
            missing = value is None or value != value or not str(value).strip()
            found.append(None if missing else str(value))
    return found


def is_prose(table: Table, name: str, measured: Sequence[str]) -> bool:
    """Whether a column of words is the text of the rows, and no name, date or code among numbers.

    Args:
        table: of named columns.
        name: of the column of words.
        measured: the columns of numbers beside it that may be measurements.
    """
    if len(table) < _FEW_ROWS or _TEXT_NAMES.fullmatch(name):
        return True
    texts = [value for value in table.columns[name][:_LOOKED_AT] if isinstance(value, str)]
    letters = [sum(map(str.isalpha, text)) / max(len("".join(text.split())), 1) for text in texts]
    if not texts or 2 * sum(share > 0.5 for share in letters) < len(texts):
        return False
    words = sum(len(text.split()) > 1 or not text.isascii() for text in texts)
    length = sorted(map(len, texts))[len(texts) // 2]
    return 2 * words > len(texts) and (len(measured) < 2 or length >= _A_LINE)


def refuse_digits(table: Table, name: str) -> None:
    """Refuse a text field that nobody named and whose rows hold numbers, and hardly a letter."""
    texts = [value for value in table.columns[name][:_LOOKED_AT] if isinstance(value, str)]
    digits = [text for text in texts if not any(map(str.isalpha, text)) and re.search(r"\d", text)]
    if 2 * len(digits) > len(texts):
        refuse(
            f"{table.origin}, field {name!r}",
            "text, or numbers in a layout that is known",
            f"{digits[0][:40]!r} (write numbers as CSV or .npy, or name text={name!r})",
        )


def listed(columns: Mapping[str, Any]) -> str:
    """The names of fields, as far as a line has room for them."""
    names = [repr(name) for name in columns]
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "")


def _names(table: Table, name: str) -> list[str]:
    name, values = column(table, name)
    for index, value in enumerate(values):
        if value is None or isinstance(value, list | dict):
            got = "nothing" if value is None else type(value).__name__
            refuse(table.place(index, name), "a label", got)
        if isinstance(value, str):
            _refuse_surrogate(table, index, name, value)
    return [str(value) for value in values]


def _has_every(table: Table, name: str) -> bool:
    values = table.columns.get(name)
    return values is not None and all(isinstance(value, str | int) for value in values)


def _as_text(value: Any) -> Any:
    """The text of a value: of turns what the user and the model say."""
    turns = _turns(value)
    if turns is not None:
        return chat.conversation(turns)
    if isinstance(value, dict) and chat.are_turns([value]):
        return chat.text_of(value)
    return value


def _turns(value: Any) -> list[dict[str, Any]] | None:
    """The turns that a value holds: a list of them, as a text, or a list for each key."""
    if isinstance(value, str):
        value = chat.parsed(value)
    if isinstance(value, dict) and value:
        parts = list(value.values())
        if all(isinstance(part, list) for part in parts) and len(set(map(len, parts))) == 1:
            value = [dict(zip(value, row, strict=True)) for row in zip(*parts, strict=True)]
    return value if chat.are_turns(value) else None


def _descend(value: Any, path: list[str]) -> Any:
    for place, step in enumerate(path):
        turns = _turns(value)
        if turns is not None and chat.is_role(step.lower()):
            return chat.by_role(turns, step.lower())
        value = value if turns is None else turns
        if isinstance(value, dict):
            if turns is None and chat.are_turns([value]) and step in ("content", "value"):
                return chat.text_of(value) if place == len(path) - 1 else None
            value = value.get(step)
        elif isinstance(value, list) and _is_place(step) and -len(value) <= int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _is_place(step: str) -> bool:
    return step.isascii() and step.removeprefix("-").isdigit()


def _role_at(value: Any, path: Sequence[str]) -> str | None:
    """Who speaks at the place of chat records that a path goes through, if it goes through one."""
    for place, step in enumerate(path):
        turns = _turns(value)
        if turns is not None and _is_place(step):
            return chat.role(turns[int(step)]) if -len(turns) <= int(step) < len(turns) else None
        value = _descend(value, [path[place]])
    return None


def _refuse_mixed_roles(table: Table, name: str, path: list[str], values: Any) -> None:
    """Refuse a place of chat records that is one role's in some rows and another's in others."""
    if not any(map(_is_place, path)):
        return
    first: tuple[str, int] | None = None
    turns = ".".join(itertools.takewhile(lambda step: not _is_place(step), name.split(".")))
    for index, value in enumerate(values):
        role = _role_at(value, path)
        if role is None:
            continue
        if first is None:
            first = (role, index)
        elif role != first[0]:
            refuse(
                table.place(index, name),
                f"a turn of the {first[0]} as in {table.unit} {table.numbers[first[1]]}",
                f"one of the {role}: name the role, {turns}.user or {turns}.assistant",
            )


def _refuse_surrogate(table: Table, index: int, name: str, text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}, at place {error.start + 1}"
        where = table.place(index, name)
        refuse(where, "text of whole characters", f"half of a pair, {half}")
