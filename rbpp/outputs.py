"""Files that a command writes: checked before the work, and each written whole or not at all."""

from __future__ import annotations

import argparse
import os
import shlex
import stat
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rbpp import options, run_options
from rbpp.files import written_whole

Writer = Callable[[Path], Any]


def check_outputs(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> None:
    """Refuse, before the work, a file that cannot be written, or would destroy another.

    Raises:
        ValueError: naming the option and the file: an input, a name given twice, a device or pipe,
            a folder, or one in a folder that cannot be written to.
    """
    outputs: dict[str, tuple[str, Path]] = {}
    given: list[Any] = []
    for action in parser._actions:
        value = getattr(parsed, action.dest, None)
        if action.type in options.FILES_TO_WRITE:
            if value is None:
                continue
            option = max(action.option_strings, key=len)
            check_writable(option, value)
            key = _place(value)
            if key in outputs:
                raise ValueError(
                    f"{option}: expected a file of its own; got {value}, which {outputs[key][0]} "
                    "writes"
                )
            outputs[key] = (option, value)
        elif action.dest not in _NO_INPUTS:
            given.append(value)
    inputs = {_place(Path(name)): name for value in given for name in _names(value)}
    for key, (option, value) in outputs.items():
        for place, name in inputs.items():
            if key == place or (os.path.isdir(place) and key.startswith(f"{place}{os.sep}")):
                raise ValueError(
                    f"{option}: expected a file that is no input; got {value}, which would "
                    f"replace {name}"
                )


def check_writable(option: str, path: Path) -> None:
    """Refuse a file that cannot be written, before the work; nothing is left of the trial.

    Raises:
        ValueError: naming the option and the file.
    """
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            raise ValueError(f"{option}: expected a file to write; got the folder {path}")
        if not stat.S_ISREG(kind):
            raise ValueError(
                f"{option}: expected a regular file; got the device or pipe {path}, which would "
                "be replaced: leave the option out to write nothing"
            )
        existed = True
    except FileNotFoundError:
        existed = False
    except OSError as error:
        raise ValueError(f"{option}: cannot write {path}: {error.strerror}") from error
    try:
        with path.open("ab"):
            pass
        if not os.access(path.absolute().parent, os.W_OK):
            raise PermissionError(13, "the folder cannot be written to")
    except OSError as error:
        raise ValueError(f"{option}: cannot write {path}: {error.strerror}") from error
    if not existed:
        path.unlink()


def derived(path: Path, keys: Iterable[str]) -> dict[str, Path]:
    """The file of every one of several results.

    >>> derived(Path("gap.nc"), ["K", ""])
    {'K': PosixPath('gap_K.nc'), '': PosixPath('gap.nc')}
    """
    safe = {key: "".join("_" if letter in "/\\:\0" else letter for letter in key) for key in keys}
    if len(set(safe.values())) < len(safe):
        safe = {key: f"{place}_{name}" for place, (key, name) in enumerate(safe.items())}
    return {
        key: path.with_stem(f"{path.stem}_{name}") if key else path for key, name in safe.items()
    }


def write_all(writers: Mapping[Path, Writer]) -> tuple[list[Path], list[str]]:
    """Write every file whole or not at all; what fails keeps none of the others back.

    Returns:
        The files that were written, and a line for each that could not be.
    """
    written, failures = [], []
    for path, write in writers.items():
        try:
            with written_whole(path) as aside:
                write(aside)
        except (OSError, MemoryError) as error:
            failures.append(failure(path, error))
        else:
            written.append(path)
    return written, failures


def beside(paths: Iterable[Path]) -> Path | None:
    """Where the options of a run are written: beside its first file, unless another file is there.

    The figures of a run and a sheet of marks have none beside them.
    """
    for path in paths:
        if path.suffix in (".png", ".csv", ".toml"):
            continue
        options_file = path.with_suffix(".toml")
        if run_options.is_ours(options_file):
            return options_file
    return None


def told(written: Sequence[Path], parser: run_options.Parser, draws: bool) -> str:
    """The last lines of a run: what was written and how it is opened, or how to keep it.

    Args:
        written: files.
        parser: of the run.
        draws: whether there are some that `--output` would write.
    """
    if not written:
        files = {
            max(action.option_strings, key=len): action.metavar
            for action in parser._actions
            if action.type in options.FILES_TO_WRITE
        }
        kept = [option for option in ("--report", "--output") if option in files]
        kept = [option for option in kept if draws or option != "--output"]
        choice = " or ".join(f"{option} {files[option]}" for option in kept)
        return f"Nothing was written: {choice} keeps it." if kept else ""
    figures = [path for path in written if path.suffix == ".png"]
    shown = [path for path in written if path not in figures] + figures[:1]
    width = max(len(str(path)) for path in shown)
    lines = []
    for path in shown:
        more = f" and {len(figures) - 1} more" if path in figures[:1] and figures[1:] else ""
        lines.append(
            f"written: {str(path) + more:<{width}}  {_opened(path, parser.program)}".rstrip()
        )
    return "\n".join(lines)


def _opened(path: Path, program: str) -> str:
    """The command that opens a file."""
    name, quoted = shlex.quote(str(path)), repr(str(path))
    viewer = {"darwin": "open", "win32": "start"}.get(sys.platform, "xdg-open")
    commands = {
        ".html": f"{viewer} {name}",
        ".png": f"{viewer} {name}",
        ".md": f"{viewer} {name}",
        ".nc": f'python -c "import arviz; print(arviz.from_netcdf({quoted}))"',
        ".parquet": f'python -c "import pandas; print(pandas.read_parquet({quoted}))"',
        ".csv": f"rbpp mark {name}",
        ".toml": f"rbpp {program} --config {name}",
        ".json": f"rbpp {program} … --against {name}",
    }
    return commands.get(path.suffix, "")


def failure(path: Path, error: Exception) -> str:
    """In one line that a file could not be written, and why."""
    number = getattr(error, "errno", None)
    reason = os.strerror(number) if number else str(error)
    return f"cannot write {path}: {reason or 'no memory left'}"


# Options whose words may be names of files by accident, or are folders of their own.
_NO_INPUTS = {
    "figures",
    "config",
    "cache",
    "checkpoint",
    "set",
    "text_field",
    "columns",
    "ignore",
    "split",
}


def _names(value: Any) -> list[str]:
    """Names of files among the values of an option, ROLE=FILE and NAME=FILE included."""
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        choices = [text, text.partition("=")[2]]
        return [name for name in choices if name and os.path.exists(name)][:1]
    if isinstance(value, list | tuple):
        return [name for one in value for name in _names(one)]
    return []


def _place(path: Path) -> str:
    return os.path.realpath(path)
