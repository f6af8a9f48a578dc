"""Hold a generation process to its contract: sites, plates, Markov structure, batches.

PROCESS is the name of a shipped process, the path of a .py file, or module:attribute. Each rule is
consistent, violated, or inconclusive where the check could not see. Exit status: 0 if nothing that
the contract demands is violated, 2 otherwise. Rules marked * are assumptions of some results only.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rbpp import command, options


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    options.add_process(parser)
    parser.add_argument(
        "--tries",
        type=options.positive_integer,
        default=25,
        metavar="N",
        help="interventions per site; more see rarer branches (25)",
    )


def run(arguments: argparse.Namespace) -> command.Outcome:
    """Check every rule."""
    from rbpp.display import align
    from rbpp.processes.contract import check, violations
    from rbpp.processes.process import load_process, parse_settings

    process = load_process(arguments.process, **parse_settings(arguments.set))
    findings = check(process, tries=arguments.tries, seed=arguments.seed)
    lines = [
        [f.rule + ("" if f.required else " *"), f.place, f.verdict, " ".join(f.message.split())]
        for f in findings
    ]
    broken = violations(findings)
    if broken:
        reasons = "; ".join(f"{f.rule} ({f.place}): {' '.join(f.message.split())}" for f in broken)
        print(f"rbpp check: {process.name} violates the contract: {reasons}", file=sys.stderr)
    return command.Outcome(
        audit=[
            {
                "rule": f.rule,
                "place": f.place,
                "verdict": f.verdict,
                "message": f.message,
                "measured": f.measured,
                "required": f.required,
            }
            for f in findings
        ]
        if arguments.json
        else [],
        settings={"process": process.name, "source": process.source, "knobs": process.knobs},
        extra={"violated": len(broken)},
        text=align([["rule", "place", "verdict", "what was seen"], *lines]),
        exit_status=2 if broken else 0,
    )


if __name__ == "__main__":
    sys.exit(command.main([Path(__file__).stem, *sys.argv[1:]]))
