"""The posterior of coordinate ascent as a Pyro guide: Pyro's ELBO against the closed form."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist

from rbpp.mixtures.mixture_model import MixtureData, batch, sample_globals
from rbpp.mixtures.normal_wishart import Parameters, expectations
from rbpp.mixtures.sufficient import natural_parameters
from rbpp.mixtures.triangles import features


def conjugate_guide(posterior: Parameters, *, assignments: bool = False) -> Callable[..., None]:
    """The variational posterior of `rbpp.mixtures.cavi` as a Pyro guide of `mixture_model`.

    Args:
        posterior: of one data set, without leading dimensions.
        assignments: also guide `component` by its optimal responsibilities (rows without weights
            only). Then `TraceEnum_ELBO` estimates the mean-field ELBO that coordinate ascent
            maximises; without, the tighter one with the assignments summed out, as for autoguides.

    Raises:
        ValueError: if the posterior has leading dimensions.
    """
    if posterior.batch_shape:
        raise ValueError(
            f"Expected the posterior of one data set; got batch shape {posterior.batch_shape}: "
            "use best() or select()"
        )

    def guide(data: MixtureData, prior: Parameters, batch_rows: int | None = None) -> None:
        sample_globals(posterior)
        if not assignments:
            return
        with pyro.plate("rows", len(data.rows), subsample_size=batch_rows) as index:
            rows, _ = batch(data, index)
            natural = natural_parameters(posterior, expectations(posterior))
            logits = (natural @ features(rows.mT)).mT
            pyro.sample(
                "component", dist.Categorical(logits=logits), infer={"enumerate": "parallel"}
            )

    return guide
