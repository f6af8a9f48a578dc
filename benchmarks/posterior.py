"""Posteriors of worlds: calibration, cover of bounds, spreads and time beside NUTS, time by rows.

python benchmarks/posterior.py [--replications 200] [--figure docs/measurements/sbc.png] [--quick]
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide.initialization import init_to_value
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import rbpp  # noqa: E402
from benchmarks.world_cover import cover_cases, table_of, world_cover  # noqa: E402
from benchmarks.world_ranks import DRAWS, WorldRanks, world_ranks  # noqa: E402
from rbpp.compute import Compute  # noqa: E402
from rbpp.posterior.auto import Inference, infer_vectors  # noqa: E402
from rbpp.posterior.density import ConditionedDensity  # noqa: E402
from rbpp.posterior.hmc import effective_sample_size, split_rhat  # noqa: E402
from rbpp.posterior.nuts import nuts  # noqa: E402
from rbpp.posterior.sites import on_random_sites  # noqa: E402
from rbpp.posterior.worlds import WorldPosterior  # noqa: E402
from rbpp.processes.process import Process  # noqa: E402
from rbpp.processes.simulation import simulate_tensors  # noqa: E402
from rbpp.randomness import seeded  # noqa: E402


def readme(anchors: int = 20, outputs: int = 50, temperature: float = 0.5, noise: float = 0.1):
    """The process of the README."""
    centre = pyro.sample("centre", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
    with pyro.plate("anchors", anchors):
        anchor = pyro.sample("anchor", dist.Normal(centre, 1.0).to_event(1))
    prompt = pyro.sample("prompt", dist.Normal(anchor.mean(-2, keepdim=True), 0.1).to_event(1))
    with pyro.plate("outputs", outputs):
        output = pyro.sample("output", dist.Normal(prompt, temperature).to_event(1))
        pyro.sample("synthetic", dist.Normal(output, noise).to_event(1))


# The smallest sizes at which most posteriors are trusted after about two seconds of an idle core.
CASES: dict[str, tuple[Any, dict[str, Any], tuple[str, ...]]] = {
    "README": (readme, {}, ("synthetic",)),
    "finite_alphabet": ("finite_alphabet", {"outputs": 6}, ("anchor", "synthetic")),
    "linear_gaussian": ("linear_gaussian", {"anchors": 4, "outputs": 4}, ("anchor", "synthetic")),
    "style_shift": (
        "style_shift",
        {"anchors": 20, "outputs": 40, "dimension": 1},
        ("anchor", "synthetic"),
    ),
    "curation": ("curation", {"anchors": 5, "outputs": 5}, ("anchor", "output", "synthetic")),
    "gaussian_mixture": (
        "gaussian_mixture",
        {
            "anchor_components": 1,
            "unsampled_components": 0,
            "irrelevant_components": 1,
            "anchors_per_component": 10,
            "outputs": 20,
            "dimension": 1,
            "noise": 0.1,
        },
        ("anchor", "synthetic"),
    ),
    "invertible_prompt": (
        "invertible_prompt",
        {"anchors": 5, "outputs": 20},
        ("anchor", "synthetic"),
    ),
    "sources": (
        "sources",
        {
            "components": 2,
            "dimension": 1,
            "anchors": 10,
            "outputs": 20,
            "targets": 20,
            "unprompted_outputs": 20,
            "noise": 0.1,
        },
        ("anchor", "target", "unprompted", "synthetic"),
    ),
}
# Processes without discrete sites, and whether the sampler runs on the model as it is written: of
# linear_gaussian two chains of 500 moves do not end so in three CPU minutes, and they do in the
# coordinates of the search, whitened.
BESIDE_NUTS = {"README": True, "curation": True, "style_shift": True, "linear_gaussian": False}
MIXTURE = {
    "anchor_components": 6,
    "unsampled_components": 0,
    "irrelevant_components": 0,
    "dimension": 8,
    "noise": 0.1,
}


_COLUMNS = 3  # of the figure
PARTS = ["calibration", "cover", "spread", "time", "rows"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--replications", type=int, default=200, help="worlds (200); 0: those in the store"
    )
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--store", type=Path, help="folder in which a run that ends goes on")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the wall, for a world")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--quick", action="store_true", help="20 replications, 200 rows")
    parser.add_argument("--nuts", type=int, nargs=2, default=(100, 100), help="warm-up and draws")
    parser.add_argument("--parts", nargs="*", default=PARTS, choices=PARTS)
    arguments = parser.parse_args()
    if arguments.store is not None:
        arguments.store.mkdir(parents=True, exist_ok=True)
    if "calibration" in arguments.parts:
        calibration(arguments)
    if "cover" in arguments.parts:
        cover(arguments)
    if "time" in arguments.parts:
        beside_nuts(*arguments.nuts)
    if "spread" in arguments.parts:
        spreads(arguments)
    if "rows" in arguments.parts:
        by_rows((100, 200) if arguments.quick else (250, 500, 1000))


def stored(arguments: argparse.Namespace, name: str, quick: int) -> tuple[Path | None, int]:
    """The file of a case, and how many worlds it shall have."""
    store = None if arguments.store is None else arguments.store / f"{name}.jsonl"
    if store is not None and arguments.replications == 0:
        return store, len(store.read_text().splitlines())
    return store, quick if arguments.quick else arguments.replications


def cover(arguments: argparse.Namespace) -> None:
    """How often 94 % intervals over posterior worlds hold the true world's terms and bounds."""
    found = {}
    for name, case in cover_cases(readme).items():
        if name not in arguments.cases:
            continue
        store, replications = stored(arguments, f"cover_{name}", 3)
        one = world_cover(case, replications, seconds=arguments.seconds, seed=1, store=store)
        found[name] = one
        print(f"{name}: {one.refused} of {replications} refused, {one.seconds:.1f} CPU s a world")
    print("", *table_of(found), sep="\n")


