"""Which synthetic rows are off the task, which target rows are uncovered, and what can be claimed.

Target and synthetic rows nearly always have different authors. A density ratio in hundreds of
dimensions then says that every row is foreign, since a style alone separates the sources. What is
asked here is whether a row lies where target rows lie once the author's style is taken away:

1. half of the style offset δ of the synthetic rows (`rbpp.assessment.style`): the whole of it takes
   content along;
2. z(x), a normal score among the target's own rows: the distance to the fifth nearest target row
   (a further one of more than 300), and the share of synthetic rows among the nearest fifth of the
   pool. A style saturates a contrast of the nearest few rows, and not this one. As the near halves
   of the sources become one, a finer contrast joins in, steadily, since it then sees more;
3. what exceeds the target's tail: rows on the task are beyond t at most C times as often as target
   rows, so that the share is at least max_t (S(z > t) − C T(z > t)) / (1 − C T(z > t)). The less
   style there is, the more of the draws come from two groups of scores in its place
   (`models/_off_task.py`), which know the shape of a tail without style.

The share is only partly identified: rows that are foreign and look like the task cannot be told
from it. So there are an *at least*, from which alone claims are made, and an *at most* that says
what it supposes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtr

from rbpp.assessment.grid import HIGHEST, at_share, grid_posterior
from rbpp.assessment.neighbours import matched_rank, unit_length
from rbpp.assessment.scores import (
    LEAST_ROWS,
    Scores,
    checked_rows,
    checked_weights,
    design_effect,
    distinct,
    neighbour,
    of_distinct,
    off_task_scores,
    score_rows,
    without_style,
)

Array = NDArray[np.float64]

# Scores of neighbours go together: a row tells as much as 1/1.75 of an independent one.
DESIGN_EFFECT = 1.75
# A style lets at most this many times as many rows beyond a threshold as the target has there.
# Chosen on 26 pairs of authors of the choosing half of docs/measurements/scenarios.md, apart for
# rows off the task and rows uncovered, whose own distances are matched (`matched_rank`).
_STYLE_TAIL, _UNCOVERED_TAIL, _SAME_TAIL, _SURE_TAIL = 2.5, 1.5, 1.25, 4.0
# Standard errors of *at least* and *at most*, and the least share that is claimed.
_SURE_ERRORS, _MOST_ERRORS, _LEAST_CLAIM = 2.5, 1.64, 0.05
# What *at most* adds for rows that are foreign and within the task's own tail, and for uncovered
# rows in another style, whose matched null hides more of them.
_MOST_MARGIN, _UNCOVERED_MARGIN = 0.02, 0.1
# Part of the draws that comes from the two groups where there is no style, and the largest share of
# the task that may lie beyond a threshold of the excess.
_NORMAL_PART, _MOST_BEYOND = 0.4, 0.5
_THRESHOLDS = np.linspace(-1.0, HIGHEST, 71)
# Near halves that the coarse contrast tells apart this well are two places, not one style.
_SATURATED = 0.9


@dataclass(frozen=True)
class OffTask:
    """The share of rows that a reference does not account for, and each row's probability.

    Attributes:
        draws: of the share, (draw,); nan where nothing can be said.
        probability: of every row, (n,).
        score: z of every row, (n,), the covariate of marks.
        at_least: a lower end that holds for any content; 0 where less than 5 % can be shown.
        at_most: an upper end if what is foreign is unlike the reference.
        at_most_with_classes: an upper end if another class of the task is foreign too; None without
            classes of the reference's rows.
        visibility: share of a class left out that would be seen, v; None likewise.
        refusal: why nothing can be said, and what to do; empty otherwise.
    """

    draws: Array
    probability: Array
    score: Array
    at_least: float
    at_most: float
    at_most_with_classes: float | None
    visibility: float | None
    refusal: str = ""

    @property
    def share(self) -> float:
        """The posterior mean of the share."""
        return float(self.draws.mean())

    def claims(self, share: float) -> bool:
        """Whether more than `share` is foreign whatever the style; from *at least* alone."""
        return self.at_least > share


def off_task(
    target: np.ndarray,
    synthetic: np.ndarray,
    *,
    labels: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    units: np.ndarray | None = None,
    lexical: bool = False,
    apart: bool = False,
    num_samples: int = 1000,
    seed: int = 0,
) -> OffTask:
    """The share π of synthetic rows off the task, D_gen = (1 − π) D_style + π F.

    Args:
        target: rows on the task (m, D), in a representation of what they are about.
        synthetic: rows in question (n, D).
        labels: classes of the target's rows (m,), for `at_most_with_classes`.
        weights: of the synthetic rows (n,), such as 1 / copies of each; 1 by default. The share is
            that of the weights. Exact copies are never each other's neighbours.
        units: index of the independent unit of every synthetic row (n,), such as its prompt; by
            default each row is one. Rows of a unit that are alike widen every interval.
        lexical: the representation counts words, as TF-IDF does, and mixes style with content; no
            share is given where the sources differ in style.
        apart: a share is given even where nearly no synthetic row lies among target rows, since it
            is known otherwise that the representation does not see style alone.
        num_samples: draws of the share.
        seed: of the draws, and of the classes that are left out.

    Raises:
        ValueError: if rows are not finite, of different dimensions, or fewer than 10 a source.
    """
    target, synthetic = checked_rows(target, synthetic)
    rows, place, weights = distinct(synthetic, checked_weights(weights, len(synthetic)))
    reference, _, mass = distinct(target, np.ones(len(target)))
    moved = without_style(reference, rows)
    found, saturation = score_rows(reference, moved, weights=(np.ones(len(mass)), weights))
    refusal = _refusal(found.style, 0.0 if apart else saturation, lexical)
    if refusal:
        return _spread(_nothing(found, refusal), place)
    design = design_effect(found.rows, of_distinct(units, place))
    result = share_of(found, weights=weights, design=design, num_samples=num_samples, seed=seed)
    result = _spread(result, place)
    if labels is None:
        return result
    seen = visibility(target, labels, seed=seed)
    upper = _best(found, weights, 1.0, _MOST_ERRORS, design)
    with_classes = 1.0 if seen <= 0 else min(1.0, upper / seen)
    return replace(
        result,
        at_most_with_classes=max(result.at_most, with_classes),
        visibility=seen,
    )


def uncovered(
    target: np.ndarray,
    synthetic: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    units: np.ndarray | None = None,
    lexical: bool = False,
    num_samples: int = 1000,
    seed: int = 0,
) -> OffTask:
    """The share of target rows that the synthetic rows do not account for; rows are the target's.

    The synthetic rows' own distances are taken to a further neighbour (`matched_rank`): paraphrases
    of few seeds lie closer together than they cover.

    Args:
        target: (m, D).
        synthetic: (n, D).
        weights, units: of the target's rows (m,); as of `off_task`.
        lexical, num_samples, seed: as of `off_task`.

    Raises:
        ValueError: as `off_task`.
    """
    target, synthetic = checked_rows(target, synthetic)
    rows, place, weights = distinct(target, checked_weights(weights, len(target)))
    source, _, mass = distinct(synthetic, np.ones(len(synthetic)))
    moved = without_style(rows, source)
    rank = matched_rank(moved, rows, neighbour(len(source)))
    found, saturation = score_rows(moved, rows, rank, weights=(np.ones(len(mass)), weights))
    refusal = _refusal(found.style, saturation, lexical)
    if refusal:
        return _spread(_nothing(found, refusal), place)
    design = design_effect(found.rows, of_distinct(units, place))
    result = share_of(
        found,
        weights=weights,
        design=design,
        tail=_UNCOVERED_TAIL,
        margin=_UNCOVERED_MARGIN,
        num_samples=num_samples,
        seed=seed,
    )
    return _spread(result, place)


def novel(
    anchors: np.ndarray,
    irrelevant: OffTask,
    synthetic: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    units: np.ndarray | None = None,
    lexical: bool = False,
    num_samples: int = 1000,
    seed: int = 0,
) -> OffTask:
    """The share of synthetic rows on the task where the anchors have nothing.

    Rows that are foreign to the anchors are novel or off the task, so that
    novel = foreign to the anchors − off task, in every pair of draws and in every row's
    probability.

    Args:
        anchors: (a, D).
        irrelevant: of the same synthetic rows, from `off_task` with the target.
        synthetic: (n, D).
        weights, units, lexical, num_samples, seed: as of `off_task`.

    Raises:
        ValueError: as `off_task`; or if `irrelevant` is of other rows.
    """
    if len(irrelevant.probability) != len(synthetic):
        raise ValueError(
            f"Expected off-task probabilities of {len(synthetic)} synthetic rows; "
            f"got {len(irrelevant.probability)}"
        )
    foreign = off_task(
        anchors,
        synthetic,
        weights=weights,
        units=units,
        lexical=lexical,
        # The target's comparison has told style from content.
        apart=not irrelevant.refusal,
        num_samples=num_samples,
        seed=seed,
    )
    if foreign.refusal or irrelevant.refusal:
        return _nothing(
            Scores(foreign.score, foreign.score, 1.0), foreign.refusal or irrelevant.refusal
        )
    random = np.random.default_rng([seed, 2])
    off = random.choice(irrelevant.draws, len(foreign.draws))
    return OffTask(
        draws=np.maximum(0.0, foreign.draws - off),
        probability=foreign.probability * (1 - irrelevant.probability),
        score=foreign.score,
        at_least=max(0.0, foreign.at_least - irrelevant.at_most),
        at_most=max(0.0, foreign.at_most - irrelevant.at_least),
        at_most_with_classes=None,
        visibility=None,
    )


def visibility(
    target: np.ndarray, labels: np.ndarray, *, draws: int = 2, most: int = 8, seed: int = 0
) -> float:
    """How much of a class of the task would be seen if it were foreign, v between 0 and 1.

    One half of the target lacks class l; the other has 20 % of it. v_l = max_t P(z > t | l) −
    P(z > t | other classes), and v is the mean over classes and draws.

    Args:
        target: (m, D).
        labels: (m,).
        draws: halves per class.
        most: classes, the commonest ones.
        seed: of the halves.

    Raises:
        ValueError: if labels and rows disagree, or no two classes have 10 rows each.
    """
    target, labels = unit_length(target), np.asarray(labels)
    if labels.shape != (len(target),):
        raise ValueError(f"Expected labels ({len(target)},); got shape {labels.shape}")
    names, counts = np.unique(labels, return_counts=True)
    order = names[np.argsort(-counts, kind="stable")]
    common = [name for name in order[:most] if (labels == name).sum() >= LEAST_ROWS]
    if len(common) < 2:
        raise ValueError(f"Expected two classes of {LEAST_ROWS} rows or more; got {len(common)}")
    random = np.random.default_rng([seed, 3])
    seen = []
    for name in common:
        own, others = np.flatnonzero(labels == name), np.flatnonzero(labels != name)
        for _ in range(draws):
            others = random.permutation(others)
            half = len(others) // 2
            planted = random.permutation(own)[: max(1, half // 4)]
            if half < LEAST_ROWS:
                continue
            rows = np.concatenate([others[half:], planted])
            z = off_task_scores(target[others[:half]], target[rows]).rows
            clean, foreign = z[: len(rows) - len(planted)], z[len(rows) - len(planted) :]
            gain = _beyond(foreign, _THRESHOLDS) - _beyond(clean, _THRESHOLDS)
            seen.append(max(0.0, float(gain.max())))
    return float(np.mean(seen)) if seen else 0.0


def share_of(
    scores: Scores,
    *,
    weights: np.ndarray | None = None,
    design: float = 1.0,
    tail: float = _STYLE_TAIL,
    margin: float = _MOST_MARGIN,
    num_samples: int = 1000,
    seed: int = 0,
) -> OffTask:
    """Posterior of the share of foreign rows from scores, with its two ends.

    Args:
        scores: of both sources.
        weights: of the rows (n,), 1 by default.
        design: rows that tell as much as one independent one.
        tail: C, how many times as many rows a full style may have beyond a threshold.
        margin: what `at_most` adds where there is a full style.
        num_samples: draws of the share.
        seed: of the draws.
    """
    weights = checked_weights(weights, len(scores.rows))
    random = np.random.default_rng([seed, 1])
    grid = grid_posterior(
        scores.rows,
        weights / (DESIGN_EFFECT * design),
        target_rows=len(scores.reference),
        style=scores.style,
    )
    normal = round(_NORMAL_PART * (1 - scores.style) * num_samples)
    tail = _SAME_TAIL + (tail - _SAME_TAIL) * scores.style
    margin = _MOST_MARGIN + (margin - _MOST_MARGIN) * scores.style
    excess = _excess_draws(scores, weights, tail, num_samples - normal, random, design)
    draws = np.concatenate([grid.draw(normal, random), excess])
    share = float(draws.mean())
    lower = _best(scores, weights, _SURE_TAIL, -_SURE_ERRORS, design)
    upper = _best(scores, weights, 1.0, _MOST_ERRORS, design)
    return OffTask(
        draws=random.permutation(draws),
        probability=at_share(grid.probability(scores.rows), share, weights),
        score=scores.rows,
        at_least=lower if lower >= _LEAST_CLAIM else 0.0,
        at_most=min(1.0, max(upper, share) + margin),
        at_most_with_classes=None,
        visibility=None,
    )


def _excess_draws(
    scores: Scores,
    weights: Array,
    tail: float,
    count: int,
    random: np.random.Generator,
    design: float,
) -> Array:
    """Bayesian-bootstrap draws of (S − C T) / (1 − C T), at least 0, at its largest threshold.

    With S(z > t) = (1 − π) S₀(z > t) + π F(z > t), S₀ ≤ C T and F ≤ 1, π is at least this.
    """
    thresholds = _THRESHOLDS[_THRESHOLDS >= 0]
    own = tail * _beyond(scores.reference, thresholds)
    allowed = own < _MOST_BEYOND
    excess = _beyond(scores.rows, thresholds, weights) - own
    best = np.where(allowed, excess / np.where(allowed, 1 - own, 1), -np.inf).argmax()
    beyond = scores.rows > thresholds[best], scores.reference > thresholds[best]
    mass = weights / weights.sum()
    size = float(1 / np.square(mass).sum()) / (DESIGN_EFFECT * design)
    of_rows = _proportion(float(mass @ beyond[0]), size, count, random)
    rows = len(scores.reference) / DESIGN_EFFECT
    own = tail * _proportion(float(beyond[1].mean()), rows, count, random)
    return np.maximum(0.0, (of_rows - own) / np.maximum(1 - own, _MOST_BEYOND))


def _proportion(share: float, size: float, count: int, random: np.random.Generator) -> Array:
    """Draws of a proportion that the Bayesian bootstrap of so many rows gives: a beta one."""
    if share in (0.0, 1.0):
        return np.full(count, share)
    return random.beta(share * size, (1 - share) * size, count)


def _best(scores: Scores, weights: Array, tail: float, errors: float, design: float = 1.0) -> float:
    """max over t of S(z > t) − C T(z > t) + errors · standard error, between 0 and 1."""
    mass = weights / weights.sum()
    size, count = float(1 / np.square(mass).sum()) / design, len(scores.reference)
    found = _beyond(scores.rows, _THRESHOLDS, weights)
    own = _beyond(scores.reference, _THRESHOLDS)
    error = np.abs(errors) * np.sqrt(found * (1 - found) / size)
    if errors < 0:  # of a few rows that agree the standard error is too small
        low = betaincinv(found * size + 0.5, (1 - found) * size + 0.5, ndtr(errors))
        error = np.maximum(error, found - low)
    own_error = errors * tail * np.sqrt(np.maximum(own, 1 / count) * (1 - own) / count)
    whole = np.copysign(np.hypot(error, own_error), errors)
    return float(np.clip((found - tail * own + whole).max(), 0, 1))


def _beyond(values: np.ndarray, thresholds: Array, weights: Array | None = None) -> Array:
    """Share of the values above every threshold."""
    above = values[:, None] > thresholds
    return above.mean(0) if weights is None else weights @ above / weights.sum()


def _refusal(style: float, saturation: float, lexical: bool) -> str:
    """Why shares cannot be told from style, and what to do; empty if they can."""
    advice = (
        "use an embedding of what rows are about (--embedding-model), or mark twenty rows (--ask)"
    )
    if lexical and style > 0:
        return (
            "The sources differ in style, and counts of words cannot tell style from content: "
            f"{advice}"
        )
    if saturation > _SATURATED:
        return (
            "No synthetic row lies among target rows: either all are off the task, or this "
            f"representation sees style only; {advice}"
        )
    return ""


def _nothing(scores: Scores, refusal: str) -> OffTask:
    """A result that says why there is none."""
    return OffTask(
        draws=np.array([np.nan]),
        probability=np.full(len(scores.rows), np.nan),
        score=scores.rows,
        at_least=0.0,
        at_most=1.0,
        at_most_with_classes=None,
        visibility=None,
        refusal=refusal,
    )


def _spread(result: OffTask, place: NDArray[np.int64]) -> OffTask:
    """The result for all rows of one for the distinct ones."""
    return replace(result, probability=result.probability[place], score=result.score[place])
