"""Assess synthetic data: what it adds, how faithful it is, what is off-task, what it misses.

  rbpp assess --anchor seeds.jsonl --synthetic made.json --target held_out.jsonl \\
      --text-field instruction --rows rows.parquet --report report.html

Files are JSON, JSON Lines, CSV, Parquet, npy, npz, a folder of shards, or a data set on disk, of
text (--text-field), embeddings (--embedding-field) or numbers. --rows writes, for every row, the
probability that it is off-task, novel or redundant: filtering is then one line of pandas,

  rows = pandas.read_parquet("rows.parquet"); keep = rows[rows.off_task < 0.5]

--demo needs no file: documentation strings of Python's standard library are the task, and a small
language model trained on the spot is the generator, so that the true off-task share is known.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbpp import command, options, outputs
from rbpp.assessment.source_options import add_fields, add_stream, read_groups, streams

if TYPE_CHECKING:
    from rbpp.assessment.assessment import Assessment

_DATA = "a file or folder"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    real = parser.add_argument_group("real rows")
    real.add_argument(
        "--anchor",
        "--real",
        "--seeds",
        metavar="A",
        help=f"real rows that the generation started from: {_DATA}",
    )
    real.add_argument(
        "--target",
        "--holdout",
        metavar="T",
        help="real rows of the task, held out; the anchors stand in without them",
    )
    made = parser.add_argument_group("generated rows")
    made.add_argument(
        "--synthetic", "--filtered", metavar="S", help="generated rows, curated if they were"
    )
    made.add_argument(
        "--generated",
        metavar="G",
        help="--synthetic where that is not given, --output-rows where it is",
    )
    made.add_argument("--output-rows", metavar="O", help="generated rows before curation")
    made.add_argument("--unprompted", metavar="U", help="what the generator gives unprompted")
    made.add_argument(
        "--demo", action="store_true", help="assess the built-in corpus, whose truth is known"
    )
    add_fields(parser)
    parser.add_argument("--prompt-field", metavar="F", help="the prompt of every generated row")
    parser.add_argument(
        "--output-field", metavar="F", help="what was answered to it: ΔI and I(p; M(p)) follow"
    )
    options.add(parser, "--dimension")
    parser.add_argument(
        "--components", type=int, metavar="K", help="of the mixture of all rows; rows / 40, 4 to 20"
    )
    parser.add_argument("--chains", type=int, default=4, metavar="C", help="of the result (4)")
    parser.add_argument("--draws", type=int, default=250, metavar="N", help="per chain (250)")
    add_stream(parser)
    options.add_workers(parser)
    parser.add_argument(
        "--rows",
        metavar="FILE.parquet",
        type=options.parquet_file,
        help="write the table of all rows here",
    )
    options.add(parser, "--report", "--markdown", "--card")
    parser.add_argument("--open", action="store_true", help="open the report when it is written")
    marks = parser.add_argument_group(
        "rows that you mark: twenty of them settle what is off the task"
    )
    marks.add_argument(
        "--ask",
        metavar="FILE.csv",
        type=options.output_file,
        help="write the rows to mark here (rbpp mark FILE)",
    )
    marks.add_argument(
        "--ask-rows", type=options.positive_integer, default=20, metavar="N", help="of them (20)"
    )
    marks.add_argument("--marks", metavar="FILE.csv", type=Path, help="take the marks from here")
    options.add(parser, "--per-row")


def run(arguments: argparse.Namespace) -> command.Done:
    """Read, assess, and write what was asked for."""
    if arguments.open and arguments.report is None:
        raise ValueError("--open: expected --report FILE.html with it; got none")
    result, failures = _assessed(arguments)
    files: dict[Path, Callable[[Assessment, Path], object]] = {}
    if arguments.report is not None:
        from rbpp.assessment.report import write_report

        files[arguments.report] = partial(write_report, hdi_prob=arguments.hdi_prob)
    if arguments.markdown is not None or arguments.card is not None:
        from rbpp.assessment import markdown

        if arguments.markdown is not None:
            files[arguments.markdown] = partial(
                markdown.write, markdown.of_assessment, hdi_prob=arguments.hdi_prob
            )
        if arguments.card is not None:
            files[arguments.card] = partial(
                markdown.write, markdown.data_card, hdi_prob=arguments.hdi_prob
            )
    if arguments.ask is not None:
        files[arguments.ask] = lambda found, path: found.ask(path, arguments.ask_rows)
    written = [] if arguments.rows is None or failures else [arguments.rows]
    shown = arguments.report if arguments.open else None
    return command.Done(result, written=written, failures=failures, files=files, opened=shown)


def _assessed(arguments: argparse.Namespace) -> tuple[Assessment, list[str]]:
    """The assessment, with the table of all rows written where it was asked for, or why not."""
    from rbpp.assessment.assess import assess_sources, checked_roles
    from rbpp.assessment.sources import read_sources
    from rbpp.assessment.tables import write_rows
    from rbpp.assessment.weighted_rows import Draws

    corpus = None
    if arguments.demo:
        from rbpp.data.demo_corpus import demo_corpus

        corpus = demo_corpus(seed=arguments.seed)
    given: Mapping[str, Any] = _sources(arguments) if corpus is None else corpus.sources
    paths = {role: data for role, data in given.items() if data is not None}
    streamed = corpus is None and streams(arguments, list(paths.values()))
    fields, representation, sampling = read_groups(arguments, streamed=streamed)
    with options.open_compute(arguments) as compute:
        sources = read_sources(checked_roles(paths), fields, representation, sampling, compute)
        draws = Draws.per_chain(arguments.chains, arguments.draws, arguments.seed)
        result = assess_sources(
            sources, representation, draws, arguments.marks, arguments.components, compute
        )
        failures = []
        if arguments.rows is not None:
            try:
                result = write_rows(arguments.rows, sources, result, compute=compute)
            except OSError as error:  # what was found is not lost with it
                failures.append(outputs.failure(arguments.rows, error))
    if corpus is None:
        return result, failures
    from rbpp.assessment.source_checks import known_share

    least, most = (
        result.numbers[f"irrelevant_share_at_{end}"].value.item() for end in ("least", "most")
    )
    check = known_share(least, most, corpus.off_task_share)
    return replace(result, checks=(*result.checks, check)), failures


def _sources(arguments: argparse.Namespace) -> dict[str, Any]:
    synthetic, output = arguments.synthetic, arguments.output_rows
    if arguments.generated is not None:
        if synthetic is None:
            synthetic = arguments.generated
        elif output is None:
            output = arguments.generated
        else:
            raise ValueError("--generated: --synthetic and --output-rows are both given already")
    if synthetic is None:
        raise ValueError("Expected --synthetic (or --demo); got neither")
    if arguments.anchor is None and arguments.target is None:
        raise ValueError("Expected --anchor or --target; got neither")
    return {
        "anchor": arguments.anchor,
        "synthetic": synthetic,
        "target": arguments.target,
        "output": output,
        "unprompted": arguments.unprompted,
    }


if __name__ == "__main__":
    sys.exit(command.main([Path(__file__).stem, *sys.argv[1:]]))
