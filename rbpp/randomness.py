"""One seed in, every random number out: no global state is changed behind the user's back."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor


def generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device`, seeded with `seed`."""
    return torch.Generator(device=device).manual_seed(seed)


def normals(shape: Sequence[int], generator: torch.Generator | None, like: Tensor) -> Tensor:
    """Standard normal numbers, of the precision and on the device of a tensor."""
    return torch.randn(*shape, generator=generator, dtype=like.dtype, device=like.device)


def uniforms(shape: Sequence[int], generator: torch.Generator | None, like: Tensor) -> Tensor:
    """Numbers between 0 and 1, of the precision and on the device of a tensor."""
    return torch.rand(*shape, generator=generator, dtype=like.dtype, device=like.device)


def spawn(seed: int, *labels: int | str) -> int:
    """A seed for the part of the work that `labels` name, the same on every machine.

    >>> spawn(0, "world", 3) == spawn(0, "world", 3) != spawn(0, "world", 4)
    True
    """
    text = repr((int(seed), *labels)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def other_states() -> tuple[bytes, object]:
    """What NumPy's and Python's own generators would go on from."""
    state: Any = np.random.get_state()
    return state[1].tobytes(), random.getstate()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch, NumPy and `random` for code that draws from global state, then restore them.

    Pyro's samplers know no generator argument: whatever runs a Pyro model runs inside this.
    """
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng():
        # torch.manual_seed would queue a call for a CUDA that is not there, at every use.
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_available():
            torch.cuda.manual_seed_all(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)
