"""The Pyro handler that runs a process: sites held, drawn for many worlds at once, and recorded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import MixtureSameFamily, MultivariateNormal

from rbpp.internals import compact_scale_tril, light_shapes, site_is_subsample
from rbpp.processes.networks import in_double
from rbpp.randomness import other_states, seeded

# The plate that holds the rows of a site; the free sites of the chain need none.
ROW_PLATES = {
    "anchor": "anchors",
    "output": "outputs",
    "synthetic": "outputs",
    "target": "targets",
    "unprompted": "unprompted_outputs",
}
# What a site of the chain may be computed from, besides the world.
ALLOWED_PARENTS: dict[str, frozenset[str]] = {
    "anchor": frozenset(),
    "prompt": frozenset({"anchor"}),
    "prompt_factor": frozenset({"prompt"}),
    "model_factor": frozenset(),
    "output": frozenset({"prompt", "prompt_factor", "model_factor"}),
    "synthetic": frozenset({"output"}),
    "target": frozenset(),
    "unprompted": frozenset(),
}
CHAIN_SITES = tuple(ALLOWED_PARENTS)
PROMPT_SITES = ("prompt", "prompt_factor")
FREE_SITES = ("target", "unprompted")  # rows that depend on nothing else in the chain
REQUIRED_SITES = ("anchor", "prompt", "output", "synthetic")
INNER_DIMENSIONS = 2  # dimensions −1 and −2 belong to the process's plates


@contextmanager
def running(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seeded, in float64 (log densities of many rows need it), with everything restored after."""
    dtype = torch.get_default_dtype()
    # The device mode intercepts every call of torch: a third of the time where it changes nothing.
    there = torch.get_default_device() == torch.device(device)
    store = pyro.get_param_store()
    known = set(store.keys())
    with seeded(seed), nullcontext() if there else torch.device(device), light_shapes():
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            # What a model registers (pyro.module, pyro.param) is not left behind. What was there
            # stays the same objects, which an optimiser may hold.
            for name in set(store.keys()) - known:
                del store[name]


@contextmanager
def _seeds_set() -> Iterator[list[int]]:
    """Seeds that a model gives to torch or Pyro, also where they are those that it runs with."""
    found: list[int] = []
    before = torch.manual_seed

    def manual_seed(seed: int) -> torch.Generator:
        found.append(seed)
        return before(seed)

    torch.manual_seed = manual_seed
    try:
        yield found
    finally:
        torch.manual_seed = before


class Run(Messenger):
    """One run of a process, and what it says of every site.

    Args:
        held: site to value, as the run has it; a deterministic site takes it in place of its own.
        until: stop once these sites were reached; without it the run goes to its end.
        outer: (worlds, replicates) to draw the other sites for, in front of their plates; sites of
            the world have one replicate. Without it sites are drawn as the model says.
        batch_dimensions: with `outer`, of every site the batch dimensions in a plain run.
        plate_sizes: plate to another number of rows.
        fast_mixtures: draw mixtures of normals from one component per row. Torch's own sampler
            draws every row from every component: the same distribution by other random numbers.
    """

    def __init__(
        self,
        held: Mapping[str, Tensor] | None = None,
        until: Collection[str] | None = None,
        *,
        outer: tuple[int, int] | None = None,
        batch_dimensions: Mapping[str, int] | None = None,
        plate_sizes: Mapping[str, int] | None = None,
        fast_mixtures: bool = False,
    ) -> None:
        super().__init__()
        self.held, self.outer, self.plate_sizes = held or {}, outer, plate_sizes or {}
        self.batch_dimensions = batch_dimensions or {}
        self.waiting = None if until is None else set(until)
        self.fast_mixtures = fast_mixtures
        self.values: dict[str, Tensor] = {}
        self.distributions: dict[str, Any] = {}
        self.plates: dict[str, tuple[Any, ...]] = {}
        self.deterministic: set[str] = set()
        self.computed: dict[str, Tensor] = {}  # deterministic sites before they were held
        self.observed: list[str] = []  # by the model itself
        self.ended: tuple[Any, ...] = ()  # random states of NumPy and Python

    def of(
        self, model: Callable[[], Any], seed: int = 0, device: torch.device | str = "cpu"
    ) -> Run:
        """The run itself, in float64, decided by the seed."""
        with running(seed, device), in_double(model), _seeds_set() as seeds, self:
            started = torch.initial_seed()
            try:
                model()
            except _Reached:
                pass
            except RuntimeError as error:
                if "dtype" not in str(error) and "scalar type" not in str(error):
                    raise
                raise RuntimeError(
                    "rbpp runs models in float64: give the model's own tensors that type, such as "
                    f"net.double() or weights.double() ({error})"
                ) from error
            self.ended = other_states()
            if seeds or torch.initial_seed() != started:
                raise ValueError(
                    "Expected a model that sets no seed; got one that does (pyro.set_rng_seed or "
                    "torch.manual_seed inside it): every draw would be the same, whatever seed=… is"
                )
        return self

    @property
    def chain(self) -> list[str]:
        """The sites of the chain that it has, in its order."""
        return [name for name in self.values if name in CHAIN_SITES]

    @property
    def world(self) -> list[str]:
        """Its sample sites that are no sites of the chain."""
        return [n for n in self.values if n not in (*CHAIN_SITES, *self.deterministic)]

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if site_is_subsample(msg):
            if name in self.plate_sizes:
                msg["value"] = torch.arange(self.plate_sizes[name])
            return
        if is_deterministic(msg):
            self.computed[name] = torch.as_tensor(msg["value"])
        if name in self.held:
            msg["value"] = self.held[name]
            msg["is_observed"] = True
        elif self.outer and not msg["is_observed"] and hasattr(msg["fn"], "batch_shape"):
            own = self.batch_dimensions.get(name, 0)
            msg["fn"] = _expanded(name, msg["fn"], self.outer, own)
            if self.fast_mixtures and _is_normal_mixture(msg["fn"]):
                msg["value"] = _draw_mixture(msg["fn"])

    def _pyro_post_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            return
        name = msg["name"]
        if name in self.values:
            raise ValueError(f"Expected every site once; got {name!r} twice")
        value = torch.as_tensor(msg["value"])
        if value.is_floating_point() and value.dtype != torch.get_default_dtype():
            msg["value"] = value = value.to(torch.get_default_dtype())  # of a prior in float32
        self.values[name] = value
        self.distributions[name] = msg["fn"]
        self.plates[name] = tuple(frame for frame in msg["cond_indep_stack"] if frame.vectorized)
        if is_deterministic(msg):
            self.deterministic.add(name)
        elif msg["is_observed"] and name not in self.held:
            self.observed.append(name)
        if self.waiting is not None:
            self.waiting.discard(name)
            if not self.waiting:
                raise _Reached


