"""Style: what an author does to all rows, apart from what the rows are about.

A row of author M about e is M(e) = h(e) + g_M + ε in a space of sentence embeddings: the author
moves all rows by an offset. Rows of the synthetic source that lie next to the target show it
without labels, as long as fewer than half of the rows are off task.

In Lemma 3.1 a style is a part of the total variation: D_gen = (1 − π) D_style + π F gives
TV(D, D_gen) ≤ π + (1 − π) TV(D, D_style), and for an L-Lipschitz loss the second costs
at most L |δ|.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import rankdata

from rbpp.assessment.neighbours import kth_distance, nearest, neighbour_shares
from rbpp.estimate import Estimate, exactly

# Neighbours whose mean stands for what a row is about, and rounds until the offset stands still.
_NEIGHBOURS, _ROUNDS = 10, 5
# Part of the pool among which the near halves are told apart: 10 to 20 rows of 600.
FINE = 0.025
# Rows are each other's neighbours: of 40 pairs of equal sources of three sizes the AUC varied 1.2
# times as much as that of independent rows.
_DEPENDENCE = 1.2


@dataclass(frozen=True)
class Style:
    """What the author of the synthetic rows does to all of them.

    Attributes:
        offset: δ (D,), shrunk towards 0; the synthetic rows less δ lie where the target's do.
        length: |δ|, in units of the representation (rows have length 1). Its error is that of δ,
            sqrt(tr Var δ): no length is further off than its vector.
        shrinkage: factor between 0, no offset can be told from noise, and 1.
        separation: area under the ROC curve of the fine contrast between the near halves of both
            sources, after the offset; ½ where style does not tell them apart.
        separation_before: the same before the offset.
        shift: |δ| over the root mean square distance of target rows from their mean.
    """

    offset: np.ndarray
    length: Estimate
    shrinkage: float
    separation: Estimate
    separation_before: Estimate
    shift: Estimate


def style_offset(target: np.ndarray, synthetic: np.ndarray) -> tuple[np.ndarray, float, float]:
    """The offset δ of the synthetic rows, after James and Stein.

    N(x) is the mean of the 10 nearest target rows, the own row left out, and v(x) = x − N(x). Over
    the halves of both sources that are nearest to the target, δ ← δ + mean v(s − δ) − mean v(t),
    five times; then δ is shrunk by max(0, 1 − (tr Var v_s / n_s + tr Var v_t / n_t) / |δ|²).

    Args:
        target: (m, D), at unit length, m of 3 or more.
        synthetic: (n, D).

    Returns:
        δ (D,), its standard error sqrt(tr Var), and the factor by which it was shrunk.

    James and Stein, Estimation with quadratic loss, Berkeley Symposium (1961).
    """
    k = min(_NEIGHBOURS, len(target) - 1)
    of_target = _departures(target, target, k)
    offset = np.zeros(target.shape[1])
    for _ in range(_ROUNDS):
        moved = (synthetic - offset).astype(np.float32)
        of_synthetic = _departures(moved, target, k)
        offset = offset + of_synthetic.mean(0) - of_target.mean(0)
    square = float(offset @ offset)
    noise = _trace(of_synthetic) + _trace(of_target)
    factor = max(0.0, 1 - noise / square) if square > 0 else 0.0
    return factor * offset, float(np.sqrt(noise)), factor


def style_of(target: np.ndarray, synthetic: np.ndarray) -> Style:
    """Offset, what it is in units of the task, and what is left of the style after it.

    Args:
        target: (m, D), at unit length.
        synthetic: (n, D).
    """
    offset, error, factor = style_offset(target, synthetic)
    moved = (synthetic - offset).astype(np.float32)
    norm = torch.as_tensor(np.linalg.norm(offset), dtype=torch.float64)
    length = Estimate(norm, torch.full_like(norm, error))
    scale = float(np.sqrt(np.square(target - target.mean(0)).sum(1).mean()))
    return Style(
        offset=offset,
        length=length,
        shrinkage=factor,
        separation=style_separation(target, moved),
        separation_before=style_separation(target, synthetic),
        shift=length / scale if scale > 0 else exactly(0.0),
    )


def style_separation(target: np.ndarray, synthetic: np.ndarray) -> Estimate:
    """How well the fine contrast tells the near halves of two sources apart: an AUC.

    Foreign rows are not in the near half of the synthetic rows, as long as they are fewer than
    half: what separates the near halves is style.

    Args:
        target: (m, D).
        synthetic: (n, D), after an offset or not.
    """
    (of_target,), (of_synthetic,) = neighbour_shares(target, synthetic, (FINE,))
    near_target, near_synthetic = near_halves(target, synthetic)
    first, second = of_target[near_target], of_synthetic[near_synthetic]
    area = torch.tensor(auc(first, second), dtype=torch.float64)
    return Estimate(area, torch.full_like(area, _DEPENDENCE * auc_error(len(first), len(second))))


def near_halves(target: np.ndarray, synthetic: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which rows are in the halves of two sources that are nearest to the target (m,) and (n,).

    Args:
        target, synthetic: rows (m, D) and (n, D).
    """
    k = min(5, len(target) - 1)
    of_target = kth_distance(target, target, k, own=True)
    of_synthetic = kth_distance(synthetic, target, k)
    return of_target <= np.median(of_target), of_synthetic <= np.median(of_synthetic)


def auc(lower: np.ndarray, higher: np.ndarray) -> float:
    """P(lower < higher) + ½ P(lower = higher), the area under the ROC curve."""
    ranks = rankdata(np.concatenate([lower, higher]))[len(lower) :]
    return float((ranks.mean() - (len(higher) + 1) / 2) / len(lower))


def auc_error(first: int, second: int) -> float:
    """Standard error of an AUC of two equal distributions, sqrt((m + n + 1) / (12 m n))."""
    return float(np.sqrt((first + second + 1) / (12 * first * second)))


def _departures(rows: np.ndarray, target: np.ndarray, k: int) -> np.ndarray:
    """Rows less the mean of their k nearest target rows, over the half that is nearest to them."""
    near, index = nearest(rows, target, k, own=rows is target)
    distance = near.mean(1)
    half = distance <= np.median(distance)
    return np.asarray(rows[half] - target[index[half]].mean(1))


def _trace(rows: np.ndarray) -> float:
    """Trace of the covariance of a mean."""
    return float(rows.var(0, ddof=1).sum() / len(rows)) if len(rows) > 1 else np.inf
