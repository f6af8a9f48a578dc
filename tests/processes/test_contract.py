from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from broken_processes import (
    BROKEN,
    HIDDEN_EDGES,
    UNSEEN,
    anchors,
    answer,
    by_text,
    chain,
    prompt_of_one_row,
    sound,
    unit,
    world_centre,
)

from rbpp.checks import violations
from rbpp.processes.contract import CHAIN, check, require
from rbpp.processes.loading import builtin_names
from rbpp.processes.process import Process, load_process

# Every shipped process that simulates; `sources` is a model of observed rows.
SHIPPED = [name for name in builtin_names() if name != "sources"]


def process_of(model) -> Process:
    return load_process(model)


def rule_of(found):
    return found.measured["rule"]


def place_of(found):
    return found.measured["place"]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_processes_meet_the_contract(name):
    findings = check(load_process(name), tries=12).checks
    wrong = [finding for finding in findings if finding.verdict != "holds"]
    assert not wrong
    assert {"sites", "plate", "size", "event", "world", "markov", "rows", "batch"} <= {
        rule_of(finding) for finding in findings
    }


def test_sound_process_meets_the_contract():
    assert not [f for f in check(process_of(sound)).checks if f.verdict != "holds"]
    assert not violations(require(process_of(sound), tries=2).checks)


# What a fault cannot help but break too.
ALSO = {"hidden noise": {"markov", "rows", "batch"}, "world below": {"batch"}}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_process_is_found_and_nothing_else_blamed(name):
    model, rule, place = BROKEN[name]
    found = violations(check(process_of(model), tries=5).checks)
    assert (rule, place) in {(rule_of(finding), place_of(finding)) for finding in found}
    assert {rule_of(finding) for finding in found} <= {rule} | ALSO.get(name, set())
    assert all(finding.message for finding in found)


@pytest.mark.parametrize("name", ["no synthetic", "wrong plate", "anchor → synthetic"])
def test_require_refuses_with_the_reason(name):
    model, rule, place = BROKEN[name]
    with pytest.raises(ValueError, match=r"Expected .* to meet the contract") as error:
        require(process_of(model), tries=5)
    assert f"{rule} ({place})" in str(error.value)


@pytest.mark.parametrize("name", HIDDEN_EDGES)
def test_edges_that_the_graph_loses_are_found_by_intervention(name):
    model, edge = HIDDEN_EDGES[name]
    process = process_of(model)
    source, _, target = edge.partition(" → ")
    assert source not in process_parents(process, target)
    found = [f for f in violations(check(process).checks) if rule_of(f) == "markov"]
    assert [place_of(finding) for finding in found] == [edge]
    assert found[0].measured["measured"] > 0


def process_parents(process: Process, name: str) -> list[str]:
    from rbpp.processes.graph import read_graph

    parents = read_graph(process).parents
    assert parents is not None
    return parents[name]


@pytest.mark.parametrize("name", UNSEEN)
def test_what_cannot_be_seen_is_unknown(name):
    model, word = UNSEEN[name]
    findings = [
        finding for finding in check(process_of(model)).checks if rule_of(finding) == "markov"
    ]
    assert {finding.verdict for finding in findings} == {"unknown"}
    assert any(word in finding.message for finding in findings)


def test_branch_on_text_is_never_passed():
    findings = [
        finding for finding in check(process_of(by_text)).checks if rule_of(finding) == "markov"
    ]
    assert "holds" not in {finding.verdict for finding in findings}


def test_more_tries_see_rarer_branches():
    def model():
        chain(synthetic=lambda anchor, prompt, output: output + float(anchor.max() > 3.5))

    def verdicts(tries):
        findings = check(process_of(model), tries=tries).checks
        return {f.verdict for f in findings if rule_of(f) == "markov"}

    assert "violated" not in verdicts(1)
    assert "violated" in verdicts(40)


def test_escapes_of_the_world_do_not_matter():
    def model():
        centre = world_centre()
        scale = 1.0 + abs(pyro.sample("scale", dist.Normal(0.0, 1.0)).mean().item())
        prompt = pyro.deterministic("prompt", anchors(centre))
        with pyro.plate("outputs", 4):
            output = pyro.sample("output", unit(answer(prompt)))
            pyro.sample("synthetic", unit(output, scale))

    findings = [
        finding for finding in check(process_of(model)).checks if rule_of(finding) == "markov"
    ]
    assert [(place_of(finding), finding.verdict) for finding in findings] == [(CHAIN, "holds")]


def test_output_that_ignores_its_prompt_is_said_and_allowed():
    def model():
        chain(output=lambda anchor, prompt: torch.zeros(2))

    findings = check(process_of(model)).checks
    said = [finding for finding in findings if place_of(finding) == "prompt → output"]
    assert [(finding.verdict, finding.required) for finding in said] == [("unknown", False)]
    assert not violations(findings)


