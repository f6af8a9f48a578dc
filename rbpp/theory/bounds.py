"""Every term and bound of a process, from draws of it and the densities in its trace.

Worlds are draws from the prior, or from a posterior: each term is estimated in every world, with
its Monte Carlo error beside it. A term that a process does not give is missing with a reason; the
rest is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from rbpp import display, inference_data, sentences
from rbpp.checks import Check
from rbpp.compute import Compute
from rbpp.display import DEFAULT_VIEW, View
from rbpp.estimate import Estimate, Side
from rbpp.inference_data import InferenceData, Term
from rbpp.posterior.identity import read_posterior, worlds_of
from rbpp.processes.contract import require
from rbpp.processes.process import Process, load_process
from rbpp.processes.simulation import dimension_names
from rbpp.result import Result
from rbpp.theory.assumptions import Evidence
from rbpp.theory.estimate_terms import Batch, Estimation, estimate_terms
from rbpp.theory.information import sides_in_words
from rbpp.theory.learner_choice import choose_learner
from rbpp.theory.learners import Learner
from rbpp.theory.lemmas import LemmaSetting, Value
from rbpp.theory.settings import LearnerChoice, LemmaConstants, SampleSizes
from rbpp.theory.statements import all_terms, audit
from rbpp.theory.terms import absences
from rbpp.theory.world_estimates import WorldEstimates, join
from rbpp.theory.world_intervals import interval_over_worlds, spread_of_worlds
from rbpp.threads import one_thread
from rbpp.variables import VARIABLES

if TYPE_CHECKING:
    from rbpp.posterior.worlds import WorldPosterior
_KNOWN = {"lower": "from below", "upper": "from above", "biased": "from neither side"}
# Numbers of one site in the worlds of a batch, 32 MB; the work on them takes a few times as much.
_NUMBERS_IN_MEMORY = 2**22


@dataclass(frozen=True, kw_only=True, repr=False)
class Bounds(Result):
    """Terms and bounds of a process, in nats and per data set.

    The group `prior`, or `posterior` where worlds are draws from one, holds a draw per world.

    A term NAME has NAME_mcse, and NAME_lower and NAME_upper where an estimator gives sides.
    slack_NAME is right minus left of a statement whose right side is NAME.

    Attributes:
        estimators: name to a line on which estimator gave which side.
        missing: name to the reason why there is no such term.
        substitutes: name to what a term stands for.
        one_sided: name of a term that is known from one side alone, and has none of the other, to
            `lower` (it is at least the number) or `upper` (at most).
    """

    idata: InferenceData
    estimators: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    substitutes: Mapping[str, str] = field(default_factory=dict)
    one_sided: Mapping[str, Side] = field(default_factory=dict)

    def _one_sided(self) -> Mapping[str, Side]:
        return self.one_sided

    def answer(self, view: View = DEFAULT_VIEW) -> tuple[str, ...]:
        """How many statements hold, and what the sharp bound and the bottleneck are."""
        table = self._table(view)
        shown = f"{view.units} per row" if view.per_row else view.units
        return (*self.headline, *sentences.of_bounds(table, self.checks, shown, self.one_sided))

    def figures(self, hdi_prob: float = 0.94) -> Mapping[str, Callable[[], Any]]:
        """`terms`: all but bounds; `bounds`: every bound beside what it bounds."""
        from rbpp import plots

        return {
            "terms": lambda: plots.plot_terms(self.idata, hdi_prob),
            "bounds": lambda: plots.plot_bounds(self.idata, self.audit(), hdi_prob),
        }

    def _table(self, view: View) -> dict[str, Term]:
        """Every term in numbers, over worlds.

        `sd` has no Monte Carlo error in it, which is `mcse`. The interval holds a term of another
        world with the stated probability, however few the worlds are.
        """
        found = super()._table(view)
        shown = self.in_units(view.units, per_row=view.per_row)
        assert shown is not None
        dataset = inference_data.terms_of(shown)
        for name, term in found.items():
            spread, error = term["sd"], term["mcse"]
            if spread is None or name not in dataset:
                continue
            values = dataset[name].values.ravel()
            scale, _ = display.scale_of(name, view.units, self._divisors(view.per_row))
            limits = (scale * VARIABLES[name].least, scale * VARIABLES[name].most)
            low, high = interval_over_worlds(values, view.hdi_prob, *limits)
            term["hdi_low"], term["hdi_high"] = low, high
            term["sd"] = spread if error is None else spread_of_worlds(spread, error)
        return found

    def details(self) -> Mapping[str, Any]:
        """Estimators, reasons of missing terms, notes, and what stands as an estimate or a side
        where an interval would be wrong, each by name of the term."""
        described = {name: VARIABLES[name].stands_as for name in self.terms if name in VARIABLES}
        return {
            "estimators": self.estimators,
            "missing": self.missing,
            "notes": self.substitutes,
            "stands_as": {name: kind for name, kind in described.items() if kind},
        }


def bounds(
    process: Process | str | Path | Callable[..., Any],
    *,
    posterior: WorldPosterior | str | Path | None = None,
    sizes: SampleSizes | None = None,
    constants: LemmaConstants | None = None,
    learner: str | Learner | LearnerChoice = "auto",
    anchor_learner: str | Learner | LearnerChoice | None = None,
    seed: int = 0,
    compute: Compute | None = None,
) -> Bounds:
    """Every term and bound of a process, audited.

    Args:
        process: of `rbpp.load_process`, or what that takes.
        posterior: of `rbpp.infer`, or the file it was saved to: worlds are draws from it instead of
            from the prior, and terms are in the group `posterior`. The knobs are those it has.
        sizes: how much is drawn.
        constants: of the lemmas.
        learner: of W: a name, a name with options, or a learner of `rbpp.theory.learners`. "auto"
            is a conjugate mixture, or for letters the most frequent one.
        anchor_learner: of W'; by default that of W.
        seed: decides every draw.
        compute: device, workers, progress and checkpoint.

    Returns:
        Terms and bounds per world; a violated statement is named among the checks and kept.

    Raises:
        ValueError: if a constant is out of range, the process breaks its contract, the posterior is
            of another process or other knobs, or a deterministic map between continuous variables
            makes an information infinite.
    """
    compute = Compute.of(compute, seed)
    sizes, constants = sizes or SampleSizes(), constants or LemmaConstants()
    world = None
    if posterior is not None:
        process, data = read_posterior(posterior, process)
        world = worlds_of(data, process, sizes.worlds, compute.spawn("posterior").seed)
    process = load_process(process)
    process_checks = require(process, compute).checks
    estimation = Estimation(
        process,
        sizes,
        constants,
        learner=choose_learner(learner, process),
        anchor_learner=choose_learner(anchor_learner or learner, process, "anchor"),
        compute=compute,
    )
    found = estimate_worlds(estimation, world)
    setting = _setting(found, constants)
    terms = all_terms(found, setting)
    found.notes |= _notes(terms, found)
    derived = absences(found, found.facts, setting)
    derived = {name: reason for name, reason in derived.items() if name not in terms}
    missing, one_sided = found.missing | derived, _sides_alone(terms)
    checks = audit(Evidence(terms, found, constants, setting, process_checks))
    estimators = {
        name: sides_in_words(term)
        for name, term in terms.items()
        if VARIABLES[name].part != "slack"
        and ((term.lower or term.upper) is not None or (name in found.terms and term.far_apart))
    }
    settings = {
        **asdict(sizes),
        "worlds_at_once": min(worlds_in_memory(process, sizes), sizes.worlds),
        "pairs": min(sizes.pairs, sizes.replicates),
        **asdict(constants),
        "sub_gaussian": setting.mean_sub_gaussian,
        "sub_gaussian_from": setting.sub_gaussian_from,
        "learner": found.facts.learner,
        "anchor_learner": found.facts.anchor_learner,
        **{f"rows_{name}": count for name, count in found.facts.rows.items()},
        "seed": compute.seed,
    }
    parameters = {
        name: process.sites[name].plain(value)[:, 0]
        for name, value in found.world.items()
        if len(value) == sizes.worlds and name not in terms
    }
    group, seen = _worlds_group(terms, parameters), dict[str, int]()
    data = inference_data.make(
        posterior=None if world is None else group,
        prior=group if world is None else None,
        constant_data=settings,
        dims={name: dimension_names(process.sites[name], seen) for name in parameters},
    )
    return Bounds(
        idata=inference_data.with_attrs(
            data,
            estimators=estimators,
            missing=missing,
            notes=found.notes,
            saturated=_saturated(terms),
            one_sided=one_sided,
        ),
        checks=checks,
        settings={**settings, "process": process.name, "knobs": process.knobs},
        headline=(_headline(checks, sizes.worlds, one_sided, posterior=world is not None),),
        notes=(*_lines(terms, found, estimators), *_derived_lines(derived)),
        row_counts=found.facts.rows,
        estimators=estimators,
        missing=missing,
        substitutes=found.notes,
        one_sided=one_sided,
    )


def estimate_worlds(
    estimation: Estimation, world: Mapping[str, Tensor] | None = None
) -> WorldEstimates:
    """The estimated terms of all worlds, by whoever works on batches of them.

    Worlds are draws from the prior, or those given: a value (worlds, …) per site.
    """
    process, sizes, compute = estimation.process, estimation.sizes, estimation.compute
    batches = world_batches(sizes.worlds, worlds_in_memory(process, sizes))
    own = replace(compute.task(), progress=compute.progress and len(batches) == 1)
    settled = estimation.settled() if len(batches) > 1 else estimation
    work = partial(_arrays, replace(settled, compute=own), world)
    steps = compute.steps(work, batches, lambda batch: f"worlds-{batch.number:04}", "worlds")
    parts = [WorldEstimates.from_arrays(step) for step in steps]
    return join(parts, [batch.worlds for batch in batches]).settled()


def worlds_in_memory(process: Process, sizes: SampleSizes) -> int:
    """Worlds of one batch: as many as asked for, fewer where their rows would fill the memory."""
    replicates = max(sizes.replicates, sizes.groups * sizes.inner)
    numbers = replicates * max(
        process.sites[name].coordinates for name in ("anchor", "output", "synthetic")
    )
    return max(1, min(sizes.worlds_at_once, _NUMBERS_IN_MEMORY // numbers))


def world_batches(worlds: int, at_once: int) -> list[Batch]:
    """All worlds, so many at once.

    >>> world_batches(5, 3)
    [Batch(number=0, first=0, worlds=3), Batch(number=1, first=3, worlds=2)]
    """
    firsts = enumerate(range(0, worlds, at_once))
    return [Batch(number, first, min(at_once, worlds - first)) for number, first in firsts]


@one_thread()  # two threads for tensors this small made 24 seconds of work 128 on a busy machine
def _arrays(
    estimation: Estimation, world: Mapping[str, Tensor] | None, batch: Batch
) -> dict[str, np.ndarray]:
    return estimate_terms(batch, estimation, world).arrays()


def _setting(found: WorldEstimates, constants: LemmaConstants) -> LemmaSetting:
    """The constants of the lemmas, with σ and where it comes from."""
    sigma: Value
    if constants.sub_gaussian is None:
        sigma, source = constants.loss_bound / 2, "range of the loss, C/2"
    elif not isinstance(constants.sub_gaussian, str):
        sigma, source = float(constants.sub_gaussian), "given"
    elif found.sub_gaussian is not None:
        sigma, source = found.sub_gaussian * constants.loss_bound, "estimate from losses"
    else:
        raise ValueError(
            "Expected a learner with a loss to estimate sub_gaussian from; got one without: give σ"
        )
    return LemmaSetting(
        rows=found.facts.rows,
        coordinates=found.facts.coordinates,
        resolution=constants.resolution,
        loss_bound=constants.loss_bound,
        sub_gaussian=sigma,
        sub_gaussian_from=source,
        layers=constants.layers,
        contraction=constants.contraction,
    )


def _notes(terms: Mapping[str, Estimate], found: WorldEstimates) -> dict[str, str]:
    """What composed terms stand for."""
    notes = {}
    if found.facts.factor == "absent":
        notes["information_model_factor_learner"] = (
            "no site model_factor: I(e_M; W) is at most I(e_M; W | e_p), which stands for it"
        )
    for name, term in terms.items():
        stands = VARIABLES[name].stands_as and term.direction == "upper"
        told = name in found.terms or name in notes or stands
        if term.direction in _KNOWN and not told and VARIABLES[name].part != "slack":
            notes[name] = f"known {_KNOWN[term.direction]}, since a term of it is a bound alone"
    factor = terms.get("prompting_factor")
    if factor is not None and bool(factor.value.isinf().any()):
        notes["prompting_factor"] = (
            f"infinite in {int(factor.value.isinf().sum())} of {factor.value.numel()} worlds, "
            "where I(e_p; M(p)) is 0: no λ there has H(e_p) ≤ λ I(e_p; M(p))"
        )
    return notes


def _worlds_group(
    terms: Mapping[str, Estimate], parameters: Mapping[str, Tensor]
) -> dict[str, np.ndarray]:
    """Terms with errors and sides, then the parameters of the worlds: (chain, draw, …)."""
    group: dict[str, np.ndarray] = {}

    def add(name: str, estimate: Estimate | None) -> None:
        if estimate is None:
            return
        group[name] = estimate.value.cpu().numpy()[None]
        group[f"{name}_mcse"] = estimate.standard_error.cpu().numpy()[None]

    for name, described in VARIABLES.items():
        if name in terms:
            term = terms[name]
            add(name, term)
            if described.part != "slack":
                add(f"{name}_lower", term.lower)
                add(f"{name}_upper", term.upper)
    return group | {name: value.cpu().numpy()[None] for name, value in parameters.items()}


def _headline(
    checks: Sequence[Check], worlds: int, one_sided: Mapping[str, Side], *, posterior: bool
) -> str:
    """How many statements hold, and the names of those that do not.

    A bound that is known from below alone may exceed what it bounds by any amount: the statement is
    true, and the number that is shown is no bound.
    """
    below = [
        check.statement
        for check in checks
        if check.verdict == "holds" and one_sided.get(str(check.measured.get("by"))) == "lower"
    ]
    holding = sum(check.verdict == "holds" for check in checks) - len(below)
    source = "posterior worlds" if posterior else "worlds"
    parts = [f"{holding} of {len(checks)} statements hold in {worlds} {source}"]
    parts += [f"by a bound known from below alone: {', '.join(below)}"] if below else []
    for verdict in ("violated", "undecided"):
        names = [check.statement for check in checks if check.verdict == verdict]
        parts += [f"{verdict}: {', '.join(names)}"] if names else []
    return "; ".join(parts) + "."


def _lines(
    terms: Mapping[str, Estimate], found: WorldEstimates, estimators: Mapping[str, str]
) -> tuple[str, ...]:
    """What a table of numbers cannot say of its terms, a line each."""
    lines = {name: f"missing: {reason}" for name, reason in found.missing.items()} | found.notes
    saturated = _saturated(terms)
    for name, how in estimators.items():
        if terms[name].far_apart or name in saturated:
            lines[name] = f"{lines[name]}; {how}" if name in lines else how
    return tuple(f"{name}: {line}" for name, line in lines.items())


def _sides_alone(terms: Mapping[str, Estimate]) -> dict[str, Side]:
    """Terms that are known from one side alone; of bounds, beyond the upper side that they are."""
    found: dict[str, Side] = {}
    for name, term in terms.items():
        described = VARIABLES[name]
        if described.part == "slack":
            continue
        if term.end("upper") is None:
            found[name] = "lower"
        elif term.end("lower") is None and described.stands_as != "upper side":
            found[name] = "upper"
    return found


def _derived_lines(missing: Mapping[str, str]) -> tuple[str, ...]:
    """Terms that would follow from missing ones, those that lack the same on one line."""
    names: dict[str, list[str]] = {}
    for name, reason in missing.items():
        names.setdefault(reason, []).append(name)
    return tuple(f"{', '.join(lack)}: missing: {reason}" for reason, lack in names.items())


def _saturated(terms: Mapping[str, Estimate]) -> list[str]:
    """Terms whose lower side is near the limit of its estimator in some world."""
    return [
        name
        for name, term in terms.items()
        if term.lower is not None and bool(term.lower.saturated.any())
    ]
