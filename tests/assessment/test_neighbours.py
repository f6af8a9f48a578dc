"""Neighbours: against a full sort, with ties, unequal sizes and the row itself left out."""

from __future__ import annotations

import numpy as np
import pytest

from rbpp.assessment.neighbours import (
    kth_distance,
    matched_rank,
    nearest,
    neighbour_shares,
    unit_length,
)


def rows(count: int, seed: int, dimension: int = 6) -> np.ndarray:
    return unit_length(np.random.default_rng(seed).normal(size=(count, dimension)))


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("count", [7, 600, 1100])
def test_neighbours_are_those_of_a_full_sort(own, count):
    pool = rows(count, 0)
    queries = pool if own else rows(50, 1)
    apart = np.linalg.norm(queries[:, None].astype(float) - pool, axis=-1)
    if own:
        np.fill_diagonal(apart, np.inf)
    near, index = nearest(queries, pool, 5, own=own)
    expected = np.sort(apart, 1)[:, :5]
    assert np.allclose(near, expected, atol=1e-3)
    assert np.allclose(np.take_along_axis(apart, index, 1), expected, atol=1e-3)
    assert np.allclose(kth_distance(queries, pool, 5, own=own), expected[:, 4], atol=1e-3)


def test_a_copy_is_a_neighbour_and_the_row_itself_is_none():
    pool = np.concatenate([rows(20, 0), rows(20, 0)[:1]])
    near, index = nearest(pool, pool, 1, own=True)
    assert index[0, 0] == 20
    assert index[20, 0] == 0
    assert near[0, 0] < 1e-3


@pytest.mark.parametrize("sizes", [(40, 40), (30, 90), (200, 20)])
@pytest.mark.parametrize("scale", [0.05, 0.2, 0.5])
def test_shares_hold_half_of_the_mass_in_either_source(sizes, scale):
    """Against a loop over rows that adds the mass of neighbours one by one."""
    first, second = rows(sizes[0], 0), rows(sizes[1], 1)
    (of_first,), (of_second,) = neighbour_shares(first, second, (scale,))
    pool = np.concatenate([first, second])
    source = np.repeat([0, 1], sizes)
    for place, found in ((3, of_first[3]), (sizes[0] + 5, of_second[5])):
        apart = np.linalg.norm(pool - pool[place], axis=1)
        left = [sizes[s] - (source[place] == s) for s in range(2)]
        mass, of = 0.0, 0.0
        for other in np.argsort(apart):
            if other == place:
                continue
            unit = min(0.5 / left[source[other]], scale - mass)
            mass, of = mass + unit, of + unit * source[other]
            if mass >= scale - 1e-12:
                break
        assert found == pytest.approx(of / scale, abs=1e-5)


def test_rows_at_one_distance_count_in_proportion():
    """All rows equal: every share is the other rows' proportion of mass, whatever the order."""
    same = np.ones((12, 3), dtype=np.float32)
    (of_first,), (of_second,) = neighbour_shares(same, same, (0.2,))
    assert np.allclose(of_first, 0.5)
    assert np.allclose(of_second, 0.5)


@pytest.mark.parametrize(("seeds", "each"), [(300, 1), (60, 10)])
def test_a_rank_is_matched_past_the_paraphrases_of_a_seed(seeds, each, margin):
    """Own rows and others see the other seeds alike: past its own seed, rank meets rank.

    So the others' fifth level lies about the (each - 1) + 5 th of the own rows, above it as often
    as below: the mean rank is half a rank more, up to four standard errors of the mean of 24 draws.
    """
    ranks = []
    for draw in range(24):
        random = np.random.default_rng([draw, each])
        middles = unit_length(random.normal(size=(seeds, 16)))
        noise = 0.1 * random.normal(size=(seeds * each, 16)) if each > 1 else 0.0
        own = unit_length(np.repeat(middles, each, 0) + noise)
        ranks.append(matched_rank(own, unit_length(random.normal(size=(300, 16)))))
    expected = each - 1 + 5.5
    margin(4 * np.std(ranks, ddof=1) / 24**0.5 - abs(np.mean(ranks) - expected))


def test_a_rank_is_past_the_paraphrases_of_a_seed_whatever_the_draws():
    random = np.random.default_rng(0)
    paraphrases = unit_length(
        np.repeat(rows(30, 0, 16), 10, 0) + 0.02 * random.normal(size=(300, 16))
    )
    assert matched_rank(paraphrases, rows(300, 2, 16)) > 9


def test_refusals():
    with pytest.raises(ValueError, match="Expected k of 1 to 4; got 5"):
        nearest(rows(5, 0), rows(5, 0), 5, own=True)
    with pytest.raises(ValueError, match="Expected k of 1 to 5; got 0"):
        kth_distance(rows(5, 0), rows(5, 0), 0)
    with pytest.raises(ValueError, match="Expected finite rows"):
        unit_length(np.array([[1.0, np.nan]]))
