"""Every term of a process: against truths, between its sides, and for processes nobody shipped."""

import math
from functools import cache

import pytest
import torch

from benchmarks import coverage
from rbpp.estimate import Estimate
from rbpp.processes.process import load_process
from rbpp.processes.replicas import Replicas
from rbpp.theory.chain import chain_terms
from rbpp.theory.composition import propagate
from rbpp.theory.factors import factor_kind, is_additive
from rbpp.theory.flow import flow
from rbpp.theory.information import Bracket
from rbpp.theory.learners import mixture_learner, point_learner
from rbpp.theory.measured import Measured, join
from rbpp.theory.statements import audit_chain, to_inference_data
from tests import processes_by_users as processes

SMALL = {"worlds": 3, "replicates": 64, "pairs": 32, "groups": 6, "inner": 16}
# A mean error beyond 4.5 standard errors of the mean happens once in 10⁵.
ERRORS = 4.5


@cache
def small_chain(name, **settings):
    return chain_terms(getattr(processes, name), learner=point_learner(0.3), **SMALL, **settings)


@pytest.mark.parametrize("case", [coverage.linear_gaussian, coverage.finite_alphabet])
def test_every_term_meets_its_truth_and_its_intervals_cover(case):
    """A small version of benchmarks/coverage.py: 20 worlds, each a replication."""
    worlds = 20
    chain, truths = case(worlds, 1, replicates=64, pairs=64, groups=8, inner=16)
    table = coverage.coverage(chain, truths)
    assert len(table) > 25
    for row in table:
        if row["term"] in ("prompting_factor", "anchor_retention"):  # ratios: heavy tails
            continue
        allowed = ERRORS * row["mcse"] / math.sqrt(worlds)
        assert abs(row["bias"]) < allowed + 0.01 * row["rmse"] + 2e-3, row
        # 95 % nominal; below 13 of 20 has a probability of 10⁻⁴ at 91 %.
        assert row["covered"] >= 0.65, row


@pytest.mark.parametrize("name", ["recipe", "factor_above", "noisy_prompt"])
def test_a_users_own_process_gets_the_same_table(name):
    chain = small_chain(name)
    for term in (
        "entropy_anchor",
        "information_gain",
        "information_prompt_output",
        "information_synthetic_learner",
        "information_prompt_learner",
        "information_model_factor_learner_given_prompt",
        "curation_leak",
        "bound_chain_rule",
        "bound_ggmi_corrected",
        "ggmi",
        "bound_lemma_4_4",
    ):
        assert chain.terms[term].value.isfinite().all(), term
        assert (chain.terms[term].standard_error >= 0).all(), term
    audit = audit_chain(chain)
    assert [row["statement"] for row in audit][:3] == ["Lemma 3.1", "Lemma 4.4", "Lemma 4.5"]
    data = to_inference_data(chain)
    posterior = data["posterior"]
    assert posterior["ggmi"].shape == (1, 3)
    assert "information_synthetic_learner_upper" in posterior
    assert posterior["ggmi_mcse"].attrs["units"] == "nats"


def test_a_drawn_prompt_of_letters_has_its_entropy():
    chain = chain_terms(processes.drawn_letter, **SMALL | {"replicates": 512, "pairs": 512})
    bias = chain.world["bias"].reshape(-1, 3).double()
    anchors = torch.cartesian_prod(*[torch.arange(3)] * 3)
    counts = torch.nn.functional.one_hot(anchors, 3).sum(1).double()
    prompt = bias[:, anchors].prod(-1) @ counts.softmax(-1)
    truth = -(prompt * prompt.log()).sum(-1)
    found = chain.terms["entropy_prompt_factor"]
    assert ((found.value - truth).abs() < ERRORS * found.standard_error).all()
    assert (found.standard_error < 0.1).all()
    assert chain.terms["bound_lemma_4_6"].value.isfinite().all()


def test_a_statement_names_only_what_it_lacks_itself():
    rows = {
        row["statement"]: row["assumptions"] for row in audit_chain(small_chain("noisy_prompt"))
    }
    lacks = "not every term is there (the process has no site target)"
    assert rows["Theorem 4.7, sharp (ours)"][-1] == f"unknown: {lacks}"


def test_terms_without_their_sites_are_missing_by_name_and_not_an_error():
    chain = small_chain("recipe")
    assert "unprompted" in chain.missing["generation_divergence"]
    assert "task_divergence" not in chain.terms
    assert "total_divergence" in chain.terms
    assert "bound_synthetic_sharp" in chain.terms
    assert "bound_synthetic" not in chain.terms
    rows = {row["statement"]: row for row in audit_chain(chain)}
    assert rows["Theorem 4.7"]["verdict"] == "unknown"
    assert any("unprompted" in line for line in rows["Theorem 4.7"]["assumptions"])
    assert rows["Theorem 4.7, sharp (ours)"]["verdict"] == "holds"
    assert rows["chain-rule bound (ours)"]["verdict"] == "holds"


