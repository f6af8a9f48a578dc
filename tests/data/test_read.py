"""Every format reads the same rows, and every bad input ends in one line that names it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
import torch

from rbpp.data import records
from rbpp.data.read import read_tables
from rbpp.data.rows import Fields, read_rows

RECORDS = [
    {"id": "a", "text": "first, row", "more": "x", "vector": [1.0, 2.0]},
    {"id": "b", "text": 'second "row"', "more": "", "vector": [3.0, 4.0]},
    {"id": "c", "text": "third\nrow ü", "more": "z", "vector": [5.0, 6.5]},
]
VECTORS = np.array([row["vector"] for row in RECORDS])


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def json_lines(rows: list) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def as_shards(folder: Path) -> Path:
    shards = folder / "shards"
    shards.mkdir()
    write(shards, "part-0.jsonl", json_lines(RECORDS[:1]))
    write(shards, "part-1.json", json.dumps(RECORDS[1:]))
    write(shards, "README.md", "not rows")
    write(shards, "_SUCCESS", "")
    return shards


def as_dataset(folder: Path) -> Path:
    """What `datasets.Dataset.save_to_disk` leaves: Arrow streams beside two JSON files."""
    saved = folder / "saved"
    saved.mkdir()
    table = pyarrow.Table.from_pylist(RECORDS)
    with pyarrow.ipc.new_stream(saved / "data-00000-of-00001.arrow", table.schema) as stream:
        stream.write_table(table)
    write(saved, "dataset_info.json", "{}")
    files = [{"filename": "data-00000-of-00001.arrow"}]
    write(saved, "state.json", json.dumps({"_data_files": files}))
    return saved


def as_splits(folder: Path) -> Path:
    as_dataset(folder)
    write(folder, "dataset_dict.json", json.dumps({"splits": ["saved"]}))
    return folder


def as_csv(folder: Path) -> Path:
    path = folder / "rows.csv"
    frame = pd.DataFrame(RECORDS)
    frame["vector"] = frame["vector"].map(json.dumps)
    frame.to_csv(path, index=False)
    return path


def as_parquet(folder: Path) -> Path:
    path = folder / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(RECORDS), path)
    return path


def as_arrow(folder: Path, name: str) -> Path:
    """Feather is what Arrow's file format is also called."""
    path = folder / name
    table = pyarrow.Table.from_pylist(RECORDS)
    with pyarrow.ipc.new_file(path, table.schema) as file:
        file.write_table(table)
    return path


def as_partitions(folder: Path) -> Path:
    """Shards in folders that name a value, as Spark writes them."""
    for record in RECORDS:
        shard = folder / "saved" / f"part={record['id']}"
        shard.mkdir(parents=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([record]), shard / "0.parquet")
    write(folder / "saved", "_SUCCESS", "")
    return folder / "saved"


class Dataset:
    """The part of `datasets.Dataset` that is used, without the package."""

    column_names = tuple(RECORDS[0])

    def to_list(self) -> list[dict]:
        return RECORDS

    def __len__(self) -> int:
        return len(RECORDS)


TABLES = {
    "json": lambda folder: write(folder, "rows.json", json.dumps(RECORDS)),
    "json columns": lambda folder: write(
        folder, "rows.json", json.dumps({name: [r[name] for r in RECORDS] for name in RECORDS[0]})
    ),
    "json under a key": lambda folder: write(folder, "rows.json", json.dumps({"data": RECORDS})),
    "jsonl": lambda folder: write(folder, "rows.jsonl", json_lines(RECORDS) + "\n"),
    "byte order mark": lambda folder: write(
        folder, "rows.jsonl", b"\xef\xbb\xbf" + json_lines(RECORDS).encode()
    ),
    "csv": as_csv,
    "parquet": as_parquet,
    "arrow": lambda folder: as_arrow(folder, "rows.arrow"),
    "feather": lambda folder: as_arrow(folder, "rows.feather"),
    "partitions": as_partitions,
    "folder of shards": as_shards,
    "datasets on disk": as_dataset,
    "datasets with one split": as_splits,
    "records": lambda folder: RECORDS,
    "data frame": lambda folder: pd.DataFrame(RECORDS),
    "datasets.Dataset": lambda folder: Dataset(),
    "Arrow": lambda folder: pyarrow.Table.from_pylist(RECORDS),
    "polars": lambda folder: pytest.importorskip("polars").DataFrame(RECORDS),
}


