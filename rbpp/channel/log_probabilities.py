"""Log-probabilities of outputs under prompts, checked: what every number of the channel is made of.

Output i has its own prompt, which it was made from, and log p(output i | prompt j) of its own and
other prompts j: all of them (a full matrix), some drawn at random, or none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rbpp.data.arrays import numbers

# log-softmax in float32 ends above zero by rounding: no more than this, of a sum over tokens.
_ROUNDING = 1e-4
# Of what has a number per output: where it is wrong, and what is expected.
_RULES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "tokens": (lambda values: (values < 1) | (values % 1 != 0), "counts"),
    "log_prob_unprompted": (
        lambda values: np.isnan(values) | (values > _ROUNDING),
        "log-probabilities of at most 0",
    ),
    "path_entropy": (lambda values: ~(values >= 0) | np.isinf(values), "entropies"),
    "kept": (lambda values: (values != 0) & (values != 1), "true or false"),
}


@dataclass(frozen=True)
class LogProbabilities:
    """What `log_probabilities` has checked. All in nats.

    Attributes:
        own: (n,) log p(output | its own prompt), finite.
        prompt: (n,) index of the own prompt of every output.
        log_prob: (n, C) under other prompts and possibly the own; −∞ where impossible. C may be 0.
        columns: (n, C) the prompts of `log_prob`; None where column j is prompt j.
        prompts: how many prompts there are, J.
        tokens: (n,) number of tokens of every output, the end token counted; None if not known.
        unprompted: (n,) log q(output) for any one distribution q of outputs, such as that of the
            model without the prompt; None if there is none.
        path_entropy: (n,) sum over tokens of the entropy of the next token, given those before; its
            mean equals that of −own where outputs were drawn from this distribution.
        kept: (n,) whether a filter kept the output; None where there was no filter.
        rows: (n,) number of every output in the user's file, from 0.
        prompt_names, output_names: what the user's file calls them, for tables.
        impossible: rows that were left out, being impossible under their own prompt.
    """

    own: Tensor
    prompt: Tensor
    log_prob: Tensor
    columns: Tensor | None
    prompts: int
    tokens: Tensor | None = None
    unprompted: Tensor | None = None
    path_entropy: Tensor | None = None
    kept: Tensor | None = None
    rows: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    prompt_names: tuple[str, ...] | None = None
    output_names: tuple[str, ...] | None = None
    impossible: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.own)

    @property
    def others(self) -> int:
        """How many prompts besides its own every output was scored under."""
        return self.prompts - 1 if self.columns is None else self.columns.shape[1]


def log_probabilities(
    log_prob: Any,
    prompt: Any = None,
    *,
    others: Any = None,
    tokens: Any = None,
    log_prob_unprompted: Any = None,
    path_entropy: Any = None,
    kept: Any = None,
    leave_out_impossible: bool = False,
    prompt_names: tuple[str, ...] | None = None,
    output_names: tuple[str, ...] | None = None,
) -> LogProbabilities:
    """Check log-probabilities of outputs under prompts.

    Args:
        log_prob: log p(output | prompt) in nats. (n, J): entry [i, j] under prompt j. With
            `others`, (n, 1 + M): first under the own prompt, then under those that `others` names.
            (n,): under the own prompt alone.
        prompt: (n,) index of each output's own prompt, from 0; where it is absent, prompt i.
            Several outputs of a prompt have the same index.
        others: (n, M) indices of other prompts, drawn at random without replacement for every
            output from all prompts but its own.
        tokens: (n,) number of tokens of every output.
        log_prob_unprompted: (n,) log-probability of every output without its prompt, or under any
            other distribution of outputs.
        path_entropy: (n,) entropy of the next token summed along every output.
        kept: (n,) whether a filter kept the output.
        leave_out_impossible: leave out outputs of log-probability −∞ under their own prompt in
            place of refusing them.
        prompt_names, output_names: what to call them in tables.

    Raises:
        ValueError: naming what and where: shapes that do not belong together, a log-probability
            above zero or nan, an index that is none, an own prompt among the others, an output that
            is impossible under its own prompt, fewer than two prompts.

    >>> log_probabilities([[-1.0, -2.0], [-3.0, -0.5]]).own.tolist()
    [-1.0, -0.5]
    """
    values = numbers("log_prob", log_prob)
    if values.ndim not in (1, 2) or not len(values):
        raise ValueError(
            "Expected log_prob of shape (outputs, prompts), or (outputs,) under the own prompt "
            f"alone; got shape {values.shape}"
        )
    count = len(values)
    _refuse("log_prob", values, np.isnan(values), "log-probabilities that are numbers")
    _refuse(
        "log_prob",
        values,
        values > _ROUNDING,
        "log-probabilities of at most 0",
        ": nats of discrete outputs are never positive",
    )
    values = np.minimum(values, 0.0)
    if prompt is None and others is None and values.ndim == 2 and count != values.shape[1]:
        raise ValueError(
            f"Expected `prompt`, the index of each output's own prompt, beside log_prob of "
            f"{count} outputs and {values.shape[1]} prompts; got none, and sides that differ"
        )
    own_prompt = np.arange(count) if prompt is None else _indices("prompt", prompt, (count,))
    own, matrix, columns, prompts = _layout(values, own_prompt, others)
    if len(np.unique(own_prompt)) < 2:
        raise ValueError(
            "Expected outputs of at least 2 prompts: a posterior comes from the spread between "
            f"prompts; got {len(np.unique(own_prompt))}"
        )
    for name, names, length in (
        ("prompt_names", prompt_names, prompts),
        ("output_names", output_names, count),
    ):
        if names is not None and len(names) != length:
            raise ValueError(f"Expected {length} {name}; got {len(names)}")
    possible = np.isfinite(own)
    impossible = np.flatnonzero(~possible)
    given = tokens, log_prob_unprompted, path_entropy, kept
    vectors = [_vector(name, one, count) for name, one in zip(_RULES, given, strict=True)]
    if len(impossible) and (not leave_out_impossible or not possible.any()):
        raise ValueError(
            "Expected every output to be possible under its own prompt; got log-probability −∞ in "
            f"{_listed(impossible)}: it was not drawn from this distribution, as of a text outside "
            "its nucleus (leave_out_impossible=True goes on without)"
        )
    chosen = [None if one is None else torch.as_tensor(one[possible]) for one in vectors]
    of_tokens, unprompted, entropies, was_kept = chosen
    return LogProbabilities(
        own=torch.as_tensor(own[possible]),
        prompt=torch.as_tensor(own_prompt[possible]),
        log_prob=torch.as_tensor(matrix[possible]),
        columns=None if columns is None else torch.as_tensor(columns[possible]),
        prompts=prompts,
        tokens=of_tokens,
        unprompted=None if unprompted is None else unprompted.clamp_max(0.0),
        path_entropy=entropies,
        kept=None if was_kept is None else was_kept.bool(),
        rows=torch.as_tensor(np.flatnonzero(possible)),
        prompt_names=prompt_names,
        output_names=None
        if output_names is None
        else tuple(name for name, there in zip(output_names, possible, strict=True) if there),
        impossible=tuple(impossible.tolist()),
    )


def _layout(
    values: np.ndarray, own_prompt: np.ndarray, others: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, int]:
    """Under the own prompt, by column, the prompts of the columns, and the number of prompts."""
    count = len(values)
    if values.ndim == 1:
        if others is not None:
            raise ValueError(
                "Expected log_prob of shape (outputs, 1 + M) beside `others`; got one number an "
                "output"
            )
        none = np.empty((count, 0))
        return values, none, none.astype(np.int64), int(own_prompt.max()) + 1
    if others is None:
        prompts = values.shape[1]
        _refuse(
            "prompt",
            own_prompt,
            own_prompt >= prompts,
            f"prompt of at most {prompts - 1}, as log_prob has {prompts} prompts (counted from 0)",
        )
        return values[np.arange(count), own_prompt], values, None, prompts
    named = numbers("others", others)
    if named.ndim != 2 or len(named) != count or named.shape[1] + 1 != values.shape[1]:
        raise ValueError(
            "Expected `others` of shape (outputs, M) beside log_prob of shape (outputs, 1 + M), "
            f"the own prompt first; got {named.shape} beside {values.shape}"
        )
    index = _indices("others", named, named.shape)
    _refuse("others", named, index == own_prompt[:, None], "other prompts than the output's own")
    ordered = np.sort(index, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
    if twice.any():
        raise ValueError(
            f"Expected other prompts that differ; got one twice in row {int(twice.argmax())} of "
            "others"
        )
    prompts = int(max(own_prompt.max(), index.max(initial=0))) + 1
    return values[:, 0], values[:, 1:], index, prompts


def _vector(name: str, given: Any, count: int) -> np.ndarray | None:
    if given is None:
        return None
    values, (wrong, expected) = numbers(name, given), _RULES[name]
    if values.shape != (count,):
        raise ValueError(f"Expected {name} of shape ({count},), one per output; got {values.shape}")
    _refuse(name, values, wrong(values), f"{expected} in {name}")
    return values


def _indices(name: str, given: Any, shape: tuple[int, ...]) -> np.ndarray:
    values = numbers(name, given)
    if values.shape != shape:
        raise ValueError(f"Expected {name} of shape {shape}; got {values.shape}")
    whole = (values >= 0) & (values % 1 == 0) & (values < 2**53)
    _refuse(name, values, ~whole, f"indices from 0 in {name}")
    return values.astype(np.int64)


def _refuse(
    name: str, values: np.ndarray, wrong: np.ndarray, expected: str, hint: str = ""
) -> None:
    """One line with the first place that is wrong, and how many more there are."""
    if not wrong.any():
        return
    place = np.argwhere(wrong)[0].tolist()
    where = f"row {place[0]}" + (f", column {place[1]}" if len(place) > 1 else "")
    more = int(wrong.sum()) - 1
    raise ValueError(
        f"Expected {expected}; got {values[tuple(place)]:g} in {where} of {name}"
        + (f" and {more} more" if more else "")
        + hint
    )


def _listed(rows: np.ndarray) -> str:
    first = ", ".join(map(str, rows[:5].tolist()))
    return f"row{'s' * (len(rows) > 1)} {first}" + (
        f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    )
