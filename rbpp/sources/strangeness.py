"""How strange a row is to a reference: the scores that `rbpp.sources.two_groups` takes.

Two marks, since each misses what the other sees. The contrast is high where rows of the other
source prevail, and so finds foreign rows that lie together, however near to the reference. The
distance from the reference's rows finds those that lie alone, among which none prevails: few, and
unlike each other. Area under the ROC curve for general tasks among code tasks, of the contrast and
of both, is 0.74 and 0.85 by TF-IDF and 0.87 and 0.94 by all-MiniLM-L6-v2 with 300 rows a side and
5 % of them general; with 1,000 rows and 10 % it is 0.97 and 0.96, and 0.98 and 0.98.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

# Neighbours whose mean distance counts.
_NEIGHBOURS = 10
# Of the distance's rank beside that of the contrast.
_WEIGHT = 0.5


class Strangeness:
    """Strangeness to a reference: normal scores of the ranks that its own rows give to each mark.

    Args:
        contrast: of the reference's rows (m,), higher where the other source prevails.
        vectors: of the same rows, (m, D).

    Attributes:
        own: strangeness of the reference's rows (m,), in whose distances they themselves, at zero,
            do not count.
    """

    def __init__(self, contrast: np.ndarray, vectors: np.ndarray) -> None:
        from sklearn.neighbors import NearestNeighbors

        near = min(_NEIGHBOURS, len(vectors) - 1)
        self._search = NearestNeighbors(n_neighbors=max(1, near)).fit(vectors)
        # Called without rows, the search leaves every row out of its own neighbours.
        distance = self._search.kneighbors()[0].mean(1) if near else np.zeros(len(vectors))
        self._contrast, self._distance = np.sort(contrast), np.sort(distance)
        self.own = self._score(contrast, distance, among=True)

    def __call__(self, contrast: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """Strangeness (n,) of rows that are not the reference's, by contrast and vectors."""
        distance = self._search.kneighbors(vectors)[0].mean(1)
        return self._score(contrast, distance, among=False)

    def _score(self, contrast: np.ndarray, distance: np.ndarray, *, among: bool) -> np.ndarray:
        ranks = (_rank(self._contrast, contrast, among), _rank(self._distance, distance, among))
        return np.asarray(ndtri(ranks[0]) + _WEIGHT * ndtri(ranks[1]))


def _rank(reference: np.ndarray, values: np.ndarray, among: bool) -> np.ndarray:
    """Rank in (0, 1) of values (n,) in a sorted reference (m,), ties in their middle.

    Args:
        among: the values are the reference's own.
    """
    below = np.searchsorted(reference, values, side="left")
    most = np.searchsorted(reference, values, side="right")
    return (below + most + (not among)) / 2 / (len(reference) + (not among))
