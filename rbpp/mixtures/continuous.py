"""Rows that a density describes: no atoms, no coordinate that others give, none held by a few."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from rbpp.checks import Check, Verdict
from rbpp.data.measurements import far_rows, refuse_far_rows

# Shares of the rows that one row, or one value of a column, may hold: above the larger the entropy
# is −∞ to any purpose, above the smaller a check says so.
_ROW_ATOM, _COLUMN_ATOM, _VISIBLE_ATOM, _LEAST_COPIES = 0.05, 0.2, 0.01, 5
_LEAST_DISTINCT, _LEAST_ROWS = 0.1, 50
# Smallest eigenvalue of a correlation matrix, per dimension, that is no rounding.
_SINGULAR = 1e-13
# Interquartile ranges from the median, and factor of the standard deviation, of rows that a check
# names.
_FAR = (30.0, 3.0)
_SHOWN_COLUMNS = 5


def continuous_rows(rows: Tensor) -> tuple[Check, ...]:
    """Refuse rows (n, d) whose entropy no density gives; checks of what is only doubtful.

    Raises:
        ValueError: if one row or value is repeated so often, or columns so dependent, that the
            differential entropy is −∞; if a few rows hold all the spread of a column.
    """
    values = rows.detach().double().cpu().numpy()
    if len(values) < 2:
        return ()
    found = _atoms(values), one_scale(values)  # outliers in common would pass for collinearity
    _refuse_collinear(values)
    return found


def _atoms(values: np.ndarray) -> Check:
    count, dimension = values.shape
    statement = "no row and no value of a column is repeated"
    distinct, first, copies = np.unique(values, axis=0, return_index=True, return_counts=True)
    most = int(copies.argmax())
    share = copies[most] / count
    way_out = "drop the copies, or add noise of the size of the rounding"
    few = count >= _LEAST_ROWS and len(distinct) < _LEAST_DISTINCT * count
    if few or (share > _ROW_ATOM and copies[most] >= _LEAST_COPIES):
        raise ValueError(
            f"Expected rows with a density; got {len(distinct)} distinct rows of {count}, row "
            f"{first[most]} {copies[most]} times: their differential entropy is −∞ ({way_out})"
        )
    worst, where, held = 0.0, 0, 0.0
    for column in range(dimension):
        found, often = np.unique(values[:, column], return_counts=True)
        index = int(often.argmax())
        if often[index] >= _LEAST_COPIES and often[index] / count > worst and len(found) > 1:
            worst, where, held = often[index] / count, column, float(found[index])
    if worst > _COLUMN_ATOM:
        raise ValueError(
            f"Expected columns with a density; got {held:g} in {worst:.0%} of the rows of column "
            f"{where}: their differential entropy is −∞ (drop the column or these rows, or add "
            "noise of the size of the rounding)"
        )
    largest = max(worst, share if copies[most] >= _LEAST_COPIES else 0.0)
    message = f"at most {largest:.1%} of the rows share a value"
    if largest > _VISIBLE_ATOM:
        message = f"{largest:.1%} of the rows share one, as {held:g} in column {where}: {way_out}"
    verdict: Verdict = "violated" if largest > _ROW_ATOM else "holds"
    if _VISIBLE_ATOM < largest <= _ROW_ATOM:
        verdict = "undecided"
    return Check(statement, verdict, message, {"share": largest, "threshold": _VISIBLE_ATOM})


def _refuse_collinear(values: np.ndarray) -> None:
    count, dimension = values.shape
    sd = values.std(0)
    if dimension == 1 or count <= dimension + 1 or not bool((sd > 0).all()):
        return
    standard = (values - values.mean(0)) / sd
    eigenvalue, axes = np.linalg.eigh(standard.T @ standard / count)
    if eigenvalue[0] > _SINGULAR * dimension:
        return
    loading = np.abs(axes[:, 0])
    columns = np.flatnonzero(loading > 0.1 * loading.max())
    named = ", ".join(map(str, columns[:_SHOWN_COLUMNS]))
    more = ", …" if len(columns) > _SHOWN_COLUMNS else ""
    raise ValueError(
        f"Expected columns of which none is a linear function of others; got columns {named}{more}"
        ", of which one is: the differential entropy is −∞ (drop one of them, or give dimension=…)"
    )


def one_scale(values: np.ndarray, name: str = "") -> Check:
    """Whether a few rows hold a column; the worst is named.

    Args:
        values: rows (n, d).
        name: of the source whose rows they are.

    Raises:
        ValueError: if rows are so far away that no scale fits them and the others.
    """
    of = f" of {name}" if name else ""
    statement = f"no few rows{of} hold the spread of a column"
    refuse_far_rows(of, values)
    found = far_rows(values, *_FAR)
    if found is None:
        return Check(statement, "holds", "none does", {"spread": 1.0, "threshold": _FAR[1]})
    message = (
        f"row {found.row}, column {found.column} is {found.value:g}; with such rows the column "
        f"varies {found.ratio:.2g} times as much as without: drop them if they are errors, or fit "
        "more components"
    )
    return Check(statement, "violated", message, {"spread": found.ratio, "threshold": _FAR[1]})
