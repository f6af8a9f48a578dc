"""What a process is known by: its source, wherever that is, and its knobs."""

import functools
import linecache

import pytest

from rbpp.posterior.identity import digest
from rbpp.processes.process import load_process

MODEL = """
import functools
import pyro
import pyro.distributions as dist


class Chain:
    def __call__(self, anchors=4):
        pyro.sample("centre", dist.Normal(0.0, 2.0))


def wrapped(function):
    @functools.wraps(function)
    def called(**knobs):
        return function(**knobs)
    return called


def plain(anchors=4):
    pyro.sample("centre", dist.Normal(0.0, 2.0))


decorated = wrapped(plain)
given = functools.partial(plain, anchors=5)
model = Chain()
"""


@pytest.mark.parametrize("name", ["model", "plain", "decorated", "given"])
def test_an_edited_file_is_another_process_however_the_model_is_made(name, tmp_path):
    file = tmp_path / "own.py"
    found = []
    for scale in ("2.0", "3.0", "2.0"):
        file.write_text(MODEL.replace("2.0", scale))
        found.append(digest(load_process(f"{file}:{name}")))
    assert found[0] == found[2] != found[1]
    assert digest(load_process(f"{file}:{name}", anchors=6)) != found[0]


def test_a_model_without_a_file_is_known_by_its_code_and_knobs():
    def made(scale):
        space = {"__name__": "made"}
        exec(compile(MODEL.replace("2.0", scale), "<made>", "exec"), space)  # noqa: S102
        return space["plain"]

    assert digest(load_process(made("2.0"))) == digest(load_process(made("2.0")))
    other = functools.partial(made("2.0"), anchors=5)
    assert digest(load_process(other)) != digest(load_process(made("2.0")))


def test_a_model_of_a_notebook_is_known_by_its_lines():
    """As IPython does, which keeps the lines of a cell and has no file of them."""
    found = []
    for scale in ("2.0", "3.0"):
        name, text = f"<cell {scale}>", MODEL.replace("2.0", scale)
        linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
        space = {"__name__": "cell"}
        exec(compile(text, name, "exec"), space)  # noqa: S102
        found.append(digest(load_process(space["plain"])))
    assert found[0] != found[1]
