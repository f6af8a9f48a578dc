"""Generation processes: Pyro models of anchor → prompt → output → synthetic, and how they run.

A process is written for one world and one data set. Here it runs for many at once: dimension −4 is
the world, −3 the data set ("replicate") drawn in it, −2 and −1 are the process's own plates. World
sites are drawn once per world and shared by its replicates. `draw` and `hold` are all that runs a
process: simulations, the check of the contract and the bounds stand on them.

A value has one of two layouts: `plain`, as a plain run of the model has it, with (world, replicate)
in front; `batched`, as Pyro needs it, with dimensions of size one for plates that it is not in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pyro.distributions import Delta, validation_enabled
from torch import Tensor

from rbpp.compute import Compute
from rbpp.processes.graph import Graph, read_graph
from rbpp.processes.handlers import ALLOWED_PARENTS, CHAIN_SITES, INNER_DIMENSIONS, Run, plain_run
from rbpp.processes.loading import find_model, knob_defaults, parse_settings, resolve_knobs

__all__ = ["Process", "Site", "draw", "hold", "load_process", "parse_settings"]

_OUTER = (2, 3)  # worlds and replicates of a trial: different, so that a swap of the two shows
_BATCH_ERRORS = (ValueError, RuntimeError, IndexError)  # of a model that does not run in a batch


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
        shared: whether all replicates of a world have the same value.
        random: whether it is sampled, and from more than one point.
        discrete: whether its values are letters or counts.
        letters: number of values of a letter, where it has finitely many.
    """

    name: str
    deterministic: bool
    plates: tuple[str, ...]
    shape: tuple[int, ...]
    batch_dimensions: int
    padding: int
    shared: bool
    random: bool
    discrete: bool
    letters: int | None

    @property
    def in_chain(self) -> bool:
        """Whether the site is one of the chain's; every other sample site is the world's."""
        return self.name in CHAIN_SITES

    @property
    def rows(self) -> int:
        """Size of its plate; 1 for a free site."""
        return self.shape[self.batch_dimensions - 1] if self.plates and self.batch_dimensions else 1

    @property
    def coordinates(self) -> int:
        """Numbers per data set."""
        return math.prod(self.shape)

    def batched(self, value: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
        """A plain value (…, *shape) as a batched run has it."""
        shape = self.shape if shape is None else shape
        outer = value.shape[: value.dim() - len(shape)]
        return value.reshape(*outer, *(1,) * self.padding, *shape)

    def plain(self, value: Tensor) -> Tensor:
        """A batched value as (worlds or 1, replicates or 1, *shape)."""
        if value.dim() == len(self.shape):
            return value[None, None]
        if tuple(value.shape[2:]) != (1,) * self.padding + self.shape:
            raise ValueError(
                f"Expected site {self.name!r} of shape {self.shape} in every run; got "
                f"{tuple(value.shape[2 + self.padding :])}"
            )
        return value.reshape(*value.shape[:2], *self.shape)


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
    def graph(self) -> Graph:
        """The dependency graph as one run shows it."""
        return read_graph(self)

    @cached_property
    def parents(self) -> dict[str, list[str]]:
        """For every site the sites that it was computed from, deterministic ones included.

        An edge through `.item()` or NumPy is missing. Where the graph cannot be read at all, a site
        counts as computed from all before it that the contract allows.
        """
        if self.graph.parents is not None:
            return self.graph.parents
        names = list(self.sites)
        return {
            name: [
                above
                for above in names[:place]
                if not {name, above} <= set(CHAIN_SITES) or above in ALLOWED_PARENTS[name]
            ]
            for place, name in enumerate(names)
        }

    @property
    def described_knobs(self) -> dict[str, Any]:
        """The knobs, a callable by its name: what a result can keep."""
        return {
            name: getattr(value, "__qualname__", type(value).__name__) if callable(value) else value
            for name, value in self.knobs.items()
        }

    @property
    def settings(self) -> dict[str, Any]:
        """What identifies it among the settings of a result."""
        return {"process": self.name, "source": self.source, "knobs": self.described_knobs}

    def site(self, name: str) -> Site:
        """One site.

        Raises:
            ValueError: if there is none of that name.
        """
        if name not in self.sites:
            raise ValueError(
                f"Expected a site of {self.name} ({', '.join(self.sites)}); got {name!r}"
            )
        return self.sites[name]


def load_process(reference: str | Path | Callable[..., Any] | Process, **knobs: Any) -> Process:
    """A process with its knobs set.

    Args:
        reference: a callable, the name of a shipped process, the path of a file (its `model`, or
            `path.py:function`), or `module:attribute`.
        knobs: the model's own keyword arguments, by name or by the paper's letter (K, J, L), text
            being parsed to the type of the default.

    Raises:
        ValueError: if there is no such process or knob, or a value is of another type.

    >>> load_process("gaussian_mixture", outputs=50, K=3).knobs["anchor_components"]
    3
    """
    if isinstance(reference, Process):
        if not knobs:
            return reference
        name, model, source = reference.name, reference.model, reference.source
        return Process(name, model, resolve_knobs(reference.knobs, knobs), source)
    name, model, source = find_model(reference)
    return Process(name, model, resolve_knobs(knob_defaults(model), knobs), source)


def draw(
    process: Process,
    outer: tuple[int, int],
    compute: Compute,
    held: Mapping[str, Tensor] | None = None,
    *,
    until: Collection[str] | None = None,
    fast_mixtures: bool = False,
) -> Run:
    """A run that draws all sites not held, for `outer` (worlds, replicates).

    Args:
        process: what to run.
        outer: numbers of worlds and of replicates in each.
        compute: its seed decides every draw, and tensors that the model makes are put on its
            device; global random state is left as it was.
        held: batched values of sites, their leading dimensions those of `outer` or 1: worlds that
            were drawn before, from the prior or from a posterior, or parts of the chain.
        until: sites to stop at; sites after the last of them are not drawn.
        fast_mixtures: see `rbpp.processes.handlers.Run`.
    """
    run = Run(
        held,
        until,
        outer=outer,
        batch_dimensions={name: site.batch_dimensions for name, site in process.sites.items()},
        fast_mixtures=fast_mixtures,
    )
    with torch.no_grad():
        return run.of(process, compute.seed, compute.device)


def hold(
    process: Process,
    held: Mapping[str, Tensor],
    requested: Collection[str],
    *,
    plate_sizes: Mapping[str, int] | None = None,
    validate: bool = True,
    device: torch.device | str = "cpu",
) -> Run:
    """A run up to the last requested site, with all held that these depend on: nothing is drawn.

    Args:
        process: what to run.
        held: batched values; leading dimensions broadcast.
        requested: sites whose distribution or computed value is wanted.
        plate_sizes: plate to another number of rows.
        validate: whether distributions look at their parameters; where these come from draws that
            were validated, looking at those of all pairs again takes most of the time.
        device: where tensors that the model makes are put.

    Raises:
        ValueError: if a sample site that a requested one depends on is not held.
    """
    needed_sites(process, held, requested)
    with nullcontext() if validate else validation_enabled(False):
        return Run(held, requested, plate_sizes=plate_sizes).of(process, 0, device)


def needed_sites(process: Process, held: Collection[str], requested: Collection[str]) -> set[str]:
    """Sites that the requested ones are computed from, as far up as the held ones.

    Raises:
        ValueError: where a sample site among them is not held: it would be drawn anew.
    """
    pending, needed = list(requested), set(requested)
    while pending:
        for parent in process.parents[pending.pop()]:
            if parent in needed:
                continue
            needed.add(parent)
            if parent in held:
                continue
            if not process.sites[parent].deterministic:
                raise ValueError(
                    f"Expected a value of {parent!r}, on which {', '.join(map(repr, requested))} "
                    f"of {process.name} depends; got values of {', '.join(held) or 'none'}"
                )
            pending.append(parent)
    return needed


def _describe_sites(process: Process) -> dict[str, Site]:
    """The sites of a plain run, and where a batched run puts its padding."""
    try:
        plain = plain_run(process)
    except ValueError:  # a knob out of range, mostly: the model has said so
        raise
    except Exception as error:
        raise ValueError(
            f"Expected {process.name} to run with these knobs; got {type(error).__name__}: {error}"
        ) from error
    inside = {name: _batch_dimensions(plain, name) for name in plain.values}
    batched = _batched_run(process, plain, inside)
    if list(plain.values) != list(batched.values):
        raise ValueError(
            f"Expected the same sites in every run of {process.name}; got {list(plain.values)} "
            f"and {list(batched.values)}"
        )
    return {name: _describe(process, name, plain, batched) for name in plain.values}


def _batched_run(process: Process, plain: Run, inside: Mapping[str, int]) -> Run:
    run = Run(outer=_OUTER, batch_dimensions=inside)
    try:
        with torch.no_grad():
            return run.of(process)
    except _BATCH_ERRORS as error:
        last = next(reversed(run.values), "its start")
        raise ValueError(
            f"{_scalar_hint(process, plain, run)}Expected {process.name} to run for many worlds "
            "and replicates at once (index dimensions from the right, keep reduced ones); got, "
            f"after site {last!r}: {error}"
        ) from error


def _scalar_hint(process: Process, plain: Run, failed: Run) -> str:
    """Which scalar site stands in the way of a batch: with it as a plain number the batch runs."""
    for name, distribution in failed.distributions.items():
        value = plain.values[name]
        if name in failed.deterministic or distribution.event_shape or value.dim():
            continue
        further = Run({name: value}, outer=_OUTER, batch_dimensions=failed.batch_dimensions)
        try:
            with torch.no_grad():
                further.of(process)
        except _BATCH_ERRORS:
            if len(further.values) <= len(failed.values):
                continue
        return f"{name} is a scalar: against rows of vectors write {name}[..., None]; "
    return ""


def _describe(process: Process, name: str, plain: Run, batched: Run) -> Site:
    value, distribution = batched.values[name], plain.distributions[name]
    shape = tuple(plain.values[name].shape)
    inside = batched.batch_dimensions[name]
    extra = value.dim() - len(shape)
    _refuse_shape(process, name, tuple(value.shape), shape)
    replicated = extra > 0 and value.shape[1] != 1
    if replicated and name not in (*plain.deterministic, *CHAIN_SITES):
        raise ValueError(
            f"Expected site {name!r} of {process.name} to be part of the world, shared by "
            "replicates; got one that depends on the chain. The free sites of the chain are "
            "prompt, prompt_factor and model_factor"
        )
    random = not isinstance(getattr(distribution, "base_dist", distribution), Delta)
    discrete, letters = _support(distribution) if random else (False, None)
    return Site(
        name=name,
        deterministic=name in plain.deterministic,
        plates=tuple(f.name for f in sorted(plain.plates[name], key=lambda frame: -frame.dim)),
        shape=shape,
        batch_dimensions=inside,
        padding=extra - 2 if extra else INNER_DIMENSIONS - inside,
        shared=not replicated and name not in CHAIN_SITES,
        random=random,
        discrete=discrete or not value.is_floating_point(),
        letters=letters,
    )


def _refuse_shape(
    process: Process, name: str, found: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    """A batched value has (worlds or 1, replicates or 1, 1…) before its plain shape, or nothing."""
    extra = len(found) - len(shape)
    in_front = extra >= 2 and all(n in (1, many) for n, many in zip(found, _OUTER, strict=False))
    padded = all(size == 1 for size in found[2:extra])
    if found[max(extra, 0) :] == shape and (extra == 0 or (in_front and padded)):
        return
    raise ValueError(
        f"Expected site {name!r} of {process.name} to have shape ({_OUTER[0]} worlds, "
        f"{_OUTER[1]} replicates, 1…, {', '.join(map(str, shape))}) in a batch; got "
        f"{found}: index dimensions from the right, keep reduced ones"
    )


def _batch_dimensions(run: Run, name: str) -> int:
    """Leading dimensions of a plain value that are plates, not event."""
    distribution, value = run.distributions[name], run.values[name]
    if name not in run.deterministic:
        return len(distribution.batch_shape)
    if distribution.event_dim < value.dim():  # the author said what the event is
        return value.dim() - distribution.event_dim
    # Pyro takes all of an undeclared deterministic value for event: the plates say what is not.
    deepest = max((-frame.dim for frame in run.plates[name]), default=0)
    return min(deepest, value.dim())


def _support(distribution: Any) -> tuple[bool, int | None]:
    """Whether values are discrete, and how many there are of a letter."""
    try:
        support = distribution.support
    except NotImplementedError:  # what can only be sampled may not say
        return False, None
    bound = getattr(getattr(support, "base_constraint", support), "upper_bound", None)
    letters = bound + 1 if support.is_discrete and isinstance(bound, int) else None
    return support.is_discrete, letters
