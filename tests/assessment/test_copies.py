"""Copies: repeats are one row's evidence, copies of real rows are found at the rate that is set."""

from __future__ import annotations

import numpy as np
import pytest

from rbpp.assessment.copies import copied_rows, copies_within, same_rows
from rbpp.assessment.neighbours import unit_length
from rbpp.assessment.share_terms import is_same
from rbpp.assessment.sources import read_sources


def rows(count: int, seed: int, dimension: int = 8) -> np.ndarray:
    return unit_length(np.random.default_rng(seed).normal(size=(count, dimension)))


@pytest.mark.parametrize("noise", [0.0, 0.002])
def test_forty_copies_of_five_rows_are_five(noise):
    random = np.random.default_rng(1)
    repeated = np.repeat(rows(5, 0), 40, axis=0) + noise * random.normal(size=(200, 8))
    found = copies_within(repeated, rows(150, 2))
    assert found.distinct == 5
    assert found.largest == 40
    assert found.weights.sum() == pytest.approx(5)
    assert found.near == pytest.approx(1 - 5 / 200)
    assert found.exact == (pytest.approx(1 - 5 / 200) if noise == 0 else 0)


def test_rows_of_one_distribution_are_hardly_ever_copies(margin):
    found = copies_within(rows(300, 0), rows(300, 1))
    assert found.exact == 0
    margin(0.02 - found.near)


def test_equal_texts_are_copies_whatever_their_vectors():
    texts = ["a", "b", "a", "c"]
    found = copies_within(rows(4, 0), rows(20, 1), texts)
    assert found.group[0] == found.group[2]
    assert found.distinct == 3


def with_copies(seed):
    """200 rows, 20 copies of anchors and 20 paraphrases of other anchors, held against both."""
    random = np.random.default_rng(4 * seed + 3)
    anchors, held_out = rows(100, 4 * seed), rows(400, 4 * seed + 1)
    paraphrase = unit_length(anchors[:20] + 0.02 * random.normal(size=(20, 8)))
    synthetic = np.concatenate([rows(200, 4 * seed + 2), anchors[20:40], paraphrase])
    return copied_rows(synthetic, anchors, held_out)


def test_copies_of_anchors_are_found_and_paraphrases_are_called_that():
    found = with_copies(0)
    kinds = found.kind()
    assert kinds[200:220] == ["copy"] * 20
    assert kinds[220:].count("paraphrase") >= 18
    assert np.array_equal(found.source[200:240], [*range(20, 40), *range(20)])
    assert found.exact.mean() == pytest.approx(20 / 240)


def test_most_of_what_is_copied_is_beyond_what_held_out_rows_have(margin):
    """A sixth is planted: half of that at least; a twentieth of the others at most. Means of 4."""
    found = [with_copies(seed) for seed in range(4)]
    excess = [one.copied_share - one.reference_share for one in found]
    margin(float(np.mean(excess)) - 1 / 12)
    margin(200 / 20 - float(np.mean([sum(map(bool, one.kind()[:200])) for one in found])))


def test_rows_of_the_same_distribution_copy_as_often_as_held_out_ones(margin):
    """Over 40 draws without a copy, a discovery at rate 0.1 in 10 is improbable (p < 0.01)."""
    discoveries, apart = 0, 0.0
    for seed in range(40):
        found = copied_rows(rows(100, 3 * seed), rows(50, 3 * seed + 1), rows(200, 3 * seed + 2))
        discoveries += bool((found.false_discovery_rate < 0.1).any())
        apart = max(apart, abs(found.copied_share - found.reference_share))
    margin(0.15 - apart)
    margin(10 - discoveries)


def test_without_held_out_rows_there_is_no_reference():
    found = copied_rows(rows(20, 0), rows(30, 1))
    assert np.isnan(found.reference_share)
    assert len(found.p_value) == 20


def test_q_values_are_those_of_the_definition():
    found = with_copies(0)
    ordered, count = np.sort(found.p_value), len(found.p_value)
    expected = [min(count * ordered[j] / (j + 1) for j in range(i, count)) for i in range(count)]
    assert np.allclose(np.sort(found.false_discovery_rate), np.minimum(1, expected))


def test_the_same_file_twice_says_so():
    assert same_rows(["a", "b", "b"], ["b", "a"])
    assert same_rows(rows(5, 0), rows(5, 0)[::-1])
    assert not same_rows(rows(5, 0), rows(5, 1))


def test_refusals():
    with pytest.raises(ValueError, match="Expected 3 anchors or more; got 2"):
        copied_rows(rows(5, 0), rows(2, 1))
    with pytest.raises(ValueError, match="Expected 3 distinct reference rows or more; got 1"):
        copies_within(rows(5, 0), np.repeat(rows(1, 1), 5, 0))
    with pytest.raises(ValueError, match="Expected 5 texts; got 1"):
        copies_within(rows(5, 0), rows(20, 1), ["a"])


def test_rows_saved_with_half_the_digits_are_the_same_rows():
    rows = np.random.default_rng(0).normal(size=(40, 3))
    given = {"target": rows, "synthetic": rows[::-1].astype(np.float32), "output": rows + 1e-3}
    found = read_sources(given)
    assert is_same(found, "target", "synthetic")
    assert not is_same(found, "target", "output")
