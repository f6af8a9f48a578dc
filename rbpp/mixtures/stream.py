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

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial, reduce
from itertools import count
from operator import add

import numpy as np
import torch
from torch import Tensor

from rbpp import validate
from rbpp.compute import Compute
from rbpp.data.moments import StreamSummary, summarise
from rbpp.data.stream import Part, Stream
from rbpp.mixtures.ascent import Ascent, ascend, update
from rbpp.mixtures.cavi import cavi, fitted_prior
from rbpp.mixtures.conjugate import MixturePrior, VariationalMixture, default_prior
from rbpp.mixtures.normal_wishart import Parameters, expectations
from rbpp.mixtures.posterior import MixturePosterior, draws_of
from rbpp.mixtures.standardisation import Standardisation
from rbpp.mixtures.sufficient import Rows, Statistics, natural_parameters, statistics
from rbpp.randomness import generator, spawn
from rbpp.threads import block_threads

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
    validate.count("chains", chains)
    passes, compute = passes or Passes(), compute or Compute()
    summary = _summary(stream, passes.sample_rows, compute)
    source = compute.generator("prior")
    prior = _fitted_prior(summary, components, concentration, passes.starts, source)
    fit = _StreamAscent(stream, summary, prior, components, passes, compute).fit(chains).double()
    drawn = draws_of(fit, draws, spawn(compute.seed, "draws"))
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


