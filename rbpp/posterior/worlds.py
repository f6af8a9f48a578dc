"""A process meets its data: the posterior of its world, and what it predicts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from rbpp import display, inference_data, sentences
from rbpp.checks import Check
from rbpp.compute import Compute
from rbpp.display import DEFAULT_VIEW, Part, View
from rbpp.inference_data import InferenceData
from rbpp.posterior.audit import as_array, identification, left_out_check, predictive_checks
from rbpp.posterior.auto import Engine, VectorDraws, infer_vectors
from rbpp.posterior.density import ConditionedDensity
from rbpp.posterior.hmc import LARGEST_RHAT
from rbpp.posterior.identity import digest, worlds_of
from rbpp.posterior.labels import described
from rbpp.posterior.laplace import LARGEST_K, LEAST_EFFICIENCY
from rbpp.posterior.new_rows import AT_ONCE, new_rows
from rbpp.posterior.sites import on_random_sites
from rbpp.posterior.sizes import fit_sizes
from rbpp.processes.process import Process, draw, load_process
from rbpp.processes.simulation import dimension_names, simulate_tensors
from rbpp.result import Result


@dataclass(frozen=True, kw_only=True, repr=False)
class WorldPosterior(Result):
    """Posterior of a process's world given rows.

    `idata` has the groups `posterior` (sites of the world, chain sites that were kept), `prior` (as
    many draws of the world), `posterior_predictive` (new data sets of the observed sites),
    `log_likelihood` (of each row), `observed_data`, `sample_stats` and `constant_data` (knobs).

    Attributes:
        process: at the sizes of the data.
        engine: that made the draws.
        exact: whether the engine's own diagnostics trust the draws; else they are approximate.
        story: what was tried and why it was kept or left, a line each.
    """

    process: Process
    engine: str = ""
    exact: bool = True
    story: tuple[str, ...] = field(default_factory=tuple)

    # Elements of a site that the printed table shows.
    shown: ClassVar[int] = 12

    def worlds(self, count: int, seed: int = 0) -> dict[str, Tensor]:
        """Posterior worlds (count, *shape of a plain run) by site, such as `rbpp.bounds` takes."""
        assert self.idata is not None
        return worlds_of(self.idata, self.process, count, seed)

    def details(self) -> Mapping[str, Any]:
        """Engine and story."""
        return {"engine": self.engine, "exact": self.exact, "story": self.story}

    def figures(self, hdi_prob: float = 0.94) -> Mapping[str, Callable[[], Any]]:
        """`predictive`: every observed coordinate beside new rows."""
        from rbpp.posterior.figures import plot_predictive

        data = self.idata
        assert data is not None
        return {"predictive": lambda: plot_predictive(data, hdi_prob)}

    def answer(self, view: View = DEFAULT_VIEW) -> tuple[str, ...]:
        """What the rows say of the world, and how far to trust it."""
        assert self.idata is not None
        table = self._table(view)
        groups = inference_data.group_datasets(self.idata)
        before, after = groups["prior"], groups["posterior"]
        shown = {name.partition("[")[0] for name in table}
        spreads = {
            str(name): (_spread(before[name]), _spread(after[name]))
            for name in after
            if name in before and name in shown
        }
        said = sentences.of_world(table, spreads, self.exact, self.checks)
        return (*self.headline, *said)

    def _body(self, view: View) -> list[Part]:
        table = self._table(view)
        kept: dict[str, Any] = {}
        left: dict[str, int] = {}
        for name, term in table.items():
            site = name.partition("[")[0]
            if sum(one.partition("[")[0] == site for one in kept) < self.shown:
                kept[name] = term
            else:
                left[site] = left.get(site, 0) + 1
        rest = [f"{site}: {count} more elements (--all)" for site, count in left.items()]
        body = display.group_terms(kept, view.hdi_prob, {})
        return [body, display.Lines(rest)] if rest else [body]


def _spread(draws: Any) -> float:
    """The mean of the elements' standard deviations over draws."""
    return float(draws.std(("chain", "draw")).mean())


