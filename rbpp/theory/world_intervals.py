"""Intervals of a term over worlds that hold what they say, however few the worlds are."""

from __future__ import annotations

import math

import numpy as np


def interval_over_worlds(
    draws: np.ndarray, probability: float, least: float = -math.inf, most: float = math.inf
) -> tuple[float, float]:
    """An interval that holds the term of another world with this probability.

    Between order statistics where there are enough: [x_(i), x_(j)] of n draws holds (j − i)/(n + 1)
    of any continuous distribution, so that 94 % need 33 draws. Of fewer draws it is the prediction
    interval of Student's t, mean ± t · sd · √(1 + 1/n).

    Args:
        draws: (n,), at least two, one per world.
        probability: in (0, 1).
        least, most: what the term cannot be below or above (of its `rbpp.variables.Variable`).
            Draws beyond them, by their Monte Carlo error, stay in the interval.

    >>> interval_over_worlds(np.arange(1.0, 100.0), 0.9)
    (5.0, 95.0)
    """
    ordered = np.sort(draws)
    count = ordered.size
    spacings = math.ceil(round(probability * (count + 1), 9))
    if spacings <= count - 1:
        first = (count - 1 - spacings) // 2
        return float(ordered[first]), float(ordered[first + spacings])
    from scipy.stats import t

    half = t.ppf((1 + probability) / 2, count - 1) * draws.std(ddof=1) * math.sqrt(1 + 1 / count)
    low, high = float(draws.mean() - half), float(draws.mean() + half)
    return max(low, min(least, float(ordered[0]))), min(high, max(most, float(ordered[-1])))


def spread_of_worlds(spread: float, error: float) -> float:
    """Standard deviation over worlds without the Monte Carlo error in it.

    >>> spread_of_worlds(0.5, 0.3)
    0.4
    """
    return math.sqrt(max(spread**2 - error**2, 0.0))
