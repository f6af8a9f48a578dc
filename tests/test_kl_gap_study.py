"""The Gaussian-mixture study: what its numbers are, and that every argument moves them."""

import numpy as np
import pytest
import torch

from rbpp import kl_gap_study
from rbpp.checkpoint import Checkpoint
from rbpp.compute import Compute
from rbpp.kl_gap_study import sample_worlds, study
from rbpp.mixtures import histograms
from rbpp.mixtures.divergences import kl_divergence
from rbpp.randomness import generator

FEW = {"worlds": 4, "posterior_draws": 3, "points": 64}


@pytest.fixture(scope="module")
def worlds():
    return sample_worlds(6, seed=1)


def test_worlds_are_those_of_the_paper(worlds):
    assert worlds.anchor.shape == (6, 100, 2)
    assert worlds.synthetic.shape == (6, 200, 2)
    assert worlds.truth.components == 4
    assert worlds.parts == ("anchor-sampled",) * 2 + ("unsampled",) * 2 + ("irrelevant",) * 2
    # The generator knows the unsampled components exactly, and of the others the anchors' moments.
    torch.testing.assert_close(worlds.generator.means[:, 2:4], worlds.truth.means[:, 2:])
    anchors = worlds.anchor.unflatten(1, (2, 50))
    torch.testing.assert_close(worlds.generator.means[:, :2], anchors.mean(2))


def test_worlds_follow_the_seed_and_the_knobs():
    first, second = (sample_worlds(2, seed=3, K=3, L=0) for _ in range(2))
    assert torch.equal(first.synthetic, second.synthetic)
    assert not torch.equal(first.synthetic, sample_worlds(2, seed=4, K=3, L=0).synthetic)
    assert first.generator.components == 5
    assert first.anchor_components == 3


def test_the_coverage_gap_is_the_difference_of_its_divergences(worlds, margin):
    anchor, synthetic = kl_gap_study.fit_worlds(worlds, posterior_draws=3)
    gap = kl_gap_study.kl_gaps(anchor, synthetic, worlds.truth, points=4096)
    parts = [
        kl_divergence(worlds.truth, fit, num_samples=4096, generator=generator(9))
        for fit in (anchor, synthetic)
    ]
    error = (parts[0].standard_error ** 2 + parts[1].standard_error ** 2).sqrt()
    difference = gap["kl_gap_coverage"].value - parts[0].value + parts[1].value
    margin(6.5 - difference.abs() / error)  # 18 t-values of 7 degrees: 6e-3 in all
    parts = [
        kl_divergence(fit, worlds.truth, num_samples=4096, generator=generator(9))
        for fit in (anchor, synthetic)
    ]
    error = (parts[0].standard_error ** 2 + parts[1].standard_error ** 2).sqrt()
    difference = gap["kl_gap"].value - parts[0].value + parts[1].value
    margin(6.5 - difference.abs() / (error + gap["kl_gap"].standard_error))


def test_fits_that_are_the_truth_have_no_gap(worlds):
    truth = worlds.truth
    for estimate in kl_gap_study.kl_gaps(truth, truth, truth).values():
        assert estimate.value.abs().max() < 1e-9


def test_the_histogram_is_no_divergence(worlds):
    """Of a distribution against itself the reference's estimator is far from zero."""
    source = generator(0)
    own = histograms.histogram_divergence(worlds.truth, worlds.truth, redraws=4, generator=source)
    assert own.value.shape == (6,)
    assert (own.value > 1).all()
    assert (own.standard_error > 0).all()
    seeded = histograms.histogram_divergence(worlds.truth, worlds.truth, redraws=4)
    assert torch.equal(seeded.value, own.value)


def test_the_histogram_agrees_with_numpy(worlds):
    rows = worlds.truth.sample((1000,), generator=generator(0))
    expected = [
        np.histogram2d(*rows[:, world].T.numpy(), bins=50, density=True)[0].ravel() + 1e-10
        for world in range(6)
    ]
    ours = histograms._histogram(rows).numpy()
    np.testing.assert_allclose(ours, [h / h.sum() for h in expected], rtol=1e-6, atol=1e-15)


def test_study_has_the_knob_and_the_world_as_dimensions():
    found = study("J", [2, 4], histogram_redraws=2, **FEW)
    data = found.idata
    for name in ("kl_gap", "kl_gap_coverage", "kl_gap_histogram"):
        gap = data["posterior"][name]
        assert gap.dims == ("chain", "draw", "J", "world")
        assert gap.shape == (1, 3, 2, 4)
        assert gap.attrs["units"] == "nats"
        assert (data["posterior"][f"{name}_mcse"] > 0).all()
    assert list(data["posterior"]["J"].values) == [2, 4]
    text = found.text()
    assert text.count("\n") >= 11
    assert "posterior sd" in text


