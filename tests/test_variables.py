"""What outputs know of a variable stands in its line, and nothing is read off its name."""

import math

import pytest
import torch

from rbpp import display, inference_data, wording
from rbpp.assessment import learned_audit
from rbpp.fine_tuning import fine_tunes
from rbpp.theory.bounds import bounds
from rbpp.theory.learners import point_learner
from rbpp.theory.settings import SampleSizes
from rbpp.theory.statements import STATEMENTS
from rbpp.variables import GROUPS, VARIABLES, Variable, describe
from tests import processes_by_users as processes


@pytest.fixture
def own_variables():
    """A table that is put back."""
    kept = dict(VARIABLES)
    yield
    VARIABLES.clear()
    VARIABLES.update(kept)


@pytest.mark.parametrize(
    ("name", "group", "panel", "least", "most", "main"),
    [
        ("information_gain", "information", "entropy", -math.inf, math.inf, True),
        ("information_model_factor_learner", "information", "information", 0, math.inf, False),
        ("ggmi", "information", "information", -math.inf, math.inf, True),
        ("kl_gap", "divergence", "entropy", -math.inf, math.inf, True),
        ("total_divergence", "divergence", "rates", 0, 1, True),
        ("kept_share", "shares", "rates", 0, 1, True),
        ("prompting_factor", "size and style", "rates", 1, math.inf, False),
        ("bound_anchor", "risk", "none", 0, math.inf, True),
        ("slack_bound_anchor", "risk", "none", -math.inf, math.inf, False),
    ],
)
def test_facts_of_a_variable(name, group, panel, least, most, main):
    found = VARIABLES[name]
    assert (found.group, found.panel) == (group, panel)
    assert (found.least, found.most, found.main) == (least, most, main)


def test_companions_are_no_terms_of_their_own():
    for name, found in VARIABLES.items():
        assert found.group in GROUPS, name
        assert found.least < found.most, name
        if not found.part:
            continue
        assert found.panel == "none", name
        assert not found.main, name
        assert not found.bound, name
        base = name.removeprefix("slack_").removesuffix(f"_{found.part}")
        assert base in VARIABLES or base.removesuffix("_mcse") in VARIABLES, name


def test_every_bound_has_one_statement():
    told = [*STATEMENTS, *(one.right for one in learned_audit.AUDITED), *fine_tunes.BOUNDS]
    assert {name for name, one in VARIABLES.items() if one.bound} == set(told)
    names = [one.name for one in (*STATEMENTS.values(), *fine_tunes.STATEMENTS)]
    assert len(set(names)) == len(names)


def test_a_described_variable_is_shown_where_its_line_says(own_variables):
    describe("spread", Variable("spread of a row", "1", "mine", least=0))
    describe("overlap", Variable("overlap", "1", "mine", group="shares", least=0, most=1))
    describe("hidden", Variable("known to --all", "nats", "mine", main=False))
    assert wording.is_share("overlap")
    assert not wording.is_share("spread")
    data = inference_data.make({"spread": 2.0, "overlap": 0.25, "hidden": 1.0})
    shown = display.group_terms(inference_data.term_table(data), display.View(), {})
    assert {title: [line[0] for line in part] for title, part in shown.groups.items()} == {
        "shares": ["overlap"],
        "size and style": ["spread"],
    }
    assert "25 %" in shown.groups["shares"][0][1]


def test_no_interval_over_worlds_reaches_beyond_a_limit_in_any_units():
    sizes = SampleSizes(worlds=3, replicates=32, pairs=16, groups=4, inner=8)
    found = bounds(processes.factor_above, sizes=sizes, learner=point_learner(0.3))
    cut = 0
    for units in ("nats", "bits"):
        for name, term in found.table(units=units).items():
            least, draws = VARIABLES[name].least, found.idata["prior"][name].values
            if term["hdi_low"] is None or math.isinf(least):
                continue
            lowest = float(draws.min()) * (1 / math.log(2) if units == "bits" else 1)
            assert term["hdi_low"] >= min(least, lowest) - 1e-12, name
            cut += term["hdi_low"] == least
    assert cut


def test_a_limit_in_nats_is_one_in_bits(own_variables, monkeypatch):
    name = "information_prompt_output"
    sizes = SampleSizes(worlds=3, replicates=32, pairs=16, groups=4, inner=8)
    found = bounds(processes.recipe, sizes=sizes, learner=point_learner(0.3))
    largest = float(torch.as_tensor(found.idata["prior"][name].values).max())
    describe(name, Variable("I", "nats", "mine", least=0, most=largest + 1e-3))
    assert found.table()[name]["hdi_high"] == pytest.approx(largest + 1e-3)
    assert found.table(units="bits")[name]["hdi_high"] == pytest.approx(
        (largest + 1e-3) / math.log(2)
    )
