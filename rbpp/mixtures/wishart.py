"""The Wishart distribution of a precision matrix, and a normal, both in Cholesky coordinates.

torch has no bijection onto positive definite matrices, so that neither an autoguide nor NUTS can
move through torch's own `Wishart`. The lower Cholesky factor of the precision has one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.util import broadcast_shape
from torch import Tensor
from torch.distributions import Transform, biject_to, constraints, transform_to

from rbpp.internals import standard_gamma
from rbpp.mixtures.triangles import log_det
from rbpp.randomness import normals

_LARGEST_LOG = 300.0  # a leap of a sampler must not overflow to infinity


class _CholeskyFactor(constraints.Constraint):
    """Lower triangular matrices with a positive diagonal, as a manifold of d(d+1)/2 dimensions."""

    event_dim = 2

    def check(self, value: Tensor) -> Tensor:
        return constraints.lower_cholesky.check(value)


cholesky_factor = _CholeskyFactor()


class CholeskyFactorTransform(Transform):
    """Vector (…, d(d+1)/2) to a lower triangular matrix, with the exponential on its diagonal.

    torch's own transform takes a square matrix, ignores its upper triangle and has no Jacobian.
    """

    domain = constraints.real_vector
    codomain = cholesky_factor
    bijective = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CholeskyFactorTransform)

    def __hash__(self) -> int:
        return hash(CholeskyFactorTransform)

    def _call(self, x: Tensor) -> Tensor:
        dimension = _triangle_side(x.shape[-1])
        row, column = torch.tril_indices(dimension, dimension, device=x.device)
        entries = torch.where(row == column, x.clamp_max(_LARGEST_LOG).exp(), x)
        result = x.new_zeros(*x.shape[:-1], dimension, dimension)
        result[..., row, column] = entries
        return result

    def _inverse(self, y: Tensor) -> Tensor:
        row, column = torch.tril_indices(y.shape[-1], y.shape[-1], device=y.device)
        entries = y[..., row, column]
        diagonal = row == column
        return torch.where(diagonal, torch.where(diagonal, entries, 1.0).log(), entries)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Σ_i log y_ii."""
        return log_det(y)

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        """Shape of the matrices for a shape of vectors."""
        return torch.Size((*shape[:-1], *[_triangle_side(shape[-1])] * 2))

    def inverse_shape(self, shape: Sequence[int]) -> torch.Size:
        """Shape of the vectors for a shape of matrices."""
        return torch.Size((*shape[:-2], shape[-1] * (shape[-1] + 1) // 2))


@biject_to.register(cholesky_factor)
@transform_to.register(cholesky_factor)
def _to_cholesky_factor(constraint: constraints.Constraint) -> CholeskyFactorTransform:
    return CholeskyFactorTransform()


class WishartCholesky(TorchDistribution):
    """Distribution of the lower triangular L with L Lᵀ ~ Wishart(ν, C Cᵀ).

    Shapes: `degrees_of_freedom` ν (…), above d − 1; `scale_tril` C (…, d, d), lower triangular. The
    mean of L Lᵀ is ν C Cᵀ; the batch shape is (…), the event shape (d, d).

    Raises:
        ValueError: if ν ≤ d − 1, or C is not lower triangular with a positive diagonal.

    >>> WishartCholesky(torch.tensor(3.0), torch.eye(2)).log_prob(torch.eye(2)).item()
    -2.1447...
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "degrees_of_freedom": constraints.positive,
        "scale_tril": constraints.lower_cholesky,
    }
    support = cholesky_factor
    has_rsample = True

    def __init__(
        self,
        degrees_of_freedom: Tensor,
        scale_tril: Tensor,
        validate_args: bool | None = None,
    ) -> None:
        dimension = scale_tril.shape[-1]
        batch_shape = torch.Size(broadcast_shape(degrees_of_freedom.shape, scale_tril.shape[:-2]))
        self.degrees_of_freedom = degrees_of_freedom.expand(batch_shape)
        self.scale_tril = scale_tril.expand(*batch_shape, dimension, dimension)
        super().__init__(batch_shape, torch.Size([dimension] * 2), validate_args)
        if self._validate_args and bool((degrees_of_freedom <= dimension - 1).any()):
            raise ValueError(
                f"Expected degrees of freedom above d − 1 = {dimension - 1}; "
                f"got {float(degrees_of_freedom.min())}"
            )

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density with respect to the d(d+1)/2 entries of L."""
        if self._validate_args:
            self._validate_sample(value)
        dimension = value.shape[-1]
        whitened = torch.linalg.solve_triangular(self.scale_tril, value, upper=False)
        log_diagonal = value.diagonal(dim1=-2, dim2=-1).log()
        # |∂(L Lᵀ)/∂L| = 2^d Π_i L_ii^(d − i + 1), which joins |L Lᵀ|^((ν − d − 1)/2).
        power = self.degrees_of_freedom.unsqueeze(-1) - torch.arange(
            1, dimension + 1, dtype=value.dtype, device=value.device
        )
        half = self.degrees_of_freedom / 2
        return (
            (power * log_diagonal).sum(-1)
            - 0.5 * whitened.square().sum((-2, -1))
            - half * dimension * math.log(2)
            - 2 * half * log_det(self.scale_tril)
            - torch.special.multigammaln(half, dimension)
            + dimension * math.log(2)
        )

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Draws by Bartlett's decomposition, differentiable in both parameters."""
        return self.draw(sample_shape, generator=None)

    def draw(self, sample_shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
        """`rsample` from a generator of one's own."""
        shape = (*sample_shape, *self.batch_shape)
        dimension = self.event_shape[0]
        index = torch.arange(dimension, dtype=self.scale_tril.dtype, device=self.scale_tril.device)
        half = ((self.degrees_of_freedom.unsqueeze(-1) - index) / 2).expand(*shape, dimension)
        diagonal = (2 * standard_gamma(half, generator)).sqrt()
        # Underflow of a gamma draw with a tiny shape would make the factor singular.
        diagonal = diagonal.clamp_min(torch.finfo(diagonal.dtype).tiny ** 0.5)
        noise = normals((*shape, dimension, dimension), generator, self.scale_tril)
        return self.scale_tril @ (noise.tril(-1) + torch.diag_embed(diagonal))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> WishartCholesky:
        """The same distribution with a larger batch shape."""
        batch = torch.Size(batch_shape)
        return WishartCholesky(
            self.degrees_of_freedom.expand(batch),
            self.scale_tril.expand(*batch, *self.event_shape),
            validate_args=False,
        )


class PrecisionNormal(TorchDistribution):
    """Normal with mean `loc` (…, d) and precision L Lᵀ, `precision_cholesky` L (…, d, d).

    torch's `MultivariateNormal` would factor the precision anew at every evaluation.

    >>> PrecisionNormal(torch.zeros(2), torch.eye(2)).log_prob(torch.zeros(2)).item()
    -1.837877...
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "loc": constraints.real_vector,
        "precision_cholesky": constraints.lower_cholesky,
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, loc: Tensor, precision_cholesky: Tensor, validate_args: bool | None = None
    ) -> None:
        dimension = loc.shape[-1]
        batch_shape = torch.Size(broadcast_shape(loc.shape[:-1], precision_cholesky.shape[:-2]))
        # As given, not expanded: what the rows of a plate share is computed once for all of them.
        self._loc, self._factor = loc, precision_cholesky
        self.loc = loc.expand(*batch_shape, dimension)
        self.precision_cholesky = precision_cholesky.expand(*batch_shape, dimension, dimension)
        super().__init__(batch_shape, torch.Size([dimension]), validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of value (…, d)."""
        if self._validate_args:
            self._validate_sample(value)
        shift = value - self._loc
        if self._factor.dim() > 2 and self._factor.shape[-3] == 1 and shift.dim() > 1:
            whitened = shift @ self._factor.squeeze(-3)  # one product for all the rows of a plate
        else:
            whitened = (shift.unsqueeze(-2) @ self._factor).squeeze(-2)
        result = (
            log_det(self._factor)
            - 0.5 * whitened.square().sum(-1)
            - 0.5 * self.event_shape[0] * math.log(2 * math.pi)
        )
        return result.expand(torch.broadcast_shapes(result.shape, self.batch_shape))

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Draws, differentiable in both parameters."""
        return self.draw(sample_shape, generator=None)

    def draw(self, sample_shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
        """`rsample` from a generator of one's own."""
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        noise = normals(shape, generator, self.loc)
        return self.loc + torch.linalg.solve_triangular(
            self.precision_cholesky.mT, noise.unsqueeze(-1), upper=True
        ).squeeze(-1)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> PrecisionNormal:
        """The same distribution with a larger batch shape."""
        batch = torch.Size(batch_shape)
        new = PrecisionNormal(
            self.loc.expand(*batch, *self.event_shape),
            self.precision_cholesky.expand(*batch, *self.event_shape * 2),
            validate_args=False,
        )
        new._loc, new._factor = self._loc, self._factor
        return new


def _triangle_side(entries: int) -> int:
    return (math.isqrt(1 + 8 * entries) - 1) // 2
