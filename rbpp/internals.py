"""Interfaces of torch, Pyro and Ray that they do not document, all in one place.

Each has a reason. Where a release changes one, this file is the only one to change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from pyro.poutine.util import site_is_subsample as site_is_subsample
from torch import Tensor
from torch.distributions import MultivariateNormal


def standard_gamma(shape: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Gamma draws of rate 1; `torch.distributions.Gamma` takes no generator."""
    return torch._standard_gamma(shape, generator=generator)


def compact_scale_tril(normal: MultivariateNormal) -> Tensor:
    """The scale factor before it is expanded to the batch shape, which copies nothing."""
    return normal._unbroadcasted_scale_tril


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
