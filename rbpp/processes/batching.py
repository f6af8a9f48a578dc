"""Pyro handlers that run a process: recorded, for many worlds and replicates, with values held."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import MixtureSameFamily, MultivariateNormal

from rbpp.internals import compact_scale_tril, site_is_subsample
from rbpp.randomness import seeded

# The plate that holds the rows of a site; the free sites of the chain need none.
ROW_PLATES = {
    "anchor": "anchors",
    "output": "outputs",
    "synthetic": "outputs",
    "target": "targets",
    "unprompted": "unprompted_outputs",
}
CHAIN_SITES = (
    "anchor",
    "prompt",
    "prompt_factor",
    "model_factor",
    "output",
    "synthetic",
    "target",
    "unprompted",
)
INNER_DIMENSIONS = 2  # dimensions −1 and −2 belong to the process's plates


@contextmanager
def running(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seeded, in float64 (log densities of many rows need it), with everything restored after."""
    dtype = torch.get_default_dtype()
    # The device mode intercepts every call of torch: a third of the time where it changes nothing.
    there = torch.get_default_device() == torch.device(device)
    with seeded(seed), nullcontext() if there else torch.device(device):
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)


class Record(Messenger):
    """Keeps value, distribution and plates of every site."""

    def __init__(self) -> None:
        super().__init__()
        self.given: Mapping[str, Tensor] = {}
        self.values: dict[str, Tensor] = {}
        self.distributions: dict[str, Any] = {}
        self.plates: dict[str, tuple[Any, ...]] = {}
        self.deterministic: set[str] = set()
        self.observed: list[str] = []  # by the model itself

    def _pyro_post_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            return
        name = msg["name"]
        if name in self.values:
            raise ValueError(f"Expected every site once; got {name!r} twice")
        self.values[name] = torch.as_tensor(msg["value"])
        self.distributions[name] = msg["fn"]
        self.plates[name] = tuple(frame for frame in msg["cond_indep_stack"] if frame.vectorized)
        if is_deterministic(msg):
            self.deterministic.add(name)
        elif msg["is_observed"] and name not in self.given:
            self.observed.append(name)


class Batch(Record):
    """Draws sample sites for many worlds and replicates at once."""

    def __init__(self, worlds: int, replicates: int, batch_dimensions: Mapping[str, int]) -> None:
        super().__init__()
        self.worlds, self.replicates = worlds, replicates
        self.batch_dimensions = batch_dimensions

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg) or msg["is_observed"] or not hasattr(msg["fn"], "batch_shape"):
            return
        outer = (self.worlds, self.replicates if msg["name"] in CHAIN_SITES else 1)
        shape = tuple(msg["fn"].batch_shape)
        own = self.batch_dimensions.get(msg["name"], 0)
        if len(shape) >= own + 2:  # parents have put the batch in front already
            target = (*torch.broadcast_shapes(shape[:2], outer), *shape[2:])
        else:
            target = torch.broadcast_shapes(shape, (*outer, *(1,) * INNER_DIMENSIONS))
        msg["fn"] = msg["fn"].expand(torch.Size(target))
        if isinstance(msg["fn"], MixtureSameFamily) and isinstance(
            msg["fn"].component_distribution, MultivariateNormal
        ):
            msg["value"] = _draw_mixture(msg["fn"])


class Given(Record):
    """Holds given sites at their values and stops once the requested ones were reached."""

    def __init__(
        self,
        given: Mapping[str, Tensor],
        requested: Iterable[str],
        plate_sizes: Mapping[str, int],
    ) -> None:
        super().__init__()
        self.given, self.plate_sizes = given, plate_sizes
        self.waiting = set(requested)
        self.computed: dict[str, Tensor] = {}  # deterministic sites before they were held

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if site_is_subsample(msg):
            if name in self.plate_sizes:
                msg["value"] = torch.arange(self.plate_sizes[name])
            return
        if is_deterministic(msg):
            self.computed[name] = torch.as_tensor(msg["value"])
        if name in self.given:
            msg["value"] = self.given[name]
            msg["is_observed"] = True

    def _pyro_post_sample(self, msg: Any) -> None:
        super()._pyro_post_sample(msg)
        self.waiting.discard(msg["name"])
        if not self.waiting:
            raise Reached


class Reached(Exception):  # noqa: N818 (no error)
    """Every requested site was reached: what comes after need not run."""


def is_deterministic(msg: Any) -> bool:
    """Whether a trace message is a `pyro.deterministic` site."""
    return bool(msg["infer"] and msg["infer"].get("_deterministic", False))


def _draw_mixture(mixture: MixtureSameFamily) -> Tensor:
    """A draw from a mixture of normals: torch's own draws every row from every component."""
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
