"""A small transformer over characters: trained, sampled, scored, and fine-tuned many at a time.

A network is a dictionary of tensors. Fine-tuning moves biases and the gains and shifts of the
normalisations alone (Ben Zaken et al. 2022): the matrices are shared by all fine-tunes, so that
hundreds of them train together. W is those numbers, a vector, plus Gaussian noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .text import LENGTH, SEPARATOR, damaged

__all__ = ["LENGTH", "damaged"]  # of the kit that data sets are made with

Weights = dict[str, Tensor]
_HEADS = 4
_TUNED = (".bias", ".gain", ".shift")
TOKENS = torch.uint8


@dataclass(frozen=True)
class Shape:
    """Layers, width, and the longest text that it reads."""

    layers: int
    width: int
    context: int


def new_network(shape: Shape, generator: torch.Generator, device: torch.device) -> Weights:
    """Random weights; a matrix is (in, out)."""
    width, tokens = shape.width, SEPARATOR + 1

    def normal(*size: int, scale: float) -> Tensor:
        return (scale * torch.randn(*size, generator=generator)).to(device)

    def zeros(size: int) -> Tensor:
        return torch.zeros(size, device=device)

    weights = {
        "token": normal(tokens, width, scale=0.1),
        "place": normal(shape.context, width, scale=0.02),
    }
    for layer in range(shape.layers):
        for name, size, out in (("qkv", width, 3 * width), ("mixed", width, width)):
            weights[f"{layer}.{name}"] = normal(size, out, scale=1 / math.sqrt(size))
            weights[f"{layer}.{name}.bias"] = zeros(out)
        for name, size, out in (("inner", width, 4 * width), ("outer", 4 * width, width)):
            weights[f"{layer}.{name}"] = normal(size, out, scale=0.5 / math.sqrt(size))
            weights[f"{layer}.{name}.bias"] = zeros(out)
    for name in [
        f"{layer}.{norm}" for layer in range(shape.layers) for norm in ("first", "second")
    ]:
        weights |= {f"{name}.gain": zeros(width) + 1, f"{name}.shift": zeros(width)}
    return weights | {
        "last.gain": zeros(width) + 1,
        "last.shift": zeros(width),
        "head": normal(width, tokens, scale=1 / math.sqrt(width)),
        "head.bias": zeros(tokens),
    }


def logits(
    weights: Weights,
    tokens: Tensor,
    *,
    dropout: float = 0.0,
    cache: list[Tensor] | None = None,
    past: int = 0,
    hidden: bool = False,
) -> Tensor:
    """Logits (…, T, tokens) after every token (…, T); with `hidden` the last layer's states.

    Args:
        cache: keys and values of every layer, (2, rows, heads, context, d), written from `past` on.
    """
    length = tokens.shape[-1]
    state = weights["token"][tokens] + weights["place"][past : past + length]
    for layer in range(_layers(weights)):
        mixed = _attention(weights, layer, _norm(weights, f"{layer}.first", state), cache, past)
        state = state + functional.dropout(mixed, dropout, dropout > 0)
        inner = functional.gelu(
            _linear(weights, f"{layer}.inner", _norm(weights, f"{layer}.second", state))
        )
        outer = _linear(weights, f"{layer}.outer", inner)
        state = state + functional.dropout(outer, dropout, dropout > 0)
    state = _norm(weights, "last", state)
    return state if hidden else _linear(weights, "head", state)


def _linear(weights: Weights, name: str, state: Tensor) -> Tensor:
    return state @ weights[name] + weights[f"{name}.bias"]


def _norm(weights: Weights, name: str, state: Tensor) -> Tensor:
    plain = functional.layer_norm(state, state.shape[-1:])
    return plain * weights[f"{name}.gain"] + weights[f"{name}.shift"]


def _attention(
    weights: Weights, layer: int, state: Tensor, cache: list[Tensor] | None, past: int
) -> Tensor:
    *batch, length, width = state.shape
    qkv = _linear(weights, f"{layer}.qkv", state)
    split = qkv.reshape(-1, length, 3, _HEADS, width // _HEADS).permute(2, 0, 3, 1, 4)
    query, key, value = split.unbind(0)
    if cache is not None:
        cache[layer][0, :, :, past : past + length] = key
        cache[layer][1, :, :, past : past + length] = value
        key, value = cache[layer][:, :, :, : past + length]
    mixed = attend(query, key, value, past)
    mixed = mixed.transpose(1, 2).reshape(*batch, length, width)
    return _linear(weights, f"{layer}.mixed", mixed)


def attend(query: Tensor, key: Tensor, value: Tensor, past: int) -> Tensor:
    """Causal attention of tokens that stand after `past` others."""
    length = query.shape[-2]
    if past == 0 or length == 1:
        return functional.scaled_dot_product_attention(query, key, value, is_causal=length > 1)
    mask = torch.ones(length, key.shape[-2], dtype=torch.bool, device=query.device).tril(past)
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def train(
    weights: Weights,
    texts: Tensor,
    *,
    steps: int,
    batch: int,
    rate: float,
    dropout: float,
    generator: torch.Generator,
) -> Weights:
    """All weights trained on texts (N, T) of tokens, by Adam with a rate that falls to zero."""
    weights = {name: value.clone().requires_grad_() for name, value in weights.items()}
    optimizer = torch.optim.AdamW(weights.values(), lr=rate, weight_decay=0.05, betas=(0.9, 0.98))
    with torch.random.fork_rng():
        torch.manual_seed(generator.initial_seed())  # dropout takes no generator
        for step in range(steps):
            chosen = torch.randint(len(texts), (batch,), generator=generator).to(texts.device)
            rows = texts[chosen].long()
            for group in optimizer.param_groups:
                group["lr"] = rate * _schedule(step, steps)
            found = logits(weights, rows[:, :-1], dropout=dropout)
            loss = functional.cross_entropy(found.flatten(0, 1), rows[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
            optimizer.step()
    return {name: value.detach() for name, value in weights.items()}


def _schedule(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / max(1, steps // 20))
    return warm * 0.5 * (1 + math.cos(math.pi * step / steps))


def distribution(
    weights: Weights,
    tokens: Tensor,
    last: int,
    temperature: float,
    cache: list[Tensor] | None = None,
    past: int = 0,
) -> Tensor:
    """See `written`: the separator is never written within a row."""
    found = logits(weights, tokens, cache=cache, past=past)[:, -last:, :SEPARATOR]
    return (found.float() / temperature).log_softmax(-1)


def new_cache(weights: Weights, count: int, length: int, device: torch.device) -> list[Tensor]:
    """See `written`."""
    size = (2, count, _HEADS, length, weights["token"].shape[1] // _HEADS)
    return [torch.empty(size, device=device) for _ in range(_layers(weights))]


def _layers(weights: Weights) -> int:
    return sum(name.endswith(".qkv") for name in weights)


@torch.no_grad()
def embedding(weights: Weights, rows: Tensor, batch: int) -> Tensor:
    """Mean state of the last layer over a row's characters: (N, width)."""
    return torch.cat(
        [logits(weights, marked(part), hidden=True).mean(1) for part in rows.split(batch)]
    )


