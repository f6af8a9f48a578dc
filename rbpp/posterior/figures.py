"""Observed rows beside new ones, drawn from InferenceData."""

from __future__ import annotations

from typing import Any

import numpy as np

from rbpp import inference_data
from rbpp.inference_data import InferenceData

_COORDINATES, _DRAWS = 4, 40


def plot_predictive(data: InferenceData) -> np.ndarray:
    """Cumulative shares of the observed values and of new ones, a panel per site and coordinate.

    Args:
        data: with the groups `observed_data` and `posterior_predictive`.

    Returns:
        Axes (sites, coordinates).
    """
    from matplotlib import pyplot

    groups = inference_data.group_datasets(data)
    names = list(map(str, groups["observed_data"].data_vars))
    _, axes = pyplot.subplots(
        len(names), _COORDINATES, squeeze=False, figsize=(3 * _COORDINATES, 2.6 * len(names))
    )
    for row, name in zip(axes, names, strict=True):
        seen = groups["observed_data"][name].values
        drawn = groups["posterior_predictive"][name].values
        drawn = drawn.reshape(-1, *drawn.shape[2:])
        step = max(1, len(drawn) // _DRAWS)
        for coordinate, panel in enumerate(row):
            if coordinate >= seen.shape[-1]:
                panel.set_visible(False)
                continue
            for one in drawn[::step]:
                _steps(panel, one[..., coordinate], color="C0", alpha=0.2, linewidth=0.7)
            _steps(panel, seen[..., coordinate], color="black", linewidth=1.5)
            panel.set_xlabel(f"{name}, coordinate {coordinate}")
        row[0].set_ylabel("share of rows below")
    return axes


def _steps(panel: Any, values: np.ndarray, **style: Any) -> None:
    ordered = np.sort(values.ravel())
    panel.step(ordered, np.arange(1, ordered.size + 1) / ordered.size, where="post", **style)
