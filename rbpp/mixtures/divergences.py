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
from rbpp.internals import broadcast_shapes
from rbpp.mixtures.mixture import GaussianMixture, log_sum_exp_
from rbpp.mixtures.triangles import features
from rbpp.randomness import generator as new_generator
from rbpp.renamed import renamed
from rbpp.threads import block_elements

SCRAMBLINGS = 8  # a standard error with 7 degrees of freedom; more would leave each too few points
# Numbers that are held at once: features of draws, and log densities, which stay in a cache.
_FEATURES, _PRODUCTS = 2**21, 2**18


@renamed(num_samples="draws")
def entropy(
    p: GaussianMixture,
    *,
    num_samples: int = 1024,
    seed: int = 0,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Differential entropy H(p) = −E_p log p(x) (Definition A.1), shape of p's batch."""
    return _expectation(p, (p,), lambda logs: -logs[0], num_samples, _random(seed, generator))


@renamed(num_samples="draws")
def kl_divergence(
    p: GaussianMixture,
    q: GaussianMixture,
    *,
    num_samples: int = 1024,
    seed: int = 0,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Relative entropy D_KL(p ‖ q) = E_p log p(x)/q(x) (Definition A.3).

    It punishes mass of p where q has little, and forgives mass of q that p lacks.
    """
    return _expectation(p, (p, q), _log_ratio, num_samples, _random(seed, generator))


@renamed(num_samples="draws")
def expected_log_ratio(
    p: GaussianMixture,
    a: GaussianMixture,
    b: GaussianMixture,
    *,
    num_samples: int = 1024,
    seed: int = 0,
    generator: torch.Generator | None = None,
) -> Estimate:
    """E_p log a(x)/b(x), which is D_KL(p ‖ b) − D_KL(p ‖ a) on common points.

    Prefer it to the difference of two divergences: the error common to both cancels.
    """
    return _expectation(p, (a, b), _log_ratio, num_samples, _random(seed, generator))


def _log_ratio(logs: tuple[Tensor, ...]) -> Tensor:
    return logs[0] - logs[1]


@renamed(num_samples="draws")
def total_variation(
    p: GaussianMixture,
    q: GaussianMixture,
    *,
    num_samples: int = 1024,
    seed: int = 0,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Total variation sup_A |P(A) − Q(A)| = E_{½(p+q)} |p − q| / (p + q) (Definition A.4).

    The integrand lies in [0, 1], so the estimate does too, however far apart p and q are.
    """

    def integrand(logs: tuple[Tensor, ...]) -> Tensor:
        return torch.tanh(_log_ratio(logs).abs() / 2)

    return _symmetric(p, q, integrand, integrand, num_samples, _random(seed, generator))


@renamed(num_samples="draws")
def jensen_shannon(
    p: GaussianMixture,
    q: GaussianMixture,
    *,
    num_samples: int = 1024,
    seed: int = 0,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Jensen-Shannon divergence ½ D(p ‖ m) + ½ D(q ‖ m), m = ½(p + q); at most log 2."""

    def towards_middle(own: int) -> Callable[[tuple[Tensor, ...]], Tensor]:
        return lambda logs: logs[own] - torch.logaddexp(logs[0], logs[1]) + math.log(2)

    return _symmetric(
        p, q, towards_middle(0), towards_middle(1), num_samples, _random(seed, generator)
    )


def _symmetric(
    p: GaussianMixture,
    q: GaussianMixture,
    of_p: Callable[[tuple[Tensor, ...]], Tensor],
    of_q: Callable[[tuple[Tensor, ...]], Tensor],
    num_samples: int,
    generator: torch.Generator,
) -> Estimate:
    """½ E_p f + ½ E_q g, half of the samples from each side."""
    left = _expectation(p, (p, q), of_p, num_samples // 2, generator)
    right = _expectation(q, (p, q), of_q, num_samples // 2, generator)
    return (left + right) / 2


def _expectation(
    p: GaussianMixture,
    densities: tuple[GaussianMixture, ...],
    integrand: Callable[[tuple[Tensor, ...]], Tensor],
    num_samples: int,
    generator: torch.Generator,
) -> Estimate:
    """E_p of a function of the log densities, over scrambled Sobol' samples of p.

    Where p has fewer members than the densities it is drawn from once for all of theirs.
    """
    if num_samples < 2 * SCRAMBLINGS:
        raise ValueError(f"Expected at least {2 * SCRAMBLINGS} samples; got {num_samples}")
    for other in densities:
        if other.dimension != p.dimension:
            found = f"{p.dimension} and {other.dimension}"
            raise ValueError(f"Expected mixtures of one dimension; got {found}")
    uniform, normal, averages = _points(p, num_samples, generator)
    shape = broadcast_shapes(*(mixture.batch_shape for mixture in (p, *densities)))
    own = shape[len(shape) - len(p.batch_shape) :]
    members = math.prod(own)
    # Far from the origin features cancel: they are those about the mean of p, or about that of
    # all its samples where a density has none of its own. Where exactly does not matter.
    surplus = len(p.batch_shape) - min(len(density.batch_shape) for density in densities)
    centre = p.mean.detach()
    centre = centre.flatten(0, surplus - 1).mean(0) if surplus > 0 else centre

    def flat(value: Tensor, batch: torch.Size, event: int) -> Tensor:
        whole = value.expand(*batch, *value.shape[value.dim() - event :])
        return whole.reshape(-1, members, *whole.shape[len(batch) :]).movedim(0, 1).flatten(1, 2)

    # The natural parameters of all densities of a member, (members, repeats · K, P), are one factor
    # of a product with its features.
    naturals = [flat(density.natural_parameters(centre), shape, 2) for density in densities]
    source = p.map(lambda value: flat(value, own, value.dim() - len(p.batch_shape)))
    centre = flat(centre, own, 1).unsqueeze(-1)
    repeats = math.prod(shape) // max(members, 1)
    each = naturals[0].shape[-1] * len(uniform)
    step = max(1, block_elements(_FEATURES, uniform.device) // each)
    means = []
    for start in range(0, members, step):
        which = slice(start, start + step)
        columns = source.select(which).columns_from_ascending(uniform, normal)
        products = features(columns - centre[which])
        logs = tuple(_log_densities(natural[which], products, repeats) for natural in naturals)
        means.append(integrand(logs) @ averages)
    by_scrambling = torch.cat(means).movedim(1, 0).reshape(*shape, SCRAMBLINGS)
    error = by_scrambling.std(-1) / math.sqrt(SCRAMBLINGS)
    return Estimate(by_scrambling.mean(-1), error, len(uniform))


def _log_densities(natural: Tensor, features: Tensor, repeats: int) -> Tensor:
    """(members, repeats, n) at features (members, P, n), from (members, repeats · K, P)."""
    elements = block_elements(_PRODUCTS, features.device)
    width, count = natural.shape[-2], features.shape[-1]
    step = max(1, elements // (width * count))
    found = []
    for own, some in zip(natural.split(step), features.split(step), strict=True):
        parts = some.split(max(64, elements // (width * step)), -1)
        logs = [log_sum_exp_((own @ part).unflatten(1, (repeats, -1))) for part in parts]
        found.append(torch.cat(logs, -1))
    return torch.cat(found)


def _points(
    p: GaussianMixture, num_samples: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Scrambled Sobol' points: ascending uniforms (n,) for the component, normals (d, n) within it.

    The third are factors (n, scramblings) that average what is found over each scrambling.
    """
    seeds = torch.randint(2**31, (SCRAMBLINGS,), generator=generator, device=generator.device)
    count = num_samples // SCRAMBLINGS
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
    order = points[:, 0].argsort()
    identity = torch.eye(SCRAMBLINGS, dtype=points.dtype, device=points.device)
    averages = identity.repeat_interleave(count, 0) / count
    points = points[order]
    return points[:, 0], torch.special.ndtri(points[:, 1:]).T.contiguous(), averages[order]


def _random(seed: int, generator: torch.Generator | None) -> torch.Generator:
    return new_generator(seed) if generator is None else generator
