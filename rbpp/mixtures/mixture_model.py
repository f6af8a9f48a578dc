"""The one Pyro model of a Bayesian Gaussian mixture, which every engine fits.

Sites: `weights` (K); `precision_cholesky` (K, d, d) and `means` (K, d) in plate `components`, named
as the fields of `Draws`; in plate `rows` the enumerated `component` and the observed `row`. Where
rows have weights the components are summed out without Pyro.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyro
import pyro.distributions as dist
from pyro.ops.indexing import Vindex
from torch import Tensor

from rbpp.mixtures.normal_wishart import Parameters
from rbpp.mixtures.wishart import PrecisionNormal, WishartCholesky

MAX_PLATE_NESTING = 1


@dataclass(frozen=True)
class MixtureData:
    """The rows of one data set as the model reads them.

    Attributes:
        rows: (n, d).
        weights: weight of every row (n,), or None.
    """

    rows: Tensor
    weights: Tensor | None = None


def mixture_model(data: MixtureData, prior: Parameters, batch_rows: int | None = None) -> None:
    """Dirichlet × normal-Wishart mixture with the assignments enumerated.

    Args:
        data: the observed rows.
        prior: of the K components of one data set.
        batch_rows: rows per step; fewer than n subsample, and the plate scales the likelihood up.
    """
    weights, mean, precision = sample_globals(prior)
    with pyro.plate("rows", len(data.rows), subsample_size=batch_rows) as index:
        rows, scale = batch(data, index)
        # One more dimension on the left of the components, for the rows.
        means, precisions = mean.unsqueeze(-3), precision.unsqueeze(-4)
        if scale is not None:
            # Pyro enumerates under a scalar scale only: sum the component out here.
            observed = dist.MixtureSameFamily(
                dist.Categorical(weights),
                PrecisionNormal(means, precisions, validate_args=False),
                validate_args=False,
            )
            with pyro.poutine.scale(scale=scale):
                pyro.sample("row", observed, obs=rows)
            return
        component = pyro.sample(
            "component", dist.Categorical(weights), infer={"enumerate": "parallel"}
        )
        observed = PrecisionNormal(
            Vindex(means)[..., component, :],
            Vindex(precisions)[..., component, :, :],
            validate_args=False,
        )
        pyro.sample("row", observed, obs=rows)


def sample_globals(parameters: Parameters) -> tuple[Tensor, Tensor, Tensor]:
    """Draw weights, means and precision factors, in a prior or in a guide."""
    weights = pyro.sample("weights", dist.Dirichlet(parameters.concentration))
    with pyro.plate("components", len(parameters.concentration)):
        precision = pyro.sample(
            "precision_cholesky",
            WishartCholesky(parameters.degrees_of_freedom, parameters.scale_tril),
        )
        factor = precision * parameters.mean_precision.sqrt()[..., None, None]
        mean = pyro.sample("means", PrecisionNormal(parameters.mean, factor, validate_args=False))
    return weights, mean, precision


def batch(data: MixtureData, index: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if index is None or len(index) == len(data.rows):
        return data.rows, data.weights
    return data.rows[index], None if data.weights is None else data.weights[index]
