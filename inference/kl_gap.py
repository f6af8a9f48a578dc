"""The paper's Figure 4: the KL gap as K, J or L grows, exact and with its uncertainty.

  rbpp kl-gap --vary K,J,L --figures plots
  rbpp kl-gap --vary L --values 2,5,8 --worlds 20

A gap above zero says that a mixture fitted to the synthetic rows is nearer to the generator than
one fitted to the anchors. --checkpoint goes on where a sweep was cut off, to the same numbers.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

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
    for option, default, text in (
        ("--worlds", 100, "worlds at each value"),
        ("--posterior-draws", 8, "posterior draws of each fitted mixture"),
        ("--points", 512, "quasi-random points of each divergence"),
    ):
        parser.add_argument(
            option,
            type=options.positive_integer,
            default=default,
            metavar="N",
            help=f"{text} ({default})",
        )
    parser.add_argument(
        "--histogram-redraws",
        type=options.whole_number,
        default=0,
        metavar="N",
        help="add the reference script's histogram estimator, averaged over N redraws (paper: 100)",
    )
    options.add(parser, "--set")
    options.add(options.add_workers(parser), "--checkpoint")


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


def run(arguments: argparse.Namespace) -> command.Done:
    """A study of every named knob, and one figure of all."""
    from rbpp.kl_gap_study import study
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
        found = {knob: study(knob, arguments.values, compute=compute, **settings) for knob in names}

    def draw() -> Any:
        from rbpp import plots

        return plots.plot_studies(found, arguments.hdi_prob)

    return command.Done(
        found if len(found) > 1 else found[names[0]],
        figures={"kl_gap": draw},
    )


if __name__ == "__main__":
    sys.exit(command.main(["kl-gap", *sys.argv[1:]]))
