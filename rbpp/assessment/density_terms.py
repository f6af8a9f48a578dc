"""Divergences between sources and entropies of them, in principal components."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from rbpp.assessment.divergence import (
    FEWEST_ROWS_PER_DIMENSION,
    kl_divergence_of_samples,
    kl_gap_of_samples,
    named,
    summary,
    total_variation_of_samples,
)
from rbpp.assessment.entropy import entropy_of_sample
from rbpp.assessment.log_ratio import FEWEST_UNITS, LogRatio, log_ratio
from rbpp.assessment.share_terms import halves, is_same
from rbpp.assessment.sources import Sources
from rbpp.assessment.weighted_rows import Array, Draws, Sample
from rbpp.checks import Check, Verdict
from rbpp.data.reduce import principal_components
from rbpp.estimate import Estimate, exactly

# Principal components of divergences and entropies at most: those of
# docs/measurements/divergences.md, and in
# more of them the extrapolation of an entropy is most of the answer.
MOST_DIMENSIONS = 16
# Of embeddings, whose axes mean nothing by themselves, fewer: half of the time of all terms.
EMBEDDING_DIMENSIONS = 8
# What `rbpp.data.embed` says of numbers that it leaves alone.
AS_GIVEN = "embeddings as given"
# KL of a source from the task, and of the task from the source (coverage).
BothWays = tuple[Estimate, Estimate]


@dataclass
class Densities:
    """Divergences and entropies.

    Attributes:
        dimension: principal components of the divergences.
        terms: draws by name; of a divergence without an upper or a lower end, one number between
            the ends that it has, and the reason.
        certified: lower bounds with no model, `kl_…_lower`.
        references: means of the same terms of two halves of the task.
        total_variation: of task and synthetic rows, style included; None where there is none.
        checks: which divergences are open, what could not be computed, and why.
    """

    dimension: int
    terms: dict[str, Estimate] = field(default_factory=dict)
    certified: dict[str, Estimate] = field(default_factory=dict)
    references: dict[str, float] = field(default_factory=dict)
    total_variation: Estimate | None = None
    checks: list[Check] = field(default_factory=list)

    def keep(self, name: str, both: BothWays) -> BothWays:
        """Put KL both ways, each with its lower bound, beside the others."""
        for own, found in zip((name, f"{name}_coverage"), both, strict=True):
            if found.lower is not None:
                self.certified[f"{own}_lower"] = found.lower
            self.put(own, found)
        return both

    def put(self, name: str, found: Estimate) -> None:
        """The draws of a divergence or a gap, or one number where a side is open, and a check."""
        if not found.reason:
            self.terms[name] = found
            return
        one = summary(found) if found.value.dim() else found
        self.terms[name] = one
        least, most = (end.item() for end in one.bounds)
        ends = [f"at least {least:.3g}"] if math.isfinite(least) else []
        ends += [f"at most {most:.3g}"] if math.isfinite(most) else []
        self.checks.append(
            Check(
                f"{name} has both ends",
                "undecided",
                f"no: {one.reason}; {name} is {' and '.join(ends) or 'open'}",
                {"lower": least, "upper": most, "estimate": one.value.item()},
            )
        )


def find_densities(sources: Sources, drawn: Draws, offset: Array, given: bool = False) -> Densities:
    """Divergences of the synthetic source and the anchors from the task, and entropies.

    Args:
        sources: with `synthetic` and a task.
        drawn: draws of each number; their seed is also that of folds.
        offset: δ of the synthetic rows' style, taken away for `total_divergence`.
        given: the dimension is the user's and is kept; else there are ten rows for each.
    """
    units = {name: sources.unit_count(name) for name in sources.names}
    d = sources.projection.dimension
    if not given:
        d = min(d, MOST_DIMENSIONS, max(2, min(units.values()) // FEWEST_ROWS_PER_DIMENSION))
    found = Densities(dimension=d)
    few = {name: count for name, count in units.items() if count < FEWEST_UNITS}
    draws, task = drawn.enough(), sources.task

    def ratio(first: str, second: str) -> LogRatio | None:
        if {first, second} & set(few) or not {first, second} <= set(sources.names):
            return None
        return _ratio(sources, first, second, d, draws.seed)

    made = ratio("synthetic", task)
    if made is not None:
        of_synthetic = _of_synthetic(found, sources, made, offset, draws)
    anchor = None if task == "anchor" else ratio("anchor", task)
    if anchor is not None:
        of_anchor = found.keep("kl_anchor", _both_ways(anchor, draws))
    if anchor is not None and made is not None:
        found.put("kl_gap", kl_gap_of_samples(anchor, made, draws))
        one = named("kl_anchor_coverage", of_anchor[1])
        other = named("kl_synthetic_coverage", of_synthetic[1])
        if one.reason or other.reason:  # then it has ends, and no draws
            one, other = summary(one), summary(other)
        found.put("kl_gap_coverage", one - other)
    for name, pair in (
        ("task_divergence", (task, "unprompted")),
        ("generation_divergence", ("unprompted", "synthetic")),
        ("curation_divergence", ("output", "synthetic")),
    ):
        between = ratio(*pair)
        if between is not None:
            found.terms[name] = total_variation_of_samples(between, draws)
    if few:
        listed = ", ".join(f"{name} {count}" for name, count in few.items())
        message = f"fewer than {FEWEST_UNITS} independent rows ({listed}): no divergence of these"
        found.checks.append(Check("rows for divergences", "unknown", message, {"few": few}))
    _references(found, sources, draws)
    _entropies(found, sources, draws)
    return found


def _of_synthetic(
    found: Densities, sources: Sources, ratio: LogRatio, offset: Array, draws: Draws
) -> BothWays:
    """KL both ways, and total variation with style and without."""
    if is_same(sources, sources.task, "synthetic"):
        nothing = replace(exactly(np.zeros(draws.count)), lower=exactly(0.0))
        both = found.keep("kl_synthetic", (nothing, nothing))
        found.terms |= dict.fromkeys(("distinguishability", "total_divergence"), nothing)
        return both
    both = found.keep("kl_synthetic", _both_ways(ratio, draws))
    variation = total_variation_of_samples(ratio, draws)
    found.total_variation = variation
    found.terms |= dict.fromkeys(("distinguishability", "total_divergence"), variation)
    if sources.lifted or not np.any(offset):
        return both  # numbers have no style apart from what they are
    content = sources.content("synthetic")
    length = np.linalg.norm(sources.vectors["synthetic"], axis=1, keepdims=True)
    moved = sources.projection((content - offset) * length)[:, : found.dimension]
    plain = _ratio(sources, "synthetic", sources.task, found.dimension, draws.seed, moved)
    free = total_variation_of_samples(plain, draws)
    # Style only ever adds: what is left without it is at most what can be told apart with it.
    found.terms["total_divergence"] = exactly(free.value.minimum(variation.value))
    return both


def _ratio(
    sources: Sources, first: str, second: str, d: int, seed: int, rows: Array | None = None
) -> LogRatio:
    rows = sources.coordinates[first][:, :d] if rows is None else rows
    other = sources.sample(second, sources.coordinates[second][:, :d])
    return log_ratio(sources.sample(first, rows), other, seed)


def _both_ways(ratio: LogRatio, draws: Draws) -> BothWays:
    return (
        kl_divergence_of_samples(ratio, "forward", draws),
        kl_divergence_of_samples(ratio, "reverse", draws),
    )


def _references(found: Densities, sources: Sources, draws: Draws) -> None:
    """The same numbers of one half of the task against the other."""
    first, second = halves(sources, len(sources.rows["synthetic"]))
    unit = sources.units(sources.task)
    if min(len(set(unit[half].tolist())) for half in (first, second)) < FEWEST_UNITS:
        return
    rows = sources.coordinates[sources.task][:, : found.dimension]
    one, other = (Sample(rows[half], unit[half]) for half in (first, second))
    ratio = log_ratio(one, other, draws.seed)
    forward, reverse = _both_ways(ratio, draws)
    variation = total_variation_of_samples(ratio, draws)
    for name, half in (
        ("distinguishability", variation),
        ("total_divergence", variation),
        ("kl_synthetic", forward),
        ("kl_synthetic_coverage", reverse),
    ):
        found.references[name] = half.value.mean().item()


def _entropies(found: Densities, sources: Sources, draws: Draws) -> None:
    """Entropies of whole data sets on axes of the task's rows alone.

    Axes, their number and, where that can be, units do not depend on the synthetic rows: two runs
    with two synthetic files compare.
    """
    vectors, unit, comparable = _task_units(sources)
    task = vectors[sources.task]
    names = set(sources.names)
    units = [sources.unit_count(name) for name in ("anchor", "target") if name in names]
    real = [count for count in units if count >= FEWEST_UNITS]
    if not real:
        return
    try:
        most = MOST_DIMENSIONS if sources.lifted else EMBEDDING_DIMENSIONS
        d = min(most, max(2, min(real) // FEWEST_ROWS_PER_DIMENSION))
        available = principal_components([task]).dimension
        axes = principal_components([task], min(d, available))
    except ValueError:
        return
    said = []
    for role in ("anchor", "output", "synthetic"):
        if role not in names:
            continue
        try:
            one = _entropy(sources, role, axes(vectors[role]) * axes.scale, draws)
        except ValueError as error:
            found.checks.append(Check(f"entropy of the {role} rows", "unknown", str(error)))
            continue
        found.terms[f"entropy_{role}"] = one * sources.rows[role].size
        said.append(f"{role} {one.bounds[1] - one.value.quantile(0.5):.2g}")
    own = found.terms
    if "entropy_anchor" in own and "entropy_synthetic" in own:
        own["entropy_gap"] = own["entropy_anchor"] - own["entropy_synthetic"]
    if said:
        message = (
            f"nats of all rows, in {axes.dimension} principal components of the {sources.task} "
            f"rows and {unit}; extrapolated by, in nats a row: {', '.join(said)}"
        )
        verdict: Verdict = "holds" if comparable else "unknown"
        measured = {"dimension": axes.dimension}
        found.checks.append(Check("units of entropies", verdict, message, measured))


def _entropy(sources: Sources, role: str, rows: Array, draws: Draws) -> Estimate:
    count, d, least = sources.unit_count(role), rows.shape[1], FEWEST_ROWS_PER_DIMENSION
    if count < least * d:
        raise ValueError(
            f"{count} independent rows are fewer than {least} for each of {d} dimensions"
        )
    return entropy_of_sample(sources.sample(role, rows), draws)


def _task_units(sources: Sources) -> tuple[dict[str, Array], str, bool]:
    """Vectors, their units in words, and whether these are the same beside other synthetic rows."""
    vectors = {name: np.asarray(rows, np.float64) for name, rows in sources.vectors.items()}
    if sources.embedding.lexical:
        return vectors, "weights of words among all rows, other beside other synthetic rows", False
    if sources.rows[sources.task].categories:
        return vectors, "quantiles among all rows, other beside other synthetic rows", False
    if sources.embedding.text or sources.embedding.how == AS_GIVEN:
        return vectors, "the units of the input, whatever the synthetic rows are", True
    spread = vectors[sources.task].std(0)
    vectors = {n: rows / np.where(spread > 0, spread, 1.0) for n, rows in vectors.items()}
    unit = f"standard deviations of the columns of the {sources.task} rows"
    return vectors, f"{unit}, whatever the synthetic rows are", True
