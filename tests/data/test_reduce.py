"""Principal components against a direct eigendecomposition; the contrast against planted rows."""

import numpy as np
import pytest

from rbpp.data.reduce import (
    contrast,
    dimension_rule,
    moment_components,
    principal_components,
)


@pytest.fixture
def pool():
    random = np.random.default_rng(0)
    mixing = random.normal(size=(6, 6))
    return [random.normal(size=(40, 6)) @ mixing + 5, random.normal(size=(30, 6)) @ mixing + 5]


def test_components_are_the_covariances_leading_eigenvectors(pool):
    projection = principal_components(pool, 2)
    rows = np.concatenate(pool)
    values, vectors = np.linalg.eigh(np.cov(rows.T, bias=True))
    overlap = np.abs(projection.axes[:, :2].T @ vectors[:, [-1, -2]])
    np.testing.assert_allclose(overlap, np.eye(2), atol=1e-9)
    np.testing.assert_allclose(projection.explained, values[[-1, -2]] / values.sum())
    coordinates = projection(rows)
    np.testing.assert_allclose(coordinates.mean(0), 0, atol=1e-9)
    assert coordinates.shape == (70, 2)
    assert coordinates[:, 0].std() == pytest.approx(1)


def test_the_contrast_sees_up_to_four_times_as_many_components(pool):
    rows = pool[0]
    projection = principal_components(pool, 1)
    assert projection.deep(rows).shape == (40, 4)
    assert principal_components(pool, 2).deep(rows).shape == (40, 6)
    np.testing.assert_array_equal(projection.deep(rows)[:, :1], projection(rows))


def test_all_components_keep_all_distances(pool):
    projection = principal_components(pool, 6)
    rows = np.concatenate(pool)
    before = np.linalg.norm(rows[0] - rows[1])
    after = np.linalg.norm(projection(rows)[0] - projection(rows)[1]) * projection.scale
    assert after == pytest.approx(before)
    assert projection.explained.sum() == pytest.approx(1)


@pytest.mark.parametrize("dimension", [None, 2])
def test_moments_of_the_sources_give_the_components_of_their_rows(pool, dimension):
    expected = principal_components(pool, dimension)
    moments = zip(*((len(r), r.mean(0), np.cov(r.T, bias=True)) for r in pool), strict=True)
    found = moment_components(*moments, dimension)
    np.testing.assert_allclose(found.explained, expected.explained)
    assert found.scale == pytest.approx(expected.scale)
    signs = np.sign((found.axes * expected.axes).sum(0))
    np.testing.assert_allclose(found.deep(pool[0]) * signs, expected.deep(pool[0]), atol=1e-9)


def test_the_rule_follows_the_smallest_source():
    assert dimension_rule([5, 1000], 100) == 5
    assert dimension_rule([1, 1000], 100) == 2
    assert dimension_rule([500, 1000], 100) == 32
    assert dimension_rule([500, 1000], 3) == 3


def test_the_rule_is_the_default(pool):
    assert principal_components([pool[0][:4], pool[1]]).dimension == 4


@pytest.mark.parametrize("dimension", [0, 7])
def test_a_dimension_that_is_not_there_is_refused(pool, dimension):
    with pytest.raises(ValueError, match="Expected a dimension from 1 to the 6 directions"):
        principal_components(pool, dimension)


def test_identical_rows_are_refused():
    with pytest.raises(ValueError, match="identical"):
        principal_components([np.ones((3, 2)), np.ones((3, 2))])


def test_contrast_finds_planted_rows_and_leaves_the_rest_alone():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(400, 10))
    label = np.repeat([0, 1], 200)
    vectors[-20:] += 6  # 10 % of source 1
    value, placed = contrast(vectors, label, others=np.stack([vectors[-1], vectors[0]]))
    assert value[-20:].min() > 0.8
    assert value[:380].max() < value[-20:].min()
    assert placed[0] > 0.8 > placed[1]


def test_contrast_does_not_leak_a_rows_own_label():
    """Of two sources of one distribution it is the same in both: within 3 standard errors."""
    random = np.random.default_rng(1)
    gaps = []
    for _ in range(20):
        value, _ = contrast(random.normal(size=(120, 5)), np.repeat([0, 1], 60))
        gaps.append(value[60:].mean() - value[:60].mean())
    # Leaving a row out makes its own source a little rarer around it: about 1 / n.
    bias = 1 / 120
    assert abs(np.mean(gaps)) < bias + 3 * np.std(gaps) / np.sqrt(len(gaps))


def test_contrast_gives_unequal_sources_like_mass():
    """Ten to one: the plain share of source 1 would be 0.91 everywhere."""
    random = np.random.default_rng(2)
    value, _ = contrast(random.normal(size=(550, 4)), np.repeat([0, 1], [50, 500]))
    assert 0.35 < value.mean() < 0.7
