"""Entropies and divergences of Gaussian mixtures, batched over posterior draws. All in nats.

None of them has a closed form, so each is an expectation by randomised quasi-Monte Carlo: scrambled
Sobol' points, of which one coordinate picks the component and the others its normal deviates. The
standard error is the spread over independent scramblings. All members of a batch share the points:
errors are common to the draws of a posterior, and averaging over draws does not shrink them.

`entropy_bounds` and `kl_bounds` are closed-form on both sides; an estimate outside them is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from rbpp.estimate import Estimate
from rbpp.mixtures.mixture import GaussianMixture
from rbpp.threads import block_elements

SCRAMBLINGS = 8  # a standard error with 7 degrees of freedom; more would leave each too few points
_CHUNK_ELEMENTS = 2**19  # (draw, component) pairs per chunk of the batch: about one cache's worth


def entropy(p: GaussianMixture, *, draws: int = 1024, generator: torch.Generator) -> Estimate:
    """Differential entropy H(p) = −E_p log p(x) (Definition A.1), shape of p's batch."""
    return _expectation(p, (p,), lambda logs: -logs[0], draws, generator)


def cross_entropy(
    p: GaussianMixture, q: GaussianMixture, *, draws: int = 1024, generator: torch.Generator
) -> Estimate:
    """Expected log loss of q on rows of p, −E_p log q(x)."""
    p, q = _aligned(p, q)
    return _expectation(p, (q,), lambda logs: -logs[0], draws, generator)


def kl_divergence(
    p: GaussianMixture, q: GaussianMixture, *, draws: int = 1024, generator: torch.Generator
) -> Estimate:
    """Relative entropy D_KL(p ‖ q) = E_p log p(x)/q(x) (Definition A.3).

    It punishes mass of p where q has little, and forgives mass of q that p lacks.
    """
    p, q = _aligned(p, q)
    return expected_log_ratio(p, p, q, draws=draws, generator=generator)


def expected_log_ratio(
    p: GaussianMixture,
    a: GaussianMixture,
    b: GaussianMixture,
    *,
    draws: int = 1024,
    generator: torch.Generator,
) -> Estimate:
    """E_p log a(x)/b(x), which is D_KL(p ‖ b) − D_KL(p ‖ a) on common points.

    Prefer it to the difference of two divergences: the error common to both cancels.
    """
    shape = torch.broadcast_shapes(p.batch_shape, a.batch_shape, b.batch_shape)
    p, a, b = p.expand(shape), a.expand(shape), b.expand(shape)
    return _expectation(p, (a, b), lambda logs: logs[0] - logs[1], draws, generator)


def total_variation(
    p: GaussianMixture, q: GaussianMixture, *, draws: int = 1024, generator: torch.Generator
) -> Estimate:
    """Total variation sup_A |P(A) − Q(A)| = E_{½(p+q)} |p − q| / (p + q) (Definition A.4).

    The integrand lies in [0, 1], so the estimate does too, however far apart p and q are.
    """
    p, q = _aligned(p, q)

    def integrand(logs: tuple[Tensor, ...]) -> Tensor:
        return torch.tanh((logs[0] - logs[1]).abs() / 2)

    return _symmetric(p, q, integrand, integrand, draws, generator)


def jensen_shannon(
    p: GaussianMixture, q: GaussianMixture, *, draws: int = 1024, generator: torch.Generator
) -> Estimate:
    """Jensen-Shannon divergence ½ D(p ‖ m) + ½ D(q ‖ m), m = ½(p + q); at most log 2."""
    p, q = _aligned(p, q)

    def towards_middle(own: int) -> Callable[[tuple[Tensor, ...]], Tensor]:
        return lambda logs: logs[own] - torch.logaddexp(logs[0], logs[1]) + math.log(2)

    return _symmetric(p, q, towards_middle(0), towards_middle(1), draws, generator)


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
    p, q = _aligned(p, q)
    log_weights = q.weights.log().unsqueeze(-2)
    upper_cross = -(
        p.weights
        * (log_weights - _pairwise_kl(p, q) - _component_entropy(p).unsqueeze(-1)).logsumexp(-1)
    ).sum(-1)
    lower_cross = -(p.weights * (log_weights + _log_overlap(p, q)).logsumexp(-1)).sum(-1)
    lower_entropy, upper_entropy = entropy_bounds(p)
    return (lower_cross - upper_entropy).clamp_min(0), upper_cross - lower_entropy


