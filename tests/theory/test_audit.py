"""Verdicts: bounds that are tight, loose, broken, and unknown."""

import math

import pytest
import torch

from rbpp.checks import verdict_of_probability
from rbpp.estimate import Estimate
from rbpp.theory.audit import check_at_most_zero, number, probability_holds


def estimate(*values, error=0.0):
    tensor = torch.tensor(values, dtype=torch.float64)
    return Estimate(tensor, torch.full_like(tensor, error), 10)


@pytest.mark.parametrize(
    ("slack", "probability", "word"),
    [
        (estimate(1.0, 2.0), 1.0, "holds"),
        (estimate(0.0, -1e-9), 1.0, "holds"),
        (estimate(-1.0, -2.0), 0.0, "violated"),
        (estimate(1.0, -1.0), 0.5, "undecided"),
        (estimate(0.1, error=0.1), 0.8413, "undecided"),
        (estimate(math.nan), math.nan, "unknown"),
        (estimate(math.inf), 1.0, "unknown"),
    ],
)
def test_probability_counts_worlds_and_monte_carlo_error(slack, probability, word):
    found = probability_holds(slack)
    if word == "unknown":
        assert math.isnan(found)
    else:
        assert found == pytest.approx(probability, abs=1e-3)
        assert verdict_of_probability(found) == word


def test_assumptions_are_judged_with_their_error():
    for excess, verdict in (
        (estimate(-1.0), "holds"),
        (estimate(0.5, error=0.1), "violated"),
        (estimate(0.01, error=0.1), "undecided"),
    ):
        assert check_at_most_zero("x ≤ 0", excess, "").verdict == verdict


def test_numbers_in_words():
    assert number(estimate(2.0, error=0.1)) == "2 ± 0.1"
    assert number(estimate(1.0, 3.0)) == "2 ± 1"
