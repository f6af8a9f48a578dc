"""`rbpp simulate` and `rbpp check`, as a user calls them."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from rbpp import command
from rbpp.inference_data import read
from rbpp.processes.process import load_process
from rbpp.processes.simulation import simulate

SHIPPED = [
    "gaussian_mixture",
    "linear_gaussian",
    "finite_alphabet",
    "invertible_prompt",
    "curation",
]

OWN = """
import pyro
import pyro.distributions as dist
import torch


def model(rows: int = 4, leak: float = 0.0):
    centre = pyro.sample("centre", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("anchors", 3):
        anchor = pyro.sample("anchor", dist.Normal(centre, 1.0).to_event(1))
    prompt = pyro.deterministic("prompt", anchor)
    with pyro.plate("outputs", rows):
        output = pyro.sample("output", dist.Normal(prompt.mean(-2, keepdim=True), 1.0).to_event(1))
        leaked = output + leak * anchor.mean(-2, keepdim=True) if leak else output
        pyro.sample("synthetic", dist.Normal(leaked, 0.1).to_event(1))
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "my_process.py"
    path.write_text(OWN)
    return str(path)


def call(capsys, *arguments):
    status = command.main(list(arguments))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize("name", SHIPPED)
def test_simulate_writes_the_draws(name, tmp_path, capsys):
    target = tmp_path / "draws.nc"
    status, out, err = call(
        capsys, "simulate", name, "--worlds", "3", "--replicates", "2", "--seed", "5",
        "--output", str(target),
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert all(site in out for site in ("anchor", "prompt", "output", "synthetic"))
    data = read(target)
    expected = simulate(load_process(name), worlds=3, replicates=2, seed=5)
    for site, value in expected.sites.items():
        stored = data["prior_predictive"][site]
        assert stored.dims[:3] == ("chain", "draw", "replicate")
        np.testing.assert_array_equal(stored.values[0], value.numpy())
    for site, value in expected.world.items():
        np.testing.assert_array_equal(data["prior"][site].values[0], value[:, 0].numpy())
    assert int(data["constant_data"]["seed"]) == 5
    assert int(data["constant_data"]["outputs"]) == expected.process.knobs["outputs"]


def test_parts_and_dimensions_of_the_default_process(tmp_path, capsys):
    target = tmp_path / "draws.nc"
    assert call(capsys, "simulate", "gaussian_mixture", "--output", str(target))[0] == 0
    prior = read(target)["prior"]
    assert prior["means"].dims == ("chain", "draw", "component", "dim")
    assert prior["part"].values.ravel().tolist() == [0, 0, 1, 1, 2, 2]
    synthetic = read(target)["prior_predictive"]["synthetic"]
    assert synthetic.dims == ("chain", "draw", "replicate", "outputs", "dim")


def test_simulate_own_file_with_knobs(own, capsys):
    status, out, _ = call(capsys, "simulate", own, "--set", "rows=7", "--json")
    report = json.loads(out)
    shapes = {site["site"]: site["shape"] for site in report["sites"]}
    assert (status, shapes["synthetic"], shapes["centre"]) == (0, "7×2", "2")
    assert report["settings"]["knobs"] == {"rows": 7, "leak": 0.0}


def test_simulate_lists_knobs_without_running(tmp_path, capsys):
    path = tmp_path / "costly.py"
    path.write_text("def model(rows: int = 4):\n    raise RuntimeError('ran')\n")
    status, out, _ = call(capsys, "simulate", str(path), "--knobs")
    assert status == 0
    assert out.split() == ["knob", "value", "rows", "4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["simulate", "gausian_mixture"], "did you mean gaussian_mixture?"),
        (["simulate", "gaussian_mixture", "--set", "output=3"], "did you mean outputs?"),
        (["simulate", "gaussian_mixture", "--set", "outputs"], "--set NAME=VALUE"),
        (["simulate", "gaussian_mixture", "--set", "outputs=few"], "knob outputs of type int"),
        (["simulate", "gaussian_mixture", "--worlds", "0"], "--worlds"),
        (["check", "gaussian_mixture", "--tries", "0"], "--tries"),
        (["check", "missing.py"], "missing.py, which does not exist"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, message, capsys):
    status, out, err = call(capsys, *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_check_prints_every_rule(own, capsys):
    status, out, err = call(capsys, "check", own, "--tries", "3")
    assert (status, err) == (0, "")
    rules = {line.partition(",")[0] for line in out.splitlines() if "  holds" in line}
    assert rules == {
        "runs", "sites", "plate", "size", "event", "values", "randomness", "world", "markov",
        "rows", "batch", "invertible",
    }  # fmt: skip
    assert "violated" not in out


def test_check_of_a_violation_is_status_2_in_json_too(own, capsys):
    status, out, err = call(capsys, "check", own, "--set", "leak=0.5", "--tries", "3", "--json")
    assert status == 2
    assert len(err.strip().splitlines()) == 1
    assert "markov (anchor → synthetic)" in err
    report = json.loads(out)
    assert report["violated"] == 1
    (found,) = [entry for entry in report["audit"] if entry["verdict"] == "violated"]
    assert (found["rule"], found["place"]) == ("markov", "anchor → synthetic")
    assert found["measured"] > 0
    assert found["statement"].startswith("markov, anchor → synthetic: ")
    assert {entry["verdict"] for entry in report["audit"]} <= {"holds", "violated", "unknown"}


def test_program_files_run_by_themselves(own):
    program = command.programs_folder() / "check.py"
    done = subprocess.run(
        [sys.executable, str(program), own, "--set", "leak=1", "--tries", "2", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "my_process violates the contract" in done.stderr
