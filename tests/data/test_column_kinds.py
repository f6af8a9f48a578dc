"""Columns, words and files that look like measurements and are none: named, never read."""

import json

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest

from rbpp.data.embed import embed
from rbpp.data.rows import Fields, Reading, read_rows
from rbpp.data.stream import row_stream

RANDOM = np.random.default_rng(0)
ROWS = 120
NUMBERS = RANDOM.normal(size=(ROWS, 3))
TABLE = pd.DataFrame(NUMBERS, columns=list("abc"))
PLACE = np.arange(ROWS)
TEXTS = [f"write a program number {place} that sorts" for place in range(12)]

COLUMNS = {
    "at even steps": PLACE / 7,
    "rounded even steps": (PLACE / ROWS).round(6),
    "times to the second": 1_600_000_000 + PLACE * 3600.5,
    "an index of two shards": np.r_[0:60, 0:60],
    "an index of three shards": np.r_[0:50, 0:40, 0:30],
    "of two shards, shuffled": RANDOM.permutation(np.r_[0:60, 0:60]),
    "a time in a panel": PLACE % 5,
    "years in a panel": 2000 + PLACE % 20,
    "an id of a panel": PLACE // 4,
    "a label of any numbers": RANDOM.choice([10, 20, 70], ROWS),
    "a label of signs": RANDOM.choice([-1, 1], ROWS),
    "time": np.sort(RANDOM.uniform(size=ROWS)),
    "zip": RANDOM.integers(10_000, 99_999, ROWS),
    "codes": [f"{place:04d}" for place in PLACE],
}


@pytest.mark.parametrize("name", COLUMNS)
def test_numbers_that_follow_from_the_place_of_a_row_are_no_measurements(name, tmp_path):
    table = TABLE.assign(**{name: COLUMNS[name]})
    with pytest.raises(ValueError, match=f"field '{name}': Expected measurements"):
        read_rows(table, "anchor")
    rows = read_rows(table, "anchor", Fields(reading=Reading(ignore=(name,))))
    np.testing.assert_array_equal(rows.embedding, NUMBERS)
    if name in ("time", "zip", "codes"):  # known by their names, or by how they are written
        return
    np.save(tmp_path / "x.npy", table.to_numpy())
    with pytest.raises(ValueError, match="column 4: Expected measurements"):
        read_rows(tmp_path / "x.npy", "anchor")


MEASURED = {
    "whole numbers that come back": RANDOM.integers(0, 100, ROWS),
    "a sorted measurement": np.sort(RANDOM.normal(size=ROWS)),
    "counts": RANDOM.poisson(3, ROWS),
    "a walk": np.cumsum(RANDOM.choice([-1, 1], ROWS)),
    "rounded": RANDOM.normal(size=ROWS).round(1),
    "rows five times": np.repeat(RANDOM.integers(0, 10**6, 24), 5),
}


@pytest.mark.parametrize("name", MEASURED)
def test_measurements_are_not_taken_for_something_else(name):
    assert read_rows(TABLE.assign(x=MEASURED[name]), "anchor").embedding.shape == (ROWS, 4)


WRITTEN = {
    "percent": [f"{10 * n}%" for n in range(8)],
    "money": [f"${10 * n}" for n in range(8)],
    "thousands": [f"{1000 * n:,}" for n in range(1, 9)],
    "days": [f"2020-01-0{n}" for n in range(1, 9)],
}


@pytest.mark.parametrize("name", WRITTEN)
def test_numbers_written_with_signs_are_no_categories(name):
    column = RANDOM.choice(WRITTEN[name], ROWS)
    with pytest.raises(ValueError, match="name of a text field"):
        read_rows(TABLE.assign(p=column), "anchor")
    with pytest.raises(ValueError, match="field 'p': Expected a number"):
        read_rows(TABLE.assign(p=column), "anchor", Fields(reading=Reading(columns=("a", "p"))))


def test_ranges_are_categories():
    ages = RANDOM.choice(["10-19", "20-29", "30-39"], ROWS)
    assert list(read_rows(TABLE.assign(age=ages), "anchor").categories) == ["age"]


