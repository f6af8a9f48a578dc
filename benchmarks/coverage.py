"""How often the intervals of `rbpp bounds` cover the truth, where the truth is known.

    python benchmarks/coverage.py [--quick] [--worlds 200] [--seed 0] [--dimensions 2 4 8] …

Every world is a replication: its terms are estimated from draws and densities alone, and compared
with log-determinants (linear_gaussian) or finite sums (finite_alphabet). linear_gaussian is run
over dimensions and noises too, in one table with the worst cover first. Prints Markdown, and writes
docs/measurements/coverage.md.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


from examples import finite_chain as chains  # noqa: E402
from models.linear_gaussian import loadings  # noqa: E402
from rbpp.compute import Compute  # noqa: E402
from rbpp.estimate import Estimate  # noqa: E402
from rbpp.processes.process import Process, load_process  # noqa: E402
from rbpp.theory.bounds import estimate_worlds  # noqa: E402
from rbpp.theory.finite_learner import finite_learner  # noqa: E402
from rbpp.theory.learners import Learner, point_learner  # noqa: E402
from rbpp.theory.settings import LemmaConstants, SampleSizes  # noqa: E402
from rbpp.theory.statements import LemmaSetting, all_terms  # noqa: E402

LEARNER_NOISE = 0.3
LETTER_NOISE = 0.2
RESOLUTION = 0.01
TRUTH_ROWS = 100_000  # of the divergences that have no closed form
Z = 1.96
BATCH = 20
LEAST_COVER = 0.85
ROUNDING = 1e-9  # an information of zero is computed up to this


def linear_gaussian_truth(
    world: Mapping[str, Tensor], knobs: Mapping[str, float]
) -> dict[str, float]:
    """Every information term of one world by log-determinants; W and W' are noisy means of rows."""
    plain: dict[str, Any] = dict(knobs)
    site = {name: value.double() for name, value in loadings(world, **plain).items()}
    dimension = world["task_map"].shape[-1]

    def learner(rows: Tensor, place: int) -> Tensor:
        count = rows.shape[0] // dimension
        average = torch.kron(torch.ones(1, count), torch.eye(dimension)).double() / count
        own = torch.zeros(dimension, 2 * dimension).double()
        own[:, place * dimension : (place + 1) * dimension] = LEARNER_NOISE * torch.eye(dimension)
        return torch.cat([average @ rows, own], 1)

    empty = torch.zeros(1, 2 * dimension).double()
    wide = {n: torch.cat([v, empty.expand(v.shape[0], -1)], 1) for n, v in site.items()}
    wide["learner"] = learner(site["synthetic"], 0)
    wide["anchor_learner"] = learner(site["anchor"], 1)

    def log_det(*names: str) -> float:
        stacked = torch.cat([wide[name] for name in names])
        return float(torch.logdet(stacked @ stacked.mT))

    def entropy(name: str) -> float:
        size = wide[name].shape[0]
        return 0.5 * (size * math.log(2 * math.pi * math.e) + log_det(name)) - size * math.log(
            RESOLUTION
        )

    def information(first: str, second: str) -> float:
        return 0.5 * (log_det(first) + log_det(second) - log_det(first, second))

    gain = entropy("model_factor")
    prompt_output = information("prompt", "output")
    synthetic = information("synthetic", "learner")
    output = information("output", "learner")
    prompt = information("prompt", "learner")
    term = {
        "entropy_anchor": entropy("anchor"),
        "entropy_prompt_factor": entropy("prompt"),
        "entropy_model_factor": gain,
        "information_gain": gain,
        "information_prompt_output": prompt_output,
        "information_anchor_output": information("anchor", "output"),
        "entropy_output": entropy("output"),
        "entropy_synthetic": entropy("synthetic"),
        "information_synthetic_learner": synthetic,
        "information_output_learner": output,
        "curation_leak": synthetic - output,
        "information_prompt_learner": prompt,
        "information_model_factor_learner": information("model_factor", "learner"),
        "information_model_factor_learner_given_prompt": output - prompt,
        "information_anchor_synthetic_learner": information("anchor", "learner"),
        "information_anchor_learner": information("anchor", "anchor_learner"),
    }
    derived = _derived({name: torch.tensor(value).double() for name, value in term.items()})
    return derived | _normal_divergences(world, plain)


