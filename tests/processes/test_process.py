from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from broken_processes import (
    dropped_dimension,
    indexed_from_the_left,
    sound,
    stops,
    world_below_the_chain,
)
from torch.distributions import Independent, MixtureSameFamily, MultivariateNormal, Normal

from rbpp.compute import Compute
from rbpp.processes.density import log_density
from rbpp.processes.handlers import CHAIN_SITES, plain_run, running
from rbpp.processes.interventions import evidence
from rbpp.processes.process import load_process
from rbpp.processes.simulation import simulate
from tests.processes.row_density import row_mixture

SHIPPED = [
    "gaussian_mixture",
    "linear_gaussian",
    "finite_alphabet",
    "invertible_prompt",
    "curation",
]


@pytest.mark.parametrize("name", SHIPPED)
def test_shapes_are_those_of_a_plain_run(name):
    process = load_process(name)
    plain = plain_run(process, 0)
    simulation = simulate(process, worlds=3, replicates=4)
    for site, value in simulation.sites.items():
        assert value.shape == (3, 4, *plain.values[site].shape)
    for site, value in simulation.world.items():
        assert value.shape == (3, 1, *plain.values[site].shape)
    together = {**simulation.values, **simulation.derived}
    assert set(together) == set(plain.values) == set(process.sites)
    assert set(simulation.sites) <= set(CHAIN_SITES)


@pytest.mark.parametrize("name", SHIPPED)
def test_log_density_is_that_of_plain_runs(name):
    process = load_process(name)
    simulation = simulate(process, worlds=2, replicates=3, seed=5)
    sampled = [n for n, site in process.sites.items() if not site.deterministic]
    densities = log_density(process, simulation.values, sampled)
    for world in range(2):
        for replicate in range(3):
            values = {
                site: value[world, min(replicate, value.shape[1] - 1)]
                for site, value in simulation.values.items()
            }
            alone = evidence(plain_run(process, 0, values), values)
            for site in sampled:
                expected = alone[site].sum()
                found = densities[site].expand(2, 3)[world, replicate]
                torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["gaussian_mixture", "finite_alphabet", "linear_gaussian"])
def test_every_pair_of_prompt_and_output(name):
    process = load_process(name)
    simulation = simulate(process, worlds=2, replicates=3, seed=1)
    values = simulation.values
    prompts = values["prompt"].movedim(1, 0).unsqueeze(2)  # (alternative, world, 1, …)
    pairs = {**simulation.world, "output": values["output"], "prompt": prompts}
    matrix = log_density(process, pairs, ["output"])["output"]
    assert matrix.shape == (3, 2, 3)
    for j in range(3):
        swapped = {**values, "prompt": values["prompt"][:, [j]].expand_as(values["prompt"])}
        expected = log_density(process, swapped, ["output"])["output"]
        torch.testing.assert_close(matrix[j], expected)
    own = log_density(process, values, ["output"])["output"]
    torch.testing.assert_close(matrix.diagonal(dim1=0, dim2=2), own)


def test_held_deterministic_site_takes_the_given_value():
    process = load_process("gaussian_mixture")
    values = simulate(process, worlds=1, replicates=2).values
    without_anchor = {name: value for name, value in values.items() if name != "anchor"}
    moved = {**without_anchor, "prompt": values["prompt"] + 1}
    first, second = (
        log_density(process, given, ["output"])["output"] for given in (without_anchor, moved)
    )
    assert (first != second).all()
    torch.testing.assert_close(first, log_density(process, values, ["output"])["output"])


def test_rows_apart_and_another_number_of_rows():
    process = load_process("gaussian_mixture", targets=10)
    values = simulate(process, worlds=2, replicates=3).values
    whole = log_density(process, values, ["output"])["output"]
    rows = log_density(process, values, ["output"], per_row=True)["output"]
    assert rows.shape == (2, 3, 200)
    torch.testing.assert_close(rows.sum(-1), whole)
    # The density of the task at synthetic rows: more of them than the task's own plate has.
    elsewhere = {**values, "target": values["synthetic"]}
    density = log_density(process, elsewhere, ["target"], per_row=True)["target"]
    task = row_mixture(process, values, "target").expand((2, 3))
    torch.testing.assert_close(density, task.log_prob_rows(values["synthetic"]))


