"""Intervals over worlds: what they say they hold, they hold."""

import math

import numpy as np
import pytest

from rbpp.theory.world_intervals import interval_over_worlds, spread_of_worlds
from rbpp.variables import VARIABLES


@pytest.mark.parametrize("count", [4, 12, 40, 200])
def test_another_world_is_inside_as_often_as_said(count, margin):
    """The shortest interval of 12 draws holds 79 to 85 % where 94 % is asked for."""
    random, tries = np.random.default_rng(0), 4000
    held = 0
    for _ in range(tries):
        draws = random.normal(size=count + 1)
        low, high = interval_over_worlds(draws[1:], 0.94)
        held += low <= draws[0] <= high
    # Between order statistics the probability is at least the stated one, and at most one spacing.
    error = math.sqrt(0.94 * 0.06 / tries)
    margin(4 + (held / tries - 0.94) / error)
    margin(4 - (held / tries - 0.94 - (1 / (count + 1) if count > 33 else 0)) / error)


def test_intervals_stay_where_terms_can_be():
    draws = np.array([0.0, 0.1, 3.0])
    assert interval_over_worlds(draws, 0.9, 0.0)[0] == 0
    assert interval_over_worlds(draws, 0.9)[0] < 0
    shares, share = np.array([0.4, 0.9, 0.99]), VARIABLES["total_divergence"]
    assert interval_over_worlds(shares, 0.94)[1] > 1
    assert interval_over_worlds(shares, 0.94, share.least, share.most) == (0, 1)
    # What Monte Carlo error pushed beyond stays in view.
    assert interval_over_worlds(np.array([0.4, 0.9, 1.01]), 0.94, 0, 1)[1] == 1.01


def test_spread_has_no_monte_carlo_error_in_it(margin):
    random = np.random.default_rng(1)
    worlds, noise = random.normal(size=20_000), 0.7 * random.normal(size=20_000)
    found = spread_of_worlds(float((worlds + noise).std(ddof=1)), 0.7)
    margin(0.03 - abs(found - 1))  # the spread of both has an error of 0.0075
    assert spread_of_worlds(0.1, 0.3) == 0