def _normal_divergences(
    world: Mapping[str, Tensor], knobs: Mapping[str, float]
) -> dict[str, float]:
    """TV of the task, the generator and curated rows from 100,000 rows and prompts (error .002)."""
    task_map, generator_map, answer_map, prompt_map = (
        world[name].double() for name in ("task_map", "generator_map", "answer_map", "prompt_map")
    )
    task_mean, generator_mean = world["task_mean"].double(), world["generator_mean"].double()
    dimension = task_mean.shape[-1]
    eye = torch.eye(dimension, dtype=torch.float64)
    source = torch.Generator().manual_seed(1)
    # h(e_p) is b + H times the mean of the prompt's rows.
    task = task_map @ task_map.mT
    noise = knobs["prompt_noise"] ** 2 * eye
    of_prompt = (prompt_map @ task @ prompt_map.mT + noise) / knobs["anchors"]
    mean = generator_mean + answer_map @ prompt_map @ task_mean
    covariance = answer_map @ of_prompt @ answer_map.mT
    answers = mean + _rows(covariance, source)
    generator = generator_map @ generator_map.mT
    curated = generator + knobs["curation_noise"] ** 2 * eye

    def variation(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> float:
        normals = [torch.distributions.MultivariateNormal(*one) for one in (first, second)]
        sides = []
        for centre, spread in (first, second):
            points = centre + _rows(spread, source)
            logs = [normal.log_prob(points) for normal in normals]
            sides.append(((logs[0] - logs[1]) / 2).tanh().abs().mean())
        return float(sum(sides)) / 2

    return {
        "task_divergence": variation((task_mean, task), (generator_mean, generator)),
        "generation_divergence": variation((generator_mean, generator), (answers, curated)),
        "total_divergence": variation((task_mean, task), (answers, curated)),
    }


def _rows(covariance: Tensor, source: torch.Generator) -> Tensor:
    normals = torch.randn(TRUTH_ROWS, len(covariance), generator=source, dtype=torch.float64)
    return normals @ torch.linalg.cholesky(covariance).mT


def finite_truth(world: Mapping[str, Tensor], knobs: Mapping[str, float]) -> dict[str, float]:
    """Every term of one world by enumeration of all data sets, divergences and risks included."""
    chain = finite_chain(world, knobs)
    found = {name: float(value) for name, value in chains.terms(chain).items()}
    term = _derived({name: torch.tensor(value).double() for name, value in found.items()})
    return term | _finite_risks(chain, world, knobs)


def finite_chain(world: Mapping[str, Tensor], knobs: Mapping[str, float]) -> chains.FiniteChain:
    """The tables of `finite_alphabet` over whole data sets."""
    letters, anchors, outputs = (int(knobs[k]) for k in ("letters", "anchors", "outputs"))
    of_anchors, of_outputs = _data_sets(letters, anchors), _data_sets(letters, outputs)
    permutation = world["ranks"].argsort(-1)
    prompts = permutation[of_anchors]
    answers = world["answers"].long()[prompts].sum(-1) % letters
    places = letters ** torch.arange(outputs - 1, -1, -1)
    index = ((answers[:, None, None] + of_outputs) % letters * places).sum(-1)
    noise = knobs["curation_noise"]
    curation = noise * world["replacement"]
    curation[0] = curation[0] + 1 - noise
    shift = (of_outputs[None] - of_outputs[:, None]) % letters  # from o to s
    own = (prompts * letters ** torch.arange(anchors - 1, -1, -1)).sum(-1)

    def product(table: Tensor, sets: Tensor) -> Tensor:
        return table[sets].prod(-1)

    def learner(sets: Tensor) -> Tensor:
        prepared = finite_learner(letters, LETTER_NOISE).prepare(
            sets[None, :, :1], torch.Generator()
        )
        return prepared.fit(sets[None, :, :, None]).probabilities[0]

    identity = torch.eye(len(of_outputs), dtype=torch.float64)
    # The prompt's own alphabet: data set j of letters is the prompt that reads so.
    by_prompt = torch.empty_like(index)
    by_prompt[own] = index
    return chains.FiniteChain(
        product(world["task"], of_anchors),
        torch.eye(len(of_anchors), dtype=torch.float64)[own],
        product(world["generator"], of_outputs),
        identity[by_prompt],
        product(curation, shift),
        learner(of_outputs),
        learner(of_anchors),
    )


def _finite_risks(
    chain: chains.FiniteChain, world: Mapping[str, Tensor], knobs: Mapping[str, float]
) -> dict[str, float]:
    letters, outputs = int(knobs["letters"]), int(knobs["outputs"])
    sets = _data_sets(letters, outputs)
    prompts = chain.joint("p")
    given = chain.joint("ps") / prompts[:, None].clamp_min(1e-300)
    # All rows have one law given the prompt: that of the first.
    rows = torch.stack([given[:, sets[:, 0] == k].sum(-1) for k in range(letters)], -1)
    task, generator = world["task"], world["generator"]

    def variation(first: Tensor, second: Tensor) -> Tensor:
        return 0.5 * (first - second).abs().sum(-1)

    joint = chain.joint("psw")
    wrong = (sets[:, :, None] != torch.arange(letters)).double().mean(1)  # (sets, W)
    sample = float((joint.sum(0) * wrong).sum())
    on_task = float((joint.sum((0, 1)) * (1 - task)).sum())
    on_law = float((joint.sum(1) * (1 - rows)).sum())
    return {
        "task_divergence": float(variation(task, generator)),
        "generation_divergence": float((prompts * variation(generator, rows)).sum()),
        "total_divergence": float((prompts * variation(task, rows)).sum()),
        "generalization_error": on_task - sample,
        "estimation_gap": on_law - sample,
    }


def _data_sets(letters: int, rows: int) -> Tensor:
    axes = [torch.arange(letters)] * rows
    return torch.cartesian_prod(*axes).reshape(-1, rows)


def _derived(term: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in chains.with_bounds(term).items()}


Truth = Callable[[Mapping[str, Tensor], Mapping[str, float]], dict[str, float]]
Case = tuple[dict[str, Estimate], list[dict[str, float]]]


def linear_gaussian(sizes: SampleSizes, seed: int = 0, **knobs: float) -> Case:
    """Estimates and truths of `linear_gaussian` with noisy means as learners."""
    process, learner = load_process("linear_gaussian", **knobs), point_learner(LEARNER_NOISE)
    return _case(process, learner, linear_gaussian_truth, sizes, seed)


def finite_alphabet(sizes: SampleSizes, seed: int = 0) -> Case:
    """Estimates and truths of `finite_alphabet` with the most frequent letter as learner."""
    process = load_process("finite_alphabet")
    learner = finite_learner(process.knobs["letters"], LETTER_NOISE)
    return _case(process, learner, finite_truth, sizes, seed)


def _case(process: Process, learner: Learner, truth: Truth, sizes: SampleSizes, seed: int) -> Case:
    """Terms in all worlds, and the truth in each."""
    found = estimate_worlds(
        process,
        sizes=sizes,
        constants=LemmaConstants(resolution=RESOLUTION),
        learner=learner,
        anchor_learner=learner,
        compute=Compute(seed=seed),
    )
    setting = LemmaSetting(rows=found.facts.rows, loss_bound=1.0, sub_gaussian=0.5)
    worlds = worlds_of(found.world, sizes.worlds)
    return all_terms(found, setting), [truth(world, process.knobs) for world in worlds]


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


def coverage(
    terms: Mapping[str, Estimate], truths: list[dict[str, float]]
) -> list[dict[str, float | str]]:
    """Per term: how often estimate ± 1.96 errors, and the two sides so widened, hold the truth."""
    table: list[dict[str, float | str]] = []
    for name in truths[0]:
        true = torch.tensor([truth[name] for truth in truths], dtype=torch.float64)
        known = true.isfinite()  # λ is infinite where the output says nothing of the prompt
        if name not in terms or not bool(known.any()):
            continue
        true, found = true[known], terms[name].map(lambda value, known=known: value[known])
        low, high = found.interval(Z)
        inside = (low <= true + ROUNDING) & (true <= high + ROUNDING)
        between = math.nan
        if found.lower is not None and found.upper is not None:
            below = found.lower.interval(Z)[0] <= true + ROUNDING
            above = true <= found.upper.interval(Z)[1] + ROUNDING
            between = float((below & above).double().mean())
        error = found.value - true
        table.append(
            {
                "term": name,
                "worlds": len(true),
                "truth": float(true.mean()),
                "bias": float(error.mean()),
                "rmse": float(error.square().mean().sqrt()),
                "mcse": float(found.standard_error.square().mean().sqrt()),
                "covered": float(inside.double().mean()),
                "between": between,
            }
        )
    return table


def grid(
    dimensions: Iterable[int],
    noises: Iterable[float],
    prompt_noises: Iterable[float],
    sizes: SampleSizes,
    seed: int,
) -> list[str]:
    """Every term at every dimension and noise, a line each, those with the worst cover first."""
    cells = []
    for size, noise, prompt_noise in itertools.product(dimensions, noises, prompt_noises):
        knobs = {"dimension": size, "curation_noise": noise, "prompt_noise": prompt_noise}
        print(knobs, file=sys.stderr, flush=True)
        cells.append((knobs, coverage(*linear_gaussian(sizes, seed, **knobs))))
    return grid_table(cells)


def grid_table(
    cells: Iterable[tuple[Mapping[str, float], list[dict[str, float | str]]]],
) -> list[str]:
    """Lines of Markdown: every term of every cell, those with the worst cover first."""
    rows: list[tuple[float, float, str]] = []
    for knobs, table in cells:
        place = f"{knobs['dimension']} | {knobs['curation_noise']:g} | {knobs['prompt_noise']:g}"
        for row in table:
            covered, spread = float(row["covered"]), float(row["mcse"])
            chance = math.sqrt(max(float(row["rmse"]) ** 2 - float(row["bias"]) ** 2, 1e-24))
            z = abs(float(row["bias"])) / chance * math.sqrt(float(row["worlds"]))
            sides = float(row["between"])
            mark = "side or estimate" if covered < LEAST_COVER else ""
            words = [f"{place} | {row['worlds']} | `{row['term']}`"]
            words += [f"{float(row['bias']):.3f} | {spread:.3f} | {z:.1f} | {covered:.0%}"]
            words += ["" if math.isnan(sides) else f"{sides:.0%}", mark]
            rows.append((covered, -z, f"| {' | '.join(words)} |"))
    head = (
        "d | noise | prompt noise | worlds | term | bias | stated error | \\|z\\| | covered "
        "| sides | is a"
    )
    return [
        "## `linear_gaussian` over dimensions and noises",
        "",
        "Worst cover first, none left out. \\|z\\| is the mean error in its own standard errors. "
        f"A term that is covered in less than {LEAST_COVER:.0%} is a side or an estimate there, "
        "not an interval.",
        "",
        f"| {head} |",
        "|---:|---:|---:|---:|---|---:|---:|---:|---:|---:|---|",
        *(line for _, _, line in sorted(rows)),
        "",
    ]


def _markdown(name: str, table: list[dict[str, float | str]]) -> list[str]:
    lines = [
        f"## `{name}`",
        "",
        "| term | mean truth | bias | rmse | stated error | covered | between the sides |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in table:
        cells = [f"{row[key]:.3f}" for key in ("truth", "bias", "rmse", "mcse")]
        shares = [
            "" if math.isnan(float(row[key])) else f"{float(row[key]):.1%}"
            for key in ("covered", "between")
        ]
        # A ratio of which some worlds have none.
        share = f" ({row['worlds']} worlds)" if row["worlds"] != table[0]["worlds"] else ""
        lines.append(f"| `{row['term']}`{share} | {' | '.join([*cells, *shares])} |")
    return [*lines, ""]


CASES = {"linear_gaussian": linear_gaussian, "finite_alphabet": finite_alphabet}


def main() -> None:
    """Run both cases and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="20 worlds, nothing written")
    parser.add_argument("--worlds", type=int, default=200, help="replications (200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dimensions", nargs="*", type=int, default=[2, 4, 8])
    parser.add_argument("--noises", nargs="*", type=float, default=[0.5, 0.1, 0.02, 0.0])
    parser.add_argument("--prompt-noises", nargs="*", type=float, default=[0.0, 0.5])
    parser.add_argument("--grid-worlds", type=int, default=200, help="per row of the grid (200)")
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument(
        "--output", type=Path, default=ROOT / "docs" / "measurements" / "coverage.md"
    )
    arguments = parser.parse_args()
    worlds = BATCH if arguments.quick else arguments.worlds
    chance = Z * math.sqrt(0.05 * 0.95 / worlds)
    lines = [
        "# Coverage of the intervals of `rbpp bounds`",
        "",
        f"Output of `python benchmarks/coverage.py {' '.join(sys.argv[1:])}`.",
        "",
        f"Each of {worlds} worlds is a replication with a truth of its own. *Covered* is "
        "the share of worlds whose estimate ± 1.96 stated Monte Carlo errors holds the truth "
        f"(nominal 95 %, ± {chance:.1%} by chance); *between the sides* that of the lower and "
        "upper side, each widened by 1.96 errors, which should be larger. "
        "λ, `prompting_factor`, is judged "
        "where it is finite. An information that few of the 16 settings of a prompt or factor "
        "decide, as where one letter is rare, has an error that is itself uncertain.",
        "",
    ]
    sizes = SampleSizes(worlds=worlds, worlds_at_once=BATCH)
    for name in arguments.cases:
        lines += _markdown(name, coverage(*CASES[name](sizes, arguments.seed)))
    if not arguments.quick:
        spread = SampleSizes(
            worlds=arguments.grid_worlds, worlds_at_once=-(-arguments.grid_worlds // 2)
        )
        lines += [f"{arguments.grid_worlds} worlds a row, in two batches.", ""]
        lines += grid(
            arguments.dimensions,
            arguments.noises,
            arguments.prompt_noises,
            spread,
            arguments.seed,
        )
    text = "\n".join(lines)
    print(text)
    if not arguments.quick:
        arguments.output.parent.mkdir(exist_ok=True)
        arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
