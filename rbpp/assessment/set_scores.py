"""The score of one set as it is and at equal size, and how much each of its rows decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rbpp.randomness import spawn

# What real rows score when only some rows of a set, with these weights, are learned from.
Learn = Callable[[Tensor, Tensor], Tensor]
_SUBSETS = 8


@dataclass(frozen=True)
class SetScore:
    """What one set teaches about real rows.

    Attributes:
        values: score of each real row, (m,), nats.
        influence: derivative of the set's score by the weight of each of its rows, (n,), less its
            mean: what the row adds.
        equal_values: `values` of random subsets of the equal size, averaged, (m,).
        equal_sd: how much the score of that many new rows of the set's distribution would vary,
            and how much the distribution itself is uncertain.
        size: rows of the subsets.
        sd: how much the score varies with the choice of the set's rows, or of their units.
    """

    values: np.ndarray
    influence: np.ndarray
    equal_values: np.ndarray
    equal_sd: float
    size: int
    sd: float


def score_set(
    learn: Learn,
    count: int,
    size: int,
    real_weights: np.ndarray,
    units: np.ndarray | None = None,
    seed: int = 0,
) -> SetScore:
    """Score a set of `count` rows as it is and from random subsets of `size` rows.

    The Bayesian bootstrap of the score is taken to first order in the weights of the rows: a refit
    for each draw would cost a Cholesky factor each. The spread is that of refits where the set is
    off (tested), and down to √(2/3) of it where the set is perfect and second-order terms count;
    there the choice of the real rows has the larger part.

    Args:
        learn: from row numbers and weights to scores of the real rows, (m,).
        count: rows of the set.
        size: rows of the subsets; a smaller set is used whole.
        real_weights: (m,) of the real rows, with sum 1.
        units: (n,) whole numbers: rows of one unit are drawn together.
        seed: of the subsets.
    """
    average = torch.as_tensor(real_weights)
    values, influence = _influence(learn, torch.arange(count), average)
    spread = _spread(influence, units)
    size = min(size, count)
    found, variance, few = [values], [spread**2], 0.0
    if size < count:
        found, variance, few = [], [], 1 / _SUBSETS
        source = np.random.default_rng(spawn(seed, "subsets"))
        for _ in range(_SUBSETS):
            index = np.sort(source.choice(count, size, replace=False))
            part, part_influence = _influence(learn, torch.as_tensor(index), average)
            found.append(part)
            variance.append(_spread(part_influence, None if units is None else units[index]) ** 2)
    return SetScore(
        values=values,
        influence=influence,
        equal_values=np.mean(found, 0),
        equal_sd=float(np.sqrt(np.mean(variance) * (1 + size / count + few))),
        size=size,
        sd=spread,
    )


def set_draws(
    score: SetScore, units: np.ndarray | None, draws: int, generator: np.random.Generator
) -> np.ndarray:
    """Bayesian-bootstrap draws of what the choice of the set's rows adds to its score, (draws,)."""
    summed = _by_unit(score.influence, units)
    result = np.empty(draws)
    for start in range(0, draws, 200):  # weights of all draws at once would be draws × rows
        weights = generator.exponential(size=(min(200, draws - start), len(summed)))
        weights /= weights.mean(1, keepdims=True)
        result[start : start + 200] = (weights - 1) @ summed
    return result


def _influence(learn: Learn, index: Tensor, average: Tensor) -> tuple[np.ndarray, np.ndarray]:
    weights = torch.ones(len(index), dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        values = learn(index, weights)
        (gradient,) = torch.autograd.grad(values @ average, weights)
    if not bool(torch.isfinite(values.detach()).all()):
        raise ValueError("Expected finite scores of real rows; got rows too large or too alike")
    return values.detach().numpy(), (gradient - gradient.mean()).numpy()


def _spread(influence: np.ndarray, units: np.ndarray | None) -> float:
    return float(np.sqrt(np.square(_by_unit(influence, units)).sum()))


def _by_unit(influence: np.ndarray, units: np.ndarray | None) -> np.ndarray:
    return influence if units is None else np.bincount(units, weights=influence)
