"""Log-probabilities of outputs under prompts, by a local language model.

  rbpp score --model MODEL --prompts prompts.jsonl --output-rows outputs.jsonl --scores scores.npz
  rbpp channel scores.npz

MODEL is a causal model of transformers on this machine (pip install transformers accelerate gguf):
a folder with safetensors, a .gguf file, or a name that the cache has. Every output is scored under
its own prompt, under --others M prompts drawn at random, and without a prompt. Outputs are of the
prompts in order, or name theirs in the field `prompt` (--own-field), by its text or its number from
0.

ΔI is that of the distribution that the outputs were drawn from: give the --temperature, --top-p and
--top-k of that time. An output that these make impossible is counted and named. A run that was cut
off goes on where it stopped when it is started again.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from rbpp import command, options


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    from rbpp.channel.score_settings import ScoreSettings

    what = parser.add_argument_group("what is scored, and where to")
    what.add_argument(
        "--model", required=True, metavar="PATH", help="folder, .gguf file or cached name"
    )
    what.add_argument("--prompts", required=True, metavar="F", help="texts or chat messages")
    what.add_argument("--output-rows", required=True, metavar="F", help="what the model answered")
    what.add_argument(
        "--scores",
        required=True,
        metavar="FILE.npz",
        type=options.output_file,
        help="write the log-probabilities here",
    )
    options.add(what, "--checkpoint")
    options.add_fields_of(parser, ScoreSettings, "of which distribution, and how")


def run(arguments: argparse.Namespace) -> command.Done:
    """Read, score, and write the log-probabilities."""
    from rbpp.channel.score import score_rows
    from rbpp.channel.score_settings import ScoreSettings

    folder = arguments.checkpoint or Path(f"{arguments.scores}.part")
    given = argparse.Namespace(**{**vars(arguments), "checkpoint": folder})
    done = False
    try:
        with options.open_compute(given) as compute:
            found = score_rows(
                arguments.model,
                arguments.prompts,
                arguments.output_rows,
                settings=options.read_fields(arguments, ScoreSettings),
                compute=compute,
            )
        following = f"Next: rbpp channel {arguments.scores} has every information in them."
        found = replace(found, headline=(*found.headline, following))
        found.write(arguments.scores)
        done = True
    finally:
        # What is done is kept for the next try, if that is not what --checkpoint is for.
        if arguments.checkpoint is None and (done or not list(folder.glob("*.npz"))):
            shutil.rmtree(folder, ignore_errors=True)
    return command.Done(found, written=[arguments.scores])


if __name__ == "__main__":
    sys.exit(command.main([Path(__file__).stem, *sys.argv[1:]]))
