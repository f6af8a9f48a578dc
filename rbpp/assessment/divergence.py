"""Kullback–Leibler divergence and total variation between two samples, with what stays unseen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rbpp import validate
from rbpp.assessment.log_ratio import LogRatio
from rbpp.assessment.weighted_rows import DRAWS, LEAST_DRAWS, Array, Draws, interval

Direction = Literal["forward", "reverse"]

# The lower bound is this quantile of the bootstrap: it is above the truth in fewer than 1 % of
# samples, since the caps and the unseen row make it low.
LOW = 0.02
CAPS = np.arange(0.5, 8.01, 0.5)
# The reader's prior on a difference that no candidate shows: nearly all draws are raised by a
# seventh or so, and one in seven by the size of difference that can stay unseen.
RAISED = 0.15
UNSEEN_SHARE = 0.15
# Rates of the learning curve n^−β: parametric, or slower where the truth is not of the model.
RATES = (0.3, 1.0)
# Total variation's witness is ±½ beyond this log ratio: a sharper one reads noise for a difference.
WITNESS = 0.25
FEWEST_ROWS_PER_DIMENSION = 10


@dataclass(frozen=True)
class Divergence:
    """A divergence of two samples, in nats (KL) or as a probability (TV).

    Attributes:
        draws: (draws,), of the posterior; independent of each other.
        estimate: their median, or `at_least` where that is larger.
        lower, upper: 94 % equal-tailed interval; `upper` is infinite where `flag` says why.
        at_least: lower bound with no model of either side; measured, it was above the truth in
            fewer than 1 of 100 samples. It does not exceed log n.
        flag: why there is no upper end; empty where there is one.
    """

    draws: Array
    estimate: float
    lower: float
    upper: float
    at_least: float
    flag: str


@dataclass(frozen=True)
class DivergenceGap:
    """KL(anchor ‖ target) − KL(synthetic ‖ target), in nats, draw by draw.

    Attributes:
        draws: (draws,).
        estimate: their median.
        lower, upper: 94 % equal-tailed interval; infinite on the side that `flag` leaves open.
        flag: why a side is open.
        anchor, synthetic: the two divergences, from the same bootstrap of the target.
    """

    draws: Array
    estimate: float
    lower: float
    upper: float
    flag: str
    anchor: Divergence
    synthetic: Divergence


@dataclass(frozen=True)
class TotalVariation:
    """TV(P, Q) of two samples.

    Attributes:
        draws: (draws,), of the posterior under the mixture model.
        estimate: their median.
        lower: 2 % quantile of a witness function's difference, cross-fitted: a lower bound with
            no model behind it; 0 where neither divergence is certified to be above 0.
        upper: under the mixture model only; no upper side exists without a model.
        bretagnolle_huber: √(1 − e^−KL) of the smaller upper end of the two divergences; under the
            mixture model too, and 1 where both are open.
    """

    draws: Array
    estimate: float
    lower: float
    upper: float
    bretagnolle_huber: float


def kl_divergence_of_samples(
    ratio: LogRatio, direction: Direction = "forward", draws: Draws = DRAWS
) -> Divergence:
    """KL(P ‖ Q) (forward) or KL(Q ‖ P) (reverse) in nats, from Donsker and Varadhan's

        KL(P ‖ Q) ≥ E_P r − log E_Q e^r,

    with r the cross-fitted log ratio, the Bayesian bootstrap over units on both sides, and the
    learning curve of r extrapolated. Of equal ones it is 0 (`docs/measurements/divergences.md`).

    Args:
        ratio: of the two samples, `log_ratio`.
        direction: `"forward"` is KL(first ‖ second).
        draws: of the posterior.

    Raises:
        ValueError: for an unknown direction or no draws.
    """
    validate.choice("direction", direction, ("forward", "reverse"))
    validate.count("draws", draws.count, least=LEAST_DRAWS)
    first, second = _bootstraps(ratio, draws)
    if direction == "reverse":
        ratio, first, second = ratio.reversed(), second, first
    generator = np.random.default_rng([draws.seed, 2])
    rate = generator.uniform(*RATES, draws.count)
    return _divergence(ratio, first, second, rate, generator)


def kl_gap_of_samples(anchor: LogRatio, synthetic: LogRatio, draws: Draws = DRAWS) -> DivergenceGap:
    """KL(anchor ‖ target) − KL(synthetic ‖ target) in nats, by draws that share the target's.

    Args:
        anchor: `log_ratio(anchor, target)`.
        synthetic: `log_ratio(synthetic, target)`, with the same rows of the target.
        draws: of the posterior.

    Raises:
        ValueError: if the two ratios have not the same target.
    """
    validate.count("draws", draws.count, least=LEAST_DRAWS)
    same = anchor.second.rows.shape == synthetic.second.rows.shape
    if not same or not (anchor.second.rows == synthetic.second.rows).all():
        raise ValueError(
            "Expected two log ratios to the same rows of the target; got "
            f"{len(anchor.second.rows)} rows and {len(synthetic.second.rows)} rows that differ"
        )
    streams = [np.random.default_rng([draws.seed, stream]) for stream in range(5)]
    target = anchor.second.bootstrap(draws.count, streams[0])
    rate = streams[1].uniform(*RATES, draws.count)
    of_anchor, of_synthetic = (
        _divergence(ratio, ratio.first.bootstrap(draws.count, stream), target, rate, streams[4])
        for ratio, stream in ((anchor, streams[2]), (synthetic, streams[3]))
    )
    gap = of_anchor.draws - of_synthetic.draws
    lower, upper = interval(gap)
    flags = [
        f"{name}: {found.flag}"
        for name, found in (("anchor", of_anchor), ("synthetic", of_synthetic))
        if found.flag
    ]
    return DivergenceGap(
        draws=gap,
        estimate=float(np.median(gap)),
        lower=-math.inf if of_synthetic.flag else lower,
        upper=math.inf if of_anchor.flag else upper,
        flag="; ".join(flags),
        anchor=of_anchor,
        synthetic=of_synthetic,
    )


def total_variation_of_samples(ratio: LogRatio, draws: Draws = DRAWS) -> TotalVariation:
    """TV(P, Q) = sup_h E_P h − E_Q h over |h| ≤ ½, with h = ½ clip(4 r, −1, 1) of the log ratio r.

    Args:
        ratio: of the two samples, `log_ratio`.
        draws: of the posterior.
    """
    forward = kl_divergence_of_samples(ratio, "forward", draws)
    reverse = kl_divergence_of_samples(ratio, "reverse", draws)
    first, second = _bootstraps(ratio, draws)
    generator = np.random.default_rng([draws.seed, 2])
    at_first, at_second = (
        np.clip(at / WITNESS, -1, 1) / 2 for at in (ratio.at_first, ratio.at_second)
    )
    seen = first @ at_first.T - second @ at_second.T
    found = _extrapolated(seen, generator.uniform(*RATES, draws.count))
    # Pinsker, TV ≤ √(KL/2), draw by draw with the same bootstrap: of equal sides most draws are 0.
    found = np.minimum(found, np.sqrt(np.minimum(forward.draws, reverse.draws) / 2))
    # Likewise a divergence of ρ nats that no candidate shows is a total variation up to √(ρ/2).
    hidden = generator.exponential(ratio.resolution, draws.count)
    hidden = np.where(generator.random(draws.count) < UNSEEN_SHARE, np.sqrt(hidden / 2), 0)
    found = np.minimum(np.maximum(found, 0) + hidden, 1)
    certified = max(forward.at_least, reverse.at_least) > 0
    least = max(0.0, float(np.quantile(seen[:, 0], LOW))) if certified else 0.0
    return TotalVariation(
        draws=found,
        estimate=float(np.median(found)),
        lower=least,
        upper=interval(found)[1],
        bretagnolle_huber=math.sqrt(-math.expm1(-min(forward.upper, reverse.upper))),
    )


def _bootstraps(ratio: LogRatio, draws: Draws) -> tuple[Array, Array]:
    """A stream for each side, not for each role: both directions share their bootstrap."""
    first, second = (np.random.default_rng([draws.seed, stream]) for stream in range(2))
    return ratio.first.bootstrap(draws.count, first), ratio.second.bootstrap(draws.count, second)


def _divergence(
    ratio: LogRatio, first: Array, second: Array, rate: Array, generator: np.random.Generator
) -> Divergence:
    """Of bootstrap weights (draws, n1) and (draws, n2) and rates of the learning curve (draws,)."""
    found = np.maximum(_extrapolated(_donsker_varadhan(ratio, first, second), rate), 0)
    draws = len(found)
    found = found * (1 + generator.exponential(RAISED, draws))
    hidden = generator.exponential(ratio.resolution, draws)
    found = found + np.where(generator.random(draws) < UNSEEN_SHARE, hidden, 0)
    flag, least = _flag(ratio), _at_least(ratio, first, second, generator)
    lower, upper = (least, math.inf) if flag else interval(found)
    estimate = max(float(np.median(found)), least)
    return Divergence(found, estimate, lower, upper, at_least=least, flag=flag)


def _donsker_varadhan(ratio: LogRatio, first: Array, second: Array) -> Array:
    """(draws, J): Σ v r − log Σ w e^r."""
    largest = ratio.at_second.max(1)
    mean = second @ np.exp(ratio.at_second - largest[:, None]).T
    return first @ ratio.at_first.T - np.log(mean) - largest


def _extrapolated(seen: Array, rate: Array) -> Array:
    """(draws,): the value of infinitely many training rows, from fits on 7 and on 3 folds.

    An error that falls as n^−β leaves D∞ = D + (D − D½) / ((7/3)^β − 1). It only ever adds, and
    only where more rows helped on the mean.
    """
    full, half = seen[:, 0], np.maximum(seen[:, 1:], 0).mean(1)
    growth = np.maximum(full, 0) - half
    if growth.mean() <= 0:
        return full
    return full + np.maximum(growth, 0) / ((7 / 3) ** rate - 1)


def _at_least(
    ratio: LogRatio, first: Array, second: Array, generator: np.random.Generator
) -> float:
    """The largest low quantile over caps of r, with a row of Q at the cap that nobody saw."""
    count = ratio.second.count
    caps = CAPS[np.log(count) >= CAPS]
    if not len(caps):
        return 0.0
    seen = second @ np.exp(np.clip(ratio.at_second[0][:, None], -caps, caps))
    # Rule of three: where no row fell the mass may still be Exp(1)/n.
    hidden = generator.standard_exponential((len(first), 1)) / count
    mean = (seen + hidden * np.exp(caps)) / (1 + hidden)
    value = first @ np.clip(ratio.at_first[0][:, None], -caps, caps) - np.log(mean)
    return max(0.0, float(np.quantile(value, LOW, axis=0).max()))


def _flag(ratio: LogRatio) -> str:
    """Why these samples put no upper end to the divergence; empty where they do."""
    numerator, denominator = ratio.first, ratio.second
    above, below = ratio.at_first[0], ratio.at_second[0]
    fewest = min(numerator.count, denominator.count)
    if fewest < FEWEST_ROWS_PER_DIMENSION * ratio.dimension:
        return (
            f"fewer than {FEWEST_ROWS_PER_DIMENSION} rows for each dimension "
            f"({fewest:.0f} for {ratio.dimension})"
        )
    saturated = numerator.weight[above > math.log(denominator.count) - 2.3].sum()
    if saturated > 0.02 * numerator.weight.sum():
        return "more than 2 % of the rows lie where the other side has hardly any"
    tilted = np.exp(below - below.max()) * denominator.weight
    # Of weighted rows that stand for `count` independent ones.
    effective = tilted.sum() ** 2 / (np.square(tilted) / denominator.weight).sum()
    effective *= denominator.count / denominator.weight.sum()
    if effective < 15:
        return f"the other side's rows count as {effective:.0f} where the divergence arises"
    share = ratio.occupancy[0] / ratio.occupancy[0].sum()
    rows = ratio.occupancy[1] * denominator.count / denominator.weight.sum()
    absent = (share > 0.02) & (rows < 25) & (rows < 0.25 * share * denominator.count)
    if absent.any():
        return (
            f"a part with {share[absent].max():.0%} of the rows is all but absent on the other side"
        )
    return ""
