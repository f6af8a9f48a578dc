"""Log densities of the sites of a process, of single data sets and of all pairs at once."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from rbpp.mixtures.mixture import GaussianMixture
from rbpp.processes.convolution import normal_moments
from rbpp.processes.handlers import Run
from rbpp.processes.process import Process, Site, hold, needed_sites
from rbpp.processes.support import log_prob


def log_density(
    process: Process,
    values: Mapping[str, Tensor],
    sites: Iterable[str],
    *,
    per_row: bool = False,
) -> dict[str, Tensor]:
    """Conditional log density of each of `sites` given what stands above it, in nats.

    Values are (…, *shape of a plain run); their leading dimensions broadcast, so that one call
    evaluates every pair: outputs (1, R, n, d) under prompts (R, 1, m, d) give log p(b_i | a_j).
    A deterministic site that is given takes that value instead of being computed. A site in a row
    plate may have any number of rows, where its rows do not depend on other rows' values.

    Args:
        process: the model that has the densities.
        values: world, conditioning sites and the sites themselves, by name.
        sites: sample sites to evaluate.
        per_row: keep the rows apart instead of summing over them.

    Returns:
        For each site the log density summed over its rows and other plates, shape the broadcast of
        leading dimensions; with `per_row`, (…, rows).

    Raises:
        ValueError: if a site is unknown, deterministic (it has no density) or given no value, or a
            site that it depends on is missing from `values`.
    """
    requested = list(dict.fromkeys(sites))
    for name in requested:
        if process.site(name).deterministic:
            raise ValueError(
                f"Expected a sample site; got {name!r}, which is deterministic in "
                f"{process.name} and has no density"
            )
        if name not in values:
            raise ValueError(f"Expected a value of {name!r} to evaluate its density; got none")
    run = run_given(process, values, requested)
    return {
        name: sum_over_plates(process.sites[name], site_log_density(run, name), per_row=per_row)
        for name in requested
    }


def sum_over_plates(site: Site, density: Tensor, *, per_row: bool = False) -> Tensor:
    """A log density without the site's own plates: (…); with `per_row` (…, rows) where it has."""
    inner = site.padding + site.batch_dimensions
    rows = 1 if per_row and site.batch_dimensions else 0
    summed = list(range(-inner, -rows)) if inner > rows else []
    return density.sum(summed) if summed else density


def run_given(
    process: Process,
    values: Mapping[str, Tensor],
    requested: Collection[str],
    plate_sizes: Mapping[str, int] | None = None,
) -> Run:
    """`rbpp.processes.process.hold` of plain values; plates take the rows of the requested ones."""
    held, plate_sizes = {}, dict(plate_sizes or {})
    needed = needed_sites(process, values, requested)
    # Requested sites first: their plate takes the number of rows given, whoever else is in it.
    for name in sorted(values, key=lambda name: name not in requested):
        value, site = values[name], process.site(name)
        shape = site.shape
        trailing = tuple(value.shape[max(0, value.dim() - len(shape)) :])
        if site.plates and site.batch_dimensions == 1 and len(trailing) == len(shape):
            if name in requested:
                plate_sizes.setdefault(site.plates[0], trailing[0])
            shape = (plate_sizes.get(site.plates[0], shape[0]), *shape[1:])
        if trailing == site.shape != shape and name not in needed:
            continue  # another number of rows than its plate has here, and nothing asks for them
        if trailing != shape:
            raise ValueError(
                f"Expected values of {name!r} of shape (…, {', '.join(map(str, shape))}); "
                f"got {tuple(value.shape)}"
            )
        held[name] = site.batched(value, shape)
    device = next(iter(held.values())).device if held else "cpu"
    return hold(process, held, requested, plate_sizes=plate_sizes, device=device)


def site_log_density(run: Run, name: str) -> Tensor:
    """Log density of a site's value in a run, (…, worlds, replicates, inner plates)."""
    return density_of_values(run.distributions[name], run.values[name])


def density_of_values(distribution: Any, value: Tensor) -> Tensor:
    """Log density of values, (…, worlds, replicates, inner plates).

    Of every pair of a Gaussian mixture and a data set, (alternatives, worlds, replicates, 1, rows),
    it is one matrix product per world: Pyro's mixture would solve a triangular system per pair, row
    and component, forty times slower at the default process.
    """
    found = None
    components = getattr(distribution, "component_distribution", None)
    if isinstance(components, MultivariateNormal) and value.dim() == 6:
        found = _mixture_of_pairs(distribution, value)
    return log_prob(distribution, value) if found is None else found


