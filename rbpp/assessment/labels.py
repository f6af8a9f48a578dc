"""Which labels of a set are wrong, with probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rbpp.assessment import label_score

_TEMPERATURES = tuple(float(t) for t in np.geomspace(0.2, 5.0, 25))
_RATES = tuple(float(r) for r in np.concatenate([[0.0], np.geomspace(0.002, 0.6, 30)]))


@dataclass(frozen=True)
class LabelFindings:
    """Labels of one set.

    Attributes:
        probability_wrong: of each row, (n,).
        suggested: the likeliest label of each row, (n,) whole numbers.
        share_wrong: estimated share of wrong labels in the set.
        counts: rows of each label, (K,).
    """

    probability_wrong: np.ndarray
    suggested: np.ndarray
    share_wrong: float
    counts: np.ndarray


def wrong_labels(
    rows: Tensor,
    labels: Tensor,
    classes: int,
    real: Tensor | None = None,
    real_labels: Tensor | None = None,
    seed: int = 0,
) -> LabelFindings:
    """The probability that each row's label is wrong.

    The label of a row is predicted from other rows: from real rows with labels (whole numbers, or
    probabilities as of a consensus) where they are given, else from the rest of the set, in five
    folds. With prediction p, temperature T and a share r of labels that are uniformly another one,

        P(y | x) = (1 − r) p_T(y | x) + r (1 − p_T(y | x)) / (K − 1);

    T and r are those of largest likelihood on the set's own labels, and the probability that y is
    wrong is the second term's part.

    Raises:
        ValueError: on fewer than 10 rows to learn from.
    """
    if real is None or real_labels is None:
        if len(rows) < 10:
            raise ValueError(f"Expected at least 10 rows to learn labels from; got {len(rows)}")
        log_p = label_score.learned_from_rest(rows, labels, classes, seed)
    else:
        if len(real) < 10:
            raise ValueError(f"Expected at least 10 rows to learn labels from; got {len(real)}")
        log_p = label_score.log_probabilities(real, real_labels, rows, classes, origin=real.mean(0))
    probability, rate = probability_wrong(log_p, labels)
    return LabelFindings(
        probability_wrong=probability.numpy(),
        suggested=log_p.argmax(1).numpy(),
        share_wrong=rate,
        counts=np.bincount(labels.numpy(), minlength=classes),
    )


def probability_wrong(log_p: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """Probability that each label is wrong given predictions, (n,), and the share of wrong ones.

    Args:
        log_p: (n, K) log-probabilities; their sharpness does not matter.
        labels: (n,) whole numbers.
    """
    classes = log_p.shape[1]
    rates = torch.tensor(_RATES, dtype=log_p.dtype)[:, None]
    best = (-float("inf"), 1.0, 0.0)
    for temperature in _TEMPERATURES:
        own = (log_p / temperature).softmax(1).gather(1, labels[:, None])[:, 0]
        likelihood = (1 - rates) * own + rates * (1 - own) / (classes - 1)
        total = likelihood.clamp(min=1e-12).log().sum(1)
        value, place = total.max(0)
        best = max(best, (float(value), temperature, _RATES[int(place)]))
    _, temperature, rate = best
    own = (log_p / temperature).softmax(1).gather(1, labels[:, None])[:, 0]
    wrong = rate * (1 - own) / (classes - 1)
    return wrong / (wrong + (1 - rate) * own).clamp(min=1e-12), rate
