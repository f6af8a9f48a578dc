"""What was estimated in some worlds, before anything is derived from it: to keep, and to join."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from rbpp.estimate import Estimate
from rbpp.theory.information import Bracket

Value = TypeVar("Value")


@dataclass(frozen=True)
class Measured:
    """Estimates in some worlds.

    Attributes:
        primitives: names of `rbpp.theory.composition.PRIMITIVES` and `REST` to estimates (worlds,).
        brackets: those of them that were estimated between two sides, with the sides.
        world: parameters of the worlds, (worlds, …), or (1, …) where they are the same in all.
        sub_gaussian: σ of the losses in [0, 1], (worlds,), where there are losses.
        missing: name to the reason why there is no such term.
        notes: name to what an estimate stands for.
        facts: of the process, its learners and their losses.
    """

    primitives: dict[str, Estimate]
    brackets: dict[str, Bracket]
    world: dict[str, Tensor]
    sub_gaussian: Tensor | None
    missing: dict[str, str]
    notes: dict[str, str]
    facts: dict[str, Any]

    def arrays(self) -> dict[str, np.ndarray]:
        """As a checkpoint keeps it."""
        estimates = {f"primitives/{name}": found for name, found in self.primitives.items()}
        for name, bracket in self.brackets.items():
            estimates |= {f"lower/{name}": bracket.lower, f"upper/{name}": bracket.upper}
        arrays = {f"world/{name}": value for name, value in self.world.items()}
        for name, found in estimates.items():
            arrays |= {f"value/{name}": found.value, f"error/{name}": found.standard_error}
        if self.sub_gaussian is not None:
            arrays["sub_gaussian"] = self.sub_gaussian
        text = {
            "estimates": {name: (e.count, e.direction) for name, e in estimates.items()},
            "by": {name: (b.lower_by, b.upper_by) for name, b in self.brackets.items()},
            "missing": self.missing,
            "notes": self.notes,
            "facts": self.facts,
        }
        kept = {name: value.cpu().numpy() for name, value in arrays.items()}
        return {**kept, "text": np.asarray(json.dumps(text))}

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> Measured:
        """What `arrays` was made from, on the CPU."""
        text = json.loads(str(arrays["text"]))
        tensors = {name: torch.from_numpy(v) for name, v in arrays.items() if name != "text"}
        estimates = {
            name: Estimate(tensors[f"value/{name}"], tensors[f"error/{name}"], *how)
            for name, how in text["estimates"].items()
        }
        primitives = _below("primitives/", estimates)
        return Measured(
            primitives,
            {
                name: Bracket(
                    estimates[f"lower/{name}"],
                    estimates[f"upper/{name}"],
                    low,
                    high,
                    primitives[name],
                )
                for name, (low, high) in text["by"].items()
            },
            _below("world/", tensors),
            tensors.get("sub_gaussian"),
            text["missing"],
            text["notes"],
            text["facts"],
        )


def join(parts: Sequence[Measured], worlds: Sequence[int]) -> Measured:
    """The worlds of all parts, in order; a term that only some parts have is nan in the others.

    Args:
        parts: of one process.
        worlds: how many every part has.
    """
    if len(parts) == 1:
        return parts[0]
    losses = [part.facts["losses"] for part in parts if part.facts["losses"] is not None]
    lows, highs = zip(*losses, strict=True) if losses else ((), ())
    spreads = [part.sub_gaussian for part in parts if part.sub_gaussian is not None]
    return Measured(
        {name: _estimates(of, worlds) for name, of in _by_name([p.primitives for p in parts])},
        {name: _brackets(of, worlds) for name, of in _by_name([p.brackets for p in parts])},
        {name: _values(of, worlds) for name, of in _by_name([p.world for p in parts])},
        torch.cat(spreads) if spreads else None,
        {
            name: reason
            for name, reason in parts[0].missing.items()
            if all(name in part.missing for part in parts)
        },
        {name: note for part in reversed(parts) for name, note in part.notes.items()},
        {**parts[0].facts, "losses": (min(lows), max(highs)) if losses else None},
    )


def _by_name(
    parts: Sequence[Mapping[str, Value]],
) -> Iterator[tuple[str, list[Value | None]]]:
    """Every name, in order of first appearance, with what each part has of it."""
    for name in dict.fromkeys(name for part in parts for name in part):
        yield name, [part.get(name) for part in parts]


def _estimates(parts: Sequence[Estimate | None], worlds: Sequence[int]) -> Estimate:
    known = next(part for part in parts if part is not None)
    values, errors = [], []
    for part, count in zip(parts, worlds, strict=True):
        nothing = torch.full((count,), math.nan, dtype=known.value.dtype)
        values.append(nothing if part is None else part.value)
        errors.append(nothing if part is None else part.standard_error)
    return Estimate(torch.cat(values), torch.cat(errors), known.count, known.direction)


def _brackets(parts: Sequence[Bracket | None], worlds: Sequence[int]) -> Bracket:
    known = [part for part in parts if part is not None]
    return Bracket(
        _estimates([None if part is None else part.lower for part in parts], worlds),
        _estimates([None if part is None else part.upper for part in parts], worlds),
        " or ".join(dict.fromkeys(part.lower_by for part in known)),
        " or ".join(dict.fromkeys(part.upper_by for part in known)),
        _estimates([None if part is None else part.best() for part in parts], worlds),
    )


def _values(parts: Sequence[Tensor | None], worlds: Sequence[int]) -> Tensor:
    """Values of a site of the world: one of all worlds, where a part has one for its several."""
    known = [part for part in parts if part is not None]
    pairs = zip(parts, worlds, strict=True)
    if len(known) < len(parts) or any(
        len(part) < count for part, count in pairs if part is not None
    ):
        return known[0]
    return torch.cat(known)


def _below(prefix: str, named: Mapping[str, Value]) -> dict[str, Value]:
    return {
        name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)
    }
