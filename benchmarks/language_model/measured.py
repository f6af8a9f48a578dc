"""Outcomes of every cell, and both sides of every inequality."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from . import smollm2, text
from .generate import Arrays, load
from .grid import Size

SMALL, LARGE = "small transformer", "SmolLM2"
ALIKE = "small transformer, fully trained generating model"
# Statement to (left side, right side, what C multiplies is in nats a token).
INEQUALITIES = {
    "Lemma 3.1": ("generalization_error", "bound_lemma_3_1"),
    "Lemma 4.4": ("estimation_gap", "bound_lemma_4_4"),
    "Lemma 4.5": ("information_synthetic_learner", "bound_information_flow"),
    "chain-rule bound": ("information_synthetic_learner", "bound_chain_rule"),
    "Lemma 4.6": ("estimation_gap", "bound_lemma_4_6"),
    "Theorem 4.7": ("generalization_error", "bound_theorem_4_7"),
    "sharp Theorem 4.7": ("generalization_error", "bound_sharp"),
    "Lemma 4.8": ("anchor_error", "bound_lemma_4_8"),
    "Theorem 4.10": ("entropy_synthetic", "entropy_output"),
}
# Left sides in nats a data set, which C does not bound.
INFORMATIONS = ("information_synthetic_learner", "entropy_synthetic")


def with_models(both: pd.DataFrame) -> pd.DataFrame:
    large = both["name"].str.startswith("smollm2")
    return both.assign(model=np.where(large, LARGE, SMALL))


def measured_table(work: Path, size: Size, predicted: pd.DataFrame) -> pd.DataFrame:
    """Losses of every cell in nats a token, means over replicates with their standard errors."""
    noise = {SMALL: size.noise, LARGE: 3e-4}
    found: list[dict[str, Any]] = []
    small = load(work / f"{size.outcomes}_anchors.npz")
    for path in sorted((work / size.outcomes).glob("*.npz")):
        made = load(path)
        for name in json.loads(str(made["cells"])):
            found.append({"name": name, **_cell(made, small, name, predicted, noise[SMALL])})
    if (work / "smollm2_outcomes.npz").exists() and size.schedule == "first":
        made = load(work / "smollm2_outcomes.npz")
        for name in sorted({key.split("/")[0] for key in made if key.startswith("smollm2")}):
            found.append({"name": name, **_cell(made, made, name, predicted, noise[LARGE])})
    return pd.DataFrame(found).sort_values("name")


def _cell(
    made: Arrays, anchors: Arrays, name: str, predicted: pd.DataFrame, noise: float
) -> dict[str, float]:
    row = predicted[predicted["name"] == name].iloc[0]
    count = int(row["anchors"])
    values = {key: made[f"{name}/{key}"] for key in ("test", "training", "fresh")}
    of_anchors = {key: anchors[f"{count}/{key}"] for key in ("test", "training", "fresh")}
    gap, error = values["fresh"] - values["training"], values["test"] - values["training"]
    lower, upper = _information(made[f"{name}/coordinates"], noise)
    low, high = _information(anchors[f"{count}/coordinates"], noise)
    return {
        "loss": values["test"].mean(),
        "loss_se": _error(values["test"]),
        "loss_base": float(anchors["base"].mean()),
        "loss_anchor": of_anchors["test"].mean(),
        "training_loss": values["training"].mean(),
        "generalization_error": abs(error.mean()),
        "generalization_error_se": _error(error),
        "estimation_gap": gap.mean(),
        "estimation_gap_se": _error(gap),
        "absolute_estimation_gap": np.abs(gap).mean(),
        "anchor_error": (of_anchors["test"] - of_anchors["training"]).mean(),
        "information_synthetic_learner_lower": lower,
        "information_synthetic_learner_upper": upper,
        "information_anchor_learner_lower": low,
        "information_anchor_learner_upper": high,
    }


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def _information(coordinates: np.ndarray, noise: float) -> tuple[float, float]:
    """Both sides of I(S; W), W = f(S) + τ ξ, from replicates of f(S): nats."""
    from rbpp.theory.learner_information import learner_information
    from rbpp.theory.learners import point_learner

    learner = point_learner(noise, estimate=lambda rows: rows.squeeze(-2))
    generator = torch.Generator().manual_seed(0)
    points = torch.from_numpy(coordinates)[None, :, None]
    learned = learner.prepare(points[:, 0], generator).fit(points)
    found = learner_information(learned, generator)
    assert found.lower is not None
    assert found.upper is not None
    # A Gaussian around the mean of the other replicates, τ wide, bounds as well.
    others = coordinates.sum(0) - coordinates
    apart = coordinates - others / (len(coordinates) - 1)
    plain = float((apart**2).sum(1).mean() / (2 * noise**2))
    return max(0.0, float(found.lower.value)), min(float(found.upper.value), plain)


def inequalities(both: pd.DataFrame) -> pd.DataFrame:
    """Left and right of every statement in every cell: columns name, model, statement, left, right.

    TV(D, D_M) and TV(D, D_gen) of real text have no density: they stand at their maximum, 1.
    """
    largest, rows, anchors = both["loss_bound"], both["rows"], both["anchors"]
    # Outputs before the filter carry the informations; nats of a data set.
    outputs = np.ceil(np.round(rows / (1 - both["filtered"])) / 32) * 32
    gain = both["information_gain"] * outputs
    about = both["information_prompt_output_upper"].clip(lower=0) * outputs
    flow, chain = 3 * gain + about, gain + about
    learner = np.minimum(both["information_synthetic_learner_upper"], chain)
    learner_of_anchors = np.minimum(both["information_anchor_learner_upper"], anchor_entropy(both))
    gap = both["absolute_estimation_gap"]
    kept = both.assign(
        bound_lemma_3_1=largest * (1 + both["generation_divergence"]) + gap,
        bound_lemma_4_4=largest * np.sqrt(learner / (2 * rows)),
        # The lower side: what is surely there. The upper one is no more than the bounds.
        information_synthetic_learner=both["information_synthetic_learner_lower"],
        bound_information_flow=flow,
        bound_chain_rule=chain,
        bound_lemma_4_6=largest * np.sqrt(flow / (2 * rows)),
        bound_theorem_4_7=largest
        * (1 + both["generation_divergence"] + np.sqrt(flow / (2 * rows))),
        bound_sharp=largest * (1 + np.sqrt(chain / (2 * rows))),
        bound_lemma_4_8=largest * np.sqrt(learner_of_anchors / (2 * anchors)),
        # Where φ_T is invertible and ΔI = H(M(p) | p), Theorem 4.10 says H(S_gen) ≤ H(M(p)), and
        # its correction is an identity. A filter is a function of the outputs; H(S_gen) after
        # random noise is not known.
        entropy_output=chain,
        entropy_synthetic=np.where(
            both["noise"] > 0, np.nan, rows * (both["information_gain_kept"] + about / outputs)
        ),
    )
    parts = [
        pd.DataFrame(
            {
                "name": kept["name"],
                "model": kept["model"],
                "statement": statement,
                "left": kept[left],
                "right": kept[right],
                "vacuous": kept[right] >= largest if left not in INFORMATIONS else False,
            }
        )
        for statement, (left, right) in INEQUALITIES.items()
    ]
    return pd.concat(parts).dropna()


def anchor_entropy(both: pd.DataFrame) -> Any:
    """An upper side of H(S_anchor): the code length of m rows under the untouched base model."""
    length = np.where(both["model"] == LARGE, smollm2.LENGTH, text.LENGTH)
    return both["anchors"] * length * both["loss_base"]
