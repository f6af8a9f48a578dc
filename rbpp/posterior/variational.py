"""Guides in whitened coordinates, fitted by the pathwise gradient and stopped by the ELBO's slope.

The gradient leaves out the score of the guide, so that its noise vanishes where the guide is the
posterior: Roeder, Wu and Duvenaud, Sticking the landing, NeurIPS 2017.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn

from rbpp.mixtures.until_level import WINDOW, Ascended, set_pyro_rate, until_level
from rbpp.posterior.density import ConditionedDensity
from rbpp.posterior.laplace import PROPOSED, Weighted, log_standard, weighed
from rbpp.posterior.limit import NEVER, Limit
from rbpp.processes.loading import find_model
from rbpp.randomness import seeded

GUIDES = ("auto", "normal", "multivariate", "lowrank", "flow")
# A guide's own site, for guides that users write.
SITE = "whitened"
_PARTICLES, _RATE = 8, 0.02
_RANK, _COUPLINGS, _HIDDEN = 10, 6, 32
_LARGEST_FLOW, _LARGEST_FULL = 10, 300


@dataclass(frozen=True)
class Target:
    """A posterior's log density in whitened coordinates: called with points (N, D).

    Attributes:
        density: the posterior's.
        centre, scale: vectors are centre + W x, with x roughly standard normal.
        generator: source of all randomness of a fit.
        batch_rows: observed rows of which each call takes so many, drawn anew; None for all.
    """

    density: ConditionedDensity
    centre: Tensor
    scale: Tensor
    generator: torch.Generator
    batch_rows: int | None = None

    def __call__(self, points: Tensor) -> Tensor:
        vectors = self.vectors(points)
        if self.batch_rows is None:
            return self.density(vectors)
        return self.density.of_rows(vectors, self.batch_rows, self.generator)

    def vectors(self, points: Tensor) -> Tensor:
        """Unconstrained vectors (N, D) of points."""
        return self.centre + points @ self.scale.mT

    def normals(self, count: int) -> Tensor:
        """Standard normal points (count, D)."""
        return torch.randn(count, self.density.size, generator=self.generator, dtype=torch.float64)


def fit_guide(target: Target, guide: str, late: Limit = NEVER) -> tuple[Weighted, str]:
    """A fitted guide's draws with importance weights, and how the fit ended.

    Args:
        target: what the guide is fitted to.
        guide: `"auto"` (a flow up to ten coordinates, then a full covariance, then a low rank),
            another of `GUIDES`, or FILE.py:NAME: a Pyro guide NAME(size) with one site `whitened`
            of event shape (size,).
        late: asked between steps.

    Raises:
        ValueError: if there is no such guide, or the ELBO is not finite.
    """
    if guide not in GUIDES and ".py" not in guide and ":" not in guide:
        raise ValueError(
            f"Expected guide to be one of {', '.join(GUIDES)}, or FILE.py:NAME; got {guide!r}"
        )
    size = target.density.size
    if guide == "auto":
        guide = "lowrank" if size > _LARGEST_FULL else "multivariate"
        guide = "flow" if size <= _LARGEST_FLOW else guide
    if guide not in GUIDES:
        drawn, log_q, ended = _fit_of_user(target, guide, late)
    else:
        with seeded(0):  # layers draw their first weights from global state
            made = _GUIDES[guide](size, target.generator)
        ended = _fit(target, made, late)
        with torch.no_grad():
            drawn = made.draw(target.normals(PROPOSED))
            log_q = made(drawn)
    log_q = log_q.detach() - torch.linalg.slogdet(target.scale)[1]
    vectors = target.vectors(drawn.detach())
    return weighed(target.density, vectors, log_q, f"guide {guide}"), ended


def _fit(target: Target, guide: _Guide, late: Limit) -> str:
    """Adam until the ELBO of a window of steps is no higher than that of the one before."""
    optimiser = torch.optim.Adam(guide.parameters(), lr=_RATE)

    def set_rate(share: float) -> None:
        for group in optimiser.param_groups:
            group["lr"] = _RATE * share

    def step() -> float:
        points = guide.draw(target.normals(_PARTICLES))
        fixed = {name: value.detach() for name, value in guide.named_parameters()}
        log_q = torch.func.functional_call(guide, fixed, (points,))
        elbo = (target(points) - log_q).mean()
        optimiser.zero_grad()
        if elbo.isfinite():
            (-elbo).backward()
            optimiser.step()
        return float(elbo.detach())

    return _ended(until_level(step, set_rate, guide.named_parameters, out_of_time=late))


def _ended(found: Ascended, last: int = WINDOW) -> str:
    """How the ascent ended, in words; refused where none of so many last steps was finite."""
    if found.elbos and not any(map(math.isfinite, found.elbos[-last:])):
        raise ValueError(f"Expected a finite ELBO; got {found.elbos[-1]} in the end")
    if not found.settled:
        return f"time was up after {len(found.elbos)} steps, while the ELBO still rose"
    return f"{len(found.elbos)} steps, until the ELBO was level"


def _fit_of_user(target: Target, guide: str, late: Limit) -> tuple[Tensor, Tensor, str]:
    """A guide that the user wrote, fitted by Pyro: its draws, their log q, and how it ended."""
    _, written, _ = find_model(guide)
    size = target.density.size
    seed = int(torch.randint(2**62, (), generator=target.generator))

    def model(size: int) -> None:
        normal = pyro.distributions.Normal(torch.zeros(size).double(), 1.0).to_event(1)
        point = pyro.sample(SITE, normal)
        with pyro.poutine.block():  # the sites of the process are no sites of this model
            own = target(point.reshape(1, size)).sum()
        pyro.factor("log_density", own - normal.log_prob(point))  # the site needs some prior

    with pyro.get_param_store().scope(), seeded(seed):
        first = pyro.poutine.trace(written).get_trace(size)
        sites = [name for name in first.stochastic_nodes if name != "_INPUT"]
        if sites != [SITE] or torch.as_tensor(first.nodes[SITE]["value"]).shape != (size,):
            raise ValueError(
                f"Expected a guide with one site {SITE!r} of shape ({size},); got sites "
                f"{', '.join(sites) or 'none'}"
            )
        optimiser = pyro.optim.ClippedAdam({"lr": _RATE})
        inference = SVI(model, written, optimiser, Trace_ELBO(num_particles=4))
        found = until_level(
            lambda: -float(inference.step(size)),
            partial(set_pyro_rate, optimiser, _RATE),
            pyro.get_param_store().named_parameters,
            out_of_time=late,
        )
        ended = _ended(found, last=1)  # Pyro steps by gradients that are not finite too
        points, densities = [], []
        with torch.no_grad():
            for _ in range(PROPOSED):
                trace = pyro.poutine.trace(written).get_trace(size)
                points.append(torch.as_tensor(trace.nodes[SITE]["value"]).double())
                densities.append(torch.as_tensor(trace.log_prob_sum()).double())
    return torch.stack(points), torch.stack(densities), ended


class _Guide(nn.Module):
    """A distribution of whitened coordinates: `draw` maps standard normals, calling it is log q."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def draw(self, normals: Tensor) -> Tensor:
        """Draws (N, D) for standard normals (N, D)."""
        raise NotImplementedError


