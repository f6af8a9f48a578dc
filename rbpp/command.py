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
import io
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import rbpp
from rbpp import options, outputs, run_options, shipped, signals, terminal

if TYPE_CHECKING:
    from rbpp.result import Result

# Beside what is shown, files are no settings of a result.
_NO_SETTINGS = options.SHOWING | {"output", "figures"}


@dataclass(frozen=True)
class Done:
    """What a program returns where its result alone does not say all.

    Attributes:
        result: of the job, or several by name, each written to a file of its own.
        exit_status: of the command.
        written: files that the program wrote by itself.
        failures: lines about those that it could not write.
        remarks: lines for standard error.
        files: further files, each with what writes `result` to a path beside it, when the rest is
            done.
        figures: name to a function that draws a figure of several results together, in place of
            the figures of each.
        opened: a file to open in the browser when it is written.
    """

    result: Result | Mapping[str, Result]
    exit_status: int = 0
    written: Sequence[Path] = ()
    failures: Sequence[str] = ()
    remarks: Sequence[str] = ()
    files: Mapping[Path, Callable[[Any, Path], Any]] = field(default_factory=dict)
    figures: Mapping[str, Callable[[], Any]] | None = None
    opened: Path | None = None

    @property
    def several(self) -> Mapping[str, Result]:
        """The results by name; one alone has none."""
        return self.result if isinstance(self.result, Mapping) else {"": self.result}

    def reworded(self, said: Callable[[str], str]) -> Done:
        """The same with every text of the library through `said`."""
        results = {key: one.reworded(said) for key, one in self.several.items()}
        alone = results.get("", results)
        return replace(self, result=alone, remarks=tuple(map(said, self.remarks)))


class _Parser(run_options.Parser):
    """Says what is wrong in one line, and keeps what runs its program."""

    run: Callable[[argparse.Namespace], Any]

    def error(self, message: str) -> NoReturn:
        text = terminal.visible(" ".join(message.split()))
        self.exit(signals.REFUSED, f"{self.prog}: {text} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `rbpp` with these arguments and return its exit status (`rbpp.signals`).

    Nothing is raised: what goes wrong is one line on standard error.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    with _any_letters():
        try:
            status = _main(arguments)
            sys.stdout.flush()
            return status
        except SystemExit as stop:  # argparse: help and errors, already printed
            if stop.code is None or isinstance(stop.code, int):
                return stop.code or signals.DONE
            return _say("rbpp", str(stop.code), signals.INTERNAL_ERROR)
        except (KeyboardInterrupt, signals.Terminated) as stop:
            return signals.say_stopped(stop)
        except BrokenPipeError:  # the reader of our output has gone: nobody is left to tell
            signals.silence_output()
            return signals.BROKEN_PIPE


def programs_folder() -> Path:
    """Where the programs are."""
    return shipped.folder("inference")


def programs() -> dict[str, str]:
    """Program names, with the first line of their help; nothing is imported."""
    return {
        path.stem.replace("_", "-"): _first_line(path)
        for path in sorted(programs_folder().glob("*.py"))
        if not path.stem.startswith("_")
    }


def parser_of(name: str) -> _Parser:
    """The parser of a program, whose file is loaded."""
    file = programs_folder() / f"{name.replace('-', '_')}.py"
    program = shipped.load(file, f"rbpp.inference.{file.stem}")
    parser = _Parser(
        prog=f"rbpp {name}",
        description=program.__doc__,
        epilog=signals.EXIT_STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.run = program.run
    program.configure(parser)
    options.add(parser.add_argument_group("options of every program"), *options.COMMON)
    return parser


def _main(arguments: list[str]) -> int:
    names = programs()
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview(names))
        return 0
    if arguments[0] == "--version":
        print(f"rbpp {rbpp.__version__}")
        return 0
    if arguments[0] == "completion":
        return _complete(arguments[1:], names)
    name = arguments[0].replace("_", "-")
    if name not in names:
        close = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(names)}"
        return _say("rbpp", f"no program {arguments[0]}; {hint}", signals.REFUSED)
    parser = parser_of(name)
    try:
        words = run_options.with_config(parser, arguments[1:])
    except (ValueError, OSError) as error:
        return _say(parser.prog, str(error), signals.REFUSED)
    parsed = parser.parse_args(words)
    # The library names arguments, and whoever reads what is printed and written here has options.
    said = partial(run_options.name_option, parser)
    with _warnings_as_lines(parser.prog, said):
        try:
            return _run(parser, parsed, said)
        except BrokenPipeError:
            raise
        except Exception as error:
            signals.raise_if_stopped(error)
            if parsed.traceback:
                traceback.print_exc()
            refused = _is_refusal(error)
            message = said(str(error)) or type(error).__name__
            if not refused:
                kind = type(error).__name__
                message = f"internal error: {kind}: {message} (--traceback shows more)"
            status = signals.REFUSED if refused else signals.INTERNAL_ERROR
            return _say(parser.prog, message, status)


