"""The posterior of source weights: two halves agree, planted parts are found, groups count once."""

import numpy as np
import pytest
import torch

from rbpp.randomness import generator
from rbpp.sources.shares import design_effect, source_weights, unsampled_components


def draws_of(counts, reference=0, draws=200, seed=0, variances=None):
    counts = torch.as_tensor(counts, dtype=torch.float64).unsqueeze(0)
    variances = torch.zeros_like(counts) if variances is None else variances
    return source_weights(counts, variances, reference, draws=draws, generator=generator(seed))


def test_weights_are_distributions_with_the_counts_shares():
    counts = [[400.0, 300, 300], [100, 500, 400]]
    weights, _, _ = draws_of(counts)
    assert weights.shape == (1, 200, 2, 3)
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 200, 2, dtype=torch.float64))
    expected = torch.tensor(counts, dtype=torch.float64) / 1000
    torch.testing.assert_close(weights.mean((0, 1)), expected, atol=0.03, rtol=0)


def test_equal_sources_follow_and_do_not_differ():
    """Independent Dirichlet posteriors would differ by 0.07 on average here."""
    random = np.random.default_rng(0)
    shares = random.dirichlet(np.ones(12))
    divergence = []
    for seed in range(10):
        counts = random.multinomial(300, shares, size=2)
        weights, _, follows = draws_of(counts, seed=seed)
        divergence.append(0.5 * (weights[:, :, 0] - weights[:, :, 1]).abs().sum(-1).mean())
        assert follows[:, 1].mean() > 0.8
    assert np.mean(divergence) < 0.02


def test_components_that_the_anchors_lack_are_unsampled():
    weights, factors, _ = draws_of([[100, 100, 100, 0], [120, 0, 100, 100], [100, 50, 0, 0]])
    found = unsampled_components(weights, factors, reference=0, anchor=2)
    assert found.double().mean(1)[0].round().tolist() == [0, 0, 1, 0]
    alone = unsampled_components(weights, factors, reference=0, anchor=0)
    assert not alone.any()


def test_few_anchors_leave_it_open():
    """None of 12 rows where 3 would be expected: neither surely there nor surely absent."""
    weights, factors, _ = draws_of([[60.0, 50, 40], [7, 5, 0]])
    found = unsampled_components(weights, factors, reference=0, anchor=1)
    assert 0.02 < found[..., 2].double().mean() < 0.98


def test_uncertain_components_widen_the_weights():
    counts = [[200.0, 200], [200, 200]]
    narrow, _, _ = draws_of(counts, draws=1000)
    wide, _, _ = draws_of(
        counts, draws=1000, variances=torch.full((1, 2, 2), 900.0, dtype=torch.float64)
    )
    assert wide[..., 0, 0].std() > 1.5 * narrow[..., 0, 0].std()


def test_chains_are_independent_fits_side_by_side():
    counts = torch.tensor([[[50.0, 50], [50, 50]], [[90, 10], [90, 10]]], dtype=torch.float64)
    weights, _, _ = source_weights(
        counts, torch.zeros_like(counts), 0, draws=100, generator=generator(0)
    )
    torch.testing.assert_close(
        weights.mean((1, 2))[:, 0], torch.tensor([0.5, 0.9]).double(), atol=0.05, rtol=0
    )


def test_design_effect_is_the_size_of_groups_of_copies_and_one_for_single_rows():
    random = generator(0)
    labels = torch.multinomial(torch.ones(4), 200, replacement=True, generator=random)
    single = torch.nn.functional.one_hot(labels, 4).double()
    assert design_effect(single, torch.arange(200)) == pytest.approx(1)
    copied = single.repeat_interleave(5, 0)
    groups = torch.arange(200).repeat_interleave(5)
    assert design_effect(copied, groups) == pytest.approx(5)
    # Groups that say nothing of the component leave rows independent: 1, within the noise of 200.
    assert design_effect(copied[torch.randperm(1000, generator=random)], groups) < 1.5


@pytest.mark.parametrize(
    ("counts", "reference", "message"),
    [
        (torch.ones(2, 3), 0, "shapes"),
        (-torch.ones(1, 2, 3), 0, "counts ≥ 0"),
        (torch.full((1, 2, 3), torch.nan), 0, "counts ≥ 0"),
        (torch.ones(1, 2, 3), 2, "reference"),
    ],
)
def test_bad_counts_are_refused(counts, reference, message):
    with pytest.raises(ValueError, match=message):
        source_weights(counts, torch.zeros_like(counts), reference, draws=2, generator=generator(0))
