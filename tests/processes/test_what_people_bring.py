"""Processes as people write them: networks, modules, neighbours, seeds, bounded rows, scalars."""

import math
import random

import numpy as np
import pyro
import pytest
import torch
from pyro.distributions import (
    Categorical,
    Exponential,
    Independent,
    LogNormal,
    Normal,
    TransformedDistribution,
    Uniform,
)
from pyro.distributions.transforms import AffineTransform
from pyro.nn import PyroModule

from rbpp.processes.contract import check
from rbpp.processes.networks import in_double, networks
from rbpp.processes.process import load_process
from rbpp.processes.simulation import simulate
from rbpp.processes.support import log_prob
from rbpp.randomness import seeded as seeded_randomness


def chain(answer, anchors=4, outputs=5, scale=1.0):
    """A chain whose output is `answer` of the prompt."""
    centre = pyro.sample("centre", Normal(torch.zeros(2), 3.0).to_event(1))
    with pyro.plate("anchors", anchors):
        anchor = pyro.sample("anchor", Normal(centre, scale).to_event(1))
    prompt = pyro.sample("prompt", Normal(anchor.mean(-2, keepdim=True), 0.1).to_event(1))
    with pyro.plate("outputs", outputs):
        output = pyro.sample("output", answer(prompt).to_event(1))
        pyro.sample("synthetic", Normal(output, 0.1).to_event(1))


NETWORK = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))


def with_network(anchors: int = 4, outputs: int = 5):
    pyro.module("generator", NETWORK)
    chain(lambda prompt: Normal(NETWORK(prompt), 0.5), anchors, outputs)


class Generator(PyroModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, anchors: int = 4, outputs: int = 5):
        chain(lambda prompt: Normal(self.layer(prompt), 0.5), anchors, outputs)


def uniform(anchors: int = 4, outputs: int = 5):
    chain(lambda prompt: Uniform(prompt - 1.0, prompt + 1.0), anchors, outputs)


def seeded(anchors: int = 4, outputs: int = 5):
    pyro.set_rng_seed(0)
    chain(lambda prompt: Normal(prompt, 0.5), anchors, outputs)


def seeded_later(anchors: int = 4, outputs: int = 5):
    def answer(prompt):
        torch.manual_seed(3)
        return Normal(prompt, 0.5)

    chain(answer, anchors, outputs)


COMPILED = torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2))


class Scaled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.scale = torch.nn.Linear(2, 2), torch.ones(2)  # neither buffer nor weight

    def forward(self, value):
        return self.layer(value) * self.scale


SCALED = Scaled()


def compiled(anchors: int = 4, outputs: int = 5):
    chain(lambda prompt: Normal(COMPILED(prompt), 0.5), anchors, outputs)


def cast_inside(anchors: int = 4, outputs: int = 5):
    chain(lambda prompt: Normal(SCALED(prompt.float()), 0.5), anchors, outputs)


def bounded_and_shifted(anchors: int = 4, outputs: int = 5):
    def answer(prompt):
        shift = AffineTransform(prompt, 1.0)
        return TransformedDistribution(Exponential(torch.ones_like(prompt)), [shift])

    chain(answer, anchors, outputs)


def greedy_letters(anchors: int = 4, outputs: int = 5):
    with pyro.plate("anchors", anchors):
        anchor = pyro.sample("anchor", Categorical(torch.ones(1, 3)).to_event(1))
    prompt = pyro.deterministic("prompt", anchor[..., :1, :], event_dim=1)
    with pyro.plate("outputs", outputs):
        likely = 400.0 * torch.nn.functional.one_hot(prompt, 3).double()
        output = pyro.sample("output", Categorical(logits=likely).to_event(1))
        likely = 400.0 * torch.nn.functional.one_hot(output, 3).double()
        pyro.sample("synthetic", Categorical(logits=likely).to_event(1))


BROUGHT = [
    with_network,
    Generator(),
    uniform,
    compiled,
    cast_inside,
    bounded_and_shifted,
    greedy_letters,
]


@pytest.mark.parametrize("model", BROUGHT)
def test_what_people_bring_meets_the_contract(model):
    found = check(model, tries=4)
    assert not found.violated, found.reasons()


