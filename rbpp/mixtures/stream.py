"""Mixture posteriors of rows larger than memory: the same ascent, with statistics summed by chunk.

Two kinds of pass. A *stochastic* pass steps after every chunk, along the natural gradient: a decent
posterior after one reading. An *exact* pass adds up all chunks before it steps: its ELBO is that of
all rows, never falls, and the result is that of `rbpp.mixtures.cavi` from the same start.

Hoffman, Blei, Wang and Paisley, Stochastic variational inference, JMLR 14 (2013).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import NamedTuple

import torch
from torch import Tensor

from rbpp.mixtures.ascent import ascend, update
from rbpp.mixtures.cavi import cavi
from rbpp.mixtures.conjugate import MixturePrior, VariationalMixture, default_prior
from rbpp.mixtures.normal_wishart import Parameters, expectations
from rbpp.mixtures.standardisation import Standardisation
from rbpp.mixtures.sufficient import Rows, Statistics, natural_parameters, statistics
from rbpp.progress import progress
from rbpp.threads import Map, block_threads

# Step sizes (t + delay)^−forgetting of the stochastic passes, in chunks: the first chunks move far,
# the last average. Any forgetting in (0.5, 1] converges; 0.7 is usual.
_DELAY, _FORGETTING = 1.0, 0.7


class Chunk(NamedTuple):
    """Rows (n, d), with a weight and a source label (n,) each, or None."""

    rows: Tensor
    weights: Tensor | None = None
    source: Tensor | None = None


Chunks = Callable[[], Iterable[Chunk]]


@dataclass(frozen=True)
class StreamSummary:
    """What one reading of a stream tells before any fit.

    Attributes:
        count: rows.
        weight: their total weight.
        mean, covariance: weighted, (d,) and (d, d), in float64.
        sample: rows drawn with odds of their weight, without replacement (n', d).
        source: the label of each of them, or None.
    """

    count: int
    weight: float
    mean: Tensor
    covariance: Tensor
    sample: Tensor
    source: Tensor | None


def summarise(chunks: Chunks, *, sample_rows: int, generator: torch.Generator) -> StreamSummary:
    """Read a stream once: moments of all rows, and a sample that fits in memory.

    Raises:
        ValueError: on an empty stream, or chunks that are not finite or differ in dimension.
    """
    count, weight = 0, 0.0
    mean = covariance = keys = sample = source = None
    for chunk in chunks():
        _check(chunk, count, None if mean is None else len(mean))
        rows = chunk.rows
        own = rows.new_ones(len(rows)) if chunk.weights is None else chunk.weights
        own = own.double()
        total = own.sum().item()
        if total == 0:
            count += len(rows)
            continue
        # Exponential keys: the smallest belong to a sample with odds of the weights.
        draw = torch.rand(len(rows), generator=generator, dtype=torch.float64).to(rows.device)
        new_keys = -draw.log() / own
        if mean is None or covariance is None or sample is None or keys is None:
            mean = rows[0].double()
            covariance = mean.new_zeros(len(mean), len(mean))
            sample, keys, source = rows[:0], new_keys[:0], chunk.source
            source = None if source is None else source[:0]
        centred = rows.double() - mean
        shift = (centred * own.unsqueeze(-1)).sum(0) / total
        centred -= shift
        scatter = (centred * own.unsqueeze(-1)).mT @ centred
        both = weight + total
        covariance = (
            covariance * weight + scatter + weight * total / both * torch.outer(shift, shift)
        ) / both
        mean = mean + shift * total / both
        weight, count = both, count + len(rows)
        keys = torch.cat([keys, new_keys])
        kept = keys.topk(min(sample_rows, len(keys)), largest=False).indices
        keys, sample = keys[kept], torch.cat([sample, rows])[kept]
        if source is not None and chunk.source is not None:
            source = torch.cat([source, chunk.source])[kept]
    if mean is None or covariance is None or sample is None:
        raise ValueError("Expected rows of positive weight in the stream; got none")
    return StreamSummary(count, weight, mean, covariance, sample, source)


def fit_stream(
    chunks: Chunks,
    components: int,
    *,
    prior: MixturePrior | None = None,
    concentration: float = 1.0,
    source_count: int = 1,
    restarts: int = 1,
    starts: int = 5,
    stochastic_passes: int = 1,
    passes: int = 20,
    tolerance: float = 1e-6,
    sample_rows: int = 20_000,
    generator: torch.Generator,
    quiet: bool = True,
) -> VariationalMixture:
    """Posterior of a Gaussian mixture from a stream of row chunks.

    Reads the stream once for its moments and a sample, fits the sample by `cavi` for a start, then
    makes the stochastic and the exact passes.

    Args:
        chunks: called once per pass, gives the chunks of all rows in the same order.
        components: K.
        prior: by default the `default_prior` of the whole stream.
        concentration: of the default prior's weights.
        source_count: S; chunks then carry labels.
        restarts: independent fits, each started from the best of `starts` fits to the sample.
        starts: k-means++ starts per restart.
        stochastic_passes: readings that step after every chunk.
        passes: most readings that step after all chunks; they end early within `tolerance`.
        tolerance: gain per row (nats) below which a restart has converged.
        sample_rows: rows of the sample.
        generator: source of sample and starts.
        quiet: no progress bar.

    Returns:
        VariationalMixture with leading dimension (restarts,), in the precision of the rows. Without
        an exact pass its ELBO is nan.

    Raises:
        ValueError: on an empty stream or unusable chunks.
    """
    summary = summarise(chunks, sample_rows=sample_rows, generator=generator)
    if prior is None:
        prior = _whole_prior(summary, components, concentration)
    first = cavi(
        summary.sample,
        _sample_prior(prior, summary),
        components,
        source=summary.source,
        source_count=source_count,
        restarts=restarts * starts,
        generator=generator,
    ).best_of(starts)
    spread = summary.covariance.diagonal().sqrt()
    units = Standardisation(summary.mean, torch.where(spread > 0, spread, 1.0))
    members = torch.zeros(restarts, dtype=torch.long, device=spread.device)
    inside = units.parameters(prior.parameters(components, source_count).map(Tensor.double))
    inside = inside.map(lambda value: value.expand(restarts, *value.shape))
    parameters = units.parameters(first.parameters.map(Tensor.double))
    with block_threads(spread.device) as mapper:

        def of_chunk(chunk: Chunk, natural: Tensor, which: Tensor) -> Statistics:
            return chunk_statistics(chunk, units, natural, which, source_count, mapper)

        parameters = _stochastic(
            chunks, summary, of_chunk, inside, parameters, members, stochastic_passes, quiet
        )
        fit = VariationalMixture(**parameters._asdict(), elbo=members * torch.nan)
        if passes > 0:

            def gather(natural: Tensor, which: Tensor) -> Statistics:
                bar = progress(chunks(), label="exact pass", quiet=quiet)
                return reduce(add, (of_chunk(chunk, natural, which) for chunk in bar))

            fit = ascend(
                gather,
                members,
                inside,
                parameters,
                tolerance=tolerance,
                max_iterations=passes,
                rounding=torch.finfo(summary.sample.dtype).eps,
            )
    back = units.parameters_back(fit.parameters).map(lambda value: value.to(summary.sample.dtype))
    assert fit.elbo is not None
    return VariationalMixture(
        **back._asdict(),
        elbo=fit.elbo - summary.weight * units.spread.log().sum(),
        converged=fit.converged,
        iterations=fit.iterations,
    )


def chunk_statistics(
    chunk: Chunk,
    units: Standardisation,
    natural: Tensor,
    members: Tensor,
    source_count: int = 1,
    mapper: Map = map,
) -> Statistics:
    """Statistics of one chunk at natural parameters (F, K, P) of standardised rows.

    The unit of work of a stream, and of a cluster's worker: what it returns adds up over chunks.
    """
    columns = units.rows(chunk.rows).to(chunk.rows.dtype).mT.unsqueeze(0).contiguous()
    weights = None if chunk.weights is None else chunk.weights.to(columns.dtype).unsqueeze(0)
    source = None if chunk.source is None else chunk.source.unsqueeze(0)
    rows = Rows(columns, weights, source, source_count, store=False)
    return statistics(rows, natural, members, mapper=mapper)


def _stochastic(
    chunks: Chunks,
    summary: StreamSummary,
    of_chunk: Callable[[Chunk, Tensor, Tensor], Statistics],
    prior: Parameters,
    parameters: Parameters,
    members: Tensor,
    passes: int,
    quiet: bool,
) -> Parameters:
    """Natural-gradient steps, one a chunk."""
    moments: Tensor | None = None
    step = 0
    for chunk in _repeated(chunks, passes, quiet):
        found = of_chunk(chunk, natural_parameters(parameters, expectations(parameters)), members)
        if not bool((found.weight > 0).all()):
            continue
        # Statistics of as many rows as the stream has, if all were like this chunk.
        image = found.moments * (summary.weight / found.weight)[:, None, None]
        rate = (step + 1 + _DELAY) ** -_FORGETTING
        moments = image if moments is None else moments.lerp(image, rate)
        parameters = update(prior, moments)
        step += 1
    return parameters


def _repeated(chunks: Chunks, passes: int, quiet: bool) -> Iterator[Chunk]:
    for _ in range(passes):
        yield from progress(chunks(), label="stochastic pass", quiet=quiet)


def _whole_prior(summary: StreamSummary, components: int, concentration: float) -> MixturePrior:
    """`default_prior` of the whole stream: from rows that have its mean and covariance."""
    values, vectors = torch.linalg.eigh(summary.covariance)
    axes = (vectors * values.clamp_min(0).mul(len(values)).sqrt()).mT
    return default_prior(
        torch.cat([summary.mean + axes, summary.mean - axes]),
        components,
        concentration=concentration,
    )


def _sample_prior(prior: MixturePrior, summary: StreamSummary) -> MixturePrior:
    dtype = summary.sample.dtype
    return MixturePrior(
        *(
            value.to(dtype)
            for value in (
                prior.concentration,
                prior.mean,
                prior.mean_precision,
                prior.degrees_of_freedom,
                prior.scale,
            )
        )
    )


def _check(chunk: Chunk, before: int, dimension: int | None) -> None:
    rows = chunk.rows
    if rows.dim() != 2 or not rows.is_floating_point():
        raise ValueError(
            f"Expected chunks of floating-point rows (n, d); got {rows.dtype} of shape "
            f"{tuple(rows.shape)}"
        )
    if dimension is not None and rows.shape[-1] != dimension:
        raise ValueError(
            f"Expected rows of dimension {dimension} throughout; got {rows.shape[-1]} "
            f"from row {before}"
        )
    finite = rows.isfinite().all(-1)
    if not bool(finite.all()):
        raise ValueError(
            f"Expected finite rows; got a violation in row {before + int((~finite).nonzero()[0])}"
        )
    for name, value in (("weight", chunk.weights), ("source label", chunk.source)):
        if value is not None and value.shape != rows.shape[:1]:
            raise ValueError(
                f"Expected one {name} for each of {len(rows)} rows; got {tuple(value.shape)}"
            )
    if chunk.weights is not None and not bool(
        (chunk.weights.isfinite() & (chunk.weights >= 0)).all()
    ):
        raise ValueError(f"Expected finite weights ≥ 0; got others from row {before}")
