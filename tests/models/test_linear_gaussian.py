from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from rbpp.processes.density import log_density
from rbpp.processes.loading import find_model
from rbpp.processes.process import load_process
from rbpp.processes.simulation import simulate

KNOBS = {"anchors": 2, "outputs": 3, "prompt_noise": 0.4, "curation_noise": 0.6}


def closed_form(simulation):
    """Loadings of the first world, from the file that has the model."""
    process = simulation.process
    _, loadings, _ = find_model("linear_gaussian:loadings")
    world = {name: value[0, 0] for name, value in simulation.world.items()}
    return loadings(world, **process.knobs)


@pytest.mark.parametrize("noise", [{}, {"prompt_noise": 0.0, "curation_noise": 0.0}])
def test_loadings_are_the_covariances_of_the_draws(noise, margin):
    replicates = 40_000
    process = load_process("linear_gaussian", **{**KNOBS, **noise})
    simulation = simulate(process, replicates=replicates, seed=7)
    loadings = closed_form(simulation)
    names = list(loadings)
    rows = torch.cat([simulation.sites[name][0].flatten(1) for name in names], -1)
    expected = torch.cat([loadings[name] for name in names])
    expected = expected @ expected.mT
    found = torch.cov(rows.mT)
    # Var of a covariance entry is (Σ_ii Σ_jj + Σ_ij²) / n; 28² entries at 5 standard errors: one
    # false alarm in 2,000.
    variances = expected.diagonal()
    error = ((variances[:, None] * variances + expected**2) / replicates).sqrt()
    margin(5 - (found - expected).abs() / (error + 1e-12))


@pytest.mark.parametrize(
    ("below", "above"), [("prompt", "anchor"), ("output", "prompt"), ("synthetic", "output")]
)
def test_conditional_densities_are_those_of_the_joint_normal(below, above):
    process = load_process("linear_gaussian", **KNOBS)
    simulation = simulate(process, replicates=5)
    loadings = closed_form(simulation)
    world = {name: value[0, 0] for name, value in simulation.world.items()}
    means = {"anchor": world["task_mean"], "prompt": world["prompt_map"] @ world["task_mean"]}
    means["output"] = world["generator_mean"] + world["answer_map"] @ means["prompt"]
    means["synthetic"] = means["output"]

    def part(name):
        rows = simulation.sites[name][0]
        return (rows - means[name]).flatten(1), loadings[name]

    (value, own), (given, other) = part(below), part(above)
    cross, inverse = own @ other.mT, torch.linalg.inv(other @ other.mT)
    conditional = MultivariateNormal(
        given @ (cross @ inverse).mT, own @ own.mT - cross @ inverse @ cross.mT
    )
    found = log_density(process, simulation.values, [below])[below][0]
    torch.testing.assert_close(found, conditional.log_prob(value), rtol=1e-8, atol=1e-8)


def test_model_factor_is_the_rest_of_the_output(margin):
    process = load_process("linear_gaussian", **KNOBS)
    simulation = simulate(process, replicates=4)
    prompt, output = simulation.sites["prompt"], simulation.sites["output"]
    answer_map = simulation.world["answer_map"]
    answer = (
        simulation.world["generator_mean"].unsqueeze(-2)
        + prompt.mean(-2, keepdim=True) @ answer_map.mT
    )
    torch.testing.assert_close(simulation.sites["model_factor"], output - answer)
    # e_M in the output's units: H(e_M) is the information gain H(M(p) | p), exactly.
    scatter = simulation.world["generator_map"][0, 0]
    gain = -log_density(process, simulation.values, ["output"])["output"]
    entropy = 3 * (math.log(2 * math.pi * math.e) + torch.linalg.slogdet(scatter).logabsdet)
    normal = MultivariateNormal(torch.zeros(2), scatter @ scatter.mT)
    factor = -normal.log_prob(simulation.sites["model_factor"]).sum(-1)
    torch.testing.assert_close(gain, factor)
    margin(5 * math.sqrt(3 / 4) - abs(float(gain.mean() - entropy)))  # sd √(n d / 2) over 4 draws


def test_no_prompt_noise_makes_the_prompt_a_function_of_the_anchors():
    process = load_process("linear_gaussian")
    assert process.sites["prompt"].deterministic
    simulation = simulate(process, worlds=2)
    expected = simulation.sites["anchor"] @ simulation.world["prompt_map"].mT
    torch.testing.assert_close(simulation.sites["prompt"], expected)
    assert not load_process("linear_gaussian", prompt_noise=0.1).sites["prompt"].deterministic


@pytest.mark.parametrize(
    ("knob", "site", "shape"),
    [
        ("anchors", "anchor", (7, 2)),
        ("outputs", "synthetic", (7, 2)),
        ("targets", "target", (7, 2)),
        ("unprompted_outputs", "unprompted", (7, 2)),
        ("dimension", "output", (8, 7)),
    ],
)
def test_sizes(knob, site, shape):
    assert load_process("linear_gaussian", **{knob: 7}).sites[site].shape == shape


def test_spread_is_that_of_the_maps(margin):
    process = load_process("linear_gaussian", spread=0.1)
    maps = simulate(process, worlds=2000).world["prompt_map"]
    assert maps.mean(0).squeeze().allclose(torch.eye(2, dtype=maps.dtype), atol=5 * 0.1 / 2000**0.5)
    # Standard error of a standard deviation: σ / √(2 n).
    margin(5 * 0.1 / 4000**0.5 - (maps.std(0) - 0.1).abs().max())
