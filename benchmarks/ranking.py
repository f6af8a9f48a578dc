"""Which score ranks synthetic sets as training on them does, task by task.

    python benchmarks/ranking.py --data DIR [--quick] [--model MODEL]

DIR holds `outcomes/` (labelled sets and the accuracy of BERT-large trained on each) and
`synque_sentiment/`. Prints Markdown: the table by task left out beside proxy A-distance, MMD,
MAUVE, a discriminant's accuracy and the number of rows; few or no labels; calibration of
`p_trained_best`; unequal sizes; sets with outputs; speed and memory.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.linalg import eigh
from scipy.stats import spearmanr
from sklearn.cluster import MiniBatchKMeans
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from rbpp.assessment import density_score, label_score
from rbpp.data.static_embedding import POTION, static_embedding

REAL_ROWS = 400  # of a task, for what costs more than our score
PRIORS = (1000.0, 3000.0, 10_000.0, 30_000.0)


@dataclass
class Task:
    """Sets of one task, and what training on each gave."""

    name: str
    real: list[tuple[np.ndarray, np.ndarray]]
    sets: list[tuple[np.ndarray, np.ndarray]]
    outcome: np.ndarray
    generator: np.ndarray
    cell: np.ndarray
    seed_set: np.ndarray


def encoder(model: str | None) -> Callable[[list[str]], np.ndarray]:
    """Unit embeddings of texts, by default of the small model that mostlyai-qa carries."""
    return lambda texts: static_embedding(texts, model or POTION).vectors.astype(np.float64)


def load(folder: Path, encode: Callable[[list[str]], np.ndarray], quick: bool) -> list[Task]:
    """The five tasks; `quick` takes two of five seed sets."""
    sets = pd.read_parquet(folder / "outcomes/sets.parquet")
    real = pd.read_parquet(folder / "outcomes/real.parquet")
    outcomes = pd.read_csv(folder / "outcomes/outcomes.csv")
    if quick:
        outcomes = outcomes[outcomes.seed_set < 2]
    sets = sets[sets.set.isin(outcomes.name)].reset_index(drop=True)
    rows, labels, places = (
        encode(list(sets.text)),
        sets.label.to_numpy(),
        sets.groupby("set").indices,
    )
    tasks = []
    for name, own in outcomes.groupby("task"):
        of_task = real[real.task == name]
        tasks.append(
            Task(
                name=str(name),
                real=[(encode(list(of_task.text)), of_task.label.to_numpy())],
                sets=[(rows[places[n]], labels[places[n]]) for n in own.name],
                outcome=own.accuracy.to_numpy(),
                generator=own.generator.to_numpy(),
                cell=(own.generator + "/" + own.method).to_numpy(),
                seed_set=own.seed_set.to_numpy(),
            )
        )
    folder = folder / "synque_sentiment"
    table = pd.read_csv(folder / "task_performance.csv")

    def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
        lines = json.loads(path.read_text())
        return encode([x["headline"] for x in lines]), np.array(
            [int(x["sentiment"]) for x in lines]
        )

    names = table.dataset_name.to_numpy()
    tasks.append(
        Task(
            name="synque",
            real=[read(folder / f"real/balanced_real_seed={s}.json") for s in (42, 43, 44)],
            sets=[read(folder / f"synthetic/{n}.json") for n in names],
            outcome=table.test_f1_mean.to_numpy(),
            generator=np.array([n.split("_")[0] for n in names]),
            cell=names,
            seed_set=np.zeros(len(names)),
        )
    )
    return tasks


def correlations(task: Task, score: np.ndarray) -> tuple[float, float]:
    """Spearman over all sets, and over means of generator × method."""
    frame = pd.DataFrame({"cell": task.cell, "score": score, "outcome": task.outcome})
    means = frame.groupby("cell").mean()
    return (
        float(spearmanr(score, task.outcome).statistic),
        float(spearmanr(means.score, means.outcome).statistic),
    )


# ---- our scores ------------------------------------------------------------------------------


def predictions(
    task: Task, prior: float = label_score.PRIOR_ROWS, temperature: float | None = None
) -> list[np.ndarray]:
    """log p(label | text) of real rows by every set, (sets, real rows, labels) a real draw.

    At a temperature that is fitted to the real rows, if none is given.
    """
    found = []
    for real, labels in task.real:
        names = np.unique(labels)
        x, y = torch.as_tensor(real), torch.as_tensor(np.searchsorted(names, labels))
        fitted = temperature or label_score.fitted_temperature(x, y, len(names), prior)
        by_set = [
            label_score.log_probabilities(
                torch.as_tensor(rows),
                torch.as_tensor(np.searchsorted(names, own)),
                x,
                len(names),
                prior_rows=prior,
                temperature=fitted,
            )
            for rows, own in task.sets
        ]
        found.append(torch.stack(by_set).numpy().astype(np.float32))
    return found


def own(labels: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.unique(labels), labels)


def labelled(task: Task, log_p: list[np.ndarray], rows: int | None = None) -> np.ndarray:
    """Mean log p of the real labels; of the first `rows` of a permutation."""
    found = []
    for (_, labels), one in zip(task.real, log_p, strict=True):
        index = np.random.default_rng(0).permutation(len(labels))[:rows]
        found.append(one[:, index, own(labels)[index]].mean(1))
    return np.mean(found, 0)


def by_consensus(
    task: Task, log_p: list[np.ndarray], known: int = 0, repeat: int = 3
) -> np.ndarray:
    """The score from `known` labelled real rows of 400, the consensus for the others.

    As `rank_sets` has it: votes as they are, the score at the root of the temperature that the
    labelled rows fit, and without such rows at 1.
    """
    found = []
    prior = label_score.PRIOR_ROWS_OF_VOTES
    for (real, labels), one in zip(task.real, log_p, strict=True):
        codes = own(labels)
        for seed in range(repeat):
            index = np.random.default_rng(seed).permutation(len(labels))[:REAL_ROWS]
            votes = [torch.as_tensor(x) for x in one[:, index]]
            part = one[:, index].astype(np.float64)
            if known:
                few = index[:known]
                x, y = torch.as_tensor(real[few]), torch.as_tensor(codes[few])
                fitted = label_score.fitted_temperature(x, y, one.shape[2], prior)
                cooled = (torch.as_tensor(part) / fitted**0.5).log_softmax(-1)
                part = cooled.clamp(min=label_score.FLOOR).numpy()
            score = np.empty(len(one))
            for k in range(len(one)):
                others, voters = votes[:k] + votes[k + 1 :], np.delete(task.generator, k)
                target = label_score.consensus(others, list(voters)).numpy()
                rest = (target * part[k]).sum(1)[known:].mean() if known < len(index) else 0.0
                if known:
                    share = max(1 / 3, known / len(index))
                    taught = part[k, np.arange(known), codes[index[:known]]].mean()
                    rest = share * taught + (1 - share) * rest
                score[k] = rest
            found.append(score)
    return np.mean(found, 0)


def texts(task: Task, size: int | None = None) -> list[np.ndarray]:
    """log p(text) of real rows by every set, or by `size` of its rows, (sets, rows) a real draw."""
    found = []
    for real, _ in task.real:
        x = torch.as_tensor(real[:REAL_ROWS])
        source = np.random.default_rng(0)
        by_set = [
            density_score.log_densities(
                torch.as_tensor(rows[source.permutation(len(rows))[:size]]), x
            ).numpy()
            for rows, _ in task.sets
        ]
        found.append(np.stack(by_set))
    return found


def at_equal_size(task: Task) -> np.ndarray:
    """Predictive density of real texts, learned from as many rows of every set."""
    found = texts(task, min(len(rows) for rows, _ in task.sets))
    return np.mean([one.mean(1) for one in found], 0)


# ---- peers -----------------------------------------------------------------------------------


def proxy_a_distance(rows: np.ndarray, real: np.ndarray) -> float:
    x, y = np.concatenate([rows, real]), np.repeat([0, 1], [len(rows), len(real)])
    model = LogisticRegression(max_iter=40, class_weight="balanced", tol=1e-3)
    accuracy = cross_val_score(model, x, y, cv=2, scoring="balanced_accuracy").mean()
    return -2 * (1 - 2 * (1 - accuracy))


def mmd(rows: np.ndarray, real: np.ndarray) -> float:
    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: np.ndarray) -> float:
        found = kernel(a, a)
        return (found.sum() - np.trace(found)) / (len(a) * (len(a) - 1))

    return -(within(rows) + within(real) - 2 * kernel(rows, real).mean())


def mauve(rows: np.ndarray, real: np.ndarray) -> float:
    """Area under the divergence curve of cluster histograms (Pillutla et al., 2021)."""
    both = np.concatenate([rows, real])
    clusters = max(2, len(both) // 20)
    found = MiniBatchKMeans(clusters, random_state=0, n_init=1, max_iter=10).fit_predict(both)
    p, q = (
        np.bincount(part, minlength=clusters) / len(part)
        for part in (found[: len(rows)], found[len(rows) :])
    )
    curve = [(0.0, 1.0)]
    for share in np.linspace(0.01, 0.99, 49):
        mix = share * p + (1 - share) * q
        curve.append(tuple(np.exp(-5 * _kl(one, mix)) for one in (q, p)))
    x, y = np.array([*curve, (1.0, 0.0)]).T
    order = np.argsort(x)
    return float(np.trapezoid(y[order], x[order]))


def _kl(p: np.ndarray, q: np.ndarray) -> float:
    some = p > 0
    return float((p[some] * np.log(p[some] / q[some])).sum())


def whitened(real: np.ndarray, dimension: int = 32) -> np.ndarray:
    values, vectors = eigh(np.cov(real.T))
    return vectors[:, -dimension:] / np.sqrt(values[-dimension:].clip(1e-12))


def peers(task: Task) -> dict[str, np.ndarray]:
    """Scores of other kinds, over the first real draw."""
    real, labels = task.real[0]
    index = np.random.default_rng(0).permutation(len(real))[:REAL_ROWS]
    few, axes, mean = real[index], whitened(real), real.mean(0)
    found: dict[str, list[float]] = {}
    for rows, own_labels in task.sets:
        part = rows[:REAL_ROWS]
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1)
        model.fit((rows - mean) @ axes, own_labels)
        values = {
            "proxy A-distance, negative": proxy_a_distance(part, few),
            "MMD, cubic kernel, negative": mmd(part, few),
            "MAUVE": mauve(part, few),
            "accuracy of a discriminant, 32 components": float(
                (model.predict((real - mean) @ axes) == labels).mean()
            ),
            "number of rows": float(len(rows)),
        }
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in found.items()}


# ---- tables ----------------------------------------------------------------------------------


def row(name: str, cells: list[tuple[float, float]]) -> str:
    shown = [f"{a:.2f} / {b:.2f}" for a, b in cells]
    mean = np.nanmean(np.array(cells), 0)
    return f"| {name} | {' | '.join(shown)} | {mean[0]:.3f} / {mean[1]:.3f} |"


def left_out(tasks: list[Task], scores: dict[str, list[np.ndarray]]) -> list[tuple[float, float]]:
    """For each task, the correlations of the score that is best on the others."""
    table = {
        n: [correlations(t, s) for t, s in zip(tasks, v, strict=True)] for n, v in scores.items()
    }
    found = []
    for place in range(len(tasks)):

        def on_others(name: str, place: int = place) -> float:
            return float(np.mean(np.delete(np.array(table[name]), place, 0)))

        found.append(table[max(table, key=on_others)][place])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", help="model2vec model or folder")
    parser.add_argument("--quick", action="store_true", help="two of five seed sets")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=UserWarning)
    import ranking_calibration
    import ranking_made

    tasks = load(arguments.data, encoder(arguments.model), arguments.quick)
    by_prior = {prior: [predictions(task, prior) for task in tasks] for prior in PRIORS}
    log_p = by_prior[label_score.PRIOR_ROWS]
    votes = [predictions(task, label_score.PRIOR_ROWS_OF_VOTES, 1.0) for task in tasks]
    scores = {
        f"labels, {prior:,.0f} prior rows": [
            labelled(t, p) for t, p in zip(tasks, found, strict=True)
        ]
        for prior, found in by_prior.items()
    }
    del by_prior
    print("peers", file=sys.stderr)
    other = [peers(task) for task in tasks]
    print("tables", file=sys.stderr)
    compared = {name: [found[name] for found in other] for name in other[0]}
    weaker = {
        "100 labels and consensus": [
            by_consensus(t, p, 100) for t, p in zip(tasks, votes, strict=True)
        ],
        "100 labels without consensus": [
            labelled(t, p, 100) for t, p in zip(tasks, votes, strict=True)
        ],
        "consensus, no real label": [by_consensus(t, p) for t, p in zip(tasks, votes, strict=True)],
        "texts alone, equal size": [at_equal_size(task) for task in tasks],
    }
    print("## Ranking: Spearman over all sets / over generator × method means\n")
    print(
        f"| score | {' | '.join(t.name for t in tasks)} | mean |\n|---|{'---|' * (len(tasks) + 1)}"
    )
    print(row("**score with labels, prior chosen on the other tasks**", left_out(tasks, scores)))
    everything = scores | weaker | compared
    print(row("any row of this table, chosen on the other tasks", left_out(tasks, everything)))
    lines = {
        n: [correlations(t, s) for t, s in zip(tasks, v, strict=True)]
        for n, v in everything.items()
    }
    for name in sorted(lines, key=lambda n: np.nanmean(lines[n])):  # worst first
        print(row(name, lines[name]))
    within = [
        spearmanr(score[inside], task.outcome[inside]).statistic
        for task, score in zip(
            tasks, scores[f"labels, {label_score.PRIOR_ROWS:,.0f} prior rows"], strict=True
        )
        for generator in np.unique(task.generator)
        for seed in np.unique(task.seed_set)
        for inside in [(task.generator == generator) & (task.seed_set == seed)]
        if inside.sum() > 3 and np.ptp(task.outcome[inside]) > 0
    ]
    print(
        "\nWithin one generator and seed set the mean of the same correlation is "
        f"{np.mean(within):.2f}."
    )
    outcomes = [t.outcome for t in tasks]
    taught = [
        p[0][:, np.arange(len(codes)), codes]
        for t, p in zip(tasks, log_p, strict=True)
        for codes in [own(t.real[0][1])]
    ]
    ranking_calibration.report("labels", outcomes, taught)
    ranking_calibration.report("texts", outcomes, [texts(t)[0] for t in tasks])
    del tasks, log_p
    ranking_made.report(arguments.quick)


if __name__ == "__main__":
    main()
