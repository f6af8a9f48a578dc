"""KL divergences, KL gaps and total variation of samples against their truth, as a Markdown report.

python benchmarks/divergences_of_samples.py [--quick] [--case CASE] [--minutes 10] > table.md

The truth is Monte Carlo on the true densities. Beside each error stands that of the mean true log
ratio of the same rows, which nobody has. Six families of distributions are those that the
estimator's constants were chosen on, with other parameters and rows; the last two never were.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp

from rbpp.assessment.divergence import (
    kl_divergence_of_samples,
    kl_gap_of_samples,
    summary,
    total_variation_of_samples,
)
from rbpp.assessment.log_ratio import log_ratio
from rbpp.assessment.weighted_rows import Draws
from rbpp.estimate import Estimate
from rbpp.progress import progress

Array = NDArray[np.float64]
KNOWN = ("gauss", "t5", "scales", "low rank", "sinh", "t4 mixture")
NEW = ("log-gamma", "banana")
CHANGES = ("shift", "scale", "weights", "missing", "one shifted", "one scaled")
TRUTH_ROWS = 30_000
FEWEST_VALUES = 4
SIZES = ((100, 100), (100, 300), (300, 300), (100, 1000), (300, 1000), (1000, 1000))
SIZES += ((100, 3000), (300, 3000), (1000, 3000), (3000, 3000))


@dataclass(frozen=True)
class Distribution:
    """Σ_k π_k of m_k + L_k ε, then one bijection of the space, the same for both of a pair."""

    weights: Array
    means: Array
    factors: Array
    noise: str = "gauss"
    bend: str = ""
    strength: float = 0.0

    def sample(self, rows: int, generator: np.random.Generator) -> Array:
        size = (rows, self.means.shape[1])
        chosen = generator.choice(len(self.weights), rows, p=self.weights)
        if self.noise == "log-gamma":
            noise = np.log(generator.standard_gamma(1.0, size))
        else:
            noise = generator.standard_normal(size)
        if self.noise.startswith("t"):
            freedom = float(self.noise[1:])
            noise = noise / np.sqrt(generator.chisquare(freedom, (rows, 1)) / freedom)
        found = self.means[chosen] + np.einsum("nde,ne->nd", self.factors[chosen], noise)
        return self._bent(found)

    def log_density(self, rows: Array) -> Array:
        """(n,), up to the Jacobian of the bijection, which is the same for both of a pair."""
        straight = self._straight(rows)
        dimension = straight.shape[1]
        found = np.empty((len(self.weights), len(rows)))
        for k, factor in enumerate(self.factors):
            noise = np.linalg.solve(factor, (straight - self.means[k]).T)
            if self.noise == "log-gamma":
                value = (noise - np.exp(noise)).sum(0)
            elif self.noise == "gauss":
                value = -0.5 * np.square(noise).sum(0) - dimension / 2 * math.log(2 * math.pi)
            else:
                nu = float(self.noise[1:])
                value = gammaln((nu + dimension) / 2) - gammaln(nu / 2)
                value = value - dimension / 2 * math.log(nu * math.pi)
                value = value - (nu + dimension) / 2 * np.log1p(np.square(noise).sum(0) / nu)
            found[k] = value - np.linalg.slogdet(factor)[1]
        with np.errstate(divide="ignore"):
            return logsumexp(np.log(self.weights)[:, None] + found, axis=0)

    def _bent(self, rows: Array) -> Array:
        if self.bend == "sinh":
            return np.sinh(self.strength * rows) / self.strength
        if self.bend == "banana":
            found = rows.copy()
            found[:, 1:] += (
                self.strength * np.square(rows[:, :1]) / (1 + np.arange(rows.shape[1] - 1))
            )
            return found
        return rows

    def _straight(self, rows: Array) -> Array:
        if self.bend == "sinh":
            return np.arcsinh(self.strength * rows) / self.strength
        if self.bend == "banana":
            found = rows.copy()
            found[:, 1:] -= (
                self.strength * np.square(rows[:, :1]) / (1 + np.arange(rows.shape[1] - 1))
            )
            return found
        return rows


def distribution(family: str, dimension: int, generator: np.random.Generator) -> Distribution:
    """A random distribution of a family."""
    components = {"gauss": 1, "t5": 1, "scales": 8, "low rank": 5, "sinh": 8, "t4 mixture": 5}
    count = components.get(family, 4 if family == "log-gamma" else 3)
    spread = 2.5 if count > 1 else 0.0
    means = (
        spread * generator.standard_normal((count, dimension)) / math.sqrt(min(dimension, 4) / 2)
    )
    axes = np.linalg.qr(generator.standard_normal((count, dimension, dimension)))[0]
    scales = np.exp(0.4 * generator.standard_normal((count, dimension)))
    if family == "scales":
        scales = scales * np.exp(0.8 * generator.standard_normal((count, 1)))
    factors = axes * scales[:, None, :]
    if family == "low rank":
        rank = min(6, max(1, dimension - 1))
        basis = np.linalg.qr(generator.standard_normal((dimension, dimension)))[0]
        low = np.where(np.arange(dimension) < rank, 1.0, 0.15)
        means = means * np.where(np.arange(dimension) < rank, 1.0, 0.0) @ basis.T
        factors = basis * (low * np.where(low < 1, 1, scales))[:, None, :]
    noise = {"t5": "t5", "t4 mixture": "t4", "log-gamma": "log-gamma"}.get(family, "gauss")
    bend = family if family in ("sinh", "banana") else ""
    strength = {"sinh": 0.5, "banana": 0.4}.get(family, 0.0)
    weights = generator.dirichlet(np.full(count, 4.0))
    return Distribution(weights, means, factors, noise, bend, strength)


def changed(
    one: Distribution, change: str, size: float, generator: np.random.Generator
) -> Distribution:
    """Another distribution, away from the first by a size of about one standard deviation."""
    count, dimension = one.means.shape
    direction = generator.standard_normal(dimension)
    direction = direction / np.linalg.norm(direction)
    part = int(generator.integers(count))
    sign = generator.choice([-1.0, 1.0])
    if change == "shift":
        mean_factor = np.tensordot(one.weights, one.factors, 1)
        return replace(one, means=one.means + size * (mean_factor @ direction))
    if change == "scale":
        return replace(
            one, factors=one.factors * math.exp(sign * 0.7 * size / math.sqrt(dimension))
        )
    if change == "weights":
        log_weights = np.log(one.weights) + size * generator.standard_normal(count)
        return replace(one, weights=np.exp(log_weights - logsumexp(log_weights)))
    if change == "missing":
        weights = one.weights.copy()
        weights[part] = 0
        return replace(one, weights=weights / weights.sum())
    if change == "one shifted":
        means = one.means.copy()
        means[part] += 1.5 * size * (one.factors[part] @ direction)
        return replace(one, means=means)
    factors = one.factors.copy()
    factors[part] *= math.exp(sign * size / math.sqrt(dimension))
    return replace(one, factors=factors)


def truths(
    one: Distribution, other: Distribution, rows: int, generator: np.random.Generator
) -> Array:
    """KL(P ‖ Q), KL(Q ‖ P), TV(P, Q)."""
    first, second = one.sample(rows, generator), other.sample(rows, generator)
    at_first = one.log_density(first) - other.log_density(first)
    at_second = other.log_density(second) - one.log_density(second)
    variation = (
        np.maximum(-np.expm1(-at_first), 0).mean() + np.maximum(-np.expm1(-at_second), 0).mean()
    )
    return np.array([at_first.mean(), at_second.mean(), variation / 2])


def pair(
    family: str, dimension: int, least: float, most: float, generator: np.random.Generator
) -> tuple[Distribution, Distribution, str]:
    """Two distributions whose divergences are in a range, and how they differ."""
    while True:
        one = distribution(family, dimension, generator)
        changes = ("shift", "scale") if len(one.weights) == 1 else CHANGES
        change = str(generator.choice(changes))
        wide = 8.0 if least > 3 else 2.0
        other = changed(one, change, float(generator.uniform(0.2, wide)), generator)
        if generator.random() < 0.5:
            one, other = other, one
        found = truths(one, other, 1000, generator)[:2]
        # A part that the other side lacks makes one direction large; the other one is moderate.
        if least <= found.min() and (found.max() <= most or (change == "missing" and least < 3)):
            return one, other, change


@dataclass(frozen=True)
class Reading:
    """One number of one run, beside its truth."""

    case: str
    family: str
    change: str
    dimension: int
    sizes: tuple[int, int]
    quantity: str
    truth: float
    estimate: float
    lower: float
    upper: float
    at_least: float
    flag: str
    seconds: float
    of_true_ratio: float = math.nan


def numbers_of(found: Estimate) -> tuple[float, float, float]:
    """Median and ends of the draws; an end that is open is infinite."""
    one = summary(found)
    return float(one.value), float(one.bounds[0]), float(one.bounds[1])


def read(
    case: str,
    family: str,
    change: str,
    distributions: tuple[Distribution, Distribution],
    sizes: tuple[int, int],
    generator: np.random.Generator,
    seed: int,
) -> list[Reading]:
    """Both divergences and the total variation of one pair of samples."""
    one, other = distributions
    first, second = one.sample(sizes[0], generator), other.sample(sizes[1], generator)
    truth = np.zeros(3) if case == "one distribution" else truths(one, other, TRUTH_ROWS, generator)
    begun = time.process_time()
    ratio = log_ratio(first, second, seed=seed)
    draws = Draws(seed=seed)
    forward = kl_divergence_of_samples(ratio, "forward", draws)
    reverse = kl_divergence_of_samples(ratio, "reverse", draws)
    variation = total_variation_of_samples(ratio, draws)
    taken = time.process_time() - begun
    where = (case, family, change, first.shape[1], sizes)
    # The distribution that lacks a component is in the second place: its direction is the hard one.
    lacks = "second" if (other.weights == 0).any() else "first" if change == "missing" else ""
    found = []
    for index, (value, hard, own) in enumerate(
        ((forward, "second", (one, other, first)), (reverse, "first", (other, one, second)))
    ):
        label = "missing" if lacks == hard else change if lacks == "" else "missing, other side"
        found.append(
            Reading(
                *where[:2], label, *where[3:], "KL", float(truth[index]),
                *numbers_of(value), float(value.bounds[0]), value.reason, taken,
                float((own[0].log_density(own[2]) - own[1].log_density(own[2])).mean()),
            )
        )  # fmt: skip
    middle, _, upper = numbers_of(variation)
    found.append(
        Reading(
            *where, "TV", float(truth[2]), middle, float(variation.bounds[0]), upper,
            float(variation.bounds[0]), "", taken,
        )
    )  # fmt: skip
    return found


def read_gap(
    family: str, dimension: int, rows: int, same: bool, generator: np.random.Generator, seed: int
) -> Reading:
    """The KL gap of two distributions that differ from one target's."""
    target, first, change = pair(family, dimension, 0.05, 2.0, generator)
    second = changed(target, "shift", float(generator.uniform(0.1, 1.0)), generator)
    distributions = (target, target) if same else (first, second)
    samples = [one.sample(rows, generator) for one in (*distributions, target)]
    truth = [
        0.0 if same else truths(one, target, TRUTH_ROWS, generator)[0] for one in distributions
    ]
    begun = time.process_time()
    ratios = [log_ratio(sample, samples[2], seed=seed) for sample in samples[:2]]
    gap = kl_gap_of_samples(*ratios, Draws(seed=seed))
    return Reading(
        "one distribution" if same else "gap", family, "missing" if change == "missing" else change,
        dimension, (rows, rows), "KL gap", truth[0] - truth[1], *numbers_of(gap),
        -math.inf, gap.reason, time.process_time() - begun,
    )  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One pair or triple of samples to be read, and the cell that it belongs to."""

    case: str
    dimension: int
    sizes: tuple[int, int]
    read: Callable[[], list[Reading]]

    @property
    def cell(self) -> tuple[int, int, tuple[int, int], str]:
        """Cheap cells first."""
        return sum(self.sizes) * (8 + self.dimension), self.dimension, self.sizes, self.case


def runs(quick: bool, seed: int, replications: int) -> Iterator[Run]:
    """Every run, each with a generator of its own; so many of each cell of one distribution."""
    number = 0
    families = KNOWN + NEW

    def of(case: str, family: str, dimension: int, sizes: tuple[int, int]) -> Run:
        generator = np.random.default_rng([seed, number])
        own = number

        def read_pair() -> list[Reading]:
            if case == "one distribution":
                one = distribution(family, dimension, generator)
                return read(case, family, "none", (one, one), sizes, generator, own)
            least, most = (0.05, 3.0) if case == "moderate" else (5.0, 60.0)
            one, other, change = pair(family, dimension, least, most, generator)
            return read(case, family, change, (one, other), sizes, generator, own)

        return Run(case, dimension, sizes, read_pair)

    def of_gap(family: str, dimension: int, rows: int, same: bool) -> Run:
        generator = np.random.default_rng([seed, number])
        own = number
        case = "one distribution" if same else "gap"
        return Run(
            case, dimension, (rows, 2 * rows),
            lambda: [read_gap(family, dimension, rows, same, generator, own)],
        )  # fmt: skip

    for replication in range(1 if quick else replications):
        cells = [(sizes, dimension) for sizes in SIZES for dimension in (2, 8, 16, 32)]
        for cell, (sizes, dimension) in enumerate(cells):
            number += 1
            yield of("one distribution", families[(cell + 3 * replication) % 8], dimension, sizes)
        for cell, (dimension, rows) in enumerate(((2, 100), (8, 100), (2, 300), (8, 300))):
            number += 1
            yield of_gap(families[(cell + 3 * replication) % 8], dimension, rows, True)
    for _ in range(1 if quick else 8):
        for family in families:
            for dimension in (2, 8, 16, 32):
                for sizes in ((300, 300), (1000, 1000), (300, 1000)):
                    if quick and sizes[0] != sizes[1] and dimension > 8:
                        continue
                    number += 1
                    yield of("moderate", family, dimension, sizes)
        for family in families:
            for dimension, rows in ((8, 300), (2, 1000), (16, 1000), (8, 100), (8, 3000)):
                if quick and rows in (100, 3000):
                    continue
                number += 1
                yield of("apart", family, dimension, (rows, rows))
        for family in families:
            for dimension, rows in ((2, 300), (8, 300), (8, 1000), (16, 1000)):
                number += 1
                yield of_gap(family, dimension, rows, False)


def row(name: str, readings: list[Reading]) -> tuple[float, str]:
    """A line of the table, with the cover to sort by."""
    error = np.array([one.estimate - one.truth for one in readings])
    held = np.array([one.lower - 1e-12 <= one.truth <= one.upper + 1e-12 for one in readings])
    certified = np.array([one.at_least <= one.truth + 1e-12 for one in readings])
    closed = np.array([one.flag == "" for one in readings])
    floor = math.sqrt(np.square([one.of_true_ratio - one.truth for one in readings]).mean())
    width = np.array([one.upper - one.lower for one in readings])[closed]
    text = (
        f"| {name} | {len(error)} | "
        f"{error.mean():+.3f} ± {error.std() / math.sqrt(len(error)):.3f} | "
        f"{math.sqrt(np.square(error).mean()):.3f} | {floor:.3f} | "
        f"{np.median(np.abs(error)):.3f} | "
        f"{held.mean():.3f} | {certified.mean():.3f} | {1 - closed.mean():.2f} | "
        f"{np.median(width) if len(width) else math.nan:.2f} |"
    )
    return float(held.mean()), text.replace(" nan ", " – ")


def table(readings: list[Reading]) -> str:
    """Rows of the Markdown table, the lowest cover first."""
    groups: dict[str, list[Reading]] = {}

    def add(name: str, one: Reading) -> None:
        groups.setdefault(name, []).append(one)

    for one in readings:
        distributions = "new families" if one.family in NEW else "known families"
        if one.case == "apart":
            if one.quantity == "KL" and one.truth > 5:
                add(f"apart, KL > 5 ({distributions})", one)
            continue
        if one.case == "one distribution":
            add(f"one distribution, {one.quantity} ({distributions})", one)
            where = f"d {one.dimension}, n {one.sizes[0]} / {one.sizes[1]}"
            add(f"one distribution, {one.quantity}, {where}", one)
            continue
        if one.quantity == "KL gap":
            add(f"KL gap ({distributions})", one)
            continue
        if one.quantity == "KL" and one.change == "missing":
            add(f"KL where the other side lacks a part ({distributions})", one)
            if not one.flag:
                add("— of which without a flag", one)
            continue
        if one.quantity == "TV":
            add(f"moderate, TV ({distributions})", one)
        elif 0.05 <= one.truth <= 3:
            add(f"moderate, KL .05–3 ({distributions})", one)
            if not one.flag:
                add(f"moderate, KL .05–3, no flag ({distributions})", one)
            add(f"moderate, KL, {one.family}", one)
            add(f"moderate, KL, d {one.dimension}", one)
            add(f"moderate, KL, n {one.sizes[0]} / {one.sizes[1]}", one)
            band = "< .3" if one.truth < 0.3 else ".3–1" if one.truth < 1 else "1–3"
            add(f"moderate, KL {band}", one)
            add(f"moderate, KL, {one.change}", one)
    head = (
        "| case | values | bias | rmse | of the true ratio | median abs. error "
        "| 94 % interval holds | lower bound holds | no upper end | median width |\n"
        "|---|---|---|---|---|---|---|---|---|---|"
    )
    # Two values say nothing of a cover: a quick run leaves out single cells of one distribution.
    kept = {name: found for name, found in groups.items() if len(found) >= FEWEST_VALUES}
    lines = sorted((row(name, found) for name, found in kept.items()), key=lambda line: line[0])
    return "\n".join([head, *(text for _, text in lines)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one replication of each cell")
    parser.add_argument(
        "--case",
        choices=("one distribution", "moderate", "apart", "gap"),
        help="only runs of this case",
    )
    parser.add_argument(
        "--replications", type=int, default=50, help="of each cell of one distribution"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        help="stop after these: runs are in random order, those of one distribution by cell, cheap "
        "ones first, and a cell that is not whole is left out",
    )
    arguments = parser.parse_args()
    every = runs(arguments.quick, arguments.seed, arguments.replications)
    jobs = [job for job in every if arguments.case in (None, job.case)]
    if arguments.case == "one distribution":
        jobs = sorted(jobs, key=lambda job: job.cell)
    else:
        jobs = [jobs[i] for i in np.random.default_rng(arguments.seed).permutation(len(jobs))]
    done: list[tuple[Run, list[Reading]]] = []
    begun = time.perf_counter()
    for job in progress(jobs, len(jobs), "divergences"):
        if time.perf_counter() - begun > 60 * arguments.minutes:
            if arguments.case == "one distribution":
                done = [(one, found) for one, found in done if one.cell != job.cell]
            break
        done.append((job, job.read()))
    readings = [reading for _, found in done for reading in found]
    print(f"{len(done)} of {len(jobs)} pairs or triples of samples, seed {arguments.seed}\n")
    print(table(readings))
    seconds = [one.seconds for one in readings if one.sizes == (1000, 1000) and one.dimension == 16]
    if seconds:
        print(
            "\nSeconds of a processor for both divergences and TV of 1,000 rows each, d 16: "
            f"{np.median(seconds):.2f}"
        )


if __name__ == "__main__":
    main()
