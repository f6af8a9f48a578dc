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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbpp import command, options
from rbpp.sources.source_options import (
    add_fields,
    add_fits,
    add_stream,
    read_options,
    stream_options,
    streams,
)

if TYPE_CHECKING:
    from rbpp.sources.assessment import Assessment

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
    add_fits(parser)
    add_stream(parser)
    options.add_engine(
        parser,
        ("cavi", "svi"),
        "of the shared mixture: coordinate ascent, or Pyro's stochastic gradients",
    )
    options.add_workers(parser)
    parser.add_argument(
        "--rows",
        metavar="FILE.parquet",
        type=options.output_file,
        help="write the table of all rows here",
    )
    parser.add_argument(
        "--report",
        metavar="FILE.html",
        type=options.output_file,
        help="write the report here, one HTML file",
    )
    options.add_per_row(parser)


def run(arguments: argparse.Namespace) -> command.Done:
    """Read, assess, and say how to write what was asked for."""
    streamed = not arguments.demo and streams(
        arguments, [data for data in _sources(arguments).values() if data is not None]
    )
    result = _demo(arguments) if arguments.demo else _assessed(arguments, _sources(arguments))
    files: dict[Path, Callable[[Path], None]] = {}
    if arguments.rows is not None and not streamed:
        files[arguments.rows] = lambda path: result.rows.to_parquet(path, index=False)
    if arguments.report is not None:
        from rbpp.sources.report import render

        files[arguments.report] = lambda path: _write(
            path, render(result, hdi_prob=arguments.hdi_prob)
        )
    return command.Done(
        result, written=[arguments.rows] if streamed and arguments.rows else [], files=files
    )


def _write(path: Path, page: str) -> None:
    path.write_text(page, encoding="utf-8")


def _demo(arguments: argparse.Namespace) -> Assessment:
    """The assessment of the built-in corpus, checked against its true share."""
    from rbpp.data.demo_corpus import demo_corpus
    from rbpp.sources.findings import known_share

    corpus = demo_corpus(seed=arguments.seed)
    result = _assessed(arguments, corpus.sources)
    check = known_share(result.terms["irrelevant_share"], corpus.off_task_share)
    return replace(result, checks=(*result.checks, check))


def _assessed(arguments: argparse.Namespace, given: Mapping[str, Any]) -> Assessment:
    """The assessment; of streamed sources the table of all rows is written on the way."""
    from rbpp.sources.assess import assess
    from rbpp.sources.streamed import assess_streams

    paths = {role: data for role, data in given.items() if data is not None}
    streamed = not arguments.demo and streams(arguments, list(paths.values()))
    with options.open_compute(arguments) as compute:
        if streamed:
            return assess_streams(
                paths,
                rows_file=arguments.rows,
                engine=arguments.engine,
                compute=compute,
                **stream_options(arguments),
            )
        return assess(
            **given,
            prompt_field=arguments.prompt_field,
            output_field=arguments.output_field,
            engine=arguments.engine,
            compute=compute,
            **read_options(arguments),
        )


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
