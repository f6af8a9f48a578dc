"""The kernels on a GPU against its roofline, and the copies to the host within their loops.

    python benchmarks/gpu.py [--device auto|cuda|cpu] [--quick]

Roofs are measured on the device: the rate of a large matrix product, and the bandwidth of a large
copy. A kernel's time stands beside the least that its matrix products take at that rate, and beside
what its traffic takes at that bandwidth: every operand of every operation read and written once, as
the operations are written. The larger of the two is the roof that it can reach without fusing
operations, and the last column how near it comes. Copies to the host are counted by torch's
profiler, an iteration's share of them, for a number of rows and for four times as many: a copy that
grew with the rows would show. What is left are the scalars that decide whether a fit has settled.

Where there is no GPU the same is run on the CPU, and its rows say so. Prints Markdown.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from rbpp.mixtures.ascent import Ascent
from rbpp.mixtures.cavi import cavi
from rbpp.mixtures.conjugate import VariationalMixture, default_prior
from rbpp.mixtures.divergences import kl_divergence
from rbpp.mixtures.mixture import GaussianMixture
from rbpp.options import resolve_device
from rbpp.randomness import generator
from rbpp.theory.information import contrastive_bounds

WARM, MEASURED = 3, 10  # iterations before and within a measurement
# What a program waits for: reading a scalar, or copying a tensor, from the device.
HOST_READS = ("aten::_local_scalar_dense", "Memcpy DtoH")


class Work(NamedTuple):
    """What a kernel does at least: floating-point operations in products, and bytes moved."""

    name: str
    dtype: torch.dtype
    seconds: float
    operations: float
    traffic: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["auto", "cuda", "cpu"], default="auto")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows and pairs")
    arguments = parser.parse_args()
    device = torch.device(resolve_device(arguments.device))
    on_gpu = device.type == "cuda"
    print(f"Device: {name_of(device)}; torch {torch.__version__}.\n")
    part = 10 if arguments.quick else 1
    rows = (1_000_000 if on_gpu else 100_000) // part
    roofs = {dtype: product_rate(device, dtype) for dtype in (torch.float32, torch.float64)}
    bandwidth = copy_rate(device)
    print(
        f"Roofs: {roofs[torch.float32] / 1e12:.3g} TFlop/s in float32, "
        f"{roofs[torch.float64] / 1e12:.3g} in float64, {bandwidth / 1e9:.3g} GB/s.\n"
    )
    print("| kernel | precision | seconds | products at the roof | traffic at the roof | reached |")
    print("|---|---|---|---|---|---|")
    for work in (
        *(large_mixture(rows, dtype, device) for dtype in roofs),
        *(small_mixtures(4200 // part, dtype, device) for dtype in roofs),
        divergence(4200 // part, device),
        contrast(10_000 // part, device),
    ):
        products, traffic = work.operations / roofs[work.dtype], work.traffic / bandwidth
        reached = max(products, traffic) / work.seconds
        precision = str(work.dtype).removeprefix("torch.")
        print(
            f"| {work.name} | {precision} | {work.seconds:.3g} | {products:.3g} | {traffic:.3g} | "
            f"{reached:.0%} |"
        )
    print_copies(rows // 10, device)
    print_agreement(rows // 10, device)
    if not on_gpu:
        print(
            "\nOn a GPU: not measured, as there is none here. `python benchmarks/gpu.py --device "
            "cuda` measures it where there is one."
        )


def name_of(device: torch.device) -> str:
    """What a reader knows the device by."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {platform.machine()}, {torch.get_num_threads()} threads"


def timed(work: Callable[[], object], device: torch.device, times: int = MEASURED) -> float:
    """Seconds of a call: the least of several after one that is not counted."""
    work()
    found = []
    for _ in range(times):
        synchronise(device)
        begin = time.perf_counter()
        work()
        synchronise(device)
        found.append(time.perf_counter() - begin)
    return min(found)


def synchronise(device: torch.device) -> None:
    """Wait for what the device was given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second in a large matrix product, in full precision."""
    size = 8192 if device.type == "cuda" else 1024
    left = torch.randn(size, size, device=device, dtype=dtype)
    found = torch.empty_like(left)
    return 2 * size**3 / timed(lambda: torch.mm(left, left, out=found), device)