class _StreamAscent:
    """The ascent of some chains on one stream, in units of its rows' spread."""

    def __init__(
        self,
        stream: Stream,
        summary: StreamSummary,
        prior: MixturePrior,
        components: int,
        passes: Passes,
        compute: Compute,
    ) -> None:
        self.stream, self.summary, self.passes, self.compute = stream, summary, passes, compute
        self.prior, self.components = prior, components
        self.part_device = torch.device(compute.device)
        # Other machines have devices of their own: parameters are then updated on the CPU.
        self.device = self.part_device if compute.workers is map else torch.device("cpu")
        self.dtype = passes.dtype or (torch.float32 if self.part_device.type == "cuda" else None)
        spread = summary.covariance.diagonal().sqrt()
        self.units = Standardisation(summary.mean, torch.where(spread > 0, spread, 1.0))
        inside = self.units.parameters(prior.parameters(components).map(Tensor.double))
        self.inside = inside.map(lambda value: value.to(self.device))

    def fit(self, chains: int) -> VariationalMixture:
        """All passes, from the best fits to the sample."""
        prior = self.inside.map(lambda value: value.expand(chains, *value.shape))
        parameters = self.units.parameters(self._starts(chains)).map(lambda v: v.to(self.device))
        members = torch.zeros(chains, dtype=torch.long, device=self.device)
        made: dict[str, np.ndarray] = {}
        for number in range(1, self.passes.stochastic + 1):
            step = partial(self._stochastic_pass, prior, parameters, members, made)
            made = self.compute.checkpoint.once(f"stochastic-{number:03}", step)
            parameters = update(prior, torch.from_numpy(made["moments"]).to(self.device))
        fit = VariationalMixture(**vars(parameters), elbo=members * torch.nan)
        if self.passes.exact > 0:
            fit = ascend(
                self._exact_pass(),
                members,
                prior,
                parameters,
                Ascent(tolerance=self.passes.tolerance, max_iterations=self.passes.exact),
                rounding=torch.finfo(self.dtype or self.summary.sample.dtype).eps,
            )
        units = self.units.map(lambda value: value.to(self.device))
        back = units.parameters_back(fit).map(lambda value: value.to(self.summary.sample.dtype))
        jacobian = self.summary.weight * units.spread.log().sum()
        return replace(fit, **vars(back), elbo=fit.elbo - jacobian)

    def _starts(self, chains: int) -> Parameters:
        """Where the chains begin: the best of several fits to the sample, each."""
        compute, names = self.compute, [field.name for field in fields(Parameters)]
        given = self.summary, self.prior, self.components, self.passes.starts, compute.seed
        work = partial(_start, *given)

        def all_chains() -> dict[str, np.ndarray]:
            found = list(compute.workers(work, range(chains)))
            joined = (torch.cat(values).numpy() for values in zip(*found, strict=True))
            return dict(zip(names, joined, strict=True))

        arrays = compute.checkpoint.once("starts", all_chains)
        return Parameters(*(torch.from_numpy(arrays[name]) for name in names))

    def _gather(
        self, parts: Stream, natural: Tensor, members: Tensor, label: str = ""
    ) -> Statistics:
        """Statistics of parts of the stream, by the workers."""
        work = partial(
            part_statistics,
            self.units,
            natural,
            members,
            device=self.part_device,
            dtype=self.dtype,
        )
        found = self.compute.workers(work, parts)
        if label:
            found = self.compute.shown(found, len(parts), label)
        return reduce(add, found)

    def _exact_pass(self) -> Callable[[Tensor, Tensor], Statistics]:
        """Reads the whole stream at every call, and keeps what it found."""
        number = count(1)

        def gather(natural: Tensor, members: Tensor) -> Statistics:
            arrays = self.compute.checkpoint.once(
                f"exact-{next(number):03}",
                lambda: self._gather(self.stream, natural, members, "exact pass").arrays(),
            )
            return Statistics.from_arrays(arrays).to(self.device)

        return gather

    def _stochastic_pass(
        self,
        prior: Parameters,
        parameters: Parameters,
        members: Tensor,
        before: Mapping[str, np.ndarray],
    ) -> dict[str, np.ndarray]:
        """Natural-gradient steps, one a window; `before` is what the last such pass returned."""
        moments = torch.from_numpy(before["moments"]).to(self.device) if before else None
        step = int(before["step"]) if before else 0
        size = -(-len(self.stream) // self.passes.steps)
        starts = range(0, len(self.stream), size)
        for first in self.compute.shown(starts, len(starts), "stochastic pass"):
            natural = natural_parameters(parameters, expectations(parameters))
            found = self._gather(self.stream[first : first + size], natural, members)
            if not bool((found.weight > 0).all()):
                continue
            # Statistics of as many rows as the stream has, were all like this window.
            image = found.moments * (self.summary.weight / found.weight)[:, None, None]
            rate = (step + 1 + _DELAY) ** -_FORGETTING
            moments = image if moments is None else moments.lerp(image, rate)
            parameters = update(prior, moments)
            step += 1
        assert moments is not None  # the stream has weight
        return {"moments": moments.cpu().numpy(), "step": np.asarray(step)}


def part_statistics(
    units: Standardisation,
    natural: Tensor,
    members: Tensor,
    part: Part,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Statistics:
    """Statistics of one part at natural parameters (F, K, P) of standardised rows.

    The unit of work of a stream, and of a cluster's worker: what it returns adds up over parts, and
    is where `natural` is.
    """
    device = device or natural.device
    units = units.map(lambda value: value.to(device))
    inside, which = natural.to(device), members.to(device)
    none = inside.new_zeros(len(inside), dtype=torch.float64)
    total = Statistics(torch.zeros_like(inside, dtype=torch.float64), none, none)
    with block_threads(device) as mapper:
        for chunk in part():
            if not len(chunk.rows):
                continue
            given = chunk.rows.to(device)  # once, here
            columns = units.rows(given).to(dtype or given.dtype).mT.unsqueeze(0).contiguous()
            weights = None if chunk.weights is None else chunk.weights.to(columns).unsqueeze(0)
            rows = Rows(columns, weights, store=False)
            total = total + statistics(rows, inside, which, mapper=mapper)
    return total.to(natural.device)


def _summary(stream: Stream, sample_rows: int, compute: Compute) -> StreamSummary:
    """`summarise`, once per checkpoint."""

    def work() -> dict[str, np.ndarray]:
        return summarise(stream, sample_rows, compute.spawn("sample")).arrays()

    return StreamSummary.from_arrays(compute.checkpoint.once("summary", work))


def stream_prior(
    summary: StreamSummary, components: int, concentration: float = 1.0
) -> MixturePrior:
    """`default_prior` of a whole stream: from rows that have its mean and covariance."""
    values, vectors = torch.linalg.eigh(summary.covariance)
    axes = (vectors * values.clamp_min(0).mul(len(values)).sqrt()).mT
    rows = torch.cat([summary.mean + axes, summary.mean - axes])
    return default_prior(rows, components, concentration)


def _fitted_prior(
    summary: StreamSummary,
    components: int,
    concentration: float,
    starts: int,
    generator: torch.Generator,
) -> MixturePrior:
    """The default prior of all rows, its scale multiplied by what fits the sample."""
    sample = summary.sample.double()
    fitted = fitted_prior(
        sample, components, generator, concentration, ascent=Ascent(starts=starts)
    )
    factor: Tensor = fitted.scale[0, 0] / default_prior(sample, components).scale[0, 0]
    whole = stream_prior(summary, components, concentration)
    return replace(whole, scale=whole.scale * factor)


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
        generator=generator(spawn(seed, "start", chain)),
    )
    return fit.best_of(starts).map(Tensor.double)
