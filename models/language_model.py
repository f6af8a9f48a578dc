"""A language model in the chain: log p(output | prompt) is exact, token by token.

    anchor    ~ the task's language model, or rows that are given
    prompt    = | anchor | anchor … |           a template around the first k anchors
    output    ~ the generating language model after the prompt, with temperature and top-p
    synthetic : kept where the task's model is not too perplexed, else written anew by a curator

The world is the parameters of the two language models, which are fixed: no site is drawn for them.
By default both are small random transformers, made on the spot. Without a prompt the generating
model reads the separator alone.
"""

from __future__ import annotations

import math
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn

from rbpp.processes.token_rows import FilteredRows, LanguageModel, TokenRows

_WIDTH = 16
_GENERATOR_SEED, _TASK_SEED = 1, 2


def model(
    letters: int = 4,
    length: int = 4,
    anchors: int = 2,
    examples: int = 2,
    outputs: int = 4,
    targets: int = 100,
    unprompted_outputs: int = 100,
    temperature: float = 1.0,
    top_p: float = 1.0,
    perplexity: float = 5.0,
    language_model: Any = None,
    task: Any = None,
) -> Tensor:
    """Knobs: sizes of the alphabet, of a row, and of the data sets, and

    examples: k, anchors in the prompt;
    temperature, top_p: how the generating model is drawn from;
    perplexity: up to which the filter keeps a row, by the task's model; 0 keeps all;
    language_model: the generating model: a callable from tokens (rows, T) to logits (rows, T, V),
        or the folder of a causal model of transformers; token number `letters` separates rows;
    task: the same for the task's distribution, or its rows: tokens (N, length), or an .npy of them.
    """
    if letters < 2 or not 1 <= examples <= anchors or perplexity < 0:
        raise ValueError(
            "Expected 2 letters or more, from 1 to all anchors as examples, and a perplexity of 0 "
            f"or more; got {letters=}, {examples=}, {anchors=}, {perplexity=}"
        )
    generating = _language_model(language_model, letters, _GENERATOR_SEED)
    separator = torch.full((1,), letters)
    written = partial(TokenRows, letters=letters, length=length)
    of_task = _task(task, letters, length, separator)

    with pyro.plate("targets", targets):
        pyro.sample("target", of_task)
    with pyro.plate("unprompted_outputs", unprompted_outputs):
        unprompted = written(generating, separator, temperature=temperature, top_p=top_p)
        pyro.sample("unprompted", unprompted)

    with pyro.plate("anchors", anchors):
        anchor = pyro.sample("anchor", of_task)
    prompt = pyro.deterministic("prompt", template(anchor, examples, separator), event_dim=1)

    context = prompt.unsqueeze(-2)
    with pyro.plate("outputs", outputs):
        answer = written(generating, context, temperature=temperature, top_p=top_p)
        output = pyro.sample("output", answer)
        lowest = -length * math.log(perplexity) if perplexity else -math.inf
        kept = of_task.log_prob(output) >= lowest
        return pyro.sample("synthetic", FilteredRows(output, kept, of_task))


def template(anchor: Tensor, examples: int, separator: Tensor) -> Tensor:
    """| anchor | anchor … |: tokens (…, examples · (length + 1) + 1) of anchors (…, m, length)."""
    shown = anchor[..., :examples, :]
    marked = torch.cat([separator.expand(*shown.shape[:-1], 1), shown], -1).flatten(-2)
    return torch.cat([marked, separator.expand(*marked.shape[:-1], 1)], -1)


