"""Sets of labelled rows, and what a ranking says of one, for the tests of rankings."""

from __future__ import annotations

from typing import Any

import numpy as np

from rbpp.assessment.ranking import Ranking


def classes(
    seed: int, rows: int, means: np.ndarray | None = None, wrong: float = 0.0, dimension: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of three Gaussians, a share of whose labels is another one."""
    source = np.random.default_rng(seed)
    if means is None:
        means = np.eye(3, dimension) * 2.5
    labels = np.arange(rows) % len(means)
    x = means[labels] + source.normal(size=(rows, dimension))
    changed = source.random(rows) < wrong
    labels = np.where(changed, (labels + source.integers(1, len(means), rows)) % len(means), labels)
    return x, labels


def line(ranking: Ranking, name: str) -> dict[str, Any]:
    return next(one for one in ranking.lines if one["name"] == name)


def verdict(ranking: Ranking, statement: str) -> str:
    (found,) = [check.verdict for check in ranking.checks if statement in check.statement]
    return found
