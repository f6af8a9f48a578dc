"""Every primitive term of a process in a batch of worlds: what is estimated, not what follows.

The unit of work of `rbpp.theory.chain`: it may be done in other processes or on other machines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rbpp.estimate import Estimate
from rbpp.processes.replicas import Replicas, Values
from rbpp.progress import progress
from rbpp.randomness import generator, spawn
from rbpp.theory.factors import factor_kind
from rbpp.theory.finite_learner import finite_learner
from rbpp.theory.flow import Flow, exactly, flow, is_copy
from rbpp.theory.information import Bracket
from rbpp.theory.learners import Learned, Learner, Prepared, mixture_learner
from rbpp.theory.measured import Measured
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


class Sizes(NamedTuple):
    """How much is drawn in every world: see `chain_terms`."""

    replicates: int
    pairs: int
    groups: int
    inner: int


class Batch(NamedTuple):
    """Some of the worlds: their number among the batches decides the draws in them."""

    number: int
    worlds: int


def measure(
    batch: Batch,
    *,
    model: Callable[[], Any],
    sizes: Sizes,
    learner: Learner | None,
    anchor_learner: Learner | None,
    loss_bound: float,
    resolution: float,
    seed: int,
    device: str,
    quiet: bool,
) -> Measured:
    """Every primitive term in the worlds of one batch; arguments as for `chain_terms`."""
    seed = spawn(seed, "worlds", batch.number) if batch.number else seed
    replicates = sizes.replicates
    stages = _stages(quiet)
    replicas = Replicas(model, worlds=batch.worlds, seed=seed, device=device)
    values = replicas.draw(replicates, "replicates")
    draws = generator(spawn(seed, "learners"), device)
    next(stages)

    along = flow(replicas, values, pairs=min(sizes.pairs, replicates), resolution=resolution)
    primitives = {name: bracket.best() for name, bracket in along.terms.items()}
    brackets = dict(along.terms)
    missing, notes = dict(along.missing), dict(along.notes)
    next(stages)

    anchor_learner = anchor_learner or learner or default_learner(replicas, "anchor")
    learner = learner or default_learner(replicas, "synthetic")
    prepared = learner.prepare(_pilot(replicas, "synthetic"), draws)
    learned = prepared.fit(replicas.rows(values, "synthetic"))
    learning = _Learning(replicas, prepared, learned, values, sizes.groups, sizes.inner, draws)
    brackets |= learning.informations(along)
    missing |= learning.missing
    next(stages)

    anchors_prepared = anchor_learner.prepare(_pilot(replicas, "anchor"), draws)
    anchors_learned = anchors_prepared.fit(replicas.rows(values, "anchor"))
    brackets["information_anchor_learner"] = learner_information(anchors_learned, replicates, draws)
    next(stages)

    divergences, lacking = total_variations(replicas, values)
    primitives |= divergences
    missing |= lacking
    risks = synthetic_risks(replicas, prepared, learned, values, draws)
    anchors = anchor_risks(replicas, anchors_prepared, anchors_learned, values, draws)
    terms, lacking = _risk_terms(risks, anchors, loss_bound)
    primitives |= terms
    missing |= lacking
    next(stages)

    primitives |= {name: bracket.best() for name, bracket in brackets.items()}
    primitives |= {f"rest_{name}": rest for name, rest in learning.rests.items()}
    losses = None if risks is None else (float(risks.losses.min()), float(risks.losses.max()))
    next(stages, None)
    return Measured(
        primitives,
        brackets,
        replicas.world,
        None if risks is None else estimated_sub_gaussian(risks.losses),
        missing,
        notes,
        {
            "factor": factor_kind(replicas),
            "prompt_random": replicas.sites["prompt"].random,
            "copy": is_copy(replicas, values),
            "discrete": replicas.sites["synthetic"].discrete,
            "output_random": replicas.sites["output"].random,
            "losses": losses,
            "rows": {name: replicas.sites[name].rows for name in ("anchor", "synthetic")},
            "learners": (learner.description, anchor_learner.description),
        },
    )


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
    risks: Risks | None, anchors: Risks | None, loss_bound: float
) -> tuple[dict[str, Estimate], dict[str, str]]:
    """Terms of the learners' losses, and why others are missing."""
    terms: dict[str, Estimate] = {}
    missing: dict[str, str] = {}
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
                missing[name] = no_loss if found_risks is None else no_target
    return terms, missing


def _stages(quiet: bool) -> Iterator[Any]:
    names = ["draws", "chain", "learner", "anchors", "risks", "bounds"]
    return progress(names, len(names), "bounds", quiet)
