"""Mixture posteriors against their peers, in paired runs.

    python benchmarks/mixtures.py [--quick] [--pairs 3] [--only NAME …]

Every measurement is a process of its own, and a pair is ours and then the peer's, so that both see
the same machine; ratios are medians over pairs. Processes have one thread unless --threads says
more; scikit-learn's loop has two processes, and its CPU seconds are then those of one. They are
shown because wall-clock time on a shared machine says more about its other users. Memory is what
the process had at its peak beyond the imports and the data. ELBOs are of the same bound:
scikit-learn's fits are evaluated by ours. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.mixture import BayesianGaussianMixture

from rbpp.data.stream import row_stream
from rbpp.mixtures.ascent import Ascent
from rbpp.mixtures.cavi import cavi
from rbpp.mixtures.conjugate import VariationalMixture, default_prior
from rbpp.mixtures.engines import Gradient
from rbpp.mixtures.normal_wishart import Parameters
from rbpp.mixtures.posterior import Settings, mixture_posterior
from rbpp.mixtures.stream import Passes, stream_posterior
from rbpp.randomness import generator

SAME_TOLERANCE = 1e-3  # scikit-learn's default, in nats of the whole ELBO
Job = Callable[[dict[str, Any]], dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller, one pair, under 3 minutes")
    parser.add_argument("--pairs", type=int, default=3, help="paired runs of each row")
    parser.add_argument("--threads", type=int, default=1, help="threads of every process")
    parser.add_argument("--only", nargs="*", help="rows to run, by their first word")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        settings = json.loads(arguments.job)
        print(json.dumps(measured(JOBS[settings["job"]], settings)))
        return
    print(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
    for row in rows(arguments.quick):
        if not arguments.only or row["name"].split()[0] in arguments.only:
            pairs = 1 if arguments.quick else arguments.pairs
            print(compared(row, pairs, arguments.threads), flush=True)
    packages = ("torch", "scikit-learn", "pyro-ppl", "numpy")
    print(
        f"\nPython {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in packages)
        + f"; {os.cpu_count()} cores, {arguments.threads} used; matrix "
        f"product {product_rate(torch.float32):.0f} GFlop/s in "
        f"float32, {product_rate(torch.float64):.0f} in float64, one thread."
    )


HEADINGS = (
    "work",
    "peer",
    "ours: CPU s",
    "peer: CPU s",
    "ratio, CPU",
    "ours: wall s",
    "peer: wall s",
    "ratio, wall",
    "ours: MB",
    "peer: MB",
    "ours: ELBO or value",
    "peer: ELBO or value",
)


def rows(quick: bool) -> list[dict[str, Any]]:
    """What is compared: names, jobs, sizes, and what one unit of the quotient is."""
    many, few = (420, 16) if quick else (4200, 60)
    large = {"rows": 20_000 if quick else 100_000, "dimension": 16, "components": 32}
    result = []
    for components in (6, 19):
        result.append(
            {
                "name": f"small mixtures, per 4,200 (n 200, d 2, K {components})",
                "peer": "scikit-learn, 2 processes",
                "ours": {"job": "many", "sets": many, "components": components},
                "theirs": {"job": "sklearn_many", "sets": few, "components": components},
                "scale": 4200,
            }
        )
    for name in ("float32", "float64"):
        result.append(
            {
                "name": f"large mixture, per iteration, {name} (n {large['rows']}, d 16, K 32)",
                "peer": "scikit-learn",
                "ours": {"job": "iteration", "dtype": name, **large},
                "theirs": {"job": "sklearn_iteration", "dtype": name, **large},
            }
        )
    if not quick:
        size = {**large, "rows": 1_000_000, "dtype": "float32"}
        result.append(
            {
                "name": "huge mixture, per iteration, float32 (n 1,000,000, d 16, K 32)",
                "peer": "scikit-learn",
                "ours": {"job": "iteration", **size},
                "theirs": {"job": "sklearn_iteration", **size},
            }
        )
    result.append(
        {
            "name": "converged mixture (n 1,000, d 8, K 16)",
            "peer": "Pyro SVI, AutoNormal",
            "ours": {"job": "converged", "engine": "cavi"},
            "theirs": {"job": "converged", "engine": "svi", "steps": 300 if quick else 1000},
        }
    )
    for count in (100_000, 1_000_000) if quick else (100_000, 1_000_000, 10_000_000):
        result.append(
            {
                "name": f"stream from disk, 2 exact passes (n {count:,}, d 16, K 32, float32)",
                "peer": "",
                "ours": {"job": "stream", "rows": count},
                "theirs": None,
            }
        )
    return result


def compared(row: dict[str, Any], pairs: int, threads: int) -> str:
    """One line of the table."""
    ours, theirs = [], []
    for _ in range(pairs):
        ours.append(run(row["ours"], row.get("scale", 1), threads))
        if row["theirs"]:
            theirs.append(run(row["theirs"], row.get("scale", 1), threads))

    def median(results: list[dict[str, Any]], key: str) -> str:
        return f"{statistics.median(one[key] for one in results):.3g}" if results else ""

    def ratio(key: str) -> str:
        both = zip(ours, theirs, strict=False)
        return f"{statistics.median(b[key] / a[key] for a, b in both):.1f}" if theirs else ""

    cells = [row["name"], row["peer"]]
    for key in ("cpu", "wall"):
        cells += [median(ours, key), median(theirs, key), ratio(key)]
    cells += [median(ours, "memory"), median(theirs, "memory")]
    cells += [ours[0]["value"], theirs[0]["value"] if theirs else ""]
    return f"| {' | '.join(cells)} |"


def run(settings: dict[str, Any], scale: float, threads: int) -> dict[str, Any]:
    """The job in a fresh process; times scaled to `scale` units of its work."""
    finished = subprocess.run(
        [sys.executable, __file__, "--job", json.dumps(settings)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )
    if finished.returncode:
        raise RuntimeError(finished.stderr)
    found = json.loads(finished.stdout.splitlines()[-1])
    for key in ("cpu", "wall"):
        found[key] *= scale / found.get("units", 1)
    return found


def measured(job: Job, settings: dict[str, Any]) -> dict[str, Any]:
    """Run a job, which times itself by `timed`."""
    warnings.simplefilter("ignore")
    return job(settings)


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """The result, wall and CPU seconds (of children too), and peak megabytes beyond before."""
    before = peak()
    cpu, wall = cpu_seconds(), time.perf_counter()
    result = work()
    return result, {
        "wall": time.perf_counter() - wall,
        "cpu": cpu_seconds() - cpu,
        "memory": peak() - before,
    }


def peak() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (usage + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024


def cpu_seconds() -> float:
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def worlds(sets: int, count: int, dimension: int, components: int, seed: int = 0) -> torch.Tensor:
    """Data sets from random mixtures: means uniform on [0, 10]^d, covariances A Aᵀ."""
    source = generator(seed)
    options: dict[str, Any] = {"generator": source, "dtype": torch.float64}
    means = 10 * torch.rand(sets, components, dimension, **options)
    factors = torch.rand(sets, components, dimension, dimension, **options)
    label = torch.randint(components, (sets, count), generator=source)
    noise = torch.randn(sets, count, dimension, 1, **options)
    which = torch.arange(sets).unsqueeze(-1)
    return means[which, label] + (factors[which, label] @ noise).squeeze(-1)


def blobs(count: int, dimension: int, components: int, dtype: str = "float32") -> torch.Tensor:
    """Rows around random centres, made in pieces to keep the peak low."""
    source = generator(0)
    means = 10 * torch.rand(components, dimension, generator=source)
    rows = torch.empty(count, dimension, dtype=getattr(torch, dtype))
    for part in rows.split(10_000):
        label = torch.randint(components, (len(part),), generator=source)
        part.copy_(means[label] + torch.randn(len(part), dimension, generator=source))
    return rows


def peer_of(prior: Any, components: int, **options: Any) -> BayesianGaussianMixture:
    """scikit-learn's variational mixture with the same prior."""
    return BayesianGaussianMixture(
        n_components=components,
        weight_concentration_prior_type="dirichlet_distribution",
        weight_concentration_prior=prior.concentration.item(),
        mean_precision_prior=prior.mean_precision.item(),
        mean_prior=prior.mean.numpy(),
        degrees_of_freedom_prior=prior.degrees_of_freedom.item(),
        covariance_prior=prior.scale.numpy(),
        random_state=0,
        **options,
    )


