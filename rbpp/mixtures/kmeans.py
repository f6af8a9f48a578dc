"""Warm starts for mixtures: k-means++ centres and a few Lloyd passes, batched over fits.

Mixture posteriors have poor local optima, and a random start finds them; this one seldom does.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rbpp.mixtures.sufficient import Rows
from rbpp.threads import Map, block_elements

# The seeding sees at most this many rows of a data set: more do not change which clumps there are.
SEEDING_ROWS = 20_000
LLOYD_PASSES = 6


def kmeans_centres(
    rows: Rows,
    members: Tensor,
    components: int,
    generator: torch.Generator,
    mapper: Map = map,
) -> Tensor:
    """Centres (F, d, K) of F fits, by k-means++ and Lloyd passes.

    Args:
        rows: of D data sets, in comparable units.
        members: data set of every fit, (F,).
        components: K.
        generator: source of the choices, so that restarts differ.
        mapper: `map`, or one that works on several blocks of fits at once.
    """
    columns, weights = _subsample(rows, generator)
    _, dimension, count = columns.shape
    candidates = 2 + int(math.log(components))
    uniform = _uniform((components, len(members), candidates), generator, columns)
    centres = columns.new_empty(len(members), dimension, components)
    elements = block_elements(2**18, columns.device)
    block = max(1, elements // (count * max(dimension, components)))

    def one_block(which: slice) -> tuple[slice, Tensor]:
        own = columns[members[which]]
        weight = None if weights is None else weights[members[which]]
        return which, _lloyd(own, weight, _plus_plus(own, weight, uniform[:, which]))

    parts = [slice(first, first + block) for first in range(0, len(members), block)]
    for which, found in mapper(one_block, parts):
        centres[which] = found
    return centres


def _uniform(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    drawn = torch.rand(shape, generator=generator, dtype=torch.float64, device=generator.device)
    return drawn.to(like.device)


def _subsample(rows: Rows, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
    if rows.count <= SEEDING_ROWS:
        return rows.columns, rows.weights
    uniform = _uniform((rows.sets, SEEDING_ROWS), generator, rows.columns)
    if rows.weights is None:
        index = (uniform * rows.count).long().clamp_max(rows.count - 1)
    else:
        index = _pick(rows.weights, uniform)
    return rows.columns.gather(-1, index.unsqueeze(-2).expand(-1, rows.dimension, -1)), None


def _plus_plus(columns: Tensor, weights: Tensor | None, uniform: Tensor) -> Tensor:
    """Rows drawn in turn with odds of their squared distance to those drawn before.

    Of the candidates at every turn, uniform (K, F, candidates), the one that leaves the least total
    distance is taken: greedy k-means++.
    """
    fits, dimension, count = columns.shape
    odds = columns.new_ones(fits, count) if weights is None else weights
    chosen = []
    distance: Tensor | None = None
    for draw in uniform:
        index = _pick(odds, draw)
        candidates = columns.gather(-1, index.unsqueeze(-2).expand(-1, dimension, -1))
        apart = (columns[:, None, 0] - candidates[:, 0, :, None]).square_()
        for axis in range(1, dimension):
            apart += (columns[:, None, axis] - candidates[:, axis, :, None]).square_()
        if distance is not None:
            apart = torch.minimum(apart, distance.unsqueeze(-2))
        left = apart if weights is None else apart * weights.unsqueeze(-2)
        best = left.sum(-1).argmin(-1)[:, None, None]
        distance = apart.gather(-2, best.expand(-1, 1, count)).squeeze(-2)
        odds = distance if weights is None else distance * weights
        chosen.append(candidates.gather(-1, best.expand(-1, dimension, 1)))
    return torch.cat(chosen, -1)


def _pick(odds: Tensor, uniform: Tensor) -> Tensor:
    """Index of the row at which the cumulative odds pass the uniforms: (F, draws)."""
    cumulative = odds.cumsum(-1, dtype=torch.float64)
    left = cumulative[:, -1:] > 0
    if not bool(left.all()):  # fewer distinct rows than components: every row is as good
        flat = torch.arange(1, odds.shape[-1] + 1, dtype=torch.float64, device=odds.device)
        cumulative = torch.where(left, cumulative, flat)
    index = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
    return index.clamp_max(odds.shape[-1] - 1)


def _lloyd(columns: Tensor, weights: Tensor | None, centres: Tensor) -> Tensor:
    for _ in range(LLOYD_PASSES):
        # Half the squared distance, less what is the same for every centre.
        distance = torch.baddbmm(
            0.5 * centres.square().sum(-2).unsqueeze(-1), centres.mT, columns, alpha=-1
        )
        # A row that is as near to two centres counts for both: a start need not be exact.
        assigned = distance.eq_(distance.amin(-2, keepdim=True))
        if weights is not None:
            assigned *= weights.unsqueeze(-2)
        mass = assigned.sum(-1).unsqueeze(-2)
        mean = (columns @ assigned.mT) / mass.clamp_min(torch.finfo(mass.dtype).tiny)
        centres = torch.where(mass > 0, mean, centres)
    return centres
