"""The conjugate mixture family as an exponential family: densities and moment matching.

log q(W) = Σ_k T(W_k)·η_k + constant, with the statistics T of a component (Λ, Λμ, μᵀΛμ, log |Λ|,
log w) and the natural parameters η. All pairs of draws and posteriors then cost one matrix product,
and the distribution closest to many posteriors, argmin_r Σ_i KL(q_i ‖ r), has their mean E[T].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rbpp.mixtures.normal_wishart import Draws, Parameters, expectations

_BISECTIONS = 80  # halvings of log ν: to the last digit of float64
_NEWTON_STEPS = 50


def statistics(draws: Draws) -> Tensor:
    """T(W_k) of every component of drawn mixtures: (…, K, P)."""
    precision = draws.precision_cholesky @ draws.precision_cholesky.mT
    linear = (precision @ draws.means.unsqueeze(-1)).squeeze(-1)
    square = (linear * draws.means).sum(-1, keepdim=True)
    log_det = 2 * draws.precision_cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True)
    weight = draws.weights.log().unsqueeze(-1)
    return torch.cat([precision.flatten(-2), linear, square, log_det, weight], -1)


def natural_parameters(parameters: Parameters) -> tuple[Tensor, Tensor, Tensor]:
    """η (…, K, P), the constant of every component (…, K), and that of the weights (…).

    log q(W) = Σ_k [T(W_k)·η_k + constant_k] + constant − (terms of W alone, equal for every q).
    """
    alpha, mean, kappa, freedom, scale = parameters
    dimension = mean.shape[-1]
    linear = kappa.unsqueeze(-1) * mean
    quadratic = scale + linear.unsqueeze(-1) * mean.unsqueeze(-2)
    natural = torch.cat(
        [
            -0.5 * quadratic.flatten(-2),
            linear,
            -0.5 * kappa.unsqueeze(-1),
            0.5 * freedom.unsqueeze(-1),
            (alpha - 1).unsqueeze(-1),
        ],
        -1,
    )
    constant = (
        0.5 * dimension * kappa.log()
        + 0.5 * freedom * (torch.logdet(scale) - dimension * math.log(2))
        - torch.special.multigammaln(freedom / 2, dimension)
        - alpha.lgamma()
    )
    return natural, constant, alpha.sum(-1).lgamma()


def expected_statistics(parameters: Parameters) -> Tensor:
    """E_q T(W_k): (…, K, P)."""
    expected = expectations(parameters)
    freedom = parameters.degrees_of_freedom.unsqueeze(-1)
    precision = expected.inverse_scale * freedom.unsqueeze(-1)
    linear = (precision @ parameters.mean.unsqueeze(-1)).squeeze(-1)
    dimension = parameters.mean.shape[-1]
    square = (linear * parameters.mean).sum(-1) + dimension / parameters.mean_precision
    return torch.cat(
        [
            precision.flatten(-2),
            linear,
            square.unsqueeze(-1),
            expected.log_det_precision.unsqueeze(-1),
            expected.log_weights.unsqueeze(-1),
        ],
        -1,
    )


def match(mean_statistics: Tensor, dimension: int) -> Parameters:
    """The conjugate distribution with given expected statistics (…, K, P).

    Args:
        mean_statistics: an average of `expected_statistics`.
        dimension: d.
    """
    split = dimension * dimension
    precision = mean_statistics[..., :split].unflatten(-1, (dimension, dimension))
    linear = mean_statistics[..., split : split + dimension]
    square, log_det, log_weight = mean_statistics[..., split + dimension :].unbind(-1)
    covariance = torch.linalg.inv(precision)
    covariance = (covariance + covariance.mT) / 2
    mean = (covariance @ linear.unsqueeze(-1)).squeeze(-1)
    kappa = dimension / (square - (linear * mean).sum(-1))
    freedom = _wishart_freedom(torch.logdet(precision) - log_det, dimension)
    alpha = _dirichlet(log_weight)
    return Parameters(alpha, mean, kappa, freedom, covariance * freedom[..., None, None])


def _wishart_freedom(excess: Tensor, dimension: int) -> Tensor:
    """ν with log |E Λ| − E log |Λ| = d log(ν/2) − Σ_i ψ((ν − i)/2), by bisection."""
    index = torch.arange(dimension, dtype=excess.dtype, device=excess.device)
    low, high = excess.new_full(excess.shape, -30.0), excess.new_full(excess.shape, 30.0)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        freedom = middle.exp() + (dimension - 1)
        found = dimension * (freedom / 2).log() - (
            ((freedom.unsqueeze(-1) - index) / 2).digamma().sum(-1)
        )
        above = found > excess
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return ((low + high) / 2).exp() + (dimension - 1)


def _dirichlet(mean_log: Tensor) -> Tensor:
    """α (…, K) with E log w_k = `mean_log`, by Newton's method on log α (Minka 2000)."""
    if mean_log.shape[-1] == 1:
        return torch.ones_like(mean_log)
    share = mean_log.exp() / mean_log.exp().sum(-1, keepdim=True)
    # −Σ share_k E log w_k − H(share) is about (K − 1) / (2 Σα): a start of the right size.
    spread = (share * (share.log() - mean_log)).sum(-1, keepdim=True).clamp_min(1e-12)
    alpha = share * (mean_log.shape[-1] - 1) / (2 * spread)
    for _ in range(_NEWTON_STEPS):
        total = alpha.sum(-1, keepdim=True)
        gradient = total.digamma() - alpha.digamma() + mean_log
        curvature = -torch.polygamma(1, alpha)
        shared = torch.polygamma(1, total)
        pull = (gradient / curvature).sum(-1, keepdim=True) / (
            1 / shared + (1 / curvature).sum(-1, keepdim=True)
        )
        step = (gradient - pull) / curvature
        # In log α the step cannot leave the domain; bounded, it cannot overshoot either.
        alpha = alpha * torch.exp((-step / alpha).clamp(-1, 1))
    return alpha
