"""Rows of tokens that a language model writes after a context, with their exact probabilities.

Any callable from tokens to logits serves as the language model: tokens (rows, T), a `torch.long`
tensor, to logits (rows, T, V) of the token that follows each.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

LanguageModel = Callable[[Tensor], Tensor]
# Tokens of one call of a language model: what a small network does to them stays in the cache.
_TOKENS_AT_ONCE = 2**15


class _Rows(TorchDistribution):
    arg_constraints: ClassVar[dict[str, Any]] = {}

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        """The same for every place of a batch; nothing is copied."""
        expanded = copy.copy(self)
        expanded._batch_shape = torch.Size(batch_shape)
        return expanded


class TokenRows(_Rows):
    """Rows of `length` tokens after `context`, drawn with temperature and top-p.

    log p(row | context) = Σ_t log q(row_t | context, row_<t), where q is the softmax of the logits
    over the temperature, cut to its nucleus. A token outside the nucleus has probability zero.

    Args:
        logits: the language model. Its first `letters` logits are those of letters; others, of a
            separator say, cannot be generated.
        context: tokens (…, P), at least one; a row is drawn for each.
        letters: number of tokens that a row can have.
        length: tokens of a row.
        temperature: above 0.
        top_p: mass of the nucleus (Holtzman et al. 2020), in (0, 1]; 1 keeps every token.

    >>> rows = TokenRows(lambda tokens: torch.zeros(*tokens.shape, 3), torch.zeros(1).long(), 3, 2)
    >>> round(rows.log_prob(torch.tensor([0, 2])).exp().item(), 4)  # 1 of 9
    0.1111
    """

    has_enumerate_support = False

    def __init__(
        self,
        logits: LanguageModel,
        context: Tensor,
        letters: int,
        length: int,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> None:
        if temperature <= 0 or not 0 < top_p <= 1:
            raise ValueError(
                f"Expected temperature above 0 and top_p in (0, 1]; got {temperature} and {top_p}"
            )
        self.logits, self.context = logits, context
        self.letters, self.temperature, self.top_p = letters, temperature, top_p
        super().__init__(context.shape[:-1], torch.Size((length,)), validate_args=False)

    @property
    def support(self) -> Any:
        """Rows of letters."""
        return constraints.independent(constraints.integer_interval(0, self.letters - 1), 1)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's own)
        """Rows, token by token, from torch's global generator."""
        batch = (*sample_shape, *self.batch_shape)
        width = self.context.shape[-1]
        rows = self.context.expand(*batch, width).reshape(-1, width)
        for _ in range(self.event_shape[0]):
            last = torch.cat([self._log_softmax(part, 1) for part in self._parts(rows)])
            try:
                following = torch.multinomial(last.squeeze(-2).exp(), 1)
            except RuntimeError as error:
                raise ValueError(
                    f"Expected finite logits of the language model; got others ({error})"
                ) from error
            rows = torch.cat([rows, following], -1)
        return rows[:, width:].reshape(*batch, -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(row | context) in nats, −∞ where a token lies outside the nucleus."""
        return self.token_log_prob(value).sum(-1)

    def token_log_prob(self, value: Tensor) -> Tensor:
        """log p of every token given those before it: (…, length)."""
        batch = torch.broadcast_shapes(self.context.shape[:-1], value.shape[:-1])
        width, length = self.context.shape[-1], self.event_shape[0]
        context = self.context.expand(*batch, width).reshape(-1, width)
        rows = value.long().expand(*batch, length).reshape(-1, length)
        read = torch.cat([context, rows[:, :-1]], -1)
        found = torch.cat([self._log_softmax(part, length) for part in self._parts(read)])
        chosen = found.gather(-1, rows.unsqueeze(-1)).squeeze(-1).reshape(*batch, length)
        shape = torch.broadcast_shapes(chosen.shape[:-1], self.batch_shape)
        return chosen.expand(*shape, length)

    def _parts(self, rows: Tensor) -> tuple[Tensor, ...]:
        return rows.split(max(1, _TOKENS_AT_ONCE // rows.shape[-1]))

    def _log_softmax(self, rows: Tensor, last: int) -> Tensor:
        """Log probabilities after each of the last positions, (rows, last, letters), float64."""
        logits = self.logits(rows)[:, -last:, : self.letters].double()
        found = (logits / self.temperature).log_softmax(-1)
        if self.top_p == 1:
            return found
        ordered, index = found.sort(-1, descending=True)
        before = ordered.exp().cumsum(-1) - ordered.exp()
        kept = torch.zeros_like(found, dtype=torch.bool).scatter(-1, index, before < self.top_p)
        return found.masked_fill(~kept, -torch.inf).log_softmax(-1)


class FilteredRows(_Rows):
    """A row as it is where a filter keeps it, else a row that a curator writes in its place.

    Args:
        rows: tokens (…, L).
        kept: whether each is kept, (…).
        rewritten: distribution of a row in place of one that is not kept, the same for all.
    """

    def __init__(self, rows: Tensor, kept: Tensor, rewritten: TokenRows) -> None:
        self.rows, self.kept, self.rewritten = rows, kept, rewritten
        super().__init__(rows.shape[:-1], rows.shape[-1:], validate_args=False)

    @property
    def support(self) -> Any:
        """Rows of letters."""
        return self.rewritten.support

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's own)
        """Kept rows, and rows of the curator."""
        shape = (*sample_shape, *self.batch_shape)
        written = self.rewritten.expand(shape).sample()
        return torch.where(self.kept.unsqueeze(-1), self.rows, written)

    def log_prob(self, value: Tensor) -> Tensor:
        """Zero for the kept row itself, −∞ for another; the curator's log p where none is kept."""
        same = (value == self.rows).all(-1)
        impossible = torch.zeros((), dtype=torch.float64).log()
        itself = torch.where(same, 0.0, impossible)
        found = torch.where(self.kept, itself, self.rewritten.log_prob(value))
        return found.expand(torch.broadcast_shapes(found.shape, self.batch_shape))
