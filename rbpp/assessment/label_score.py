"""What the labels of one set teach about those of real rows, and which labels are wrong.

The classes of a set are Gaussians with one covariance, which a prior of isotropic rows shrinks in
the embedding as it is. Weak shrinkage, or axes whitened by the real rows, give weight to directions
without meaning in sets of a few hundred rows, and rank worse. Such a learner is surer than it
should be, the more so the cleaner its labels: without a temperature, wrong labels win where classes
overlap.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Prior rows of the covariance where real rows have labels, and where the votes of the other sets
# stand in for them: what ranks five tasks best, each left out (docs/measurements/ranking.md).
PRIOR_ROWS, PRIOR_ROWS_OF_VOTES = 10_000.0, 3000.0
# Prior rows of a class mean at least; the set itself says how many there are.
LEAST_ROWS_OF_MEAN = 2.0
TEMPERATURES = np.geomspace(0.5, 32.0, 31)
# Of predictions of a set's own labels, and shares of them that are wrong.
_TEMPERATURES = tuple(float(t) for t in np.geomspace(0.2, 5.0, 25))
_RATES = tuple(float(r) for r in np.concatenate([[0.0], np.geomspace(0.002, 0.6, 30)]))
# No real row costs more nats than this; a label that the set lacks costs it.
FLOOR = -10.0
# The mean of shrunk predictions is flatter than what the sets know together. Raised to this power
# it does not reward a set for being flat itself. 2, 4 and 8 rank real sets alike.
_SHARPNESS = 4.0
# An identifier is no label: more labels than this share of the rows are refused.
_MOST_LABELS = 0.5


def log_probabilities(
    rows: Tensor,
    labels: Tensor,
    real: Tensor,
    classes: int,
    weights: Tensor | None = None,
    origin: Tensor | None = None,
    scale: Tensor | None = None,
    *,
    prior_rows: float = PRIOR_ROWS,
    temperature: float = 1.0,
) -> Tensor:
    """log p(label | text) of real rows, learned from one set; nats, at least `FLOOR`.

    With n rows, n_c of class c, means z̄ and z̄_c, scatter S within the classes, K classes and s
    prior rows, the plug-in limit of the normal–inverse-Wishart posterior predictive is

        m_c = n_c / (n_c + κ) · (z̄_c − z̄)
        W   = (S + s τ² I) / (n − K + s)
        log p(c | x) = log softmax_c [ (xᵀW⁻¹m_c − ½ m_cᵀW⁻¹m_c + log (n_c + ½)/(n + K/2)) / T ].

    A shift of the whole set is no fault of its labels: class means are taken from the set's mean.
    κ = σ²/ρ is empirical Bayes: class means vary by ρ around it in each direction, rows by σ²
    around them, and Σ_c n_c |z̄_c − z̄|² has the mean d ((K − 1) σ² + ρ Σ_c n_c (1 − n_c/n)).

    Args:
        rows: embeddings of the set, (n, d), float64.
        labels: (n,) whole numbers below `classes`, or their probabilities (n, K).
        real: embeddings of real rows, (m, d).
        classes: number of labels K.
        weights: (n,) of the rows; one each by default.
        origin: where x is 0, (d,); by default the mean of the real rows.
        scale: τ², by default the mean of |x|²/d over the real rows.
        prior_rows: s.
        temperature: T, the same for all sets (`fitted_temperature`).

    Returns:
        (m, K).
    """
    found = _logits(rows, labels, real, classes, weights, origin, scale, prior_rows)
    return _normalised(found, temperature)


def _normalised(logits: Tensor, temperature: float = 1.0) -> Tensor:
    return (logits / temperature).log_softmax(1).clamp(min=FLOOR)


def _logits(
    rows: Tensor,
    labels: Tensor,
    real: Tensor,
    classes: int,
    weights: Tensor | None,
    origin: Tensor | None,
    scale: Tensor | None,
    prior_rows: float,
) -> Tensor:
    origin = real.mean(0) if origin is None else origin
    rows, real = rows - origin, real - origin
    width = rows.shape[1]
    if scale is None:
        scale = real.square().sum(1).mean() / width
    if weights is None:
        weights = rows.new_ones(len(rows))
    member = labels if labels.dim() == 2 else torch.nn.functional.one_hot(labels, classes)
    member = member.to(rows) * weights[:, None]
    counts, total = member.sum(0), weights.sum()
    present = counts > 0
    centre = weights @ rows / total
    # The scatter within is that around the centre less that between the means.
    left = rows - centre
    sums = member.T @ left
    offset = sums / counts.clamp(min=1e-12)[:, None]
    scatter = (left * weights[:, None]).T @ left - offset.T @ sums
    others = int(present.sum()) - 1
    within = scatter.diagonal().sum() / width / (total - others - 1).clamp(min=1)
    apart = (counts * offset.square().sum(1)).sum() - others * width * within
    between = apart / (width * (counts * (1 - counts / total)).sum()).clamp(min=1e-12)
    prior_of_mean = (within / between.clamp(min=1e-9)).clamp(min=LEAST_ROWS_OF_MEAN)
    shrunk = (counts / (counts + prior_of_mean))[:, None] * offset
    prior = prior_rows * scale * torch.eye(width, dtype=rows.dtype)
    # Fewer rows than labels would subtract more than there is.
    freedom = (total - classes).clamp(min=0) + prior_rows
    slopes = torch.cholesky_solve(shrunk.T, torch.linalg.cholesky((scatter + prior) / freedom))
    offsets = ((counts + 0.5) / (total + classes / 2)).log() - 0.5 * (shrunk.T * slopes).sum(0)
    return torch.where(present, real @ slopes + offsets, -torch.inf)


def fitted_temperature(
    real: Tensor, labels: Tensor, classes: int, prior_rows: float = PRIOR_ROWS
) -> float:
    """T at which real rows predict each other's labels best, of `TEMPERATURES`.

    Args:
        real: real rows with labels, (m, d).
        labels: (m,) whole numbers.
        classes: number of labels K.
        prior_rows: s.
    """
    logits = _cross_fitted(real, labels, classes, prior_rows)
    found = [
        float(_normalised(logits, one).gather(1, labels[:, None]).mean()) for one in TEMPERATURES
    ]
    return float(TEMPERATURES[int(np.argmax(found))])


def _cross_fitted(
    real: Tensor, labels: Tensor, classes: int, prior_rows: float, seed: int = 0
) -> Tensor:
    found = real.new_zeros(len(real), classes)
    # Origin and scale are those of all real rows: they tell nothing of a label.
    origin = real.mean(0)
    scale = (real - origin).square().sum(1).mean() / real.shape[1]
    for inside, outside in folds(len(real), np.random.default_rng(seed)):
        if len(inside) and len(outside):
            found[inside] = _logits(
                real[outside], labels[outside], real[inside], classes, None, origin, scale,
                prior_rows,
            )  # fmt: skip
    return found


def folds(
    count: int, generator: np.random.Generator, size: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places of each fifth of the rows, and of at most `size` of the others, to learn from."""
    fold = generator.permutation(count) % 5
    for place in range(5):
        yield (
            np.flatnonzero(fold == place),
            generator.permutation(np.flatnonzero(fold != place))[:size],
        )


