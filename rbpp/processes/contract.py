"""The contract of a generation process, checked rule by rule.

A run, a trace, the dependency graph and interventions each see a part. A check can find a
violation; it cannot prove that there is none, and where it could not look it says unknown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from rbpp import sentences, validate
from rbpp.checks import Check, Verdict, violations
from rbpp.compute import Compute
from rbpp.display import DEFAULT_VIEW, Units, View
from rbpp.processes.batch_rule import check_batch
from rbpp.processes.graph import Graph
from rbpp.processes.handlers import ALLOWED_PARENTS, CHAIN_SITES, ROW_PLATES, Run, plain_run
from rbpp.processes.interventions import (
    Responses,
    Tries,
    differences,
    evidence,
    intervene,
)
from rbpp.processes.process import Process, load_process
from rbpp.processes.trace_rules import (
    check_events,
    check_plates,
    check_sites,
    check_sizes,
    check_values,
    finding,
    first_run,
)
from rbpp.result import Result
from rbpp.threads import one_thread

if TYPE_CHECKING:
    import pandas as pd

# e_M may also be read off the output afterwards, where the composition can be inverted.
READ_OFF_PARENTS = frozenset({"output", "prompt", "prompt_factor"})
CHAIN = "anchor → prompt → output → synthetic"
TRIES = 25  # 25 tries caught a Python branch that 3 missed
LARGEST_JACOBIAN = 1024  # columns


@dataclass(frozen=True, kw_only=True, repr=False)
class Contract(Result):
    """What the check of a process found: a `Check` per rule and place, and no terms.

    `measured` of each has `rule`, `place` and the number behind the verdict. Checks that are not
    `required` are assumptions of some results only.
    """

    every_check: ClassVar[bool] = True

    def answer(self, view: View = DEFAULT_VIEW) -> tuple[str, ...]:
        """Whether the process meets the contract, what was not seen, and what comes next."""
        return (*self.headline, *sentences.of_contract(self.checks, bool(self.violated)))

    @property
    def violated(self) -> list[Check]:
        """Violations of what the contract demands."""
        return violations(self.checks)

    def summary(
        self, hdi_prob: float = 0.94, units: Units = "nats", *, per_row: bool = False
    ) -> pd.DataFrame:
        """Every check, a row each: a contract has no numbers.

        Args:
            hdi_prob, units, per_row: as for every result; verdicts have none of them.

        Returns:
            Index `check`; columns `verdict`, `required` and `message`.
        """
        import pandas as pd

        rows = [(one.verdict, one.required, one.message) for one in self.checks]
        index = pd.Index([one.statement for one in self.checks], name="check")
        return pd.DataFrame(rows, index=index, columns=["verdict", "required", "message"])

    def details(self) -> Mapping[str, Any]:
        """The number of violations, with `--json`."""
        return {"violated": len(self.violated)}

    def reasons(self) -> str:
        """Every violation in one line: rule, place and what was seen."""
        return "; ".join(
            f"{c.measured['rule']} ({c.measured['place']}): {' '.join(c.message.split())}"
            for c in self.violated
        )


@one_thread()
def check(
    process: str | Path | Callable[..., Any] | Process,
    *,
    tries: int = TRIES,
    seed: int = 0,
    compute: Compute | None = None,
) -> Contract:
    """Hold a process to the contract, rule by rule.

    Rules that others rest on come first: where one of them is violated the rest is not run, and the
    checks say so. An edge in the graph that no intervention confirms (a zero coefficient) is
    unknown, and so is a graph with places that it cannot see through.

    Args:
        process: what to check: a process, or what `load_process` takes.
        tries: interventions per site.
        seed: decides them.
        compute: progress over the tries; the rules are looked at on the CPU.

    Raises:
        ValueError: if `tries` is not positive.
    """
    validate.count("tries", tries)
    process = load_process(process)
    checks = tuple(_checks(process, tries, Compute.of(compute, seed)))
    met = "violates" if violations(checks) else "is not seen to violate"
    return Contract(
        checks=checks,
        headline=(f"{process.name} {met} the contract of a process.",),
        settings=process.settings,
    )


def require(process: Process, compute: Compute | None = None, *, tries: int = TRIES) -> Contract:
    """`check` by the seed of `compute`, refusing a process that violates the contract.

    Raises:
        ValueError: naming every violated rule, its place and what was seen.
    """
    compute = Compute.of(compute)
    contract = check(process, tries=tries, seed=compute.seed, compute=compute)
    if contract.violated:
        raise ValueError(
            f"Expected {process.name} to meet the contract of a process; {contract.reasons()}"
        )
    return contract


def _checks(process: Process, tries: int, compute: Compute) -> list[Check]:
    """Every rule; the plain runs of `Tries` serve several of them."""
    runs = Tries(process, compute.seed)
    found, run = first_run(process.name, runs)
    if run is not None:
        found += check_sites(runs, run)
        if not violations(found):
            for rule in (check_plates, check_sizes, check_events, check_values):
                found += rule(run)
        if not violations(found):
            found += _randomness(runs)
        if not violations(found):
            graph, plates = process.graph, _row_plates(run)
            targets = {name: names for names in plates.values() for name in names}
            responses, by_row = intervene(runs, run.chain, targets, tries, compute)
            return [
                *found,
                *_world(run, graph, responses),
                *_markov(run, graph, responses),
                *_rows(run, plates, by_row),
                *check_batch(process, run, compute),
                *_invertible(runs, run, responses),
            ]
    unseen = "not looked at: what is violated above has to be right first"
    return [*found, finding("markov", CHAIN, "unknown", unseen)]


def _randomness(runs: Tries) -> Iterator[Check]:
    """Rule `randomness`: with every site held, nothing is left to chance."""
    for attempt in range(runs.kept - 1):
        base = runs.base(attempt)
        again = plain_run(runs.model, 1, base.values)
        changes = differences(evidence(base, base.values), evidence(again, base.values))
        for name, change in changes.items():
            message = (
                "differs between runs in which every site is held: it draws from something that "
                "is no site; sample it with pyro.sample"
            )
            yield finding("randomness", name, "violated", message, change)
            return
    yield finding("randomness", "every site", "holds", "all randomness is in sites")


def _world(run: Run, graph: Graph, responses: Responses) -> Iterator[Check]:
    """Rule `world`: whatever is no site of the chain does not depend on it."""
    fine = True
    for name in run.world:
        parents = _chain_parents(name, run, graph) or set()
        for source in run.chain:
            seen = responses.count[source, name]
            if not seen and source not in parents:
                continue
            fine = False
            yield finding(
                "world",
                f"{source} → {name}",
                "violated" if seen else "unknown",
                f"{name} counts as part of the world, but depends on {source}: the free sites of "
                "the chain are prompt, prompt_factor and model_factor",
                responses.largest.get((source, name), math.nan),
            )
    if fine:
        yield finding("world", ", ".join(run.world) or "none", "holds", "above the chain")


def _markov(run: Run, graph: Graph, responses: Responses) -> Iterator[Check]:
    """Rule `markov`: anchor → prompt → output → synthetic given the world, and no edge besides."""
    chain = run.chain
    fine, unseen_by_graph = True, []
    for target in chain:
        allowed = ALLOWED_PARENTS[target]
        if target == "model_factor" and target in run.deterministic:
            allowed = READ_OFF_PARENTS
        parents = _chain_parents(target, run, graph)
        for source in chain:
            seen = responses.count[source, target]
            in_graph = parents is not None and source in parents
            edge = f"{source} → {target}"
            if source == target or not (seen or in_graph):
                continue
            if source in allowed:
                if seen and parents is not None and not in_graph:
                    unseen_by_graph.append(edge)
                continue
            fine = False
            tried = responses.tries[source]
            message = (
                f"{target} responds to {source} with all other sites held, in {seen} of "
                f"{tried} tries{_hint(source, run)}"
                if seen
                else f"an edge of the graph, though {target} responded in none of {tried} tries: a "
                "coefficient of zero, or a branch seldom taken"
            )
            largest = responses.largest.get((source, target), math.nan)
            yield finding("markov", edge, "violated" if seen else "unknown", message, largest)
    broken_links = list(_links(run, graph, responses))
    yield from broken_links
    blind = _blind_spots(run, graph, responses, unseen_by_graph)
    tried = min(responses.tries.values(), default=0)
    if blind:
        showed = "nothing against it" if fine else "what is listed here"
        yield finding(
            "markov", CHAIN, "unknown", f"{blind}; {tried} tries per site showed {showed}"
        )
    elif fine and not any(link.required for link in broken_links):
        message = f"no other edge in the graph, nor in {tried} tries per site"
        yield finding("markov", CHAIN, "holds", message, float(tried))


def _links(run: Run, graph: Graph, responses: Responses) -> Iterator[Check]:
    """The edges that make it a chain."""
    links = (("anchor", "prompt"), ("prompt", "output"), ("output", "synthetic"))
    for source, target in links:
        by_factor = "prompt_factor" in run.values and source == "prompt"
        if responses.count[source, target] or (
            by_factor and responses.count["prompt_factor", target]
        ):
            continue
        in_graph = source in (_chain_parents(target, run, graph) or set())
        tried = responses.tries[source]
        # An output that ignores its prompt is a generator too: its information is zero.
        optional = target == "output"
        yield finding(
            "markov",
            f"{source} → {target}",
            "unknown" if in_graph or optional or not tried else "violated",
            f"{target} responded to {source} in none of {tried} tries",
            required=not optional,
        )


def _blind_spots(run: Run, graph: Graph, responses: Responses, unseen_by_graph: list[str]) -> str:
    """What the check could not see, in words; empty if it saw everything that it looks at."""
    reasons = []
    if graph.parents is None:
        reasons.append(f"the graph cannot be read ({graph.error})")
    else:
        for escape in graph.escapes:
            touched = escape.sites & set(CHAIN_SITES)
            for name in escape.sites - touched:
                touched |= _chain_parents(name, run, graph) or set()
            if touched:
                reasons.append(
                    f"{', '.join(sorted(touched))} leaves torch by {escape.operation} at "
                    f"{escape.place}, where edges are lost"
                )
    if unseen_by_graph and not reasons:
        reasons.append(
            f"the graph lacks {', '.join(unseen_by_graph)}, so others may be missing too"
        )
    never = [name for name in run.chain if not responses.tries[name]]
    if never:
        reasons.append(f"no try could change {', '.join(never)}")
    return "; ".join(reasons)


def _row_plates(run: Run) -> dict[str, list[str]]:
    """Sites whose rows must not depend on each other, by their plate."""
    plates: dict[str, list[str]] = {}
    for name in run.chain:
        for frame in run.plates[name]:
            # The prompt may mix rows of the anchors: it is one text.
            free = name in ("prompt", "prompt_factor")
            if frame.name in ROW_PLATES.values() and frame.dim == -1:
                plates.setdefault(frame.name, []).extend([] if free else [name])
    return plates


def _rows(run: Run, plates: Mapping[str, list[str]], responses: Responses) -> Iterator[Check]:
    """Rule `rows`: given the chain above, a row has nothing to do with other rows of its plate."""
    for plate, names in plates.items():
        coupled = [pair for pair in responses.count if pair[0] in names]
        tried = min(responses.tries[name] for name in names)
        for source, target in coupled:
            yield finding(
                "rows",
                f"{source} → {target}",
                "violated",
                f"changing one row of {source} changed other rows of {target} in "
                f"{responses.count[source, target]} of {responses.tries[source]} tries: rows of "
                f"plate {plate} are not independent",
                responses.largest[source, target],
            )
        if all(run.values[name].shape[0] == 1 for name in names):
            yield finding("rows", plate, "holds", "a single row")
        elif not tried:
            yield finding("rows", plate, "unknown", "no try could change a row")
        elif not coupled:
            message = f"changing one row changed no other row in {tried} tries"
            yield finding("rows", plate, "holds", message, float(tried))


def _invertible(runs: Tries, run: Run, responses: Responses) -> Iterator[Check]:
    """Assumption `invertible`: φ_T maps different anchors to different prompts."""

    def found(verdict: Verdict, message: str, measured: float = math.nan) -> Check:
        place = "anchor → prompt"
        return finding("invertible", place, verdict, message, measured, required=False)

    anchor, prompt = run.values["anchor"], run.values["prompt"]
    tried = responses.tries["anchor"]
    changed = responses.count["anchor", "prompt"]
    if "prompt" not in run.deterministic:
        yield found("violated", "the prompt is drawn given the anchors: φ_T has no inverse")
    elif changed < tried:
        message = f"{tried - changed} of {tried} different anchors gave the same prompt"
        yield found("violated", message, changed / tried)
    elif not (anchor.is_floating_point() and prompt.is_floating_point()):
        yield found("holds", f"{tried} of {tried} different anchors gave another prompt", 1.0)
    elif prompt.numel() < anchor.numel():
        message = f"a prompt of {prompt.numel()} numbers from anchors of {anchor.numel()}"
        yield found("violated", message, prompt.numel() / anchor.numel())
    elif anchor.numel() > LARGEST_JACOBIAN:
        message = f"the Jacobian is too large to look at; {tried} anchors gave different prompts"
        yield found("unknown", message)
    else:
        try:
            ranks = [_rank(runs, attempt) for attempt in range(3)]
        except RuntimeError as error:
            yield found("unknown", f"the prompt has no derivative: {error}")
            return
        verdict: Verdict = "holds" if min(ranks) == anchor.numel() else "violated"
        message = f"Jacobian of rank {min(ranks)} of {anchor.numel()} at 3 draws"
        yield found(verdict, message, min(ranks) / anchor.numel())


def _rank(runs: Tries, attempt: int) -> int:
    """Rank of ∂ prompt / ∂ anchor at a draw."""
    values = runs.base(attempt).values

    def prompt(anchor: Tensor) -> Tensor:
        held = {name: value for name, value in values.items() if name != "prompt"}
        return Run({**held, "anchor": anchor}, ["prompt"]).of(runs.model).computed["prompt"]

    jacobian = torch.autograd.functional.jacobian(prompt, values["anchor"])
    return int(torch.linalg.matrix_rank(jacobian.reshape(values["prompt"].numel(), -1)))


def _chain_parents(name: str, run: Run, graph: Graph) -> set[str] | None:
    """Chain sites that a site was computed from, directly or through other deterministic sites."""
    if graph.parents is None:
        return None
    pending, seen, found = [name], {name}, set()
    while pending:
        for parent in graph.parents.get(pending.pop(), []):
            if parent in CHAIN_SITES:
                found.add(parent)
            elif parent in run.deterministic and parent not in seen:
                seen.add(parent)
                pending.append(parent)
    return found


def _hint(source: str, run: Run) -> str:
    """What to change where the author computes on with a value instead of its site."""
    computed = [
        name for name in run.chain if name in run.deterministic and source in ALLOWED_PARENTS[name]
    ]
    if not computed:
        return ""
    return f" (is it by {computed[0]}? go on with what pyro.deterministic returns)"
