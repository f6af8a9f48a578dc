"""The log density of a process given data, as a batched function of an unconstrained vector.

What gradient-based inference needs of a Pyro model, prepared once:

- latent sites that no observed site depends on are left out (they have their prior);
- an output that the data see through additive normal noise alone is integrated out in closed form;
- discrete latent sites are summed out;
- normal sites, of vectors too, whose scale is latent are non-centred, since their density has a
  pole otherwise;
- every other latent site is mapped to unconstrained coordinates by `biject_to`.

Many vectors are evaluated in one run of the model: dimension −4 holds them, −3 the data sets that
share a world, −2 and −1 are the process's own plates.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

import pyro
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from rbpp.compute import Compute
from rbpp.posterior.evaluation import Enough, Evaluation
from rbpp.posterior.limit import NEVER, Limit
from rbpp.posterior.normals import block_length
from rbpp.posterior.recorded import Recorded
from rbpp.posterior.sites import prepare
from rbpp.processes.handlers import running
from rbpp.processes.process import Process, draw

# Numbers in one run of the model: more vectors at once save Python time, and cost page faults where
# rows meet components.
_RUN_ELEMENTS = 2**22
# Draws of the prior that show what is the same in every world.
_LOOKS = 3


class ConditionedDensity:
    """log p(data, latent sites) as a function of unconstrained vectors (B, D).

    Args:
        process: at sizes that fit the data (`rbpp.posterior.sizes.fit_sizes`).
        data: site to rows (rows, …) or data sets (R, rows, …), as a plain run of the model has it.
        keep: latent chain sites that are wanted in the posterior though nothing else needs them.
        compute: device, and seed of the traces by which the process is looked at.

    Raises:
        ValueError: if a site is unknown, has another shape than the data, cannot be conditioned
            (deterministic), or is discrete and cannot be enumerated.
    """

    def __init__(
        self,
        process: Process,
        data: Mapping[str, Tensor],
        keep: Sequence[str] = (),
        compute: Compute | None = None,
    ) -> None:
        compute = Compute.of(compute)
        self.process, self.device = process, compute.device
        self.prepared, self.observed, self.constant = prepare(process, data, keep, compute)
        self.data_sets = next(iter(self.observed.values())).shape[1]
        elements = sum(value.numel() for value in self.observed.values()) + self.prepared.size
        self.at_once = max(1, _RUN_ELEMENTS // (32 * max(1, elements)))
        # Found by looking: rows in succession that have one covariance, observed sites whose
        # density is the same in every world, and its value; whether noise moves all rows alike.
        self.blocks: dict[str, int] = {}
        self.fixed: frozenset[str] = frozenset()
        self.fixed_part = 0.0
        self.shared_shift: bool | None = None  # of a collapsed output
        if self.size:
            self._look(compute.seed)
        self.recorded = Recorded(
            self._differentiated,
            fresh=lambda count: self.prior_vectors(count, compute.seed),
            within=lambda: running(0, compute.device),
        )

    def _look(self, seed: int) -> None:
        """What is the same in every world: blocks of rows with one covariance, whole densities."""
        vectors = self.prior_vectors(_LOOKS, seed)
        with torch.no_grad():
            try:
                run = self._run(vectors, all_rows=True)
            except (ValueError, RuntimeError):  # nothing is known of a world without a density
                return
        lengths = {name: block_length(one) for name, one in run.distributions.items()}
        self.blocks = {name: length for name, length in lengths.items() if length > 1}
        if not self.prepared.enumerated:
            self.fixed = frozenset(
                name
                for name, found in run.likelihood.items()
                if bool(found.isfinite().all()) and bool((found == found[:1]).all())
            )
            self.fixed_part = sum(float(run.likelihood[name][0].sum()) for name in self.fixed)

    @property
    def size(self) -> int:
        """Length D of the vector."""
        return self.prepared.size

    def __call__(self, vectors: Tensor) -> Tensor:
        """log p(data, latents) and the log Jacobian of the map to unconstrained space: (B,).

        −∞ where the model cannot be evaluated, as where a covariance overflows.
        """
        return torch.cat([self._total(part) for part in vectors.split(self.at_once)])

    def evaluate(
        self, vectors: Tensor, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Values of the latent sites, discrete ones drawn, and log densities of observed rows.

        Returns:
            Site to (B, data sets or 1, *shape of a plain run); observed site to (B, data sets,
            rows), given the latent values.
        """
        parts = []
        with torch.no_grad():
            for part in vectors.split(self.at_once):
                run = self._run(part, all_rows=True)
                if self.prepared.enumerated:
                    run = self._run(part, run.drawn(generator), all_rows=True)
                latent = (*self.prepared.names, *self.prepared.enumerated)
                outer = len(part), self.data_sets
                likelihood = {
                    name: found.expand(*outer, *found.shape[-2:]).flatten(-2)
                    for name, found in run.likelihood.items()
                }
                parts.append(({name: self._plain(run, name) for name in latent}, likelihood))
        values, likelihoods = zip(*parts, strict=True)
        return joined(values), joined(likelihoods)

    def _plain(self, run: Evaluation, name: str) -> Tensor:
        site = self.process.sites[name]
        sets = self.data_sets if site.in_chain else 1
        shape = (run.batch, sets, *(1,) * site.padding, *site.shape)
        return run.values[name].expand(shape).reshape(run.batch, sets, *site.shape)

    def gradient(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Value (B,) and gradient (B, D); −∞ and zero where the density vanishes or is nan."""
        parts = [self._with_slope(part) for part in vectors.detach().split(self.at_once)]
        value, slope = (torch.cat(each) for each in zip(*parts, strict=True))
        fine = value.isfinite() & slope.isfinite().all(-1)
        return (
            torch.where(fine, value, -math.inf),
            torch.where(fine.unsqueeze(-1), slope, 0.0),
        )

    def _with_slope(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        try:
            return self.recorded(vectors)
        except (ValueError, RuntimeError):  # one vector far out spoils a whole batch
            if len(vectors) == 1:
                return vectors.sum(-1) * 0 - math.inf, torch.zeros_like(vectors)
            halves = [self._with_slope(half) for half in vectors.tensor_split(2)]
            return torch.cat([one[0] for one in halves]), torch.cat([one[1] for one in halves])

    def _differentiated(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        variable = vectors.detach().requires_grad_(True)
        with torch.enable_grad():
            value = self._run(variable).total()
            (slope,) = torch.autograd.grad(value.sum(), variable)
        return value.detach(), slope

    def hessian(self, vector: Tensor, limit: Limit = NEVER) -> Tensor | None:
        """Second derivatives (D, D) at one vector; None where they would take beyond the limit."""
        rows: list[Tensor] = []
        parts = torch.arange(self.size, device=vector.device).split(self.at_once)
        begin = time.monotonic()
        for done, index in enumerate(parts):
            each = (time.monotonic() - begin) / max(1, done)
            if not limit.allows(each * (len(parts) - done)):
                return None
            rows.append(self.times_hessian(vector, one_hot(index, self.size).to(vector)))
        matrix = torch.cat(rows)
        return (matrix + matrix.mT) / 2

    def times_hessian(self, vector: Tensor, directions: Tensor) -> Tensor:
        """Directions (N, D) times the second derivatives at one vector: (N, D)."""
        rows = []
        for part in directions.split(self.at_once):
            points = vector.detach().expand(len(part), -1).clone().requires_grad_(True)
            with torch.enable_grad():
                (slope,) = torch.autograd.grad(self(points).sum(), points, create_graph=True)
                (row,) = torch.autograd.grad((slope * part).sum(), points)
            rows.append(row)
        return torch.cat(rows)

    def of_rows(self, vectors: Tensor, rows: int, generator: torch.Generator) -> Tensor:
        """An unbiased estimate of the density (B,) from some of the observed rows, drawn anew.

        Raises:
            ValueError: if rows have latent sites of their own, or discrete sites are summed out.
        """
        plates = {}
        for name in self.observed:
            site = self.process.sites[name]
            count = site.rows
            if site.plates and rows < count:
                plates[site.plates[0]] = torch.randperm(count, generator=generator)[:rows]
        own = [n for n in self.prepared.names if set(self.process.sites[n].plates) & set(plates)]
        if own or self.prepared.enumerated:
            raise ValueError(
                "Expected batch_rows where rows share all latent sites; got rows with "
                f"{', '.join([*own, *self.prepared.enumerated])} of their own"
            )
        return self._run(vectors, rows=plates).total()

    def prior_vectors(
        self, count: int, seed: int, placed: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Vectors (count, D) of draws from the prior: where optimisers start.

        Args:
            count, seed: number of vectors, and what decides them.
            placed: values (count, *shape of a plain run) of world sites in place of the drawn ones,
                finite in unconstrained space or left as drawn.
        """
        sets, parts = self.data_sets, []
        names = self.prepared.names
        run = draw(self.process, (count, sets), Compute(seed=seed), until=names)
        for latent in self.prepared.latents:
            distribution, value = run.distributions[latent.name], run.values[latent.name]
            free = latent.freed(distribution, value)
            if placed and latent.name in placed:
                own = latent.site.batched(placed[latent.name].unsqueeze(1))
                own = latent.freed(distribution, own)
                free = torch.where(own.isfinite(), own, free)
            own_sets = sets if latent.per_data_set else 1
            parts.append(free.expand(count, own_sets, *latent.shape).flatten(1))
        return torch.cat(parts, -1).to(self.device)

    def _total(self, vectors: Tensor) -> Tensor:
        try:
            return self._run(vectors).total()
        except (ValueError, RuntimeError):  # one vector far out spoils a whole batch
            if len(vectors) == 1:
                return vectors.sum(-1) * 0 - math.inf
            half = len(vectors) // 2
            return torch.cat([self._total(vectors[:half]), self._total(vectors[half:])])

    def _run(
        self,
        vectors: Tensor,
        discrete: Mapping[str, Tensor] | None = None,
        rows: Mapping[str, Tensor] | None = None,
        *,
        all_rows: bool = False,
    ) -> Evaluation:
        run = Evaluation(self, vectors, discrete, rows, all_rows)
        with running(0, self.device), pyro.validation_enabled(False), suppress(Enough), run:
            self.process()
        return run


def joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of several runs, one after the other, by name."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
