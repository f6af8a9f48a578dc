"""The posterior of a process's world, given rows of some of its sites.

  rbpp infer linear_gaussian --data synthetic=rows.npy --output posterior.nc
  rbpp infer my_process.py --data anchor=real.npy --data synthetic=made.npy --seconds 120

PROCESS is the name of a shipped process, the path of a .py file, or module:attribute. Each --data
names a site of the chain and its rows: .npy, .npz, CSV, Parquet, JSON, JSON lines. A folder holds
one file per data set, and an array (R, rows, d) holds R of them: data sets share a world. The knobs
that set the numbers of rows are found and set.

--engine auto takes the normal approximation at the optimum where its importance weights can be
trusted, and many short Hamiltonian chains elsewhere; it says which and why. Draws that cannot be
trusted within --seconds are refused, with exit status 2, unless --accept is given.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rbpp import command, options

if TYPE_CHECKING:
    from rbpp.posterior.worlds import WorldPosterior


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    options.add(parser, "process", "--set")
    options.add(parser, "--data", required=True)
    parser.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="SITE",
        help="a latent site of the chain that the posterior shall have too; repeatable",
    )
    options.add_engine(
        parser,
        ("auto", "laplace", "hmc", "svi", "nuts"),
        "normal approximation, many short chains, a fitted guide, or Pyro's sampler",
    )
    parser.add_argument(
        "--guide",
        default="auto",
        metavar="G",
        help="of --engine svi: normal, multivariate, lowrank, flow, or FILE.py:NAME (auto)",
    )
    options.add(parser, "--draws", default=250)
    parser.add_argument(
        "--batch-rows",
        type=options.positive_integer,
        metavar="N",
        help="observed rows per step of --engine svi",
    )
    options.add(parser, "--seconds", "--accept")


def run(arguments: argparse.Namespace) -> WorldPosterior:
    """Read the rows and infer."""
    from rbpp.posterior.rows import read_sites
    from rbpp.posterior.worlds import infer
    from rbpp.processes.process import load_process, parse_settings

    process = load_process(arguments.process, **parse_settings(arguments.set))
    with options.open_compute(arguments) as compute:
        return infer(
            process,
            read_sites(arguments.data),
            keep=arguments.keep,
            engine=arguments.engine,
            guide=arguments.guide,
            draws=arguments.draws,
            seconds=arguments.seconds,
            accept=arguments.accept,
            batch_rows=arguments.batch_rows,
            seed=arguments.seed,
            compute=compute,
        )


if __name__ == "__main__":
    sys.exit(command.main([Path(__file__).stem, *sys.argv[1:]]))
