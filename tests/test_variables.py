"""What outputs know of a variable stands in its line, and nothing is read off its name."""

import math

import pytest
import torch

from rbpp import display, inference_data, plots, wording
from rbpp.assessment import learned_audit
from rbpp.fine_tuning import fine_tunes
from rbpp.theory.bounds import Bounds, bounds
from rbpp.theory.learners import point_learner
from rbpp.theory.settings import SampleSizes
from rbpp.theory.statements import STATEMENTS
from rbpp.variables import GROUPS, VARIABLES, Variable, describe, read_table
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


@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize(("units", "scale"), [("nats", 1), ("bits", 1 / math.log(2))])
def test_a_limit_is_divided_by_rows_where_numbers_are_per_row_alone(
    own_variables, units, scale, per_row
):
    """Of three worlds the interval is far wider than both limits, which then are its ends."""
    describe("known", Variable("I", "nats", "mine", rows="synthetic", least=0, most=1))
    draws = {"known": [[0.1, 0.9, 0.5]], "total_divergence": [[0.1, 0.9, 0.5]]}
    found = Bounds(idata=inference_data.make(prior=draws), row_counts={"synthetic": 8})
    table = found.table(units=units, per_row=per_row)
    assert table["known"]["hdi_low"] == 0
    assert table["known"]["hdi_high"] == pytest.approx(scale / 8 if per_row else scale)
    assert table["total_divergence"]["hdi_high"] == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"units": "nat"}, "units to be one of nats, loss, 1; got 'nat'"),
        ({"rows": "output"}, "rows to be one of anchor, synthetic, None; got 'output'"),
        ({"group": "risks"}, "group to be one of .*risk.*; got 'risks'"),
        ({"panel": "rate"}, "panel to be one of .*rates.*; got 'rate'"),
        ({"larger_is": "good"}, "larger_is to be one of better, worse, neither; got 'good'"),
        ({"stands_as": "side"}, "stands_as to be one of .*upper side; got 'side'"),
        ({"bound": 1}, "bound to be true or false; got 1"),
        ({"main": "no"}, "main to be true or false; got 'no'"),
        ({"least": 1, "most": 1}, "least below most; got 1 and 1"),
    ],
)
def test_a_field_that_outputs_do_not_know_is_refused(fields, message):
    given = {"long_name": "I", "units": "nats", "equation": "mine", **fields}
    with pytest.raises(ValueError, match=f"Expected {message}"):
        Variable(**given)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{ long_name = "I", units = "nat", equation = "1" }', "units to be one of"),
        ('{ long_name = "I", units = "nats", equation = "1", largest = 1 }', "argument 'largest'"),
        ('{ long_name = "I", units = "nats" }', "argument: 'equation'"),
        ('{ long_name = "I", units = "nats", equation = "1", least = "0" }', "'<' not supported"),
    ],
)
def test_a_table_that_is_none_names_the_variable(line, message):
    with pytest.raises(ValueError, match=f"fields of a variable in known; got .*{message}"):
        read_table(f"known = {line}")


def test_a_bound_that_nothing_here_describes_is_drawn_without_limits():
    draws = {"generalization_error": [[0.1, 0.9, 0.5]], "bound_theirs": [[0.1, 0.9, 0.5]]}
    entry = {"statement": "theirs", "verdict": "holds", "slack": 0.0, "probability_holds": math.nan}
    entry |= {"bounds": "generalization_error", "by": "bound_theirs"}
    (axis,) = plots.plot_bounds(inference_data.make(prior=draws), [entry]).flat
    assert axis.get_title(loc="left") == "theirs: holds"