def elbo_of_peer(data: torch.Tensor, prior: Any, fit: BayesianGaussianMixture) -> float:
    """Our ELBO at scikit-learn's parameters."""
    freedom = torch.as_tensor(fit.degrees_of_freedom_)
    initial = Parameters(
        torch.as_tensor(np.asarray(fit.weight_concentration_)),
        torch.as_tensor(fit.means_),
        torch.as_tensor(fit.mean_precision_),
        freedom,
        torch.as_tensor(fit.covariances_) * freedom[:, None, None],
    )
    found = cavi(data, prior, len(freedom), initial=initial, ascent=Ascent(max_iterations=1))
    assert found.elbo is not None
    return float(found.elbo)


def many(settings: dict[str, Any]) -> dict[str, Any]:
    data = worlds(settings["sets"], 200, 2, settings["components"])
    prior = default_prior(data, settings["components"])
    cavi(data[:2], default_prior(data[:2], 2), 2, generator=generator(0))

    def work() -> VariationalMixture:
        return cavi(
            data,
            prior,
            settings["components"],
            generator=generator(0),
            ascent=Ascent(tolerance=SAME_TOLERANCE / 200),
        )

    fit, used = timed(work)
    shown = min(60, settings["sets"])
    assert fit.elbo is not None
    return {**used, "units": settings["sets"], "value": f"{fit.elbo[0, :shown].mean():.1f}"}


