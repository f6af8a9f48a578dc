"""Every term and bound of a process, each bound audited beside what it bounds.

  rbpp bounds gaussian_mixture --set noise=0.2 --worlds 50
  rbpp bounds my_process.py --data synthetic=rows.npy --output bounds.nc --figures plots

PROCESS is a shipped process, a path to a file with a Pyro model, or module:attribute. Worlds are
draws from its prior, or from its posterior given rows (--data SITE=FILE, or --posterior FILE.nc of
`rbpp infer`): all else is conditional on the world. Every term has its Monte Carlo error
beside it, every information its two sides, every statement its assumptions with what was measured.

A violated statement is named and kept: the exit status is 0 whatever holds.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rbpp import command, options
from rbpp.theory.settings import LearnerChoice, LemmaConstants, SampleSizes

if TYPE_CHECKING:
    from rbpp.posterior.worlds import WorldPosterior
    from rbpp.processes.process import Process
    from rbpp.theory.bounds import Bounds


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    options.add(parser, "process", "--set")
    observed = parser.add_argument_group("posterior worlds instead of prior ones")
    observed.add_argument(
        "--posterior", type=Path, metavar="FILE.nc", help="that rbpp infer has written"
    )
    options.add(observed, "--data", "--seconds", "--accept")
    options.add_fields_of(parser, SampleSizes, "how much to draw")
    options.add_fields_of(parser, LemmaConstants, "constants of the lemmas")
    options.add_fields_of(parser, LearnerChoice, "the learner of W").add_argument(
        "--anchor-components",
        type=int,
        metavar="K",
        help="components of the mixture of W'; --components by default",
    )
    options.add(options.add_workers(parser), "--checkpoint")
    options.add(parser, "--per-row")


def run(arguments: argparse.Namespace) -> Bounds:
    """Terms, bounds, audit and figures of one process."""
    from rbpp.posterior.identity import digest, read_posterior
    from rbpp.processes.loading import parse_settings
    from rbpp.processes.process import load_process
    from rbpp.theory.bounds import bounds

    knobs = parse_settings(arguments.set)
    if arguments.posterior is not None and arguments.data:
        raise ValueError("Expected --posterior or --data; got both")
    posterior: WorldPosterior | Path | None = arguments.posterior
    if arguments.data:
        posterior = _posterior(arguments, load_process(arguments.process, **knobs))
        process = posterior.process
    elif posterior is not None:
        process, _ = read_posterior(posterior, arguments.process, knobs)
    else:
        process = load_process(arguments.process, **knobs)
    sizes = options.read_fields(arguments, SampleSizes)
    constants = options.read_fields(arguments, LemmaConstants)
    learner = options.read_fields(arguments, LearnerChoice)
    components = arguments.anchor_components or learner.components
    anchor_learner = LearnerChoice(learner.name, components, learner.noise)
    work = {
        "process": process.source,
        "code": digest(process),
        "knobs": process.knobs,
        "posterior": None if posterior is None else _posterior_digest(posterior),
        "sizes": asdict(sizes),
        "loss_bound": constants.loss_bound,
        "resolution": constants.resolution,
        "learner": asdict(learner),
        "anchor_learner": asdict(anchor_learner),
        "seed": arguments.seed,
    }
    with options.open_compute(arguments, work) as compute:
        return bounds(
            process,
            posterior=posterior,
            sizes=sizes,
            constants=constants,
            learner=learner,
            anchor_learner=anchor_learner,
            seed=arguments.seed,
            compute=compute,
        )


def _posterior(arguments: argparse.Namespace, process: Process) -> WorldPosterior:
    """The posterior given the rows of the command line."""
    from rbpp.compute import Compute
    from rbpp.posterior.rows import read_sites
    from rbpp.posterior.worlds import infer

    return infer(
        process,
        read_sites(arguments.data),
        seconds=arguments.seconds,
        accept=arguments.accept,
        seed=arguments.seed,
        compute=Compute(device=arguments.device, seed=arguments.seed),
    )


def _posterior_digest(posterior: WorldPosterior | Path) -> str | None:
    """Of the draws, by which a checkpoint knows them."""
    from rbpp import inference_data

    data = inference_data.read(posterior) if isinstance(posterior, Path) else posterior.idata
    assert data is not None
    values = inference_data.group_datasets(data)["sample_stats"]["lp"].values
    return hashlib.sha256(values.tobytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(command.main([Path(__file__).stem, *sys.argv[1:]]))
