"""Informations and bounds of learners of real rows, against fresh data of a known distribution."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from rbpp.assessment import learned_information, learned_terms
from rbpp.assessment.assess import assess
from rbpp.assessment.learned_information import (
    bootstrap_weights,
    information,
    pilot_dimension,
    prepare,
    resampled,
)
from rbpp.assessment.sources import Fields, read_sources
from rbpp.assessment.weighted_rows import Draws
from rbpp.estimate import exactly
from rbpp.processes.process import load_process
from rbpp.processes.simulation import simulate
from rbpp.randomness import generator
from rbpp.theory.information import contrastive_bounds
from rbpp.theory.learner_information import learner_information
from rbpp.theory.statements import STATEMENTS

CENTRES = torch.tensor([[0.0, 0, 0], [7, 0, 0], [0, 7, 0], [0, 0, 7]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)


def rows_of(shape, source, *, weights=WEIGHTS, skew=False):
    """Rows of well-apart components, Gaussian or each coordinate's the exponential of a normal."""
    count = math.prod(shape)
    which = torch.multinomial(weights, count, replacement=True, generator=source)
    noise = torch.randn(count, 3, generator=source, dtype=torch.float64)
    noise = (noise.mul(0.7).exp() - 1.28) if skew else noise
    return (CENTRES[which] + noise).reshape(*shape, 3)


def ratio_to_truth(count, seed, skew=False):
    """I(S; W) by the bootstrap of one data set against that of 64 fresh ones: z and ratio."""
    source = generator(seed)
    learner = prepare(rows_of((count,), source, skew=skew), None, source)
    drawn = information(learner, (2, 400), source)
    value, error = drawn.value, drawn.standard_error
    fresh = learner.prepared.fit(rows_of((1, 64, len(learner.rows)), source, skew=skew))
    truth = learner_information(fresh, source, pairs=8)
    noise = math.hypot(value.std(), error.mean(), truth.standard_error)
    return ((value.mean() - truth.value) / noise).item(), (value.mean() / truth.value).item()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_information_is_that_of_fresh_data_sets(seed):
    """Within 3 standard errors, of posterior and Monte Carlo both, and within a quarter."""
    away, ratio = ratio_to_truth(200, seed)
    assert abs(away) < 3
    assert ratio == pytest.approx(1, abs=0.25)


@pytest.mark.slow
@pytest.mark.parametrize(("skew", "low", "high"), [(False, 0.94, 1.06), (True, 0.85, 1.05)])
def test_on_average_it_is_a_little_too_small_where_components_are_skewed(skew, low, high):
    ratios = [ratio_to_truth(200, seed, skew)[1] for seed in range(12)]
    assert low < np.mean(ratios) < high


def test_the_value_lies_in_the_sandwich_where_that_is_not_cut(margin):
    """One Gaussian in one dimension knows about log 2 nats: 64 pairs see up to 4.2."""
    source = generator(0)
    learner = prepare(torch.randn(300, 1, generator=source, dtype=torch.float64), None, source)
    assert learner.learnt(1).parameters.components == 1
    drawn = information(learner, (4, 200), source)
    value, error = drawn.value, drawn.standard_error
    fresh = learner.prepared.fit(
        torch.randn(1, 64, len(learner.rows), 1, generator=source, dtype=torch.float64)
    )
    low, high = fresh.cross_log_prob(fresh.draw(source))
    assert torch.equal(low, high)
    below, above = contrastive_bounds(low)
    noise = math.hypot(value.std(), error.mean())
    margin(3 + (value.mean() - below.value) / math.hypot(noise, below.standard_error))
    margin(3 + (above.value - value.mean()) / math.hypot(noise, above.standard_error))


