"""Gaussian mixtures as `torch.distributions.Distribution`s, batched over draws and data sets.

Log densities are one matrix product of the rows' features with the components' natural parameters,
not a triangular solve per component: the posterior has thousands of draws and the data many rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from rbpp.elementwise import exp_
from rbpp.internals import broadcast_shapes
from rbpp.mixtures.triangles import (
    features,
    inverse_factor,
    log_det,
    quadratic_coefficients,
    short_sum,
)
from rbpp.randomness import normals, uniforms

# Rows are evaluated in chunks of about this many (row, component) pairs per batch member: the
# intermediate then stays in cache, and memory does not grow with the data.
_CHUNK_ELEMENTS = 2**22


class GaussianMixture(Distribution):
    """Mixture of Gaussians, p(x) = Σ_k w_k N(x; μ_k, Σ_k).

    Shapes: `weights` (…, K), `means` (…, K, d), and either `covariances` (…, K, d, d) or
    `precision_cholesky` (…, K, d, d), the lower triangular L with Σ⁻¹ = L Lᵀ. The leading
    dimensions broadcast and are the batch shape; the event shape is (d,).

    Raises:
        ValueError: if shapes disagree, weights are not a distribution, or a covariance is not
            symmetric positive definite.

    >>> mixture = GaussianMixture(torch.tensor([1.0]), torch.zeros(1, 2), torch.eye(2)[None])
    >>> mixture.log_prob(torch.zeros(2)).item()
    -1.837877...
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = False

    def __init__(
        self,
        weights: Tensor,
        means: Tensor,
        covariances: Tensor | None = None,
        *,
        precision_cholesky: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if (covariances is None) == (precision_cholesky is None):
            raise ValueError("Expected either covariances or precision_cholesky; got both or none")
        matrices = covariances if covariances is not None else precision_cholesky
        assert matrices is not None
        components, dimension = _check_shapes(weights, means, matrices)
        if validate_args is not False:
            _check_values(weights, means, matrices)
        batch_shape = broadcast_shapes(weights.shape[:-1], means.shape[:-2], matrices.shape[:-3])
        self.weights = weights.expand(*batch_shape, components)
        self.means = means.expand(*batch_shape, components, dimension)
        if precision_cholesky is None:
            if validate_args is not False:
                _check_symmetric(matrices)
            precision_cholesky, failed = inverse_factor(matrices)
            if bool(failed.any()):
                where = tuple(failed.nonzero()[0].tolist())
                raise ValueError(
                    f"Expected positive definite covariances; got a violation at index {where}"
                )
        self.precision_cholesky = precision_cholesky.expand(
            *batch_shape, components, dimension, dimension
        )
        super().__init__(batch_shape, torch.Size([dimension]), validate_args=False)

    @property
    def components(self) -> int:
        """Number of components K."""
        return self.weights.shape[-1]

    @property
    def dimension(self) -> int:
        """Dimension d of a row."""
        return self.means.shape[-1]

    @property
    def scale_tril(self) -> Tensor:
        """A with Σ = A Aᵀ, upper triangular as the inverse transpose of L: (…, K, d, d)."""
        identity = torch.eye(self.dimension, dtype=self.means.dtype, device=self.means.device)
        return torch.linalg.solve_triangular(
            self.precision_cholesky.mT, identity.expand_as(self.precision_cholesky), upper=True
        )

    @property
    def covariances(self) -> Tensor:
        """Covariances of the components, (…, K, d, d)."""
        scale = self.scale_tril
        return scale @ scale.mT

    @property
    def mean(self) -> Tensor:
        """Mean of the mixture, (…, d)."""
        return (self.weights.unsqueeze(-1) * self.means).sum(-2)

    @property
    def covariance(self) -> Tensor:
        """Covariance of the mixture, (…, d, d)."""
        centred = self.means - self.mean.unsqueeze(-2)
        spread = self.covariances + centred.unsqueeze(-1) * centred.unsqueeze(-2)
        return (self.weights[..., None, None] * spread).sum(-3)

    @property
    def variance(self) -> Tensor:
        """Marginal variances of the mixture, (…, d)."""
        return self.covariance.diagonal(dim1=-2, dim2=-1)

    def component_log_prob_rows(self, rows: Tensor) -> Tensor:
        """log w_k + log N(row; μ_k, Σ_k), shape (…, n, K).

        `rows` is (n, d), shared by the whole batch, or (…, n, d) with the batch shape in front.
        """
        self._check_rows(rows)
        return self._component_log_prob(rows.mT).mT

    def log_prob_rows(self, rows: Tensor) -> Tensor:
        """Log density of rows (n, d), or (…, n, d), under every member of the batch: (…, n)."""
        self._check_rows(rows)
        return self.log_prob_columns(rows.mT)

    def log_prob_columns(self, columns: Tensor) -> Tensor:
        """`log_prob_rows` of rows stored as columns (d, n) or (…, d, n): the fastest layout."""
        per_row = max(1, math.prod(self.batch_shape) * self.components)
        step = max(64, _CHUNK_ELEMENTS // per_row)
        if columns.shape[-1] <= step:
            return log_sum_exp_(self._component_log_prob(columns))
        chunks = columns.split(step, dim=-1)
        return torch.cat([log_sum_exp_(self._component_log_prob(chunk)) for chunk in chunks], -1)

    def _component_log_prob(self, columns: Tensor) -> Tensor:
        """log w_k + log N(column; μ_k, Σ_k): (…, K, n) for columns (d, n) or (…, d, n)."""
        # Far from the origin the quadratic form cancels: work relative to where the mass is. Where
        # exactly does not matter, nor does its gradient.
        centre = self.mean.detach()
        if columns.dim() == 2:
            centre = centre.reshape(-1, self.dimension).mean(0)
        return self.natural_parameters(centre) @ features(columns - centre.unsqueeze(-1))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of `value` (sample…, batch…, d), broadcasting as torch does."""
        self._check_rows(value)
        leading = value.shape[:-1]
        shape = broadcast_shapes(leading, self.batch_shape)
        depth = len(self.batch_shape)
        own = leading[max(0, len(leading) - depth) :]
        if all(size == 1 for size in own):  # the same rows for every batch member
            sample = leading[: len(leading) - len(own)]
            result = self.log_prob_rows(value.reshape(-1, self.dimension))
            return result.movedim(-1, 0).reshape((*sample, *self.batch_shape)).expand(shape)
        value = value.expand(*shape, self.dimension)
        batch = shape[len(shape) - depth :]
        rows = value.reshape(-1, *batch, self.dimension).movedim(0, -2)
        return self.log_prob_rows(rows).movedim(-1, 0).reshape(shape)

    def responsibilities(self, rows: Tensor) -> Tensor:
        """Posterior probability of every component for every row: (…, n, K)."""
        return self.component_log_prob_rows(rows).softmax(-1)

    def sample(
        self, sample_shape: Sequence[int] = (), *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Independent draws, shape `sample_shape` + batch shape + (d,)."""
        shape = torch.Size(sample_shape)
        count = shape.numel()
        uniform = uniforms((*self.batch_shape, count), generator, self.means)
        normal = normals((*self.batch_shape, self.dimension, count), generator, self.means)
        columns = self.columns_from_uniform(uniform, normal)
        return columns.movedim(-1, 0).reshape((*shape, *self.batch_shape, self.dimension))

    def columns_from_uniform(self, uniform: Tensor, normal: Tensor) -> Tensor:
        """Map uniforms (…, n) and standard normals (…, d, n) to draws, one a column: (…, d, n)."""
        cumulative = self.weights.cumsum(-1)
        # The last boundary is 1 up to rounding: leave it out, so that no index falls outside.
        index = torch.searchsorted(
            cumulative[..., :-1].contiguous(), (uniform * cumulative[..., -1:]).contiguous()
        )
        return self._columns(index, normal)

    def columns_from_ascending(self, uniform: Tensor, normal: Tensor) -> Tensor:
        """`columns_from_uniform` of uniforms (n,) that ascend, for every member of the batch (B,).

        The few boundaries between components are sought among the many uniforms, in a twentieth of
        the other way's time.
        """
        cumulative = self.weights.cumsum(-1)
        boundaries = cumulative[:, :-1] / cumulative[:, -1:]
        ranks = torch.searchsorted(uniform.contiguous(), boundaries, right=True)
        steps = ranks.new_zeros(len(ranks), len(uniform) + 1)
        steps.scatter_add_(-1, ranks, torch.ones_like(ranks))
        return self._columns(steps.cumsum(-1)[:, :-1], normal)

    def _columns(self, index: Tensor, normal: Tensor) -> Tensor:
        """A draw a column, each from the component at its index (…, n)."""
        scale = self.scale_tril
        rows = []
        for row in range(self.dimension):
            value = self.means[..., row].gather(-1, index)
            for column in range(row, self.dimension):  # the factor is upper triangular
                value = value.addcmul(
                    scale[..., row, column].gather(-1, index), normal[..., column, :]
                )
            rows.append(value)
        return torch.stack(rows, -2)

    def marginal(self, dimensions: Sequence[int]) -> GaussianMixture:
        """The mixture of the named coordinates."""
        index = torch.as_tensor(list(dimensions), device=self.means.device)
        if index.numel() == 0:
            raise ValueError("Expected at least one dimension; got none")
        covariances = self.covariances.index_select(-1, index).index_select(-2, index)
        return GaussianMixture(
            self.weights, self.means.index_select(-1, index), covariances, validate_args=False
        )

    def map(self, function: Callable[[Tensor], Tensor]) -> GaussianMixture:
        """The mixture of what a function makes of weights, means and precision factors."""
        return GaussianMixture(
            function(self.weights),
            function(self.means),
            precision_cholesky=function(self.precision_cholesky),
            validate_args=False,
        )

    def select(self, index: Any) -> GaussianMixture:
        """The members of the batch at `index` (anything that indexes the leading dimensions)."""
        return self.map(lambda value: value[index])

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> GaussianMixture:
        """The same mixture with a larger, broadcast batch shape."""
        depth = len(self.batch_shape)
        return self.map(lambda value: value.expand(*batch_shape, *value.shape[depth:]))

    def __repr__(self) -> str:
        return (
            f"GaussianMixture(batch_shape={tuple(self.batch_shape)}, "
            f"components={self.components}, dimension={self.dimension})"
        )

    def natural_parameters(self, centre: Tensor) -> Tensor:
        """Coefficients of the features of (x − centre (…, d)): (…, K, d(d+1)/2 + d + 1)."""
        means = self.means - centre.unsqueeze(-2)
        cholesky = self.precision_cholesky
        projected = (cholesky.mT @ means.unsqueeze(-1)).squeeze(-1)
        linear = (cholesky @ projected.unsqueeze(-1)).squeeze(-1)
        constant = (
            self.weights.log()
            + log_det(cholesky)
            - 0.5 * short_sum(projected.square())
            - 0.5 * self.dimension * math.log(2 * math.pi)
        )
        quadratic = quadratic_coefficients(cholesky @ cholesky.mT)
        quadratic = quadratic.expand(*linear.shape[:-1], -1)
        return torch.cat([quadratic, linear, constant[..., None]], -1)

    def _check_rows(self, rows: Tensor) -> None:
        if rows.dim() == 0 or rows.shape[-1] != self.dimension:
            raise ValueError(
                f"Expected rows of dimension {self.dimension}; got shape {tuple(rows.shape)}"
            )


def log_sum_exp_(logits: Tensor) -> Tensor:
    """`logits.logsumexp(-2)` of a tensor that may be overwritten: (…, K, n) to (…, n)."""
    top = logits.detach().amax(-2, keepdim=True).clamp_min(torch.finfo(logits.dtype).min)
    # Below, terms are subnormal: nothing beside the largest, and slow to add on some processors.
    least = 0.9 * math.log(torch.finfo(logits.dtype).tiny)
    return exp_(logits.sub_(top).clamp_min_(least)).sum(-2).log_().add_(top.squeeze(-2))


def _check_shapes(weights: Tensor, means: Tensor, matrices: Tensor) -> tuple[int, int]:
    if weights.dim() < 1 or means.dim() < 2 or matrices.dim() < 3:
        raise ValueError(
            "Expected weights (…, K), means (…, K, d), matrices (…, K, d, d); got shapes "
            f"{tuple(weights.shape)}, {tuple(means.shape)}, {tuple(matrices.shape)}"
        )
    components, dimension = means.shape[-2:]
    if (
        components == 0
        or dimension == 0
        or weights.shape[-1] != components
        or tuple(matrices.shape[-3:]) != (components, dimension, dimension)
    ):
        raise ValueError(
            f"Expected {components} components of dimension {dimension} throughout; got shapes "
            f"{tuple(weights.shape)}, {tuple(means.shape)}, {tuple(matrices.shape)}"
        )
    return components, dimension


def _check_values(weights: Tensor, means: Tensor, matrices: Tensor) -> None:
    for name, tensor in (("weights", weights), ("means", means), ("matrices", matrices)):
        if not tensor.is_floating_point():
            raise ValueError(f"Expected floating-point {name}; got {tensor.dtype}")
        if not bool(tensor.isfinite().all()):
            where = tuple((~tensor.isfinite()).nonzero()[0].tolist())
            raise ValueError(f"Expected finite {name}; got {tensor[where].item()} at index {where}")
    total = weights.sum(-1)
    if bool((weights < 0).any()) or not torch.allclose(total, torch.ones_like(total), atol=1e-4):
        raise ValueError(
            "Expected weights that are non-negative and sum to one along the last axis"
        )


def _check_symmetric(covariances: Tensor) -> None:
    size = covariances.diagonal(dim1=-2, dim2=-1).abs().amax(-1)[..., None, None]
    if bool(((covariances - covariances.mT).abs() > 1e-5 * size).any()):
        raise ValueError(
            "Expected symmetric covariances; got a matrix that differs from its transpose"
        )
