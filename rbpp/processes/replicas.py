"""A process in fixed worlds, run as often as needed: replicates, parts held fixed, densities.

Every value keeps the shape that Pyro gives it, (worlds, replicates, 1, rows) + event: the first two
dimensions belong to the runs of the process, the others to itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from rbpp import validate
from rbpp.compute import Compute
from rbpp.processes.convolution import convolved, is_independent_noise
from rbpp.processes.density import (
    density_of_normal_rows,
    density_of_values,
    moments_of_normal_rows,
    sum_over_plates,
)
from rbpp.processes.handlers import REQUIRED_SITES, Run
from rbpp.processes.process import Process, Site, draw, hold, load_process

__all__ = ["Replicas", "Site", "Values"]


class Values(dict[str, Tensor]):
    """Values of sites by name, (worlds, replicates, …) each."""

    @property
    def count(self) -> int:
        """Replicates in a world."""
        return next(iter(self.values())).shape[1]

    def of(self, *names: str) -> Values:
        """Those of these sites that there are."""
        return Values({name: self[name] for name in names if name in self})

    def first(self, count: int) -> Values:
        """The first replicates."""
        return Values({name: value[:, :count] for name, value in self.items()})

    def repeated(self, times: int) -> Values:
        """Every replicate several times in a row."""
        return Values({n: value.repeat_interleave(times, 1) for n, value in self.items()})


# Numbers per pass of the pairs of data sets: larger intermediates cost more in page faults than
# they save (a process of one coordinate: 30 seconds of 52 in the kernel at eight times as many).
_PASS_ELEMENTS = 2**20


class Replicas:
    """Worlds of a process and what can be drawn and evaluated in them.

    Args:
        model: the process, or a callable without arguments.
        worlds: number of worlds, drawn from the process; every other term is conditional on them.
        world: worlds to use instead of drawing them, such as draws from a posterior: a value
            (worlds, *shape of a plain run) of every sample site outside the chain.
        compute: device; its seed decides the worlds, and with a label every draw in them.

    Raises:
        ValueError: if a site of the contract is missing or loses the leading dimensions, or worlds
            are given incompletely or in another number.
    """

    def __init__(
        self,
        model: Process | Callable[[], Any],
        worlds: int = 1,
        world: Mapping[str, Tensor] | None = None,
        compute: Compute | None = None,
    ) -> None:
        self.process = load_process(model)
        self.worlds, self.compute = validate.count("worlds", worlds), Compute.of(compute)
        described = self.process.sites
        missing = [name for name in REQUIRED_SITES if name not in described]
        if missing:
            raise ValueError(
                f"Expected the sites anchor, prompt, output and synthetic; got none named "
                f"{' or '.join(missing)} (sites: {', '.join(described)})"
            )
        self.sites = {name: site for name, site in described.items() if site.in_chain}
        self.world = self._world({} if world is None else self._given(world))

    def draw(self, count: int, label: str, given: Mapping[str, Tensor] | None = None) -> Values:
        """`count` replicates per world of every site of the contract.

        Args:
            count: number of replicates R.
            label: names the draws: the same label and seed give the same draws.
            given: values to hold fixed, with a replicate dimension of R or 1; sites upstream of
                them are drawn too, but mean nothing.
        """
        held = {**self.world, **(given or {})}
        outer, compute = (self.worlds, count), self.compute.spawn(label)
        run = draw(self.process, outer, compute, held, until=self.sites)
        values = {name: self._replicated(name, run.values[name], count) for name in self.sites}
        return Values(values)

    def log_density(self, values: Mapping[str, Tensor], name: str) -> Tensor:
        """Log density of a site given the other values, summed over its rows: (…, worlds, R)."""
        return self.row_log_density(values, name).sum(-1)

    def row_log_density(
        self, values: Mapping[str, Tensor], name: str, *, integrate_output: bool = False
    ) -> Tensor:
        """Log density of every row of a site given the other values: (…, worlds, R, rows).

        A deterministic site has density one where it agrees with the others, and zero elsewhere: a
        probability if it is discrete, and no density at all if it is continuous.

        Args:
            values: of what the site depends on, and of the site.
            name: the site.
            integrate_output: for `synthetic`, the density with the output integrated out, which
                needs `integrates_output`; a value of `output` is then not looked at.
        """
        with torch.no_grad():
            site = self.sites[name]
            if not site.random:
                return _agreement(self.computed(values, name), values[name]).log()
            density = density_of_values(
                self._distribution(values, name, integrate_output), values[name]
            ).double()
            found = sum_over_plates(site, density, per_row=True)
            return found if site.batch_dimensions else found.unsqueeze(-1)

    def _distribution(self, values: Mapping[str, Tensor], name: str, integrate_output: bool) -> Any:
        """Distribution of a site given the other values."""
        if integrate_output:
            return self._curated(values)
        return self._run(values, name).distributions[name]

    def support(self, values: Mapping[str, Tensor], name: str) -> Any:
        """The values that a site can have, a constraint of torch; None where it does not say."""
        try:
            return self._run(values, name).distributions[name].support
        except NotImplementedError:
            return None

    @cached_property
    def integrates_output(self) -> bool:
        """Whether the output can be integrated out in closed form: normal (or a mixture of
        normals), and curated by adding normal noise."""
        output, synthetic = self.sites["output"], self.sites["synthetic"]
        if not (output.random and synthetic.random) or output.shape != synthetic.shape:
            return False
        if output.discrete or synthetic.discrete or len(output.shape) != 2:
            return False
        values = self.draw(1, "convolution")
        outputs = self._placeholder(), values["output"]
        runs = [self._run_to_synthetic({**values, "output": output}) for output in outputs]
        noises = [run.distributions["synthetic"] for run in runs]
        return is_independent_noise(noises[0], noises[1], outputs) and (
            convolved(runs[0].distributions["output"], noises[0], outputs[0]) is not None
        )

    def _curated(self, values: Mapping[str, Tensor]) -> Any:
        """Distribution of curated rows given what is above the output."""
        if not self.integrates_output:
            raise ValueError(
                "Expected a normal output curated by adding normal noise, to integrate the output "
                "out; got another process"
            )
        placeholder = self._placeholder()
        run = self._run_to_synthetic({**values, "output": placeholder})
        return convolved(run.distributions["output"], run.distributions["synthetic"], placeholder)

    def _placeholder(self) -> Tensor:
        """An output of zeros, for distributions that do not depend on it."""
        site = self.sites["output"]
        zeros = torch.zeros(1, 1, *site.shape, dtype=torch.float64, device=self.compute.device)
        return site.batched(zeros)

    def _run_to_synthetic(self, values: Mapping[str, Tensor]) -> Run:
        held = {name: value for name, value in values.items() if name != "synthetic"}
        return self._run(held, "output", "synthetic")

    def _run(self, values: Mapping[str, Tensor], *wanted: str) -> Run:
        held = {**self.world, **values}
        return hold(self.process, held, wanted, validate=False, device=self.compute.device)

    def pairs(
        self,
        values: Mapping[str, Tensor],
        name: str,
        swapped: Mapping[str, Tensor],
        *,
        per_row: bool = False,
        integrate_output: bool = False,
    ) -> Tensor:
        """Log density of site `name` of replicate i with the `swapped` values of replicate j.

        Args:
            values: R replicates of every site.
            name: the site b whose density is taken.
            swapped: R' replicates of the sites that stand for a; the other sites stay those of i.
            per_row: keep the rows of b apart.
            integrate_output: as for `row_log_density`.

        Returns:
            (worlds, R, R'), entry [i, j]: the matrix of the sandwich; per row (…, rows) more.
        """
        count = next(iter(swapped.values())).shape[1]
        own = {key: value.unsqueeze(0) for key, value in values.items() if key not in swapped}
        rows = values[name]

        def given(start: int, step: int) -> dict[str, Tensor]:
            chosen = slice(start, start + step)
            others = {key: v[:, chosen].movedim(1, 0).unsqueeze(2) for key, v in swapped.items()}
            return {**own, **others}

        def moments(start: int, step: int) -> tuple[Tensor, Tensor] | None:
            if per_row or not self._has_normal_rows(name) or rows.dim() != 5 or rows.shape[2] != 1:
                return None
            with torch.no_grad():
                distribution = self._distribution(given(start, step), name, integrate_output)
            return moments_of_normal_rows(distribution, rows.dim() + 1)

        numbers = rows.numel()  # of a pass, for each of the others
        normal = moments(0, 1)
        if normal is not None:
            # A covariance that data sets share costs nothing for each of them.
            power = 1 if normal[1].shape[-3] == 1 else 2
            numbers = rows.shape[0] * rows.shape[1] * rows.shape[-1] ** power
        step = max(1, _PASS_ELEMENTS // max(1, numbers))
        parts = []
        for start in range(0, count, step):
            normal = None if normal is None else moments(start, step)
            if normal is not None:
                found = density_of_normal_rows(normal, rows.unsqueeze(0))
            else:
                found = self.row_log_density(
                    given(start, step), name, integrate_output=integrate_output
                )
                found = found if per_row else found.sum(-1)
            outer = (min(step, count - start), self.worlds, rows.shape[1])
            parts.append(found.expand(*outer, *found.shape[3:]))
        return torch.cat(parts).movedim(0, 2)

    def _has_normal_rows(self, name: str) -> bool:
        """Whether rows of a site can be normal vectors."""
        site = self.sites[name]
        return (
            site.random and not site.discrete and len(site.shape) == 2 == site.batch_dimensions + 1
        )

    def rows(self, values: Mapping[str, Tensor], name: str) -> Tensor:
        """A site as rows of vectors: (worlds, R, rows, d).

        The rows are those of the plate that the site stands in, d the numbers of one of them. A
        site without a plate, such as a prompt of all anchors, is one row with all its numbers:
        (worlds, R, 1, d).
        """
        value = values[name]
        return value.reshape(*value.shape[:2], self.sites[name].rows, -1)

    def computed(
        self, values: Mapping[str, Tensor], name: str, *, gradient: bool = False
    ) -> Tensor:
        """A deterministic site as the other values determine it, differentiable on request."""
        others = {key: value for key, value in values.items() if key != name}
        with torch.set_grad_enabled(gradient):
            return self._run(others, name).values[name]

    def _world(self, held: dict[str, Tensor]) -> dict[str, Tensor]:
        """Every site that the replicates of a world share, drawn where it is not held."""
        names = [name for name, site in self.process.sites.items() if site.shared]
        if not names:
            return {}
        outer, compute = (self.worlds, 1), self.compute.spawn("worlds")
        run = draw(self.process, outer, compute, held, until=names)
        return {name: run.values[name] for name in names}

    def _given(self, world: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Worlds in the layout of a batched run."""
        sites = self.process.sites
        names = [n for n, site in sites.items() if site.shared and not site.deterministic]
        if set(world) != set(names):
            raise ValueError(
                f"Expected worlds with the sites {', '.join(names) or '(none)'}; got "
                f"{', '.join(world) or 'none'}"
            )
        for name, value in world.items():
            shape = (self.worlds, *sites[name].shape)
            if tuple(value.shape) != shape:
                raise ValueError(
                    f"Expected worlds with {name!r} of shape {shape}; got {tuple(value.shape)}"
                )
        device = self.compute.device
        return {n: sites[n].batched(v.unsqueeze(1)).to(device) for n, v in world.items()}

    def _replicated(self, name: str, value: Tensor, count: int) -> Tensor:
        """A drawn value of every world and replicate, also where it is the same in several."""
        kept = value.dim() >= 4 and value.shape[0] in (1, self.worlds)
        if not kept or value.shape[1] not in (1, count):
            raise ValueError(
                f"Expected site {name!r} to keep the leading dimensions of worlds and "
                f"replicates, ({self.worlds}, {count}, …); got shape {tuple(value.shape)}: "
                "index dimensions from the right"
            )
        return value.expand(self.worlds, count, *value.shape[2:])


def _agreement(computed: Tensor, given: Tensor) -> Tensor:
    same = (computed == given).double()
    return same.flatten(4).prod(-1).flatten(-2) if same.dim() > 4 else same.flatten(-2)
