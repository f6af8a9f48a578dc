"""How results leave rbpp: in the user's units, as a table or as JSON."""

from __future__ import annotations

import html
import json
import math
import re
import sys
import textwrap
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from rbpp import terminal, wording
from rbpp.checks import VERDICTS
from rbpp.inference_data import InferenceData, Term, replace_group, terms_group, terms_of
from rbpp.variables import VARIABLES

Units = Literal["nats", "bits"]
_COMPARED = {"left", "right", "slack", "slack_sd", "slack_mcse"}
_STYLES = {
    "violated": "bold red",
    "undecided": "yellow",
    "unknown": "yellow",
    "holds": "green",
}
_VERSIONED = ("torch", "pyro-ppl", "arviz", "xarray", "numpy")


def convert(
    data: InferenceData, units: Units = "nats", rows: Mapping[str, int] | None = None
) -> InferenceData:
    """A copy of `data` whose information is in `units`, and per row where `rows` is given.

    Only variables in nats change, their Monte Carlo errors with them; shares, distances and losses
    stay, and so does what already is per row (the KL gap, the information of paired rows).

    Args:
        data: InferenceData in nats and per data set, as everything in rbpp.
        units: nats, or bits (nats divided by log 2).
        rows: row count of the data sets `anchor` and `synthetic`, to divide by, or of a variable's
            own rows under its name.
    """
    terms = terms_of(data)
    converted = {}
    for name, term in terms.data_vars.items():
        if term.attrs.get("units") == "nats":
            scale, shown = _scale(str(name), units, rows)
            converted[name] = (term * scale).assign_attrs({**term.attrs, "units": shown})
    return replace_group(data, terms_group(data), terms.assign(converted))


def convert_audit(
    audit: Sequence[Mapping[str, Any]], units: Units = "nats", rows: Mapping[str, int] | None = None
) -> list[dict[str, Any]]:
    """Audit entries in the units of the terms that they compare; see `convert`.

    An entry that `bounds` a variable in nats has both sides and the slack in nats.
    """
    converted = []
    for entry in audit:
        described = VARIABLES.get(str(entry.get("bounds")))
        if described is None or described.units != "nats":
            converted.append(dict(entry))
            continue
        scale, _ = _scale(str(entry["bounds"]), units, rows)
        converted.append(
            {
                key: value * scale if key in _COMPARED and value is not None else value
                for key, value in entry.items()
            }
        )
    return converted


def _scale(name: str, units: Units, rows: Mapping[str, int] | None) -> tuple[float, str]:
    """What to multiply a variable in nats by, and its units then."""
    described = VARIABLES.get(name)
    count = None
    if rows and described and described.rows:
        count = rows.get(name, rows.get(described.rows))
    factor = 1 / math.log(2) if units == "bits" else 1.0
    return factor / (count or 1), units if count is None else f"{units} per row"


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
        below = self.below or [()] * len(rest)
        text = [first]
        for line, under in zip(rest, below, strict=True):
            text += [line, *(f"    {one}" for one in under)]
        return "\n".join(text)

    def __rich_console__(self, console: Any, options: Any) -> Any:
        from rich import box
        from rich.table import Table as Grid
        from rich.text import Text

        heading, *rest = [[terminal.visible(cell) for cell in line] for line in self.lines]
        widths = _fitted(list(zip(heading, *rest, strict=True)), options.max_width)
        if widths is None:
            yield from (Text(line) for line in self._stacked(options.max_width))
            return
        grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
        for position, name in enumerate(heading):
            right = _is_right([line[position] for line in rest], position)
            grid.add_column(
                Text(name),
                justify="right" if right else "left",
                width=widths[position],
                overflow="fold",
            )
        for line, under in zip(rest, self.below or [()] * len(rest), strict=True):
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
        for line, under in zip(rest, self.below or [()] * len(rest), strict=True):
            cells = [f"{name} {cell}" for name, cell in zip(heading[1:], line[1:], strict=True)]
            found += [line[0], *_wrapped("; ".join(cells), width, 2)]
            found += [part for one in under for part in _wrapped(one, width, 4)]
        return [terminal.visible(line) for line in found]

    def _repr_html_(self) -> str:
        heading, *rest = self.lines
        head = "".join(f"<th scope='col'>{html.escape(cell)}</th>" for cell in heading)
        body = ""
        for line, under in zip(rest, self.below or [()] * len(rest), strict=True):
            cells = [html.escape(cell) for cell in line]
            cells[0] += "".join(f"<br><small>{html.escape(one)}</small>" for one in under)
            body += "".join(["<tr>", *(f"<td>{cell}</td>" for cell in cells), "</tr>"])
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


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

    def __str__(self) -> str:
        return "\n".join(text for text, _ in self._lines(None))

    def __rich_console__(self, console: Any, options: Any) -> Any:
        from rich.text import Text

        for text, style in self._lines(options.max_width):
            yield Text(terminal.visible(text), style=style)

    def _repr_html_(self) -> str:
        head = "".join(f"<th scope='col'>{html.escape(cell)}</th>" for cell in self.heading)
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
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"

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
            notes.append(f"{wording.count(self.left, 'more term')} (--all shows them)")
        for note in notes:
            found += [
                (part, "dim") for part in ([note] if width is None else _wrapped(note, width))
            ]
        return found


Part = str | Table | Lines | Terms


