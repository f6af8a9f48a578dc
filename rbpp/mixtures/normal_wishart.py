"""The conjugate family of Gaussian mixtures: Dirichlet weights × normal-Wishart components.

    w ~ Dirichlet(α),   Λ_k ~ Wishart(ν_k, Ψ_k⁻¹),   μ_k | Λ_k ~ N(m_k, (κ_k Λ_k)⁻¹)

Ψ is in units of a sum of squares: Ψ / (ν − d − 1) is the mean of the covariance Λ⁻¹. Draws,
densities, expectations and divergence here are functions of `Parameters` with any leading
dimensions; `conjugate` has what users hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Dirichlet

from rbpp.internals import standard_gamma
from rbpp.mixtures.mixture import GaussianMixture
from rbpp.mixtures.triangles import inverse_factor, short_sum
from rbpp.mixtures.wishart import PrecisionNormal, WishartCholesky


class Parameters(NamedTuple):
    """Parameters of the conjugate family, of a prior or of a posterior.

    Shapes: concentration α (…, K), mean m (…, K, d), mean_precision κ (…, K),
    degrees_of_freedom ν (…, K), scale Ψ (…, K, d, d).
    """

    concentration: Tensor
    mean: Tensor
    mean_precision: Tensor
    degrees_of_freedom: Tensor
    scale: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> Parameters:
        """The same function applied to every parameter."""
        return Parameters(*(function(value) for value in self))

    def select(self, index: Tensor) -> Parameters:
        """The members of the leading dimension at `index`."""
        return Parameters(*(value[index] for value in self))

    def affine(self, shift: Tensor, factor: Tensor) -> Parameters:
        """The distribution after every row x has become factor · x + shift; both (…, 1, d)."""
        outer = factor.unsqueeze(-1) * factor.unsqueeze(-2)
        return self._replace(mean=self.mean * factor + shift, scale=self.scale * outer)


class Draws(NamedTuple):
    """Draws of a mixture: weights (…, K), means (…, K, d), precision_cholesky (…, K, d, d)."""

    weights: Tensor
    means: Tensor
    precision_cholesky: Tensor

    def mixture(self) -> GaussianMixture:
        """The mixtures, with the draws as batch."""
        return GaussianMixture(
            self.weights,
            self.means,
            precision_cholesky=self.precision_cholesky,
            validate_args=False,
        )


def draw(parameters: Parameters, count: int, generator: torch.Generator) -> Draws:
    """Draws of the conjugate distribution, with leading dimensions (count, …)."""
    concentration = parameters.concentration
    gamma = standard_gamma(
        concentration.expand(count, *concentration.shape).contiguous(), generator=generator
    )
    # A weight that underflows would have the log −∞, and the draw no density.
    gamma = gamma.clamp_min(torch.finfo(gamma.dtype).tiny)
    precision = WishartCholesky(
        parameters.degrees_of_freedom, wishart_factor(parameters.scale), validate_args=False
    ).draw((count,), generator)
    means = PrecisionNormal(
        parameters.mean,
        precision * parameters.mean_precision.sqrt()[..., None, None],
        validate_args=False,
    ).draw((), generator)
    return Draws(normalized(gamma), means, precision)


def log_prob(parameters: Parameters, draws: Draws) -> Tensor:
    """Log density (nats) of draws under a conjugate distribution; leading dimensions broadcast."""
    weights = Dirichlet(parameters.concentration, validate_args=False).log_prob(draws.weights)
    precision = WishartCholesky(
        parameters.degrees_of_freedom, wishart_factor(parameters.scale), validate_args=False
    ).log_prob(draws.precision_cholesky)
    means = PrecisionNormal(
        parameters.mean,
        draws.precision_cholesky * parameters.mean_precision.sqrt()[..., None, None],
        validate_args=False,
    ).log_prob(draws.means)
    return weights + (precision + means).sum(-1)


class Expectations(NamedTuple):
    """E log w (…, K), E log |Λ| (…, K), Ψ⁻¹ (…, K, d, d) and log |Ψ| (…, K)."""

    log_weights: Tensor
    log_det_precision: Tensor
    inverse_scale: Tensor
    log_det_scale: Tensor


def expectations(parameters: Parameters) -> Expectations:
    """What coordinate ascent needs of a conjugate distribution, each in closed form."""
    inverse, log_det = _inverse(parameters.scale)
    dimension = parameters.mean.shape[-1]
    total = parameters.concentration.sum(-1, keepdim=True)
    return Expectations(
        parameters.concentration.digamma() - total.digamma(),
        _sum_of_digammas(parameters.degrees_of_freedom, dimension) - log_det,
        inverse,
        log_det,
    )


def kl_divergence(
    q: Parameters,
    p: Parameters,
    expected: Expectations | None = None,
    normalizer: Tensor | None = None,
) -> Tensor:
    """Closed-form D_KL(q ‖ p) of two conjugate distributions (nats), components matched by index.

    Args:
        q, p: the distributions; leading dimensions broadcast.
        expected: `expectations(q)`, where it is at hand.
        normalizer: `log_normalizer(p)`, where it is at hand.
    """
    expected = expected or expectations(q)
    dimension = q.mean.shape[-1]
    if normalizer is None:
        normalizer = log_normalizer(p)
    weights = ((q.concentration - p.concentration) * expected.log_weights).sum(-1)
    shift = q.mean - p.mean
    square = _inner(expected.inverse_scale, shift.unsqueeze(-1) * shift.unsqueeze(-2))
    ratio = p.mean_precision / q.mean_precision
    overlap = _inner(p.scale, expected.inverse_scale)
    components = (
        dimension * (ratio - 1 - ratio.log())
        + q.degrees_of_freedom * (p.mean_precision * square + overlap - dimension)
        + (q.degrees_of_freedom - p.degrees_of_freedom) * expected.log_det_precision
    )
    own = log_normalizer(q, expected.log_det_scale)
    return normalizer - own + weights + 0.5 * components.sum(-1)


def log_normalizer(parameters: Parameters, log_det: Tensor | None = None) -> Tensor:
    """Log of the normalising integrals (…) of the weights and of all precisions.

    Args:
        parameters: of the distribution.
        log_det: log |Ψ| (…, K), where it is at hand.
    """
    if log_det is None:
        log_det = _inverse(parameters.scale)[1]
    freedom, dimension = parameters.degrees_of_freedom, parameters.mean.shape[-1]
    wisharts = _log_multigamma(freedom, dimension) - freedom / 2 * log_det
    gammas = parameters.concentration.lgamma()
    return (gammas + wisharts).sum(-1) - parameters.concentration.sum(-1).lgamma()


# Both sums take two terms at once by Legendre's duplication formula,
# Γ(z) Γ(z + ½) = 2^(1 − 2z) √π Γ(2z): half of the gamma functions, where most of the time goes.
def _sum_of_digammas(freedom: Tensor, dimension: int) -> Tensor:
    """Σ_j ψ((ν − j) / 2) + d log 2, for j from 0 to d − 1."""
    terms = [2 * (freedom - place).digamma() for place in range(1, dimension, 2)]
    if dimension % 2:
        terms.append(((freedom - dimension + 1) / 2).digamma() + math.log(2))
    return reduce(torch.add, terms)


def _log_multigamma(freedom: Tensor, dimension: int) -> Tensor:
    """log Γ_d(ν / 2) + ½ ν d log 2, Γ_d being the multivariate gamma function."""
    pairs, single = divmod(dimension, 2)
    terms = [(freedom - place).lgamma() for place in range(1, dimension, 2)]
    if single:
        half = freedom / 2
        terms.append((half - (dimension - 1) / 2).lgamma() + half * math.log(2))
    constant = pairs * (pairs + 1) * math.log(2) + pairs / 2 * math.log(math.pi)
    return reduce(torch.add, terms) + (
        dimension * (dimension - 1) / 4 * math.log(math.pi) + constant
    )


def wishart_factor(scale: Tensor) -> Tensor:
    """Lower C with C Cᵀ = Ψ⁻¹."""
    factor, failed = inverse_factor(scale)
    if bool(failed.any()):
        raise torch.linalg.LinAlgError("Expected a positive definite scale; got another")
    return factor


def _inverse(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse and log determinant of positive definite matrices; of others nan."""
    dimension = matrix.shape[-1]
    if dimension == 1:
        return matrix.reciprocal(), matrix[..., 0, 0].log()
    if dimension == 2:  # thousands of small problems spend their time here
        a, b, c = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 1]
        det = torch.where(a > 0, a * c - b * b, torch.nan)
        inverse = torch.stack([c, -b, -b, a], -1).unflatten(-1, (2, 2)) / det[..., None, None]
        return inverse, det.log()
    factor, failed = torch.linalg.cholesky_ex(matrix)
    log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return torch.cholesky_inverse(factor), torch.where(failed == 0, log_det, torch.nan)


