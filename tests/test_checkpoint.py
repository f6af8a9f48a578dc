"""Journals: a step is done once, and a folder of other work is refused."""

import subprocess
import sys

import numpy as np
import pytest

import rbpp
from rbpp.checkpoint import Checkpoint


def test_a_step_is_done_once(tmp_path):
    calls = []

    def work():
        calls.append(1)
        return {"value": np.array([1.5, np.nan]), "label": np.asarray("text")}

    for _ in range(2):
        checkpoint = Checkpoint(tmp_path / "checkpoint", {"seed": 0})
        found = checkpoint.once("step", work)
        np.testing.assert_array_equal(found["value"], [1.5, np.nan])
        assert found["label"].item() == "text"
    assert len(calls) == 1
    assert {path.name for path in (tmp_path / "checkpoint").iterdir()} == {
        "settings.json",
        "step.npz",
    }


def test_a_step_that_fails_leaves_nothing(tmp_path):
    checkpoint = Checkpoint(tmp_path)

    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoint.once("step", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]


def other_settings(folder):
    Checkpoint(folder, {"seed": 0, "components": 2})
    Checkpoint(folder, {"seed": 0, "components": 3})


def other_files(folder):
    (folder / "notes.txt").write_text("mine")
    Checkpoint(folder)


def a_file(folder):
    (folder / "file").write_text("")
    Checkpoint(folder / "file")


def another_version(folder):
    Checkpoint(folder, {"seed": 0})
    place = folder / "settings.json"
    place.write_text(place.read_text().replace(rbpp.__version__, "0.0.1"))
    Checkpoint(folder, {"seed": 0})


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (other_settings, "components 2 there and 3 now"),
        (other_files, "Expected an empty folder"),
        (a_file, "Expected a folder"),
        (another_version, "rbpp '0.0.1' there and"),
    ],
)
def test_misuse_is_named(tmp_path, misuse, message):
    with pytest.raises(ValueError, match=message):
        misuse(tmp_path)


def objects(path):
    """An array of objects would be unpickled: it is not."""
    np.savez(path, value=np.array([{"a": 1}], dtype=object), allow_pickle=True)


def another_value(path):
    with np.load(path) as file:
        kept = {name: file[name] for name in file.files}
    np.savez(path, **{**kept, "value": kept["value"] + 1})


@pytest.mark.parametrize(
    "damage",
    [objects, another_value, lambda path: path.write_bytes(b"PK"), lambda path: path.unlink()],
)
def test_a_damaged_step_is_done_again(tmp_path, damage):
    checkpoint = Checkpoint(tmp_path)
    checkpoint.once("step", lambda: {"value": np.ones(2)})
    damage(tmp_path / "step.npz")
    assert not checkpoint._done("step")
    found = checkpoint.once("step", lambda: {"value": np.full(2, 2.0)})
    np.testing.assert_array_equal(found["value"], [2, 2])
    assert checkpoint._done("step")


def test_a_folder_is_of_one_process_at_a_time_and_free_after_it(tmp_path):
    program = "from rbpp.checkpoint import Checkpoint; import sys; Checkpoint(sys.argv[1])"
    run = [sys.executable, "-c", program, str(tmp_path)]
    held = Checkpoint(tmp_path)
    found = subprocess.run(run, capture_output=True, text=True, check=False)
    assert "that no other run uses" in found.stderr
    del held
    (tmp_path / ".step.npz.x.part").write_bytes(b"what a killed run leaves")
    assert subprocess.run(run, check=False).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]
