"""Mixture posteriors of rows larger than memory: the same ascent, with statistics summed by part.

Two kinds of pass. A *stochastic* pass steps after every window of parts, along the natural
gradient: a decent posterior after one reading. An *exact* pass adds up all parts before it steps:
its ELBO is that of all rows, never falls, and the result is that of `rbpp.mixtures.cavi` from the
same start.

The unit of work is `part_statistics`. Workers may do it in other processes or on other machines;
parts come back in order, so that sums do not depend on who did them.

Hoffman, Blei, Wang and Paisley, Stochastic variational inference, JMLR 14 (2013).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from itertools import count
from operator import add

import numpy as np
import torch
from torch import Tensor

from rbpp import validate
from rbpp.compute import Compute
from rbpp.data.moments import StreamSummary, summarise
from rbpp.data.stream import Chunk, Part, Stream
from rbpp.mixtures.ascent import ascend, update
from rbpp.mixtures.cavi import cavi, fitted_prior
from rbpp.mixtures.conjugate import MixturePrior, VariationalMixture, default_prior
from rbpp.mixtures.normal_wishart import Parameters, Standardisation, expectations
from rbpp.mixtures.posterior import MixturePosterior, draws_of
from rbpp.mixtures.sufficient import Rows, Statistics, natural_parameters, statistics
from rbpp.progress import progress
from rbpp.randomness import generator as new_generator
from rbpp.randomness import spawn
from rbpp.threads import Map, block_threads

# Step sizes (t + delay)^−forgetting of the stochastic passes: the first steps move far, the last
# average. Any forgetting in (0.5, 1] converges; 0.7 is usual.
_DELAY, _FORGETTING = 1.0, 0.7


@dataclass(frozen=True)
class Passes:
    """How often the rows of a stream are read, and what every reading does.

    Attributes:
        starts: k-means++ starts of each chain, of which it keeps the best; on the sample.
        sample_rows: rows of the sample that the chains start from.
        stochastic: readings that step after every window of parts.
        steps: windows of such a reading, at most as many as there are parts: their number and not
            that of the rows decides how far it comes.
        exact: most readings that step after all parts; they end early within `tolerance`.
        tolerance: gain per row (nats) below which a chain has converged.
        dtype: precision of the passes over the rows, by default that of the rows, on a GPU float32.
            Statistics and parameters are always accumulated in float64.
    """

    starts: int = 5
    sample_rows: int = 20_000
    stochastic: int = 1
    steps: int = 64
    exact: int = 20
    tolerance: float = 1e-6
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        for name, least in (("starts", 1), ("stochastic", 0), ("steps", 1), ("exact", 0)):
            validate.count(name, getattr(self, name), least)


def stream_posterior(
    stream: Stream,
    components: int,
    *,
    concentration: float = 1.0,
    chains: int = 4,
    draws: int = 1000,
    passes: Passes | None = None,
    compute: Compute | None = None,
) -> tuple[MixturePosterior, StreamSummary]:
    """Posterior draws of a Gaussian mixture from a stream, and what the stream holds.

    The prior is that of `fit_mixture`, its scale fitted to a sample of the rows. `log_prob` and
    `pareto_k` are nan: they would take as many readings of the rows as there are draws.

    Raises:
        ValueError: on unusable rows or options.

    >>> from rbpp.data.stream import tensor_stream
    >>> rows = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    >>> posterior, summary = stream_posterior(tensor_stream(rows, 30), 2, draws=100)
    >>> posterior.mixture.batch_shape, summary.count
    (torch.Size([4, 100]), 100)
    """
    validate.count("draws", draws)
    passes, compute = passes or Passes(), compute or Compute()
    summary = _summary(stream, passes.sample_rows, compute)
    prior = _fitted_prior(summary, components, concentration, passes.starts, compute.seed)
    fit = fit_stream(
        stream,
        components,
        summary=summary,
        prior=prior,
        chains=chains,
        passes=passes,
        compute=compute,
    ).double()
    drawn = draws_of(fit, draws, spawn(compute.seed, "draws"))
    assert fit.elbo is not None
    assert drawn.log_q is not None
    posterior = MixturePosterior(
        draws=drawn.draws,
        log_prob=torch.full_like(drawn.log_q, torch.nan),
        log_q=drawn.log_q,
        elbo=fit.elbo.cpu(),
        pareto_k=torch.full_like(fit.elbo.cpu(), torch.nan),
        engine="cavi",
        prior=prior,
        digest=summary.digest,
        variational=fit,
        settled=drawn.settled,
    )
    return posterior, summary


def fit_stream(
    stream: Stream,
    components: int,
    *,
    summary: StreamSummary | None = None,
    prior: MixturePrior | None = None,
    chains: int = 1,
    passes: Passes | None = None,
    compute: Compute | None = None,
) -> VariationalMixture:
    """Variational posterior of a Gaussian mixture from a stream of rows.

    Reads the stream once for its moments and a sample, fits the sample by `cavi` for a start, then
    makes the stochastic and the exact passes.

    Args:
        stream: parts of the rows, the same in every pass.
        components: K.
        summary: of the stream, where it is known.
        prior: by default the `default_prior` of the whole stream.
        chains: independent fits.
        passes: readings of the rows.
        compute: parts are worked on by its workers, on its device. Its checkpoint keeps what every
            pass gave: a run with the same checkpoint goes on from there.

    Returns:
        VariationalMixture with leading dimension (chains,), in the precision of the rows. Without
        an exact pass its ELBO is nan.

    Raises:
        ValueError: on an empty stream, unusable chunks or counts out of range.
    """
    validate.count("chains", chains)
    passes, compute = passes or Passes(), compute or Compute()
    if summary is None:
        summary = _summary(stream, passes.sample_rows, compute)
    if prior is None:
        prior = stream_prior(summary, components)
    parameters = _starts(summary, prior, components, chains, passes.starts, compute)
    part_device = torch.device(compute.device)
    # Other machines have devices of their own: parameters are then updated on the CPU.
    device = part_device if compute.workers is map else torch.device("cpu")
    spread = summary.covariance.diagonal().sqrt()
    units = Standardisation(summary.mean, torch.where(spread > 0, spread, 1.0))
    inside = units.parameters(prior.parameters(components).map(Tensor.double))
    inside = inside.map(lambda value: value.expand(chains, *value.shape).to(device))
    parameters = units.parameters(parameters).map(lambda value: value.to(device))
    members = torch.zeros(chains, dtype=torch.long, device=device)
    dtype = passes.dtype or (torch.float32 if part_device.type == "cuda" else None)
    work = partial(part_statistics, units=units, device=part_device, dtype=dtype)
    workers, checkpoint, quiet = compute.workers, compute.checkpoint, not compute.progress

    def gather(parts: Stream, natural: Tensor, which: Tensor, label: str = "") -> Statistics:
        found = workers(partial(work, natural=natural, members=which), parts)
        return reduce(add, progress(found, len(parts), label, quiet or not label))

    size = -(-len(stream) // passes.steps)
    windows = [stream[first : first + size] for first in range(0, len(stream), size)]
    made: dict[str, np.ndarray] = {}
    for number in range(1, passes.stochastic + 1):
        step = partial(
            _stochastic_pass,
            windows,
            gather,
            inside,
            parameters,
            made,
            members,
            summary.weight,
            compute,
        )
        made = checkpoint.once(f"stochastic-{number:03}", step)
        parameters = update(inside, torch.from_numpy(made["moments"]).to(device))
    fit = VariationalMixture(**parameters._asdict(), elbo=members * torch.nan)
    if passes.exact > 0:
        number_of = count(1)

        def whole(natural: Tensor, which: Tensor) -> Statistics:
            arrays = checkpoint.once(
                f"exact-{next(number_of):03}",
                lambda: gather(stream, natural, which, "exact pass").arrays(),
            )
            return Statistics.from_arrays(arrays).to(device)

        fit = ascend(
            whole,
            members,
            inside,
            parameters,
            tolerance=passes.tolerance,
            max_iterations=passes.exact,
            rounding=torch.finfo(dtype or summary.sample.dtype).eps,
        )
    units = units.to(device)
    back = units.parameters_back(fit.parameters).map(lambda value: value.to(summary.sample.dtype))
    assert fit.elbo is not None
    return VariationalMixture(
        **back._asdict(),
        elbo=fit.elbo - summary.weight * units.spread.log().sum(),
        converged=fit.converged,
        iterations=fit.iterations,
    )


def part_statistics(
    part: Part,
    *,
    units: Standardisation,
    natural: Tensor,
    members: Tensor,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Statistics:
    """Statistics of one part at natural parameters (F, K, P) of standardised rows.

    The unit of work of a stream, and of a cluster's worker: what it returns adds up over parts, and
    is where `natural` is.
    """
    device = device or natural.device
    units = units.to(device)
    inside, which = natural.to(device), members.to(device)
    with block_threads(device) as mapper:
        found = (
            chunk_statistics(chunk, units, inside, which, device, dtype, mapper)
            for chunk in part()
            if len(chunk.rows)
        )
        none = Statistics(
            torch.zeros_like(inside, dtype=torch.float64),
            inside.new_zeros(len(inside), dtype=torch.float64),
            inside.new_zeros(len(inside), dtype=torch.float64),
        )
        return reduce(add, found, none).to(natural.device)


def chunk_statistics(
    chunk: Chunk,
    units: Standardisation,
    natural: Tensor,
    members: Tensor,
    device: torch.device,
    dtype: torch.dtype | None,
    mapper: Map = map,
) -> Statistics:
    """Those of one chunk. Its rows are copied to the device once, here."""
    dtype = dtype or chunk.rows.dtype
    given = chunk.rows.to(device)
    columns = units.rows(given).to(dtype).mT.unsqueeze(0).contiguous()
    weights = None if chunk.weights is None else chunk.weights.to(columns).unsqueeze(0)
    rows = Rows(columns, weights, store=False)
    return statistics(rows, natural, members, mapper=mapper)


def _summary(stream: Stream, sample_rows: int, compute: Compute) -> StreamSummary:
    """`summarise`, once per checkpoint."""
    seed = spawn(compute.seed, "sample")

    def work() -> dict[str, np.ndarray]:
        found = summarise(stream, sample_rows=sample_rows, seed=seed, mapper=compute.workers)
        return found.arrays()

    return StreamSummary.from_arrays(compute.checkpoint.once("summary", work))


def stream_prior(
    summary: StreamSummary, components: int, concentration: float = 1.0
) -> MixturePrior:
    """`default_prior` of a whole stream: from rows that have its mean and covariance."""
    values, vectors = torch.linalg.eigh(summary.covariance)
    axes = (vectors * values.clamp_min(0).mul(len(values)).sqrt()).mT
    return default_prior(
        torch.cat([summary.mean + axes, summary.mean - axes]),
        components,
        concentration=concentration,
    )


def _stochastic_pass(
    windows: Sequence[Stream],
    gather: Callable[[Stream, Tensor, Tensor], Statistics],
    prior: Parameters,
    parameters: Parameters,
    before: Mapping[str, np.ndarray],
    members: Tensor,
    weight: float,
    compute: Compute,
) -> dict[str, np.ndarray]:
    """Natural-gradient steps, one a window; `before` is what the last such pass returned."""
    moments = torch.from_numpy(before["moments"]).to(members.device) if before else None
    step = int(before["step"]) if before else 0
    for window in progress(windows, len(windows), "stochastic pass", not compute.progress):
        natural = natural_parameters(parameters, expectations(parameters))
        found = gather(window, natural, members)
        if not bool((found.weight > 0).all()):
            continue
        # Statistics of as many rows as the stream has, were all like this window.
        image = found.moments * (weight / found.weight)[:, None, None]
        rate = (step + 1 + _DELAY) ** -_FORGETTING
        moments = image if moments is None else moments.lerp(image, rate)
        parameters = update(prior, moments)
        step += 1
    assert moments is not None  # the stream has weight
    return {"moments": moments.cpu().numpy(), "step": np.asarray(step)}


def _starts(
    summary: StreamSummary,
    prior: MixturePrior,
    components: int,
    chains: int,
    starts: int,
    compute: Compute,
) -> Parameters:
    """Where the chains begin: the best of several fits to the sample, each."""
    work = partial(_start, summary, prior, components, starts, compute.seed)

    def all_chains() -> dict[str, np.ndarray]:
        found = list(compute.workers(work, range(chains)))
        return {
            name: torch.cat([getattr(part, name) for part in found]).numpy()
            for name in Parameters._fields
        }

    arrays = compute.checkpoint.once("starts", all_chains)
    return Parameters(**{name: torch.from_numpy(arrays[name]) for name in Parameters._fields})


def _start(
    summary: StreamSummary,
    prior: MixturePrior,
    components: int,
    starts: int,
    seed: int,
    chain: int,
) -> Parameters:
    fit = cavi(
        summary.sample,
        prior.to(summary.sample),
        components,
        restarts=starts,
        generator=new_generator(spawn(seed, "start", chain)),
    ).best_of(starts)
    return fit.parameters.map(Tensor.double)


def _fitted_prior(
    summary: StreamSummary, components: int, concentration: float, starts: int, seed: int
) -> MixturePrior:
    """The default prior of all rows, its scale multiplied by what fits the sample."""
    sample = summary.sample.double()
    fitted = fitted_prior(
        sample,
        components,
        concentration=concentration,
        starts=starts,
        generator=new_generator(spawn(seed, "prior")),
    )
    factor: Tensor = fitted.scale[0, 0] / default_prior(sample, components).scale[0, 0]
    whole = stream_prior(summary, components, concentration)
    return replace(whole, scale=whole.scale * factor)
