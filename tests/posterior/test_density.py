"""The log density of a conditioned process against closed forms, explicit sums and quadrature."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, biject_to

from rbpp.compute import Compute
from rbpp.posterior.density import ConditionedDensity
from rbpp.posterior.optimum import find_optima
from rbpp.processes.handlers import running
from rbpp.processes.process import load_process
from rbpp.processes.simulation import simulate_tensors
from rbpp.randomness import generator


def readme(anchors: int = 4, outputs: int = 6, temperature: float = 0.5, noise: float = 0.1):
    """The process of the README, in one dimension."""
    centre = pyro.sample("centre", dist.Normal(0.0, 3.0).expand([1]).to_event(1))
    with pyro.plate("anchors", anchors):
        anchor = pyro.sample("anchor", dist.Normal(centre, 1.0).to_event(1))
    prompt = pyro.sample("prompt", dist.Normal(anchor.mean(-2, keepdim=True), 0.1).to_event(1))
    with pyro.plate("outputs", outputs):
        output = pyro.sample("output", dist.Normal(prompt, temperature).to_event(1))
        pyro.sample("synthetic", dist.Normal(output, noise).to_event(1))


def readme_moments(anchors: int, outputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Covariance of the synthetic rows, and of each with the centre: all are linear and normal."""
    shared = 9.0 + 1.0 / anchors + 0.01
    identity = torch.eye(outputs, dtype=torch.float64)
    covariance = torch.full_like(identity, shared) + (0.25 + 0.01) * identity
    return covariance, torch.full((outputs,), 9.0, dtype=torch.float64)


def coin(outputs: int = 5):
    """A world of two sites, one of them a letter: everything is a sum of three terms."""
    kind = pyro.sample("kind", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])))
    centre = pyro.sample("centre", dist.Normal(torch.tensor([-2.0, 0.0, 2.0])[kind], 1.0))
    with pyro.plate("anchors", 2):
        anchor = pyro.sample("anchor", dist.Normal(centre.unsqueeze(-1), 1.0).to_event(1))
    prompt = pyro.deterministic("prompt", anchor)
    with pyro.plate("outputs", outputs):
        where = prompt.mean(-2, keepdim=True) + kind.unsqueeze(-1)
        output = pyro.sample("output", dist.Normal(where, 1.0).to_event(1))
        pyro.deterministic("synthetic", output, event_dim=1)


def laplace_evidence(density: ConditionedDensity) -> float:
    """Log of the integral over the vector: exact where the density is that of a normal."""
    (optimum,) = find_optima(density, 0)
    _, log_det = torch.linalg.slogdet(optimum.scale)
    return optimum.value + density.size / 2 * math.log(2 * math.pi) + float(log_det)


@pytest.mark.parametrize(("anchors", "outputs"), [(4, 6), (1, 2)])
def test_evidence_and_posterior_of_the_readme_are_the_closed_forms(anchors, outputs):
    process = load_process(readme, anchors=anchors, outputs=outputs)
    rows = simulate_tensors(process, compute=Compute(seed=1)).sites["synthetic"][0, 0]
    density = ConditionedDensity(process, {"synthetic": rows})
    covariance, with_centre = readme_moments(anchors, outputs)
    zero = torch.zeros(outputs, dtype=torch.float64)
    exact = MultivariateNormal(zero, covariance).log_prob(rows[:, 0])
    assert laplace_evidence(density) == pytest.approx(float(exact), abs=1e-6)

    gain = torch.linalg.solve(covariance, with_centre)
    (optimum,) = find_optima(density, 0)
    assert density.prepared.names[0] == "centre"
    assert float(optimum.point[0]) == pytest.approx(float(gain @ rows[:, 0]), abs=1e-5)
    variance = (optimum.scale @ optimum.scale.mT)[0, 0]
    assert float(variance) == pytest.approx(9 - float(gain @ with_centre), abs=1e-6)


def test_an_output_seen_through_noise_is_integrated_out_as_quadrature_does():
    process = load_process(readme, anchors=1, outputs=1)
    rows = torch.tensor([[0.7]], dtype=torch.float64)
    collapsed = ConditionedDensity(process, {"synthetic": rows})
    raw = ConditionedDensity(process, {"synthetic": rows}, keep=["output"])
    assert (collapsed.prepared.collapsed, raw.prepared.collapsed) == ("output", "")
    assert raw.prepared.names == [*collapsed.prepared.names, "output"]
    vector = torch.tensor([[0.3, -0.2, 0.5]], dtype=torch.float64)
    grid = torch.linspace(-4, 5, 20001, dtype=torch.float64)
    joint = raw(torch.cat([vector.expand(len(grid), 3), grid[:, None]], -1))
    integral = joint.logsumexp(0) + math.log(float(grid[1] - grid[0]))
    assert float(collapsed(vector)) == pytest.approx(float(integral), abs=1e-8)


