"""Streams against the fit in memory, from shards of every kind."""

import json
from functools import partial

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from rbpp.checkpoint import Checkpoint
from rbpp.mixtures.cavi import cavi
from rbpp.mixtures.chunks import Chunk, row_chunks, tensor_chunks
from rbpp.mixtures.conjugate import default_prior
from rbpp.mixtures.stream import fit_stream
from rbpp.mixtures.stream_summary import summarise
from rbpp.randomness import generator


def clusters(count=400, dtype=torch.float64):
    source = generator(1)
    parts = [torch.randn(count, 2, generator=source) + centre for centre in (0.0, 5.0, 9.0)]
    rows = torch.cat(parts).to(dtype)
    return rows[torch.randperm(len(rows), generator=source)]


def stream_of(chunks):
    """A stream with a part for every chunk."""
    return [partial(list, [chunk]) for chunk in chunks]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chunk_rows", [100, 170, 5000])
def test_exact_passes_reach_the_fit_in_memory(dtype, chunk_rows):
    rows = clusters(dtype=dtype)
    fit = fit_stream(tensor_chunks(rows, chunk_rows), 3, restarts=2, sample_rows=300)
    whole = cavi(rows, default_prior(rows, 3), 3, restarts=3, generator=generator(0)).best()
    tolerance = 1e-2 if dtype == torch.float32 else 1e-3
    assert fit.elbo.shape == (2,)
    assert (fit.elbo - whole.elbo).abs().max() < tolerance
    assert fit.converged.all()
    assert fit.mean.dtype == dtype


def test_a_stochastic_pass_comes_close():
    rows = clusters(2000)
    fit = fit_stream(
        tensor_chunks(rows, 100),
        3,
        sample_rows=50,
        stochastic_passes=1,
        passes=0,
    )
    assert fit.elbo.isnan().all()
    prior = default_prior(rows, 3)
    whole = cavi(rows, prior, 3, restarts=3, generator=generator(0)).best()
    found = cavi(rows, prior, 3, initial=fit, max_iterations=1)
    # Ten noisy chunks are in the average at any time: within a hundredth of a nat per row.
    assert (whole.elbo - found.elbo).item() < 0.01 * len(rows)
    sample_only = fit_stream(
        tensor_chunks(rows, 100),
        3,
        sample_rows=50,
        stochastic_passes=0,
        passes=0,
    )
    start = cavi(rows, prior, 3, initial=sample_only, max_iterations=1)
    assert found.elbo.item() > start.elbo.item()


def test_weights_of_chunks_count():
    rows = clusters(100)
    times = torch.randint(1, 4, (300,), generator=generator(0))

    weighted = stream_of(
        Chunk(rows[part], times[part].double())
        for part in (slice(start, start + 70) for start in range(0, 300, 70))
    )
    fit = fit_stream(weighted, 3, sample_rows=300)
    whole = cavi(
        rows,
        default_prior(rows, 3, sample_weights=times.double()),
        3,
        sample_weights=times.double(),
        restarts=3,
        generator=generator(0),
    ).best()
    assert fit.elbo.item() == pytest.approx(whole.elbo.item(), abs=1e-3)


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


@pytest.mark.parametrize("kind", ["npy", "columns", "lists", "fixed", "folder", "datasets"])
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
    stream = row_chunks(path, **options)
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
        ("rows.csv", {}, "rows.csv: Expected a .npy, .parquet or .arrow file; got .csv"),
        ("none.npy", {}, "no such file"),
        ("empty", {}, "folder with .npy, .parquet or .arrow"),
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
        [chunk for part in row_chunks(tmp_path / name, **options) for chunk in part()]


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


def test_incremental_passes_come_nearer_than_exact_ones():
    """From one start, as many readings: a step a window against a step a reading."""
    source = generator(3)
    parts = [torch.randn(3000, 2, generator=source) + centre for centre in (0.0, 2.0, 3.5)]
    rows = torch.cat(parts).double()
    rows = rows[torch.randperm(len(rows), generator=source)]
    prior = default_prior(rows, 3)
    options = {"prior": prior, "sample_rows": 100, "stochastic_passes": 0}
    stream = tensor_chunks(rows, 300)
    incremental = fit_stream(stream, 3, incremental_passes=3, passes=1, **options)
    exact = fit_stream(stream, 3, passes=4, **options)
    assert incremental.elbo.item() > exact.elbo.item() + 1


@pytest.mark.parametrize("done", [3, 7, 9])
def test_a_run_that_was_cut_off_ends_with_the_same_numbers(tmp_path, done):
    options = {"restarts": 2, "sample_rows": 100, "incremental_passes": 1, "passes": 6, "steps": 3}
    stream = tensor_chunks(clusters(), 100)
    reads = []

    def cut_off(function, items):
        reads.append(len(items))
        if len(reads) > done:
            raise KeyboardInterrupt
        return map(function, items)

    with pytest.raises(KeyboardInterrupt):
        fit_stream(stream, 4, **options, mapper=cut_off, checkpoint=Checkpoint(tmp_path))
    before = len(reads)
    again = fit_stream(stream, 4, **options, checkpoint=Checkpoint(tmp_path))
    whole = fit_stream(stream, 4, **options)
    assert before == done + 1
    for name in ("mean", "scale", "concentration", "elbo", "iterations"):
        assert torch.equal(getattr(again, name), getattr(whole, name)), name


def test_order_in_which_parts_are_done_does_not_matter():
    stream = tensor_chunks(clusters(), 100)
    options = {"sample_rows": 100, "incremental_passes": 1}

    def backwards(function, items):
        return reversed([function(item) for item in reversed(list(items))])

    here, there = (fit_stream(stream, 3, mapper=mapper, **options) for mapper in (map, backwards))
    assert torch.equal(here.scale, there.scale)
    assert torch.equal(here.elbo, there.elbo)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"restarts": 0}, "restarts ≥ 1; got 0"),
        ({"passes": -1}, "passes ≥ 0; got -1"),
        ({"steps": 0}, "steps ≥ 1; got 0"),
        ({"components": 500}, "components from 1 to the 300 rows"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        fit_stream(tensor_chunks(clusters(100), 100), options.pop("components", 2), **options)
