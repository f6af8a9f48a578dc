"""What the class of models misses of two columns, by nearest neighbours, which know no model."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.special import digamma
from torch import Tensor

from rbpp.estimate import Estimate
from rbpp.paired.joint_mixture import PairDensity
from rbpp.paired.margins import NORMAL_SCORES, RAW, normal_log_density, normal_scores
from rbpp.randomness import generator, spawn

_NEIGHBOURS = 5
_BIAS_ROWS = 20_000  # that are simulated for the bias of neighbours


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
    values, density = chosen.own.rows, chosen.held_out[0]
    if chosen.own.margins not in (RAW, NORMAL_SCORES):  # t: in normal scores like the others
        values = normal_scores(rows)
        density = density - chosen.own.log_density + normal_log_density(values).sum(-1)
    # Balls of neighbours are round: in directions of one width.
    centred = (values - values.mean(0)).cpu()
    factor = torch.linalg.cholesky(centred.mT @ centred / len(values))
    round_rows = torch.linalg.solve_triangular(factor, centred.mT, upper=False).mT
    log_det = factor.diagonal().log().sum()
    return density.cpu(), neighbour_log_density(round_rows) - log_det


def neighbour_log_density(rows: Tensor) -> Tensor:
    """Log density of every row by its k-th nearest neighbour, (n,); its mean estimates −h.

    Kozachenko and Leonenko, Sample estimate of the entropy of a random vector, Problems of
    Information Transmission 23 (1987).
    """
    count, dimension = rows.shape
    points = rows.cpu().numpy()
    distance = cKDTree(points).query(points, _NEIGHBOURS + 1)[0][:, -1]
    log_ball = dimension / 2 * math.log(math.pi) - math.lgamma(dimension / 2 + 1)
    constant = digamma(_NEIGHBOURS) - math.log(count - 1) - log_ball
    return constant - dimension * torch.as_tensor(distance).log()


def neighbour_information(rows: Tensor) -> float:
    """I(X; Y) in nats of rows (n, 2) by the k nearest neighbours in the maximum norm.

    ψ(k) + ψ(n) − mean ψ(n_x + 1) + ψ(n_y + 1), with n_x and n_y the rows nearer than the k-th
    neighbour in one coordinate.

    Kraskov, Stögbauer and Grassberger, Estimating mutual information, Physical Review E 69 (2004).
    """
    points = rows.cpu().numpy()
    distance = cKDTree(points).query(points, _NEIGHBOURS + 1, p=np.inf)[0][:, -1]
    found = digamma(_NEIGHBOURS) + digamma(len(points))
    for column in points.T:
        ordered = np.sort(column)
        last = np.searchsorted(ordered, column + distance, side="left")
        near = last - np.searchsorted(ordered, column - distance, side="right")
        found -= digamma(np.maximum(near, 1)).mean()  # the row itself is among them
    return float(found)


def neighbour_bias(count: int, dimension: int) -> float:
    """By how much `neighbour_log_density` is too large on average for normal rows, in nats a row.

    Balls reach into places of lower density: in three dimensions and 600 rows that is 0.1 nats,
    many standard errors of the mean. It is the average over simulated rows of known density.

    Args:
        count: rows n.
        dimension: d.
    """
    source = generator(spawn(0, "neighbour bias", count, dimension))
    simulated = max(2, min(16, _BIAS_ROWS // count))
    found = []
    for _ in range(simulated):
        rows = torch.randn(count, dimension, generator=source, dtype=torch.float64)
        exact = -0.5 * (rows.square() + math.log(2 * math.pi)).sum(-1)
        found.append(float((neighbour_log_density(rows) - exact).mean()))
    return sum(found) / simulated
