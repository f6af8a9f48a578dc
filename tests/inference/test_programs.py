"""Every shipped program keeps the contract of the command line, on the smallest job of its kind."""

import importlib.util
import json
import math
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
import small_language_model

from rbpp import command
from rbpp.assessment.marks import write_sheet
from rbpp.inference_data import read
from rbpp.variables import VARIABLES

SMALL_FIT = "--draws 20 --chains 2"
SMALL_CHAIN = "--worlds 2 --replicates 32 --pairs 16 --groups 4 --inner 8"
# A new program joins by a line: the arguments, and a term that it must report.
RUNS = {
    "assess": (f"--anchor a.npy --synthetic b.npy --target t.npy {SMALL_FIT}", "kl_gap"),
    "bounds": (f"finite_alphabet {SMALL_CHAIN}", "information_gain"),
    "channel": ("scores.npz --draws 50", "information_gain"),
    "check": ("finite_alphabet --tries 2", None),
    "cmi": ("losses.npz", "generalization_gap"),
    "compare": ("a.npy b.npy --reference t.npy --draws 20", "a/kl_synthetic"),
    "fit": ("a.npy --components 2 --restarts 2 --draws 20 --points 16", "entropy"),
    "infer": ("finite_alphabet --data synthetic=letters.npy", "generator[0]"),
    "kl-gap": ("--worlds 2 --values 2", "kl_gap[2, 0]"),
    "mark": ("sheet.csv", None),  # all rows are marked: nothing is asked
    "mi": ("x.npy y.npy", "mutual_information"),
    "score": (
        "--model model --prompts prompts.json --output-rows prompts.json --scores ../scored.npz",
        None,
    ),
    "simulate": ("finite_alphabet", None),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Small files of every kind that programs read."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 1))
    arrays = {"x": x, "y": x + rng.normal(size=(100, 1))}
    arrays |= {name: rng.normal(size=(80, 2)) for name in "abt"}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    np.save(folder / "letters.npy", rng.integers(0, 3, (4, 1)))
    np.savez(folder / "scores.npz", log_prob=-rng.exponential(size=(20, 20)))
    masks, losses = rng.integers(0, 2, (6, 20)), rng.random((6, 20, 2))
    np.savez(folder / "losses.npz", losses=losses, masks=masks)
    texts = ["one text", "another text"]
    (folder / "prompts.json").write_text(json.dumps([{"text": text} for text in texts]))
    if importlib.util.find_spec("transformers"):
        small_language_model.make(folder / "model")
    write_sheet(folder / "sheet.csv", [0, 1], texts)
    sheet = pd.read_csv(folder / "sheet.csv", dtype=str)
    sheet.assign(off_task=["0", "1"]).to_csv(folder / "sheet.csv", index=False)
    return folder


def run(name, capsys, *options):
    if name == "score":
        pytest.importorskip("transformers", reason="needs the extra lm")
    arguments = [name, *RUNS[name][0].split(), "--device", "cpu", "--quiet", *options]
    assert command.main(arguments) == 0, capsys.readouterr().err
    return capsys.readouterr()


@pytest.fixture(scope="module")
def schema():
    """Of what every program prints with --json."""
    path = Path(__file__).parents[2] / "docs" / "reference" / "result.schema.json"
    return jsonschema.Draft202012Validator(json.loads(path.read_text(encoding="utf-8")))


def test_every_shipped_program_is_here():
    assert set(RUNS) == set(command.programs())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", RUNS)
def test_json_and_files_of_every_program(name, folder, schema, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    before = set(folder.iterdir())
    term = RUNS[name][1]
    output = [] if term is None else ["--output", str(tmp_path / "out.nc")]
    done, report = [], command._report
    monkeypatch.setattr(
        command, "_report", lambda *given: [done.append(given[1]), report(*given)][1]
    )
    printed = run(name, capsys, "--json", "--figures", str(tmp_path), *output)
    results = done[0].result if isinstance(done[0].result, dict) else {"": done[0].result}
    for result in results.values():
        answer = result.answer()
        assert 3 <= len(answer) <= 8, answer  # plain lines, before any table
        assert all(line.endswith(".") and "\n" not in line for line in answer)
        assert result.text().split("\n\n")[0].splitlines() == list(answer)
    if name not in ("check", "mark", "score", "simulate"):
        assert any("probab" in line or " to " in line for line in answer)
    assert printed.out.count("\n") == 1
    found = json.loads(printed.out, parse_constant=lambda text: pytest.fail(text))
    schema.validate(found)
    assert {"terms", "hdi_prob", "audit", "settings", "versions"} <= set(found)
    assert found["settings"]["seed"] == 0
    assert term is None or term in found["terms"]
    for label, numbers in found["terms"].items():
        # The terms of `infer` are the user's own sites.
        assert name == "infer" or label.rpartition("/")[2].partition("[")[0] in VARIABLES, label
        assert list(numbers) == ["mean", "sd", "hdi_low", "hdi_high", "mcse"]
        if numbers["hdi_low"] is not None:
            assert numbers["hdi_low"] <= numbers["hdi_high"]
    if term is not None:
        (written, *_) = sorted(tmp_path.glob("*.nc"))
        data = read(written)
        assert json.loads(data.attrs["settings"])["program"] == name
        assert list(tmp_path.glob("*.png"))
    assert set(folder.iterdir()) == before


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["mi", "fit"])
def test_bits_of_programs_are_nats_over_log_two(name, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    term = RUNS[name][1]
    nats, bits = (
        json.loads(run(name, capsys, "--json", "--units", units).out)["terms"][term]["mean"]
        for units in ("nats", "bits")
    )
    assert bits == pytest.approx(nats / math.log(2), rel=1e-6)
