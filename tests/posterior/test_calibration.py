"""Simulation-based calibration: ranks of the truth among draws of its posterior are uniform."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from benchmarks import world_ranks as calibration
from benchmarks.world_ranks import WorldRanks, world_ranks
from rbpp.processes.process import load_process
from tests.posterior.test_density import coin


def precise(outputs: int = 4):
    """Rows that leave little doubt of the centre."""
    centre = pyro.sample("centre", dist.Normal(torch.zeros(1), 3.0).to_event(1))
    with pyro.plate("anchors", 2):
        anchor = pyro.sample("anchor", dist.Normal(centre, 0.1).to_event(1))
    prompt = pyro.deterministic("prompt", anchor)
    with pyro.plate("outputs", outputs):
        where = prompt.mean(-2, keepdim=True)
        output = pyro.sample("output", dist.Normal(where, 0.1).to_event(1))
        pyro.sample("synthetic", dist.Normal(output, 0.1).to_event(1))


# Seconds by the clock: a machine that is busy refuses nothing.
SECONDS = 600.0


@pytest.mark.parametrize("process", [coin, precise])
def test_ranks_of_the_truth_are_uniform(process, margin):
    found = world_ranks(load_process(process), ["synthetic"], 40, seed=3, seconds=SECONDS)
    assert found.refused == 0
    for name, p_value in found.p_values().items():
        assert p_value > 0.001, name
    for share in found.coverage(0.5).values():
        margin(4 * np.sqrt(0.25 / 40) - abs(share - 0.5))


def test_ranks_show_data_of_another_process(monkeypatch, margin):
    simulate = calibration.simulate_tensors

    def wrong(process, **options):
        drawn = simulate(process, **options)
        rows = drawn.sites["synthetic"]
        drawn.sites["synthetic"] = rows + torch.randn(
            (), generator=torch.Generator().manual_seed(options["seed"] % 2**62)
        )
        return drawn

    monkeypatch.setattr(calibration, "simulate_tensors", wrong)
    found = world_ranks(load_process(precise), ["synthetic"], 20, seed=3, seconds=SECONDS)
    margin(-4 - np.log10(found.p_values()["centre, mean"]))
    margin(0.7 - found.coverage(0.94)["centre, mean"])


def test_functionals_that_are_the_same_in_every_world_have_no_ranks():
    """The mean of a table of probabilities: its ranks would be those of rounding errors."""
    found = world_ranks(load_process("finite_alphabet", outputs=2), ["anchor"], 1, seed=0)
    assert "task, mean square" in found.ranks
    assert "task, mean" not in found.ranks


def test_coverage_counts_ranks_inside_the_central_interval():
    ranks = WorldRanks({"x": np.arange(100)}, {}, 0)
    assert ranks.coverage(0.5) == {"x": 0.5}
    assert ranks.coverage(0.94) == {"x": 0.94}
    assert ranks.p_values()["x"] == pytest.approx(1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "knobs", "observed"),
    [
        ("finite_alphabet", {"outputs": 6}, ("anchor", "synthetic")),
        ("linear_gaussian", {"anchors": 12, "outputs": 12}, ("anchor", "synthetic")),
        (
            "style_shift",
            {"anchors": 8, "outputs": 20, "dimension": 2},
            ("anchor", "synthetic"),
        ),
    ],
)
def test_shipped_processes_are_calibrated(name, knobs, observed):
    """Two hundred worlds each; of a dozen functionals one in a thousand may be below 1e-4."""
    found = world_ranks(load_process(name, **knobs), observed, 200, seconds=SECONDS, seed=1)
    assert found.refused < 20
    for functional, p_value in found.p_values().items():
        assert p_value > 1e-4, functional