class _Normal(_Guide):
    """A normal with a scale per coordinate; what mixes coordinates is in its subclasses."""

    def __init__(self, size: int, generator: torch.Generator) -> None:
        super().__init__(size)
        self.loc = nn.Parameter(torch.zeros(size, dtype=torch.float64))
        self.log_scale = nn.Parameter(torch.zeros(size, dtype=torch.float64))

    def draw(self, normals: Tensor) -> Tensor:
        return self.loc + self.log_scale.exp() * normals

    def forward(self, points: Tensor) -> Tensor:
        white = (points - self.loc) / self.log_scale.exp()
        return log_standard(white) - self.log_scale.sum()


class _Multivariate(_Normal):
    """Covariance L Lᵀ, the scales on the diagonal of L."""

    def __init__(self, size: int, generator: torch.Generator) -> None:
        super().__init__(size, generator)
        self.below = nn.Parameter(torch.zeros(size, size, dtype=torch.float64))

    @property
    def _tril(self) -> Tensor:
        return self.below.tril(-1) + torch.diag_embed(self.log_scale.exp())

    def draw(self, normals: Tensor) -> Tensor:
        return self.loc + normals @ self._tril.mT

    def forward(self, points: Tensor) -> Tensor:
        difference = (points - self.loc).mT
        white = torch.linalg.solve_triangular(self._tril, difference, upper=False).mT
        return log_standard(white) - self.log_scale.sum()


