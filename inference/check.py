"""Hold a generation process to its contract: sites, plates, Markov structure, batches.

  rbpp check gaussian_mixture
  rbpp check my_process.py --set temperature=0.7 --tries 100

PROCESS is the name of a shipped process, the path of a .py file, or module:attribute. Each rule
holds, is violated, or is unknown where the check could not see. Exit status: 0 if nothing that the
contract demands is violated, 2 otherwise. The rule `invertible` is an assumption of some results
only.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rbpp import command, options


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    options.add(parser, "process", "--set")
    parser.add_argument(
        "--tries",
        type=options.positive_integer,
        default=25,
        metavar="N",
        help="interventions per site; more see rarer branches (25)",
    )


def run(arguments: argparse.Namespace) -> command.Done:
    """Check every rule."""
    from rbpp.processes.contract import check
    from rbpp.processes.process import load_process, parse_settings

    process = load_process(arguments.process, **parse_settings(arguments.set))
    with options.open_compute(arguments) as compute:
        contract = check(process, tries=arguments.tries, seed=compute.seed, compute=compute)
    if not contract.violated:
        return command.Done(contract)
    remark = f"{process.name} violates the contract: {contract.reasons()}"
    return command.Done(contract, exit_status=2, remarks=[remark])


if __name__ == "__main__":
    sys.exit(command.main([Path(__file__).stem, *sys.argv[1:]]))
