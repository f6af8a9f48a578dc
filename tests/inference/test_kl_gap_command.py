"""`rbpp kl-gap`: studies to files, figure, table and JSON; bad options in one line."""

import json

import pytest

from rbpp import command, inference_data

FEW = ["--values", "2,3", "--worlds", "3", "--posterior-draws", "2", "--points", "64"]


def test_several_knobs_give_a_file_each_and_one_figure(tmp_path, capsys):
    options = ["--output", str(tmp_path / "gap.nc"), "--figures", str(tmp_path / "figures")]
    assert command.main(["kl-gap", "--vary", "K,L", *FEW, *options]) == 0
    for knob in "KL":
        data = inference_data.read(tmp_path / f"gap_{knob}.nc")
        assert data["posterior"]["kl_gap"].dims == ("chain", "draw", knob, "world")
    assert (tmp_path / "figures" / "kl_gap.png").stat().st_size > 10_000
    assert "posterior sd" in capsys.readouterr().out


def test_json_is_one_object_with_a_term_per_value_and_world(capsys):
    options = ["--histogram-redraws", "1", "--set", "noise=0.1", "--json"]
    assert command.main(["kl-gap", *FEW, *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) >= {"terms", "hdi_prob", "audit", "settings", "versions"}
    gaps = [name for name in found["terms"] if name.startswith("kl_gap[")]
    assert len(gaps) == 6
    assert any(name.startswith("kl_gap_histogram[") for name in found["terms"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--values", "x"], "2..15 or 2,5,8"),
        (["--values", "5..2"], "at least one value"),
        (["--vary", "K,K"], "every knob once"),
        (["--vary", "Q"], "one of the knobs"),
        (["--set", "K=3"], "either varied or set"),
        (["--worlds", "0"], "whole number of 1 or more; got 0"),
        (["--histogram-redraws", "-1"], "whole number of 0 or more; got -1"),
    ],
)
def test_refuses_in_one_line(options, message, capsys):
    assert command.main(["kl-gap", *FEW, *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