def calibration(arguments: argparse.Namespace) -> None:
    """Ranks of functionals that no label changes, the least uniform first."""
    found, rows = {}, []
    for name in arguments.cases:
        reference, knobs, observed = CASES[name]
        store, replications = stored(arguments, name, 20)
        process = rbpp.load_process(reference, **knobs)
        one = world_ranks(
            process, observed, replications, seconds=arguments.seconds, seed=1, store=store
        )
        found[name] = one
        half, most = one.coverage(0.5), one.coverage(0.94)
        engines = ", ".join(f"{n} {count}" for n, count in one.engines.items())
        for functional, p in one.p_values().items():
            rows.append((p, name, functional, half, most, engines, one))
    print(
        f"Ranks among {DRAWS} draws.\n\n| process | functional | worlds | uniform, p | "
        f"50 % covers | 94 % covers | engines | refused | CPU s |\n|{'---|' * 9}"
    )
    for p, name, functional, half, most, engines, one in sorted(rows, key=lambda row: row[0]):
        print(
            f"| {name} | {functional} | {len(one.ranks[functional])} | {p:.3f} | "
            f"{half[functional]:.2f} | {most[functional]:.2f} | {engines} | {one.refused} | "
            f"{one.seconds:.1f} |",
            flush=True,
        )
    if arguments.figure is not None:
        plot(found, arguments.figure)


