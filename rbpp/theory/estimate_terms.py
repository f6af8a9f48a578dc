"""Every estimated term of a process in some worlds: the task that workers do.

What follows from these terms by arithmetic is added where all worlds are together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rbpp.compute import Compute
from rbpp.estimate import Estimate, exactly
from rbpp.processes.replicas import Replicas
from rbpp.theory.chain_information import chain_information
from rbpp.theory.curated_entropy import is_copy
from rbpp.theory.learner_choice import default_learner
from rbpp.theory.learner_information import (
    ConditionalInformation,
    Trained,
    conditional_information,
    information_given_held,
    information_of_held,
    pilot_rows,
)
from rbpp.theory.learners import Learner
from rbpp.theory.model_factor import factor_kind
from rbpp.theory.risk import Risks, estimated_sub_gaussian, measured_risks
from rbpp.theory.settings import LemmaConstants, SampleSizes
from rbpp.theory.terms import EstimatedTerms
from rbpp.theory.total_variation import total_variations
from rbpp.theory.world_estimates import ProcessFacts, WorldEstimates

_PROMPTS = ("prompt", "prompt_factor")
_STAGES = ("draws", "chain", "learner", "anchors", "risks", "bounds")


class Batch(NamedTuple):
    """Some of the worlds, from the `first` on; `number` among the batches decides their draws."""

    number: int
    first: int
    worlds: int

    def of(self, world: Mapping[str, Tensor] | None) -> Mapping[str, Tensor] | None:
        """The batch's part of given worlds, (worlds, …) per site."""
        if world is None:
            return None
        return {name: value[self.first :][: self.worlds] for name, value in world.items()}


def estimate_terms(
    batch: Batch,
    *,
    model: Callable[[], Any],
    sizes: SampleSizes,
    constants: LemmaConstants,
    learner: Learner | None,
    anchor_learner: Learner | None,
    compute: Compute,
    world: Mapping[str, Tensor] | None = None,
) -> WorldEstimates:
    """The estimated terms in the worlds of one batch; arguments as for `rbpp.bounds`.

    `world` has a value (worlds, …) per site of all batches' worlds, where they are not the prior's.
    """
    compute = compute.spawn("worlds", batch.number) if batch.number else compute
    replicates = sizes.replicates
    stages = compute.stages(_STAGES, "bounds")
    replicas = Replicas(
        model,
        worlds=batch.worlds,
        seed=compute.seed,
        device=compute.device,
        world=batch.of(world),
    )
    values = replicas.draw(replicates, "replicates")
    draws = compute.generator("learners", device=compute.device)
    next(stages)

    found = chain_information(
        replicas, values, pairs=min(sizes.pairs, replicates), resolution=constants.resolution
    )
    next(stages)

    anchor_learner = anchor_learner or learner or default_learner(replicas, "anchor")
    learner = learner or default_learner(replicas, "synthetic")
    synthetic = Trained.of(learner, replicas, values, "synthetic", draws)
    learning = _SyntheticLearner(synthetic, sizes)
    learning.estimate(found.terms)
    found |= learning.found
    next(stages)

    anchors = Trained.of(anchor_learner, replicas, values, "anchor", draws)
    found.terms["information_anchor_learner"] = anchors.information
    next(stages)

    found |= total_variations(replicas, values)
    risks = measured_risks(synthetic)
    found |= _risk_terms(risks, measured_risks(anchors), constants.loss_bound)
    next(stages)

    losses = None if risks is None else (float(risks.losses.min()), float(risks.losses.max()))
    next(stages, None)
    return WorldEstimates(
        terms=found.terms,
        missing=found.missing,
        notes=found.notes,
        rests=learning.rests,
        paired=learning.paired,
        world=replicas.world,
        sub_gaussian=None if risks is None else estimated_sub_gaussian(risks.losses),
        facts=ProcessFacts(
            factor=factor_kind(replicas),
            prompt_random=replicas.sites["prompt"].random,
            curated=not is_copy(replicas, values),
            discrete=replicas.sites["synthetic"].discrete,
            output_random=replicas.sites["output"].random,
            losses=losses,
            rows={name: replicas.sites[name].rows for name in ("anchor", "synthetic")},
            learner=learner.description,
            anchor_learner=anchor_learner.description,
        ),
    )


