"""The dependency graph of a model as Pyro's provenance sees it, and where it loses sight.

Provenance travels with tensors. A value that leaves them (`.item()`, NumPy, a Python branch) leaves
its provenance behind: the edge is missing from the graph, silently. Here such places are recorded,
so that a graph with holes is not taken for the whole.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pyro
import torch
from pyro.infer.inspect import get_model_relations
from pyro.ops.provenance import get_provenance
from torch.overrides import TorchFunctionMode

from rbpp.processes.handlers import running
from rbpp.processes.networks import in_double

# Torch functions that turn the values of a tensor into something that is no tensor.
_LEAVES_TENSORS = {
    "__array__",
    "__bool__",
    "__complex__",
    "__contains__",
    "__float__",
    "__format__",
    "__index__",
    "__int__",
    "__repr__",
    "allclose",
    "equal",
    "is_nonzero",
    "item",
    "numpy",
    "tolist",
}
# Torch and Pyro look at values too, to validate them; that decides nothing.
_TORCH, _PYRO = (os.path.dirname(str(module.__file__)) for module in (torch, pyro))
_DISPATCH = tuple(os.path.join(_TORCH, name) for name in ("overrides.py", "_tensor.py"))


@dataclass(frozen=True)
class Escape:
    """A place where values of sites leave torch: edges through it are unseen."""

    sites: frozenset[str]
    operation: str
    place: str


@dataclass(frozen=True)
class Graph:
    """Direct parents of every site, deterministic ones included.

    Attributes:
        parents: None where Pyro could not read them.
        escapes: places that edges may be missing through.
        error: why `parents` is None.
    """

    parents: dict[str, list[str]] | None
    escapes: tuple[Escape, ...]
    error: str = ""


def read_graph(model: Callable[[], Any]) -> Graph:
    """The graph of one run of `model`."""
    escapes = _Escapes()
    try:
        with running(0), in_double(model), escapes:
            relations = get_model_relations(model, include_deterministic=True)
    except Exception as error:  # whatever a model or Pyro raises: it is reported, not handled
        return Graph(None, tuple(escapes.found), f"{type(error).__name__}: {error}")
    return Graph(relations["sample_sample"], tuple(escapes.found))


class _Escapes(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[Escape, None] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in _LEAVES_TENSORS:
            sites = get_provenance([args, kwargs or {}])
            caller = _caller(sys._getframe(1))
            if sites and caller is not None:
                place = f"{Path(caller.f_code.co_filename).name}:{caller.f_lineno}"
                self.found[Escape(frozenset(sites), name, place)] = None
        return func(*args, **(kwargs or {}))


def _caller(frame: FrameType | None) -> FrameType | None:
    """The frame that asked for the value; None if that was torch or Pyro."""
    while frame is not None and frame.f_code.co_filename in _DISPATCH:
        frame = frame.f_back
    if frame is None or frame.f_code.co_filename.startswith((_TORCH, _PYRO)):
        return None
    return frame
