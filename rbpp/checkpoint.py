"""Work that goes on where it stopped: results of named steps, kept in a folder.

A step that is in the checkpoint is read and not done again. All else of a computation follows from
its steps and its seed, so that a run that was cut off ends with the numbers of one that was not.
Files are arrays and JSON, written whole or not at all, and nothing in them is executed.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import rbpp
from rbpp.files import keep_arrays, kept_arrays, written_whole

Item = TypeVar("Item")
Arrays = Mapping[str, np.ndarray]


class Checkpoint:
    """Steps that are done, by name.

    Args:
        folder: of the checkpoint, made where it is absent; None keeps nothing.
        settings: what the steps depend on, as JSON has it. A folder of other settings is refused.

    Raises:
        ValueError: if the folder belongs to other work or another version, or is in use.
    """

    def __init__(
        self, folder: Path | str | None = None, settings: Mapping[str, Any] | None = None
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        if self.folder is None:
            return
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"Expected a folder for the checkpoint; got the file {self.folder}")
        self.folder.mkdir(parents=True, exist_ok=True)
        _hold(self, self.folder)
        found = {**(settings or {}), "rbpp": rbpp.__version__}
        text = json.dumps(found, sort_keys=True, default=str, indent=1)
        place = self.folder / "settings.json"
        for part in self.folder.glob(".*.part"):  # what a run that was killed had begun
            part.unlink(missing_ok=True)
        if not place.exists():
            if any(self.folder.iterdir()):
                raise ValueError(
                    f"Expected an empty folder or an earlier checkpoint; got other files in "
                    f"{self.folder}"
                )
            with written_whole(place) as aside:
                aside.write_text(text, encoding="utf-8")
        elif (before := place.read_text(encoding="utf-8", errors="replace")) != text:
            raise ValueError(
                f"Expected the checkpoint {self.folder} to be of the same work; got "
                f"{_difference(before, text)}"
            )

    def once(self, name: str, work: Callable[[], Arrays]) -> dict[str, np.ndarray]:
        """The arrays of a step: read if it was done, else made by `work` and kept.

        A step that is damaged, or that other software has changed, is done again.

        >>> Checkpoint().once("step", lambda: {"value": np.ones(1)})
        {'value': array([1.])}
        """
        if self.folder is None:
            return dict(work())
        path = self.folder / f"{name}.npz"
        found = kept_arrays(path)
        if found is not None:
            return found
        made = dict(work())
        keep_arrays(path, made)
        return made

    def each(
        self,
        mapper: Callable[[Callable[[Item], Arrays], Iterable[Item]], Iterable[Arrays]],
        work: Callable[[Item], Arrays],
        items: Sequence[Item],
        name: Callable[[Item], str],
    ) -> Iterator[dict[str, np.ndarray]]:
        """The arrays of a step for every item, in order; those not done go through the mapper.

        >>> work = lambda item: {"value": np.asarray(item)}
        >>> [step["value"].item() for step in Checkpoint().each(map, work, [1, 2], str)]
        [1, 2]
        """
        made = iter(mapper(work, [item for item in items if not self._done(name(item))]))
        for item in items:
            yield self.once(name(item), lambda: next(made))

    def _done(self, name: str) -> bool:
        return self.folder is not None and kept_arrays(self.folder / f"{name}.npz") is not None


# Folders that this process holds: how many checkpoints, and the descriptor that is locked.
_held: dict[str, list[int]] = {}


def _hold(checkpoint: Checkpoint, folder: Path) -> None:
    """Hold the folder for this process as long as the checkpoint lives.

    Raises:
        ValueError: if another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such locks
        return
    key = os.path.realpath(folder)
    if key not in _held:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ValueError(
                f"Expected a checkpoint that no other run uses; got {folder}, which one does"
            ) from None
        except OSError:  # a file system without locks
            os.close(descriptor)
            return
        _held[key] = [0, descriptor]
    _held[key][0] += 1
    weakref.finalize(checkpoint, _release, key, os.getpid())


def _release(key: str, process: int) -> None:
    if process != os.getpid() or key not in _held:
        return
    _held[key][0] -= 1
    if not _held[key][0]:
        os.close(_held.pop(key)[1])


def _difference(before: str, now: str) -> str:
    """The first setting that differs."""
    try:
        old, new = json.loads(before), json.loads(now)
        for name in sorted({*old, *new}):
            if old.get(name) != new.get(name):
                return f"{name} {old.get(name)!r} there and {new.get(name)!r} now"
    except (ValueError, AttributeError, TypeError):
        pass
    return "other settings"
