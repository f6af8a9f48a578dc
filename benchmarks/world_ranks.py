"""Simulation-based calibration of posteriors of worlds: ranks of the truth among the draws.

Talts, Betancourt, Simpson, Vehtari and Gelman, Validating Bayesian inference algorithms with
simulation-based calibration, 2018: where draws are of the posterior, the rank of a world drawn from
the prior among draws given its data is uniform.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import chisquare
from torch import Tensor

from rbpp import validate
from rbpp.compute import Compute
from rbpp.posterior.auto import Engine, Inference, infer_vectors
from rbpp.posterior.density import ConditionedDensity
from rbpp.posterior.sites import on_random_sites
from rbpp.processes.process import Process
from rbpp.processes.simulation import simulate_tensors

DRAWS, _BINS = 99, 10
REFUSED = "refused"


@dataclass(frozen=True)
class WorldRanks:
    """Ranks by functional.

    Attributes:
        ranks: name to ranks (replications,) in 0 … `DRAWS`; of functionals that no label changes.
        engines: name to how often each made the draws.
        refused: replications in which no draws could be trusted; they have no ranks.
        seconds: of a processor for a replication, on average.
    """

    ranks: dict[str, np.ndarray]
    engines: dict[str, int]
    refused: int
    seconds: float = 0.0

    def p_values(self) -> dict[str, float]:
        """Of a χ² test of ten equal bins."""
        return {
            name: float(
                chisquare(np.bincount(found * _BINS // (DRAWS + 1), minlength=_BINS)).pvalue
            )
            for name, found in self.ranks.items()
        }

    def coverage(self, probability: float) -> dict[str, float]:
        """Share of truths inside the central interval of that probability."""
        tail = round((1 - probability) / 2 * (DRAWS + 1), 9)
        return {
            name: float(((found >= tail) & (found < DRAWS + 1 - tail)).mean())
            for name, found in self.ranks.items()
        }


def world_ranks(
    process: Process,
    observed: Sequence[str],
    replications: int,
    *,
    engine: Engine = "auto",
    seconds: float = 10.0,
    seed: int = 0,
    store: Path | None = None,
    compute: Compute | None = None,
) -> WorldRanks:
    """Ranks of true worlds among posterior draws given data simulated in them.

    Functionals of every site of the world that data inform: mean and mean square of its elements.

    Args:
        process: at the sizes of the data.
        observed: sites that are given.
        replications: worlds.
        engine, seconds: as for `rbpp.infer`.
        seed: decides everything.
        store: file of JSON lines that keeps every replication as it ends: a run that was cut off
            goes on where it was.
        compute: workers.
    """
    validate.count("replications", replications)
    compute = Compute.of(compute, seed)
    work = partial(
        _one, process=process, observed=tuple(observed), engine=engine, seconds=seconds, seed=seed
    )
    found = kept(work, replications, store, compute)
    parts: dict[str, list[int]] = {}
    engines: dict[str, int] = {}
    for made, ranks, _ in found:
        engines[made] = engines.get(made, 0) + 1
        for name, rank in ranks.items():
            parts.setdefault(name, []).append(rank)
    return WorldRanks(
        {name: np.array(ranks) for name, ranks in parts.items()},
        engines,
        engines.pop(REFUSED, 0),
        float(np.mean([seconds for *_, seconds in found])),
    )


def kept(
    work: Callable[[int], Any], replications: int, store: Path | None, compute: Compute
) -> list[Any]:
    """What `work` gives for every replication, as JSON has it, each stored as it ends."""
    known = [] if store is None or not store.exists() else store.read_text().splitlines()
    found = [json.loads(line) for line in known][:replications]
    for one in compute.each(work, range(len(found), replications), "calibration"):
        found.append(one)
        if store is not None:
            with store.open("a") as file:
                print(json.dumps(one), file=file)
    return found


def _one(
    number: int,
    *,
    process: Process,
    observed: tuple[str, ...],
    engine: Engine,
    seconds: float,
    seed: int,
) -> tuple[str, dict[str, int], float]:
    """Which engine made the draws, the ranks by functional, and seconds of a processor."""
    begin = time.process_time()
    compute = Compute(seed=seed).spawn("replication", number)
    truth = simulate_tensors(process, compute=compute.spawn("truth"))
    rows = on_random_sites(process, {name: truth.sites[name][0, 0] for name in observed})
    density = ConditionedDensity(process, rows, compute=compute)
    try:
        found = infer_vectors(
            density,
            Inference(engine, draws=math.ceil((DRAWS + 1) / 4), seconds=seconds),
            compute,
        )
    except ValueError:
        return REFUSED, {}, time.process_time() - begin
    flat = found.vectors.flatten(0, 1)
    values, _ = density.evaluate(flat[:DRAWS], compute.generator("letters"))
    ties = compute.generator("ties")
    ranks = {}
    for name, drawn in values.items():
        if process.sites[name].in_chain:
            continue
        for label, power in (("mean", 1), ("mean square", 2)):
            own = _functional(truth.world[name][0], power)
            others = _functional(drawn, power)
            if torch.allclose(others, own, rtol=1e-9, atol=0):  # a mean of probabilities
                continue
            below = int((others < own).sum())
            equal = int((others == own).sum())
            chosen = int(torch.randint(equal + 1, (), generator=ties))
            ranks[f"{name}, {label}"] = below + chosen
    return found.engine, ranks, time.process_time() - begin


def _functional(value: Tensor, power: int) -> Tensor:
    """Mean of a power of all elements of each draw (draws, …)."""
    return value.double().pow(power).reshape(len(value), -1).mean(-1)
