"""The command line: `rbpp NAME …` runs inference/NAME.py, and owns what all programs share.

A program is a file with a docstring (its help), `configure(parser)` and `run(arguments)`, which
returns a `Result`, several by name, or `Done`. So that `python inference/NAME.py …` does the same,
it ends with

    if __name__ == "__main__":
        sys.exit(command.main([Path(__file__).stem, *sys.argv[1:]]))

It imports what is slow inside `run`, so that help is fast.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import importlib.util
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

import rbpp
from rbpp import options
from rbpp.files import written_whole

if TYPE_CHECKING:
    from rbpp.result import Result

# Ended by the user: what a shell reports for a program stopped by an interrupt.
INTERRUPTED = 130
_OWN_OPTIONS = {"json", "output", "figures", "quiet"}


@dataclass(frozen=True)
class Done:
    """What a program returns where its result alone does not say all.

    Attributes:
        result: of the job, or several by name, each written to a file of its own.
        exit_status: of the command.
        written: files that the program wrote by itself.
        figures: name to a function that draws a figure of several results together, in place of
            the figures of each.
    """

    result: Result | Mapping[str, Result]
    exit_status: int = 0
    written: Sequence[Path] = ()
    figures: Mapping[str, Callable[[], Any]] | None = None


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `rbpp` with these arguments and return its exit status.

    0: done; 2: bad input, with one line on standard error; 130: interrupted; a program may return
    others, which its help names.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _main(arguments)
    except SystemExit as stop:  # argparse: help and errors, already printed
        return stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt:
        print("rbpp: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone: nobody is left to tell
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def programs_folder() -> Path:
    """Where the programs are: inside the package once installed, beside it in a checkout."""
    package = Path(rbpp.__file__).parent
    installed = package / "inference"
    return installed if installed.is_dir() else package.parent / "inference"


def programs() -> dict[str, str]:
    """Program names, with the first line of their help; nothing is imported."""
    return {
        path.stem.replace("_", "-"): _first_line(path)
        for path in sorted(programs_folder().glob("*.py"))
        if not path.stem.startswith("_")
    }


def _main(arguments: list[str]) -> int:
    names = programs()
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview(names))
        return 0
    if arguments[0] == "--version":
        print(f"rbpp {rbpp.__version__}")
        return 0
    name = arguments[0].replace("_", "-")
    if name not in names:
        close = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(names)}"
        print(f"rbpp: no program {arguments[0]}; {hint}", file=sys.stderr)
        return 2
    program = _load(programs_folder() / f"{name.replace('-', '_')}.py")
    parser = _parser(name, program)
    parsed = parser.parse_args(arguments[1:])
    with _warnings_as_lines(parser.prog):
        try:
            return _run(name, program.run, parsed)
        except BrokenPipeError:
            raise
        except (ValueError, OSError, ImportError) as error:
            message = options.name_option(parser, " ".join(str(error).split()))
            print(f"{parser.prog}: {message}", file=sys.stderr)
            return 2


def _run(name: str, run: Callable[[argparse.Namespace], Any], parsed: argparse.Namespace) -> int:
    parsed.device = options.resolve_device(parsed.device)
    _check_places(parsed.output, parsed.figures)
    # Whatever a library prints must not end up inside the one JSON object.
    with contextlib.redirect_stdout(sys.stderr) if parsed.json else contextlib.nullcontext():
        outcome = run(parsed)
    return _report(name, outcome if isinstance(outcome, Done) else Done(outcome), parsed)


def _report(name: str, done: Done, parsed: argparse.Namespace) -> int:
    """Write the files that were asked for, and print the result."""
    several = done.result if isinstance(done.result, Mapping) else {"": done.result}
    settings = {
        "program": name,
        **{key: value for key, value in vars(parsed).items() if key not in _OWN_OPTIONS},
    }
    per_row = getattr(parsed, "per_row", False)
    if per_row and not any(result.row_counts for result in several.values()):
        raise ValueError("--per-row: there is no data set here whose rows could be counted")
    shown: dict[str, Any] = {
        "hdi_prob": parsed.hdi_prob,
        "units": parsed.units,
        "per_row": per_row,
    }
    written = list(done.written)
    if parsed.output is not None:
        if all(result.idata is None for result in several.values()):
            raise ValueError(f"--output: rbpp {name} has no InferenceData to write")
        for key, result in several.items():
            path = parsed.output
            path = path.with_stem(f"{path.stem}_{key}") if key else path
            result.save(path, settings=settings)
            written.append(path)
    if parsed.figures is not None:
        drawn = done.figures or {
            name: draw
            for result in several.values()
            for name, draw in result.figures(parsed.hdi_prob).items()
        }
        written += _save_figures(drawn, parsed.figures)
    if parsed.json:
        print(_joined_json(several, settings, shown), flush=True)
    elif not parsed.quiet:
        from rbpp import display

        parts: list[Any] = []
        for key, result in several.items():
            parts += [f"{key}:"] if key else []
            parts += result.parts(**shown)
        display.show([*parts, *_written(written)])
    return done.exit_status


def _written(paths: Sequence[Path]) -> list[str]:
    return ["\n".join(f"written: {path}" for path in paths)] if paths else []


def _joined_json(
    several: Mapping[str, Result], settings: Mapping[str, Any], shown: Mapping[str, Any]
) -> str:
    """One JSON object of one result, or of several whose terms are named KEY/NAME."""
    objects = {
        key: json.loads(result.to_json(**shown, settings=settings))
        for key, result in several.items()
    }
    if list(objects) == [""]:
        whole = objects[""]
    else:
        whole = dict(next(iter(objects.values())))
        whole["terms"] = {
            f"{key}/{name}": term
            for key, one in objects.items()
            for name, term in one["terms"].items()
        }
        whole["audit"] = [entry for one in objects.values() for entry in one["audit"]]
    return json.dumps(whole, ensure_ascii=False)


def _parser(name: str, program: ModuleType) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"rbpp {name}",
        description=program.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    program.configure(parser)
    options.add_common(parser)
    return parser


def _load(path: Path) -> ModuleType:
    name = f"rbpp.inference.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # a .py file always has a spec and a loader
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look their module up
    spec.loader.exec_module(module)
    return module


def _overview(names: Mapping[str, str]) -> str:
    width = max(map(len, names), default=0)
    lines = [f"  {name:<{width}}  {line}" for name, line in names.items()]
    return "\n".join(
        [
            "usage: rbpp PROGRAM …",
            "",
            "Posteriors over the terms and bounds of the reverse-bottleneck theory.",
            "",
            *lines,
            "",
            "rbpp PROGRAM --help tells the options of a program; rbpp --version the version.",
        ]
    )


def _first_line(path: Path) -> str:
    try:
        documentation = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    except SyntaxError as error:
        return f"(cannot be read: {error.msg}, line {error.lineno})"
    return (documentation or "").partition("\n")[0]


def _check_places(output: Path | None, figures: Path | None) -> None:
    """Fail before the work and not after it."""
    check_writable("--output", output)
    if figures is not None:
        try:
            figures.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"--figures: cannot make {figures}: {error.strerror}") from error
        os.environ.setdefault("MPLBACKEND", "Agg")  # no window for a file


def check_writable(option: str, path: Path | None) -> None:
    """Refuse a file that cannot be written, before the work; nothing is left of the trial.

    Raises:
        ValueError: naming the option and the file.
    """
    if path is None:
        return
    if path.is_dir():
        raise ValueError(f"{option}: expected a file to write; got the folder {path}")
    existed = path.exists()
    try:
        with path.open("ab"):
            pass
    except OSError as error:
        raise ValueError(f"{option}: cannot write {path}: {error.strerror}") from error
    if not existed:
        path.unlink()


def _save_figures(figures: Mapping[str, Any], folder: Path) -> list[Path]:
    written = []
    for name, drawn in figures.items():
        axes = drawn() if callable(drawn) else drawn
        axes = axes if hasattr(axes, "figure") or not hasattr(axes, "flat") else axes.flat[0]
        figure = axes if hasattr(axes, "savefig") else axes.figure
        path = folder / f"{name}.png"
        with written_whole(path) as aside:
            figure.savefig(aside, format="png", dpi=150)
        from matplotlib import pyplot

        pyplot.close(figure)
        written.append(path)
    return written


@contextlib.contextmanager
def _warnings_as_lines(prog: str) -> Iterator[None]:
    """Warnings as one line each; those about the future of other libraries are not the user's."""

    def show(message: Any, category: type[Warning], *_: Any, **__: Any) -> None:
        print(f"{prog}: warning: {' '.join(str(message).split())}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        for category in (FutureWarning, DeprecationWarning, PendingDeprecationWarning):
            warnings.simplefilter("ignore", category)
        warnings.showwarning = show
        yield
