"""Networks inside a process: found where the model refers to them, and run in float64."""

from __future__ import annotations

import functools
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from rbpp.internals import places_of_tensors, point_to_weights

# Packages whose modules hold no network of the user.
_LIBRARIES = ("torch", "pyro", "numpy", "scipy", "sklearn", "xarray", "arviz", "rbpp.", "builtins")


@contextmanager
def in_double(model: Callable[..., Any]) -> Iterator[None]:
    """Parameters and buffers of the model's networks in float64, and as they were after.

    Log densities of many rows need float64, and torch multiplies no matrices of two types. What was
    float32 is so again without loss.
    """
    found = networks(model)
    parts = [part for network in found for part in network.modules()]
    if not parts:
        yield
        return
    changed: list[tuple[Any, dict[str, Any]]] = []
    compiled = {
        part: next((own.dtype for own in part.parameters()), None)
        for part in parts
        if isinstance(part, torch.jit.ScriptModule)
    }
    hooks = [part.register_forward_pre_hook(_given_double, with_kwargs=True) for part in found]
    for part in parts:
        if part in compiled:
            part.double()
            continue
        # New tensors, which a derivative that is taken later can rely on.
        for kept in places_of_tensors(part):
            tensors = {name: own for name, own in kept.items() if isinstance(own, Tensor)}
            changed.append((kept, tensors))
            kept.update({name: _double(own) for name, own in tensors.items()})
    point_to_weights(parts)
    try:
        with warnings.catch_warnings():
            # Pyro says of every weight that it will not be trained.
            warnings.filterwarnings("ignore", message=".* was not registered in the param store")
            yield
    finally:
        for kept, before in changed:
            kept.update(before)
        for part, dtype in compiled.items():
            part.to(dtype)
        for hook in hooks:
            hook.remove()
        point_to_weights(parts)


def _given_double(
    _: nn.Module, given: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a network is called with, in float64, wherever the model has cast it to less."""

    def double(value: Any) -> Any:
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    return tuple(map(double, given)), {name: double(value) for name, value in named.items()}


def _double(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    data = tensor.detach().double()
    return nn.Parameter(data, requires_grad=False) if isinstance(tensor, nn.Parameter) else data


def networks(model: Callable[..., Any]) -> list[nn.Module]:
    """The `torch.nn.Module`s that a model is, holds, or names.

    >>> networks(nn.Identity())
    [Identity()]
    """
    found: dict[int, nn.Module] = {}
    _look(model, found, set(), 0)
    return list(found.values())


def _look(value: Any, found: dict[int, nn.Module], seen: set[int], depth: int) -> None:
    if id(value) in seen or depth > 4:
        return
    seen.add(id(value))
    if isinstance(value, nn.Module):
        found.setdefault(id(value), value)
        return
    for part in _referred(value):
        _look(part, found, seen, depth + 1)


def _referred(value: Any) -> Iterator[Any]:
    """What a value holds or names."""
    if isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, types.MethodType):
        yield from (value.__self__, value.__func__)
    elif isinstance(value, types.FunctionType):
        if (value.__module__ or "").startswith(_LIBRARIES):
            return
        for cell in value.__closure__ or ():
            with suppress(ValueError):  # not assigned yet
                yield cell.cell_contents
        yield from (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
        known = value.__globals__
        yield from (known[name] for name in _names(value.__code__) if name in known)
    elif isinstance(value, types.ModuleType):
        if getattr(value, "__file__", None) and not value.__name__.startswith(_LIBRARIES):
            yield from [part for part in vars(value).values() if isinstance(part, nn.Module)]
    elif isinstance(value, list | tuple):
        yield from value[:100]
    elif isinstance(value, dict):
        yield from list(value.values())[:100]
    elif hasattr(value, "model") and callable(value):  # a Process, or another wrapper
        yield from (value.model, getattr(value, "knobs", None))


def _names(code: types.CodeType) -> set[str]:
    """Global names that a function and the functions inside it use."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant)
    return found
