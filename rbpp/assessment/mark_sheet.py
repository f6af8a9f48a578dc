"""Marks of a sheet, asked for one by one in a terminal."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rbpp.files import written_whole

_ANSWERS = {"y": "1", "yes": "1", "1": "1", "n": "0", "no": "0", "0": "0", "s": "", "skip": ""}


@dataclass(frozen=True)
class Sheet:
    """A sheet of rows to mark, as `rbpp.assessment.marks.write_sheet` wrote it.

    Attributes:
        path: of the file.
        columns: in their order.
        lines: by column.
        delimiter: between cells.
    """

    path: Path
    columns: tuple[str, ...]
    lines: tuple[dict[str, str], ...]
    delimiter: str = ","

    @classmethod
    def read(cls, path: str | Path) -> Sheet:
        """The sheet in a file.

        Raises:
            ValueError: if the file is no such sheet.
            OSError: if it cannot be read.
        """
        name = Path(path).name
        try:
            content = Path(path).read_bytes().decode("utf-8-sig")
            # Where commas are decimal signs, spreadsheets write semicolons.
            delimiter = max(",;\t", key=content.split("\n", 1)[0].count)
            reader = csv.DictReader(io.StringIO(content, newline=""), delimiter=delimiter)
            lines = tuple({key: cell or "" for key, cell in line.items() if key} for line in reader)
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{name}: Expected a CSV file in UTF-8; got {error}") from None
        columns = tuple(reader.fieldnames or ())
        if not lines or not {"row", "off_task"} <= set(columns):
            got = ", ".join(columns) if lines else "no rows"
            raise ValueError(f"{name}: Expected columns row and off_task; got {got}")
        return cls(Path(path), columns, lines, delimiter)

    @property
    def count(self) -> int:
        """Rows that are marked."""
        return sum(bool(line["off_task"].strip()) for line in self.lines)

    @property
    def off_task(self) -> int:
        """Rows that are marked as off the task."""
        return sum(line["off_task"].strip() == "1" for line in self.lines)

    def marked(self, place: int, value: str) -> Sheet:
        """The sheet with the mark of one line, written to its file."""
        lines = list(self.lines)
        lines[place] = {**lines[place], "off_task": value}
        sheet = replace(self, lines=tuple(lines))
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, self.columns, delimiter=self.delimiter)
        writer.writeheader()
        writer.writerows(sheet.lines)
        with written_whole(self.path) as aside:
            aside.write_text(out.getvalue(), encoding="utf-8-sig", newline="")
        return sheet


def mark(sheet: Sheet, *, again: bool = False, ask: Callable[[str], str] | None = None) -> Sheet:
    """Ask for every row that has no mark, and write each answer at once.

    Args:
        sheet: to fill.
        again: ask also for rows that are marked.
        ask: shows its argument and returns what was answered; by default on the terminal.

    Returns:
        The sheet as far as it was filled.
    """
    ask = ask or _terminal
    asked = [i for i, line in enumerate(sheet.lines) if again or not line["off_task"].strip()]
    step = 0
    while step < len(asked):
        line = sheet.lines[asked[step]]
        shown = line.get("text") or line.get("id") or f"row {line['row']}"
        number = f"{step + 1} of {len(asked)}"
        try:
            answer = ask(f"\n[{number}]\n{shown}\n\noff the task? y/n, s skip, b back, q stop: ")
        except EOFError:
            break
        answer = answer.strip().lower()
        if answer in ("q", "quit"):
            break
        if answer in ("b", "back"):
            step = max(0, step - 1)
        elif answer in _ANSWERS:
            if _ANSWERS[answer]:
                sheet = sheet.marked(asked[step], _ANSWERS[answer])
            step += 1
    return sheet


def _terminal(question: str) -> str:
    """Ask on standard error: standard output is for the result."""
    print(question, end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer:
        raise EOFError
    return answer
