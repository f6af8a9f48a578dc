"""Entropies and divergences of Gaussian mixtures, batched over posterior draws. All in nats.

None of them has a closed form, so each is an expectation by randomised quasi-Monte Carlo: scrambled
Sobol' points, of which one coordinate picks the component and the others its normal deviates. The
standard error is the spread over independent scramblings. All members of a batch share the points:
errors are common to the draws of a posterior, and averaging over draws does not shrink them.

Points follow from `seed`, or from a `generator` where a caller threads one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from rbpp.estimate import Estimate
from rbpp.mixtures.mixture import GaussianMixture
from rbpp.randomness import generator as new_generator
from rbpp.threads import block_elements

SCRAMBLINGS = 8  # a standard error with 7 degrees of freedom; more would leave each too few points
_CHUNK_ELEMENTS = 2**19  # (draw, component) pairs per chunk of the batch: about one cache's worth


def entropy(
    p: GaussianMixture,
    *,
    draws: int = 1024,
    seed: int = 0,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Differential entropy H(p) = −E_p log p(x) (Definition A.1), shape of p's batch."""
    return _expectation(p, (p,), lambda logs: -logs[0], draws, _random(seed, generator))


def kl_divergence(
    p: GaussianMixture,
    q: GaussianMixture,
    *,
    draws: int = 1024,
    seed: int = 0,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Relative entropy D_KL(p ‖ q) = E_p log p(x)/q(x) (Definition A.3).

    It punishes mass of p where q has little, and forgives mass of q that p lacks.
    """
    p, q = _aligned(p, q)
    return expected_log_ratio(p, p, q, draws=draws, seed=seed, generator=generator)


def expected_log_ratio(
    p: GaussianMixture,
    a: GaussianMixture,
    b: GaussianMixture,
    *,
    draws: int = 1024,
    seed: int = 0,
    generator: torch.Generator | None = None,
) -> Estimate:
    """E_p log a(x)/b(x), which is D_KL(p ‖ b) − D_KL(p ‖ a) on common points.

    Prefer it to the difference of two divergences: the error common to both cancels.
    """
    shape = torch.broadcast_shapes(p.batch_shape, a.batch_shape, b.batch_shape)
    p, a, b = p.expand(shape), a.expand(shape), b.expand(shape)
    return _expectation(p, (a, b), lambda logs: logs[0] - logs[1], draws, _random(seed, generator))


def total_variation(
    p: GaussianMixture,
    q: GaussianMixture,
    *,
    draws: int = 1024,
    seed: int = 0,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Total variation sup_A |P(A) − Q(A)| = E_{½(p+q)} |p − q| / (p + q) (Definition A.4).

    The integrand lies in [0, 1], so the estimate does too, however far apart p and q are.
    """
    p, q = _aligned(p, q)

    def integrand(logs: tuple[Tensor, ...]) -> Tensor:
        return torch.tanh((logs[0] - logs[1]).abs() / 2)

    return _symmetric(p, q, integrand, integrand, draws, _random(seed, generator))


def jensen_shannon(
    p: GaussianMixture,
    q: GaussianMixture,
    *,
    draws: int = 1024,
    seed: int = 0,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Jensen-Shannon divergence ½ D(p ‖ m) + ½ D(q ‖ m), m = ½(p + q); at most log 2."""
    p, q = _aligned(p, q)

    def towards_middle(own: int) -> Callable[[tuple[Tensor, ...]], Tensor]:
        return lambda logs: logs[own] - torch.logaddexp(logs[0], logs[1]) + math.log(2)

    return _symmetric(p, q, towards_middle(0), towards_middle(1), draws, _random(seed, generator))


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
    return (left + right) / 2


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
    depth = len(p.batch_shape)
    flat = [
        mixture.map(lambda value: value.reshape(batch, *value.shape[depth:]))
        for mixture in (p, *densities)
    ]
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


def _random(seed: int, generator: torch.Generator | None) -> torch.Generator:
    return new_generator(seed) if generator is None else generator
