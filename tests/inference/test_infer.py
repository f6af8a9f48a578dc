"""`rbpp infer` and `rbpp bounds` in posterior worlds, as a user types them."""

import json
from pathlib import Path

import numpy as np
import pytest

from rbpp import inference_data
from rbpp.command import main

PROCESS = """
import pyro
import pyro.distributions as dist
from pyro.distributions import Normal


def model(anchors: int = 4, outputs: int = 6, temperature: float = 0.5, noise: float = 0.1):
    centre = pyro.sample("centre", Normal(0.0, 3.0).expand([2]).to_event(1))
    with pyro.plate("anchors", anchors):
        anchor = pyro.sample("anchor", Normal(centre, 1.0).to_event(1))
    prompt = pyro.sample("prompt", Normal(anchor.mean(-2, keepdim=True), 0.1).to_event(1))
    with pyro.plate("outputs", outputs):
        output = pyro.sample("output", Normal(prompt, temperature).to_event(1))
        pyro.sample("synthetic", Normal(output, noise).to_event(1))
"""


@pytest.fixture
def process(tmp_path: Path) -> Path:
    path = tmp_path / "my_process.py"
    path.write_text(PROCESS)
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.npy"
    np.save(path, np.random.default_rng(0).normal(3.0, 0.5, (9, 2)))
    return path


