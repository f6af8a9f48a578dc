"""Tables of text: what stands between the fields, whether there is a header, what is a number."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rbpp.data.records import LONGEST_LINE, lines
from rbpp.data.source_files import SourceFile, guarded, refuse
from rbpp.data.table import Table, refuse_repeated

# Lines by which the delimiter is found.
_LOOKED_AT = 50
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:nan|inf|infinity)", re.I)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?")
# A last number without a line's end that is so much shorter than all above it is a cut one.
_CUT_ROWS, _CUT_LETTERS = 10, 3


def number(text: str) -> float | None:
    """The number that a cell of a table holds, in the digits and letters that programs write.

    >>> number(" -1.5e3 "), number("1_0"), number("١")
    (-1500.0, None, None)
    """
    text = text.strip()
    if not text.isascii() or _NUMBER.fullmatch(text) is None:
        return None
    return float(text)


def read_delimited(file: SourceFile) -> Table:
    """CSV, TSV and their relatives; numbers without a header lose no row."""
    numbered = list(lines(file))
    with guarded(file.name, "CSV"):
        delimiter = "\t" if file.suffix == ".tsv" else ","
        if numbered and (found := re.fullmatch(r"sep=(.)\s*", numbered[0][1])):
            delimiter, numbered = found[1], numbered[1:]  # for Excel, in front of the header
        else:
            delimiter = _delimiter([line for _, line in numbered[:_LOOKED_AT]], delimiter)
        header, rows, numbers = _cells(file, numbered, delimiter)
    return _table(file.name, header, rows, numbers, numbered, delimiter)


def read_text(file: SourceFile) -> Table:
    """A text a line, or rows of numbers as `numpy.savetxt` writes them."""
    numbered = [(at, line.rstrip("\r\n")) for at, line in lines(file)]
    kept = [(at, line) for at, line in numbered if line.strip()]
    found = _number_lines(file.name, kept)
    if found is not None:
        return found
    return Table(file.name, {"text": [line for _, line in kept]}, [at for at, _ in kept], "line")


def _delimiter(sample: Sequence[str], default: str) -> str:
    """What parts the lines into as many fields each, most of them numbers; by default the usual."""
    best, best_score = default, (0, 0.0)
    for candidate in dict.fromkeys((default, ",", ";", "\t", "|")):
        counts, numbers, cells = set(), 0, 0
        try:
            for row in csv.reader(sample, delimiter=candidate):
                if row:
                    counts.add(len(row))
                    cells += len(row)
                    numbers += sum(_is_number(cell, candidate) for cell in row)
        except csv.Error:
            continue
        if len(counts) != 1 or counts == {1}:
            continue
        score = (1, numbers / cells)
        if score > best_score:
            best, best_score = candidate, score
    return best


def _is_number(cell: str, delimiter: str) -> bool:
    if number(cell) is not None:
        return True
    return delimiter != "," and _DECIMAL_COMMA.fullmatch(cell.strip()) is not None


def _cells(
    file: SourceFile, numbered: Sequence[tuple[int, str]], delimiter: str
) -> tuple[list[str], list[list[str]], list[int]]:
    quoted = _parsed(file, numbered, delimiter, csv.QUOTE_MINIMAL)
    if isinstance(quoted, str) and delimiter == "\t":
        # Many programs write tabs without quoting: then a quotation mark is a letter.
        plain = _parsed(file, numbered, delimiter, csv.QUOTE_NONE)
        if not isinstance(plain, str):
            return plain
    if isinstance(quoted, str):
        raise ValueError(quoted)
    return quoted


def _parsed(
    file: SourceFile, numbered: Sequence[tuple[int, str]], delimiter: str, quoting: Any
) -> tuple[list[str], list[list[str]], list[int]] | str:
    """Header, rows and their lines; or, in words, why they cannot be parsed."""
    header: list[str] = []
    rows: list[list[str]] = []
    numbers: list[int] = []
    skipped = numbered[0][0] - 1 if numbered else 0
    previous = csv.field_size_limit(LONGEST_LINE)
    texts: Iterable[str] = (line for _, line in numbered)
    reader = csv.reader(texts, delimiter=delimiter, strict=True, quoting=quoting)
    try:
        for row in reader:
            place = f"{file.name}, line {reader.line_num + skipped}"
            if not header:
                header = row
            elif len(row) == len(header):
                rows.append(row)
                numbers.append(reader.line_num + skipped)
            elif row:
                return f"{place}: Expected {len(header)} fields as in the header; got {len(row)}"
    except csv.Error as error:
        place = f"{file.name}, line {reader.line_num + skipped}"
        return f"{place}: Expected CSV; got {error} (is the file cut?)"
    finally:
        csv.field_size_limit(previous)
    return header, rows, numbers


def _table(
    name: str,
    header: list[str],
    rows: list[list[str]],
    numbers: list[int],
    numbered: Sequence[tuple[int, str]],
    delimiter: str,
) -> Table:
    notes: list[str] = []
    indices: tuple[str, ...] = ()
    if header and rows and all(number(cell) is not None for cell in header):
        counted = [cell.strip() for cell in header] in (
            [str(place + first) for place in range(len(header))] for first in (0, 1)
        )
        whole = all(cell.strip().lstrip("+-").isdigit() for row in rows for cell in row)
        if counted and whole:
            refuse(
                f"{name}, line {numbers[0] - 1}",
                "a header of names, or numbers that cannot be one",
                f"{delimiter.join(header)}: name the columns",
            )
        if not counted:
            rows = [header, *rows]
            numbers = [next(at for at, line in numbered if line.strip()), *numbers]
            header = [f"column {place}" for place in range(1, len(header) + 1)]
            notes.append(f"{name}: no header, the first line is a row")
    elif header and header[0].strip() == "" and len(header) > 1:
        header = ["Unnamed: 0", *header[1:]]  # what pandas calls the index that it saved
        indices = ("Unnamed: 0",)
    refuse_repeated(header, f"{name}: Expected distinct fields in the header")
    columns: dict[str, list[str]] = {
        field: [row[place] for row in rows] for place, field in enumerate(header)
    }
    if delimiter != ",":
        columns, comma = _with_points(columns)
        notes += [f"{name}: decimal commas in {', '.join(comma)}"] if comma else []
    if numbered and not numbered[-1][1].endswith("\n"):
        _refuse_cut(name, columns, numbers)
    return Table(name, columns, numbers, "line", indices, tuple(notes))


def _with_points(columns: dict[str, list[str]]) -> tuple[dict[str, list[str]], list[str]]:
    """Decimal commas of whole columns as points, and the names of these columns."""
    found, changed = {}, []
    for field, cells in columns.items():
        commas = sum(_DECIMAL_COMMA.fullmatch(cell.strip()) is not None for cell in cells)
        if commas and all(_is_number(cell, ";") and "." not in cell for cell in cells):
            found[field] = [cell.replace(",", ".") for cell in cells]
            changed.append(field)
        else:
            found[field] = cells
    return found, changed


def _refuse_cut(name: str, columns: dict[str, list[str]], numbers: Sequence[int]) -> None:
    """Refuse a last number that lacks most of its digits, and the end of its line."""
    if len(numbers) < _CUT_ROWS:
        return
    *above, last = list(columns.values())[-1]
    if number(last) is None or any(number(cell) is None for cell in above):
        return
    shortest = min(len(cell.strip()) for cell in above)
    if len(last.strip()) <= shortest - _CUT_LETTERS:
        refuse(
            f"{name}, line {numbers[-1]}",
            f"a number of some {shortest} letters as above it",
            f"{last!r} and no end of the line: is the file cut?",
        )


def _number_lines(name: str, kept: Sequence[tuple[int, str]]) -> Table | None:
    """Rows of numbers between spaces, tabs, commas or semicolons; None where lines are texts."""
    body = [(at, line) for at, line in kept if not line.lstrip().startswith("#")]
    if not body:
        return None
    split = next((parts for parts in _SPLITS if _all_numbers(parts(body[-1][1]))), None)
    if split is None:
        return None
    cells = [(at, split(line)) for at, line in body]
    wrong = [at for at, parts in cells if not _all_numbers(parts)]
    header: list[str] = []
    if wrong == [body[0][0]] and len(body) > 1:
        header, cells = cells[0][1], cells[1:]
        wrong = []
    if 2 * len(wrong) > len(body):
        return None
    width = len(cells[0][1])
    for at, parts in cells:
        if at in wrong or len(parts) != width:
            got = len(parts) if at not in wrong else "a line of other things"
            refuse(f"{name}, line {at}", f"{width} numbers as above it", got)
    refuse_repeated(header, f"{name}: Expected distinct fields in the header")
    if len(header) != width:
        header = [f"column {place}" for place in range(1, width + 1)]
    columns = {field: [parts[place] for _, parts in cells] for place, field in enumerate(header)}
    return Table(name, columns, [at for at, _ in cells], "line")


def _all_numbers(cells: Sequence[str]) -> bool:
    return bool(cells) and all(number(cell) is not None for cell in cells)


_SPLITS = (
    str.split,
    lambda line: line.split(","),
    lambda line: line.split(";"),
    lambda line: line.split("\t"),
)


def as_numbers(cells: Sequence[Any] | np.ndarray) -> np.ndarray | int:
    """Numbers (n,) of a column; or the first index (from 0) that holds none.

    Truth values are none, and neither are digits of other alphabets.
    """
    found = np.empty(len(cells))
    for index, cell in enumerate(cells):
        value = number(cell) if isinstance(cell, str) else _plain(cell)
        if value is None:
            return index
        found[index] = value
    return found


def _plain(cell: Any) -> float | None:
    if isinstance(cell, bool | np.bool_ | complex | np.complexfloating | list | np.ndarray):
        return None
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return None