@pytest.mark.parametrize("mark", [-99, -999.0, 9999])
def test_a_mark_of_what_is_missing_is_named(mark):
    some = NUMBERS.copy()
    some[[4, 9], 1] = mark
    with pytest.raises(ValueError, match=rf"{mark:g} in 2 of 120 rows of column 1.*missing"):
        embed([read_rows(NUMBERS, "target"), read_rows(some, "synthetic")])


NO_TEXT = {
    "digits": [f"{a:.3f} {b:.3f}" for a, b in NUMBERS[:, :2]],
    "an array as it prints": np.array2string(NUMBERS, threshold=10**6).splitlines(),
}


@pytest.mark.parametrize("name", NO_TEXT)
def test_rows_of_digits_are_not_read_as_text(name):
    with pytest.raises(ValueError, match="Expected text, or numbers in a layout"):
        read_rows(NO_TEXT[name], "anchor")
    assert len(read_rows(NO_TEXT[name], "anchor", Fields(text="text"))) == ROWS  # if it is said


NO_PROSE = {
    "path": [f"img/{n}.png" for n in range(60)],
    "kind": ["rose", "lily"] * 30,
    "vector": [f"bL8APn9GB7{n}iM/" for n in range(60)],
}


@pytest.mark.parametrize("name", NO_PROSE)
def test_words_that_name_something_are_not_the_text(name):
    with pytest.raises(ValueError, match="name of a text field"):
        read_rows(pd.DataFrame({name: NO_PROSE[name]}), "anchor")


@pytest.mark.parametrize("name", ["split", "phase", "dataset", "is_train", "test"])
def test_a_column_that_splits_the_rows_is_found_by_its_values_or_its_name(name):
    values = ["train", "test"] if name in ("split", "phase", "dataset") else [True, False]
    table = pd.DataFrame({"text": TEXTS, name: (values * 6)})
    with pytest.raises(ValueError, match=f"the splits .* in the field '{name}'"):
        read_rows(table, "anchor")
    chosen = Reading(split=str(values[0]))
    assert read_rows(table, "anchor", Fields(reading=chosen)).text == TEXTS[::2]
    assert read_rows(table, "anchor", Fields(reading=Reading(ignore=(name,)))).text == TEXTS


def test_a_score_of_a_test_is_no_split():
    table = TABLE.rename(columns={"a": "test_score"})
    assert read_rows(table, "anchor").columns == ["test_score", "b", "c"]


def saved(folder, files):
    for name, texts in files.items():
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (folder / name).write_text(lines, encoding="utf-8")


@pytest.mark.parametrize(
    "names", [("mytraindata", "mytestdata"), ("x_tr", "x_te"), ("fintrain", "finval")]
)
def test_files_that_differ_by_the_word_of_a_split_alone_are_splits(names, tmp_path):
    saved(tmp_path, {f"{names[0]}.jsonl": TEXTS[:6], f"{names[1]}.jsonl": TEXTS[6:]})
    with pytest.raises(ValueError, match="the splits"):
        read_rows(tmp_path, "anchor")


TWICE = {
    "a copy": ("a.jsonl", "a (1).jsonl"),
    "another name": ("a.jsonl", "b.jsonl"),
    "packed": ("a.jsonl", "a.jsonl.gz"),
    "another format": ("a.jsonl", "a.csv"),
}


@pytest.mark.parametrize("name", TWICE)
def test_rows_that_stand_in_two_files_are_refused(name, tmp_path):
    saved(tmp_path, dict.fromkeys(TWICE[name], TEXTS))
    with pytest.raises(ValueError, match="Expected every row once; got"):
        read_rows(tmp_path, "anchor")


def test_shards_with_numbers_in_their_names_are_one_set(tmp_path):
    saved(tmp_path, {"a.0.jsonl": TEXTS[:6], "a.1.jsonl": TEXTS[6:]})
    (tmp_path / "dataset_infos.json").write_text('{"default": {}}', encoding="utf-8")
    assert read_rows(tmp_path, "anchor").text == TEXTS