def copy_rate(device: torch.device) -> float:
    """Bytes a second that are read and written in a copy too large for a cache."""
    source = torch.ones(2**28 if device.type == "cuda" else 2**26, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / timed(lambda: target.copy_(source), device)


def data(sets: int, rows: int, dimension: int, components: int, device: torch.device) -> Tensor:
    """Rows (sets, n, d) around as many places, in float64."""
    random = generator(0)
    places = 4 * torch.randn(sets, components, dimension, generator=random, dtype=torch.float64)
    own = torch.randint(components, (sets, rows, 1), generator=random).expand(-1, -1, dimension)
    noise = torch.randn(sets, rows, dimension, generator=random, dtype=torch.float64)
    return (places.gather(1, own) + noise).to(device)


def iterations(
    rows: Tensor, components: int, dtype: torch.dtype
) -> Callable[[int], VariationalMixture]:
    """Ascent of so many iterations, whether or not it has settled."""
    prior = default_prior(rows, components)
    start = cavi(
        rows,
        prior,
        components,
        generator=generator(0, rows.device),
        ascent=Ascent(max_iterations=1, dtype=dtype),
    )

    def ascent(count: int) -> VariationalMixture:
        return cavi(
            rows,
            prior,
            components,
            initial=start,
            ascent=Ascent(tolerance=-1.0, max_iterations=count, dtype=dtype),
        )

    return ascent


def seconds_per_iteration(
    ascent: Callable[[int], VariationalMixture], device: torch.device
) -> float:
    """Without what an ascent does once."""
    short = timed(lambda: ascent(WARM), device, 4)
    return (timed(lambda: ascent(WARM + MEASURED), device, 4) - short) / MEASURED


def pass_traffic(count: float, dimension: int, components: int, stored: bool, size: int) -> float:
    """Bytes of a pass over rows: features (made, or read twice) and log densities.

    Log densities are written by the product, read by the maximum, read and written by subtraction,
    bound, exponential and scaling, read by the sum and by the second product.
    """
    width = dimension * (dimension + 1) // 2 + dimension + 1
    made = 0 if stored else dimension + width
    return count * size * (2 * width + made + 12 * components)


def large_mixture(count: int, dtype: torch.dtype, device: torch.device) -> Work:
    """An iteration of one large mixture."""
    dimension, components = 16, 32
    rows = data(1, count, dimension, components, device)[0]
    seconds = seconds_per_iteration(iterations(rows, components, dtype), device)
    width = dimension * (dimension + 3) // 2 + 1
    return Work(
        f"iteration, n {count:,}, d {dimension}, K {components}",
        dtype,
        seconds,
        4 * count * width * components,
        pass_traffic(count, dimension, components, count * width <= 2**24, dtype.itemsize),
    )


def small_mixtures(sets: int, dtype: torch.dtype, device: torch.device) -> Work:
    """An iteration of many small mixtures."""
    count, dimension, components = 200, 2, 6
    rows = data(sets, count, dimension, components, device)
    seconds = seconds_per_iteration(iterations(rows, components, dtype), device)
    width = dimension * (dimension + 3) // 2 + 1
    return Work(
        f"iteration, {sets:,} mixtures, n {count}, d {dimension}, K {components}",
        dtype,
        seconds,
        4 * sets * count * width * components,
        pass_traffic(sets * count, dimension, components, True, dtype.itemsize),
    )


def divergence(pairs: int, device: torch.device) -> Work:
    """Monte Carlo KL of pairs of mixtures, 1,000 draws each."""
    dimension, components, draws = 2, 6, 1000
    random, both = generator(1), []
    for _ in range(2):
        shape = (pairs, components, dimension)
        factor = torch.rand(*shape, dimension, generator=random, dtype=torch.float64)
        means = 10 * torch.rand(shape, generator=random, dtype=torch.float64)
        weights = torch.full(shape[:-1], 1 / components, dtype=torch.float64)
        covariances = factor @ factor.mT + 0.1 * torch.eye(dimension, dtype=torch.float64)
        both.append(GaussianMixture(weights.to(device), means.to(device), covariances.to(device)))
    seconds = timed(
        lambda: kl_divergence(*both, num_samples=draws, generator=generator(0)), device, 3
    )
    width = dimension * (dimension + 3) // 2 + 1
    points = 2 * pairs * draws
    # Log densities: written by the product, then read and written by maximum, exponential and sum.
    traffic = 8 * points * (2 * width + 7 * components)
    return Work(
        f"KL of {pairs:,} pairs, d {dimension}, K {components}, {draws:,} draws",
        torch.float64,
        seconds,
        2 * points * width * components,
        traffic,
    )


def contrast(count: int, device: torch.device) -> Work:
    """Both contrastive bounds from a matrix of log densities."""
    matrix = torch.randn(count, count, generator=generator(0), dtype=torch.float64).to(device)
    seconds = timed(lambda: contrastive_bounds(matrix), device, 3)
    # Copied, searched for what is not finite and for the largest, shifted, exponentiated, summed,
    # and multiplied by two vectors.
    return Work(
        f"contrastive bounds, R {count:,}", torch.float64, seconds, 4 * count**2, 8 * 10 * count**2
    )


def print_copies(count: int, device: torch.device) -> None:
    """How often an iteration waits for the device, at two numbers of rows."""
    print("\n| kernel | rows | scalars and copies to the host, an iteration |\n|---|---|---|")
    for label, sets, dimension, components in (
        ("one large mixture", 1, 16, 32),
        ("many small mixtures", 100, 2, 6),
    ):
        for times in (1, 4):
            rows = data(sets, times * count // sets, dimension, components, device)
            ascent = iterations(rows, components, torch.float32)
            found = host_reads(lambda ascent=ascent: ascent(WARM + MEASURED), device)
            once = host_reads(lambda ascent=ascent: ascent(WARM), device)
            each = ", ".join(
                f"{(found[name] - once[name]) / MEASURED:.1f} {name}" for name in HOST_READS
            )
            print(f"| {label} | {times * count:,} | {each} |")


def host_reads(work: Callable[[], object], device: torch.device) -> dict[str, int]:
    """Events of a call by name, of those that wait for the device."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as record:
        work()
        synchronise(device)
    events = record.key_averages()
    return {
        name: sum(event.count for event in events if event.key.startswith(name))
        for name in HOST_READS
    }


def print_agreement(count: int, device: torch.device) -> None:
    """The same ascent in float32 on the device and in float64 on the CPU."""
    rows = data(1, count, 16, 32, torch.device("cpu"))[0]
    prior = default_prior(rows, 32)
    start = cavi(rows, prior, 32, generator=generator(0), ascent=Ascent(max_iterations=1))
    here = cavi(rows, prior, 32, initial=start, ascent=Ascent(max_iterations=20))
    there = cavi(
        rows.to(device),
        prior.to(rows.to(device)),
        32,
        initial=start.map(lambda value: value.to(device)),
        ascent=Ascent(max_iterations=20, dtype=torch.float32),
    )
    difference = (there.elbo.cpu() - here.elbo).abs().max().item() / count
    print(
        f"\nELBO after 20 iterations, float32 on the device against float64 on the CPU: "
        f"{difference:.2g} nats a row apart."
    )


if __name__ == "__main__":
    main()
