"""Verdicts: bounds that are tight, loose, broken, and unknown."""

import math
from dataclasses import replace

import pytest
import torch

from rbpp.checks import verdict_of_probability
from rbpp.estimate import Estimate
from rbpp.theory.audit import IDENTITY, check_at_most_zero, judge, number, probability_holds


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


@pytest.mark.parametrize(
    ("direction", "values", "verdict"),
    [
        ("upper", (1.0, 2.0), "undecided"),
        ("upper", (-1.0, 2.0), "violated"),
        ("upper", (0.0, 0.0), "undecided"),
        ("lower", (1.0, 2.0), "holds"),
        ("lower", (-1.0, 2.0), "undecided"),
    ],
)
def test_a_slack_that_is_a_bound_alone_decides_one_way(direction, values, verdict):
    slack = replace(estimate(*values, error=1e-9), direction=direction)
    judged = judge(slack)
    assert judged.verdict == verdict
    assert math.isnan(judged.probability) == (verdict == "undecided")
    # A side of its own decides what the value does not.
    sure = judge(replace(slack, lower=estimate(0.5, 0.5)))
    assert sure.verdict == ("violated" if verdict == "violated" else "holds")


def test_a_slack_that_is_open_at_both_ends_decides_nothing():
    for value in (1.0, -1.0):
        slack = sided((value,), 0.0, (-math.inf,), (math.inf,))
        assert judge(replace(slack, direction="biased")).verdict == "undecided"


def test_numbers_in_words():
    assert number(estimate(2.0, error=0.1)) == "2 ± 0.1"
    assert number(estimate(1.0, 3.0)) == "2 ± 1"


def sided(values, error, low, high):
    own = estimate(*values, error=error)
    return own.between(estimate(*low, error=error), estimate(*high, error=error))


@pytest.mark.parametrize(
    ("slack", "verdict", "message"),
    [
        (estimate(1.0, 2.0), "holds", ""),
        (estimate(0.0, 1e-9), "holds", IDENTITY),
        (estimate(-1.0, -2.0), "violated", "violated in every world"),
        (estimate(1.0, -1.0), "violated", "holds in 1 and is violated in 1 of 2 worlds"),
        # One of a hundred worlds beyond 2 errors is chance: nothing is violated.
        (estimate(*[1.0] * 99, -0.2, error=0.1), "undecided", "holds in 99 and is undecided in 1"),
        (estimate(0.1, 0.1, error=0.1), "undecided", "is undecided in 2 of 2 worlds"),
        # A value far below zero whose sides leave it open decides nothing; sides can decide.
        (sided([-9.0], 0.1, [-20.0], [2.0]), "undecided", ""),
        (sided([-9.0], 0.1, [-20.0], [-2.0]), "violated", "every"),
        (sided([0.1], 0.1, [5.0], [9.0]), "holds", ""),
        (estimate(math.nan), "unknown", ""),
        (estimate(1.0, error=math.inf), "unknown", "too few effective draws"),
    ],
)
def test_verdicts_are_of_all_worlds_together_and_from_sides(slack, verdict, message):
    judged = judge(slack)
    assert judged.verdict == verdict
    assert message in judged.message


@pytest.mark.parametrize(
    ("slack", "verdict"),
    [
        # The value has a wide error; its lower side, which is exact, decides.
        (estimate(0.2, 0.1, error=0.5).between(estimate(0.1, 0.1), estimate(3.0, 3.0)), "holds"),
        (sided([-9.0], 0.1, [-20.0], [-0.25]), "violated"),
        (sided([0.1], 0.1, [0.01], [0.2]), "undecided"),
    ],
)
def test_the_probability_is_that_of_what_the_verdict_rests_on(slack, verdict):
    judged = judge(slack)
    assert judged.verdict == verdict
    assert (judged.probability >= 0.95) == (verdict == "holds")
    assert verdict != "violated" or judged.probability > probability_holds(slack.lower)


def test_an_identity_has_no_probability():
    assert math.isnan(judge(estimate(0.0, 0.0)).probability)


def test_level_is_kept_by_all_worlds_together(margin):
    """Slack zero in 24 worlds: a violation is claimed in about five of a hundred audits."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(400, 24, generator=generator, dtype=torch.float64)
    one = torch.ones(24, dtype=torch.float64)
    claimed = sum(judge(Estimate(draw, one, 10)).verdict == "violated" for draw in draws)
    margin(400 * 0.05 + 4 * math.sqrt(400 * 0.05 * 0.95) - claimed)