def _aligned(p: GaussianMixture, q: GaussianMixture) -> tuple[GaussianMixture, GaussianMixture]:
    """Both mixtures with the broadcast batch shape."""
    if p.dimension != q.dimension:
        raise ValueError(f"Expected mixtures of one dimension; got {p.dimension} and {q.dimension}")
    shape = torch.broadcast_shapes(p.batch_shape, q.batch_shape)
    return p.expand(shape), q.expand(shape)


def _symmetric(
    p: GaussianMixture,
    q: GaussianMixture,
    of_p: Callable[[tuple[Tensor, ...]], Tensor],
    of_q: Callable[[tuple[Tensor, ...]], Tensor],
    draws: int,
    generator: torch.Generator,
) -> Estimate:
    """½ E_p f + ½ E_q g, half of the draws from each side."""
    left = _expectation(p, (p, q), of_p, draws // 2, generator)
    right = _expectation(q, (p, q), of_q, draws // 2, generator)
    return Estimate(
        (left.value + right.value) / 2,
        (left.standard_error.square() + right.standard_error.square()).sqrt() / 2,
        left.count + right.count,
    )


def _expectation(
    p: GaussianMixture,
    densities: tuple[GaussianMixture, ...],
    integrand: Callable[[tuple[Tensor, ...]], Tensor],
    draws: int,
    generator: torch.Generator,
) -> Estimate:
    """E_p of a function of the log densities, over scrambled Sobol' draws of p."""
    if draws < 2 * SCRAMBLINGS:
        raise ValueError(f"Expected at least {2 * SCRAMBLINGS} draws; got {draws}")
    uniform, normal = _points(p, draws, generator)
    batch = math.prod(p.batch_shape)
    flat = [_flattened(mixture, batch) for mixture in (p, *densities)]
    widest = max(mixture.components for mixture in flat)
    chunk = block_elements(_CHUNK_ELEMENTS, uniform.device)
    step = max(1, chunk // (widest * len(uniform)))
    means = []
    for start in range(0, batch, step):
        source, *others = (mixture.select(slice(start, start + step)) for mixture in flat)
        members = source.batch_shape[0]
        columns = source.columns_from_uniform(uniform.expand(members, -1), normal)
        values = integrand(tuple(other.log_prob_columns(columns) for other in others))
        means.append(values.unflatten(-1, (SCRAMBLINGS, -1)).mean(-1))
    by_scrambling = torch.cat(means)
    return Estimate(
        by_scrambling.mean(-1).reshape(p.batch_shape),
        (by_scrambling.std(-1) / math.sqrt(SCRAMBLINGS)).reshape(p.batch_shape),
        len(uniform),
    )


def _points(p: GaussianMixture, draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Scrambled Sobol' points: uniforms (S,) for the component, normals (d, S) within it."""
    seeds = torch.randint(2**31, (SCRAMBLINGS,), generator=generator, device=generator.device)
    count = draws // SCRAMBLINGS
    points = torch.cat(
        [
            torch.quasirandom.SobolEngine(p.dimension + 1, scramble=True, seed=seed).draw(
                count, dtype=torch.float64
            )
            for seed in seeds.tolist()
        ]
    ).to(device=p.means.device, dtype=p.means.dtype)
    # A scrambled point may round to 0 or 1, where the normal quantile is infinite.
    tiny = torch.finfo(points.dtype).eps
    points = points.clamp(tiny, 1 - tiny)
    return points[:, 0], torch.special.ndtri(points[:, 1:]).T.contiguous()


def _flattened(mixture: GaussianMixture, batch: int) -> GaussianMixture:
    return GaussianMixture(
        mixture.weights.reshape(batch, mixture.components),
        mixture.means.reshape(batch, mixture.components, mixture.dimension),
        precision_cholesky=mixture.precision_cholesky.reshape(
            batch, mixture.components, mixture.dimension, mixture.dimension
        ),
        validate_args=False,
    )


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
