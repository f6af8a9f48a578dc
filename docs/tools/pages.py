"""Run the commands and snippets of the pages, and keep what they print beside them.

    python docs/tools/pages.py [PAGE …]      run whole pages, and write what was printed into them
    python docs/tools/pages.py --check …     compare instead, and fail where a page is out of date

A page is Markdown. Two kinds of fenced block are run, in order, in a folder that holds the files of
examples/bicycle_shop.py:

- `console`: lines that begin with `$ ` are commands, other lines what they print. `rbpp` runs in
  this process; a pipe behind it, and every other command, goes to the shell.
- `python`: one program a page, block after block. What a block prints, and the value of its last
  line, stand in a `text` block below it.

`sh` blocks are shown and never run. A comment above a block says more of it, and why:

    <!-- slow: REASON -->       run by `make docs-examples` and `make slow`, as all that follows
    <!-- not run: REASON -->    shown only
    <!-- exit: 1 -->            the status that the last command ends with, if not 0
    <!-- file: NAME -->         it is written to this file, and not run
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent
CHECKOUT = DOCS.parent
FIGURES = DOCS / "figures"
COLUMNS = "100"
_FENCE = re.compile(r"^```(?:([\w-]+)|\{.*)?\s*$")
_REMARK = re.compile(r"^<!-- (slow|not run|exit|file): (.+?) -->$")
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        language: `console`, `python`, …
        source: what stands in it.
        line: its first line, counted from 1.
        lines: from and to which index of the page's lines its inside goes.
        output: the same of the `text` block of a Python block; None where it has none.
        remarks: what comments above it say.
    """

    language: str
    source: str
    line: int
    lines: tuple[int, int]
    output: tuple[int, int] | None = None
    remarks: dict[str, str] = field(default_factory=dict)

    @property
    def runs(self) -> bool:
        """Whether it is run at all."""
        run = self.language in ("console", "python") or "file" in self.remarks
        return run and "not run" not in self.remarks

    @property
    def status(self) -> int:
        """The exit status that its last command has to have."""
        return int(self.remarks.get("exit", 0))

    @property
    def commands(self) -> list[str]:
        """The commands of a console or shell block, with continued lines joined."""
        if self.language == "sh":
            return _joined(self.source.splitlines())
        if self.language != "console":
            return []
        typed, going_on = [], False
        for line in self.source.splitlines():
            if line.startswith("$ ") or going_on:
                typed.append(line.removeprefix("$ "))
                going_on = line.endswith("\\")
        return _joined(typed)


def _joined(lines: Sequence[str]) -> list[str]:
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [line for line in text.splitlines() if line.strip()]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found: list[Block] = []
    remarks: dict[str, str] = {}
    index = 0
    while index < len(lines):
        remark = _REMARK.match(lines[index])
        fence = _FENCE.match(lines[index])
        if remark:
            remarks[remark[1]] = remark[2]
        elif fence:
            end = next(at for at in range(index + 1, len(lines)) if lines[at].strip() == "```")
            inside = (index + 1, end)
            follows = found and all(
                not line.strip() for line in lines[found[-1].lines[1] + 1 : index]
            )
            if fence[1] == "text" and follows and found[-1].language == "python":
                last = found[-1]
                found[-1] = Block(
                    last.language, last.source, last.line, last.lines, inside, last.remarks
                )
            else:
                source = "\n".join(lines[index + 1 : end])
                found.append(Block(fence[1] or "", source, index + 2, inside, None, remarks))
            remarks, index = {}, end
        elif lines[index].strip():
            remarks = {}
        index += 1
    return found


def shown(page: Path, block: Block) -> str:
    """What the page says that a block prints."""
    if block.language == "console":
        return block.source
    if block.output is None:
        return ""
    start, end = block.output
    return "\n".join(page.read_text(encoding="utf-8").splitlines()[start:end])


