"""Rule `batch` of the contract: what the bounds draw and evaluate at once is right one by one."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from torch import Tensor

from rbpp.checks import Check, Verdict
from rbpp.compute import Compute
from rbpp.processes.density import site_log_density, sum_over_plates
from rbpp.processes.handlers import PROMPT_SITES, LostDimension, Run, plain_run
from rbpp.processes.interventions import evidence
from rbpp.processes.process import Process, hold
from rbpp.processes.replicas import Replicas
from rbpp.processes.trace_rules import finding

BATCH = (2, 3)  # worlds and replicates that are compared with single runs
BATCH_TOLERANCE = 1e-6  # relative: sums of log densities in another order


def check_batch(process: Process, run: Run, compute: Compute) -> Iterator[Check]:
    """Rule `batch`: many worlds and replicates at once are what they are one by one."""
    known = evidence(run, run.values)
    names = [name for name in [*run.chain, *run.world] if known[name] is not None]
    drawn = [name for name in names if name not in run.deterministic]
    try:
        replicas = Replicas(process, BATCH[0], compute=Compute(seed=compute.seed))
        values = replicas.draw(BATCH[1], "check")
        held = {**replicas.world, **values}
        batched = hold(process, held, drawn) if drawn else Run()
        densities = {
            name: sum_over_plates(process.sites[name], site_log_density(batched, name))
            for name in drawn
        }
        # The matrix that informations are made of: log p(output i | prompt j), (worlds, R, R).
        prompts = values.of(*PROMPT_SITES)
        pairs = replicas.pairs(values, "output", prompts) if "output" in drawn else None
    except (ValueError, RuntimeError, IndexError) as error:
        yield finding("batch", *_lost(process.name, error))
        return
    # What is computed in the world is left to each run to compute.
    known_sites = [name for name in held if name in [*run.chain, *run.world]]
    plain = {name: process.sites[name].plain(held[name]) for name in known_sites}
    largest = 0.0
    for name, gap in _gaps(process, plain, densities, pairs, names):
        if not gap < BATCH_TOLERANCE:
            yield finding(
                "batch",
                name,
                "violated",
                f"differs in a batch of {BATCH[0]} worlds and {BATCH[1]} replicates from "
                "the same values alone: index dimensions from the right, keep reduced ones",
                gap,
            )
            return
        largest = max(largest, gap)
    for name in run.chain:
        value = plain[name]
        is_drawn = name not in run.deterministic and value.is_floating_point()
        if is_drawn and bool((value == value[:, :1]).all()):
            message = "the same in every replicate of a world: draw it with pyro.sample"
            yield finding("batch", name, "violated", message)
            return
    message = "a batch of worlds and replicates agrees with running them one by one"
    yield finding("batch", process.name, "holds", message, largest)


def _gaps(
    process: Process,
    values: Mapping[str, Tensor],
    densities: Mapping[str, Tensor],
    pairs: Tensor | None,
    names: list[str],
) -> Iterator[tuple[str, float]]:
    """By how much each site of the batch differs from the same values in a run of their own."""

    def alone(world: int, own: int, prompt: int) -> dict[str, Tensor]:
        taken = {name: prompt if name.startswith("prompt") else own for name in values}
        return {n: v[world, taken[n] if v.shape[1] > 1 else 0] for n, v in values.items()}

    def relative(single: Tensor, density: Tensor) -> float:
        total = single.sum()
        if bool((total == density).all()):  # both may be −∞, outside the support
            return 0.0
        return float((total - density).abs() / (1 + density.abs()))

    for world in range(BATCH[0]):
        for replicate in range(BATCH[1]):
            one = alone(world, replicate, replicate)
            single = evidence(plain_run(process, 0, one), one)
            for name in names:
                expected = single[name]
                if expected is None:
                    continue  # rule `density` has it
                if name not in densities:
                    yield name, float((expected - one[name]).abs().max())
                else:
                    density = densities[name].expand(BATCH)
                    yield name, relative(expected, density[world, replicate])
        if pairs is not None:
            one = alone(world, 0, 1)
            crossed = evidence(plain_run(process, 0, one), one)["output"]
            yield "output", math.inf if crossed is None else relative(crossed, pairs[world, 0, 1])


def _lost(process: str, error: Exception) -> tuple[str, Verdict, str]:
    """Place, verdict and message where a batch does not run."""
    cause = error.__cause__
    # Pyro's own error lists all shapes over many lines; what a reader needs is the site.
    mismatch = re.search(r"[Ss]hape mismatch inside plate\(.*?\) at site (\S+)", str(error))
    hint = re.match(r"\w+ is a scalar: \S.*?; ", str(error))
    if not mismatch and not isinstance(cause, LostDimension):
        return process, "violated", str(error)
    message = hint.group(0) if hint else ""
    message += (
        f"loses a dimension in a batch of {BATCH[0]} worlds and {BATCH[1]} replicates: index "
        "dimensions from the right, keep reduced ones"
    )
    site = cause.site if isinstance(cause, LostDimension) else mismatch.group(1) if mismatch else ""
    return site, "violated", message
