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
from pathlib import Path
from typing import Any

from rbpp import command, options
from rbpp.sources.source_options import (
    add_fields,
    add_fits,
    add_stream,
    read_options,
    stream_options,
    streams,
)

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
        "--rows", metavar="FILE.parquet", type=Path, help="write the table of all rows here"
    )
    parser.add_argument(
        "--report", metavar="FILE.html", type=Path, help="write the report here, one HTML file"
    )
    options.add_per_row(parser)


def run(arguments: argparse.Namespace) -> command.Outcome:
    """Read, assess, and write what was asked for."""
    command.check_writable("--rows", arguments.rows)
    command.check_writable("--report", arguments.report)
    corpus = None
    if arguments.demo:
        from rbpp.data.demo_corpus import demo_corpus

        corpus = demo_corpus(seed=arguments.seed)
    given = corpus.sources if corpus is not None else _sources(arguments)
    result = _assessed(arguments, given)
    written = [] if arguments.rows is None else [f"written: {arguments.rows}"]
    if arguments.report is not None:
        from rbpp.sources.report import write_report

        write_report(result, arguments.report, hdi_prob=arguments.hdi_prob)
        written.append(f"written: {arguments.report}")
    counts = result.settings["rows"]
    rows = {"synthetic": counts["synthetic"], "anchor": counts.get("anchor", counts["synthetic"])}
    # Learners leave a pilot out: their informations are about fewer rows.
    for role, count in result.settings["learner_rows"].items():
        owned = (f"information_{role}_learner", *(["ggmi"] if role == "synthetic" else []))
        rows |= {name: count for name in result.data["posterior"] if name.startswith(owned)}
    audit = list(result.audit)
    if corpus is not None:
        audit.append(_check(result, corpus.off_task_share))
    answers = [f"{line['question']:22} {line['sentence']}" for line in result.answers]
    return command.Outcome(
        data=result.data,
        audit=audit,
        settings=result.settings,
        extra={
            "answers": result.answers,
            "components": result.components.reset_index().to_dict("records"),
            "sensitivity": result.sensitivity.to_dict("records"),
        },
        notes="\n".join([*answers, *written]),
        rows=rows,
        figures=_figures(result),
    )


def _assessed(arguments: argparse.Namespace, given: dict[str, Any]) -> Any:
    """The assessment, with the table of all rows written where it was asked for."""
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
                mapper=compute.workers,
                **stream_options(arguments),
            )
        result = assess(
            **given,
            prompt_field=arguments.prompt_field,
            output_field=arguments.output_field,
            engine=arguments.engine,
            mapper=compute.workers,
            **read_options(arguments),
        )
    if arguments.rows is not None:
        result.rows.to_parquet(arguments.rows, index=False)
    return result


def _figures(result: Any) -> dict[str, Any]:
    from rbpp import plots
    from rbpp.sources.report_figures import plot_map

    names = map(str, result.data["posterior"])
    shares = [name for name in names if name.endswith(("_share", "_divergence"))]
    return {
        "map": lambda: plot_map(result.rows, result.components, result.axes),
        "shares": lambda: plots.plot_forest(result.data, shares),
    }


def _check(result: Any, truth: float) -> dict[str, Any]:
    """Whether the interval holds the off-task share that the generator recorded."""
    from rbpp.inference_data import term_table

    found = term_table(result.data)["irrelevant_share"]
    low, high = found["hdi_low"], found["hdi_high"]
    assert low is not None
    assert high is not None
    return {
        "name": "true off-task share",
        "holds": low <= truth <= high,
        "measured": truth,
        "message": f"the generator recorded {truth:.1%} off-task rows, and the 94 % interval is "
        f"[{low:.1%}, {high:.1%}]",
    }


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
