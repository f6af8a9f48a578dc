"""The engine against plain Pyro: what is drawn and evaluated at once, run by run."""

from __future__ import annotations

import inspect

import pyro
import pyro.distributions as dist
import pytest
import torch
from broken_processes import prompt_of_one_row, sound
from pyro import poutine

from rbpp.compute import Compute
from rbpp.internals import site_is_subsample
from rbpp.processes.density import log_density
from rbpp.processes.loading import builtin_names
from rbpp.processes.process import Process, load_process
from rbpp.processes.replicas import Replicas
from rbpp.processes.simulation import simulate, simulate_tensors
from tests import processes_by_users
from tests.processes import test_contract, test_process

WORLDS, REPLICATES = 2, 3


def _processes() -> dict[str, Process]:
    """Every shipped process that simulates, with and without noise, and those of the tests."""
    found = {name: load_process(name) for name in builtin_names() if name != "sources"}
    found["noise"] = load_process("gaussian_mixture", noise=0.3, outputs=20)
    found["letters"] = load_process("finite_alphabet", anchors=3, outputs=5, letters=4)
    own = [
        function
        for name, function in vars(processes_by_users).items()
        if inspect.isfunction(function) and name not in ("without_prompt",)
    ]
    own += [sound, prompt_of_one_row, test_process.nested_plates, test_contract.noisy_prompt]
    own += [test_contract.factor_above, test_contract.factor_below]
    own += [test_contract.factor_of_the_whole_set]
    return found | {f"{f.__module__}.{f.__name__}": load_process(f) for f in own}


PROCESSES = _processes()


def single(process: Process, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Log density of every sampled site of one plain run of Pyro, all sites held."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        held = poutine.condition(process, data=values)
        # A plate that is entered twice under one name is no site seen twice.
        trace = poutine.trace(poutine.block(held, hide_fn=site_is_subsample)).get_trace()
        trace.compute_log_prob()
    finally:
        torch.set_default_dtype(previous)
    return {
        name: node["log_prob_sum"]
        for name, node in trace.nodes.items()
        if node["type"] == "sample" and name in process.sites
    }


def one_of(process: Process, values, world: int, replicate: int, prompt: int | None = None):
    """Plain values of one replicate, with the prompt of another on request."""
    found = {}
    for name, value in values.items():
        plain = process.sites[name].plain(value)
        other = prompt is not None and name in ("prompt", "prompt_factor")
        index = prompt if other else replicate
        found[name] = plain[min(world, len(plain) - 1), index if plain.shape[1] > 1 else 0]
    return found


@pytest.mark.parametrize("name", PROCESSES)
def test_batched_densities_are_those_of_plain_runs(name):
    process = PROCESSES[name]
    replicas = Replicas(process, worlds=WORLDS, compute=Compute(seed=3))
    values = replicas.draw(REPLICATES, "test")
    random = [site for site in replicas.sites if replicas.sites[site].random]
    densities = {site: replicas.log_density(values, site) for site in random}
    drawn = simulate_tensors(process, worlds=WORLDS, replicates=REPLICATES, compute=Compute(seed=3))
    sampled = [site for site in process.sites if not process.sites[site].deterministic]
    simulated = log_density(process, drawn.values, sampled)
    for world in range(WORLDS):
        for replicate in range(REPLICATES):
            expected = single(
                process, one_of(process, {**replicas.world, **values}, world, replicate)
            )
            for site, found in densities.items():
                torch.testing.assert_close(
                    found[world, replicate], expected[site].double(), rtol=1e-9, atol=1e-9
                )
            alone = {
                site: value[world, min(replicate, value.shape[1] - 1)]
                for site, value in drawn.values.items()
            }
            expected = single(process, alone)
            for site, found in simulated.items():
                found = found.expand(WORLDS, REPLICATES)[world, replicate]
                torch.testing.assert_close(found, expected[site], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in PROCESSES if "echo" not in name])
def test_pairs_are_a_loop_over_plain_runs(name):
    process = PROCESSES[name]
    if not process.sites["output"].random:
        pytest.skip("the output is computed: it has no density")
    replicas = Replicas(process, worlds=WORLDS, compute=Compute(seed=3))
    values = replicas.draw(REPLICATES, "test")
    prompts = {name: values[name] for name in ("prompt", "prompt_factor") if name in values}
    matrix = replicas.pairs(values, "output", prompts)
    assert matrix.shape == (WORLDS, REPLICATES, REPLICATES)
    everything = {**replicas.world, **values}
    for world in range(WORLDS):
        for own in range(REPLICATES):
            for other in range(REPLICATES):
                held = one_of(process, everything, world, own, other)
                expected = single(process, held)["output"].double()
                found = matrix[world, own, other]
                torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PROCESSES)
