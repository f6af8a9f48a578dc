"""Mutual information of paired rows, beside its peers, on tasks of known value.

    python benchmarks/mutual_information.py [--quick] [--sets standard varied held_out]
        [--peers …] [--workers 2] [--output docs/measurements/mutual_information.md]

The tasks are the sets of `mi_tasks.py`, 2,000 rows each. Peers: KSG with k = 5; scikit-learn's
mixture with its component count by BIC or by 5-fold cross-validation, and its Dirichlet-process
mixture, on standardised rows, the information by Monte Carlo over their own joint distribution.
Prints Markdown: the summary, then every task.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import mi_tasks
import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.special import digamma
from scipy.stats import multivariate_normal
from sklearn.mixture import BayesianGaussianMixture
from sklearn.mixture import GaussianMixture as SklearnMixture
from sklearn.model_selection import KFold

from rbpp.paired.mutual_information import mutual_information

COUNTS = (1, 2, 3, 4, 6, 8, 12, 16)
PEER_DRAWS = 20_000
SETS = {
    "standard": mi_tasks.standard,
    "varied": mi_tasks.varied,
    "held_out": mi_tasks.held_out,
}
TITLES = {
    "standard": "Tasks of the papers",
    "varied": "Other cases of the families",
    "held_out": "Other cases again, on which nothing was chosen",
}
# The quick run: one task of each kind.
QUICK = ("normal 1×1", "2-pair normal 5×5", "half-cube normal", "Student 1×1", "X,", "AI")
Estimate = tuple[float, tuple[float, float] | None]


def ours(x: np.ndarray, y: np.ndarray, seed: int) -> Estimate:
    result = mutual_information(x, y, seed=seed)
    return result.mean, result.interval(0.9)


def ksg(x: np.ndarray, y: np.ndarray, seed: int, neighbours: int = 5) -> Estimate:
    """Kraskov, Stögbauer and Grassberger, Estimating mutual information, 2004: algorithm 1."""
    x, y = standardised(x), standardised(y)
    rows = np.hstack([x, y])
    radius = cKDTree(rows).query(rows, neighbours + 1, p=np.inf)[0][:, -1]
    inside = []
    for side in (x, y):
        # Strictly closer than the neighbour; the row itself makes up for the one to add.
        closer = np.nextafter(radius, 0)
        inside.append(cKDTree(side).query_ball_point(side, closer, p=np.inf, return_length=True))
    terms = sum(digamma(count) for count in inside)
    return float(digamma(neighbours) + digamma(len(x)) - terms.mean()), None


def by_bic(x: np.ndarray, y: np.ndarray, seed: int) -> Estimate:
    rows = standardised(np.hstack([x, y]))
    fits = [fitted(rows, count, seed) for count in counts(rows)]
    best = min(fits, key=lambda fit: fit.bic(rows))
    return own_information(best, x.shape[1], seed), None


def by_cross_validation(x: np.ndarray, y: np.ndarray, seed: int) -> Estimate:
    rows = standardised(np.hstack([x, y]))
    folds = list(KFold(5, shuffle=True, random_state=seed).split(rows))

    def left_out(count: int) -> float:
        return sum(fitted(rows[kept], count, seed).score(rows[left]) for kept, left in folds)

    best = max(counts(rows), key=left_out)
    return own_information(fitted(rows, best, seed), x.shape[1], seed), None


def dirichlet_process(x: np.ndarray, y: np.ndarray, seed: int) -> Estimate:
    rows = standardised(np.hstack([x, y]))
    fit = BayesianGaussianMixture(n_components=20, max_iter=300, random_state=seed).fit(rows)
    return own_information(fit, x.shape[1], seed), None


METHODS: dict[str, Callable[[np.ndarray, np.ndarray, int], Estimate]] = {
    "rbpp": ours,
    "KSG, k = 5": ksg,
    "mixture by BIC": by_bic,
    "mixture by cross-validation": by_cross_validation,
    "Dirichlet process": dirichlet_process,
}


def standardised(rows: np.ndarray) -> np.ndarray:
    return (rows - rows.mean(0)) / rows.std(0)


def counts(rows: np.ndarray) -> list[int]:
    """Component counts with no more parameters than rows; one is always tried."""
    parameters = rows.shape[1] * (rows.shape[1] + 3) // 2 + 1
    return [count for count in COUNTS if count == 1 or count * parameters <= len(rows)]


def fitted(rows: np.ndarray, components: int, seed: int) -> SklearnMixture:
    return SklearnMixture(n_components=components, n_init=2, reg_covar=1e-5, random_state=seed).fit(
        rows
    )


def own_information(fit: SklearnMixture, dim_x: int, seed: int) -> float:
    """Average log density ratio over rows that the fit itself draws."""
    fit.random_state = seed
    rows = fit.sample(PEER_DRAWS)[0]

    def log_density(kept: slice) -> np.ndarray:
        parts = [
            np.log(weight) + multivariate_normal(mean[kept], cov[kept, kept]).logpdf(rows[:, kept])
            for weight, mean, cov in zip(fit.weights_, fit.means_, fit.covariances_, strict=True)
        ]
        return np.logaddexp.reduce(parts)

    sides = slice(0, dim_x), slice(dim_x, rows.shape[1])
    ratio = log_density(slice(0, rows.shape[1])) - sum(log_density(side) for side in sides)
    return float(ratio.mean())


def measured(case: tuple[str, int, int], *, names: list[str], rows: int) -> dict:
    """Every method on one task and seed."""
    kind, index, seed = case
    task = SETS[kind]()[index]
    x, y = task.sample(rows, seed)
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peers' convergence
        for name in names:
            start, start_cpu = time.perf_counter(), time.process_time()
            value, interval = METHODS[name](x, y, seed)
            seconds = time.perf_counter() - start, time.process_time() - start_cpu
            found[name] = (value, interval, *seconds)
    return {
        "set": kind,
        "task": task.name,
        "mixture": task.mixture,
        "truth": task.truth,
        "found": found,
    }


def task_table(results: list[dict], names: list[str]) -> str:
    heads = " | ".join(names)
    lines = [f"| task | truth | {heads} | 90 % intervals |", "|---" * (len(names) + 3) + "|"]
    for task in dict.fromkeys(result["task"] for result in results):
        own = [result for result in results if result["task"] == task]
        truth, error = own[0]["truth"]
        cells = []
        for name in names:
            errors = [result["found"][name][0] - truth for result in own]
            cells.append(" ".join(f"{value:+.3f}" for value in errors))
        covered = [covers(result) for result in own]
        shown = f"{truth:.3f}" + (f" ± {error:.3f}" if error else "")
        lines.append(f"| {task} | {shown} | {' | '.join(cells)} | {sum(covered)} of {len(own)} |")
    return "\n".join(lines)


def covers(result: dict) -> bool:
    low, high = result["found"]["rbpp"][1]
    return low <= result["truth"][0] <= high


def summary(results: list[dict], names: list[str]) -> str:
    lines = [
        "| | mean error | median error | 90 % cover | of mixtures | seconds | at most | CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        found = [result["found"][name] for result in results]
        errors = [
            abs(value[0] - result["truth"][0]) for value, result in zip(found, results, strict=True)
        ]
        coverage = ["—", "—"]
        if name == "rbpp":
            mixtures = [covers(result) for result in results if result["mixture"]]
            for place, covered in enumerate(([covers(result) for result in results], mixtures)):
                if covered:
                    coverage[place] = f"{np.mean(covered):.0%} of {len(covered)}"
        seconds, cpu = (statistics.median(value[part] for value in found) for part in (2, 3))
        longest = max(value[2] for value in found)
        lines.append(
            f"| {name} | {np.mean(errors):.3f} | {np.median(errors):.3f} | {coverage[0]} | "
            f"{coverage[1]} | {seconds:.1f} | {longest:.1f} | {cpu:.1f} |"
        )
    return "\n".join(lines)


def section(kind: str, results: list[dict], names: list[str]) -> str:
    """The summary of one set, then its tasks."""
    return "\n".join(
        [f"## {TITLES[kind]}", "", summary(results, names), "", task_table(results, names), ""]
    )


def main() -> None:
    """Run every method on every case, and print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="six tasks, one seed, three methods")
    parser.add_argument("--seeds", type=int, default=3, help="samples of every task")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=["standard"])
    parser.add_argument("--rows", type=int, default=2000, help="of every sample")
    parser.add_argument("--peers", nargs="*", choices=list(METHODS)[1:], help="default: all")
    parser.add_argument("--workers", type=int, default=1, help="cases at once, one thread each")
    parser.add_argument("--output", type=Path, help="write the tables there as well")
    arguments = parser.parse_args()
    seeds, peers = arguments.seeds, arguments.peers
    if peers is None:
        peers = list(METHODS)[1:]
    tasks = {kind: SETS[kind]() for kind in arguments.sets}
    chosen = {kind: range(len(those)) for kind, those in tasks.items()}
    if arguments.quick:
        standard = mi_tasks.standard()
        chosen = {"standard": [i for i, t in enumerate(standard) if t.name.startswith(QUICK)]}
        seeds, peers = 1, ["KSG, k = 5", "mixture by BIC"]
    names = ["rbpp", *peers]
    cases = [
        (kind, index, seed) for kind in chosen for index in chosen[kind] for seed in range(seeds)
    ]
    work = partial(measured, names=names, rows=arguments.rows)
    if arguments.workers == 1:
        results = list(map(work, cases))
    else:
        # Forked, torch's threads hang.
        pool = ProcessPoolExecutor(
            arguments.workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=torch.set_num_threads,
            initargs=(1,),
        )
        with pool:
            results = list(pool.map(work, cases))
    threads = 1 if arguments.workers > 1 else torch.get_num_threads()
    quoted = [f'"{name}"' for name in peers]
    options = [
        *("--sets", *chosen, "--seeds", seeds, "--rows", arguments.rows, "--peers", *quoted),
        *(("--workers", arguments.workers) if arguments.workers > 1 else ()),
    ]
    text = "\n".join(
        [
            "# Mutual information of paired rows",
            "",
            "Output of `python benchmarks/mutual_information.py "
            + " ".join(map(str, options))
            + "`.",
            "",
            f"n = {arguments.rows:,} rows, {seeds} sample(s) of every task, {threads} thread(s) a "
            "case; errors in nats. Truths of mixtures are Monte Carlo means ± standard error. "
            "Seconds and CPU seconds: median over cases.",
            "",
            *(section(kind, [r for r in results if r["set"] == kind], names) for kind in chosen),
        ]
    )
    print(text)
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