def moments_of_normal_rows(distribution: Any, dims: int) -> tuple[Tensor, Tensor] | None:
    """Mean (…, worlds, replicates, d) and covariance (…, d, d) of normal rows that are all alike.

    None of other rows.

    Args:
        distribution: of rows.
        dims: dimensions of their values, (…, worlds, replicates, 1, rows, d).
    """
    moments = normal_moments(distribution)
    if moments is None:
        return None
    mean, covariance = moments
    if mean.dim() != dims or covariance.dim() < 4:
        return None
    if (*mean.shape[-3:-1], *covariance.shape[-4:-2]) != (1, 1, 1, 1):
        return None
    return mean[..., 0, 0, :], covariance[..., 0, 0, :, :]


def density_of_normal_rows(moments: tuple[Tensor, Tensor], value: Tensor) -> Tensor:
    """Log density of all rows together, (…, worlds, replicates), from their mean and covariance.

    Its cost for all pairs of data sets does not grow with the rows.

    Args:
        moments: of `moments_of_normal_rows`.
        value: (…, worlds, replicates, 1, rows, d).
    """
    mean, covariance = moments
    rows = value.squeeze(-3).double()
    count, size = rows.shape[-2:]
    centre = rows.mean(-2)
    centred = rows - centre.unsqueeze(-2)
    scatter = centred.mT @ centred
    factor = torch.linalg.cholesky(covariance.double())
    precision = torch.cholesky_inverse(factor)
    log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    shift = centre - mean
    # One matrix product where the covariance does not differ between the data sets of a world.
    moved = (
        shift @ precision.squeeze(-3)
        if precision.shape[-3] == 1
        else (precision @ shift.unsqueeze(-1)).squeeze(-1)
    )
    apart = (moved * shift).sum(-1)
    within = (precision * scatter).sum((-2, -1))
    return -0.5 * (count * (size * math.log(2 * math.pi) + log_det + apart) + within)


def _mixture_of_pairs(distribution: Any, value: Tensor) -> Tensor | None:
    """None where the mixture differs from row to row, or varies along a dimension with the data."""
    worlds = value.shape[1]
    mixture = _mixture_of_rows(distribution)
    if (
        mixture is None
        or len(mixture.batch_shape) != 3
        or mixture.batch_shape[1] not in (1, worlds)
    ):
        return None
    mixture = mixture.expand((mixture.batch_shape[0], worlds, mixture.batch_shape[2]))
    alternatives, _, replicates = mixture.batch_shape
    if (value.shape[0] > 1 < alternatives) or (value.shape[2] > 1 < replicates):
        return None
    parts = []
    for world in range(worlds):
        rows = value[:, world].reshape(-1, value.shape[-1])
        found = mixture.select((slice(None), world)).log_prob_rows(rows)
        found = found.reshape(alternatives, replicates, value.shape[0], value.shape[2], -1)
        # One of each pair of dimensions has size one: what varies takes its place.
        parts.append(found.transpose(1, 2).flatten(2, 3).flatten(0, 1))
    return torch.stack(parts, 1).unsqueeze(-2)


def _mixture_of_rows(distribution: Any) -> GaussianMixture | None:
    """The mixture that every row has, batch (alternatives, worlds, replicates)."""
    # Read what it was made of: a property may compute, and so write out, every row's own.
    given = vars(distribution.mixture_distribution)
    if "logits" in given:
        weights = _without_rows(given["logits"], 1)
        weights = None if weights is None else weights.softmax(-1)
    else:
        weights = _without_rows(given["probs"], 1)
    means = _without_rows(distribution.component_distribution.loc, 2)
    covariances = _without_rows(distribution.component_distribution.covariance_matrix, 3)
    if weights is None or means is None or covariances is None:
        return None
    return GaussianMixture(weights, means, covariances, validate_args=False)


def _without_rows(tensor: Tensor, event: int) -> Tensor | None:
    """A parameter (…, 1, rows) + event that is the same for all rows, once: (…) + event."""
    row, middle = -event - 1, -event - 2
    if tensor.dim() < event + 2 or tensor.shape[middle] != 1:
        return None
    if tensor.shape[row] != 1 and tensor.stride(row) != 0:
        return None
    batch = tensor.select(row, 0).squeeze(row)
    while batch.dim() < event + 3:
        batch = batch.unsqueeze(0)
    return batch