def test_of_many_rows_half_a_log_2_is_known_per_parameter(margin):
    """The posterior of p parameters is then as wide as their estimate: I = p/2 log 2, for any n."""
    source = generator(4)
    learner = prepare(rows_of((1200,), source), None, source)
    expected = (4 * (1 + 3 + 6) - 1) / 2 * math.log(2)
    for count in (500, 900):
        part = replace(learner, rows=learner.rows[:count], unit=learner.unit[:count])
        drawn = information(part, (2, 200), source)
        value, error = drawn.value, drawn.standard_error
        noise = math.hypot(value.std(), error.mean())
        # The spread is that of 12 draws: |t| with 11 degrees of freedom exceeds 4.5 once in 1,100.
        margin(4.5 - abs(value.mean() - expected) / noise)
        assert noise < 0.2 * expected
        assert (drawn.lower.value < drawn.upper.value).all()


def test_units_are_drawn_whole():
    unit = torch.arange(40).repeat_interleave(3)
    index = resampled(unit, torch.ones(120, dtype=torch.float64), generator(0))
    assert len(index) == 120
    assert (unit[index].reshape(40, 3) == unit[index].reshape(40, 3)[:, :1]).all()
    assert (index.reshape(40, 3) == torch.sort(index.reshape(40, 3)).values).all()
    assert len(unit[index].unique()) < 40
    weights = torch.where(unit < 5, 1.0, 0.0).double()
    assert (unit[resampled(unit, weights, generator(0))] < 5).all()


@pytest.mark.parametrize(
    ("units", "available", "expected"), [(2000, 32, 8), (100, 32, 6), (40, 32, 2), (2000, 1, 1)]
)
def test_few_rows_have_few_dimensions(units, available, expected):
    assert pilot_dimension(units, available) == expected


def scene_of(fields=None, **sources):
    return read_sources(sources, fields)


def terms_of(scene, divergence=0.2, *, chains=2, draws=60, seed=0, at_least=0.0, **more):
    divergences = {
        name: exactly(torch.full((chains, draws), value, dtype=torch.float64))
        for name, value in more.items()
    }
    variation = learned_terms.Variation(divergence, min(1.0, 2 * divergence), at_least)
    return learned_terms.learned_terms(
        scene, divergences, variation, Draws(chains * draws, seed, chains)
    )


def lines_of(checks):
    return {check.statement: check for check in checks}


@pytest.fixture(scope="module")
def scene():
    source = generator(7)
    return scene_of(
        anchor=rows_of((120,), source),
        target=rows_of((200,), source),
        synthetic=rows_of((160,), source),
    )


@pytest.fixture(scope="module")
def found(scene):
    return terms_of(scene, 0.1, task_divergence=0.2, generation_divergence=0.3)


def test_bounds_are_those_of_the_lemmas(found):
    terms = {name: estimate.value for name, estimate in found.terms.items()}
    information = found.terms["information_synthetic_learner"].upper.value
    root = (0.5 * information / found.rows["synthetic"]).sqrt()  # 2σ² = 1/2
    torch.testing.assert_close(terms["bound_synthetic_sharp"], 0.1 + root)
    huber = terms["bound_synthetic_sharp_bretagnolle_huber"]
    torch.testing.assert_close(huber, 0.2 + root)
    torch.testing.assert_close(terms["bound_synthetic"], 0.5 + root)
    information = found.terms["information_anchor_learner"].upper.value
    root = (0.5 * information / found.rows["anchor"]).sqrt()
    torch.testing.assert_close(terms["bound_anchor"], root)
    difference = terms["information_anchor_learner"] - terms["information_synthetic_learner"]
    torch.testing.assert_close(terms["ggmi"], difference)
    gain = found.terms["ggmi"]
    assert (gain.lower.value < gain.value).all()
    assert (gain.value < gain.upper.value).all()
    for estimate in found.terms.values():
        for side in filter(None, (estimate, estimate.lower, estimate.upper)):
            assert side.value.shape == (2, 60)
            assert (side.standard_error > 0).all()
            assert side.value.std() > 0