def run(capsys, *arguments) -> tuple[int, str, str]:
    status = main([str(one) for one in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_posterior_is_printed_and_written(process, rows, tmp_path, capsys):
    output = tmp_path / "posterior.nc"
    figures = tmp_path / "figures"
    status, out, _ = run(
        capsys, "infer", process, "--data", f"synthetic={rows}", "--output", output,
        "--figures", figures, "--json", "--keep", "prompt",
    )  # fmt: skip
    assert status == 0
    found = json.loads(out)
    assert 2.0 < found["terms"]["centre[0]"]["mean"] < 4.0
    assert "prompt[0, 1]" in found["terms"]
    assert found["settings"]["knobs"]["outputs"] == 9
    assert found["engine"] == "laplace"
    assert {one["statement"] for one in found["audit"]} >= {"draws are of the posterior"}
    data = inference_data.read(output)
    assert set(inference_data.group_datasets(data)) >= {"posterior", "prior", "log_likelihood"}
    assert (figures / "predictive.png").stat().st_size > 1000
    status, out, _ = run(capsys, "infer", process, "--data", f"synthetic={rows}")
    assert status == 0
    assert "normal at the optimum" in out


@pytest.mark.parametrize("ending", ["csv", "parquet", "npz"])
def test_files_of_other_kinds_give_the_same(process, rows, tmp_path, capsys, ending):
    import pandas as pd

    array = np.load(rows)
    path = tmp_path / f"rows.{ending}"
    frame = pd.DataFrame(array, columns=["a", "b"])
    if ending == "csv":
        frame.to_csv(path, index=False, float_format="%.17g")
    elif ending == "parquet":
        frame.to_parquet(path)
    else:
        np.savez(path, rows=array)
    _, expected, _ = run(capsys, "infer", process, "--data", f"synthetic={rows}", "--json")
    status, found, err = run(capsys, "infer", process, "--data", f"synthetic={path}", "--json")
    assert status == 0, err
    assert json.loads(found)["terms"] == json.loads(expected)["terms"]


def test_a_folder_and_a_leading_dimension_are_data_sets_of_one_world(process, tmp_path, capsys):
    array = np.random.default_rng(1).normal(1.0, 0.5, (3, 5, 2))
    folder = tmp_path / "sets"
    folder.mkdir()
    for index, one in enumerate(array):
        np.save(folder / f"{index}.npy", one)
    np.save(tmp_path / "stacked.npy", array)
    results = [
        run(capsys, "infer", process, "--data", f"synthetic={place}", "--json")
        for place in (folder, tmp_path / "stacked.npy")
    ]
    assert [status for status, _, _ in results] == [0, 0]
    folder_terms, stacked_terms = (json.loads(out)["terms"] for _, out, _ in results)
    assert folder_terms == stacked_terms


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--data"),
        (["--data", "synthetic"], "SITE=FILE"),
        (["--data", "synthetic={rows}", "--data", "synthetic={rows}"], "once"),
        (["--data", "synthetic=absent.npy"], "absent.npy"),
        (["--data", "centre={rows}"], "chain site"),
        (["--data", "target={rows}"], "chain site"),
        (["--data", "synthetic={text}"], "numbers"),
        (["--data", "synthetic={empty}"], "got none"),
        (["--data", "synthetic={wide}"], "of shape"),
        (["--data", "synthetic={infinite}"], "finite"),
        (["--data", "synthetic={rows}", "--data", "anchor={three}"], "as many data sets"),
        (["--data", "synthetic={rows}", "--engine", "magic"], "expected one of"),
        (["--data", "synthetic={rows}", "--guide", "flow"], "engine svi"),
        (["--data", "synthetic={rows}", "--engine", "svi", "--guide", "magic"], "guide"),
        (["--data", "synthetic={rows}", "--keep", "target"], "to keep"),
        (["--data", "synthetic={rows}", "--seconds", "-1"], "--seconds"),
        (["--data", "synthetic={rows}", "--draws", "0"], "--draws"),
        (["--data", "synthetic={rows}", "--batch-rows", "0"], "--batch-rows"),
        (["--data", "synthetic={rows}", "--batch-rows", "5"], "engine svi"),
        (["--data", "synthetic={rows}", "--set", "colour=3"], "knobs"),
        (["--data", "synthetic={rows}", "--engine", "hmc", "--seconds", "0.001"], "trust"),
    ],
)
def test_bad_input_is_one_line_and_status_2(process, rows, tmp_path, capsys, arguments, message):
    (tmp_path / "text.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "wide.npy", np.arange(27.0).reshape(9, 3))
    np.save(tmp_path / "infinite.npy", np.full((9, 2), np.inf))
    np.save(tmp_path / "three.npy", np.zeros((3, 4, 2)))
    places = {
        "rows": rows,
        "text": tmp_path / "text.jsonl",
        "empty": tmp_path / "empty",
        **{name: tmp_path / f"{name}.npy" for name in ("wide", "infinite", "three")},
    }
    given = [one.format(**places) for one in arguments]
    status, out, err = run(capsys, "infer", process, *given)
    assert (status, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert message in err


def test_a_plate_without_a_knob_is_refused(tmp_path, capsys):
    path = tmp_path / "fixed.py"
    path.write_text(PROCESS.replace('"outputs", outputs', '"outputs", 6'))
    np.save(tmp_path / "rows.npy", np.arange(18.0).reshape(9, 2))
    status, _, err = run(capsys, "infer", path, "--data", f"synthetic={tmp_path / 'rows.npy'}")
    assert status == 2
    assert "'outputs' 9 rows" in err
    assert len(err.strip().splitlines()) == 1


SMALL = ("--worlds", "4", "--replicates", "40", "--pairs", "20", "--groups", "4", "--inner", "8")


def test_bounds_in_posterior_worlds(process, rows, tmp_path, capsys):
    """From a file and in one go; worlds are the posterior's and the prior's are elsewhere."""
    written = tmp_path / "posterior.nc"
    run(capsys, "infer", process, "--data", f"synthetic={rows}", "--output", written)
    output = tmp_path / "bounds.nc"
    status, out, err = run(
        capsys, "bounds", process, "--posterior", written, "--output", output, "--json", *SMALL
    )
    assert status == 0, err
    groups = inference_data.group_datasets(inference_data.read(output))
    assert "prior" not in groups
    # The rows are around 3: worlds of the prior are around 0 with standard deviation 3.
    assert np.abs(groups["posterior"]["centre"].values - 3.0).max() < 2.5
    found = json.loads(out)["terms"]
    assert found["entropy_synthetic"]["mcse"] is not None
    status, out, err = run(
        capsys, "bounds", process, "--data", f"synthetic={rows}", "--json", *SMALL
    )
    assert status == 0, err
    assert json.loads(out)["terms"] == found


def test_a_posterior_of_something_else_is_refused(process, rows, tmp_path, capsys):
    written = tmp_path / "posterior.nc"
    run(capsys, "infer", process, "--data", f"synthetic={rows}", "--output", written)
    other = tmp_path / "other.py"
    other.write_text(PROCESS.replace("3.0", "2.0"))
    prior = tmp_path / "prior.nc"
    run(capsys, "simulate", process, "--output", prior)
    for arguments, message in (
        ((other, "--posterior", written), "an edited one"),
        (("linear_gaussian", "--posterior", written), "an edited one"),
        ((process, "--set", "noise=0.2", "--posterior", written), "noise=0.2 for 0.1"),
        ((process, "--posterior", prior), "rbpp infer wrote"),
        ((process, "--posterior", written, "--data", f"synthetic={rows}"), "both"),
    ):
        status, out, err = run(capsys, "bounds", *arguments)
        assert (status, out) == (2, "")
        assert len(err.strip().splitlines()) == 1
        assert message in err