def row_scores(log_p: Tensor, target: Tensor) -> Tensor:
    """Σ_c t(c | x) log p(c | x) of each real row, (m,): minus its log-loss in nats."""
    return (target * log_p).sum(1)


def consensus(predictions: Sequence[Tensor], voters: Sequence[Any]) -> Tensor:
    """The label of real rows that the sets agree on, (m, K).

    It is proportional to the fourth power of the voters' mean prediction; a voter's prediction is
    the mean of those of its sets.

    Args:
        predictions: log p(label | text) of each set, (m, K).
        voters: whose vote each set casts, such as its generator; sets of one voter share one vote.
    """
    votes = _votes(predictions, voters).mean(0) ** _SHARPNESS
    return votes / votes.sum(1, keepdim=True)


def agreement(predictions: Sequence[Tensor], voters: Sequence[Any]) -> float:
    """Fleiss' kappa of the voters' likeliest labels: 1 if they are the same, 0 as if by chance.

    nan where there is one voter only, or one label in all votes.
    """
    chosen = _votes(predictions, voters).argmax(2)
    count = len(chosen)
    table = torch.nn.functional.one_hot(chosen, predictions[0].shape[1]).double().sum(0)
    if count < 2:
        return math.nan
    seen = float(((table.square().sum(1) - count) / (count * (count - 1))).mean())
    chance = float((table.sum(0) / table.sum()).square().sum())
    return (seen - chance) / (1 - chance) if chance < 1 else math.nan


