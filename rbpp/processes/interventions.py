"""What responds when one site of a process is changed and all others are held.

The cross-check of the dependency graph: it needs no provenance, so it sees through `.item()`, NumPy
and Python branches, but only where the tries happen to go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rbpp.compute import Compute
from rbpp.processes.handlers import Run, plain_run
from rbpp.processes.support import log_prob
from rbpp.randomness import spawn

Values = dict[str, Tensor]
Evidence = dict[str, Tensor | None]
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

    tries: Counter[str] = field(default_factory=Counter)
    count: Counter[tuple[str, str]] = field(default_factory=Counter)
    largest: dict[tuple[str, str], float] = field(default_factory=dict)

    def note(self, source: str, changes: Mapping[str, float]) -> None:
        """Enter one try."""
        self.tries[source] += 1
        for name, change in changes.items():
            self.count[source, name] += 1
            self.largest[source, name] = max(self.largest.get((source, name), 0.0), change)

    def waiting(self, sources: Iterable[str], tries: int) -> list[str]:
        """The sources that were changed less often."""
        return [name for name in sources if self.tries[name] < tries]


class Tries:
    """Plain runs that the rules of the contract share: each draws world and chain anew."""

    kept = 4  # of the first runs

    def __init__(self, model: Callable[[], Any], seed: int) -> None:
        self.model, self.seed = model, seed
        self._runs: dict[int, Run] = {}

    def base(self, attempt: int) -> Run:
        """The run of a try."""
        if attempt in self._runs:
            return self._runs[attempt]
        run = plain_run(self.model, spawn(self.seed, "base", attempt))
        if attempt < self.kept:
            self._runs[attempt] = run
        return run

    def other(self, attempt: int) -> Values:
        """Values to change it to: another draw in that world; in every second try, of another
        world, which is further away, so that more branches are taken."""
        base = self.base(attempt)
        world = {name: base.values[name] for name in base.world}
        same_world = attempt % 2 == 0
        seed = spawn(self.seed, "other", attempt)
        return plain_run(self.model, seed, world if same_world else None).values


def evidence(run: Run, values: Mapping[str, Tensor]) -> Evidence:
    """What each site says of `values` in a run: its log density, or what it computed.

    A row outside the support has a density of zero. None where no density can be evaluated.
    """
    found: Evidence = {}
    for name, distribution in run.distributions.items():
        if name in run.deterministic:
            found[name] = run.computed[name]
            continue
        try:
            found[name] = log_prob(distribution, values[name])
        except (ValueError, RuntimeError, NotImplementedError, IndexError):
            found[name] = None
    return found


def intervene(
    runs: Tries,
    sources: Collection[str],
    row_targets: Mapping[str, Iterable[str]],
    tries: int,
    compute: Compute | None = None,
) -> tuple[Responses, Responses]:
    """Change one site or row at a time, all others held, and note what responds.

    Args:
        runs: the draws that are changed, shared by all changes of a try.
        sources: sites to change as a whole; any other site may respond.
        row_targets: sites to change in one row, and the sites that may respond in *other* rows.
        tries: changes of each.
        compute: progress.

    Returns:
        Responses to changed sites and to changed rows; a site of a single row has none.
    """
    whole, by_row = Responses(), Responses()
    several = [name for name in row_targets if runs.base(0).values[name].shape[0] > 1]
    for attempt in Compute.of(compute).shown(range(_REPEATS * tries), tries, "tries"):
        waiting, waiting_rows = whole.waiting(sources, tries), by_row.waiting(several, tries)
        if not waiting and not waiting_rows:
            break
        run, other = runs.base(attempt), runs.other(attempt)
        base = {name: run.values[name] for name in [*run.world, *run.chain]}
        before = evidence(run, base)
        for source in waiting:
            changes = _changed_site(runs.model, source, base, other, before)
            if changes is not None:
                whole.note(source, changes)
        for source in waiting_rows:
            rows = base[source].shape[0]
            row = attempt % rows
            changed = _with_row(base[source], other[source], row)
            held = {**base, source: changed}
            after = None if changed is base[source] else _after(runs.model, held, held)
            if after is not None:
                by_row.note(source, _changed_rows(before, after, row_targets[source], row, rows))
    return whole, by_row


def differences(before: Evidence, after: Evidence) -> dict[str, float]:
    """By how much each site of `before` differs in `after`; sites that agree are left out."""
    return {
        name: change
        for name, value in before.items()
        if (change := _change(value, after.get(name))) > 0
    }


def _changed_site(
    model: Callable[[], Any], source: str, base: Values, other: Values, before: Evidence
) -> dict[str, float] | None:
    """Responses to another value of a site; None where the try says nothing."""
    if not _change(base[source], other[source]):
        return None
    after = _after(model, {**base, source: other[source]}, base)
    if after is None:
        return None
    changes = differences(before, after)
    changes.pop(source, None)
    return changes


def _with_row(value: Tensor, other: Tensor, row: int) -> Tensor:
    """The value with one row of another; itself where they agree in it."""
    if not _change(value[row], other[row]):
        return value
    changed = value.clone()
    changed[row] = other[row]
    return changed


def _changed_rows(
    before: Evidence, after: Evidence, targets: Iterable[str], row: int, rows: int
) -> dict[str, float]:
    """Responses in rows other than `row`, of targets with as many `rows`."""
    changes = {}
    for name in targets:
        first, second = before.get(name), after.get(name)
        if first is not None and second is not None and first.shape[:1] == (rows,):
            kept = torch.arange(rows) != row
            first, second = first[kept], second[kept]
        if (change := _change(first, second)) > 0:
            changes[name] = change
    return changes


def _after(
    model: Callable[[], Any], held: Mapping[str, Tensor], values: Mapping[str, Tensor]
) -> Evidence | None:
    """Evidence of a held run; none where the change stops the model: that try says nothing."""
    try:
        return evidence(plain_run(model, 0, held), values)
    except (ValueError, RuntimeError, IndexError, ArithmeticError):
        return None


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
