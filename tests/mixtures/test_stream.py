"""Streams against the fit in memory, from shards of every kind."""

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from rbpp.mixtures.cavi import cavi
from rbpp.mixtures.chunks import row_chunks, tensor_chunks
from rbpp.mixtures.conjugate import default_prior
from rbpp.mixtures.stream import Chunk, fit_stream, summarise
from rbpp.randomness import generator


def clusters(count=400, dtype=torch.float64):
    source = generator(1)
    parts = [torch.randn(count, 2, generator=source) + centre for centre in (0.0, 5.0, 9.0)]
    rows = torch.cat(parts).to(dtype)
    return rows[torch.randperm(len(rows), generator=source)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chunk_rows", [100, 170, 5000])
def test_exact_passes_reach_the_fit_in_memory(dtype, chunk_rows):
    rows = clusters(dtype=dtype)
    fit = fit_stream(
        tensor_chunks(rows, chunk_rows), 3, restarts=2, sample_rows=300, generator=generator(0)
    )
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
        generator=generator(0),
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
        generator=generator(0),
    )
    start = cavi(rows, prior, 3, initial=sample_only, max_iterations=1)
    assert found.elbo.item() > start.elbo.item()


def test_weights_and_sources_of_chunks_count():
    rows = clusters(100)
    label = torch.arange(300) % 2
    times = torch.randint(1, 4, (300,), generator=generator(0))

    def weighted():
        for start in range(0, 300, 70):
            part = slice(start, start + 70)
            yield Chunk(rows[part], times[part].double(), label[part])

    fit = fit_stream(weighted, 3, source_count=2, sample_rows=300, generator=generator(0))
    whole = cavi(
        rows,
        default_prior(rows, 3, sample_weights=times.double()),
        3,
        source=label,
        source_count=2,
        sample_weights=times.double(),
        restarts=3,
        generator=generator(0),
    ).best()
    assert fit.concentration.shape == (1, 2, 3)
    assert fit.elbo.item() == pytest.approx(whole.elbo.item(), abs=1e-3)


def test_summary_is_that_of_all_rows():
    rows = clusters() + 1e6
    weights = torch.rand(len(rows), generator=generator(0), dtype=torch.float64)
    weights[:90] = 0  # a whole chunk without weight

    def chunks():
        for start in range(0, len(rows), 90):
            yield Chunk(rows[start : start + 90], weights[start : start + 90])

    found = summarise(chunks, sample_rows=50, generator=generator(0))
    share = (weights / weights.sum()).unsqueeze(-1)
    mean = (share * (rows - 1e6)).sum(0)
    centred = rows - 1e6 - mean
    assert found.count == len(rows)
    torch.testing.assert_close(found.mean - 1e6, mean, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.covariance, (share * centred).mT @ centred, rtol=1e-6, atol=0)
    assert found.sample.shape == (50, 2)


def test_sample_has_the_odds_of_the_weights():
    rows = torch.arange(4000.0).unsqueeze(-1)
    weights = torch.where(rows.squeeze(-1) < 2000, 3.0, 1.0)

    def chunks():
        yield Chunk(rows[:1500], weights[:1500])
        yield Chunk(rows[1500:], weights[1500:])

    found = summarise(chunks, sample_rows=400, generator=generator(0))
    share = (found.sample < 2000).double().mean().item()
    # Three quarters, less a little for drawing without replacement; four standard errors.
    assert share == pytest.approx(0.74, abs=4 * (0.75 * 0.25 / 400) ** 0.5)
    assert len(found.sample.unique()) == 400


@pytest.mark.parametrize("kind", ["npy", "columns", "lists", "fixed", "folder"])
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
    chunks = row_chunks(path, **options)
    for _ in range(2):  # a stream can be read again
        found = list(chunks())
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
        ("rows.csv", {}, "rows.csv: Expected a .npy or .parquet file; got .csv"),
        ("none.npy", {}, "no such file"),
        ("empty", {}, "folder with .npy or .parquet"),
        ("inf.npy", {"field": "v"}, "Parquet file for a named field"),
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
        list(row_chunks(tmp_path / name, **options)())


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([], "positive weight in the stream"),
        ([Chunk(torch.ones(3, 2)), Chunk(torch.ones(3, 1))], "dimension 2 throughout.* row 3"),
        ([Chunk(torch.ones(3, 2)), Chunk(torch.full((2, 2), torch.nan))], "violation in row 3"),
        ([Chunk(torch.ones(3, 2), torch.ones(2))], "one weight for each of 3"),
        ([Chunk(torch.ones(3, 2), -torch.ones(3))], "weights ≥ 0"),
        ([Chunk(torch.ones(3, 2).long())], "floating-point"),
    ],
)
def test_broken_chunks_are_named(chunks, message):
    with pytest.raises(ValueError, match=message):
        summarise(lambda: chunks, sample_rows=10, generator=generator(0))
