"""The bounds with a mixture as the learner, beside what they bound, and the GGMI.

W learns from the synthetic rows and W' from the anchors; their losses, in [0, 1], are measured on
the task's rows. What the theorems need beyond that is a process, and stays unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rbpp.assessment import learned_audit
from rbpp.assessment.learned_audit import LOSS_BOUND
from rbpp.assessment.learned_information import (
    MOST_ROWS,
    Learner,
    bootstrap_weights,
    information,
    pilot_dimension,
    prepare,
)
from rbpp.assessment.sources import Sources
from rbpp.assessment.weighted_rows import Array, Draws
from rbpp.checks import Check
from rbpp.estimate import Estimate, delta_method, mean_estimate, stack
from rbpp.randomness import generator as new_generator
from rbpp.randomness import spawn
from rbpp.theory import lemmas
from rbpp.theory.risk import estimated_sub_gaussian

# Fewer rows, or groups of rows, leave a pilot that says nothing.
FEWEST_ROWS, FEWEST_GROUPS = 40, 12
# Draws of W per chain, over which losses are averaged.
_LEARNERS = 32
_LEAST = 1e-9  # nats
_NAMES = {"synthetic": "information_synthetic_learner", "anchor": "information_anchor_learner"}
_ERRORS = {"synthetic": "generalization_error", "anchor": "generalization_error_anchor"}

Terms = Mapping[str, Estimate]


@dataclass(frozen=True)
class Learned:
    """What learners of the sources tell.

    Attributes:
        terms: by name, (chain, draw).
        checks: of what the bounds assume, and of the bounds.
        rows: that each learner learnt from, by role.
    """

    terms: dict[str, Estimate]
    checks: list[Check]
    rows: dict[str, int]

    @property
    def row_counts(self) -> dict[str, int]:
        """Rows that the information of a learner is about, by the name of the term."""
        counts = {_NAMES[role]: count for role, count in self.rows.items()}
        if "synthetic" in self.rows:
            counts["ggmi"] = self.rows["synthetic"]
        sides = ("", "_lower", "_upper")
        return {f"{name}{side}": count for name, count in counts.items() for side in sides}


@dataclass(frozen=True)
class Variation:
    """What is known of TV(D, D_gen): two upper ends, where an `Estimate` has one.

    Attributes:
        upper: under the mixture model alone; no upper side exists without a model.
        huber: √(1 − e^−KL) with the upper end of KL, of Bretagnolle and Huber; 1 where KL has none.
        at_least: the largest share that one source has and the other lacks: no TV is below it.
    """

    upper: float
    huber: float
    at_least: float = 0.0


def learned_terms(
    sources: Sources, divergences: Terms, variation: Variation | None, draws: Draws
) -> Learned:
    """Informations of learners, measured errors, and bounds of them, from the sources' rows.

    `bound_synthetic_sharp` = C · TV(D, D_gen) + √(2σ² I(S_gen; W) / n) and `bound_synthetic`, with
    TV(D, D_M) + TV(D_M, D_gen) in its place, have I(S_gen; W) itself where Theorem 4.7 has Lemma
    4.5's bound of it: they are never larger than the theorem. The first takes the upper side of TV
    under the mixture model, and `bound_synthetic_sharp_bretagnolle_huber` that of Bretagnolle and
    Huber. `bound_anchor` is Lemma 4.8, `ggmi` Definition 4.9. All take the upper side of the
    information.

    Args:
        sources: learners see their first principal components.
        divergences: `task_divergence` and `generation_divergence` where they are known, each
            (chain, draw).
        variation: of task and synthetic rows; None where it is not known.
        draws: of the terms; their seed decides every random number.
    """
    checks: list[Check] = []
    seed = draws.seed
    learners = _learners(sources, seed, checks)
    terms: dict[str, Estimate] = {}
    for role, learner in learners.items():
        random = new_generator(spawn(seed, "learner", role, "draws"))
        terms[_NAMES[role]] = information(learner, draws.shape, random)
        task = _some_rows(sources.coordinates[sources.task], learner, random)
        error, losses = _error(learner, task, draws.shape, random)
        checks.append(learned_audit.learner(role, learner, losses))
        if role == "synthetic":
            checks.append(learned_audit.goodness(learner, spawn(seed, "learner", role, "fit")))
        if role == sources.task:
            continue  # the anchors stand in for the task: they cannot be set against it
        terms[_ERRORS[role]] = error
        shift = _shift(learner, task, random)
        if role == "anchor":
            checks.append(learned_audit.anchor_shift(shift))
        elif variation is not None:
            checks.append(
                learned_audit.total_divergence(shift, variation.upper, variation.at_least)
            )
    terms |= _bounds(terms, learners, divergences, variation)
    if len(learners) == 2:
        terms["ggmi"] = terms[_NAMES["anchor"]] - terms[_NAMES["synthetic"]]
    checks += [
        learned_audit.statement(terms, audited)
        for audited in learned_audit.AUDITED
        if audited.right in terms
    ]
    checks += learned_audit.unknown(terms, learners)
    sizes = {role: len(learner.rows) for role, learner in learners.items()}
    return Learned(terms, checks, sizes)


def _learners(sources: Sources, seed: int, checks: list[Check]) -> dict[str, Learner]:
    """Learners of the sources that have rows enough, all in the same principal components."""
    units: dict[str, int] = {}
    for role in ("synthetic", "anchor"):
        if role not in sources.names:
            continue
        size = len(sources.rows[role])
        count = sources.unit_count(role)
        if size >= FEWEST_ROWS and count >= FEWEST_GROUPS:
            units[role] = min(count, MOST_ROWS)
            continue
        of, least = "", f"{FEWEST_ROWS} rows"
        if count < size:
            of, least = f" in {count} groups", f"{least} in {FEWEST_GROUPS} groups"
        why = f"{size} rows{of}, and a pilot and a rest to learn from take {least}"
        checks.append(learned_audit.no_learner(role, why, size))
    if not units:
        return {}
    dimension = pilot_dimension(min(units.values()), sources.projection.dimension)
    learners: dict[str, Learner] = {}
    for role in units:
        rows = torch.as_tensor(sources.coordinates[role][:, :dimension]).double()
        random = new_generator(spawn(seed, "learner", role))
        try:
            learners[role] = prepare(rows, torch.as_tensor(sources.units(role)), random)
        except ValueError as error:
            checks.append(learned_audit.no_learner(role, str(error), len(rows)))
    return learners


def _some_rows(coordinates: Array, learner: Learner, generator: torch.Generator) -> Tensor:
    """At most `MOST_ROWS` rows of a source, in the learner's principal components."""
    chosen = torch.randperm(len(coordinates), generator=generator)[:MOST_ROWS]
    return torch.as_tensor(coordinates)[chosen, : learner.rows.shape[1]].double()


