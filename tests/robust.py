"""The tests marked `random`, with other seeds, vector instructions and numbers of threads.

Then damaged files, kills and full disks.

    python tests/robust.py             four machines, five seeds each
    python tests/robust.py --quick     two machines, one seed each
    python tests/robust.py --margins   20 seeds: how far every assertion stays from its limit
    python tests/robust.py --margins --new     those of tests that are not in margins.json yet

A machine is a pair of torch's and OpenBLAS's vector instructions with a number of threads. The last
form writes `margins.json` beside this file and fails where a mean is below three standard
deviations.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean, stdev

TESTS = Path(__file__).resolve().parent
MARGINS = TESTS / "margins.json"
# ATEN_CPU_CAPABILITY, OPENBLAS_CORETYPE and threads: the oldest x86-64 first.
MACHINES = (
    ("default", "Prescott", 1),
    ("avx2", "Haswell", 2),
    ("default", "Sandybridge", 2),
    ("avx512", "SkylakeX", 1),
)
SEEDS, QUICK_SEEDS, MARGIN_SEEDS = 5, 1, 20
LEAST_DEVIATIONS = 3.0


def run(
    machine: tuple[str, str, int],
    shift: int,
    margins: Path | None = None,
    tests: Sequence[str] = (),
) -> int:
    """One run of the random tests, all or some; what it prints is shown where it fails."""
    vector, core, threads = machine
    environment = {
        **os.environ,
        "ATEN_CPU_CAPABILITY": vector,
        "OPENBLAS_CORETYPE": core,
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "RBPP_SEED_SHIFT": str(shift),
    }
    if margins is not None:
        environment["RBPP_MARGINS"] = str(margins)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "random and not slow",
        "-p",
        "no:cacheprovider",
        *tests,
    ]
    found = subprocess.run(
        command, cwd=TESTS.parent, env=environment, capture_output=True, text=True, check=False
    )
    last = (found.stdout.strip().splitlines() or ["nothing"])[-1]
    print(f"{vector} {core}, {threads} threads, seeds + {shift}: {last}", flush=True)
    if found.returncode:
        print(found.stdout[-6000:], found.stderr[-2000:], sep="\n", flush=True)
    return found.returncode


def not_measured() -> list[str]:
    """Names of the random tests that `margins.json` does not have."""
    command = [sys.executable, "-m", "pytest", "-m", "random and not slow", "--collect-only"]
    printed = subprocess.run(
        [*command, "-p", "no:cacheprovider"],
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    measured = {name.rpartition(" #")[0] for name in json.loads(MARGINS.read_text("utf-8"))}
    return [line for line in printed.stdout.splitlines() if "::" in line and line not in measured]


def measure_margins(tests: Sequence[str] = (), *, keep: bool = False) -> int:
    """Mean and standard deviation of every assertion's distance to its limit, over 20 seeds."""
    slacks: dict[tuple[str, int], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / f"{shift}.jsonl" for shift in range(MARGIN_SEEDS)]
        machine = ("avx2", "Haswell", 1)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            codes = list(pool.map(lambda item: run(machine, *item, tests), enumerate(places)))
        for place in places:
            for line in place.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                slacks[entry["test"], entry["place"]].append(entry["slack"])
    table = json.loads(MARGINS.read_text("utf-8")) if keep else {}
    close = []
    for (test, place), values in sorted(slacks.items()):
        mean, spread = fmean(values), stdev(values) if len(values) > 1 else 0.0
        deviations = mean / spread if spread > 0 else float("inf")
        name = f"{test} #{place}"
        table[name] = {"mean": mean, "sd": spread, "seeds": len(values)}
        if mean <= 0 or deviations < LEAST_DEVIATIONS:
            close.append(f"{deviations:6.2f} sd  {name}")
    MARGINS.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{len(table)} assertions; below {LEAST_DEVIATIONS:g} standard deviations: {len(close)}")
    print("\n".join(sorted(close)))
    return 1 if close or any(codes) else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--margins", action="store_true")
    parser.add_argument("--new", action="store_true")
    arguments = parser.parse_args()
    if arguments.new:
        tests = not_measured()
        print(f"{len(tests)} tests are new", flush=True)
        return measure_margins(tests, keep=True) if tests else 0
    if arguments.margins:
        return measure_margins()
    machines = MACHINES[:2] if arguments.quick else MACHINES
    seeds = QUICK_SEEDS if arguments.quick else SEEDS
    runs = [(machine, 1000 * (1 + seed)) for machine in machines for seed in range(seeds)]
    with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2)) as pool:
        codes = list(pool.map(lambda item: run(*item), runs))
    files, kills = (50, 3) if arguments.quick else (500, 20)
    for program, count in (("fuzz_readers.py", files), ("kills_and_full_disks.py", kills)):
        command = [sys.executable, str(TESTS / program), str(count)]
        codes.append(subprocess.run(command, check=False).returncode)
    return 1 if any(codes) else 0


if __name__ == "__main__":
    sys.exit(main())
