"""Information in a language model's outputs, from their log-probabilities.

  rbpp score --model MODEL --prompts prompts.jsonl --output-rows outputs.jsonl --scores scores.npz
  rbpp channel scores.npz --per-token --units bits --rows rows.parquet

FILE has log p(output | prompt) in nats of every output under its own prompt and under others: .npz,
Parquet or JSON Lines with log_prob (outputs × prompts), prompt (the index of each output's own,
from 0), and where they are known others, tokens, log_prob_unprompted, path_entropy and kept; or
JSON Lines of answers of vLLM and of servers like OpenAI's. docs/how_to/log_probabilities.md shows
how to get either.

information_gain is H(M(p) | p), what outputs have beyond their prompt; information_prompt_output is
I(p; M(p)) from both sides, the lower of which cannot exceed log(1 + M) of M other prompts: where it
is near that, the sides are given and no value. entropy_output is their sum. Prompts are the units:
intervals are of the Bayesian bootstrap of prompts, all outputs of one together. --rows writes for
every output its surprise, what its prompt says of it, and whether it ignores or all but copies it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rbpp import command, options


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    parser.add_argument("scores", metavar="FILE", help="of log-probabilities")
    per = parser.add_mutually_exclusive_group()
    per.add_argument(
        "--per-row", action="store_true", help="information per output instead of per data set"
    )
    per.add_argument(
        "--per-token", action="store_true", help="information per token instead of per data set"
    )
    options.add(parser, "--draws")
    parser.add_argument(
        "--rows",
        metavar="FILE.parquet",
        type=options.parquet_file,
        help="write the table of all outputs here",
    )
    parser.add_argument(
        "--leave-out-impossible",
        action="store_true",
        help="leave out outputs that are impossible under their own prompt, in place of refusing",
    )


def run(arguments: argparse.Namespace) -> command.Done:
    """Read, and give every information that the log-probabilities have."""
    from rbpp.channel.information import channel_information
    from rbpp.channel.read import read_log_probabilities

    data = read_log_probabilities(
        arguments.scores, leave_out_impossible=arguments.leave_out_impossible
    )
    with options.open_compute(arguments) as compute:
        found = channel_information(
            data,
            per_token=arguments.per_token,
            draws=arguments.draws,
            seed=compute.seed,
            compute=compute,
        )
    files = {} if arguments.rows is None else {arguments.rows: type(found).write_rows}
    return command.Done(found, files=files)


if __name__ == "__main__":
    sys.exit(command.main([Path(__file__).stem, *sys.argv[1:]]))
