"""Estimates carry their error through arithmetic."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rbpp.estimate import Estimate, delta_method, exactly, mean_estimate, stack


def test_interval_widens_with_z():
    estimate = Estimate(torch.tensor([1.0, 2.0]), torch.tensor([0.1, 0.2]), 100)
    low, high = estimate.interval(2.0)
    torch.testing.assert_close(low, torch.tensor([0.8, 1.6]))
    torch.testing.assert_close(high, torch.tensor([1.2, 2.4]))
    assert estimate.direction == "unbiased"


def test_refuses_an_error_of_another_shape():
    with pytest.raises(ValueError, match=r"one shape; got \(2,\) and \(3,\)"):
        Estimate(torch.zeros(2), torch.zeros(3), 10)


def test_independent_errors_add_in_squares():
    one = Estimate(torch.tensor([1.0, 2.0]), torch.tensor([0.3, 0.6]), 10)
    other = Estimate(torch.tensor([0.5, 0.5]), torch.tensor([0.4, 0.8]), 20)
    for found, value in ((one + other, [1.5, 2.5]), (one - other, [0.5, 1.5])):
        torch.testing.assert_close(found.value, torch.tensor(value))
        torch.testing.assert_close(found.standard_error, torch.tensor([0.5, 1.0]))
        assert found.count == 10


def test_terms_of_the_same_draws_have_the_error_of_their_difference():
    """x and x + 1 differ by 1 exactly; as independent numbers they would differ by 1 ± noise."""
    draws = torch.randn(3, 400, generator=torch.Generator().manual_seed(0))
    one = mean_estimate(draws, draws="rows")
    other = mean_estimate(draws + 1, draws="rows")
    torch.testing.assert_close((other - one).standard_error, torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close((other + one).standard_error, 2 * one.standard_error)
    elsewhere = mean_estimate(draws + 1, draws="other rows")
    torch.testing.assert_close((elsewhere - one).standard_error, math.sqrt(2) * one.standard_error)


def test_same_draws_survive_a_chain_of_sums():
    draws = torch.randn(50, generator=torch.Generator().manual_seed(0))
    one = mean_estimate(draws, draws="rows")
    found = (2 * one + 1) - one - one
    assert found.value.item() == pytest.approx(1.0)
    assert found.standard_error.item() == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize(
    ("first", "second", "sum_of_them", "difference"),
    [
        ("unbiased", "unbiased", "unbiased", "unbiased"),
        ("exact", "exact", "exact", "exact"),
        ("exact", "unbiased", "unbiased", "unbiased"),
        ("lower", "unbiased", "lower", "lower"),
        ("lower", "lower", "lower", "biased"),
        ("lower", "upper", "biased", "lower"),
        ("upper", "exact", "upper", "upper"),
    ],
)
def test_directions(first, second, sum_of_them, difference):
    zero = torch.zeros(())
    one, other = Estimate(zero, zero, 1, first), Estimate(zero, zero, 1, second)
    assert (one + other).direction == sum_of_them
    assert (one - other).direction == difference


def test_a_difference_takes_opposite_sides():
    def bracket(low, value, high):
        sides = [Estimate(torch.tensor(side), torch.tensor(0.0)) for side in (low, high)]
        return Estimate(torch.tensor(value), torch.tensor(0.0)).between(*sides)

    found = bracket(1.0, 2.0, 4.0) - bracket(0.5, 1.0, 2.0)
    assert (found.lower.value, found.value, found.upper.value) == (-1.0, 1.0, 3.5)
    alone = bracket(1.0, 2.0, 4.0) - exactly(torch.tensor(1.0))
    assert (alone.lower.value, alone.upper.value) == (0.0, 3.0)
    assert (-bracket(1.0, 2.0, 4.0)).lower.value == -4.0


def test_one_sided_terms_give_no_side_that_they_do_not_have():
    zero = torch.tensor(0.0)
    two_sided = exactly(zero).between(exactly(zero), exactly(zero))
    lower_bound = Estimate(zero, zero, 1, "lower")
    found = two_sided + lower_bound
    assert found.lower is not None
    assert found.upper is None


def test_an_end_is_a_side_or_the_value_unless_that_is_the_other_side():
    value = Estimate(torch.tensor(0.5), torch.tensor(0.1))
    side = exactly(torch.tensor(1.0))
    assert value.end("lower") is value
    assert value.end("upper") is value
    assert not value.far_apart
    least = replace(value, direction="lower")
    assert least.end("lower") is least
    assert least.end("upper") is None
    assert least.far_apart
    assert (-least).end("lower") is None
    assert replace(least, upper=side).end("upper") is side
    assert not replace(least, lower=value, upper=side).far_apart


def test_another_error_adds_in_squares_and_sides_stay():
    sides = exactly(torch.tensor([0.0, 0.0])), exactly(torch.tensor([1.0, 1.0]))
    found = Estimate(torch.tensor([0.5, 0.5]), torch.tensor([3.0, math.inf]), 7).between(*sides)
    wide = found.widened(torch.tensor([4.0, 1.0]))
    assert wide.standard_error.tolist() == [5.0, math.inf]
    assert wide.value is found.value
    assert (wide.lower, wide.upper, wide.count) == (*sides, 7)


def test_units_scale_value_error_and_sides():
    estimate = Estimate(torch.tensor(2.0), torch.tensor(0.5)).between(
        exactly(torch.tensor(1.0)), exactly(torch.tensor(3.0))
    )
    halved = estimate / 2
    assert (halved.value, halved.standard_error) == (1.0, 0.25)
    assert (halved.lower.value, halved.upper.value) == (0.5, 1.5)


def test_mean_over_entries_averages_errors_as_independent():
    estimate = Estimate(torch.tensor([1.0, 3.0]), torch.tensor([0.3, 0.4]), 10)
    assert estimate.mean().value == 2.0
    assert estimate.mean().standard_error.item() == pytest.approx(0.25)


def test_delta_method_counts_a_term_once():
    x = Estimate(torch.tensor([3.0]), torch.tensor([0.1]))
    y = Estimate(torch.tensor([4.0]), torch.tensor([0.2]))
    found = delta_method(
        lambda t: {"zero": t["x"] - t["x"], "norm": (t["x"] ** 2 + t["y"] ** 2).sqrt()},
        {"x": x, "y": y},
    )
    assert found["zero"].standard_error.item() == 0.0
    expected = math.hypot(0.6 * 0.1, 0.8 * 0.2)
    assert found["norm"].standard_error.item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        ("unbiased", "exact", "unbiased"),
        ("lower", "unbiased", "lower"),
        ("unbiased", "lower", "upper"),
        ("lower", "upper", "lower"),
        ("lower", "lower", "biased"),
        ("biased", "unbiased", "unbiased"),  # of unknown sign, and with no side of its own
    ],
)
def test_delta_method_says_which_side_a_function_of_bounds_is(one, other, difference):
    value = torch.tensor([2.0])
    known = {
        name: Estimate(value, 0 * value, 1, direction)
        for name, direction in (("x", one), ("y", other))
    }
    found = delta_method(lambda term: {"z": term["x"] - term["y"], "x": term["x"]}, known)
    assert found["z"].direction == difference
    assert found["x"].direction == (one if one == "lower" else "unbiased")
    both = {"x": known["x"].between(exactly(value - 1), exactly(value + 1)), "y": exactly(value)}
    assert delta_method(lambda term: {"z": term["x"]}, both)["z"].direction == "unbiased"


def test_an_infinite_value_has_an_infinite_error():
    found = mean_estimate(torch.tensor([1.0, math.inf]))
    assert math.isinf(found.value)
    assert math.isinf(found.standard_error)


def test_draws_subtract_one_by_one_and_say_which_side_is_open():
    """What both share leaves the difference; an open side stays open, and why."""
    draws = np.arange(3.0)
    one = replace(exactly(draws + 1), direction="lower", lower=exactly(0.5), reason="a: few rows")
    found = one - exactly(draws)
    assert found.value.dtype == torch.float64
    assert found.value.tolist() == [1.0, 1.0, 1.0]
    assert (found.direction, found.reason) == ("lower", "a: few rows")
    assert (3 * found + 1).reason == "a: few rows"
    gap = found - replace(one, reason="b: few rows")
    assert (gap.lower, gap.upper, gap.direction) == (None, None, "biased")
    assert gap.reason == "a: few rows; b: few rows"
    assert stack([one, one]).reason == "a: few rows"


def test_stack_keeps_sides_only_where_all_have_them():
    one = exactly(torch.tensor(1.0))
    sided = one.between(one, one)
    assert stack([sided, sided]).lower.value.shape == (2,)
    assert stack([sided, one]).lower is None
