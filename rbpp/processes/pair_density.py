"""Log densities of every pair of a law and a data set, fast where the law is a Gaussian mixture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from rbpp.mixtures.mixture import GaussianMixture


def pair_log_density(law: Any, value: Tensor) -> Tensor:
    """log_prob; of every pair of a Gaussian mixture and a data set as one matrix product per world.

    Dimensions: (alternatives, worlds, replicates, 1, rows). Pyro's mixture would solve a triangular
    system per pair, row and component, forty times slower at the default process.
    """
    components = getattr(law, "component_distribution", None)
    if not isinstance(components, MultivariateNormal) or value.dim() != 6:
        return law.log_prob(value)
    # Read what the law was made of: a property may compute, and so write out, every row's own.
    given = vars(law.mixture_distribution)
    if "logits" in given:
        weights = _without_rows(given["logits"], 1)
        weights = None if weights is None else weights.softmax(-1)
    else:
        weights = _without_rows(given["probs"], 1)
    means = _without_rows(components.loc, 2)
    covariances = _without_rows(components.covariance_matrix, 3)
    if weights is None or means is None or covariances is None:
        return law.log_prob(value)
    worlds = value.shape[1]
    mixture = GaussianMixture(weights, means, covariances, validate_args=False)
    if len(mixture.batch_shape) != 3 or mixture.batch_shape[1] not in (1, worlds):
        return law.log_prob(value)
    mixture = mixture.expand((mixture.batch_shape[0], worlds, mixture.batch_shape[2]))
    alternatives, _, replicates = mixture.batch_shape
    if (value.shape[0] > 1 < alternatives) or (value.shape[2] > 1 < replicates):
        return law.log_prob(value)
    parts = []
    for world in range(worlds):
        rows = value[:, world].reshape(-1, value.shape[-1])
        found = mixture.select((slice(None), world)).log_prob_rows(rows)
        found = found.reshape(alternatives, replicates, value.shape[0], value.shape[2], -1)
        # One of each pair of dimensions has size one: what varies takes its place.
        parts.append(found.transpose(1, 2).flatten(2, 3).flatten(0, 1))
    return torch.stack(parts, 1).unsqueeze(-2)


def _without_rows(tensor: Tensor, event: int) -> Tensor | None:
    """A parameter (…, 1, rows) + event that is the same for all rows, once: (…) + event."""
    row, middle = -event - 1, -event - 2
    if tensor.dim() < event + 2 or tensor.shape[middle] != 1:
        return None
    if tensor.shape[row] != 1 and tensor.stride(row) != 0:
        return None
    batch = tensor.select(row, 0).squeeze(row)
    while batch.dim() < event + 3:
        batch = batch.unsqueeze(0)
    return batch
