"""Appendix C, each density against an integral that does not use it."""

from __future__ import annotations

import pytest
import torch

from rbpp.processes.density import log_density
from rbpp.processes.loading import find_model
from rbpp.processes.process import load_process
from rbpp.processes.simulation import simulate
from tests.processes.row_density import row_mixture


def grid(low, high, count):
    """Points of a square grid and the area of its cells."""
    axis = torch.linspace(low, high, count, dtype=torch.float64)
    step = axis[1] - axis[0]
    return torch.cartesian_prod(axis, axis), float(step * step)


def prompt_distribution(world):
    _, build, _ = find_model("invertible_prompt:prompt_distribution")
    names = ("task_mean", "task_map", "offset", "shear", "coupling")
    return build(*(world[name][0, 0] for name in names))


def bump(points, centre, width=0.7):
    return torch.exp(-(points - centre).square().sum(-1) / (2 * width**2))


@pytest.mark.parametrize("seed", range(4))
def test_prompt_density_is_the_change_of_variables(seed):
    """∫ f(p) p_p(p) dp over prompts against ∫ f(φ(a)) p_anchor(a) da over anchors, f smooth.

    Both integrands are smooth and vanish at the edges, where the trapezoid rule is exact to
    rounding; the second integral knows nothing of Jacobians.
    """
    process = load_process("invertible_prompt", anchors=1)
    simulation = simulate(process, seed=seed)
    distribution = prompt_distribution(simulation.world)
    task, (template,) = distribution.base_dist, distribution.transforms
    prompts = template(
        task.mean
        + task.covariance_matrix.diagonal().sqrt()
        * torch.randn(2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    )
    points, cell = grid(-20.0, 20.0, 600)
    scale = task.scale_tril
    anchors = task.mean + (points / 2.5) @ scale.mT  # ± 8 standard deviations
    anchor_cell = cell / 2.5**2 * torch.linalg.det(scale)
    for centre in prompts:
        local = centre + points / 4
        over_prompts = (bump(local, centre) * distribution.log_prob(local).exp()).sum() * cell / 16
        weights = task.log_prob(anchors).exp()
        over_anchors = (bump(template(anchors), centre) * weights).sum() * anchor_cell
        assert over_anchors > 1e-6
        torch.testing.assert_close(over_prompts, over_anchors, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("dimension", [2, 3, 5])
def test_template_is_inverted(dimension):
    simulation = simulate(load_process("invertible_prompt", dimension=dimension), worlds=3)
    _, build, _ = find_model("invertible_prompt:prompt_transform")
    world = simulation.world
    template = build(
        *(world[name].unsqueeze(2) for name in ("offset",)),
        *(world[name].unsqueeze(2) for name in ("shear", "coupling")),
    )
    torch.testing.assert_close(template(simulation.sites["anchor"]), simulation.sites["prompt"])
    torch.testing.assert_close(template.inv(simulation.sites["prompt"]), simulation.sites["anchor"])


@pytest.mark.parametrize("seed", range(3))
def test_synthetic_density_is_the_convolution(seed):
    """p_gen(s | p) in closed form against Σ_y p_M(p)(y | p) p_ε(s − y) on a grid of outputs."""
    process = load_process("invertible_prompt", anchors=3, noise=0.4, outputs=6)
    simulation = simulate(process, seed=seed)
    examples = simulation.sites["anchor"][0, 0]
    centre, radius = examples.mean(0), float((examples - examples.mean(0)).abs().max()) + 4
    points, cell = grid(-radius, radius, 300)
    outputs = points + centre
    closed = row_mixture(process, simulation.values, "synthetic")
    for synthetic in simulation.sites["synthetic"][0, 0]:
        given = {**simulation.values, "output": outputs[None, None]}
        given["synthetic"] = synthetic.expand(outputs.shape)[None, None]
        densities = log_density(process, given, ["output", "synthetic"], per_row=True)
        integral = (densities["output"] + densities["synthetic"]).exp().sum() * cell
        expected = closed.log_prob_rows(synthetic[None]).exp().squeeze()
        torch.testing.assert_close(integral, expected, rtol=1e-6, atol=1e-12)


def test_outputs_vary_rows_of_the_prompt():
    simulation = simulate(load_process("invertible_prompt", spread=1e-3), replicates=3)
    gaps = torch.cdist(simulation.sites["output"], simulation.sites["anchor"]).amin(-1)
    assert gaps.max() < 10 * 1e-3


def test_no_noise_is_the_output():
    process = load_process("invertible_prompt", noise=0.0)
    assert process.sites["synthetic"].deterministic
    values = simulate(process).values
    assert torch.equal(values["synthetic"], values["output"])
    both = [row_mixture(process, values, site) for site in ("output", "synthetic")]
    assert torch.equal(both[0].covariances, both[1].covariances)


def test_one_dimension_cannot_be_coupled():
    with pytest.raises(ValueError, match="dimension of two or more"):
        simulate(load_process("invertible_prompt", dimension=1))
