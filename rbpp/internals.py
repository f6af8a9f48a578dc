"""Interfaces of torch, Pyro and Ray that they do not document, all in one place.

Each has a reason. Where a release changes one, this file is the only one to change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from pyro.poutine.util import site_is_subsample as site_is_subsample
from torch import Tensor, nn
from torch.distributions import MultivariateNormal


def standard_gamma(shape: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Gamma draws of rate 1; `torch.distributions.Gamma` takes no generator."""
    return torch._standard_gamma(shape, generator=generator)


def compact_scale_tril(normal: MultivariateNormal) -> Tensor:
    """The scale factor before it is expanded to the batch shape, which copies nothing."""
    return normal._unbroadcasted_scale_tril


def places_of_tensors(part: nn.Module) -> tuple[dict[str, Any], ...]:
    """Where a module itself keeps parameters, buffers and tensors that are neither."""
    return part._parameters, part._buffers, part.__dict__


def point_to_weights(parts: Iterable[nn.Module]) -> None:
    """Recurrent networks keep a list of their weights beside them: it names those of now."""
    for part in parts:
        if isinstance(part, nn.RNNBase):
            part._flat_weights = [getattr(part, name, None) for name in part._flat_weights_names]


@contextmanager
def unvalidated(distribution: Any) -> Iterator[None]:
    """Within, the distribution and its parts take values outside their support."""
    parts = list(_parts(distribution))
    before = [part.__dict__.get("_validate_args") for part in parts]
    for part in parts:
        part._validate_args = False
    try:
        yield
    finally:
        for part, value in zip(parts, before, strict=True):
            if value is None:
                del part._validate_args
            else:
                part._validate_args = value


def _parts(distribution: Any) -> Iterator[Any]:
    """A distribution and those it is made of."""
    if not isinstance(getattr(type(distribution), "_validate_args", None), property):
        yield distribution  # Pyro's Independent hands the property on
    for name in ("base_dist", "_mixture_distribution", "_component_distribution"):
        inner = distribution.__dict__.get(name)
        if inner is not None:
            yield from _parts(inner)


_BROADCAST_SHAPES = torch.broadcast_shapes


def broadcast_shapes(*shapes: Sequence[int]) -> torch.Size:
    """`torch.broadcast_shapes`, which reckons with symbolic sizes: it loads sympy in 0.35 s."""
    if torch.jit.is_tracing():
        return _BROADCAST_SHAPES(*shapes)
    try:
        return torch.Size(np.broadcast_shapes(*shapes))
    except ValueError as error:
        raise RuntimeError(f"Expected shapes that broadcast; got {shapes}") from error


@contextmanager
def light_shapes() -> Iterator[None]:
    """Within, every `MultivariateNormal` calls `broadcast_shapes` in place of torch's own."""
    torch.broadcast_shapes = broadcast_shapes
    try:
        yield
    finally:
        torch.broadcast_shapes = _BROADCAST_SHAPES


@contextmanager
def ray_on_loopback() -> Iterator[None]:
    """A Ray cluster that is started within listens on 127.0.0.1 alone, and is sought there.

    Whoever reaches a port of Ray runs what they like. Ray uses the loopback interface by itself on
    macOS and Windows; elsewhere it replaces 127.0.0.1 by the address of the machine.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def operations(function: Callable[[Tensor], object], example: Tensor) -> torch.fx.GraphModule:
    """What torch does in one run of a function, none of it in place, at tensors of that shape.

    Raises:
        RuntimeError: if the run turns a number of a tensor into one of Python, as a branch does.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    once = make_fx(lambda value: function(value))(example)  # a method would count its self
    return make_fx(torch.func.functionalize(once, remove="mutations"))(example)
