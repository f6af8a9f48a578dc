"""What the class of models misses of two columns, by nearest neighbours, which know no model."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from rbpp.estimate import Estimate
from rbpp.paired.candidates import coordinates
from rbpp.paired.joint_mixture import PairDensity, neighbour_log_density
from rbpp.paired.margins import NORMAL_SCORES, RAW, normal_log_density
from rbpp.randomness import generator


def with_misfit(
    drawn: Estimate, by_neighbours: float, held_out: float, excess: Estimate, seed: int
) -> Estimate:
    """Draws that know what structure the class of models may miss.

    Neighbours know no model: where they find more information than held-out rows do, e nats, it may
    be larger by twice as much or none, and the shift is normal with mean e / 2 and spread e. In so
    far as neighbours also see a density that the model misses: e is theirs times the probability
    that this excess is none of chance.

    Args:
        drawn: of the models.
        by_neighbours, held_out: information in nats.
        excess: of the neighbours' density over the model's, nats a row.
        seed: of the shifts.
    """
    seen = torch.special.ndtr(excess.value / excess.standard_error)
    size = seen * max(0.0, by_neighbours - held_out)
    noise = torch.randn(drawn.value.shape, generator=generator(seed), dtype=drawn.value.dtype)
    return replace(drawn, value=(drawn.value + size * (0.5 + noise)).clamp_min(0))


def log_densities(rows: Tensor, chosen: PairDensity) -> tuple[Tensor, Tensor]:
    """Log density per held-out row under the chosen model, and by nearest neighbours."""
    values = coordinates(rows, chosen.margins)
    density = chosen.held_out[0]
    if chosen.margins not in (RAW, NORMAL_SCORES):  # scores of t: in normal scores like the others
        density = density - chosen.margin_log_density + normal_log_density(values).sum(-1)
    # Balls of neighbours are round: in directions of one width.
    centred = (values - values.mean(0)).cpu()
    factor = torch.linalg.cholesky(centred.mT @ centred / len(values))
    round_rows = torch.linalg.solve_triangular(factor, centred.mT, upper=False).mT
    log_det = factor.diagonal().log().sum()
    return density.cpu(), neighbour_log_density(round_rows) - log_det
