"""Log densities where some rows lie outside the support: zero density for them, not for all."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Independent, TransformedDistribution

from rbpp.internals import unvalidated


def log_prob(distribution: Any, value: Tensor) -> Tensor:
    """log p(value) in nats, −∞ in every row outside the support; shape as the distribution's own.

    torch refuses all rows for one outside. An output that is uniform around its prompt has many
    prompts under which it cannot be.

    Raises:
        ValueError: if a value is not a number, or the distribution has no density.

    >>> log_prob(torch.distributions.Uniform(0.0, 1.0), torch.tensor([0.5, 2.0]))
    tensor([0., -inf])
    """
    inside = _inside(distribution, value)
    if inside is None or (value.is_floating_point() and bool(value.isnan().any())):
        return distribution.log_prob(value)  # says what is wrong
    if bool(inside.all()):
        return distribution.log_prob(value)
    with unvalidated(distribution):
        found = distribution.log_prob(value)
    return torch.where(inside, found, -math.inf)


def _inside(distribution: Any, value: Tensor) -> Tensor | None:
    """Rows of the support; None where the distribution does not say."""
    try:
        found = distribution.support.check(value)
    except (NotImplementedError, AttributeError, ValueError, RuntimeError):
        return None
    if not isinstance(found, Tensor):
        return None
    transformed = _base(distribution)
    if not isinstance(transformed, TransformedDistribution):
        return found
    # Of a bounded distribution that is shifted and scaled, torch says that its support is the line.
    try:
        for transform in reversed(transformed.transforms):
            value = transform.inv(value)
        support: Any = transformed.base_dist.support  # None raises what is caught
        own = support.check(value)
    except (NotImplementedError, AttributeError, ValueError, RuntimeError):
        return found
    while own.dim() > found.dim():
        own = own.all(-1)
    return found & own


def _base(distribution: Any) -> Any:
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution
