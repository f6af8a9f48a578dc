"""Log-probabilities of outputs under their own and other prompts, by a local language model."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rbpp.channel.distribution import token_log_prob
from rbpp.channel.language_model import LanguageModel, load_language_model
from rbpp.channel.log_probabilities import LogProbabilities, log_probabilities
from rbpp.channel.score_inputs import ScoreInputs, score_inputs
from rbpp.channel.score_settings import Sampler, ScoreSettings
from rbpp.checks import Check
from rbpp.compute import Compute
from rbpp.randomness import spawn
from rbpp.result import Result

# Sequences of a step, which a run that was cut off goes on behind.
_STEP = 64
# Numbers of logits at once: half a gigabyte of float32 with what is made of them.
_MOST_LOGITS = 2**25


@dataclass(frozen=True, kw_only=True, repr=False)
class ScoredRows(Result):
    """Log-probabilities of outputs, ready for `rbpp.channel_information`.

    Attributes:
        arrays: by the names of `rbpp.channel.log_probabilities.log_probabilities`.
    """

    arrays: Mapping[str, np.ndarray]

    def log_probabilities(self, *, leave_out_impossible: bool = False) -> LogProbabilities:
        """As `rbpp.channel_information` takes them."""
        given: dict[str, Any] = dict(self.arrays)
        return log_probabilities(**given, leave_out_impossible=leave_out_impossible)

    def write(self, path: Path | str) -> None:
        """Write the arrays and the settings to an `.npz` file, whole or not at all."""
        from rbpp.display import to_json
        from rbpp.files import write_arrays

        write_arrays(path, {**self.arrays, "settings": np.asarray(to_json(self.settings))})


def score_rows(
    model: LanguageModel | Path | str,
    prompts: Any,
    outputs: Any,
    *,
    text_field: str | None = None,
    output_field: str | None = None,
    own_field: str | None = None,
    settings: ScoreSettings | None = None,
    seed: int = 0,
    compute: Compute | None = None,
) -> ScoredRows:
    """log p(output | prompt) of every output under its own prompt, M others, and none.

    Each is the sum over the output's tokens, its end token among them, of the log-probability of
    the token under the distribution it was drawn from. Without a prompt the whole vocabulary is
    possible: any distribution serves there, and one without holes bounds more.

    Args:
        model: a folder, a `.gguf` file, a cached name, or a `LanguageModel`.
        prompts, outputs, text_field, output_field, own_field: see
            `rbpp.channel.score_inputs.score_inputs`.
        settings: what is scored.
        seed: decides which prompts are the others.
        compute: in place of `seed`; device, progress, and a checkpoint to go on from.

    Raises:
        ImportError: naming the extra to install.
        ValueError: as `score_inputs` and `load_language_model`, and if the model gives nan.
    """
    compute, settings = Compute.of(compute, seed), settings or ScoreSettings()
    if not isinstance(model, LanguageModel):
        model = load_language_model(
            model, chat=settings.chat, dtype=settings.dtype, device=compute.device
        )
    inputs = score_inputs(
        model,
        prompts,
        outputs,
        text_field=text_field,
        output_field=output_field,
        own_field=own_field,
        end=settings.end,
    )
    others = _others(inputs, settings.others, compute.seed)
    pairs = _pairs(inputs, others, bool(model.start))
    lengths = np.array([len(_context(model, inputs, p)) + len(inputs.outputs[o]) for o, p in pairs])
    order = np.argsort(-lengths, kind="stable")  # the longest first: memory fails at once or never
    steps = [order[start : start + _STEP] for start in range(0, len(order), _STEP)]

    def work(chosen: np.ndarray) -> dict[str, np.ndarray]:
        return _score(model, inputs, pairs[chosen], settings)

    mark = _mark(model.fingerprint, inputs, others, settings)
    scored: dict[str, np.ndarray] = {
        name: np.full(len(pairs), math.nan) for name in ("log_prob", "entropy", "outside")
    }
    names = {step[0]: f"{mark}-{index:06d}" for index, step in enumerate(steps)}
    done = compute.steps(work, steps, lambda step: names[step[0]], "batches")
    for step, found in zip(steps, done, strict=True):
        for name, values in scored.items():
            values[step] = found[name]
    return _result(inputs, others, scored, settings, compute.seed, bool(model.start))


def _others(inputs: ScoreInputs, count: int, seed: int) -> np.ndarray | None:
    """(n, M) other prompts of every output; None where all prompts are taken."""
    prompts = len(inputs.prompts)
    if count >= prompts - 1:
        return None
    random = np.random.default_rng(spawn(seed, "others"))
    drawn = np.stack(
        [random.choice(prompts - 1, count, replace=False) for _ in range(len(inputs.outputs))]
    )
    return drawn + (drawn >= inputs.prompt[:, None])


def _pairs(inputs: ScoreInputs, others: np.ndarray | None, unprompted: bool) -> np.ndarray:
    """(pairs, 2): output and prompt, in the order of the columns; prompt −1 is none."""
    count = len(inputs.outputs)
    if others is None:
        columns = np.tile(np.arange(len(inputs.prompts)), (count, 1))
    else:
        columns = np.concatenate([inputs.prompt[:, None], others], 1)
    if unprompted:
        columns = np.concatenate([columns, np.full((count, 1), -1)], 1)
    rows = np.repeat(np.arange(count), columns.shape[1])
    return np.stack([rows, columns.ravel()], 1)


def _context(model: LanguageModel, inputs: ScoreInputs, prompt: int) -> Sequence[int]:
    return model.start if prompt < 0 else inputs.prompts[prompt]


def _score(
    model: LanguageModel, inputs: ScoreInputs, pairs: np.ndarray, settings: ScoreSettings
) -> dict[str, np.ndarray]:
    """Log-probability, entropy along the output, and its first token that is cut off (or −1)."""
    found = {name: np.zeros(len(pairs)) for name in ("log_prob", "entropy")}
    found["outside"] = np.full(len(pairs), -1.0)
    whole = Sampler(settings.temperature)
    for batch in _batches(model, inputs, pairs, settings.batch_tokens):
        contexts = [_context(model, inputs, prompt) for _, prompt in pairs[batch]]
        tokens = [inputs.outputs[output] for output, _ in pairs[batch]]
        width = max(len(c) + len(t) for c, t in zip(contexts, tokens, strict=True))
        ids = torch.zeros(len(batch), width, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, (context, own) in enumerate(zip(contexts, tokens, strict=True)):
            ids[row, : len(context) + len(own)] = torch.tensor([*context, *own])
            mask[row, : len(context) + len(own)] = 1
        # Padding is on the right, where no token before it looks. One long output goes through in
        # parts of its logits.
        first = min(map(len, contexts)) - 1
        step = max(1, _MOST_LOGITS // model.vocabulary // len(batch))
        for positions in torch.arange(first, width - 1).split(step):
            device = model.device
            logits = model.logits(ids.to(device), mask.to(device), positions.to(device))
            for row, (context, own) in enumerate(zip(contexts, tokens, strict=True)):
                start = int(positions[0]) - len(context) + 1  # in the output
                inside = own[max(0, start) : max(0, start + len(positions))]
                part = logits[row, max(0, -start) :][: len(inside)]
                output, prompt = pairs[batch[row]]
                if bool(part.isnan().any()) or bool((part == math.inf).any()):
                    where = (
                        "without a prompt" if prompt < 0 else f"under {inputs.places[1][prompt]}"
                    )
                    raise ValueError(
                        f"{inputs.places[0][output]}: Expected numbers from the model; got nan or "
                        f"infinity for this output {where} (--dtype float32 has a wider range)"
                    )
                sampler = whole if prompt < 0 else settings.sampler
                chosen = torch.tensor(inside, dtype=torch.int64, device=part.device)
                values, entropy = token_log_prob(part, chosen, sampler)
                place = batch[row]
                found["log_prob"][place] += float(values.sum())
                found["entropy"][place] += float(entropy.sum())
                cut = torch.nonzero(values == -math.inf)
                if len(cut) and found["outside"][place] < 0:
                    found["outside"][place] = max(0, start) + int(cut[0])
    return found


def _batches(
    model: LanguageModel, inputs: ScoreInputs, pairs: np.ndarray, tokens: int
) -> list[list[int]]:
    """Places of pairs that go through the model together: padded, no more tokens than asked for,
    and no more logits than memory is meant for."""
    batches: list[list[int]] = []
    most = _MOST_LOGITS // model.vocabulary
    width = first = 0
    for place, (output, prompt) in enumerate(pairs):
        context = len(_context(model, inputs, prompt))
        length = context + len(inputs.outputs[output])
        if batches:
            size = len(batches[-1]) + 1
            wide, least = max(width, length), min(first, context)
            if size * wide <= tokens and size * (wide - least) <= most:
                batches[-1].append(place)
                width, first = wide, least
                continue
        batches.append([place])
        width, first = length, context
    return batches


def _mark(
    model: str, inputs: ScoreInputs, others: np.ndarray | None, settings: ScoreSettings
) -> str:
    """What a step depends on: of another model or other texts it is done again."""
    content = hashlib.blake2b(digest_size=8)
    kept = {name: value for name, value in vars(settings).items() if name != "batch_tokens"}
    parts = [model, inputs.prompts, inputs.outputs, inputs.prompt.tolist(), kept, _STEP]
    content.update(json.dumps([*parts, None if others is None else others.tolist()]).encode())
    return content.hexdigest()


def _result(
    inputs: ScoreInputs,
    others: np.ndarray | None,
    scored: Mapping[str, np.ndarray],
    settings: ScoreSettings,
    seed: int,
    unprompted: bool,
) -> ScoredRows:
    count = len(inputs.outputs)
    table = {name: values.reshape(count, -1) for name, values in scored.items()}
    log_prob = table["log_prob"]
    arrays: dict[str, np.ndarray] = {"prompt": inputs.prompt}
    own = inputs.prompt if others is None else np.zeros(count, dtype=np.int64)
    if unprompted:
        arrays["log_prob_unprompted"] = log_prob[:, -1]
        log_prob = log_prob[:, :-1]
    arrays["log_prob"] = log_prob
    if others is not None:
        arrays["others"] = others
    arrays["tokens"] = np.array([len(tokens) for tokens in inputs.outputs])
    rows = np.arange(count)
    arrays["path_entropy"] = table["entropy"][rows, own]
    if inputs.kept is not None:
        arrays["kept"] = inputs.kept
    outside = table["outside"][rows, own]
    cut = np.flatnonzero(outside >= 0)
    first = ", ".join(
        f"{inputs.places[0][row]} (token {int(outside[row])})" for row in cut[:5].tolist()
    )
    total = int(arrays["tokens"].sum())
    surprise = -log_prob[rows, own]
    mean = float(surprise[np.isfinite(surprise)].sum() / total) if total else math.nan
    return ScoredRows(
        arrays=arrays,
        checks=(
            Check(
                "every output is possible under the sampler that it was drawn with",
                "violated" if len(cut) else "holds",
                f"{len(cut)} of {count} are outside of it: {first}{', …' if len(cut) > 5 else ''}"
                if len(cut)
                else f"{count} of {count}",
                {"outside": len(cut)},
            ),
        ),
        settings={**vars(settings), "outputs": count, "prompts": len(inputs.prompts), "seed": seed},
        headline=(
            f"{count} outputs of {total} tokens, each under {log_prob.shape[1]} of "
            f"{len(inputs.prompts)} prompts"
            + (" and without one." if unprompted else "; there is no token to begin without one."),
            f"Surprise {mean:.4g} nats a token.",
        ),
        notes=inputs.notes,
    )
