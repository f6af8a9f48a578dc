"""Rows that depend on their neighbours in order: how many independent ones they are worth.

The average of products x_i y_i of two series, each with autocorrelations ρ_x(l) and ρ_y(l), has the
variance of n / (1 + 2 Σ_l ρ_x(l) ρ_y(l)) independent rows.

Bartlett, Some aspects of the time-correlation problem in regard to tests of significance, Journal
of the Royal Statistical Society 98 (1935).
"""

from __future__ import annotations

import math

import numpy as np

from rbpp.checks import Check

_LEAST_SHARE, _LARGEST_Z = 0.9, 3.0


def effective_rows(x: np.ndarray, y: np.ndarray) -> float:
    """Smallest effective number of rows over pairs of columns of x and y, both (n, d).

    >>> walk = np.random.default_rng(0).normal(size=(500, 2)).cumsum(0)
    >>> effective_rows(walk[:, :1], walk[:, 1:]) < 20
    True
    """
    count = len(x)
    first, second = _autocorrelation(x), _autocorrelation(y)
    # Beyond the noise of an autocorrelation of independent rows, in both.
    noise = _LARGEST_Z / math.sqrt(count)
    first[np.abs(first) < noise], second[np.abs(second) < noise] = 0.0, 0.0
    smallest = float(count)
    for own in first.T:
        products = own[:, None] * second
        # Up to the first lag at which one of the two is no longer seen.
        kept = np.cumprod(products > 0, axis=0)
        smallest = min(smallest, count / (1 + 2 * float((products * kept).sum(0).max())))
    return smallest


def independence_check(x: np.ndarray, y: np.ndarray, block: int) -> Check:
    """Whether blocks of rows are independent, as far as autocorrelations show."""
    found = effective_rows(x, y)
    length = len(x) / found
    holds = found >= _LEAST_SHARE * len(x) or block >= 2 * length
    message = f"{found:.0f} effective rows of {len(x)}"
    if not holds:
        message += (
            f": neighbouring rows depend on each other; give a block of {math.ceil(4 * length)} "
            "rows or more (block=…), differences of the series, or a row in so many"
        )
    return Check(
        "rows, or their blocks, are independent of each other",
        "holds" if holds else "violated",
        message,
        {"effective_rows": found, "rows": len(x), "block": block},
    )


def _autocorrelation(values: np.ndarray) -> np.ndarray:
    """Of every column at lags 1 … n / 4, (lags, d)."""
    count = len(values)
    centred = values - values.mean(0)
    size = 1 << (2 * count - 1).bit_length()
    power = np.abs(np.fft.rfft(centred, size, axis=0)) ** 2
    covariance = np.fft.irfft(power, size, axis=0)[: count // 4 + 1]
    return np.asarray(covariance[1:] / covariance[0])
