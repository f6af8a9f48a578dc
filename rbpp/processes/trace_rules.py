"""What the contract of a process demands of one trace: sites, plates, sizes, events, values."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from rbpp.checks import Check, Verdict
from rbpp.processes.handlers import (
    INNER_DIMENSIONS,
    REQUIRED_SITES,
    ROW_PLATES,
    Run,
)
from rbpp.processes.interventions import Tries, evidence

# What each rule demands of the place that it looks at.
_DEMANDS = {
    "runs": "the model runs with these knobs",
    "sites": "the sites of a chain, the same in every run",
    "observed": "no data inside the model",
    "plate": "rows in their own plate and no other",
    "size": "all rows of the plate",
    "event": "rows are vectors, of one dimension where they are compared",
    "values": "finite numbers",
    "density": "a finite log density",
    "randomness": "all randomness is in sites",
    "world": "the world stands above the chain",
    "markov": "edges of the chain and no others",
    "rows": "rows do not depend on each other",
    "batch": "a batch of worlds and replicates is what its runs are one by one",
    "invertible": "different anchors give different prompts",
}


def finding(
    rule: str,
    place: str,
    verdict: Verdict,
    message: str,
    measured: float = math.nan,
    *,
    required: bool = True,
) -> Check:
    """What was found of one rule at one place.

    Args:
        rule: a key of the demands above.
        place: the site, plate or edge.
        verdict: holds, violated, or unknown where the check could not look.
        message: what was seen, and what to do about it.
        measured: the number behind it: the largest change of a log density in nats, mostly.
        required: whether the contract demands it; else it is an assumption of some results only.
    """
    return Check(
        statement=f"{rule}, {place}: {_DEMANDS[rule]}",
        verdict=verdict,
        message=message,
        measured={"rule": rule, "place": place, "measured": measured},
        required=required,
    )


def first_run(name: str, runs: Tries) -> tuple[list[Check], Run | None]:
    """Rule `runs`, and the run that the other rules look at."""
    try:
        run = runs.base(0)
    except Exception as error:  # a user's model may raise anything
        message = f"stops with {type(error).__name__}: {error}"
        return [finding("runs", name, "violated", message)], None
    return [finding("runs", name, "holds", "runs with these knobs")], run


def check_sites(runs: Tries, run: Run) -> Iterator[Check]:
    """Rules `sites` (there, and the same in every run) and `observed`."""
    missing = [name for name in REQUIRED_SITES if name not in run.values]
    for name in missing:
        present = ", ".join(run.values) or "none"
        yield finding("sites", name, "violated", f"no such site; the model has {present}")
    for attempt in range(1, runs.kept):
        try:
            names = list(runs.base(attempt).values)
        except Exception as error:
            message = f"some runs stop with {type(error).__name__}: {error}"
            yield finding("runs", "every run", "violated", message)
            return
        # Runs start from different seeds, and end alike where the model has set its own.
        for library, mine, other in zip(
            ("numpy.random", "random"), run.ended, runs.base(attempt).ended, strict=True
        ):
            if mine == other:
                message = f"sets the seed of {library} inside: seed=… has no effect on its draws"
                yield finding("runs", "every run", "violated", message)
                return
        if names != list(run.values):
            other = ", ".join(sorted(set(names) ^ set(run.values))) or "their order"
            message = f"the sites differ from run to run: {other}"
            yield finding("sites", "every run", "violated", message)
            return
    if not missing:
        yield finding("sites", "chain", "holds", ", ".join(run.chain))
    for name in run.observed:
        message = "observed inside the model, so that every run repeats it: leave data out of it"
        yield finding("observed", name, "violated", message)


def check_plates(run: Run) -> Iterator[Check]:
    """Rule `plate`: rows in their own plate, outer dimensions free; rule `world`: no rows in it."""
    for name in run.chain:
        if name in ROW_PLATES:
            expected = ROW_PLATES[name]
            frames = run.plates[name]
            found = ", ".join(f"{frame.name} (dim {frame.dim})" for frame in frames) or "none"
            if _in_its_plate(run, name):
                yield finding("plate", name, "holds", f"in plate {expected}")
            else:
                message = f"expected in plate {expected} (dim -1) and no other; got {found}"
                yield finding("plate", name, "violated", message)
    rows = set(ROW_PLATES.values())
    for name in run.values:
        if any(frame.dim < -INNER_DIMENSIONS for frame in run.plates[name]):
            message = "has a plate left of dim -2: those belong to worlds and replicates"
            yield finding("plate", name, "violated", message)
    for name in run.world:
        inside = [frame.name for frame in run.plates[name] if frame.name in rows]
        if inside:
            message = (
                f"drawn for every row of plate {inside[0]}, yet no site of the chain, so that it "
                "counts as world: sum it out of the distribution, or name it model_factor"
            )
            yield finding("world", name, "violated", message)


def check_sizes(run: Run) -> Iterator[Check]:
    """Rule `size`: as many rows as the plate has, and all of them."""
    sizes: dict[str, int] = {}
    for name in run.chain:
        frames = [frame for frame in run.plates[name] if frame.name == ROW_PLATES.get(name)]
        if not frames:
            continue  # rule `plate` has it
        plate, size, full = frames[0].name, frames[0].size, frames[0].full_size
        shape = tuple(run.values[name].shape)
        if not shape or shape[0] != size:
            message = f"expected {size} rows, the size of plate {plate}; got shape {shape}"
            yield finding("size", name, "violated", message)
        elif full is not None and full != size:
            message = f"plate {plate} shows {size} rows of {full}: do not subsample it"
            yield finding("size", name, "violated", message)
        elif sizes.setdefault(plate, size) != size:
            message = f"plate {plate} has {size} rows here and {sizes[plate]} elsewhere"
            yield finding("size", name, "violated", message)
    for plate, size in sizes.items():
        yield finding("size", plate, "holds", f"{size} rows", float(size))


def check_events(run: Run) -> Iterator[Check]:
    """Rule `event`: rows are vectors, of one dimension where they are compared."""
    shapes = {
        name: tuple(run.values[name].shape[1:]) for name in run.chain if _in_its_plate(run, name)
    }
    wrong = [name for name, shape in shapes.items() if len(shape) != 1]
    for name in wrong:
        message = f"expected rows of event shape (d,); got {shapes[name]}: use to_event(1)"
        yield finding("event", name, "violated", message)
    # S = M(p) + ε; D_M stands beside M(p), and TV(D, D_gen) compares D with S.
    pairs = [("synthetic", "output"), ("unprompted", "output"), ("target", "synthetic")]
    for first, second in pairs:
        if {first, second} <= set(shapes) and shapes[first] != shapes[second] and not wrong:
            message = f"expected rows of one dimension; got {shapes[first]} and {shapes[second]}"
            yield finding("event", f"{first}, {second}", "violated", message)
            wrong.append(first)
    if not wrong and shapes:
        message = "rows of shape " + ", ".join(sorted({str(shape) for shape in shapes.values()}))
        yield finding("event", ", ".join(shapes), "holds", message)


def check_values(run: Run) -> Iterator[Check]:
    """Rules `values` (finite numbers) and `density` (finite where the model itself draws)."""
    found = evidence(run, run.values)
    suspect = False
    for name in [*run.chain, *run.world]:
        value, density = run.values[name], found[name]
        if not bool(torch.isfinite(value.double()).all()):
            yield finding("values", name, "violated", "has values that are not finite")
            suspect = True
        elif name in run.deterministic:
            continue
        elif density is None:
            message = "its log density cannot be evaluated: terms that need it are refused"
            yield finding("density", name, "unknown", message)
            suspect = True
        elif not bool(torch.isfinite(density).all()):
            message = "what it draws has no finite log density"
            yield finding("density", name, "violated", message)
            suspect = True
    if not suspect:
        message = "finite, and so are the log densities of the drawn ones"
        yield finding("values", "every site", "holds", message)


def _in_its_plate(run: Run, name: str) -> bool:
    frames = [(frame.name, frame.dim) for frame in run.plates[name]]
    return frames == [(ROW_PLATES.get(name), -1)]
