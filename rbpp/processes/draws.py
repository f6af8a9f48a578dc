"""Draws of a process as InferenceData."""

from __future__ import annotations

from typing import Any

from rbpp import inference_data
from rbpp.processes.process import Simulation, Site


def simulation_data(simulation: Simulation) -> Any:
    """A simulation with one draw per world.

    No data is observed, so the posterior of the world is its prior: group `posterior` has the world
    and what is computed from it alone, `posterior_predictive` the sites of the chain with dimension
    `replicate`, `constant_data` knobs and seed. Rows carry the name of their plate as dimension,
    vectors `dim`.
    """
    process = simulation.process
    world = {name: value[None, :, 0] for name, value in simulation.world.items()}
    worlds = next(iter(simulation.sites.values())).shape[0]
    chain = dict(simulation.sites)
    for name, value in simulation.derived.items():
        if value.shape[1] == 1:
            world[name] = value[None, :, 0].expand(1, worlds, *value.shape[2:])
        else:
            chain[name] = value.expand(worlds, *value.shape[1:])
    dims = {name: _dimensions(process.sites[name]) for name in world}
    dims |= {name: ["replicate", *_dimensions(process.sites[name])] for name in chain}
    return inference_data.make(
        world,
        posterior_predictive={name: value[None] for name, value in chain.items()},
        constant_data={**process.knobs, "seed": simulation.seed},
        dims=dims,
        attrs={"process": process.name, "source": process.source},
    )


def _dimensions(site: Site) -> list[str]:
    """Plates outermost first, then the event; a free chain of rows is named after its site."""
    plates = ["component" if name == "components" else name for name in reversed(site.plates)]
    plates = plates[: site.batch_dimensions]
    batch = [f"{site.name}_plate_{i}" for i in range(site.batch_dimensions - len(plates))] + plates
    event = len(site.shape) - site.batch_dimensions
    names = {0: [], 1: ["dim"], 2: ["dim", "other_dim"]}
    vectors = names.get(event, [f"{site.name}_dim_{i}" for i in range(event)])
    if event == 2 and site.in_chain:  # a text of several rows, outside any plate
        vectors = [f"{site.name}_rows", "dim"]
    return [*batch, *vectors]
