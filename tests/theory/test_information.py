"""Contrastive and variational bounds against informations known in closed form."""

import math

import pytest
import torch

from rbpp.estimate import Estimate, mean_estimate
from rbpp.randomness import generator
from rbpp.theory import information
from rbpp.theory.information import (
    contrastive_bounds,
    contrastive_bounds_of_rows,
    cross_entropy,
    midpoint,
    sides_in_words,
    variational_upper_bound,
)

# One-sided checks at 4 standard errors: a false alarm in 30,000 runs; seeds are fixed anyway.
ERRORS = 4.0


def gaussian_pairs(correlation: float, count: int, batch: tuple[int, ...] = (), seed: int = 0):
    """log p(b_i | a_j) of pairs from a bivariate normal, and the true information."""
    g = generator(seed)
    a = torch.randn(*batch, count, generator=g, dtype=torch.float64)
    noise = math.sqrt(1 - correlation**2)
    b = correlation * a + noise * torch.randn(*batch, count, generator=g, dtype=torch.float64)
    residual = (b.unsqueeze(-1) - correlation * a.unsqueeze(-2)) / noise
    matrix = -0.5 * residual.square() - math.log(noise) - 0.5 * math.log(2 * math.pi)
    return matrix, -0.5 * math.log(1 - correlation**2)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_contrastive_bounds_hold_a_gaussian_information_between_its_sides(correlation, margin):
    matrix, truth = gaussian_pairs(correlation, 400, batch=(20,))
    lower, upper = contrastive_bounds(matrix)
    for side, sign in ((lower, 1), (upper, -1)):
        mean = side.value.mean()
        error = (side.standard_error.square().mean() / 20).sqrt()
        margin(ERRORS * error - sign * (mean - truth))
    assert (lower.direction, upper.direction, lower.count) == ("lower", "upper", 400)
    assert bool((lower.value <= upper.value + 1e-12).all())
    margin(0.05 - float((upper.value - lower.value).mean()))


def test_standard_errors_are_those_of_repeated_bounds(margin):
    matrix, _ = gaussian_pairs(0.8, 100, batch=(600,), seed=1)
    for side in contrastive_bounds(matrix):
        spread, stated = side.value.std(), side.standard_error.square().mean().sqrt()
        # A standard deviation of 600 draws is off by 3 % (one standard error).
        margin(0.15 - abs(float(spread / stated) - 1))


def test_lower_side_saturates_at_log_of_the_count_and_upper_stays_above(margin):
    matrix, truth = gaussian_pairs(0.999999, 16, batch=(50,), seed=2)
    lower, upper = contrastive_bounds(matrix)
    assert float(lower.value.max()) <= math.log(16) + 1e-12
    assert bool(lower.saturated.all())
    margin(float(upper.value.mean()) - truth)
    assert not bool(contrastive_bounds(gaussian_pairs(0.5, 16)[0])[0].saturated)


def test_impossible_pairs_stay_in_the_sums():
    """b copies a of two letters: exactly log 2, and dropping −∞ would give 0."""
    letters = torch.tensor([0, 0, 0, 1, 1, 1])
    matrix = torch.where(letters[:, None] == letters[None, :], 0.0, -math.inf).double()
    lower, upper = contrastive_bounds(matrix)
    assert float(lower.value) == pytest.approx(math.log(2))
    assert float(upper.value) == pytest.approx(math.log(5 / 2))
    alone = torch.where(torch.eye(3, dtype=torch.bool), 0.0, -math.inf).double()
    lower, upper = contrastive_bounds(alone)
    assert float(lower.value) == pytest.approx(math.log(3))
    assert float(upper.value) == math.inf
    assert float(upper.standard_error) == math.inf
    assert float(lower.standard_error) == pytest.approx(0, abs=1e-12)


def by_definition(matrix):
    """Both sides as their docstring has them, without blocks, and −E log p(b)."""
    count = matrix.shape[-1]
    own = matrix.diagonal(dim1=-2, dim2=-1)
    others = matrix.masked_fill(torch.eye(count, dtype=torch.bool), -math.inf)
    with_own = matrix.logsumexp(-1) - math.log(count)
    without = others.logsumexp(-1) - math.log(count - 1)
    return (
        (own - with_own).mean(-1),
        (own - without).mean(-1),
        -with_own.mean(-1),
        -without.mean(-1),
    )


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_one_pass_in_blocks_is_the_definition(scale, monkeypatch):
    """Log densities that span decades: the largest other pair, not the own one, sets the scale."""
    matrix = scale * gaussian_pairs(0.9, 37, batch=(2, 3), seed=4)[0]
    before = matrix.clone()
    expected = by_definition(matrix)
    for elements in (1, 6 * 37 * 5, 2**18):
        monkeypatch.setattr(information, "_BLOCK_ELEMENTS", elements)
        found = *contrastive_bounds(matrix), *cross_entropy(matrix)
        for side, value in zip(found, expected, strict=True):
            torch.testing.assert_close(side.value, value)
            assert bool(side.standard_error.isfinite().all())
    assert torch.equal(matrix, before)


