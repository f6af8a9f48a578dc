"""Sufficient statistics of rows under a conjugate mixture: the one pass over the data.

The expected log density of a row is linear in its features [x xᵀ (upper triangle), x, 1], so that
a pass is two matrix products: features × natural parameters gives the log responsibilities,
and responsibilities × features the statistics. Rows come in any chunks: statistics add up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rbpp.elementwise import exp_
from rbpp.mixtures.normal_wishart import Expectations, Parameters
from rbpp.mixtures.triangles import features, quadratic_coefficients, short_sum
from rbpp.threads import Map, block_elements

# Elements of the largest intermediate of a block: it should stay in the second-level cache.
_BLOCK_ELEMENTS = 2**18
# Features are kept between passes up to this many elements, and made anew in each beyond.
_STORED_ELEMENTS = 2**24


@dataclass(frozen=True)
class Statistics:
    """Expected sufficient statistics; those of two sets of rows add up to those of both.

    Attributes:
        moments: (…, K, P), responsibility-weighted sums of the features.
        evidence: (…), Σ_i weight_i log Σ_k exp(expected log density): the ELBO's data term.
        weight: (…), total weight of the rows.
    """

    moments: Tensor
    evidence: Tensor
    weight: Tensor

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(
            self.moments + other.moments,
            self.evidence + other.evidence,
            self.weight + other.weight,
        )

    def to(self, device: torch.device | str) -> Statistics:
        """The same on another device."""
        return Statistics(**{name: value.to(device) for name, value in vars(self).items()})

    def arrays(self) -> dict[str, np.ndarray]:
        """As named arrays, for a checkpoint."""
        return {name: value.cpu().numpy() for name, value in vars(self).items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Statistics:
        """Inverse of `arrays`."""
        return cls(**{name: torch.from_numpy(value) for name, value in arrays.items()})


class Block(NamedTuple):
    """A block of work: positions among the fits, their data sets, and a range of rows."""

    fits: slice
    sets: slice | Tensor
    rows: slice


class Rows:
    """Rows of D data sets, ready for passes: columns (D, d, n), weights (D, n).

    Rows of weight 0 must be finite. With `store` the features are kept from pass to pass where they
    are few.
    """

    def __init__(
        self, columns: Tensor, weights: Tensor | None = None, *, store: bool = True
    ) -> None:
        self.columns, self.weights = columns, weights
        self.sets, self.dimension, self.count = columns.shape
        self.feature_count = self.dimension * (self.dimension + 1) // 2 + self.dimension + 1
        self._stored: Tensor | None = None
        elements = self.sets * self.count * self.feature_count
        if store and elements <= _STORED_ELEMENTS:
            self._stored = features(columns)

    @property
    def weight(self) -> Tensor:
        """Total weight of every data set, (D,) float64."""
        if self.weights is None:
            return self.columns.new_full((self.sets,), self.count, dtype=torch.float64)
        return self.weights.sum(-1, dtype=torch.float64)

    def blocks(self, members: Tensor, components: int, chunk_rows: int | None) -> list[Block]:
        """Cut fits × rows into blocks; `members` (F,) is the data set of every fit, ascending."""
        shared = self.sets == 1
        widest = max(components * (len(members) if shared else 1), self.feature_count)
        block = block_elements(_BLOCK_ELEMENTS, self.columns.device)
        step = min(chunk_rows or max(256, block // widest), self.count)
        fits = len(members) if shared else max(1, block // (widest * step))
        index = range(len(members)) if shared else members.tolist()
        blocks = []
        for first in range(0, len(index), fits):
            own = list(index[first : first + fits])
            chosen: slice | Tensor = members[first : first + fits]
            if shared:
                chosen = slice(0, 1)
            elif own == list(range(own[0], own[0] + len(own))):
                chosen = slice(own[0], own[0] + len(own))  # a view, where the tensor would copy
            blocks += [
                Block(slice(first, first + len(own)), chosen, slice(start, start + step))
                for start in range(0, self.count, step)
            ]
        return blocks

    def read(self, block: Block) -> tuple[Tensor, Tensor | None]:
        """Features and weights of a block: (P, n) with one data set, else (fits, P, n)."""
        if self._stored is not None:
            own = self._stored[block.sets, :, block.rows]
        else:
            own = features(self.columns[block.sets, :, block.rows])
        weights = self.weights
        if weights is not None:
            weights = weights[block.sets, block.rows].unsqueeze(-2)
        return own[0] if self.sets == 1 else own, weights


def natural_parameters(parameters: Parameters, expected: Expectations) -> Tensor:
    """Coefficients (…, K, P) of the features in the expected log density of a row."""
    dimension = parameters.mean.shape[-1]
    precision = expected.inverse_scale * parameters.degrees_of_freedom[..., None, None]
    linear = short_sum(precision * parameters.mean.unsqueeze(-2))
    constant = 0.5 * (
        expected.log_det_precision
        - dimension * math.log(2 * math.pi)
        - dimension / parameters.mean_precision
        - short_sum(linear * parameters.mean)
    )
    quadratic = quadratic_coefficients(precision)
    constant = constant + expected.log_weights
    return torch.cat([quadratic, linear, constant.unsqueeze(-1)], -1)


def statistics(
    rows: Rows,
    natural: Tensor,
    members: Tensor | None = None,
    chunk_rows: int | None = None,
    mapper: Map = map,
) -> Statistics:
    """One pass: expected sufficient statistics of the rows at the given natural parameters.

    Args:
        rows: the rows of D data sets.
        natural: `natural_parameters` (F, K, P) of F fits, in float64.
        members: data set of every fit (F,), ascending; by default fit i belongs to data set i.
        chunk_rows: rows per matrix product; by default what fits the cache.
        mapper: `map`, or one that works on several blocks at once.

    Returns:
        Statistics in float64, whatever the precision of the rows.
    """
    fits, components, width = natural.shape
    if members is None:
        members = torch.arange(fits, device=natural.device)
    moments = natural.new_zeros(fits, components, width, dtype=torch.float64)
    evidence = natural.new_zeros(fits, dtype=torch.float64)
    natural = natural.to(rows.columns.dtype)

    def one_pass(block: Block) -> tuple[slice, Tensor, Tensor]:
        features, weights = rows.read(block)  # of one data set: one product for all the fits
        logits = natural[block.fits] @ features
        found = responsibilities_(logits, weights)
        return block.fits, found, logits @ features.mT

    # Blocks come back in order: sums do not depend on the number of threads.
    for which, found, part in mapper(one_pass, rows.blocks(members, components, chunk_rows)):
        evidence[which] += found
        moments[which] += part
    return Statistics(moments, evidence, rows.weight[members])


def responsibilities_(logits: Tensor, weights: Tensor | None) -> Tensor:
    """Turn log densities (…, K, n) into weighted responsibilities, in place.

    Returns the weighted sum over the rows of log Σ_k exp(logits), (…) in float64.
    """
    top = logits.amax(-2, keepdim=True)
    # Below, they are subnormal: nothing as shares of a row, and slow to add and multiply on some
    # processors.
    least = 0.9 * math.log(torch.finfo(logits.dtype).tiny)
    exp_(logits.sub_(top).clamp_min_(least))
    total = logits.sum(-2, keepdim=True)
    if weights is None:
        logits.mul_(total.reciprocal())
        evidence = top.add_(total.log_())
    else:
        logits.mul_(weights / total)
        evidence = top.add_(total.log_()).mul_(weights)
    return evidence.sum((-2, -1), dtype=torch.float64)
