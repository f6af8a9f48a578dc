"""Principal components against a direct eigendecomposition."""

import numpy as np
import pytest

from rbpp.data.reduce import (
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
    np.testing.assert_allclose(found(pool[0]) * signs, expected(pool[0]), atol=1e-9)


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
