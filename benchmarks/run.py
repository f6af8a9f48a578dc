"""Every benchmark, one after the other, into one Markdown file.

    python benchmarks/run.py [--quick] [--output docs/measurements/benchmarks.md] [NAME …]

Each benchmark is a program of its own that prints Markdown, peers and ours in the same run; this
one runs them in fresh processes, and puts the machine and the versions above their tables.
`--quick` has every benchmark take its small configuration, under three minutes in all.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
# In the order of the layers; `truth` needs the real data sets beside the checkout, `gpu` a GPU.
NAMES = (
    "mixtures",
    "divergences",
    "kl_gap",
    "mutual_information",
    "coverage",
    "fine_tunes",
    "calibration",
)
PACKAGES = ("rbpp", "torch", "pyro-ppl", "numpy", "scipy", "scikit-learn", "arviz", "ray")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="small configurations")
    parser.add_argument(
        "--output", type=Path, default=FOLDER.parent / "docs" / "measurements" / "benchmarks.md"
    )
    arguments = parser.parse_args()
    unknown = set(arguments.names) - {path.stem for path in FOLDER.glob("*.py")}
    if unknown:
        parser.error(f"expected benchmarks of this folder; got {', '.join(sorted(unknown))}")
    sections = [heading(arguments.quick, arguments.names)]
    failed = []
    for name in arguments.names or NAMES:
        start = time.perf_counter()
        command = [sys.executable, str(FOLDER / f"{name}.py"), *(["--quick"] * arguments.quick)]
        print(f"{name} …", file=sys.stderr, flush=True)
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            failed.append(name)
            sys.stderr.write(result.stderr)
            sections.append(f"## {name}\n\nFailed with exit status {result.returncode}.")
            continue
        seconds = time.perf_counter() - start
        shown = f"python benchmarks/{name}.py{' --quick' * arguments.quick}"
        sections.append(f"## {name}\n\n`{shown}`, {seconds:.0f} s\n\n{result.stdout.strip()}")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    print(arguments.output)
    return 1 if failed else 0


def heading(quick: bool, names: list[str]) -> str:
    """What was run, on what."""
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"{package} absent")
    command = " ".join(["python benchmarks/run.py", *["--quick"] * quick, *names])
    return (
        "# Benchmarks\n\n"
        f"Output of `{command}`. Medians of several runs, each peer on the same work in the same "
        "run; ratios are taken pair by pair.\n\n"
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; "
        f"{', '.join(versions)}."
    )


if __name__ == "__main__":
    sys.exit(main())
