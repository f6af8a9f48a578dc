"""Mixture posteriors of rows larger than memory: time, peak memory, the fit in memory beside it.

    python benchmarks/streams.py [--quick] [--rows 100000,1000000,10000000] [--threads 1]

Rows of dimension 16 from a mixture of 32 components are written to a `.npy` file of float32, and
fitted as `rbpp fit --stream` does, in a process of its own for every size: a reading for moments
and sample, the start, a stochastic pass and two exact ones. Peak memory is that of the process, all
imports in it. Beside it: the fit in memory of the first 100,000 rows; the entropy of both
posteriors, their difference in units of the two posteriors' and Monte Carlo spreads together; and
the log density of 20,000 rows left out. Prints Markdown, and the rates that docs/scale.md uses.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rbpp.mixtures.chunks import row_chunks
from rbpp.mixtures.divergences import entropy
from rbpp.mixtures.posterior import MixturePosterior, fit_mixture
from rbpp.mixtures.stream_posterior import fit_mixture_stream
from rbpp.randomness import generator

DIMENSION, COMPONENTS, HELD_OUT, IN_MEMORY, DRAWS = 16, 32, 20_000, 100_000, 200
STAGES = ("summary", "start", "stochastic", "exact")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100,000 and 300,000 rows")
    parser.add_argument("--rows", default="100000,1000000,10000000", help="sizes")
    parser.add_argument("--threads", type=int, default=1, help="of every process")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        settings = json.loads(arguments.job)
        print(json.dumps(JOBS[settings["job"]](settings)))
        return
    sizes = [100_000, 300_000] if arguments.quick else [int(n) for n in arguments.rows.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        held_out = Path(folder) / "held_out.npy"
        write_rows(held_out, HELD_OUT, seed=1)
        rows = Path(folder) / "rows.npy"
        write_rows(rows, IN_MEMORY, seed=0)
        common = {"path": str(rows), "held_out": str(held_out)}
        whole = run({"job": "memory", **common}, arguments.threads)
        found = []
        for size in sizes:
            write_rows(rows, size, seed=0)
            job = {"job": "stream", "rows": size, **common}
            found.append(run(job, arguments.threads))
    print_tables(whole, found, arguments.threads)


def run(settings: dict[str, Any], threads: int) -> dict[str, Any]:
    """A job in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, "--job", json.dumps(settings)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def write_rows(path: Path, count: int, seed: int) -> None:
    """Rows of the same mixture whatever their number; the first of them are the same too."""
    law = np.random.default_rng(0)
    means = 2 * law.standard_normal((COMPONENTS, DIMENSION))
    factors = law.standard_normal((COMPONENTS, DIMENSION, DIMENSION)) / DIMENSION**0.5
    factors += 0.3 * np.eye(DIMENSION)
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, DIMENSION))
    rng = np.random.default_rng([1, seed])
    for start in range(0, count, IN_MEMORY):
        own = rng.integers(COMPONENTS, size=min(IN_MEMORY, count - start))
        noise = rng.standard_normal((len(own), DIMENSION, 1))
        rows[start : start + len(own)] = means[own] + (factors[own] @ noise)[..., 0]


class TimedMap:
    """The built-in map, with the seconds that all calls of a function took together."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, function: Any, items: Any) -> Any:
        begin = time.perf_counter()
        found = [function(item) for item in items]
        name = function.func.__name__
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin
        return found


def stream(settings: dict[str, Any]) -> dict[str, Any]:
    """The fit of a stream, its stages timed."""
    mapper = TimedMap()
    begin, cpu = time.perf_counter(), time.process_time()
    posterior, summary = fit_mixture_stream(
        row_chunks(settings["path"]),
        COMPONENTS,
        restarts=1,
        draws=DRAWS,
        passes=2,
        tolerance=0,
        mapper=mapper,
    )
    total, cpu = time.perf_counter() - begin, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert summary.count == settings["rows"]
    return {
        "rows": summary.count,
        "seconds": total,
        "cpu": cpu,
        "peak": peak,
        **{name.strip("_"): seconds for name, seconds in mapper.seconds.items()},
        **judged(posterior, settings),
    }


def memory(settings: dict[str, Any]) -> dict[str, Any]:
    """The fit in memory."""
    begin = time.perf_counter()
    rows = torch.from_numpy(np.load(settings["path"]))
    posterior = fit_mixture(rows, COMPONENTS, restarts=1, draws=DRAWS, judge=False)
    total = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"rows": len(rows), "seconds": total, "peak": peak, **judged(posterior, settings)}


def judged(posterior: MixturePosterior, settings: dict[str, Any]) -> dict[str, float]:
    """Entropy of the posterior, its spread and Monte Carlo error, and the density left out."""
    found = entropy(posterior.mixture, draws=1024, generator=generator(0))
    assert posterior.posterior is not None
    held_out = torch.from_numpy(np.load(settings["held_out"])).double()
    law = posterior.posterior.select(0).expected()
    return {
        "entropy": found.value.mean().item(),
        "spread": found.value.std().item(),
        "error": found.standard_error.square().mean().sqrt().item(),
        "left_out": law.log_prob_rows(held_out).mean().item(),
    }


JOBS = {"stream": stream, "memory": memory}


def print_tables(whole: dict[str, Any], found: list[dict[str, Any]], threads: int) -> None:
    print(
        f"{DIMENSION} dimensions, {COMPONENTS} components, one restart, {threads} thread(s); four "
        "readings: moments and sample, a stochastic pass, two exact passes.\n"
    )
    headings = (
        "rows", "seconds", "CPU s", "µs per row", "peak MB", "moments s", "start s", "passes s",
        "entropy", "− in memory", "standard units", "left out",
    )  # fmt: skip
    print(f"| {' | '.join(headings)} |\n|{'---|' * len(headings)}")
    for line in found:
        difference = line["entropy"] - whole["entropy"]
        spread = sum(part[key] ** 2 for part in (line, whole) for key in ("spread", "error")) ** 0.5
        cells = [
            f"{line['rows']:,}",
            f"{line['seconds']:.1f}",
            f"{line['cpu']:.1f}",
            f"{1e6 * line['seconds'] / line['rows']:.2f}",
            f"{line['peak']:.0f}",
            f"{line['of_part']:.1f}",
            f"{line['start']:.1f}",
            f"{line['part_statistics']:.1f}",
            f"{line['entropy']:.4f} ± {line['spread']:.4f}",
            f"{difference:+.4f}",
            f"{difference / spread:+.2f}",
            f"{line['left_out']:.4f}",
        ]
        print(f"| {' | '.join(cells)} |")
    print(
        f"\nIn memory, {whole['rows']:,} rows: {whole['seconds']:.1f} s, {whole['peak']:.0f} MB, "
        f"entropy {whole['entropy']:.4f} ± {whole['spread']:.4f} (Monte Carlo {whole['error']:.4f})"
        f", left out {whole['left_out']:.4f}."
    )
    last = found[-1]
    # The stochastic pass and the two exact ones read every row three times.
    rate = 3 * last["rows"] / last["part_statistics"]
    print(
        f"\nRates at {last['rows']:,} rows: moments {last['rows'] / last['of_part']:,.0f} rows a "
        f"second, a pass {rate:,.0f} rows a second."
    )


if __name__ == "__main__":
    main()
