"""Draws of a process: worlds, and data sets in each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from rbpp import inference_data, validate
from rbpp.compute import Compute
from rbpp.display import DEFAULT_VIEW, Part, Table, Units, View, align
from rbpp.inference_data import InferenceData
from rbpp.processes.process import Process, Site, draw, load_process
from rbpp.result import Result
from rbpp.wording import count

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True, repr=False)
class Draws:
    """Draws of a process as tensors.

    Attributes:
        sites: values of the chain's sites, each (worlds, replicates, *shape of a plain run).
        world: values of every other sample site, each (worlds, 1, *shape of a plain run).
        derived: values of other deterministic sites, (worlds, replicates or 1, *shape).
        process: what was simulated.
        seed: what decided the draws.
    """

    sites: dict[str, Tensor]
    world: dict[str, Tensor]
    derived: dict[str, Tensor]
    process: Process
    seed: int

    @property
    def values(self) -> dict[str, Tensor]:
        """Chain and world together: what `log_density` takes."""
        return {**self.world, **self.sites}


@dataclass(frozen=True, kw_only=True, repr=False)
class Simulation(Result, Draws):
    """Draws of a process, as tensors and as InferenceData.

    No data was observed: group `prior` has the world and what is computed from it alone, a draw per
    world; `prior_predictive` the sites of the chain with dimension `replicate`; `constant_data`
    knobs and seed. Rows carry the name of their plate as dimension, vectors `dim`.
    """

    def site_table(self) -> list[dict[str, Any]]:
        """One entry per site: where it stands, its shape, its moments over all draws."""
        groups = {"chain": self.sites, "world": self.world, "derived": self.derived}
        return [
            _summary(site, role, group[name].double())
            for name, site in self.process.sites.items()
            for role, group in groups.items()
            if name in group
        ]

    def summary(
        self, hdi_prob: float = 0.94, units: Units = "nats", *, per_row: bool = False
    ) -> pd.DataFrame:
        """Every site in numbers, a row each, over all its draws and elements.

        Args:
            hdi_prob, units, per_row: as for every result; values of sites have none of them.

        Returns:
            Index `site`; columns `role` (chain, world, derived), `shape` (of the site in one data
            set, as a tuple), `mean`, `sd` (not corrected for their number, so that one value has
            0), `least` and `greatest`, over worlds, replicates and that shape.
        """
        import pandas as pd

        groups = {"chain": self.sites, "world": self.world, "derived": self.derived}
        rows = {}
        for name, site in self.process.sites.items():
            for role, group in groups.items():
                if name in group:
                    value = group[name].double()
                    rows[name] = {
                        "role": role,
                        "shape": tuple(site.shape),
                        **_moments(value),
                        "least": value.min().item(),
                        "greatest": value.max().item(),
                    }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("site")

    def details(self) -> Mapping[str, Any]:
        """The sites, with `--json`."""
        return {"sites": self.site_table()}

    def answer(self, view: View = DEFAULT_VIEW) -> tuple[str, ...]:
        """What was drawn, and what comes next."""
        worlds, replicates = next(iter(self.sites.values())).shape[:2]
        name = self.process.name
        rows = [f"{one.rows} of {site}" for site, one in self.process.sites.items() if one.plates]
        return (
            f"{count(worlds, 'world')} of {name}, each with {count(replicates, 'data set')}.",
            f"Rows of a data set: {', '.join(rows)}.",
            "Next: bounds has its terms and bounds, check holds it to the contract.",
        )

    def _body(self, view: View) -> list[Part]:
        table = self.site_table()
        shown = [
            [f"{v:.5g}" if isinstance(v, float) else str(v) for v in s.values()] for s in table
        ]
        return [Table([list(table[0]), *shown])]

    def __repr__(self) -> str:
        worlds, replicates = next(iter(self.sites.values())).shape[:2]
        return f"<Simulation of {self.process.name}: {worlds} worlds, {replicates} replicates>"


def simulate(
    process: str | Path | Callable[..., Any] | Process,
    *,
    worlds: int = 1,
    replicates: int = 1,
    seed: int = 0,
    compute: Compute | None = None,
) -> Simulation:
    """Draw `worlds` worlds and `replicates` data sets in each, all in one batched run in float64.

    Args:
        process: what to simulate: a process, or what `load_process` takes.
        worlds: number of independent worlds.
        replicates: number of data sets, independent given their world.
        seed: decides every draw; global random state is left as it was.
        compute: its device is where tensors that the model makes are put.

    Raises:
        ValueError: if a count is not positive, or the process cannot run in a batch.
    """
    compute = Compute.of(compute, seed)
    drawn = simulate_tensors(load_process(process), worlds, replicates, compute)
    settings = drawn.process.settings
    return Simulation(**vars(drawn), idata=_inference_data(drawn), settings=settings)


def knobs_of(process: Process) -> Result:
    """The knobs of a process and their values, as a result without any draws."""
    lines = [["knob", "value"], *([name, repr(value)] for name, value in process.knobs.items())]
    return Result(headline=(align(lines),), settings=process.settings)


def simulate_tensors(
    process: Process,
    worlds: int = 1,
    replicates: int = 1,
    compute: Compute | None = None,
) -> Draws:
    """`simulate` without InferenceData, by the seed of `compute`."""
    compute = Compute.of(compute)
    validate.count("worlds", worlds)
    validate.count("replicates", replicates)
    sites = process.sites
    run = draw(process, (worlds, replicates), compute, fast_mixtures=True)
    groups: dict[str, dict[str, Tensor]] = {"sites": {}, "world": {}, "derived": {}}
    for name, value in run.values.items():
        if name not in sites:
            raise ValueError(
                f"Expected the same sites in every run of {process.name}; got {name!r} in some"
            )
        site = sites[name]
        group = "sites" if site.in_chain else "derived" if site.deterministic else "world"
        value = site.plain(value)
        if group != "derived":
            value = value.expand(worlds, replicates if site.in_chain else 1, *site.shape)
        groups[group][name] = value
    return Draws(**groups, process=process, seed=compute.seed)


def _inference_data(drawn: Draws) -> InferenceData:
    process = drawn.process
    world = {name: value[None, :, 0] for name, value in drawn.world.items()}
    worlds = next(iter(drawn.sites.values())).shape[0]
    chain = dict(drawn.sites)
    for name, value in drawn.derived.items():
        if value.shape[1] == 1:
            world[name] = value[None, :, 0].expand(1, worlds, *value.shape[2:])
        else:
            chain[name] = value.expand(worlds, *value.shape[1:])
    sizes: dict[str, int] = {}
    dims = {name: dimension_names(process.sites[name], sizes) for name in world}
    dims |= {name: ["replicate", *dimension_names(process.sites[name], sizes)] for name in chain}
    data = inference_data.make(
        prior=world,
        prior_predictive={name: value[None] for name, value in chain.items()},
        constant_data={**process.described_knobs, "seed": drawn.seed},
        dims=dims,
    )
    return inference_data.with_attrs(data, process=process.name, source=process.source)


def dimension_names(site: Site, sizes: dict[str, int]) -> list[str]:
    """Plates outermost first, then the event; a free chain of rows is named after its site.

    Where another site has the dimension in another size, it is named after the site too.
    """
    plates = ["component" if name == "components" else name for name in reversed(site.plates)]
    plates = plates[: site.batch_dimensions]
    batch = [f"{site.name}_plate_{i}" for i in range(site.batch_dimensions - len(plates))] + plates
    event = len(site.shape) - site.batch_dimensions
    names = {0: [], 1: ["dim"], 2: ["dim", "other_dim"]}
    vectors = names.get(event, [f"{site.name}_dim_{i}" for i in range(event)])
    if event == 2 and site.in_chain:  # a text of several rows, outside any plate
        vectors = [f"{site.name}_rows", "dim"]
    return [
        name if sizes.setdefault(name, size) == size else f"{site.name}_{name}"
        for name, size in zip([*batch, *vectors], site.shape, strict=True)
    ]


def _summary(site: Site, role: str, value: Tensor) -> dict[str, Any]:
    return {
        "site": site.name,
        "role": role,
        "kind": "computed" if site.deterministic else "drawn",
        "plate": " in ".join(site.plates) or "-",
        "shape": "×".join(map(str, site.shape)) or "1",
        **_moments(value),
    }


def _moments(value: Tensor) -> dict[str, float]:
    return {"mean": value.mean().item(), "sd": value.std(correction=0).item()}
