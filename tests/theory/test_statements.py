"""The table of statements: what entries add, formulas compose, and a bound alone leaves open."""

import json
import math
from dataclasses import replace

import pytest
import torch

from rbpp.checks import Check
from rbpp.estimate import Estimate, exactly
from rbpp.processes.process import load_process
from rbpp.processes.replicas import Replicas
from rbpp.theory import statements, terms
from rbpp.theory.assumptions import Evidence
from rbpp.theory.bounds import estimate_worlds
from rbpp.theory.lemmas import LemmaSetting
from rbpp.theory.settings import LemmaConstants
from rbpp.theory.statements import Statement, all_terms
from rbpp.variables import VARIABLES, Variable, describe
from tests import processes_by_users as processes
from tests.theory.test_bounds import FACTS, checks_of, compute_bounds, estimates, small_bounds

SETTING = LemmaSetting(
    rows=FACTS.rows, coordinates=FACTS.coordinates, loss_bound=2.0, sub_gaussian=1.0
)


def test_errors_go_through_formulas_by_the_delta_method():
    shape = torch.zeros(2, dtype=torch.float64)
    found = all_terms(
        estimates(
            entropy_anchor=Estimate(shape + 4, shape + 0.1, 9),
            entropy_synthetic=Estimate(shape + 2, shape + 0.2, 5),
        ),
        SETTING,
    )
    torch.testing.assert_close(found["entropy_gap"].value, shape + 2)
    torch.testing.assert_close(found["entropy_gap"].standard_error, shape + math.hypot(0.1, 0.2))
    assert "ggmi" not in found


@pytest.mark.parametrize(("direction", "found"), [("unbiased", "upper"), ("lower", "lower")])
def test_a_sharp_bound_of_a_divergence_from_below_is_no_upper_side(direction, found):
    shape = torch.zeros(2, dtype=torch.float64)
    informations = (
        "information_synthetic_learner",
        "curation_leak",
        "information_prompt_learner",
        "information_model_factor_learner_given_prompt",
    )
    known = {name: Estimate(shape + 1, shape + 0.1, 9) for name in informations}
    divergence = Estimate(shape + 0.3, shape + 0.01, 9, direction)
    bounds = all_terms(estimates(total_divergence=divergence, **known), SETTING)
    assert bounds["bound_synthetic_sharp"].direction == found


@pytest.mark.parametrize("direction", ["unbiased", "lower"])
@pytest.mark.parametrize(
    ("statement", "names"),
    [
        ("Lemma 3.1", ("task_divergence", "generation_divergence")),
        ("Theorem 4.7", ("task_divergence", "generation_divergence")),
        ("Theorem 4.7, sharp (ours)", ("total_divergence",)),
    ],
)
def test_a_bound_by_total_variation_rests_on_the_one_that_it_has(statement, names, direction):
    shape = torch.zeros(2, dtype=torch.float64)
    for one_sided in names:  # whichever of them it is
        known = {
            name: Estimate(shape + 0.25, shape, 9, direction if name == one_sided else "unbiased")
            for name in names
        }
        found = estimates(**known)
        evidence = Evidence(known, found, LemmaConstants(), SETTING)
        (entry,) = [one for one in statements.STATEMENTS.values() if one.name == statement]
        (check,) = [
            found
            for assumption in entry.assumptions
            if "total_variation" in assumption.__qualname__
            and (found := assumption(evidence)) is not None
        ]
        assert check.verdict == ("unknown" if direction == "lower" else "holds")
        word = "is at least" if direction == "lower" else "="
        symbol = VARIABLES[one_sided].long_name.partition(")")[0] + ")"
        assert f"{symbol} {word} 0.25" in check.message


def test_a_derived_term_that_is_not_there_says_what_it_needs():
    shape = torch.zeros(2, dtype=torch.float64)
    known = estimates(entropy_anchor=exactly(shape + 4), information_gain=exactly(shape + 1))
    known.missing["entropy_synthetic"] = "no density"
    reasons = terms.absences(known, known.facts, SETTING)
    assert reasons["entropy_gap"] == "needs entropy_synthetic, which is missing"
    assert reasons["entropy_output"] == "needs information_prompt_output, which is not estimated"
    # What another derived term lacks is named itself.
    assert reasons["learner_gap"] == (
        "needs information_anchor_synthetic_learner and information_anchor_learner, which are not "
        "estimated"
    )
    assert "entropy_anchor" not in reasons
    assert "entropy_synthetic" not in reasons
    found = all_terms(known, SETTING)
    assert not set(reasons) & set(found)