def test_an_output_of_mixtures_is_integrated_out_as_the_average_over_its_draws(margin):
    process = load_process(
        "gaussian_mixture", K=2, J=1, L=0, anchors_per_component=4, outputs=1, noise=0.5
    )
    simulated = simulate_tensors(process, compute=Compute(seed=2))
    values = {name: value[0, 0] for name, value in simulated.values.items()}
    density = ConditionedDensity(
        process, {"synthetic": values["synthetic"], "anchor": values["anchor"]}
    )
    assert density.prepared.collapsed == "output"
    vector = density.prior_vectors(1, 0)
    world = {name: value[0, 0] for name, value in density.evaluate(vector, generator(0))[0].items()}
    draws = pyro_outputs(process, {**world, "anchor": values["anchor"]}, 20000)
    each = Normal(draws, 0.5).log_prob(values["synthetic"]).sum(-1).exp()
    found = density.evaluate(vector, torch.Generator())[1]["synthetic"].exp().item()
    margin(4 - abs(each.mean() - found) / (each.std() / math.sqrt(len(each))))


def pyro_outputs(process, held, count):
    """Outputs (count, d) by Pyro alone."""
    with running(0):
        model = pyro.poutine.condition(process, data=held)
        distribution = pyro.poutine.trace(model).get_trace().nodes["output"]["fn"]
        return distribution.sample((count,))[:, 0]


def test_letters_are_summed_out():
    process = load_process(coin)
    rows = simulate_tensors(process, compute=Compute(seed=4)).sites["synthetic"][0, 0]
    density = ConditionedDensity(process, {"synthetic": rows})
    assert density.prepared.enumerated == {"kind": 3}
    vector = torch.tensor([[0.4, 1.1, -0.3]], dtype=torch.float64)
    centre, anchors = vector[0, 0], vector[0, 1:]
    terms = [
        math.log(share)
        + Normal(mean, 1.0).log_prob(centre)
        + Normal(centre, 1.0).log_prob(anchors).sum()
        + Normal(anchors.mean() + kind, 1.0).log_prob(rows).sum()
        for kind, (share, mean) in enumerate([(0.2, -2.0), (0.3, 0.0), (0.5, 2.0)])
    ]
    assert float(density(vector)) == pytest.approx(float(torch.stack(terms).logsumexp(0)), abs=1e-9)


def test_letters_are_drawn_given_the_rest(margin):
    process = load_process(coin)
    rows = torch.full((5, 1), 1.2, dtype=torch.float64)
    density = ConditionedDensity(process, {"synthetic": rows})
    vector = torch.tensor([[0.4, 1.1, -0.3]], dtype=torch.float64)
    with_kind = [Normal(0.4 + kind, 1.0).log_prob(rows).sum() for kind in range(3)]
    of_centre = [Normal(mean, 1.0).log_prob(vector[0, 0]) for mean in (-2.0, 0.0, 2.0)]
    logits = torch.tensor([0.2, 0.3, 0.5]).log() + torch.stack(with_kind) + torch.stack(of_centre)
    values, likelihood = density.evaluate(vector.expand(4000, 3), generator(1))
    kinds = values["kind"].flatten()
    shares = torch.bincount(kinds, minlength=3) / 4000
    exact = logits.softmax(-1)
    margin(4 * (exact * (1 - exact) / 4000).sqrt() + 1e-3 - (shares - exact).abs())
    expected = Normal(0.4 + kinds.double().unsqueeze(-1), 1.0).log_prob(rows[:, 0])
    torch.testing.assert_close(likelihood["output"][:, 0], expected)


def test_letters_of_a_chain_are_summed_over_all_their_words():
    process = load_process("finite_alphabet", outputs=3)
    rows = torch.tensor([[0], [2], [0]])
    density = ConditionedDensity(process, {"synthetic": rows})
    assert set(density.prepared.enumerated) == {"answers", "anchor", "output"}
    vectors = density.prior_vectors(2, 0)
    world = density.evaluate(vectors, generator(0))[0]
    for index in range(2):
        task, model, other = (
            world[name][index, 0] for name in ("task", "generator", "replacement")
        )
        curation = 0.8 * torch.eye(3)[0].double() + 0.2 * other
        permutation = world["ranks"][index, 0].argsort(-1)
        sums = torch.zeros((), dtype=torch.float64)
        for answers in itertools.product(range(3), repeat=3):
            for anchor in range(3):
                shift = answers[int(permutation[anchor])]
                product = task[anchor] / 27
                for row in rows[:, 0].tolist():
                    product = product * sum(
                        model[(out - shift) % 3] * curation[(row - out) % 3] for out in range(3)
                    )
                sums = sums + product
        prior = _prior_with_jacobian(density, vectors[index : index + 1])
        torch.testing.assert_close(density(vectors)[index], sums.log() + prior)


