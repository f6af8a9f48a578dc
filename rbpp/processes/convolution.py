"""A normal output, or a mixture of them, plus normal noise: the sum's distribution in closed form.

∫ p(y) N(s; y + c, Σ) dy adds c to every mean and Σ to every covariance. What Pyro expands over rows
is kept as one: a density of all pairs of data sets then stays one matrix product.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

from rbpp.internals import compact_scale_tril


def convolved(
    output: Any, noise: Any, placeholder: Tensor, shared: bool | None = None
) -> Any | None:
    """Distribution of output + c + ε, where `noise` is normal with mean placeholder + c.

    Args:
        output: distribution of rows that are vectors.
        noise: distribution of a curated row, built at an output of `placeholder`.
        placeholder: that output.
        shared: whether all rows have the same c (`has_shared_shift`); looked at by default.

    Returns:
        A normal or a mixture of normals; None where output or noise is anything else.
    """
    moments = normal_moments(noise)
    if moments is None:
        return None
    mean, covariance = moments
    shift = mean - placeholder
    if _is_shared(shift) if shared is None else shared:
        shift = shift[..., :1, :]
    if is_mixture(output):
        parts = normal_moments(output.component_distribution)
        if parts is None:
            return None
        means, covariances = parts
        normals = MultivariateNormal(
            means + shift.unsqueeze(-2), covariances + covariance.unsqueeze(-3), validate_args=False
        )
        weights = Categorical(logits=_logits(output.mixture_distribution), validate_args=False)
        return MixtureSameFamily(weights, normals, validate_args=False)
    if _is_diagonal(output) and _is_diagonal(noise):
        own, other = output.base_dist, noise.base_dist
        scale = (_compact(own.scale, 1).square() + _compact(other.scale, 1).square()).sqrt()
        return Independent(Normal(_compact(own.loc, 1) + shift, scale, validate_args=False), 1)
    moments = normal_moments(output)
    if moments is None:
        return None
    return MultivariateNormal(moments[0] + shift, moments[1] + covariance, validate_args=False)


def is_independent_noise(first: Any, second: Any, placeholders: tuple[Tensor, Tensor]) -> bool:
    """Whether curation adds normal noise that does not depend on the output.

    Args:
        first, second: distributions of curated rows at two outputs.
        placeholders: these outputs.
    """
    one, other = normal_moments(first), normal_moments(second)
    if one is None or other is None:
        return False
    shift, other_shift = torch.broadcast_tensors(
        one[0] - placeholders[0], other[0] - placeholders[1]
    )
    spread, other_spread = torch.broadcast_tensors(one[1], other[1])
    same = torch.allclose(shift, other_shift, rtol=1e-9, atol=1e-9)
    return same and torch.allclose(spread, other_spread, rtol=1e-9)


def has_shared_shift(noise: Any, placeholder: Tensor) -> bool:
    """Whether a normal noise, built at an output of `placeholder`, adds the same c to all rows."""
    moments = normal_moments(noise)
    return moments is not None and _is_shared(moments[0] - placeholder)


def is_mixture(distribution: Any) -> bool:
    """Whether it is a mixture of distributions of one kind, with weights."""
    return isinstance(distribution, MixtureSameFamily) and isinstance(
        distribution.mixture_distribution, Categorical
    )


def normal_moments(distribution: Any) -> tuple[Tensor, Tensor] | None:
    """Mean and covariance of a normal vector, expanded dimensions as one; None of any other."""
    if isinstance(distribution, MultivariateNormal):
        factor = compact_scale_tril(distribution)
        return _compact(distribution.loc, 1), factor @ factor.mT
    if not _is_diagonal(distribution):
        return None
    base = distribution.base_dist
    return _compact(base.loc, 1), torch.diag_embed(_compact(base.scale, 1).square())


def _is_diagonal(distribution: Any) -> bool:
    diagonal = isinstance(distribution, Independent) and isinstance(distribution.base_dist, Normal)
    return diagonal and len(distribution.event_shape) == 1


def _logits(categorical: Categorical) -> Tensor:
    given = vars(categorical)
    if "logits" in given:
        return _compact(given["logits"], 1)
    return _compact(given["probs"], 1).log()


def _compact(tensor: Tensor, event: int) -> Tensor:
    """Batch dimensions that only repeat, as dimensions of one."""
    for dim in range(tensor.dim() - event):
        if tensor.shape[dim] > 1 and tensor.stride(dim) == 0:
            tensor = tensor.narrow(dim, 0, 1)
    return tensor


def _is_shared(shift: Tensor) -> bool:
    return bool((shift == shift[..., :1, :]).all())
