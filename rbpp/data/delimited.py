"""Tables of text: what stands between the fields, whether there is a header, what is a number."""

from __future__ import annotations

import contextlib
import csv
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

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
_DELIMITERS = (" ", ",", ";", "\t", "|")
_WHOLE = re.compile(r"[+-]?\d+")
_BRACKETS = re.compile(r"\s*(\[[^][]*\]|\([^()]*\))\s*,?\s*")
_LIBSVM = re.compile(r"\S+(\s+\d+:\S+)+\s*(#.*)?")
# A word at the head of its column is one of its values where it is there so often below.
_REPEATED, _REPEATED_SHARE = 2, 50


Numbered = Sequence[tuple[int, str]]  # lines with their numbers, from 1


class Cells(NamedTuple):
    """Cells of a table of text, and the line of every row."""

    header: list[str]
    rows: list[list[str]]
    numbers: list[int]


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
    numbered = _lines(file)
    with guarded(file.name, "CSV"):
        delimiter = "\t" if file.suffix == ".tsv" else ","
        if numbered and (found := re.fullmatch(r"sep=(.)\s*", numbered[0][1])):
            delimiter, numbered = found[1], numbered[1:]  # for Excel, in front of the header
        elif numbered:
            numbered = _without_comments(numbered)
            _refuse_one_or_two(file.name, numbered)
            delimiter = _delimiter([line for _, line in numbered[:_LOOKED_AT]], delimiter)
        if delimiter == " ":
            numbered = [
                (at, " ".join(line.split()) + "\n" * line.endswith("\n")) for at, line in numbered
            ]
        cells = _cells(file, numbered, delimiter)
    return _table(file.name, cells, numbered, delimiter)


def read_text(file: SourceFile) -> Table:
    """A text a line, or rows of numbers as `numpy.savetxt` and R's `write.table` write them."""
    numbered = _lines(file)
    kept = [(at, line.rstrip("\r\n")) for at, line in numbered if line.strip()]
    found = _table_in_text(file.name, kept, numbered)
    if found is not None:
        return found
    return Table(file.name, {"text": [line for _, line in kept]}, [at for at, _ in kept], "line")


def _lines(file: SourceFile) -> list[tuple[int, str]]:
    """Lines with their numbers; those of old spreadsheets end with a carriage return alone."""
    numbered = list(lines(file))
    if len(numbered) == 1 and "\r" in (text := numbered[0][1]).rstrip("\r\n"):
        return list(enumerate((f"{line}\n" for line in text.rstrip("\r\n").split("\r")), 1))
    return numbered


