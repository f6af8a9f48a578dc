"""Rank synthetic data sets by what they teach about real rows, before one of them is trained on.

  rbpp compare first.json second.json --reference held_out.jsonl --text-field headline \\
      --label-field sentiment --report report.html --fail-if "irrelevant_share > 0.1 with 0.9"

Versions are named by their files. The score is the log-probability, in nats a row, that what is
learned from a version gives the reference: of the label given the text with --label-field, of the
output given the prompt with --prompt-field and --output-field, else of the text, which predicts
little. Where the reference lacks labels, the other versions' predictions stand in. Shares off the
task and missed, divergences, copies and labels stand beside the score and are not added to it.

--store keeps what a later run needs to rank a new version beside these without them:

  rbpp compare third.json --reference held_out.jsonl … --against stored.json --store stored.json

Exit status 1 if a condition of --fail-if holds for some version ("NAME: CONDITION" asks of one
alone), 0 if none does, 2 on bad input. A condition asks, with a probability as above,

"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rbpp import command, options
from rbpp.assessment.conditions import check_condition, explained, names_for
from rbpp.assessment.source_options import add_fields, add_stream, read_groups, streams

if TYPE_CHECKING:
    from rbpp.assessment.comparison import Comparison

CONDITION_HOLDS = 1
__doc__ = f"{__doc__.rstrip()}\n\n{explained()}"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    parser.add_argument("versions", nargs="+", metavar="FILE", help="synthetic rows, two or more")
    parser.add_argument(
        "--reference",
        "--target",
        "--holdout",
        required=True,
        metavar="T",
        help="real rows of the task that no version was made from",
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
    options.add(parser, "--report", "--markdown")
    parser.add_argument(
        "--store",
        metavar="FILE.json",
        type=options.output_file,
        help="keep what --against of a later run needs",
    )
    parser.add_argument(
        "--against",
        metavar="FILE.json",
        type=Path,
        help="rank beside the versions of an earlier run; one new version is enough",
    )
    parser.add_argument(
        "--equivalent-nats",
        type=float,
        default=0.02,
        metavar="E",
        help="differences of scores within E nats a row are none in practice (0.02)",
    )
    parser.add_argument(
        "--equivalent-share",
        type=float,
        default=0.02,
        metavar="E",
        help="differences of shares within E are none in practice (0.02)",
    )
    parser.add_argument(
        "--no-shares", action="store_true", help="rank only: no shares and divergences"
    )
    add_fields(parser)
    for option, text in _FIELDS.items():
        parser.add_argument(option, metavar="F", help=text)
    options.add(parser, "--dimension")
    parser.add_argument(
        "--draws", type=int, default=500, metavar="N", help="of each of four chains (500)"
    )
    add_stream(parser)
    options.add_workers(parser)


_FIELDS = {
    "--prompt-field": "the prompt of every row",
    "--output-field": "what is answered to it",
    "--generator-field": "what made the rows: versions of one generator share one vote",
}


def run(arguments: argparse.Namespace) -> command.Done:
    """Read, compare, write what was asked for, and decide the exit status."""
    from rbpp.assessment.compare import compare
    from rbpp.assessment.ranking import Decision
    from rbpp.assessment.versions import name_versions, read_record

    record = None if arguments.against is None else read_record(arguments.against)
    names = list(name_versions(arguments.versions, least=2 if record is None else 1))
    known = names_for(
        shares=not arguments.no_shares,
        anchor=arguments.anchor is not None,
        labels=arguments.label_field is not None,
    )
    old = [] if record is None else list(record["sets"])
    for condition in arguments.fail_if:  # before the work and not after it
        check_condition(condition, [*old, *names], known)
    decision = Decision(arguments.hdi_prob, arguments.equivalent_nats, arguments.equivalent_share)
    paths = [arguments.reference, arguments.anchor, *arguments.versions]
    streamed = streams(arguments, [path for path in paths if path is not None])
    fields, representation, sampling = read_groups(arguments, streamed=streamed)
    with options.open_compute(arguments) as compute:
        result = compare(
            arguments.versions,
            arguments.reference,
            anchor=arguments.anchor,
            fields=fields,
            representation=representation,
            sampling=sampling,
            against=record,
            shares=not arguments.no_shares,
            decision=decision,
            draws=arguments.draws,
            seed=arguments.seed,
            compute=compute,
        )
    result = result.asked(arguments.fail_if)
    files: dict[Path, Callable[[Comparison, Path], object]] = {}
    if arguments.store is not None:
        files[arguments.store] = type(result).store
    if arguments.report is not None:
        from rbpp.assessment.report import write_report

        files[arguments.report] = partial(write_report, hdi_prob=arguments.hdi_prob)
    if arguments.markdown is not None:
        from rbpp.assessment import markdown

        files[arguments.markdown] = partial(
            markdown.write, markdown.of_comparison, hdi_prob=arguments.hdi_prob
        )
    status = CONDITION_HOLDS if any(result.fail_if.values()) else 0
    return command.Done(result, status, files=files)


if __name__ == "__main__":
    sys.exit(command.main([Path(__file__).stem, *sys.argv[1:]]))
