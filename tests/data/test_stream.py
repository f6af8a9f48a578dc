"""Rows in chunks, from shards of every kind; their moments and their sample."""

import json
from functools import partial

import numpy as np
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
import torch

from rbpp.data.moments import summarise
from rbpp.data.stream import Chunk, row_stream
from rbpp.randomness import generator


def clusters(count=400, dtype=torch.float64):
    source = generator(1)
    parts = [torch.randn(count, 2, generator=source) + centre for centre in (0.0, 5.0, 9.0)]
    rows = torch.cat(parts).to(dtype)
    return rows[torch.randperm(len(rows), generator=source)]


def stream_of(chunks):
    """A stream with a part for every chunk."""
    return [partial(list, [chunk]) for chunk in chunks]


def test_summary_is_that_of_all_rows():
    rows = clusters() + 1e6
    weights = torch.rand(len(rows), generator=generator(0), dtype=torch.float64)
    weights[:90] = 0  # a whole chunk without weight

    stream = stream_of(map(Chunk, rows.split(90), weights.split(90)))
    found = summarise(stream, sample_rows=50)
    share = (weights / weights.sum()).unsqueeze(-1)
    mean = (share * (rows - 1e6)).sum(0)
    centred = rows - 1e6 - mean
    assert found.count == len(rows)
    torch.testing.assert_close(found.mean - 1e6, mean, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.covariance, (share * centred).mT @ centred, rtol=1e-6, atol=0)
    assert found.sample.shape == (50, 2)
    assert torch.equal(found.sample, rows[found.place])
    assert found.parts.tolist() == [90] * 13 + [30]


def test_sample_has_the_odds_of_the_weights():
    rows = torch.arange(4000.0).unsqueeze(-1)
    weights = torch.where(rows.squeeze(-1) < 2000, 3.0, 1.0)

    stream = stream_of([Chunk(rows[:1500], weights[:1500]), Chunk(rows[1500:], weights[1500:])])
    found = summarise(stream, sample_rows=400)
    share = (found.sample < 2000).double().mean().item()
    # Three quarters, less a little for drawing without replacement; four standard errors.
    assert share == pytest.approx(0.74, abs=4 * (0.75 * 0.25 / 400) ** 0.5)
    assert len(found.sample.unique()) == 400


@pytest.mark.parametrize(
    "kind", ["npy", "columns", "lists", "fixed", "folder", "datasets", "feather"]
)
def test_shards_give_their_rows_in_order(tmp_path, kind):
    rows = clusters(50).numpy()
    weights = np.arange(len(rows), dtype=np.float64)
    path = tmp_path / "rows.parquet"
    options = {"chunk_rows": 32}
    if kind == "npy":
        path = tmp_path / "rows.npy"
        np.save(path, rows)
    elif kind == "folder":
        path = tmp_path
        np.save(path / "a.npy", rows[:70])
        np.save(path / "b.npy", rows[70:])
    elif kind == "datasets":  # as `datasets.Dataset.save_to_disk` lays it out
        path, names = tmp_path, ["data-0.arrow", "data-1.arrow"]
        for name, half in zip(names, (rows[:70], rows[70:]), strict=True):
            table = pyarrow.table({"id": np.arange(len(half)), "v": pyarrow.array(half.tolist())})
            with pyarrow.ipc.new_stream(path / name, table.schema) as writer:
                writer.write_table(table, max_chunksize=25)
        state = {"_data_files": [{"filename": name} for name in names]}
        (path / "state.json").write_text(json.dumps(state))
        options["field"] = "v"
    elif kind == "feather":
        path = tmp_path / "rows.feather"
        table = pyarrow.table({"id": weights, "v": pyarrow.array(rows.tolist())})
        pyarrow.feather.write_feather(table, path, chunksize=70)
        options["field"] = "v"
    elif kind == "columns":
        table = pyarrow.table({"x": rows[:, 0], "y": rows[:, 1], "w": weights})
        pyarrow.parquet.write_table(table, path)
        options["weight_field"] = "w"
    else:
        vectors = pyarrow.array(rows.tolist())
        if kind == "fixed":
            vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows.ravel()), 2)
        pyarrow.parquet.write_table(pyarrow.table({"id": weights, "v": vectors}), path)
        options["field"] = "v"
    stream = row_stream(path, **options)
    for _ in range(2):  # a stream can be read again
        found = [chunk for part in stream for chunk in part()]
        assert max(len(chunk.rows) for chunk in found) == 32
        np.testing.assert_allclose(torch.cat([chunk.rows for chunk in found]).numpy(), rows)
        if kind == "columns":
            np.testing.assert_allclose(torch.cat([chunk.weights for chunk in found]), weights)


