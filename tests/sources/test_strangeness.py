"""Strangeness to a reference: its own rows and others of its law look alike, others do not."""

import numpy as np
import pytest
from scipy.stats import kstest, rankdata

from rbpp.data.rows import read_rows
from rbpp.sources.scene import lay_out
from rbpp.sources.strangeness import Strangeness


def rows(count, seed, dimension=5):
    return np.random.default_rng(seed).normal(size=(count, dimension))


def test_rows_of_one_law_are_no_stranger_than_the_references_own():
    """Mean ranks of 40 pairs of sources against their normal law: false alarms one in 1,000."""
    means = []
    for seed in range(40):
        contrast = np.random.default_rng(1000 + seed).normal(size=400)
        first, second = rows(200, 2 * seed), rows(200, 2 * seed + 1)
        strange = Strangeness(contrast[:200], first)
        both = np.concatenate([strange.own, strange(contrast[200:], second)])
        means.append((rankdata(both)[200:].mean() - 200.5) / np.sqrt(200 * 401 / 12 / 200))
    assert kstest(means, "norm").pvalue > 0.001


def test_rows_that_lie_alone_are_strange_whatever_their_contrast():
    reference, contrast = rows(200, 0), rows(200, 1, 1)[:, 0]
    strange = Strangeness(contrast, reference)
    alone = 20 * np.eye(5)
    limit = np.quantile(strange.own, 0.5)
    assert (strange(np.zeros(5), alone) > limit).all()
    assert (strange(np.full(5, 2.0), alone) > strange.own.max()).all()
    assert (strange(np.zeros(5), np.zeros((5, 5))) < limit).all()


def test_a_high_contrast_is_strange_wherever_the_row_is():
    reference, contrast = rows(200, 0), rows(200, 1, 1)[:, 0]
    strange = Strangeness(contrast, reference)
    inside = np.zeros((1, 5))
    low, high = strange(np.array([-9.0]), inside), strange(np.array([9.0]), inside)
    assert low < high
    # The contrast's rank counts twice as much as the distance's.
    far = strange(np.array([-9.0]), 50 * np.ones((1, 5)))
    assert low < far < high


def test_a_reference_of_one_row_has_a_strangeness():
    strange = Strangeness(np.zeros(1), np.zeros((1, 2)))
    assert np.isfinite(strange.own).all()
    assert np.isfinite(strange(np.ones(3), np.ones((3, 2)))).all()


def test_ties_share_their_rank():
    strange = Strangeness(np.array([1.0, 1.0, 0.0]), np.zeros((3, 2)))
    assert strange.own[0] == strange.own[1] > strange.own[2]


@pytest.mark.parametrize("text", [True, False])
def test_texts_are_compared_by_angle_and_vectors_as_they_are(text):
    random = np.random.default_rng(0)
    words = np.array([f"word{place}" for place in range(30)])

    def source(count):
        if not text:
            return 3 * random.normal(size=(count, 4))
        return [" ".join(random.choice(words, random.integers(3, 9))) for _ in range(count)]

    scene = lay_out([read_rows(source(40), role) for role in ("target", "synthetic")])
    length = np.linalg.norm(scene.directions(0), axis=1)
    if text:
        np.testing.assert_allclose(length, 1)
    else:
        assert scene.directions(0) is scene.vectors[0]
        assert length.std() > 0.1


def test_foreign_rows_that_lie_alone_are_found_where_none_prevails():
    """30 rows of 300, each in a direction of its own: their neighbours are of both sources."""
    from rbpp.sources.assess import assess

    random = np.random.default_rng(3)
    target, synthetic = random.normal(size=(2, 300, 40))
    synthetic[-30:] = 5 * np.sqrt(40) * np.eye(40)[:30] + random.normal(size=(30, 40))
    result = assess(target=target, synthetic=synthetic, chains=2, draws=100)
    own = result.rows[result.rows["source"] == "synthetic"]
    assert own["off_task"].tail(30).mean() > 2 * own["off_task"].head(270).mean()
