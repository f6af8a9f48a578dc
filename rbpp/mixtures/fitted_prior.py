"""The default prior with its scale fitted to the rows: empirical Bayes for one number.

`default_prior` expects a component to have 1/K of the data's volume. Where components are far
apart that is far too much, and the posterior's covariances, and with them every entropy, are too
large: for three components twelve standard deviations apart, 400 rows, by 0.09 nats beside a
posterior standard deviation of 0.05, so that 48 % of 94 % intervals cover. With the scale fitted
95 % do; where components overlap nothing is lost.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from rbpp.mixtures.cavi import cavi
from rbpp.mixtures.conjugate import MixturePrior, VariationalMixture, default_prior

# Each round raises the ELBO; after three the scale has settled to a per cent.
_ROUNDS = 3
# Rows that repeat would pull the scale to zero: a component keeps at least this share of it.
_SMALLEST_SCALE = 1e-4


def fitted_prior(
    data: Tensor,
    components: int,
    *,
    concentration: float = 1.0,
    sample_weights: Tensor | None = None,
    mask: Tensor | None = None,
    starts: int = 5,
    tolerance: float = 1e-4,
    chunk_rows: int | None = None,
    generator: torch.Generator,
) -> MixturePrior:
    """`default_prior` with its scale multiplied by the number that maximises the ELBO.

    Args:
        data: rows (n, d) of one data set.
        components, concentration: as for `default_prior`.
        sample_weights, mask, tolerance, chunk_rows: as for `cavi`.
        starts: k-means++ starts of the first fit; the later ones go on from the best.
        generator: source of the starts.

    Raises:
        ValueError: as `default_prior` and `cavi`.
    """
    broad = default_prior(
        data.double(),
        components,
        concentration=concentration,
        sample_weights=sample_weights,
        mask=mask,
    )
    prior, fit = broad, None
    for _ in range(_ROUNDS):
        found = cavi(
            data,
            prior,
            components,
            sample_weights=sample_weights,
            mask=mask,
            restarts=starts if fit is None else 1,
            tolerance=tolerance,
            chunk_rows=chunk_rows,
            generator=generator,
            initial=fit,
        )
        fit = found.best_of(found.batch_shape[0])
        factor = scale_factor(broad, fit.select(0)).clamp_min(_SMALLEST_SCALE)
        prior = replace(broad, scale=broad.scale * factor[..., None, None])
    return prior


def scale_factor(prior: MixturePrior, posterior: VariationalMixture) -> Tensor:
    """The s for which the prior with scale s Ψ gives the posterior's precisions the highest mean.

    E_q[Σ_k log Wishart(Λ_k | ν, (s Ψ)⁻¹)] is largest at s = K ν d / Σ_k tr(Ψ E_q[Λ_k]): the step of
    empirical Bayes that raises the ELBO, all else held fixed. At most ν, where all components are
    empty or alike.

    Args:
        prior: of the posterior, up to its scale.
        posterior: leading dimensions (…).

    Returns:
        s, (…).
    """
    scale = posterior.scale.to(prior.scale.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(scale))
    precision = inverse * posterior.degrees_of_freedom[..., None, None]
    trace = (prior.scale.unsqueeze(-3) * precision).sum((-3, -2, -1))
    return posterior.mean.shape[-2] * prior.degrees_of_freedom * prior.dimension / trace