def test_every_argument_of_the_study_changes_something():
    base = study("K", [2], **FEW)
    again = study("K", [2], **FEW)
    gap = base.idata["posterior"]["kl_gap"]
    assert (gap == again.idata["posterior"]["kl_gap"]).all()
    for change in ({"seed": 1}, {"points": 128}, {"anchors_per_component": 20}):
        other = study("K", [2], **{**FEW, **change}).idata["posterior"]["kl_gap"]
        assert not np.allclose(other, gap), change
    other = study("K", [2], **{**FEW, "worlds": 5, "posterior_draws": 4})
    assert other.idata["posterior"]["kl_gap"].shape == (1, 4, 1, 5)


def test_a_world_alone_does_not_depend_on_the_other_values():
    alone = study("K", [3], **FEW).idata["posterior"]["kl_gap"].sel(K=3)
    beside = study("K", [2, 3], **FEW).idata["posterior"]["kl_gap"].sel(K=3)
    np.testing.assert_allclose(alone, beside, rtol=1e-9)


@pytest.mark.parametrize(
    ("knob", "values", "message"),
    [
        ("K", [], "distinct values of K"),
        ("K", [2, 2], "distinct values of K"),
        ("anchor_component", [2], "did you mean anchor_components"),
    ],
)
def test_study_refuses(knob, values, message):
    with pytest.raises(ValueError, match=message):
        study(knob, values, **FEW)


def test_study_refuses_no_draws_and_a_knob_both_swept_and_set():
    with pytest.raises(ValueError, match=r"posterior_draws to be a whole .* got 0"):
        study("K", [2], worlds=2, posterior_draws=0)
    with pytest.raises(ValueError, match=r"histogram_redraws to be a whole .* got -1"):
        study("K", [2], worlds=2, histogram_redraws=-1)
    for name in ("K", "anchor_components"):
        with pytest.raises(ValueError, match="K either varied or set"):
            study("K", [2], **FEW, **{name: 3})


def test_histogram_refuses_one_dimension():
    line = sample_worlds(1, dimension=1).truth
    with pytest.raises(ValueError, match="two or more dimensions; got 1"):
        histograms.histogram_divergence(line, line, generator=generator(0))


def test_world_posterior_has_what_the_figures_need():
    world = kl_gap_study.world_posterior(posterior_draws=5, seed=2)
    assert "200 synthetic rows" in world.text()
    assert list(world.figures()) == ["chain", "parts"]
    assert world.plot("parts").get_xlabel() == "dimension 0"
    data = world.idata
    posterior, constant = data["posterior"], data["constant_data"]
    assert posterior["anchor_mean"].shape == (1, 5, 2, 2)
    assert posterior["synthetic_covariance"].shape == (1, 5, 6, 2, 2)
    assert data["observed_data"]["anchor"].shape == (100, 2)
    assert list(constant["generator_part"].values) == sorted(
        constant["generator_part"].values, key=("anchor-sampled", "unsampled", "irrelevant").index
    )


def test_more_worlds_than_one_batch_begin_with_those_of_fewer(monkeypatch):
    monkeypatch.setattr(kl_gap_study, "WORLDS_AT_ONCE", 3)
    few, many = (study("K", [2], **{**FEW, "worlds": count}) for count in (3, 7))
    gaps = many.idata["posterior"]["kl_gap"]
    assert gaps.sizes["world"] == 7
    np.testing.assert_array_equal(gaps[..., :3], few.idata["posterior"]["kl_gap"])
    assert len(np.unique(gaps)) == gaps.size


def test_a_study_goes_on_where_it_was_cut_off(tmp_path):
    whole = study("L", [0, 2, 3], **FEW)
    done = []

    def cut_off(function, items):
        for item in items:
            if len(done) == 2:
                raise KeyboardInterrupt
            yield function(item)
            done.append(item)

    def run(workers):
        return study(
            "L",
            [0, 2, 3],
            **FEW,
            compute=Compute(workers=workers, checkpoint=Checkpoint(tmp_path)),
        )

    with pytest.raises(KeyboardInterrupt):
        run(cut_off)
    again = run(lambda f, items: done.extend(items) or map(f, items)).idata
    assert len(done) == 3
    for name in whole.idata["posterior"].data_vars:
        np.testing.assert_array_equal(again["posterior"][name], whole.idata["posterior"][name])
