from __future__ import annotations

import math

import pytest
import torch

from rbpp.randomness import generator as seeded_generator
from rbpp.theory import network_learner as module
from rbpp.theory.learner_information import learner_information
from rbpp.theory.network_learner import network_learner


def rows(*shape, letters=4):
    return torch.randint(letters, shape, generator=seeded_generator(3))


def test_a_step_follows_the_gradient_of_the_loss():
    data = rows(2, 3, 5, 4)
    counts = module._transitions(data, 4)
    assert counts.shape == (2, 3, 5, 4)
    assert bool((counts.sum((-1, -2)) == 20).all())
    start = torch.randn(2, 3, 27, generator=seeded_generator(1), dtype=torch.float64)
    weights = start.clone().requires_grad_()
    inner, outer = module._parts(weights, 4)
    distribution = (torch.tanh(inner) @ outer).log_softmax(-1)
    loss = -(counts * distribution).sum((-1, -2)) / 20
    (gradient,) = torch.autograd.grad(loss.sum(), weights)
    moved = module._trained(start, counts, 4, 1)
    torch.testing.assert_close(moved, start - module._RATE * gradient)


def test_training_lowers_the_loss_and_losses_are_bounded(margin):
    data = (rows(1, 1, 60, 4) // 2) * 2  # two of four letters
    prepared = network_learner(4, noise=1e-6).prepare(rows(1, 60, 4), seeded_generator(0))
    before = prepared.loss(prepared.fit(rows(1, 1, 60, 4)).draw(seeded_generator(0)), data)
    after = prepared.loss(prepared.fit(data).draw(seeded_generator(0)), data)
    margin(float(before.mean()) - 0.03 - float(after.mean()))
    assert 0 <= float(after.min()) <= float(after.max()) <= 1


def test_without_much_noise_the_weights_tell_the_data_set(margin):
    """Four data sets of one row of two letters, equally likely: I(S; W) → log 4."""
    data = rows(1, 400, 1, 2, letters=2)
    learner = network_learner(2, noise=1e-4)
    learned = learner.prepare(rows(1, 30, 2, letters=2), seeded_generator(0)).fit(data)
    found = learner_information(learned, seeded_generator(2), pairs=400)
    margin(4 - abs(float(found.lower.value) - math.log(4)) / float(found.lower.standard_error))
    margin(float(found.upper.value) - math.log(4) + 0.1)


@pytest.mark.parametrize(("letters", "noise"), [(1, 0.1), (4, 0.0)])
def test_refuses_what_it_cannot_learn(letters, noise):
    with pytest.raises(ValueError, match=r"letters|noise"):
        network_learner(letters, noise)
