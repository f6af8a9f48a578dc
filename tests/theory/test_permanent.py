"""Log permanents against the sum over permutations."""

import math
from itertools import permutations

import pytest
import torch

from rbpp.randomness import generator
from rbpp.theory import permanent


def brute_force(matrix):
    size = matrix.shape[-1]
    rows = torch.arange(size)
    return torch.stack(
        [matrix[..., rows, torch.tensor(order)].sum(-1) for order in permutations(range(size))], -1
    ).logsumexp(-1)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("spread", [0.1, 30.0])
def test_subsets_sum_over_all_permutations(size, spread):
    matrix = spread * torch.randn(3, size, size, generator=generator(size), dtype=torch.float64)
    low, high = permanent.log_permanent(matrix)
    torch.testing.assert_close(low, brute_force(matrix))
    assert torch.equal(low, high)


def test_zeros_stay_zeros():
    matrix = torch.tensor([[0.0, -math.inf], [-math.inf, 0.0]])
    assert float(permanent.log_permanent(matrix)[0]) == 0
    impossible = torch.tensor([[-math.inf, -math.inf], [0.0, 0.0]])
    assert float(permanent.log_permanent(impossible)[0]) == -math.inf


@pytest.mark.parametrize("spread", [0.1, 3.0, 30.0])
def test_bounds_beyond_the_exact_size_enclose_the_exact_value(monkeypatch, spread):
    matrix = spread * torch.randn(50, 6, 6, generator=generator(0), dtype=torch.float64)
    exact, _ = permanent.log_permanent(matrix)
    monkeypatch.setattr(permanent, "EXACT_COMPONENTS", 3)
    low, high = permanent.log_permanent(matrix)
    assert bool((low <= exact + 1e-9).all())
    assert bool((exact <= high + 1e-9).all())
    assert not torch.equal(low, high)


def test_well_separated_components_are_tight_without_enumeration():
    matrix = torch.full((15, 15), -50.0, dtype=torch.float64).fill_diagonal_(0.0)
    low, high = permanent.log_permanent(matrix)
    assert float(high - low) < 1e-9


@pytest.mark.parametrize("shape", [(3,), (2, 3), (0, 0)])
def test_refuses_what_has_no_permanent(shape):
    with pytest.raises(ValueError, match="square"):
        permanent.log_permanent(torch.zeros(shape))
