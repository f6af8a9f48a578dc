"""Figures of a chain's terms and bounds: functions of an InferenceData that compute nothing."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot
from matplotlib.axes import Axes

from rbpp.estimate import Estimate
from rbpp.inference_data import group_datasets, highest_density_interval
from rbpp.theory.audit import probability_holds, verdict
from rbpp.variables import VARIABLES

# Okabe and Ito's colours, told apart by colour-blind readers too.
_TERM, _SIDES, _HOLDS, _VIOLATED, _BOUNDED = "#0072B2", "#56B4E9", "#009E73", "#D55E00", "#000000"

_BOUNDS = (
    ("information_synthetic_learner", "bound_information_flow"),
    ("information_output_learner", "information_step"),
    ("information_synthetic_learner", "bound_chain_rule"),
    ("generalization_error", "bound_lemma_3_1"),
    ("estimation_gap", "bound_lemma_4_4"),
    ("estimation_gap", "bound_lemma_4_6"),
    ("generalization_error", "bound_synthetic"),
    ("generalization_error", "bound_synthetic_sharp"),
    ("generalization_error_anchor", "bound_anchor"),
    ("ggmi", "bound_ggmi"),
    ("ggmi", "bound_ggmi_corrected"),
)


def plot_terms(data: Any, probability: float = 0.94) -> np.ndarray:
    """Forest plot of all terms but bounds, in panels of informations, entropies and rates.

    Point: mean over worlds. Thick line: interval over worlds. Thin line: from the lower side to the
    upper side of the estimate, where it has two. A label says where the lower side is cut
    at the logarithm of the pairs in its sandwich, and in how many worlds a term is infinite.
    """
    posterior = group_datasets(data)["posterior"]
    estimators = json.loads(data.attrs.get("estimators", "{}"))
    panels: dict[str, list[str]] = {"information [nats]": [], "entropy [nats]": [], "rates": []}
    for name in map(str, posterior.data_vars):
        if name not in VARIABLES or name.startswith(("bound_", "slack_")):
            continue
        if name.endswith(("_mcse", "_lower", "_upper")):
            continue
        units = VARIABLES[name].units
        heading = "rates" if units != "nats" else "entropy [nats]"
        learned = ("information", "curation", "ggmi", "compression")
        if units == "nats" and name != "information_gain" and name.startswith(learned):
            heading = "information [nats]"
        if np.isfinite(posterior[name].values).any():
            panels[heading].append(name)
    heights = [max(1, len(names)) for names in panels.values()]
    _, axes = pyplot.subplots(
        len(panels),
        1,
        figsize=(9, 1.5 + 0.24 * sum(heights)),
        height_ratios=heights,
        layout="constrained",
    )
    for axis, (heading, names) in zip(axes, panels.items(), strict=True):
        for position, name in enumerate(reversed(names)):
            for side in ("_lower", "_upper"):
                if f"{name}{side}" in posterior:
                    ends = [posterior[name].values.mean(), posterior[f"{name}{side}"].values.mean()]
                    axis.plot(ends, [position] * 2, color=_SIDES, linewidth=1.2)
            _interval(axis, posterior[name].values, position, _TERM, probability)
        labels = [
            _label(name, posterior[name].values, estimators.get(name, ""))
            for name in reversed(names)
        ]
        axis.set_yticks(range(len(names)), labels, fontsize=8)
        axis.set_title(heading, fontsize=9, loc="left")
        axis.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    # λ and the vacuous rates span decades; what lies within [0, 1] should not vanish beside them.
    for axis, names in zip(axes, panels.values(), strict=True):
        axis.set_ylim(-0.6, max(1, len(names)) - 0.4)
        if axis is not axes[0]:
            axis.set_xscale("symlog", linthresh=1)
            axis.margins(x=0.05)  # of the axis as it is shown, and not as it was
    return np.asarray(axes)


def plot_bounds(data: Any, probability: float = 0.94) -> np.ndarray:
    """Every bound with what it bounds, one panel each; a violated one is named in its title.

    Verdicts are those of the audit: over worlds and, within each, over the Monte Carlo error.
    """
    posterior = group_datasets(data)["posterior"]
    # Where an upper side stands for I(e_M; W), the proof's step cannot be seen to fail.
    blind = "information_model_factor_learner" in json.loads(data.attrs.get("notes", "{}"))
    there = [
        (left, right)
        for left, right in _BOUNDS
        if left in posterior
        and right in posterior
        and np.isfinite(posterior[right].values).any()
        and not (blind and right == "information_step")
    ]
    if not there:
        raise ValueError("Expected bounds in the posterior group; got none")
    columns = min(2, len(there))
    lines = -(-len(there) // columns)
    _, axes = pyplot.subplots(
        lines,
        columns,
        figsize=(5.2 * columns, 1.25 * lines + 0.3),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat[len(there) :]:
        axis.set_visible(False)
    for axis, (left, right) in zip(axes.flat, there, strict=False):
        slack, error = (
            torch.as_tensor(np.array(posterior[f"slack_{right}{end}"].values))
            for end in ("", "_mcse")
        )
        probability_of_it = probability_holds(Estimate(slack, error, 1))
        word = verdict(probability_of_it)
        colour = _HOLDS if word == "holds" else _VIOLATED
        _interval(axis, posterior[left].values, 0, _BOUNDED, probability)
        _interval(axis, posterior[right].values, 1, colour, probability)
        said = word if word == "holds" else f"violated, P(holds) = {probability_of_it:.2f}"
        axis.set_title(f"{VARIABLES[right].equation}: {said}", fontsize=8, color=colour, loc="left")
        axis.set_yticks([0, 1], [left, right], fontsize=7)
        axis.set_ylim(-0.6, 1.6)
        axis.tick_params(axis="x", labelsize=7)
    return axes


def _label(name: str, draws: np.ndarray, estimator: str) -> str:
    infinite = int(np.isinf(draws).sum())
    if infinite:
        return f"{name} (∞ in {infinite} of {draws.size} worlds)"
    return f"{name} (lower side cut)" if "saturated" in estimator else name


def _interval(
    axis: Axes, draws: np.ndarray, position: int, colour: str, probability: float
) -> None:
    values = draws[np.isfinite(draws)].ravel()
    if values.size == 0:
        return
    if values.size > 1:
        low, high = highest_density_interval(values, probability)
        axis.plot([low, high], [position] * 2, color=colour, linewidth=3, alpha=0.5)
    axis.plot(values.mean(), position, "o", color=colour, markersize=4)
