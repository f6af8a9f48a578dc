"""Answers of the jobs in plain sentences, from their tables and draws: nothing is computed anew."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbpp.checks import Check, violations
from rbpp.wording import chance, count, listed, quantity, term_quantity

Array = NDArray[np.float64]
Table = Mapping[str, Mapping[str, Any]]

# Information below this, in nats, is no dependence that anyone would act on: a correlation of 0.14.
_SMALL_INFORMATION = 0.01


def trust(checks: Sequence[Check]) -> str:
    """Whether a check speaks against a result."""
    against = [f"“{check.statement}”" for check in violations(checks)]
    if not against:
        undecided = sum(check.verdict == "undecided" for check in checks)
        rest = f", and {undecided} of {len(checks)} do not decide" if undecided else ""
        return f"No check speaks against this{rest}."
    verb = "is" if len(against) == 1 else "are"
    return f"Read it with care: {listed(against, 3)} {verb} violated (see the checks)."


def of_information(table: Table, units: str, draws: Array, checks: Sequence[Check]) -> list[str]:
    """What X and Y tell of each other; `draws` in nats."""
    mean = float(draws.mean())
    above = float((draws > _SMALL_INFORMATION).mean())
    said = f"{chance(above)} probable" if above >= 0.5 else f"only {chance(above)} probable"
    correlation = math.sqrt(max(0.0, 1 - math.exp(-2 * mean)))
    shown = term_quantity("mutual_information", table)
    return [
        f"A row of X and its row of Y share {shown} {units}.",
        f"That is what normal rows share at a correlation of {correlation:.2f}.",
        f"More than {_SMALL_INFORMATION} nats, dependence worth the name, is {said}.",
        trust(checks),
    ]


def of_fit(
    table: Table, units: str, weights: Array, compared: Sequence[Any], checks: Sequence[Check]
) -> list[str]:
    """What a mixture says of its rows; `weights` (num_samples, component)."""
    heaviest = weights[:, int(weights.mean(0).argmax())]
    low, high = np.quantile(heaviest, [0.03, 0.97])
    lines = [
        f"{count(weights.shape[-1], 'component')}, in effect "
        f"{term_quantity('effective_components', table)}; the heaviest has "
        f"{quantity(float(heaviest.mean()), low, high, share=True)} of the rows.",
        f"The entropy of a row is {term_quantity('entropy', table)} {units}.",
    ]
    if len(compared) > 1:
        second = compared[1]
        lines.append(
            f"Held-out rows speak for {compared[0]['components']} over {second['components']} "
            f"components by {-second['difference']:.1f} ± {second['difference_se']:.1f} nats."
        )
    return [*lines, trust(checks)]


def of_gaps(
    vary: str, values: Sequence[Any], gaps: Mapping[str, Array], units: Mapping[str, str]
) -> list[str]:
    """How the KL gaps move with a knob; `gaps` are posterior means (value, world)."""
    told = {"kl_gap": "in the paper's direction", "kl_gap_coverage": "in coverage of the task"}
    lines = []
    for name, means in gaps.items():
        if name not in told:
            continue
        medians, above, unit = np.median(means, 1), (means > 0).mean(1), units[name]
        moved = f"is {medians[0]:.3g} {unit} at {vary} = {values[0]}"
        ends = [f"{above[0]:.0%} of the worlds at {vary} = {values[0]}"]
        if len(values) > 1:
            moved = f"goes from {medians[0]:.3g} to {medians[-1]:.3g} {unit} as {vary} goes from "
            moved += f"{values[0]} to {values[-1]}"
            ends.append(f"{above[-1]:.0%} at {vary} = {values[-1]}")
        lines.append(f"{name}: {told[name]}, the median of {means.shape[1]} worlds {moved}.")
        told_ends = listed(ends).replace("%", " %")
        lines.append(
            f"{name}: synthetic rows are nearer to the generator than the anchors in {told_ends}."
        )
    return lines


def of_fine_tunes(
    table: Table,
    gap: Array,
    comparison: Mapping[str, Mapping[str, float]],
    largest: float,
    checks: Sequence[Check],
) -> list[str]:
    """What fine-tunes memorised; `gap` are draws, `largest` the bound of the loss."""
    # The interpolation bound is no theorem without its condition.
    bounds = {
        name: table[name]["mean"]
        for name, others in comparison.items()
        if math.isnan(others.get("probability_holds", math.nan))
    }
    tightest = min(bounds, key=lambda name: bounds[name])
    mean = float(gap.mean())
    ratio = f", {bounds[tightest] / mean:.1f} times the gap" if mean > 0 else ""
    vacuous = [name for name, bound in bounds.items() if bound >= largest]
    null = comparison[tightest]["null"]
    lines = [
        f"Rows left out lose {term_quantity('generalization_gap', table)} more than rows trained "
        f"on; that they lose more is {chance(float((gap > 0).mean()))} probable.",
        f"The tightest of {len(bounds)} bounds is {tightest}: "
        f"{term_quantity(tightest, table)}{ratio}; with the masks of other fine-tunes it is "
        f"{null:.3f}.",
    ]
    if vacuous:
        verb = "says" if len(vacuous) == 1 else "say"
        lines.append(
            f"{listed(vacuous, 3)} {verb} nothing: at least the largest loss, {largest:g}."
        )
    return [*lines, trust(checks)]


def of_world(
    table: Table, spreads: Mapping[str, tuple[float, float]], exact: bool, checks: Sequence[Check]
) -> list[str]:
    """What rows say of a world; `spreads` are prior and posterior deviations by site."""
    narrowed = {name: after / before for name, (before, after) in spreads.items() if before > 0}
    order = sorted(narrowed, key=lambda name: narrowed[name])
    lines = []
    for site in order[:3]:
        entries = [name for name in table if name.partition("[")[0] == site]
        part = f"{narrowed[site]:.0%}".replace("%", " %")
        if narrowed[site] < 0.9 and entries:
            lines.append(
                f"{entries[0]} is {term_quantity(entries[0], table)}; the rows leave {part} of the "
                f"spread that {site} had before them."
            )
    if not lines:
        lines.append("The rows hardly tell of the world: every site keeps its prior's spread.")
    blind = [site for site in order if narrowed[site] >= 0.9]
    if blind and len(blind) < len(order):
        lines.append(f"Of {listed(blind)} they tell next to nothing.")
    known = "trust" if exact else "do not trust"
    return [*lines, f"The engine's diagnostics {known} the draws.", trust(checks)]


def of_bounds(
    table: Table, checks: Sequence[Check], units: str, one_sided: Mapping[str, str]
) -> list[str]:
    """What bounds what in a process; `one_sided` are the terms with `lower` or `upper` alone."""

    def told(name: str) -> str:
        side = {"lower": "at least ", "upper": "at most "}.get(one_sided.get(name, ""), "")
        return side + term_quantity(name, table)

    lines = []
    error, sharp = "generalization_error", "bound_synthetic_sharp"
    entry = next((one for one in checks if one.measured.get("by") == sharp), None)
    if error in table and sharp in table:
        held = ""
        if one_sided.get(sharp) == "lower":
            held = ", known from below alone"
        elif entry is not None:
            held = f"; it holds with probability {chance(entry.measured.get('probability_holds'))}"
        lines.append(
            f"The generalization error is {told(error)} loss, and its sharp bound "
            f"{told(sharp)}{held}."
        )
    learnt, bottleneck = "information_synthetic_learner", "compression_bottleneck"
    known = {name for name, term in table.items() if term["mean"] is not None}
    if learnt in known:
        said = f"The learner holds {told(learnt)} {units} of the synthetic data"
        if bottleneck in known:
            said += f"; the bottleneck lets {told(bottleneck)} through"
        lines.append(f"{said}.")
    if "information_gain" in known:
        gain = told("information_gain")
        lines.append(f"Beyond its prompts, the generator adds {gain} {units} (ΔI).")
    return [*lines, trust(checks)]


def of_contract(checks: Sequence[Check], required: bool) -> list[str]:
    """What to do about a process that was held to its contract."""
    unseen = [check.statement for check in checks if check.verdict == "unknown"]
    holding = sum(check.verdict == "holds" for check in checks)
    lines = [f"{holding} of {len(checks)} rules hold."]
    if unseen:
        lines.append(f"Not to be seen: {listed(unseen, 3)}.")
    following = "Next: bounds has its terms and bounds"
    repair = "Mend the violated rules, the first one first: the others may follow from it"
    return [*lines, f"{repair if required else following}."]


def of_marks(rows: int, marked: int, off_task: int, path: str) -> list[str]:
    """How far a sheet is filled, and what comes next."""
    lines = [f"{marked} of {rows} rows are marked, {off_task} off the task."]
    if marked < rows:
        lines.append(f"{count(rows - marked, 'row')} to go: rbpp mark {path} asks for them.")
    if marked:
        lines += [
            "The rows were chosen to be telling: their share is not that of the data.",
            f"Next: rbpp assess … --marks {path} infers that one.",
        ]
    return lines
