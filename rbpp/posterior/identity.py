"""Which process and which knobs a posterior is of, so that it is used with no other."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rbpp import inference_data
from rbpp.inference_data import InferenceData
from rbpp.processes.process import Process, load_process
from rbpp.randomness import generator


def digest(process: Process) -> str:
    """SHA-256 of the source of the model, with the knobs and their values."""
    try:
        found = inspect.getsourcefile(process.model)
        source = Path(found).read_bytes() if found else b""
    except (OSError, TypeError):  # built while running: its code is all there is
        source = b""
    if not source:
        code = getattr(process.model, "__code__", None)
        source = code.co_code if code is not None else repr(type(process.model)).encode()
    knobs = json.dumps(process.knobs, sort_keys=True, default=str)
    return hashlib.sha256(source + b"\0" + knobs.encode()).hexdigest()


def read_posterior(
    path: str | os.PathLike[str],
    process: Process | str | Path | Callable[..., Any],
    knobs: Mapping[str, Any] | None = None,
) -> tuple[Process, InferenceData]:
    """The process at the knobs of a posterior, and the posterior.

    Args:
        path: of a file that `rbpp.infer` wrote.
        process: that the posterior is of, or what `load_process` takes.
        knobs: those that were asked for; the others are the file's.

    Raises:
        ValueError: if the file has no posterior of worlds, or one of another process or other
            knobs.
    """
    data = inference_data.read(path)
    written = data.attrs.get("digest")
    if written is None or "posterior" not in inference_data.group_datasets(data):
        raise ValueError(f"Expected a posterior that rbpp infer wrote; got {path}")
    own = json.loads(data.attrs["knobs"])
    loaded = load_process(process, **dict(knobs or {}))
    other = {
        name: (loaded.knobs.get(name), own.get(name))
        for name in knobs or {}
        if loaded.knobs.get(name) != own.get(name)
    }
    if other:
        said = ", ".join(f"{name}={mine} for {theirs}" for name, (mine, theirs) in other.items())
        raise ValueError(f"Expected the knobs of the posterior {path}; got {said}")
    unknown = sorted(set(own) ^ set(loaded.knobs))
    at_knobs = loaded if unknown else load_process(loaded, **own)
    if unknown or digest(at_knobs) != written:
        raise ValueError(
            f"Expected the process that the posterior {path} is of ({data.attrs['process']}, as it "
            f"was then); got another, or an edited one: {loaded.name}"
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
