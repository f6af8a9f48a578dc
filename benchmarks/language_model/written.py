"""Rows that a network writes after prompts, and their exact log-probabilities.

A kit is a module, `network` or `smollm2`, with LENGTH, the number type TOKENS of a row, and of its
network's weights

    distribution(weights, tokens, last, temperature, cache, past)
        log-probabilities (N, last, letters) of the letter after each of the last tokens (N, T)
    new_cache(weights, count, length, device)
        a tensor a layer, (2, count, heads, length, d), of which `distribution` writes keys and
        values
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Real rows may have tokens that are never written: impossible, and still a number.
_IMPOSSIBLE = -1e4


@torch.no_grad()
def sample(
    kit: Any,
    weights: Any,
    prompts: Tensor,
    temperature: float,
    generator: torch.Generator,
    batch: int,
) -> tuple[Tensor, Tensor]:
    """A row (N, LENGTH) after each prompt (N, P), and its log-probability in nats (N,).

    Prompts that stand side by side and are equal are read once.
    """
    rows, densities = [], []
    for part in prompts.split(batch):
        distinct, which = part.unique_consecutive(dim=0, return_inverse=True)
        width = part.shape[1] + kit.LENGTH
        cache = kit.new_cache(weights, len(distinct), width, part.device)
        distribution = kit.distribution(weights, distinct.long(), 1, temperature, cache)[which]
        cache = [one[:, which] for one in cache]
        row: list[Tensor] = []
        density = torch.zeros(len(part), dtype=torch.float64, device=part.device)
        for past in range(part.shape[1], width):
            if row:
                distribution = kit.distribution(weights, row[-1], 1, temperature, cache, past - 1)
            row.append(torch.multinomial(distribution[:, -1].exp(), 1, generator=generator))
            density += distribution[:, -1].gather(-1, row[-1]).squeeze(-1).double()
        rows.append(torch.cat(row, 1))
        densities.append(density)
    return torch.cat(rows).to(kit.TOKENS), torch.cat(densities)


@torch.no_grad()
def log_prob(
    kit: Any, weights: Any, prompts: Tensor, rows: Tensor, temperature: float, batch: int
) -> Tensor:
    """log p(row | prompt) in nats of prompts (N, P) and rows (N, LENGTH): (N,)."""
    parts = []
    for prompt, row in zip(prompts.split(batch), rows.split(batch), strict=True):
        read = torch.cat([prompt.long(), row[:, :-1].long()], 1)
        distribution = kit.distribution(weights, read, kit.LENGTH, temperature)
        parts.append(_chosen(distribution, row).sum(-1))
    return torch.cat(parts)


@torch.no_grad()
def pairs(
    kit: Any, weights: Any, prompts: Tensor, rows: Tensor, temperature: float, batch: int
) -> Tensor:
    """log p(row_i | prompt_j) of all pairs, prompts being read once: (N, J)."""
    count, past = prompts.shape
    cache = kit.new_cache(weights, count, past + kit.LENGTH, prompts.device)
    first, parts = kit.distribution(weights, prompts.long(), 1, temperature, cache), []
    for part in rows.split(max(1, batch // count)):
        wide = [one.repeat_interleave(len(part), 1) for one in cache]
        read = part.repeat(count, 1).long()
        start = _chosen(first.repeat_interleave(len(part), 0), read[:, :1])
        distribution = kit.distribution(
            weights, read[:, :-1], kit.LENGTH - 1, temperature, wide, past
        )
        total = start.sum(-1) + _chosen(distribution, read[:, 1:]).sum(-1)
        parts.append(total.reshape(count, -1).T)
    return torch.cat(parts)


def _chosen(distribution: Tensor, tokens: Tensor) -> Tensor:
    found = distribution.gather(-1, tokens.long().unsqueeze(-1)).squeeze(-1)
    return found.clamp_min(_IMPOSSIBLE).double()