@pytest.mark.parametrize("lacking", ["rows", "coordinates"])
def test_a_setting_names_the_sizes_that_it_lacks(lacking):
    sizes = {"rows": FACTS.rows, "coordinates": FACTS.coordinates} | {lacking: {"anchor": 3}}
    with pytest.raises(ValueError, match=f"Expected {lacking} of the data sets.*got .'anchor': 3"):
        LemmaSetting(**sizes, loss_bound=1.0, sub_gaussian=0.5)


def test_a_term_that_nothing_describes_is_an_error():
    one = Estimate(torch.ones(2), torch.zeros(2), 9)
    with pytest.raises(ValueError, match="describes; got entropy_unheard_of"):
        all_terms(estimates(entropy_unheard_of=one), SETTING)


def test_a_formula_that_misspells_a_term_is_an_error(monkeypatch):
    monkeypatch.setitem(terms.DERIVED, "entropy_gap", lambda term, _: term["entropy_anchr"])
    one = Estimate(torch.ones(2), torch.zeros(2), 9)
    with pytest.raises(ValueError, match="entropy_anchr"):
        all_terms(estimates(entropy_anchor=one), SETTING)


@pytest.fixture
def own_tables(monkeypatch):
    """Tables of statements and variables that are put back."""
    variables = dict(VARIABLES)
    monkeypatch.setattr(statements, "STATEMENTS", dict(statements.STATEMENTS))
    yield
    VARIABLES.clear()
    VARIABLES.update(variables)


@pytest.fixture
def own_statement(own_tables):
    """A bound of one's own, in one entry."""
    statements.register(
        Statement(
            name="my lemma",
            left="information_output_learner",
            right="bound_mine",
            formula=lambda term, setting: term["information_synthetic_learner"] + 1.0,
            assumptions=(lambda known: Check("worlds were drawn", "holds"),),
            variable=Variable("I(S_gen; W) + 1", "nats", "mine", "worse", "synthetic"),
        )
    )


def test_one_entry_adds_a_bound_everywhere(own_statement):
    found = compute_bounds(processes.recipe)
    slack = found.terms["slack_bound_mine"].value - found.terms["curation_leak"].value
    torch.testing.assert_close(slack, torch.ones_like(slack))
    check = checks_of(found)["my lemma"]
    assert check.verdict == "holds"
    assert [one.statement for one in check.assumptions] == ["worlds were drawn"]
    assert found.idata["prior"]["bound_mine"].attrs["equation"] == "mine"
    assert "bound_mine" in found.table()
    assert "bound_mine" in found.text()
    titles = [axis.get_title(loc="left") for axis in found.figures()["bounds"]().flat]
    assert "my lemma: holds" in titles
    bits = {row["statement"]: row for row in found.audit("bits")}["my lemma"]
    assert bits["slack"] == pytest.approx(check.measured["slack"] / math.log(2))
    printed = json.loads(found.to_json())
    assert {"bound_mine", "slack_bound_mine"} <= set(printed["terms"])
    assert ("my lemma", "bound_mine") in {(row["statement"], row["by"]) for row in printed["audit"]}


def test_a_right_side_may_be_a_term_that_there_is(own_tables):
    statements.register(
        Statement(
            name="W knows no more than there is",
            left="information_synthetic_learner",
            right="entropy_synthetic",
            formula=lambda term, setting: term["entropy_synthetic"],
        )
    )
    shape = torch.ones(2, dtype=torch.float64)
    known = {
        "entropy_synthetic": Estimate(3 * shape, 0.4 * shape, 9),
        "information_synthetic_learner": Estimate(shape, 0.3 * shape, 9),
    }
    found = all_terms(estimates(**known), SETTING)
    torch.testing.assert_close(found["entropy_synthetic"].value, 3 * shape)
    torch.testing.assert_close(found["slack_entropy_synthetic"].value, 2 * shape)
    torch.testing.assert_close(found["slack_entropy_synthetic"].standard_error, 0.5 * shape)


def test_a_right_side_has_one_statement(own_statement):
    mine = statements.STATEMENTS["bound_mine"]
    with pytest.raises(ValueError, match="bound_mine of your lemma, which my lemma has"):
        statements.register(replace(mine, name="your lemma"))
    assert statements.STATEMENTS["bound_mine"] is mine
    statements.register(replace(mine, needs=("ggmi",)))  # the same lemma, corrected
    assert statements.STATEMENTS["bound_mine"].needs == ("ggmi",)


