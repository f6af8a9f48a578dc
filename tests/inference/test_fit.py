"""`rbpp fit`: the command against a planted mixture, every option, every bad input."""

import json
import math

import arviz as az
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from rbpp.command import main
from rbpp.inference_data import read

FAST = ["--chains", "2", "--draws", "100", "--points", "64", "--device", "cpu"]
# Two unit Gaussians far apart: h = log 2 + log(2πe), as their rows never overlap.
TRUTH = math.log(2) + math.log(2 * math.pi * math.e)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """400 rows of two far unit Gaussians, as .npy."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("rows") / "rows.npy"
    np.save(path, rng.normal(0, 1, (400, 2)) + 5 * (np.arange(400) % 2)[:, None])
    return path


def fit(capsys, *arguments):
    assert main(["fit", *FAST, "--json", *map(str, arguments)]) == 0
    return json.loads(capsys.readouterr().out)


SLOW = [pytest.param(engine, marks=pytest.mark.slow) for engine in ("svi", "nuts")]


@pytest.mark.parametrize("engine", ["cavi", *SLOW])
def test_terms_of_a_planted_mixture(rows, capsys, engine):
    options = ["--restarts", "1"] if engine == "nuts" else []
    found = fit(capsys, rows, "--components", 2, "--engine", engine, *options)
    entropy = found["terms"]["entropy"]
    # The sampling error of an entropy from n rows is about sqrt(d / 2n) = 0.05: four of them.
    assert entropy["mean"] == pytest.approx(TRUTH, abs=0.2)
    assert entropy["hdi_low"] < entropy["mean"] < entropy["hdi_high"]
    assert 0 < entropy["mcse"] < 0.1
    assert found["terms"]["effective_components"]["mean"] == pytest.approx(2, abs=0.05)
    assert found["settings"]["rows"] == 400
    assert found["settings"]["engine"] == engine


@pytest.mark.parametrize("engine", ["cavi", "svi", "nuts"])
def test_engine_is_the_one_asked_for(rows, capsys, monkeypatch, engine):
    from rbpp.mixtures import fit as module

    asked = []
    fit_mixture = module.fit_mixture

    def recorded(*arguments, engine, **options):
        asked.append(engine)
        return fit_mixture(*arguments, engine="cavi", **options)

    monkeypatch.setattr(module, "fit_mixture", recorded)
    fit(capsys, rows, "--components", 2, "--engine", engine)
    assert asked == [engine]


def test_formats_agree(rows, capsys, tmp_path):
    table = tmp_path / "rows.csv"
    np.savetxt(table, np.load(rows), delimiter=",", header="a,b", comments="", fmt="%.17g")
    left = fit(capsys, rows, "--components", 2)
    right = fit(capsys, table, "--components", 2)
    assert left["terms"] == right["terms"]
    assert left["settings"]["digest"] == right["settings"]["digest"]


@pytest.mark.parametrize(
    ("option", "value", "changed"),
    [
        ("--components", "3", "effective_components"),
        ("--concentration", "50", "effective_components"),
        ("--chains", "3", "entropy"),
        ("--draws", "120", "entropy"),
        ("--points", "256", "entropy"),
        ("--seed", "1", "entropy"),
    ],
)
def test_every_option_changes_the_result(rows, capsys, option, value, changed):
    before = fit(capsys, rows, "--components", 2)["terms"][changed]
    after = fit(capsys, rows, "--components", 2, option, value)["terms"][changed]
    assert before != after


def test_sparse_concentration_empties_components(rows, capsys):
    dense, sparse = (
        fit(capsys, rows, "--components", 5, "--concentration", value)["terms"][
            "effective_components"
        ]
        for value in (20, 0.01)
    )
    assert sparse["mean"] == pytest.approx(2, abs=0.3)
    assert sparse["mean"] < dense["mean"]


@pytest.mark.filterwarnings("ignore:Estimated shape parameter")
def test_output_serves_arviz(rows, tmp_path, capsys):
    path = tmp_path / "fit.nc"
    fit(capsys, rows, "--components", 2, "--output", path, "--log-likelihood")
    data = read(path)
    assert data["posterior"]["mean"].dims == ("chain", "draw", "component", "dim")
    assert az.loo(data).elpd_loo == pytest.approx(-400 * TRUTH, rel=0.1)
    fit(capsys, rows, "--components", 2, "--output", path)
    assert "log_likelihood" not in read(path).groups()


def test_principal_components_are_what_is_fitted(rows, capsys):
    found = fit(capsys, rows, "--components", 2, "--dimension", 1)
    assert found["settings"]["dimension"] == 1
    # Along (1, 1) the clusters are 5 √2 apart: variance 1 + 12.5 of 1 + 1 + 12.5.
    assert found["settings"]["explained_variance"] == pytest.approx(13.5 / 14.5, abs=0.02)


def test_text_is_embedded_first(capsys, tmp_path):
    words = ["sort the list", "parse a file", "open one socket", "write to disk"]
    lines = [
        json.dumps({"text": f"{word} {index % 7} times"}) for index in range(20) for word in words
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    found = fit(
        capsys, tmp_path / "rows.jsonl", "--components", 3, "--text-field", "text", "--dimension", 3
    )
    assert found["settings"]["rows"] == 80
    assert found["settings"]["dimension"] == 3
    assert "WordLlama" in found["settings"]["embedding"]
    assert 0 < found["settings"]["explained_variance"] < 1


def test_several_counts_are_compared_by_held_out_rows(rows, capsys):
    found = fit(capsys, rows, "--components", "1..3")
    ranked = [entry["components"] for entry in found["comparison"]]
    assert sorted(ranked) == [1, 2, 3]
    assert ranked[-1] == 1  # two clusters far apart are no one Gaussian
    assert found["settings"]["components"] == ranked[0]
    elpd = [entry["elpd"] for entry in found["comparison"]]
    assert elpd == sorted(elpd, reverse=True)
    assert found["comparison"][-1]["difference"] < -4 * found["comparison"][-1]["difference_se"]
    assert main(["fit", *FAST, str(rows), "--components", "1,2"]) == 0
    assert "elpd" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_a_stream_gives_the_terms_of_the_rows_in_memory(rows, capsys, tmp_path, kind):
    path, options = rows, []
    if kind == "parquet":
        path, options = tmp_path / "rows.parquet", ["--embedding-field", "vector"]
        vectors = pyarrow.array(np.load(rows).tolist())
        pyarrow.parquet.write_table(pyarrow.table({"vector": vectors}), path, row_group_size=90)
    whole = fit(capsys, rows, "--components", 2)
    stream = fit(capsys, path, "--components", 2, "--stream", "--chunk-rows", 70, *options)
    for name in ("entropy", "effective_components"):
        one, two = (found["terms"][name] for found in (whole, stream))
        # Two sets of 200 independent draws of one posterior.
        assert two["mean"] == pytest.approx(one["mean"], abs=4 * one["sd"] * (2 / 200) ** 0.5)
        assert two["sd"] == pytest.approx(one["sd"], rel=0.3)
    assert stream["settings"]["rows"] == 400
    assert {entry["statement"]: entry["verdict"] for entry in stream["audit"]} == {
        "the ascent of every chain has settled": "holds",
        "chains agree on the entropy": "holds",
        "chains agree on the components": "holds",
        "rows decide the covariances, and not the prior": "holds",
        "the approximation is near the posterior": "unknown",  # not judged, and not passed
    }


def test_weights_of_a_stream_are_repetitions(rows, capsys, tmp_path):
    values = np.load(rows)
    weight = np.where(np.arange(400) % 2, 3.0, 1.0)  # the cluster at 5 counts three times
    table = pyarrow.table({"x": values[:, 0], "y": values[:, 1], "w": weight})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    options = ["--weight-field", "w", "--output", tmp_path / "fit.nc"]
    fit(capsys, tmp_path / "rows.parquet", "--components", 2, *options)
    found = read(tmp_path / "fit.nc")["posterior"]
    means, shares = (found[name].mean(("chain", "draw")).values for name in ("mean", "weight"))
    assert shares[means[:, 0].argmax()] == pytest.approx(0.75, abs=0.01)


def test_large_files_are_streamed_unasked(rows, capsys, tmp_path):
    assert fit(capsys, rows, "--components", 2)["settings"]["stream"] is False
    # A gibibyte of zeros that no disk holds, beside the rows: as rows they cannot vary.
    large = np.lib.format.open_memmap(
        tmp_path / "large.npy", mode="w+", dtype=np.float32, shape=(2**18, 1024)
    )
    large[0, 0] = np.nan
    large.flush()
    assert main(["fit", *FAST, str(tmp_path / "large.npy"), "--components", "2"]) == 2
    # The reader of streams names the first bad row after one chunk.
    assert "large.npy, row 0: Expected finite numbers; got others" in capsys.readouterr().err


def test_a_checkpoint_is_gone_on_from(rows, capsys, tmp_path):
    options = ["--components", 2, "--checkpoint", tmp_path / "kept", "--chunk-rows", 100]
    first = fit(capsys, rows, *options)
    for path in (tmp_path / "kept").glob("exact-*"):
        path.unlink()  # as if the run had been cut off before the exact passes
    again = fit(capsys, rows, *options)
    assert again["terms"] == first["terms"]
    assert main(["fit", *FAST, str(rows), *map(str, options), "--seed", "1"]) == 2
    assert "seed 0 there and 1 now" in capsys.readouterr().err


def test_table_names_components_and_audit(rows, capsys, tmp_path):
    arguments = [str(rows), "--components", "2", "--figures", str(tmp_path), "--all"]
    assert main(["fit", *FAST, *arguments]) == 0
    out = capsys.readouterr().out
    assert "component  weight" in out
    assert "Pareto k" in out
    assert "R-hat" in out
    assert (tmp_path / "fit.png").stat().st_size > 5_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ROWS"], "--components"),
        (["ROWS", "--components", "0"], "1 or more"),
        (["ROWS", "--components", "2.5"], "1 or more"),
        (["ROWS", "--components", "401"], "401"),
        (["ROWS", "--components", "3..2"], "distinct values"),
        (["ROWS", "--components", "2,2"], "distinct values"),
        (["ROWS", "--components", "2..x"], "1 or more"),
        (["ROWS", "--components", "2", "--draws", "0"], "2 or more"),
        (["ROWS", "--components", "2", "--concentration", "0"], "above 0"),
        (["ROWS", "--components", "2", "--concentration", "inf"], "above 0"),
        (["ROWS", "--components", "2", "--engine", "em"], "em"),
        (["absent.npy", "--components", "2"], "absent.npy"),
        (["nan.npy", "--components", "2"], "nan.npy"),
        (["ROWS", "--components", "2", "--dimension", "3"], "1 to the 2 directions"),
        (["ROWS", "--components", "2", "--embedding-model", "m"], "Expected text"),
        (["text.jsonl", "--components", "2", "--text-field", "txet"], "text"),
        (["ROWS", "--components", "2", "--embedding-field", "e"], "e"),
        (["ROWS", "--components", "2", "--passes", "3"], "--passes: expected --stream"),
        (["ROWS", "--components", "2", "--stream", "--dimension", "1"], "got --dimension"),
        (["ROWS", "--components", "2..3", "--stream"], "got several numbers of --components"),
        (["ROWS", "--components", "2", "--stream", "--engine", "svi"], "got --engine svi"),
        (["ROWS", "--components", "2", "--stream", "--address", "a:1"], "--workers ray with it"),
        (["ROWS", "--components", "2", "--weight-field", "w"], "file with columns"),
        (["nan.npy", "--components", "2", "--stream"], "nan.npy, row 1"),
        (["text.jsonl", "--components", "2", "--stream"], ".npy, .parquet, .feather or .arrow"),
    ],
)
def test_bad_input_is_one_line(rows, capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    np.save("nan.npy", np.array([[1.0, 2.0], [np.nan, 0.0], [3.0, 1.0]]))
    (tmp_path / "text.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    given = [str(rows) if argument == "ROWS" else argument for argument in arguments]
    assert main(["fit", *FAST, *given]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert message in printed.err
