"""Verdicts: bounds that are tight, loose, broken, and unknown."""

import math

import pytest
import torch

from rbpp.estimate import Estimate
from rbpp.theory.audit import (
    Assumption,
    Statement,
    entry,
    judged,
    number,
    probability_holds,
    verdict,
)


def estimate(*values, error=0.0):
    tensor = torch.tensor(values, dtype=torch.float64)
    return Estimate(tensor, torch.full_like(tensor, error), 10)


@pytest.mark.parametrize(
    ("slack", "probability", "word"),
    [
        (estimate(1.0, 2.0), 1.0, "holds"),
        (estimate(0.0, -1e-9), 1.0, "holds"),
        (estimate(-1.0, -2.0), 0.0, "violated"),
        (estimate(1.0, -1.0), 0.5, "violated in some worlds"),
        (estimate(0.1, error=0.1), 0.8413, "violated in some worlds"),
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
        assert verdict(found) == word


def test_a_broken_bound_is_named_beside_what_it_bounds():
    terms = {"left": estimate(2.0, 3.0), "right": estimate(1.0, 1.0), "slack": estimate(-1.0, -2.0)}
    row = entry(
        Statement("Lemma 0", "left", "right", "slack", [Assumption("a", "violated", "b")]),
        terms,
        {},
    )
    assert row["verdict"] == "violated"
    assert (row["left"], row["right"], row["slack"]) == (2.5, 1.0, -1.5)
    assert row["assumptions"] == ["violated: a (b)"]


def test_a_statement_without_its_terms_says_what_is_missing():
    row = entry(Statement("Lemma 0", "left", "right", "slack"), {}, {"right": "no site target"})
    assert row["verdict"] == "unknown"
    assert "no site target" in row["assumptions"][0]
    assert math.isnan(row["slack"])


def test_assumptions_are_judged_with_their_error():
    assert judged("x ≤ 0", estimate(-1.0), "").verdict == "holds"
    assert judged("x ≤ 0", estimate(0.5, error=0.1), "").verdict == "violated"
    assert judged("x ≤ 0", estimate(0.01, error=0.1), "").verdict == "violated in some worlds"


def test_numbers_in_words():
    assert number(estimate(2.0, error=0.1)) == "2 ± 0.1"
    assert number(estimate(1.0, 3.0)) == "2 ± 1"
