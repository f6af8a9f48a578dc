"""Generation processes: Pyro models of anchor → prompt → output → synthetic, run in batches.

A process is written for one world and one data set. Here it runs for many at once: dimension −4 is
the world, −3 the data set ("replicate") drawn in it, −2 and −1 are the process's own plates. World
sites are drawn once per world and shared by its replicates.

Values go in and out as in a plain run of the model, with (world, replicate) in front.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rbpp.processes.batching import (
    CHAIN_SITES,
    INNER_DIMENSIONS,
    Batch,
    Given,
    Reached,
    Record,
    running,
)
from rbpp.processes.graph import read_graph
from rbpp.processes.loading import find_model, knob_defaults, parse_settings, resolve_knobs

__all__ = [
    "Process",
    "Simulation",
    "Site",
    "load_process",
    "log_density",
    "parse_settings",
    "run_given",
    "simulate",
]


@dataclass(frozen=True)
class Site:
    """A site of a process, as a plain run of the model has it.

    Attributes:
        name: its name in the trace.
        deterministic: whether it is a function of the others.
        plates: names of the plates around it, innermost first.
        shape: shape of its value in a plain run.
        batch_dimensions: how many leading dimensions of `shape` are plates; the rest is the event.
        padding: dimensions of size one that a batched run has between its batch and `shape`.
    """

    name: str
    deterministic: bool
    plates: tuple[str, ...]
    shape: tuple[int, ...]
    batch_dimensions: int
    padding: int

    @property
    def in_chain(self) -> bool:
        """Whether the site is one of the chain's; every other sample site is the world's."""
        return self.name in CHAIN_SITES


@dataclass(frozen=True)
class Process:
    """A model with its knobs. Call it to run the model once, inside any Pyro handlers."""

    name: str
    model: Callable[..., Any]
    knobs: dict[str, Any]
    source: str

    def __call__(self) -> Any:
        return self.model(**self.knobs)

    @cached_property
    def sites(self) -> dict[str, Site]:
        """Every site of the model, in its order.

        Raises:
            ValueError: if the model does not run in a batch; `rbpp check` then says more.
        """
        return _describe_sites(self)

    @cached_property
    def parents(self) -> dict[str, list[str]]:
        """For every site the sites that it was computed from, deterministic ones included.

        An edge through `.item()` or NumPy is missing. Where the graph cannot be read at all, every
        site counts as computed from all before it.
        """
        parents = read_graph(self).parents
        if parents is None:
            names = list(self.sites)
            return {name: names[:place] for place, name in enumerate(names)}
        return parents


@dataclass(frozen=True)
class Simulation:
    """Draws of a process.

    Attributes:
        sites: values of the chain's sites, each (worlds, replicates, *shape of a plain run).
        world: values of every other sample site, each (worlds, 1, *shape of a plain run).
        derived: values of other deterministic sites, (worlds, replicates or 1, *shape).
        process: what was simulated.
        seed: what decided the draws.
    """

    sites: dict[str, Tensor]
    world: dict[str, Tensor]
    derived: dict[str, Tensor]
    process: Process
    seed: int

    @property
    def values(self) -> dict[str, Tensor]:
        """Chain and world together: what `log_density` takes."""
        return {**self.world, **self.sites}


def load_process(reference: str | Path | Callable[..., Any] | Process, **knobs: Any) -> Process:
    """A process with its knobs set.

    Args:
        reference: a callable, the name of a shipped process, the path of a file (its `model`, or
            `path.py:function`), or `module:attribute`.
        knobs: keyword arguments of the model, text being parsed to the type of the default.

    Raises:
        ValueError: if there is no such process or knob, or a value is of another type.

    >>> load_process("gaussian_mixture", outputs=50).knobs["outputs"]
    50
    """
    if isinstance(reference, Process):
        return Process(
            reference.name,
            reference.model,
            resolve_knobs(reference.knobs, knobs),
            reference.source,
        )
    name, model, source = find_model(reference)
    return Process(name, model, resolve_knobs(knob_defaults(model), knobs), source)


def simulate(
    process: Process,
    *,
    worlds: int = 1,
    replicates: int = 1,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Simulation:
    """Draw `worlds` worlds and `replicates` data sets in each, all in one batched run in float64.

    Args:
        process: what to simulate.
        worlds: number of independent worlds.
        replicates: number of data sets, independent given their world.
        seed: decides every draw; global random state is left as it was.
        device: where tensors that the model makes are put.

    Raises:
        ValueError: if a count is not positive, or the process cannot run in a batch.
    """
    for name, count in (("worlds", worlds), ("replicates", replicates)):
        if count < 1:
            raise ValueError(f"Expected one or more {name}; got {count}")
    sites = process.sites
    run = Batch(worlds, replicates, {name: site.batch_dimensions for name, site in sites.items()})
    with running(seed, device), run:
        process()
    groups: dict[str, dict[str, Tensor]] = {"sites": {}, "world": {}, "derived": {}}
    for name, value in run.values.items():
        if name not in sites:
            raise ValueError(
                f"Expected the same sites in every run of {process.name}; got {name!r} in some"
            )
        site = sites[name]
        group = "sites" if site.in_chain else "derived" if site.deterministic else "world"
        value = _drop_padding(site, value)
        if group != "derived":
            value = value.expand(worlds, replicates if site.in_chain else 1, *site.shape)
        groups[group][name] = value
    return Simulation(**groups, process=process, seed=seed)


def log_density(
    process: Process,
    values: Mapping[str, Tensor],
    sites: Iterable[str],
    *,
    per_row: bool = False,
) -> dict[str, Tensor]:
    """Conditional log density of each of `sites` given what stands above it, in nats.

    Values are (…, *shape of a plain run); their leading dimensions broadcast, so that one call
    evaluates every pair: outputs (1, R, n, d) under prompts (R, 1, m, d) give log p(b_i | a_j).
    A deterministic site that is given takes that value instead of being computed. A site in a row
    plate may have any number of rows, where its rows do not depend on other rows' values.

    Args:
        process: the model that has the densities.
        values: world, conditioning sites and the sites themselves, by name.
        sites: sample sites to evaluate.
        per_row: keep the rows apart instead of summing over them.

    Returns:
        For each site the log density summed over its rows and other plates, shape the broadcast of
        leading dimensions; with `per_row`, (…, rows).

    Raises:
        ValueError: if a site is unknown, deterministic (it has no density) or given no value, or a
            site that it depends on is missing from `values`.
    """
    requested = list(dict.fromkeys(sites))
    for name in requested:
        site = _known(process, name)
        if site.deterministic:
            raise ValueError(
                f"Expected a sample site; got {name!r}, which is deterministic in "
                f"{process.name} and has no density"
            )
        if name not in values:
            raise ValueError(f"Expected a value of {name!r} to evaluate its density; got none")
    run = run_given(process, values, requested)
    result = {}
    for name in requested:
        site = process.sites[name]
        density = run.distributions[name].log_prob(run.values[name])
        inner = site.padding + site.batch_dimensions
        rows = 1 if per_row and site.batch_dimensions else 0
        summed = list(range(-inner, -rows)) if inner > rows else []
        result[name] = density.sum(summed) if summed else density
    return result


def _describe_sites(process: Process) -> dict[str, Site]:
    """The sites of a plain run, and where a batched run puts its padding."""
    plain = Record()
    try:
        with running(0), torch.no_grad(), plain:
            process()
    except ValueError:  # a knob out of range, mostly: the model has said so
        raise
    except Exception as error:
        raise ValueError(
            f"Expected {process.name} to run with these knobs; got {type(error).__name__}: {error}"
        ) from error
    batch_dimensions = {name: _batch_dimensions(plain, name) for name in plain.values}
    worlds, replicates = 2, 3  # different, so that a swap of the two shows
    batched = Batch(worlds, replicates, batch_dimensions)
    try:
        with running(0), torch.no_grad(), batched:
            process()
    except (ValueError, RuntimeError, IndexError) as error:
        last = next(reversed(batched.values), "its start")
        raise ValueError(
            f"Expected {process.name} to run for many worlds and replicates at once (index "
            f"dimensions from the right, keep reduced ones); got, after site {last!r}: {error}"
        ) from error
    if list(plain.values) != list(batched.values):
        raise ValueError(
            f"Expected the same sites in every run of {process.name}; got {list(plain.values)} "
            f"and {list(batched.values)}"
        )
    sites = {}
    for name, value in batched.values.items():
        shape = tuple(plain.values[name].shape)
        extra = value.dim() - len(shape)
        padding = extra - 2 if extra else INNER_DIMENSIONS - batch_dimensions[name]
        front = tuple(value.shape[:2]) if extra >= 2 else ()
        if (
            extra == 1
            or tuple(value.shape[extra:]) != shape
            or any(size != 1 for size in value.shape[2:extra])
            or any(
                size not in (1, many)
                for size, many in zip(front, (worlds, replicates), strict=False)
            )
        ):
            raise ValueError(
                f"Expected site {name!r} of {process.name} to have shape ({worlds} worlds, "
                f"{replicates} replicates, 1…, {', '.join(map(str, shape))}) in a batch; got "
                f"{tuple(value.shape)}: index dimensions from the right, keep reduced ones"
            )
        deterministic = name in plain.deterministic
        if front and front[1] != 1 and not deterministic and name not in CHAIN_SITES:
            raise ValueError(
                f"Expected site {name!r} of {process.name} to be part of the world, shared by "
                "replicates; got one that depends on the chain. The free sites of the chain are "
                "prompt, prompt_factor and model_factor"
            )
        plates = sorted(plain.plates[name], key=lambda frame: -frame.dim)
        sites[name] = Site(
            name,
            deterministic,
            tuple(frame.name for frame in plates),
            shape,
            batch_dimensions[name],
            padding,
        )
    return sites


def _batch_dimensions(run: Record, name: str) -> int:
    """Leading dimensions of a plain value that are plates, not event."""
    distribution, value = run.distributions[name], run.values[name]
    if name not in run.deterministic:
        return len(distribution.batch_shape)
    if distribution.event_dim < value.dim():  # the author said what the event is
        return value.dim() - distribution.event_dim
    # Pyro takes all of an undeclared deterministic value for event: the plates say what is not.
    deepest = max((-frame.dim for frame in run.plates[name]), default=0)
    return min(deepest, value.dim())


def _drop_padding(site: Site, value: Tensor) -> Tensor:
    """(world, replicate, *shape) of a raw batched value."""
    if value.dim() == len(site.shape):
        return value[None, None]
    if tuple(value.shape[2:]) != (1,) * site.padding + site.shape:
        raise ValueError(
            f"Expected site {site.name!r} of shape {site.shape} in every run; got "
            f"{tuple(value.shape[2 + site.padding :])}"
        )
    return value.reshape(*value.shape[:2], *site.shape)


def _known(process: Process, name: str) -> Site:
    if name not in process.sites:
        raise ValueError(
            f"Expected a site of {process.name} ({', '.join(process.sites)}); got {name!r}"
        )
    return process.sites[name]


def run_given(
    process: Process,
    values: Mapping[str, Tensor],
    requested: Sequence[str],
    plate_sizes: Mapping[str, int] | None = None,
) -> Given:
    """A run with `values` held, up to the last requested site, its plates at other sizes."""
    raw, plate_sizes = {}, dict(plate_sizes or {})
    needed = _needed(process, values, requested)
    # Requested sites first: their plate takes the number of rows given, whoever else is in it.
    for name in sorted(values, key=lambda name: name not in requested):
        value, site = values[name], _known(process, name)
        shape = site.shape
        trailing = tuple(value.shape[max(0, value.dim() - len(shape)) :])
        if site.plates and site.batch_dimensions == 1 and len(trailing) == len(shape):
            if name in requested:
                plate_sizes.setdefault(site.plates[0], trailing[0])
            shape = (plate_sizes.get(site.plates[0], shape[0]), *shape[1:])
        if trailing == site.shape != shape and name not in needed:
            continue  # another number of rows than its plate has here, and nothing asks for them
        if trailing != shape:
            raise ValueError(
                f"Expected values of {name!r} of shape (…, {', '.join(map(str, shape))}); "
                f"got {tuple(value.shape)}"
            )
        outer = value.shape[: value.dim() - len(shape)]
        raw[name] = value.reshape(*outer, *(1,) * site.padding, *shape)
    run = Given(raw, requested, plate_sizes)
    with running(0, next(iter(raw.values())).device if raw else "cpu"):
        try:
            with run:
                process()
        except Reached:
            pass
    return run


def _needed(process: Process, values: Mapping[str, Tensor], requested: Sequence[str]) -> set[str]:
    """Sites that the requested ones are computed from, as far up as the given ones.

    Raises:
        ValueError: where a sample site among them is not given: it would be drawn anew.
    """
    pending, needed = list(requested), set(requested)
    while pending:
        for parent in process.parents[pending.pop()]:
            if parent in needed:
                continue
            needed.add(parent)
            if parent in values:
                continue
            if not process.sites[parent].deterministic:
                raise ValueError(
                    f"Expected a value of {parent!r}, on which {', '.join(map(repr, requested))} "
                    f"of {process.name} depends; got values of {', '.join(values) or 'none'}"
                )
            pending.append(parent)
    return needed