class SmallTransformer(nn.Module):
    """One block of causal attention with random weights: a few thousand parameters.

    Its weights are larger than those that a training would start from, so that what it writes
    depends on what it reads.
    """

    def __init__(self, tokens: int, seed: int, scale: float = 1.5) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def weights(rows: int, columns: int, inputs: int = 0) -> nn.Parameter:
            drawn = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
            return nn.Parameter(scale * drawn / math.sqrt(inputs or rows), requires_grad=False)

        self.embedding = weights(tokens, _WIDTH, inputs=1)  # a row is looked up, not summed
        self.queries, self.keys = weights(_WIDTH, _WIDTH), weights(_WIDTH, _WIDTH)
        self.values = weights(_WIDTH, _WIDTH)
        self.inner, self.outer = weights(_WIDTH, 4 * _WIDTH), weights(4 * _WIDTH, _WIDTH)
        self.head = weights(_WIDTH, tokens)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (rows, T, tokens) after every token (rows, T)."""
        count = tokens.shape[-1]
        place = torch.arange(count, dtype=torch.float64).unsqueeze(-1)
        waves = torch.arange(_WIDTH, dtype=torch.float64)
        state = self.embedding[tokens] + torch.sin(place / 8 ** (waves / _WIDTH) + waves)
        scores = (state @ self.queries) @ (state @ self.keys).mT / math.sqrt(_WIDTH)
        later = torch.ones(count, count, dtype=torch.bool).triu(1)
        attention = scores.masked_fill(later, -math.inf).softmax(-1)
        state = torch.tanh(state + attention @ (state @ self.values))
        state = state + torch.tanh(state @ self.inner) @ self.outer
        return nn.functional.layer_norm(state, (_WIDTH,)) @ self.head


class GivenRows(TokenRows):
    """Rows drawn with equal probability from rows (N, length) that are given."""

    def __init__(self, rows: Tensor, letters: int) -> None:
        self.given = rows
        super().__init__(_no_model, rows.new_zeros(1), letters, rows.shape[-1])

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's own)
        """Rows by their number."""
        return self.given[torch.randint(len(self.given), (*sample_shape, *self.batch_shape))]

    def log_prob(self, value: Tensor) -> Tensor:
        """The log of the share of given rows that are this one."""
        same = (value.unsqueeze(-2) == self.given).all(-1)
        found = same.double().mean(-1).log()
        return found.expand(torch.broadcast_shapes(found.shape, self.batch_shape))


def _no_model(tokens: Tensor) -> Tensor:
    raise ValueError(f"Expected given rows to be drawn by number; got tokens {tuple(tokens.shape)}")


def _task(task: Any, letters: int, length: int, separator: Tensor) -> TokenRows:
    """The task's distribution of a row."""
    if isinstance(task, str) and task.endswith(".npy"):
        task = torch.from_numpy(np.load(task))
    if not isinstance(task, Tensor):
        return TokenRows(_language_model(task, letters, _TASK_SEED), separator, letters, length)
    if task.dim() != 2 or task.shape[1] != length or task.is_floating_point():
        raise ValueError(
            f"Expected rows of the task as whole numbers (N, length = {length}); got "
            f"{task.dtype} of shape {tuple(task.shape)}"
        )
    if int(task.min()) < 0 or int(task.max()) >= letters:
        raise ValueError(
            f"Expected tokens from 0 to letters − 1 = {letters - 1} in the task's rows; got "
            f"{int(task.min())} to {int(task.max())}"
        )
    return GivenRows(task.long(), letters)


def _language_model(given: Any, letters: int, seed: int) -> LanguageModel:
    if given is None:
        return _random_model(letters + 1, seed)
    if isinstance(given, str):
        return _local_model(given)
    if not callable(given):
        raise ValueError(
            f"Expected a callable from tokens to logits, or a folder; got {type(given).__name__}"
        )
    return given


@lru_cache(maxsize=8)
def _random_model(tokens: int, seed: int) -> SmallTransformer:
    return SmallTransformer(tokens, seed)


@lru_cache(maxsize=2)
def _local_model(folder: str) -> LanguageModel:
    """A causal model of transformers, read from a folder of this machine and nowhere else."""
    if not Path(folder, "config.json").is_file():
        raise ValueError(f"Expected a folder with a causal language model; got {folder!r}")
    try:
        from transformers import AutoModelForCausalLM
    except ImportError:
        raise ImportError(
            "reading a language model needs transformers: pip install transformers"
        ) from None
    network = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    return lambda tokens: network(tokens).logits