def _complete(words: list[str], names: Iterable[str]) -> int:
    """Print what completes words in a shell."""
    from rbpp import completion

    if len(words) != 1 or words[0] not in completion.SHELLS:
        expected = f"expected one of {', '.join(completion.SHELLS)}"
        return _say("rbpp completion", f"{expected}; got {' '.join(words)}", signals.REFUSED)
    print(completion.script(words[0], {name: parser_of(name) for name in names}))
    return 0


def _is_refusal(error: Exception) -> bool:
    """Whether an error is about what the user gave, or about memory."""
    if isinstance(error, ValueError | OSError | ImportError | MemoryError):
        return True
    text = str(error)  # torch has no exception of its own for its memory on a CPU
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "not enough memory" in text
    )


def _say(prog: str, message: str, status: int) -> int:
    """One line on standard error, of which nothing moves the cursor or turns the text."""
    with contextlib.suppress(OSError):
        print(f"{prog}: {terminal.visible(' '.join(message.split()))}", file=sys.stderr)
    return status


def _run(parser: _Parser, parsed: argparse.Namespace, said: Callable[[str], str]) -> int:
    parsed.device = options.resolve_device(parsed.device)
    signals.loaded()
    outputs.check_outputs(parser, parsed)
    if [value for value in vars(parsed).values() if value == "-"][1:]:
        raise ValueError("Expected one input from standard input (-); got several")
    with _figures_folder(parsed.figures):
        # Whatever a library prints must not end up inside the one JSON object.
        with contextlib.redirect_stdout(sys.stderr) if parsed.json else contextlib.nullcontext():
            found = parser.run(parsed)
        done = found if isinstance(found, Done) else Done(found)
        return _report(parser, done.reworded(said), parsed)


def _report(parser: _Parser, done: Done, parsed: argparse.Namespace) -> int:
    """Write the files that were asked for, and print the result, whatever became of the files."""
    from rbpp import display

    several = done.several
    settings = {
        "program": parser.program,
        **{key: value for key, value in vars(parsed).items() if key not in _NO_SETTINGS},
    }
    per_row = getattr(parsed, "per_row", False)
    if per_row and not any(result.row_counts for result in several.values()):
        raise ValueError("--per-row: there is no data set here whose rows could be counted")
    view = display.View(parsed.hdi_prob, parsed.units, per_row, rest_by="--all")
    writers: dict[Path, outputs.Writer] = {
        path: partial(write, done.result) for path, write in done.files.items()
    }
    if parsed.output is not None:
        if not any(result.has_draws for result in several.values()):
            raise ValueError(f"--output: {parser.prog} has no InferenceData to write")
        for key, path in outputs.derived(parsed.output, several).items():
            writers[path] = partial(several[key].save, settings=settings)
    if parsed.figures is not None:
        drawn = done.figures or {
            name: draw
            for result in several.values()
            for name, draw in result.figures(parsed.hdi_prob).items()
        }
        for figure, draw in drawn.items():
            writers[parsed.figures / f"{figure}.png"] = partial(_save_figure, draw)
    new, failures = outputs.write_all(writers)
    failures = [*done.failures, *failures]
    written = [*done.written, *new]
    config = outputs.beside(sorted(written, key=lambda path: path.suffix != ".nc"))
    if config is not None and not failures:
        text = run_options.to_toml(parser, parsed)
        write = partial(Path.write_text, data=text, encoding="utf-8")
        beside, failures = outputs.write_all({config: write})
        written += beside
    if parsed.json:
        reports = {key: result.to_dict(view, settings) for key, result in several.items()}
        _print_json(display.to_json(_joined(reports)))
    elif not parsed.quiet:
        parts: list[Any] = []
        for key, result in several.items():
            parts += [f"{key}:"] if key else []
            parts += result.parts(view, everything=parsed.all)
        draws = any(result.has_draws for result in several.values())
        told = outputs.told(written, parser, draws)
        display.show([*parts, *([told] if told else [])])
    if done.opened in new:
        _open(parser.prog, done.opened)
    for remark in done.remarks:
        _say(parser.prog, remark, signals.DONE)
    for failure in failures:
        _say(parser.prog, failure, signals.REFUSED)
    return signals.REFUSED if failures else done.exit_status


