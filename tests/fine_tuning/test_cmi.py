"""Bounds of fine-tunes: the formulas against enumeration, the posterior against known learners."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from rbpp import command
from rbpp.fine_tuning import fine_tunes
from rbpp.fine_tuning.cmi import (
    LOG2,
    PairInformation,
    binary_kl_bound,
    bounds_of_pairs,
    bounds_of_pool,
    empirical_tables,
    fast_rate_bound,
    information_of_pool,
    information_of_rows,
    jensen_shannon_divergence,
    pair_information,
    row_tables,
)
from rbpp.fine_tuning.fine_tunes import BOUNDS, draw_bounds, fine_tune_bounds, plug_in_bounds
from rbpp.fine_tuning.pooled_losses import _design_effect, mean_tables, pooled_losses
from rbpp.fine_tuning.supersample import Supersample, read_supersample, supersample
from rbpp.inference_data import highest_density_interval, read, term_table
from rbpp.plots import plot_fine_tune_bounds
from rbpp.randomness import generator

LEARNERS = {"none": 1.0, "half": 0.5, "memorises": 0.0}


def row_errors(kept: float, pairs: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Training and held-out error of every row: most rows are easy, the others are anything."""
    uniform = torch.rand(3, pairs, 2, generator=generator(seed), dtype=torch.float64)
    held_out = torch.where(uniform[0] < 0.6, 0.02 * uniform[1], uniform[2])
    return held_out * kept, held_out


def simulate(training, held_out, fine_tunes: int, seed: int) -> Supersample:
    source = generator(seed)
    masks = (torch.rand(fine_tunes, len(training), generator=source) < 0.5).long()
    error = torch.where(torch.stack([masks == 0, masks == 1], dim=-1), training, held_out)
    return supersample(
        torch.rand(error.shape, generator=source, dtype=torch.float64) < error, masks
    )


def pooled_table(tables: torch.Tensor) -> torch.Tensor:
    """Distribution (training, held-out) of a random pair, from (…, n, mask, column 0, column 1)."""
    return (tables[..., 0, :, :] + tables[..., 1, :, :].transpose(-1, -2)).mean(-3) / 2


# -- formulas ------------------------------------------------------------------------------------


