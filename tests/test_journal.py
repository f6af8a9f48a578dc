"""Journals: a step is done once, and a folder of other work is refused."""

import numpy as np
import pytest

from rbpp.journal import Journal


def test_a_step_is_done_once(tmp_path):
    calls = []

    def work():
        calls.append(1)
        return {"value": np.array([1.5, np.nan]), "label": np.asarray("text")}

    for _ in range(2):
        journal = Journal(tmp_path / "journal", {"seed": 0})
        found = journal.once("step", work)
        np.testing.assert_array_equal(found["value"], [1.5, np.nan])
        assert found["label"].item() == "text"
    assert len(calls) == 1
    assert {path.name for path in (tmp_path / "journal").iterdir()} == {"settings.json", "step.npz"}


def test_a_step_that_fails_leaves_nothing(tmp_path):
    journal = Journal(tmp_path)

    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        journal.once("step", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]


def other_settings(folder):
    Journal(folder, {"seed": 0, "components": 2})
    Journal(folder, {"seed": 0, "components": 3})


def other_files(folder):
    (folder / "notes.txt").write_text("mine")
    Journal(folder)


def a_file(folder):
    (folder / "file").write_text("")
    Journal(folder / "file")


def objects(folder):
    """An array of objects would be unpickled: it is not."""
    journal = Journal(folder)
    np.savez(folder / "step.npz", value=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    journal.once("step", dict)


def cut_short(folder):
    journal = Journal(folder)
    (folder / "step.npz").write_bytes(b"PK")
    journal.once("step", dict)


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
