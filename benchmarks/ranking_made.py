"""Made sets for `benchmarks/ranking.py`: unequal sizes, sets with outputs, speed and memory."""

from __future__ import annotations

import multiprocessing
import resource
import time
import warnings

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPRegressor

from rbpp.assessment.ranking import Ranking, rank_sets
from rbpp.assessment.ranking_sources import Source


def report(quick: bool) -> None:
    """Print all sections."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    unequal_sizes(6 if quick else 24)
    better_first(2 if quick else 6)
    outputs(1 if quick else 3)
    speed()


# ---- unequal sizes ---------------------------------------------------------------------------


def modes(generator: np.random.Generator, dimension: int = 16, count: int = 6) -> np.ndarray:
    """Means of five modes and, last, of the rows off the task."""
    return generator.normal(size=(count, dimension)) * 2


def mixture(
    generator: np.random.Generator, means: np.ndarray, rows: int, shares: list[float]
) -> tuple[np.ndarray, np.ndarray]:
    which = generator.choice(len(shares), rows, p=shares)
    return means[which] + generator.normal(size=(rows, means.shape[1])), which


ALL, THREE, OFF = [0.2] * 5 + [0.0], [1 / 3] * 3 + [0.0] * 3, [0.19] * 5 + [0.05]


def one_distribution(seed: int, labelled: bool) -> float:
    """p_best_equal_size of the first of two sets of one distribution, 100 to 3,000 rows."""
    source = np.random.default_rng(seed)
    means = modes(source)
    sizes = source.permutation([[100, 3000], [100, 1000], [300, 3000], [1000, 3000]][seed % 4])
    parts = [mixture(source, means, n, ALL) for n in (*sizes, 500)]
    sources = [Source(x, y if labelled else None) for x, y in parts]
    return by_name(
        rank_sets(dict(zip("ab", sources, strict=False)), sources[2]), "p_best_equal_size"
    )["a"]


def by_name(ranking: Ranking, what: str) -> dict[str, float]:
    return {line["name"]: line[what] for line in ranking.lines}


def unequal_sizes(repeat: int) -> None:
    print("\n## One distribution, unequal sizes\n")
    for labelled in (False, True):
        found = np.array([one_distribution(seed, labelled) for seed in range(repeat)])
        inside = ((found >= 0.1) & (found <= 0.9)).mean()
        kind = "labels" if labelled else "texts"
        print(f"- {kind}: `p_best_equal_size` within [.1, .9] in {inside:.0%} of {repeat}")


def bad_mean(seed: int) -> dict[str, float]:
    """A perfect set of 300 rows beside one of 3,000 whose mean is off by 0.3 in 16 dimensions."""
    source = np.random.default_rng(seed)
    sets = {
        "better": Source(source.normal(size=(300, 16))),
        "worse": Source(source.normal(size=(3000, 16)) + 0.3),
    }
    return by_name(rank_sets(sets, Source(source.normal(size=(500, 16)))), "p_best_equal_size")


def missing_modes(seed: int) -> dict[str, float]:
    """All five modes and 5 % off the task beside three of the five modes."""
    source = np.random.default_rng(seed)
    means = modes(source)
    sets = {
        "better": Source(mixture(source, means, 1000, OFF)[0]),
        "worse": Source(mixture(source, means, 1000, THREE)[0]),
    }
    real = Source(mixture(source, means, 500, ALL)[0])
    return by_name(rank_sets(sets, real), "p_best_equal_size")


def better_first(repeat: int) -> None:
    print("\n## A better set beside a worse one\n")
    for name, make, times in (
        (
            "300 perfect rows beside 3,000 whose mean is off by .3 in each of 16 dimensions",
            bad_mean,
            3,
        ),
        ("five modes and 5 % off the task beside three of five modes", missing_modes, repeat),
    ):
        found = np.array([make(seed)["better"] for seed in range(times)])
        print(
            f"- {name}: first with p ≥ .95 in {(found >= 0.95).sum()} of {times}, "
            f"least {found.min():.3f}"
        )


# ---- sets with outputs -----------------------------------------------------------------------


def task_of_outputs(
    seed: int, sets: int = 40
) -> tuple[
    list[tuple[np.ndarray, np.ndarray]],
    tuple[np.ndarray, np.ndarray],
    tuple[np.ndarray, np.ndarray],
]:
    """Sets of pairs, real pairs that judge them, and real pairs on which models are tested.

    Prompts x come from five modes in 48 dimensions with falling variances; the outputs are
    A x + ½ tanh(B x) + noise in 24. A set has 100 to 600 pairs of 1 to 5 of the modes, prompts
    shifted, A turned by up to 0.8 of another matrix, noise of 0.3 to 1.5, up to half of its outputs
    exchanged between rows, and outputs shrunk to the mean by up to a half.
    """
    source = np.random.default_rng(seed)
    wide, narrow = 48, 24
    scales = np.arange(1, wide + 1) ** -0.5
    centres = source.normal(size=(5, wide)) * scales
    true = source.normal(size=(wide, narrow)) / np.sqrt(wide) * 2
    bend = source.normal(size=(wide, narrow))

    def pairs(rows: int, shares: np.ndarray, shift: np.ndarray, matrix: np.ndarray, noise: float):
        x = centres[source.choice(5, rows, p=shares)] + source.normal(size=(rows, wide)) * scales
        x = x + shift
        y = x @ matrix + 0.5 * np.tanh(x @ bend) + noise * source.normal(size=(rows, narrow))
        return x, y

    even, nowhere = np.full(5, 0.2), np.zeros(wide)
    made = []
    for _ in range(sets):
        kept = np.zeros(5)
        kept[source.choice(5, source.integers(1, 6), replace=False)] = 1
        other = source.normal(size=true.shape) / np.sqrt(wide) * 2
        x, y = pairs(
            int(source.integers(100, 601)),
            kept / kept.sum(),
            source.uniform(0, 0.6) * source.normal(size=wide) * scales,
            true + source.uniform(0, 0.8) * other,
            source.uniform(0.3, 1.5),
        )
        changed = source.permutation(len(x))[: int(source.uniform(0, 0.5) * len(x))]
        y[changed] = y[source.permutation(changed)]
        y = y.mean(0) + (y - y.mean(0)) * source.uniform(0.5, 1)
        made.append((x, y))
    real = pairs(300, even, nowhere, true, 0.5)
    test = pairs(1000, even, nowhere, true, 0.0)
    return made, real, test


def network(seed: int) -> MLPRegressor:
    return MLPRegressor(
        hidden_layer_sizes=(64,),
        max_iter=150,
        alpha=1e-2,
        early_stopping=True,
        learning_rate_init=5e-3,
        random_state=seed,
    )


def compare_outputs(seed: int, columns: int | None = None) -> dict[str, float]:
    """Spearman of scores with minus the test error of neural networks trained on each set."""
    sets, real, test = task_of_outputs(seed)
    sets = [(x, y[:, :columns]) for x, y in sets]
    real, test = (real[0], real[1][:, :columns]), (test[0], test[1][:, :columns])

    def error(
        model: object, at: tuple[np.ndarray, np.ndarray], x: np.ndarray, y: np.ndarray
    ) -> float:
        model.fit(x, y)  # type: ignore[attr-defined]
        return -float(np.square(model.predict(at[0]).reshape(at[1].shape) - at[1]).mean())  # type: ignore[attr-defined]

    trained = [np.mean([error(network(k), test, x, y) for k in range(2)]) for x, y in sets]
    ranked = rank_sets(
        {str(k): Source(x, outputs=y) for k, (x, y) in enumerate(sets)},
        Source(real[0], outputs=real[1]),
    )
    by_text = rank_sets({str(k): Source(x) for k, (x, _) in enumerate(sets)}, Source(real[0]))
    scores = {
        "score with outputs": list_of(ranked, len(sets)),
        "ridge regression, mean squared error": [error(Ridge(48.0), real, x, y) for x, y in sets],
        "output of the nearest input": [error(KNeighborsRegressor(1), real, x, y) for x, y in sets],
        "texts alone": list_of(by_text, len(sets)),
        "number of rows": [len(x) for x, _ in sets],
    }
    return {name: float(spearmanr(score, trained).statistic) for name, score in scores.items()}


def list_of(ranking: Ranking, count: int) -> list[float]:
    found = by_name(ranking, "score")
    return [found[str(k)] for k in range(count)]


def outputs(repeat: int) -> None:
    print(
        "\n## Sets with outputs, a made task\n\n| score | 24 outputs | one number |\n|---|---|---|"
    )
    found = [[compare_outputs(seed, columns) for seed in range(repeat)] for columns in (None, 1)]
    for name in found[0][0]:
        cells = [" ".join(f"{one[name]:.2f}" for one in half) for half in found]
        print(f"| {name} | {cells[0]} | {cells[1]} |")


# ---- speed -----------------------------------------------------------------------------------


def _timed(kind: str, sets: int, queue: multiprocessing.Queue) -> None:
    torch.set_num_threads(2)
    source = np.random.default_rng(0)

    def make(rows: int) -> Source:
        x = source.normal(size=(rows, 384)) / 20
        labels = source.integers(0, 5, rows) if kind != "texts" else None
        return Source(x, labels)

    data = {str(k): make(1000) for k in range(sets)}
    real = make(1000)
    if kind == "consensus":
        real = Source(real.rows)
    start, used = time.perf_counter(), time.process_time()
    rank_sets(data, real)
    seconds, used = time.perf_counter() - start, time.process_time() - used
    queue.put((seconds, used, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20))


def speed() -> None:
    print("\n## Speed\n")
    print("| sets × rows × columns | kind | seconds | processor seconds | peak GB |")
    print("|---|---|---|---|---|")
    context = multiprocessing.get_context("spawn")
    for kind, sets in (("labels", 32), ("consensus", 32), ("texts", 32), ("consensus", 220)):
        queue = context.Queue()
        process = context.Process(target=_timed, args=(kind, sets, queue))
        process.start()
        seconds, used, peak = queue.get()
        process.join()
        print(f"| {sets} × 1,000 × 384 | {kind} | {seconds:.1f} | {used:.1f} | {peak:.2f} |")