def all_bounds(tables: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Gap, training loss and bounds of the distributions (…, n, 2, 2, 2) of pairs."""
    pool = information_of_pool(pooled_table(tables))
    pair, difference = pair_information(tables)
    distribution = pooled_table(tables)
    bounds = bounds_of_pairs(PairInformation(pair, difference, pool.training_loss))
    return (
        distribution[..., 0, 1] - distribution[..., 1, 0],
        pool.training_loss,
        {**bounds, **bounds_of_pool(pool)},
    )


def random_tables(concentration: float) -> torch.Tensor:
    """2,000 supersamples of five pairs, each of any distribution, dependent within the pair too."""
    shape = torch.full((2000, 5, 2, 4), concentration, dtype=torch.float64)
    return torch._sample_dirichlet(shape, generator=generator(3)).unflatten(-1, (2, 2))


@pytest.mark.parametrize("concentration", [0.05, 0.3, 2.0])
@pytest.mark.parametrize("name", BOUNDS)
def test_every_bound_holds_for_every_distribution(name, concentration):
    gap, _, bounds = all_bounds(random_tables(concentration))
    slack = bounds[name] - gap
    if name == "bound_cmi_interpolation":  # a bound of interpolating learners only
        assert float((slack < -1e-3).double().mean()) > 0.1
    else:
        assert float(slack.min()) > -1e-9


def test_a_bound_without_its_training_loss_is_caught():
    """The same check on a broken bound: it would see it."""
    gap, _, _ = all_bounds(random_tables(0.05))
    pool = information_of_pool(pooled_table(random_tables(0.05)))
    broken = binary_kl_bound(pool.difference, torch.zeros_like(pool.training_loss))
    assert float((broken < gap - 1e-6).double().mean()) > 0.01


def test_interpolation_bound_is_the_gap_where_training_loss_is_zero():
    tables = row_tables(*row_errors(0.0, 50, 1))
    gap, training, bounds = all_bounds(tables)
    assert float(training) == 0
    torch.testing.assert_close(bounds["bound_cmi_interpolation"], gap)
    # The fast rate approaches it, as C₂ approaches log 2.
    torch.testing.assert_close(bounds["bound_cmi_fast_rate"], gap, rtol=1e-6, atol=0)


def test_no_information_without_memorisation_and_all_of_it_with():
    everywhere = torch.ones(4, 2, dtype=torch.float64)
    same = information_of_rows(0.3 * everywhere, 0.3 * everywhere)
    assert float(same.pair.max()) < 1e-12
    apart = information_of_rows(0 * everywhere, everywhere)
    torch.testing.assert_close(apart.pair, torch.full((4,), LOG2, dtype=torch.float64))


def test_jensen_shannon_divergence_is_the_mutual_information_of_a_fair_coin():
    first, second = torch._sample_dirichlet(torch.ones(2, 6, dtype=torch.float64), generator(0))
    joint = torch.stack([first, second]) / 2
    product = joint.sum(0, keepdim=True) * joint.sum(1, keepdim=True)
    expected = (joint * (joint / product).log()).sum()
    torch.testing.assert_close(jensen_shannon_divergence(first, second), expected)


def generator_free_kl(q: float, p: float) -> float:
    return sum(a * math.log(a / b) for a, b in ((q, p), (1 - q, 1 - p)) if a > 0)


@pytest.mark.parametrize("training", [0.0, 0.02, 0.4])
@pytest.mark.parametrize("information", [1e-4, 0.05, 0.2])
def test_binary_kl_bound_solves_its_equation(information, training):
    found = float(binary_kl_bound(*torch.tensor([information, training], dtype=torch.float64)))

    def excess(gap: float) -> float:
        return generator_free_kl(training, training + gap / 2) - information

    root = 1 - training if excess(1 - training) < 0 else brentq(excess, 1e-12, 1 - training)
    assert found == pytest.approx(root, abs=1e-9)


def test_fast_rate_is_the_best_of_valid_constants():
    information, training = torch.tensor([0.03, 0.01], dtype=torch.float64)
    best = math.inf
    for rate in np.linspace(0.001, LOG2 - 1e-6, 4000):
        weight = -math.log(2 - math.exp(rate)) / rate - 1
        # What makes the constants valid: the exponential moment of the worst pair is at most 1.
        moment = (math.exp(rate) + math.exp(-rate * (1 + weight))) / 2
        assert moment == pytest.approx(1)
        best = min(best, weight * float(training) + float(information) / rate)
    assert float(fast_rate_bound(information, training)) == pytest.approx(best, rel=5e-3)


def test_wide_bounds_are_wider():
    _, _, bounds = all_bounds(random_tables(0.3))
    for narrow, wide in (
        ("bound_cmi_samplewise", "bound_cmi_evaluated"),  # Jensen
        ("bound_cmi_loss_difference_conditional", "bound_cmi_samplewise"),  # data processing
        ("bound_cmi_loss_difference", "bound_cmi_evaluated"),  # convexity
        ("bound_cmi_single_loss_centred", "bound_cmi_single_loss"),
        ("bound_cmi_binary_kl_pooled", "bound_cmi_binary_kl"),
    ):
        assert bool((bounds[narrow] <= bounds[wide] + 1e-9).all()), narrow


# -- the supersample -----------------------------------------------------------------------------


def test_losses_by_role_and_back():
    losses = np.arange(12).reshape(2, 3, 2) / 12
    data = supersample(losses, [[0, 1, 0], [1, 1, 0]])
    np.testing.assert_allclose(data.training[0], [0, 3 / 12, 4 / 12])
    np.testing.assert_allclose(data.held_out[1], [6 / 12, 8 / 12, 11 / 12])
    np.testing.assert_allclose(data.columns, losses)


def test_permuted_masks_are_those_of_another_fine_tune():
    masks = np.eye(6, dtype=int)
    data = supersample(np.arange(72.0).reshape(6, 6, 2) / 72, masks)
    other = data.permuted(generator(0)).masks.numpy()
    assert not (other == masks).all(1).any()
    np.testing.assert_array_equal(np.sort(other.argmax(1)), np.arange(6))


def test_plug_in_tables_are_shares_of_what_was_seen():
    data = simulate(*row_errors(0.5, 7, 0), fine_tunes=9, seed=1)
    tables = empirical_tables(data).numpy()
    for pair in range(7):
        for mask in (0, 1):
            seen = data.columns[data.masks[:, pair] == mask, pair].numpy().astype(int)
            for first in (0, 1):
                for second in (0, 1):
                    share = ((seen == (first, second)).all(1)).mean()
                    assert tables[pair, mask, first, second] == pytest.approx(share)


def saved(folder: Path, **arrays) -> Path:
    path = folder / "supersample.npz"
    np.savez(path, **arrays)
    return path


def test_one_file_or_two(tmp_path):
    losses, masks = np.zeros((3, 2, 2)), np.array([[0, 1], [1, 0], [1, 1]])
    losses[0, 0, 1] = 1
    np.save(tmp_path / "losses.npy", losses)
    np.save(tmp_path / "masks.npy", masks)
    one = read_supersample(saved(tmp_path, losses=losses, masks=masks))
    two = read_supersample(tmp_path / "losses.npy", tmp_path / "masks.npy")
    torch.testing.assert_close(one.held_out, two.held_out)
    torch.testing.assert_close(one.masks, two.masks)


GOOD_LOSSES, GOOD_MASKS = np.zeros((3, 2, 2)), np.array([[0, 1], [1, 0], [1, 1]])
GOOD_LOSSES[2] = 1


def changed(array: np.ndarray, place: tuple[int, ...], value: float) -> np.ndarray:
    copy = array.astype(float)
    copy[place] = value
    return copy


BAD = {
    "two dimensions": (GOOD_LOSSES[0], GOOD_MASKS, {}, r"shape \(k, n, 2\)"),
    "three columns": (np.zeros((3, 2, 3)), GOOD_MASKS, {}, r"shape \(k, n, 2\)"),
    "no pairs": (np.zeros((3, 0, 2)), np.zeros((3, 0)), {}, r"shape \(k, n, 2\)"),
    "mismatched k": (GOOD_LOSSES, GOOD_MASKS[:2], {}, r"masks of shape \(3, 2\)"),
    "mismatched n": (GOOD_LOSSES, GOOD_MASKS[:, :1], {}, r"masks of shape \(3, 2\)"),
    "one fine-tune": (GOOD_LOSSES[:1], GOOD_MASKS[:1], {}, "at least 2 fine-tunes"),
    "nan": (changed(GOOD_LOSSES, (1, 0, 1), np.nan), GOOD_MASKS, {}, r"losses\[1, 0, 1\]"),
    "infinite": (changed(GOOD_LOSSES, (1, 0, 1), np.inf), GOOD_MASKS, {}, "finite losses"),
    "negative": (changed(GOOD_LOSSES, (0, 0, 0), -0.1), GOOD_MASKS, {}, r"losses in \[0, 1\]"),
    "above C": (changed(GOOD_LOSSES, (0, 0, 0), 3.0), GOOD_MASKS, {}, "loss_bound="),
    "above a given C": (
        changed(GOOD_LOSSES, (0, 0, 0), 3.0),
        GOOD_MASKS,
        {"loss_bound": 2.0},
        r"losses in \[0, 2\]",
    ),
    "C of 0": (GOOD_LOSSES, GOOD_MASKS, {"loss_bound": 0.0}, "C above 0"),
    "mask of 2": (GOOD_LOSSES, changed(GOOD_MASKS, (0, 1), 2), {}, r"masks\[0, 1\]"),
    "mask between": (GOOD_LOSSES, changed(GOOD_MASKS, (0, 1), 0.5), {}, "masks of 0 and 1"),
    "one loss": (0 * GOOD_LOSSES, GOOD_MASKS, {}, "losses that differ; got 0 everywhere"),
    "one mask": (GOOD_LOSSES, np.ones((3, 2)), {}, "fair coin"),
    "copy": (
        np.random.default_rng(0).random((3, 40, 2))[[0, 1, 2, 1]],
        np.random.default_rng(1).integers(0, 2, (3, 40))[[0, 1, 2, 1]],
        {},
        "losses and masks of fine-tune 1 again in 3",
    ),
    "words": (np.array([[["a", "b"]]] * 3), GOOD_MASKS, {}, "array of numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arrays_are_named(case):
    losses, masks, options, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        supersample(losses, masks, **options)


def test_bad_files_are_named(tmp_path, capsys):
    pickled = tmp_path / "pickled.npy"
    np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    text = tmp_path / "text.npz"
    text.write_text("no numbers")
    cut = tmp_path / "cut.npz"
    cut.write_bytes(saved(tmp_path, losses=GOOD_LOSSES, masks=GOOD_MASKS).read_bytes()[:-50])
    damaged = tmp_path / "damaged.npz"
    np.savez_compressed(damaged, losses=GOOD_LOSSES, masks=GOOD_MASKS)
    content = bytearray(damaged.read_bytes())
    content[80:100] = bytes(byte ^ 0x5A for byte in content[80:100])
    damaged.write_bytes(content)
    os.mkfifo(tmp_path / "pipe.npz")
    alone = saved(tmp_path, losses=GOOD_LOSSES).rename(tmp_path / "alone.npz")
    for arguments, message in (
        ([str(tmp_path / "absent.npz")], "absent.npz"),
        ([str(pickled)], "pickled.npy"),
        ([str(text)], "text.npz"),
        ([str(cut)], "cut.npz"),
        ([str(damaged)], "damaged.npz"),
        ([str(tmp_path / "pipe.npz")], "pipe.npz: Expected a regular file"),
        ([str(alone)], "array masks; got losses"),
        ([str(saved(tmp_path, losses=GOOD_LOSSES, masks=GOOD_MASKS[:2]))], "supersample.npz"),
    ):
        assert command.main(["cmi", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


# -- the posterior -------------------------------------------------------------------------------


@pytest.mark.parametrize("learner", LEARNERS)
def test_posterior_finds_the_truth_where_the_plug_in_estimate_has_a_floor(learner):
    """n = 80 pairs, k = 30; the truth lies within 4 posterior standard deviations."""
    training, held_out = row_errors(LEARNERS[learner], 80, 5)
    data = simulate(training, held_out, 30, 6)
    found = draw_bounds(data, 100, generator(0))
    gap, _, truth = all_bounds(row_tables(training, held_out))
    plain = plug_in_bounds(data)
    for name in ("bound_cmi_samplewise", "bound_cmi_evaluated", "bound_cmi_loss_difference"):
        mean, spread = float(found[name].mean()), float(found[name].std())
        assert abs(mean - float(truth[name])) < 4 * spread + 0.01, name
    if learner == "none":
        assert plain["bound_cmi_samplewise"] > 0.13  # the floor
        assert float(found["bound_cmi_samplewise"].mean()) < 0.03
        assert float(found["none"].mean()) > 0.5
    else:
        assert float(found["none"].mean()) == 0
    assert abs(float(found["generalization_gap"].mean()) - float(gap)) < 0.05


def test_pooled_posterior_covers():
    """200 replications at each learner: 94 % intervals, 90 % at least (2.4 standard errors)."""
    for kept in (1.0, 0.5, 0.0):
        covered = []
        training, held_out = row_errors(kept, 60, 2)
        truth = pooled_table(row_tables(training, held_out))
        expected = float(information_of_pool(truth).difference)
        for seed in range(200):
            data = simulate(training, held_out, 30, seed)
            draws = pooled_losses(data, 400, generator(seed))
            information = information_of_pool(draws.table).difference.numpy()
            low, high = highest_density_interval(information, 0.94)
            covered.append(low - 1e-12 <= expected <= high + 1e-12)
        assert np.mean(covered) >= 0.9, kept


def test_design_effect_counts_fine_tunes_that_differ_as_a_whole():
    """Every other fine-tune errs on all held-out rows, the rest on none."""
    masks = (torch.rand(40, 50, generator=generator(0)) < 0.5).long()
    held_out = (torch.arange(40) % 2).double()[:, None].expand(40, 50)
    losses = torch.where(torch.stack([masks == 1, masks == 0], -1), held_out.unsqueeze(-1), 0.0)
    data = supersample(losses, masks)
    assert _design_effect(data, mean_tables(data)) == pytest.approx(50, rel=0.1)
    draws = pooled_losses(data, 500, generator(0))
    gap = draws.table[:, 0, 1] - draws.table[:, 1, 0]
    # As of 40 coins, not of 2,000: standard deviation ½ / sqrt(40) and not ½ / sqrt(2000).
    assert 0.05 < float(gap.std()) < 0.11


def test_losses_between_count_by_their_means_and_scale_with_the_bound():
    training, held_out = row_errors(0.3, 60, 1)
    masks = (torch.rand(20, 60, generator=generator(2)) < 0.5).long()
    losses = torch.where(torch.stack([masks == 0, masks == 1], -1), training, held_out)
    _, _, truth = all_bounds(row_tables(training, held_out))
    found = draw_bounds(supersample(losses, masks), 60, generator(0))
    scaled = draw_bounds(supersample(8 * losses, masks, loss_bound=8), 60, generator(0))
    for name in ("bound_cmi_fast_rate", "bound_cmi_samplewise"):
        assert float(found[name].mean()) == pytest.approx(float(truth[name]), rel=0.15)
        torch.testing.assert_close(scaled[name], 8 * found[name])
    torch.testing.assert_close(scaled["information_loss_pair"], found["information_loss_pair"])
    # Losses without noise say more than 0-1 losses of the same means would.
    rounded = draw_bounds(simulate(training, held_out, 20, 3), 60, generator(0))
    assert float(found["generalization_gap"].std()) < float(rounded["generalization_gap"].std())


@pytest.fixture(scope="module")
def memorised() -> Supersample:
    return simulate(*row_errors(0.0, 25, 7), 16, 8)


@pytest.fixture(scope="module")
def found(memorised):
    return fine_tune_bounds(memorised, chains=2, draws=30, permutations=3, seed=4)


def test_all_is_reported(found, memorised):
    posterior = found.idata["posterior"]
    for name in (*BOUNDS, "generalization_gap", "training_loss", "held_out_loss"):
        assert posterior[name].shape == (2, 30)
        assert posterior[name].attrs["units"] == "loss"
    assert set(found.comparison) == set(BOUNDS)
    for name, others in found.comparison.items():
        if name == "bound_cmi_interpolation":
            # The posterior leaves it open whether a training loss is 0 always or only where seen.
            assert others["probability_holds"] >= 0.9
        else:  # a theorem holds in every draw, and is not reported to
            assert math.isnan(others["probability_holds"]), name
        assert others["plug_in"] >= 0
    measured = float((memorised.held_out - memorised.training).mean())
    assert found.measured_gap == pytest.approx(measured)
    verdicts = {check.statement: check.verdict for check in found.checks}
    assert verdicts["masks are fair coins"] == "holds"
    few = next(check for check in found.checks if check.statement.startswith("ten fine-tunes"))
    assert (few.verdict, few.measured["fine_tunes_per_mask"]) == ("undecided", 8)
    assert "may be below the gap" in few.message
    assert "Of 8 fine-tunes for either mask" in found.text()
    assert next(v for k, v in verdicts.items() if "interpolation" in k) == "holds"


def entries_of(found):
    return {check.measured["by"]: check for check in found.checks if "by" in check.measured}


def test_every_bound_is_audited(found):
    entries = entries_of(found)
    assert tuple(entries) == BOUNDS
    posterior = found.idata["posterior"]
    for name, check in entries.items():
        assert check.measured["bounds"] == "generalization_gap"
        assert check.measured["right"] == pytest.approx(float(posterior[name].mean()))
        assert check.measured["slack"] == pytest.approx(
            check.measured["right"] - check.measured["left"]
        )
        assert check.assumptions[0].statement == "masks are fair coins"
    # Of eight fine-tunes for either mask, bounds of single rows lean on their prior.
    assert entries["bound_cmi_samplewise"].verdict == "undecided"
    assert "ten fine-tunes" in entries["bound_cmi_samplewise"].message
    assert entries["bound_cmi_loss_difference"].verdict == "holds"
    assert entries["bound_cmi_interpolation"].verdict == "holds"
    assert "bound by samplewise CMI" in found.text(everything=True)


def test_what_a_bound_rests_on_decides_of_it(memorised):
    """Losses that are never 0, and masks that are no coins."""
    options = {"chains": 1, "draws": 20, "permutations": 1}
    wide = 0.2 + 0.5 * memorised.columns
    entries = entries_of(fine_tune_bounds(wide, memorised.masks, **options))
    assert entries["bound_cmi_interpolation"].verdict == "unknown"
    assert entries["bound_cmi_fast_rate"].verdict == "holds"
    unfair = torch.cat([memorised.masks, torch.ones(48, memorised.masks.shape[1], dtype=int)])
    columns = torch.cat([memorised.columns] * 4)
    columns[16:] = columns[16:] * torch.rand(columns[16:].shape, generator=generator(3))
    entries = entries_of(fine_tune_bounds(columns, unfair, **options))
    assert {check.verdict for check in entries.values()} == {"unknown"}


def test_a_number_that_nothing_describes_is_an_error(memorised, monkeypatch):
    def draws(*arguments):
        found = draw_bounds(*arguments)
        return {**found, "bound_cmi_unheard_of": found["bound_cmi_linear"]}

    monkeypatch.setattr(fine_tunes, "draw_bounds", draws)
    with pytest.raises(ValueError, match="describes; got bound_cmi_unheard_of"):
        fine_tune_bounds(memorised, chains=1, draws=5, permutations=1)


def test_losses_and_masks_are_a_supersample(memorised):
    options = {"chains": 1, "draws": 5, "permutations": 1}
    found = fine_tune_bounds(3 * memorised.columns, memorised.masks, loss_bound=3, **options)
    expected = fine_tune_bounds(memorised, **options)
    assert found.measured_gap == pytest.approx(3 * expected.measured_gap)
    assert found.settings["loss_bound"] == 3
    with pytest.raises(ValueError, match="Expected masks beside the losses; got none"):
        fine_tune_bounds(memorised.columns)
    for own in ({"masks": memorised.masks}, {"loss_bound": 1.0}):
        with pytest.raises(ValueError, match="Expected a supersample alone"):
            fine_tune_bounds(memorised, **own)


def test_options_change_what_they_name(memorised, found):
    options = {"chains": 2, "draws": 30, "permutations": 3, "seed": 4}
    again = fine_tune_bounds(memorised, **options)
    name = "bound_cmi_samplewise"
    np.testing.assert_array_equal(again.idata["posterior"][name], found.idata["posterior"][name])
    other = fine_tune_bounds(memorised, **{**options, "seed": 5, "permutations": 4})
    assert not np.array_equal(other.idata["posterior"][name], found.idata["posterior"][name])
    assert other.comparison[name]["null_plug_in"] != found.comparison[name]["null_plug_in"]
    for option, value in (("chains", 0), ("draws", 1), ("permutations", 0)):
        with pytest.raises(ValueError, match=option):
            fine_tune_bounds(memorised, **{**options, option: value})


def test_audit_names_what_is_violated():
    training, held_out = row_errors(0.3, 30, 1)
    good = simulate(training, held_out, 20, 2)
    swapped = supersample(good.columns, 1 - good.masks)  # masks that name the held-out column
    biased = supersample(
        good.columns, torch.where(torch.arange(30) < 28, torch.ones(20, 30), good.masks.double())
    )
    for data, what in ((swapped, "held-out rows"), (biased, "fair coins"), (good, "interpolation")):
        checks = fine_tune_bounds(data, chains=1, draws=20, permutations=1).checks
        check = next(check for check in checks if what in check.statement)
        assert check.verdict == "violated", what


def test_figure_has_every_bound_and_the_gap(found):
    axis = plot_fine_tune_bounds(found.idata)
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert len(labels) == len(BOUNDS)
    assert "measured gap" in [text.get_text() for text in axis.get_legend().get_texts()]


def test_command(tmp_path, capsys, memorised):
    path = saved(tmp_path, losses=memorised.columns.numpy(), masks=memorised.masks.numpy())
    options = ["--chains", "1", "--draws", "20", "--permutations", "1"]
    output, figures = tmp_path / "out.nc", tmp_path / "figures"
    status = command.main(
        ["cmi", str(path), *options, "--json", "--output", str(output), "--figures", str(figures)]
    )
    report = json.loads(capsys.readouterr().out)
    assert status == 0
    assert set(report["bounds"]) == set(BOUNDS)
    assert set(BOUNDS) <= set(report["terms"])
    assert report["settings"]["fine_tunes"] == 16
    assert (figures / "cmi.png").stat().st_size > 1000
    assert set(BOUNDS) <= set(term_table(read(output)))
    assert command.main(["cmi", str(path), *options]) == 0
    shown = capsys.readouterr().out
    assert "measured gap" in shown
    assert "plug in" in shown


@pytest.mark.slow
@pytest.mark.parametrize("learner", LEARNERS)
def test_conditional_bounds_cover(learner):
    """200 replications, each with rows of its own; 94 % intervals, and at least 80 % required."""
    covered = {name: [] for name in ("bound_cmi_samplewise", "bound_cmi_evaluated")}
    for seed in range(200):
        training, held_out = row_errors(LEARNERS[learner], 60, seed)
        _, _, truth = all_bounds(row_tables(training, held_out))
        draws = draw_bounds(simulate(training, held_out, 30, seed + 1000), 150, generator(seed))
        for name, hits in covered.items():
            low, high = highest_density_interval(draws[name].numpy(), 0.94)
            hits.append(low - 1e-9 <= float(truth[name]) <= high + 1e-9)
    assert all(np.mean(hits) >= 0.8 for hits in covered.values()), covered


def test_masks_that_no_fine_tune_changes_are_refused():
    losses = torch.rand(6, 30, 2, generator=generator(0)).numpy()
    masks = np.tile(np.arange(30) % 2, (6, 1))
    with pytest.raises(
        ValueError, match="masks drawn anew for every fine-tune; got the same in all 6"
    ):
        supersample(losses, masks)
