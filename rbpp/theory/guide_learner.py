"""A Pyro guide as a learner: q(W | S) is whatever `guide(rows)` samples.

Kept apart from the other learners because it runs Pyro: one trace per data set and per pair.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import biject_to

from rbpp.internals import site_is_subsample
from rbpp.randomness import seeded
from rbpp.theory.learners import Learner, LearnerPosterior, PreparedLearner

Loss = Callable[[dict[str, Tensor], Tensor], Tensor]


def guide_learner(guide: Callable[[Tensor], Any], *, loss: Loss | None = None) -> Learner:
    """W is a draw of a Pyro guide.

    The guide must give the same distribution for the same rows: train it before, or inside it from
    a seed of its own. Each of its sample sites is part of W.

    Args:
        guide: called with the rows (n, d) of one data set.
        loss: (W as site name to value, rows (n, d)) to losses in [0, 1], (n,).

    The variational upper bound needs continuous sites: its reference is a Gaussian in Pyro's
    unconstrained coordinates. With discrete sites only the leave-one-out bound is left.
    """

    def losses(parameters: dict[str, Tensor], rows: Tensor) -> Tensor | None:
        if loss is None:
            return None
        batch = rows.shape[:-2]
        drawn = {name: value.flatten(0, len(batch) - 1) for name, value in parameters.items()}
        values = [
            loss({name: value[index] for name, value in drawn.items()}, own)
            for index, own in enumerate(rows.flatten(0, -3))
        ]
        return torch.stack(values).unflatten(0, batch)

    def prepare(pilot: Tensor, generator: torch.Generator) -> PreparedLearner:
        def fit(data: Tensor) -> LearnerPosterior:
            seed = int(torch.randint(2**62, (), generator=generator))
            return GuidePosterior(guide, data, seed)

        return PreparedLearner(fit, losses)

    name = getattr(guide, "__name__", type(guide).__name__)
    return Learner("guide", f"draw of the Pyro guide {name}", prepare)


@dataclass(frozen=True)
class GuidePosterior:
    """q(W | S) of data sets (…, R, n, d), by tracing the guide on each."""

    guide: Callable[[Tensor], Any]
    data: Tensor
    seed: int

    def select(self, index: Any) -> GuidePosterior:
        """The data sets at `index` of the last batch dimension."""
        return GuidePosterior(self.guide, self.data[..., index, :, :], self.seed)

    def grouped(self, groups: int) -> GuidePosterior:
        """Data sets that share something, group by group."""
        return GuidePosterior(self.guide, self.data.unflatten(1, (groups, -1)), self.seed)

    def critic(self, parameters: dict[str, Tensor], members: Tensor) -> Tensor:
        """Scores (…, R_W, groups): log of the mean of q(W | S_jk) over the members k of group j."""
        chosen = self.data[..., members, :, :]
        groups, count = chosen.shape[-4:-2]
        flat = GuidePosterior(self.guide, chosen.flatten(-4, -3), self.seed)
        pairs = flat.cross_log_prob(parameters)[0].unflatten(-1, (groups, count))
        return pairs.logsumexp(-1)

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """One W per data set: site name to (…, R, *event)."""
        batch = self.data.shape[:-2]
        with seeded(int(torch.randint(2**62, (), generator=generator))):
            drawn = [_values(self._trace(rows)) for rows in self._flat()]
        return {
            name: torch.stack([one[name] for one in drawn]).unflatten(0, batch) for name in drawn[0]
        }

    def cross_log_prob(self, parameters: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """log q(W_i | S_j): (…, R_W, R_S), by one trace per pair."""
        *batch, count = self.data.shape[:-2]
        data = self.data.flatten(0, -4)
        drawn = next(iter(parameters.values())).shape[len(batch)]
        values = {name: value.flatten(0, len(batch) - 1) for name, value in parameters.items()}
        result = data.new_empty(len(data), drawn, count, dtype=torch.float64)
        with seeded(self.seed):
            for world, row, column in itertools.product(*map(range, result.shape)):
                one = {name: value[world, row] for name, value in values.items()}
                result[world, row, column] = self._log_prob(one, data[world, column])
        result = result.unflatten(0, batch)
        return result, result

    def divergence(self, others: GuidePosterior) -> Tensor:
        """log q(W_i|S_i) − log r(W_i), r a Gaussian in unconstrained coordinates."""
        own, chosen = self._points, others._points
        if own is None or chosen is None:
            return torch.full(self.data.shape[:-2], math.inf, dtype=torch.float64)
        where, density = own
        members = chosen[0]
        size = members.shape[-1]
        if members.shape[-2] <= size + 1:  # too few data sets for a covariance
            return torch.full_like(density, math.inf)
        centred = members - members.mean(-2, keepdim=True)
        covariance = centred.mT @ centred / members.shape[-2]
        reference = torch.distributions.MultivariateNormal(
            members.mean(-2, keepdim=True), covariance.unsqueeze(-3), validate_args=False
        )
        return density - reference.log_prob(where)

    @cached_property
    def _points(self) -> tuple[Tensor, Tensor] | None:
        """A W of every data set in unconstrained coordinates, and its log density there."""
        points: list[Tensor] = []
        logs: list[Tensor] = []
        with seeded(self.seed):
            for rows in self._flat():
                trace = self._trace(rows)
                found = _unconstrained(trace)
                if found is None:
                    return None
                point, change = found
                points.append(point)
                logs.append(torch.as_tensor(trace.log_prob_sum()).double() + change)
        batch = self.data.shape[:-2]
        return torch.stack(points).unflatten(0, batch), torch.stack(logs).reshape(batch)

    def _flat(self) -> Tensor:
        return self.data.flatten(0, -3)

    def _trace(self, rows: Tensor) -> Any:
        return poutine.trace(self.guide).get_trace(rows)

    def _log_prob(self, values: dict[str, Tensor], rows: Tensor) -> Tensor:
        conditioned = pyro.condition(self.guide, data=values)
        return torch.as_tensor(poutine.trace(conditioned).get_trace(rows).log_prob_sum())


def _latents(trace: Any) -> list[tuple[str, Any]]:
    sites = [
        (name, site)
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site_is_subsample(site)
    ]
    if not sites:
        raise ValueError("Expected a guide with sample sites, which are W; got none")
    return sites


def _values(trace: Any) -> dict[str, Tensor]:
    return {name: site["value"].detach() for name, site in _latents(trace)}


def _unconstrained(trace: Any) -> tuple[Tensor, Tensor] | None:
    """All sites in unconstrained coordinates, and the log Jacobian of the way back."""
    parts, change = [], torch.zeros((), dtype=torch.float64)
    for _, site in _latents(trace):
        if site["fn"].support.is_discrete:
            return None
        transform = biject_to(site["fn"].support)
        value = site["value"].detach()
        free = transform.inv(value)
        jacobian = transform.log_abs_det_jacobian(free, value)
        parts.append(free.double().flatten())
        change = change + jacobian.double().sum()
    return torch.cat(parts), change