def _votes(predictions: Sequence[Tensor], voters: Sequence[Any]) -> Tensor:
    """Mean prediction of each voter, (voters, m, K)."""
    groups: dict[Any, list[Tensor]] = {}
    for log_p, voter in zip(predictions, voters, strict=True):
        groups.setdefault(voter, []).append(log_p.exp())
    return torch.stack([torch.stack(group).mean(0) for group in groups.values()])


def encode_labels(
    sets: Mapping[str, Any], real: Any, known: Sequence[str] | None = None
) -> tuple[list[np.ndarray], np.ndarray | None, list[str]]:
    """Labels of sets by name as whole numbers, of the real rows too, and the labels' names.

    1, 1.0 and "1" are one label. A missing label (None, nan, "") is −1. `known` are all names that
    there may be, in their order; without it they are those that occur, sorted.

    Raises:
        ValueError: if there is one label only, no label is shared between the sets and the real
            rows, or there are so many labels that they must be an identifier.
    """
    made = {f"set {name!r}": _spelled(one) for name, one in sets.items()}
    everything = made if real is None else {**made, "the real rows": _spelled(real)}
    labels = {who: [name for name in one if name] for who, one in everything.items()}
    occurring = set().union(*labels.values())
    names = sorted(occurring) if known is None else list(known)
    if new := occurring - set(names):
        raise ValueError(f"Expected the labels {_some(set(names))}; got {_some(new)} too")
    if not occurring:
        raise ValueError("Expected labels; got none but missing ones")
    if len(names) < 2:
        raise ValueError(f"Expected at least two labels; got {names[0]!r} alone")
    for who, some in labels.items():
        if len(some) > 20 and len(set(some)) > _MOST_LABELS * len(some):
            raise ValueError(
                f"Expected labels that repeat; got {len(set(some))} different ones in {len(some)} "
                f"rows of {who}, which looks like an identifier"
            )
    theirs = set().union(*(labels[who] for who in made))
    own = set(labels.get("the real rows", ()))
    if own and not own & theirs:
        raise ValueError(
            f"Expected labels that sets and real rows share; got {_some(theirs)} in the sets and "
            f"{_some(own)} in the real rows"
        )
    place = {name: index for index, name in enumerate(names)} | {"": -1}
    coded = [np.array([place[name] for name in one], dtype=np.int64) for one in everything.values()]
    return coded[: len(sets)], None if real is None else coded[-1], names


def _some(names: set[str]) -> str:
    shown = sorted(names)[:4]
    return ", ".join(map(repr, shown)) + (" …" if len(names) > 4 else "")


def _spelled(labels: Any) -> list[str]:
    return [_spell(label) for label in np.asarray(labels, dtype=object).ravel()]


def _spell(label: Any) -> str:
    if label is None or (isinstance(label, float | np.floating) and np.isnan(label)):
        return ""
    if isinstance(label, bool | np.bool_):
        return str(bool(label)).lower()
    text = str(label).strip()
    if isinstance(label, float | np.floating) or text[-2:] == ".0":
        try:
            number = float(text)
        except ValueError:
            return text
        return str(int(number)) if number.is_integer() else text
    return text


@dataclass(frozen=True)
class LabelFindings:
    """Labels of one set.

    Attributes:
        probability_wrong: of each row, (n,).
        suggested: the likeliest label of each row, (n,) whole numbers.
        share_wrong: estimated share of wrong labels in the set.
    """

    probability_wrong: np.ndarray
    suggested: np.ndarray
    share_wrong: float


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
    count = len(rows if real is None else real)
    if count < 10:
        raise ValueError(f"Expected at least 10 rows to learn labels from; got {count}")
    if real is None or real_labels is None:
        log_p = _normalised(_cross_fitted(rows, labels, classes, PRIOR_ROWS, seed))
    else:
        log_p = log_probabilities(real, real_labels, rows, classes, origin=real.mean(0))
    probability, rate = probability_wrong(log_p, labels)
    return LabelFindings(probability.numpy(), log_p.argmax(1).numpy(), rate)


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
