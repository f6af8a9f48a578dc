"""Mixture posteriors of rows larger than memory: time, peak memory, the fit in memory beside it.

    python benchmarks/streams.py [--quick] [--rows 100000,1000000,10000000] [--threads 1]

Rows of dimension 16 from a mixture of 32 components are written to a `.npy` file of float32, and
fitted as `rbpp fit --stream` does, in a process of its own for every size: a reading for moments
and sample, the start, a stochastic pass and two exact ones. Peak memory is that of the process, all
imports in it, until the fit is there.

Beside it the ascent in memory, of the first 100,000 rows, which goes on from the streamed posterior
until it has settled: were the stream's posterior off, it would move away. (From starts of its own
it ends elsewhere, as every start does: 32 components have many optima.) What is compared is the
entropy of both, its difference in units of the two posteriors' and Monte Carlo spreads together,
and the log density of 20,000 rows left out, also of the distribution that the rows were drawn from.

Prints Markdown, and the rates that docs/measurements/scale.md uses.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rbpp.compute import Compute
from rbpp.data.stream import row_stream
from rbpp.mixtures.cavi import cavi
from rbpp.mixtures.conjugate import VariationalMixture
from rbpp.mixtures.divergences import entropy
from rbpp.mixtures.mixture import GaussianMixture
from rbpp.mixtures.stream import Passes, stream_posterior
from rbpp.randomness import generator

DIMENSION, COMPONENTS, HELD_OUT, IN_MEMORY, DRAWS = 16, 32, 20_000, 100_000, 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100,000 and 300,000 rows")
    parser.add_argument("--rows", default="100000,1000000,10000000", help="sizes")
    parser.add_argument("--threads", type=int, default=1, help="of every process")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        print(json.dumps(streamed(**json.loads(arguments.job))))
        return
    sizes = [100_000, 300_000] if arguments.quick else [int(n) for n in arguments.rows.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        held_out, rows = Path(folder) / "held_out.npy", Path(folder) / "rows.npy"
        write_rows(held_out, HELD_OUT, seed=1)
        found = []
        for size in sizes:
            write_rows(rows, size, seed=0)
            job = {"rows": size, "path": str(rows), "held_out": str(held_out)}
            found.append(run(job, arguments.threads))
        truth = (
            distribution().log_prob_rows(torch.from_numpy(np.load(held_out)).double()).mean().item()
        )
    print_tables(found, truth, arguments.threads)


def run(settings: dict[str, Any], threads: int) -> dict[str, Any]:
    """A job in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, "--job", json.dumps(settings)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def distribution() -> GaussianMixture:
    """What the rows are drawn from."""
    random = np.random.default_rng(0)
    means = 2 * random.standard_normal((COMPONENTS, DIMENSION))
    # No direction is so thin that the prior would be felt at 3,000 rows a component.
    factors = 0.25 * random.standard_normal((COMPONENTS, DIMENSION, DIMENSION)) / DIMENSION**0.5
    factors += np.eye(DIMENSION)
    weights = torch.full((COMPONENTS,), 1 / COMPONENTS, dtype=torch.float64)
    covariances = torch.from_numpy(factors @ factors.transpose(0, 2, 1))
    return GaussianMixture(weights, torch.from_numpy(means), covariances)


def write_rows(path: Path, count: int, seed: int) -> None:
    """Rows of the same distribution whatever their number; the first of them are the same too."""
    means, factors = distribution().means.numpy(), distribution().scale_tril.numpy()
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

    def __call__(self, function: Any, items: Any) -> Iterator[Any]:
        name = function.func.__name__
        for item in items:
            begin = time.perf_counter()
            found = function(item)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin
            yield found


def streamed(rows: int, path: str, held_out: str) -> dict[str, Any]:
    """The fit of a stream, its stages timed, and where the ascent in memory goes from there."""
    mapper = TimedMap()
    begin, cpu = time.perf_counter(), time.process_time()
    posterior, summary = stream_posterior(
        row_stream(path),
        COMPONENTS,
        chains=1,
        draws=DRAWS,
        passes=Passes(exact=2, tolerance=0),
        compute=Compute(workers=mapper),
    )
    total, cpu = time.perf_counter() - begin, time.process_time() - cpu
    peak = peak_megabytes()
    assert summary.count == rows
    assert posterior.variational is not None
    assert posterior.prior is not None
    subset = torch.from_numpy(np.load(path, mmap_mode="r")[:IN_MEMORY].copy()).double()
    begin = time.perf_counter()
    settled = cavi(subset, posterior.prior, COMPONENTS, initial=posterior.variational)
    return {
        "rows": summary.count,
        "seconds": total,
        "cpu": cpu,
        "peak": peak,
        **{name.strip("_"): seconds for name, seconds in mapper.seconds.items()},
        **judged(posterior.variational, held_out),
        "memory_seconds": time.perf_counter() - begin,
        "memory": judged(settled, held_out),
    }


def peak_megabytes() -> float:
    """Of this program alone: `ru_maxrss` starts at what the process that started it held."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def judged(fit: VariationalMixture, held_out: str) -> dict[str, float]:
    """Entropy of the posterior, its spread and Monte Carlo error, and the density left out."""
    found = entropy(
        fit.draw(DRAWS, generator(0)).mixture(), num_samples=1024, generator=generator(0)
    )
    left_out = torch.from_numpy(np.load(held_out)).double()
    return {
        "entropy": found.value.mean().item(),
        "spread": found.value.std().item(),
        "error": found.standard_error.square().mean().sqrt().item(),
        "left_out": fit.select(0).expected().log_prob_rows(left_out).mean().item(),
    }


def print_tables(found: list[dict[str, Any]], truth: float, threads: int) -> None:
    print(
        f"{DIMENSION} dimensions, {COMPONENTS} components, one restart, {threads} thread(s); four "
        "readings: moments and sample, a stochastic pass, two exact passes.\n"
    )
    headings = (
        "rows", "seconds", "CPU s", "µs per row", "peak MB", "moments s", "start s", "passes s",
        "entropy", "left out", "entropy in memory", "difference", "in standard units",
    )  # fmt: skip
    print(f"| {' | '.join(headings)} |\n|{'---|' * len(headings)}")
    for line in found:
        memory = line["memory"]
        difference = line["entropy"] - memory["entropy"]
        spread = (
            sum(part[key] ** 2 for part in (line, memory) for key in ("spread", "error")) ** 0.5
        )
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
            f"{line['left_out']:.4f}",
            f"{memory['entropy']:.4f} ± {memory['spread']:.4f}",
            f"{difference:+.4f}",
            f"{difference / spread:+.2f}",
        ]
        print(f"| {' | '.join(cells)} |")
    print(
        f"\nThe distribution that the rows were drawn from has {truth:.4f} for the rows left out."
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
