"""Posteriors of worlds: calibration by simulation, time beside Pyro's NUTS, time by rows.

python benchmarks/posterior.py [--replications 200] [--figure docs/measurements/sbc.png] [--quick]
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide.initialization import init_to_value
from world_ranks import DRAWS, WorldRanks, world_ranks

import rbpp
from rbpp.posterior.hmc import effective_sample_size, split_rhat
from rbpp.processes.simulation import simulate_tensors
from rbpp.randomness import seeded


def readme(anchors: int = 20, outputs: int = 50, temperature: float = 0.5, noise: float = 0.1):
    """The process of the README."""
    centre = pyro.sample("centre", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
    with pyro.plate("anchors", anchors):
        anchor = pyro.sample("anchor", dist.Normal(centre, 1.0).to_event(1))
    prompt = pyro.sample("prompt", dist.Normal(anchor.mean(-2, keepdim=True), 0.1).to_event(1))
    with pyro.plate("outputs", outputs):
        output = pyro.sample("output", dist.Normal(prompt, temperature).to_event(1))
        pyro.sample("synthetic", dist.Normal(output, noise).to_event(1))


SMALL_MIXTURE = {
    "anchor_components": 2,
    "unsampled_components": 0,
    "irrelevant_components": 0,
    "anchors_per_component": 10,
    "outputs": 40,
    "noise": 0.1,
}
# Sizes at which one posterior takes about two seconds of an idle core.
CASES: dict[str, tuple[Any, dict[str, Any], tuple[str, ...]]] = {
    "README": (readme, {}, ("synthetic",)),
    "finite_alphabet": ("finite_alphabet", {"outputs": 6}, ("anchor", "synthetic")),
    "linear_gaussian": ("linear_gaussian", {"anchors": 12, "outputs": 12}, ("anchor", "synthetic")),
    "style_shift": (
        "style_shift",
        {"anchors": 8, "outputs": 20, "dimension": 2},
        ("anchor", "synthetic"),
    ),
    "curation": ("curation", {"anchors": 5, "outputs": 5}, ("anchor", "output", "synthetic")),
    "gaussian_mixture": ("gaussian_mixture", SMALL_MIXTURE, ("anchor", "synthetic")),
    "invertible_prompt": (
        "invertible_prompt",
        {"anchors": 5, "outputs": 20},
        ("anchor", "synthetic"),
    ),
    "sources": (
        "sources",
        {"components": 2, "anchors": 10, "outputs": 20, "noise": 0.1},
        ("anchor", "synthetic"),
    ),
}
MIXTURE = {
    "anchor_components": 6,
    "unsampled_components": 0,
    "irrelevant_components": 0,
    "dimension": 8,
    "noise": 0.1,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replications", type=int, default=200)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--store", type=Path, help="folder in which a run that ends goes on")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--quick", action="store_true", help="20 replications, 200 rows")
    parser.add_argument("--nuts", type=int, nargs=2, default=(100, 100), help="warm-up and draws")
    parser.add_argument("--parts", nargs="*", default=["calibration", "time", "rows"])
    arguments = parser.parse_args()
    if "calibration" in arguments.parts:
        calibration(arguments)
    if "time" in arguments.parts:
        beside_nuts(*arguments.nuts)
    if "rows" in arguments.parts:
        by_rows((100, 200) if arguments.quick else (250, 500, 1000))


def calibration(arguments: argparse.Namespace) -> None:
    """Ranks of functionals that no label changes, the least uniform first."""
    replications = 20 if arguments.quick else arguments.replications
    if arguments.store is not None:
        arguments.store.mkdir(parents=True, exist_ok=True)
    found, rows = {}, []
    for name in arguments.cases:
        reference, knobs, observed = CASES[name]
        store = None if arguments.store is None else arguments.store / f"{name}.jsonl"
        process = rbpp.load_process(reference, **knobs)
        one = world_ranks(process, observed, replications, seconds=20.0, seed=1, store=store)
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

    figure, axes = pyplot.subplots(1, len(found), figsize=(3 * len(found), 3), squeeze=False)
    for panel, (name, one) in zip(axes[0], found.items(), strict=True):
        shares = (np.arange(DRAWS + 1) + 1) / (DRAWS + 1)
        for ranks in one.ranks.values():
            below = np.bincount(ranks, minlength=DRAWS + 1).cumsum() / len(ranks)
            panel.plot(shares, below - shares, linewidth=0.8)
            band = 1.88 * np.sqrt(shares * (1 - shares) / len(ranks))
        panel.fill_between(shares, -band, band, color="0.85", zorder=0)
        panel.set_title(name, fontsize=9)
        panel.set_xlabel("rank / draws")
    axes[0, 0].set_ylabel("share of worlds below, less the rank")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def beside_nuts(warmup: int, count: int) -> None:
    """Seconds per effective draw of the worst functional, NUTS from a draw of rbpp's."""
    print(
        "\n| process | engine | CPU s | R-hat | effective draws of the worst functional | "
        f"CPU s per effective draw |\n|{'---|' * 6}"
    )
    process = rbpp.load_process(readme)
    rows = {"synthetic": simulate_tensors(process, seed=1).sites["synthetic"][0, 0]}
    _beside("README", process, rows, process, rows, lambda sites: sites["centre"], warmup, count)
    mixture = rbpp.load_process("gaussian_mixture", outputs=1000, **MIXTURE)
    sites = simulate_tensors(mixture, seed=1).sites
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
        values = simulate_tensors(process, seed=1).sites
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
