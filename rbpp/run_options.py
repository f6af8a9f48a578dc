"""The options of a run as a TOML file: read by `--config`, written beside what the run writes.

    program = "assess"
    anchor = "seeds.jsonl"
    text-field = ["instruction"]
    seed = 3

Keys are long names of options, and of positional arguments as the help has them. What the command
line gives takes the place of what the file says. File names are relative to the current folder.
What the library says of its arguments is said of options here (`name_option`).
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import tomllib
from ast import literal_eval
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from rbpp import options

_NOT_KEPT = options.SHOWING | {"help", "open"}
# An argument in a text of the library, such as ignore='id' or text=…, which a command may call a
# field, or say what it is of; and a method of what a job returned, such as result.ask('FILE').
_VALUE = r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|True\b|…)"""
_ARGUMENT = re.compile(rf"\b(?:([a-z_]+)=|result\.([a-z_]+)(?:\.[a-z_]+)*\(){_VALUE}(?(2)\))")
_LONGER = ("{}", "{}_field", "embedding_{}")
_HEADER = "# Options of a run of rbpp: rbpp {} --config FILE repeats it."


class Parser(argparse.ArgumentParser):
    """Keeps the texts that options were given, in `given` by destination."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.given: dict[str, list[str]] = {}

    @property
    def program(self) -> str:
        """The name of the program, behind `rbpp`."""
        return self.prog.partition(" ")[2]

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        texts = [text for text in arg_strings if text != "--"]
        if _repeats(action):
            self.given.setdefault(action.dest, []).extend(texts)
        elif action.option_strings or texts:
            self.given[action.dest] = texts
        return super()._get_values(action, arg_strings)


def with_config(parser: Parser, words: list[str]) -> list[str]:
    """The words of a command line, after those of the file that `--config` names.

    Positional arguments of the file become defaults of the parser.

    Raises:
        ValueError: if the file is no TOML, or of another program; naming the key that is no option,
            or of a type that an option has not.
        OSError: if it cannot be read.
    """
    path = _config_of(words)
    if path is None or {"-h", "--help"} & set(words):
        return words
    return [*_arguments_of(_read_config(path, parser.program), parser, words, path), *words]


def _config_of(arguments: Sequence[str]) -> Path | None:
    """The file that `--config` names, the last of several."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", type=Path)
    try:
        found: Path | None = parser.parse_known_args(list(arguments))[0].config
    except argparse.ArgumentError:  # without its value: the program's parser says so
        return None
    return found


def _read_config(path: Path, program: str) -> dict[str, Any]:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"--config: {path} is no TOML: {error}") from None
    said = found.pop("program", program)
    if said != program:
        raise ValueError(f"--config: expected options of rbpp {program}; got {path} of rbpp {said}")
    return found


def _arguments_of(
    config: Mapping[str, Any], parser: Parser, given: Sequence[str], path: Path
) -> list[str]:
    """The words of the command line that a file stands for, before those that are `given`."""
    known = {_key(action): action for action in parser._actions if _key(action) not in _NOT_KEPT}
    known |= {
        option.lstrip("-"): action
        for action in known.values()
        for option in action.option_strings
        if option.startswith("--")
    }
    words: list[str] = []
    for key, value in config.items():
        action = known.get(key.replace("_", "-"), known.get(key))
        if action is None:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"see {parser.prog} --help"
            raise ValueError(f"--config: {path} has the unknown option {key}; {hint}")
        values = _texts(key, value, path)
        if not action.option_strings:
            action.required = False
            several = action.nargs in ("+", "*")
            action.nargs = "*" if several else "?"
            action.default = values if several else values[0]
            parser.given[action.dest] = values
        elif not any(word.partition("=")[0] in action.option_strings for word in given):
            words += _words(action, key, values, path)
    return words


def to_toml(parser: Parser, parsed: argparse.Namespace) -> str:
    """A TOML file of the options that a run was given, with its seed."""
    lines = [_HEADER.format(parser.program), f"program = {json.dumps(parser.program)}"]
    for action in parser._actions:
        key, texts = _key(action), parser.given.get(action.dest)
        if texts is None or key in _NOT_KEPT:
            continue
        if action.nargs == 0:
            value = str(bool(getattr(parsed, action.dest))).lower()
        elif action.nargs in ("+", "*") or _repeats(action):
            value = f"[{', '.join(map(_toml_text, texts))}]"
        else:
            value = _toml_text(texts[-1])
        lines.append(f"{key} = {value}")
    if "seed" not in parser.given:
        lines.append("seed = 0")
    return "\n".join(lines) + "\n"


