"""Other rows of the data sets that were seen: given all that these rows share."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rbpp.posterior.density import ConditionedDensity
from rbpp.processes.process import Process, draw
from rbpp.randomness import spawn

# Worlds in one run of the process.
AT_ONCE = 200


def new_rows(
    density: ConditionedDensity,
    name: str,
    values: Mapping[str, Tensor],
    seed: int,
    device: str,
) -> Tensor | None:
    """Rows (draws, data sets, rows, d) of a site, drawn anew in the data sets of the posterior.

    World, prompt and whatever else rows share stay as they are: these are further rows of the same
    data sets. Posterior-predictive rows are those of new data sets.

    Args:
        density: the posterior's.
        name: an observed site with a plate.
        values: of all latent sites (draws, data sets or 1, *shape of a plain run).
        seed: of the rows.
        device: where they are drawn.

    Returns:
        None where the rows have latent sites of their own, or something that was seen or is latent
        depends on them: leaving one out is then no matter of its own density.
    """
    process = density.process
    plate = process.sites[name].plates[0]
    known = {*values, *density.observed} - {name}
    if any(plate in process.sites[one].plates for one in values):
        return None
    if _below(process, name) & known:
        return None
    total = len(next(iter(values.values())))
    parts = []
    for first in range(0, total, AT_ONCE):
        count = min(AT_ONCE, total - first)
        held = {
            one: process.sites[one].batched(value[first : first + count])
            for one, value in values.items()
        }
        for one in known & set(density.observed):
            value = density.observed[one]
            held[one] = value.expand(count, *value.shape[1:])
        run = draw(
            process,
            (count, density.data_sets),
            spawn(seed, "rows", first),
            held=held,
            until=[name],
            device=device,
            fast_mixtures=True,
        )
        site = process.sites[name]
        plain = site.plain(run.values[name])
        parts.append(plain.expand(count, density.data_sets, *site.shape).cpu())
    return torch.cat(parts)


def _below(process: Process, name: str) -> set[str]:
    """Sites that are computed from a site, however far below."""
    found, pending = set[str](), [name]
    while pending:
        above = pending.pop()
        for child, parents in process.parents.items():
            if above in parents and child not in found:
                found.add(child)
                pending.append(child)
    return found
