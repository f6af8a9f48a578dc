"""Whether rows that follow each other are alike: a sorted file, a series, several of one prompt."""

from __future__ import annotations

import math

import numpy as np

from rbpp.checks import Check

FEWEST_ROWS = 30
# Standard errors beyond which neighbours in a file are alike.
_ALIKE = 4.0


def row_order(rows: np.ndarray, statement: str, advice: str) -> Check:
    """Lag-one correlations of columns (n, d), of which independent rows have an error of 1/√n.

    >>> walk = np.random.default_rng(0).standard_normal((200, 2)).cumsum(0)
    >>> row_order(walk, "rows do not depend on their neighbours", "differences").verdict
    'undecided'
    """
    if len(rows) < FEWEST_ROWS:
        return Check(statement, "unknown", f"{len(rows)} distinct rows are too few to tell")
    centred = rows - rows.mean(0)
    scale = np.maximum(np.square(centred).sum(0), 1e-300)
    worst = float(np.abs((centred[1:] * centred[:-1]).sum(0) / scale).max())
    alike = worst * math.sqrt(len(rows)) > _ALIKE
    return Check(
        statement,
        "undecided" if alike else "holds",
        f"a row and the next correlate by {worst:.2f} at most"
        + (
            ": the file is sorted, or one prompt or document gave several rows. If so, "
            f"{advice}: intervals that count rows are too narrow"
            if alike
            else ", which chance explains"
        ),
        {"correlation": worst},
    )
