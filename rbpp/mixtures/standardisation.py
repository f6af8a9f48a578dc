"""Rows to mean zero and unit spread, and what was inferred from them back again.

Products of coordinates cancel far from the origin, and gradients want comparable units: every
engine works on standardised rows. The conjugate family is closed under such maps: nothing is lost.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rbpp.mixtures.conjugate import MixturePrior
from rbpp.mixtures.normal_wishart import Draws, Parameters


class Standardisation(NamedTuple):
    """The map x ↦ (x − centre) / spread; both (…, d) in float64."""

    centre: Tensor
    spread: Tensor

    def rows(self, rows: Tensor) -> Tensor:
        """Standardised rows (…, n, d), in float64."""
        return (rows - self.centre.unsqueeze(-2)) / self.spread.unsqueeze(-2)

    def parameters(self, parameters: Parameters) -> Parameters:
        """The law of standardised parameters."""
        factor = self.spread.reciprocal().unsqueeze(-2)
        return parameters.affine(-self.centre.unsqueeze(-2) * factor, factor)

    def parameters_back(self, parameters: Parameters) -> Parameters:
        """Inverse of `parameters`."""
        return parameters.affine(self.centre.unsqueeze(-2), self.spread.unsqueeze(-2))

    def prior(self, prior: MixturePrior) -> MixturePrior:
        """The prior of one data set, standardised, in float64."""
        return MixturePrior(
            prior.concentration.double(),
            (prior.mean.double() - self.centre) / self.spread,
            prior.mean_precision.double(),
            prior.degrees_of_freedom.double(),
            prior.scale.double() / (self.spread.unsqueeze(-1) * self.spread.unsqueeze(-2)),
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

    def select(self, index: Tensor) -> Standardisation:
        """The members of the leading dimension at `index`."""
        return Standardisation(self.centre[index], self.spread[index])


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
    spread = torch.where(spread > 0, spread, torch.ones_like(spread))
    return Standardisation((mean + origin).squeeze(-2), spread.squeeze(-2))
