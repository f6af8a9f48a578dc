"""A bar on a terminal, silence in a pipe."""

import gc
import io
import sys

import pytest

from rbpp import progress as progress_module
from rbpp.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "quiet", "speaks"),
    [(Terminal(), False, True), (Terminal(), True, False), (io.StringIO(), False, False)],
)
def test_speaks_only_to_a_terminal(monkeypatch, stream, quiet, speaks):
    monkeypatch.setattr("sys.stderr", stream)
    assert list(progress(range(3), total=3, label="worlds", quiet=quiet)) == [0, 1, 2]
    assert ("worlds" in stream.getvalue()) == speaks


def test_a_bar_inside_another_stands_below_it_and_both_go(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    found = [(i, j) for i in progress(range(2), label="outer") for j in progress("ab", label="in")]
    assert found == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]
    assert "outer" in stream.getvalue()
    assert sys.stderr is stream
    assert not progress_module._open


def test_a_bar_goes_where_the_work_stops_early(monkeypatch):
    monkeypatch.setattr("sys.stderr", Terminal())
    with pytest.raises(RuntimeError):
        for _ in progress(range(3)):
            raise RuntimeError
    gc.collect()
    assert not progress_module._open
