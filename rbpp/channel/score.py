"""Log-probabilities of outputs under their own and other prompts, by a local language model."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

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
# The nucleus is looked for among so many tokens first: a sort of all of a vocabulary is slow.
_MOST_LIKELY = 256


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
        prompts: a file, or a list of texts, records or chats; each a text, or a list of messages.
        outputs: a file, or a list of texts or records. Fields that count besides the text:
            `token_ids`, the tokens themselves; `finish_reason`, `"length"` of an output that was
            cut and has no end; `kept`, whether a filter kept it.
        settings: what is scored.
        seed: decides which prompts are the others.
        compute: device, progress, and a checkpoint to go on from.

    Raises:
        ImportError: naming the packages to install.
        ValueError: as `score_inputs` and `load_language_model`, and if the model gives nan.
    """
    compute, settings = Compute.of(compute, seed), settings or ScoreSettings()
    if not isinstance(model, LanguageModel):
        model = load_language_model(
            model, chat=settings.chat, dtype=settings.dtype, device=compute.device
        )
    inputs = score_inputs(model, prompts, outputs, settings)
    others = _others(inputs, settings.others, compute.seed)
    scoring = _Scoring(model, inputs, settings, others)
    pairs = scoring.pairs()
    lengths = np.array([sum(map(len, scoring.texts(pair))) for pair in pairs])
    order = np.argsort(-lengths, kind="stable")  # the longest first: memory fails at once or never
    steps = [order[start : start + _STEP] for start in range(0, len(order), _STEP)]

    mark = _mark(scoring)
    scored = {name: np.full(len(pairs), math.nan) for name in ("log_prob", "entropy", "outside")}
    names = {step[0]: f"{mark}-{index:06d}" for index, step in enumerate(steps)}
    done = compute.steps(
        lambda step: scoring.score(pairs[step]), steps, lambda step: names[step[0]], "batches"
    )
    for step, found in zip(steps, done, strict=True):
        for name, values in scored.items():
            values[step] = found[name]
    return _result(scoring, scored, compute.seed)


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