def infer(
    process: Process | str | Path | Callable[..., Any],
    data: Mapping[str, Tensor | np.ndarray],
    *,
    keep: Sequence[str] = (),
    engine: Engine = "auto",
    guide: str = "auto",
    draws: int = 250,
    seconds: float = 60.0,
    accept: bool = False,
    batch_rows: int | None = None,
    seed: int = 0,
    compute: Compute | None = None,
) -> WorldPosterior:
    """Posterior of a process's world and latent sites given rows of some of its sites.

    The knobs that set the numbers of rows are found by running the model, and set to the data's.

    Args:
        process: of `rbpp.load_process`, or what that takes.
        data: chain site to rows (n, d), or to data sets (R, n, d) that share a world.
        keep: latent sites of the chain that the posterior shall have too.
        engine: `"auto"` takes the first whose diagnostics trust it: the normal approximation at the
            optimum with importance weights (`"laplace"`), then many short chains (`"hmc"`). `"svi"`
            fits `guide`; `"nuts"` is Pyro's sampler.
        guide: of `"svi"`: `"normal"`, `"multivariate"`, `"lowrank"`, `"flow"`, or FILE.py:NAME.
        draws: per chain; there are four.
        seconds: limit of the search and the chains.
        accept: return what no diagnostic trusts instead of refusing it.
        batch_rows: observed rows per step of `"svi"`.
        seed: decides every random number.
        compute: device.

    Returns:
        The posterior, with checks on the engine, on what the data identify, and on whether the
        process makes such rows. Draws that are approximate come with a warning.

    Raises:
        ValueError: if the data do not fit the process, or no draws can be trusted in the time.
    """
    compute = Compute.of(compute, seed)
    rows = {name: _tensor(name, value) for name, value in data.items()}
    if not rows:
        raise ValueError("Expected data of at least one site; got none")
    process = fit_sizes(load_process(process), rows)
    rows = on_random_sites(process, rows, seed)
    density = ConditionedDensity(process, rows, keep=keep, seed=seed, device=compute.device)
    found = infer_vectors(
        density,
        engine=engine,
        guide=guide,
        draws=draws,
        seconds=seconds,
        accept=accept,
        batch_rows=batch_rows,
        compute=compute,
    )
    judged = _engine_check(found)
    if not found.exact:
        warnings.warn(f"approximate posterior: {judged.message}", UserWarning, stacklevel=2)
    groups = _Groups(process, density, found, tuple(keep), compute)
    checks = (
        judged,
        *_mode_checks(found),
        identification(groups.world, groups.prior, density.prepared.pruned),
        *predictive_checks(process, groups.observed, groups.predicted),
        *groups.left_out(density, compute),
    )
    sets = density.data_sets
    counts = ", ".join(f"{process.sites[name].rows} rows of {name}" for name in rows)
    return WorldPosterior(
        idata=groups.inference_data(),
        checks=checks,
        settings={
            **process.settings,
            "digest": digest(process),
            "engine": found.engine,
            "draws": found.vectors.shape[1],
            "seconds": seconds,
            "data_sets": sets,
            "seed": compute.seed,
        },
        headline=(
            f"Posterior of {process.name} given {counts}"
            + (f" in each of {sets} data sets" if sets > 1 else "")
            + f", by {found.engine}.",
        ),
        notes=found.story,
        process=process,
        engine=found.engine,
        exact=found.exact,
        story=found.story,
    )