def _inner(left: Tensor, right: Tensor) -> Tensor:
    """Σ_ij A_ij B_ij of matrices (…, d, d)."""
    return short_sum((left * right).flatten(-2))


def normalized(values: Tensor) -> Tensor:
    """Values divided by their sum over the last dimension."""
    return values / values.sum(-1, keepdim=True)


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
        return found if self.axes is None else _rotated(found, self.axes)

    def parameters_back(self, parameters: Parameters) -> Parameters:
        """Inverse of `parameters`."""
        if self.axes is not None:
            parameters = _rotated(parameters, torch.linalg.inv(self.axes))
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

    def select(self, index: Tensor) -> Standardisation:
        """The members of the leading dimension at `index`."""
        axes = None if self.axes is None else self.axes[index]
        return Standardisation(self.centre[index], self.spread[index], axes)

    def to(self, device: torch.device | str) -> Standardisation:
        """The same map on a device."""
        axes = None if self.axes is None else self.axes.to(device)
        return Standardisation(self.centre.to(device), self.spread.to(device), axes)

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


def _rotated(parameters: Parameters, axes: Tensor) -> Parameters:
    """The distribution after every row x has become A x; A (…, d, d)."""
    own = axes.unsqueeze(-3)
    scale = own @ parameters.scale @ own.mT
    return parameters._replace(
        mean=(own @ parameters.mean.unsqueeze(-1)).squeeze(-1), scale=(scale + scale.mT) / 2
    )


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