def sklearn_one(rows: np.ndarray, components: int) -> BayesianGaussianMixture:
    prior = default_prior(torch.from_numpy(rows), components)
    return peer_of(prior, components, tol=SAME_TOLERANCE, max_iter=500).fit(rows)


def sklearn_many(settings: dict[str, Any]) -> dict[str, Any]:
    from joblib import Parallel, delayed

    components = settings["components"]
    data = worlds(4200 if settings["sets"] > 16 else 420, 200, 2, components)[: settings["sets"]]
    pool = Parallel(n_jobs=2, batch_size=4)
    pool(delayed(sklearn_one)(data[i].numpy(), 2) for i in range(8))  # start the processes
    tasks = [delayed(sklearn_one)(rows.numpy(), components) for rows in data]
    before = children()
    fits, used = timed(lambda: pool(tasks))
    after = children()
    used["cpu"] = (after.cpu - before.cpu) / 2  # two processes at once on two cores
    used["memory"] = after.peak - before.peak
    shown = len(data)
    bounds = [
        elbo_of_peer(rows, default_prior(rows, components), fit)
        for rows, fit in zip(data[:shown], fits[:shown], strict=True)
    ]
    return {**used, "units": len(data), "value": f"{statistics.mean(bounds):.1f}"}


class Children(NamedTuple):
    """CPU seconds and summed peak megabytes of the living children."""

    cpu: float
    peak: float


def children() -> Children:
    """What getrusage counts only once they end."""
    cpu, high, tick = 0.0, 0.0, os.sysconf("SC_CLK_TCK")
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            after = (folder / "stat").read_text().rpartition(")")[2].split()
            status = (folder / "status").read_text()
        except OSError:
            continue
        if int(after[1]) == os.getpid():
            cpu += (int(after[11]) + int(after[12])) / tick
            high += sum(
                int(line.split()[1]) / 1024
                for line in status.splitlines()
                if line.startswith("VmHWM")
            )
    return Children(cpu, high)


