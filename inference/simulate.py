"""Draws of a generation process: worlds, and data sets in each.

  rbpp simulate linear_gaussian --worlds 100 --output draws.nc
  rbpp simulate my_process.py --knobs

PROCESS is the name of a shipped process, the path of a .py file, or module:attribute. With
--output the draws are written as InferenceData: the worlds in group prior, one draw each, the
chain's sites in prior_predictive. Knobs are set by --set NAME=VALUE; --knobs lists them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rbpp import command, options

if TYPE_CHECKING:
    from rbpp.result import Result


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    options.add(parser, "process", "--set")
    parser.add_argument(
        "--worlds", type=options.positive_integer, default=1, metavar="N", help="worlds (1)"
    )
    parser.add_argument(
        "--replicates",
        type=options.positive_integer,
        default=1,
        metavar="N",
        help="data sets in each world (1)",
    )
    parser.add_argument("--knobs", action="store_true", help="list the knobs and stop")


def run(arguments: argparse.Namespace) -> Result:
    """Draw, and summarise each site."""
    from rbpp.processes.process import load_process, parse_settings
    from rbpp.processes.simulation import knobs_of, simulate

    process = load_process(arguments.process, **parse_settings(arguments.set))
    if arguments.knobs:
        return knobs_of(process)
    with options.open_compute(arguments) as compute:
        return simulate(
            process,
            worlds=arguments.worlds,
            replicates=arguments.replicates,
            seed=arguments.seed,
            compute=compute,
        )


if __name__ == "__main__":
    sys.exit(command.main([Path(__file__).stem, *sys.argv[1:]]))
