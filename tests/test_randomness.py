"""Seeds: the same everywhere, and never at the cost of the user's own."""

import random

import numpy as np
import pytest
import torch

from rbpp.randomness import generator, seeded, spawn


def draws():
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()


def test_generator_repeats_itself():
    first, second = (torch.rand(3, generator=generator(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.rand(3, generator=generator(6)))


def test_spawned_seeds_are_stable_and_distinct():
    # The value itself is the promise: the same on every machine and in every process.
    assert spawn(0, "world", 3) == 970256192671352328
    seeds = {spawn(seed, label, k) for seed in range(10) for label in "ab" for k in range(10)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeded_repeats_and_restores():
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    with seeded(1):
        first = draws()
    with seeded(1):
        assert draws() == first
    with seeded(2):
        assert draws() != first
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert before[2] == random.getstate()


def test_seeded_restores_after_an_error():
    before = torch.get_rng_state(), random.getstate()
    with pytest.raises(RuntimeError), seeded(1):
        draws()
        raise RuntimeError
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
