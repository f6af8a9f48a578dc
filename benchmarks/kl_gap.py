"""The KL-gap study against the reference procedure, in one paired run.

    python benchmarks/kl_gap.py [--worlds 2] [--pairs 3] [--quick]

The reference procedure is re-implemented here from its published steps: per world, scikit-learn
fits both mixtures by EM, and 100 times over 1,000 points are redrawn from each fit and from the
ground truth and turned into 50 × 50 histograms, each on its own grid. Ours, on the same worlds:
variational posteriors of both mixtures, and both directions of the exact gap for every draw.

Prints a Markdown table of the three published sweeps and of all together: seconds, medians over
pairs, the ratio pair by pair, and how well the published gap agrees with the exact one.

The second table holds the command that a user types, `rbpp kl-gap`, from start to exit, against a
lean reference: the same numbers with all redraws and histograms of a world vectorised.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from sklearn.mixture import GaussianMixture as SklearnMixture

from rbpp.compute import Compute
from rbpp.kl_gap_study import Worlds, fit_worlds, kl_gaps, sample_worlds
from rbpp.mixtures.mixture import GaussianMixture
from rbpp.processes.loading import PAPER_KNOBS
from rbpp.randomness import spawn

WORLDS, REDRAWS, POINTS, BINS, FLOOR = 100, 100, 1000, 50, 1e-10

COMMAND_HEAD = (
    "| sweep | lean reference, s | rbpp kl-gap from start to exit, s | ratio | reference, CPU s "
    "| rbpp, CPU s | ratio | reference, CPU s a world |\n|---|---|---|---|---|---|---|---|"
)


class Sweep(NamedTuple):
    """Seconds of a sweep by either procedure; gaps (2, worlds): published, exact."""

    reference: float
    ours: float
    gaps: np.ndarray


def reference_gap(world: Worlds, index: int, seed: int) -> float:
    """The reference script's number for one world."""
    rng = np.random.default_rng(seed)
    fits = []
    for rows, components in (
        (world.anchor[index], world.anchor_components),
        (world.synthetic[index], world.generator.components),
    ):
        fits.append(SklearnMixture(components, random_state=seed % 2**32).fit(rows.numpy()))
    gaps = []
    for _ in range(REDRAWS):
        anchor, synthetic = (fit.sample(POINTS)[0] for fit in fits)
        truth = sample(world.truth.select(index), rng)
        gaps.append(histogram_kl(anchor, truth) - histogram_kl(synthetic, truth))
    return float(np.mean(gaps))


def lean_reference_gap(world: Worlds, index: int, seed: int) -> float:
    """`reference_gap` with its redraws in one sample and its histograms in one count."""
    rng = np.random.default_rng(seed)
    fits = []
    for rows, components in (
        (world.anchor[index], world.anchor_components),
        (world.synthetic[index], world.generator.components),
    ):
        fit = SklearnMixture(components, random_state=seed % 2**32).fit(rows.numpy())
        fits.append((fit.weights_, fit.means_, np.linalg.cholesky(fit.covariances_)))
    truth = world.truth.select(index)
    weights = truth.weights.numpy()
    true = (weights, truth.means.numpy(), np.linalg.cholesky(truth.covariances.numpy()))
    anchor, synthetic, target = (_histograms(*mixture, rng) for mixture in (*fits, true))
    gaps = [(p * np.log(p / target)).sum(-1).mean() for p in (anchor, synthetic)]
    return float(gaps[0] - gaps[1])