class _Groups:
    """Everything that InferenceData holds, from draws of the vector."""

    def __init__(
        self,
        process: Process,
        density: ConditionedDensity,
        found: VectorDraws,
        keep: tuple[str, ...],
        compute: Compute,
    ) -> None:
        self.process, self.found, self.keep = process, found, keep
        self.seed, self.sets = compute.seed, density.data_sets
        self.chains, self.draws = found.vectors.shape[:2]
        flat = found.vectors.flatten(0, 1)
        self.values, self.likelihood = density.evaluate(flat, compute.generator("letters"))
        held = {
            name: process.sites[name].batched(value)
            for name, value in self.values.items()
            if not process.sites[name].in_chain
        }
        self.kept = {name: self.values[name] for name in keep}
        self.world: dict[str, Tensor] = {}
        self.derived: dict[str, Tensor] = {}
        self.predicted: dict[str, Tensor] = {}
        self._predict(held, tuple(density.observed), compute)
        prior = simulate_tensors(process, worlds=len(flat), seed=compute.spawn("prior").seed)
        self.prior = {name: value[:, 0] for name, value in prior.world.items()}
        self.observed = {
            name: value[0].reshape(self.sets, *process.sites[name].shape).cpu()
            for name, value in density.observed.items()
        }

    def _predict(
        self, held: Mapping[str, Tensor], observed: tuple[str, ...], compute: Compute
    ) -> None:
        """New data sets in posterior worlds; with them world sites that no data depend on."""
        parts: dict[str, list[Tensor]] = {}
        total = self.chains * self.draws
        for first in range(0, total, AT_ONCE):
            part = {name: value[first : first + AT_ONCE] for name, value in held.items()}
            count = min(AT_ONCE, total - first)
            run = draw(
                self.process,
                (count, self.sets),
                compute.spawn("predictive", first).seed,
                held=part,
                device=compute.device,
                fast_mixtures=True,
            )
            for name, site in self.process.sites.items():
                if name not in observed and not site.shared:
                    continue
                value = site.plain(run.values[name])
                sets = self.sets if name in observed else 1
                value = value.expand(count, sets, *site.shape)
                parts.setdefault(name, []).append(value.cpu())
        for name, found in parts.items():
            value, site = torch.cat(found), self.process.sites[name]
            if name in observed:
                self.predicted[name] = value
            elif site.deterministic:
                self.derived[name] = value[:, 0]
            else:
                self.world[name] = value[:, 0]

    def left_out(self, density: ConditionedDensity, compute: Compute) -> list[Check]:
        """The check by rows left out, of the last observed site, where its rows are vectors."""
        checks = []
        for name, rows in self.observed.items():
            site = self.process.sites[name]
            if rows.dim() != 3 or not rows.is_floating_point() or not site.plates:
                continue
            own = compute.spawn("left out", name)
            new = new_rows(density, name, self.values, own.seed, compute.device)
            if new is not None:
                likelihood = self.likelihood[name].cpu()
                checks.append(left_out_check(name, rows, new, likelihood, own.seed))
        return checks

    def inference_data(self) -> InferenceData:
        """All groups, with the dimensions that `simulate` gives."""
        sites, sizes = self.process.sites, dict[str, int]()
        replicated = ["replicate"] if self.sets > 1 else []
        dims = {n: dimension_names(sites[n], sizes) for n in (*self.world, *self.derived)}
        for name in (*self.kept, *self.observed):
            dims[name] = [*replicated, *dimension_names(sites[name], sizes)]
        likelihood = {n: self._per_draw(self._of_rows(n)) for n in self.likelihood}
        posterior = {n: self._per_draw(v) for n, v in {**self.world, **self.derived}.items()}
        posterior |= {n: self._per_draw(self._sets(v)) for n, v in self.kept.items()}
        statistics: dict[str, Any] = {"lp": as_array(self.found.log_density)}
        if self.found.log_q is not None:
            statistics["log_q"] = as_array(self.found.log_q)
        for statistic in ("pareto_k", "rhat", "efficiency", "sample_size"):
            value = getattr(self.found, statistic)
            if not np.isnan(value):
                statistics[statistic] = np.full(self.chains, value)
        data = inference_data.make(
            posterior,
            prior={name: self._per_draw(value) for name, value in self.prior.items()},
            sample_stats=statistics,
            posterior_predictive={
                name: self._per_draw(self._sets(value)) for name, value in self.predicted.items()
            },
            observed_data={
                name: as_array(value if self.sets > 1 else value[0])
                for name, value in self.observed.items()
            },
            constant_data={**self.process.knobs, "seed": self.seed},
            dims=dims,
            attrs={
                "process": self.process.name,
                "source": self.process.source,
                "knobs": self.process.knobs,
                "digest": digest(self.process),
                "engine": self.found.engine,
                "story": list(self.found.story),
            },
        )
        rows = inference_data.make(
            log_likelihood=likelihood,
            dims={
                n: [*replicated, f"{n}_row"] if sites[n].batch_dimensions else replicated
                for n in likelihood
            },
        )
        data = inference_data.replace_group(
            data, "log_likelihood", inference_data.group_datasets(rows)["log_likelihood"]
        )
        # Sites have the units of the user's rows, which are not ours to name; tables show them.
        terms = inference_data.group_datasets(data)["posterior"]
        for name in map(str, terms.data_vars):
            terms[name].attrs.setdefault("units", "")
        return inference_data.replace_group(data, "posterior", terms)

    def _of_rows(self, name: str) -> Tensor:
        """(draws, data sets, rows) as the group has it: without what has one entry."""
        value = self.likelihood[name].cpu()
        if not self.process.sites[name].batch_dimensions:
            value = value.sum(-1)
        return value if self.sets > 1 else value[:, 0]

    def _sets(self, value: Tensor) -> Tensor:
        return value if self.sets > 1 else value[:, 0]

    def _per_draw(self, value: Tensor) -> np.ndarray:
        return as_array(value.reshape(self.chains, self.draws, *value.shape[1:]))


