"""Ranking real synthetic sets, whose outcome after training is known."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtri
from scipy.stats import spearmanr

from rbpp.assessment.compare import compare
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


def test_a_table_with_flipped_cells_ranks_below_a_good_one(shared_data: Path) -> None:
    """Normal scores of numbers, categories as columns, 16 components, judged by held-out rows."""
    folder = shared_data / "census"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    names = ("trn", "hol", "syn_flip30", "syn_mostly")
    tables = {name: pd.read_csv(folder / f"census2k-{name}.csv.gz") for name in names}
    numbers = [c for c in tables["trn"] if pd.api.types.is_numeric_dtype(tables["trn"][c])]
    words = {name: table.drop(columns=numbers).astype(str) for name, table in tables.items()}
    columns = pd.get_dummies(pd.concat(words.values())).columns

    def encoded(name: str) -> np.ndarray:
        parts = [
            pd.get_dummies(words[name]).reindex(columns=columns, fill_value=False).to_numpy(float)
        ]
        for column in numbers:
            known, value = np.sort(tables["trn"][column]), tables[name][column]
            sides = ("left", "right")
            place = sum(np.searchsorted(known, value, side) for side in sides) / (2 * len(known))
            parts.append(ndtri(np.clip(place, 0.5 / len(known), 1 - 0.5 / len(known)))[:, None])
        return np.concatenate(parts, 1)

    rows = {name: encoded(name) for name in names}
    mean = rows["trn"].mean(0)
    axes = np.linalg.svd(rows["trn"] - mean, full_matrices=False)[2][:16].T
    found = {name: (one - mean) @ axes for name, one in rows.items()}
    made = {name: found[name] for name in ("syn_flip30", "syn_mostly")}
    judged = compare(made, found["hol"], shares=False, draws=100)
    assert [line["name"] for line in judged.ranking] == ["syn_mostly", "syn_flip30"]
    assert judged.ranking[0]["p_best"] > 0.95
    # The flipped rows were made from the training rows: as a reference these judge what they gave.
    leaked = compare(made, found["trn"], shares=False, draws=100)
    assert any("judged by what it was given" in line for line in leaked.headline)
    files = {name: folder / f"census2k-{name}.csv.gz" for name in (*made, "trn")}
    by_file = compare({name: files[name] for name in made}, files["trn"], shares=False, draws=100)
    assert by_file.ranking[0]["name"] == "syn_mostly"
