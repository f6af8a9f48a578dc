"""The bounds with a mixture as the learner, beside what they bound, and the GGMI.

W learns from the synthetic rows and W' from the anchors; their losses, in [0, 1], are measured on
the task's rows. What the theorems need beyond that is a process, and stays unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rbpp.randomness import generator as new_generator
from rbpp.randomness import spawn
from rbpp.sources import learned_audit
from rbpp.sources.learned_audit import LOSS_BOUND, line
from rbpp.sources.learned_information import (
    MOST_ROWS,
    Learner,
    Sides,
    information,
    pilot_dimension,
    prepare,
)
from rbpp.sources.own_mixtures import bootstrap_weights
from rbpp.sources.scene import Scene
from rbpp.theory import lemmas
from rbpp.theory.risk import estimated_sub_gaussian

# Fewer rows, or groups of rows, leave a pilot that says nothing.
FEWEST_ROWS, FEWEST_UNITS = 40, 12
# Draws of W per chain, over which losses are averaged.
_LEARNERS = 32
_NAMES = {"synthetic": "information_synthetic_learner", "anchor": "information_anchor_learner"}
_ERRORS = {"synthetic": "generalization_error", "anchor": "generalization_error_anchor"}

Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Learned:
    """Terms (chain, draw), their Monte Carlo errors, the audit, and the rows learnt from.

    Attributes:
        terms, errors: by name.
        audit: `name`, `holds`, `measured`, `message`.
        rows: that each learner learnt from, by role.
    """

    terms: Terms
    errors: Terms
    audit: list[dict[str, Any]]
    rows: dict[str, int]


def learned_terms(
    scene: Scene, divergences: Mapping[str, Tensor], *, chains: int, draws: int, seed: int
) -> Learned:
    """Informations of learners, measured errors, and bounds of them, from the sources' rows.

    `bound_synthetic_sharp` = C · TV(D, D_gen) + √(2σ² I(S_gen; W) / n) and `bound_synthetic`, with
    TV(D, D_M) + TV(D_M, D_gen) in its place, have I(S_gen; W) itself where Theorem 4.7 has Lemma
    4.5's bound of it: they are never larger than the theorem. `bound_anchor` is Lemma 4.8, `ggmi`
    Definition 4.9. All take the upper side of the information.

    Args:
        scene: the sources; learners see their first principal components.
        divergences: `total_divergence`, and where they are known `task_divergence` and
            `generation_divergence`, each (chain, draw); beside them `irrelevant_share` and
            `uncovered_share`, which no total variation can be below.
        chains, draws: shape of the terms.
        seed: decides every random number.
    """
    audit: list[dict[str, Any]] = []
    learners = _learners(scene, seed, audit)
    terms: Terms = {}
    errors: Terms = {}
    shape = {"chains": chains, "draws": draws}
    found: dict[str, Sides] = {}
    for role, learner in learners.items():
        random = new_generator(spawn(seed, "learner", role, "draws"))
        found[role] = information(learner, **shape, random=random)
        for side, (value, error) in found[role].items():
            terms[_NAMES[role] + side], errors[_NAMES[role] + side] = value, error
        task = _some_rows(scene.coordinates[scene.reference], learner, random)
        error, noise, losses = _error(learner, task, **shape, random=random)
        audit.append(learned_audit.learner(role, learner, losses))
        if role == scene.roles[scene.reference]:
            continue  # the anchors stand in for the task: they cannot be set against it
        terms[_ERRORS[role]], errors[_ERRORS[role]] = error, noise
        shift = _shift(learner, task, random)
        if role == "anchor":
            audit.append(learned_audit.anchor_shift(shift))
        else:
            audit.append(learned_audit.total_divergence(shift, divergences))
    _add_bounds(terms, errors, found, learners, divergences)
    if len(found) == 2:
        _add_gain(terms, errors, found["anchor"], found["synthetic"])
    audit += [
        learned_audit.statement(terms, errors, *names)
        for names in learned_audit.STATEMENTS
        if names[2] in terms
    ]
    audit += learned_audit.unknown(terms, learners)
    sizes = {role: len(learner.rows) for role, learner in learners.items()}
    return Learned(terms, errors, audit, sizes)


def _learners(scene: Scene, seed: int, audit: list[dict[str, Any]]) -> dict[str, Learner]:
    """Learners of the sources that have rows enough, all in the same principal components."""
    units: dict[str, int] = {}
    for role in ("synthetic", "anchor"):
        if role not in scene.roles:
            continue
        index = scene.index(role)
        group = scene.groups[index]
        size = len(scene.sources[index])
        count = size if group is None else int(group.max()) + 1
        if size >= FEWEST_ROWS and count >= FEWEST_UNITS:
            units[role] = min(count, MOST_ROWS)
            continue
        of, least = "", f"{FEWEST_ROWS} rows"
        if group is not None:
            of, least = f" in {count} groups", f"{least} in {FEWEST_UNITS} groups"
        audit.append(
            line(
                f"learner of the {role} rows",
                None,
                size,
                f"no learner, so no information and no bounds with it: {size} rows{of}, and a "
                f"pilot and a rest to learn from take {least}",
            )
        )
    if not units:
        return {}
    dimension = pilot_dimension(min(units.values()), scene.projection.dimension)
    learners: dict[str, Learner] = {}
    for role in units:
        index = scene.index(role)
        rows = scene.coordinates[index][:, :dimension].double()
        random = new_generator(spawn(seed, "learner", role))
        try:
            learners[role] = prepare(rows, scene.groups[index], random)
        except ValueError as error:
            message = f"no learner, so no information and no bounds with it: {error}"
            audit.append(line(f"learner of the {role} rows", None, len(rows), message))
    return learners


def _some_rows(coordinates: Tensor, learner: Learner, random: torch.Generator) -> Tensor:
    """At most `MOST_ROWS` rows of a source, in the learner's principal components."""
    chosen = torch.randperm(len(coordinates), generator=random)[:MOST_ROWS]
    return coordinates[chosen, : learner.rows.shape[1]].double()


