"""Rows that depend on their neighbours are said to, by `fit_mixture` as by an assessment."""

import numpy as np
import pytest

from rbpp.mixtures.fit import fit_mixture
from rbpp.mixtures.row_order import row_order

RANDOM = np.random.default_rng(0)
SERIES = np.cumsum(RANDOM.normal(size=(120, 2)), 0)
GROUPED = np.repeat(RANDOM.normal(size=(40, 2)), 5, 0) + 0.5 * RANDOM.normal(size=(200, 2))


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        (SERIES, "undecided"),
        (GROUPED, "undecided"),
        (RANDOM.normal(size=(200, 2)), "holds"),
        (RANDOM.normal(size=(20, 2)), "unknown"),
    ],
)
def test_rows_are_compared_with_the_next(rows, verdict):
    assert row_order(rows, "rows", "do so").verdict == verdict


def test_a_fit_of_a_series_says_so():
    found = fit_mixture(SERIES, 1, chains=1, draws=20, points=64)
    (line,) = (c for c in found.checks if c.statement == "rows do not depend on their neighbours")
    assert line.verdict == "undecided"
    assert "differences" in line.message
