"""A bar on a terminal, silence in a pipe."""

import io

import pytest

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
