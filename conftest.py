"""What every test and doctest gets: fixed seeds, and a check that it left global state alone.

Tests whose assertions depend on random numbers use the fixture `margin`, and are marked `random` by
it. `make robust` runs them with other seeds, vector instructions and numbers of threads.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

# The same examples every time, as with every other seed here; a search for new ones is a run with
# --hypothesis-profile=search.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.register_profile("search", max_examples=1000, deadline=None)
hypothesis.settings.load_profile("repeatable")

os.environ.setdefault("MPLBACKEND", "Agg")
if importlib.util.find_spec("rich") is not None:
    # Draws from `random` when it is first imported, which scikit-learn does in whichever test.
    import rich.style  # noqa: F401

# Where torch is absent, the tests of what needs none of it still run.
HAS_TORCH = importlib.util.find_spec("torch") is not None
SHARED_DATA = Path(__file__).resolve().parent.parent / "shared" / "data"
# Added to every seed of a run, and where the margins of its assertions are written.
SEED_SHIFT = int(os.environ.get("RBPP_SEED_SHIFT", "0"))
MARGINS_FILE = os.environ.get("RBPP_MARGINS")


def shift_seeds(shift: int) -> None:
    """Add `shift` to every seed that tests and library give to NumPy and torch."""
    numpy_generator = np.random.default_rng

    def shifted(seed: Any = None) -> np.random.Generator:
        if isinstance(seed, int):
            seed += shift
        elif isinstance(seed, list):
            seed = [*seed, shift]
        return numpy_generator(seed)

    np.random.default_rng = shifted
    if not HAS_TORCH:
        return
    import torch

    class ShiftedGenerator(torch.Generator):
        def manual_seed(self, seed: int) -> torch.Generator:
            return super().manual_seed((seed + shift) % 2**63)

    torch.Generator = ShiftedGenerator  # type: ignore[misc]
    from rbpp import randomness

    seeded = randomness.seeded
    randomness.seeded = lambda seed: seeded((seed + shift) % 2**63)


if SEED_SHIFT:
    shift_seeds(SEED_SHIFT)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that use `margin` are marked `random`."""
    for item in items:
        if "margin" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.random)


@pytest.fixture
def margin(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Assert that a random number keeps inside a limit: `margin(limit - found)`, at least 0.

    `make margins` runs every such assertion with 20 seeds and refuses those whose mean is below
    three standard deviations; `tests/margins.json` has what it measured.
    """
    place = iter(range(1000))

    def keeps(slack: Any) -> None:
        values = [float(value) for value in np.atleast_1d(np.asarray(slack, dtype=float)).ravel()]
        number = next(place)
        if MARGINS_FILE:
            entry = {"test": request.node.nodeid, "place": number, "slack": min(values)}
            with open(MARGINS_FILE, "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
            return
        assert min(values) >= 0, f"beyond its limit by {-min(values):.3g} (assertion {number})"

    return keeps


def global_state() -> dict[str, Any]:
    """Whatever a library could change behind its user's back, in comparable form."""
    name, keys, position, *_ = np.random.get_state()
    state: dict[str, Any] = {
        "random": random.getstate(),
        "numpy.random": (name, tuple(keys), position),
        "numpy error handling": np.geterr(),
    }
    if HAS_TORCH:
        import pyro
        import torch

        state |= {
            "torch.random": torch.get_rng_state().numpy().tobytes(),
            "torch default dtype": torch.get_default_dtype(),
            "torch gradient mode": torch.is_grad_enabled(),
            "torch threads": torch.get_num_threads(),
            "pyro settings": pyro.settings.get(),
            "pyro parameter store": sorted(pyro.get_param_store().keys()),
        }
    return state


def seed_everything() -> None:
    random.seed(0)
    np.random.seed(0)
    if HAS_TORCH:
        import pyro
        import torch

        torch.manual_seed(0)
        pyro.clear_param_store()


@pytest.fixture(autouse=True)
def untouched_global_state(request: pytest.FixtureRequest) -> Iterator[None]:
    """Seeds, and fails a test that draws from, or changes, what belongs to the whole process.

    Randomness in tests comes from generators too; a test of something that must draw from global
    state (a peer, a Pyro model by hand) wraps it in `rbpp.randomness.seeded`.
    """
    seed_everything()
    before = global_state()
    yield
    after = global_state()
    seed_everything()
    changed = [name for name, value in before.items() if after[name] != value]
    if changed:
        pytest.fail(f"changed global state: {', '.join(changed)}", pytrace=False)


_CONTRACTS: dict[Any, Any] = {}


@pytest.fixture(autouse=True)
def contracts_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """`bounds` holds a process to the contract by a second of interventions: once in a session.

    Of models at the top of a file, whose code, knobs and seed decide everything.
    """
    module = sys.modules.get("rbpp.theory.bounds")
    if module is None:
        return
    require = module.require

    def once(process: Any, compute: Any) -> Any:
        model = process.model
        if model.__closure__ or "<locals>" in model.__qualname__:
            return require(process, compute)
        key = (model.__code__.co_filename, model.__code__, repr(process.knobs), compute.seed)
        if key not in _CONTRACTS:
            _CONTRACTS[key] = require(process, compute)
        return _CONTRACTS[key]

    monkeypatch.setattr(module, "require", once)


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    """No figure outlives its test."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(autouse=True)
def names_for_doctests(doctest_namespace: dict[str, Any]) -> None:
    """A doctest knows numpy, torch and a seeded generator."""
    doctest_namespace["np"] = np
    if HAS_TORCH:
        import torch

        doctest_namespace["torch"] = torch
        doctest_namespace["generator"] = torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; tests of it skip where it is not there."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA}")
    return SHARED_DATA