class Runner:
    """Runs the blocks of one page, in the current folder, one after the other."""

    def __init__(self) -> None:
        self.names: dict[str, object] = {"__name__": "__page__"}

    def __call__(self, block: Block) -> str:
        """Run a block, and return what belongs into the page.

        Raises:
            RuntimeError: if it ends with another status than it should, or raises an error.
        """
        if "file" in block.remarks:
            Path(block.remarks["file"]).write_text(block.source + "\n", encoding="utf-8")
            return ""
        if block.language == "python":
            return self._python(block)
        parts = []
        commands = block.commands
        for number, command in enumerate(commands):
            printed, status = run_command(command)
            expected = block.status if number == len(commands) - 1 else 0
            if status != expected:
                raise RuntimeError(f"{command}: status {status}, not {expected}\n{printed}")
            parts += [_typed(block, number), *tidy(printed)]
        return "\n".join(parts)

    def _python(self, block: Block) -> str:
        import pandas as pd

        module = ast.parse(block.source)
        last = module.body[-1] if module.body and isinstance(module.body[-1], ast.Expr) else None
        if last is not None:
            module.body.pop()
        printed = io.StringIO()
        width = pd.option_context("display.width", int(COLUMNS), "display.max_columns", 12)
        with width, contextlib.redirect_stdout(printed), _quiet_libraries():
            exec(compile(module, "page", "exec"), self.names)  # noqa: S102
            if last is not None:
                line = compile(ast.Expression(last.value), "page", "eval")
                value = eval(line, self.names)  # noqa: S307
                if value is not None:
                    print(value if hasattr(value, "to_string") else repr(value))
        return "\n".join(tidy(printed.getvalue()))


def _typed(block: Block, number: int) -> str:
    """A command as the page has it, over its lines."""
    starts = re.split(r"(?m)^(?=\$ )", block.source)[1:]
    typed, going_on = [], True
    for line in starts[number].splitlines():
        if going_on:
            typed.append(line)
        going_on = going_on and line.endswith("\\")
    return "\n".join(typed)


def tidy(text: str) -> list[str]:
    """Printed lines without blanks at their ends and without empty lines at either end."""
    lines = [line.rstrip() for line in text.replace("\ufeff", "").splitlines()]
    return "\n".join(lines).strip("\n").splitlines()


def run_command(command: str) -> tuple[str, int]:
    """What a command prints, standard error and all, and its exit status."""
    if not command.startswith("rbpp "):
        return _shell(command)
    from rbpp import command as rbpp_command

    own, rest = _own_part(command)
    out = io.StringIO()
    err = io.StringIO() if rest else out
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = rbpp_command.main(own[1:])
    if rest:
        printed, _ = _shell(rest, out.getvalue())
        return printed + err.getvalue(), status
    return out.getvalue(), status


def _own_part(command: str) -> tuple[list[str], str]:
    """The words of a command up to its first pipe or redirection, and what is behind that."""
    words = shell_words(command)
    for place, word in enumerate(words):
        if word in ("|", ">"):
            rest = command.split(f" {word} ")[-sum(one == word for one in words) :]
            text = f" {word} ".join(rest)
            return words[:place], f"cat > {text}" if word == ">" else text
    return words, ""


def shell_words(command: str) -> list[str]:
    """Words and operators of a command, quotes taken off, without its comment."""
    parts = shlex.shlex(command, posix=True, punctuation_chars="|&;>")
    parts.whitespace_split = True
    return list(parts)