@pytest.mark.parametrize(
    ("change", "sites", "message"),
    [
        (lambda v: v, ["prompt"], "'prompt', which is deterministic"),
        (lambda v: v, ["nothing"], "site of gaussian_mixture .*got 'nothing'"),
        (lambda v: {k: x for k, x in v.items() if k != "output"}, ["output"], "value of 'output'"),
        (
            lambda v: {k: x for k, x in v.items() if k != "means"},
            ["output"],
            "value of 'means', on which 'output'",
        ),
        (
            lambda v: {k: x for k, x in v.items() if k not in ("anchor", "prompt")},
            ["output"],
            "value of 'anchor', on which 'output'",
        ),
        (
            lambda v: {**v, "output": v["output"][..., :1]},
            ["output"],
            r"'output' of shape \(…, 200, 2\); got \(1, 1, 200, 1\)",
        ),
        (
            lambda v: {**v, "synthetic": v["synthetic"][..., :3, :]},
            ["output", "target"],
            r"'synthetic' of shape \(…, 200, 2\); got \(1, 1, 3, 2\)",
        ),
        (
            lambda v: {**v, "prompt": v["prompt"][..., :3, :]},
            ["output"],
            r"'prompt' of shape \(…, 100, 2\)",
        ),
    ],
)
def test_density_that_cannot_be_had_is_refused(change, sites, message):
    process = load_process("gaussian_mixture")
    values = simulate(process).values
    with pytest.raises(ValueError, match=message):
        log_density(process, change(values), sites)


def test_worlds_are_shared_by_their_replicates_and_nothing_else_is(margin):
    simulation = simulate(load_process("linear_gaussian"), worlds=500, replicates=2, seed=2)
    assert simulation.world["task_mean"].unique(dim=0).shape[0] == 500
    anchors = simulation.sites["anchor"].reshape(1000, -1)
    assert anchors.unique(dim=0).shape[0] == 1000
    # Replicates of a world share its mean: their correlation over worlds is that of the world,
    # 1 / (1 + (F Fᵀ)/4) > 0.5, whose standard error over 500 worlds is below 0.04.
    means = simulation.sites["anchor"].mean(-2)[..., 0]
    margin(torch.corrcoef(means.T)[0, 1] - 0.4)


def test_same_seed_same_draws():
    process = load_process("curation")
    first, second, third = (simulate(process, worlds=2, seed=seed) for seed in (4, 4, 5))
    for name, value in first.values.items():
        assert torch.equal(value, second.values[name])
        assert not torch.equal(value, third.values[name])


def test_simulation_is_float64_whatever_the_default():
    assert torch.get_default_dtype() == torch.float32
    simulation = simulate(load_process("gaussian_mixture"))
    assert {value.dtype for value in simulation.values.values()} == {torch.float64}


def test_device_is_where_the_model_makes_its_tensors():
    for device in ("meta", "cpu"):
        with running(0, device):
            assert torch.zeros(()).device.type == device
    assert simulate(sound, compute=Compute(device="cpu")).sites["anchor"].device.type == "cpu"


@pytest.mark.parametrize("counts", [{"worlds": 0}, {"replicates": 0}, {"worlds": -1}])
def test_counts_are_positive(counts):
    with pytest.raises(ValueError, match="whole number of 1 or more"):
        simulate(load_process("linear_gaussian"), **counts)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (indexed_from_the_left, "index dimensions from the right"),
        (dropped_dimension, "index dimensions from the right"),
        (world_below_the_chain, "'style' .* part of the world"),
        (stops, "to run with these knobs; got RuntimeError: no credit left"),
    ],
)
def test_process_that_does_not_batch_is_refused(model, message):
    with pytest.raises(ValueError, match=message):
        simulate(load_process(model), worlds=2)


def test_mixture_draws_are_those_of_torch(margin):
    """Quantiles of the log density of draws: ours against torch's own sampler."""
    process = load_process("gaussian_mixture", outputs=20_000, noise=0.0)
    values = simulate(process, seed=3).values
    held = {name: value[0, 0] for name, value in values.items() if name not in ("output",)}
    held.pop("synthetic")
    with running(1):
        theirs = plain_run(process, 1, held).values["output"][None, None]
    probabilities = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    quantiles = []
    for output in (values["output"], theirs):
        density = log_density(process, {**values, "output": output}, ["output"], per_row=True)
        quantiles.append(density["output"].quantile(probabilities))
    # Standard error of a quantile difference ≤ sqrt(2 · p(1−p) / n) / f with f ≥ 0.1 here: 0.05.
    margin(4 * 0.05 - (quantiles[0] - quantiles[1]).abs())


