"""Every estimated term of a process in some worlds: the task that workers do.

What follows from these terms by arithmetic is added where all worlds are together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from rbpp.compute import Compute
from rbpp.estimate import Estimate, exactly
from rbpp.processes.handlers import PROMPT_SITES
from rbpp.processes.process import Process
from rbpp.processes.replicas import Replicas
from rbpp.theory.chain_information import chain_information
from rbpp.theory.curated_entropy import is_copy
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
from rbpp.theory.terms import EstimatedTerms, ProcessFacts
from rbpp.theory.total_variation import total_variations
from rbpp.theory.world_estimates import WorldEstimates

_STAGES = ("draws", "chain", "learner", "anchors", "risks", "bounds")
_DATA_SETS = ("anchor", "synthetic")


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
        learner, anchor_learner: of W and of W'.
        compute: device, workers, progress, checkpoint and seed.
    """

    process: Process
    sizes: SampleSizes
    constants: LemmaConstants
    learner: Learner
    anchor_learner: Learner
    compute: Compute

    def replicas(self, worlds: int, world: Mapping[str, Tensor] | None = None) -> Replicas:
        """Of so many worlds: those given, or the prior's."""
        return Replicas(self.process, worlds, world, self.compute)

    def settled(self) -> Estimation:
        """With what learners choose on pilot data chosen for all worlds at once."""
        replicas = self.replicas(min(self.sizes.worlds, self.sizes.worlds_at_once))
        draws = self.compute.generator("learners", device=self.compute.device)

        def settle(chosen: Learner, site: str) -> Learner:
            if chosen.settle is None:
                return chosen
            return chosen.settle(pilot_rows(replicas, site), draws)

        return replace(
            self,
            learner=settle(self.learner, "synthetic"),
            anchor_learner=settle(self.anchor_learner, "anchor"),
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

    synthetic = Trained.of(estimation.learner, replicas, values, "synthetic", draws)
    found |= _learner_terms(synthetic, sizes, found.terms)
    next(stages)

    anchors = Trained.of(estimation.anchor_learner, replicas, values, "anchor", draws)
    found.terms["information_anchor_learner"] = anchors.information
    next(stages)

    found |= total_variations(replicas, values)
    risks = measured_risks(synthetic)
    found |= _risk_terms(risks, measured_risks(anchors), constants.loss_bound)
    next(stages)

    next(stages, None)
    return WorldEstimates(
        **vars(found),
        world=replicas.world,
        sub_gaussian=None if risks is None else estimated_sub_gaussian(risks.losses),
        facts=ProcessFacts(
            factor=factor_kind(replicas),
            prompt_random=replicas.sites["prompt"].random,
            curated=not is_copy(replicas, values),
            discrete=replicas.sites["synthetic"].discrete,
            output_random=replicas.sites["output"].random,
            losses=None if risks is None else risks.extremes,
            rows={name: replicas.sites[name].rows for name in _DATA_SETS},
            coordinates={name: replicas.sites[name].coordinates for name in _DATA_SETS},
            learner=estimation.learner.description,
            anchor_learner=estimation.anchor_learner.description,
        ),
    )


def _learner_terms(
    trained: Trained, sizes: SampleSizes, chain: Mapping[str, Estimate]
) -> EstimatedTerms:
    """I(S_gen; W), I(e_p; W), I(e_M; W), I(e_M; W | e_p), δ_ε, and I(S_anchor; W).

    Args:
        trained: the learner of S_gen.
        sizes: of the samples with parts of the chain held fixed.
        chain: terms that need no learner.
    """
    replicas, total, found = trained.replicas, trained.information, EstimatedTerms()
    found.terms["information_synthetic_learner"] = total

    def given(label: str, *names: str) -> ConditionalInformation:
        held = conditional_information(trained, names, sizes, label)
        assert held is not None
        return held

    def add(name: str, held: ConditionalInformation, *ceilings: Estimate | None) -> None:
        of_held = information_of_held(total, trained, held, ceilings)
        found.terms[name], found.paired[name], found.rests[name] = of_held

    prompt = given("prompt held", *PROMPT_SITES)
    if replicas.sites["synthetic"].random and not is_copy(replicas, trained.values):
        held = given("output held", *PROMPT_SITES, "model_factor", "output")
        found.terms["curation_leak"] = held.information
    else:  # S_gen is a function of the output: nothing is left once that is held
        zero = torch.zeros_like(total.value)
        found.terms["curation_leak"] = exactly(zero, "no random curation")
    add("information_prompt_learner", prompt, chain["information_prompt_output"].upper)
    if replicas.sites["prompt"].random:
        add(
            "information_anchor_synthetic_learner",
            given("anchor held", "anchor"),
            chain["information_anchor_output"].upper,
            found.terms["information_prompt_learner"].upper,
        )
    if factor_kind(replicas) == "above":
        both = given("factors held", *PROMPT_SITES, "model_factor")
        given_prompt = information_given_held(prompt, both)
        found.terms["information_model_factor_learner_given_prompt"] = given_prompt
    if factor_kind(replicas) != "absent":
        name = "information_model_factor_learner"
        factor = conditional_information(trained, ("model_factor",), sizes, "model factor held")
        if factor is not None:
            add(name, factor)
        else:
            found.missing[name] = (
                "site model_factor is not output − h(prompt), so that it cannot be held fixed "
                "while the prompt varies"
            )
    return found


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
