"""How often intervals over posterior worlds hold the terms and bounds of the true world.

A world is drawn from the prior, data are simulated in it, its posterior is inferred, and `rbpp
bounds` is run at a few posterior worlds. The interval of a term is the one that its table shows.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import rbpp
from benchmarks.coverage_truth import (
    LEARNER_NOISE,
    LETTER_NOISE,
    LOSS_BOUND,
    RESOLUTION,
    NormalChain,
    finite_truth,
    linear_gaussian_truth,
    location_loss,
    normal_truth,
)
from benchmarks.world_ranks import REFUSED, kept
from rbpp.compute import Compute
from rbpp.processes.process import Process
from rbpp.processes.simulation import simulate_tensors
from rbpp.theory.finite_learner import finite_learner
from rbpp.theory.learners import Learner, point_learner
from rbpp.theory.settings import LemmaConstants, SampleSizes
from rbpp.variables import VARIABLES

PROBABILITY = 0.94
_ROUNDING = 1e-9
# A dozen worlds: the interval is Student's t prediction interval, which accounts for so few.
SIZES = SampleSizes(worlds=12, replicates=64, pairs=64, groups=8, inner=16)
Truth = Callable[[Mapping[str, Tensor], Mapping[str, Any]], dict[str, float]]


@dataclass(frozen=True)
class CoverCase:
    """A process at small sizes, what is observed of it, its learner, and the truth of a world."""

    reference: Any
    knobs: Mapping[str, Any]
    observed: tuple[str, ...]
    learner: Learner
    truth: Truth


@dataclass(frozen=True)
class WorldCover:
    """What the intervals hold.

    Attributes:
        held: term to whether its interval holds the truth, a flag per world.
        beside: term to distances of the truth from the interval's middle, in half widths.
        refused: worlds whose posterior could not be trusted.
        seconds: of a processor for a world, on average.
    """

    held: dict[str, list[bool]]
    beside: dict[str, list[float]]
    refused: int
    seconds: float

    def shares(self) -> dict[str, float]:
        """Share of worlds whose interval holds the truth, by term, the least first."""
        found = {name: sum(held) / len(held) for name, held in self.held.items()}
        return dict(sorted(found.items(), key=lambda item: item[1]))


def cover_cases(readme: Callable[..., Any]) -> dict[str, CoverCase]:
    """The processes whose terms are known in every world."""
    mean = point_learner(LEARNER_NOISE, loss=location_loss)
    both = ("anchor", "synthetic")
    return {
        "README": CoverCase(readme, {}, ("synthetic",), mean, readme_truth),
        "finite_alphabet": CoverCase(
            "finite_alphabet", {"outputs": 4}, both, finite_learner(3, LETTER_NOISE), finite_truth
        ),
        "linear_gaussian": CoverCase("linear_gaussian", {}, both, mean, linear_gaussian_truth),
    }


def readme_truth(world: Mapping[str, Tensor], knobs: Mapping[str, Any]) -> dict[str, float]:
    """Every term of the README's process: its centre moves rows, and changes none of them."""
    anchors, outputs = int(knobs["anchors"]), int(knobs["outputs"])
    size = len(world["centre"])
    normals = torch.eye(size * (anchors + 1 + 2 * outputs)).double()
    parts = [size * count for count in (anchors, 1, outputs, outputs)]
    anchor, of_prompt, of_output, of_curation = normals.split(parts)
    prompt = anchor.unflatten(0, (anchors, size)).mean(0) + 0.1 * of_prompt
    output = prompt.repeat(outputs, 1) + knobs["temperature"] * of_output
    centre = world["centre"].double()
    return normal_truth(
        NormalChain(
            sites={
                "anchor": anchor,
                "prompt": prompt,
                "output": output,
                "synthetic": output + knobs["noise"] * of_curation,
            },
            own=torch.arange(len(normals)) >= size * (anchors + 1),
            anchors=anchors,
            outputs=outputs,
            task=(centre, torch.eye(size).double()),
            generator=None,
            synthetic_mean=centre,
            factor="absent",
        )
    )


def world_cover(
    case: CoverCase,
    replications: int,
    *,
    sizes: SampleSizes = SIZES,
    seconds: float = 20.0,
    seed: int = 0,
    store: Path | None = None,
    compute: Compute | None = None,
) -> WorldCover:
    """Whether intervals over posterior worlds hold what is true.

    Args:
        case: process, data, learner and truth.
        replications: true worlds.
        sizes: of the bounds at posterior worlds.
        seconds: limit of every posterior.
        seed: decides everything.
        store: file of JSON lines that keeps every replication as it ends.
        compute: workers.
    """
    process = rbpp.load_process(case.reference, **case.knobs)
    work = partial(_one, process=process, case=case, sizes=sizes, seconds=seconds, seed=seed)
    records = kept(work, replications, store, Compute.of(compute, seed))
    held: dict[str, list[bool]] = {}
    beside: dict[str, list[float]] = {}
    for _, terms, _ in records:
        for name, (truth, low, high) in terms.items():
            held.setdefault(name, []).append(low - _ROUNDING <= truth <= high + _ROUNDING)
            half = max((high - low) / 2, _ROUNDING)
            beside.setdefault(name, []).append((truth - (low + high) / 2) / half)
    return WorldCover(
        held,
        beside,
        sum(engine == REFUSED for engine, *_ in records),
        sum(seconds for *_, seconds in records) / len(records),
    )


def table_of(found: Mapping[str, WorldCover]) -> list[str]:
    """A line per process and term, the least cover first."""
    rows = [
        (share, process, name, one)
        for process, one in found.items()
        for name, share in one.shares().items()
    ]
    lines = [
        "| process | term | worlds | covers | truth beside the middle, half widths | is a |",
        f"|{'---|' * 6}",
    ]
    for share, process, name, one in sorted(rows, key=lambda row: row[:3]):
        mean = sum(one.beside[name]) / len(one.beside[name])
        lines.append(
            f"| {process} | `{name}` | {len(one.held[name])} | {share:.2f} | {mean:.2f} | "
            f"{VARIABLES[name].stands_as} |"
        )
    return lines


def _one(
    number: int,
    *,
    process: Process,
    case: CoverCase,
    sizes: SampleSizes,
    seconds: float,
    seed: int,
) -> tuple[str, dict[str, tuple[float, float, float]], float]:
    """The engine, (truth, low, high) by term, and seconds of a processor."""
    begin = time.process_time()
    compute = Compute(seed=seed).spawn("replication", number)
    drawn = simulate_tensors(process, compute=compute.spawn("truth"))
    data = {name: drawn.sites[name][0, 0] for name in case.observed}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            posterior = rbpp.infer(
                process, data, draws=50, seconds=seconds, seed=compute.spawn("posterior").seed
            )
    except ValueError:
        return REFUSED, {}, time.process_time() - begin
    found = rbpp.bounds(
        process,
        posterior=posterior,
        sizes=sizes,
        constants=LemmaConstants(resolution=RESOLUTION, loss_bound=LOSS_BOUND),
        learner=case.learner,
        seed=compute.spawn("bounds").seed,
    )
    world = {name: value[0, 0] for name, value in drawn.world.items()}
    true = case.truth(world, process.knobs)
    terms = {
        name: (true[name], float(term["hdi_low"]), float(term["hdi_high"]))
        for name, term in found.table(PROBABILITY).items()
        if name in VARIABLES
        and math.isfinite(true.get(name, math.nan))
        and term["hdi_low"] is not None  # of a ratio that is infinite in some world there is none
    }
    return posterior.engine, terms, time.process_time() - begin
