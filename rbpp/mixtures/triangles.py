"""Triangles of symmetric matrices: features of rows, their coefficients, and Cholesky factors."""

from __future__ import annotations

from functools import lru_cache, reduce
from typing import NamedTuple

import torch
from torch import Tensor


def features(columns: Tensor) -> Tensor:
    """[x xᵀ (upper triangle), x, 1] of every column: (…, d, n) to (…, P, n)."""
    dimension, count = columns.shape[-2:]
    if columns.requires_grad:  # what follows writes in place
        row, column = torch.triu_indices(dimension, dimension, device=columns.device)
        products = columns[..., row, :] * columns[..., column, :]
        return torch.cat([products, columns, torch.ones_like(columns[..., :1, :])], -2)
    squares = dimension * (dimension + 1) // 2
    result = columns.new_empty(*columns.shape[:-2], squares + dimension + 1, count)
    start = 0
    for row in range(dimension):
        stop = start + dimension - row
        torch.mul(
            columns[..., row : row + 1, :], columns[..., row:, :], out=result[..., start:stop, :]
        )
        start = stop
    result[..., squares:-1, :] = columns
    result[..., -1, :] = 1
    return result


def quadratic_coefficients(precision: Tensor) -> Tensor:
    """What −½ xᵀ A x has in front of the products among the features: (…, d, d) to (…, d(d+1)/2).

    Each product off the diagonal stands once among the features, and twice in the form.
    """
    packing = _triangle(precision.shape[-1], precision.device)
    return precision.flatten(-2).index_select(-1, packing.upper) * packing.factor.to(precision)


def unpacked(packed: Tensor, dimension: int) -> Tensor:
    """Symmetric matrices (…, d, d) from their upper triangles (…, d(d+1)/2)."""
    place = _triangle(dimension, packed.device).place
    return packed.index_select(-1, place).unflatten(-1, (dimension, dimension))


class _Triangle(NamedTuple):
    """Where the upper triangle lies in a flat matrix, that of every entry in it, and its factor."""

    upper: Tensor
    place: Tensor
    factor: Tensor


@lru_cache(maxsize=64)  # small problems would spend their time on it
def _triangle(dimension: int, device: torch.device) -> _Triangle:
    row, column = torch.triu_indices(dimension, dimension, device=device)
    place = torch.empty(dimension, dimension, dtype=torch.long, device=device)
    place[row, column] = place[column, row] = torch.arange(len(row), device=device)
    factor = torch.where(row == column, -0.5, -1.0).double()
    return _Triangle(row * dimension + column, place.flatten(), factor)


def inverse_factor(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Lower triangular L with L Lᵀ = A⁻¹, and of which A (…) that failed, not positive definite."""
    # With P the reversal, chol(P A P) = C gives A = U Uᵀ with U = P C P upper triangular, and then
    # A⁻¹ = U⁻ᵀ U⁻¹ with U⁻ᵀ lower triangular: no explicit inverse of A, so no loss of accuracy.
    factor, failed = torch.linalg.cholesky_ex(matrix.flip(-1, -2))
    upper = factor.flip(-1, -2)
    identity = torch.eye(upper.shape[-1], dtype=upper.dtype, device=upper.device)
    return torch.linalg.solve_triangular(upper.mT, identity.expand_as(upper), upper=False), failed


def log_det(factor: Tensor) -> Tensor:
    """Log determinant of a triangular matrix with a positive diagonal."""
    return short_sum(factor.diagonal(dim1=-2, dim2=-1).log())


def short_sum(values: Tensor) -> Tensor:
    """Sum over the last dimension: one addition an entry where there are few of them.

    A reduction over two entries takes torch twenty times as long as adding two tensors.
    """
    return values.sum(-1) if values.shape[-1] > _SHORT else reduce(torch.add, values.unbind(-1))


_SHORT = 4
