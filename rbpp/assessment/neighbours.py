"""Exact nearest neighbours of rows in blocks, and the scores of rows that are read from them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

# Rows of a block: its distances to 10,000 rows take 20 MB.
_BLOCK = 512
# The quantile of distances at which two sources are matched: of rows that are covered if any are.
_MATCHED = 0.25


def unit_length(rows: np.ndarray) -> np.ndarray:
    """Rows (n, D) at length 1, in float32; a row of zeros stays one.

    Raises:
        ValueError: if the rows are not a finite matrix.
    """
    rows = np.asarray(rows, dtype=np.float64)
    if rows.ndim != 2 or not len(rows) or not np.isfinite(rows).all():
        raise ValueError(f"Expected finite rows (n, D), n of 1 or more; got shape {rows.shape}")
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(length > 0, length, 1)).astype(np.float32)


def distances(queries: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """Euclidean distances (n, m) of rows (n, D) and (m, D), by one product of matrices."""
    square = (
        np.square(queries).sum(1)[:, None] + np.square(pool).sum(1)[None] - 2 * queries @ pool.T
    )
    return np.sqrt(np.maximum(square, 0))


def nearest(
    queries: np.ndarray, pool: np.ndarray, k: int, *, own: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Distances and indices (n, k) of the k nearest rows of a pool, nearest first.

    Rows at one distance come in the order of the pool.

    Args:
        queries: (n, D).
        pool: (m, D).
        k: at most m, or m − 1 with `own`.
        own: the queries are the pool's own rows, in its order; a row is no neighbour of itself. A
            copy of it, another row at distance 0, is one.

    Raises:
        ValueError: if k is not between 1 and the number of rows that can be neighbours.
    """
    most = len(pool) - own
    if not 1 <= k <= most:
        raise ValueError(f"Expected k of 1 to {most}; got {k}")
    near = np.empty((len(queries), k), dtype=np.float32)
    index = np.empty((len(queries), k), dtype=np.int64)
    for first, block in _blocks(queries, pool, own):
        chosen = np.sort(np.argpartition(block, k - 1, axis=1)[:, :k], axis=1)
        values = np.take_along_axis(block, chosen, 1)
        order = np.argsort(values, axis=1, kind="stable")
        index[first : first + len(block)] = np.take_along_axis(chosen, order, 1)
        near[first : first + len(block)] = np.take_along_axis(values, order, 1)
    return near, index


def kth_distance(queries: np.ndarray, pool: np.ndarray, k: int, *, own: bool = False) -> np.ndarray:
    """Distance (n,) to the k-th nearest row of a pool; arguments as of `nearest`."""
    most = len(pool) - own
    if not 1 <= k <= most:
        raise ValueError(f"Expected k of 1 to {most}; got {k}")
    found = np.empty(len(queries), dtype=np.float32)
    for first, block in _blocks(queries, pool, own):
        found[first : first + len(block)] = np.partition(block, k - 1, axis=1)[:, k - 1]
    return found