def _error(
    learner: Learner, task: Tensor, shape: tuple[int, int], generator: torch.Generator
) -> tuple[Estimate, dict[str, float]]:
    """R_D(W) − R̂_S(W): draws (chain, draw) over rows by the Bayesian bootstrap, mean over W.

    Also the range of the losses and their σ.
    """
    found, losses, sub_gaussian = [], [], 0.0
    chains, draws = shape
    for _ in range(chains):
        on_task, on_rows = _losses(learner, (task, learner.rows), generator)
        of_task = bootstrap_weights(torch.arange(len(task)), draws, generator) / len(task)
        of_rows = bootstrap_weights(learner.unit, draws, generator) / len(learner.rows)
        gaps = of_task @ on_task.mT - of_rows @ on_rows.mT  # (draw, W)
        found.append(mean_estimate(gaps))
        losses += [on_task.flatten(), on_rows.flatten()]
        sub_gaussian = max(sub_gaussian, float(estimated_sub_gaussian(on_rows)))
    low, high = (float(one) for one in torch.cat(losses).aminmax())
    return stack(found), {"low": low, "high": high, "sub_gaussian": sub_gaussian}


def _losses(
    learner: Learner, parts: tuple[Tensor, ...], generator: torch.Generator
) -> list[Tensor]:
    """Losses (W, rows) of the same draws of W on several sets of rows."""
    drawn = learner.learnt(_LEARNERS).draw(generator)
    found = []
    for part in parts:
        losses = learner.prepared.loss(drawn, part.expand(1, _LEARNERS, *part.shape))
        assert losses is not None
        found.append(losses.squeeze(0))
    return found


def _shift(learner: Learner, task: Tensor, generator: torch.Generator) -> Estimate:
    """R_D(W) − R_{D_gen}(W) of W that learnt from half of the rows, on the other half.

    The rows that W learnt from would flatter it, and so would the pilot.
    """
    found = []
    for half in (0, 1):
        own = learner.unit % 2 == half
        part = Learner(learner.prepared, learner.pilot, learner.rows[own], learner.unit[own], 0)
        on_task, on_rows = (
            losses.mean(0) for losses in _losses(part, (task, learner.rows[~own]), generator)
        )
        found.append(mean_estimate(on_task) - mean_estimate(on_rows))
    return stack(found).mean()


def _bounds(
    terms: Terms,
    learners: Mapping[str, Learner],
    divergences: Terms,
    variation: Variation | None,
) -> dict[str, Estimate]:
    """Bounds by the upper side of the information of each learner."""
    sigma = lemmas.sub_gaussian_constant(LOSS_BOUND)
    found: dict[str, Estimate] = {}
    for role, learner in learners.items():
        upper = terms[_NAMES[role]].upper
        assert upper is not None
        gap = _lemma_4_4(upper, learner.units, sigma)
        if role == "anchor":
            found["bound_anchor"] = gap
            continue
        if variation is not None:
            for name, side in (
                ("bound_synthetic_sharp", variation.upper),
                ("bound_synthetic_sharp_bretagnolle_huber", variation.huber),
            ):
                shift = gap.value.new_tensor(side)
                found[name] = gap + lemmas.distribution_shift(shift, LOSS_BOUND)
        if {"task_divergence", "generation_divergence"} <= set(divergences):
            parts = ("task_divergence", "generation_divergence")
            shift = torch.stack([divergences[part].value.to(gap.value) for part in parts]).sum(0)
            found["bound_synthetic"] = gap + lemmas.distribution_shift(shift, LOSS_BOUND)
    return found


def _lemma_4_4(information: Estimate, rows: int, sigma: Tensor) -> Estimate:
    def bound(term: Mapping[str, Tensor]) -> dict[str, Tensor]:
        positive = term["information"].clamp_min(_LEAST)  # a root has no derivative at zero
        return {"bound": lemmas.lemma_4_4(positive, rows, sub_gaussian=sigma)}

    return delta_method(bound, {"information": information})["bound"]