@pytest.mark.parametrize("rows", [4, 6])
def test_rows_that_are_not_as_many_as_columns_are_refused(rows):
    with pytest.raises(ValueError, match="R rows of R columns"):
        contrastive_bounds_of_rows(torch.zeros(rows, 5).split(2))


def test_cross_entropy_is_between_its_sides(margin):
    """b = ρ a + noise is standard normal: its entropy is ½ log 2πe."""
    with_own, without = cross_entropy(gaussian_pairs(0.8, 200, batch=(100,), seed=5)[0])
    truth = 0.5 * math.log(2 * math.pi * math.e)
    for side, sign in ((with_own, 1), (without, -1)):
        error = (side.standard_error.square().mean() / 100).sqrt()
        margin(ERRORS * error - sign * (side.value.mean() - truth))
        # A standard deviation of 100 is off by 7 % (one standard error).
        assert float(
            side.value.std() / side.standard_error.square().mean().sqrt()
        ) == pytest.approx(1, abs=0.3)
    assert bool((with_own.value < without.value).all())


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.zeros(3), "shape"),
        (torch.zeros(3, 2), "shape"),
        (torch.zeros(1, 1), "R ≥ 2"),
        (torch.zeros(2, 2, dtype=torch.long), "floating"),
        (torch.tensor([[0.0, math.nan], [0.0, 0.0]]), r"nan at \(0, 1\)"),
        (torch.tensor([[math.inf, 0.0], [0.0, 0.0]]), "below"),
        (torch.tensor([[0.0, 0.0], [0.0, -math.inf]]), "density zero for pair 1"),
    ],
)
def test_refuses_what_has_no_bounds(matrix, message):
    with pytest.raises(ValueError, match=message):
        contrastive_bounds(matrix)


def test_the_variational_formula_bounds_from_above_and_is_tight_at_the_marginal(margin):
    g = generator(3)
    signal, noise = 2.0, 0.5
    truth = 0.5 * math.log(1 + signal**2 / noise**2)
    centre = signal * torch.randn(200, 300, generator=g, dtype=torch.float64)

    def divergence(variance):
        return 0.5 * ((noise**2 + centre.square()) / variance - 1 + math.log(variance / noise**2))

    for variance, gap in ((signal**2 + noise**2, 0.0), (9.0, None)):
        found = variational_upper_bound(divergence(variance))
        assert found.direction == "upper"
        mean = float(found.value.mean())
        error = float((found.standard_error.square().mean() / 200).sqrt())
        exact = gap
        if gap is None:  # KL of the marginal to the reference distribution
            ratio = (signal**2 + noise**2) / variance
            exact = 0.5 * (ratio - 1 - math.log(ratio))
        margin(ERRORS * error - abs(mean - truth - exact))


def test_mean_estimate_says_that_infinite_values_have_no_error():
    found = mean_estimate(torch.tensor([1.0, math.inf]))
    assert float(found.value) == math.inf
    assert float(found.standard_error) == math.inf
    with pytest.raises(ValueError, match="at least 2"):
        mean_estimate(torch.tensor([1.0]))


def side(value, method="", limit=math.inf):
    return Estimate(torch.tensor(value), torch.tensor(0.1), 100, method=method, limit=limit)


def test_the_midpoint_is_the_lower_side_where_nothing_bounds_from_above():
    assert float(midpoint(side(1.0), side(2.0)).value) == 1.5
    assert float(midpoint(side(1.0), side(math.inf)).value) == 1.0
    assert float(midpoint(side(1.0), side(2.0)).upper.value) == 2.0


def test_words_name_estimators_saturation_and_silence():
    tight = midpoint(side(1.0, "InfoNCE", math.log(100)), side(1.1))
    assert "InfoNCE" in sides_in_words(tight)
    assert not bool(tight.lower.saturated)
    assert not tight.far_apart
    loose = midpoint(side(4.5, "InfoNCE", math.log(100)), side(12.0, "variational"))
    said = sides_in_words(loose)
    for part in ("variational", "saturated near its limit 4.61", "too far apart"):
        assert part in said
    assert bool(loose.lower.saturated)
    assert loose.far_apart
    assert midpoint(side(0.1), side(math.inf)).far_apart