@dataclass
class _SyntheticLearner:
    """Informations of W trained on S_gen, with parts of the chain held fixed."""

    trained: Trained
    sizes: SampleSizes
    found: EstimatedTerms = field(default_factory=EstimatedTerms)
    rests: dict[str, Estimate] = field(default_factory=dict)
    paired: dict[str, Estimate] = field(default_factory=dict)

    def estimate(self, chain: dict[str, Estimate]) -> None:
        """I(S_gen; W), I(e_p; W), I(e_M; W), I(e_M; W | e_p), δ_ε, and I(S_anchor; W)."""
        replicas, terms = self.trained.replicas, self.found.terms
        sites, kind = replicas.sites, factor_kind(replicas)
        total = self.trained.information
        terms["information_synthetic_learner"] = total
        prompt = self._given(_PROMPTS, "prompt held")
        assert prompt is not None
        if sites["synthetic"].random and not is_copy(replicas, self.trained.values):
            held = self._given((*_PROMPTS, "model_factor", "output"), "output held")
            assert held is not None
            terms["curation_leak"] = held.information
        else:  # S_gen is a function of the output: nothing is left once that is held
            terms["curation_leak"] = exactly(torch.zeros_like(total.value), "no random curation")
        name = "information_prompt_learner"
        self._add(name, prompt, [chain["information_prompt_output"].upper])
        if sites["prompt"].random:
            self._add(
                "information_anchor_synthetic_learner",
                self._given(("anchor",), "anchor held"),
                [chain["information_anchor_output"].upper, terms[name].upper],
            )
        if kind == "above":
            both = self._given((*_PROMPTS, "model_factor"), "factors held")
            assert both is not None
            terms["information_model_factor_learner_given_prompt"] = information_given_held(
                prompt, both
            )
        if kind != "absent":
            factor = self._given(("model_factor",), "model factor held")
            self._add("information_model_factor_learner", factor, [])

    def _given(self, names: tuple[str, ...], label: str) -> ConditionalInformation | None:
        outer = min(self.sizes.groups, self.sizes.replicates)
        return conditional_information(
            self.trained, names, outer=outer, inner=self.sizes.inner, label=label
        )

    def _add(
        self, name: str, held: ConditionalInformation | None, ceilings: Sequence[Estimate | None]
    ) -> None:
        if held is None:
            self.found.missing[name] = (
                "site model_factor is not output − h(prompt), so that it cannot be held fixed "
                "while the prompt varies"
            )
            return
        total = self.found.terms["information_synthetic_learner"]
        known = [ceiling for ceiling in ceilings if ceiling is not None]
        found = information_of_held(total, self.trained, held, known)
        self.found.terms[name], self.rests[name] = found.plain, found.rest(total)
        self.paired[name] = found.paired


def settled_learners(
    model: Callable[[], Any],
    worlds: int,
    learner: Learner | None,
    anchor_learner: Learner | None,
    compute: Compute,
) -> tuple[Learner, Learner]:
    """The learners of W and W', with what they choose on pilot data chosen for all worlds at once.

    Args:
        model: the process.
        worlds: how many have a part in the choice.
        learner, anchor_learner: as for `estimate_terms`.
        compute: seed and device.
    """
    replicas = Replicas(model, worlds=worlds, seed=compute.seed, device=compute.device)
    draws = compute.generator("learners", device=compute.device)

    def settled(chosen: Learner, site: str) -> Learner:
        return chosen if chosen.settle is None else chosen.settle(pilot_rows(replicas, site), draws)

    anchor_learner = anchor_learner or learner or default_learner(replicas, "anchor")
    return (
        settled(learner or default_learner(replicas, "synthetic"), "synthetic"),
        settled(anchor_learner, "anchor"),
    )


def _risk_terms(risks: Risks | None, anchors: Risks | None, loss_bound: float) -> EstimatedTerms:
    """Terms of the learners' losses, scaled to [0, C], or why they are missing."""
    found = EstimatedTerms()
    for name, own, kind in (
        ("generalization_error", risks, "error"),
        ("estimation_gap", risks, "gap"),
        ("absolute_estimation_gap", risks, "absolute_gap"),
        ("generalization_error_anchor", anchors, "error"),
        ("estimation_gap_anchor", anchors, "gap"),
    ):
        estimate: Estimate | None = getattr(own, kind, None)
        if estimate is not None:
            found.terms[name] = loss_bound * estimate
        elif own is None:
            found.missing[name] = "the learner has no loss on rows"
        else:
            found.missing[name] = "the process has no site target"
    return found