def test_a_column_to_ignore_that_no_source_has_is_named(tmp_path):
    first = read_rows(TABLE.assign(n=PLACE), "anchor", Fields(reading=Reading(ignore=("n", "m"))))
    second = read_rows(TABLE, "synthetic", Fields(reading=Reading(ignore=("n", "m"))))
    with pytest.raises(ValueError, match="Expected a column 'm' to ignore"):
        embed([first, second])
    third = read_rows(TABLE, "target", Fields(reading=Reading(ignore=("n",))))
    embed(
        [read_rows(TABLE.assign(n=PLACE), "anchor", Fields(reading=Reading(ignore=("n",)))), third]
    )


TURNS = {
    "ai": [{"role": "human", "content": "ask"}, {"role": "ai", "content": "told"}],
    "type": [{"type": "human", "content": "ask"}, {"type": "ai", "content": "told"}],
    "thought": [
        {"role": "user", "content": "ask"},
        {"role": "assistant", "content": "<think>hm\n</think>\ntold"},
    ],
}


@pytest.mark.parametrize("name", TURNS)
def test_names_of_who_speaks_and_thoughts(name):
    rows = [{"messages": TURNS[name]}, {"messages": [*TURNS[name], *TURNS[name]]}]
    assert read_rows(rows, "anchor", Fields(text="messages.assistant")).text[0] == "told"
    assert read_rows(rows, "anchor", Fields(text="messages.user")).text[0] == "ask"


def test_encodings_and_packed_arrays(tmp_path):
    import gzip
    import io

    (tmp_path / "x.csv").write_bytes(TABLE.to_csv(index=False).encode("utf-16-le"))
    np.testing.assert_allclose(read_rows(tmp_path / "x.csv", "anchor").embedding, NUMBERS)
    file = io.BytesIO()
    np.save(file, NUMBERS)
    (tmp_path / "x.npy.gz").write_bytes(gzip.compress(file.getvalue()))
    np.testing.assert_array_equal(read_rows(tmp_path / "x.npy.gz", "anchor").embedding, NUMBERS)


@pytest.mark.parametrize("kind", ["stream", "file", "parquet"])
def test_chunks_are_of_the_columns_that_memory_reads(kind, tmp_path):
    """Arrow as `datasets` writes it, as Feather is, and Parquet under another ending."""
    path = tmp_path / "x.arrow"

    def write(table):
        if kind == "parquet":
            pyarrow.parquet.write_table(table, path)
            return
        new = pyarrow.ipc.new_stream if kind == "stream" else pyarrow.ipc.new_file
        with new(str(path), table.schema) as writer:
            writer.write_table(table)

    write(pyarrow.Table.from_pandas(TABLE.assign(n=PLACE), preserve_index=False))
    with pytest.raises(ValueError, match="field 'n': Expected measurements"):
        row_stream(path)
    write(pyarrow.Table.from_pandas(TABLE, preserve_index=False))
    chunks = [chunk.rows.numpy() for part in row_stream(path, chunk_rows=50) for chunk in part()]
    np.testing.assert_array_equal(np.concatenate(chunks), read_rows(path, "anchor").embedding)


@pytest.mark.parametrize("new", [pyarrow.ipc.new_file, pyarrow.ipc.new_stream])
def test_offsets_that_lead_out_of_a_file_are_refused_and_not_followed(new, tmp_path):
    """Arrow would read what lies there in memory, or end the process."""
    path = tmp_path / "x.arrow"
    table = pyarrow.table({"text": ["abcde"] * 20})
    with new(str(path), table.schema) as writer:
        writer.write_table(table)
    offsets = np.arange(0, 105, 5, dtype=np.int32)
    damaged = np.where(np.arange(21) == 10, 2**30, offsets).astype(np.int32)
    content = path.read_bytes()
    assert content.count(offsets.tobytes()) == 1
    path.write_bytes(content.replace(offsets.tobytes(), damaged.tobytes()))
    for read in (row_stream, lambda path: read_rows(path, "anchor")):
        with pytest.raises(ValueError, match=r"x\.arrow: Expected"):
            read(path)