@dataclass(frozen=True)
class _Scoring:
    """A model, its tokens of outputs and prompts, and how outputs were drawn.

    A pair is the index of an output and that of a prompt, −1 for none. `others` (n, M) are the
    other prompts of every output; None where all prompts are taken.
    """

    model: LanguageModel
    inputs: ScoreInputs
    settings: ScoreSettings
    others: np.ndarray | None

    def pairs(self) -> np.ndarray:
        """(pairs, 2), an output after the other, in the order of the columns, without one last."""
        count = len(self.inputs.outputs)
        if self.others is None:
            columns = np.tile(np.arange(len(self.inputs.prompts)), (count, 1))
        else:
            columns = np.column_stack([self.inputs.prompt, self.others])
        if self.model.start:
            columns = np.column_stack([columns, np.full(count, -1)])
        rows = np.repeat(np.arange(count), columns.shape[1])
        return np.column_stack([rows, columns.ravel()])

    def texts(self, pair: np.ndarray) -> tuple[Sequence[int], Sequence[int]]:
        """Tokens before the output, and of the output."""
        output, prompt = pair
        before = self.model.start if prompt < 0 else self.inputs.prompts[prompt]
        return before, self.inputs.outputs[output]

    def score(self, pairs: np.ndarray) -> dict[str, np.ndarray]:
        """Log-probability, entropy along the output, and its first token that is cut off, or −1."""
        found = {name: np.zeros(len(pairs)) for name in ("log_prob", "entropy")}
        found["outside"] = np.full(len(pairs), -1.0)
        for batch in self.batches(pairs):
            texts = [self.texts(pair) for pair in pairs[batch]]
            for row, start, logits in self.logits(texts):
                place = batch[row]
                pair, own = pairs[place], texts[row][1][start : start + len(logits)]
                if bool(logits.isnan().any()) or bool((logits == math.inf).any()):
                    self.refuse_nan(pair)
                sampler = self.settings.sampler if pair[1] >= 0 else self.settings.sampler.uncut
                chosen = torch.tensor(own, dtype=torch.int64, device=logits.device)
                values, entropy = token_log_prob(logits, chosen, sampler)
                found["log_prob"][place] += float(values.sum())
                found["entropy"][place] += float(entropy.sum())
                cut = torch.nonzero(values == -math.inf)
                if len(cut) and found["outside"][place] < 0:
                    found["outside"][place] = start + int(cut[0])
        return found

    def logits(
        self, texts: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> Iterator[tuple[int, int, Tensor]]:
        """Row of the batch, first token of its output, and logits of that and later tokens.

        Padding is on the right, where no token before it looks. One long output goes through in
        parts of its logits.
        """
        width = max(len(before) + len(own) for before, own in texts)
        ids = torch.zeros(len(texts), width, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, (before, own) in enumerate(texts):
            ids[row, : len(before) + len(own)] = torch.tensor([*before, *own])
            mask[row, : len(before) + len(own)] = 1
        ids, mask = ids.to(self.model.device), mask.to(self.model.device)
        first = min(len(before) for before, _ in texts) - 1
        step = max(1, _MOST_LOGITS // self.model.vocabulary // len(texts))
        for positions in torch.arange(first, width - 1).split(step):
            logits = self.model.logits(ids, mask, positions.to(self.model.device))
            for row, (before, own) in enumerate(texts):
                start = int(positions[0]) - len(before) + 1  # in the output
                count = min(start + len(positions), len(own)) - max(0, start)
                if count > 0:
                    yield row, max(0, start), logits[row, max(0, -start) :][:count]

    def refuse_nan(self, pair: np.ndarray) -> NoReturn:
        """Name the output and the prompt."""
        output, prompt = pair
        outputs, prompts = self.inputs.places
        where = "without a prompt" if prompt < 0 else f"under {prompts[prompt]}"
        raise ValueError(
            f"{outputs[output]}: Expected numbers from the model; got nan or infinity for this "
            f"output {where} (dtype='float32' has a wider range)"
        )

    def batches(self, pairs: np.ndarray) -> list[list[int]]:
        """Places of pairs that go through the model together: padded, no more tokens than asked
        for, and no more logits than memory is meant for."""
        batches: list[list[int]] = []
        most = _MOST_LOGITS // self.model.vocabulary
        width = first = 0
        for place, pair in enumerate(pairs):
            before, own = map(len, self.texts(pair))
            if batches:
                size = len(batches[-1]) + 1
                wide, least = max(width, before + own), min(first, before)
                if size * wide <= self.settings.batch_tokens and size * (wide - least) <= most:
                    batches[-1].append(place)
                    width, first = wide, least
                    continue
            batches.append([place])
            width, first = before + own, before
        return batches


def _mark(scoring: _Scoring) -> str:
    """What a step depends on: of another model or other texts it is done again."""
    inputs, given, others = scoring.inputs, vars(scoring.settings), scoring.others
    kept = {name: value for name, value in given.items() if name != "batch_tokens"}
    of_texts = [inputs.prompts, inputs.outputs, inputs.prompt.tolist()]
    parts = [scoring.model.fingerprint, *of_texts, kept, _STEP]
    content = json.dumps([*parts, None if others is None else others.tolist()])
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def _result(scoring: _Scoring, scored: Mapping[str, np.ndarray], seed: int) -> ScoredRows:
    inputs, others, unprompted = scoring.inputs, scoring.others, bool(scoring.model.start)
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
        settings={
            **vars(scoring.settings),
            "outputs": count,
            "prompts": len(inputs.prompts),
            "seed": seed,
        },
        headline=(
            f"{count} outputs of {total} tokens, each under {log_prob.shape[1]} of "
            f"{len(inputs.prompts)} prompts"
            + (" and without one." if unprompted else "; there is no token to begin without one."),
            f"Surprise {mean:.4g} nats a token.",
        ),
        notes=inputs.notes,
    )


def token_log_prob(logits: Tensor, tokens: Tensor, sampler: Sampler) -> tuple[Tensor, Tensor]:
    """Log-probability of every token, and entropy of the distribution it was drawn from.

    Temperature, top-k, then top-p, in the order in which vLLM and transformers apply them. Where
    the sampler cuts tokens off, an output that has one of them was not drawn from it.

    Args:
        logits: (t, V) of the next token.
        tokens: (t,) that came next.
        sampler: how they were drawn.

    Returns:
        (t,) and (t,), nats, float64; −∞ where the sampler cuts a token off.

    >>> from rbpp.channel.score_settings import Sampler
    >>> logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    >>> [round(token_log_prob(logits, torch.tensor([token]), Sampler(top_p=0.6))[0].exp().item(), 3)
    ...  for token in range(3)]
    [0.625, 0.375, 0.0]
    """
    scaled = logits.float() / sampler.temperature
    log_prob = scaled - scaled.logsumexp(-1, keepdim=True)
    if not sampler.whole:
        log_prob = _cut(log_prob, sampler)
    chosen = log_prob.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    entropy = -torch.where(log_prob > -math.inf, log_prob.exp() * log_prob, 0.0).sum(-1)
    return chosen.double(), entropy.double()


def _cut(log_prob: Tensor, sampler: Sampler) -> Tensor:
    """The distribution of the tokens that are kept, −∞ for the others."""
    size = log_prob.shape[-1]
    if sampler.top_k is not None and sampler.top_k < size:
        least = log_prob.topk(sampler.top_k, -1).values[..., -1:]
        log_prob = log_prob.masked_fill(log_prob < least, -math.inf)
        log_prob = log_prob - log_prob.logsumexp(-1, keepdim=True)
    if sampler.top_p < 1:
        count = min(size, _MOST_LIKELY)
        ordered = log_prob.topk(count, -1).values
        if count < size and bool((ordered.exp().sum(-1) < sampler.top_p).any()):
            ordered = log_prob.sort(-1, descending=True).values
        # A token is kept while those before it have less than top_p.
        before = ordered.exp().cumsum(-1) - ordered.exp()
        kept = before < sampler.top_p
        least = ordered.masked_fill(~kept, math.inf).amin(-1, keepdim=True)
        log_prob = log_prob.masked_fill(log_prob < least, -math.inf)
        log_prob = log_prob - log_prob.logsumexp(-1, keepdim=True)
    return log_prob
