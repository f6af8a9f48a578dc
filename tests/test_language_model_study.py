"""The study of language models on a tiny configuration: its stages in order, and again."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
TINY = {
    "cells": 4,
    "replicates": 2,
    "generating_steps": 2,
    "base_steps": 2,
    "text_batch": 2,
    "tune_steps": 2,
    "tune_batch": 2,
    "sample_batch": 64,
    "score_batch": 128,
    "tune_models": 4,
    "fresh": 8,
    "matrix": 32,
    "anchor_replicates": 2,
}
WORDS = "alpha beta gamma delta from into with without number date text of a the row table".split()


@pytest.fixture
def study(monkeypatch, tmp_path):
    """`main` of the study with its sizes and texts made small."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    import language_models
    from language_model import grid, predict, text

    tiny = grid.Size(
        **TINY,
        generating=grid.Shape(1, 16, 5 * 65 + 1),
        base=grid.Shape(1, 16, 66),
        supersample=(0, 0),
    )
    monkeypatch.setitem(grid.SIZES, "quick", tiny)
    random = np.random.default_rng(0)

    def texts(data):
        for module, count in (("random", 8000), ("email", 1500), ("glob", 3000)):
            yield module, " ".join(random.choice(WORDS, count))
        for path in data:
            yield f"data:{path.stem}", " ".join(text._strings_of(path))

    monkeypatch.setattr(text, "_texts", texts)
    monkeypatch.setattr(predict, "_processes", lambda: 1)
    monkeypatch.setattr(predict, "_assessed", lambda *_: {"irrelevant_share": 0.1})

    def run(*arguments):
        given = ["language_models.py", *arguments, "--quick", "--work", str(tmp_path / "work")]
        monkeypatch.setattr(sys, "argv", given)
        language_models.main()
        return tmp_path / "work"

    yield run
    for name in [name for name in sys.modules if name.startswith("language_model")]:
        del sys.modules[name]


def test_predictions_come_before_outcomes_and_a_second_run_does_nothing_again(study, capsys):
    with pytest.raises(SystemExit):
        study("data", "outcomes")
    assert "expected predictions before outcomes" in capsys.readouterr().err
    work = study("predictions")
    predicted = pd.read_csv(work / "language_models_predictions.csv")
    assert len(predicted) == 4
    assert json.loads((work / "language_models_orderings.json").read_text())["knobs"]
    assert not list(work.glob("outcomes*"))
    study("outcomes")
    times = {path: path.stat().st_mtime_ns for path in work.rglob("*.npz")}
    first = (work / "outcomes" / "full_2_0.8.npz").read_bytes()
    (work / "outcomes" / "full_2_0.8.npz").unlink()  # as if it had been stopped there
    study("data", "outcomes", "--schedule", "gentle")
    study()
    again = {path: path.stat().st_mtime_ns for path in work.rglob("*.npz")}
    assert {path for path, time in times.items() if again[path] != time} == {
        work / "outcomes" / "full_2_0.8.npz"
    }
    assert (work / "outcomes" / "full_2_0.8.npz").read_bytes() == first
    outcomes = pd.read_csv(work / "language_models_outcomes.csv")
    gentle = pd.read_csv(work / "language_models_outcomes_gentle.csv")
    assert (outcomes["loss"] != gentle["loss"]).all()
    assert outcomes["loss_base"].equals(gentle["loss_base"])
    page = (work / "language_models.md").read_text()
    assert "| Theorem 4.7 | small transformer | 4 |" in page
    assert "### The schedule `gentle` on 4 of the cells" in page


def test_other_texts_are_the_task(study, tmp_path):
    lines = [
        {"instruction": " ".join(np.random.default_rng(i).permutation(WORDS))} for i in range(400)
    ]
    lines.append({"id": "not a text"})
    path = tmp_path / "asked.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    work = study("corpus", "--data", str(path))
    with np.load(work / "corpus.npz") as found:
        assert set(found["anchor_module"]) == {3}
        assert set(found["general_module"]) == {0, 2}
        assert len(found["test"]) > 50


def test_rows_are_written_and_scored_by_one_distribution(study):
    """Log-probabilities of sampling, of one pass and of all pairs agree, prompts read once."""
    from language_model import grid, network, written

    generator = torch.Generator().manual_seed(1)
    weights = network.new_network(grid.Shape(2, 16, 140), generator, torch.device("cpu"))
    prompts = torch.randint(network.SEPARATOR, (3, 20), generator=generator)
    repeated = prompts.repeat_interleave(2, 0)
    distribution = (network, weights)
    rows, density = written.sample(*distribution, repeated, 0.8, generator, 4)
    expected = written.log_prob(*distribution, repeated, rows, 0.8, 5)
    torch.testing.assert_close(density, expected, atol=1e-3, rtol=0)
    matrix = written.pairs(*distribution, prompts, rows, 0.8, 6)
    own = torch.arange(6) // 2
    torch.testing.assert_close(matrix[torch.arange(6), own], expected, atol=1e-3, rtol=0)
    assert float((matrix[:, 0] - matrix[:, 1]).abs().min()) > 1e-3