def neighbour_shares(
    first: np.ndarray,
    second: np.ndarray,
    scales: tuple[float, ...],
    weights: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Share of the second source among the nearest part of the pool, at several scales.

    Both sources have half of the pool's mass however many rows they have:
    c(x) = mass of the second among the nearest rows of x that hold `scale` of the pool's mass, over
    that scale. The row itself is left out of its own source, and rows at one distance count in
    proportion.

    Args:
        first: (m, D).
        second: (n, D).
        scales: parts of the pool, each between 0 and 1.
        weights: of the rows of either source (m,) and (n,), such as 1 / copies; 1 by default.

    Returns:
        The shares of the first's rows (scale, m), and of the second's (scale, n).
    """
    pool = np.concatenate([first, second])
    is_second = np.repeat([0, 1], [len(first), len(second)])
    weight = np.ones(len(pool)) if weights is None else np.concatenate(weights)
    total_of = np.bincount(is_second, weight, minlength=2)
    # The lightest row bounds how many of the nearest may be needed.
    lightest = float((weight * 0.5 / np.maximum(total_of, 1e-9)[is_second]).min())
    most = min(len(pool), int(np.ceil(max(scales) / lightest)) + 2)
    found = np.empty((len(scales), len(pool)))
    for start, block in _blocks(pool, pool, own=True):
        place = np.arange(start, start + len(block))
        # Mass of a unit of weight in either source. The row itself, infinitely far away, has none;
        # a source of that row alone has no mass at all.
        left = np.tile(total_of, (len(block), 1))
        left[np.arange(len(block)), is_second[place]] -= weight[place]
        unit = np.where(left > 1e-9, 0.5 / np.maximum(left, 1e-9), 0.0)
        near, order = _sorted(block, most)
        part = _parts(near, unit, is_second[order], weight[order], scales)
        if part is None:
            near, order = _sorted(block, len(pool))
            part = _parts(near, unit, is_second[order], weight[order], scales)
        found[:, start : start + len(block)] = part
    return found[:, : len(first)], found[:, len(first) :]


def _sorted(block: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest rows of a block's distances, sorted, and their indices.

    Distances are at least 0, so that their bits sort as they do; with the index below them one
    sort of whole numbers, several times faster than one of indices, does both.
    """
    bits = (block + np.float32(0)).view(np.uint32).astype(np.uint64)
    keys = (bits << np.uint64(32)) | np.arange(block.shape[1], dtype=np.uint64)
    if most < block.shape[1]:
        keys = np.partition(keys, most - 1, axis=1)[:, :most]
    keys.sort(axis=1)
    near = (keys >> np.uint64(32)).astype(np.uint32).view(np.float32)
    return near, (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)


def _parts(
    near: np.ndarray,
    unit: np.ndarray,
    is_second: np.ndarray,
    weight: np.ndarray,
    scales: tuple[float, ...],
) -> np.ndarray | None:
    """Shares of the second source (scale, rows); None if rows at one distance are cut off."""
    mass = np.take_along_axis(unit, is_second, 1) * weight
    total, second = (
        np.concatenate([np.zeros((len(near), 1)), np.cumsum(one, 1)], 1)
        for one in (mass, mass * is_second)
    )
    found = np.empty((len(scales), len(near)))
    row = np.arange(len(near))
    for number, scale in enumerate(scales):
        last = np.minimum((total[:, 1:] < scale - 1e-9).sum(1), near.shape[1] - 2)
        edge = near[row, last][:, None]
        low, high = (near < edge).sum(1), (near <= edge).sum(1)
        if (high == near.shape[1]).any() and np.isfinite(near[:, -1]).all():
            return None
        closer, tied = total[row, low], total[row, high] - total[row, low]
        needed = np.clip((scale - closer) / np.maximum(tied, 1e-12), 0, 1)
        part = second[row, low] + needed * (second[row, high] - second[row, low])
        found[number] = part / (closer + needed * tied)
    return found


def matched_rank(own: np.ndarray, other: np.ndarray, k: int = 5) -> int:
    """The neighbour at which a source knows its own rows as well as another knows them at its k-th.

    Rows that are paraphrases of few seeds lie closer together than any two tasks do. The rank r is
    such that the lower quartile of their distances to the r-th other row of their own source equals
    that of the other source's distances to its k-th neighbour among them.

    Args:
        own: (n, D), rows whose leave-one-out distances are to serve as a null.
        other: (m, D), rows that are measured by their distance to the k-th neighbour in `own`.
        k: of the other's rows.

    Returns:
        The rank, at least k and at most half of the rows.
    """
    k = min(k, len(own) - 1)
    goal = float(np.quantile(kth_distance(other, own, k), _MATCHED))
    most = max(k, len(own) // 2)
    near = np.concatenate([np.sort(block, 1)[:, :most] for _, block in _blocks(own, own, own=True)])
    levels = np.quantile(near, _MATCHED, axis=0)
    return int(np.clip(1 + np.searchsorted(levels, goal), k, most))


def _blocks(queries: np.ndarray, pool: np.ndarray, own: bool) -> Iterator[tuple[int, np.ndarray]]:
    """Distances of blocks of the queries to the pool, and the number of each block's first row."""
    for first in range(0, len(queries), _BLOCK):
        block = distances(queries[first : first + _BLOCK], pool)
        if own:
            rows = np.arange(len(block))
            block[rows, first + rows] = np.inf
        yield first, block
