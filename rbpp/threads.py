"""Threads over blocks of work, each with single-threaded tensor operations.

Blocks are a fraction of a millisecond long. Split further, by OpenMP inside every operation,
threads wait for each other at each one: on two cores with other work on them that took 35 CPU
seconds where whole blocks take 2.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

# Half a gigabyte of float64: thousands of small kernels would leave an accelerator idle.
_DEVICE_BLOCK_ELEMENTS = 2**26

Item = TypeVar("Item")
Result = TypeVar("Result")
Map = Callable[[Callable[[Item], Result], Iterable[Item]], Iterable[Result]]


@contextmanager
def block_threads(device: torch.device) -> Iterator[Map]:
    """A `map` over torch's number of threads, in order; the number is restored on leaving."""
    count = torch.get_num_threads()
    if count == 1 or device.type != "cpu":
        yield map
        return
    with one_thread(), ThreadPoolExecutor(count) as pool:
        yield pool.map


@contextmanager
def one_thread() -> Iterator[None]:
    """Tensor operations of one thread, for work of many small ones; restored on leaving."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)


def block_elements(cached: int, device: torch.device) -> int:
    """Elements of a block: what a processor's cache holds, or what fills an accelerator."""
    return cached if device.type == "cpu" else _DEVICE_BLOCK_ELEMENTS
