"""Bound the generalization gap of real fine-tunes by conditional mutual information.

  rbpp cmi supersample.npz --figures plots
  rbpp cmi losses.npy masks.npy --loss-bound 8

losses (k, n, 2): loss of fine-tune k on the two rows of pair n. masks (k, n): which of the two, 0
or 1, it trained on, decided by a fair coin. Both in one .npz, or in two .npy files.

Every bound comes with its posterior, beside its plug-in estimate (as published, and corrected by
Miller and Madow), the same two with the masks of other fine-tunes (null: nothing is there to be
found, so what is found is the estimate's floor), and its slack, the bound less the gap. Each is a
theorem about whatever law the losses have, and so holds in every posterior draw; the interpolation
bound alone holds under a condition, which the audit names.

With few fine-tunes no estimate has much to go on: at k = 2 a row was trained on once, or never, and
the bounds that look at single rows lean on the prior, those that pool all rows do not.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rbpp import command, options

if TYPE_CHECKING:
    from rbpp.fine_tuning.fine_tunes import FineTuneBounds


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    parser.add_argument("losses", metavar="LOSSES", help="a .npz of losses and masks, or a .npy")
    parser.add_argument("masks", metavar="MASKS", nargs="?", help="a .npy of masks")
    parser.add_argument(
        "--loss-bound",
        type=options.positive_number,
        metavar="C",
        help="losses lie in [0, C] (1)",
    )
    parser.add_argument(
        "--chains", type=options.positive_integer, default=4, metavar="N", help="restarts (4)"
    )
    parser.add_argument(
        "--draws",
        type=options.positive_integer,
        default=250,
        metavar="N",
        help="posterior draws per chain (250)",
    )
    parser.add_argument(
        "--permutations",
        type=options.positive_integer,
        default=20,
        metavar="N",
        help="permutations of the masks (20)",
    )


def run(arguments: argparse.Namespace) -> command.Outcome:
    """Read, infer, and set every bound beside the measured gap."""
    from rbpp.fine_tuning.fine_tune_figure import plot_fine_tune_bounds
    from rbpp.fine_tuning.fine_tunes import fine_tune_bounds
    from rbpp.fine_tuning.supersample import read_supersample

    data = read_supersample(arguments.losses, arguments.masks, loss_bound=arguments.loss_bound)
    found = fine_tune_bounds(
        data,
        chains=arguments.chains,
        draws=arguments.draws,
        permutations=arguments.permutations,
        seed=arguments.seed,
        quiet=arguments.quiet,
    )
    return command.Outcome(
        data=found.data,
        audit=found.audit,
        settings=found.settings,
        figures={
            "cmi": lambda: plot_fine_tune_bounds(found.data, hdi_prob=arguments.hdi_prob),
        },
        extra={"bounds": found.comparison, "measured_gap": found.settings["measured_gap"]},
        notes=comparison_table(found),
    )


def comparison_table(found: FineTuneBounds) -> str:
    """Every bound beside its other estimates, one a line."""
    from rbpp.display import align
    from rbpp.inference_data import term_table

    terms = term_table(found.data)
    columns = ("plug_in", "corrected", "null", "null_plug_in", "slack")
    lines = [["bound", "mean", *(name.replace("_", " ") for name in columns)]]
    for name, others in found.comparison.items():
        mean = terms[name]["mean"]
        lines.append(
            [name, *(f"{value:.3f}" for value in (mean, *(others[column] for column in columns)))]
        )
    return f"{align(lines)}\n\nmeasured gap: {found.settings['measured_gap']:.4g}"


if __name__ == "__main__":
    sys.exit(command.main([Path(__file__).stem, *sys.argv[1:]]))
