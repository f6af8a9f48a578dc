"""H(S_gen) where curation is random, against entropies in closed form."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from benchmarks.coverage import worlds_of
from benchmarks.coverage_truth import RESOLUTION, finite_truth, linear_gaussian_truth
from rbpp.processes.process import load_process
from rbpp.processes.replicas import Replicas
from rbpp.theory import curated_rows
from rbpp.theory.audit import judge
from rbpp.theory.bounds import bounds
from rbpp.theory.curated_entropy import curated_entropy, is_copy
from rbpp.theory.settings import SampleSizes
from tests import processes_by_users as processes

WORLDS = 8
# Errors of the mean over worlds; beyond 4 once in 16,000.
ERRORS = 4.0
SMALL = SampleSizes(worlds=2, replicates=32, pairs=32, groups=4, inner=8)
ROWS, FACTOR, NOISE, REVISION = 5, 1.5, 0.5, 0.5


def revised(shared: bool):
    """Rows Normal(prompt + e_M, NOISE), revised; e_M is above the output, for all or for each."""
    prompt_distribution = dist.Normal(torch.zeros(1), 1.0).to_event(1)
    factor_distribution = dist.Normal(torch.zeros(1), FACTOR).to_event(1)
    with pyro.plate("anchors", 1):
        anchor = pyro.sample("anchor", prompt_distribution)
    prompt = pyro.deterministic("prompt", anchor)
    factor = pyro.sample("model_factor", factor_distribution) if shared else None
    with pyro.plate("outputs", ROWS):
        if factor is None:
            factor = pyro.sample("model_factor", factor_distribution)
        output = pyro.sample("output", dist.Normal(prompt + factor, NOISE).to_event(1))
        pyro.sample("synthetic", dist.Normal(output, REVISION).to_event(1))


def revised_truth(shared: bool) -> float:
    common = torch.ones(ROWS, ROWS)
    identity = torch.eye(ROWS)
    covariance = common + FACTOR**2 * (common if shared else identity)
    covariance = covariance + (NOISE**2 + REVISION**2) * identity
    return 0.5 * (ROWS * math.log(2 * math.pi * math.e) + float(torch.logdet(covariance)))


def check(found, truth, margin):
    """The value is right, and the sides are on their sides, in the mean over worlds."""
    count = len(truth)
    for side, sign in ((found.lower, 1), (found, 0), (found.upper, -1)):
        error = float(side.standard_error.square().mean().sqrt()) / math.sqrt(count)
        bias = float((side.value - truth).mean())
        margin(ERRORS - (sign * bias if sign else abs(bias)) / error)
    width = float((found.upper.value - found.lower.value).mean())
    assert width < 0.1 * abs(float(truth.mean())) + 0.5


@pytest.mark.parametrize("shared", [True, False], ids=["one e_M", "one e_M a row"])
def test_model_factors_above_the_output_are_integrated_out(shared, margin):
    replicas = Replicas(lambda: revised(shared), worlds=WORLDS)
    values = replicas.draw(128, "test")
    truth = torch.full((WORLDS,), revised_truth(shared))
    check(curated_entropy(replicas, values), truth, margin)


@pytest.mark.parametrize(
    ("name", "truth", "knobs"),
    [
        ("linear_gaussian", linear_gaussian_truth, {}),
        ("linear_gaussian", linear_gaussian_truth, {"prompt_noise": 0.5}),
        ("finite_alphabet", finite_truth, {"outputs": 3}),
    ],
)
def test_entropies_of_shipped_processes(name, truth, knobs, margin):
    process = load_process(name, **knobs)
    replicas = Replicas(process, worlds=WORLDS)
    found = curated_entropy(replicas, replicas.draw(128, "test"))
    worlds = worlds_of(replicas.world, WORLDS)
    exact = torch.tensor([truth(world, process.knobs)["entropy_synthetic"] for world in worlds])
    site = replicas.sites["synthetic"]
    if not site.discrete:  # the truth is at the benchmark's resolution
        exact = exact + site.coordinates * math.log(RESOLUTION)
    check(found, exact, margin)


@pytest.mark.parametrize(
    "knobs", [{"curation_noise": 0.02}, {"curation_noise": 0.1, "dimension": 4, "spread": 0.1}]
)
def test_small_noise_and_more_dimensions_keep_the_entropy(knobs, margin):
    """An average over a pool of outputs was off by tens of nats here."""
    process = load_process("linear_gaussian", **knobs)
    replicas = Replicas(process, worlds=WORLDS)
    found = curated_entropy(replicas, replicas.draw(128, "test"))
    worlds = worlds_of(replicas.world, WORLDS)
    exact = torch.tensor(
        [linear_gaussian_truth(w, process.knobs)["entropy_synthetic"] for w in worlds]
    )
    exact = exact + replicas.sites["synthetic"].coordinates * math.log(RESOLUTION)
    low, high = found.interval(3.0)
    margin(torch.minimum(exact - low, high - exact) / found.standard_error)
    margin(5.0 - float(found.standard_error.mean()))
    for side, sign in ((found.lower, 1), (found.upper, -1)):
        margin(
            ERRORS * float(found.standard_error.mean()) / math.sqrt(WORLDS)
            - float((sign * (side.value - exact)).mean())
        )


def test_the_readmes_process_in_eight_dimensions(margin):
    """575 nats too much, 24 standard errors, before noise was added in closed form."""
    rows, size = 50, 8
    replicas = Replicas(lambda: processes.readme(dimension=size), worlds=WORLDS)
    found = curated_entropy(replicas, replicas.draw(128, "test"))
    covariance = (1 / 20 + 0.01) * torch.ones(rows, rows, dtype=torch.float64)
    covariance += (0.25 + 0.01) * torch.eye(rows, dtype=torch.float64)
    truth = size * 0.5 * (rows * math.log(2 * math.pi * math.e) + float(torch.logdet(covariance)))
    low, high = found.interval(3.0)
    margin(torch.minimum(truth - low, high - truth) / found.standard_error)
    margin(20 - abs(float(found.value.mean()) - truth))


def laplace_truth(noise: float, scale: float = 0.7, rows: int = 4) -> float:
    """H(S) of `laplace_answers` in one world: draws of S, prompt and output by quadrature."""
    generator = torch.Generator().manual_seed(0)
    grid = torch.linspace(-12, 12, 24_001, dtype=torch.float64)
    step = float(grid[1] - grid[0])
    laplace = (-grid.abs() / scale).exp() / (2 * scale)
    # A convolution on the grid: the density of a row around its prompt.
    kernel = torch.arange(-600, 601, dtype=torch.float64) * step
    normal = (-0.5 * (kernel / noise).square()).exp()
    normal = normal / normal.sum()
    density = torch.nn.functional.conv1d(laplace[None, None], normal[None, None], padding=600)
    log_row = density[0, 0].log()
    prompts, width = 400, 0.5 / math.sqrt(2)
    nodes = torch.linspace(-5 * width, 5 * width, prompts, dtype=torch.float64)
    weights = (-0.5 * (nodes / width).square()).log_softmax(0)
    draws = 20_000
    prompt = width * torch.randn(draws, 1, generator=generator, dtype=torch.float64)
    uniform = torch.rand(draws, rows, generator=generator, dtype=torch.float64) - 0.5
    output = prompt - scale * uniform.sign() * torch.log1p(-2 * uniform.abs())
    normal = torch.randn(draws, rows, generator=generator, dtype=torch.float64)
    synthetic = output + noise * normal
    shift = synthetic.unsqueeze(-1) - nodes
    index = ((shift + 12) / step).round().long().clamp(0, len(grid) - 1)
    return -float((log_row[index].sum(1) + weights).logsumexp(-1).mean())


@pytest.mark.parametrize("noise", [0.05, 0.5])
def test_outputs_proposed_around_the_rows(noise, margin):
    replicas = Replicas(lambda: processes.laplace_answers(noise), worlds=WORLDS)
    assert not replicas.integrates_output
    found = curated_entropy(replicas, replicas.draw(128, "test"))
    assert bool(found.standard_error.isfinite().all())  # effective sample sizes above ten
    check(found, torch.full((WORLDS,), laplace_truth(noise), dtype=torch.float64), margin)


def test_too_few_effective_draws_are_an_unknown_error(monkeypatch):
    monkeypatch.setattr(curated_rows, "_DRAWS", 8)
    replicas = Replicas(processes.laplace_answers, worlds=2)
    found = curated_entropy(replicas, replicas.draw(32, "test"))
    assert bool(found.standard_error.isinf().all())
    assert judge(found).verdict == "unknown"


def test_letters_drawn_with_probability_one_are_a_copy():
    for noise, copy in ((0.0, True), (0.05, False)):
        replicas = Replicas(lambda noise=noise: processes.copied_letter(noise), worlds=2)
        assert is_copy(replicas, replicas.draw(64, "test")) is copy
    exact, almost = (
        bounds(lambda noise=noise: processes.copied_letter(noise), sizes=SMALL)
        for noise in (0.0, 0.05)
    )
    assert float(exact.terms["curation_leak"].value.abs().max()) == 0
    assert torch.equal(exact.terms["entropy_synthetic"].value, exact.terms["entropy_output"].value)
    assert float(almost.terms["curation_leak"].value.abs().max()) > 0