def _shell(command: str, given: str = "") -> tuple[str, int]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["sh", "-c", command],
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(CHECKOUT)},
    )
    return done.stdout, done.returncode


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Warnings of other libraries about their own future are not part of a page."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@contextlib.contextmanager
def folder_of_a_page() -> Iterator[Path]:
    """A folder with the files that pages speak of, as the current one while a page runs."""
    width = {"COLUMNS": COLUMNS, "NO_COLOR": "1", "MPLBACKEND": "Agg", "TERM": "dumb"}
    before = {name: os.environ.get(name) for name in width}
    os.environ.update(width)
    with tempfile.TemporaryDirectory() as made, contextlib.chdir(made):
        write_files(Path(made))
        os.symlink(CHECKOUT / "examples", "examples")
        try:
            yield Path(made)
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def write_files(folder: Path) -> None:
    """The files of examples/bicycle_shop.py."""
    import importlib.util

    spec = importlib.util.spec_from_file_location(
        "bicycle_shop", CHECKOUT / "examples" / "bicycle_shop.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with contextlib.redirect_stdout(io.StringIO()):
        module.main(folder)


def alike(first: str, second: str) -> bool:
    """Whether two outputs have the same words, and numbers that only another processor explains.

    Sums in another order move the last digits of a fit: a number may differ by 5 % of its size or
    by one and a half units of its last place.

    >>> alike("33.1 % [22, 44]", "33.0 % [22, 45]"), alike("33 %", "41 %"), alike("a 1", "b 1")
    (True, False, False)
    """
    if _words(first) != _words(second):
        return False
    pairs = zip(_NUMBER.findall(first), _NUMBER.findall(second), strict=True)
    return all(_near(one, other) for one, other in pairs)


def _words(text: str) -> str:
    """The text with one mark for every number, and without what aligns columns."""
    return re.sub(r"[\s─-╿]+", " ", _NUMBER.sub("#", text)).strip()


def _near(one: str, other: str) -> bool:
    first, second = float(one), float(other)
    mantissa, _, exponent = one.partition("e")
    last_place = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return abs(first - second) <= max(1.5 * last_place, 0.05 * abs(first)) + 1e-12


def replaced(page: Path, outputs: list[tuple[Block, str]]) -> str:
    """The page with what its blocks printed."""
    lines = page.read_text(encoding="utf-8").splitlines()
    for block, printed in sorted(outputs, key=lambda one: one[0].line, reverse=True):
        if block.language == "console":
            lines[slice(*block.lines)] = printed.splitlines()
        elif block.output is not None:
            start, end = block.output
            if printed:
                lines[start:end] = printed.splitlines()
            else:
                del lines[block.lines[1] + 1 : end + 1]
        elif printed:
            after = block.lines[1] + 1
            lines[after:after] = ["", "```text", *printed.splitlines(), "```"]
    return "\n".join(lines) + "\n"


def pages() -> list[Path]:
    """The README and every page that a person writes."""
    found = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
    return [CHECKOUT / "README.md", *(path for path in found if any(b.runs for b in blocks(path)))]


def run_page(page: Path, *, slow: bool = True, say: bool = False) -> list[tuple[Block, str]]:
    """Run a page, up to its first slow block if `slow` is false; figures are kept beside it."""
    found = []
    with folder_of_a_page() as folder:
        runner = Runner()
        for block in blocks(page):
            if "slow" in block.remarks and not slow:
                break
            if not block.runs:
                continue
            start = time.process_time()
            try:
                found.append((block, runner(block)))
            except Exception as error:
                raise RuntimeError(f"{page.name}, line {block.line}: {error}") from error
            if say:
                print(f"{page.name}:{block.line}: {time.process_time() - start:.1f} s", flush=True)
        if say:
            for figure in folder.glob("figures/*.png"):
                shutil.copy(figure, FIGURES / figure.name)
    return found


def difference(page: Path, block: Block, printed: str) -> str:
    """What is out of date of a block, or nothing."""
    before = shown(page, block)
    if alike(before, printed):
        return ""
    lines = difflib.unified_diff(before.splitlines(), printed.splitlines(), "page", "now", n=0)
    return f"{page.name}, line {block.line}:\n" + "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("pages", nargs="*", type=Path)
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    given = parser.parse_args()
    stale = []
    for page in [path.resolve() for path in given.pages] or pages():
        before = page.read_bytes()
        try:
            outputs = run_page(page, say=not given.check)
        except RuntimeError as error:  # the other pages are still to be done
            stale.append(str(error))
            continue
        if page.read_bytes() != before:
            stale.append(f"{page.name}: was changed while it ran")
        elif given.check:
            stale += [text for one in outputs if (text := difference(page, *one))]
        else:
            page.write_text(replaced(page, outputs), encoding="utf-8")
    print("\n".join(stale) or "pages are up to date", file=sys.stderr if stale else sys.stdout)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
