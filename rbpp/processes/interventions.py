"""What responds when one site of a process is changed and all others are held.

The cross-check of the dependency graph: it needs no provenance, so it sees through `.item()`, NumPy
and Python branches, but only where the tries happen to go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rbpp.processes.batching import CHAIN_SITES, Given, running
from rbpp.randomness import spawn

Values = dict[str, Tensor]
# A held run repeats the same arithmetic on the same numbers: what differs by more has a cause.
_TOLERANCE = 1e-9
# Tries whose new value happens to be the old one, or stops the model, are repeated this often.
_REPEATS = 4


@dataclass
class Responses:
    """Counts over the tries of every (changed, responding) pair of sites.

    Attributes:
        tries: for each changed site, how often it was changed.
        count: for each pair, how often the second responded.
        largest: for each pair, the largest change of a log density (nats) or computed value.
    """

    tries: dict[str, int] = field(default_factory=dict)
    count: dict[tuple[str, str], int] = field(default_factory=dict)
    largest: dict[tuple[str, str], float] = field(default_factory=dict)

    def note(self, source: str, changes: Mapping[str, float]) -> None:
        """Enter one try."""
        self.tries[source] = self.tries.get(source, 0) + 1
        for name, change in changes.items():
            self.count[source, name] = self.count.get((source, name), 0) + 1
            self.largest[source, name] = max(self.largest.get((source, name), 0.0), change)


def draw(model: Callable[[], Any], seed: int, given: Mapping[str, Tensor] | None = None) -> Given:
    """A plain run of the model, sites in `given` held at their values."""
    with torch.no_grad():
        return hold(model, given or {}, seed)


def hold(model: Callable[[], Any], given: Mapping[str, Tensor], seed: int = 0) -> Given:
    """`draw` with gradients."""
    run = Given(given, ["\0"], {})  # a site that never comes: the run goes to its end
    with running(seed), run:
        model()
    return run


def evidence(run: Given, values: Mapping[str, Tensor]) -> dict[str, Tensor | None]:
    """What each site says of `values` in a held run: its log density, or what it computed.

    None where the value is outside the support or has no density.
    """
    found: dict[str, Tensor | None] = {}
    for name, distribution in run.distributions.items():
        if name in run.deterministic:
            found[name] = run.computed[name]
            continue
        try:
            found[name] = distribution.log_prob(values[name])
        except (ValueError, RuntimeError, NotImplementedError, IndexError):
            found[name] = None
    return found


def intervene(model: Callable[[], Any], sources: Iterable[str], tries: int, seed: int) -> Responses:
    """Change one of `sources` at a time, all others held, and note which sites respond.

    Every try has its own draw of world and chain. The new value is another draw in that world, and
    in every second try a draw of another world: further away, so that more branches are taken.
    """
    responses = Responses()
    names = tuple(sources)
    for attempt in range(_REPEATS * tries):
        waiting = [name for name in names if responses.tries.get(name, 0) < tries]
        if not waiting:
            break
        base, other = _base_and_other(model, attempt, seed)
        before = evidence(draw(model, 0, base), base)
        for source in waiting:
            if not _differ(base[source], other[source]):
                continue
            after = _after(model, {**base, source: other[source]}, base)
            if after is None:
                continue
            changes = differences(before, after)
            changes.pop(source, None)
            responses.note(source, changes)
    return responses


def intervene_on_rows(
    model: Callable[[], Any], targets: Mapping[str, Iterable[str]], tries: int, seed: int
) -> Responses:
    """Change one row of a site at a time, and note which `targets` respond in *other* rows."""
    responses = Responses()
    names = tuple(targets)
    for attempt in range(_REPEATS * tries):
        waiting = [name for name in names if responses.tries.get(name, 0) < tries]
        if not waiting:
            break
        base, other = _base_and_other(model, attempt, spawn(seed, "rows"))
        if all(base[name].shape[0] < 2 for name in waiting):
            break
        before = evidence(draw(model, 0, base), base)
        for source in waiting:
            rows = base[source].shape[0]
            row = attempt % rows
            if rows < 2 or not _differ(base[source][row], other[source][row]):
                continue
            changed = base[source].clone()
            changed[row] = other[source][row]
            held = {**base, source: changed}
            after = _after(model, held, held)
            if after is None:
                continue
            changes = {}
            for name in targets[source]:
                first, second = before.get(name), after.get(name)
                if first is not None and second is not None and len(first) == rows:
                    kept = torch.arange(rows) != row
                    first, second = first[kept], second[kept]
                if (change := _change(first, second)) > 0:
                    changes[name] = change
            responses.note(source, changes)
    return responses


def differences(
    before: Mapping[str, Tensor | None], after: Mapping[str, Tensor | None]
) -> dict[str, float]:
    """By how much each site of `before` differs in `after`; sites that agree are left out."""
    return {
        name: change
        for name, value in before.items()
        if (change := _change(value, after.get(name))) > 0
    }


def _base_and_other(model: Callable[[], Any], attempt: int, seed: int) -> tuple[Values, Values]:
    base = draw(model, spawn(seed, "base", attempt))
    world = {
        name: value
        for name, value in base.values.items()
        if name not in CHAIN_SITES and name not in base.deterministic
    }
    same_world = attempt % 2 == 0
    other = draw(model, spawn(seed, "other", attempt), world if same_world else None)
    chain = {
        name: value
        for name, value in base.values.items()
        if name in CHAIN_SITES or name not in base.deterministic
    }
    return chain, other.values


def _after(
    model: Callable[[], Any], held: Mapping[str, Tensor], values: Mapping[str, Tensor]
) -> dict[str, Tensor | None] | None:
    """Evidence of a held run; none where the change stops the model: that try says nothing."""
    try:
        return evidence(draw(model, 0, held), values)
    except (ValueError, RuntimeError, IndexError, ArithmeticError):
        return None


def _differ(first: Tensor, second: Tensor) -> bool:
    return _change(first, second) > 0


def _change(first: Tensor | None, second: Tensor | None) -> float:
    """Largest difference, zero within rounding; infinite where only one can be evaluated."""
    if first is None and second is None:
        return 0.0
    if first is None or second is None or first.shape != second.shape:
        return float("inf")
    first, second = first.double(), second.double()
    same = (first == second) | (first.isnan() & second.isnan())
    if bool(same.all()):
        return 0.0
    gap = (first - second).abs()[~same].nan_to_num(float("inf"))
    scale = torch.maximum(first.abs(), second.abs())[~same].nan_to_num(posinf=1.0).clamp(min=1.0)
    largest = gap[gap > _TOLERANCE * scale]
    return float(largest.max()) if largest.numel() else 0.0