def _open(prog: str, path: Path) -> None:
    """Open a page in the user's browser, or say that there is none."""
    import webbrowser

    if not webbrowser.open(path.absolute().as_uri()):
        _say(prog, f"--open: found no browser for {path}", signals.DONE)


def _print_json(text: str) -> None:
    """Print JSON, with escapes where the pipe's encoding lacks a letter."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(json.loads(text))
    print(text, flush=True)


def _joined(reports: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The report of one result, or of several, whose terms are then named KEY/NAME."""
    whole = dict(next(iter(reports.values())))
    if list(reports) != [""]:
        whole["terms"] = {
            f"{key}/{name}": term
            for key, one in reports.items()
            for name, term in one["terms"].items()
        }
        whole["audit"] = [entry for one in reports.values() for entry in one["audit"]]
    return whole


def _overview(names: Mapping[str, str]) -> str:
    width = max(map(len, names), default=0)
    lines = "\n".join(f"  {name:<{width}}  {line}" for name, line in names.items())
    return (
        "usage: rbpp PROGRAM …\n\n"
        "Posteriors over the terms and bounds of the reverse-bottleneck theory.\n\n"
        f"{lines}\n\n"
        "rbpp PROGRAM --help tells the options of a program and shows examples; rbpp --version\n"
        "the version; rbpp completion bash|zsh|fish prints what completes words in a shell."
    )


def _first_line(path: Path) -> str:
    try:
        documentation = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    except SyntaxError as error:
        return f"(cannot be read: {error.msg}, line {error.lineno})"
    return (documentation or "").partition("\n")[0]


@contextlib.contextmanager
def _figures_folder(folder: Path | None) -> Iterator[None]:
    """The folder of the figures, and no window for a file; the environment is as it was after."""
    if folder is None:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "it cannot be written to")
    except OSError as error:
        raise ValueError(f"--figures: cannot make {folder}: {error.strerror}") from error
    before = os.environ.get("MPLBACKEND")
    os.environ.setdefault("MPLBACKEND", "Agg")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("MPLBACKEND", None)


def _save_figure(draw: Callable[[], Any], path: Path) -> None:
    from matplotlib import pyplot

    drawn = draw()
    axes = drawn.flat[0] if hasattr(drawn, "flat") else drawn
    figure = axes if hasattr(axes, "savefig") else axes.figure
    try:
        figure.savefig(path, format="png", dpi=150)
    finally:
        pyplot.close(figure)


@contextlib.contextmanager
def _any_letters() -> Iterator[None]:
    """Letters that a pipe's encoding lacks are printed as escapes, in place of an error."""
    streams = [
        (stream, stream.errors)
        for stream in (sys.stdout, sys.stderr)
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict"
    ]
    for stream, _ in streams:
        stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream, errors in streams:
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(errors=errors)


@contextlib.contextmanager
def _warnings_as_lines(prog: str, said: Callable[[str], str]) -> Iterator[None]:
    """Warnings as one line each; those about other libraries' future or source are left out."""

    def show(message: Any, category: type[Warning], *_: Any, **__: Any) -> None:
        _say(prog, f"warning: {said(str(message))}", signals.DONE)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        for quiet in FutureWarning, DeprecationWarning, PendingDeprecationWarning, SyntaxWarning:
            warnings.simplefilter("ignore", quiet)
        warnings.showwarning = show
        yield
