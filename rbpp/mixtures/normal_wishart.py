"""The conjugate family of Gaussian mixtures: Dirichlet weights × normal-Wishart components.

    w ~ Dirichlet(α),   Λ_k ~ Wishart(ν_k, Ψ_k⁻¹),   μ_k | Λ_k ~ N(m_k, (κ_k Λ_k)⁻¹)

Ψ is in units of a sum of squares: Ψ / (ν − d − 1) is the mean of the covariance Λ⁻¹.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, NamedTuple

import torch
from pyro.distributions import MultivariateStudentT
from torch import Tensor
from torch.distributions import Categorical, Dirichlet, MixtureSameFamily

from rbpp.internals import standard_gamma
from rbpp.mixtures.mixture import GaussianMixture
from rbpp.mixtures.triangles import inverse_factor, short_sum
from rbpp.mixtures.wishart import PrecisionNormal, WishartCholesky


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

    def map(self, function: Callable[[Tensor], Tensor]) -> Draws:
        """The same function applied to each of the three."""
        return Draws(*map(function, self))


@dataclass(frozen=True)
class Parameters:
    """A distribution of the conjugate family, by its parameters: a prior or a posterior.

    Shapes: concentration α (…, K), mean m (…, K, d), mean_precision κ (…, K),
    degrees_of_freedom ν (…, K), scale Ψ (…, K, d, d).
    """

    concentration: Tensor
    mean: Tensor
    mean_precision: Tensor
    degrees_of_freedom: Tensor
    scale: Tensor

    def __iter__(self) -> Iterator[Tensor]:
        """The five parameters in their order."""
        yield self.concentration
        yield self.mean
        yield self.mean_precision
        yield self.degrees_of_freedom
        yield self.scale

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions."""
        return self.mean_precision.shape[:-1]

    @property
    def components(self) -> int:
        """Number of components K."""
        return self.mean.shape[-2]

    @property
    def dimension(self) -> int:
        """Dimension d of a row."""
        return self.mean.shape[-1]

    @property
    def scale_tril(self) -> Tensor:
        """Lower C with C Cᵀ = Ψ⁻¹, as `WishartCholesky` takes it: (…, K, d, d)."""
        factor, failed = inverse_factor(self.scale)
        if bool(failed.any()):
            raise torch.linalg.LinAlgError("Expected a positive definite scale; got another")
        return factor

    def map(self, function: Callable[[Tensor], Tensor]) -> Parameters:
        """The same function applied to every parameter."""
        return Parameters(*map(function, self))

    def select(self, index: Any) -> Parameters:
        """The members of the batch at `index` (anything that indexes the leading dimensions)."""
        return self.map(lambda value: value[index])

    def affine(self, shift: Tensor, factor: Tensor) -> Parameters:
        """The distribution after every row x has become factor · x + shift; both (…, 1, d)."""
        outer = factor.unsqueeze(-1) * factor.unsqueeze(-2)
        return replace(self, mean=self.mean * factor + shift, scale=self.scale * outer)

    def rotated(self, axes: Tensor) -> Parameters:
        """The distribution after every row x has become A x; A (…, d, d)."""
        own = axes.unsqueeze(-3)
        scale = own @ self.scale @ own.mT
        mean = (own @ self.mean.unsqueeze(-1)).squeeze(-1)
        return replace(self, mean=mean, scale=(scale + scale.mT) / 2)

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """Independent draws, with leading dimensions (count, …)."""
        shape = self.concentration.expand(count, *self.concentration.shape).contiguous()
        # A weight that underflows would have the log −∞, and the draw no density.
        gamma = standard_gamma(shape, generator).clamp_min(torch.finfo(shape.dtype).tiny)
        precision = self._precisions().draw((count,), generator)
        return Draws(normalized(gamma), self._means(precision).draw((), generator), precision)

    def log_prob(self, draws: Draws) -> Tensor:
        """Log density (nats) of labelled draws, not up to component order; batches broadcast."""
        weights = Dirichlet(self.concentration, validate_args=False).log_prob(draws.weights)
        precision = self._precisions().log_prob(draws.precision_cholesky)
        means = self._means(draws.precision_cholesky).log_prob(draws.means)
        return weights + (precision + means).sum(-1)

    def expected(self) -> GaussianMixture:
        """The plug-in mixture at expected weights, means and precisions."""
        return GaussianMixture(
            normalized(self.concentration),
            self.mean,
            precision_cholesky=self.scale_tril * self.degrees_of_freedom.sqrt()[..., None, None],
            validate_args=False,
        )

    def predictive(self) -> MixtureSameFamily:
        """Predictive distribution of a row, a mixture of Student's t in closed form."""
        freedom = self.degrees_of_freedom - self.dimension + 1
        factor = (self.mean_precision + 1) / (self.mean_precision * freedom)
        scale = torch.linalg.cholesky(self.scale * factor[..., None, None])
        return MixtureSameFamily(
            Categorical(normalized(self.concentration)),
            MultivariateStudentT(freedom, self.mean, scale, validate_args=False),
            validate_args=False,
        )

    def _precisions(self) -> WishartCholesky:
        return WishartCholesky(self.degrees_of_freedom, self.scale_tril, validate_args=False)

    def _means(self, precision: Tensor) -> PrecisionNormal:
        factor = precision * self.mean_precision.sqrt()[..., None, None]
        return PrecisionNormal(self.mean, factor, validate_args=False)


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
