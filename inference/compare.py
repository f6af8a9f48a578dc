"""Compare synthetic data sets by what they are to one set of real rows, and rank them.

  rbpp compare first.json second.json --reference held_out.jsonl --text-field instruction \\
      --fail-if "irrelevant_share > 0.1 with 0.9"

Versions are named by their files. The score is the KL gap, and without --anchor its part that
differs between versions: a larger score is better. Exit status 1 if a condition of --fail-if holds
for some version ("NAME: CONDITION" asks of one alone), 0 if none does, 2 on bad input.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rbpp import command, options
from rbpp.assessment.source_options import (
    add_fields,
    add_fits,
    add_stream,
    read_options,
    stream_options,
    streams,
)

CONDITION_HOLDS = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    parser.add_argument("versions", nargs="+", metavar="FILE", help="synthetic rows, two or more")
    parser.add_argument(
        "--reference",
        "--target",
        "--holdout",
        required=True,
        metavar="T",
        help="real rows of the task",
    )
    parser.add_argument(
        "--anchor", "--real", "--seeds", metavar="A", help="real rows the generation started from"
    )
    parser.add_argument(
        "--fail-if",
        action="append",
        default=[],
        metavar="CONDITION",
        help='exit with status 1 if it holds, as "irrelevant_share > 0.1 with 0.9"',
    )
    parser.add_argument(
        "--equivalent-share",
        type=float,
        default=0.02,
        metavar="E",
        help="differences of shares and divergences within E are none in practice (0.02)",
    )
    parser.add_argument(
        "--equivalent-nats",
        type=float,
        default=0.1,
        metavar="E",
        help="differences of nats per row within E are none in practice (0.1)",
    )
    parser.add_argument(
        "--no-shares", action="store_true", help="rank only: no shares and divergences"
    )
    add_fields(parser)
    add_fits(parser)
    add_stream(parser)
    options.add_workers(parser)


def run(arguments: argparse.Namespace) -> command.Done:
    """Read, compare, and decide the exit status."""
    from rbpp.sources.compare import compare, name_versions
    from rbpp.sources.comparison import check_condition
    from rbpp.sources.streamed import compare_streams

    names = list(name_versions(arguments.versions))
    for condition in arguments.fail_if:  # before the work and not after it
        check_condition(condition, names)
    anchor = [] if arguments.anchor is None else [arguments.anchor]
    streamed = streams(arguments, [*arguments.versions, arguments.reference, *anchor])
    with options.open_compute(arguments) as compute:
        common: dict[str, Any] = {
            "versions": arguments.versions,
            "reference": arguments.reference,
            "anchor": arguments.anchor,
            "equivalent_share": arguments.equivalent_share,
            "equivalent_nats": arguments.equivalent_nats,
            "shares": not arguments.no_shares,
            "hdi_prob": arguments.hdi_prob,
            "compute": compute,
        }
        if streamed:
            result = compare_streams(**common, **stream_options(arguments))
        else:
            result = compare(**common, **read_options(arguments))
    result = result.asked(arguments.fail_if)
    return command.Done(result, CONDITION_HOLDS if any(result.fail_if.values()) else 0)


if __name__ == "__main__":
    sys.exit(command.main([Path(__file__).stem, *sys.argv[1:]]))
