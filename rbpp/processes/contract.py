"""The contract of a generation process, checked: consistent, violated, or inconclusive.

A run, a trace, the dependency graph and interventions each see a part. A check can find a
violation; it cannot prove that there is none, and where it could not look it says inconclusive.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from rbpp.processes.batching import CHAIN_SITES, ROW_PLATES, Given
from rbpp.processes.graph import Graph, read_graph
from rbpp.processes.interventions import (
    Responses,
    differences,
    draw,
    evidence,
    hold,
    intervene,
    intervene_on_rows,
)
from rbpp.processes.process import Process, log_density, simulate
from rbpp.processes.replicas import Replicas
from rbpp.processes.trace_rules import (
    Finding,
    Verdict,
    chain_of,
    check_events,
    check_plates,
    check_sites,
    check_sizes,
    check_values,
    run_once,
    world_of,
)
from rbpp.randomness import spawn
from rbpp.threads import one_thread

# What a site of the chain may be computed from, besides the world.
ALLOWED_PARENTS: dict[str, frozenset[str]] = {
    "anchor": frozenset(),
    "prompt": frozenset({"anchor"}),
    "prompt_factor": frozenset({"prompt"}),
    "model_factor": frozenset(),
    "output": frozenset({"prompt", "prompt_factor", "model_factor"}),
    "synthetic": frozenset({"output"}),
    "target": frozenset(),
    "unprompted": frozenset(),
}
# e_M may also be read off the output afterwards, where the composition can be inverted.
READ_OFF_PARENTS = frozenset({"output", "prompt", "prompt_factor"})
CHAIN = "anchor → prompt → output → synthetic"
TRIES = 25  # 25 tries caught a Python branch that 3 missed
BATCH_TOLERANCE = 1e-6  # relative: sums of log densities in another order
LARGEST_JACOBIAN = 1024  # columns


@one_thread()
def check(process: Process, *, tries: int = TRIES, seed: int = 0) -> list[Finding]:
    """Hold a process to the contract, rule by rule.

    Rules that others rest on come first: where one of them is violated the rest is not run, and the
    list says so. An edge in the graph that no intervention confirms (a zero coefficient) is
    inconclusive, and so is a graph with places that it cannot see through.

    Args:
        process: what to check.
        tries: interventions per site.
        seed: decides them.

    Raises:
        ValueError: if `tries` is not positive.
    """
    if tries < 1:
        raise ValueError(f"Expected one or more tries; got {tries}")
    findings, run = run_once(process.name, process, seed)
    if run is not None:
        findings += check_sites(process, run, seed)
        if not violations(findings):
            for rule in (check_plates, check_sizes, check_events, check_values):
                findings += rule(run)
        if not violations(findings):
            graph = read_graph(process, seed)
            responses = intervene(process, chain_of(run), tries, seed)
            return [
                *findings,
                *_randomness(process, seed),
                *_world(run, graph, responses),
                *_markov(run, graph, responses),
                *_rows(process, run, tries, seed),
                *_batch(process, run, seed),
                *_invertible(process, run, responses, seed),
            ]
    unseen = "not looked at: what is violated above has to be right first"
    return [*findings, Finding("markov", CHAIN, "inconclusive", unseen)]


def violations(findings: Iterable[Finding], *, required: bool = True) -> list[Finding]:
    """The violated ones, by default only those of rules that the contract demands."""
    return [f for f in findings if f.verdict == "violated" and (f.required or not required)]


def require(process: Process, *, tries: int = TRIES, seed: int = 0) -> list[Finding]:
    """`check`, refusing a process that violates the contract.

    Raises:
        ValueError: naming every violated rule, its place and what was seen.
    """
    findings = check(process, tries=tries, seed=seed)
    broken = violations(findings)
    if broken:
        reasons = "; ".join(f"{f.rule} ({f.place}): {f.message}" for f in broken)
        raise ValueError(f"Expected {process.name} to meet the contract of a process; {reasons}")
    return findings


def _randomness(process: Process, seed: int) -> Iterator[Finding]:
    """Rule `randomness`: with every site held, nothing is left to chance."""
    for attempt in range(3):
        values = draw(process, spawn(seed, "randomness", attempt)).values
        first, second = (evidence(draw(process, again, values), values) for again in (1, 2))
        for name, change in differences(first, second).items():
            yield Finding(
                "randomness",
                name,
                "violated",
                "differs between runs in which every site is held: it draws from something that "
                "is no site; sample it with pyro.sample",
                change,
            )
            return
    yield Finding("randomness", "every site", "consistent", "all randomness is in sites")


def _world(run: Given, graph: Graph, responses: Responses) -> Iterator[Finding]:
    """Rule `world`: whatever is no site of the chain does not depend on it."""
    fine = True
    for name in world_of(run):
        parents = _chain_parents(name, run, graph) or set()
        for source in chain_of(run):
            seen = responses.count.get((source, name), 0)
            if not seen and source not in parents:
                continue
            fine = False
            yield Finding(
                "world",
                f"{source} → {name}",
                "violated" if seen else "inconclusive",
                f"{name} counts as part of the world, but depends on {source}: the free sites of "
                "the chain are prompt, prompt_factor and model_factor",
                responses.largest.get((source, name), math.nan),
            )
    if fine:
        yield Finding("world", ", ".join(world_of(run)) or "none", "consistent", "above the chain")


def _markov(run: Given, graph: Graph, responses: Responses) -> Iterator[Finding]:
    """Rule `markov`: anchor → prompt → output → synthetic given the world, and no edge besides."""
    chain = chain_of(run)
    fine, unseen_by_graph = True, []
    for target in chain:
        allowed = ALLOWED_PARENTS[target]
        if target == "model_factor" and target in run.deterministic:
            allowed = READ_OFF_PARENTS
        parents = _chain_parents(target, run, graph)
        for source in chain:
            seen = responses.count.get((source, target), 0)
            in_graph = parents is not None and source in parents
            edge = f"{source} → {target}"
            if source == target or not (seen or in_graph):
                continue
            if source in allowed:
                if seen and parents is not None and not in_graph:
                    unseen_by_graph.append(edge)
                continue
            fine = False
            tried = responses.tries.get(source, 0)
            if seen:
                yield Finding(
                    "markov",
                    edge,
                    "violated",
                    f"{target} responds to {source} with all other sites held, in {seen} of "
                    f"{tried} tries{_hint(source, run)}",
                    responses.largest[source, target],
                )
            else:
                yield Finding(
                    "markov",
                    edge,
                    "inconclusive",
                    f"an edge of the graph, though {target} responded in none of {tried} tries: a "
                    "coefficient of zero, or a branch seldom taken",
                )
    broken_links = list(_links(run, graph, responses))
    yield from broken_links
    blind = _blind_spots(run, graph, responses, unseen_by_graph)
    tried = min(responses.tries.values(), default=0)
    if blind:
        yield Finding(
            "markov",
            CHAIN,
            "inconclusive",
            f"{blind}; {tried} tries per site showed "
            + ("what is listed here" if not fine else "nothing against it"),
        )
    elif fine and not any(finding.required for finding in broken_links):
        yield Finding(
            "markov",
            CHAIN,
            "consistent",
            f"no other edge in the graph, nor in {tried} tries per site",
            float(tried),
        )


def _links(run: Given, graph: Graph, responses: Responses) -> Iterator[Finding]:
    """The edges that make it a chain."""
    links = (("anchor", "prompt"), ("prompt", "output"), ("output", "synthetic"))
    for source, target in links:
        by_factor = "prompt_factor" in run.values and source == "prompt"
        if responses.count.get((source, target), 0) or (
            by_factor and responses.count.get(("prompt_factor", target), 0)
        ):
            continue
        in_graph = source in (_chain_parents(target, run, graph) or set())
        tried = responses.tries.get(source, 0)
        # An output that ignores its prompt is a generator too: its information is zero.
        optional = target == "output"
        yield Finding(
            "markov",
            f"{source} → {target}",
            "inconclusive" if in_graph or optional or not tried else "violated",
            f"{target} responded to {source} in none of {tried} tries",
            required=not optional,
        )


def _blind_spots(run: Given, graph: Graph, responses: Responses, unseen_by_graph: list[str]) -> str:
    """What the check could not see, in words; empty if it saw everything that it looks at."""
    reasons = []
    if graph.parents is None:
        reasons.append(f"the graph cannot be read ({graph.error})")
    else:
        for escape in graph.escapes:
            touched = {
                site
                for name in escape.sites
                for site in (
                    {name} if name in CHAIN_SITES else _chain_parents(name, run, graph) or ()
                )
            }
            if touched:
                reasons.append(
                    f"{', '.join(sorted(touched))} leaves torch by {escape.operation} at "
                    f"{escape.place}, where edges are lost"
                )
    if unseen_by_graph and len(reasons) == 0:
        reasons.append(
            f"the graph lacks {', '.join(unseen_by_graph)}, so others may be missing too"
        )
    never = [name for name in chain_of(run) if not responses.tries.get(name)]
    if never:
        reasons.append(f"no try could change {', '.join(never)}")
    return "; ".join(reasons)


def _rows(process: Process, run: Given, tries: int, seed: int) -> Iterator[Finding]:
    """Rule `rows`: given the chain above, a row has nothing to do with other rows of its plate."""
    plates: dict[str, list[str]] = {}
    for name in chain_of(run):
        for frame in run.plates[name]:
            if frame.name in ROW_PLATES.values() and frame.dim == -1:
                plates.setdefault(frame.name, []).append(name)
    # The prompt may mix rows of the anchors: it is one text.
    plates = {
        plate: [name for name in names if name not in ("prompt", "prompt_factor")]
        for plate, names in plates.items()
    }
    targets = {name: names for names in plates.values() for name in names}
    responses = intervene_on_rows(process, targets, tries, seed)
    for plate, names in plates.items():
        coupled = [pair for pair in responses.count if pair[0] in names]
        tried = min(responses.tries.get(name, 0) for name in names)
        for source, target in coupled:
            yield Finding(
                "rows",
                f"{source} → {target}",
                "violated",
                f"changing one row of {source} changed other rows of {target} in "
                f"{responses.count[source, target]} of {responses.tries[source]} tries: rows of "
                f"plate {plate} are not independent",
                responses.largest[source, target],
            )
        if all(run.values[name].shape[0] == 1 for name in names):
            yield Finding("rows", plate, "consistent", "a single row")
        elif not tried:
            yield Finding("rows", plate, "inconclusive", "no try could change a row")
        elif not coupled:
            message = f"changing one row changed no other row in {tried} tries"
            yield Finding("rows", plate, "consistent", message, float(tried))


def _batch(process: Process, run: Given, seed: int) -> Iterator[Finding]:
    """Rule `batch`: many worlds and replicates at once are what they are one by one."""
    worlds, replicates = 2, 3
    known = evidence(run, run.values)
    sampled = [
        name
        for name in [*chain_of(run), *world_of(run)]
        if name not in run.deterministic and known[name] is not None
    ]
    try:
        simulation = simulate(process, worlds=worlds, replicates=replicates, seed=seed)
        densities = log_density(process, simulation.values, sampled)
        if None not in known.values():  # rule `density` has it
            Replicas(process, worlds=worlds, seed=seed).draw(replicates, "check")
    except (ValueError, RuntimeError, IndexError) as error:
        # Pyro's own error lists all shapes over many lines; what a reader needs is the site.
        mismatch = re.search(r"[Ss]hape mismatch inside plate\(.*?\) at site (\S+)", str(error))
        message = (
            f"loses a dimension in a batch of {worlds} worlds and {replicates} replicates: index "
            "dimensions from the right, keep reduced ones"
        )
        name = mismatch.group(1) if mismatch else process.name
        yield Finding("batch", name, "violated", message if mismatch else str(error))
        return
    largest = 0.0
    for world in range(worlds):
        for replicate in range(replicates):
            values = {
                name: value[world, replicate if value.shape[1] > 1 else 0]
                for name, value in simulation.values.items()
            }
            alone = evidence(draw(process, 0, values), values)
            for name in [*chain_of(run), *world_of(run)]:
                single = alone[name]
                if single is None:
                    continue  # rule `density` has it
                if name in run.deterministic:
                    gap = (single - values[name]).abs().max()
                else:
                    density = densities[name].expand(worlds, replicates)[world, replicate]
                    gap = (single.sum() - density).abs() / (1 + density.abs())
                if not float(gap) < BATCH_TOLERANCE:
                    yield Finding(
                        "batch",
                        name,
                        "violated",
                        f"differs in a batch of {worlds} worlds and {replicates} replicates from "
                        "the same values alone: index dimensions from the right, keep reduced ones",
                        float(gap),
                    )
                    return
                largest = max(largest, float(gap))
    for name in chain_of(run):
        value = simulation.sites[name]
        drawn = name not in run.deterministic and value.is_floating_point()
        if drawn and bool((value == value[:, :1]).all()):
            message = "the same in every replicate of a world: draw it with pyro.sample"
            yield Finding("batch", name, "violated", message)
            return
    message = "a batch of worlds and replicates agrees with running them one by one"
    yield Finding("batch", process.name, "consistent", message, largest)


def _invertible(process: Process, run: Given, responses: Responses, seed: int) -> Iterator[Finding]:
    """Assumption `invertible`: φ_T maps different anchors to different prompts."""

    def finding(verdict: Verdict, message: str, measured: float = math.nan) -> Finding:
        return Finding("invertible", "anchor → prompt", verdict, message, measured, required=False)

    anchor, prompt = run.values["anchor"], run.values["prompt"]
    tried = responses.tries.get("anchor", 0)
    changed = responses.count.get(("anchor", "prompt"), 0)
    if "prompt" not in run.deterministic:
        yield finding("violated", "the prompt is drawn given the anchors: φ_T has no inverse")
    elif changed < tried:
        message = f"{tried - changed} of {tried} different anchors gave the same prompt"
        yield finding("violated", message, changed / tried)
    elif not (anchor.is_floating_point() and prompt.is_floating_point()):
        yield finding(
            "consistent", f"{tried} of {tried} different anchors gave another prompt", 1.0
        )
    elif prompt.numel() < anchor.numel():
        message = f"a prompt of {prompt.numel()} numbers from anchors of {anchor.numel()}"
        yield finding("violated", message, prompt.numel() / anchor.numel())
    elif anchor.numel() > LARGEST_JACOBIAN:
        message = f"the Jacobian is too large to look at; {tried} anchors gave different prompts"
        yield finding("inconclusive", message)
    else:
        try:
            ranks = [_rank(process, spawn(seed, "rank", attempt)) for attempt in range(3)]
        except RuntimeError as error:
            yield finding("inconclusive", f"the prompt has no derivative: {error}")
            return
        verdict: Verdict = "consistent" if min(ranks) == anchor.numel() else "violated"
        message = f"Jacobian of rank {min(ranks)} of {anchor.numel()} at 3 draws"
        yield finding(verdict, message, min(ranks) / anchor.numel())


def _rank(process: Process, seed: int) -> int:
    """Rank of ∂ prompt / ∂ anchor at a draw."""
    values = draw(process, seed).values

    def prompt(anchor: Tensor) -> Tensor:
        held = {name: value for name, value in values.items() if name != "prompt"}
        return hold(process, {**held, "anchor": anchor}).computed["prompt"].flatten()

    jacobian = torch.autograd.functional.jacobian(prompt, values["anchor"])
    return int(torch.linalg.matrix_rank(jacobian.reshape(jacobian.shape[0], -1)))


def _chain_parents(name: str, run: Given, graph: Graph) -> set[str] | None:
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


def _hint(source: str, run: Given) -> str:
    """What to change where the author computes on with a value instead of its site."""
    computed = [
        name
        for name in chain_of(run)
        if name in run.deterministic and source in ALLOWED_PARENTS[name]
    ]
    if not computed:
        return ""
    return f" (is it by {computed[0]}? go on with what pyro.deterministic returns)"
