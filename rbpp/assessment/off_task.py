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
3. what exceeds the target's tail. Of S(z > t) = (1 − π) S₀(z > t) + π F(z > t), with rows on the
   task beyond t C times as often as target rows, S₀ = C T, and all foreign rows beyond it,
   π(t, C) = (S(z > t) − C T(z > t)) / (1 − C T(z > t)), the weight of a mixture of which one
   component is known (Blanchard, Lee and Scott, Semi-supervised novelty detection, JMLR 11, 2010).
   How far a style stretches the tail is not known, so C differs from draw to draw. The less style
   there is, the more of the draws come from two groups of scores in its place
   (`models/_off_task.py`), which know the shape of a tail without style.

The share is only partly identified: rows that are foreign and look like the task cannot be told
from it. So there are an *at least*, the largest π(t, 4) less its error, from which alone claims are
made, and an *at most*, the largest π(t, 1) and its error, that says what it supposes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rbpp.assessment.excess import (
    DESIGN_EFFECT,
    OFF_TASK,
    OFF_TASK_NUMBERS,
    THRESHOLDS,
    UNCOVERED,
    UNCOVERED_NUMBERS,
    Excess,
    beyond,
)
from rbpp.assessment.grid import at_share, grid_posterior
from rbpp.assessment.neighbours import matched_rank, unit_length
from rbpp.assessment.scores import (
    LEAST_ROWS,
    Distinct,
    Scores,
    checked_rows,
    design_effect,
    neighbour,
    off_task_scores,
    score_rows,
    without_style,
)
from rbpp.assessment.weighted_rows import DRAWS, Array, Draws, Sample
from rbpp.estimate import Estimate, exactly

# Part of the draws that comes from the two groups where there is no style.
_NORMAL_PART = 0.4
# Near halves that the coarse contrast tells apart this well are two places, not one style; that the
# finest one tells apart this well may be style alone. Of 66 runs of 16 pairs of authors none was
# above .84 and .91; four random projections of word counts gave .99 and over by the finest.
_SATURATED, _STYLE_ALONE = 0.9, 0.97
# Classes that are left out in turn, the commonest ones, and halves of each.
_MOST_CLASSES, _HALVES = 8, 2


@dataclass(frozen=True)
class VectorKind:
    """What rows are vectors of.

    Attributes:
        lexical: counts of words, as of TF-IDF, which mix style with content; no share is given
            where the sources differ in style.
        numbers: measurements, whose parts may overlap; *at most* is wider.
    """

    lexical: bool = False
    numbers: bool = False


CONTENT = VectorKind()


@dataclass(frozen=True)
class OffTask:
    """The share of rows that a reference does not account for, and each row's probability.

    Attributes:
        estimate: draws of the share (draw,), nan where nothing can be said. The lower side holds
            for any content, and is 0 where less than 5 % can be shown; the upper one holds if what
            is foreign is unlike the reference.
        probability: of every row, (n,).
        score: z of every row, (n,), the covariate of marks.
        at_most_with_classes: an upper end if another class of the task is foreign too; None without
            classes of the reference's rows.
        visibility: share of a class left out that would be seen, v; None likewise.
        refusal: why nothing can be said, and what to do; empty otherwise.
    """

    estimate: Estimate
    probability: Array
    score: Array
    at_most_with_classes: float | None = None
    visibility: float | None = None
    refusal: str = ""

    @property
    def share(self) -> float:
        """The posterior mean of the share."""
        return self.estimate.value.mean().item()

    @property
    def at_least(self) -> float:
        """The lower side of the share."""
        return self.estimate.bounds[0].item()

    @property
    def at_most(self) -> float:
        """The upper side of the share."""
        return self.estimate.bounds[1].item()


