from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from broken_processes import by_numpy, sound, unreadable_graph

from rbpp.processes.graph import read_graph
from rbpp.processes.handlers import plain_run
from rbpp.processes.interventions import Tries, evidence, intervene
from rbpp.processes.process import load_process


def test_parents_include_computed_sites():
    parents = read_graph(sound).parents
    assert parents == {
        "centre": [],
        "anchor": ["centre"],
        "prompt": ["anchor"],
        "output": ["prompt"],
        "synthetic": ["output"],
    }


def test_sound_models_have_no_escapes_though_torch_validates_values():
    for name in ("gaussian_mixture", "invertible_prompt", "curation"):
        assert read_graph(load_process(name)).escapes == ()


def test_escape_names_site_operation_and_place():
    graph = read_graph(by_numpy)
    (escape,) = graph.escapes
    assert (escape.sites, escape.operation) == ({"anchor"}, "__array__")
    assert escape.place.startswith("broken_processes.py:")
    assert graph.parents["synthetic"] == ["output"]  # the edge that is lost


def test_escape_after_a_computation_still_names_its_sites():
    def model():
        first = pyro.sample("first", dist.Normal(0.0, 1.0))
        second = pyro.sample("second", dist.Normal(0.0, 1.0))
        pyro.sample("third", dist.Normal((first * 2 + second.exp()).item(), 1.0))

    (escape,) = read_graph(model).escapes
    assert escape.sites == {"first", "second"}


def test_unreadable_graph_says_why():
    graph = read_graph(unreadable_graph)
    assert graph.parents is None
    assert graph.error


def test_interventions_find_direct_edges_only():
    responses = intervene(Tries(sound, 0), ["anchor", "prompt", "output"], {}, tries=3)[0]
    assert responses.tries == {"anchor": 3, "prompt": 3, "output": 3}
    assert responses.count == {
        ("anchor", "prompt"): 3,
        ("prompt", "output"): 3,
        ("output", "synthetic"): 3,
    }


def test_size_of_a_response_is_the_change_of_the_log_density():
    def model():
        first = pyro.sample("anchor", dist.Normal(0.0, 1.0))
        pyro.sample("output", dist.Normal(3 * first, 1.0))

    responses = intervene(Tries(model, 0), ["anchor"], {}, tries=1)[0]
    (largest,) = responses.largest.values()
    assert 0 < largest < 100
    run = plain_run(model, 0)
    expected = dist.Normal(3 * run.values["anchor"], 1.0).log_prob(run.values["output"])
    torch.testing.assert_close(evidence(run, run.values)["output"], expected)


def test_discrete_sites_are_changed_as_often_as_asked():
    def model():
        first = pyro.sample("anchor", dist.Bernoulli(0.5))
        pyro.sample("output", dist.Normal(first, 1.0))

    responses = intervene(Tries(model, 0), ["anchor"], {}, tries=10)[0]
    assert responses.tries == {"anchor": 10}  # half of the draws are the value that is there
    assert responses.count == {("anchor", "output"): 10}


def test_rows_respond_only_where_they_are_coupled():
    def model():
        with pyro.plate("outputs", 4):
            output = pyro.sample("output", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("synthetic", dist.Normal(output, 1.0).to_event(1))
            pyro.deterministic("coupled", output.cumsum(-2), event_dim=1)

    targets = {"output": ["synthetic", "coupled"]}
    responses = intervene(Tries(model, 0), [], targets, tries=4)[1]
    # Changing the last row leaves every sum before it as it was.
    assert responses.count == {("output", "coupled"): 3}
