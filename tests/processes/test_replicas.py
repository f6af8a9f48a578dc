"""Processes in fixed worlds: parts held fixed, densities of pairs, agreement of two estimators."""

import math

import pytest
import torch

from rbpp.compute import Compute
from rbpp.paired.mutual_information import mutual_information
from rbpp.processes import density
from rbpp.processes import replicas as module
from rbpp.processes.process import load_process
from rbpp.processes.replicas import Replicas
from rbpp.theory.information import contrastive_bounds
from tests import processes_by_users as processes


def test_sites_are_described_as_they_are():
    sites = Replicas(load_process("finite_alphabet")).sites
    assert sites["output"].letters == 3
    assert sites["output"].discrete
    assert not sites["prompt"].random
    gaussian = Replicas(load_process("gaussian_mixture")).sites
    assert (gaussian["anchor"].rows, gaussian["anchor"].coordinates) == (100, 200)
    assert gaussian["anchor"].letters is None
    assert not gaussian["synthetic"].random


def test_held_parts_stay_and_the_rest_is_drawn_again():
    replicas = Replicas(processes.recipe, worlds=2)
    first = replicas.draw(3, "a")
    held = replicas.draw(3, "b", given={"prompt": first["prompt"]})
    assert torch.equal(held["prompt"], first["prompt"])
    assert not torch.equal(held["output"], first["output"])
    again = replicas.draw(3, "a")
    assert torch.equal(again["output"], first["output"])
    assert first["anchor"].shape == (2, 3, 1, 6, 2)
    assert replicas.rows(first, "synthetic").shape == (2, 3, 8, 2)
    assert replicas.rows(first, "prompt").shape == (2, 3, 1, 2)  # without a plate: one row
    other = Replicas(processes.recipe, worlds=2, compute=Compute(seed=1)).draw(3, "a")
    assert not torch.equal(other["output"], first["output"])


@pytest.mark.parametrize("name", ["gaussian_mixture", "linear_gaussian", "finite_alphabet"])
def test_pairs_are_the_densities_of_one_under_the_other(name):
    replicas = Replicas(load_process(name), worlds=2)
    values = replicas.draw(4, "test")
    matrix = replicas.pairs(values, "output", {"prompt": values["prompt"]})
    assert matrix.shape == (2, 4, 4)
    for i in range(4):
        for j in range(4):
            mixed = {
                key: value[:, j : j + 1] if key == "prompt" else value[:, i : i + 1]
                for key, value in values.items()
            }
            expected = replicas.log_density(mixed, "output").squeeze(1)
            torch.testing.assert_close(matrix[:, i, j], expected)
    rows = replicas.pairs(values, "output", {"prompt": values["prompt"]}, per_row=True)
    torch.testing.assert_close(rows.sum(-1), matrix)


def test_passes_split_without_a_trace(monkeypatch):
    replicas = Replicas(processes.recipe, worlds=2)
    values = replicas.draw(5, "test")
    whole = replicas.pairs(values, "output", {"prompt": values["prompt"]})
    monkeypatch.setattr(module, "_PASS_ELEMENTS", 1)
    torch.testing.assert_close(
        replicas.pairs(values, "output", {"prompt": values["prompt"]}), whole
    )


def test_one_product_gives_the_density_that_pyro_gives(monkeypatch):
    replicas = Replicas(load_process("gaussian_mixture", outputs=20), worlds=2)
    values = replicas.draw(5, "test")
    fast = replicas.pairs(values, "output", {"prompt": values["prompt"]})
    monkeypatch.setattr(density, "_mixture_of_pairs", lambda distribution, value: None)
    slow = replicas.pairs(values, "output", {"prompt": values["prompt"]})
    torch.testing.assert_close(fast, slow)


def test_a_deterministic_site_is_certain_or_impossible():
    replicas = Replicas(load_process("finite_alphabet"), worlds=1)
    values = replicas.draw(2, "test")
    assert float(replicas.log_density(values, "prompt").abs().max()) == 0
    wrong = {**values, "prompt": (values["prompt"] + 1) % 3}
    assert bool((replicas.log_density(wrong, "prompt") == -math.inf).all())


def test_sandwich_and_joint_mixture_agree_on_gaussian_mixture(margin):
    """With one component, mean and spread of the rows are all that prompt and output share."""
    process = load_process(
        "gaussian_mixture",
        anchor_components=1,
        unsampled_components=0,
        irrelevant_components=0,
        anchors_per_component=8,
        outputs=4,
        dimension=1,
    )
    replicas = Replicas(process)
    values = replicas.draw(1500, "test")
    few = {name: value[:, :500] for name, value in values.items()}
    lower, upper = contrastive_bounds(replicas.pairs(few, "output", {"prompt": few["prompt"]}))

    def summary(name):
        rows = replicas.rows(values, "anchor" if name == "prompt" else name)[0, ..., 0]
        return torch.stack([rows.mean(-1), rows.std(-1).log()], -1)

    joint = mutual_information(summary("prompt"), summary("output"), draws=200)
    error = math.hypot(float(lower.standard_error), float(joint.draws.std()))
    middle = float(lower.value + upper.value) / 2
    assert float(upper.value - lower.value) < 0.05
    margin(4 * error - abs(middle - joint.mean))


def test_worlds_must_be_counted_from_one():
    with pytest.raises(ValueError, match="worlds to be a whole number of 1 or more"):
        Replicas(processes.recipe, worlds=0)
