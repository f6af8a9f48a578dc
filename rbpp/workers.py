"""Work on the machines of a Ray cluster: a `map` whose calls are Ray tasks.

Whatever splits its work (parts of a stream, batches of worlds, values of a knob, restarts, sources)
takes a `Map`, and does not know who runs it. Results come back in the order of the items, and no
seed depends on the number of workers, so that neither do the numbers.
"""

from __future__ import annotations

import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rbpp.internals import ray_on_loopback

if TYPE_CHECKING:
    from rbpp.threads import Item, Map, Result

# What the names of modules begin with that were loaded from a file, such as a user's process.
FILE_MODULE = "rbpp_process_"
# Names of modules that such files have imported from beside them.
NEIGHBOURS: set[str] = set()
# Of a task whose worker died: a machine that went away, a process that was killed.
_RETRIES = 10
# Tasks under way for each processor: a worker that is done has the next one at hand.
_TASKS_PER_CPU = 2
# Seconds in which a cluster's port must answer: Ray itself tries for over ten minutes.
_PATIENCE = 10.0


@contextmanager
def open_workers(
    where: str, address: str | None = None, *, gpus_per_task: float = 0
) -> Iterator[Map]:
    """The `map` of the workers: the built-in one, or that of a Ray cluster.

    Args:
        where: `"local"`, or `"ray"`.
        address: of the cluster; without it the one in `RAY_ADDRESS`, or one that is started on this
            machine, on its loopback interface, and ends with the context. A cluster that the
            program is connected to already is used and left as it is.
        gpus_per_task: GPUs that a task has to itself.

    Raises:
        ValueError: if there is no cluster at the address.
        ImportError: naming the packages to install.
    """
    if where != "ray":
        if address is not None:
            raise ValueError(f"Expected an address with Ray workers alone; got {where}")
        yield map
        return
    with _environment():
        try:
            import ray
        except ImportError:
            raise ImportError("Ray workers need: pip install ray") from None
        started = not ray.is_initialized()
        if started:
            _connect(ray, address)
    try:
        yield _ray_map(ray, gpus_per_task)
    finally:
        if started:
            ray.shutdown()


@contextmanager
def _environment() -> Iterator[None]:
    """What Ray reads where it starts; the environment is as it was after."""
    # Tasks that ask for no GPU must not see one; the next release of Ray has it so anyway.
    names = {"RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"} - set(os.environ)
    os.environ.update(dict.fromkeys(names, "0"))
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)


def _connect(ray: Any, address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": "error"}
    address = address or os.environ.get("RAY_ADDRESS")
    if address is None:
        with ray_on_loopback():
            ray.init(include_dashboard=False, **quiet)
        return
    try:
        with ray_on_loopback() if _reach(address) else nullcontext():
            ray.init(address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"Expected a Ray cluster at {address}; got {line}") from error


def _reach(address: str) -> bool:
    """Whether a cluster at host:port is on this machine's loopback; other addresses are Ray's.

    Raises:
        OSError: if nothing listens there.
    """
    place = urlsplit(address if "://" in address else f"//{address}")
    if place.hostname is None or place.port is None:
        return False
    with socket.create_connection((place.hostname, place.port), timeout=_PATIENCE) as found:
        return ip_address(found.getpeername()[0]).is_loopback


def _ray_map(ray: Any, gpus_per_task: float) -> Map:
    limit = _TASKS_PER_CPU * max(2, int(ray.cluster_resources().get("CPU", 1)))
    call = ray.remote(_call).options(
        num_cpus=1, num_gpus=gpus_per_task, max_retries=_RETRIES, retry_exceptions=False
    )

    def mapped(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        _send_whole(ray)
        shared = ray.put(function)  # once per machine, not per task
        pending: deque[Any] = deque()
        try:
            for item in items:
                pending.append(call.remote(shared, item))
                if len(pending) >= limit:
                    yield _result(ray, pending.popleft())
            while pending:
                yield _result(ray, pending.popleft())
        finally:
            for task in pending:
                ray.cancel(task, force=False)

    return mapped


def _send_whole(ray: Any) -> None:
    """Functions of files that were loaded go to the workers as code: by name there are none."""
    for name, module in list(sys.modules.items()):
        if name.startswith(FILE_MODULE) or name in NEIGHBOURS:
            ray.cloudpickle.register_pickle_by_value(module)


def _call(function: Callable[[Item], Result], item: Item) -> Result:
    return function(item)


def _result(ray: Any, task: Any) -> Any:
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        # What the function raised, as it would have raised it here.
        raise (error.cause if isinstance(error.cause, Exception) else error) from None
