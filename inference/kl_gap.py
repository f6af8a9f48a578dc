"""The paper's Figure 4: the KL gap as K, J or L grows, exact and with its uncertainty."""

from __future__ import annotations

import argparse
import sys

from rbpp import command, options


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    parser.add_argument(
        "--vary",
        default="K",
        help="the swept knob: K, J, L or any knob of gaussian_mixture; several with commas (K)",
    )
    parser.add_argument(
        "--values", default="2..15", type=parse_values, help="its values, as 2..15 or 2,5,8 (2..15)"
    )
    parser.add_argument("--worlds", type=int, default=100, help="worlds at each value (100)")
    parser.add_argument(
        "--posterior-draws", type=int, default=8, help="posterior draws of each fitted mixture (8)"
    )
    parser.add_argument(
        "--points", type=int, default=512, help="quasi-random points of each divergence (512)"
    )
    parser.add_argument(
        "--histogram-redraws",
        type=options.whole_number,
        default=0,
        metavar="N",
        help="add the reference script's histogram estimator, averaged over N redraws (paper: 100)",
    )
    options.add_knobs(parser)
    options.add_checkpoint(options.add_workers(parser))


def parse_values(text: str) -> list[int]:
    """The whole numbers that `2..15` or `2,5,8` stand for."""
    try:
        if ".." in text:
            first, last = (int(part) for part in text.split(".."))
            values = list(range(first, last + 1))
        else:
            values = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected values as 2..15 or 2,5,8; got {text!r}"
        ) from None
    if not values:
        raise argparse.ArgumentTypeError(f"expected at least one value; got {text!r}")
    return values


def run(arguments: argparse.Namespace) -> command.Outcome:
    """Sweep every named knob, and draw its column of the figure."""
    from rbpp import kl_gap_study as study
    from rbpp import plots
    from rbpp.processes.loading import parse_settings

    names = arguments.vary.split(",")
    if len(set(names)) != len(names):
        raise ValueError(f"--vary: expected every knob once; got {arguments.vary}")
    settings = {
        "worlds": arguments.worlds,
        "posterior_draws": arguments.posterior_draws,
        "points": arguments.points,
        "histogram_redraws": arguments.histogram_redraws,
        "seed": arguments.seed,
        **parse_settings(arguments.set),
    }
    with options.open_compute(arguments, settings) as compute:
        sweeps = {
            knob: study.sweep(
                knob,
                arguments.values,
                **settings,
                device=arguments.device,
                quiet=arguments.quiet,
                mapper=compute.workers,
                checkpoint=compute.checkpoint,
            )
            for knob in names
        }
    return command.Outcome(
        data=sweeps if len(sweeps) > 1 else next(iter(sweeps.values())),
        figures={"kl_gap": lambda: plots.plot_kl_gap(sweeps).flat[0].figure},
        text=study.sweep_table(sweeps),
    )


if __name__ == "__main__":
    sys.exit(command.main(["kl-gap", *sys.argv[1:]]))
