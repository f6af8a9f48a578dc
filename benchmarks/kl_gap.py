"""The KL-gap study against the reference procedure, in one paired run.

    python benchmarks/kl_gap.py [--worlds 20] [--pairs 3] [--quick]

The reference procedure is re-implemented here from its published steps: per world, scikit-learn
fits both mixtures by EM, and 100 times over 1,000 points are redrawn from each fit and from the
ground truth and turned into 50 × 50 histograms, each on its own grid. Ours, on the same worlds:
variational posteriors of both mixtures, and both directions of the exact gap for every draw.

Prints a Markdown table: seconds per world, medians over pairs, the ratio pair by pair, and how well
each gap agrees with the exact one.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time

import numpy as np
import torch
from sklearn.mixture import GaussianMixture as SklearnMixture

from rbpp import study
from rbpp.mixtures.mixture import GaussianMixture

REDRAWS, POINTS, BINS, FLOOR = 100, 1000, 50, 1e-10


def reference_gap(world: study.Worlds, index: int, seed: int) -> float:
    """The reference script's number for one world."""
    rng = np.random.default_rng(seed)
    fits = []
    for rows, components in (
        (world.anchor[index], world.anchor_components),
        (world.synthetic[index], world.generator.components),
    ):
        fits.append(SklearnMixture(components, random_state=seed).fit(rows.numpy()))
    gaps = []
    for _ in range(REDRAWS):
        anchor, synthetic = (fit.sample(POINTS)[0] for fit in fits)
        truth = sample(world.truth.select(index), rng)
        gaps.append(histogram_kl(anchor, truth) - histogram_kl(synthetic, truth))
    return float(np.mean(gaps))


def our_gaps(worlds: study.Worlds, seed: int) -> np.ndarray:
    """Posterior means of the exact gap, (W,), out of all that the study computes."""
    fits = study.fit_worlds(worlds, seed=seed)
    return study.kl_gaps(*fits, worlds.truth, seed=seed)["kl_gap"].value.mean(0).numpy()


def sample(mixture: GaussianMixture, rng: np.random.Generator) -> np.ndarray:
    weights, means = mixture.weights.numpy(), mixture.means.numpy()
    counts = rng.multinomial(POINTS, weights / weights.sum())
    covariances = mixture.covariances.numpy()
    return np.concatenate(
        [
            rng.multivariate_normal(m, c, size=k)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=20, help="worlds the reference is run on")
    parser.add_argument("--pairs", type=int, default=3, help="paired runs")
    parser.add_argument("--quick", action="store_true", help="5 worlds, 1 pair")
    arguments = parser.parse_args()
    worlds, pairs = (5, 1) if arguments.quick else (arguments.worlds, arguments.pairs)
    rows = []
    for components in (2, 8, 15):
        knobs = {"K": components}
        times: dict[str, list[float]] = {"reference": [], "rbpp": []}
        for pair in range(pairs):
            world = study.sample_worlds(worlds, seed=pair, **knobs)
            start = time.perf_counter()
            reference = [reference_gap(world, index, pair) for index in range(worlds)]
            times["reference"].append((time.perf_counter() - start) / worlds)
            many = study.sample_worlds(100, seed=pair, **knobs)
            start = time.perf_counter()
            our_gaps(many, pair)
            times["rbpp"].append((time.perf_counter() - start) / 100)
        exact = our_gaps(world, pair)
        agreement = np.corrcoef(reference, exact)[0, 1]
        signs = int((np.sign(reference) == np.sign(exact)).sum())
        rows.append((components, times, agreement, signs))
    print(f"{torch.get_num_threads()} threads of torch, scikit-learn with its own BLAS.\n")
    print("| K | reference, s a world | rbpp, s a world | ratio (each pair) | corr. | same sign |")
    print("|---|---|---|---|---|---|")
    for components, times, agreement, signs in rows:
        ratios = [a / b for a, b in zip(times["reference"], times["rbpp"], strict=True)]
        print(
            f"| {components} | {statistics.median(times['reference']):.3f} "
            f"| {statistics.median(times['rbpp']):.5f} "
            f"| {statistics.median(ratios):.0f} ({', '.join(f'{r:.0f}' for r in ratios)}) "
            f"| {agreement:.2f} | {signs} of {worlds} |"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\nPeak memory of both together: {peak:.0f} MB.")


if __name__ == "__main__":
    main()