def nested_plates():
    with pyro.plate("components", 3), pyro.plate("levels", 2):
        centres = pyro.sample("centres", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("anchors", 5):
        anchor = pyro.sample(
            "anchor", dist.Normal(centres.sum((-2, -3)).unsqueeze(-2), 1.0).to_event(1)
        )
    prompt = pyro.sample("prompt", dist.Normal(anchor, 0.5).to_event(2))
    with pyro.plate("outputs", 4):
        output = pyro.sample("output", dist.Normal(prompt.mean(-2, keepdim=True), 1.0).to_event(1))
        pyro.deterministic("synthetic", output)


def test_nested_plates_of_the_world():
    values = simulate(load_process(nested_plates), worlds=2, replicates=3).values
    assert values["centres"].shape == (2, 1, 2, 3, 2)
    found = log_density(load_process(nested_plates), values, ["centres", "anchor"])
    mean = values["centres"].sum((-2, -3)).unsqueeze(-2)
    expected = Independent(Normal(mean, 1.0), 2).log_prob(values["anchor"])
    torch.testing.assert_close(found["anchor"], expected)
    expected = Independent(Normal(torch.zeros(2, 3, 2), 1.0), 3).log_prob(values["centres"])
    torch.testing.assert_close(found["centres"], expected)


def test_free_prompt_with_rows_as_event():
    def model():
        shift = pyro.sample("shift", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("anchors", 5):
            anchor = pyro.sample("anchor", dist.Normal(shift, 1.0).to_event(1))
        prompt = pyro.sample("prompt", dist.Normal(anchor, 0.5).to_event(2))
        with pyro.plate("outputs", 4):
            mean = prompt.mean(-2, keepdim=True) + shift
            output = pyro.sample("output", dist.Normal(mean, 1.0).to_event(1))
            pyro.deterministic("synthetic", output)

    process = load_process(model)
    values = simulate(process, worlds=2, replicates=3).values
    assert values["prompt"].shape == (2, 3, 5, 2)
    found = log_density(process, values, ["prompt", "output"])
    expected = Independent(Normal(values["anchor"], 0.5), 2).log_prob(values["prompt"])
    torch.testing.assert_close(found["prompt"], expected)
    mean = values["prompt"].mean(-2, keepdim=True) + values["shift"].unsqueeze(-2)
    expected = Independent(Normal(mean, 1.0), 2).log_prob(values["output"])
    torch.testing.assert_close(found["output"], expected)


def test_gradients_flow_through_log_density():
    process = load_process("linear_gaussian")
    values = simulate(process).values
    prompt = values["prompt"].clone().requires_grad_()
    log_density(process, {**values, "prompt": prompt}, ["output"])["output"].sum().backward()
    assert prompt.grad is not None
    assert prompt.grad.abs().max() > 0


def test_sound_process_runs_by_hand():
    simulation = simulate(load_process(sound), worlds=2, replicates=2)
    assert simulation.sites["prompt"].equal(2 * simulation.sites["anchor"])


@pytest.mark.parametrize("site", ["target", "unprompted", "output"])
@pytest.mark.parametrize(
    "name", ["gaussian_mixture", "linear_gaussian", "invertible_prompt", "curation"]
)
def test_row_mixture_is_the_density_of_a_row(name, site):
    process = load_process(name)
    values = simulate(process, worlds=2, replicates=3).values
    mixture = row_mixture(process, values, site).expand((2, 3))
    found = mixture.log_prob_rows(values[site])
    expected = log_density(process, values, [site], per_row=True)[site]
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_row_mixture_of_synthetic_adds_the_noise():
    for noise in (0.0, 0.5):
        process = load_process("gaussian_mixture", noise=noise)
        values = simulate(process, worlds=2).values
        output, synthetic = (row_mixture(process, values, s) for s in ("output", "synthetic"))
        expected = output.covariances + noise**2 * torch.eye(2)
        torch.testing.assert_close(synthetic.covariances, expected)
        torch.testing.assert_close(synthetic.means, output.means)


@pytest.mark.parametrize(
    ("name", "site", "message"),
    [
        ("gaussian_mixture", "anchor", "target, unprompted, output or synthetic"),
        ("finite_alphabet", "output", "normal or a mixture of normals"),
        ("curation", "synthetic", "independent normal noise"),
    ],
)
def test_row_without_such_a_mixture_is_refused(name, site, message):
    process = load_process(name)
    values = simulate(process).values
    with pytest.raises(ValueError, match=message):
        row_mixture(process, values, site)


def test_rows_that_differ_have_no_row_mixture():
    def model():
        with pyro.plate("anchors", 4):
            anchor = pyro.sample("anchor", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        prompt = pyro.deterministic("prompt", anchor)
        with pyro.plate("outputs", 4):  # one output for each row of the prompt
            output = pyro.sample("output", dist.Normal(prompt, 1.0).to_event(1))
            pyro.deterministic("synthetic", 2 * output, event_dim=1)

    process = load_process(model)
    values = simulate(process, worlds=2).values
    with pytest.raises(ValueError, match="differ from row to row"):
        row_mixture(process, values, "output")


def test_mixture_of_one_row_is_torchs():
    process = load_process("gaussian_mixture")
    values = simulate(process, worlds=2).values
    mixture = row_mixture(process, values, "unprompted")
    means, factors = values["means"][:, 0], values["factors"][:, 0]
    reference = MixtureSameFamily(
        torch.distributions.Categorical(logits=torch.zeros(2, 6)),
        MultivariateNormal(means, factors @ factors.mT + 0.05 * torch.eye(2)),
    )
    rows = values["unprompted"][:, 0].movedim(1, 0)
    torch.testing.assert_close(
        mixture.select((slice(None), 0)).log_prob(rows), reference.log_prob(rows)
    )
