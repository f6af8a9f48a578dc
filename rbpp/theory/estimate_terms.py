"""Every estimated term of a process in some worlds: the task that workers do.

What follows from these terms by arithmetic is added where all worlds are together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from rbpp.compute import Compute
from rbpp.estimate import Estimate, exactly
from rbpp.processes.process import Process
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


@dataclass(frozen=True)
class Estimation:
    """What is estimated of a process, and with what: the same in all batches of worlds.

    Attributes:
        process: the process.
        sizes, constants: as for `rbpp.bounds`.
        learner, anchor_learner: of W and of W', whose default is that of W, and for both that of
            `default_learner`.
        compute: device, workers, progress, checkpoint and seed.
    """

    process: Process
    sizes: SampleSizes
    constants: LemmaConstants
    learner: Learner | None
    anchor_learner: Learner | None
    compute: Compute

    def replicas(self, worlds: int, world: Mapping[str, Tensor] | None = None) -> Replicas:
        """Of so many worlds: those given, or the prior's."""
        compute = self.compute
        return Replicas(self.process, worlds, compute.seed, device=compute.device, world=world)

    def learners(self, replicas: Replicas) -> tuple[Learner, Learner]:
        """The learners of W and of W'."""
        anchors = self.anchor_learner or self.learner or default_learner(replicas, "anchor")
        return self.learner or default_learner(replicas, "synthetic"), anchors

    def settled(self) -> Estimation:
        """With what learners choose on pilot data chosen for all worlds at once."""
        replicas = self.replicas(min(self.sizes.worlds, self.sizes.worlds_at_once))
        draws = self.compute.generator("learners", device=self.compute.device)

        def settle(chosen: Learner, site: str) -> Learner:
            if chosen.settle is None:
                return chosen
            return chosen.settle(pilot_rows(replicas, site), draws)

        learner, anchor_learner = self.learners(replicas)
        return replace(
            self,
            learner=settle(learner, "synthetic"),
            anchor_learner=settle(anchor_learner, "anchor"),
        )


def estimate_terms(
    batch: Batch, estimation: Estimation, world: Mapping[str, Tensor] | None = None
) -> WorldEstimates:
    """The estimated terms in the worlds of one batch.

    `world` has a value (worlds, …) per site of all batches' worlds, where they are not the prior's.
    """
    if batch.number:
        own = estimation.compute.spawn("worlds", batch.number)
        estimation = replace(estimation, compute=own)
    sizes, constants, compute = estimation.sizes, estimation.constants, estimation.compute
    replicates = sizes.replicates
    stages = compute.stages(_STAGES, "bounds")
    replicas = estimation.replicas(batch.worlds, batch.of(world))
    values = replicas.draw(replicates, "replicates")
    draws = compute.generator("learners", device=compute.device)
    next(stages)

    found = chain_information(
        replicas, values, pairs=min(sizes.pairs, replicates), resolution=constants.resolution
    )
    next(stages)

    learner, anchor_learner = estimation.learners(replicas)
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
