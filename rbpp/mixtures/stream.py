"""Mixture posteriors of rows larger than memory: the same ascent, with statistics summed by part.

Three kinds of pass. A *stochastic* pass steps after every window of parts, along the natural
gradient: a decent posterior after one reading. An *incremental* pass steps as often, and replaces
what the same window gave before: no step size, no noise, and as many steps as windows in a reading.
An *exact* pass adds up all parts before it steps: its ELBO is that of all rows, never falls, and
the result is that of `rbpp.mixtures.cavi` from the same start.

The unit of work is `part_statistics`. A `mapper` may do it in other processes or on other machines;
parts come back in order, so that sums do not depend on who did them.

Hoffman, Blei, Wang and Paisley, Stochastic variational inference, JMLR 14 (2013). Neal and Hinton,
A view of the EM algorithm that justifies incremental, sparse, and other variants (1998).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from itertools import count
from operator import add

import numpy as np
import torch
from torch import Tensor

from rbpp.checkpoint import Checkpoint
from rbpp.data.moments import StreamSummary, summarise
from rbpp.data.stream import Chunk, Part, Stream
from rbpp.mixtures.ascent import ascend, update
from rbpp.mixtures.cavi import cavi
from rbpp.mixtures.conjugate import MixturePrior, VariationalMixture, default_prior
from rbpp.mixtures.normal_wishart import Parameters, expectations
from rbpp.mixtures.standardisation import Standardisation
from rbpp.mixtures.sufficient import Rows, Statistics, natural_parameters, statistics
from rbpp.progress import progress
from rbpp.randomness import generator as new_generator
from rbpp.randomness import spawn
from rbpp.threads import Map, block_threads

# Step sizes (t + delay)^−forgetting of the stochastic passes: the first steps move far, the last
# average. Any forgetting in (0.5, 1] converges; 0.7 is usual.
_DELAY, _FORGETTING = 1.0, 0.7
# Steps of a stochastic or incremental pass, whatever the number of rows: what decides how far it
# comes. On a cluster the parts of a step are done at once.
STEPS = 64
SAMPLE_ROWS = 20_000


def fit_stream(
    stream: Stream,
    components: int,
    *,
    summary: StreamSummary | None = None,
    prior: MixturePrior | None = None,
    concentration: float = 1.0,
    restarts: int = 1,
    starts: int = 5,
    stochastic_passes: int = 1,
    incremental_passes: int = 0,
    steps: int = STEPS,
    passes: int = 20,
    tolerance: float = 1e-6,
    sample_rows: int = SAMPLE_ROWS,
    seed: int = 0,
    device: torch.device | str = "cpu",
    part_device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    mapper: Map = map,
    checkpoint: Checkpoint | None = None,
    quiet: bool = True,
) -> VariationalMixture:
    """Posterior of a Gaussian mixture from a stream of rows.

    Reads the stream once for its moments and a sample, fits the sample by `cavi` for a start, then
    makes the stochastic, the incremental and the exact passes.

    Args:
        stream: parts of the rows, the same in every pass.
        components: K.
        summary: of the stream, where it is known.
        prior: by default the `default_prior` of the whole stream.
        concentration: of the default prior's weights.
        restarts: independent fits, each started from the best of `starts` fits to the sample.
        starts: k-means++ starts per restart.
        stochastic_passes, incremental_passes: readings that step after every window of parts.
        steps: windows of such a pass, at most as many as there are parts.
        passes: most readings that step after all parts; they end early within `tolerance`.
        tolerance: gain per row (nats) below which a restart has converged.
        sample_rows: rows of the sample.
        seed: of sample and starts.
        device: where parameters are updated.
        part_device: where the rows of a part are worked on, by whoever does that; by default
            `device`.
        dtype: precision of the passes over the rows, by default that of the rows, on a GPU float32.
            Statistics and parameters are always accumulated in float64.
        mapper: `map`, or one that works on several parts at once, such as that of a cluster.
        checkpoint: keeps what every pass gave; a run with the same checkpoint goes on from there.
        quiet: no progress bar.

    Returns:
        VariationalMixture with leading dimension (restarts,), in the precision of the rows. Without
        an exact pass its ELBO is nan.

    Raises:
        ValueError: on an empty stream, unusable chunks or counts out of range.
    """
    _check_counts(restarts, starts, stochastic_passes, incremental_passes, steps, passes)
    checkpoint = checkpoint or Checkpoint()
    if summary is None:
        summary = kept_summary(
            stream, sample_rows=sample_rows, seed=seed, mapper=mapper, checkpoint=checkpoint
        )
    if prior is None:
        prior = stream_prior(summary, components, concentration)
    device = torch.device(device)
    parameters = _starts(summary, prior, components, restarts, starts, seed, mapper, checkpoint)
    spread = summary.covariance.diagonal().sqrt()
    units = Standardisation(summary.mean, torch.where(spread > 0, spread, 1.0))
    inside = units.parameters(prior.parameters(components).map(Tensor.double))
    inside = inside.map(lambda value: value.expand(restarts, *value.shape).to(device))
    parameters = units.parameters(parameters).map(lambda value: value.to(device))
    members = torch.zeros(restarts, dtype=torch.long, device=device)
    part_device = device if part_device is None else torch.device(part_device)
    dtype = dtype or (torch.float32 if part_device.type == "cuda" else None)
    work = partial(part_statistics, units=units, device=part_device, dtype=dtype)

    def gather(parts: Stream, natural: Tensor, which: Tensor, label: str = "") -> Statistics:
        found = mapper(partial(work, natural=natural, members=which), parts)
        return reduce(add, progress(found, len(parts), label, quiet or not label))

    stepping = _Stepping(stream, steps, gather, inside, members, summary.weight, checkpoint, quiet)
    parameters = stepping.stochastic(parameters, stochastic_passes)
    parameters = stepping.incremental(parameters, incremental_passes)
    fit = VariationalMixture(**parameters._asdict(), elbo=members * torch.nan)
    if passes > 0:
        number = count(1)

        def whole(natural: Tensor, which: Tensor) -> Statistics:
            arrays = checkpoint.once(
                f"exact-{next(number):03}",
                lambda: gather(stream, natural, which, "exact pass").arrays(),
            )
            return Statistics.from_arrays(arrays).to(device)

        fit = ascend(
            whole,
            members,
            inside,
            parameters,
            tolerance=tolerance,
            max_iterations=passes,
            rounding=torch.finfo(dtype or summary.sample.dtype).eps,
        )
    units = Standardisation(*(value.to(device) for value in units))
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
    units = Standardisation(*(value.to(device) for value in units))
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


def kept_summary(
    stream: Stream, *, sample_rows: int, seed: int, mapper: Map, checkpoint: Checkpoint
) -> StreamSummary:
    """`summarise`, once per checkpoint."""
    return StreamSummary.from_arrays(
        checkpoint.once(
            "summary",
            lambda: summarise(
                stream, sample_rows=sample_rows, seed=spawn(seed, "sample"), mapper=mapper
            ).arrays(),
        )
    )


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


class _Stepping:
    """Passes that step after every window of parts."""

    def __init__(
        self,
        stream: Stream,
        steps: int,
        gather: Callable[[Stream, Tensor, Tensor], Statistics],
        prior: Parameters,
        members: Tensor,
        weight: float,
        checkpoint: Checkpoint,
        quiet: bool,
    ) -> None:
        size = -(-len(stream) // steps)
        self.windows = [stream[first : first + size] for first in range(0, len(stream), size)]
        self.gather, self.prior, self.members = gather, prior, members
        self.weight, self.checkpoint, self.quiet = weight, checkpoint, quiet
        self.moments: Tensor | None = None  # what the current parameters were updated from
        self.step = 0

    def stochastic(self, parameters: Parameters, passes: int) -> Parameters:
        """Natural-gradient steps, one a window."""
        for number in range(1, passes + 1):
            work = partial(self._stochastic_pass, parameters)
            arrays = self.checkpoint.once(f"stochastic-{number:03}", work)
            self.moments = torch.from_numpy(arrays["moments"]).to(self.members.device)
            self.step = int(arrays["step"])
            parameters = update(self.prior, self.moments)
        return parameters

    def _stochastic_pass(self, parameters: Parameters) -> dict[str, np.ndarray]:
        moments, step = self.moments, self.step
        for window in progress(self.windows, len(self.windows), "stochastic pass", self.quiet):
            found = self._at(parameters, window)
            if not bool((found.weight > 0).all()):
                continue
            # Statistics of as many rows as the stream has, were all like this window.
            image = found.moments * (self.weight / found.weight)[:, None, None]
            rate = (step + 1 + _DELAY) ** -_FORGETTING
            moments = image if moments is None else moments.lerp(image, rate)
            parameters = update(self.prior, moments)
            step += 1
        assert moments is not None  # the stream has weight
        return {"moments": moments.cpu().numpy(), "step": np.asarray(step)}

    def incremental(self, parameters: Parameters, passes: int) -> Parameters:
        """Steps by the statistics of all windows, of which one is new at a time."""
        memory: Tensor | None = None
        for number in range(1, passes + 1):
            work = partial(self._incremental_pass, parameters, memory)
            arrays = self.checkpoint.once(f"incremental-{number:03}", work)
            memory = torch.from_numpy(arrays["memory"]).to(self.members.device)
            self.moments = memory.sum(0)
            parameters = update(self.prior, self.moments)
        return parameters

    def _incremental_pass(
        self, parameters: Parameters, memory: Tensor | None
    ) -> dict[str, np.ndarray]:
        kept: list[Tensor] = []
        total = self.moments
        windows = progress(self.windows, len(self.windows), "incremental pass", self.quiet)
        for index, window in enumerate(windows):
            found = self._at(parameters, window)
            kept.append(found.moments)
            if not bool((found.weight > 0).all()):
                continue
            if total is None:
                total = found.moments * (self.weight / found.weight)[:, None, None]
            elif memory is None:  # what the estimate of all rows holds for these
                total = total - total * (found.weight / self.weight)[:, None, None] + kept[-1]
            else:
                total = total - memory[index] + kept[-1]
            parameters = update(self.prior, total)
        return {"memory": torch.stack(kept).cpu().numpy()}

    def _at(self, parameters: Parameters, window: Stream) -> Statistics:
        natural = natural_parameters(parameters, expectations(parameters))
        return self.gather(window, natural, self.members)


def _starts(
    summary: StreamSummary,
    prior: MixturePrior,
    components: int,
    restarts: int,
    starts: int,
    seed: int,
    mapper: Map,
    checkpoint: Checkpoint,
) -> Parameters:
    """Where the restarts begin: the best of several fits to the sample, each."""
    work = partial(
        _start,
        summary=summary,
        prior=prior,
        components=components,
        starts=starts,
        seed=seed,
    )

    def all_restarts() -> dict[str, np.ndarray]:
        found = list(mapper(work, range(restarts)))
        return {
            name: torch.cat([getattr(part, name) for part in found]).numpy()
            for name in Parameters._fields
        }

    arrays = checkpoint.once("starts", all_restarts)
    return Parameters(**{name: torch.from_numpy(arrays[name]) for name in Parameters._fields})


def _start(
    restart: int,
    *,
    summary: StreamSummary,
    prior: MixturePrior,
    components: int,
    starts: int,
    seed: int,
) -> Parameters:
    fit = cavi(
        summary.sample,
        prior.to(summary.sample),
        components,
        restarts=starts,
        generator=new_generator(spawn(seed, "start", restart)),
    ).best_of(starts)
    return fit.parameters.map(Tensor.double)


def _check_counts(
    restarts: int,
    starts: int,
    stochastic_passes: int,
    incremental_passes: int,
    steps: int,
    passes: int,
) -> None:
    for name, value, least in (
        ("restarts", restarts, 1),
        ("starts", starts, 1),
        ("stochastic_passes", stochastic_passes, 0),
        ("incremental_passes", incremental_passes, 0),
        ("steps", steps, 1),
        ("passes", passes, 0),
    ):
        if value < least:
            raise ValueError(f"Expected {name} ≥ {least}; got {value}")
