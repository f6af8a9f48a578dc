"""The figures of the paper's simulation: the KL gap, the rows and the parts of the generator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rbpp.inference_data import InferenceData
from rbpp.plots.style import (
    ANCHOR_COLOUR,
    PART_COLOURS,
    SYNTHETIC_COLOUR,
    axes_of,
    ellipse,
    legend_above,
)

if TYPE_CHECKING:
    from rbpp.result import Result

_GAP_PANELS = {
    "kl_gap": "paper's direction\nD(π_anchor ‖ G) − D(π_gen ‖ G)",
    "kl_gap_coverage": "coverage\nD(G ‖ π_anchor) − D(G ‖ π_gen)",
    "kl_gap_histogram": "reference script's histogram\nestimator (no divergence)",
}


def plot_kl_gap(
    studies: Mapping[str, InferenceData], axes: np.ndarray | None = None, hdi_prob: float = 0.94
) -> np.ndarray:
    """The paper's Figure 4 with its uncertainty: one row per direction, one column per knob.

    Line: median over worlds of the posterior median. Bands: central 50 % and 90 % of worlds. Bars:
    the central posterior interval of the median world. Heavy tails are why these are quantiles.

    Args:
        studies: InferenceData of `rbpp.study` by knob name.
        axes: array (panels, knobs) to draw on; made where absent.
        hdi_prob: probability of the bars.
    """
    posteriors = {knob: data["posterior"] for knob, data in studies.items()}
    panels = [name for name in _GAP_PANELS if all(name in p for p in posteriors.values())]
    if axes is None:
        _, axes = pyplot.subplots(
            len(panels),
            len(studies),
            figsize=(1.2 + 3.4 * len(studies), 0.8 + 2.5 * len(panels)),
            squeeze=False,
            sharex="col",
            layout="constrained",
        )
    for column, (knob, posterior) in enumerate(posteriors.items()):
        for row, name in enumerate(panels):
            _plot_gap(axes[row, column], posterior[name], knob, hdi_prob)
            if column == 0:
                axes[row, column].set_ylabel(
                    f"{_GAP_PANELS[name]}\n[nats, symmetric log]", fontsize=8
                )
        axes[-1, column].set_xlabel(knob)
    return axes


def _plot_gap(axis: Axes, gap: Any, knob: str, hdi_prob: float) -> None:
    values = gap.coords[knob].values
    by_world = gap.median(("chain", "draw")).transpose(knob, "world").values
    for low, high, alpha in ((5, 95, 0.15), (25, 75, 0.3)):
        axis.fill_between(
            values,
            np.nanpercentile(by_world, low, axis=1),
            np.nanpercentile(by_world, high, axis=1),
            alpha=alpha,
            color=ANCHOR_COLOUR,
            linewidth=0,
        )
    draws = gap.stack(sample=("chain", "draw")).transpose(knob, "world", "sample").values
    median = np.nanmedian(draws, axis=1)  # over worlds, one per posterior draw
    low, high = np.nanpercentile(median, [50 - 50 * hdi_prob, 50 + 50 * hdi_prob], axis=1)
    centre = np.nanmedian(by_world, axis=1)
    axis.vlines(values, low, high, color=ANCHOR_COLOUR, linewidth=2)
    axis.plot(values, centre, color=ANCHOR_COLOUR, marker="o", markersize=3, linewidth=1)
    axis.axhline(0, color="0.4", linewidth=0.8, linestyle=":")
    # Worlds differ by orders of magnitude; a symmetric log axis shows sign and size at once.
    axis.set_yscale("symlog", linthresh=1)
    axis.yaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def plot_studies(studies: Mapping[str, Result], hdi_prob: float = 0.94) -> Figure:
    """The paper's Figure 4: a column for each `rbpp.study`, by the knob that it varies."""
    data = {vary: one.idata for vary, one in studies.items() if one.idata is not None}
    figure: Figure = plot_kl_gap(data, hdi_prob=hdi_prob).flat[0].figure
    return figure


def plot_chain(data: InferenceData, axis: Axes | None = None, draws: int = 25) -> Axes:
    """The paper's Figure 2: anchor and synthetic rows with the components fitted to each.

    Each posterior draw is one thin ellipse (one standard deviation) per component, so that where
    ellipses fan out, the component is uncertain.

    Args:
        data: InferenceData of `rbpp.kl_gap_study.world_posterior`.
        axis: axes to draw on; made where absent.
        draws: posterior draws shown per chain.
    """
    axis = axes_of(axis, 5.2, 4.6)
    posterior, observed = data["posterior"], data["observed_data"]
    for source, colour in (("synthetic", SYNTHETIC_COLOUR), ("anchor", ANCHOR_COLOUR)):
        rows = observed[source].values
        axis.scatter(
            rows[:, 0], rows[:, 1], s=6, color=colour, alpha=0.5, label=source, linewidth=0
        )
        means = posterior[f"{source}_mean"].values[:, :draws]
        covariances = posterior[f"{source}_covariance"].values[:, :draws]
        weights = posterior[f"{source}_weight"].values[:, :draws]
        faint = min(1.0, max(0.05, 2 / weights[..., 0].size))
        for mean, covariance, weight in zip(
            means.reshape(-1, means.shape[-1]),
            covariances.reshape(-1, *covariances.shape[-2:]),
            weights.reshape(-1),
            strict=True,
        ):
            if weight > 0.01:
                axis.add_patch(ellipse(mean, covariance, edgecolor=colour, alpha=faint))
    axis.set(xlabel="dimension 0", ylabel="dimension 1")
    legend_above(axis, 2, size=None, markers=2)
    return axis


def plot_parts(data: InferenceData, axis: Axes | None = None) -> Axes:
    """The paper's Figure 5: the three parts of the generator, each in its colour.

    Anchor-sampled (K) and unsampled (J) components make up the task; irrelevant ones (L) do not.

    Args:
        data: InferenceData of `rbpp.kl_gap_study.world_posterior`.
        axis: axes to draw on; made where absent.
    """
    axis = axes_of(axis, 5.2, 4.6)
    constant, rows = data["constant_data"], data["observed_data"]["synthetic"].values
    axis.scatter(rows[:, 0], rows[:, 1], s=5, color="0.6", label="synthetic", linewidth=0)
    parts = [str(part) for part in constant["generator_part"].values]
    for mean, covariance, part in zip(
        constant["generator_mean"].values,
        constant["generator_covariance"].values,
        parts,
        strict=True,
    ):
        for scale, alpha in ((1, 0.35), (2, 0.15)):
            axis.add_patch(
                ellipse(mean, covariance, scale, facecolor=PART_COLOURS[part], alpha=alpha)
            )
    for part, colour in PART_COLOURS.items():
        if part in parts:
            axis.scatter([], [], s=60, color=colour, alpha=0.5, label=part)
    axis.set(xlabel="dimension 0", ylabel="dimension 1")
    legend_above(axis, 2, size=None)
    return axis
