"""What the texts of a set say of real texts: their density under a shrunk kernel estimate.

It predicts little of what training gives (docs/measurements/ranking.md): it is for sets that have
nothing else.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Prior rows of the covariance. A density needs the directions that a label does not: strong
# shrinkage, which ranks labelled sets best, hides that modes are missing.
PRIOR_ROWS = 30.0
# Shares of a row in its kernel's centre: 0 is one Gaussian, near 1 a narrow kernel at every row.
_SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95)
# Rows that choose the share: the choice is one of seven.
_CHOOSING = 400


def log_densities(
    rows: Tensor,
    real: Tensor,
    weights: Tensor | None = None,
    scale: Tensor | None = None,
    *,
    leave_nearest: bool = False,
) -> Tensor:
    """log p(x) of real rows, learned from one set; nats a row, (m,).

    A kernel estimate whose kernels are shrunk to the mean, so that it keeps the mean m and the
    covariance W of the rows (West, 1993, Approximating posterior distributions by mixtures):

        p(x) = Σ_i w_i N(x; m + √a (z_i − m), (1 − a) W),   W = (S + s τ² I) / (n + s).

    a has the largest leave-one-out likelihood of the set's own rows; a = 0 is one Gaussian.

    Args:
        rows: (n, d), float64.
        real: (m, d).
        weights: (n,) of the rows; one each by default.
        scale: τ², by default the mean of |x|²/d over the real rows around their mean.
        leave_nearest: leave out, for each real row, the row of the set that is nearest to it. A set
            that was made from these very rows has one such row for each.
    """
    if scale is None:
        scale = (real - real.mean(0)).square().sum(1).mean() / real.shape[1]
    if weights is None:
        weights = rows.new_ones(len(rows))
    total, width = weights.sum(), rows.shape[1]
    mean = weights @ rows / total
    left = rows - mean
    scatter = (left * weights[:, None]).T @ left
    prior = PRIOR_ROWS * scale * torch.eye(width, dtype=rows.dtype)
    root = torch.linalg.cholesky((scatter + prior) / (total + PRIOR_ROWS))
    white = torch.linalg.solve_triangular(root, left.T, upper=False).T
    white_real = torch.linalg.solve_triangular(root, (real - mean).T, upper=False).T
    log_weights = (weights / total).log()
    share = _best_share(white.detach(), log_weights.detach())
    kernels = _log_kernels(white_real, white, log_weights, share)
    if leave_nearest and share > 0:  # one Gaussian has no kernel at any row
        nearest = torch.cdist(white_real, white).argmin(1, keepdim=True)
        kernels = kernels.scatter(1, nearest, -torch.inf)
    return kernels.logsumexp(1) - root.diagonal().log().sum()


def _log_kernels(points: Tensor, centres: Tensor, log_weights: Tensor, share: float) -> Tensor:
    """log of weight times kernel of each centre at each point, whitened, (points, centres)."""
    moved = math.sqrt(share) * centres
    distance = (
        points.square().sum(1, keepdim=True) - 2 * points @ moved.T + moved.square().sum(1)
    ).clamp(min=0)
    constant = 0.5 * points.shape[1] * math.log(2 * math.pi * (1 - share))
    return log_weights - distance / (2 * (1 - share)) - constant


def _best_share(white: Tensor, log_weights: Tensor) -> float:
    chosen = torch.arange(len(white))[:: max(1, len(white) // _CHOOSING)]
    found = []
    for share in _SHARES:
        kernels = _log_kernels(white[chosen], white, log_weights, share)
        kernels[torch.arange(len(chosen)), chosen] = -torch.inf
        found.append(float(kernels.logsumexp(1).mean()))
    return _SHARES[max(range(len(found)), key=found.__getitem__)]
