"""A posterior over Gaussian mixtures from a stream of rows, as `fit_mixture` gives of rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rbpp.checkpoint import Checkpoint
from rbpp.data.moments import StreamSummary
from rbpp.data.stream import Stream
from rbpp.mixtures.conjugate import MixturePrior, default_prior
from rbpp.mixtures.fitted_prior import fitted_prior
from rbpp.mixtures.normal_wishart import Draws
from rbpp.mixtures.posterior import MixturePosterior, check_counts
from rbpp.mixtures.stream import SAMPLE_ROWS, fit_stream, kept_summary, stream_prior
from rbpp.randomness import generator, spawn
from rbpp.threads import Map


def fit_mixture_stream(
    stream: Stream,
    components: int,
    *,
    concentration: float = 1.0,
    restarts: int = 4,
    starts: int = 5,
    draws: int = 1000,
    sample_rows: int = SAMPLE_ROWS,
    seed: int = 0,
    mapper: Map = map,
    checkpoint: Checkpoint | None = None,
    **options: Any,
) -> tuple[MixturePosterior, StreamSummary]:
    """Posterior of a Gaussian mixture from a stream, and what the stream holds.

    The prior is that of `fit_mixture`, its scale fitted to a sample of the rows. `log_prob` and
    `pareto_k` are nan: they would take as many readings of the rows as there are draws.

    Args:
        stream: parts of rows.
        components, concentration, restarts, starts, draws, seed: as for `fit_mixture`.
        sample_rows, mapper, checkpoint: as for `fit_stream`.
        options: further ones of `fit_stream`.

    Raises:
        ValueError: on unusable rows or options.

    >>> from rbpp.data.stream import tensor_stream
    >>> rows = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    >>> posterior, summary = fit_mixture_stream(tensor_stream(rows, 30), 2, draws=100)
    >>> posterior.mixture.batch_shape, summary.count
    (torch.Size([4, 100]), 100)
    """
    check_counts(restarts, starts, draws)
    checkpoint = checkpoint or Checkpoint()
    summary = kept_summary(
        stream, sample_rows=sample_rows, seed=seed, mapper=mapper, checkpoint=checkpoint
    )
    prior = _prior(summary, components, concentration, starts, seed)
    fit = fit_stream(
        stream,
        components,
        summary=summary,
        prior=prior,
        restarts=restarts,
        starts=starts,
        seed=seed,
        mapper=mapper,
        checkpoint=checkpoint,
        **options,
    )
    fit = replace(fit, **{name: v.double() for name, v in fit.parameters._asdict().items()})
    found = fit.draw(draws, generator(spawn(seed, "draws"), fit.mean.device))
    assert fit.elbo is not None
    log_q = fit.log_prob(found).mT
    posterior = MixturePosterior(
        Draws(*(value.movedim(0, 1) for value in found)),
        torch.full_like(log_q, torch.nan),
        log_q,
        fit.elbo.cpu(),
        torch.full_like(fit.elbo.cpu(), torch.nan),
        "cavi",
        prior,
        summary.digest,
        fit,
    )
    return posterior, summary


def _prior(
    summary: StreamSummary, components: int, concentration: float, starts: int, seed: int
) -> MixturePrior:
    """The default prior of all rows, its scale multiplied by what fits the sample."""
    sample = summary.sample.double()
    fitted = fitted_prior(
        sample,
        components,
        concentration=concentration,
        starts=starts,
        generator=generator(spawn(seed, "prior")),
    )
    factor: Tensor = fitted.scale[0, 0] / default_prior(sample, components).scale[0, 0]
    whole = stream_prior(summary, components, concentration)
    return replace(whole, scale=whole.scale * factor)
