"""Journals: a step is done once, and a folder of other work is refused."""

import numpy as np
import pytest

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


def objects(folder):
    """An array of objects would be unpickled: it is not."""
    checkpoint = Checkpoint(folder)
    np.savez(folder / "step.npz", value=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    checkpoint.once("step", dict)


def cut_short(folder):
    checkpoint = Checkpoint(folder)
    (folder / "step.npz").write_bytes(b"PK")
    checkpoint.once("step", dict)


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (other_settings, "components 2 there and 3 now"),
        (other_files, "Expected an empty folder"),
        (a_file, "Expected a folder"),
        (objects, "Expected a step of a checkpoint"),
        (cut_short, "Expected a step of a checkpoint"),
    ],
)
def test_misuse_is_named(tmp_path, misuse, message):
    with pytest.raises(ValueError, match=message):
        misuse(tmp_path)
