"""The distribution that a sampler draws the next token from: temperature, top-k, then top-p.

In the order in which vLLM and transformers apply them. Where the sampler cuts tokens off, an output
that has one of them was not drawn from it, and its log-probability is −∞.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rbpp.channel.score_settings import Sampler

# The nucleus is looked for among so many tokens first: a sort of all of a vocabulary is slow.
_MOST_LIKELY = 256


def token_log_prob(logits: Tensor, tokens: Tensor, sampler: Sampler) -> tuple[Tensor, Tensor]:
    """Log-probability of every token, and entropy of the distribution it was drawn from.

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