def _engine_check(found: VectorDraws) -> Check:
    """The verdict of the engine's own diagnostics."""
    statement = "draws are of the posterior"
    verdict: Any = "holds" if found.exact else "undecided"
    if not np.isnan(found.pareto_k):
        message = (
            f"{found.engine}: Pareto k {found.pareto_k:.2f} (below {LARGEST_K:g}), importance "
            f"weights leave {100 * found.efficiency:.0f} % (above {100 * LEAST_EFFICIENCY:.0f} %)"
        )
        return Check(
            statement,
            verdict,
            message,
            {"pareto_k": found.pareto_k, "efficiency": found.efficiency},
        )
    message = (
        f"{found.engine}: R-hat {found.rhat:.3f} (up to {LARGEST_RHAT:g}), effective sample size "
        f"{found.sample_size:.0f}"
    )
    measured = {"rhat": found.rhat, "sample_size": found.sample_size}
    return Check(statement, verdict, message, measured)


def _mode_checks(found: VectorDraws) -> list[Check]:
    """Several optima, and components without an order."""
    checks = []
    if found.modes > 1 and found.engine in ("laplace", "svi"):
        checks.append(
            Check(
                "starts agree",
                "undecided",
                f"{found.modes} distinct optima within 10 nats of the best; weights between them "
                "are those of their curvature",
                {"optima": found.modes},
                required=False,
            )
        )
    for members, described_as in described(found.symmetries).items():
        checks.append(Check(f"{members} have an order", "violated", described_as, required=False))
    return checks


def _tensor(name: str, value: Tensor | np.ndarray) -> Tensor:
    rows = torch.as_tensor(value)
    if rows.is_complex() or rows.numel() == 0 or rows.dim() == 0:
        raise ValueError(f"Expected rows of {name}; got an array of shape {tuple(rows.shape)}")
    if rows.is_floating_point():
        rows = rows.double()
        if not bool(rows.isfinite().all()):
            raise ValueError(f"Expected finite rows of {name}; got nan or infinity in some")
    return rows
