"""Reference pages that are made and not written: commands, variables, statements.

They are written into docs/ before every build, and git ignores them. This file as a command writes
them alone.
"""

from __future__ import annotations

import argparse
import re
import textwrap
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rbpp import command, variables
from rbpp.theory.statements import STATEMENTS, Statement

_UNITS = {
    "nats": "Informations, entropies and divergences",
    "loss": "Risks and their bounds",
    "1": "Shares, distances and counts",
}
_ROWS = {"anchor": "of the anchors", "synthetic": "of the synthetic data", None: "of one row"}


_VARIABLES = """\
# Variables

Every number that rbpp reports has a line here, made from the table in `rbpp/variables.toml`. In
InferenceData a variable carries its meaning, units and equation as attributes. A name may come with

- `NAME_lower`, `NAME_upper`: two sides of an estimate in nats, between which the value lies;
- `NAME_mcse`: its Monte Carlo standard error, apart from posterior spread;
- `slack_NAME`: of a bound, by how much it exceeds what it bounds.

Information is of the whole data set; `--per-row` divides by its rows, `--units bits` by log 2.
Equations are numbers of the [paper](https://arxiv.org/abs/2410.01720) where no other source is
named."""
_STATEMENTS = """\
# What each bound says

One section a statement, from the table that `rbpp bounds` audits (`rbpp/theory/statements.py`).
What it rests on is looked at in every run, each with what was measured; the verdict is *holds*,
*violated*, *undecided* (looked at, not decided at this precision) or *unknown* (could not be looked
at). A bound is vacuous where it says less than is known without it: a loss of at most C is never
above C."""


def generated(docs: Path) -> dict[str, str]:
    """Name to text of every page that is made."""
    return {
        "reference/commands/index.md": command_index(),
        **{f"reference/commands/{name}.md": command_page(name) for name in command.programs()},
        "reference/variables.md": variable_page(),
        "concepts/statements.md": statement_page(words(docs)),
    }


def write(docs: Path) -> None:
    """Write the pages, where they have changed."""
    for name, text in generated(docs).items():
        path = docs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def parser_of(name: str) -> argparse.ArgumentParser:
    """The parser of a program.

    Raises:
        ValueError: if there is no such program.
    """
    if name not in command.programs():
        raise ValueError(f"Expected a program, one of {', '.join(command.programs())}; got {name}")
    return command.parser_of(name)


def command_index() -> str:
    """All commands, a line each."""
    lines = [
        f"| [`rbpp {name}`]({name}.md) | {_escaped(text)} |"
        for name, text in command.programs().items()
    ]
    return "\n".join(
        [
            "# Commands",
            "",
            "Each page is made from the command's own parser; `rbpp NAME --help` prints the same.",
            "",
            "| command | does |",
            "|---|---|",
            *lines,
            "",
            "```{toctree}",
            ":hidden:",
            "",
            *command.programs(),
            "```",
            "",
        ]
    )


def command_page(name: str) -> str:
    """One command from its parser."""
    parser = parser_of(name)
    first, _, rest = (parser.description or "").partition("\n")
    lines = [
        f"# rbpp {name}",
        "",
        first,
        "",
        "```text",
        _usage(parser),
        "```",
        "",
        *_description(rest),
    ]
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.dest != "help"]
        if not actions:
            continue
        title = {"options": "Options", "positional arguments": "Arguments"}.get(
            group.title or "", (group.title or "")[:1].upper() + (group.title or "")[1:]
        )
        lines += ["", f"## {title}", "", "| option | what it does |", "|---|---|"]
        lines += [f"| {_spelling(parser, action)} | {_help(action)} |" for action in actions]
    lines += ["", "## Exit status", "", "```text", _exit_statuses(parser), "```", ""]
    return "\n".join(lines)


