"""The figure: both sides of every inequality, and who ordered the cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from .measured import ALIKE, INEQUALITIES, LARGE, SMALL


def draw(sides: pd.DataFrame, ranks: pd.DataFrame, path: Path) -> None:
    """Left: every inequality, both sides over the cells. Right: who ordered them."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 6), constrained_layout=True)
    names = list(INEQUALITIES)[::-1]
    for place, statement in enumerate(names):
        part = sides[sides["statement"] == statement]
        for offset, column, colour in ((0.15, "left", "tab:blue"), (-0.15, "right", "tab:red")):
            values = part[column].to_numpy()
            values = values[values > 0]
            jitter = np.random.default_rng(0).uniform(-0.1, 0.1, len(values))
            left.plot(values, place + offset + jitter, ".", ms=2.5, alpha=0.5, color=colour)
    left.set_xscale("log")
    left.set_yticks(range(len(names)), names)
    left.set_xlabel(
        "nats a token; Lemma 4.5, chain rule, Theorem 4.10: nats a data set", fontsize=9
    )
    left.set_title("Left sides (blue) and bounds (red) of every cell", fontsize=10)
    part = ranks[ranks["group"] == SMALL].sort_values("rho")
    for place, row in enumerate(part.itertuples()):
        colour = "tab:gray" if row.kind == "baseline" else "tab:purple"
        right.plot([row.low, row.high], [place, place], color=colour)
        right.plot(row.rho, place, "o", color=colour)
    for group, mark, colour in ((ALIKE, "^", "tab:green"), (LARGE, "x", "tab:orange")):
        other = ranks[ranks["group"] == group].set_index("predictor")["rho"]
        places = [place for place, name in enumerate(part["predictor"]) if name in other.index]
        values = [other[part["predictor"].iloc[place]] for place in places]
        right.plot(values, places, mark, ms=5, color=colour, label=group.split(", ")[-1])
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, fontsize=8)
    right.axvline(0, color="black", lw=0.8)
    right.set_yticks(range(len(part)), part["predictor"])
    right.set_xlim(-1, 1)
    right.set_xlabel("Spearman's ρ with the measured loss, in the sense predicted", fontsize=9)
    right.set_title("Order of all small cells: rbpp purple, baselines grey", fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)
