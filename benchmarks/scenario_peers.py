"""What people use to find rows that do not belong, by the formulas of the papers and packages.

Every peer gives the rows a score and reads a share from it, as its users do. A score alone has a
share by the target's own 95 % point: the part of the rows beyond it, less the 5 % that lie there
anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rbpp.assessment.neighbours import distances, kth_distance, nearest


@dataclass(frozen=True)
class Reading:
    """A share, and the score of every synthetic row; None where a peer has none."""

    share: float
    score: np.ndarray | None


def knn_distance(target: np.ndarray, synthetic: np.ndarray) -> Reading:
    """Distance to the fifth neighbour, as PyOD's KNN. Ramaswamy et al., SIGMOD (2000)."""
    own = kth_distance(target, target, 5, own=True)
    return _by_tail(own, kth_distance(synthetic, target, 5))


def cleanlab(target: np.ndarray, synthetic: np.ndarray) -> Reading:
    """1 − exp(−mean cosine distance of 10 neighbours), as cleanlab. Kuan and Mueller (2022)."""

    def score(rows: np.ndarray, own: bool) -> np.ndarray:
        near, _ = nearest(rows, target, 10, own=own)
        return 1 - np.exp(-np.square(near).mean(1) / 2)

    return _by_tail(score(target, True), score(synthetic, False))


def local_outlier_factor(target: np.ndarray, synthetic: np.ndarray) -> Reading:
    """Local outlier factor, 20 neighbours, as PyOD's and scikit-learn's. Breunig et al. (2000)."""
    from sklearn.neighbors import LocalOutlierFactor

    half = len(target) // 2
    model = LocalOutlierFactor(20, novelty=True).fit(target[:half])
    return _by_tail(-model.score_samples(target[half:]), -model.score_samples(synthetic))


def ppca(target: np.ndarray, synthetic: np.ndarray) -> Reading:
    """Negative log density of probabilistic principal components. Tipping and Bishop (1999)."""
    from sklearn.decomposition import PCA

    half = len(target) // 2
    model = PCA(min(32, half - 1)).fit(target[:half])
    return _by_tail(-model.score_samples(target[half:]), -model.score_samples(synthetic))


def prdc(target: np.ndarray, synthetic: np.ndarray) -> Reading:
    """1 − precision: rows in no ball of a target row's five nearest. Kynkäänniemi et al. (2019)."""
    radius = kth_distance(target, target, 5, own=True)
    apart = distances(synthetic, target) / np.maximum(radius, 1e-9)
    closest = apart.min(1)
    return Reading(float((closest > 1).mean()), closest)


def prdc_coverage(target: np.ndarray, synthetic: np.ndarray) -> Reading:
    """1 − coverage: target rows with no synthetic row in their ball. Naeem et al. (2020)."""
    radius = kth_distance(target, target, 5, own=True)
    closest = kth_distance(target, synthetic, 1) / np.maximum(radius, 1e-9)
    return Reading(float((closest > 1).mean()), closest)


def classifier(target: np.ndarray, synthetic: np.ndarray) -> Reading:
    """Logistic regression of the source, cross-fitted: 2 accuracy − 1, the total variation."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    rows = np.concatenate([target, synthetic])
    source = np.repeat([0, 1], [len(target), len(synthetic)])
    model = LogisticRegression(C=10.0, max_iter=200, class_weight="balanced")
    found = cross_val_predict(model, rows, source, cv=5, method="predict_proba")[:, 1]
    seen = (found[source == 1] > 0.5).mean() - (found[source == 0] > 0.5).mean()
    return Reading(float(max(0.0, seen)), found[source == 1])


def mauve(target: np.ndarray, synthetic: np.ndarray) -> Reading:
    """1 − area under the divergence curve of quantised rows. Pillutla et al., NeurIPS (2021)."""
    from sklearn.cluster import KMeans

    rows = np.concatenate([target, synthetic])
    count = max(2, len(rows) // 20)
    place = KMeans(count, n_init=1, random_state=0).fit_predict(rows)
    p, q = (
        (np.bincount(part, minlength=count) + 0.0) / len(part)
        for part in (place[: len(target)], place[len(target) :])
    )
    points = [(0.0, 1.0)]
    for weight in np.linspace(0.01, 0.99, 25):
        middle = weight * p + (1 - weight) * q
        points.append(tuple(np.exp(-5 * _kl(one, middle)) for one in (q, p)))
    points.append((1.0, 0.0))
    x, y = np.array(sorted(points)).T
    return Reading(float(np.clip(1 - np.trapezoid(y, x), 0, 1)), None)


PEERS: dict[str, Callable[[np.ndarray, np.ndarray], Reading]] = {
    "k-NN distance (PyOD)": knn_distance,
    "cleanlab out-of-distribution": cleanlab,
    "local outlier factor": local_outlier_factor,
    "PPCA": ppca,
    "1 − precision (prdc)": prdc,
    "classifier of the source": classifier,
    "1 − MAUVE": mauve,
}


def _by_tail(own: np.ndarray, found: np.ndarray) -> Reading:
    beyond = float((found > np.quantile(own, 0.95)).mean())
    return Reading(float(np.clip((beyond - 0.05) / 0.95, 0, 1)), found)


def _kl(first: np.ndarray, second: np.ndarray) -> float:
    kept = first > 0
    return float((first[kept] * np.log(first[kept] / second[kept])).sum())
