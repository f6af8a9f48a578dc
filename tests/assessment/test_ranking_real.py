"""Ranking real synthetic sets, whose outcome after training is known."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from rbpp.assessment.ranking import rank_sets
from rbpp.assessment.ranking_sources import Source

ROWS = 200


def test_headlines_are_ranked_as_training_ranks_them(shared_data: Path) -> None:
    """Above 0.5, three standard errors of a rank correlation of 32 sets above zero."""
    folder = shared_data / "synque_sentiment"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    model2vec = pytest.importorskip("model2vec")
    carrier = importlib.util.find_spec("mostlyai")
    if carrier is None or not carrier.submodule_search_locations:
        pytest.skip("no mostlyai-qa, which carries the embedding")
    path = Path(carrier.submodule_search_locations[0]) / "qa/assets/embedders/potion-base-8M"
    if not path.is_dir():
        pytest.skip(f"no {path}")
    model = model2vec.StaticModel.from_pretrained(str(path))

    def read(name: str, generator: str | None = None) -> Source:
        rows = json.loads((folder / name).read_text())[:ROWS]
        x = model.encode([row["headline"] for row in rows]).astype(np.float64)
        labels = [row["sentiment"] for row in rows]
        return Source(x / np.linalg.norm(x, axis=1, keepdims=True), labels, generator=generator)

    with (folder / "task_performance.csv").open() as file:
        outcome = {row["dataset_name"]: float(row["test_f1_mean"]) for row in csv.DictReader(file)}
    sets = {name: read(f"synthetic/{name}.json", name.split("_")[0]) for name in outcome}
    real = read("real/balanced_real_seed=42.json")
    for judge in (real, Source(real.rows)):  # by their labels, and by the consensus
        ranking = rank_sets(sets, judge, draws=200)
        score = {line["name"]: line["score"] for line in ranking.lines}
        found = [score[name] for name in outcome]
        assert spearmanr(found, list(outcome.values())).statistic > 0.5
