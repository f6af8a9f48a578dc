"""What is to be done with every site of a process, once some are observed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, biject_to

from rbpp.compute import Compute
from rbpp.posterior.evaluation import support_of
from rbpp.posterior.normals import normal_of, standardised
from rbpp.processes.convolution import convolved, is_independent_noise
from rbpp.processes.handlers import CHAIN_SITES, Run, plain_run
from rbpp.processes.process import Process, Site
from rbpp.randomness import spawn

_LOOKS = 3  # draws by which additive noise and latent scales are recognised
_MOST_VALUES = 64  # of an enumerated site


@dataclass(frozen=True)
class Latent:
    """A site of the unconstrained vector.

    Attributes:
        site: as the process has it.
        shape: of its unconstrained value in one run of the model, padding and plates in front.
        start, stop: its place in the vector.
        non_centred: whether the vector holds (value − loc) / scale.
        reported: whether it is part of the result: of the world, or kept on request.
    """

    site: Site
    shape: tuple[int, ...]
    start: int
    stop: int
    non_centred: bool = False
    reported: bool = True

    @property
    def name(self) -> str:
        """Of the site."""
        return self.site.name

    @property
    def per_data_set(self) -> bool:
        """Whether every data set has a value of its own; a world is shared by all."""
        return self.site.in_chain

    @property
    def places(self) -> Tensor:
        """Its places in the vector (data sets or 1, *shape)."""
        return torch.arange(self.start, self.stop).reshape(-1, *self.shape)

    def freed(self, distribution: Any, value: Tensor) -> Tensor:
        """A value of the site in unconstrained space."""
        if self.non_centred:
            return standardised(normal_of(distribution), value)
        return biject_to(support_of(distribution)).inv(value)


@dataclass(frozen=True)
class Prepared:
    """What was decided about a process's sites.

    Attributes:
        latents: sites of the vector, in the model's order.
        observed: sites that the data give.
        enumerated: discrete sites that are summed out, with their number of values.
        pruned: sites that nothing observed depends on.
        collapsed: the output, where it is integrated out; else the empty string.
    """

    latents: tuple[Latent, ...]
    observed: tuple[str, ...]
    enumerated: Mapping[str, int] = field(default_factory=dict)
    pruned: tuple[str, ...] = ()
    collapsed: str = ""

    @property
    def size(self) -> int:
        """Length D of the vector."""
        return self.latents[-1].stop if self.latents else 0

    def describe(self) -> list[str]:
        """What was done, a line each."""
        lines = [f"{self.size} unconstrained coordinates of {', '.join(self.names) or 'nothing'}"]
        if self.collapsed:
            lines.append(
                f"{self.collapsed} is integrated out: the data see it through normal noise"
            )
        if self.enumerated:
            lines.append(f"{', '.join(self.enumerated)}: discrete, summed out")
        non_centred = [latent.name for latent in self.latents if latent.non_centred]
        if non_centred:
            lines.append(f"{', '.join(non_centred)}: non-centred, since the scale is latent")
        if self.pruned:
            lines.append(f"{', '.join(self.pruned)}: no data depend on it, so it keeps its prior")
        return lines

    @property
    def reported(self) -> Tensor:
        """Places (R,) in the vector of what the result reports."""
        parts = [one.places.flatten() for one in self.latents if one.reported]
        return torch.cat(parts) if parts else torch.arange(self.size)

    @property
    def world(self) -> list[Latent]:
        """Latent sites of the world."""
        return [one for one in self.latents if not one.per_data_set]

    @property
    def names(self) -> list[str]:
        """Names of the latent sites."""
        return [latent.name for latent in self.latents]


def prepare(
    process: Process, data: Mapping[str, Tensor], keep: Sequence[str], compute: Compute
) -> tuple[Prepared, dict[str, Tensor], dict[str, Tensor]]:
    """Decide about every site; also the observed values and the constants of the others.

    Returns:
        The decisions; observed values (1, data sets, …) and constants (1, 1, …), in the shape that
        a batched run of the model gives them.

    Raises:
        ValueError: as `rbpp.posterior.density.ConditionedDensity`.
    """
    seed, device = compute.seed, compute.device
    data = on_random_sites(process, data, seed)
    observed = {name: _raw(process, name, value).to(device) for name, value in data.items()}
    sets = {name: value.shape[1] for name, value in observed.items()}
    if len(set(sets.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in sets.items())
        raise ValueError(f"Expected as many data sets of every site; got {listed}")
    first = {
        name: value[0, 0].reshape(process.sites[name].shape) for name, value in observed.items()
    }
    try:
        run = plain_run(process, spawn(seed, "look"), first)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"Expected data that {process.name} can have made; with these it ends in: {reason}"
        ) from error
    random = [name for name in run.values if name not in run.deterministic and name not in observed]
    for name in keep:
        if name not in random or name not in CHAIN_SITES:
            known = ", ".join(n for n in random if n in CHAIN_SITES) or "none"
            raise ValueError(f"Expected a latent chain site to keep ({known}); got {name!r}")
    needed = ancestors(process, [*observed, *keep])
    pruned = tuple(name for name in random if name not in needed)
    latent = [name for name in random if name in needed]
    collapsed = ""
    if (
        "output" in latent
        and "output" not in keep
        and "synthetic" in observed
        and _is_additive(process, run, latent, seed)
    ):
        collapsed = "output"
        latent.remove("output")
    enumerated = {
        name: _values_of(process, run, name, needed)
        for name in latent
        if run.distributions[name].support.is_discrete
    }
    free = [name for name in latent if name not in enumerated]
    non_centred = _latent_scales(process, first, free, seed)
    latents = _layout(process, run, free, non_centred, keep, next(iter(sets.values())))
    constant = {name: _raw(process, name, run.values[name]).to(device) for name in pruned}
    if collapsed:
        value = _raw(process, collapsed, run.values[collapsed])
        constant[collapsed] = torch.zeros_like(value, device=device)
    return Prepared(latents, tuple(observed), enumerated, pruned, collapsed), observed, constant


def on_random_sites(
    process: Process, data: Mapping[str, Tensor], seed: int = 0
) -> dict[str, Tensor]:
    """The data by the sample sites that they condition.

    Rows of `synthetic` that are the outputs as they are condition `output`.

    Raises:
        ValueError: for a site that does not exist, or is another function of sites above it.
    """
    placed: dict[str, Tensor] = {}
    for name, value in data.items():
        site = process.sites.get(name)
        if site is None or not site.in_chain:
            known = ", ".join(n for n, s in process.sites.items() if s.in_chain)
            raise ValueError(
                f"Expected data of a chain site of {process.name} ({known}); got {name!r}"
            )
        place = name
        if site.deterministic:
            source = {"synthetic": "output", "prompt": "anchor"}.get(name, "")
            if source not in process.sites or not _is_copy(process, name, source, seed):
                raise ValueError(
                    f"Expected data of a sampled site; got {name!r}, which {process.name} computes "
                    f"from other sites: give the data of {source or 'those'} instead"
                )
            place = source
        if place in placed and not torch.equal(placed[place], value):
            raise ValueError(
                f"Expected one set of rows for {place!r}; got others for {name!r}, which is a copy"
            )
        placed[place] = value
    return placed


def _layout(
    process: Process,
    run: Run,
    names: Iterable[str],
    non_centred: set[str],
    keep: Sequence[str],
    data_sets: int,
) -> tuple[Latent, ...]:
    latents, start = [], 0
    for name in names:
        site = process.sites[name]
        value, support = run.values[name], support_of(run.distributions[name])
        try:
            free = biject_to(support).inv(value)
        except NotImplementedError as error:
            raise ValueError(
                f"Expected a latent site with a support that has a bijection to real numbers; got "
                f"{name!r} with {support}"
            ) from error
        shape = (*(1,) * site.padding, *free.shape)
        stop = start + free.numel() * (data_sets if site.in_chain else 1)
        latents.append(
            Latent(
                site,
                shape,
                start,
                stop,
                non_centred=name in non_centred,
                reported=not site.in_chain or name in keep,
            )
        )
        start = stop
    return tuple(latents)


def _raw(process: Process, name: str, value: Tensor) -> Tensor:
    """(1, data sets, padding, *plain shape) of rows, or of several data sets of them."""
    site = process.sites[name]
    shape, plain = tuple(value.shape), tuple(site.shape)
    if shape != plain and shape[1:] != plain:
        raise ValueError(
            f"Expected {name} of shape {plain} (or that behind a number of data sets), as "
            f"{process.name} has it with these knobs; got {shape}"
        )
    sets = 1 if shape == plain else shape[0]
    return value.reshape(1, sets, *(1,) * site.padding, *plain)


def ancestors(process: Process, names: Iterable[str]) -> set[str]:
    """The sites and all that they are computed from, however far above."""
    pending, found = list(names), set(names)
    while pending:
        for parent in process.parents.get(pending.pop(), []):
            if parent not in found:
                found.add(parent)
                pending.append(parent)
    return found


def _is_copy(process: Process, name: str, source: str, seed: int) -> bool:
    looks = [plain_run(process, spawn(seed, "copy", look)).values for look in range(2)]
    return all(torch.equal(values[name], values[source]) for values in looks)


def _values_of(process: Process, run: Run, name: str, needed: set[str]) -> int:
    distribution = run.distributions[name]
    if not getattr(normal_of(distribution), "has_enumerate_support", False):
        raise ValueError(
            f"Expected discrete latent sites that can be enumerated; got {name!r}, a "
            f"{type(normal_of(distribution)).__name__}"
        )
    plates = {frame.name for frame in run.plates[name] if frame.size > 1}
    for child in needed - {name}:
        if name not in process.parents.get(child, []) or child in run.deterministic:
            continue
        inside = {frame.name for frame in run.plates[child]}
        if plates - inside:
            raise ValueError(
                f"Expected discrete latent sites that rows do not share; got {name!r} in plate "
                f"{', '.join(sorted(plates))}, on all rows of which each row of {child!r} depends"
            )
    letters = len(normal_of(distribution).enumerate_support(expand=False))
    count = letters ** math.prod(distribution.event_shape)
    if count > _MOST_VALUES:
        raise ValueError(
            f"Expected at most {_MOST_VALUES} values of a discrete latent site; got {count} of "
            f"{name!r}"
        )
    return count


def _is_additive(process: Process, run: Run, latent: Sequence[str], seed: int) -> bool:
    """Whether synthetic = output + c + normal noise, with an output of (mixtures of) normals."""
    output, value = run.distributions["output"], run.values["output"]
    below = {
        child
        for child, parents in process.parents.items()
        if "output" in parents and (child in latent or child == "synthetic")
    }
    noise = run.distributions["synthetic"]
    if below != {"synthetic"} or convolved(output, noise, value) is None:
        return False
    source = torch.Generator().manual_seed(spawn(seed, "shift") % 2**63)
    for _ in range(_LOOKS):
        moved = value + torch.randn(value.shape, generator=source, dtype=value.dtype).to(value)
        held = {n: v for n, v in run.values.items() if n not in run.deterministic}
        other = plain_run(process, 0, {**held, "output": moved}).distributions["synthetic"]
        if not is_independent_noise(noise, other, (value, moved)):
            return False
    return True


def _latent_scales(
    process: Process,
    data: Mapping[str, Tensor],
    names: Iterable[str],
    seed: int,
) -> set[str]:
    """Normal sites whose scale differs between two draws of the sites above them."""
    runs = [plain_run(process, spawn(seed, "scale", look), data) for look in range(_LOOKS)]
    found = set()
    for name in names:
        normals = [normal_of(run.distributions[name]) for run in runs]
        if all(isinstance(normal, Normal | MultivariateNormal) for normal in normals):
            first, *others = (
                normal.scale if isinstance(normal, Normal) else normal.scale_tril
                for normal in normals
            )
            if any(not torch.allclose(first, other, rtol=1e-9) for other in others):
                found.add(name)
    return found