class _LowRank(_Normal):
    """Covariance (I + U Vᵀ)(I + U Vᵀ)ᵀ after a scale per coordinate: an invertible low rank."""

    def __init__(self, size: int, generator: torch.Generator) -> None:
        super().__init__(size, generator)
        rank = min(_RANK, size)
        small = torch.randn(size, rank, generator=generator, dtype=torch.float64)
        self.left = nn.Parameter(torch.zeros(size, rank, dtype=torch.float64))
        self.right = nn.Parameter(small / math.sqrt(size))

    def draw(self, normals: Tensor) -> Tensor:
        return super().draw(normals + (normals @ self.right) @ self.left.mT)

    def forward(self, points: Tensor) -> Tensor:
        mixed = (points - self.loc) / self.log_scale.exp()
        core = torch.eye(self.left.shape[-1]).to(mixed) + self.right.mT @ self.left
        white = mixed - torch.linalg.solve(core, (mixed @ self.right).mT).mT @ self.left.mT
        return log_standard(white) - self.log_scale.sum() - torch.linalg.slogdet(core)[1]


class _Flow(_Guide):
    """Affine couplings, each of which moves half of the coordinates by the other half."""

    def __init__(self, size: int, generator: torch.Generator) -> None:
        super().__init__(size)
        self.base = _Multivariate(size, generator)
        self.layers = nn.ModuleList()
        for _ in range(_COUPLINGS if size > 1 else 0):
            first = nn.Linear(size, _HIDDEN, dtype=torch.float64)
            last = nn.Linear(_HIDDEN, 2 * size, dtype=torch.float64)
            with torch.no_grad():
                first.weight.copy_(0.3 * torch.randn(first.weight.shape, generator=generator))
                first.bias.zero_()
                last.weight.zero_()
                last.bias.zero_()
            self.layers.append(nn.Sequential(first, nn.Tanh(), last))

    def _moves(self, number: int, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        moved = (torch.arange(self.size) + number) % 2 == 0
        shift, log_scale = self.layers[number](points * ~moved).chunk(2, -1)
        return shift * moved, torch.tanh(log_scale) * moved, moved

    def draw(self, normals: Tensor) -> Tensor:
        points = self.base.draw(normals)
        for number in range(len(self.layers)):
            shift, log_scale, _ = self._moves(number, points)
            points = points * log_scale.exp() + shift
        return points

    def forward(self, points: Tensor) -> Tensor:
        log_det = points.new_zeros(len(points))
        for number in reversed(range(len(self.layers))):
            shift, log_scale, _ = self._moves(number, points)
            points = (points - shift) / log_scale.exp()
            log_det = log_det + log_scale.sum(-1)
        return self.base(points) - log_det


_GUIDES: dict[str, Callable[[int, torch.Generator], Any]] = {
    "normal": _Normal,
    "multivariate": _Multivariate,
    "lowrank": _LowRank,
    "flow": _Flow,
}
