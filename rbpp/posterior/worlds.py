"""A process meets its data: the posterior of its world, and what it predicts."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from rbpp.posterior.audit import identification, left_out_check, predictive_checks
from rbpp.posterior.auto import Engine, Inference, VectorDraws, infer_vectors
from rbpp.posterior.density import ConditionedDensity
from rbpp.posterior.hmc import LARGEST_RHAT
from rbpp.posterior.identity import digest, worlds_of
from rbpp.posterior.labels import described
from rbpp.posterior.laplace import LARGEST_K, LEAST_EFFICIENCY
from rbpp.posterior.new_rows import draw_anew, new_rows
from rbpp.posterior.sites import on_random_sites
from rbpp.posterior.sizes import fit_sizes
from rbpp.processes.process import Process, load_process
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

    idata: InferenceData
    process: Process
    engine: str
    exact: bool
    story: tuple[str, ...]

    # Elements of a site that the printed table shows.
    shown: ClassVar[int] = 12

    def worlds(self, count: int, seed: int = 0) -> dict[str, Tensor]:
        """Posterior worlds (count, *shape of a plain run) by site, such as `rbpp.bounds` takes."""
        return worlds_of(self.idata, self.process, count, seed)

    def details(self) -> Mapping[str, Any]:
        """Engine and story."""
        return {"engine": self.engine, "exact": self.exact, "story": self.story}

    def figures(self, hdi_prob: float = 0.94) -> Mapping[str, Callable[[], Any]]:
        """`predictive`: every observed coordinate beside new rows."""

        def draw() -> Any:
            from rbpp import plots

            return plots.plot_predictive(self.idata, hdi_prob)

        return {"predictive": draw}

    def answer(self, view: View = DEFAULT_VIEW) -> tuple[str, ...]:
        """What the rows say of the world, and how far to trust it."""
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
        elements: Counter[str] = Counter()
        for name, term in table.items():
            site = name.partition("[")[0]
            elements[site] += 1
            if elements[site] <= self.shown:
                kept[name] = term
        rest = [
            f"{site}: {count - self.shown} more elements{view.hint()}"
            for site, count in elements.items()
            if count > self.shown
        ]
        body = display.group_terms(kept, view, {})
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
        engine: `"auto"` takes the first whose diagnostics trust it: draws of the normal at the
            optimum, and of Student's t, resampled by importance weights (`"laplace"`), then 32
            short Hamiltonian chains (`"hmc"`). `"svi"` fits `guide`; `"nuts"` is Pyro's sampler.
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
    density = ConditionedDensity(process, rows, keep, compute)
    given = Inference(engine, guide, draws, seconds, accept=accept, batch_rows=batch_rows)
    found = infer_vectors(density, given, compute)
    judged = _engine_check(found)
    if not found.exact:
        warnings.warn(f"approximate posterior: {judged.message}", UserWarning, stacklevel=2)
    groups = _Groups(density, found, keep, compute)
    sets = density.data_sets
    counts = ", ".join(f"{process.sites[name].rows} rows of {name}" for name in rows)
    return WorldPosterior(
        idata=groups.inference_data(),
        checks=(
            judged,
            *_mode_checks(found),
            identification(groups.world, groups.prior, density.prepared.pruned),
            *predictive_checks(process, groups.observed, groups.predicted),
            *groups.left_out(),
        ),
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
    """Everything that InferenceData holds, from draws of the vector.

    Values of sites are (draws, data sets, *shape of a plain run), of the world (draws, 1, …).
    """

    def __init__(
        self,
        density: ConditionedDensity,
        found: VectorDraws,
        keep: Sequence[str],
        compute: Compute,
    ) -> None:
        self.density, self.found, self.compute = density, found, compute
        self.process = density.process
        sites, flat = self.process.sites, found.vectors.flatten(0, 1)
        self.values, likelihood = density.evaluate(flat, compute.generator("letters"))
        self.likelihood = {name: value.cpu() for name, value in likelihood.items()}
        self.kept = {name: self.values[name] for name in keep}
        self.observed = {
            name: value[0].reshape(density.data_sets, *sites[name].shape).cpu()
            for name, value in density.observed.items()
        }
        # New data sets in posterior worlds; with them world sites that no data depend on.
        world = {name: value for name, value in self.values.items() if not sites[name].in_chain}
        wanted = [name for name in sites if name in self.observed or sites[name].shared]
        drawn = draw_anew(density, len(flat), world, wanted, compute, "predictive")
        self.predicted = {name: drawn[name] for name in wanted if name in self.observed}
        shared = [name for name in wanted if name not in self.observed]
        self.world = {n: drawn[n][:, :1] for n in shared if not sites[n].deterministic}
        self.derived = {n: drawn[n][:, :1] for n in shared if sites[n].deterministic}
        own = Compute(seed=compute.spawn("prior").seed)
        self.prior = simulate_tensors(self.process, worlds=len(flat), compute=own).world

    def left_out(self) -> list[Check]:
        """The check by rows left out, of every observed site whose rows are vectors."""
        checks = []
        for name, rows in self.observed.items():
            if (
                rows.dim() != 3
                or not rows.is_floating_point()
                or not self.process.sites[name].plates
            ):
                continue
            own = self.compute.spawn("left out", name)
            new = new_rows(self.density, name, self.values, own)
            if new is not None:
                checks.append(left_out_check(name, rows, new, self.likelihood[name], own.seed))
        return checks

    def inference_data(self) -> InferenceData:
        """All groups, with the dimensions that `simulate` gives."""
        process, found = self.process, self.found
        sites, sizes = process.sites, dict[str, int]()
        replicated = ["replicate"] if self.density.data_sets > 1 else []
        dims = {n: dimension_names(sites[n], sizes) for n in (*self.world, *self.derived)}
        for name in (*self.kept, *self.observed):
            dims[name] = [*replicated, *dimension_names(sites[name], sizes)]
        statistics: dict[str, Any] = {"lp": found.log_density}
        if found.log_q is not None:
            statistics["log_q"] = found.log_q
        for name, value in found.diagnostics.items():
            statistics[name] = np.full(len(found.vectors), value)
        data = inference_data.make(
            self._per_draw({**self.world, **self.derived, **self.kept}),
            prior=self._per_draw(self.prior),
            sample_stats=statistics,
            posterior_predictive=self._per_draw(self.predicted),
            observed_data={name: value.squeeze(0) for name, value in self.observed.items()},
            constant_data={**process.knobs, "seed": self.compute.seed},
            dims=dims,
        )
        data = inference_data.with_attrs(
            data,
            process=process.name,
            source=process.source,
            knobs=process.knobs,
            digest=digest(process),
            engine=found.engine,
            story=list(found.story),
        )
        # Of rows, in dimensions of their own; a site without a plate has one density.
        by_row = {n: [f"{n}_row"] if sites[n].batch_dimensions else [] for n in self.likelihood}
        likelihood = {n: v if by_row[n] else v.sum(-1) for n, v in self.likelihood.items()}
        rows = inference_data.make(
            log_likelihood=self._per_draw(likelihood),
            dims={name: [*replicated, *own] for name, own in by_row.items()},
        )
        data = inference_data.replace_group(
            data, "log_likelihood", inference_data.group_datasets(rows)["log_likelihood"]
        )
        # Sites have the units of the user's rows, which are not ours to name; tables show them.
        terms = inference_data.group_datasets(data)["posterior"]
        for variable in terms.data_vars.values():
            variable.attrs.setdefault("units", "")
        return inference_data.replace_group(data, "posterior", terms)

    def _per_draw(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(chain, draw, data sets, …), without data sets where there is one."""
        shape = self.found.log_density.shape
        return {name: value.squeeze(1).unflatten(0, shape) for name, value in values.items()}


def _engine_check(found: VectorDraws) -> Check:
    """The verdict of the engine's own diagnostics."""
    measured = found.diagnostics
    if "pareto_k" in measured:
        message = (
            f"Pareto k {measured['pareto_k']:.2f} (below {LARGEST_K:g}), importance weights leave "
            f"{100 * measured['efficiency']:.0f} % (above {100 * LEAST_EFFICIENCY:.0f} %)"
        )
    else:
        message = (
            f"R-hat {measured['rhat']:.3f} (up to {LARGEST_RHAT:g}), effective sample size "
            f"{measured['sample_size']:.0f}"
        )
    return Check(
        "draws are of the posterior",
        "holds" if found.exact else "undecided",
        f"{found.engine}: {message}",
        measured,
    )


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
