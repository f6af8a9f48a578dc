"""The pages show what runs, and the reference leaves nothing out."""

from __future__ import annotations

import ast
import json
import re
import sys
from importlib.metadata import version
from pathlib import Path

import jsonschema
import links
import notebooks
import pages
import pytest
import reference
import yaml

import rbpp
from rbpp import command, variables
from rbpp.theory.statements import STATEMENTS

CHECKOUT = Path(__file__).resolve().parent.parent
DOCS = CHECKOUT / "docs"
WRITTEN = [
    CHECKOUT / "README.md",
    CHECKOUT / "CONTRIBUTING.md",
    *sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts),
]
GENERATED = reference.generated(DOCS)
# The questions that the how-to pages answer.
QUESTIONS = (
    *("off_task", "missing", "better", "continuous_integration", "drop_rows", "few_rows"),
    *("no_target", "million_rows", "cluster", "embeddings", "chat_logs", "labels", "refused"),
    *("pareto_k", "cite"),
)


def has_pinned_versions():
    """Whether the libraries that numbers and tables depend on are those that the pages are of."""
    lines = (CHECKOUT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    names = ("arviz", "numpy", "pandas", "scikit-learn", "scipy", "torch")
    return all(version(name).partition("+")[0] == pins[name] for name in names)


def assert_up_to_date(page, found):
    """With other versions a page has to run, and may print other numbers."""
    if has_pinned_versions():
        stale = "".join(pages.difference(page, *one) for one in found)
        assert stale == "", "run `make docs-examples`"


def run_of(path):
    return str(path.relative_to(CHECKOUT))


@pytest.mark.parametrize("page", pages.pages(), ids=run_of)
def test_a_page_shows_what_its_quick_blocks_print(page):
    """Up to its first slow block; `make slow` runs whole pages."""
    assert_up_to_date(page, pages.run_page(page, slow=False))


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [page for page in pages.pages() if any("slow" in one.remarks for one in pages.blocks(page))],
    ids=run_of,
)
def test_a_whole_page_shows_what_it_prints(page):
    assert_up_to_date(page, pages.run_page(page))


def rbpp_commands(page):
    """Every call of rbpp on a page, of blocks that run or are shown, and of workflows."""
    lines = []
    for block in pages.blocks(page):
        lines += block.commands
        if block.language == "yaml":
            for job in yaml.safe_load(block.source).get("jobs", {}).values():
                lines += [step["run"].strip() for step in job["steps"] if "run" in step]
    for line in (part for text in lines for part in text.splitlines()):
        for words in split_by_operators(pages.shell_words(line)):
            if words[:1] == ["rbpp"] and words[1:2] not in (["--help"], ["--version"]):
                yield words[1:]


def split_by_operators(words):
    """The commands of a line; what is behind `>` is a file."""
    found = [[]]
    for word in words:
        if set(word) <= set("|&;>"):
            found.append([word] if word == ">" else [])
        else:
            found[-1].append(word)
    return found


