"""Monotone maps of single coordinates, which leave mutual information as it is.

Normal scores make heavy tails and bounded supports easy for a Gaussian mixture; scores of Student's
t turn the dependence of heavy-tailed rows, the same extreme row in all coordinates, into a single
elliptical distribution. What a map does to the density of held-out rows says whether to use it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.special import ndtri, stdtrit
from scipy.stats import rankdata
from torch import Tensor

from rbpp.mixtures.ascent import Ascent
from rbpp.mixtures.cavi import cavi
from rbpp.mixtures.conjugate import default_prior
from rbpp.paired.joint_mixture import (
    Coordinates,
    PairDensity,
    fold_masks,
    of_own_fold,
    stacking_weights,
)

RAW, NORMAL_SCORES, STUDENT_SCORES = "raw", "normal scores", "t scores"
# Degrees of freedom of the scores of Student's t; beyond the last they are normal scores.
STUDENT_FREEDOMS = (1.0, 2.0, 3.0, 5.0, 8.0, 15.0)
# Components of the one-dimensional mixtures; the wide range serves bounded and bimodal margins.
_MARGIN_COMPONENTS = (1, 3, 9)
_FEW_MARGIN_COMPONENTS = (1, 3)
_MANY_COORDINATES = 12
# Of the fit of a multivariate t.
_ITERATIONS = 30


def uniform_scores(rows: Tensor) -> Tensor:
    """Ranks / (n + 1) of every coordinate of rows (n, d), in (0, 1)."""
    ranks = np.stack([rankdata(column) for column in rows.mT.cpu().numpy()], -1)
    return _like(rows, ranks / (len(ranks) + 1))


def normal_scores(rows: Tensor) -> Tensor:
    """Φ⁻¹ of the uniform scores, (n, d)."""
    return _like(rows, ndtri(uniform_scores(rows).cpu().numpy()))


def student_scores(rows: Tensor, freedom: float) -> Tensor:
    """Quantiles of Student's t at the uniform scores, (n, d)."""
    return _like(rows, stdtrit(freedom, uniform_scores(rows).cpu().numpy()))


def _like(rows: Tensor, values: np.ndarray) -> Tensor:
    return torch.as_tensor(values, dtype=rows.dtype, device=rows.device)


def normal_log_density(values: Tensor) -> Tensor:
    """Standard normal log density, elementwise."""
    return -0.5 * values.square() - 0.5 * math.log(2 * math.pi)


def margin_log_density(rows: Tensor, fold: Tensor, generator: torch.Generator) -> Tensor:
    """Log density of every coordinate at held-out rows, (n, d) nats.

    One-dimensional mixtures of the coordinate and of its asinh at the scale of its quartiles,
    stacked by the held-out density itself.

    Args:
        rows: (n, d).
        fold: (n,) the fold that a row belongs to.
        generator: of the starts.
    """
    quartile = torch.quantile(
        rows, torch.tensor([0.25, 0.5, 0.75], dtype=rows.dtype, device=rows.device), dim=0
    )
    spread = (quartile[2] - quartile[0]).clamp_min(1e-12 * (1 + rows.abs().amax(0)))
    centred = (rows - quartile[1]) / spread
    tamed, slope = torch.asinh(centred), -0.5 * torch.log1p(centred.square()) - spread.log()
    masks = fold_masks(fold)
    counts = _MARGIN_COMPONENTS if rows.shape[-1] <= _MANY_COORDINATES else _FEW_MARGIN_COMPONENTS
    found = []
    for values, jacobian in ((rows, torch.zeros_like(rows)), (tamed, slope)):
        data = values.mT[:, None, :, None].expand(-1, len(masks), -1, 1)
        for components in counts:
            fits = cavi(
                data,
                default_prior(data, components, sample_weights=masks),
                components,
                sample_weights=masks.expand(len(data), -1, -1),
                generator=generator,
                ascent=Ascent(tolerance=1e-4, max_iterations=20),
            ).best()
            density = fits.expected().log_prob_rows(data)  # (d, folds, n)
            found.append(of_own_fold(density.movedim(0, -1), fold) + jacobian)
    stacked = torch.stack(found)  # (candidates, n, d)
    averaged = [
        (stacking_weights(column).log()[:, None] + column).logsumexp(0)
        for column in stacked.unbind(-1)
    ]
    return torch.stack(averaged, -1)


def student_pair_density(values: Tensor, dim_x: int, fold: Tensor, freedom: float) -> PairDensity:
    """A multivariate t of scores (n, d) of the same t: margins and joint are of one family.

    Args:
        values: `student_scores(rows, freedom)`.
        dim_x: dimension of X.
        fold: (n,) the fold that a row belongs to.
        freedom: degrees of freedom.
    """
    parts = slice(0, dim_x), slice(dim_x, values.shape[-1])
    scale = fit_student(values, freedom)

    def densities(at: Tensor, scale: Tensor) -> Tensor:
        whole = student_log_density(at, scale, freedom)
        sides = [student_log_density(at[:, p], scale[p, p], freedom) for p in parts]
        return torch.stack([whole, *sides])

    held_out = values.new_empty(3, len(values))
    for index in range(int(fold.max()) + 1):
        left_out = fold == index
        apart = fit_student(values[~left_out], freedom, start=scale)
        held_out[:, left_out] = densities(values[left_out], apart)
    one = values.new_ones(1, 1)
    margin = student_log_density(values.mT.unsqueeze(-1), one, freedom).sum(0)
    own = Coordinates(f"{STUDENT_SCORES}, {freedom:g} degrees", values, fold, margin)
    return PairDensity(own, 1, densities(values, scale), held_out)


def fit_student(values: Tensor, freedom: float, start: Tensor | None = None) -> Tensor:
    """Maximum-likelihood scale matrix (d, d) of a centred multivariate t from rows (n, d)."""
    dimension = values.shape[-1]
    scale = values.new_ones(dimension).diag() if start is None else start
    for _ in range(_ITERATIONS):
        weight = (freedom + dimension) / (freedom + _squared_length(values, scale))
        new = (values.mT * weight) @ values / len(values)
        moved = (new - scale).abs().max() / new.abs().max()
        scale = new
        if moved < 1e-3:
            break
    return scale


def student_log_density(values: Tensor, scale: Tensor, freedom: float) -> Tensor:
    """Log density (…, n) of rows (…, n, d) under the centred multivariate t of scale (d, d)."""
    dimension = values.shape[-1]
    half = (freedom + dimension) / 2
    log_det = torch.linalg.cholesky(scale).diagonal().log().sum()
    constant = math.lgamma(half) - math.lgamma(freedom / 2) - log_det
    constant = constant - dimension / 2 * math.log(freedom * math.pi)
    return constant - half * torch.log1p(_squared_length(values, scale) / freedom)


def _squared_length(values: Tensor, scale: Tensor) -> Tensor:
    factor = torch.linalg.cholesky(scale)
    return torch.linalg.solve_triangular(factor, values.mT, upper=False).square().sum(-2)
