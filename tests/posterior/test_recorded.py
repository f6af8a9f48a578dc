"""Recorded operations give what the function gives, or are not replayed."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch

import rbpp
from rbpp.compute import Compute
from rbpp.posterior import auto, recorded
from rbpp.posterior.density import ConditionedDensity
from rbpp.posterior.recorded import Recorded, folded
from rbpp.processes.simulation import simulate_tensors
from rbpp.randomness import generator
from tests.posterior.test_density import coin, readme
from tests.posterior.test_worlds import funnel, rows_of

MIXTURE = {"K": 2, "J": 0, "L": 0, "anchors_per_component": 5, "outputs": 9, "noise": 0.1}
CASES = [
    (readme, {}, ("synthetic",)),
    (coin, {}, ("synthetic",)),
    (funnel, {}, ("synthetic",)),
    ("linear_gaussian", {}, ("anchor", "synthetic")),
    ("gaussian_mixture", MIXTURE, ("synthetic",)),
    ("gaussian_mixture", MIXTURE, ("anchor", "synthetic")),
    ("curation", {"anchors": 3, "outputs": 5}, ("output", "synthetic")),
    ("sources", {"anchors": 4, "outputs": 10, "noise": 0.1}, ("synthetic",)),
    ("invertible_prompt", {"anchors": 4, "outputs": 10}, ("synthetic",)),
    ("style_shift", {"anchors": 4, "outputs": 6, "dimension": 2}, ("anchor", "synthetic")),
    ("finite_alphabet", {"outputs": 3}, ("anchor", "synthetic")),
]


def values(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, generator=generator(seed), dtype=torch.float64)


def of(function) -> Recorded:
    return Recorded(function, fresh=lambda count: values(count, 1), within=nullcontext)


@pytest.mark.parametrize(("process", "knobs", "observed"), CASES)
def test_replayed_gradients_are_those_of_the_model(process, knobs, observed, monkeypatch):
    monkeypatch.setattr(recorded, "_WORTH", 1)
    process = rbpp.load_process(process, **knobs)
    sites = simulate_tensors(process, compute=Compute(seed=3)).sites
    density = ConditionedDensity(process, {name: sites[name][0, 0] for name in observed})
    for seed in (5, 6):
        vectors = density.prior_vectors(3, seed)
        replayed, direct = density.gradient(vectors), density._differentiated(vectors)
        for own, true in zip(replayed, direct, strict=True):
            torch.testing.assert_close(own, true, rtol=1e-12, atol=1e-12)
    assert all(graph is not None for graph in density.recorded.graphs.values())


def branch(x):
    return (x if x.sum() > 0 else -x).sum(-1), x


def python_number(x):
    return x.sum(-1) * float(x[0, 0]), x


def numpy_number(x):
    return x.sum(-1) * float(np.abs(x.numpy()).max()), x


@pytest.mark.parametrize("function", [branch, python_number, numpy_number])
def test_what_depends_on_values_outside_torch_is_not_replayed(function, monkeypatch):
    monkeypatch.setattr(recorded, "_WORTH", 1)
    one = of(function)
    for seed in (0, 2, 3):
        assert torch.equal(one(values(4, seed))[0], function(values(4, seed))[0])
    assert one.graphs == {4: None}


def in_place(x):
    buffer = torch.zeros(len(x), 3, dtype=x.dtype)
    before = buffer + 1  # depends on nothing, and must not see what is written below
    buffer[:, 0] = x[:, 0]
    buffer += x
    return (buffer * before).sum(-1), buffer


def test_what_is_written_in_place_and_what_is_constant(monkeypatch):
    monkeypatch.setattr(recorded, "_WORTH", 2)
    runs = []

    def counted(x):
        runs.append(len(x))
        return in_place(x)

    one = of(counted)
    for seed in range(5):
        for own, true in zip(one(values(4, seed)), in_place(values(4, seed)), strict=True):
            assert torch.equal(own, true)
    assert len(runs) == 1 + 1 + 2  # as it is, once to record, twice to compare
    one(values(5))
    assert len(runs) == 5  # each shape for itself


def test_equal_and_constant_operations_are_left_out():
    def function(x):
        table = torch.arange(3, dtype=torch.float64).exp()
        return (x + table).sum(-1) * (x + table).sum(-1), x.detach() * 2

    graph = recorded.operations(function, values(4))
    before = len(graph.graph.nodes)
    assert before > len(folded(graph).graph.nodes)
    called = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    assert called.count("aten.sum.dim_IntList") == 1
    assert not any("arange" in name or "exp" in name or "detach" in name for name in called)
    for own, true in zip(graph(values(4, 7)), function(values(4, 7)), strict=True):
        assert torch.equal(own, true)


def test_a_replay_fails_where_the_function_does(monkeypatch):
    monkeypatch.setattr(recorded, "_WORTH", 1)
    one = Recorded(
        lambda x: (torch.linalg.cholesky(x @ x.mT + torch.eye(2)).sum(-1), x),
        fresh=lambda _: torch.ones(2, 2),
        within=nullcontext,
    )
    one(torch.ones(2, 2))
    assert one.graphs[2] is not None
    with pytest.raises(RuntimeError, match="cholesky"):
        one(torch.full((2, 2), 1e20))


def test_draws_of_another_density_than_the_model_s_are_refused(monkeypatch):
    rows = rows_of("gaussian_mixture", site="anchor", **MIXTURE)
    process = rbpp.load_process("gaussian_mixture", **MIXTURE)
    sample = auto.sample

    def other(*positional, **named):
        found = sample(*positional, **named)
        return replace(found, log_density=found.log_density + 0.1)

    monkeypatch.setattr(auto, "sample", other)
    with pytest.raises(ValueError, match=r"to use torch wherever latent sites count"):
        rbpp.infer(process, {"anchor": rows}, engine="hmc", seconds=1e4, draws=20)