def _usage(parser: argparse.ArgumentParser) -> str:
    """The usage at a width that does not depend on a terminal, no option being cut in two."""
    text = " ".join(parser.format_usage().removeprefix("usage: ").split())
    whole = re.sub(r"\[[^\]]*\]", lambda found: found[0].replace(" ", "\0"), text)
    lines = textwrap.wrap(whole, 84, subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join(lines).replace("\0", " ")


def _exit_statuses(parser: argparse.ArgumentParser) -> str:
    return (parser.epilog or "").partition("\n")[2].rstrip()


def _description(text: str) -> list[str]:
    """Paragraphs of a docstring: indented ones are what it shows, others what it says."""
    lines: list[str] = []
    for part in text.strip("\n").split("\n\n"):
        if part.startswith("  "):
            lines += [
                "```text",
                *(line.removeprefix("  ") for line in part.splitlines()),
                "```",
                "",
            ]
        elif part.strip():
            lines += [_escaped(part.strip()), ""]
    return lines


def _spelling(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    formatter = parser._get_formatter()
    text = formatter._format_action_invocation(action)
    return ", ".join(f"`{part}`" for part in re.split(r", (?=--?\w)", text))


def _help(action: argparse.Action) -> str:
    return _escaped((action.help or "").replace("%%", "%")).replace("\n", " ")


def _escaped(text: str) -> str:
    """Text that Markdown leaves alone, outside of what is in backticks."""
    parts = re.split(r"(`[^`]*`|(?<!\S)\(?--[a-z][\w-]*)", text)
    return "".join(
        part
        if part.startswith("`")
        else _option(part) or re.sub(r"([\\*_<>\[\]|#$])", r"\\\1", part)
        for part in parts
    )


def _option(part: str) -> str:
    """An option in backticks, with the bracket before it; nothing if it is none."""
    found = re.fullmatch(r"(\(?)(--[a-z][\w-]*)", part)
    return f"{found[1]}`{found[2]}`" if found else ""


def base_variables() -> dict[str, variables.Variable]:
    """The variables themselves, without their sides, slacks and errors."""
    return {name: one for name, one in variables.VARIABLES.items() if not one.part}


def variable_page() -> str:
    """Every variable with its meaning, equation and units."""
    lines = [_VARIABLES]
    for units, title in _UNITS.items():
        lines += ["", f"## {title}", "", _head(units), _rule(units)]
        lines += [
            _variable(name, one) for name, one in base_variables().items() if one.units == units
        ]
    return "\n".join([*lines, ""])


def _head(units: str) -> str:
    last = " in nats |" if units == "nats" else ""
    return f"| variable | what it is | equation | larger is |{last}"


def _rule(units: str) -> str:
    return "|---|---|---|---|" + ("---|" if units == "nats" else "")


def _variable(name: str, one: variables.Variable) -> str:
    larger = "" if one.larger_is == "neither" else one.larger_is
    cells = [f"`{name}`{{#{name}}}", _escaped(one.meaning), _escaped(one.equation), larger]
    if one.units == "nats":
        cells.append(_ROWS[one.rows])
    return f"| {' | '.join(cells)} |"


def words(docs: Path) -> dict[str, dict[str, str]]:
    """What docs/concepts/statements.toml says of every statement in plain words."""
    return tomllib.loads((docs / "concepts" / "statements.toml").read_text(encoding="utf-8"))


def statement_page(plain: dict[str, dict[str, str]]) -> str:
    """Every statement: what it says, what it rests on, when it is vacuous.

    Raises:
        ValueError: if a statement has no words, or words no statement.
    """
    lacking, idle = set(STATEMENTS) - set(plain), set(plain) - set(STATEMENTS)
    if lacking or idle:
        raise ValueError(
            "Expected words for every statement in statements.toml, and no others; got none for "
            f"{', '.join(sorted(lacking)) or '–'}, and words without one: "
            f"{', '.join(sorted(idle)) or '–'}"
        )
    lines = [_STATEMENTS]
    for right, statement in STATEMENTS.items():
        lines += ["", *_statement(right, statement, plain[right])]
    return "\n".join([*lines, ""])


def _statement(right: str, statement: Statement, plain: dict[str, str]) -> Iterator[str]:
    yield f"## {statement.name[:1].upper()}{statement.name[1:]}"
    yield ""
    yield f"**{_variable_link(statement.left)} ≤ {_variable_link(right)}**, with"
    yield f"{_meaning(statement.left)} on the left and {_meaning(right)} on the right."
    yield ""
    yield plain["says"].strip()
    yield ""
    yield "Rests on:"
    yield ""
    for text in dict.fromkeys(_assumptions(statement)):
        yield f"- {text}"
    yield ""
    yield f"**Vacuous** {plain['vacuous'].strip()}"


def _variable_link(name: str) -> str:
    return f"[`{name}`](../reference/variables.md#{name})"


def _meaning(name: str) -> str:
    return _escaped(variables.VARIABLES[name].meaning)


def _assumptions(statement: Statement) -> Sequence[str]:
    return [
        _escaped((one.__doc__ or "An information is known from both sides.").splitlines()[0])
        for one in statement.assumptions
    ]


def as_restructured_text(
    app: Any, what: str, name: str, one: object, options: Any, lines: list[str]
) -> None:
    """Docstrings as Sphinx reads them: formulas stand as they are, and their bars are no markup."""
    found: list[str] = []
    above, shown = "", False
    for place, line in enumerate(lines):
        inside = line.startswith("    ")
        shown = shown and (inside or not line.strip())
        text = not above.startswith((" ", ":", "-", "..", ">>>")) and not above.endswith("::")
        if inside and not shown and place and not lines[place - 1].strip() and above and text:
            found += ["::", ""]
            shown = True
        found.append(line if shown else _plain(line))
        above = line if line.strip() else above
    lines[:] = found


def _plain(line: str) -> str:
    if line.lstrip().startswith((">>>", "..")):
        return line
    # Several names with one text are one name, not a type and a name.
    line = re.sub(r"^:(param|ivar) [^:]+:", lambda found: found[0].replace(", ", ",\u00a0"), line)
    parts = re.split(r"(`[^`]*`)", line)
    return "".join(
        part if part.startswith("`") else re.sub(r"(?<!\\)([|*])", r"\\\1", part) for part in parts
    )


if __name__ == "__main__":
    write(Path(__file__).resolve().parents[1])
