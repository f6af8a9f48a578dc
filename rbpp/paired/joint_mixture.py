"""Mixtures of growing size fitted to paired rows, and the densities they give to held-out rows.

Every fit is made once on all rows and once without each fold, in one batch. A mixture grows by
splitting its heaviest components along their longest axes: on curved densities that ends far above
fresh k-means++ starts of the same size (3.12 against 3.27 nats lost per row on the Waves task), and
what was converged before the split stays converged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rbpp.mixtures.ascent import Ascent
from rbpp.mixtures.cavi import cavi, likeliest_mean_precision
from rbpp.mixtures.conjugate import MixturePrior, default_prior
from rbpp.mixtures.mixture import GaussianMixture
from rbpp.mixtures.normal_wishart import Parameters, normalized

# Sizes tried: steps of a third to a half, so that a split has little to move.
SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
# Times the covariance that `default_prior` expects of the only component.
_PRIOR_SCALE = 0.3
_ASCENT = Ascent(tolerance=1e-4, max_iterations=60)
# A pass costs the square of the dimension, and with many a second component settles late or never.
_MANY_DIMENSIONS, _SHORT_ASCENT = 30, replace(_ASCENT, max_iterations=25)
# Growth stops after two sizes in a row that add less than this to the stacked density (nats a row),
# or with one that is so far below the best.
_LEAST_GAIN, _MOST_BELOW = 0.002, 0.15
# Of the expectation maximisation that averages densities; each only improves it.
_STACKING_STEPS = 200


@dataclass(frozen=True)
class Coordinates:
    """Rows in coordinates of one kind.

    Attributes:
        margins: name of the kind.
        rows: (n, d), X in the first columns where they are pairs.
        fold: (n,) the fold that a row belongs to: the fit without that fold does not see it.
        log_density: Σ_j log density (n,) of each coordinate on its own, for held-out rows.
    """

    margins: str
    rows: Tensor
    fold: Tensor
    log_density: Tensor


@dataclass(frozen=True)
class PairDensity:
    """Log densities of rows under one joint model, in the model's own coordinates.

    Attributes:
        own: the coordinates.
        components: K, zero for an average over several.
        fitted: log p(x, y), log p(x), log p(y) of the rows the model was fitted to (3, n).
        held_out: the same under the fit that does not see the row (3, n).
        fit: the posterior given all rows, where there is one.
        prior: of the components of the fit.
    """

    own: Coordinates
    components: int
    fitted: Tensor
    held_out: Tensor
    fit: Parameters | None = None
    prior: Parameters | None = None

    @property
    def fitted_ratio(self) -> Tensor:
        """log p(x, y) / p(x) p(y) of rows fitted to, (n,)."""
        return _ratio(*self.fitted)

    @property
    def held_out_ratio(self) -> Tensor:
        """log p(x, y) / p(x) p(y) of held-out rows, (n,)."""
        return _ratio(*self.held_out)


def _ratio(joint: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return joint - x - y


def growing_mixtures(
    own: Coordinates, dim_x: int, largest: int, generator: torch.Generator
) -> Iterator[PairDensity]:
    """Mixtures of 1, 2, 3, 4, 6, 8, … components of the joint rows (n, d), until more add nothing.

    Args:
        own: their coordinates, X in the first `dim_x` columns, Y in the others.
        dim_x: dimension of X.
        largest: number of components not to exceed.
        generator: of the starts.
    """
    masks = fit_masks(own.fold)
    data = own.rows.expand(len(masks), *own.rows.shape)
    fits: Parameters | None = None
    prior = default_prior(data, 1, sample_weights=masks)
    prior = replace(prior, scale=_PRIOR_SCALE * prior.scale)
    found: list[PairDensity] = []
    best, idle, best_single = -torch.inf, 0, -torch.inf
    for components in SIZES:
        if components > largest:
            return
        start = None
        if fits is not None:
            prior = replace(
                prior,
                scale=expected_scale(fits, prior, components),
                mean_precision=likeliest_mean_precision(prior, fits),
            )
            start = split(fits, components).map(lambda value: value.unsqueeze(0))
        fits = cavi(
            data,
            prior,
            components,
            sample_weights=masks,
            initial=start,
            generator=generator,
            ascent=_ASCENT if data.shape[-1] <= _MANY_DIMENSIONS else _SHORT_ASCENT,
        ).select(0)
        fitted, held_out = _densities(fits, own, dim_x)
        found.append(
            PairDensity(
                own,
                components,
                fitted,
                held_out,
                fit=fits.select(0),
                prior=prior.parameters(components).select(0),
            )
        )
        yield found[-1]
        reached = stacked(found).held_out[0].mean().item()
        idle = idle + 1 if reached < best + _LEAST_GAIN else 0
        best = max(best, reached)
        single = found[-1].held_out[0].mean().item()
        if idle == 2 or single < best_single - _MOST_BELOW:
            return
        best_single = max(best_single, single)


def stacked(found: list[PairDensity]) -> PairDensity:
    """The average of the densities whose held-out rows are likeliest."""
    log_weights = stacking_weights(torch.stack([one.held_out[0] for one in found])).log()

    def average(parts: list[Tensor]) -> Tensor:
        return (log_weights[:, None, None] + torch.stack(parts)).logsumexp(0)

    fitted = average([one.fitted for one in found])
    return PairDensity(found[0].own, 0, fitted, average([one.held_out for one in found]))


def with_average(found: list[PairDensity]) -> list[PairDensity]:
    """The models, and their average where there are several."""
    return [*found, stacked(found)] if len(found) > 1 else found


def expected_scale(fit: Parameters, prior: MixturePrior, components: int) -> Tensor:
    """Ψ (fits, d, d) for a larger mixture from the components there are: empirical Bayes.

    Given E[Σ_k⁻¹] of every component, ν (mean_k E[Σ_k⁻¹])⁻¹ is the likeliest Ψ; cutting components
    leaves each that much less volume. One scale for all directions, that of the rows, would blur
    the thin ones: a Y that names the component it belongs to up to a hundredth of its range.
    """
    precision = fit.degrees_of_freedom[..., None, None] * torch.linalg.inv(fit.scale)
    covariance = torch.linalg.inv(precision.mean(-3))
    shrinkage = (fit.components / components) ** (2 / fit.dimension)
    return shrinkage * prior.degrees_of_freedom[..., None, None] * covariance


def split(fit: Parameters, components: int) -> Parameters:
    """A start for more components: the heaviest ones cut in two across their longest axis."""
    weight = fit.concentration
    chosen = weight.argsort(-1, descending=True)[..., : components - fit.components]
    is_cut = torch.zeros_like(weight, dtype=torch.bool).scatter(-1, chosen, True)
    covariance = fit.scale / fit.degrees_of_freedom[..., None, None]
    variances, axes = torch.linalg.eigh(covariance)
    axis, variance = axes[..., -1], variances[..., -1]
    # Halves of a normal lie 0.8 standard deviations off its mean and vary by 0.36 of its variance.
    shift = torch.where(is_cut, 0.8 * variance.sqrt(), 0.0).unsqueeze(-1) * axis
    lost = torch.where(is_cut, 0.64 * variance, 0.0)
    covariance = covariance - lost[..., None, None] * axis.unsqueeze(-1) * axis.unsqueeze(-2)
    share = torch.where(is_cut, 0.5, 1.0)
    least = fit.dimension + 2
    freedom = least + (fit.degrees_of_freedom - least).clamp_min(0) * share
    scale = covariance * freedom[..., None, None]
    concentration = fit.concentration * share
    mean_precision = fit.mean_precision * share

    def with_copies(value: Tensor, copied: Tensor, own: int) -> Tensor:
        index = chosen.reshape(*chosen.shape, *[1] * own)
        index = index.expand(*chosen.shape, *copied.shape[copied.dim() - own :])
        return torch.cat([value, copied.gather(-1 - own, index)], -1 - own)

    return Parameters(
        with_copies(concentration, concentration, 0),
        with_copies(fit.mean + shift, fit.mean - shift, 1),
        with_copies(mean_precision, mean_precision, 0),
        with_copies(freedom, freedom, 0),
        with_copies(scale, scale, 2),
    )


def _densities(fits: Parameters, own: Coordinates, dim_x: int) -> tuple[Tensor, Tensor]:
    """Joint and marginal log densities (3, n), of all rows under the first fit, and of each fold's
    rows under the fit without them."""
    rows, dimension = own.rows, own.rows.shape[-1]
    weights = normalized(fits.concentration)
    covariances = fits.scale / fits.degrees_of_freedom[..., None, None]
    places = _places(own.fold)
    left_out = rows[places]  # (folds, m, d)
    fitted, held_out = [], []
    for kept in (slice(0, dimension), slice(0, dim_x), slice(dim_x, dimension)):
        mixture = GaussianMixture(
            weights, fits.mean[..., kept], covariances[..., kept, kept], validate_args=False
        )
        fitted.append(mixture.select(0).log_prob_rows(rows[:, kept]))
        density = mixture.select(slice(1, None)).log_prob_rows(left_out[..., kept])
        held_out.append(rows.new_empty(len(rows)).scatter(0, places.flatten(), density.flatten()))
    return torch.stack(fitted), torch.stack(held_out)


def _places(fold: Tensor) -> Tensor:
    """Indices of the rows of each fold (folds, m); a short fold repeats its first row."""
    folds = int(fold.max()) + 1
    members = [(fold == index).nonzero().squeeze(-1) for index in range(folds)]
    size = max(len(one) for one in members)
    return torch.stack([torch.cat([one, one[:1].expand(size - len(one))]) for one in members])


def random_folds(count: int, folds: int, generator: torch.Generator, block: int = 1) -> Tensor:
    """The fold (n,) of every row; sizes equal up to one block of successive rows."""
    blocks = -(-count // block)
    order = torch.randperm(blocks, generator=generator)
    fold = torch.empty(blocks, dtype=torch.long)
    fold[order] = torch.arange(blocks) % folds
    return fold.repeat_interleave(block)[:count]


def fold_masks(fold: Tensor) -> Tensor:
    """(folds, n): which rows the fit of each fold sees."""
    return fold != torch.arange(int(fold.max()) + 1, device=fold.device).unsqueeze(-1)


def fit_masks(fold: Tensor) -> Tensor:
    """(1 + folds, n): which rows are seen by the fit of all rows, and by that of each fold."""
    return torch.cat([torch.ones_like(fold, dtype=torch.bool).unsqueeze(0), fold_masks(fold)])


def of_own_fold(values: Tensor, fold: Tensor) -> Tensor:
    """Of values (folds, n, …) by the fit without each fold, those of a row's own fold: (n, …)."""
    return values[fold, torch.arange(len(fold), device=fold.device)]


def stacking_weights(log_density: Tensor) -> Tensor:
    """Weights (candidates,) of the mixture of densities that predicts held-out rows best.

    Maximises Σ_i log Σ_m w_m p_m(x_i), concave in w, by expectation maximisation.

    Args:
        log_density: (candidates, n), of rows that the candidates have not seen.

    Yao, Vehtari, Simpson and Gelman, Using stacking to average Bayesian predictive distributions,
    Bayesian Analysis 13 (2018).

    >>> stacking_weights(torch.tensor([[0.0, 0.0], [-9.0, -9.0]])).round(decimals=2)
    tensor([1., 0.])
    """
    relative = (log_density - log_density.amax(0)).exp()
    weights = torch.full_like(relative[:, 0], 1 / len(relative))
    for _ in range(_STACKING_STEPS):
        share = weights.unsqueeze(-1) * relative
        weights = (share / share.sum(0)).mean(-1)
    return weights.clamp_min(torch.finfo(weights.dtype).tiny)
