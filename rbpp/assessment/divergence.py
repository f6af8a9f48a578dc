"""Kullback–Leibler divergence and total variation between two samples, with what stays unseen."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from rbpp import validate
from rbpp.assessment.log_ratio import LogRatio
from rbpp.assessment.weighted_rows import DRAWS, LEAST_DRAWS, Array, Draws, interval
from rbpp.estimate import Estimate, exactly

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


def summary(found: Estimate) -> Estimate:
    """One number of draws: their median between the ends of their 94 % equal-tailed interval.

    A side that `direction` leaves open has no end. The certified lower bound is then the lower end,
    and no median is below one.

    Args:
        found: draws (draws,), such as `kl_divergence_of_samples` returns.

    >>> draws = exactly(np.arange(101.0))
    >>> summary(draws).value.item(), summary(draws).upper.value.item()
    (50.0, 97.0)
    >>> summary(replace(draws, direction="lower")).upper is None
    True
    """
    low, high = map(exactly, interval(found.value.numpy()))
    middle = found.value.quantile(0.5)
    if found.lower is not None:
        middle = middle.maximum(found.lower.value)
        low = found.lower if found.direction == "lower" else low
    return replace(
        found,
        value=middle,
        standard_error=torch.zeros_like(middle),
        lower=None if found.direction in ("upper", "biased") else low,
        upper=None if found.direction in ("lower", "biased") else high,
    )


def named(name: str, found: Estimate) -> Estimate:
    """The same with the name before the reason of an open side, for sums of several."""
    return replace(found, reason=found.reason and f"{name}: {found.reason}")


def kl_divergence_of_samples(
    ratio: LogRatio, direction: Direction = "forward", draws: Draws = DRAWS
) -> Estimate:
    """KL(P ‖ Q) (forward) or KL(Q ‖ P) (reverse) in nats, from Donsker and Varadhan's

        KL(P ‖ Q) ≥ E_P r − log E_Q e^r,

    with r the cross-fitted log ratio, the Bayesian bootstrap over units on both sides, and the
    learning curve of r extrapolated. Of equal ones it is 0 (`docs/measurements/divergences.md`).

    Args:
        ratio: of the two samples, `log_ratio`.
        direction: `"forward"` is KL(first ‖ second).
        draws: of the posterior, independent of each other.

    Returns:
        Draws (draws,). Their `lower` is one bound with no model of either side: measured, it was
        above the truth in fewer than 1 of 100 samples, and it does not exceed log n. Where these
        samples put no upper end, `direction` is `"lower"`, and `reason` says why.

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


def kl_gap_of_samples(anchor: LogRatio, synthetic: LogRatio, draws: Draws = DRAWS) -> Estimate:
    """KL(anchor ‖ target) − KL(synthetic ‖ target) in nats, by draws that share the target's.

    Args:
        anchor: `log_ratio(anchor, target)`.
        synthetic: `log_ratio(synthetic, target)`, with the same rows of the target.
        draws: of the posterior.

    Returns:
        Draws (draws,); `direction` and `reason` say where one of the two leaves a side open.

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
        named(
            name,
            _divergence(ratio, ratio.first.bootstrap(draws.count, own), target, rate, streams[4]),
        )
        for name, ratio, own in (
            ("anchor", anchor, streams[2]),
            ("synthetic", synthetic, streams[3]),
        )
    )
    # Its ends are those of the draws: those of the two do not know that they share the target's.
    return replace(of_anchor - of_synthetic, lower=None, upper=None)


def total_variation_of_samples(ratio: LogRatio, draws: Draws = DRAWS) -> Estimate:
    """TV(P, Q) = sup_h E_P h − E_Q h over |h| ≤ ½, with h = ½ clip(4 r, −1, 1) of the log ratio r.

    Args:
        ratio: of the two samples, `log_ratio`.
        draws: of the posterior.

    Returns:
        Draws (draws,) under the mixture model. Their `lower` has no model behind it: the 2 %
        quantile of the witness's difference, cross-fitted, or 0 where neither divergence is
        certified to be above 0. Their `upper` is √(1 − e^−KL) of the smaller upper end of the two
        divergences, of Bretagnolle and Huber: under the mixture model too, and 1 where both are
        open. No upper side exists without a model.
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
    found = np.minimum(found, (forward.value.minimum(reverse.value) / 2).sqrt().numpy())
    # Likewise a divergence of ρ nats that no candidate shows is a total variation up to √(ρ/2).
    hidden = generator.exponential(ratio.resolution, draws.count)
    hidden = np.where(generator.random(draws.count) < UNSEEN_SHARE, np.sqrt(hidden / 2), 0)
    found = np.minimum(np.maximum(found, 0) + hidden, 1)
    certified = max(forward.bounds[0], reverse.bounds[0]) > 0
    least = max(0.0, float(np.quantile(seen[:, 0], LOW))) if certified else 0.0
    nearer = min(summary(forward).bounds[1], summary(reverse).bounds[1])
    huber = (-(-nearer).expm1()).sqrt()
    return exactly(found).between(least, huber.item())


def _bootstraps(ratio: LogRatio, draws: Draws) -> tuple[Array, Array]:
    """A stream for each side, not for each role: both directions share their bootstrap."""
    first, second = (np.random.default_rng([draws.seed, stream]) for stream in range(2))
    return ratio.first.bootstrap(draws.count, first), ratio.second.bootstrap(draws.count, second)


def _divergence(
    ratio: LogRatio, first: Array, second: Array, rate: Array, generator: np.random.Generator
) -> Estimate:
    """Of bootstrap weights (draws, n1) and (draws, n2) and rates of the learning curve (draws,)."""
    found = np.maximum(_extrapolated(_donsker_varadhan(ratio, first, second), rate), 0)
    draws = len(found)
    found = found * (1 + generator.exponential(RAISED, draws))
    hidden = generator.exponential(ratio.resolution, draws)
    found = found + np.where(generator.random(draws) < UNSEEN_SHARE, hidden, 0)
    reason, least = _reason(ratio), _at_least(ratio, first, second, generator)
    return replace(
        exactly(found),
        direction="lower" if reason else "exact",
        lower=exactly(least),
        reason=reason,
    )


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


def _reason(ratio: LogRatio) -> str:
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