def prompt_of(shown: np.ndarray) -> np.ndarray:
    """The template around examples (k, 64): the separator before each, and at the end."""
    mark = np.full((len(shown), 1), SEPARATOR, np.uint8)
    return np.append(np.concatenate([mark, shown], 1).reshape(-1), np.uint8(SEPARATOR))


def alone(count: int, device: torch.device) -> Tensor:
    """What the model reads where there is no prompt: (count, 1)."""
    return torch.full((count, 1), SEPARATOR, dtype=torch.uint8, device=device)


def marked(rows: Tensor) -> Tensor:
    """The separator before each row (…, 64): (…, 65)."""
    start = rows.new_full((*rows.shape[:-1], 1), SEPARATOR)
    return torch.cat([start, rows], -1).long()


# Many fine-tunes of one network at a time.


def tuned_names(weights: Weights) -> list[str]:
    """What W is made of."""
    return sorted(name for name in weights if name.endswith(_TUNED))


def start_of(weights: Weights) -> Tensor:
    """W before any fine-tuning, (q,)."""
    return torch.cat([weights[name].flatten() for name in tuned_names(weights)])


def with_parameters(weights: Weights, parameters: Tensor) -> Weights:
    """The network at W (E, q): its tuned tensors are (E, 1, 1, size)."""
    sizes = [weights[name].numel() for name in tuned_names(weights)]
    parts = parameters.split(sizes, -1)
    placed = {n: part[:, None, None] for n, part in zip(tuned_names(weights), parts, strict=True)}
    return weights | placed


def smoothed_loss(found: Tensor, rows: Tensor, smoothing: float) -> Tensor:
    """−log((1 − α) p + α / letters), a character, averaged over a row: (…,) in [0, C]."""
    distribution = found[..., :SEPARATOR].float().log_softmax(-1)
    chosen = distribution.gather(-1, rows.long().unsqueeze(-1)).squeeze(-1).exp()
    return -torch.log((1 - smoothing) * chosen + smoothing / SEPARATOR).mean(-1)


def fine_tune(
    weights: Weights,
    data: list[Tensor],
    *,
    steps: int,
    batch: int,
    rate: float,
    generator: torch.Generator,
) -> Tensor:
    """W (E, q) of E data sets, each rows (n, 64), by Adam for a fixed number of steps."""
    device = data[0].device
    start = start_of(weights)
    parameters = start.expand(len(data), -1).clone().requires_grad_()
    optimizer = torch.optim.Adam([parameters], lr=rate)
    sizes = torch.tensor([len(rows) for rows in data])
    offsets = (sizes.cumsum(0) - sizes).unsqueeze(-1)
    joined = torch.cat(data)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * _schedule(step, steps)
        places = torch.rand(len(data), batch, generator=generator) * sizes.unsqueeze(-1)
        rows = joined[(offsets + places.long()).to(device)]
        found = logits(with_parameters(weights, parameters), marked(rows)[..., :-1])
        distribution = found[..., :SEPARATOR].log_softmax(-1)
        loss = -distribution.gather(-1, rows.long().unsqueeze(-1)).mean((1, 2, 3)).sum()
        (parameters.grad,) = torch.autograd.grad(loss, parameters)
        optimizer.step()
    return parameters.detach()


@torch.no_grad()
def losses(
    weights: Weights, parameters: Tensor, rows: Tensor, smoothing: float, batch: int
) -> Tensor:
    """Loss of every W (E, q) on rows (E, n, 64), or on the same rows (n, 64): (E, n)."""
    placed = with_parameters(weights, parameters)
    shared = rows.dim() == 2
    parts = []
    for part in rows.split(batch, -2):
        every = part.expand(len(parameters), *part.shape) if shared else part
        found = logits(placed, marked(every)[..., :-1])
        parts.append(smoothed_loss(found, every, smoothing))
    return torch.cat(parts, -1)