def plot(found: dict[str, WorldRanks], path: Path) -> None:
    """Share of ranks below each rank, less the rank's own share, with a band of 94 %."""
    import numpy as np
    from matplotlib import pyplot

    columns = min(_COLUMNS, len(found))
    lines = -(-len(found) // columns)
    size = (3 * columns, 3 * lines)
    figure, axes = pyplot.subplots(lines, columns, figsize=size, squeeze=False)
    for panel in axes.flat[len(found) :]:
        panel.set_axis_off()
    for panel, (name, one) in zip(axes.flat, found.items(), strict=False):
        shares = (np.arange(DRAWS + 1) + 1) / (DRAWS + 1)
        for ranks in one.ranks.values():
            below = np.bincount(ranks, minlength=DRAWS + 1).cumsum() / len(ranks)
            panel.plot(shares, below - shares, linewidth=0.8)
            band = 1.88 * np.sqrt(shares * (1 - shares) / len(ranks))
        panel.fill_between(shares, -band, band, color="0.85", zorder=0)
        panel.set_title(name, fontsize=9)
        panel.set_xlabel("rank / draws")
    for panel in axes[:, 0]:
        panel.set_ylabel("share below, less the rank")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def spreads(arguments: argparse.Namespace) -> None:
    """Standard deviations, means and time beside Pyro's NUTS on the model as it is written.

    The data are the first of a few whose posterior comes without a warning.
    """
    print(
        "\n| process | engine | CPU s | effective draws | NUTS, CPU s | effective draws | "
        f"sd, of NUTS's | mean, off by NUTS sds |\n|{'---|' * 8}"
    )
    for name in arguments.cases:
        if name not in BESIDE_NUTS:
            continue
        reference, knobs, observed = CASES[name]
        process = rbpp.load_process(reference, **knobs)
        for seed in range(1, 9):
            sites = simulate_tensors(process, compute=Compute(seed=seed)).sites
            rows = on_random_sites(process, {name: sites[name][0, 0] for name in observed})
            start = time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                posterior = rbpp.infer(
                    process, rows, seconds=arguments.seconds, draws=1000, accept=True
                )
            seconds = time.process_time() - start
            if posterior.exact:
                break
        start = time.process_time()
        if BESIDE_NUTS[name]:
            other = nuts_draws(process, rows)
        else:
            other = whitened_draws(process, rows, arguments.seconds)
        nuts_seconds = time.process_time() - start
        own = world_draws(posterior)
        spread = other.flatten(0, 1).std(0)
        ratio = own.flatten(0, 1).std(0) / spread
        shift = ((own.mean((0, 1)) - other.mean((0, 1))) / spread).abs()
        print(
            f"| {name} | {posterior.engine} | {seconds:.1f} | "
            f"{float(effective_sample_size(own).min()):.0f} | {nuts_seconds:.1f} | "
            f"{float(effective_sample_size(other).min()):.0f} | "
            f"{float(ratio.min()):.2f} to {float(ratio.max()):.2f} | {float(shift.max()):.2f} |",
            flush=True,
        )


def world_draws(posterior: WorldPosterior) -> Tensor:
    """Draws (chain, draw, elements) of all sites of the world, one after the other."""
    drawn = posterior.idata["posterior"]
    sites = [torch.as_tensor(drawn[site].values) for site in world_sites(posterior.process)]
    return torch.cat([site.reshape(*site.shape[:2], -1) for site in sites], -1)


def whitened_draws(process: Process, rows: Mapping[str, Tensor], seconds: float) -> Tensor:
    """As `world_draws`, from rbpp's density in coordinates whitened by draws of `auto`.

    For worlds of normal sites alone, whose values are their unconstrained coordinates.
    """
    density = ConditionedDensity(process, rows)
    found = infer_vectors(density, Inference(seconds=seconds, accept=True)).vectors.flatten(0, 1)
    scale = torch.linalg.cholesky(torch.cov(found.mT))
    run = nuts(density, found[:2], scale, 200, warmup=100)
    assert run is not None
    places = {one.name: torch.arange(one.start, one.stop) for one in density.prepared.latents}
    return run[0][..., torch.cat([places[name] for name in world_sites(process)])]


def world_sites(process: Process) -> list[str]:
    """Names of the random sites of the world."""
    return [name for name, one in process.sites.items() if one.shared and not one.deterministic]


def nuts_draws(
    process: Process, rows: Mapping[str, Tensor], chains: int = 2, draws: int = 300
) -> Tensor:
    """As `world_draws`, from Pyro's own density of the model as it is written."""

    def model() -> None:
        with pyro.condition(data=rows):
            process()

    hidden = [name for name in ("target", "unprompted") if name not in rows]
    found = []
    torch.set_default_dtype(torch.float64)
    try:
        for chain in range(chains):
            with seeded(chain), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                sampler = MCMC(
                    NUTS(pyro.poutine.block(model, hide=hidden)),
                    num_samples=draws,
                    warmup_steps=200,
                    disable_progbar=True,
                )
                sampler.run()
            drawn = sampler.get_samples()
            sites = [drawn[name].reshape(draws, -1) for name in world_sites(process)]
            found.append(torch.cat(sites, -1))
    finally:
        torch.set_default_dtype(torch.float32)
    return torch.stack(found)


def beside_nuts(warmup: int, count: int) -> None:
    """Seconds per effective draw of the worst functional, NUTS from a draw of rbpp's."""
    print(
        "\n| process | engine | CPU s | R-hat | effective draws of the worst functional | "
        f"CPU s per effective draw |\n|{'---|' * 6}"
    )
    process = rbpp.load_process(readme)
    known = simulate_tensors(process, compute=Compute(seed=1)).sites
    rows = {"synthetic": known["synthetic"][0, 0]}
    _beside("README", process, rows, process, rows, lambda sites: sites["centre"], warmup, count)
    mixture = rbpp.load_process("gaussian_mixture", outputs=1000, **MIXTURE)
    sites = simulate_tensors(mixture, compute=Compute(seed=1)).sites
    data = {name: sites[name][0, 0] for name in ("anchor", "synthetic")}
    # All that the rows depend on is given, so that Pyro is spared them: a latent output with a
    # mixture for its density it refuses.
    short = rbpp.load_process(
        "gaussian_mixture", outputs=1, targets=1, unprompted_outputs=1, **MIXTURE
    )
    anchors = {"anchor": data["anchor"]}
    _beside("mixture", mixture, data, short, anchors, of_mixture, warmup, count)


def of_mixture(sites: dict[str, torch.Tensor]) -> torch.Tensor:
    """Means and entries of A Aᵀ (chain, draw, …), which no order of columns changes."""
    factors = sites["factors"]
    return torch.cat([sites["means"].flatten(2), (factors @ factors.mT).flatten(2)], -1)


def _beside(
    name: str,
    process: Any,
    data: dict[str, torch.Tensor],
    plain: Any,
    observed: dict[str, torch.Tensor],
    functionals: Any,
    warmup: int,
    count: int,
) -> None:
    def row(engine: str, values: torch.Tensor) -> None:
        seconds = time.process_time() - start
        size = float(effective_sample_size(values).min())
        print(
            f"| {name} | {engine} | {seconds:.1f} | {float(split_rhat(values).max()):.3f} | "
            f"{size:.0f} | {seconds / size:.4f} |",
            flush=True,
        )

    start = time.process_time()
    posterior = rbpp.infer(process, data, seconds=60.0, accept=True)
    group = posterior.idata["posterior"]
    found = {site: torch.as_tensor(group[site].values) for site in group.data_vars}
    row(f"rbpp, {posterior.engine}", functionals(found))

    def model() -> None:
        with pyro.condition(data=observed):
            plain()

    latent = [site for site in found if not site.startswith("part")]
    start = time.process_time()
    with seeded(0), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.set_default_dtype(torch.float64)
        try:
            sampler = MCMC(
                NUTS(
                    pyro.poutine.block(model, expose=[*latent, *observed]),
                    init_strategy=init_to_value(values={n: found[n][0, -1] for n in latent}),
                ),
                num_samples=count,
                warmup_steps=warmup,
                disable_progbar=True,
            )
            sampler.run()
            draws = sampler.get_samples(group_by_chain=True)
        finally:
            torch.set_default_dtype(torch.float32)
    row(f"Pyro NUTS, {warmup} + {count}", functionals(draws))


def by_rows(counts: tuple[int, ...]) -> None:
    """The mixture of the paper in eight dimensions given anchors and rows."""
    print("\n| rows | CPU s | engine |\n|---|---|---|")
    for count in counts:
        process = rbpp.load_process("gaussian_mixture", outputs=count, **MIXTURE)
        values = simulate_tensors(process, compute=Compute(seed=1)).sites
        data = {name: values[name][0, 0] for name in ("anchor", "synthetic")}
        start = time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                posterior = rbpp.infer(process, data, seconds=60.0, draws=100)
            engine = posterior.story[-1]
        except ValueError as error:
            engine = f"refused: {error}"
        print(f"| {count} | {time.process_time() - start:.0f} | {engine} |", flush=True)


if __name__ == "__main__":
    main()
