"""What the contract of a process demands of one trace: sites, plates, sizes, events, values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch

from rbpp.processes.batching import CHAIN_SITES, INNER_DIMENSIONS, ROW_PLATES, Given
from rbpp.processes.interventions import draw, evidence
from rbpp.randomness import spawn

REQUIRED_SITES = ("anchor", "prompt", "output", "synthetic")
Verdict = Literal["consistent", "violated", "inconclusive"]


@dataclass(frozen=True)
class Finding:
    """What the check found of one rule at one place.

    Attributes:
        rule: which rule: runs, sites, observed, plate, size, event, values, density, randomness,
            world, markov, rows, batch, invertible.
        place: the site, plate or edge.
        verdict: consistent, violated or inconclusive.
        message: what was seen, and what to do about it.
        measured: the number behind it: the largest change of a log density in nats, mostly.
        required: whether the contract demands it; else it is an assumption of some results only.
    """

    rule: str
    place: str
    verdict: Verdict
    message: str
    measured: float = math.nan
    required: bool = True


def chain_of(run: Given) -> list[str]:
    """The sites of the chain that a run has, in its order."""
    return [name for name in run.values if name in CHAIN_SITES]


def world_of(run: Given) -> list[str]:
    """The sample sites of a run that are no chain sites: the world."""
    return [n for n in run.values if n not in CHAIN_SITES and n not in run.deterministic]


def run_once(name: str, model: Callable[[], Any], seed: int) -> tuple[list[Finding], Given | None]:
    """Rule `runs`, and the run that the other rules look at."""
    try:
        run = draw(model, seed)
    except Exception as error:  # a user's model may raise anything
        message = f"stops with {type(error).__name__}: {error}"
        return [Finding("runs", name, "violated", message)], None
    return [Finding("runs", name, "consistent", "runs with these knobs")], run


def check_sites(model: Callable[[], Any], run: Given, seed: int) -> Iterator[Finding]:
    """Rules `sites` (there, and the same in every run) and `observed`."""
    missing = [name for name in REQUIRED_SITES if name not in run.values]
    for name in missing:
        present = ", ".join(run.values) or "none"
        yield Finding("sites", name, "violated", f"no such site; the model has {present}")
    for attempt in range(3):
        try:
            names = list(draw(model, spawn(seed, "sites", attempt)).values)
        except Exception as error:
            message = f"some runs stop with {type(error).__name__}: {error}"
            yield Finding("runs", "every run", "violated", message)
            return
        if names != list(run.values):
            other = ", ".join(sorted(set(names) ^ set(run.values))) or "their order"
            message = f"the sites differ from run to run: {other}"
            yield Finding("sites", "every run", "violated", message)
            return
    if not missing:
        yield Finding("sites", "chain", "consistent", ", ".join(chain_of(run)))
    for name in run.observed:
        message = "observed inside the model, so that every run repeats it: leave data out of it"
        yield Finding("observed", name, "violated", message)


def check_plates(run: Given) -> Iterator[Finding]:
    """Rule `plate`: rows in their own plate, outer dimensions free; rule `world`: no rows in it."""
    for name in chain_of(run):
        if name in ROW_PLATES:
            expected = ROW_PLATES[name]
            frames = run.plates[name]
            found = ", ".join(f"{frame.name} (dim {frame.dim})" for frame in frames) or "none"
            if _in_its_plate(run, name):
                yield Finding("plate", name, "consistent", f"in plate {expected}")
            else:
                message = f"expected in plate {expected} (dim -1) and no other; got {found}"
                yield Finding("plate", name, "violated", message)
    rows = set(ROW_PLATES.values())
    for name in run.values:
        if any(frame.dim < -INNER_DIMENSIONS for frame in run.plates[name]):
            message = "has a plate left of dim -2: those belong to worlds and replicates"
            yield Finding("plate", name, "violated", message)
    for name in world_of(run):
        inside = [frame.name for frame in run.plates[name] if frame.name in rows]
        if inside:
            message = (
                f"drawn for every row of plate {inside[0]}, yet no site of the chain, so that it "
                "counts as world: sum it out of the distribution, or name it model_factor"
            )
            yield Finding("world", name, "violated", message)


def check_sizes(run: Given) -> Iterator[Finding]:
    """Rule `size`: as many rows as the plate has, and all of them."""
    sizes: dict[str, int] = {}
    for name in chain_of(run):
        frames = [frame for frame in run.plates[name] if frame.name == ROW_PLATES.get(name)]
        if not frames:
            continue  # rule `plate` has it
        plate, size, full = frames[0].name, frames[0].size, frames[0].full_size
        shape = tuple(run.values[name].shape)
        if not shape or shape[0] != size:
            message = f"expected {size} rows, the size of plate {plate}; got shape {shape}"
            yield Finding("size", name, "violated", message)
        elif full is not None and full != size:
            message = f"plate {plate} shows {size} rows of {full}: do not subsample it"
            yield Finding("size", name, "violated", message)
        elif sizes.setdefault(plate, size) != size:
            message = f"plate {plate} has {size} rows here and {sizes[plate]} elsewhere"
            yield Finding("size", name, "violated", message)
    for plate, size in sizes.items():
        yield Finding("size", plate, "consistent", f"{size} rows", float(size))


def check_events(run: Given) -> Iterator[Finding]:
    """Rule `event`: rows are vectors, of one dimension where they are compared."""
    shapes = {
        name: tuple(run.values[name].shape[1:])
        for name in chain_of(run)
        if _in_its_plate(run, name)
    }
    wrong = [name for name, shape in shapes.items() if len(shape) != 1]
    for name in wrong:
        message = f"expected rows of event shape (d,); got {shapes[name]}: use to_event(1)"
        yield Finding("event", name, "violated", message)
    # S = M(p) + ε; D_M stands beside M(p), and TV(D, D_gen) compares D with S.
    pairs = [("synthetic", "output"), ("unprompted", "output"), ("target", "synthetic")]
    for first, second in pairs:
        if {first, second} <= set(shapes) and shapes[first] != shapes[second] and not wrong:
            message = f"expected rows of one dimension; got {shapes[first]} and {shapes[second]}"
            yield Finding("event", f"{first}, {second}", "violated", message)
            wrong.append(first)
    if not wrong and shapes:
        message = "rows of shape " + ", ".join(sorted({str(shape) for shape in shapes.values()}))
        yield Finding("event", ", ".join(shapes), "consistent", message)


def check_values(run: Given) -> Iterator[Finding]:
    """Rules `values` (finite numbers) and `density` (finite where the model itself draws)."""
    found = evidence(run, run.values)
    suspect = False
    for name in [*chain_of(run), *world_of(run)]:
        value, density = run.values[name], found[name]
        if not bool(torch.isfinite(value.double()).all()):
            yield Finding("values", name, "violated", "has values that are not finite")
            suspect = True
        elif name in run.deterministic:
            continue
        elif density is None:
            message = "its log density cannot be evaluated: terms that need it are refused"
            yield Finding("density", name, "inconclusive", message)
            suspect = True
        elif not bool(torch.isfinite(density).all()):
            message = "what it draws has no finite log density"
            yield Finding("density", name, "violated", message)
            suspect = True
    if not suspect:
        message = "finite, and so are the log densities of the drawn ones"
        yield Finding("values", "every site", "consistent", message)


def _in_its_plate(run: Given, name: str) -> bool:
    frames = [(frame.name, frame.dim) for frame in run.plates[name]]
    return frames == [(ROW_PLATES.get(name), -1)]
