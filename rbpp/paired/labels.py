"""Mutual information of two columns of labels, classes or counts, with a Dirichlet posterior.

The joint probabilities have the prior Dirichlet(c · p_x ⊗ p_y), around independence at the margins
as seen. How strongly, c, has a posterior of its own on a grid: for tables that look independent it
is large, and the information near zero; for dependent ones it is small, and the prior does nothing.

Good, The Estimation of Probabilities, MIT Press (1965), chapter 5.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from rbpp.data.arrays import as_numpy
from rbpp.internals import standard_gamma
from rbpp.randomness import generator

# Whole numbers of at most so many values, each in this many rows on average, are classes.
_MOST_CLASSES, _LEAST_PER_CLASS = 100, 5
_LEAST, _MOST, _GRID = 1e-1, 1e6, 57
# Beside measurements, numbers of fewer values are classes; more, equally spaced, are rounded.
FEWEST_VALUES = 20


def labels_of(values: Any) -> np.ndarray:
    """A column of labels (n,)."""
    return as_numpy(values).reshape(-1)


def is_labels(values: Any) -> bool:
    """Whether one column of strings, booleans or repeated whole numbers: classes or counts."""
    try:
        array = as_numpy(values)
    except ValueError:  # ragged: refused by name where rows are read
        return False
    if array.ndim not in (1, 2) or array.size != len(array) or not array.size:
        return False
    if array.dtype.kind in "bUS":
        return True
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all() or (array % 1).any():
        return False
    classes = len(np.unique(array))
    return 1 < classes <= _MOST_CLASSES and classes * _LEAST_PER_CLASS <= len(array)


def is_classes(values: Any) -> bool:
    """Whether labels that no column of measurements is mistaken for: strings, or few numbers.

    >>> is_classes(["a", "b"] * 20), is_classes(np.arange(300) % 30), is_classes(np.arange(300) % 3)
    (True, False, True)
    """
    if not is_labels(values):
        return False
    array = labels_of(values)
    return array.dtype.kind in "bUS" or len(np.unique(array)) < FEWEST_VALUES


def label_information(x: np.ndarray, y: np.ndarray, draws: int, seed: int) -> Tensor:
    """Posterior draws (draw,) of I(X; Y) in nats.

    Args:
        x, y: labels (n,), of any type that can be sorted.
        draws: number of draws.
        seed: of the draws.

    >>> x = np.arange(400) % 4
    >>> bool(1.3 < label_information(x, x, 100, 0).mean() < np.log(4))
    True
    """
    first = np.unique(x, return_inverse=True)[1].ravel()
    second = np.unique(y, return_inverse=True)[1].ravel()
    counts = torch.zeros(int(first.max()) + 1, int(second.max()) + 1, dtype=torch.float64)
    counts.index_put_(
        (torch.as_tensor(first), torch.as_tensor(second)),
        torch.ones(len(first), dtype=torch.float64),
        accumulate=True,
    )
    share = counts / counts.sum()
    independent = share.sum(1, keepdim=True) * share.sum(0, keepdim=True)
    strength = torch.logspace(
        float(np.log10(_LEAST)), float(np.log10(_MOST)), _GRID, dtype=torch.float64
    )
    prior = strength[:, None, None] * independent
    evidence = (
        strength.lgamma()
        - (strength + counts.sum()).lgamma()
        + ((prior + counts).lgamma() - prior.lgamma()).sum((-2, -1))
    )
    source = generator(seed)
    chosen = torch.multinomial(evidence.softmax(0), draws, replacement=True, generator=source)
    gamma = standard_gamma(prior[chosen] + counts, generator=source)
    joint = gamma / gamma.sum((-2, -1), keepdim=True)
    entropy = torch.special.entr
    # A draw's entropy is below that of the shares by (cells − 1) / 2n on average, and that of the
    # shares below the truth by as much: of many classes, of few joint cells, both margins' are. The
    # opposite, a joint table of many cells, is what the prior corrects.
    total = counts.sum()
    cells = max(0, len(counts) + counts.shape[1] - 1 - int((counts > 0).sum()))
    correction = cells / total * (total / (total + strength[chosen])).square()
    return (
        correction
        + entropy(joint.sum(-1)).sum(-1)
        + entropy(joint.sum(-2)).sum(-1)
        - entropy(joint).sum((-2, -1))
    ).clamp_min(0)