def test_curation_that_hides_its_density_leaves_out_what_needs_it():
    chain = small_chain("rounded")
    assert "copy" in chain.missing["entropy_synthetic"]
    assert "entropy_synthetic" not in chain.terms
    assert "bound_ggmi" not in chain.terms
    assert float(chain.terms["curation_leak"].value.abs().max()) == 0
    assert chain.terms["information_synthetic_learner"].value.isfinite().all()


def test_noise_beyond_the_model_factor_is_named():
    chain = small_chain("factor_above")
    rows = {row["statement"]: row for row in audit_chain(chain)}
    factor = [
        line for line in rows["chain-rule bound (ours)"]["assumptions"] if "function of" in line
    ]
    assert factor[0].startswith("violated")


def test_noisy_curation_breaks_theorem_4_10_and_not_its_correction():
    chain = chain_terms(
        load_process("linear_gaussian", curation_noise=2.0), learner=point_learner(0.3), **SMALL
    )
    rows = {row["statement"]: row for row in audit_chain(chain)}
    assert rows["Theorem 4.10"]["verdict"] == "violated"
    assert any(
        line.startswith("violated: H(S_gen)") for line in rows["Theorem 4.10"]["assumptions"]
    )
    assert rows["Theorem 4.10, corrected (ours)"]["verdict"] == "holds"


def test_no_curation_leaks_nothing_and_keeps_theorem_4_10():
    chain = chain_terms(
        load_process("linear_gaussian", curation_noise=0.0), learner=point_learner(0.3), **SMALL
    )
    assert float(chain.terms["curation_leak"].value.abs().max()) == 0
    for name in ("entropy_synthetic", "information_synthetic_learner"):
        other = name.replace("synthetic", "output", 1)
        assert torch.equal(chain.terms[name].value, chain.terms[other].value)
    rows = {row["statement"]: row for row in audit_chain(chain)}
    assert rows["Theorem 4.10"]["verdict"] == "holds"


def test_a_deterministic_map_between_continuous_variables_is_refused_by_its_sites():
    with pytest.raises(ValueError, match=r"infinitely much: site 'output'.*prompt") as refusal:
        chain_terms(processes.echo, **SMALL)
    assert "noise" in str(refusal.value)


def test_a_missing_site_is_named():
    with pytest.raises(ValueError, match="none named prompt or synthetic"):
        chain_terms(processes.without_prompt, **SMALL)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"worlds": 0}, "worlds ≥ 1"),
        ({"replicates": 4}, "replicates ≥ 8"),
        ({"groups": 1}, "groups ≥ 2"),
        ({"loss_bound": 0.0}, "loss_bound"),
        ({"sub_gaussian": -1.0}, "sub_gaussian"),
        ({"sub_gaussian": "guess"}, "estimate"),
        ({"contraction": 1.5}, "contraction"),
        ({"layers": -2}, "layers"),
        ({"resolution": 0.0}, "resolution"),
    ],
)
def test_settings_out_of_range_are_refused_before_any_work(settings, message):
    with pytest.raises(ValueError, match=message):
        chain_terms(processes.recipe, **{**SMALL, **settings})


def test_constants_change_what_they_should():
    base = small_chain("recipe").terms
    layers = small_chain("recipe", layers=2, contraction=0.25).terms
    ratio = layers["bound_lemma_4_4"].value / base["bound_lemma_4_4"].value
    torch.testing.assert_close(ratio, torch.full_like(ratio, 0.25))
    scaled = small_chain("recipe", loss_bound=3.0).terms
    for name in ("generalization_error", "bound_lemma_4_4", "bound_synthetic_sharp"):
        torch.testing.assert_close(scaled[name].value, 3 * base[name].value)
    coarse = small_chain("recipe", resolution=0.1).terms["entropy_anchor"].value
    torch.testing.assert_close(
        base["entropy_anchor"].value - coarse, torch.full_like(coarse, 12 * math.log(10))
    )
    given = small_chain("recipe", sub_gaussian=0.1).terms["bound_lemma_4_4"].value
    torch.testing.assert_close(given, base["bound_lemma_4_4"].value / 5)
    estimated = small_chain("recipe", sub_gaussian="estimate")
    assert estimated.settings["sub_gaussian"] < 0.5
    line = audit_chain(estimated)[1]["assumptions"][0]
    assert line.startswith("unknown")
    assert "no bound" in line


def test_the_same_seed_gives_the_same_terms_and_another_other_ones():
    first = chain_terms(processes.recipe, learner=point_learner(0.3), **SMALL)
    again, other = small_chain("recipe"), small_chain("recipe", seed=1)
    for name, term in first.terms.items():
        assert torch.equal(term.value, again.terms[name].value), name
    assert not torch.equal(first.terms["ggmi"].value, other.terms["ggmi"].value)