def broken(tmp_path):
    rows = clusters(10).numpy()
    rows[7, 1] = np.inf
    np.save(tmp_path / "inf.npy", rows)
    np.save(tmp_path / "flat.npy", rows[:, 0])
    np.save(tmp_path / "text.npy", np.array([["a"], ["b"]]))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "inf.npy").read_bytes()[:60])
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    (tmp_path / "bad.arrow").write_bytes(b"ARROW1")
    (tmp_path / "rows.csv").write_text("1,2")
    (tmp_path / "empty").mkdir()
    ragged = pyarrow.table({"v": [[1.0, 2.0], [3.0]], "t": ["a", "b"], "n": [1.0, None]})
    pyarrow.parquet.write_table(ragged, tmp_path / "ragged.parquet")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("inf.npy", {}, "inf.npy, row 7: Expected finite"),
        ("flat.npy", {}, r"flat.npy: Expected an array \(rows, dimension\)"),
        ("text.npy", {}, "text.npy: Expected numbers"),
        ("cut.npy", {}, "cut.npy: Expected an array"),
        ("bad.parquet", {}, "bad.parquet: Expected a Parquet file"),
        ("bad.arrow", {}, "bad.arrow: Expected an Arrow file"),
        ("rows.csv", {}, "rows.csv: Expected a .npy, .parquet, .feather or .arrow file; got .csv"),
        ("none.npy", {}, "no such path"),
        ("empty", {}, "Expected a folder with data files; got none"),
        ("inf.npy", {"field": "v"}, "file with columns for a named field"),
        ("ragged.parquet", {"field": "v"}, "row 1, field 'v': Expected a vector of dimension 2"),
        ("ragged.parquet", {"field": "t"}, "field 't': Expected numbers"),
        ("ragged.parquet", {"field": "n"}, "row 1, field 'n': Expected a value"),
        ("ragged.parquet", {"field": "w"}, "Expected a field 'w'; got v, t, n"),
        ("inf.npy", {"chunk_rows": 0}, "chunk_rows ≥ 1"),
    ],
)
def test_broken_shards_are_named(tmp_path, name, options, message):
    broken(tmp_path)
    with pytest.raises(ValueError, match=message):
        [chunk for part in row_stream(tmp_path / name, **options) for chunk in part()]


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([], "positive weight in the stream"),
        ([Chunk(torch.ones(3, 2)), Chunk(torch.ones(3, 1))], "dimension 2 throughout.* row 3"),
        (
            [Chunk(torch.ones(3, 2)), Chunk(torch.full((2, 2), torch.nan))],
            "violation in part 1, row 0",
        ),
        ([Chunk(torch.ones(3, 2), torch.ones(2))], "one weight for each of 3"),
        ([Chunk(torch.ones(3, 2), -torch.ones(3))], "weights ≥ 0"),
        ([Chunk(torch.ones(3, 2).long())], "floating-point"),
    ],
)
def test_broken_chunks_are_named(chunks, message):
    with pytest.raises(ValueError, match=message):
        summarise(stream_of(chunks), sample_rows=10)


def test_a_sample_has_no_rows_without_weight():
    chunk = Chunk(torch.arange(10.0).unsqueeze(-1), (torch.arange(10) % 2).double())
    found = summarise(stream_of([chunk]), sample_rows=10)
    assert found.sample.flatten().sort().values.tolist() == [1, 3, 5, 7, 9]
    assert found.mean.item() == pytest.approx(5)