@pytest.mark.parametrize(
    ("direction", "error", "verdict"),
    [
        # C (TV(D, D_M) + TV(D_M, D_gen)) + gap = 2 (0.1 + TV(D_M, D_gen)) + 0.1
        ("unbiased", 0.8, "holds"),
        ("lower", 0.8, "holds"),
        ("upper", 0.8, "undecided"),
        ("unbiased", 1.6, "violated"),
        ("lower", 1.6, "undecided"),
        ("upper", 1.6, "violated"),
        ("lower", 2.4, "violated"),  # a divergence is at most 1
        ("upper", 0.2, "holds"),  # and at least 0
    ],
)
def test_a_divergence_that_is_a_bound_alone_leaves_its_other_end_open(direction, error, verdict):
    one = torch.ones(2, dtype=torch.float64)
    divergence = Estimate(0.6 * one, 1e-9 * one, 9, direction, method="one side")
    found = estimates(
        task_divergence=Estimate(0.1 * one, 1e-9 * one, 9),
        generation_divergence=divergence,
        absolute_estimation_gap=Estimate(0.1 * one, 1e-9 * one, 9),
        generalization_error=Estimate(error * one, 1e-9 * one, 9),
        information_prompt_output=Estimate(one, 0 * one, 9),
    )
    composed = all_terms(found, SETTING)
    constants = LemmaConstants(loss_bound=2.0)
    checks = {
        statement.right: check
        for statement, check in zip(
            statements.STATEMENTS.values(),
            statements.audit(Evidence(composed, found, constants, SETTING)),
            strict=True,
        )
    }
    check = checks["bound_lemma_3_1"]
    assert check.verdict == verdict
    (tv,) = [one for one in check.assumptions if one.statement.startswith("TV =")]
    assert tv.verdict == ("holds" if direction == "unbiased" else "unknown")
    words = {"unbiased": "= 0.6", "lower": "is at least 0.6", "upper": "is at most 0.6"}
    assert f"TV(D_M, D_gen) {words[direction]}" in tv.message


def test_what_a_bound_by_an_upper_side_leaves_is_no_bound_alone():
    one = torch.ones(2, dtype=torch.float64)
    information = Estimate(one, 0.1 * one, 9).between(exactly(0.5 * one), exactly(2 * one))
    found = all_terms(
        estimates(
            information_synthetic_learner=information,
            estimation_gap=Estimate(0.1 * one, 0.01 * one, 9),
        ),
        SETTING,
    )
    assert found["bound_lemma_4_4"].direction == "upper"
    assert found["slack_bound_lemma_4_4"].direction == "unbiased"


def test_a_term_of_a_bound_alone_says_so_wherever_it_goes(monkeypatch):
    def from_below(*given):
        found = estimate_worlds(*given)
        leak = found.terms["curation_leak"]
        found.terms["curation_leak"] = replace(leak, direction="lower", lower=None, upper=None)
        return found

    monkeypatch.setattr("rbpp.theory.bounds.estimate_worlds", from_below)
    found = compute_bounds(processes.recipe)
    notes = dict(note.split(": ", 1) for note in found.notes)
    assert notes["information_output_learner"].startswith("known from above")
    assert "no upper side" in notes["curation_leak"]
    assert checks_of(found)["chain-rule bound (ours)"].verdict == "holds"


def test_a_term_known_from_one_side_is_marked_and_its_bound_is_not_said_to_hold(monkeypatch):
    def one_sided(*given):
        found = estimate_worlds(*given)
        for name, direction in (("total_divergence", "lower"), ("information_gain", "upper")):
            one = replace(found.terms[name], direction=direction, lower=None, upper=None)
            found.terms[name] = replace(one, method="one side")
        return found

    plain = compute_bounds(processes.recipe)
    monkeypatch.setattr("rbpp.theory.bounds.estimate_worlds", one_sided)
    found = compute_bounds(processes.recipe)
    assert found.one_sided["total_divergence"] == "lower"
    assert found.one_sided["bound_synthetic_sharp"] == "lower"
    assert found.one_sided["information_gain"] == "upper"
    assert "bound_anchor" not in found.one_sided  # an upper side, as its meaning says
    # Tables.
    text, before = found.text(), plain.text()
    lines = {line.split()[0]: line.split()[1] for line in text.splitlines() if line[:2] == "  "}
    assert lines["total_divergence"] == "≥"
    assert lines["information_gain"] == "≤"
    assert lines["information_anchor_learner"] not in "≥≤"
    assert "≥" not in before.split("check  ")[0].split("\n\n")[1]
    # Notes of what stands marked are never among those left out.
    for name in found.one_sided:
        assert any(note.startswith(f"{name}:") for note in found.notes), name
        assert f"\n{name}: " in text, name
    assert "more note" in text
    # The headline.
    sharp = "Theorem 4.7, sharp (ours)"
    assert checks_of(found)[sharp].verdict == "holds"
    first, error, _, gain, *_ = found.answer()
    holding = [check for check in found.checks if check.verdict == "holds"]
    assert first.startswith(f"{len(holding) - 1} of {len(found.checks)} statements hold")
    assert f"by a bound known from below alone: {sharp}" in first
    assert "its sharp bound at least" in error
    assert error.endswith("known from below alone.")
    assert "adds at most" in gain
    # Figures, also of what was written.
    labels = [
        label.get_text()
        for name in ("terms", "bounds")
        for axis in found.figures()[name]().flat
        for label in axis.get_yticklabels()
    ]
    assert "information_gain (at most)" in labels
    assert "bound_synthetic_sharp (at least)" in labels
    assert "generalization_error" in labels


