"""One wording for arguments that are refused."""

import math

import numpy as np
import pytest

from rbpp import validate


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3", None, math.nan])
def test_a_count_is_a_whole_number(value):
    with pytest.raises(ValueError, match="Expected draws to be a whole number of 1 or more"):
        validate.count("draws", value)


def test_counts_of_numpy_are_counts():
    assert validate.count("draws", np.int64(3)) == 3
    with pytest.raises(ValueError, match="2 to 5; got 6"):
        validate.count("chains", 6, 2, 5)


@pytest.mark.parametrize("value", [0, 1, -0.5, math.nan, "0.5"])
def test_a_probability_is_inside(value):
    with pytest.raises(ValueError, match="Expected hdi_prob between 0 and 1"):
        validate.probability("hdi_prob", value)


@pytest.mark.parametrize("value", [0.0, math.inf, math.nan, True, "1"])
def test_a_number_above(value):
    with pytest.raises(ValueError, match="finite number above 0"):
        validate.number("scale", value, above=0)


def test_a_choice_names_what_there_is():
    with pytest.raises(ValueError, match="one of a, b; got 'c'"):
        validate.choice("engine", "c", ("a", "b"))
