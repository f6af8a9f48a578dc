"""How a job is computed: where, by whom, from which seed, with what progress and checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import torch

from rbpp.checkpoint import Checkpoint
from rbpp.progress import progress
from rbpp.randomness import generator, spawn
from rbpp.threads import Map

Item = TypeVar("Item")
Output = TypeVar("Output")


@dataclass(frozen=True)
class Compute:
    """What a job needs besides its data; numbers depend on `seed` and `device` alone.

    Attributes:
        device: where tensors are: `"cpu"` or `"cuda"`.
        workers: a `map` over independent tasks: the built-in one, that of a thread pool, or that of
            a Ray cluster (`rbpp.workers.open_workers`).
        progress: show a progress bar on a terminal.
        checkpoint: keeps the steps that are done, so that a run that was cut off goes on from them.
        seed: decides every random number.

    >>> Compute(seed=3).spawn("chain", 0).seed == spawn(3, "chain", 0)
    True
    """

    device: str = "cpu"
    workers: Map = map
    progress: bool = False
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    seed: int = 0

    @staticmethod
    def of(compute: Compute | None, seed: int | None = None) -> Compute:
        """`compute`, or the default, with `seed` in place of its own where one is given."""
        compute = compute or Compute()
        return compute if seed is None else replace(compute, seed=seed)

    def spawn(self, *labels: int | str) -> Compute:
        """The same with the seed of the part of the work that `labels` name."""
        return replace(self, seed=spawn(self.seed, *labels))

    def generator(self, *labels: int | str, device: torch.device | str = "cpu") -> torch.Generator:
        """A generator for the part of the work that `labels` name."""
        return generator(spawn(self.seed, *labels) if labels else self.seed, device)

    def task(self) -> Compute:
        """For use inside a task: the task has no workers, checkpoint or progress of its own."""
        return Compute(device=self.device, seed=self.seed)

    def each(
        self, work: Callable[[Item], Output], items: Sequence[Item], label: str = ""
    ) -> Iterator[Output]:
        """`work` of every item, in order, by the workers."""
        return self.shown(self.workers(work, items), len(items), label)

    def steps(
        self,
        work: Callable[[Item], Mapping[str, np.ndarray]],
        items: Sequence[Item],
        name: Callable[[Item], str],
        label: str = "",
    ) -> Iterator[dict[str, np.ndarray]]:
        """`each` of steps that give arrays: the checkpoint has those done, and keeps the others."""
        return self.shown(self.checkpoint.each(self.workers, work, items, name), len(items), label)

    def shown(self, items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
        """The items, with a progress bar where there are several."""
        return progress(items, total, label, quiet=not self.progress or total < 2)

    def stages(self, names: Sequence[str], label: str) -> Iterator[str]:
        """The stages of one task with a progress bar: each `next` begins the following stage."""
        return progress(names, len(names), label, quiet=not self.progress)