def factor_above():
    """M(p) = h(e_p) + e_M with both factors drawn or computed before the output."""
    prompt = pyro.deterministic("prompt", anchors(world_centre()))
    factor = pyro.deterministic("prompt_factor", answer(prompt), event_dim=1)
    with pyro.plate("outputs", 4):
        rest = pyro.sample("model_factor", unit(torch.zeros(2)))
        output = pyro.deterministic("output", factor + rest, event_dim=1)
        pyro.sample("synthetic", unit(output))


def factor_below():
    """The same, with e_M read off the output."""
    prompt = pyro.deterministic("prompt", anchors(world_centre()))
    factor = pyro.deterministic("prompt_factor", answer(prompt), event_dim=1)
    with pyro.plate("outputs", 4):
        output = pyro.sample("output", unit(factor))
        pyro.deterministic("model_factor", output - factor, event_dim=1)
        pyro.sample("synthetic", unit(output))


def factor_of_the_whole_set():
    """One e_M for all outputs: a free site."""
    prompt = pyro.deterministic("prompt", anchors(world_centre()))
    mood = pyro.sample("model_factor", unit(torch.zeros(2)))
    with pyro.plate("outputs", 4):
        output = pyro.sample("output", unit(answer(prompt) + mood))
        pyro.deterministic("synthetic", output, event_dim=1)


@pytest.mark.parametrize(
    "model", [factor_above, factor_below, factor_of_the_whole_set, prompt_of_one_row]
)
def test_factors_may_stand_above_or_be_read_off(model):
    findings = check(process_of(model), tries=5).checks
    assert not [f for f in findings if f.verdict != "holds" and f.required]


class WithoutDensity(dist.TorchDistribution):
    """What can only be sampled."""

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, centre, batch_shape=None):
        self.centre = centre
        shape = centre.shape[:-1] if batch_shape is None else torch.Size(batch_shape)
        super().__init__(shape, centre.shape[-1:], validate_args=False)

    def expand(self, batch_shape, _instance=None):
        return WithoutDensity(self.centre.expand(*batch_shape, -1))

    def sample(self, sample_shape=()):
        return self.centre + torch.randn(*sample_shape, *self.centre.shape)

    def log_prob(self, value):
        raise NotImplementedError


def test_output_without_density_is_unknown_and_not_refused():
    def model():
        prompt = pyro.deterministic("prompt", anchors(world_centre()))
        with pyro.plate("outputs", 4):
            output = pyro.sample("output", WithoutDensity(answer(prompt)))
            pyro.sample("synthetic", unit(output))

    findings = check(process_of(model), tries=5).checks
    verdicts = {(rule_of(f), place_of(f)): f.verdict for f in findings if f.verdict != "holds"}
    assert verdicts == {
        ("density", "output"): "unknown",
        ("markov", CHAIN): "unknown",
        ("markov", "prompt → output"): "unknown",
    }


def noisy(anchor):
    return pyro.sample("prompt", unit(anchor))


def noisy_prompt():
    prompt_rows = anchors(world_centre())
    with pyro.plate("anchors", 3):
        prompt = noisy(prompt_rows)
    with pyro.plate("outputs", 4):
        output = pyro.sample("output", unit(answer(prompt)))
        pyro.sample("synthetic", unit(output))


def prompt_by(function):
    def model():
        chain(prompt=lambda anchor: pyro.deterministic("prompt", function(anchor), event_dim=1))

    return model


@pytest.mark.parametrize(
    ("model", "verdict", "word"),
    [
        (prompt_by(lambda anchor: 3 * anchor.tanh()), "holds", "rank 6 of 6"),
        (prompt_by(lambda anchor: anchor - anchor.mean(-2, keepdim=True)), "violated", "rank 4"),
        (prompt_by(lambda anchor: anchor[..., :1]), "violated", "3 numbers from anchors of 6"),
        (prompt_by(lambda anchor: (anchor / 100).round()), "violated", "same prompt"),
        (noisy_prompt, "violated", "drawn"),
    ],
    ids=["flow", "centred", "projected", "rounded", "noisy"],
)
def test_invertible_prompt_is_an_assumption(model, verdict, word):
    findings = check(process_of(model), tries=5).checks
    (finding,) = [finding for finding in findings if rule_of(finding) == "invertible"]
    assert (finding.verdict, finding.required) == (verdict, False)
    assert word in finding.message
    assert not violations(findings)


def test_large_jacobian_is_not_looked_at():
    finding = check(load_process("gaussian_mixture", anchors_per_component=300), tries=2).checks[-1]
    assert (rule_of(finding), finding.verdict) == ("invertible", "unknown")


def test_check_repeats_and_leaves_the_parameter_store_alone():
    first, second = (
        check(load_process("linear_gaussian"), tries=2, seed=3).checks for _ in range(2)
    )
    assert [(rule_of(f), place_of(f), f.verdict) for f in first] == [
        (rule_of(f), place_of(f), f.verdict) for f in second
    ]
    assert all(not f.measured["measured"] < 0 for f in first)


def test_tries_are_positive():
    with pytest.raises(ValueError, match="tries to be a whole number of 1 or more; got 0"):
        check(process_of(sound), tries=0)