def test_model_factors_are_found_where_they_are():
    for name, kind in (("recipe", "absent"), ("factor_above", "above")):
        assert factor_kind(Replicas(getattr(processes, name))) == kind
    replicas = Replicas(load_process("linear_gaussian"))
    values = replicas.draw(4, "test")
    assert factor_kind(replicas) == "below"
    assert is_additive(replicas, values)


def test_prompt_information_agrees_with_a_known_channel():
    """Mean of six unit rows into eight unit rows: I = ½·2·log(1 + 8/6)."""
    replicas = Replicas(processes.recipe, worlds=12)
    values = replicas.draw(128, "test")
    found = flow(replicas, values, pairs=128, resolution=1.0).terms["information_prompt_output"]
    truth = math.log(1 + 8 / 6)
    value = found.best()
    error = float(value.standard_error.square().mean().sqrt()) / math.sqrt(12)
    assert abs(float(value.value.mean()) - truth) < ERRORS * error + 0.01
    assert float(found.lower.value.mean()) < float(found.upper.value.mean())


def test_errors_go_through_formulas_by_the_delta_method():
    shape = torch.zeros(2, dtype=torch.float64)
    terms = {
        "task_divergence": Estimate(shape + 4, shape + 0.1, 9),
        "total_divergence": Estimate(shape + 2, shape + 0.2, 5),
    }

    def compose(term):
        first, second = term["task_divergence"], term["total_divergence"]
        return {"product": first * second, "same": first - first, "lost": term["entropy_anchor"]}

    found = propagate(terms, compose, {})
    error = math.sqrt((2 * 0.1) ** 2 + (4 * 0.2) ** 2)
    torch.testing.assert_close(found["product"].standard_error, shape + error)
    assert float(found["same"].standard_error.max()) == 0
    assert "lost" not in found


def test_mixture_learner_runs_on_a_users_process():
    chain = chain_terms(processes.recipe, learner=mixture_learner(1), **SMALL)
    low = chain.sides["information_synthetic_learner"].lower
    value = chain.terms["information_synthetic_learner"].value
    assert bool((low.value - ERRORS * low.standard_error < value).all())
    assert "conjugate mixture" in chain.settings["learner"]


def test_the_proof_step_is_not_judged_where_e_m_is_only_bounded():
    rows = {row["statement"]: row for row in audit_chain(small_chain("recipe"))}
    step = rows["Lemma 4.5, proof step"]
    assert step["verdict"] == "unknown"
    assert any("no site model_factor" in line for line in step["assumptions"])
    linear = chain_terms(load_process("linear_gaussian"), learner=point_learner(0.3), **SMALL)
    rows = {row["statement"]: row for row in audit_chain(linear)}
    assert rows["Lemma 4.5, proof step"]["verdict"] != "unknown"


def test_worlds_in_batches_are_those_of_smaller_runs_side_by_side():
    options = {**SMALL, "learner": point_learner(0.3), "sub_gaussian": "estimate"}
    both = chain_terms(processes.recipe, **options | {"worlds": 5}, worlds_at_once=3)
    first = chain_terms(processes.recipe, **options)
    for name, estimate in first.terms.items():
        assert both.terms[name].value.shape == (5,)
        if name.startswith("bound_lemma"):  # with the σ of all worlds
            continue
        torch.testing.assert_close(both.terms[name].value[:3], estimate.value)
        torch.testing.assert_close(both.terms[name].standard_error[:3], estimate.standard_error)
    for name, value in first.world.items():
        assert torch.equal(both.world[name][:3], value)
        assert not torch.equal(both.world[name][3:], value[:2])
    assert both.facts["losses"][0] <= first.facts["losses"][0]
    assert both.facts["estimated_sub_gaussian"].shape == (5,)
    assert audit_chain(both)
    assert to_inference_data(both)["posterior"].sizes["draw"] == 5


def test_a_term_that_a_batch_lacks_is_nan_there():
    estimate = Estimate(torch.tensor([1.0, 2.0]), torch.tensor([0.1, 0.2]), 8)
    facts = {"losses": None}
    parts = [
        Measured({"a": estimate}, {"a": Bracket(estimate, estimate, by)}, {}, None, {}, {}, facts)
        for by in ("sandwich", "contrast")
    ]
    parts[1].primitives["b"] = estimate
    parts[0].missing.update({"b": "not here", "c": "nowhere"})
    parts[1].missing.update({"c": "nowhere"})
    found = join([Measured.from_arrays(part.arrays()) for part in parts], [2, 2])
    assert found.primitives["a"].value.tolist() == [1, 2, 1, 2]
    assert found.primitives["b"].value.isnan().tolist() == [True, True, False, False]
    assert found.brackets["a"].lower_by == "sandwich or contrast"
    assert found.missing == {"c": "nowhere"}
