"""The process of embedded text: its contract, and its parameters found in its own rows."""

import numpy as np
import pytest
import torch

import rbpp
from rbpp import inference_data
from rbpp.compute import Compute
from rbpp.processes.contract import check
from rbpp.processes.simulation import simulate_tensors

SMALL = {"anchors": 12, "outputs": 60, "dimension": 2}


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_it_is_the_chain(noise):
    process = rbpp.load_process("style_shift", noise=noise, **SMALL)
    assert check(process, tries=5).violated == []


def test_moments_are_those_that_the_docstring_says(margin):
    simulation = simulate_tensors(
        rbpp.load_process("style_shift", **SMALL), replicates=4000, compute=Compute(seed=2)
    )
    world = {name: value[0, 0] for name, value in simulation.world.items()}
    rows = simulation.sites["synthetic"][0].flatten(0, 1)
    mean = world["centre"] + world["shift"]
    variance = (world["faithfulness"] * world["scale"]).square() + world["spread"].square()
    # Rows of a data set share its twelve anchors: 4,000 independent data sets.
    error = (variance / 4000).sqrt()
    margin(4.5 - (rows.mean(0) - mean).abs() / error)
    torch.testing.assert_close(rows.var(0), variance, rtol=0.1, atol=0)


def test_shift_and_share_are_found():
    process = rbpp.load_process("style_shift", **SMALL)
    simulation = simulate_tensors(process, compute=Compute(seed=4))
    data = {name: simulation.sites[name][0, 0] for name in ("anchor", "synthetic")}
    posterior = rbpp.infer(process, data, seconds=120, seed=1)
    values = inference_data.group_datasets(posterior.idata)["posterior"]
    for name in ("shift_length", "prompt_share"):
        truth = float(simulation.derived[name])
        low, high = np.quantile(values[name].values, [0.001, 0.999])
        assert low < truth < high, name


@pytest.mark.parametrize("knobs", [{"extent": 0.0}, {"noise": -1.0}])
def test_refused(knobs):
    with pytest.raises(ValueError, match="extent above 0 and noise"):
        rbpp.load_process("style_shift", **knobs)()