def test_an_information_without_a_limit_leaves_the_slack_open():
    one = torch.ones(2, dtype=torch.float64)
    found = all_terms(
        estimates(
            information_synthetic_learner=Estimate(one, 0 * one, 9, "lower"),
            information_anchor_learner=Estimate(2 * one, 0 * one, 9),
            information_prompt_learner=Estimate(0.5 * one, 0 * one, 9),
            entropy_anchor=Estimate(4 * one, 0 * one, 9),
            information_anchor_synthetic_learner=Estimate(one, 0 * one, 9),
            curation_leak=Estimate(0.1 * one, 0 * one, 9),
            information_model_factor_learner_given_prompt=Estimate(one, 0 * one, 9),
        ),
        SETTING,
    )
    # What follows from it is a bound as well: less what the learner knows is left open.
    assert found["information_output_learner"].direction == "lower"
    assert found["ggmi"].direction == "upper"
    assert found["bound_chain_rule"].direction == "unbiased"
    assert found["learner_gap"].direction == "unbiased"
    slack = found["slack_bound_chain_rule"]
    assert slack.direction == "upper"
    assert slack.lower.value.tolist() == [-math.inf] * 2
    torch.testing.assert_close(slack.upper.value, 0.6 * one)


def test_a_derived_term_sees_sizes_and_is_one_entry(own_tables, monkeypatch):
    """The entropy power of the synthetic data, exp(2 h / d) with h = H + d log Δ."""
    describe("entropy_power", Variable("exp(2 h(S_gen) / d)", "1", "mine", least=0))

    def power(term, setting):
        size = setting.coordinates["synthetic"]
        return (2 * (term["entropy_synthetic"] / size + math.log(setting.resolution))).exp()

    monkeypatch.setitem(terms.DERIVED, "entropy_power", power)
    found = compute_bounds(processes.recipe)
    coordinates = Replicas(processes.recipe).sites["synthetic"].coordinates
    entropy, own = found.terms["entropy_synthetic"], found.terms["entropy_power"]
    expected = (2 * (entropy.value / coordinates + math.log(0.01))).exp()
    torch.testing.assert_close(own.value, expected)
    slope = 2 * expected / coordinates
    torch.testing.assert_close(own.standard_error, slope * entropy.standard_error)
    assert found.table()["entropy_power"]["hdi_low"] >= 0
    assert "entropy_power" in found.text()
    assert found.idata["prior"]["entropy_power"].attrs["equation"] == "mine"


def test_a_statement_about_unknown_terms_is_refused():
    entry = Statement(name="x", left="ggmi", right="bound_unknown", formula=lambda t, s: t["ggmi"])
    with pytest.raises(ValueError, match="describes; got bound_unknown"):
        statements.register(entry)


def test_a_statement_names_only_what_it_lacks_itself():
    check = checks_of(small_bounds("noisy_prompt"))["Theorem 4.7, sharp (ours)"]
    assert check.message == "not every term is there (the process has no site target)"


def test_the_proof_step_is_not_judged_where_e_m_is_only_bounded():
    step = checks_of(small_bounds("recipe"))["Lemma 4.5, proof step"]
    assert step.verdict == "unknown"
    assert any("no site model_factor" in one.message for one in step.assumptions)
    linear = compute_bounds(load_process("linear_gaussian"))
    assert checks_of(linear)["Lemma 4.5, proof step"].verdict != "unknown"


def test_a_bound_of_the_expected_gap_says_where_the_absolute_gap_exceeds_it():
    found = compute_bounds(load_process("linear_gaussian"), sub_gaussian=0.01)
    check = checks_of(found)["Lemma 4.4"]
    assert "E[R − R̂]" in check.message
    assert "above the bound in 3 of 3 worlds" in check.message


def test_identities_are_called_so_and_have_no_probability():
    checks = checks_of(compute_bounds(load_process("linear_gaussian")))
    for name in ("chain-rule bound (ours)", "Theorem 4.10, corrected (ours)"):
        assert checks[name].verdict == "holds"
        assert "identity" in checks[name].message
        assert math.isnan(checks[name].measured["probability_holds"])


def test_noise_beyond_the_model_factor_is_named():
    check = checks_of(small_bounds("factor_above"))["chain-rule bound (ours)"]
    (factor,) = [one for one in check.assumptions if "function of" in one.statement]
    assert factor.verdict == "violated"
