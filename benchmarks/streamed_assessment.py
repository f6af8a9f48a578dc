"""Assessments of sources larger than memory: time, peak memory, and planted off-task rows found.

    python benchmarks/streamed_assessment.py [--quick] [--rows 200000,2000000] [--sample-rows 2000]

Synthetic rows of dimension 32 around five places, of which the 50,000 target rows have four: a
tenth of them is off-task. They are written to `.npy` files of float32 and assessed as `rbpp assess
--stream --rows` does, in a process of its own for every size, with the posterior of samples and a
line for every row. Peak memory is that of the process, all imports in it. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

DIMENSION, TARGET_ROWS, OFF_TASK, AT_ONCE = 32, 50_000, 0.1, 50_000
SHARES = {"target": [0.3, 0.3, 0.2, 0.2], "synthetic": [0.3, 0.25, 0.2, 0.15, OFF_TASK]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100,000 rows")
    parser.add_argument("--rows", default="200000,2000000", help="sizes")
    parser.add_argument("--sample-rows", type=int, default=2000, help="of each source")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        print(json.dumps(assessed(**json.loads(arguments.job))))
        return
    sizes = [100_000] if arguments.quick else [int(count) for count in arguments.rows.split(",")]
    headings = (
        "rows", "of a sample", "seconds", "CPU s", "peak MB", "off-task share", "truth",
        "rows told wrongly",
    )  # fmt: skip
    print(f"{DIMENSION} dimensions, {TARGET_ROWS:,} target rows, one thread.\n")
    print(f"| {' | '.join(headings)} |\n|{'---|' * len(headings)}")
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder) / "target.npy", TARGET_ROWS, SHARES["target"], seed=1)
        for size in sizes:
            places = write_rows(Path(folder) / "synthetic.npy", size, SHARES["synthetic"], seed=2)
            np.save(Path(folder) / "truth.npy", places == len(SHARES["synthetic"]) - 1)
            line = run({"folder": folder, "sample_rows": arguments.sample_rows})
            print(
                f"| {size:,} | {arguments.sample_rows:,} | {line['seconds']:.0f} | "
                f"{line['cpu']:.0f} | {line['peak']:.0f} | {line['share']:.1%} ± "
                f"{line['spread']:.1%} | {line['truth']:.1%} | {line['wrong']:.2%} |",
                flush=True,
            )


def write_rows(path: Path, count: int, shares: list[float], seed: int) -> np.ndarray:
    """Rows around places that are the same for every source; the place of every row."""
    centres = np.random.default_rng(0).standard_normal((5, DIMENSION))
    random = np.random.default_rng(seed)
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, DIMENSION))
    places = random.choice(len(shares), count, p=shares)
    for start in range(0, count, AT_ONCE):
        own = places[start : start + AT_ONCE]
        rows[start : start + len(own)] = centres[own] + random.standard_normal(
            (len(own), DIMENSION)
        )
    return places


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """A job in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--job", json.dumps(settings)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def assessed(folder: str, sample_rows: int) -> dict[str, Any]:
    """An assessment, and what of its table is wrong."""
    import pyarrow.parquet

    from rbpp.assessment.assess import assess_sources
    from rbpp.assessment.sources import Sampling, read_sources
    from rbpp.assessment.tables import write_rows

    files = {role: Path(folder) / f"{role}.npy" for role in SHARES}
    table = Path(folder) / "rows.parquet"
    begin, cpu = time.perf_counter(), time.process_time()
    sources = read_sources(files, sampling=Sampling(sample_rows=sample_rows))
    found = write_rows(table, sources, assess_sources(sources))
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    share = found.idata["posterior"]["irrelevant_share"].values
    columns = pyarrow.parquet.read_table(table, columns=["source", "off_task"])
    own = columns.filter(pyarrow.compute.equal(columns["source"], "synthetic"))
    truth = np.load(Path(folder) / "truth.npy")
    told = own["off_task"].to_numpy() > 0.5
    return {
        "seconds": seconds,
        "cpu": cpu,
        "peak": peak,
        "share": float(share.mean()),
        "spread": float(share.std()),
        "truth": float(truth.mean()),
        "wrong": float((told != truth).mean()),
    }


if __name__ == "__main__":
    main()
