"""Conjugate Gaussian mixtures: the prior, and the variational posterior of the same family.

Both are Dirichlet × normal-Wishart (`normal_wishart`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from rbpp.internals import broadcast_shapes
from rbpp.mixtures.normal_wishart import Parameters
from rbpp.mixtures.standardisation import Standardisation


@dataclass(frozen=True)
class MixturePrior:
    """Dirichlet × normal-Wishart prior, the same for every component.

    Attributes:
        concentration: α of the weights, above 0; broadcasts to (…, K). At 1 every division of
            the mass is as likely; well below 1 the components that are not needed go empty.
        mean: m (…, d).
        mean_precision: κ (…), above 0: what the prior knows of a mean, in rows.
        degrees_of_freedom: ν (…), above d − 1: what it knows of a covariance, in rows.
        scale: Ψ (…, d, d), positive definite.

    Raises:
        ValueError: if a parameter is outside its range or not finite.
    """

    concentration: Tensor
    mean: Tensor
    mean_precision: Tensor
    degrees_of_freedom: Tensor
    scale: Tensor

    def __post_init__(self) -> None:
        mean = torch.as_tensor(self.mean)
        for field in fields(self):
            value = torch.as_tensor(getattr(self, field.name), dtype=mean.dtype, device=mean.device)
            object.__setattr__(self, field.name, value)
            if not bool(value.isfinite().all()):
                raise ValueError(f"Expected a finite {field.name} of the prior; got {value}")
        dimension = self.mean.shape[-1] if self.mean.dim() else 0
        if tuple(self.scale.shape[-2:]) != (dimension, dimension):
            raise ValueError(
                f"Expected a prior mean (…, d) and scale (…, d, d); got shapes "
                f"{tuple(self.mean.shape)} and {tuple(self.scale.shape)}"
            )
        for name, least in (
            ("concentration", 0),
            ("mean_precision", 0),
            ("degrees_of_freedom", dimension - 1),
        ):
            value = getattr(self, name)
            if bool((value <= least).any()):
                raise ValueError(f"Expected {name} of the prior above {least}; got {value.min()}")
        if bool(torch.linalg.cholesky_ex(self.scale).info.any()):
            raise ValueError("Expected a positive definite scale of the prior; got another")

    @property
    def dimension(self) -> int:
        """Dimension d of a row."""
        return self.mean.shape[-1]

    def to(self, like: Tensor) -> MixturePrior:
        """The prior in the precision, and on the device, of a tensor."""
        return MixturePrior(*(getattr(self, field.name).to(like) for field in fields(self)))

    def standardised(self, units: Standardisation) -> MixturePrior:
        """The prior of the standardised rows of one data set, in float64."""
        return MixturePrior(
            concentration=self.concentration.double(),
            mean=(self.mean.double() - units.centre) / units.spread,
            mean_precision=self.mean_precision.double(),
            degrees_of_freedom=self.degrees_of_freedom.double(),
            scale=self.scale.double() / (units.spread.unsqueeze(-1) * units.spread.unsqueeze(-2)),
        )

    def parameters(self, components: int) -> Parameters:
        """The prior as parameters of K components, by broadcasting."""
        batch = broadcast_shapes(
            self.mean.shape[:-1],
            self.mean_precision.shape,
            self.degrees_of_freedom.shape,
            self.scale.shape[:-2],
            self.concentration.shape[:-1],
        )
        d = self.dimension
        return Parameters(
            self.concentration.expand(*batch, components),
            self.mean.unsqueeze(-2).expand(*batch, components, d),
            self.mean_precision.unsqueeze(-1).expand(*batch, components),
            self.degrees_of_freedom.unsqueeze(-1).expand(*batch, components),
            self.scale.unsqueeze(-3).expand(*batch, components, d, d),
        )


def default_prior(
    data: Tensor,
    components: int,
    concentration: float = 1.0,
    sample_weights: Tensor | None = None,
) -> MixturePrior:
    """Weak prior at the scale of the data, the regularisation of Fraley and Raftery (2007).

    m is the mean of the rows, κ = 0.01, ν = d + 2 and Ψ their covariance / K^(2/d): a component is
    expected to have 1/K of the data's volume. Ψ is also the floor of the covariances: none of the
    posterior falls below Ψ / (ν + n).

    Args:
        data: rows (…, n, d); each batch member gets a prior of its own.
        components: K, at least 1.
        concentration: α of the weights.
        sample_weights: as for `rbpp.mixtures.cavi`.

    Raises:
        ValueError: if the rows do not vary in some coordinate.

    >>> default_prior(torch.tensor([[0.0], [2.0]]), components=2).mean
    tensor([1.])

    Fraley and Raftery, Bayesian regularization for normal mixture estimation and model-based
    clustering, Checkpoint of Classification 24 (2007).
    """
    if components < 1:
        raise ValueError(f"Expected components ≥ 1; got {components}")
    weights = row_weights(data, sample_weights)
    rows = data if sample_weights is None else torch.where(weights.unsqueeze(-1) > 0, data, 0.0)
    share = (weights / weights.sum(-1, keepdim=True)).unsqueeze(-1)
    # Centred at a row first: far from the origin a plain weighted mean would round.
    origin = rows.gather(
        -2, weights.argmax(-1)[..., None, None].expand(*rows.shape[:-2], 1, rows.shape[-1])
    )
    mean = ((rows - origin) * share).sum(-2) + origin.squeeze(-2)
    centred = rows - mean.unsqueeze(-2)
    covariance = (centred * share).mT @ centred
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    if not bool(variance.isfinite().all()):
        where = (~variance.isfinite()).nonzero()[0].tolist()
        raise ValueError(
            f"Expected rows whose squares {data.dtype} can hold; got values of up to "
            f"{rows[..., where[-1]].abs().max():.3g} in coordinate {where[-1]}: rescale them"
        )
    noise = (torch.finfo(data.dtype).eps * (1 + mean.abs())).square()
    if bool((variance <= noise).any()):
        where = (variance <= noise).nonzero()[0].tolist()
        raise ValueError(
            f"Expected rows that vary; got a constant coordinate {where[-1]} of the data, "
            f"{mean[tuple(where)]:.3g} up to rounding"
        )
    dimension = data.shape[-1]
    size = weights.sum(-1).square() / weights.square().sum(-1)
    lean = _lean(covariance, variance, size)[..., None, None]
    covariance = (1 - lean) * covariance + lean * torch.diag_embed(variance)
    one = mean.new_ones(mean.shape[:-1])
    return MixturePrior(
        torch.tensor(concentration, dtype=mean.dtype, device=mean.device),
        mean,
        0.01 * one,
        (dimension + 2) * one,
        covariance / components ** (2 / dimension),
    )


# Share of the diagonal in the covariance of `default_prior`, and the smallest eigenvalue of a
# correlation matrix that is no rounding.
_LARGEST_LEAN, _SINGULAR = 0.01, 1e-13


def _lean(covariance: Tensor, variance: Tensor, size: Tensor) -> Tensor:
    """How far the prior's covariance leans to its diagonal; that of collinear rows is singular.

    A fixed share would be the floor of a thin direction, and the entropy of rows with a column that
    nearly repeats another would be that of the prior. So the share is no larger than the smallest
    eigenvalue of the correlations, whose shortfall in `size` rows, (1 − √(d / n))², is made good.
    """
    dimension = variance.shape[-1]
    whole = torch.full_like(size, _LARGEST_LEAN)
    if dimension == 1:
        return whole
    sd = variance.sqrt()
    correlation = covariance / (sd.unsqueeze(-1) * sd.unsqueeze(-2))
    smallest = torch.linalg.eigvalsh(correlation)[..., 0]
    shortfall = (1 - (dimension / (size - 1).clamp_min(dimension)).sqrt()).square()
    lean = torch.minimum(smallest / shortfall.clamp_min(_SINGULAR), whole)
    return torch.where(smallest > _SINGULAR * dimension, lean, whole)


@dataclass(frozen=True)
class VariationalMixture(Parameters):
    """q(weights, means, precisions), fitted: its parameters, and the ascent that found them.

    From `rbpp.mixtures.cavi` the leading dimensions are (restarts, batch…).

    Attributes:
        elbo: evidence lower bound (…) in nats, float64, of the data it was fitted to.
        converged: (…) whether the ELBO had settled within the tolerance.
        iterations: (…) passes over the data.
        elbo_history: (iterations, …) ELBO after every pass, where asked for; nan after convergence.
    """

    elbo: Tensor
    converged: Tensor | None = None
    iterations: Tensor | None = None
    elbo_history: Tensor | None = None

    def double(self) -> VariationalMixture:
        """The same posterior with its parameters in float64."""
        return replace(self, **vars(self.map(Tensor.double)))

    def select(self, index: Any) -> VariationalMixture:
        """The members of the batch at `index` (anything that indexes the leading dimensions)."""
        history = self.elbo_history
        if history is not None:
            places = torch.arange(self.batch_shape.numel()).reshape(self.batch_shape)[index]
            history = history.flatten(1)[:, places]
        return VariationalMixture(
            **vars(super().select(index)),
            elbo=self.elbo[index],
            converged=None if self.converged is None else self.converged[index],
            iterations=None if self.iterations is None else self.iterations[index],
            elbo_history=history,
        )

    def best(self) -> VariationalMixture:
        """Per data set the restart of highest ELBO: drops the leading dimension."""
        return self.best_of(len(self.elbo)).select(0)

    def best_of(self, starts: int) -> VariationalMixture:
        """Of every `starts` successive restarts the one of highest ELBO: (restarts / starts, …)."""
        choice = self.elbo.unflatten(0, (-1, starts)).argmax(1)
        sizes = (torch.arange(size, device=choice.device) for size in choice.shape)
        group, *batch = torch.meshgrid(*sizes, indexing="ij")
        return self.select((choice + starts * group, *batch))


def row_weights(data: Tensor, given: Tensor | None) -> Tensor:
    """Weight of every row (…, n), given as weights or as a mask; refuses weights that are none."""
    weights = data.new_ones(data.shape[:-1])
    if given is None:
        return weights
    try:
        weights = given.to(weights).expand(weights.shape)
    except RuntimeError:
        raise ValueError(
            f"Expected sample_weights of shape {tuple(weights.shape)}; got {tuple(given.shape)}"
        ) from None
    if not bool((weights.isfinite() & (weights >= 0)).all()):
        raise ValueError("Expected finite sample_weights ≥ 0; got others")
    if bool((weights.sum(-1) <= 0).any()):
        raise ValueError("Expected a row of positive weight in every data set; got none")
    return weights