def iteration(settings: dict[str, Any]) -> dict[str, Any]:
    components = settings["components"]
    data = blobs(settings["rows"], settings["dimension"], components, settings["dtype"])
    prior = default_prior(data[:10_000], components)
    cavi(data[:100], prior, 2, generator=generator(0), ascent=Ascent(max_iterations=2))

    before = peak()
    start = cavi(data, prior, components, generator=generator(0), ascent=Ascent(max_iterations=2))

    def work(count: int) -> VariationalMixture:
        return cavi(
            data,
            prior,
            components,
            initial=start,
            ascent=Ascent(tolerance=-torch.inf, max_iterations=count),
        )

    _, short = timed(lambda: work(1))
    fit, long = timed(lambda: work(11))
    assert fit.elbo is not None
    flops = 4 * settings["rows"] * components * (16 * 17 / 2 + 17)
    seconds = (long["cpu"] - short["cpu"]) / 10
    return {
        "wall": (long["wall"] - short["wall"]) / 10,
        "cpu": seconds,
        "memory": peak() - before,
        "value": f"{fit.elbo.item() / settings['rows']:.4f} per row, "
        f"{flops / seconds / 1e9:.0f} GFlop/s",
    }


def sklearn_iteration(settings: dict[str, Any]) -> dict[str, Any]:
    components = settings["components"]
    data = blobs(settings["rows"], settings["dimension"], components, settings["dtype"])
    prior = default_prior(data[:10_000], components)
    rows = data.numpy()

    def work(count: int) -> BayesianGaussianMixture:
        fit = peer_of(prior, components, tol=0, max_iter=count, init_params="random_from_data")
        return fit.fit(rows)

    steps = 2 if settings["rows"] > 200_000 else 4
    _, short = timed(lambda: work(1))
    _, long = timed(lambda: work(1 + steps))
    return {
        "wall": (long["wall"] - short["wall"]) / steps,
        "cpu": (long["cpu"] - short["cpu"]) / steps,
        "memory": max(short["memory"], long["memory"]),
        "value": "",
    }


def converged(settings: dict[str, Any]) -> dict[str, Any]:
    data = blobs(1000, 8, 16, "float64")
    options: dict[str, Any] = {
        "prior": default_prior(data, 16),
        "chains": 1,
        "ascent": Ascent(starts=1),
        "draws": 50,
    }
    if settings["engine"] == "svi":
        gradient = Gradient(steps=settings["steps"], particles=1, warm_start=False)
        options |= {"engine": "svi", "gradient": gradient}
    mixture_posterior(data[:200], 2, Settings(chains=1, ascent=Ascent(starts=1), draws=10))
    fit, used = timed(lambda: mixture_posterior(data, 16, Settings(**options)))
    assert fit.log_q is not None
    ratio = fit.log_prob - fit.log_q
    return {**used, "value": f"{ratio.mean():.1f} ± {ratio.std() / 50**0.5:.1f}"}


def stream(settings: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npy"
        source = generator(0)
        means = (10 * torch.rand(32, 16, generator=source)).numpy()
        rng = np.random.default_rng(0)
        shape = (settings["rows"], 16)
        shard = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        for start in range(0, len(shard), 100_000):
            part = shard[start : start + 100_000]
            part[:] = means[rng.integers(32, size=len(part))]
            part += rng.standard_normal(part.shape, dtype=np.float32)
        del shard, part
        passes = Passes(exact=2, tolerance=0)
        found, used = timed(
            lambda: stream_posterior(row_stream(path), 32, chains=1, draws=1, passes=passes)
        )
    used["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    elbo = found[0].elbo.item()
    return {**used, "value": f"{elbo / settings['rows']:.4f} per row; MB in all"}


def product_rate(dtype: torch.dtype) -> float:
    """GFlop/s of a large square matrix product on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    matrix = torch.randn(1536, 1536, dtype=dtype)
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        matrix @ matrix
        best = min(best, time.process_time() - start)
    torch.set_num_threads(threads)
    return 2 * 1536**3 / best / 1e9


JOBS: dict[str, Job] = {
    job.__name__: job
    for job in (
        many,
        sklearn_many,
        iteration,
        sklearn_iteration,
        converged,
        stream,
    )
}

if __name__ == "__main__":
    main()
