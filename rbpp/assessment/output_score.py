"""What pairs of input and output teach about the outputs of real inputs: matrix-t regression.

The posterior mean is ridge regression, and the evidence that of a Gaussian process with a linear
kernel. The covariance of the outputs is shrunk to a multiple of the identity as strongly as that of
the classes in `label_score`, so that a set is not rewarded for directions that it says are certain.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rbpp.assessment.label_score import PRIOR_ROWS


def log_densities(
    inputs: Tensor,
    outputs: Tensor,
    real_inputs: Tensor,
    real_outputs: Tensor,
    weights: Tensor | None = None,
    input_scale: Tensor | None = None,
    output_scale: Tensor | None = None,
) -> Tensor:
    """log p(output | input) of real pairs, learned from one set; nats a row, (m,).

    With centred inputs X and outputs Y, P = XᵀX + λI, λ the mean of |x|² over the real inputs, and
    s prior rows of variance τ² in each of q outputs, the posterior predictive is

        B = P⁻¹XᵀY,   h(x) = 1/n + xᵀP⁻¹x,   Ψ = s τ² I + (Y − XB)ᵀ(Y − XB) + λ BᵀB
        y | x ~ t(ν = s + n − 1;  ȳ + xᵀB,  (1 + h) Ψ / ν).

    Args:
        inputs, outputs: (n, d) and (n, q), float64.
        real_inputs, real_outputs: (m, d) and (m, q).
        weights: (n,) of the rows; one each by default.
        input_scale: λ; by default the mean of |x|² over the real inputs around their mean.
        output_scale: τ²; by default the variance of the real outputs, averaged over q.
    """
    if weights is None:
        weights = inputs.new_ones(len(inputs))
    if input_scale is None:
        input_scale = total_variance(real_inputs)
    if output_scale is None:
        output_scale = total_variance(real_outputs) / real_outputs.shape[1]
    total = weights.sum()
    input_mean, output_mean = weights @ inputs / total, weights @ outputs / total
    x, y = inputs - input_mean, outputs - output_mean
    weighted = x * weights[:, None]
    identity = torch.eye(x.shape[1], dtype=x.dtype)
    root = torch.linalg.cholesky(weighted.T @ x + input_scale * identity)
    slopes = torch.cholesky_solve(weighted.T @ y, root)
    left = y - x @ slopes
    scatter = (left * weights[:, None]).T @ left + input_scale * slopes.T @ slopes
    width = y.shape[1]
    scatter = scatter + PRIOR_ROWS * output_scale * torch.eye(width, dtype=y.dtype)
    real_x = real_inputs - input_mean
    spread = torch.linalg.solve_triangular(root, real_x.T, upper=False).square().sum(0)
    factor = 1 + 1 / total + spread
    error = real_outputs - output_mean - real_x @ slopes
    error_root = torch.linalg.cholesky(scatter)
    distance = torch.linalg.solve_triangular(error_root, error.T, upper=False).square().sum(0)
    freedom = PRIOR_ROWS + total - 1
    log_det = 2 * error_root.diagonal().log().sum()
    return (
        torch.lgamma((freedom + width) / 2)
        - torch.lgamma(freedom / 2)
        - 0.5 * (width * math.log(math.pi) + log_det + width * factor.log())
        - 0.5 * (freedom + width) * torch.log1p(distance / factor)
    )


def total_variance(rows: Tensor) -> Tensor:
    """Mean of |x − mean|² over rows (n, d)."""
    return (rows - rows.mean(0)).square().sum(1).mean()
