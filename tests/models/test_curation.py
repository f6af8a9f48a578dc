from __future__ import annotations

import numpy as np
import pytest
import torch

from rbpp.processes.density import log_density
from rbpp.processes.process import load_process
from rbpp.processes.simulation import simulate


@pytest.mark.parametrize("softness", [0.0, 0.2])
@pytest.mark.parametrize("step", [0.0, 0.5])
def test_curated_rows_have_the_density_of_the_convolution(softness, step, margin):
    """Σ_y p_M(p)(y | p) p(s | y) on a grid of outputs, against frequencies of synthetic rows."""
    outputs = 50_000
    process = load_process(
        "curation", dimension=1, outputs=outputs, softness=softness, step=step, radius=1.5
    )
    simulation = simulate(process, seed=1)
    synthetic = simulation.sites["synthetic"][0, 0, :, 0]
    # The steps of the rounding are cells of the grid, which a jump between cells does not hurt.
    grid = torch.arange(-16.0, 16.0, 1 / 32, dtype=torch.float64) + 1 / 64
    edges = synthetic.quantile(torch.linspace(0.05, 0.95, 10, dtype=torch.float64))
    centres = torch.linspace(float(edges[0]) - 3, float(edges[-1]) + 3, 1501, dtype=torch.float64)
    above = {**simulation.values, "output": grid[None, None, :, None]}
    output = log_density(process, above, ["output"], per_row=True)["output"].flatten()
    cells = []
    for part in centres.split(200):
        given = {
            **simulation.world,
            "output": grid[:, None].expand(len(part), 1, 1, -1, 1),
            "synthetic": part[:, None, None, None, None].expand(-1, 1, 1, len(grid), 1),
        }
        curated = log_density(process, given, ["synthetic"], per_row=True)["synthetic"]
        cells.append((curated.reshape(len(part), -1) + output).exp().sum(-1) / 32)
    density = torch.cat(cells)
    cumulative = torch.cumulative_trapezoid(density, centres)
    at_edges = np.interp(edges.numpy(), centres[1:].numpy(), cumulative.numpy())
    # Each tenth of n rows: standard error √(0.1 · 0.9 / n) = 0.0013; the grids add as much.
    margin(5 * 0.0013 + 0.0013 - np.abs(np.diff(at_edges) - 0.1))


def test_rejected_rows_are_written_anew(margin):
    process = load_process("curation", off_task=0.5, radius=2.0, softness=0.0, outputs=5000)
    simulation = simulate(process, seed=3)
    centre = simulation.world["task_mean"].unsqueeze(-2)
    output, synthetic = simulation.sites["output"], simulation.sites["synthetic"]
    rejected = (output - centre).norm(dim=-1) > 2.0
    assert 0.05 < rejected.double().mean() < 0.95
    kept = ~rejected
    rounded = 0.5 * (output / 0.5).round()
    assert ((synthetic - rounded)[kept].abs() < 6 * 0.1).all()
    anew = (synthetic - centre)[rejected]
    # Standard normal around the task's centre: 5 standard errors of mean and variance.
    count = len(anew)
    margin(5 / count**0.5 - anew.mean(0).abs().max())
    margin(5 * (2 / count) ** 0.5 - (anew.var(0) - 1).abs().max())


def test_filter_brings_the_rows_nearer_to_the_task(margin):
    simulation = simulate(load_process("curation"), worlds=200, seed=2)
    centre = simulation.world["task_mean"].unsqueeze(-2)
    far = [
        ((simulation.sites[name] - centre).norm(dim=-1) > 3.5).double().mean()
        for name in ("output", "synthetic")
    ]
    # Five standard errors: over ten seeds 0.0070 ± 0.0010 of what is far stays so.
    margin(0.012 * far[0] - far[1])


def test_radius_and_step_of_zero_change_nothing_but_noise():
    process = load_process("curation", radius=0.0, step=0.0, noise=0.01)
    sites = simulate(process, worlds=5).sites
    assert (sites["synthetic"] - sites["output"]).abs().max() < 6 * 0.01


@pytest.mark.parametrize(
    "knobs",
    [{"noise": 0.0}, {"off_task": 1.0}, {"off_task": 0.0}, {"radius": -1.0}, {"softness": -1.0}],
)
def test_knobs_out_of_range_are_refused(knobs):
    with pytest.raises(ValueError, match="noise above 0, off_task between 0 and 1"):
        simulate(load_process("curation", **knobs))


def test_sizes():
    sites = load_process(
        "curation", anchors=3, outputs=4, targets=5, unprompted_outputs=6, dimension=7
    ).sites
    shapes = {name: sites[name].shape for name in ("anchor", "output", "target", "unprompted")}
    assert shapes == {"anchor": (3, 7), "output": (4, 7), "target": (5, 7), "unprompted": (6, 7)}
