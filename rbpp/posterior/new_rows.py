"""Sites drawn anew in the worlds of a posterior: new data sets, or other rows of those seen."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from rbpp.compute import Compute
from rbpp.posterior.density import ConditionedDensity, joined
from rbpp.posterior.sites import ancestors
from rbpp.processes.process import draw

_AT_ONCE = 200  # worlds in one run of the process


def draw_anew(
    density: ConditionedDensity,
    count: int,
    held: Mapping[str, Tensor],
    names: Collection[str],
    compute: Compute,
    label: str,
    until: Collection[str] | None = None,
) -> dict[str, Tensor]:
    """Values (draws, data sets, *shape of a plain run) of sites, given others.

    Args:
        density: the posterior's.
        count: number of draws.
        held: values of other sites (draws, data sets or 1, *shape of a plain run).
        names: of the sites.
        compute: device and seed.
        label: of the seeds.
        until: sites after the last of which the process is not run.
    """
    sites, parts = density.process.sites, []
    for first in range(0, count, _AT_ONCE):
        outer = min(_AT_ONCE, count - first), density.data_sets
        run = draw(
            density.process,
            outer,
            compute.spawn(label, first),
            {n: sites[n].batched(value[first : first + _AT_ONCE]) for n, value in held.items()},
            until=until,
            fast_mixtures=True,
        )
        parts.append(
            {n: sites[n].plain(run.values[n]).expand(*outer, *sites[n].shape) for n in names}
        )
    return {name: value.cpu() for name, value in joined(parts).items()}


def new_rows(
    density: ConditionedDensity, name: str, values: Mapping[str, Tensor], compute: Compute
) -> Tensor | None:
    """Rows (draws, data sets, rows, d) of a site, drawn anew in the data sets of the posterior.

    World, prompt and whatever else rows share stay as they are: these are further rows of the same
    data sets. Posterior-predictive rows are those of new data sets.

    Args:
        density: the posterior's.
        name: an observed site with a plate.
        values: of all latent sites (draws, data sets or 1, *shape of a plain run).
        compute: device, and seed of the rows.

    Returns:
        None where the rows have latent sites of their own, or something that was seen or is latent
        depends on them: leaving one out is then no matter of its own density.
    """
    sites = density.process.sites
    seen = {one: value for one, value in density.observed.items() if one != name}
    plate = sites[name].plates[0]
    if any(plate in sites[one].plates for one in values):
        return None
    if name in ancestors(density.process, {*values, *seen}):
        return None
    count = len(next(iter(values.values())))
    held = dict(values)
    for one, value in seen.items():
        shape = density.data_sets, *sites[one].shape
        held[one] = value.reshape(shape).expand(count, *shape)
    return draw_anew(density, count, held, [name], compute, "rows", until=[name])[name]
