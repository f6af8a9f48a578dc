"""Draws of a generation process: worlds, and data sets in each.

PROCESS is the name of a shipped process, the path of a .py file, or module:attribute. With
--output the draws are written as InferenceData: one draw per world, the chain's sites in group
posterior_predictive. Knobs are set by --set NAME=VALUE; --knobs lists them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbpp import command, options

if TYPE_CHECKING:
    from rbpp.processes.process import Simulation


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    options.add_process(parser)
    parser.add_argument(
        "--worlds", type=options.positive_integer, default=1, metavar="N", help="worlds (1)"
    )
    parser.add_argument(
        "--replicates",
        type=options.positive_integer,
        default=1,
        metavar="N",
        help="data sets in each world (1)",
    )
    parser.add_argument("--knobs", action="store_true", help="list the knobs and stop")


def run(arguments: argparse.Namespace) -> command.Outcome:
    """Draw, and summarise each site."""
    from rbpp.display import align
    from rbpp.processes.process import load_process, parse_settings, simulate

    process = load_process(arguments.process, **parse_settings(arguments.set))
    settings = {"process": process.name, "source": process.source, "knobs": process.knobs}
    if arguments.knobs:
        lines = [["knob", "value"], *([name, repr(v)] for name, v in process.knobs.items())]
        return command.Outcome(settings=settings, text=align(lines))

    from rbpp.processes.draws import simulation_data

    simulation = simulate(
        process,
        worlds=arguments.worlds,
        replicates=arguments.replicates,
        seed=arguments.seed,
        device=arguments.device,
    )
    summaries = _summaries(simulation)
    shown = [
        [f"{v:.5g}" if isinstance(v, float) else str(v) for v in s.values()] for s in summaries
    ]
    return command.Outcome(
        data=simulation_data(simulation),
        settings=settings,
        extra={"sites": summaries},
        text=align([list(summaries[0]), *shown]),
    )


def _summaries(simulation: Simulation) -> list[dict[str, Any]]:
    """One line per site: where it stands, its shape, its moments over all draws."""
    process = simulation.process
    summaries = []
    for name, site in process.sites.items():
        groups = {
            "chain": simulation.sites,
            "world": simulation.world,
            "derived": simulation.derived,
        }
        role = next(role for role, group in groups.items() if name in group)
        value = groups[role][name].double()
        summaries.append(
            {
                "site": name,
                "role": role,
                "kind": "computed" if site.deterministic else "drawn",
                "plate": " in ".join(site.plates) or "-",
                "shape": "×".join(map(str, site.shape)) or "1",
                "mean": value.mean().item(),
                "sd": value.std(correction=0).item(),
            }
        )
    return summaries


if __name__ == "__main__":
    sys.exit(command.main([Path(__file__).stem, *sys.argv[1:]]))