def off_task(
    target: np.ndarray,
    synthetic: np.ndarray | Sample,
    draws: Draws = DRAWS,
    kind: VectorKind = CONTENT,
    *,
    labels: np.ndarray | None = None,
    apart: bool = False,
) -> OffTask:
    """The share π of synthetic rows off the task, D_gen = (1 − π) D_style + π F.

    Args:
        target: rows on the task (m, D), in a representation of what they are about.
        synthetic: rows in question (n, D). The share is that of their weights, such as 1 / copies
            of each; exact copies are never each other's neighbours. Rows of a unit that are alike
            widen every interval.
        draws: of the share; their seed is also that of the classes that are left out.
        kind: of the rows.
        labels: classes of the target's rows (m,), for `at_most_with_classes`.
        apart: a share is given even where nearly no synthetic row lies among target rows, since it
            is known otherwise that the representation does not see style alone.

    Raises:
        ValueError: if rows are not finite, of different dimensions, or fewer than 10 a source.
    """
    asked = Sample.of(synthetic)
    target, synthetic = checked_rows(target, asked.rows)
    made, reference = Distinct.of(synthetic, asked), Distinct.of(target).rows
    moved = without_style(reference, made.rows)
    found = score_rows(reference, moved, weights=(np.ones(len(reference)), made.weight))
    tail = OFF_TASK_NUMBERS if kind.numbers else OFF_TASK
    excess = Excess(found, tail, made.weight, design_effect(found.rows, made.unit))
    refusal = _refusal(found, kind, apart)
    result = _judged(excess, refusal, made.place, draws)
    if labels is None or refusal:
        return result
    seen = visibility(target, labels, seed=draws.seed)
    with_classes = 1.0 if seen <= 0 else min(1.0, excess.difference / seen)
    most = max(result.at_most, with_classes)
    return replace(result, at_most_with_classes=most, visibility=seen)


def uncovered(
    target: np.ndarray | Sample,
    synthetic: np.ndarray,
    draws: Draws = DRAWS,
    kind: VectorKind = CONTENT,
) -> OffTask:
    """The share of target rows that the synthetic rows do not account for; rows are the target's.

    The synthetic rows' own distances are taken to a further neighbour (`matched_rank`): paraphrases
    of few seeds lie closer together than they cover.

    Args:
        target: rows in question (m, D).
        synthetic: (n, D).
        draws, kind: as of `off_task`.

    Raises:
        ValueError: as `off_task`.
    """
    asked = Sample.of(target)
    target, synthetic = checked_rows(asked.rows, synthetic)
    real = Distinct.of(target, asked)
    moved = without_style(real.rows, Distinct.of(synthetic).rows)
    rank = matched_rank(moved, real.rows, neighbour(len(moved)))
    found = score_rows(moved, real.rows, rank, weights=(np.ones(len(moved)), real.weight))
    tail = UNCOVERED_NUMBERS if kind.numbers else UNCOVERED
    excess = Excess(found, tail, real.weight, design_effect(found.rows, real.unit))
    return _judged(excess, _refusal(found, kind), real.place, draws)


def novel(
    anchors: np.ndarray,
    irrelevant: OffTask,
    synthetic: np.ndarray | Sample,
    draws: Draws = DRAWS,
    kind: VectorKind = CONTENT,
) -> OffTask:
    """The share of synthetic rows on the task where the anchors have nothing.

    Rows that are foreign to the anchors are novel or off the task, so that
    novel = foreign to the anchors − off task, in every pair of draws and in every row's
    probability.

    Args:
        anchors: (a, D).
        irrelevant: of the same synthetic rows, from `off_task` with the target.
        synthetic, draws, kind: as of `off_task`.

    Raises:
        ValueError: as `off_task`; or if `irrelevant` is of other rows.
    """
    if len(irrelevant.probability) != (count := len(Sample.of(synthetic).rows)):
        raise ValueError(
            f"Expected off-task probabilities of {count} synthetic rows; "
            f"got {len(irrelevant.probability)}"
        )
    # The target's comparison has told style from content.
    foreign = off_task(anchors, synthetic, draws, kind, apart=not irrelevant.refusal)
    if foreign.refusal or irrelevant.refusal:
        return refused(foreign.score, foreign.refusal or irrelevant.refusal)
    random = np.random.default_rng([draws.seed, 2])
    paired = random.choice(irrelevant.estimate.value.numpy(), len(foreign.estimate.value))
    off = replace(exactly(paired), lower=irrelevant.estimate.lower, upper=irrelevant.estimate.upper)
    return OffTask(
        (foreign.estimate - off).map(lambda share: share.clamp(min=0.0)),
        probability=foreign.probability * (1 - irrelevant.probability),
        score=foreign.score,
    )


