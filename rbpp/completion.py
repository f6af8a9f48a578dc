"""Scripts that complete the words of `rbpp` in a shell, made from the programs' parsers."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from rbpp.processes.loading import builtin_names

SHELLS = ("bash", "zsh", "fish")


def script(shell: str, parsers: Mapping[str, argparse.ArgumentParser]) -> str:
    """What a shell sources: names of programs and processes, options and their values, else files.

    Args:
        shell: one of `SHELLS`.
        parsers: of every program, by its name.
    """
    return _fish(parsers) if shell == "fish" else _bash(parsers, zsh=shell == "zsh")


def _bash(parsers: Mapping[str, argparse.ArgumentParser], *, zsh: bool) -> str:
    options, values = [], []
    for name, parser in parsers.items():
        words = [option for option, _ in _options(parser)]
        options.append(f"    {name}) words='{' '.join(words)}' ;;")
        for option, action in _options(parser):
            if choices := _choices(action):
                values.append(f"    {name}:{option}) words='{' '.join(choices)}' ;;")
    start = "autoload -U +X bashcompinit && bashcompinit\n" if zsh else ""
    shell = "zsh" if zsh else "bash"
    lines = [
        f'{start}# at the start of a shell: eval "$(rbpp completion {shell})"',
        "_rbpp() {",
        "  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}",
        "  local program=${COMP_WORDS[1]} words=''",
        '  if [ "$COMP_CWORD" -eq 1 ]; then',
        f"    words='{' '.join(parsers)} completion --help --version'",
        '    COMPREPLY=($(compgen -W "$words" -- "$word"))',
        "    return",
        "  fi",
        '  case "$program:$before" in',
        f"    completion:*) words='{' '.join(SHELLS)}' ;;",
        *values,
        "  esac",
        '  if [ -z "$words" ] && [ "${word#-}" != "$word" ]; then case "$program" in',
        *options,
        "  esac; fi",
        "  local names=''",
        f'  case "$program" in {"|".join(_with_process(parsers))})',
        f"    names='{' '.join(builtin_names())}' ;;",
        "  esac",
        '  if [ -n "$words" ]; then COMPREPLY=($(compgen -W "$words" -- "$word"))',
        '  else COMPREPLY=($(compgen -f -W "$names" -- "$word")); fi',
        "}",
        "complete -o filenames -F _rbpp rbpp",
    ]
    return "\n".join(lines)


def _fish(parsers: Mapping[str, argparse.ArgumentParser]) -> str:
    lines = ["# rbpp: rbpp completion fish > ~/.config/fish/completions/rbpp.fish"]
    first = "complete -c rbpp -n __fish_use_subcommand -f -a"
    for name, parser in parsers.items():
        about = (parser.description or "").partition("\n")[0]
        lines.append(f"{first} {name} -d {_quoted(about)}")
    lines.append(f"{first} completion -d 'What completes words in a shell.'")
    for name, parser in parsers.items():
        for option, action in _options(parser):
            value = "" if action.nargs == 0 else " -r"
            if choices := _choices(action):
                value = f" -x -a '{' '.join(choices)}'"
            about = "" if action.help is None else f" -d {_quoted(action.help)}"
            seen = f"'__fish_seen_subcommand_from {name}'"
            lines.append(f"complete -c rbpp -n {seen} -l {option[2:]}{value}{about}")
    chosen = "'__fish_seen_subcommand_from completion'"
    lines.append(f"complete -c rbpp -n {chosen} -f -a '{' '.join(SHELLS)}'")
    taken = f"'__fish_seen_subcommand_from {' '.join(_with_process(parsers))}'"
    lines.append(f"complete -c rbpp -n {taken} -a '{' '.join(builtin_names())}'")
    return "\n".join(lines)


def _with_process(parsers: Mapping[str, argparse.ArgumentParser]) -> list[str]:
    """The programs that take a process."""
    return [
        name
        for name, parser in parsers.items()
        if any(action.dest == "process" for action in parser._actions)
    ]


def _options(parser: argparse.ArgumentParser) -> list[tuple[str, argparse.Action]]:
    return [
        (option, action)
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--") and action.help != argparse.SUPPRESS
    ]


def _choices(action: argparse.Action) -> list[str]:
    return [str(choice) for choice in action.choices or vars(action).get("engines", ())]


def _quoted(text: str) -> str:
    plain = text.replace("%%", "%").replace("\\", "\\\\").replace("'", "\\'")
    return f"'{plain}'"
