"""Style: a planted offset comes back, foreign rows do not move it, one author has none."""

from __future__ import annotations

import numpy as np
import pytest

from rbpp.assessment.neighbours import unit_length
from rbpp.assessment.style import auc, auc_error, style_of, style_offset

DIMENSION = 32


def topics(count: int, seed: int, *, centres: int = 6, spread: float = 0.25) -> np.ndarray:
    """Rows about a few topics, before they are scaled to unit length."""
    where = np.random.default_rng(100).normal(size=(centres, DIMENSION)) / np.sqrt(DIMENSION)
    random = np.random.default_rng(seed)
    noise = spread * random.normal(size=(count, DIMENSION)) / np.sqrt(DIMENSION)
    return where[random.integers(centres, size=count)] + noise


OFFSET = 0.3 * np.eye(DIMENSION)[0]


@pytest.mark.parametrize("foreign", [0.0, 0.3])
def test_a_planted_offset_is_found(foreign, margin):
    target = unit_length(topics(400, 0))
    synthetic = target.mean(0) * 0 + unit_length(topics(400, 1)) + OFFSET
    extra = int(foreign * 400)
    if extra:
        synthetic[:extra] = 2 * np.eye(DIMENSION)[1] + 0.1 * topics(extra, 2)
    offset, error, factor = style_offset(target, synthetic.astype(np.float32))
    # Five standard errors: over 18 seeds 0.086 ± 0.018 and 0.9964 ± 0.0004 with foreign rows, less
    # without them.
    margin(0.178 - np.linalg.norm(offset - OFFSET) / np.linalg.norm(OFFSET))
    margin(factor - 0.9944)
    assert 0 < error < 0.1


def test_one_author_has_no_style(margin):
    target, synthetic = unit_length(topics(400, 0)), unit_length(topics(400, 1))
    found = style_of(target, synthetic)
    assert found.shift.value < 0.15
    # Four standard errors of an AUC between near halves of one distribution.
    away = found.separation - 0.5
    margin(4 - abs(away.value.item()) / away.standard_error.item())


def test_a_style_is_taken_away():
    target = unit_length(topics(400, 0))
    synthetic = (unit_length(topics(400, 1)) + OFFSET).astype(np.float32)
    found = style_of(target, synthetic)
    assert found.separation_before.value > 0.8
    assert found.separation.value < found.separation_before.value - 0.15
    assert found.length.value.item() == pytest.approx(np.linalg.norm(found.offset))


def test_auc_is_a_count_of_pairs():
    lower, higher = np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0])
    pairs = [(a < b) + 0.5 * (a == b) for a in lower for b in higher]
    assert auc(lower, higher) == pytest.approx(np.mean(pairs))


def test_the_error_of_an_auc_is_its_spread(margin):
    random = np.random.default_rng(0)
    found = [auc(random.normal(size=20), random.normal(size=30)) for _ in range(2000)]
    # The standard deviation of 2,000 draws is known to 1.6 %.
    margin(0.06 - abs(np.std(found) / auc_error(20, 30) - 1))
