"""Closed-form bounds of entropies and divergences of mixtures: an estimate outside is wrong."""

import math

import torch
from torch import Tensor

from rbpp.mixtures.mixture import GaussianMixture


def entropy_bounds(p: GaussianMixture) -> tuple[Tensor, Tensor]:
    """Closed-form (lower, upper) bounds of the entropy by pairwise distances of components.

    Kolchinsky and Tracey, Estimating mixture entropy with pairwise distances (2017): the
    Bhattacharyya distance gives the lower, the Kullback-Leibler divergence the upper bound.
    """
    own = (p.weights * _component_entropy(p)).sum(-1)

    def from_distance(distance: Tensor) -> Tensor:
        inner = (p.weights.log().unsqueeze(-2) - distance).logsumexp(-1)
        return own - (p.weights * inner).sum(-1)

    return from_distance(_bhattacharyya(p)), from_distance(_pairwise_kl(p, p))


def kl_bounds(p: GaussianMixture, q: GaussianMixture) -> tuple[Tensor, Tensor]:
    """Closed-form (lower, upper) bounds of D_KL(p ‖ q).

    The cross-entropy lies between −Σ_i w_i log Σ_j v_j ∫ p_i q_j and
    −Σ_i w_i log Σ_j v_j exp(E_{p_i} log q_j), both by Jensen's inequality (Durrieu, Thiran and
    Kelly, Lower and upper bounds for approximation of the Kullback-Leibler divergence between
    Gaussian mixture models, 2012); the entropy between `entropy_bounds`.
    """
    log_weights = q.weights.log().unsqueeze(-2)
    upper_cross = -(
        p.weights
        * (log_weights - _pairwise_kl(p, q) - _component_entropy(p).unsqueeze(-1)).logsumexp(-1)
    ).sum(-1)
    lower_cross = -(p.weights * (log_weights + _log_overlap(p, q)).logsumexp(-1)).sum(-1)
    lower_entropy, upper_entropy = entropy_bounds(p)
    return (lower_cross - upper_entropy).clamp_min(0), upper_cross - lower_entropy


def _log_det_precision(mixture: GaussianMixture) -> Tensor:
    return 2 * mixture.precision_cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _component_entropy(mixture: GaussianMixture) -> Tensor:
    """Entropy of every Gaussian component, (…, K)."""
    return 0.5 * (mixture.dimension * math.log(2 * math.pi * math.e) - _log_det_precision(mixture))


def _pairwise_kl(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    """D_KL between all pairs of components of p and q, (…, K_p, K_q)."""
    # |L_qᵀ A_p|² is the trace of Σ_q⁻¹ Σ_p without forming either.
    mixed = q.precision_cholesky.mT.unsqueeze(-4) @ p.scale_tril.unsqueeze(-3)
    shift = q.means.unsqueeze(-3) - p.means.unsqueeze(-2)
    distance = (q.precision_cholesky.mT.unsqueeze(-4) @ shift.unsqueeze(-1)).squeeze(-1)
    log_ratio = _log_det_precision(p).unsqueeze(-1) - _log_det_precision(q).unsqueeze(-2)
    squares = mixed.square().sum((-1, -2)) + distance.square().sum(-1)
    return 0.5 * (squares - p.dimension + log_ratio)


def _log_overlap(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    """log ∫ p_i q_j = log N(μ_i; μ_j, Σ_i + Σ_j) for all pairs, (…, K_p, K_q)."""
    covariance = p.covariances.unsqueeze(-3) + q.covariances.unsqueeze(-4)
    half_log_det, square = _whitened(covariance, p.means.unsqueeze(-2) - q.means.unsqueeze(-3))
    return -0.5 * square - half_log_det - 0.5 * p.dimension * math.log(2 * math.pi)


def _bhattacharyya(p: GaussianMixture) -> Tensor:
    """Bhattacharyya distance between all pairs of components, (…, K, K)."""
    covariances, log_det = p.covariances, -_log_det_precision(p)
    middle = (covariances.unsqueeze(-3) + covariances.unsqueeze(-4)) / 2
    half_log_det, square = _whitened(middle, p.means.unsqueeze(-2) - p.means.unsqueeze(-3))
    return square / 8 + half_log_det - (log_det.unsqueeze(-1) + log_det.unsqueeze(-2)) / 4


def _whitened(covariance: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """½ log det of the covariance, and the squared Mahalanobis length of the shift."""
    factor = torch.linalg.cholesky(covariance)
    solved = torch.linalg.solve_triangular(factor, shift.unsqueeze(-1), upper=False)
    half_log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return half_log_det, solved.squeeze(-1).square().sum(-1)
