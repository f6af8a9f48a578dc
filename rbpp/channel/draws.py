"""Posterior draws of means over prompts: the Bayesian bootstrap of groups of outputs.

Prompts are the units, drawn from a population, and all outputs of a prompt go together. Under
weights Dirichlet(1, …) of G prompts intervals of few of them are too short, for three reasons: the
variance of a mean is too small by (G − 1) / (G + 1), the variance itself is not known, and rare
outputs of large surprise have mostly not been seen. So weights are Dirichlet(1 − 4/G, …), and
draws of nats are spread around the estimate as Student's t of G − 1 degrees of freedom are around a
normal. benchmarks/log_probabilities.py says how often they hold the truth. A share has half a
prompt of each kind beside those that were seen (Jeffreys): none of ten is not surely none.

A sum over prompts inside a logarithm enters to first order in the weights: drawn anew it would have
its bias of second order twice.

Rubin, The Bayesian bootstrap, Annals of Statistics 9 (1981).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_BLOCK_ELEMENTS = 2**22
_LEAST_CONCENTRATION = 0.05
_LEAST_FREEDOM = 3  # below, draws of t would have no mean


@dataclass(frozen=True)
class Mean:
    """Σ_i w_i x_i / Σ_i w_i of values x (n,) and weights w (n,) of sum 1.

    Attributes:
        slope: (J,) what it changes by with the relative change of every prompt's weight besides.
        share: whether values are 0 or 1.
    """

    values: Tensor
    weights: Tensor
    slope: Tensor | None = None
    share: bool = False


def bootstrap_means(
    means: Mapping[str, Mean], prompt: Tensor, draws: int, generator: np.random.Generator
) -> dict[str, Tensor]:
    """Draws (1, draws) of every mean by name, +∞ where a value is.

    Args:
        means: by name; a prompt weighs all of its outputs alike, in all of them.
        prompt: (n,) prompt of every output.
        draws: how many.
        generator: of the weights.
    """
    groups, member = torch.unique(prompt, return_inverse=True)
    count = len(groups)

    def by_group(values: Tensor) -> Tensor:
        return torch.zeros(count, dtype=torch.float64).index_add_(0, member, values)

    def finite(one: Mean) -> Tensor:
        return torch.where(one.values.isfinite(), one.values, 0.0)

    none = torch.zeros(int(prompt.max()) + 1, dtype=torch.float64)
    parts = list(means.values())
    top = torch.stack([by_group(finite(one) * one.weights) for one in parts], 1)
    bottom = torch.stack([by_group(one.weights) for one in parts], 1)
    slopes = [none if one.slope is None else one.slope for one in parts]
    change = torch.stack([slope[groups] for slope in slopes], 1)
    share = torch.tensor([one.share for one in parts])
    concentration = max(1 - 4 / count, _LEAST_CONCENTRATION)
    step = max(1, _BLOCK_ELEMENTS // count)
    found = []
    for start in range(0, draws, step):
        size = min(step, draws - start)
        weight = torch.as_tensor(generator.standard_gamma(concentration, (size, count)))
        scale = count / weight.sum(-1, keepdim=True)
        # Of few prompts a weight can underflow, and a set of rows may have no other.
        weight = (weight * scale).clamp_min(1e-12)
        halves = generator.standard_gamma(concentration / 2, (2, size, 1))
        unseen = torch.as_tensor(halves) * scale / count * share
        ratio = (weight @ top + unseen[0]) / (weight @ bottom + unseen.sum(0))
        found.append(ratio + (weight - 1) @ change)
    drawn = torch.cat(found)
    freedom = max(count - 1, _LEAST_FREEDOM)
    wider = torch.as_tensor((freedom / generator.chisquare(freedom, (draws, 1))) ** 0.5)
    centre = top.sum(0) / bottom.sum(0)
    drawn = torch.where(share, drawn, centre + wider * (drawn - centre))
    endless = [bool((one.values.isinf() & (one.weights > 0)).any()) for one in parts]
    drawn[:, endless] = torch.inf
    return {name: drawn[None, :, place] for place, name in enumerate(means)}
