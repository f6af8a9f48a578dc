"""The reference script's estimator of Section 4.4, two histograms on two grids, for comparison."""

from __future__ import annotations

import torch
from torch import Tensor

from rbpp.estimate import Estimate
from rbpp.mixtures.mixture import GaussianMixture
from rbpp.randomness import generator as new_generator

_BINS, _POINTS, _FLOOR = 50, 1000, 1e-10


def histogram_divergence(
    p: GaussianMixture,
    q: GaussianMixture,
    *,
    redraws: int = 100,
    seed: int = 0,
    generator: torch.Generator | None = None,
) -> Estimate:
    """The reference script's stand-in for D_KL(p ‖ q): two histograms on two grids.

    It draws 1,000 points from each, bins the first two dimensions into 50 × 50 cells that span each
    sample on its own, adds a floor to the densities, and compares cells of equal index. As those
    are different regions, this is no divergence: of a distribution against itself it gives about
    7 nats. It is here so that the published figure can be compared, and for nothing else.

    Args:
        p, q: mixtures of two or more dimensions whose batch shapes broadcast.
        redraws: repetitions to average.
        seed, generator: of the draws; a generator goes before the seed.
    """
    if p.dimension < 2:
        raise ValueError(f"Expected rows of two or more dimensions; got {p.dimension}")
    generator = new_generator(seed) if generator is None else generator
    values = []
    for _ in range(redraws):
        histograms = [
            _histogram(mixture.sample((_POINTS,), generator=generator)[..., :2])
            for mixture in (p, q)
        ]
        values.append((histograms[0] * (histograms[0] / histograms[1]).log()).sum(-1))
    stacked = torch.stack(values)
    error = stacked.std(0) / redraws**0.5 if redraws > 1 else torch.full_like(stacked[0], torch.nan)
    return Estimate(stacked.mean(0), error, redraws)


def _histogram(points: Tensor) -> Tensor:
    """Normalised 50 × 50 histogram of (n, …, 2) over the range of each sample: (…, 2500)."""
    rows = points.movedim(0, -2)
    low, high = rows.amin(-2, keepdim=True), rows.amax(-2, keepdim=True)
    cell = ((rows - low) / (high - low) * _BINS).long().clamp(0, _BINS - 1)
    index = cell[..., 0] * _BINS + cell[..., 1]
    counts = rows.new_zeros(*index.shape[:-1], _BINS**2)
    counts.scatter_add_(-1, index, torch.ones_like(rows[..., 0]))
    area = ((high - low) / _BINS).prod(-1)
    density = counts / _POINTS / area + _FLOOR
    return density / density.sum(-1, keepdim=True)
