"""How often the intervals of `rbpp bounds` cover the truth, where the truth is known.

    python benchmarks/coverage.py [--worlds 200] [--quick] [--seconds 3000] [--work build/coverage]

Every world is a replication: its terms and bounds are estimated from draws and densities alone, in
two batches of worlds, and compared with log-determinants and finite sums. `linear_gaussian` is run
over dimensions and noises, with `finite_alphabet` and four processes that nobody shipped. Writes
docs/measurements/coverage.md, one table, worst first. Rounds of 25 worlds are kept in --work: what
ended early goes on there, and the page says how many worlds every row has.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import coverage_processes as own  # noqa: E402
from benchmarks.coverage_truth import (  # noqa: E402
    LEARNER_NOISE,
    LETTER_NOISE,
    LOSS_BOUND,
    RESOLUTION,
    SUB_GAUSSIAN,
    finite_truth,
    linear_gaussian_truth,
    location_loss,
)
from rbpp.compute import Compute  # noqa: E402
from rbpp.estimate import Estimate  # noqa: E402
from rbpp.processes.process import load_process  # noqa: E402
from rbpp.theory.bounds import estimate_worlds  # noqa: E402
from rbpp.theory.estimate_terms import Estimation  # noqa: E402
from rbpp.theory.finite_learner import finite_learner  # noqa: E402
from rbpp.theory.learners import Learner, point_learner  # noqa: E402
from rbpp.theory.lemmas import LemmaSetting  # noqa: E402
from rbpp.theory.settings import LemmaConstants, SampleSizes  # noqa: E402
from rbpp.theory.statements import all_terms  # noqa: E402
from rbpp.variables import VARIABLES  # noqa: E402

Z = 1.96
ROUND = 25  # worlds, in two batches
LEAST_COVER = 0.85
ROUNDING = 1e-9  # an information of zero is computed up to this
Truth = Callable[[Mapping[str, Tensor], Mapping[str, Any]], dict[str, float]]
Judged = dict[str, dict[str, list[float]]]


@dataclass(frozen=True)
class Case:
    """A process, its learner, and the truth of a world."""

    process: Any
    learner: Callable[[Mapping[str, Any]], Learner]
    truth: Truth


def _mean(_: Mapping[str, Any]) -> Learner:
    return point_learner(LEARNER_NOISE, loss=location_loss)


def _log_mean(_: Mapping[str, Any]) -> Learner:
    def loss(parameters: Tensor, rows: Tensor) -> Tensor:
        return location_loss(parameters, rows.log())

    return point_learner(LEARNER_NOISE, estimate=own.log_mean, loss=loss)


def _letter(knobs: Mapping[str, Any]) -> Learner:
    return finite_learner(knobs["letters"], LETTER_NOISE)


CASES = {
    "linear_gaussian": Case("linear_gaussian", _mean, linear_gaussian_truth),
    "finite_alphabet": Case("finite_alphabet", _letter, finite_truth),
    "letters": Case(own.letters, _letter, own.letters_exact),
    "monotone": Case(own.monotone, _log_mean, own.monotone_exact),
    "factor_above": Case(own.factor_above, _mean, own.factor_above_exact),
    "off_task": Case(own.off_task, _letter, own.off_task_exact),
}


def estimated(
    name: str, sizes: SampleSizes, seed: int = 0, **knobs: float
) -> tuple[dict[str, Estimate], list[dict[str, float]]]:
    """Terms and bounds of a case in all worlds, and the truth in each."""
    case = CASES[name]
    process = load_process(case.process, **knobs)
    learner = case.learner(process.knobs)
    constants = LemmaConstants(resolution=RESOLUTION, loss_bound=LOSS_BOUND)
    own = Compute(seed=seed)
    found = estimate_worlds(
        Estimation(process, sizes, constants, learner, anchor_learner=learner, compute=own)
    )
    setting = LemmaSetting(
        rows=found.facts.rows,
        coordinates=found.facts.coordinates,
        resolution=RESOLUTION,
        loss_bound=LOSS_BOUND,
        sub_gaussian=SUB_GAUSSIAN,
    )
    worlds = worlds_of(found.world, sizes.worlds)
    return all_terms(found, setting), [case.truth(world, process.knobs) for world in worlds]


def worlds_of(world: Mapping[str, Tensor], count: int) -> list[dict[str, Tensor]]:
    """The parameters of every world, as a plain run of the process has them."""
    # Worlds keep the dimensions of replicates and plates: (1, 1, 1) in front of the event.
    return [
        {
            name: value[index].reshape(value.shape[4:])
            for name, value in world.items()
            if value.dim() > 4
        }
        for index in range(count)
    ]


def judged(terms: Mapping[str, Estimate], truths: Sequence[Mapping[str, float]]) -> Judged:
    """Per term and world: error, stated error, whether the interval and the sides hold the truth.

    The side of an upper side is one: the truth is below it.
    """
    found: Judged = {}
    for name in truths[0]:
        true = torch.tensor([truth.get(name, math.nan) for truth in truths], dtype=torch.float64)
        known = true.isfinite()  # λ is infinite where the output says nothing of the prompt
        if name not in terms or not bool(known.any()):
            continue
        true, term = true[known], terms[name].map(lambda value, known=known: value[known])
        low, high = term.interval(Z)
        below, above = low <= true + ROUNDING, true <= high + ROUNDING
        columns = {
            "truth": true,
            "error": term.value - true,
            "mcse": term.standard_error,
            "covered": (below & above).double(),
        }
        if term.lower is not None and term.upper is not None:
            below = term.lower.interval(Z)[0] <= true + ROUNDING
            above = true <= term.upper.interval(Z)[1] + ROUNDING
            columns["between"] = (below & above).double()
        elif term.direction == "upper":
            columns["between"] = above.double()
        found[name] = {key: value.tolist() for key, value in columns.items()}
    return found


def coverage(parts: Iterable[Judged]) -> list[dict[str, Any]]:
    """A row per term over all worlds of all parts: bias, errors, shares that hold the truth."""
    joined: Judged = {}
    for part in parts:
        for name, columns in part.items():
            for key, values in columns.items():
                joined.setdefault(name, {}).setdefault(key, []).extend(values)
    rows = []
    for name, columns in joined.items():
        kept = {key: torch.tensor(values).double() for key, values in columns.items()}
        error, count = kept["error"], len(kept["error"])
        spread = float(error.std(correction=0)) if count > 1 else math.nan
        rows.append(
            {
                "term": name,
                "worlds": count,
                "truth": float(kept["truth"].mean()),
                "bias": float(error.mean()),
                "rmse": float(error.square().mean().sqrt()),
                "mcse": float(kept["mcse"].square().mean().sqrt()),
                "z": abs(float(error.mean())) / max(spread, 1e-12) * math.sqrt(count),
                "covered": float(kept["covered"].mean()),
                "between": float(kept["between"].mean()) if "between" in kept else math.nan,
            }
        )
    return rows


def page(cells: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], command: str) -> str:
    """The page: what was run, what is below the least cover, and every row, worst first."""
    rows = [(cell, row) for cell, table in cells for row in table]
    rows.sort(key=lambda one: (one[1]["covered"], -one[1]["z"]))
    low = [(cell, row) for cell, row in rows if row["covered"] < LEAST_COVER]
    unmarked = [(cell, row) for cell, row in low if not VARIABLES[row["term"]].stands_as]
    counts = {cell: max(row["worlds"] for row in table) for cell, table in cells}
    whole = f"{max(counts.values())} in every one"
    if len(set(counts.values())) > 1:
        whole = "; ".join(f"{cell}: {count}" for cell, count in counts.items())
    return "\n".join(
        [
            "# Coverage of the intervals of `rbpp bounds`",
            "",
            f"Output of `{command}`. Every world is a replication with a truth of its own, in two "
            f"batches for every {ROUND} worlds; a term and a bound of every lemma are a row for "
            "every cell.",
            "",
            "*Covered* is the share of worlds whose estimate ± 1.96 stated Monte Carlo errors "
            "holds the truth (nominal 95 %; of 200 worlds ± 3 points by chance, of 50 ± 6); "
            "*sides* that of the lower and upper side, each widened by 1.96 errors, or of the "
            "upper side alone. |z| is the mean error in its own standard errors. Truths are "
            "log-determinants, finite sums, and for total variations and the mean absolute gap "
            "of normals averages of 25,000 to 100,000 rows and 10,000 data sets. λ, "
            "`prompting_factor`, is judged where it is finite. A bound that has the upper side of "
            "an information in it is compared with the bound by the information itself.",
            "",
            f"{len(cells)} cells: a process, and for `linear_gaussian` its dimension, noise and "
            f"prompt noise. Worlds: {whole}; a row has fewer where its truth is infinite in some.",
            "",
            f"{len(low)} of {len(rows)} rows are below {LEAST_COVER:.0%}, {len(unmarked)} of them "
            "of terms that stand as an interval in the outputs.",
            "",
            "| cell | worlds | term | bias | stated error | \\|z\\| | covered | sides | is a |",
            "|---|---:|---|---:|---:|---:|---:|---:|---|",
            *(_line(cell, row) for cell, row in rows),
            "",
        ]
    )


def _line(cell: str, row: Mapping[str, Any]) -> str:
    sides = "" if math.isnan(row["between"]) else f"{row['between']:.0%}"
    z = "" if math.isnan(row["z"]) else f"{row['z']:.1f}"
    numbers = f"{row['bias']:.3f} | {row['mcse']:.3f} | {z} | {row['covered']:.0%}"
    stands_as = VARIABLES[row["term"]].stands_as
    return f"| {cell} | {row['worlds']} | `{row['term']}` | {numbers} | {sides} | {stands_as} |"


def cells_of(arguments: argparse.Namespace) -> list[tuple[str, str, dict[str, Any]]]:
    """Name of the cell, case and knobs of everything that is run."""
    found: list[tuple[str, str, dict[str, Any]]] = []
    for name in arguments.cases:
        if name != "linear_gaussian":
            found.append((name, name, {}))
            continue
        axes = (arguments.dimensions, arguments.noises, arguments.prompt_noises)
        for size, noise, prompt_noise in itertools.product(*axes):
            knobs = {"dimension": size, "curation_noise": noise, "prompt_noise": prompt_noise}
            found.append((f"d {size}, noise {noise:g}, prompt {prompt_noise:g}", name, knobs))
    return found


def run(arguments: argparse.Namespace) -> list[tuple[str, list[dict[str, Any]]]]:
    """Rounds of worlds over all cells, until there are enough or time is up."""
    arguments.work.mkdir(parents=True, exist_ok=True)
    cells, started = cells_of(arguments), time.monotonic()
    done: dict[str, list[Judged]] = {name: [] for name, _, _ in cells}
    for number in range(-(-arguments.worlds // ROUND)):
        for name, case, knobs in cells:
            file = arguments.work / f"{name.replace(', ', '_').replace(' ', '')}-{number}.json"
            if not file.exists():
                if time.monotonic() - started > arguments.seconds:
                    continue
                worlds = min(ROUND, arguments.worlds - number * ROUND)
                sizes = SampleSizes(worlds=worlds, worlds_at_once=-(-worlds // 2))
                used = time.process_time()
                part = judged(*estimated(case, sizes, arguments.seed + number, **knobs))
                used = time.process_time() - used
                print(f"{name}, round {number}: {used:.0f} CPU s", file=sys.stderr, flush=True)
                aside = file.with_suffix(".part")
                aside.write_text(json.dumps(part), encoding="utf-8")
                aside.rename(file)
            done[name].append(json.loads(file.read_text(encoding="utf-8")))
    return [(name, coverage(parts)) for name, parts in done.items() if parts]


def main() -> None:
    """Run what is not there yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="6 worlds, nothing written")
    parser.add_argument("--worlds", type=int, default=200, help="of every cell (200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=math.inf, help="no round starts after")
    parser.add_argument("--dimensions", nargs="*", type=int, default=[2, 4, 8])
    parser.add_argument("--noises", nargs="*", type=float, default=[0.5, 0.1, 0.02, 0.0])
    parser.add_argument("--prompt-noises", nargs="*", type=float, default=[0.0, 0.5])
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "coverage")
    output = ROOT / "docs" / "measurements" / "coverage.md"
    parser.add_argument("--output", type=Path, default=output)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.worlds, arguments.work = 6, arguments.work / "quick"
    command = " ".join(["python benchmarks/coverage.py", *sys.argv[1:]])
    text = page(run(arguments), command)
    if arguments.quick:
        print(text)
        return
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
