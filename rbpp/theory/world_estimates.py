"""What was estimated in some worlds, before anything is derived from it: to keep, and to join."""

from __future__ import annotations

import json
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from rbpp.estimate import Estimate
from rbpp.theory.terms import EstimatedTerms, ProcessFacts

Value = TypeVar("Value")
REST = "rest_"  # before the name of a term, in the delta method


@dataclass(kw_only=True)
class WorldEstimates(EstimatedTerms):
    """Estimates in some worlds, each (worlds,).

    Attributes:
        world: parameters of the worlds, (worlds, …), or (1, …) where they are the same in all.
        sub_gaussian: σ of the losses in [0, 1], where there are losses.
        facts: of the process and its learners.
    """

    world: dict[str, Tensor] = field(default_factory=dict)
    sub_gaussian: Tensor | None = None
    facts: ProcessFacts

    def settled(self) -> WorldEstimates:
        """Every information by the way with the smaller error in the mean over worlds.

        One choice for all worlds: one in each would favour errors that are small by chance.
        """
        chosen = dict(self.paired)
        for name, paired in self.paired.items():
            plain, other = (e.standard_error.square().mean() for e in (self.terms[name], paired))
            if plain < other:
                del chosen[name]
        kept = {name: rest for name, rest in self.rests.items() if name not in chosen}
        return replace(self, terms=self.terms | chosen, rests=kept, paired={})

    def arrays(self) -> dict[str, np.ndarray]:
        """As a checkpoint keeps it."""
        arrays = {f"world/{name}": value for name, value in self.world.items()}
        described: dict[str, Any] = {}
        for kind in _ESTIMATES:
            for name, estimate in getattr(self, kind).items():
                _flatten(f"{kind}/{name}", estimate, arrays, described)
        if self.sub_gaussian is not None:
            arrays["sub_gaussian"] = self.sub_gaussian
        text = {
            "estimates": described,
            "missing": self.missing,
            "notes": self.notes,
            "facts": asdict(self.facts),
        }
        kept = {name: value.cpu().numpy() for name, value in arrays.items()}
        return {**kept, "text": np.asarray(json.dumps(text))}

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> WorldEstimates:
        """What `arrays` was made from, on the CPU."""
        text = json.loads(str(arrays["text"]))
        tensors = {name: torch.from_numpy(v) for name, v in arrays.items() if name != "text"}
        estimates = {
            name: _unflatten(name, tensors, text["estimates"])
            for name in text["estimates"]
            if not name.endswith((_LOWER, _UPPER))
        }
        losses = text["facts"].pop("losses")
        return WorldEstimates(
            **{kind: _below(f"{kind}/", estimates) for kind in _ESTIMATES},
            world=_below("world/", tensors),
            sub_gaussian=tensors.get("sub_gaussian"),
            missing=text["missing"],
            notes=text["notes"],
            facts=ProcessFacts(**text["facts"], losses=None if losses is None else tuple(losses)),
        )


def join(parts: Sequence[WorldEstimates], worlds: Sequence[int]) -> WorldEstimates:
    """The worlds of all parts, in order; a term that is missing in one of them is missing.

    Args:
        parts: of one process.
        worlds: how many every part has.
    """
    if len(parts) == 1:
        return parts[0]
    losses = [part.facts.losses for part in parts if part.facts.losses is not None]
    lows, highs = zip(*losses, strict=True) if losses else ((), ())
    spreads = [part.sub_gaussian for part in parts if part.sub_gaussian is not None]
    missing = dict(ChainMap(*(part.missing for part in parts)))
    kinds = {
        kind: {
            name: _joined([getattr(part, kind)[name] for part in parts])
            for name in getattr(parts[0], kind)
            if all(name in getattr(part, kind) for part in parts)
        }
        for kind in _ESTIMATES
    }
    kinds["terms"] = {name: one for name, one in kinds["terms"].items() if name not in missing}
    return WorldEstimates(
        **kinds,
        world={
            name: _values([part.world[name] for part in parts], worlds) for name in parts[0].world
        },
        sub_gaussian=torch.cat(spreads) if spreads else None,
        missing=missing,
        notes=dict(ChainMap(*(part.notes for part in parts))),
        facts=replace(parts[0].facts, losses=(min(lows), max(highs)) if losses else None),
    )


_ESTIMATES = ("terms", "rests", "paired")
_LOWER, _UPPER = "/lower", "/upper"
_PLAIN = ("count", "direction", "method", "limit", "draws")


def _flatten(
    name: str, estimate: Estimate, arrays: dict[str, Tensor], described: dict[str, Any]
) -> None:
    arrays |= {f"value/{name}": estimate.value, f"error/{name}": estimate.standard_error}
    if estimate.samples is not None:
        arrays[f"samples/{name}"] = estimate.samples
    described[name] = {key: getattr(estimate, key) for key in _PLAIN}
    for end, side in ((_LOWER, estimate.lower), (_UPPER, estimate.upper)):
        if side is not None:
            _flatten(name + end, side, arrays, described)


def _unflatten(name: str, tensors: Mapping[str, Tensor], described: Mapping[str, Any]) -> Estimate:
    def side(end: str) -> Estimate | None:
        known = name + end in described
        return _unflatten(name + end, tensors, described) if known else None

    return Estimate(
        tensors[f"value/{name}"],
        tensors[f"error/{name}"],
        lower=side(_LOWER),
        upper=side(_UPPER),
        samples=tensors.get(f"samples/{name}"),
        **described[name],
    )


def _joined(parts: Sequence[Estimate]) -> Estimate:
    def side(name: str) -> Estimate | None:
        of = [own for part in parts if (own := getattr(part, name)) is not None]
        return _joined(of) if len(of) == len(parts) else None

    samples = [part.samples for part in parts if part.samples is not None]
    whole = len(samples) == len(parts)
    return Estimate(
        torch.cat([part.value for part in parts]),
        torch.cat([part.standard_error for part in parts]),
        parts[0].count,
        parts[0].direction,
        lower=side("lower"),
        upper=side("upper"),
        method=" or ".join(dict.fromkeys(part.method for part in parts)),
        limit=min(part.limit for part in parts),
        samples=torch.cat(samples, -1) if whole else None,
        draws=parts[0].draws if whole else "",
    )


def _values(parts: Sequence[Tensor], worlds: Sequence[int]) -> Tensor:
    """Values of a site of the world: one of all worlds, where a part has one for its several."""
    one = any(len(part) < count for part, count in zip(parts, worlds, strict=True))
    return parts[0] if one else torch.cat(list(parts))


def _below(prefix: str, named: Mapping[str, Value]) -> dict[str, Value]:
    return {
        name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)
    }
