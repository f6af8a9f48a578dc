"""Observed rows beside new ones, drawn from InferenceData."""

from __future__ import annotations

import numpy as np
from matplotlib import pyplot

from rbpp.inference_data import InferenceData, group_datasets
from rbpp.renamed import renamed

_COORDINATES = 4


@renamed(eti_prob="probability")
def plot_predictive(data: InferenceData, eti_prob: float = 0.94) -> np.ndarray:
    """Cumulative shares of the observed values and of new ones, a panel per site and coordinate.

    The band holds the central `eti_prob` of new data sets at every share.

    Args:
        data: InferenceData with the groups `observed_data` and `posterior_predictive`.
        eti_prob: probability of the equal-tailed band.

    Returns:
        Axes (sites, coordinates).
    """
    groups = group_datasets(data)
    names = list(map(str, groups["observed_data"].data_vars))
    _, axes = pyplot.subplots(
        len(names), _COORDINATES, squeeze=False, figsize=(3 * _COORDINATES, 2.6 * len(names))
    )
    for row, name in zip(axes, names, strict=True):
        seen = groups["observed_data"][name].values
        drawn = groups["posterior_predictive"][name].values
        drawn = drawn.reshape(-1, *drawn.shape[2:])
        tails = ((1 - eti_prob) / 2, (1 + eti_prob) / 2)
        for coordinate, panel in enumerate(row):
            if coordinate >= seen.shape[-1]:
                panel.set_visible(False)
                continue
            ordered = np.sort(seen[..., coordinate].ravel())
            shares = np.arange(1, ordered.size + 1) / ordered.size
            low, high = np.quantile(
                np.sort(drawn[..., coordinate].reshape(len(drawn), -1), axis=-1), tails, axis=0
            )
            panel.fill_betweenx(shares, low, high, alpha=0.3)
            panel.step(ordered, shares, where="post", color="black")
            panel.set_xlabel(f"{name}, coordinate {coordinate}")
        row[0].set_ylabel("share of rows below")
    return axes
