"""Bound the generalization gap of real fine-tunes by conditional mutual information.

  rbpp cmi supersample.npz --figures plots
  rbpp cmi losses.npy masks.npy --loss-bound 8

losses (k, n, 2): loss of fine-tune k on the two rows of pair n. masks (k, n): which of the two, 0
or 1, it trained on, decided by a fair coin. Both in one .npz, or in two .npy files.

Every bound comes with its posterior, beside its plug-in estimate (as published, and corrected by
Miller and Madow), the same two with the masks of other fine-tunes (null: nothing is there to be
found, so what is found is the estimate's floor), and its slack, the bound less the gap. Each is a
theorem about any distribution of the losses, and so holds in every posterior draw; only the
interpolation bound needs a condition, which the checks name.

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
    options.add(parser, "--draws", default=250)
    parser.add_argument(
        "--permutations",
        type=options.positive_integer,
        default=20,
        metavar="N",
        help="permutations of the masks (20)",
    )


def run(arguments: argparse.Namespace) -> FineTuneBounds:
    """Read, infer, and set every bound beside the measured gap."""
    from rbpp.fine_tuning.fine_tunes import fine_tune_bounds
    from rbpp.fine_tuning.supersample import read_supersample

    data = read_supersample(arguments.losses, arguments.masks, loss_bound=arguments.loss_bound)
    with options.open_compute(arguments) as compute:
        return fine_tune_bounds(
            data,
            chains=arguments.chains,
            draws=arguments.draws,
            permutations=arguments.permutations,
            seed=arguments.seed,
            compute=compute,
        )


if __name__ == "__main__":
    sys.exit(command.main([Path(__file__).stem, *sys.argv[1:]]))