@pytest.mark.parametrize("page", [page for page in WRITTEN if any(rbpp_commands(page))], ids=run_of)
def test_every_command_is_one_that_its_parser_takes(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name, *arguments in rbpp_commands(page):
        parser = reference.parser_of(name)
        if "--config" in arguments:  # the file holds the rest
            options = {word for word in arguments if word.startswith("--")}
            assert options <= set(parser._option_string_actions)
        else:
            assert parser.parse_args(arguments)


@pytest.mark.parametrize("page", WRITTEN, ids=run_of)
def test_every_block_runs_or_says_why_not(page):
    for block in pages.blocks(page):
        if block.language in ("sh", "bash", "shell"):
            assert len(block.remarks.get("not run", "")) > 10, f"line {block.line}"
        if block.language == "python":
            names = [
                node.attr
                for node in ast.walk(ast.parse(block.source))
                if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "rbpp"
            ]
            assert set(names) <= set(rbpp.__all__), f"line {block.line}"


@pytest.mark.parametrize("page", WRITTEN, ids=run_of)
def test_links_between_pages_resolve(page):
    """Whatever a page links to is a file, or a page that is made for the site."""
    made = {(DOCS / name).resolve() for name in GENERATED}
    text = re.sub(r"(?s)```.*?```", "", page.read_text())
    for address in re.findall(r"\]\(([^)\s]+)\)", text):
        path = address.partition("#")[0]
        if path and "://" not in path:
            target = (page.parent / path).resolve()
            assert target.exists() or target in made, address


def test_every_question_has_a_page_with_a_command_and_its_meaning():
    for name in QUESTIONS:
        page = DOCS / "how_to" / f"{name}.md"
        assert any(block.commands for block in pages.blocks(page)), name
        assert "**What it means.**" in page.read_text(), name
        assert f"how_to/{name}.md" in (DOCS / "index.md").read_text(), name


def test_python_reference_has_every_public_name():
    text = "".join(path.read_text() for path in (DOCS / "reference" / "python").glob("*.md"))
    found = re.findall(r"auto(?:function|class):: rbpp\.([\w.]+)", text)
    named = set(found)
    assert len(found) == len(named)
    assert set(rbpp.__all__) - {"__version__", *rbpp._SUBMODULES} <= named
    plots = {f"plots.{name}" for name in rbpp.plots.__all__ if name.startswith("plot_")}
    lemmas = {
        f"lemmas.{name}"
        for name, one in vars(rbpp.lemmas).items()
        if getattr(one, "__module__", "") == rbpp.lemmas.__name__ and name[0].islower()
    }
    assert plots | lemmas <= named


@pytest.mark.parametrize("name", command.programs())
def test_command_reference_has_every_option(name):
    page = GENERATED[f"reference/commands/{name}.md"]
    for action in reference.parser_of(name)._actions:
        for option in action.option_strings:
            assert option in ("-h", "--help") or f"`{option}" in page
    assert f"]({name}.md)" in GENERATED["reference/commands/index.md"]


def test_variable_reference_has_every_variable_and_every_statement_its_words():
    page = GENERATED["reference/variables.md"]
    for name, one in variables.VARIABLES.items():
        base = re.sub(r"_(lower|upper|mcse)$", "", name.removeprefix("slack_"))
        base = re.sub(r"_(lower|upper)$", "", base)
        assert f"{{#{base}}}" in page
        assert one.equation.replace("*", r"\*") in page
    text = GENERATED["concepts/statements.md"]
    for right, statement in STATEMENTS.items():
        assert f"## {statement.name[:1].upper()}{statement.name[1:]}\n" in text
        assert f"variables.md#{right}" in text
    with pytest.raises(ValueError, match=r"statements\.toml"):
        reference.statement_page({})


def test_the_schema_refuses_what_is_no_result():
    """What programs print is held to it with the rest of their contract."""
    schema = json.loads((DOCS / "reference" / "result.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    schema = jsonschema.Draft202012Validator(schema)
    good = {"terms": {}, "hdi_prob": 0.9, "audit": [], "settings": {}, "versions": {"rbpp": "1"}}
    schema.validate(good)
    term = {"mean": 1, "sd": None, "hdi_low": None, "hdi_high": None}
    for wrong in ({"hdi_prob": 2}, {"terms": {"kl_gap": term}}, {"audit": [{"verdict": "good"}]}):
        with pytest.raises(jsonschema.ValidationError):
            schema.validate(good | wrong)


PAGE = """# Page

```console
$ echo one; \\
    echo two
nothing
```

<!-- exit: 1 -->
```console
$ false
```

<!-- file: module.py -->
```python
number = 6
```

```python
import sys
sys.path.insert(0, ".")
import module
module.number * 7
```
"""


def test_pages_are_run_and_written(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [*sys.path])  # the page adds to it
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    found = pages.run_page(page)
    assert "nothing" in pages.difference(page, *found[0])
    page.write_text(pages.replaced(page, found))
    assert "\n    echo two\none\ntwo\n```" in page.read_text()
    assert page.read_text().endswith("module.number * 7\n```\n\n```text\n42\n```\n")
    assert [pages.difference(page, *one) for one in pages.run_page(page)] == ["", "", "", ""]
    page.write_text(page.read_text().replace("exit: 1", "exit: 0"))
    with pytest.raises(RuntimeError, match=r"page\.md, line 12: false: status 1, not 0"):
        pages.run_page(page)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("33.1 % [22, 44]", "33.0 % [22, 45]", True),
        ("33 %", "41 %", False),
        ("a 1", "b 1", False),
        ("1 2", "1", False),
        ("1.5e-07", "1.6e-07", True),
        ("a   1.0", "a 1.0", True),
    ],
)
def test_outputs_differ_by_what_a_processor_explains(first, second, same):
    assert pages.alike(first, second) is same


def test_a_tutorial_is_a_notebook(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    cells = notebooks.notebook(page)["cells"]
    assert ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"] == [
        "!echo one; echo two",
        "!false",
        "%%writefile module.py\nnumber = 6",
        'import sys\nsys.path.insert(0, ".")\nimport module\nmodule.number * 7',
    ]
    assert cells[0]["source"] == ["# Page"]
    assert not any("<!--" in line for cell in cells for line in cell["source"])


def test_faults_of_a_site_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<h1 id="top">A</h1><a href="b.html#there">b</a><a href="#top">a</a><a href="c.html">c</a>'
        '<img src="p.png"><script src="https://cdn.example/x.js"></script>'
        '<a href="https://example.org">out</a>'
    )
    (tmp_path / "b.html").write_text("<p>b</p>")
    found = links.faults(tmp_path)
    assert sorted(found) == [
        "a.html: a picture without words: p.png",
        "a.html: is loaded from a network: https://cdn.example/x.js",
        "a.html: leads nowhere: c.html",
        "a.html: leads nowhere: p.png",
        "a.html: leads to no such place: b.html#there",
    ]
    assert links.faults(tmp_path / "empty")
