"""A learner with finitely many values: W | S by a table, the learner of finite chains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rbpp.theory.learners import Learner, PreparedLearner, no_loss


def finite_learner(
    letters: int, noise: float = 0.1, *, channel: Callable[[Tensor], Tensor] | None = None
) -> Learner:
    """W is one of finitely many values, W | S by a table: the learner of finite chains.

    By default it predicts the next letter: the most frequent letter of the rows (the smallest of
    equals), replaced by a uniform one with probability `noise`; its loss is that of a wrong letter.

    Args:
        letters: number of values of W, and of letters where `channel` is not given.
        noise: probability of replacement, in (0, 1].
        channel: from data sets (…, n, d) to the probabilities of W (…, letters).
    """
    if letters < 1 or not 0 < noise <= 1:
        raise ValueError(f"Expected letters ≥ 1 and noise in (0, 1]; got {letters} and {noise}")

    def most_frequent(data: Tensor) -> Tensor:
        counts = torch.nn.functional.one_hot(_letters(data), letters).sum(-2)
        chosen = torch.nn.functional.one_hot(counts.argmax(-1), letters).double()
        return (1 - noise) * chosen + noise / letters

    def wrong_letter(parameters: Tensor, rows: Tensor) -> Tensor:
        return (_letters(rows) != parameters.unsqueeze(-1)).double()

    def prepare(pilot: Tensor, generator: torch.Generator) -> PreparedLearner:
        table = channel or most_frequent
        return PreparedLearner(
            lambda data: _FinitePosterior(table(data)), no_loss if channel else wrong_letter
        )

    what = "given table" if channel else f"most frequent letter, replaced with probability {noise}"
    return Learner("finite", what, prepare)


@dataclass(frozen=True)
class _FinitePosterior:
    probabilities: Tensor

    def select(self, index: Any) -> _FinitePosterior:
        return _FinitePosterior(self.probabilities[..., index, :])

    def grouped(self, groups: int) -> _FinitePosterior:
        return _FinitePosterior(self.probabilities.unflatten(1, (groups, -1)))

    def critic(self, parameters: Tensor, members: Tensor) -> Tensor:
        fitted = _FinitePosterior(self.probabilities[..., members, :].mean(-2))
        return fitted.cross_log_prob(parameters)[0]

    def draw(self, generator: torch.Generator) -> Tensor:
        flat = self.probabilities.flatten(0, -2)
        chosen = torch.multinomial(flat, 1, generator=generator)
        return chosen.reshape(self.probabilities.shape[:-1])

    def cross_log_prob(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        table = self.probabilities.log().mT  # (…, W, R_S)
        index = parameters.unsqueeze(-1).expand(*parameters.shape, table.shape[-1])
        value = table.gather(-2, index)
        return value, value

    def divergence(self, others: _FinitePosterior) -> Tensor:
        mean = others.probabilities.mean(-2, keepdim=True)
        ratio = torch.special.xlogy(self.probabilities, self.probabilities)
        return (ratio - torch.special.xlogy(self.probabilities, mean)).sum(-1)


def _letters(data: Tensor) -> Tensor:
    """Rows of one letter each, (…, n, 1), as integers (…, n)."""
    if data.shape[-1] != 1:
        raise ValueError(f"Expected rows of one letter; got rows of {data.shape[-1]} numbers")
    return data.squeeze(-1).long()
