"""The two-groups model: planted rows are found, halves agree, emphasis is not absence."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from rbpp.data.reduce import contrast
from rbpp.inference_data import highest_density_interval
from rbpp.randomness import generator
from rbpp.sources.two_groups import foreign_rows

CENTRES = np.random.default_rng(0).normal(size=(4, 6)) * 4


def clusters(which, seed):
    return CENTRES[which] + np.random.default_rng(seed).normal(size=(len(which), 6))


def scores(reference, source):
    label = np.repeat([0.0, 1.0], [len(reference), len(source)])
    found, _ = contrast(np.concatenate([reference, source]), label)
    return torch.as_tensor(found[label == 0]), torch.as_tensor(found[label == 1])


def found(pair, seed=0, **options):
    return foreign_rows(*pair, chains=2, draws=100, generator=generator(seed), **options)


def interval(share):
    return highest_density_interval(share.flatten().numpy(), 0.94)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_planted_shares_are_covered(share):
    """Ten data sets of 400 rows a side, 94 % intervals: under seven cover once in 3,000."""
    covered, areas = 0, []
    for seed in range(10):
        random = np.random.default_rng(seed)
        foreign = np.arange(400) < round(400 * share)
        task = clusters(random.integers(3, size=400), 100 + seed)
        made = clusters(np.where(foreign, 3, random.integers(3, size=400)), 200 + seed)
        result = found(scores(task, made), seed)
        low, high = interval(result.share)
        covered += low <= share <= high
        areas.append(roc_auc_score(foreign, result.probability))
        assert result.share.shape == (2, 100)
    assert covered >= 7
    assert np.mean(areas) > 0.99


def test_halves_of_one_distribution_have_nothing_foreign():
    """Zero is in every interval; 5 % is above nearly all."""
    highs = []
    for seed in range(10):
        random = np.random.default_rng(seed)
        halves = [clusters(random.integers(3, size=400), part + seed) for part in (100, 200)]
        low, high = interval(found(scores(*halves), seed).share)
        assert low == 0
        highs.append(high)
    assert np.mean(np.array(highs) < 0.05) >= 0.8


def test_a_source_confined_to_a_third_lacks_the_rest_and_has_nothing_foreign():
    random = np.random.default_rng(0)
    task = clusters(random.integers(3, size=600), 1)
    narrow = clusters(np.zeros(600, dtype=int), 2)
    first, second = scores(task, narrow)
    low, high = interval(found((first, second)).share)
    assert low == 0
    assert high < 0.05
    missing = interval(found((-second, -first)).share)
    assert missing[0] < 2 / 3 < missing[1]


def test_grouped_rows_widen_the_share():
    random = np.random.default_rng(3)
    foreign = np.arange(400) < 80
    task = clusters(random.integers(3, size=400), 4)
    made = clusters(np.where(foreign, 3, random.integers(3, size=400)), 5)
    pair = scores(task, made)
    plain, grouped = (found(pair, effect=effect).share.std() for effect in (1.0, 5.0))
    assert grouped > 1.5 * plain
    few = found(pair, reference_effect=20.0)
    assert not torch.equal(few.share, found(pair).share)


def test_the_same_seed_repeats():
    pair = (torch.arange(50.0), torch.arange(50.0) + 0.5)
    assert torch.equal(found(pair, 1).share, found(pair, 1).share)
    assert not torch.equal(found(pair, 1).share, found(pair, 2).share)


def test_many_rows_are_thinned_for_the_share_alone(monkeypatch):
    monkeypatch.setattr("rbpp.sources.two_groups._MOST_ROWS", 100)
    values = torch.randn(300, generator=generator(0))
    result = found((values, torch.cat([values[:250], torch.full((50,), 9.0)])))
    assert result.probability.shape == (300,)
    low, high = interval(result.share)
    assert low < 1 / 6 < high


@pytest.mark.parametrize("bad", [torch.empty(0), torch.tensor([0.0, torch.nan]), torch.ones(2, 2)])
def test_bad_scores_are_named(bad):
    with pytest.raises(ValueError, match="scores \\(n,\\) of the source"):
        found((torch.ones(3), bad))
