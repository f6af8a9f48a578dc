"""Every term and bound of a process, from draws of it and the densities in its trace.

The worlds are the posterior draws: each term is estimated in every world, with its Monte Carlo
error beside it. What a process does not give is missing with a reason; the rest is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rbpp.processes.replicas import Replicas, Values
from rbpp.progress import progress
from rbpp.randomness import generator, spawn
from rbpp.results import Estimate
from rbpp.theory import composition
from rbpp.theory.factors import factor_kind
from rbpp.theory.finite_learner import finite_learner
from rbpp.theory.flow import Flow, exactly, flow, is_copy
from rbpp.theory.information import Bracket, statement
from rbpp.theory.learners import Learned, Learner, Prepared, mixture_learner
from rbpp.theory.risk import (
    Risks,
    anchor_risks,
    estimated_sub_gaussian,
    synthetic_risks,
    total_variations,
)
from rbpp.theory.transfer import (
    carried_information,
    held_information,
    learner_information,
    split_information,
)

_PROMPTS = ("prompt", "prompt_factor")


@dataclass
class Chain:
    """Terms of a process per world.

    Attributes:
        terms: name to estimate (worlds,), the names of `rbpp.variables`.
        sides: name to its two sides, where they differ from the estimate.
        missing: name to the reason why there is no such term.
        notes: name to what an estimate stands for.
        estimators: name to a line on which estimator gave which side.
        world: parameters of the worlds, (worlds, …).
        settings: what the numbers depend on.
        rows: rows of the data sets `anchor` and `synthetic`.
        facts: what the audit needs to know about the process.
    """

    terms: dict[str, Estimate] = field(default_factory=dict)
    sides: dict[str, Bracket] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    estimators: dict[str, str] = field(default_factory=dict)
    world: Values = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def chain_terms(
    model: Callable[[], Any],
    *,
    worlds: int = 12,
    replicates: int = 256,
    pairs: int = 128,
    groups: int = 16,
    inner: int = 32,
    learner: Learner | None = None,
    anchor_learner: Learner | None = None,
    loss_bound: float = 1.0,
    sub_gaussian: float | str | None = None,
    layers: int = 0,
    contraction: float = 0.5,
    resolution: float = 0.01,
    seed: int = 0,
    device: str = "cpu",
    quiet: bool = True,
) -> Chain:
    """Every term and bound of a process that meets the contract.

    Args:
        model: the process with its knobs bound: a callable without arguments, `rbpp.load_process`.
        worlds: posterior draws of the world.
        replicates: data sets per world that learners learn from.
        pairs: data sets in the sandwich of I(e_p; M(p)), whose lower side ends at log(pairs).
        groups, inner: settings of what is held fixed, and data sets for each.
        learner: of W; by default a conjugate mixture, or for letters the most frequent one.
        anchor_learner: of W'; by default the one of W.
        loss_bound: C: the learner's loss is scaled to [0, C].
        sub_gaussian: σ; `None` derives C/2 from the range, "estimate" estimates it from losses.
        layers, contraction: ℓ and η of Lemma 4.4.
        resolution: Δ per coordinate, of the entropies of continuous variables.
        seed: decides every draw.
        device: where the process and the estimators run.
        quiet: no progress bar.

    Raises:
        ValueError: if a count or constant is out of range, the process lacks a site, or a
            deterministic map between continuous variables makes an information infinite.
    """
    _check_counts(worlds=worlds, replicates=replicates, pairs=pairs, groups=groups, inner=inner)
    composition.check_constants(loss_bound, sub_gaussian, layers, contraction, resolution)
    stages = _stages(quiet)
    replicas = Replicas(model, worlds=worlds, seed=seed, device=device)
    values = replicas.draw(replicates, "replicates")
    draws = generator(spawn(seed, "learners"), device)
    found = Chain(world=replicas.world)
    next(stages)

    along = flow(replicas, values, pairs=min(pairs, replicates), resolution=resolution)
    primitives = {name: bracket.best() for name, bracket in along.terms.items()}
    brackets = dict(along.terms)
    found.missing |= along.missing
    found.notes |= along.notes
    next(stages)

    anchor_learner = anchor_learner or learner or default_learner(replicas, "anchor")
    learner = learner or default_learner(replicas, "synthetic")
    prepared = learner.prepare(_pilot(replicas, "synthetic"), draws)
    learned = prepared.fit(replicas.rows(values, "synthetic"))
    learning = _Learning(replicas, prepared, learned, values, groups, inner, draws)
    brackets |= learning.informations(along)
    found.missing |= learning.missing
    next(stages)

    anchors_prepared = anchor_learner.prepare(_pilot(replicas, "anchor"), draws)
    anchors_learned = anchors_prepared.fit(replicas.rows(values, "anchor"))
    brackets["information_anchor_learner"] = learner_information(anchors_learned, replicates, draws)
    next(stages)

    divergences, lacking = total_variations(replicas, values)
    primitives |= divergences
    found.missing |= lacking
    risks = synthetic_risks(replicas, prepared, learned, values, draws)
    anchors = anchor_risks(replicas, anchors_prepared, anchors_learned, values, draws)
    primitives |= _risk_terms(risks, anchors, found, loss_bound)
    next(stages)

    primitives |= {name: bracket.best() for name, bracket in brackets.items()}
    primitives |= {f"rest_{name}": rest for name, rest in learning.rests.items()}
    constants, how = _constants(risks, loss_bound, sub_gaussian)
    found.rows = {
        "anchor": replicas.sites["anchor"].rows,
        "synthetic": replicas.sites["synthetic"].rows,
    }
    compose = composition.composer(
        kind=factor_kind(replicas),
        prompt_random=replicas.sites["prompt"].random,
        curated=not is_copy(replicas, values),
        factor_entropy="entropy_model_factor" not in along.missing,
        rests=frozenset(learning.rests),
        rows=found.rows,
        loss_bound=loss_bound,
        sub_gaussian=constants,
        layers=layers,
        contraction=contraction,
        uppers={
            name: brackets[name].upper.value
            for name in ("information_synthetic_learner", "information_anchor_learner")
        },
    )
    found.terms = composition.propagate(primitives, compose, found.missing)
    if factor_kind(replicas) == "absent":
        found.notes["information_model_factor_learner"] = composition.UNKNOWN_FACTOR
    infinite = found.terms.get("prompting_factor")
    if infinite is not None and bool(infinite.value.isinf().any()):
        found.notes["prompting_factor"] = (
            f"infinite in {int(infinite.value.isinf().sum())} of {worlds} worlds, where I(e_p; "
            "M(p)) is 0: no λ there has H(e_p) ≤ λ I(e_p; M(p))"
        )
    for name, bracket in brackets.items():
        one_sided = torch.equal(bracket.lower.value, bracket.upper.value)
        if name in found.terms and not one_sided:
            found.sides[name] = bracket
            found.estimators[name] = statement(bracket)
    found.settings = {
        "worlds": worlds,
        "replicates": replicates,
        "pairs": min(pairs, replicates),
        "groups": groups,
        "inner": inner,
        "learner": learner.description,
        "anchor_learner": anchor_learner.description,
        "loss_bound": loss_bound,
        "sub_gaussian": constants if isinstance(constants, float) else float(constants.mean()),
        "sub_gaussian_from": how,
        "layers": layers,
        "contraction": contraction,
        "resolution": resolution,
        "rows_anchor": found.rows["anchor"],
        "rows_synthetic": found.rows["synthetic"],
        "seed": seed,
    }
    found.facts = {
        "factor": factor_kind(replicas),
        "prompt_random": replicas.sites["prompt"].random,
        "copy": is_copy(replicas, values),
        "discrete": replicas.sites["synthetic"].discrete,
        "output_random": replicas.sites["output"].random,
        "losses": None if risks is None else (float(risks.losses.min()), float(risks.losses.max())),
        "estimated_sub_gaussian": (
            None if risks is None else estimated_sub_gaussian(risks.losses) * loss_bound
        ),
    }
    next(stages, None)
    return found


def default_learner(replicas: Replicas, name: str) -> Learner:
    """The conjugate mixture, or for rows of one letter the most frequent letter."""
    letters = replicas.sites[name].letters
    if letters is not None:
        return finite_learner(letters)
    if replicas.sites[name].discrete:
        raise ValueError(
            f"Expected rows of site {name!r} that are continuous or letters of finite number; got "
            "others: name a learner for them"
        )
    return mixture_learner()


@dataclass
class _Learning:
    """Informations with W that hold parts of the chain fixed."""

    replicas: Replicas
    prepared: Prepared
    learned: Learned
    values: Values
    groups: int
    inner: int
    draws: torch.Generator
    missing: dict[str, str] = field(default_factory=dict)
    rests: dict[str, Estimate] = field(default_factory=dict)

    def informations(self, along: Flow) -> dict[str, Bracket]:
        """I(S_gen; W), I(e_p; W), I(e_M; W), I(e_M; W | e_p), δ_ε, and I(S_anchor; W)."""
        count = self.values["anchor"].shape[1]
        total = learner_information(self.learned, count, self.draws)
        prompt = self._held(_PROMPTS, "prompt held")
        copy = is_copy(self.replicas, self.values) or not self.replicas.sites["synthetic"].random
        if copy:  # S_gen is a function of the output: nothing is left once that is held
            zero = torch.zeros_like(total.best().value)
            leak = exactly(Estimate(zero, zero, count, "exact"), "no random curation")
        else:
            leak = self._held((*_PROMPTS, "model_factor", "output"), "output held").information
        found = {
            "information_synthetic_learner": total,
            "curation_leak": leak,
            "information_prompt_learner": self._carried(
                "information_prompt_learner",
                total,
                prompt,
                [along.terms["information_prompt_output"].upper],
            ),
        }
        if self.replicas.sites["prompt"].random:
            anchor = self._held(("anchor",), "anchor held")
            found["information_anchor_synthetic_learner"] = self._carried(
                "information_anchor_synthetic_learner",
                total,
                anchor,
                [
                    along.terms["information_anchor_output"].upper,
                    found["information_prompt_learner"].upper,
                ],
            )
        kind = factor_kind(self.replicas)
        if kind == "above":
            both = self._held((*_PROMPTS, "model_factor"), "factors held")
            found["information_model_factor_learner_given_prompt"] = split_information(prompt, both)
        if kind != "absent":
            factor = self._held(("model_factor",), "model factor held")
            if factor is not None:
                name = "information_model_factor_learner"
                found[name] = self._carried(name, total, factor, [])
            else:
                self.missing["information_model_factor_learner"] = (
                    "site model_factor is not output − h(prompt), so that it cannot be held fixed "
                    "while the prompt varies"
                )
        return found

    def _held(self, names: tuple[str, ...], label: str) -> Any:
        return held_information(
            self.replicas,
            self.prepared,
            self.values,
            names,
            groups=min(self.groups, self.values["anchor"].shape[1]),
            inner=self.inner,
            label=label,
            generator=self.draws,
        )

    def _carried(self, name: str, total: Bracket, held: Any, ceilings: list[Estimate]) -> Bracket:
        count = self.values["anchor"].shape[1]
        found, rest = carried_information(total, self.learned, count, held, self.draws, ceilings)
        if rest is not None:
            self.rests[name] = rest
        return found


def _pilot(replicas: Replicas, name: str) -> Tensor:
    return replicas.rows(replicas.draw(1, "pilot"), name)[:, 0]


def _risk_terms(
    risks: Risks | None, anchors: Risks | None, found: Chain, loss_bound: float
) -> dict[str, Estimate]:
    terms: dict[str, Estimate] = {}
    no_loss = "the learner has no loss on rows"
    no_target = "the process has no site target"
    for found_risks, names in (
        (risks, ("generalization_error", "estimation_gap", "absolute_estimation_gap")),
        (anchors, ("generalization_error_anchor", "estimation_gap_anchor", "")),
    ):
        parts: tuple[Estimate | None, ...] = (None,) * 3
        if found_risks is not None:
            parts = (found_risks.error, found_risks.gap, found_risks.absolute_gap)
        for name, part in zip(names, parts, strict=True):
            if part is not None and name:
                terms[name] = Estimate(
                    loss_bound * part.value, loss_bound * part.standard_error, part.count
                )
            elif name:
                found.missing[name] = no_loss if found_risks is None else no_target
    return terms


def _constants(
    risks: Risks | None, loss_bound: float, sub_gaussian: float | str | None
) -> tuple[float | Tensor, str]:
    if sub_gaussian is None:
        return loss_bound / 2, "range of the loss, C/2"
    if sub_gaussian == "estimate":
        if risks is None:
            raise ValueError(
                "Expected a learner with a loss to estimate σ from; got one without: give σ"
            )
        return estimated_sub_gaussian(risks.losses) * loss_bound, "estimate from losses"
    return float(sub_gaussian), "given"


def _check_counts(**counts: int) -> None:
    least = {"worlds": 1, "replicates": 8, "pairs": 2, "groups": 2, "inner": 4}
    for name, count in counts.items():
        if count < least[name]:
            raise ValueError(f"Expected {name} ≥ {least[name]}; got {count}")


def _stages(quiet: bool) -> Iterator[Any]:
    names = ["draws", "chain", "learner", "anchors", "risks", "bounds"]
    return progress(names, len(names), "bounds", quiet)


__all__ = ["Chain", "chain_terms", "default_learner"]
