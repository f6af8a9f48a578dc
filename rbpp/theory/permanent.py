"""Log permanents: densities of mixtures whose components have no order.

If q factorises over components, the density of an unordered mixture is Σ_σ Π_k q_σ(k)(W_k), up to a
constant: a permanent. All its terms are positive, so that nothing cancels in its logarithm.
"""

from __future__ import annotations

import functools
import math
from itertools import combinations

import torch
from torch import Tensor

# 2^K sums per matrix: 10 components cost a thousand, 15 would cost thirty thousand.
EXACT_COMPONENTS = 10
_NEGLIGIBLE = 1e-9  # nats: below it all other permutations together are left out


def log_permanent(log_matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Lower and upper bound of log Σ_σ exp Σ_k c[k, σ(k)], equal where it is exact.

    Up to `EXACT_COMPONENTS` by dynamic programming over subsets of columns, K 2^(K−1) sums. Beyond,
    from below by the better of a greedy permutation and the identity, from above by rows and
    columns: log perm ≤ Σ_k log Σ_l exp c[k, l]. Both are tight where components are well apart.

    Args:
        log_matrix: c (…, K, K); −∞ is a zero.

    Raises:
        ValueError: if the matrix is not square.

    >>> low, high = log_permanent(torch.zeros(3, 3))
    >>> low.exp().item(), high.exp().item()  # 3! permutations
    (6.0..., 6.0...)
    """
    size = log_matrix.shape[-1]
    if log_matrix.dim() < 2 or log_matrix.shape[-2] != size or size == 0:
        raise ValueError(f"Expected square matrices (…, K, K); got shape {tuple(log_matrix.shape)}")
    if size > EXACT_COMPONENTS:
        return _greedy(log_matrix), _by_sums(log_matrix)
    flat = log_matrix.reshape(-1, size, size)
    value = flat.diagonal(dim1=-2, dim2=-1).sum(-1)
    # For matched, well separated components one permutation has nearly all: that is cheap to see.
    open_ = ~(_by_sums(flat) - value <= _NEGLIGIBLE)
    if bool(open_.any()):
        value = value.masked_scatter(open_, _by_subsets(flat[open_]))
    value = value.reshape(log_matrix.shape[:-2])
    return value, value


def _by_subsets(log_matrix: Tensor) -> Tensor:
    """Row by row; the state is the set of columns taken so far."""
    size = log_matrix.shape[-1]
    state = log_matrix[..., 0, :]  # columns taken by the first row, in order of single-bit masks
    for row, (before, column) in enumerate(_transitions(size), start=1):
        before, column = before.to(log_matrix.device), column.to(log_matrix.device)
        state = (state[..., before] + log_matrix[..., row, column]).logsumexp(-1)
    return state.squeeze(-1)


@functools.lru_cache(maxsize=32)
def _transitions(size: int) -> list[tuple[Tensor, Tensor]]:
    """Per row after the first: for every subset, the subset before it and the column taken."""
    steps = []
    previous: dict[tuple[int, ...], int] = {(column,): column for column in range(size)}
    for count in range(2, size + 1):
        subsets = list(combinations(range(size), count))
        before = [[previous[s[:i] + s[i + 1 :]] for i in range(count)] for s in subsets]
        steps.append((torch.tensor(before), torch.tensor(subsets)))
        previous = {subset: index for index, subset in enumerate(subsets)}
    return steps


def _greedy(log_matrix: Tensor) -> Tensor:
    """One good permutation: the largest entry, then the largest of what is left, and so on."""
    size = log_matrix.shape[-1]
    left = log_matrix.flatten(-2).clone()
    total = left.new_zeros(left.shape[:-1])
    positions = torch.arange(size * size, device=left.device)
    for _ in range(size):
        top, index = left.max(-1)
        total = total + top
        taken = (positions // size == (index // size).unsqueeze(-1)) | (
            positions % size == (index % size).unsqueeze(-1)
        )
        left = left.masked_fill(taken, -math.inf)
    identity = log_matrix.diagonal(dim1=-2, dim2=-1).sum(-1)
    return torch.maximum(total, identity)


def _by_sums(log_matrix: Tensor) -> Tensor:
    """Every permutation is among the products of one entry per row, and of one per column."""
    rows, columns = log_matrix.logsumexp(-1).sum(-1), log_matrix.logsumexp(-2).sum(-1)
    return torch.minimum(rows, columns)
