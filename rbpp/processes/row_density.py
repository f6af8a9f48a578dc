"""The distribution of one row in closed form, where a process has one: mixtures of Gaussians."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

from rbpp.mixtures.mixture import GaussianMixture
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
    if site != "synthetic":
        return _mixture(process, site, _row_distribution(process, above, site))
    above.pop("output", None)
    output = row_mixture(process, above, "output")
    noise = _noise_covariance(process, above, output)
    if noise is None:
        return output
    return GaussianMixture(
        output.weights, output.means, output.covariances + noise.unsqueeze(-3), validate_args=False
    )


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


def _noise_covariance(
    process: Process, values: Mapping[str, Tensor], output: GaussianMixture
) -> Tensor | None:
    """Covariance (…, d, d) of ε where synthetic = output + ε is normal; None where ε is zero."""
    refusal = ValueError(
        f"Expected synthetic rows of {process.name} to be outputs plus independent normal noise, "
        "for a density in closed form; got another curation"
    )
    covariances = []
    for seed in (1, 2):  # two outputs apart: neither the shift nor the noise may depend on them
        rows = output.sample((1,), generator=torch.Generator(output.means.device).manual_seed(seed))
        given = rows.movedim(0, -2)
        run = run_given(process, {**values, "output": given}, ["synthetic"], {"outputs": 1})
        raw_output = run.values["output"]
        if process.sites["synthetic"].deterministic:
            if not torch.equal(run.values["synthetic"], raw_output):
                raise refusal
            continue
        try:
            noise = _mixture(process, "synthetic", run.distributions["synthetic"])
        except ValueError:
            raise refusal from None
        if noise.components != 1 or not torch.allclose(noise.mean, given.squeeze(-2)):
            raise refusal
        covariances.append(noise.covariance)
    if not covariances:
        return None
    if not torch.allclose(covariances[0], covariances[1]):
        raise refusal
    return covariances[0]


def _mixture(process: Process, site: str, distribution: Any) -> GaussianMixture:
    """A distribution as a mixture, without the site's inner dimensions, all of size one."""
    refusal = ValueError(
        f"Expected rows of {site!r} of {process.name} to be normal or a mixture of normals; got "
        f"{type(distribution).__name__}"
    )
    if isinstance(distribution, MixtureSameFamily):
        if not isinstance(distribution.mixture_distribution, Categorical):
            raise refusal
        weights = distribution.mixture_distribution.probs
        moments = _moments(distribution.component_distribution)
    else:
        moments = _moments(distribution)
        if moments is not None:
            moments = moments[0].unsqueeze(-2), moments[1].unsqueeze(-3)
            weights = torch.ones_like(moments[0][..., 0])
    if moments is None:
        raise refusal
    means, covariances = moments
    inner = process.sites[site].padding + process.sites[site].batch_dimensions
    outer = torch.broadcast_shapes(weights.shape[:-1], means.shape[:-2])[:-inner]
    return GaussianMixture(
        weights.reshape(*outer, *weights.shape[-1:]),
        means.reshape(*outer, *means.shape[-2:]),
        covariances.reshape(*outer, *covariances.shape[-3:]),
        validate_args=False,
    )


def _moments(distribution: Any) -> tuple[Tensor, Tensor] | None:
    """Mean and covariance of a normal vector; None if it is another distribution."""
    if isinstance(distribution, MultivariateNormal):
        return distribution.mean, distribution.covariance_matrix
    diagonal = isinstance(distribution, Independent) and isinstance(distribution.base_dist, Normal)
    if diagonal and len(distribution.event_shape) == 1:
        return distribution.mean, torch.diag_embed(distribution.variance)
    return None
