"""Calibration of `p_trained_best` for `benchmarks/ranking.py`: said and found of pairs of sets."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
from scipy.special import ndtr

from rbpp.assessment.ranking_probabilities import (
    OF_TEXTS,
    Discrepancy,
    row_difference_sd,
)


def report(kind: str, outcomes: list[np.ndarray], values: list[np.ndarray]) -> None:
    """Print said and found of pairs: all pairs of a task, and groups of two to eight sets.

    Args:
        kind: what was scored.
        outcomes: of each task's sets.
        values: score of each real row, of each task, (sets, real rows).
    """
    texts = kind == "texts"
    default = OF_TEXTS if texts else Discrepancy()
    between = (4.0, 6.0, 8.0, 12.0) if texts else (2.0, 2.5, 3.0, 3.5, 4.0)
    row = (0.5, 0.8, 1.2) if texts else (0.2, 0.35, 0.5)
    grid = [
        dataclasses.replace(default, between=c, row=a, prior_sets=n)
        for c, a, n in itertools.product(between, row, (2.0, 4.0, 8.0))
    ]
    data = []
    for outcome, found in zip(outcomes, values, strict=True):
        found = found.astype(np.float64)
        source = np.random.default_rng(0)
        pieces = []
        for size in (2, 4, 8, len(found)):
            for _ in range(1 if size == len(found) else 1200 // size):
                group = source.choice(len(found), size, replace=False)
                pieces.append(_pairs(found[group], outcome[group], size == len(found)))
        data.append(np.concatenate(pieces))

    def said(rows: np.ndarray, setting: Discrepancy) -> np.ndarray:
        sets, prior = rows[:, 1], setting.prior_sets
        apart = (sets - 1) * (setting.between * rows[:, 2]) ** 2
        apart = (apart + prior * (setting.row * rows[:, 3]) ** 2) / (sets - 1 + prior)
        sure = ndtr(rows[:, 0] / np.sqrt(rows[:, 4] + apart))
        return (1 - setting.says_nothing) * sure + setting.says_nothing / 2

    def loss(rows: np.ndarray, setting: Discrepancy) -> float:
        both = [rows[rows[:, 6] == whole] for whole in (0, 1)]
        return float(np.mean([-np.log(np.clip(np.where(r[:, 5] > 0, p, 1 - p), 1e-4, 1)).mean()
                              for r in both for p in [said(r, setting)]]))  # fmt: skip

    print(f"\n## Calibration of `p_trained_best`, {kind}\n")
    losses = np.array([[loss(rows, setting) for setting in grid] for rows in data])
    chosen, probabilities = [], []
    for place, rows in enumerate(data):
        # A task is not like another: half of their spread is added to the mean of the others.
        others = np.delete(losses, place, 0)
        best = grid[int(np.argmin(others.mean(0) + others.std(0) / 2))]
        chosen.append(best)
        probabilities.append(said(rows, best))
    fixed = [said(d, default) for d in data]
    print(f"Chosen by the other tasks: {chosen}; default {default}.\n")
    print(
        "| pairs of | setting | "
        + " | ".join(f"said {s}" for s in (".5–.6", ".6–.7", ".7–.8", ".8–.9", ".9–.95", ".95–1"))
        + " | log-loss |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name, p in (("by the other tasks", probabilities), ("default", fixed)):
        for whole, title in ((1, "all sets of a task"), (0, "groups of 2, 4, 8")):
            cells = []
            parts = [
                (q[d[:, 6] == whole], d[d[:, 6] == whole, 5] > 0)
                for q, d in zip(p, data, strict=True)
            ]
            sure = np.concatenate([np.maximum(q, 1 - q) for q, _ in parts])
            right = np.concatenate([np.where(q >= 0.5, y, ~y) for q, y in parts])
            for low, high in (
                (0.5, 0.6),
                (0.6, 0.7),
                (0.7, 0.8),
                (0.8, 0.9),
                (0.9, 0.95),
                (0.95, 1.01),
            ):
                inside = (sure >= low) & (sure < high)
                cells.append(
                    f"{right[inside].mean():.2f} ({inside.sum():,})" if inside.any() else "–"
                )
            value = np.mean(
                [-np.log(np.clip(np.where(y, q, 1 - q), 1e-4, 1)).mean() for q, y in parts]
            )
            print(f"| {title} | {name} | {' | '.join(cells)} | {value:.3f} |")


def _pairs(values: np.ndarray, outcome: np.ndarray, whole: bool) -> np.ndarray:
    """difference, sets, SD between, SD of a row's difference, variance, which is better, whole."""
    score = values.mean(1)
    first, second = np.triu_indices(len(score), 1)
    variance = np.array([2 * (values[i] - values[j]).var() / values.shape[1]
                         for i, j in zip(first, second, strict=True)])  # fmt: skip
    count = len(first)
    found = np.stack(
        [
            score[first] - score[second],
            np.full(count, len(score)),
            np.full(count, score.std(ddof=1)),
            np.full(count, row_difference_sd(values)),
            variance,
            np.sign(outcome[first] - outcome[second]),
            np.full(count, float(whole)),
        ],
        1,
    )
    return found[found[:, 5] != 0]
