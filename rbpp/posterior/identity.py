"""Which process and which knobs a posterior is of, so that it is used with no other."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rbpp import inference_data
from rbpp.inference_data import InferenceData
from rbpp.processes.loading import knob_name
from rbpp.processes.process import Process, load_process
from rbpp.randomness import generator
from rbpp.result import Result

if TYPE_CHECKING:
    from rbpp.posterior.worlds import WorldPosterior


def digest(process: Process) -> str:
    """SHA-256 of the source of the model, with the knobs and their values.

    The source is the file of the model, of its class where it is an object, or of what it wraps,
    and the file that the process was loaded from.
    """
    model = inspect.unwrap(process.model)
    while isinstance(model, functools.partial):
        model = inspect.unwrap(model.func)
    source = b"".join(path.read_bytes() for path in _files(model, process)) or _text(model)
    knobs = json.dumps(process.knobs, sort_keys=True, default=str)
    return hashlib.sha256(source + b"\0" + knobs.encode()).hexdigest()


def _files(model: Callable[..., Any], process: Process) -> list[Path]:
    """Each once, in the order of the digest."""
    try:
        own = inspect.getsourcefile(model if inspect.isroutine(model) else type(model))
    except TypeError:  # built while running
        own = None
    paths = [Path(place).resolve() for place in (own, process.source) if place]
    return [path for path in dict.fromkeys(paths) if path.is_file()]


def _text(model: Callable[..., Any]) -> bytes:
    """What stands for the source of a model without a file, such as that of a notebook."""
    try:
        return inspect.getsource(model).encode()
    except (OSError, TypeError):  # built while running: its code is all there is
        code = getattr(model, "__code__", None)
        return code.co_code if code is not None else repr(type(model)).encode()


def read_posterior(
    posterior: WorldPosterior | str | os.PathLike[str],
    process: Process | str | Path | Callable[..., Any],
    knobs: Mapping[str, Any] | None = None,
) -> tuple[Process, InferenceData]:
    """The process at the knobs of a posterior, and the posterior.

    Args:
        posterior: of `rbpp.infer`, or the file it was saved to.
        process: that the posterior is of, or what `load_process` takes.
        knobs: those that were asked for; the others are the posterior's. Those of a process that is
            loaded already all count as asked for.

    Raises:
        ValueError: if the file has no posterior of worlds, or one of another process or other
            knobs.
    """
    place = "given" if isinstance(posterior, Result) else posterior
    data = posterior.idata if isinstance(posterior, Result) else inference_data.read(posterior)
    written = None if data is None else data.attrs.get("digest")
    if data is None or written is None or "posterior" not in inference_data.group_datasets(data):
        raise ValueError(f"Expected a posterior that rbpp infer wrote; got {place}")
    own = json.loads(data.attrs["knobs"])
    loaded = load_process(process, **dict(knobs or {}))
    asked = loaded.knobs if isinstance(process, Process) else {knob_name(n) for n in knobs or {}}
    other = [
        f"{name}={loaded.knobs[name]} for {own[name]}"
        for name in asked
        if name in own and json.loads(json.dumps(loaded.knobs[name], default=str)) != own[name]
    ]
    if other:
        raise ValueError(f"Expected the knobs of the posterior {place}; got {', '.join(other)}")
    same = set(own) == set(loaded.knobs)
    at_knobs = load_process(loaded, **own) if same else loaded
    if digest(at_knobs) != written:
        raise ValueError(
            f"Expected the process that the posterior {place} is of ({data.attrs['process']}, as "
            f"it was then); got another, or an edited one: {loaded.name}"
        )
    return at_knobs, data


def worlds_of(data: InferenceData, process: Process, count: int, seed: int) -> dict[str, Tensor]:
    """Posterior draws of the world, (count, *shape of a plain run), by site.

    Distinct draws where there are as many; `rbpp.processes.replicas.Replicas` takes them.
    """
    posterior = inference_data.group_datasets(data)["posterior"]
    total = posterior.sizes["chain"] * posterior.sizes["draw"]
    source = generator(seed)
    chosen = (
        torch.randperm(total, generator=source)[:count]
        if count <= total
        else torch.randint(total, (count,), generator=source)
    )
    worlds = {}
    for name, site in process.sites.items():
        if site.shared and not site.deterministic:
            values = torch.as_tensor(posterior[name].values.copy()).flatten(0, 1)
            worlds[name] = values[chosen].reshape(count, *site.shape)
    return worlds