def group_terms(
    table: Mapping[str, Term],
    hdi_prob: float,
    units: Mapping[str, str],
    references: Mapping[str, float] | None = None,
    also: Collection[str] = (),
) -> Terms:
    """What matters of a table of terms, in groups.

    Args:
        table: NAME to its numbers.
        hdi_prob: the probability that the table was made with.
        units: of the variables.
        references: of a name, the same number for two halves of the task.
        also: names that matter besides those that always do.
    """
    names = [
        name
        for name in table
        if (name in also or wording.is_main(name)) and not wording.is_side(name, table)
    ]
    references = references or {}
    parts: dict[str, list[list[str]]] = {title: [] for title in wording.GROUPS}
    for name in names:
        base = wording.base_name(name)
        share, described = wording.is_share(base), VARIABLES.get(base)
        value, unit = wording.term_quantity(name, table), units.get(base, "1")
        if unit != "1" and not share:
            value += f" {unit}"
        if table[name]["mcse"]:
            error = table[name]["mcse"] or 0.0
            value += f" ± {100 * error:.2g} %" if share else f" ± {error:.2g}"
        if name in references:
            value += f" [{wording.quantity(references[name], share=share)}]"
        parts[wording.group(name)].append([name, value, described.long_name if described else ""])
    known = any(wording.base_name(name) in VARIABLES for name in names)
    groups = {title if known else "": part for title, part in parts.items() if part}
    notes = [
        f"({100 * hdi_prob:g} % interval)",
        *(["± Monte Carlo error"] if any(table[name]["mcse"] for name in names) else []),
        *(["[two halves of the task]"] if set(references) & set(names) else []),
    ]
    sides = sum(wording.is_side(name, table) for name in table)
    return Terms(
        ["term", f"mean {notes[0]}", "meaning" if known else ""],
        groups,
        " ".join(["Behind a number:", *notes]) if notes[1:] else "",
        len(table) - len(names) - sides,
    )


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


def format_terms(
    table: Mapping[str, Term], hdi_prob: float, units: Mapping[str, str] | None = None
) -> Table:
    """The terms of `rbpp.inference_data.term_table`, one a line.

    Args:
        table: NAME to its numbers.
        hdi_prob: the probability that the table was made with.
        units: NAME (without any label in brackets) to its units.
    """
    percent = f"{100 * hdi_prob:g} %"
    lines = [["term", "mean", "sd", f"{percent} low", f"{percent} high", "mcse", "units"]]
    for name, term in table.items():
        numbers = [term[key] for key in ("mean", "sd", "hdi_low", "hdi_high", "mcse")]
        unit = (units or {}).get(name.partition("[")[0], "")
        lines.append([name, *map(_short, numbers), "" if unit == "1" else unit])
    return Table(lines)


def violated_and_rest(audit: Sequence[Mapping[str, Any]]) -> list[Part]:
    """The violated checks, and the others counted in one line."""
    violated = [entry for entry in audit if entry.get("verdict") == "violated"]
    counts = dict.fromkeys(VERDICTS, 0)
    for entry in audit:
        counts[entry["verdict"]] += 1
    told = {"violated": "violated", "undecided": "undecided", "unknown": "unknown", "holds": "hold"}
    rest = [f"{number} {told[key]}" for key, number in counts.items() if number]
    line = f"{wording.count(len(audit), 'check')}: {', '.join(rest)}"
    more = "" if len(violated) == len(audit) else " (--all shows each)"
    return [*([format_audit(violated)] if violated else []), Lines([f"{line}{more}."])]


def format_audit(audit: Sequence[Mapping[str, Any]]) -> Table:
    """Checks as JSON has them, a line each, the violated first.

    What was seen and what a check rests on stand below its line.
    """
    ordered = sorted(audit, key=_severity)
    head = [[_short(entry.get(key)) for key in ("statement", "verdict")] for entry in ordered]
    return Table([["check", "verdict"], *head], [_seen(entry) for entry in ordered], verdicts=1)


def _severity(entry: Mapping[str, Any]) -> int:
    verdict = entry.get("verdict")
    return VERDICTS.index(verdict) if verdict in VERDICTS else len(VERDICTS)


def _seen(entry: Mapping[str, Any]) -> list[str]:
    seen = [_compared(entry)] if "slack" in entry else []
    if entry.get("message"):
        seen.append(" ".join(str(entry["message"]).split()))
    for one in entry.get("assumptions", ()):
        message = f" ({one['message']})" if one.get("message") else ""
        seen.append(f"{one['verdict']}: {one['statement']}{message}")
    return seen


def _compared(entry: Mapping[str, Any]) -> str:
    """Both sides of a bound and its slack, in the units that they were converted to."""
    left, right = entry.get("bounds", "left"), entry.get("by", "right")
    spread = entry.get("slack_sd")
    noise = "" if spread is None or math.isnan(spread) else f" ± {_short(spread)}"
    return (
        f"{left} {_short(entry.get('left'))} ≤ {right} {_short(entry.get('right'))}, slack "
        f"{_short(entry['slack'])}{noise}, P(holds) {_short(entry.get('probability_holds'))}"
    )


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


def to_json(value: Any) -> str:
    """Strict JSON on one line: nan and infinities become null, arrays become lists.

    >>> to_json({"mean": float("nan"), "count": 3})
    '{"mean": null, "count": 3}'
    """
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)


def versions() -> dict[str, str]:
    """Versions of rbpp, Python and the libraries that the numbers depend on."""
    import platform

    import rbpp

    found = {"rbpp": rbpp.__version__, "python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # arrays, tensors and their scalars
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def _short(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float) and math.isnan(value):
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


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
