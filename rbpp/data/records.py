"""JSON: a list of rows, columns, or a value a line, under either ending."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from rbpp.data.source_files import SourceFile, guarded, refuse
from rbpp.data.table import Table, from_rows, repeated

# A row of text or of numbers is far smaller; a longer line is a file without line breaks or a
# broken one, and reading it whole would take the machine's memory before any error.
LONGEST_LINE = 2**26
LARGEST_JSON = 2**31


def read_json(file: SourceFile) -> Table:
    """A list of rows, an object of columns, or a record a line as Spark writes it."""
    if file.size > LARGEST_JSON:
        refuse(
            file.name,
            f"at most {LARGEST_JSON} bytes of JSON",
            f"{file.size}: write one object a line (.jsonl) or Parquet",
        )
    text = decoded(file)
    with guarded(file.name, "JSON"):
        try:
            content = _loads(text)
        except json.JSONDecodeError as error:
            if error.msg == "Extra data" and "\n" in text[: error.pos]:
                return _from_lines(file.name, _split(text))
            # A text that never ends is reported where it starts.
            early = error.msg.startswith("Unterminated") or error.pos >= len(text) - 2
            cut = " (the file ends early: is it cut?)" if early else ""
            refuse(f"{file.name}, line {error.lineno}", "JSON", f"{_fault(error)}{cut}")
    return _of_content(file.name, content)


def read_json_lines(file: SourceFile) -> Table:
    """A value a line, or one list of records."""
    if file.head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        found = _as_one_list(file)
        if found is not None:
            return found
    return _from_lines(file.name, lines(file))


def decoded(file: SourceFile) -> str:
    """The text of a file: UTF-8, or what its byte order mark says."""
    content = file.read()
    try:
        return content.decode(_encoding(content[:4]) or "utf-8")
    except UnicodeDecodeError as error:
        _refuse_encoding(file, content.count(b"\n", 0, error.start) + 1, error)


def lines(file: SourceFile) -> Iterator[tuple[int, str]]:
    """Decoded lines with their numbers; refuses one that is too long before reading it whole."""
    if (_encoding(file.head) or "utf-8-sig") != "utf-8-sig":
        yield from _split(decoded(file))
        return
    with file.opened() as source:
        number = 0
        while line := source.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                refuse(f"{file.name}, line {number}", f"at most {LONGEST_LINE} bytes", "more")
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                _refuse_encoding(file, number, error)
            yield number, text


def _refuse_encoding(file: SourceFile, line: int, error: UnicodeDecodeError) -> NoReturn:
    got = f"{error.reason} at byte {error.start}: save it so"
    refuse(f"{file.name}, line {line}", "UTF-8", got)


def _encoding(head: bytes) -> str | None:
    for mark, name in (
        (b"\xff\xfe\x00\x00", "utf-32"),
        (b"\x00\x00\xfe\xff", "utf-32"),
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
        (b"\xef\xbb\xbf", "utf-8-sig"),
    ):
        if head.startswith(mark):
            return name
    if head[:1] != b"\0" and b"\0" in head[1:2]:
        return "utf-16-le"  # as some programs of Windows write it, without a mark
    return None


def _split(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, which a line feed alone ends."""
    return enumerate(io.StringIO(text, newline="\n"), 1)


def _from_lines(name: str, numbered: Iterator[tuple[int, str]]) -> Table:
    rows: list[Any] = []
    numbers: list[int] = []
    for number, line in numbered:
        if not line.strip():
            continue
        place = f"{name}, line {number}"
        with guarded(place, "one JSON value"):
            try:
                rows.append(_loads(line))
            except json.JSONDecodeError as error:
                cut = "" if line.endswith("\n") else " (the last line: is the file cut?)"
                if line.rstrip().endswith(","):
                    cut = " (a comma ends the line: leave it out)"
                elif line.strip() in ("{", "["):
                    cut = " (a value over several lines: write one a line, or call it .json)"
                refuse(place, "one JSON value", f"{_fault(error)}{cut}")
        numbers.append(number)
    return from_rows(rows, name, numbers, "line")


def _as_one_list(file: SourceFile) -> Table | None:
    """The rows of a file that is one list, under the ending of another format."""
    first = next((line for _, line in lines(file) if line.strip()), "")
    try:
        content = json.loads(first)
        # A list of numbers is a row.
        if not (isinstance(content, list) and content and isinstance(content[0], dict)):
            return None
    except (ValueError, RecursionError):
        pass
    else:
        if sum(bool(line.strip()) for _, line in lines(file)) > 1:
            return None
    try:
        content = json.loads(decoded(file))
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, list):
        return None
    return _of_content(file.name, _loads(decoded(file)))


def _of_content(name: str, content: Any) -> Table:
    if isinstance(content, dict):
        content = _rows_of_object(name, content)
    if isinstance(content, Table):
        return content
    if not isinstance(content, list):
        got = "an object" if isinstance(content, dict) else f"{content!r:.40}"
        refuse(name, "a list of rows, or columns of equal length", got)
    return from_rows(content, name, range(1, len(content) + 1), "row")


def _rows_of_object(name: str, content: dict[str, Any]) -> Any:
    """The rows of one list, of columns, or of records by the index of a data frame."""
    values = list(content.values())
    rows = [value for value in values if isinstance(value, list)]
    if len(content) == 1 and rows:
        return rows[0]
    if rows and len(rows) == len(content) and len({len(column) for column in rows}) == 1:
        return Table(name, content, range(1, len(rows[0]) + 1))
    if len(values) > 1 and all(isinstance(value, dict) for value in values):
        inner = {tuple(value) for value in values}
        outer_counts, inner_counts = _counts(content), all(_counts(keys) for keys in inner)
        if outer_counts and not inner_counts:  # orient="index"
            return values
        if inner_counts and not outer_counts and len(inner) == 1:  # orient="columns"
            columns = {key: list(value.values()) for key, value in content.items()}
            return Table(name, columns, range(1, len(values[0]) + 1))
        refuse(
            name,
            "a list of rows, or columns of equal length",
            "an object of objects: write it with orient='records'",
        )
    return content


def _counts(names: Sequence[str] | dict[str, Any]) -> bool:
    return len(names) > 0 and all(name.isascii() and name.isdigit() for name in names)


def _loads(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_distinct)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"the key {repeated(key for key, _ in pairs)!r} twice in one object")
    return found


def _fault(error: json.JSONDecodeError) -> str:
    return f"{error.msg.removesuffix(' starting at')} at column {error.colno}"
