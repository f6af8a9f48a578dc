"""Streamed assessments against those in memory: the same answers, and a line for every row."""

import json

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest

from rbpp import command
from rbpp.assessment.assess import assess, assess_sources
from rbpp.assessment.sources import Fields, Representation, Sampling, read_sources
from rbpp.assessment.tables import write_rows
from rbpp.assessment.weighted_rows import Draws
from rbpp.inference_data import group_datasets

OPTIONS = {"chains": 2, "draws": 60}
OFF_TASK = 0.2
COUNT = 900
CENTRES = np.random.default_rng(0).normal(size=(4, 6)) * 4


def rows_of(shares, seed, count=COUNT):
    """Rows around the centres, off-task ones (the last centre) in the end of the file."""
    random = np.random.default_rng(seed)
    place = np.sort(random.choice(len(shares), count, p=shares))
    return (CENTRES[place] + random.normal(size=(count, 6))).astype(np.float32)


SOURCES = {
    "anchor": rows_of([1.0], 1, 200),
    "target": rows_of([0.5, 0.25, 0.25], 2),
    "synthetic": rows_of([0.4, 0.2, 0.2, OFF_TASK], 3),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    for role, rows in SOURCES.items():
        np.save(folder / f"{role}.npy", rows)
    return {role: folder / f"{role}.npy" for role in SOURCES}


@pytest.fixture(scope="module")
def whole():
    return assess(**SOURCES, **OPTIONS)


def assess_files(files, place=None, *, sample_rows=4000, chunk_rows=50_000, compute=None, **fields):
    sampling = Sampling(chunk_rows, sample_rows)
    sources = read_sources(files, Fields(**fields), sampling=sampling, compute=compute)
    found = assess_sources(sources, draws=Draws.per_chain(2, 60))
    return found if place is None else write_rows(place, sources, found, compute=compute)


@pytest.fixture(scope="module")
def sampled(files, tmp_path_factory):
    place = tmp_path_factory.mktemp("rows") / "rows.parquet"
    found = assess_files(files, place, sample_rows=400, chunk_rows=250)
    return found, pd.read_parquet(place)


def mean_and_spread(found, name):
    values = group_datasets(found.idata)["posterior"][name]
    error = group_datasets(found.idata)["posterior"].get(f"{name}_mcse")
    noise = 0.0 if error is None else float((error**2).mean()) / values.size
    return float(values.mean()), (float(values.var()) + noise) ** 0.5


def test_small_sources_are_sampled_whole_and_give_what_they_give_in_memory(files, whole, tmp_path):
    place = tmp_path / "rows.parquet"
    found = assess_files(files, place, chunk_rows=250)
    for name in ("irrelevant_share", "uncovered_share", "total_divergence", "entropy_synthetic"):
        mean, spread = mean_and_spread(found, name)
        expected, _ = mean_and_spread(whole, name)
        # Axes from moments differ in rounding, and draws with them.
        assert mean == pytest.approx(expected, abs=0.5 * spread + 1e-9), name
    table = pd.read_parquet(place)
    assert list(table.columns) == list(whole.rows.columns)
    assert table["id"].tolist() == whole.rows["id"].tolist()
    np.testing.assert_allclose(table["redundancy"], whole.rows["redundancy"], atol=1e-3)
    pd.testing.assert_frame_equal(table[["off_task", "x", "y"]], found.rows[["off_task", "x", "y"]])
    assert "rows of the samples" not in {line.statement for line in found.checks}


def test_samples_give_the_answers_of_all_rows_within_their_errors(sampled, whole, margin):
    found, _ = sampled
    for name in ("irrelevant_share", "uncovered_share", "novel_share", "total_divergence"):
        mean, spread = mean_and_spread(found, name)
        expected, other = mean_and_spread(whole, name)
        assert abs(mean - expected) < 4 * (spread**2 + other**2) ** 0.5 + 0.01, name
    # Three standard errors of a share of 400 rows.
    margin(0.06 - abs(mean_and_spread(found, "irrelevant_share")[0] - OFF_TASK))
    # Information is that of all rows, though they were not all looked at.
    mean, spread = mean_and_spread(found, "entropy_synthetic")
    expected, other = mean_and_spread(whole, "entropy_synthetic")
    margin(4 * (spread**2 + other**2) ** 0.5 - abs(mean - expected))
    assert found.settings["rows"] == {role: len(rows) for role, rows in SOURCES.items()}
    assert found.settings["sample_rows"] == {"anchor": 200, "target": 400, "synthetic": 400}
    line = next(line for line in found.checks if line.statement == "rows of the samples")
    assert "400 of 900 synthetic" in line.message
    assert "anchor" not in line.message


def test_every_row_has_its_line(sampled, whole):
    found, table = sampled
    assert table["source"].value_counts().to_dict() == found.settings["rows"]
    for role, own in table.groupby("source"):
        assert own["id"].tolist() == [str(place) for place in range(1, len(own) + 1)], role
    synthetic = table[table["source"] == "synthetic"].set_index("id")
    expected = whole.rows[whole.rows["source"] == "synthetic"].set_index("id")
    agree = (synthetic["off_task"] > 0.5).to_numpy() == (expected["off_task"] > 0.5).to_numpy()
    assert agree.mean() > 0.98
    # What the assessment says of the rows of the sample is kept.
    ours = found.rows[found.rows["source"] == "synthetic"].set_index("id")
    np.testing.assert_array_equal(synthetic.loc[ours.index, "off_task"], ours["off_task"])
    rest = synthetic.drop(ours.index)
    np.testing.assert_allclose(
        rest["off_task"].mean(), expected.loc[rest.index, "off_task"].mean(), atol=0.02
    )
    assert synthetic["redundancy"].isna().all()
    assert table[table["source"] == "anchor"]["redundancy"].notna().all()
    drop = int((synthetic["off_task"] > 0.5).sum())
    assert f"{drop} of {COUNT} synthetic rows" in found.answers[-1]["sentence"]


def test_commands_stream_what_they_are_asked_to(files, tmp_path, capsys):
    arguments = [f"--{role}={path}" for role, path in files.items()]
    sizes = ["--stream", "--sample-rows", "150", "--chunk-rows", "700"]
    few = ["--chains", "1", "--draws", "20", "--json"]
    rows = tmp_path / "rows.parquet"
    report = tmp_path / "report.html"
    options = ["--rows", str(rows), "--report", str(report)]
    assert command.main(["assess", *arguments, *sizes, *few, *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"]["sample_rows"]["synthetic"] == 150
    assert len(pd.read_parquet(rows)) == sum(map(len, SOURCES.values()))
    assert report.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stream", "--text-field", "t"], "--stream: expected vectors alone; got --text-field"),
        (["--stream", "--id-field", "i"], "--stream: expected vectors alone; got --id-field"),
        (["--sample-rows", "9"], "--sample-rows: expected --stream with it; got none"),
        (["--stream", "--dimension", "7"], "from 1 to the 6 directions"),
    ],
)
def test_options_that_do_not_go_together_are_named(files, options, message, capsys):
    arguments = [f"--{role}={path}" for role, path in files.items()]
    assert command.main(["assess", *arguments, *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_unusable_sources_are_named(files, tmp_path, capsys):
    def refused(name, values, message, **options):
        path = tmp_path / name
        if path.suffix == ".npy":
            np.save(path, values)
        else:
            pyarrow.parquet.write_table(pyarrow.table({"vector": list(values)}), path)
        with pytest.raises(ValueError, match=message):
            assess_files({**files, "synthetic": path}, **options)

    refused("same.npy", np.ones((5, 6)), r"same.npy \(synthetic\): Expected at least 2 rows that")
    refused("narrow.npy", np.eye(5), r"Expected embeddings of dimension 6 as in .*; got 5")
    refused("bad.npy", np.full((5, 6), np.nan), "bad.npy, row 0: Expected finite numbers")
    refused("none.npy", np.ones((0, 6)), "none.npy: Expected rows for synthetic; got none")
    refused("rows.parquet", np.ones((5, 6)), "Expected an embedding field")
    with pytest.raises(ValueError, match="Expected synthetic rows"):
        assess(target=files["target"], sampling=Sampling())
    with pytest.raises(ValueError, match="sample_rows"):
        Sampling(sample_rows=1)


def test_a_table_that_is_cut_off_leaves_no_file(files, sampled, tmp_path, monkeypatch):
    sources = read_sources(files, sampling=Sampling(250, 400))

    def cut_off(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("rbpp.assessment.tables.place_rows", cut_off)
    with pytest.raises(KeyboardInterrupt):
        write_rows(tmp_path / "rows.parquet", sources, sampled[0])
    assert not list(tmp_path.iterdir())


def test_sources_in_memory_that_are_large_are_sampled_too(monkeypatch, tmp_path):
    monkeypatch.setattr("rbpp.assessment.sources.SAMPLE_ROWS", 300)
    sources = read_sources(SOURCES, representation=Representation(dimension=4))
    assert sources.rows["synthetic"].size == COUNT
    assert len(sources.vectors["synthetic"]) == 300
    found = write_rows(
        tmp_path / "r.parquet", sources, assess_sources(sources, draws=Draws.per_chain(2, 60))
    )
    assert f"of {COUNT} synthetic rows" in found.answers[-1]["sentence"]
    assert len(pd.read_parquet(tmp_path / "r.parquet")) == sum(map(len, SOURCES.values()))
    with pytest.raises(ValueError, match="read whole"):
        found.ask(tmp_path / "sheet.csv")
