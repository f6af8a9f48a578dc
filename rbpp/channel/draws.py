"""Posterior draws of means over prompts: the Bayesian bootstrap of groups of outputs.

Prompts are the units, drawn from a population, and all outputs of a prompt go together. Weights
are Dirichlet(1 − 2/G, …) of G prompts and not Dirichlet(1, …), under which the variance of a mean
is too small by (G − 1) / (G + 1). A sum over prompts inside a logarithm enters to first order in
the weights: drawn anew it would have its bias of second order twice.

Rubin, The Bayesian bootstrap, Annals of Statistics 9 (1981).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

_BLOCK_ELEMENTS = 2**22
_LEAST_CONCENTRATION = 0.05


def bootstrap_means(
    statistics: Mapping[str, tuple[Tensor, Tensor, Tensor | None]],
    prompt: Tensor,
    draws: int,
    generator: np.random.Generator,
) -> dict[str, Tensor]:
    """Draws of Σ_i w_i x_i / Σ_i w_i, every prompt weighing all of its outputs alike.

    Args:
        statistics: name to (values (n,), weights (n,), slope (J,) or None): the mean of the values
            with these weights, plus Σ_j slope_j · (the relative change of prompt j's weight).
        prompt: (n,) prompt of every output.
        draws: how many.
        generator: of the weights, the same for all statistics.

    Returns:
        (draws,) by name; +∞ where a value is.
    """
    groups, member = torch.unique(prompt, return_inverse=True)
    count = len(groups)

    def by_group(values: Tensor) -> Tensor:
        return torch.zeros(count, dtype=torch.float64).index_add_(0, member, values)

    tops, bottoms, slopes, infinite = [], [], [], []
    for values, weights, slope in statistics.values():
        infinite.append(bool((values.isinf() & (weights > 0)).any()))
        finite = torch.where(values.isfinite(), values, 0.0)
        tops.append(by_group(finite * weights))
        bottoms.append(by_group(weights))
        slopes.append(torch.zeros(count).double() if slope is None else slope[groups])
    top, bottom, change = (torch.stack(parts, 1) for parts in (tops, bottoms, slopes))
    concentration = max(1 - 2 / count, _LEAST_CONCENTRATION)
    step = max(1, _BLOCK_ELEMENTS // count)
    found = []
    for start in range(0, draws, step):
        size = min(step, draws - start)
        weight = torch.as_tensor(generator.standard_gamma(concentration, (size, count)))
        # Of few prompts a weight can underflow, and a set of rows may have no other.
        weight = (weight * (count / weight.sum(-1, keepdim=True))).clamp_min(1e-12)
        found.append((weight @ top) / (weight @ bottom) + (weight - 1) @ change)
    drawn = torch.cat(found)
    return {
        name: torch.full((draws,), torch.inf).double() if endless else drawn[:, place]
        for place, (name, endless) in enumerate(zip(statistics, infinite, strict=True))
    }
