"""Every term and bound of a process, from draws of it and the densities in its trace.

The worlds are the posterior draws: each term is estimated in every world, with its Monte Carlo
error beside it. What a process does not give is missing with a reason; the rest is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rbpp.checkpoint import Checkpoint
from rbpp.estimate import Estimate
from rbpp.progress import progress
from rbpp.theory import composition
from rbpp.theory.information import Bracket, statement
from rbpp.theory.learners import Learner
from rbpp.theory.measure import Batch, Sizes, measure
from rbpp.theory.measured import Measured, join
from rbpp.threads import Map, one_thread


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
    world: dict[str, Tensor] = field(default_factory=dict)
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
    worlds_at_once: int | None = None,
    mapper: Map = map,
    checkpoint: Checkpoint | None = None,
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
        worlds_at_once: worlds of a batch, by default all. Draws depend on it, and on nothing that
            decides who works on a batch; a mixture's number of components is chosen by batch.
        mapper: `map`, or one that works on several batches at once, such as that of a cluster.
        checkpoint: keeps what every batch gave; a run with the same checkpoint goes on from there.
        quiet: no progress bar.

    Raises:
        ValueError: if a count or constant is out of range, the process lacks a site, or a
            deterministic map between continuous variables makes an information infinite.
    """
    _check_counts(
        worlds=worlds,
        worlds_at_once=worlds_at_once or worlds,
        replicates=replicates,
        pairs=pairs,
        groups=groups,
        inner=inner,
    )
    composition.check_constants(loss_bound, sub_gaussian, layers, contraction, resolution)
    batches = world_batches(worlds, worlds_at_once or worlds)
    sizes = Sizes(replicates, min(pairs, replicates), groups, inner)
    work = partial(
        _arrays,
        model=model,
        sizes=sizes,
        learner=learner,
        anchor_learner=anchor_learner,
        loss_bound=loss_bound,
        resolution=resolution,
        seed=seed,
        device=device,
        quiet=quiet or len(batches) > 1,
    )
    steps = (checkpoint or Checkpoint()).each(
        mapper, work, batches, lambda batch: f"worlds-{batch.number:04}"
    )
    shown = progress(steps, len(batches), "worlds", quiet or len(batches) == 1)
    parts = [Measured.from_arrays(step) for step in shown]
    measured = join(parts, [batch.worlds for batch in batches])
    facts = measured.facts
    missing, notes = dict(measured.missing), dict(measured.notes)
    constants, how = _constants(measured.sub_gaussian, loss_bound, sub_gaussian)
    compose = composition.composer(
        kind=facts["factor"],
        prompt_random=facts["prompt_random"],
        curated=not facts["copy"],
        factor_entropy="entropy_model_factor" not in missing,
        rests=frozenset(
            name.removeprefix("rest_") for name in composition.REST if name in measured.primitives
        ),
        rows=facts["rows"],
        loss_bound=loss_bound,
        sub_gaussian=constants,
        layers=layers,
        contraction=contraction,
        uppers={
            name: measured.brackets[name].upper.value
            for name in ("information_synthetic_learner", "information_anchor_learner")
        },
    )
    terms = composition.propagate(measured.primitives, compose, missing)
    if facts["factor"] == "absent":
        notes["information_model_factor_learner"] = composition.UNKNOWN_FACTOR
    infinite = terms.get("prompting_factor")
    if infinite is not None and bool(infinite.value.isinf().any()):
        notes["prompting_factor"] = (
            f"infinite in {int(infinite.value.isinf().sum())} of {worlds} worlds, where I(e_p; "
            "M(p)) is 0: no λ there has H(e_p) ≤ λ I(e_p; M(p))"
        )
    sides = {
        name: bracket
        for name, bracket in measured.brackets.items()
        if name in terms and not torch.equal(bracket.lower.value, bracket.upper.value)
    }
    described = facts["learners"]
    return Chain(
        terms,
        sides,
        missing,
        notes,
        {name: statement(bracket) for name, bracket in sides.items()},
        measured.world,
        {
            "worlds": worlds,
            "worlds_at_once": batches[0].worlds,
            **sizes._asdict(),
            "learner": described[0],
            "anchor_learner": described[1],
            "loss_bound": loss_bound,
            "sub_gaussian": constants if isinstance(constants, float) else float(constants.mean()),
            "sub_gaussian_from": how,
            "layers": layers,
            "contraction": contraction,
            "resolution": resolution,
            "rows_anchor": facts["rows"]["anchor"],
            "rows_synthetic": facts["rows"]["synthetic"],
            "seed": seed,
        },
        facts["rows"],
        {
            **{name: value for name, value in facts.items() if name not in ("rows", "learners")},
            "estimated_sub_gaussian": (
                None if measured.sub_gaussian is None else measured.sub_gaussian * loss_bound
            ),
        },
    )


def world_batches(worlds: int, at_once: int) -> list[Batch]:
    """All worlds, so many at once.

    >>> world_batches(5, 2)
    [Batch(number=0, worlds=2), Batch(number=1, worlds=2), Batch(number=2, worlds=1)]
    """
    firsts = range(0, worlds, at_once)
    return [Batch(number, min(at_once, worlds - first)) for number, first in enumerate(firsts)]


@one_thread()  # two threads for tensors this small made 24 seconds of work 128 on a busy machine
def _arrays(batch: Batch, **options: Any) -> dict[str, np.ndarray]:
    return measure(batch, **options).arrays()


def _constants(
    estimated: Tensor | None, loss_bound: float, sub_gaussian: float | str | None
) -> tuple[float | Tensor, str]:
    if sub_gaussian is None:
        return loss_bound / 2, "range of the loss, C/2"
    if sub_gaussian == "estimate":
        if estimated is None:
            raise ValueError(
                "Expected a learner with a loss to estimate σ from; got one without: give σ"
            )
        return estimated * loss_bound, "estimate from losses"
    return float(sub_gaussian), "given"


def _check_counts(**counts: int) -> None:
    least = {"worlds": 1, "worlds_at_once": 1, "replicates": 8, "pairs": 2, "groups": 2, "inner": 4}
    for name, count in counts.items():
        if count < least[name]:
            raise ValueError(f"Expected {name} ≥ {least[name]}; got {count}")
