"""Divergences and entropies of samples: one distribution, closed forms, bounds, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

from rbpp.assessment import divergence
from rbpp.assessment.divergence import (
    Direction,
    kl_divergence_of_samples,
    kl_gap_of_samples,
    summary,
    total_variation_of_samples,
)
from rbpp.assessment.entropy import entropy_of_sample
from rbpp.assessment.log_ratio import LogRatio, log_ratio
from rbpp.assessment.weighted_rows import Draws, Sample, weighted_rows
from rbpp.estimate import Estimate

SHIFT = 1.0
# Of two normal distributions of variance 1 whose means differ by 1: KL = 1/2, TV = 2 Φ(1/2) − 1.
KL, TV = 0.5, 0.3829


def normal(rows: int, dimension: int, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal((rows, dimension))
    found[:, 0] += shift
    return found


class Read(NamedTuple):
    """The median of draws and the ends of their 94 % interval; infinite where they are open."""

    value: float
    lower: float
    upper: float


def read(found: Estimate) -> Read:
    one = summary(found)
    return Read(one.value.item(), one.bounds[0].item(), one.bounds[1].item())


@pytest.fixture(scope="module")
def shifted() -> LogRatio:
    return log_ratio(normal(500, 3, SHIFT), normal(500, 3, seed=1))


@pytest.fixture(scope="module")
def shifts(shifted: LogRatio) -> list[LogRatio]:
    others = range(10, 24, 2)
    pairs = [(normal(500, 3, SHIFT, seed), normal(500, 3, seed=seed + 1)) for seed in others]
    return [shifted, *(log_ratio(*pair) for pair in pairs)]


@pytest.fixture(scope="module")
def alike() -> LogRatio:
    return log_ratio(normal(200, 4, seed=2), normal(500, 4, seed=1))


@pytest.mark.parametrize(("rows", "dimension"), [((100, 300), 2), ((300, 300), 8)])
def test_one_distribution_reads_zero(
    rows: tuple[int, int], dimension: int, margin: Callable[..., None]
) -> None:
    ratio = log_ratio(normal(rows[0], dimension, seed=5), normal(rows[1], dimension, seed=6))
    for direction in ("forward", "reverse"):
        divergence = kl_divergence_of_samples(ratio, direction)
        found = read(divergence)
        assert found.value < ratio.resolution
        assert found.lower == 0 <= found.upper < 0.6
        assert divergence.lower.value == 0
    variation = total_variation_of_samples(ratio)
    assert variation.lower.value == 0
    # Pinsker: the total variation of a divergence as small as the resolution.
    margin(math.sqrt(ratio.resolution / 2) - read(variation).value)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_a_shift_reads_its_closed_form(
    direction: Direction, shifts: list[LogRatio], margin: Callable[..., None]
) -> None:
    draws = [kl_divergence_of_samples(ratio, direction) for ratio in shifts]
    found = [read(one) for one in draws]
    # log p/q has deviation 1: with 500 rows a side the error is √(1/500 + (e − 1)/500) ≈ 0.074. The
    # mean of eight has one of 0.03, and what may stay unseen raises it by 0.08 (40 other pairs).
    margin(3 * 0.074 - abs(np.mean([one.value for one in found]) - KL))
    # Intervals held in 72 of 80, and 7 of 80 had no upper end: fewer than 4 of 8 hold, or more than
    # 4 are open, in 1 of 2,000 runs.
    margin(sum(one.lower <= KL <= one.upper for one in found) - 3.5)
    margin(4.5 - sum(one.direction == "lower" for one in draws))
    width = np.median([one.upper - one.lower for one in found]) / 2 / 1.88  # of 94 %
    assert 0.074 / 2 < width < 2 * 0.074
    certified = [one.lower.value.item() for one in draws]
    assert min(certified) > 0.1
    margin(1.5 - sum(one > KL for one in certified))  # fewer than 1 of 100


@pytest.mark.parametrize("seed", [0, 1])
def test_a_narrow_component_that_moves_is_seen_among_wide_ones(seed: int) -> None:
    """A sixth of the rows moves by 2.5 of its deviations: KL is 2.5²/12 if no parts overlap."""
    random = np.random.default_rng(seed)
    centres = 1.8 * random.normal(size=(6, 16))
    scale = np.array([0.3, 0.4, 0.7, 1.2, 2, 3])

    def rows(moved: float) -> np.ndarray:
        part = random.integers(6, size=400)
        found = centres[part] + scale[part][:, None] * random.normal(size=(400, 16))
        found[part == 0, 0] += moved * scale[0]
        return found

    ratio = log_ratio(rows(0), rows(2.5))
    truth = 2.5**2 / 12
    for direction in ("forward", "reverse"):
        found = read(kl_divergence_of_samples(ratio, direction))
        assert truth / 2 < found.value < 2 * truth
        assert found.lower < truth < found.upper


def test_total_variation_of_a_shift(shifted: LogRatio, margin: Callable[..., None]) -> None:
    variation = total_variation_of_samples(shifted)
    found = read(variation)
    margin(3 * math.sqrt(0.5 / 500) - abs(found.value - TV))
    assert variation.lower.value < found.value < min(found.upper, variation.upper.value)


def test_parts_apart_have_a_lower_end_only() -> None:
    far = 6.0
    found = kl_divergence_of_samples(log_ratio(normal(300, 2, far), normal(300, 2, seed=1)))
    assert found.direction == "lower"
    assert found.reason
    assert summary(found).upper is None
    assert 2 < found.lower.value < math.log(300) < far**2 / 2
    assert summary(found).lower == found.lower


def test_no_estimate_is_below_what_is_certified(
    shifted: LogRatio, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read(kl_divergence_of_samples(shifted)).value < 1
    monkeypatch.setattr(divergence, "_at_least", lambda *_: 1.5)
    assert read(kl_divergence_of_samples(shifted)).value == 1.5


def test_labels_exchanged_exchange_the_directions(shifted: LogRatio) -> None:
    exchanged = log_ratio(normal(500, 3, seed=1), normal(500, 3, SHIFT))
    forward = read(kl_divergence_of_samples(shifted, "forward")).value
    reverse = read(kl_divergence_of_samples(exchanged, "reverse")).value
    assert abs(forward - reverse) < 0.05
    assert abs((exchanged.at_first[0] + shifted.at_second[0]).mean()) < 0.1


def test_draws_are_distinct_and_follow_the_seed(shifted: LogRatio) -> None:
    found = kl_divergence_of_samples(shifted, draws=Draws(200, 1)).value
    assert len(found.unique()) == 200
    assert (found == kl_divergence_of_samples(shifted, draws=Draws(200, 1)).value).all()
    assert (found != kl_divergence_of_samples(shifted, draws=Draws(200, 2)).value).all()


def test_the_seed_of_the_fit_moves_its_folds() -> None:
    rows = normal(100, 2, SHIFT), normal(100, 2, seed=1)
    assert (log_ratio(*rows, seed=1).at_first != log_ratio(*rows, seed=2).at_first).any()


@pytest.mark.parametrize("side", ["first", "second"])
def test_groups_widen(side: str, margin: Callable[..., None]) -> None:
    # 40 units of 5 rows that all but repeat: 40 independent rows, not 200.
    noise = 0.01 * normal(200, 2, seed=3)
    grouped = np.repeat(normal(40, 2, SHIFT), 5, axis=0) + noise
    other = normal(200, 2, seed=1)
    units = Sample(grouped, np.repeat(np.arange(40), 5))
    together = log_ratio(*((units, other) if side == "first" else (other, units)))
    # The same log ratio, of rows that are said to be independent: folds would change it.
    alone = replace(together, **{side: weighted_rows(side, grouped)})
    assert together.resolution > 1.5 * alone.resolution
    direction = "forward" if side == "first" else "reverse"
    alone, together = (kl_divergence_of_samples(one, direction) for one in (alone, together))
    margin((together.value.std() / alone.value.std() - 1).item())


@pytest.mark.parametrize("side", ["first", "second"])
def test_copies_that_share_a_weight_are_one_row(side: str) -> None:
    first, second = normal(120, 2, SHIFT), normal(150, 2, seed=1)
    kept = first if side == "first" else second
    copied = np.concatenate([kept, kept[:30]])
    unit = np.concatenate([np.arange(len(kept)), np.arange(30)])
    weight = np.where(unit < 30, 0.5, 1.0)

    def of_copies(unit: np.ndarray | None, weight: np.ndarray) -> LogRatio:
        sample = Sample(copied, unit, weight)
        return log_ratio(*((sample, second) if side == "first" else (first, sample)))

    shared = of_copies(unit, weight)
    dropped = log_ratio(first, second)
    assert shared.resolution == pytest.approx(dropped.resolution)
    found, wanted = (read(kl_divergence_of_samples(one)) for one in (shared, dropped))
    assert abs(found.value - wanted.value) < 1e-3
    # A weight of 0 is a row that is not there, to the last digit.
    weight = np.concatenate([np.ones(len(kept)), np.zeros(30)])
    without = of_copies(None, weight)
    assert np.array_equal(without.at_first, dropped.at_first)


def test_units_of_length_do_not_matter(shifted: LogRatio) -> None:
    scale = np.array([1e-3, 1.0, 1e4])
    found = log_ratio(normal(500, 3, SHIFT) * scale, normal(500, 3, seed=1) * scale)
    assert np.allclose(found.at_first[0], shifted.at_first[0], atol=0.05)


def test_gap_of_draws_that_share_the_target(alike: LogRatio, margin: Callable[..., None]) -> None:
    target = normal(500, 4, seed=1)
    far = log_ratio(normal(500, 4, SHIFT, seed=7), target)
    gap = kl_gap_of_samples(far, alike)
    width = gap.value.std().item()
    margin(4 - abs(read(gap).value - KL) / width)
    assert width < 4 * 0.074
    assert not (gap.value == kl_gap_of_samples(far, alike, Draws(seed=1)).value).all()
    assert len(kl_gap_of_samples(far, alike, Draws(150)).value) == 150
    none = read(kl_gap_of_samples(alike, alike))
    assert none.lower <= 0 <= none.upper
    margin(0.05 - abs(none.value))


@pytest.mark.parametrize(
    ("apart", "ends", "reasons"),
    [
        (("anchor",), (True, False), ["anchor"]),
        (("synthetic",), (False, True), ["synthetic"]),
        (("anchor", "synthetic"), (False, False), ["anchor", "synthetic"]),
    ],
)
def test_a_gap_is_open_where_one_of_its_divergences_is(
    alike: LogRatio, apart: tuple[str, ...], ends: tuple[bool, bool], reasons: list[str]
) -> None:
    far = log_ratio(normal(300, 4, 8.0), normal(500, 4, seed=1))
    gap = kl_gap_of_samples(*(far if name in apart else alike for name in ("anchor", "synthetic")))
    one = summary(gap)
    assert (one.lower is not None, one.upper is not None) == ends
    assert [said.split(":")[0] for said in gap.reason.split("; ")] == reasons
    if one.lower is not None:  # those of the draws
        assert one.lower.value == pytest.approx(gap.value.quantile(0.03).item())


def test_gap_refuses_two_targets(shifted: LogRatio, alike: LogRatio) -> None:
    with pytest.raises(ValueError, match="same rows of the target"):
        kl_gap_of_samples(shifted, alike)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"first": np.zeros(30)}, "first of shape"),
        ({"first": np.full((30, 2), np.nan)}, "first of finite numbers; got 60"),
        ({"first": normal(30, 3)}, "one dimension; got 3 and 2"),
        ({"first": normal(15, 2)}, "16 or more independent units in first; got 15"),
        (
            {"second": Sample(normal(30, 2), np.zeros(30))},
            "16 or more independent units in second; got 1",
        ),
        ({"first": Sample(normal(30, 2), np.zeros(3))}, "one unit for each of the 30 rows"),
        (
            {"first": Sample(normal(30, 2), weight=-np.ones(30))},
            "weights of 0 or more for first; got -1",
        ),
    ],
)
def test_refusals(arguments: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=message):
        log_ratio(**{"first": normal(30, 2), "second": normal(30, 2, seed=1), **arguments})


def test_refusals_of_draws(shifted: LogRatio) -> None:
    with pytest.raises(ValueError, match="direction"):
        kl_divergence_of_samples(shifted, "backward")  # type: ignore[arg-type]
    for call in (kl_divergence_of_samples, total_variation_of_samples):
        with pytest.raises(ValueError, match="draws"):
            call(shifted, draws=Draws(0))


def test_entropy_of_a_normal_distribution_and_its_units(margin: Callable[..., None]) -> None:
    rows = normal(300, 2, seed=4)
    truth = math.log(2 * math.pi * math.e)
    entropy = entropy_of_sample(rows)
    found = read(entropy)
    # −log p has deviation 1 in two dimensions: the error is 1/√300.
    margin(3 / math.sqrt(300) - abs(found.value - truth))
    width = (found.upper - found.lower) / 2 / 1.88  # of 94 %
    assert 0.5 < width * math.sqrt(300) < 2
    margin(entropy.upper.value.item() - truth + 3 / math.sqrt(300))
    scaled = read(entropy_of_sample(10 * rows))
    assert scaled.value - 2 * math.log(10) == pytest.approx(found.value, abs=1e-6)
    assert read(entropy_of_sample(rows, Draws(seed=1))).value != found.value
    assert len(entropy_of_sample(rows, Draws(120)).value) == 120


def test_entropy_counts_units_and_weights() -> None:
    rows = normal(100, 1, seed=4)
    copied, unit = np.concatenate([rows, rows]), np.tile(np.arange(100), 2)
    found = read(entropy_of_sample(Sample(copied, unit, np.full(200, 0.5))))
    assert abs(found.value - read(entropy_of_sample(rows)).value) < 0.1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.repeat(normal(50, 2), 2, axis=0), "50 rows that repeat another unit's"),
        (normal(50, 2)[:, [0, 0, 1]], "rows in 2 of 3 dimensions"),
        (np.linspace(0, 1, 50)[:, None] * [1.0, 0.0], "rows in 1 of 2 dimensions"),
    ],
)
def test_entropy_refuses_distributions_without_a_density(rows: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        entropy_of_sample(rows)