def plain_run(
    model: Callable[[], Any], seed: int = 0, held: Mapping[str, Tensor] | None = None
) -> Run:
    """A run of the model as it is, to its end, some sites held."""
    with torch.no_grad():
        return Run(held).of(model, seed)


class _Reached(Exception):  # noqa: N818 (no error)
    """Every requested site was reached: what comes after need not run."""


def is_deterministic(msg: Any) -> bool:
    """Whether a trace message is a `pyro.deterministic` site."""
    return bool(msg["infer"] and msg["infer"].get("_deterministic", False))


def _expanded(name: str, distribution: Any, outer: tuple[int, int], own: int) -> Any:
    """A distribution for every world and replicate; of the world's sites for every world."""
    outer = (outer[0], outer[1] if name in CHAIN_SITES else 1)
    shape = tuple(distribution.batch_shape)
    try:
        if len(shape) >= own + 2:  # parents have put the batch in front already
            target = (*torch.broadcast_shapes(shape[:2], outer), *shape[2:])
        else:
            target = torch.broadcast_shapes(shape, (*outer, *(1,) * INNER_DIMENSIONS))
    except RuntimeError:
        raise LostDimension(name, outer, shape) from None
    return distribution.expand(torch.Size(target))


class LostDimension(ValueError):  # noqa: N818 (says what is wrong)
    """A site whose distribution does not keep worlds and replicates in front."""

    def __init__(self, site: str, outer: tuple[int, int], shape: tuple[int, ...]) -> None:
        super().__init__(
            f"Expected site {site!r} with a batch shape of ({outer[0]} worlds, {outer[1]} "
            f"replicates, …); got {shape}: index dimensions from the right, keep reduced ones"
        )
        self.site = site


def _is_normal_mixture(distribution: Any) -> bool:
    return isinstance(distribution, MixtureSameFamily) and isinstance(
        distribution.component_distribution, MultivariateNormal
    )


def _draw_mixture(mixture: MixtureSameFamily) -> Tensor:
    """A draw from a mixture of normals: every row from its own component alone."""
    normals: Any = mixture.component_distribution
    cumulative = mixture.mixture_distribution.probs.cumsum(-1)
    uniform = torch.rand_like(cumulative[..., :1]) * cumulative[..., -1:]
    index = (uniform > cumulative[..., :-1]).sum(-1)[..., None, None]
    means = normals.loc
    scales = compact_scale_tril(normals).expand(*means.shape, means.shape[-1])
    chosen = means.gather(-2, index.expand(*index.shape[:-1], means.shape[-1])).squeeze(-2)
    scale = scales.gather(-3, index[..., None].expand(*index.shape[:-2], 1, *scales.shape[-2:]))
    normal = torch.randn_like(chosen)
    return chosen + (scale.squeeze(-3) @ normal.unsqueeze(-1)).squeeze(-1)
