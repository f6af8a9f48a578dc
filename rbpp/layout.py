"""Tables and sentences as a terminal, a pipe and a notebook show them."""

from __future__ import annotations

import html
import re
import sys
import textwrap
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rbpp import terminal, wording

Item = TypeVar("Item")
_STYLES = {
    "violated": "bold red",
    "undecided": "yellow",
    "unknown": "yellow",
    "holds": "green",
}


@dataclass(frozen=True)
class Table:
    """Rows of text: aligned columns as a string, and a table with colours on a terminal.

    Attributes:
        lines: cells by line, the heading first.
        below: for every line but the heading, what stands under it.
        verdicts: position of the column whose words are verdicts; None where there is none.

    >>> print(Table([["term", "mean"], ["kl_gap", "0.5"], ["ggmi", "-12"]]))
    term    mean
    kl_gap   0.5
    ggmi     -12
    """

    lines: Sequence[Sequence[str]]
    below: Sequence[Sequence[str]] = ()
    verdicts: int | None = None

    def __str__(self) -> str:
        first, *rest = align(self.lines).split("\n")
        text = [first]
        for line, under in self._with_below(rest):
            text += [line, *(f"    {one}" for one in under)]
        return "\n".join(text)

    def _with_below(self, lines: Sequence[Item]) -> Iterator[tuple[Item, Sequence[str]]]:
        """Lines but the heading, each with what stands under it."""
        return zip(lines, self.below or [()] * len(lines), strict=True)

    def __rich_console__(self, console: Any, options: Any) -> Any:
        from rich import box
        from rich.table import Table as Grid
        from rich.text import Text

        heading, *rest = [[terminal.visible(cell) for cell in line] for line in self.lines]
        widths = _fitted(list(zip(heading, *rest, strict=True)), options.max_width)
        if widths is None:
            yield from (Text(line) for line in self._stacked(options.max_width))
            return
        longest = max((_width(one) + 2 for below in self.below for one in below), default=0)
        rest_of_room = options.max_width - sum(widths[1:]) - 3 * (len(widths) - 1)
        widths[0] = max(widths[0], min(longest, rest_of_room))
        grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
        for position, name in enumerate(heading):
            right = _is_right([line[position] for line in rest], position)
            grid.add_column(
                Text(name),
                justify="right" if right else "left",
                width=widths[position],
                overflow="fold",
            )
        for line, under in self._with_below(rest):
            cells = [Text(cell) for cell in line]
            for one in under:
                cells[0].append(f"\n  {terminal.visible(one)}", style="dim")
            if self.verdicts is not None:
                cells[self.verdicts].stylize(_STYLES.get(line[self.verdicts], ""))
            grid.add_row(*cells)
        yield grid

    def _stacked(self, width: int) -> list[str]:
        """A paragraph for every line, where the columns do not fit side by side."""
        heading, *rest = self.lines
        found = []
        for line, under in self._with_below(rest):
            cells = [f"{name} {cell}" for name, cell in zip(heading[1:], line[1:], strict=True)]
            found += [line[0], *_wrapped("; ".join(cells), width, 2)]
            found += [part for one in under for part in _wrapped(one, width, 4)]
        return [terminal.visible(line) for line in found]

    def _repr_html_(self) -> str:
        heading, *rest = self.lines
        body = ""
        for line, under in self._with_below(rest):
            cells = [html.escape(cell) for cell in line]
            cells[0] += "".join(f"<br><small>{html.escape(one)}</small>" for one in under)
            body += "".join(["<tr>", *(f"<td>{cell}</td>" for cell in cells), "</tr>"])
        return _html_table(heading, body)


@dataclass(frozen=True)
class Lines:
    """Sentences, a line each: as they are, or wrapped at the width of a terminal.

    What stands before two spaces is the sentence's subject: the rest stays in its column.
    """

    lines: Sequence[str]

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def __rich_console__(self, console: Any, options: Any) -> Any:
        from rich.text import Text

        for line in self.lines:
            subject = re.match(r"\S.{0,40}?\s{2,}", line)
            column = len(subject[0]) if subject and options.max_width > 70 else 2
            wrapped = [
                part
                for one in line.split("\n")
                for part in _wrapped(one, options.max_width, 0, column)
            ]
            text = Text("\n".join(wrapped))
            if subject:
                text.stylize("bold", 0, len(subject[0]))
            yield text

    def _repr_html_(self) -> str:
        return f"<ul>{''.join(f'<li>{html.escape(line)}</li>' for line in self.lines)}</ul>"


