"""TV between distributions of rows, against quadrature and large exact mixtures."""

import math

import torch
from torch.distributions import Normal

from rbpp.processes.process import load_process
from rbpp.processes.replicas import Replicas
from rbpp.theory.total_variation import between_free_and_curated_rows, total_variation
from tests import processes_by_users as processes
from tests.processes.row_density import row_mixture

WORLDS = 4
ERRORS = 4.0


def test_a_mixture_with_little_noise(margin):
    """TV(D_M, D_gen) at noise 0.02 is 0.03; averages over a pool of outputs made it 0.83."""
    process = load_process("gaussian_mixture", noise=0.02)
    replicas = Replicas(process, worlds=WORLDS)
    values = replicas.draw(16, "test")
    found = total_variation(replicas, values, "unprompted", "synthetic")
    sites = process.sites
    plain = {
        name: sites[name].plain(value)
        for name, value in {**replicas.world, "anchor": values["anchor"]}.items()
    }
    plain["prompt"] = sites["prompt"].plain(values["prompt"])
    free = row_mixture(process, plain, "unprompted")
    curated = row_mixture(process, plain, "synthetic")
    rows = curated.sample((4000,), generator=torch.Generator().manual_seed(1)).movedim(0, -2)
    log_curated = curated.log_prob_rows(rows)
    log_free = free.expand(curated.batch_shape).log_prob_rows(rows)
    truth = (1 - (log_free - log_curated).exp()).clamp_min(0).mean((-1, -2))
    assert float(truth.max()) < 0.1
    margin(ERRORS - (found.value - truth).abs() / found.standard_error)
    margin(0.03 - float(found.standard_error.max()))


def test_two_sides_hold_the_truth_where_outputs_are_proposed(margin):
    noise, scale = 0.05, 0.7
    replicas = Replicas(lambda: processes.laplace_answers(noise), worlds=WORLDS)
    values = replicas.draw(16, "test")
    found = between_free_and_curated_rows(replicas, values, "target", "synthetic")
    grid = torch.linspace(-10, 10, 8001, dtype=torch.float64)
    step = float(grid[1] - grid[0])
    kernel = torch.arange(-120, 121, dtype=torch.float64) * step
    normal = Normal(0.0, noise).log_prob(kernel).exp() * step
    laplace = (-grid.abs() / scale).exp() / (2 * scale)
    row = torch.nn.functional.conv1d(laplace[None, None], normal[None, None], padding=120)[0, 0]
    prompts = (values["prompt"] - replicas.world["centre"])[:, :8].flatten(2)
    truth = torch.stack(
        [
            torch.stack(
                [(Normal(-shift, 1.0).log_prob(grid).exp() - row).abs().sum() for shift in of]
            )
            for of in prompts
        ]
    )
    truth = truth.flatten(1).mean(-1) * step / 2
    margin(ERRORS - (found.value - truth).abs() / found.standard_error)
    shared = 1 / math.sqrt(256)
    margin(truth + shared - found.lower.value)
    margin(found.upper.value - truth + shared)


def test_a_copy_and_noise_in_closed_form_agree_where_noise_vanishes():
    found = []
    for noise in (0.0, 1e-4):
        replicas = Replicas(load_process("linear_gaussian", curation_noise=noise), worlds=WORLDS)
        values = replicas.draw(32, "test")
        found.append(total_variation(replicas, values, "target", "synthetic").value)
    torch.testing.assert_close(*found, atol=2e-3, rtol=0)