def visibility(target: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> float:
    """How much of a class of the task would be seen if it were foreign, v between 0 and 1.

    One half of the target lacks class l; the other has 20 % of it. v_l = max_t P(z > t | l) −
    P(z > t | other classes), and v is the mean over classes and halves.

    Args:
        target: (m, D).
        labels: (m,).
        seed: of the halves.

    Raises:
        ValueError: if labels and rows disagree, or no two classes have 10 rows each.
    """
    target, labels = unit_length(target), np.asarray(labels)
    if labels.shape != (len(target),):
        raise ValueError(f"Expected labels ({len(target)},); got shape {labels.shape}")
    names, counts = np.unique(labels, return_counts=True)
    order = names[np.argsort(-counts, kind="stable")]
    common = [name for name in order[:_MOST_CLASSES] if (labels == name).sum() >= LEAST_ROWS]
    if len(common) < 2:
        raise ValueError(f"Expected two classes of {LEAST_ROWS} rows or more; got {len(common)}")
    random = np.random.default_rng([seed, 3])
    seen = []
    for name in common:
        own, others = np.flatnonzero(labels == name), np.flatnonzero(labels != name)
        for _ in range(_HALVES):
            others = random.permutation(others)
            half = len(others) // 2
            planted = random.permutation(own)[: max(1, half // 4)]
            if half < LEAST_ROWS:
                continue
            rows = np.concatenate([others[half:], planted])
            z = off_task_scores(target[others[:half]], target[rows]).rows
            clean, foreign = z[: len(rows) - len(planted)], z[len(rows) - len(planted) :]
            gain = beyond(foreign, THRESHOLDS) - beyond(clean, THRESHOLDS)
            seen.append(max(0.0, float(gain.max())))
    return float(np.mean(seen)) if seen else 0.0


def share_of(excess: Excess, draws: Draws = DRAWS) -> OffTask:
    """Posterior of the share of foreign rows from their scores, with its two ends.

    Args:
        excess: of the rows beyond the reference's tail.
        draws: of the share.
    """
    scores, weights = excess.scores, excess.weights
    random = np.random.default_rng([draws.seed, 1])
    grid = grid_posterior(
        scores.rows,
        weights / (DESIGN_EFFECT * excess.design),
        target_rows=len(scores.reference),
        style=scores.style,
    )
    normal = round(_NORMAL_PART * (1 - scores.style) * draws.count)
    drawn = [grid.draw(normal, random), excess.draws(draws.count - normal, random)]
    shares = np.concatenate(drawn)
    share = float(shares.mean())
    most = min(1.0, max(excess.at_most, share) + excess.tail.margin * scores.style)
    return OffTask(
        exactly(random.permutation(shares)).between(excess.at_least, most),
        probability=at_share(grid.probability(scores.rows), share, weights),
        score=scores.rows,
    )


def _refusal(scores: Scores, kind: VectorKind, apart: bool = False) -> str:
    """Why shares cannot be told from style, and what to do; empty if they can."""
    advice = (
        "use an embedding of what rows are about (model=…), or mark twenty rows (result.ask(…))"
    )
    if kind.lexical and scores.style > 0:
        return (
            "The sources differ in style, and counts of words cannot tell style from content: "
            f"{advice}"
        )
    if not apart and (scores.saturation > _SATURATED or scores.separation > _STYLE_ALONE):
        return (
            "No synthetic row lies among target rows: either all are off the task, or this "
            f"representation sees style only; {advice}"
        )
    return ""


def refused(score: Array, refusal: str) -> OffTask:
    """A result that says why there is none, of rows with these scores."""
    nothing, share = np.full(len(score), np.nan), exactly(np.array([np.nan]))
    return OffTask(share.between(0.0, 1.0), nothing, score, refusal=refusal)


def _judged(excess: Excess, refusal: str, place: NDArray[np.int64], draws: Draws) -> OffTask:
    """The share, or why there is none; what is found of distinct rows is said of all."""
    rows = excess.scores.rows
    found = refused(rows, refusal) if refusal else share_of(excess, draws)
    return replace(found, probability=found.probability[place], score=found.score[place])