@dataclass(frozen=True)
class Terms:
    """Terms in groups: aligned as a string, fitted to the width of a terminal, or HTML.

    Attributes:
        heading: of the columns: term, value, meaning.
        groups: title to its lines, each as long as the heading.
        note: what the brackets say.
        left: how many terms are left out.
        hint: in brackets, what shows them.

    >>> line = ["kl_gap", "0.5 (0.2 to 0.8) nats", "KL gap"]
    >>> print(Terms(["term", "mean", "meaning"], {"divergence": [line]}))
    term      mean                   meaning
    divergence
      kl_gap  0.5 (0.2 to 0.8) nats  KL gap
    """

    heading: Sequence[str]
    groups: Mapping[str, Sequence[Sequence[str]]]
    note: str = ""
    left: int = 0
    hint: str = ""

    def __str__(self) -> str:
        return "\n".join(text for text, _ in self._lines(None))

    def __rich_console__(self, console: Any, options: Any) -> Any:
        from rich.text import Text

        for text, style in self._lines(options.max_width):
            yield Text(terminal.visible(text), style)

    def _repr_html_(self) -> str:
        body = ""
        for title, lines in self.groups.items():
            if title:
                span = len(self.heading)
                body += f"<tr><th colspan='{span}' scope='rowgroup'>{html.escape(title)}</th></tr>"
            for line in lines:
                name, value, meaning = map(html.escape, line)
                body += f"<tr><td>{name}</td><td style='white-space:nowrap'>{value}</td>"
                body += f"<td>{meaning}</td></tr>"
        note = f"<p>{html.escape(self.note)}</p>" if self.note else ""
        return _html_table(self.heading, body) + note

    def _lines(self, width: int | None) -> list[tuple[str, str]]:
        """Lines of text with their styles; what is too wide for one line goes on below it."""
        indent = "  " if any(self.groups) else ""
        lines = [[indent + line[0], *line[1:]] for part in self.groups.values() for line in part]
        columns = list(zip(self.heading[:-1], *(line[:-1] for line in lines), strict=True))
        wide = [max(map(_width, column)) for column in columns]
        beside = sum(wide) + 2 * len(wide)
        longest = max((_width(line[-1]) for line in lines), default=0)
        fits = width is None or beside + longest <= width
        narrow = width is not None and beside - 2 > width

        def laid(line: Sequence[str], style: str) -> list[tuple[str, str]]:
            meaning = _wrapped(line[-1], width or 0, len(indent) + 2) if not fits else []
            below = [(part, "dim") for part in meaning]
            if narrow:
                return [(line[0], style), (f"    {'  '.join(line[1:-1])}", ""), *below]
            cells = [
                cell + " " * (size - _width(cell))
                for cell, size in zip(line[:-1], wide, strict=True)
            ]
            return [("  ".join([*cells, line[-1] if fits else ""]).rstrip(), style), *below]

        found = laid([*self.heading[:-1], self.heading[-1] if fits else ""], "bold")[: 1 + narrow]
        for title, part in self.groups.items():
            found += [(title, "bold cyan")] if title else []
            for line in part:
                found += laid([indent + line[0], *line[1:]], "")
        notes = [self.note] if self.note else []
        if self.left:
            notes.append(f"{wording.count(self.left, 'more term')}{self.hint}")
        for note in notes:
            found += [
                (part, "dim") for part in ([note] if width is None else _wrapped(note, width))
            ]
        return found


Part = str | Table | Lines | Terms


def show(parts: Sequence[Part]) -> None:
    """Print to standard output: plain text, or on a terminal with its width and colours."""
    if not sys.stdout.isatty():
        print(terminal.visible("\n\n".join(map(str, parts))), flush=True)
        return
    console = terminal.console(sys.stdout)
    for place, part in enumerate(parts):
        if place:
            console.print()
        if not isinstance(part, str):
            console.print(part)
        else:  # set by whoever wrote it: the terminal breaks what is too long
            console.print(terminal.visible(part), markup=False, soft_wrap=True)


def align(lines: Sequence[Sequence[str]]) -> str:
    """Columns side by side: numbers to the right, the first column and words to the left."""
    columns = list(zip(*lines, strict=True))
    padded = []
    for position, column in enumerate(columns):
        wide = max(map(_width, column))
        right = _is_right(column[1:], position)
        padded.append(
            [
                (" " * (wide - _width(c)) + c) if right else c + " " * (wide - _width(c))
                for c in column
            ]
        )
    return "\n".join("  ".join(line).rstrip() for line in zip(*padded, strict=True))


def _html_table(heading: Sequence[str], body: str) -> str:
    head = "".join(f"<th scope='col'>{html.escape(cell)}</th>" for cell in heading)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _wrapped(text: str, width: int, first: int = 0, then: int | None = None) -> list[str]:
    """Lines of a text at most as wide, where a percent sign stays with its number."""
    whole = terminal.visible(text).replace(" %", "\N{NO-BREAK SPACE}%")
    found = textwrap.wrap(
        whole, width, initial_indent=" " * first, subsequent_indent=" " * (then or first)
    )
    return [line.replace("\N{NO-BREAK SPACE}%", " %") for line in found]


def _fitted(columns: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """Widths of columns side by side in a room, no word broken; None where there are none."""
    widths = [max(map(_width, column)) for column in columns]
    least = [
        max(_width(word) for cell in column for word in cell.split() or [""]) for column in columns
    ]
    while sum(widths) + 3 * (len(widths) - 1) > room:
        spare = [wide - short for wide, short in zip(widths, least, strict=True)]
        if max(spare) == 0:
            return None
        widths[spare.index(max(spare))] -= 1
    return widths


def _is_right(cells: Sequence[str], position: int) -> bool:
    return position > 0 and all(map(_is_number, cells))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell in ("–", "")
    return True


def _width(text: str) -> int:
    return sum(not unicodedata.combining(character) for character in text)
