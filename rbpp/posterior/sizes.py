"""The knobs of a process at which its plates have as many rows as the data."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from rbpp.processes.handlers import ROW_PLATES, plain_run
from rbpp.processes.process import Process, load_process


def fit_sizes(process: Process, data: Mapping[str, Tensor]) -> Process:
    """The process with the knobs that give every plate the number of rows of its data.

    The knob is found by running the model: a whole-number knob is raised by one, and the plate that
    grows is its own. A plate that has the right size already is left as it is.

    Args:
        process: with its knobs set.
        data: site to rows, (rows, …) or (data sets, rows, …).

    Raises:
        ValueError: if no knob gives a plate the number of rows, naming plate, rows and knobs.
    """
    for name, value in data.items():
        plate = ROW_PLATES.get(name)
        if plate is None or name not in process.sites:
            continue
        event = len(process.sites[name].shape) - 1
        rows = value.shape[value.dim() - event - 1]
        if plate_sizes(process).get(plate) != rows:
            process = _resized(process, plate, rows)
    return process


def plate_sizes(process: Process) -> dict[str, int]:
    """Plate name to its size in a plain run."""
    run = plain_run(process, 0)
    return {frame.name: frame.size for frames in run.plates.values() for frame in frames}


def _resized(process: Process, plate: str, rows: int) -> Process:
    before = plate_sizes(process).get(plate)
    if before is None:
        raise ValueError(f"Expected a plate {plate!r} in {process.name}; got none")
    counts = {
        name: value
        for name, value in process.knobs.items()
        if isinstance(value, int) and not isinstance(value, bool)
    }
    steps = {}
    for name, value in counts.items():
        after = _size(process, plate, name, value + 1)
        if after is not None and after != before:
            steps[name] = after - before
    # A knob that is the size itself comes first, then those that multiply it.
    for name, step in sorted(steps.items(), key=lambda item: abs(item[1])):
        more, rest = divmod(rows - before, step)
        wanted = counts[name] + more
        if not rest and wanted >= 1 and _size(process, plate, name, wanted) == rows:
            return load_process(process, **{name: wanted})
    knobs = ", ".join(steps) or "none"
    raise ValueError(
        f"Expected a knob of {process.name} that gives plate {plate!r} {rows} rows; got {before} "
        f"rows, and knobs that change them: {knobs} (set them yourself, or give another number of "
        "rows)"
    )


def _size(process: Process, plate: str, knob: str, value: int) -> int | None:
    try:
        return plate_sizes(load_process(process, **{knob: value})).get(plate)
    except (ValueError, RuntimeError, IndexError):
        return None