def test_the_graph_is_seen_through_a_network():
    found = check(with_network, tries=4)
    assert not [one for one in found.checks if "graph cannot be read" in one.message]


WEIGHTS = torch.ones(2, 2)


def test_weights_of_another_type_are_named():
    def weighted(anchors: int = 4, outputs: int = 5):
        chain(lambda prompt: Normal(prompt @ WEIGHTS, 0.5), anchors, outputs)

    assert "rbpp runs models in float64" in check(weighted, tries=2).reasons()


@pytest.mark.parametrize("library", [np.random, random])
def test_a_seed_of_another_library_is_named(library):
    def model(anchors: int = 4, outputs: int = 5):
        library.seed(3)
        chain(lambda prompt: Normal(prompt + library.uniform(0, 1), 0.5), anchors, outputs)

    assert f"sets the seed of {library.__name__} inside" in check(model, tries=2).reasons()


def test_networks_are_float32_again_and_nothing_is_registered():
    before = [tensor.clone() for tensor in NETWORK.parameters()]
    simulate(with_network, replicates=2)
    for tensor, old in zip(NETWORK.parameters(), before, strict=True):
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, old)
    assert not list(pyro.get_param_store().keys())


def test_recurrent_networks_run_in_double_too():
    with seeded_randomness(0):
        recurrent = torch.nn.GRU(2, 3)
    with in_double(lambda: recurrent(torch.zeros(1, 2))):
        assert recurrent(torch.zeros(1, 2, dtype=torch.float64))[0].dtype == torch.float64
    assert recurrent(torch.zeros(1, 2))[0].dtype == torch.float32
    assert networks(with_network) == [NETWORK]


def test_a_class_in_place_of_an_instance_is_named():
    with pytest.raises(ValueError, match=r"got the class Generator.*Generator\(\)"):
        load_process(Generator)


@pytest.mark.parametrize("model", [seeded, seeded_later])
def test_a_seed_inside_the_model_is_refused(model):
    assert "sets no seed" in check(model, tries=2).reasons()
    for seed in (0, 1):  # the model's own, and another
        with pytest.raises(ValueError, match="that sets no seed"):
            simulate(model, replicates=2, seed=seed)


def test_a_file_may_import_its_neighbour_and_reads_it_anew(tmp_path):
    source = "from neighbour_of_a_process import SHIFT\ndef model(shift: float = SHIFT):\n    ...\n"
    for shift in (0.5, 1.25):
        folder = tmp_path / str(shift)
        folder.mkdir()
        (folder / "neighbour_of_a_process.py").write_text(f"SHIFT = {shift}\n")
        (folder / "process.py").write_text(source)
        assert load_process(folder / "process.py").knobs == {"shift": shift}


def scalar(anchors: int = 4, outputs: int = 5):
    scale = pyro.sample("scale", LogNormal(0.0, 0.3))
    chain(lambda prompt: Normal(prompt, 0.5), anchors, outputs, scale)


def scalar_with_its_dimension(anchors: int = 4, outputs: int = 5):
    scale = pyro.sample("scale", LogNormal(0.0, 0.3))
    chain(lambda prompt: Normal(prompt, 0.5), anchors, outputs, scale[..., None])


def test_a_scalar_against_rows_is_named():
    assert (
        "scale is a scalar: against rows of vectors write scale[..., None]"
        in check(scalar, tries=2).reasons()
    )
    assert not check(scalar_with_its_dimension, tries=2).violated


def test_rows_outside_the_support_have_no_density_and_others_keep_theirs():
    rows = Independent(Uniform(torch.zeros(3, 2), 2.0), 1)
    value = torch.tensor([[0.5, 1.0], [3.0, 1.0], [1.5, 1.5]])
    assert log_prob(rows, value).tolist() == pytest.approx(
        [-2 * math.log(2), -math.inf, -2 * math.log(2)]
    )
    with pytest.raises(ValueError, match="within the support"):  # as before, outside of this
        rows.log_prob(value)
    with pytest.raises(ValueError, match="support"):
        log_prob(rows, value * math.nan)