def test_bounds_hold_and_assumptions_too_where_all_rows_are_of_one_distribution(found):
    lines = lines_of(found.checks)
    held = ("Theorem 4.7, sharp (ours)", "Theorem 4.7", "Lemma 4.8", "anchors are rows of the task")
    for name in (*held, "TV(D, D_gen) is not too small", "learner of the synthetic rows"):
        assert lines[name].verdict == "holds"
    for name in held[:3]:
        measured = lines[name].measured
        assert measured["probability_holds"] > 0.95
        assert measured["slack"] == pytest.approx(measured["right"] - measured["left"])
    for right in ("bound_synthetic_sharp", "bound_synthetic", "bound_anchor"):
        told = STATEMENTS[right]  # of the table that processes are audited by
        measured = lines[told.name].measured
        assert (measured["bounds"], measured["by"]) == (told.left, right)
    assert "I(S_gen; W) itself" in lines["Theorem 4.7"].message
    assert lines["Definition 4.9"].verdict == "unknown"
    assert "many runs" in lines["Lemma 4.5, Theorem 4.10"].message


def test_what_breaks_an_assumption_is_found():
    """Anchors of one component, synthetic rows of another, and a divergence said to be zero."""
    source = generator(8)
    found = terms_of(
        scene_of(
            anchor=rows_of((100,), source, weights=torch.eye(4, dtype=torch.float64)[0]),
            target=rows_of((200,), source),
            synthetic=rows_of((160,), source, weights=torch.eye(4, dtype=torch.float64)[1]),
        ),
        0.0,
    )
    lines = lines_of(found.checks)
    assert lines["TV(D, D_gen) is not too small"].verdict == "violated"
    assert lines["anchors are rows of the task"].verdict == "violated"
    assert lines["Lemma 4.8"].verdict == "violated"
    assert lines["Theorem 4.7, sharp (ours)"].measured["probability_holds"] < 0.05


@pytest.mark.parametrize(
    ("at_least", "verdict"),
    [(0.05, "holds"), (0.3, "violated")],
)
def test_a_divergence_below_a_share_is_too_small(scene, at_least, verdict):
    found = terms_of(scene, 0.1, at_least=at_least, draws=20)
    line = lines_of(found.checks)["TV(D, D_gen) is not too small"]
    assert line.verdict == verdict
    assert line.measured["at_least"] == pytest.approx(at_least)


def test_without_target_rows_the_anchors_have_no_error_of_their_own(scene):
    anchor, target, synthetic = scene.vectors.values()
    found = terms_of(scene_of(anchor=anchor, synthetic=synthetic))
    assert "generalization_error_anchor" not in found.terms
    assert "generalization_error" in found.terms
    assert lines_of(found.checks)["Lemma 4.8"].verdict == "unknown"
    assert "no unprompted rows" in lines_of(found.checks)["Theorem 4.7"].message
    alone = terms_of(scene_of(target=target, synthetic=synthetic))
    assert not {"ggmi", "bound_anchor"} & set(alone.terms)
    assert "no GGMI" in lines_of(alone.checks)["Definition 4.9"].message


def test_seeds_draws_and_divergences_count(scene, found):
    again = terms_of(scene, 0.1, task_divergence=0.2, generation_divergence=0.3)
    other = terms_of(scene, 0.1, seed=1, chains=1, draws=20)
    name = "information_synthetic_learner"
    assert torch.equal(again.terms[name].value, found.terms[name].value)
    assert other.terms[name].value.shape == (1, 20)
    assert other.terms[name].value.mean() != found.terms[name].value.mean()


def test_rows_of_a_group_count_once():
    """Five copies a group: informations and bounds of as many rows as there are groups."""
    source = generator(9)
    copies = rows_of((50,), source).repeat_interleave(5, 0)
    copies = copies + 0.1 * torch.randn(copies.shape, generator=source, dtype=torch.float64)
    frame = pd.DataFrame(copies.numpy(), columns=["x", "y", "z"])
    target = rows_of((2000,), source)
    alone = scene_of(target=target, synthetic=frame)
    frame = frame.assign(prompt=np.repeat(np.arange(50), 5).astype(str))
    grouped = scene_of(Fields(group="prompt"), target=target, synthetic=frame)
    found = [terms_of(scene, draws=200) for scene in (alone, grouped)]
    first, second = (lines_of(item.checks)["learner of the synthetic rows"] for item in found)
    assert first.measured["units"] == 188
    assert second.measured["units"] == 38
    assert "38 groups count as independent" in second.message
    assert (
        found[1].terms["bound_synthetic_sharp"].value.mean()
        > found[0].terms["bound_synthetic_sharp"].value.mean()
    )


