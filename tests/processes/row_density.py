"""The distribution of one row in closed form, which the log densities of processes are held to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rbpp.mixtures.mixture import GaussianMixture
from rbpp.processes.convolution import convolved, is_independent_noise, is_mixture, normal_moments
from rbpp.processes.density import run_given
from rbpp.processes.handlers import ROW_PLATES
from rbpp.processes.process import Process


def row_mixture(process: Process, values: Mapping[str, Tensor], site: str) -> GaussianMixture:
    """The distribution of a row of `site` given `values`, as a mixture of Gaussians.

    For `synthetic` the output is integrated out: p(s | p) = ∫ p_M(p)(y | p) p_ε(s − y) dy
    (Appendix C), which adds the covariance of normal noise ε to every component.

    Args:
        process: the process that has the density.
        values: the world, and for the sites below it the prompt (or the anchors it comes from).
        site: `target`, `unprompted`, `output` or `synthetic`.

    Returns:
        A mixture whose batch is the leading dimensions of what it depends on: (worlds, 1) for the
        task and the unprompted generator, (worlds, replicates) for what depends on a prompt.

    Raises:
        ValueError: if rows of the site are not identically distributed, or no mixture of Gaussians,
            or a site that it depends on is missing.
    """
    if site not in ("target", "unprompted", "output", "synthetic"):
        raise ValueError(
            f"Expected target, unprompted, output or synthetic, whose rows share a distribution; "
            f"got {site!r}"
        )
    above = {name: value for name, value in values.items() if name not in (site, "synthetic")}
    if site == "synthetic":
        above.pop("output", None)
        return _mixture(process, "output", _curated(process, above))
    return _mixture(process, site, _row_distribution(process, above, site))


def _row_distribution(process: Process, values: Mapping[str, Tensor], site: str) -> Any:
    if site not in process.sites:
        raise ValueError(f"Expected a process with the site {site!r}; got {process.name} without")
    if process.sites[site].deterministic:
        raise ValueError(f"Expected {site!r} of {process.name} to have a density; it is computed")
    try:
        run = run_given(process, values, [site], {ROW_PLATES[site]: 1})
    except ValueError as error:
        if "Shape mismatch inside plate" not in str(error):
            raise
        raise ValueError(
            f"Expected rows of {site!r} of {process.name} with one distribution; got parameters "
            "that differ from row to row"
        ) from error
    return run.distributions[site]


def _curated(process: Process, above: Mapping[str, Tensor]) -> Any:
    """Distribution of a curated row where synthetic = output + ε, ε being normal or zero."""
    output = _row_distribution(process, above, "output")
    own = next(iter(above.values()))
    zero = own.new_zeros((1, *process.sites["output"].shape[1:]), dtype=torch.float64)
    runs = [
        run_given(process, {**above, "output": rows}, ["synthetic"], {"outputs": 1})
        for rows in (zero, zero + 1)
    ]
    outputs = [run.values["output"] for run in runs]
    noises = [run.distributions["synthetic"] for run in runs]
    found = None
    if not process.sites["synthetic"].deterministic:
        if is_independent_noise(noises[0], noises[1], (outputs[0], outputs[1])):
            found = convolved(output, noises[0], outputs[0])
    elif all(torch.equal(run.values["synthetic"], run.values["output"]) for run in runs):
        found = output
    if found is None:
        raise ValueError(
            f"Expected synthetic rows of {process.name} to be outputs plus independent normal "
            "noise, for a density in closed form; got another curation"
        )
    return found


def _mixture(process: Process, site: str, distribution: Any) -> GaussianMixture:
    """A distribution as a mixture, without the site's inner dimensions, all of size one."""
    mixed = is_mixture(distribution)
    moments = normal_moments(distribution.component_distribution if mixed else distribution)
    if moments is None:
        raise ValueError(
            f"Expected rows of {site!r} of {process.name} to be normal or a mixture of normals; "
            f"got {type(distribution).__name__}"
        )
    means, covariances = moments
    if not mixed:
        means, covariances = means.unsqueeze(-2), covariances.unsqueeze(-3)
    weights = distribution.mixture_distribution.probs if mixed else means.new_ones(1)
    count, size = means.shape[-2:]
    batch = distribution.batch_shape
    outer = batch[: len(batch) - process.sites[site].padding - process.sites[site].batch_dimensions]
    shapes = ((count,), (count, size), (count, size, size))
    parts = (
        value.expand(*batch, *own).reshape(*outer, *own)
        for value, own in zip((weights, means, covariances), shapes, strict=True)
    )
    return GaussianMixture(*parts, validate_args=False)
