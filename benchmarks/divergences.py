"""Monte Carlo divergences and the information sandwich, beside their peers.

    python benchmarks/divergences.py [--quick] [--runs 5]

KL of many pairs of mixtures, 1,000 draws each, against scikit-learn in a loop and
torch.distributions in one batch; the sandwich of R pairs against Pyro's nested Monte Carlo. Every
run has a process of its own, since memory that another left behind makes large tensors cheap.
Prints Markdown: medians over paired runs, ratios pair by pair, peak memory.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from sklearn.mixture import GaussianMixture as SklearnMixture
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from rbpp.mixtures.divergences import kl_divergence
from rbpp.mixtures.mixture import GaussianMixture
from rbpp.randomness import generator, seeded
from rbpp.theory.information import contrastive_bounds_of_rows

Result = tuple[float, str]  # seconds, and a note on what was found
Work = Callable[[int], Result]

DRAWS = 1000
NOISE = 0.8  # of the channel b = a + noise, whose information is ½ log(1 + 1/NOISE²) a dimension


def mixtures(pairs: int, components: int = 6, dimension: int = 2) -> list[GaussianMixture]:
    """Two batches of mixtures with means on [0, 10]^d, as in the paper's study."""
    source = generator(0)
    options = {"generator": source, "dtype": torch.float64}
    result = []
    for _ in range(2):
        factor = torch.rand(pairs, components, dimension, dimension, **options)
        result.append(
            GaussianMixture(
                torch.full((pairs, components), 1 / components, dtype=torch.float64),
                10 * torch.rand(pairs, components, dimension, **options),
                factor @ factor.mT + 0.1 * torch.eye(dimension, dtype=torch.float64),
            )
        )
    return result


def kl_ours(pairs: int) -> Result:
    p, q = mixtures(pairs)
    start = time.perf_counter()
    kl_divergence(p, q, num_samples=DRAWS, generator=generator(1))
    return time.perf_counter() - start, "quasi-random, with standard errors"


def kl_torch(pairs: int) -> Result:
    p, q = (
        MixtureSameFamily(Categorical(m.weights), MultivariateNormal(m.means, m.covariances))
        for m in mixtures(pairs)
    )
    with seeded(1):
        start = time.perf_counter()
        rows = p.sample((DRAWS,))
        (p.log_prob(rows) - q.log_prob(rows)).mean(0)
    return time.perf_counter() - start, ""


def kl_sklearn(pairs: int) -> Result:
    fits = []
    for batch in mixtures(pairs):
        own = []
        for index in range(pairs):
            fit = SklearnMixture(batch.components, random_state=0)
            fit.weights_ = batch.weights[index].numpy()
            fit.means_ = batch.means[index].numpy()
            fit.covariances_ = batch.covariances[index].numpy()
            fit.precisions_cholesky_ = np.linalg.inv(np.linalg.cholesky(fit.covariances_)).swapaxes(
                -1, -2
            )
            own.append(fit)
        fits.append(own)
    start = time.perf_counter()
    for p, q in zip(*fits, strict=True):
        rows = p.sample(DRAWS)[0]
        (p.score_samples(rows) - q.score_samples(rows)).mean()
    return time.perf_counter() - start, ""


def channel(pairs: int) -> tuple[torch.Tensor, torch.Tensor]:
    source = generator(2)
    a = torch.randn(pairs, generator=source, dtype=torch.float64)
    return a, a + NOISE * torch.randn(pairs, generator=source, dtype=torch.float64)


def channel_rows(a: torch.Tensor, b: torch.Tensor, rows: int = 32) -> Iterator[torch.Tensor]:
    """Log densities of all b under all a up to a constant, some rows at a time in one buffer."""
    buffer = a.new_empty(rows, len(a))
    for part in b.split(rows):
        block = torch.sub(part.unsqueeze(-1), a, out=buffer[: len(part)])
        yield block.square_().mul_(-0.5)


def information_ours(pairs: int) -> Result:
    """Both sides, every pair an inner draw of every other."""
    a, b = channel(pairs)
    start = time.perf_counter()
    lower, upper = contrastive_bounds_of_rows(channel_rows(a / NOISE, b / NOISE))
    seconds = time.perf_counter() - start
    return seconds, f"[{lower.value.item():.3f}, {upper.value.item():.3f}]"


def information_pyro(pairs: int) -> Result:
    """Pyro's nested Monte Carlo, M = 1,000 inner draws."""
    import pyro
    from pyro.contrib.oed.eig import nmc_eig

    def model(design: torch.Tensor) -> torch.Tensor:
        with pyro.plate_stack("designs", design.shape[:-1]):
            a = pyro.sample("a", pyro.distributions.Normal(torch.zeros_like(design[..., 0]), 1.0))
            return pyro.sample("b", pyro.distributions.Normal(a, NOISE))

    with seeded(0):
        start = time.perf_counter()
        value = nmc_eig(model, torch.zeros(1, 1, dtype=torch.float64), "b", "a", N=pairs, M=1000)
        seconds = time.perf_counter() - start
    return seconds, f"{value.item():.3f}"


def alone(work: Work, size: int) -> tuple[float, str, int]:
    """Seconds, a note, and peak resident megabytes, of a fresh process that does only this."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (work, size))


def _measured(work: Work, size: int) -> tuple[float, str, int]:
    seconds, note = work(size)
    # Not ru_maxrss: a new program goes on from the peak of the process that started it.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return seconds, note, int(status.split("VmHWM:")[1].split()[0]) // 1024


def table(works: dict[str, Work], size: int, runs: int, note: str = "") -> str:
    """Lines of Markdown; the first of the works is ours."""
    results = {name: [] for name in works}
    for _ in range(runs):
        for name, work in works.items():
            results[name].append(alone(work, size))
    ours = [seconds for seconds, _, _ in next(iter(results.values()))]
    lines = [f"| | seconds | ratio | peak MB | {note} |", "|---|---|---|---|---|"]
    for name, found in results.items():
        seconds = [one[0] for one in found]
        ratios = [theirs / own for theirs, own in zip(seconds, ours, strict=True)]
        spread = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
        memory = max(one[2] for one in found)
        lines.append(
            f"| {name} | {statistics.median(seconds):.3f} | {spread} | {memory} | {found[0][1]} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the pairs, two runs")
    parser.add_argument("--runs", type=int, default=5, help="paired runs")
    arguments = parser.parse_args()
    pairs, runs, size = (420, 2, 2000) if arguments.quick else (4200, arguments.runs, 10_000)
    print(f"{torch.get_num_threads()} threads. Ratio: the row's time over ours; median [range].\n")

    works = {"rbpp": kl_ours, "torch.distributions": kl_torch, "scikit-learn loop": kl_sklearn}
    print(f"KL divergence of {pairs:,} pairs (K 6, d 2), {DRAWS:,} draws each\n")
    print(table(works, pairs, runs))

    truth = 0.5 * math.log(1 + 1 / NOISE**2)
    works = {"rbpp sandwich, all R inner": information_ours}
    works["Pyro nmc_eig, M = 1,000"] = information_pyro
    print(f"\nInformation of a Gaussian channel, R = {size:,}; truth {truth:.3f} nats\n")
    print(table(works, size, runs, "estimate"))


if __name__ == "__main__":
    main()
