"""H(S_gen) where curation is random, against entropies in closed form."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from benchmarks import coverage
from rbpp.processes.process import load_process
from rbpp.processes.replicas import Replicas
from rbpp.theory.curated_entropy import curated_entropy

WORLDS = 8
# Errors of the mean over worlds; beyond 4 once in 16,000.
ERRORS = 4.0
ROWS, FACTOR, NOISE, REVISION = 5, 1.5, 0.5, 0.5


def revised(shared: bool):
    """Rows Normal(prompt + e_M, NOISE), revised; e_M is above the output, for all or for each."""
    prompt_law = dist.Normal(torch.zeros(1), 1.0).to_event(1)
    factor_law = dist.Normal(torch.zeros(1), FACTOR).to_event(1)
    with pyro.plate("anchors", 1):
        anchor = pyro.sample("anchor", prompt_law)
    prompt = pyro.deterministic("prompt", anchor)
    factor = pyro.sample("model_factor", factor_law) if shared else None
    with pyro.plate("outputs", ROWS):
        if factor is None:
            factor = pyro.sample("model_factor", factor_law)
        output = pyro.sample("output", dist.Normal(prompt + factor, NOISE).to_event(1))
        pyro.sample("synthetic", dist.Normal(output, REVISION).to_event(1))


def revised_truth(shared: bool) -> float:
    common = torch.ones(ROWS, ROWS)
    identity = torch.eye(ROWS)
    covariance = common + FACTOR**2 * (common if shared else identity)
    covariance = covariance + (NOISE**2 + REVISION**2) * identity
    return 0.5 * (ROWS * math.log(2 * math.pi * math.e) + float(torch.logdet(covariance)))


def check(found, truth):
    """The value is right, and the sides are on their sides, in the mean over worlds."""
    count = len(truth)
    for side, sign in ((found.lower, 1), (found, 0), (found.upper, -1)):
        error = float(side.standard_error.square().mean().sqrt()) / math.sqrt(count)
        bias = float((side.value - truth).mean())
        assert (sign * bias if sign else abs(bias)) < ERRORS * error, (sign, bias, error)
    width = float((found.upper.value - found.lower.value).mean())
    assert width < 0.1 * abs(float(truth.mean())) + 0.5


@pytest.mark.parametrize("shared", [True, False], ids=["one e_M", "one e_M a row"])
def test_model_factors_above_the_output_are_integrated_out(shared):
    replicas = Replicas(lambda: revised(shared), worlds=WORLDS)
    values = replicas.draw(128, "test")
    check(curated_entropy(replicas, values), torch.full((WORLDS,), revised_truth(shared)))


@pytest.mark.parametrize(
    ("name", "truth", "knobs"),
    [
        ("linear_gaussian", coverage.linear_gaussian_truth, {}),
        ("linear_gaussian", coverage.linear_gaussian_truth, {"prompt_noise": 0.5}),
        ("finite_alphabet", coverage.finite_truth, {"outputs": 3}),
    ],
)
def test_entropies_of_shipped_processes(name, truth, knobs):
    process = load_process(name, **knobs)
    replicas = Replicas(process, worlds=WORLDS)
    found = curated_entropy(replicas, replicas.draw(128, "test"))
    worlds = coverage.worlds_of(replicas.world, WORLDS)
    exact = torch.tensor([truth(world, process.knobs)["entropy_synthetic"] for world in worlds])
    site = replicas.sites["synthetic"]
    if not site.discrete:  # the truth is at the benchmark's resolution
        exact = exact + site.coordinates * math.log(coverage.RESOLUTION)
    check(found, exact)


def test_a_pool_too_small_shows_in_the_error():
    """Revision far narrower than the outputs lie apart: the sides part, and the error says so."""
    process = load_process("linear_gaussian", curation_noise=0.1, outputs=4)
    replicas = Replicas(process, worlds=WORLDS)
    found = curated_entropy(replicas, replicas.draw(64, "test"))
    worlds = coverage.worlds_of(replicas.world, WORLDS)
    exact = torch.tensor(
        [coverage.linear_gaussian_truth(w, process.knobs)["entropy_synthetic"] for w in worlds]
    ) + 8 * math.log(coverage.RESOLUTION)
    low, high = found.interval(3.0)
    assert bool(((low < exact) & (exact < high)).all())
    assert float((found.upper.value - found.lower.value).mean()) > 1.0