def _prior_with_jacobian(density, vector):
    """Log density of the continuous sites alone, from the distributions of a plain run."""
    total = torch.zeros((), dtype=torch.float64)
    for latent in density.prepared.latents:
        free = vector[0, latent.start : latent.stop]
        if latent.name == "ranks":
            total = total + Normal(0.0, 1.0).log_prob(free).sum()
        else:
            table = dist.Dirichlet(torch.ones(3, dtype=torch.float64))
            transform = biject_to(table.support)
            value = transform(free)
            total = total + table.log_prob(value) + transform.log_abs_det_jacobian(free, value)
    return total


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("linear_gaussian", {}),
        ("invertible_prompt", {}),
        ("curation", {"outputs": 5, "anchors": 3}),
        ("sources", {"outputs": 10, "anchors": 4, "noise": 0.1}),
        ("gaussian_mixture", {"outputs": 9, "anchors_per_component": 4, "noise": 0.1}),
    ],
)
def test_gradients_are_finite_differences(name, knobs):
    process = load_process(name, **knobs)
    rows = simulate_tensors(process, compute=Compute(seed=3)).sites["synthetic"][0, 0]
    density = ConditionedDensity(process, {"synthetic": rows})
    vectors = density.prior_vectors(3, 1)
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(vectors.shape, generator=generator, dtype=torch.float64)
    direction /= direction.norm(dim=-1, keepdim=True)
    _, slopes = density.gradient(vectors)
    step = 1e-6
    around = density(vectors + step * direction) - density(vectors - step * direction)
    expected = around / (2 * step)
    torch.testing.assert_close((slopes * direction).sum(-1), expected, rtol=1e-4, atol=1e-4)


def test_data_sets_share_a_world_and_nothing_else():
    process = load_process(readme)
    rows = simulate_tensors(process, replicates=3, compute=Compute(seed=5)).sites["synthetic"][0]
    together = ConditionedDensity(process, {"synthetic": rows})
    single = ConditionedDensity(process, {"synthetic": rows[0]})
    assert together.size == 1 + 3 * (single.size - 1)
    vector = torch.randn(1, together.size, generator=torch.Generator().manual_seed(1)).double()
    centre, anchors, prompts = vector[:, :1], vector[:, 1:13], vector[:, 13:]
    parts = [
        ConditionedDensity(process, {"synthetic": one})(
            torch.cat([centre, anchors[:, 4 * i : 4 * i + 4], prompts[:, i : i + 1]], -1)
        )
        for i, one in enumerate(rows)
    ]
    prior = Normal(0.0, 3.0).log_prob(centre).sum()
    expected = torch.stack(parts).sum(0) - 2 * prior
    torch.testing.assert_close(together(vector), expected)


@pytest.mark.parametrize("name", ["linear_gaussian", "gaussian_mixture", "sources"])
def test_prior_vectors_are_draws_of_the_prior(name, margin):
    """Their constrained values have the moments of a simulation."""
    process = load_process(name, **({} if name == "linear_gaussian" else {"noise": 0.1}))
    rows = simulate_tensors(process, compute=Compute(seed=3)).sites["synthetic"][0, 0]
    density = ConditionedDensity(process, {"synthetic": rows})
    drawn = density.evaluate(density.prior_vectors(400, 6), generator(0))[0]
    simulated = simulate_tensors(process, worlds=400, compute=Compute(seed=7))
    for latent in density.prepared.latents:
        mine = drawn[latent.name].flatten(1)
        theirs = simulated.values[latent.name].flatten(1)
        error = (mine.var(0) / 400 + theirs.var(0) / 400).sqrt()
        margin(5 * error - (mine.mean(0) - theirs.mean(0)).abs())


def test_rows_that_are_the_outputs_condition_them():
    process = load_process("linear_gaussian", curation_noise=0)
    rows = simulate_tensors(process, compute=Compute(seed=1)).sites["synthetic"][0, 0]
    density = ConditionedDensity(process, {"synthetic": rows})
    assert density.prepared.observed == ("output",)


@pytest.mark.parametrize(
    ("process", "data", "keep", "match"),
    [
        ("linear_gaussian", {"nothing": torch.zeros(4, 2)}, (), "chain site"),
        ("linear_gaussian", {"prompt": torch.zeros(4, 2)}, (), "computes from other sites"),
        ("linear_gaussian", {"synthetic": torch.zeros(5, 2)}, (), "of shape"),
        ("linear_gaussian", {"synthetic": torch.zeros(8, 2)}, ("nothing",), "to keep"),
        ("linear_gaussian", {"synthetic": torch.zeros(8, 2)}, ("task_mean",), "to keep"),
    ],
)
def test_refused(process, data, keep, match):
    with pytest.raises(ValueError, match=match):
        ConditionedDensity(load_process(process), data, keep=keep)