@pytest.mark.parametrize("name", TABLES)
def test_every_format_gives_the_same_rows(name, tmp_path):
    data = TABLES[name](tmp_path)
    rows = read_rows(data, "anchor", Fields(text=["text", "more"], group="more|text"))
    assert rows.ids == ["a", "b", "c"]
    assert rows.text == ["first, row\nx", 'second "row"', "third\nrow ü\nz"]
    assert rows.groups == ["x", "", "z"]
    vectors = read_rows(data, "anchor", Fields(embedding="vector")).embedding
    np.testing.assert_array_equal(vectors, VECTORS)


def save(folder: Path, name: str, **arrays: np.ndarray) -> Path:
    path = folder / name
    if name.endswith(".npy"):
        np.save(path, arrays["x"])
    else:
        np.savez(path, **arrays)
    return path


ARRAYS = {
    "npy": lambda folder: save(folder, "x.npy", x=VECTORS),
    "npz": lambda folder: save(folder, "x.npz", vectors=VECTORS),
    "npz with ids": lambda folder: save(folder, "x.npz", v=VECTORS, id=np.arange(3)),
    "array": lambda folder: VECTORS,
    "tensor": lambda folder: torch.as_tensor(VECTORS).requires_grad_(),
    "lists": lambda folder: VECTORS.tolist(),
    "csv of numbers": lambda folder: write(folder, "x.csv", "a,b\n1,2\n3,4\n5,6.5\n"),
    "parquet": lambda folder: as_parquet(folder),
    "frame of numbers": lambda folder: pd.DataFrame(VECTORS),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_vectors_are_found_without_naming_a_field(name, tmp_path):
    field = "vector" if name == "parquet" else None
    rows = read_rows(ARRAYS[name](tmp_path), "anchor", Fields(embedding=field))
    np.testing.assert_array_equal(rows.embedding, VECTORS)


def test_float32_stays_and_integers_become_float64():
    assert read_rows(VECTORS.astype(np.float32), "anchor").embedding.dtype == np.float32
    assert read_rows(np.array([[1, 2], [3, 4]]), "anchor").embedding.dtype == np.float64


def test_a_column_of_numbers_is_one_dimension():
    assert read_rows(np.arange(4.0), "anchor").embedding.shape == (4, 1)


def test_text_lines_and_plain_texts(tmp_path):
    path = write(tmp_path, "rows.txt", "one\n\ntwo\n")
    assert read_rows(path, "anchor").text == ["one", "two"]
    assert read_rows(["one", "two"], "anchor").text == ["one", "two"]
    assert read_rows(np.array(["one", "two"]), "anchor").ids == ["1", "2"]


def test_nested_fields_and_alternatives():
    rows = [{"task": "t", "instances": [{"input": "i"}]}, {"task": "u", "instances": []}]
    read = read_rows(rows, "anchor", Fields(text=["task", "instances.0.input"]))
    assert read.text == ["t\ni", "u"]
    assert read_rows(rows, "anchor", Fields(text=["response|task"])).text == ["t", "u"]


def test_the_only_text_field_need_not_be_named():
    rows = [{"id": "1", "headline": "x", "label": 0}, {"id": "2", "headline": "y", "label": 1}]
    assert read_rows(rows, "synthetic").text == ["x", "y"]


def test_paired_fields_are_read_beside_the_rows():
    paired = {"prompt": "more", "output": "vector"}
    rows = read_rows([RECORDS[0], RECORDS[2]], "output", Fields(text=["text"]), paired=paired)
    assert rows.paired["prompt"] == ["x", "z"]
    np.testing.assert_array_equal(rows.paired["output"], VECTORS[[0, 2]])


def test_repeated_ids_are_one_group_when_said_so():
    rows = [{"id": "p", "text": "a"}, {"id": "p", "text": "b"}, {"id": "q", "text": "c"}]
    read = read_rows(rows, "synthetic", Fields(group="id", text=["text"]))
    assert read.groups == ["p", "p", "q"]
    assert read.ids == ["p", "p#2", "q"]


def test_one_text_field_may_be_named_without_a_list():
    assert read_rows(RECORDS, "anchor", Fields(text="text")).text[0] == "first, row"


def test_half_precision_of_pytorch_is_read():
    rows = read_rows(torch.tensor([[1.0, 2.5], [3.0, 4.0]], dtype=torch.bfloat16), "anchor")
    np.testing.assert_array_equal(rows.embedding, [[1.0, 2.5], [3.0, 4.0]])


def test_id_field_renames_the_rows():
    rows = [{"key": "k", "text": "a"}, {"key": "l", "text": "b"}]
    read = read_rows(rows, "synthetic", Fields(text=["text"], id="key"))
    assert read.ids == ["k", "l"]


def npy_bytes(folder: Path) -> bytes:
    return save(folder, "whole.npy", x=VECTORS).read_bytes()


def broken_middle(content: bytes) -> bytes:
    return content[:4] + b"\xff" * 100 + content[104:]


NAN = [[1.0, 2.0], [3.0, float("nan")], [5.0, 6.0]] + [[float(i), 0.0] for i in range(7)]
# name: (what to read, options, every part the one line must have)
BAD = {
    "no such file": (lambda f: f / "none.jsonl", {}, ["none.jsonl", "no such path"]),
    "unknown suffix": (lambda f: write(f, "x.xls", "1"), {}, ["x.xls", ".jsonl", ".xls"]),
    "empty file": (lambda f: write(f, "x.jsonl", ""), {}, ["x.jsonl", "synthetic", "none"]),
    "empty folder": (lambda f: f, {}, ["Expected a folder with data files"]),
    "empty list": (lambda f: [], {}, ["Expected rows for synthetic; got none"]),
    "empty array": (lambda f: np.empty((0, 3)), {}, ["Expected rows for synthetic; got none"]),
    "one row": (lambda f: ["one"], {}, ["Expected at least 2 rows; got 1"]),
    "identical text": (lambda f: ["one"] * 5, {}, ["(synthetic)", "5 identical rows"]),
    "identical vectors": (lambda f: np.ones((4, 2)), {}, ["4 identical rows"]),
    "cut jsonl": (
        lambda f: write(f, "x.jsonl", json_lines(RECORDS)[:-20]),
        {"text": ["text"]},
        ["x.jsonl, line 3", "is the file cut?"],
    ),
    "cut json": (
        lambda f: write(f, "x.json", json.dumps(RECORDS)[:-9]),
        {},
        ["x.json, line 1", "cut"],
    ),
    "cut csv quote": (
        lambda f: write(f, "x.csv", 'id,text\n1,"one"\n2,"tw'),
        {},
        ["x.csv, line 3", "cut"],
    ),
    "cut csv row": (
        lambda f: write(f, "x.csv", "id,text\n1,one\n2"),
        {},
        ["x.csv, line 3", "Expected 2 fields", "got 1"],
    ),
    "cut npy": (lambda f: write(f, "x.npy", npy_bytes(f)[:-9]), {}, ["x.npy"]),
    "cut parquet": (
        lambda f: write(f, "x.parquet", as_parquet(f).read_bytes()[:-30]),
        {},
        ["x.parquet", "Expected a Parquet file"],
    ),
    "cut arrow": (
        lambda f: write(f, "x.arrow", as_arrow(f, "w.arrow").read_bytes()[:300]),
        {},
        ["x.arrow", "Expected an Arrow file"],
    ),
    "text called arrow": (
        lambda f: write(f, "x.feather", "no columns"),
        {},
        ["x.feather", "Expected an Arrow file"],
    ),
    "parquet with a broken middle": (
        lambda f: write(f, "x.parquet", broken_middle(as_parquet(f).read_bytes())),
        {},
        ["x.parquet", "Expected a whole file"],
    ),
    "shards in a folder and in partitions": (
        lambda f: as_parquet(as_partitions(f)).parent,
        {},
        ["Expected data files in it or in folders NAME=VALUE", "part=a/0.parquet"],
    ),
    "cut npz": (
        lambda f: write(f, "x.npz", save(f, "w.npz", a=VECTORS).read_bytes()[:-30]),
        {},
        ["x.npz", "Expected NumPy arrays"],
    ),
    "pickled array": (
        lambda f: save(f, "x.npy", x=np.array([{"a": 1}, None], dtype=object)),
        {},
        ["x.npy", "allow_pickle=False"],
    ),
    "arrays of unequal length": (
        lambda f: save(f, "x.npz", a=VECTORS, b=VECTORS[:2]),
        {},
        ["x.npz", "a (3, 2)", "b (2, 2)"],
    ),
    "two arrays, none named": (
        lambda f: save(f, "x.npz", a=VECTORS, b=VECTORS),
        {},
        ["(embedding=…)", "'a', 'b'"],
    ),
    "not utf-8": (
        lambda f: write(f, "x.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n'),
        {},
        ["x.jsonl, line 2", "UTF-8"],
    ),
    "rows of two kinds": (
        lambda f: write(f, "x.jsonl", '{"text": "a"}\n"b"\n'),
        {},
        ["x.jsonl, line 2", "Expected a record; got a text"],
    ),
    "a number for a row": (lambda f: write(f, "x.jsonl", "1\n2\n"), {}, ["line 1", "got int"]),
    "json that is no table": (lambda f: write(f, "x.json", '{"a": 1}'), {}, ["got an object"]),
    "wrong field": (
        lambda f: write(f, "x.jsonl", json_lines([{"instruction": "a"}, {"instruction": "b"}])),
        {"text": ["instuction"]},
        ["x.jsonl", "'instuction'", "did you mean 'instruction'?"],
    ),
    "no field named": (
        lambda f: write(f, "x.jsonl", json_lines(RECORDS)),
        {},
        ["x.jsonl", "(text=…)", "'text', 'more'"],
    ),
    "null text": (
        lambda f: write(f, "x.jsonl", json_lines([{"t": "a"}, {"t": None}])),
        {"text": ["t"]},
        ["x.jsonl, line 2, field 't'", "got nothing"],
    ),
    "missing text": (
        lambda f: [{"t": "a"}, {"u": "b"}],
        {"text": ["t"]},
        ["row 2, field 't'", "got nothing"],
    ),
    "text that is a number": (
        lambda f: [{"t": "a"}, {"t": 3}],
        {"text": ["t"]},
        ["row 2, field 't'", "Expected text; got int"],
    ),
    "nan embeddings": (
        lambda f: write(f, "x.jsonl", json_lines([{"v": v} for v in NAN])),
        {"embedding": "v"},
        ["x.jsonl, line 2, field 'v'", "nan", "1 of 10 rows"],
    ),
    "squares beyond numbers": (
        lambda f: np.array([[0.0, 1.0], [1.0, -1e200]]),
        {},
        ["row 2", "Expected numbers up to 1e+150", "got 1e+200"],
    ),
    "infinite array": (lambda f: np.array([[0.0], [np.inf]]), {}, ["row 2", "inf"]),
    "mixed dimensions": (
        lambda f: [{"v": [1.0, 2.0]}, {"v": [1.0]}],
        {"embedding": "v"},
        ["row 2, field 'v'", "dimension 2", "got 1"],
    ),
    "vector of words": (
        lambda f: [{"v": ["a"]}, {"v": ["b"]}],
        {"embedding": "v"},
        ["row 1, field 'v'", "Expected a vector of numbers"],
    ),
    "null vector": (
        lambda f: [{"v": [1.0]}, {"v": None}],
        {"embedding": "v"},
        ["row 2, field 'v'", "got nothing"],
    ),
    "three axes": (lambda f: np.zeros((2, 2, 2)), {}, ["shape (2, 2, 2)"]),
    "booleans": (lambda f: save(f, "x.npy", x=VECTORS > 2), {}, ["x.npy", "numbers; got bool"]),
    "column of booleans": (lambda f: VECTORS[:, 0] > 2, {}, ["Expected numbers; got bool"]),
    "dates": (
        lambda f: save(f, "x.npy", x=VECTORS.astype("datetime64[s]")),
        {},
        ["x.npy, field 'embedding'", "Expected numbers; got datetime64"],
    ),
    "no dimension": (lambda f: save(f, "x.npy", x=VECTORS[:, :0]), {}, ["x.npy", "dimension 0"]),
    "column of complex numbers": (lambda f: VECTORS[:, 0] + 0j, {}, ["got complex128"]),
    "complex columns": (
        lambda f: save(f, "x.npz", a=VECTORS[:, 0] + 1j, b=VECTORS[:, 1]),
        {},
        ["x.npz", "embedding=…", "'a', 'b'"],
    ),
    "masked array": (lambda f: np.ma.masked_less(VECTORS, 2), {}, ["masked values"]),
    "a number too large": (
        lambda f: write(f, "x.jsonl", "[1, 2]\n[1" + 400 * "0" + ", 2]\n"),
        {},
        ["x.jsonl, line 2", "Expected a vector of numbers"],
    ),
    "a number too large in a column": (
        lambda f: [{"a": 1, "b": 2}, {"a": 10**400, "b": 2}],
        {},
        ["row 2, field 'a'", "Expected a number; got '1000"],
    ),
    "a number of too many digits": (
        lambda f: write(f, "x.jsonl", "[1, 2]\n[" + 5000 * "1" + ", 2]\n"),
        {},
        ["x.jsonl, line 2", "digits"],
    ),
    "nested too deep": (
        lambda f: write(f, "x.json", 100_000 * "["),
        {},
        ["x.json: Expected JSON", "recursion"],
    ),
    "cut json text": (
        lambda f: write(f, "x.json", json.dumps(RECORDS)[:100]),
        {},
        ["x.json, line 1", "Unterminated string at column 92 (the file ends early: is it cut?)"],
    ),
    "frame with a field twice": (
        lambda f: pd.DataFrame(VECTORS, columns=["a", "a"]),
        {},
        ["Expected distinct fields; got a twice"],
    ),
    "data set without files": (
        lambda f: write(as_dataset(f), "state.json", "{}").parent,
        {},
        ["state.json: Expected the names of data files"],
    ),
    "data set with a cut state": (
        lambda f: write(as_dataset(f), "state.json", '{"_data').parent,
        {},
        ["state.json: Expected JSON", "is the file cut?"],
    ),
    "data set without its split": (
        lambda f: write(f, "dataset_dict.json", '{"splits": ["train"]}').parent,
        {},
        ["train: Expected a file or folder; got no such path"],
    ),
    "complex numbers": (lambda f: np.zeros((2, 2), complex), {}, ["Expected numbers; got complex"]),
    "repeated ids": (
        lambda f: write(f, "x.jsonl", json_lines([{"id": 7, "t": "a"}, {"id": 7, "t": "b"}])),
        {"text": ["t"]},
        ["x.jsonl, line 2, field 'id'", "'7'", "line 1", "group='id'"],
    ),
    "missing group": (
        lambda f: [{"g": 1, "t": "a"}, {"t": "b"}],
        {"text": ["t"], "group": "g"},
        ["row 2, field 'g'", "Expected a label"],
    ),
    "text and embedding": (
        lambda f: RECORDS,
        {"text": ["text"], "embedding": "vector"},
        ["got both"],
    ),
    "repeated header": (lambda f: write(f, "x.csv", "a,a\n1,2\n"), {}, ["x.csv", "a twice"]),
    "word among numbers": (
        lambda f: write(f, "x.csv", "a,b\n1,2\n3,x\n"),
        {},
        ["x.csv, line 3, field 'b'", "Expected a number; got 'x'"],
    ),
    "a scalar": (lambda f: np.array(3.0), {}, ["Expected rows"]),
    "an object of no use": (lambda f: 3, {}, ["Expected a path, array"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_in_one_line(name, tmp_path):
    make, options, parts = BAD[name]
    with pytest.raises(ValueError) as error:
        read_rows(make(tmp_path), "synthetic", Fields(**options))
    message = str(error.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.txt"])
def test_a_huge_line_is_refused_before_it_is_read(name, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "LONGEST_LINE", 1000)
    path = write(tmp_path, name, "short\n" + "x" * 2000 + "\n")
    if name == "x.jsonl":
        path = write(tmp_path, name, '"short"\n"' + "x" * 2000 + '"\n')
    with pytest.raises(ValueError, match=r"line 2: Expected at most 1000 bytes"):
        read_tables(path)


def test_names_of_partitions_are_columns_and_no_column_is_lost(tmp_path):
    folder = as_partitions(tmp_path)
    extra = pyarrow.table({"text": ["d"], "score": [0.5]})
    (folder / "part=d").mkdir()
    pyarrow.parquet.write_table(extra, folder / "part=d" / "0.parquet")
    tables = read_tables(folder)
    assert [table.columns["part"] for table in tables] == [["a"], ["b"], ["c"], ["d"]]
    assert tables[3].columns["score"] == [0.5]
    assert tables[3].place(0).endswith("part=d/0.parquet, row 1")


def test_splits_must_be_chosen(tmp_path):
    write(tmp_path, "dataset_dict.json", json.dumps({"splits": ["train", "test"]}))
    with pytest.raises(ValueError, match="splits train, test"):
        read_tables(tmp_path)


def test_rows_without_a_column_are_refused_by_the_file(tmp_path):
    rows = pyarrow.table({"a": [1.0, 2.0]}).select([])
    path = tmp_path / "none.arrow"
    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_file(sink, rows.schema) as file:
        file.write_table(rows)
    with pytest.raises(ValueError, match=r"none\.arrow: Expected .* got none"):
        read_rows(path, "anchor")
