"""What the library says names arguments; the command alone names options."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import rbpp
from rbpp import display
from rbpp.checks import Check
from rbpp.result import Result

_LIBRARY = Path(rbpp.__file__).parent
# Modules of the command, which no Python caller meets.
_COMMAND = {
    "command.py",
    "completion.py",
    "options.py",
    "outputs.py",
    "run_options.py",
    "signals.py",
    "assessment/source_options.py",
    "theory/settings.py",  # what its fields are called as options
}
_OPTION = re.compile(r"--[a-z]")
# A whole command to type, ours or pip's.
_TYPED = re.compile(r"\b(?:rbpp [a-z]+|pip install)\b[^.:;]* --[a-z-]+")
# A program that is a function of the library too.
_PROGRAM = re.compile(r"\brbpp (?:bounds|check|simulate|fit|kl-gap|cmi|mi|channel|score|compare)\b")
_MODULES = [
    str(path.relative_to(_LIBRARY))
    for path in sorted(_LIBRARY.rglob("*"))
    if path.suffix in (".py", ".jinja", ".toml") and "inference" not in path.parts
]


def texts_of(source: str) -> list[str]:
    """Strings of a module, its docstrings left out."""
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if id(node) not in docstrings
    ]


def options_said(source: str) -> list[str]:
    """Strings of a module, its docstrings left out, that name an option."""
    return [text for text in texts_of(source) if _OPTION.search(_TYPED.sub("", text))]


@pytest.mark.parametrize("name", sorted({*_MODULES} - _COMMAND))
def test_no_text_of_the_library_names_an_option(name):
    text = _LIBRARY.joinpath(name).read_text(encoding="utf-8")
    if name.endswith(".py"):
        assert options_said(text) == []
    else:  # comments and variables of style sheets begin with two hyphens too
        assert re.findall(r"(?<![!(-])--[a-z][a-z-]*(?!.*-->)", text) == []


@pytest.mark.parametrize("name", sorted({n for n in _MODULES if n.endswith(".py")} - _COMMAND))
def test_a_next_step_is_named_for_who_has_no_command_line(name):
    """A job is called by its name alone, which is the function's and the program's."""
    said = texts_of(_LIBRARY.joinpath(name).read_text(encoding="utf-8"))
    assert [text for text in said if _PROGRAM.search(_TYPED.sub("", text))] == []


def test_an_option_in_a_text_is_found():
    source = (
        'def f(x):\n    """As --all."""\n    return f"{x}: give --seed", "rbpp mark … --marks"\n'
    )
    assert options_said(source) == [": give --seed"]
    assert {*_MODULES} >= _COMMAND
    assert _PROGRAM.search("not checked here: rbpp check does")


def test_what_is_left_out_is_shown_by_an_argument_or_an_option():
    notes = tuple(f"note {number}" for number in range(9))
    result = Result(checks=(Check("fair coins", "holds", "group=… says so"),), notes=notes)
    assert "5 more notes (everything=True)." in result.text()
    assert "1 check: 1 hold (everything=True shows each)." in result.text()
    page = result._repr_html_()
    assert "5 more notes." in page
    assert "everything=True" not in page
    shown = "\n".join(map(str, result.parts(display.View(rest_by="--all"))))
    assert "5 more notes (--all)." in shown
    assert "1 check: 1 hold (--all shows each)." in shown


def test_a_command_says_every_text_of_a_result_in_its_words():
    inner = Check("inner x", "holds", "x")
    check = Check("an x", "undecided", "of x", {"x": "x"}, assumptions=(inner,))
    result = Result(checks=(check,), headline=("x is",), notes=("with x",), settings={"x": "x"})
    found = result.reworded(lambda text: text.replace("x", "--x"))
    (said,) = found.checks
    assert (said.statement, said.message) == ("an --x", "of --x")
    assert said.assumptions == (Check("inner --x", "holds", "--x"),)
    assert said.measured == {"x": "x"}
    assert (found.headline, found.notes) == (("--x is",), ("with --x",))
    assert found.settings == {"x": "x"}
    assert result.headline == ("x is",)
