"""Where optimisers of mixtures start: at the component means of a mixture fitted to the rows.

Draws of the prior leave components without rows, and an optimiser does not bring them back. The fit
of `rbpp.mixtures` knows where the components are, though not which member of the process's plate is
which, nor anything else of the world: orders are tried, and the rest is drawn from the prior.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rbpp.mixtures.ascent import Ascent
from rbpp.mixtures.cavi import cavi
from rbpp.mixtures.conjugate import default_prior
from rbpp.posterior.density import ConditionedDensity
from rbpp.posterior.labels import Symmetry
from rbpp.randomness import generator, spawn

# Starts of the fit, and vectors: each has the fitted means in an order of its own.
_FITS, FITTED = 8, 128
_ASCENT = Ascent(tolerance=1e-4)


def fitted_starts(
    density: ConditionedDensity, found: Sequence[Symmetry], seed: int
) -> Tensor | None:
    """Vectors (N, D) at the means of a mixture fitted to the rows, in random orders.

    The fit has as many components as the plate of exchangeable members; its means go to the world
    sites in that plate which have the length of a row.

    Args:
        density: the posterior's.
        found: plates with exchangeable members.
        seed: of fit, orders and prior draws.

    Returns:
        None where no rows are observed that a mixture of vectors could be of, or no site of the
        plate is like a mean.
    """
    rows = _rows(density)
    if rows is None or not found:
        return None
    placed: dict[str, Tensor] = {}
    for symmetry in found:
        size = len(symmetry.blocks)
        names = [
            latent.name
            for latent in density.prepared.world
            if latent.site.plates == (symmetry.plate,)
            and latent.site.shape == (size, rows.shape[-1])
        ]
        if not names or len(rows) <= size:
            continue
        source = generator(spawn(seed, "fit", symmetry.plate))
        prior = default_prior(rows, size)
        fit = cavi(rows, prior, size, restarts=_FITS, generator=source, ascent=_ASCENT)
        means = fit.best().expected().means
        orders = torch.rand(FITTED, size, generator=source).argsort(-1)
        placed |= dict.fromkeys(names, means[orders])
    return density.prior_vectors(FITTED, spawn(seed, "rest"), placed) if placed else None


def _rows(density: ConditionedDensity) -> Tensor | None:
    """Rows (n, d) of the chain's last observed site of real vectors, data sets together."""
    for name in ("synthetic", "output", "unprompted", "target", "anchor"):
        value = density.observed.get(name)
        if value is not None and value.is_floating_point():
            site = density.process.sites[name]
            if len(site.shape) - site.batch_dimensions == 1 and site.plates:
                return value.reshape(-1, site.shape[-1]).double().cpu()
    return None
