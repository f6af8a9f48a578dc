"""Units in which every engine works: rows centred, scaled, and widened where they are thin."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from rbpp.mixtures.normal_wishart import Draws, Parameters


class Standardisation(NamedTuple):
    """The map x ↦ A (x − centre) / spread; centre, spread (…, d), A (…, d, d) in float64.

    Products of coordinates cancel far from the origin, and gradients want comparable units: every
    engine works on standardised rows. The conjugate family is closed under such maps. Without
    `axes` A is the identity; `whitened` sets it.
    """

    centre: Tensor
    spread: Tensor
    axes: Tensor | None = None

    def rows(self, rows: Tensor) -> Tensor:
        """Standardised rows (…, n, d), in float64."""
        found = (rows - self.centre.unsqueeze(-2)) / self.spread.unsqueeze(-2)
        return found if self.axes is None else found @ self.axes.mT

    def parameters(self, parameters: Parameters) -> Parameters:
        """The distribution of the standardised mixture."""
        factor = self.spread.reciprocal().unsqueeze(-2)
        found = parameters.affine(-self.centre.unsqueeze(-2) * factor, factor)
        return found if self.axes is None else found.rotated(self.axes)

    def parameters_back(self, parameters: Parameters) -> Parameters:
        """Inverse of `parameters`."""
        if self.axes is not None:
            parameters = parameters.rotated(torch.linalg.inv(self.axes))
        return parameters.affine(self.centre.unsqueeze(-2), self.spread.unsqueeze(-2))

    def log_det(self) -> Tensor:
        """Log of the factor (…) by which the inverse map stretches volume."""
        found = self.spread.log().sum(-1)
        return found if self.axes is None else found - torch.linalg.slogdet(self.axes)[1]

    def draws(self, draws: Draws) -> Draws:
        """Draws of mixtures of rows as mixtures of standardised rows, without `axes`."""
        return Draws(
            draws.weights,
            (draws.means - self.centre) / self.spread,
            draws.precision_cholesky * self.spread.unsqueeze(-1),
        )

    def draws_back(self, draws: Draws) -> Draws:
        """Draws of standardised mixtures (…, K, d) as mixtures of the rows themselves."""
        return Draws(
            draws.weights,
            draws.means * self.spread + self.centre,
            draws.precision_cholesky / self.spread.unsqueeze(-1),
        )

    def log_jacobian(self, components: int) -> Tensor:
        """What `draws_back` takes from the log density of a draw: log |∂ draws_back / ∂ draws|."""
        index = torch.arange(self.spread.shape[-1], device=self.spread.device)
        # A mean has one entry per coordinate, row i of the factor has i + 1, which shrink.
        return -components * (index * self.spread.log()).sum(-1)

    def map(self, function: Callable[[Tensor], Tensor]) -> Standardisation:
        """The same function applied to centre, spread and axes: to select, or to move them."""
        axes = None if self.axes is None else function(self.axes)
        return Standardisation(function(self.centre), function(self.spread), axes)

    def whitened(self, rows: Tensor, weights: Tensor | None = None) -> Standardisation:
        """This map, with A the inverse Cholesky factor of the correlations where these are thin.

        In a direction a thousandth of the others' width, products of coordinates cancel.

        Args:
            rows: as for `standardisation`.
            weights: of the rows.
        """
        dimension = rows.shape[-1]
        if dimension == 1:
            return self
        standard = self.rows(rows)
        share = torch.full_like(standard[..., 0], 1 / rows.shape[-2])
        if weights is not None:
            share = weights.double() / weights.sum(-1, keepdim=True, dtype=torch.float64)
            standard = torch.where(share.unsqueeze(-1) > 0, standard, 0.0)
        correlation = (standard * share.unsqueeze(-1)).mT @ standard
        smallest = torch.linalg.eigvalsh(correlation)[..., 0]
        # Where no direction is left at all, fewer rows than dimensions, there is none to widen.
        thin = (smallest < _THIN) & (smallest > _FLAT)
        if not bool(thin.any()):
            return self
        identity = torch.eye(dimension).to(correlation).expand_as(correlation)
        matrix = torch.where(thin[..., None, None], correlation, identity)
        factor = torch.linalg.cholesky(matrix)
        return self._replace(axes=torch.linalg.solve_triangular(factor, identity, upper=False))


# Smallest eigenvalues of correlations: of rows with a thin direction, and of one that is rounding.
_THIN, _FLAT = 1e-5, 1e-14


def standardisation(rows: Tensor, weights: Tensor | None = None) -> Standardisation:
    """Mean and standard deviation of every coordinate of rows (…, n, d) with weights (…, n).

    A coordinate that does not vary keeps its unit. Rows of weight zero may hold anything.
    """
    if weights is None:
        origin = rows[..., :1, :]
        centred = rows - origin
        mean = centred.mean(-2, keepdim=True, dtype=torch.float64)
        variance = (centred - mean).square().mean(-2, keepdim=True)
    else:
        weight = weights.unsqueeze(-1).double()
        share = weight / weight.sum(-2, keepdim=True)
        first = weight.argmax(-2, keepdim=True)
        origin = rows.gather(-2, first.expand(*rows.shape[:-2], 1, rows.shape[-1]))
        centred = torch.where(weight > 0, rows - origin, 0.0)
        mean = (centred * share).sum(-2, keepdim=True)
        variance = ((centred - mean).square() * share).sum(-2, keepdim=True)
    spread = variance.sqrt()
    spread = torch.where(spread > 0, spread, 1.0)
    return Standardisation((mean + origin).squeeze(-2), spread.squeeze(-2))