def _without_comments(numbered: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Lines from the header on: of comments in front of it the last may be the header."""
    first = next((place for place, (_, line) in enumerate(numbered) if line[:1] != "#"), 0)
    if first == 0:
        return numbered
    below = numbered[first][1]
    at, last = numbered[first - 1]
    names = last.lstrip("# ")
    for delimiter in _DELIMITERS:
        width = len(_fields(below, delimiter))
        if width > 1 and len(_fields(names, delimiter)) == width:
            if any(_is_number(cell, delimiter) for cell in _fields(below, delimiter)):
                return [(at, names), *numbered[first:]]
            # Names stand below, or these are: a text that begins so is no comment.
            return numbered[first:] if first > 1 else numbered
    return numbered[first:]


def _refuse_one_or_two(name: str, numbered: Numbered) -> None:
    """Refuse lines such as 0,126 that are a decimal comma each, or two whole numbers."""
    kept = [(at, line.strip()) for at, line in numbered if line.strip()]
    if len(kept) < 2 or not all(_DECIMAL_COMMA.fullmatch(line) for _, line in kept):
        return
    parts = [line.partition(",")[2] for _, line in kept]
    if any(part[0] == "0" and len(part) > 1 for part in parts):
        refuse(
            f"{name}, line {kept[0][0]}",
            "a header, or numbers that can be read in one way",
            f"{kept[0][1]!r}, one number or two: write decimals behind a point",
        )


def _fields(line: str, delimiter: str) -> list[str]:
    """The fields of a line, quoted or not; spaces may stand several together."""
    text = " ".join(line.split()) if delimiter == " " else line
    try:
        return next(csv.reader([text], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:
        return [text]


def _delimiter(sample: Sequence[str], default: str) -> str:
    """What parts the lines into as many fields each, most of them numbers; by default the usual."""
    best, best_score = default, (0, 0.0)
    for candidate in dict.fromkeys((default, *_DELIMITERS)):
        counts, numbers, cells = [], 0, 0
        spaces = candidate == " "
        texts = [" ".join(line.split()) for line in sample] if spaces else sample
        try:
            for row in csv.reader(texts, delimiter=candidate):
                if row:
                    counts.append(len(row))
                    cells += len(row)
                    numbers += sum(_is_number(cell, candidate) for cell in row)
        except csv.Error:
            continue
        # Above a column of names of rows there may be nothing.
        widths = set(counts[1:]) if counts[0:1] == [counts[-1] - 1] else set(counts)
        if len(widths) != 1 or widths == {1}:
            continue
        score = (1, numbers / cells)
        if score > best_score and (not spaces or 2 * numbers > cells):
            best, best_score = candidate, score
    return best


def _is_number(cell: str, delimiter: str) -> bool:
    if number(cell) is not None:
        return True
    return delimiter != "," and _DECIMAL_COMMA.fullmatch(cell.strip()) is not None


def _cells(file: SourceFile, numbered: Numbered, delimiter: str) -> Cells:
    try:
        return _parsed(file, numbered, delimiter, csv.QUOTE_MINIMAL)
    except ValueError:
        # Many programs write tabs without quoting: then a quotation mark is a letter.
        if delimiter == "\t":
            with contextlib.suppress(ValueError):
                return _parsed(file, numbered, delimiter, csv.QUOTE_NONE)
        raise


def _parsed(file: SourceFile, numbered: Numbered, delimiter: str, quoting: Any) -> Cells:
    header: list[str] = []
    rows: list[list[str]] = []
    numbers: list[int] = []
    skipped = numbered[0][0] - 1 if numbered else 0
    previous = csv.field_size_limit(LONGEST_LINE)
    text = (line for _, line in numbered)
    reader = csv.reader(text, delimiter=delimiter, strict=True, quoting=quoting)
    try:
        for row in reader:
            place = f"{file.name}, line {reader.line_num + skipped}"
            if not header:
                header = row
                continue
            if not rows and len(row) == len(header) + 1 and _named_row(row, delimiter):
                header = ["", *header]
            if len(row) == len(header):
                rows.append(row)
                numbers.append(reader.line_num + skipped)
            elif row:
                raise ValueError(
                    f"{place}: Expected {len(header)} fields as in the header; got {len(row)}"
                )
    except csv.Error as error:
        place = f"{file.name}, line {reader.line_num + skipped}"
        raise ValueError(f"{place}: Expected CSV; got {error} (is the file cut?)") from None
    finally:
        csv.field_size_limit(previous)
    return Cells(header, rows, numbers)


def _named_row(row: Sequence[str], delimiter: str) -> bool:
    """Whether a row may be a name and numbers, as R writes them below a header of numbers alone."""
    return len(row) > 2 and all(_is_number(cell, delimiter) for cell in row[1:])


def _table(name: str, cells: Cells, numbered: Numbered, delimiter: str) -> Table:
    notes: list[str] = []
    indices: tuple[str, ...] = ()
    header, rows, numbers = cells
    header = [cell.strip() for cell in header]
    if len(header) > 1 and header[-1] == "" and not any(row[-1].strip() for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]  # a delimiter ends every line
    if rows and _is_row(name, Cells(header, rows, numbers), delimiter):
        rows = [header, *rows]
        numbers = [next(at for at, line in numbered if line.strip()), *numbers]
        header = [f"column {place}" for place in range(1, len(header) + 1)]
        notes.append(f"{name}: no header, the first line is a row")
    elif header and header[0] == "" and len(header) > 1:
        header = ["Unnamed: 0", *header[1:]]  # what pandas calls the index that it saved
        indices = ("Unnamed: 0",)
    refuse_repeated(header, f"{name}: Expected distinct fields in the header")
    columns = {field: [row[place] for row in rows] for place, field in enumerate(header)}
    if delimiter != ",":
        columns, comma = _with_points(columns)
        notes += [f"{name}: decimal commas in {', '.join(comma)}"] if comma else []
    if numbered and not numbered[-1][1].endswith("\n"):
        _refuse_cut(name, columns, numbers)
    return Table(name, columns, numbers, "line", indices=indices, notes=tuple(notes))


def _is_row(name: str, cells: Cells, delimiter: str) -> bool:
    """Whether the first line is a row and no header; refused where it may be either."""
    header, rows, numbers = cells
    known = [cell for cell in header if _is_number(cell, delimiter)]
    whole = [cell for cell in known if _WHOLE.fullmatch(cell)]
    words = [place for place, cell in enumerate(header) if cell and cell not in known]
    # A word that the column below it holds again and again is one of its values.
    repeated = [
        header[place]
        for place in words
        if sum(row[place].strip() == header[place] for row in rows)
        >= max(_REPEATED, len(rows) / _REPEATED_SHARE)
    ]
    if len(whole) < len(known):  # no column is called 0.126
        return True
    if not known and not repeated:
        return False
    below = [
        row[place].strip() for place, cell in enumerate(header) if cell in known for row in rows
    ]
    counted = [int(cell) for cell in whole]
    steps = len(whole) > 1 and set(np.diff(counted).tolist()) == {1}
    others = len(known) > 1 and not any(_WHOLE.fullmatch(cell) for cell in below)
    years = steps and len(known) > 2 and words
    if known and not repeated and ((others and (steps or len(rows) >= _CUT_ROWS)) or years):
        return False  # whole numbers that count are names, and so are those above fractions
    if known and (repeated or not (steps or words)):
        return True
    refuse(
        f"{name}, line {numbers[0] - 1}",
        "a header of names, or numbers that cannot be one",
        f"{delimiter.join(header)}: name the columns in the first line",
    )


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


def _table_in_text(name: str, kept: Numbered, numbered: Numbered) -> Table | None:
    """Rows most of whose fields are numbers; None where lines are texts."""
    body = [(at, line) for at, line in kept if not line.lstrip().startswith("#")]
    if body and all(_BRACKETS.fullmatch(line) for _, line in body):
        body = [(at, line.strip(" ,")[1:-1]) for at, line in body]
    sample = [line for _, line in body[:_LOOKED_AT]]
    best, width, best_score = "", 0, (0.0, 0)
    for candidate in _DELIMITERS:
        cells = [_fields(line, candidate) for line in sample]
        (found, _), *_ = Counter(map(len, cells)).most_common(1) or [(0, 0)]
        counts = [_numbers_in(row, candidate) for row in cells if len(row) == found]
        good = [count for count in counts if 2 * count > found]
        score = (sum(good) / max(found * len(good), 1), found)
        if 2 * len(good) > len(sample) and score > best_score:
            best, width, best_score = candidate, found, score
    if not width:
        if sample and all(_LIBSVM.fullmatch(line) for line in sample):
            refuse(name, "a table of numbers", "LIBSVM's format: save it as an array (.npy)")
        return None
    _refuse_one_or_two(name, body)
    rows = [_fields(line, best) for _, line in body]
    numbers = [at for at, _ in body]
    header = [f"column {place}" for place in range(1, width + 1)]
    first = next(iter(kept))[1].lstrip()
    if first.startswith("#") and len(given := _fields(first.lstrip("# "), best)) == width:
        header = given if not _numbers_in(given, best) else header
    elif len(rows) > 1 and 2 * _numbers_in(rows[0], best) <= len(rows[0]):
        header, rows, numbers = rows[0], rows[1:], numbers[1:]
        header = ["", *header] if len(header) == width - 1 else header
    for at, row in zip(numbers, rows, strict=True):
        if len(row) != width:
            refuse(f"{name}, line {at}", f"{width} numbers as in other lines", len(row))
        if 2 * _numbers_in(row, best) <= width:
            refuse(f"{name}, line {at}", f"{width} numbers as in other lines", "other things")
    if len(header) != width:
        refuse(f"{name}, line {body[0][0]}", f"{width} names as there are numbers", len(header))
    if header[0] == "column 1":
        columns = dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))
        columns = columns if best == "," else _with_points(columns)[0]
        return Table(name, columns, numbers, "line")
    return _table(name, Cells(header, rows, numbers), numbered, best)


def _numbers_in(cells: Sequence[str], delimiter: str) -> int:
    return sum(_is_number(cell, delimiter) for cell in cells)


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