def name_option(parser: argparse.ArgumentParser, message: str) -> str:
    """A text of the library that names arguments, with options in their place.

    `rbpp.command` passes every text through it: errors, warnings, and those of a `Result`.

    The library refuses `draws`, the user wrote `--draws`. Of what a message begins with only the
    wordings of `rbpp.validate` count: in "Expected rows that vary" the rows are no argument.
    Options that name files are none of the library's numbers. Elsewhere an argument has a value,
    or … in its place. A method of a result that this program has no option for is another's.

    >>> parser = argparse.ArgumentParser()
    >>> _ = parser.add_argument("--draws", type=int)
    >>> name_option(parser, "Expected draws to be a whole number of 1 or more; got 0")
    'Expected --draws to be a whole number of 1 or more; got 0'
    >>> _ = parser.add_argument("--ignore")
    >>> name_option(parser, "got ids (ignore='row id' leaves it out)")
    "got ids (--ignore 'row id' leaves it out)"
    >>> name_option(parser, "give draws=… of more, or result.ask('FILE')")
    'give --draws of more, or --ask FILE'
    """
    named = {
        action.dest: max(action.option_strings, key=len)
        for action in parser._actions
        if action.option_strings
    }

    def with_option(found: re.Match[str]) -> str:
        argument, method, value = found.groups()
        names = (one.format(argument or method) for one in _LONGER)
        option = next((named[name] for name in names if name in named), method and f"--{method}")
        if option is None:
            return found[0]
        return option if value in ("…", "True") else f"{option} {quote(literal_eval(value))}"

    message = _ARGUMENT.sub(with_option, message)
    found = re.match(r"Expected (\w+) (?=to be|between|above|below|from)", message)
    if found is None:
        return message
    for action in parser._actions:
        if action.dest == found[1] and action.type not in (Path, *options.FILES_TO_WRITE):
            shown = max(action.option_strings, key=len, default=action.metavar or action.dest)
            return f"Expected {shown} {message[found.end() :]}"
    return message


def is_ours(path: Path) -> bool:
    """Whether a file may be replaced by the options of a run: it is absent, or such a file."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.readline().startswith(_HEADER.partition("{")[0])
    except FileNotFoundError:
        return True
    except (OSError, UnicodeDecodeError):
        return False


def _key(action: argparse.Action) -> str:
    """The first long name of an option, or the name of a positional argument."""
    long = [one for one in action.option_strings if one.startswith("--")]
    return long[0].removeprefix("--") if long else action.dest.replace("_", "-")


def _repeats(action: argparse.Action) -> bool:
    return isinstance(action, argparse._AppendAction)


def _texts(key: str, value: Any, path: Path) -> list[str]:
    values = value if isinstance(value, list) else [value]
    for one in values:
        if not isinstance(one, str | int | float):
            raise ValueError(
                f"--config: {path}: expected {key} to be a text, a number, true, false, or a list "
                f"of them; got {type(one).__name__}"
            )
    if not values:
        raise ValueError(f"--config: {path}: expected a value of {key}; got an empty list")
    return [str(one).lower() if isinstance(one, bool) else str(one) for one in values]


def _words(action: argparse.Action, key: str, values: list[str], path: Path) -> list[str]:
    option = f"--{_key(action)}"
    if isinstance(action, argparse.BooleanOptionalAction) or action.nargs == 0:
        if values[0] not in ("true", "false"):
            raise ValueError(f"--config: {path}: expected true or false of {key}; got {values[0]}")
        negated = isinstance(action, argparse.BooleanOptionalAction)
        off = [f"--no-{_key(action)}"] if negated else []
        return [option] if values[0] == "true" else off
    if len(values) > 1 and not _repeats(action):
        raise ValueError(f"--config: {path}: expected one value of {key}; got {len(values)}")
    return [f"{option}={one}" for one in values]


def _toml_text(text: str) -> str:
    """A number where the text is one as TOML writes it, else a string."""
    try:
        value = tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return json.dumps(text, ensure_ascii=False)
    plain = isinstance(value, int | float) and not isinstance(value, bool) and str(value) == text
    return text if plain else json.dumps(text, ensure_ascii=False)
