from __future__ import annotations

import pytest
import torch

from rbpp.processes.process import load_process
from rbpp.processes.simulation import simulate
from tests.processes.row_density import row_mixture


def test_parts_are_named_and_in_order():
    process = load_process(
        "gaussian_mixture", anchor_components=1, unsampled_components=2, irrelevant_components=3
    )
    simulation = simulate(process, worlds=2)
    assert simulation.derived["part"].flatten().tolist() == [0, 1, 1, 2, 2, 2]
    components = {
        site: row_mixture(process, simulation.values, site).components
        for site in ("target", "unprompted", "output")
    }
    assert components == {"target": 3, "unprompted": 6, "output": 6}


def test_prompted_generator_has_the_moments_of_the_anchors():
    process = load_process("gaussian_mixture", anchor_components=3, anchors_per_component=20)
    simulation = simulate(process, worlds=4, replicates=2)
    generator = row_mixture(process, simulation.values, "output")
    groups = simulation.sites["anchor"].unflatten(-2, (3, 20))
    torch.testing.assert_close(generator.means[..., :3, :], groups.mean(-2))
    for component in range(3):
        expected = torch.stack(
            [torch.cov(rows.mT) for rows in groups[..., component, :, :].flatten(0, 1)]
        )
        found = generator.covariances[..., component, :, :].flatten(0, 1)
        torch.testing.assert_close(found, expected)
    own = row_mixture(process, simulation.values, "unprompted").expand((4, 2))
    torch.testing.assert_close(generator.means[..., 3:, :], own.means[..., 3:, :])
    torch.testing.assert_close(generator.covariances[..., 3:, :, :], own.covariances[..., 3:, :, :])
    torch.testing.assert_close(generator.weights, torch.full_like(generator.weights, 1 / 7))


def test_task_is_the_first_two_parts_of_the_unprompted_generator():
    process = load_process("gaussian_mixture")
    values = simulate(process, worlds=3).values
    task, generator = (row_mixture(process, values, site) for site in ("target", "unprompted"))
    assert torch.equal(task.means, generator.means[..., :4, :])


def test_anchors_come_from_the_first_part(margin):
    process = load_process("gaussian_mixture", anchors_per_component=2000)
    simulation = simulate(process, seed=1)
    groups = simulation.sites["anchor"].unflatten(-2, (2, 2000))[0, 0]
    task = row_mixture(process, simulation.values, "target")
    covariances = task.covariances[0, 0, :2]
    error = (covariances.diagonal(dim1=-2, dim2=-1) / 2000).sqrt()
    margin(5 - (groups.mean(-2) - task.means[0, 0, :2]).abs() / error)


def test_covariances_are_proper():
    simulation = simulate(load_process("gaussian_mixture", dimension=3, jitter=0.1), worlds=500)
    covariances = row_mixture(simulation.process, simulation.values, "unprompted").covariances
    torch.testing.assert_close(covariances, covariances.mT)
    assert torch.linalg.eigvalsh(covariances).min() >= 0.1 - 1e-9


def test_means_fill_the_box(margin):
    means = simulate(load_process("gaussian_mixture", extent=4.0), worlds=1000).world["means"]
    assert 0 <= means.min() < 0.01 < 3.99 < means.max() <= 4
    # Uniform on [0, 4]: mean 2 with standard error 4 / √(12 · 12000).
    margin(5 * 4 / (12 * 12000) ** 0.5 - abs(float(means.mean()) - 2))


@pytest.mark.parametrize("noise", [0.0, 0.7])
def test_noise_is_the_standard_deviation_of_epsilon(noise, margin):
    process = load_process("gaussian_mixture", noise=noise, outputs=5000)
    sites = simulate(process).sites
    gaps = (sites["synthetic"] - sites["output"]).flatten()
    assert process.sites["synthetic"].deterministic == (noise == 0)
    assert bool(gaps.any()) == (noise > 0)
    if noise:  # the standard error of a standard deviation: σ / √(2 · 10,000)
        margin(5 - abs(float(gaps.std()) - noise) / (noise / 20000**0.5))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"anchor_components": 0}, "one anchor component or more"),
        ({"unsampled_components": -1}, "others 0 or more"),
        ({"irrelevant_components": -1}, "others 0 or more"),
        ({"anchors_per_component": 2}, "anchors_per_component above dimension=2"),
        ({"dimension": 60}, "anchors_per_component above dimension=60"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        simulate(load_process("gaussian_mixture", **knobs))


def test_nothing_unsampled_or_irrelevant():
    process = load_process("gaussian_mixture", unsampled_components=0, irrelevant_components=0)
    values = simulate(process, worlds=2).values
    assert row_mixture(process, values, "output").components == 2


def test_sizes():
    sites = load_process(
        "gaussian_mixture", outputs=3, targets=4, unprompted_outputs=5, dimension=3
    ).sites
    shapes = {name: sites[name].shape for name in ("synthetic", "target", "unprompted", "anchor")}
    assert shapes == {
        "synthetic": (3, 3), "target": (4, 3), "unprompted": (5, 3), "anchor": (100, 3)
    }  # fmt: skip