def test_given_worlds_are_the_worlds(name):
    """Worlds from elsewhere, such as draws from a posterior: nothing of the prior is left."""
    process = PROCESSES[name]
    drawn = simulate_tensors(process, worlds=WORLDS, compute=Compute(seed=11))
    world = {site: value[:, 0] for site, value in drawn.world.items()}
    replicas = Replicas(process, worlds=WORLDS, compute=Compute(seed=3), world=world)
    for site, value in world.items():
        torch.testing.assert_close(process.sites[site].plain(replicas.world[site])[:, 0], value)
    for site, value in drawn.derived.items():
        if process.sites[site].shared:
            computed = process.sites[site].plain(replicas.world[site])
            torch.testing.assert_close(computed.expand_as(value), value)
    values = replicas.draw(REPLICATES, "test")
    held = one_of(process, {**replicas.world, **values}, 1, 2)
    expected = single(process, {**held, **{site: value[1] for site, value in world.items()}})
    site = next(site for site in ("output", "anchor") if replicas.sites[site].random)
    found = replicas.log_density(values, site)[1, 2]
    torch.testing.assert_close(found, expected[site].double(), rtol=1e-9, atol=1e-9)


def test_given_worlds_replace_the_prior(margin):
    """Far from the prior: the anchors are where the given world puts them."""
    world = {"taste": torch.tensor([[100.0, -100.0]], dtype=torch.float64)}
    replicas = Replicas(processes_by_users.recipe, world=world)
    anchors = replicas.rows(replicas.draw(50, "test"), "anchor")
    # 300 anchors of standard deviation 1: the mean has a standard error of 0.06.
    margin(5 * 0.06 - (anchors.mean((0, 1, 2)) - world["taste"][0]).abs())


@pytest.mark.parametrize(
    ("world", "message"),
    [
        ({}, "worlds with the sites taste; got none"),
        ({"taste": torch.zeros(1, 2), "other": torch.zeros(1)}, "got taste, other"),
        ({"taste": torch.zeros(2, 2)}, r"'taste' of shape \(1, 2\); got \(2, 2\)"),
    ],
)
def test_worlds_that_do_not_fit_are_refused(world, message):
    with pytest.raises(ValueError, match=message):
        Replicas(processes_by_users.recipe, world=world)


def test_a_density_without_what_it_depends_on_is_refused():
    replicas = Replicas(processes_by_users.recipe)
    values = replicas.draw(2, "test")
    lacking = {name: value for name, value in values.items() if name != "output"}
    with pytest.raises(ValueError, match="value of 'output', on which 'synthetic'"):
        replicas.log_density(lacking, "synthetic")


def test_replicates_of_one_world_by_both_entrances(margin):
    """Same sites, same distribution: means over 2,000 replicates in one given world."""
    process = load_process(processes_by_users.recipe)
    world = {"taste": torch.tensor([[1.0, 2.0]], dtype=torch.float64)}
    given = Replicas(process, world=world).draw(2000, "test")["output"].mean((1, 2, 3))
    # Output row: anchor mean (1/6) + 1 of variance; the row mean over 8 rows has 1/6 + 1/8.
    standard_error = ((1 / 6 + 1 / 8) / 2000) ** 0.5
    margin(4.5 * standard_error - (given - world["taste"]).abs().max())


def test_simulation_is_a_result(tmp_path):
    simulation = simulate(load_process("gaussian_mixture", K=3), worlds=3, replicates=2)
    assert simulation.idata["prior"]["means"].shape == (1, 3, 7, 2)
    assert simulation.idata["prior_predictive"]["output"].shape[:3] == (1, 3, 2)
    assert simulation.settings["knobs"]["anchor_components"] == 3
    simulation.save(tmp_path / "draws.nc")
    assert "gaussian_mixture" in repr(simulation)
    assert "synthetic" in simulation._repr_html_()
    assert "unprompted" in simulation.text()


def test_vectors_of_two_sizes_have_two_dimensions():
    def model():
        pyro.sample("shares", dist.Dirichlet(torch.ones(3)))
        sound()

    prior = simulate(model, worlds=2).idata["prior"]
    assert prior["shares"].dims == ("chain", "draw", "dim")
    assert prior["centre"].dims == ("chain", "draw", "centre_dim")
