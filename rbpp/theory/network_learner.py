"""A small network that learns to predict the next token: the learner of rows of tokens."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rbpp import validate
from rbpp.theory.learners import Learner, PreparedLearner, noisy_point

_HIDDEN = 3
_PILOT_STEPS, _STEPS = 200, 50
_RATE = 0.5
_SMOOTHING = 0.1  # share of the uniform distribution in a prediction: the loss is bounded by it


def network_learner(letters: int, noise: float = 0.1) -> Learner:
    """W is the weights of a network, trained on the rows, plus Gaussian noise of scale τ.

        p(next = k | last = j) = 0.9 softmax(V tanh(E_j))_k + 0.1 / letters

    with three hidden units; the start of a row is a token of its own. Training is gradient descent
    on the mean loss for a fixed number of steps from what was learned from the pilot rows, so that
    the weights are a function of the rows. The loss is −log p a token, over its largest value
    log(letters / 0.1), and so in [0, 1].

    Args:
        letters: number of tokens.
        noise: τ, above 0: without noise I(S; W) is infinite.

    Raises:
        ValueError: if there are fewer than two letters, or the noise is not above 0.
    """
    validate.count("letters", letters, 2)
    validate.number("noise", noise, above=0)
    scale = torch.tensor(noise, dtype=torch.float64)

    def prepare(pilot: Tensor, generator: torch.Generator) -> PreparedLearner:
        size = (2 * letters + 1) * _HIDDEN
        first = torch.randn(
            size, generator=generator, dtype=torch.float64, device=generator.device
        ) / math.sqrt(_HIDDEN)
        start = _trained(first, _transitions(pilot, letters), letters, _PILOT_STEPS).unsqueeze(1)

        def estimate(data: Tensor) -> Tensor:
            return _trained(start, _transitions(data, letters), letters, _STEPS)

        def loss(parameters: Tensor, rows: Tensor) -> Tensor:
            return _losses(parameters, rows, letters)

        return noisy_point(scale, estimate, loss)

    what = f"weights of a network of {_HIDDEN} hidden units for the next token"
    return Learner("network", f"{what}, plus Gaussian noise of scale {noise}", prepare)


def _pairs(rows: Tensor, letters: int) -> Tensor:
    """Which token follows which, as one number, of all places of rows (…, n, L): (…, n · L)."""
    tokens = rows.long()
    before = torch.cat([torch.full_like(tokens[..., :1], letters), tokens[..., :-1]], -1)
    return (before * letters + tokens).flatten(-2)


def _transitions(rows: Tensor, letters: int) -> Tensor:
    """How often each token follows each, a row's start being the last: (…, q + 1, q)."""
    pair = _pairs(rows, letters)
    counts = torch.zeros(
        *pair.shape[:-1], (letters + 1) * letters, dtype=torch.float64, device=rows.device
    )
    counts.scatter_add_(-1, pair, torch.ones_like(pair, dtype=torch.float64))
    return counts.unflatten(-1, (letters + 1, letters))


def _parts(parameters: Tensor, letters: int) -> tuple[Tensor, Tensor]:
    """Weights E (…, letters + 1, hidden) and V (…, hidden, letters)."""
    first = (letters + 1) * _HIDDEN
    return (
        parameters[..., :first].unflatten(-1, (letters + 1, _HIDDEN)),
        parameters[..., first:].unflatten(-1, (_HIDDEN, letters)),
    )


def _trained(start: Tensor, counts: Tensor, letters: int, steps: int) -> Tensor:
    """Weights after gradient descent on the cross-entropy of these transitions."""
    share = counts / counts.sum((-1, -2), keepdim=True)
    from_each = share.sum(-1, keepdim=True)
    parameters = start.expand(*counts.shape[:-2], -1)
    for _ in range(steps):
        inner, outer = _parts(parameters, letters)
        hidden = torch.tanh(inner)
        error = from_each * (hidden @ outer).softmax(-1) - share
        slope = (error @ outer.mT) * (1 - hidden.square())
        gradient = torch.cat([slope.flatten(-2), (hidden.mT @ error).flatten(-2)], -1)
        parameters = parameters - _RATE * gradient
    return parameters


def _losses(parameters: Tensor, rows: Tensor, letters: int) -> Tensor:
    """Loss in [0, 1] of W (…, q) on rows (…, n, L): (…, n)."""
    inner, outer = _parts(parameters, letters)
    predicted = (torch.tanh(inner) @ outer).softmax(-1)
    smooth = (1 - _SMOOTHING) * predicted + _SMOOTHING / letters
    pair = _pairs(rows, letters)
    each = -smooth.log().flatten(-2).gather(-1, pair).unflatten(-1, rows.shape[-2:])
    return each.mean(-1) / math.log(letters / _SMOOTHING)