def _histograms(
    weights: np.ndarray, means: np.ndarray, factors: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Histograms (redraws, cells) of so many samples, each on its own grid."""
    which = generator.choice(len(weights), (REDRAWS, POINTS), p=weights / weights.sum())
    noise = generator.standard_normal((REDRAWS, POINTS, 2, 1))
    rows = means[which][..., :2] + (factors[which][..., :2, :2] @ noise)[..., 0]
    low, high = rows.min(1, keepdims=True), rows.max(1, keepdims=True)
    cell = np.minimum(((rows - low) / (high - low) * BINS).astype(int), BINS - 1)
    place = cell[..., 0] * BINS + cell[..., 1] + BINS**2 * np.arange(REDRAWS)[:, None]
    counts = np.bincount(place.ravel(), minlength=REDRAWS * BINS**2).reshape(REDRAWS, -1)
    density = counts / POINTS / ((high - low) / BINS).prod(-1) + FLOOR
    return density / density.sum(-1, keepdims=True)


def beside_the_command(values: Sequence[int], worlds: int) -> str:
    """Seconds of `rbpp kl-gap` as typed, and of the lean reference, scaled up, on one sweep."""
    typed = f"{values[0]}..{values[-1]}" if len(values) > 3 else ",".join(map(str, values))
    command = [sys.executable, "-m", "rbpp", "kl-gap", "--values", typed, "--quiet"]
    start, used = time.perf_counter(), _children()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    ours, ours_cpu = time.perf_counter() - start, _children() - used
    # What is done once, worlds drawn and modules loaded, must not be scaled up.
    seeds = {value: spawn(0, "K", value) for value in values}
    few = {value: sample_worlds(worlds, seed=own, K=value) for value, own in seeds.items()}
    lean_reference_gap(few[values[0]], 0, seeds[values[0]])
    start, used = time.perf_counter(), time.process_time()
    for value, own in seeds.items():
        for index in range(worlds):
            lean_reference_gap(few[value], index, own)
    lean = (time.perf_counter() - start) * WORLDS / worlds
    lean_cpu = (time.process_time() - used) * WORLDS / worlds
    each = lean_cpu / WORLDS / len(values)
    return (
        f"| K = {typed} | {lean:.0f} | {ours:.1f} | {lean / ours:.0f} | {lean_cpu:.0f} "
        f"| {ours_cpu:.1f} | {lean_cpu / ours_cpu:.0f} | {each:.2f} |"
    )


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def our_gaps(worlds: Worlds, seed: int) -> np.ndarray:
    """Posterior means of the exact gap, (W,), out of all that the study computes."""
    compute = Compute(seed=seed)
    fits = fit_worlds(worlds, compute)
    return kl_gaps(*fits, worlds.truth, compute)["kl_gap"].value.mean(0).numpy()


def sample(mixture: GaussianMixture, generator: np.random.Generator) -> np.ndarray:
    weights, means = mixture.weights.numpy(), mixture.means.numpy()
    counts = generator.multinomial(POINTS, weights / weights.sum())
    covariances = mixture.covariances.numpy()
    return np.concatenate(
        [
            generator.multivariate_normal(m, c, size=k)
            for m, c, k in zip(means, covariances, counts, strict=True)
        ]
    )


def histogram_kl(p: np.ndarray, q: np.ndarray) -> float:
    """Each histogram on its own grid: the reference's estimator, defect included."""
    densities = []
    for rows in (p, q):
        histogram = np.histogram2d(rows[:, 0], rows[:, 1], bins=BINS, density=True)[0].ravel()
        densities.append((histogram + FLOOR) / (histogram + FLOOR).sum())
    return float((densities[0] * np.log(densities[0] / densities[1])).sum())


def paired_run(values: Sequence[int], worlds: int, seed: int) -> dict[str, Sweep]:
    """One pair: at every point of every sweep both procedures, on worlds of the same seed."""
    result = {}
    for knob in PAPER_KNOBS:
        reference = ours = 0.0
        gaps = []
        for value in values:
            own = spawn(seed, knob, value)
            few = sample_worlds(worlds, seed=own, **{knob: value})
            start = time.perf_counter()
            published = [reference_gap(few, index, own) for index in range(worlds)]
            reference += (time.perf_counter() - start) * WORLDS / worlds
            start = time.perf_counter()
            many = sample_worlds(WORLDS, seed=own, **{knob: value})
            our_gaps(many, own)
            ours += time.perf_counter() - start
            gaps.append((published, our_gaps(few, own)))
        result[knob] = Sweep(reference, ours, np.concatenate(gaps, axis=1))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=2, help="reference worlds at each point")
    parser.add_argument("--pairs", type=int, default=3, help="paired runs")
    parser.add_argument("--quick", action="store_true", help="3 values, 1 world, 1 pair")
    parser.add_argument("--command", action="store_true", help="the second table alone")
    arguments = parser.parse_args()
    values: Sequence[int] = (2, 8, 15) if arguments.quick else range(2, 16)
    worlds, pairs = (1, 1) if arguments.quick else (arguments.worlds, arguments.pairs)
    if arguments.command:
        print(COMMAND_HEAD)
        print(beside_the_command(values, worlds))
        return
    our_gaps(sample_worlds(WORLDS, seed=0), 0)  # what is loaded once is not timed
    runs = []
    for pair in range(pairs):
        runs.append(paired_run(values, worlds, pair))
        print(f"pair {pair + 1} of {pairs}", file=sys.stderr)
    print(
        f"{len(values)} values of each knob, {WORLDS} worlds at each; the reference ran on "
        f"{worlds} of them at each point and is scaled up; {torch.get_num_threads()} threads, "
        f"{os.cpu_count()} cores.\n"
    )
    print("| sweep | reference, s | rbpp, s | ratio (each pair) | correlation | same sign |")
    print("|---|---|---|---|---|---|")
    for name in (*PAPER_KNOBS, "all"):
        parts = [[run[name]] if name != "all" else list(run.values()) for run in runs]
        reference = [sum(part.reference for part in run) for run in parts]
        ours = [sum(part.ours for part in run) for run in parts]
        ratios = [a / b for a, b in zip(reference, ours, strict=True)]
        published, exact = np.concatenate([part.gaps for run in parts for part in run], axis=1)
        signs = int((np.sign(published) == np.sign(exact)).sum())
        print(
            f"| {name} | {statistics.median(reference):.0f} | {statistics.median(ours):.1f} "
            f"| {statistics.median(ratios):.0f} ({', '.join(f'{r:.0f}' for r in ratios)}) "
            f"| {np.corrcoef(published, exact)[0, 1]:.2f} | {signs} of {len(exact)} |"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\nPeak memory of both together: {peak:.0f} MB.\n")
    print(COMMAND_HEAD)
    print(beside_the_command(values, worlds))


if __name__ == "__main__":
    main()