def _error(
    learner: Learner, task: Tensor, *, chains: int, draws: int, random: torch.Generator
) -> tuple[Tensor, Tensor, dict[str, float]]:
    """R_D(W) − R̂_S(W): draws (chain, draw) over rows by the Bayesian bootstrap, mean over W.

    Also its Monte Carlo error, that of the mean over W, and the range of the losses and their σ.
    """
    values, errors = [], []
    low, high, sub_gaussian = 1.0, 0.0, 0.0
    for _ in range(chains):
        on_task, on_rows = _losses(learner, (task, learner.rows), random)
        of_task = bootstrap_weights(torch.arange(len(task)), draws, random) / len(task)
        of_rows = bootstrap_weights(learner.unit, draws, random) / len(learner.rows)
        gaps = of_task @ on_task.mT - of_rows @ on_rows.mT  # (draw, W)
        values.append(gaps.mean(-1))
        errors.append(gaps.std(-1) / gaps.shape[-1] ** 0.5)
        low = min(low, float(on_task.min()), float(on_rows.min()))
        high = max(high, float(on_task.max()), float(on_rows.max()))
        sub_gaussian = max(sub_gaussian, float(estimated_sub_gaussian(on_rows)))
    measured = {"low": low, "high": high, "sub_gaussian": sub_gaussian}
    return torch.stack(values), torch.stack(errors), measured


def _losses(learner: Learner, parts: tuple[Tensor, ...], random: torch.Generator) -> list[Tensor]:
    """Losses (W, rows) of the same draws of W on several sets of rows."""
    drawn = learner.learnt(_LEARNERS).draw(random)
    found = []
    for part in parts:
        losses = learner.prepared.loss(drawn, part.expand(1, _LEARNERS, *part.shape))
        assert losses is not None
        found.append(losses.squeeze(0))
    return found


def _shift(learner: Learner, task: Tensor, random: torch.Generator) -> tuple[float, float]:
    """R_D(W) − R_{D_gen}(W) of W that learnt from half of the rows, on the other half: mean, error.

    The rows that W learnt from would flatter it, and so would the pilot.
    """
    values, variance = [], 0.0
    for half in (0, 1):
        own = learner.unit % 2 == half
        part = Learner(learner.prepared, learner.pilot, learner.rows[own], learner.unit[own], 0)
        on_task, on_rows = (
            losses.mean(0) for losses in _losses(part, (task, learner.rows[~own]), random)
        )
        values.append(float(on_task.mean() - on_rows.mean()))
        variance += float(on_task.var() / len(on_task) + on_rows.var() / len(on_rows)) / 4
    return sum(values) / 2, variance**0.5


def _add_bounds(
    terms: Terms,
    errors: Terms,
    found: Mapping[str, Sides],
    learners: Mapping[str, Learner],
    divergences: Mapping[str, Tensor],
) -> None:
    sigma = lemmas.sub_gaussian_constant(LOSS_BOUND)
    for role, sides in found.items():
        upper, upper_error = sides["_upper"]
        flat = lemmas.lemma_4_4(upper, learners[role].units, sub_gaussian=sigma)
        error = flat * upper_error / (2 * upper.clamp_min(1e-9))  # d√I = √I dI / 2I
        if role == "anchor":
            terms["bound_anchor"], errors["bound_anchor"] = flat, error
            continue
        pairs: dict[str, tuple[str, ...]] = {"bound_synthetic_sharp": ("total_divergence",)}
        if "task_divergence" in divergences:
            pairs["bound_synthetic"] = ("task_divergence", "generation_divergence")
        for name, parts in pairs.items():
            shift = torch.stack([divergences[part].to(flat) for part in parts]).sum(0)
            terms[name] = lemmas.distribution_shift(shift, LOSS_BOUND) + flat
            errors[name] = error


def _add_gain(terms: Terms, errors: Terms, anchor: Sides, made: Sides) -> None:
    for side, other in (("", ""), ("_lower", "_upper"), ("_upper", "_lower")):
        (first, first_error), (second, second_error) = anchor[side], made[other]
        terms[f"ggmi{side}"] = lemmas.ggmi(first, second)
        errors[f"ggmi{side}"] = (first_error.square() + second_error.square()).sqrt()
