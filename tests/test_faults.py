"""Faults outside the program: nothing is lost or hangs, every failure is one line."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from rbpp import command, outputs, signals
from rbpp.terminal import visible
from tests.fuzz_readers import faults

ROOT = Path(__file__).resolve().parent.parent
FIT = ["--components", "1", "--chains", "1", "--draws", "20", "--points", "16", "--device", "cpu"]


@pytest.fixture
def rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("rows.npy", np.random.default_rng(0).normal(size=(40, 2)))
    return tmp_path


def rbpp(*arguments, **options):
    """The command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    return subprocess.run(
        [sys.executable, "-m", "rbpp", *map(str, arguments)],
        capture_output=True,
        check=False,
        env=environment,
        timeout=120,
        **options,
    )


def test_damaged_files_are_read_or_refused_in_one_line(tmp_path):
    assert faults(tmp_path, files=12, seed=1) == []


@pytest.mark.parametrize("extra", [[], ["--stream"]])
def test_a_pipe_is_refused_and_not_waited_for(rows, capsys, extra):
    os.mkfifo("x.npy")
    assert command.main(["fit", "x.npy", *FIT, *extra]) == signals.REFUSED
    assert "give - to read standard input" in capsys.readouterr().err


def test_a_link_to_itself_is_refused(rows, capsys):
    os.symlink("x.npy", "x.npy")
    for extra in ([], ["--stream"]):
        assert command.main(["fit", "x.npy", *FIT, *extra]) == signals.REFUSED
        assert "x.npy: Expected a file or folder" in capsys.readouterr().err


def test_an_output_never_replaces_an_input(rows, capsys):
    before = Path("rows.npy").read_bytes()
    os.link("rows.npy", "other.npy")
    os.symlink("rows.npy", "link.npy")
    for output in ("rows.npy", "./rows.npy", "link.npy"):
        assert command.main(["fit", "rows.npy", *FIT, "--output", output]) == signals.REFUSED
        assert "which would replace rows.npy" in capsys.readouterr().err
    assert Path("rows.npy").read_bytes() == before


def test_outputs_have_names_of_their_own(rows, capsys):
    given = ["--anchor", "rows.npy", "--synthetic", "rows.npy"]
    outputs = ["--output", "x", "--report", "./x"]
    assert command.main(["assess", *given, *outputs]) == signals.REFUSED
    assert "expected a file of its own; got x, which --" in capsys.readouterr().err


def test_one_standard_input_at_most(capsys):
    assert command.main(["mi", "-", "-"]) == signals.REFUSED
    assert "one input from standard input" in capsys.readouterr().err


def test_names_of_results_become_names_of_files():
    found = outputs.derived(Path("out/gap.nc"), ["a/v", "b/v", "a_v"])
    assert len(set(found.values())) == 3
    assert {path.parent for path in found.values()} == {Path("out")}


def test_a_file_that_cannot_be_written_keeps_no_other_back(tmp_path):
    old = tmp_path / "old"
    old.write_text("kept")

    def fail(path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    written, failures = outputs.write_all(
        {old: fail, tmp_path / "new": lambda path: path.write_text("whole")}
    )
    assert written == [tmp_path / "new"]
    assert failures == [f"cannot write {old}: No space left on device"]
    assert old.read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]


@pytest.mark.skipif(
    tuple(map(int, h5py.__version__.split(".")[:2])) < (3, 16),
    reason="HDF5 before 2.0 ends the process where a write fails",
)
def test_a_full_disk_loses_neither_the_old_file_nor_the_table(rows):
    Path("fit.nc").write_bytes(b"old")

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))

    found = rbpp("fit", "rows.npy", *FIT, "--output", "fit.nc", preexec_fn=limit)
    assert found.returncode == signals.REFUSED
    assert b"entropy" in found.stdout
    assert b"cannot write fit.nc: File too large" in found.stderr
    assert Path("fit.nc").read_bytes() == b"old"
    assert sorted(os.listdir()) == ["fit.nc", "rows.npy"]


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, signals.INTERRUPTED), (signal.SIGTERM, signals.TERMINATED)],
)
@pytest.mark.parametrize("after", [0.4, 2.5])
def test_a_signal_ends_the_process_in_one_line(rows, number, status, after):
    process = subprocess.Popen(
        [sys.executable, "-m", "rbpp", "fit", "rows.npy", *FIT[:-4], "--draws", "100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    time.sleep(after)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("it had ended")
    assert process.returncode in (status, -number)  # −number: before Python listens
    assert b"Traceback" not in error
    assert error.count(b"\n") <= 1


def test_a_reader_that_goes_away_is_141():
    program = "import sys; from rbpp.__main__ import start; sys.argv = ['rbpp', '--help']; start()"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == signals.BROKEN_PIPE


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii"])
def test_pipes_of_other_encodings_work(encoding):
    found = rbpp("bounds", "--help", env={"PYTHONIOENCODING": encoding})
    assert found.returncode == 0
    assert b"exit status:" in found.stdout


def test_nothing_printed_moves_the_cursor_or_turns_the_text(capsys, tmp_path):
    name = f"{tmp_path}/\x1b[2Jx\u202ey.jsonl"
    assert command.main(["fit", name, *FIT]) == signals.REFUSED
    printed = capsys.readouterr().err
    assert "\x1b" not in printed
    assert "\\x1b[2Jx\\u202ey.jsonl" in printed
    assert visible("a\tb\nΔ 素") == "a\tb\nΔ 素"


def test_without_a_home_nothing_is_lost(rows):
    environment = {"HOME": "/nonexistent", "XDG_CACHE_HOME": ""}
    assert rbpp("fit", "rows.npy", *FIT, env=environment).returncode == 0
