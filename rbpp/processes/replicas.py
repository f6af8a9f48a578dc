"""A process in fixed worlds, run as often as needed: replicates, parts held fixed, densities.

Every value keeps the shape that Pyro gives it, (worlds, replicates, 1, rows) + event: the last two
dimensions belong to the process, the first two to its runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from torch import Tensor

from rbpp.internals import site_is_subsample
from rbpp.processes.batching import CHAIN_SITES, running
from rbpp.processes.pair_density import pair_log_density
from rbpp.randomness import spawn

Values = dict[str, Tensor]

# Numbers per pass of the pairs of data sets: larger intermediates cost more in page faults than
# they save (a process of one coordinate: 30 seconds of 52 in the kernel at eight times as many).
_PASS_ELEMENTS = 2**20


@dataclass(frozen=True)
class Site:
    """What one trace says of a site.

    Attributes:
        random: whether it is sampled; else it is a deterministic function of others.
        discrete: whether its values are letters or counts.
        rows: size of its plate; 1 for a free site.
        coordinates: numbers per data set.
        letters: number of values of a letter, where it has finitely many.
    """

    random: bool
    discrete: bool
    rows: int
    coordinates: int
    letters: int | None = None


class Replicas:
    """Worlds of a process and what can be drawn and evaluated in them.

    Args:
        model: the process with its knobs bound, a callable without arguments.
        worlds: number of worlds, drawn from the process; every other term is conditional on them.
        seed: decides the worlds, and with a label every draw in them.
        device: where the process runs.

    Raises:
        ValueError: if a site of the contract is missing, or loses the leading dimensions.
    """

    def __init__(
        self,
        model: Callable[[], Any],
        *,
        worlds: int = 1,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        if worlds < 1:
            raise ValueError(f"Expected worlds ≥ 1; got {worlds}")
        self.model, self.worlds, self.seed, self.device = model, worlds, seed, device
        trace = self._trace({}, replicates=1, label="worlds")
        sites = _sample_sites(trace)
        missing = [n for n in ("anchor", "prompt", "output", "synthetic") if n not in sites]
        if missing:
            raise ValueError(
                f"Expected the sites anchor, prompt, output and synthetic; got none named "
                f"{' or '.join(missing)} (sites: {', '.join(sites)})"
            )
        self.world = {
            name: site["value"].detach() for name, site in sites.items() if name not in CHAIN_SITES
        }
        self.sites = {
            name: self._describe(name, sites[name]) for name in CHAIN_SITES if name in sites
        }

    def draw(self, count: int, label: str, *, given: Mapping[str, Tensor] | None = None) -> Values:
        """`count` replicates per world of every site of the contract.

        Args:
            count: number of replicates R.
            label: names the draws: the same label and seed give the same draws.
            given: values to hold fixed, with a replicate dimension of R or 1; sites upstream of
                them are drawn too, but mean nothing.
        """
        held = dict(given or {})
        trace = self._trace({**self.world, **held}, replicates=count, label=label)
        sites = _sample_sites(trace)
        values = {name: sites[name]["value"].detach() for name in self.sites}
        for name, value in values.items():
            if (
                value.dim() < 4
                or value.shape[0] not in (1, self.worlds)
                or (value.shape[1] not in (1, count))
            ):
                raise ValueError(
                    f"Expected site {name!r} to keep the leading dimensions of worlds and "
                    f"replicates, ({self.worlds}, {count}, …); got shape {tuple(value.shape)}: "
                    "index dimensions from the right"
                )
            values[name] = value.expand(self.worlds, count, *value.shape[2:])
        return values

    def log_density(self, values: Mapping[str, Tensor], name: str) -> Tensor:
        """Log density of a site given the other values, summed over its rows: (…, worlds, R)."""
        return self.row_log_density(values, name).sum(-1)

    def row_log_density(self, values: Mapping[str, Tensor], name: str) -> Tensor:
        """Log density of every row of a site given the other values: (…, worlds, R, rows).

        A deterministic site has density one where it agrees with the others, and zero elsewhere: a
        probability if it is discrete, and no density at all if it is continuous.
        """
        trace = self._trace({**self.world, **values}, label="density")
        site = _sample_sites(trace)[name]
        with torch.no_grad():
            if not self.sites[name].random:
                computed = self.computed(values, name)
                return _agreement(computed, values[name]).log()
            return pair_log_density(site["fn"], site["value"]).double().flatten(-2)

    def pairs(
        self,
        values: Mapping[str, Tensor],
        name: str,
        swapped: Mapping[str, Tensor],
        *,
        per_row: bool = False,
    ) -> Tensor:
        """Log density of site `name` of replicate i with the `swapped` values of replicate j.

        Args:
            values: R replicates of every site.
            name: the site b whose density is taken.
            swapped: R' replicates of the sites that stand for a; the other sites stay those of i.
            per_row: keep the rows of b apart.

        Returns:
            (worlds, R, R'), entry [i, j]: the matrix of the sandwich; per row (…, rows) more.
        """
        count = next(iter(swapped.values())).shape[1]
        own = {key: value.unsqueeze(0) for key, value in values.items() if key not in swapped}
        step = max(1, _PASS_ELEMENTS // max(1, values[name].numel()))
        parts = []
        for start in range(0, count, step):
            chosen = slice(start, start + step)
            others = {
                key: value[:, chosen].movedim(1, 0).unsqueeze(2) for key, value in swapped.items()
            }
            found = self.row_log_density({**own, **others}, name)
            size = next(iter(others.values())).shape[0]
            found = found.expand(size, self.worlds, values[name].shape[1], -1)
            parts.append(found if per_row else found.sum(-1))
        return torch.cat(parts).movedim(0, 2)

    def rows(self, values: Mapping[str, Tensor], name: str) -> Tensor:
        """A site as rows of vectors: (worlds, R, rows, d)."""
        value = values[name]
        return value.reshape(*value.shape[:2], self.sites[name].rows, -1)

    def computed(
        self, values: Mapping[str, Tensor], name: str, *, gradient: bool = False
    ) -> Tensor:
        """A deterministic site as the other values determine it, differentiable on request."""
        others = {key: value for key, value in values.items() if key != name}
        trace = self._trace({**self.world, **others}, label="density", gradient=gradient)
        return _sample_sites(trace)[name]["value"]

    def _describe(self, name: str, site: dict[str, Any]) -> Site:
        value, law = site["value"], site["fn"]
        base = law.base_dist if hasattr(law, "base_dist") else law
        random = not isinstance(base, Delta)
        rows = value.shape[3] if value.dim() > 3 and site["cond_indep_stack"] else 1
        framed = [frame for frame in site["cond_indep_stack"] if frame.dim in (-1, -2)]
        coordinates = value.numel() // self.worlds
        return Site(
            random=random,
            discrete=not value.is_floating_point() or (random and law.support.is_discrete),
            rows=rows if framed else 1,
            coordinates=coordinates,
            letters=_letters(law) if random else None,
        )

    def _trace(
        self,
        values: Mapping[str, Tensor],
        *,
        replicates: int | None = None,
        label: str,
        gradient: bool = False,
    ) -> Any:
        conditioned = poutine.condition(self.model, data=dict(values))
        # A plate that is made twice under one name, to enter it twice, is no site seen twice.
        conditioned = poutine.block(conditioned, hide_fn=site_is_subsample)
        seed = spawn(self.seed, label)
        with torch.set_grad_enabled(gradient), running(seed, self.device):
            if replicates is None:
                return poutine.trace(conditioned).get_trace()
            outer = pyro.plate("_worlds", self.worlds, dim=-4)
            inner = pyro.plate("_replicates", replicates, dim=-3)
            with outer, inner:
                return poutine.trace(conditioned).get_trace()


def _sample_sites(trace: Any) -> dict[str, Any]:
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site_is_subsample(site)
    }


def _letters(law: Any) -> int | None:
    support = law.support
    bound = getattr(getattr(support, "base_constraint", support), "upper_bound", None)
    if not support.is_discrete or bound is None or not isinstance(bound, int):
        return None
    return bound + 1


def _agreement(computed: Tensor, given: Tensor) -> Tensor:
    same = (computed == given).double()
    return same.flatten(4).prod(-1).flatten(-2) if same.dim() > 4 else same.flatten(-2)