def test_bootstrap_weights_are_those_of_groups(margin):
    """A mean of n equal rows in g groups has the spread of g rows: s / √(g + 1) (Rubin 1981)."""
    source = generator(2)
    values = torch.randn(40, generator=source, dtype=torch.float64).repeat_interleave(5)
    exact = values.std(correction=0)
    for unit, count in ((torch.arange(40).repeat_interleave(5), 40), (torch.arange(200), 200)):
        weights = bootstrap_weights(unit, 4000, source)
        torch.testing.assert_close(weights.mean(-1), torch.ones(4000, dtype=torch.float64))
        spread = (weights @ values / len(values)).std()
        expected = exact / math.sqrt(count + 1)
        margin(5 * expected / math.sqrt(2 * 4000) - abs(spread - expected))


TOO_FEW = {
    "few rows": (lambda rows: {"synthetic": rows[:39]}, None, "39 rows"),
    "few groups": (
        lambda rows: {"synthetic": pd.DataFrame(rows, columns=["x", "y", "z"])},
        11,
        "in 11 groups",
    ),
    "rows that do not vary": (
        lambda rows: {"synthetic": np.where(np.arange(80)[:, None] < 79, 1.0, rows)},
        None,
        "in 2 groups",
    ),
}


@pytest.mark.parametrize("name", TOO_FEW)
def test_too_little_to_learn_from_is_a_line_of_the_audit(name):
    make, groups, message = TOO_FEW[name]
    rows = rows_of((80,), generator(3)).numpy()
    made = make(rows)["synthetic"]
    fields = None
    if groups:
        made = made.assign(prompt=(np.arange(80) % groups).astype(str))
        fields = Fields(group="prompt")
    scene = scene_of(fields, target=rows, synthetic=made)
    found = terms_of(scene, seed=1)  # the one row that differs is not in the pilot
    assert not found.terms
    assert [line.statement for line in found.checks] == ["learner of the synthetic rows"]
    assert message in found.checks[0].message
    assert found.checks[0].verdict == "unknown"


def test_of_many_rows_some_are_learnt_from(monkeypatch):
    monkeypatch.setattr(learned_information, "MOST_ROWS", 80)
    source = generator(0)
    learner = prepare(rows_of((300,), source), None, source)
    assert (len(learner.pilot), len(learner.rows), learner.of) == (20, 60, 300)


def test_sources_of_the_process_have_every_term_and_its_audit():
    """Arrays drawn from models/sources.py."""
    process = load_process("sources", guidance=0.5, extent=15.0, dimension=3, anchors=120)
    drawn = simulate(process, worlds=1, seed=3)
    roles = ("anchor", "target", "unprompted", "synthetic")
    arrays = {role: drawn.sites[role].reshape(-1, 3).numpy() for role in roles}
    found = assess(**arrays, chains=2, draws=40)
    whole, per_row = found.table(), found.table(per_row=True)
    names = ["information_synthetic_learner", "information_anchor_learner", "ggmi"]
    sides = [f"{name}{side}" for name in names for side in ("_lower", "_upper")]
    rates = ["generalization_error", "generalization_error_anchor", "bound_anchor"]
    for name in (*names, *sides, *rates, "bound_synthetic", "bound_synthetic_sharp"):
        term = whole[name]
        assert term["hdi_low"] < term["mean"] < term["hdi_high"]
        assert term["mcse"] > 0
    for name in ("Theorem 4.7, sharp (ours)", "Theorem 4.7"):
        assert lines_of(found.checks)[name].verdict == "holds"
    # Learners leave a quarter of 200 rows, and of 120 anchors, to their pilots.
    assert found.settings["learner_rows"] == {"synthetic": 150, "anchor": 90}
    for name, count in (*((name, 150) for name in (names[0], names[2])), (names[1], 90)):
        assert whole[name]["mean"] / per_row[name]["mean"] == pytest.approx(count)
