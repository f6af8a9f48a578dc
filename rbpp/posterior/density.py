"""The log density of a process given data, as a batched function of an unconstrained vector.

What gradient-based inference needs of a Pyro model, prepared once:

- latent sites that no observed site depends on are left out (they have their prior);
- an output that the data see through additive normal noise alone is integrated out in closed form;
- discrete latent sites are summed out;
- normal sites, of vectors too, whose scale is latent are non-centred, since their density has a
  pole otherwise;
- every other latent site is mapped to unconstrained coordinates by `biject_to`.

Many vectors are evaluated in one run of the model: dimension −4 holds them, −3 the data sets that
share a world, −2 and −1 are the process's own plates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    biject_to,
)

from rbpp.internals import site_is_subsample
from rbpp.processes.handlers import CHAIN_SITES, is_deterministic, running
from rbpp.processes.process import Process

# Numbers in one run of the model: more vectors at once save Python time and cost memory.
_RUN_ELEMENTS = 2**22
_REPLICATES, _PLATES = -3, (-1, -2)
# Dimension of the first enumerated site; the next one is left of it.
_FIRST_ENUMERATED = -5


@dataclass(frozen=True)
class Latent:
    """A site of the unconstrained vector.

    Attributes:
        name: of the site.
        shape: of its unconstrained value in one run of the model, padding and plates in front.
        constrained: shape of its value.
        per_data_set: whether every data set has a value of its own; a world is shared by all.
        start, stop: its place in the vector.
        non_centred: whether the vector holds (value − loc) / scale.
        reported: whether it is part of the result: of the world, or kept on request.
    """

    name: str
    shape: tuple[int, ...]
    constrained: tuple[int, ...]
    per_data_set: bool
    start: int
    stop: int
    non_centred: bool = False
    reported: bool = True


@dataclass(frozen=True)
class Prepared:
    """What was decided about a process's sites.

    Attributes:
        latents: sites of the vector, in the model's order.
        observed: sites that the data give.
        enumerated: discrete sites that are summed out, with their number of values.
        pruned: sites that nothing observed depends on.
        collapsed: the output, where it is integrated out; else the empty string.
    """

    latents: tuple[Latent, ...]
    observed: tuple[str, ...]
    enumerated: Mapping[str, int] = field(default_factory=dict)
    pruned: tuple[str, ...] = ()
    collapsed: str = ""

    @property
    def size(self) -> int:
        """Length D of the vector."""
        return self.latents[-1].stop if self.latents else 0

    def describe(self) -> list[str]:
        """What was done, a line each."""
        lines = [f"{self.size} unconstrained coordinates of {', '.join(self.names) or 'nothing'}"]
        if self.collapsed:
            lines.append(
                f"{self.collapsed} is integrated out: the data see it through normal noise"
            )
        if self.enumerated:
            lines.append(f"{', '.join(self.enumerated)}: discrete, summed out")
        non_centred = [latent.name for latent in self.latents if latent.non_centred]
        if non_centred:
            lines.append(f"{', '.join(non_centred)}: non-centred, since the scale is latent")
        if self.pruned:
            lines.append(f"{', '.join(self.pruned)}: no data depend on it, so it keeps its prior")
        return lines

    @property
    def reported(self) -> Tensor:
        """Places (R,) in the vector of what the result reports."""
        parts = [torch.arange(one.start, one.stop) for one in self.latents if one.reported]
        return torch.cat(parts) if parts else torch.arange(self.size)

    @property
    def names(self) -> list[str]:
        """Names of the latent sites."""
        return [latent.name for latent in self.latents]


class ConditionedDensity:
    """log p(data, latent sites) as a function of unconstrained vectors (B, D).

    Args:
        process: at sizes that fit the data (`rbpp.posterior.sizes.fit_sizes`).
        data: site to rows (rows, …) or data sets (R, rows, …), as a plain run of the model has it.
        keep: latent chain sites that are wanted in the posterior though nothing else needs them.
        seed: of the traces by which the process is looked at.

    Raises:
        ValueError: if a site is unknown, has another shape than the data, cannot be conditioned
            (deterministic), or is discrete and cannot be enumerated.
    """

    def __init__(
        self,
        process: Process,
        data: Mapping[str, Tensor],
        *,
        keep: Sequence[str] = (),
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        from rbpp.posterior.sites import prepare

        self.process, self.device = process, device
        self.prepared, self.observed, self.constant = prepare(
            process, data, keep=keep, seed=seed, device=device
        )
        self.data_sets = next(iter(self.observed.values())).shape[1]
        elements = sum(value.numel() for value in self.observed.values()) + self.prepared.size
        self.at_once = max(1, _RUN_ELEMENTS // (32 * max(1, elements)))

    @property
    def size(self) -> int:
        """Length D of the vector."""
        return self.prepared.size

    def __call__(self, vectors: Tensor) -> Tensor:
        """log p(data, latents) and the log Jacobian of the map to unconstrained space: (B,).

        −∞ where the model cannot be evaluated, as where a covariance overflows.
        """
        return torch.cat([self._total(part) for part in vectors.split(self.at_once)])

    def log_likelihood(self, vectors: Tensor) -> dict[str, Tensor]:
        """Log density of every observed row given the latents: site to (B, data sets, rows).

        Raises:
            ValueError: if sites are enumerated: rows are then not independent given the vector.
        """
        if self.prepared.enumerated:
            raise ValueError(
                "Expected a density without enumerated sites; got "
                f"{', '.join(self.prepared.enumerated)}, which rows may share"
            )
        parts: dict[str, list[Tensor]] = {name: [] for name in self.observed}
        with torch.no_grad():
            for part in vectors.split(self.at_once):
                run = self._run(part)
                for name, value in run.likelihood.items():
                    shape = (len(part), self.data_sets, *value.shape[-2:])
                    parts[name].append(value.expand(shape).flatten(-2))
        return {name: torch.cat(found) for name, found in parts.items()}

    def constrained(self, vectors: Tensor) -> dict[str, Tensor]:
        """Values of the latent sites: (B, data sets or 1, *shape of a plain run)."""
        parts: dict[str, list[Tensor]] = {name: [] for name in self.prepared.names}
        with torch.no_grad():
            for part in vectors.split(self.at_once):
                run = self._run(part)
                for latent in self.prepared.latents:
                    value = run.values[latent.name]
                    sets = self.data_sets if latent.per_data_set else 1
                    plain = self.process.sites[latent.name].shape
                    shape = (len(part), sets, *latent.constrained)
                    parts[latent.name].append(value.expand(shape).reshape(len(part), sets, *plain))
        return {name: torch.cat(found) for name, found in parts.items()}

    def gradient(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Value (B,) and gradient (B, D); −∞ and zero where the density vanishes or is nan."""
        variable = vectors.detach().requires_grad_(True)
        with torch.enable_grad():
            value = self(variable)
            (slope,) = torch.autograd.grad(value.sum(), variable)
        fine = value.isfinite() & slope.isfinite().all(-1)
        return (
            torch.where(fine, value, -math.inf).detach(),
            torch.where(fine.unsqueeze(-1), slope, 0.0),
        )

    def hessian(self, vector: Tensor) -> Tensor:
        """Second derivatives (D, D) at one vector, a batch of rows at a time."""
        rows = []
        for index in torch.arange(self.size, device=vector.device).split(self.at_once):
            points = vector.detach().expand(len(index), -1).clone().requires_grad_(True)
            with torch.enable_grad():
                (slope,) = torch.autograd.grad(self(points).sum(), points, create_graph=True)
                chosen = slope.gather(-1, index.unsqueeze(-1)).sum()
                (row,) = torch.autograd.grad(chosen, points)
            rows.append(row)
        matrix = torch.cat(rows)
        return (matrix + matrix.mT) / 2

    def prior_vectors(self, count: int, seed: int) -> Tensor:
        """Vectors (count, D) of draws from the prior: where optimisers start."""
        from rbpp.posterior.sites import prior_vectors

        return prior_vectors(self, count, seed)

    def _total(self, vectors: Tensor) -> Tensor:
        try:
            return self._run(vectors).total()
        except (ValueError, RuntimeError):  # one vector far out spoils a whole batch
            if len(vectors) == 1:
                return vectors.sum(-1) * 0 - math.inf
            half = len(vectors) // 2
            return torch.cat([self._total(vectors[:half]), self._total(vectors[half:])])

    def _run(self, vectors: Tensor) -> Evaluation:
        run = Evaluation(self, vectors)
        with running(0, self.device), pyro.validation_enabled(False), run:
            self.process()
        return run


class Evaluation(Messenger):
    """One run of the process at a batch of vectors, whose log densities it collects."""

    def __init__(self, density: ConditionedDensity, vectors: Tensor) -> None:
        super().__init__()
        self.density, self.vectors, self.batch = density, vectors, len(vectors)
        self.prepared = density.prepared
        self.latents = {latent.name: latent for latent in self.prepared.latents}
        self.factors: list[Tensor] = []
        self.likelihood: dict[str, Tensor] = {}
        self.values: dict[str, Tensor] = {}
        self.output: Any = None  # distribution of a collapsed output
        self.enumerated: list[tuple[int, set[int]]] = []  # dimension, and the plates of the site

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if site_is_subsample(msg) or is_deterministic(msg):
            return
        if name in self.density.observed:
            value = self.density.observed[name]
            value = value.expand(self.batch, *value.shape[1:])
            self._observe(name, msg["fn"], value)
        elif name in self.latents:
            value = self._transform(self.latents[name], msg["fn"])
        elif name in self.prepared.enumerated:
            value = self._enumerate(msg)
        elif name == self.prepared.collapsed:
            self.output = msg["fn"]
            value = self.density.constant[name].expand(
                self.batch, self.density.data_sets, *(self.density.constant[name].shape[2:])
            )
        else:
            value = self.density.constant[name]
        self.values[name] = value
        msg["value"], msg["is_observed"], msg["done"] = value, True, True

    def _observe(self, name: str, distribution: Any, value: Tensor) -> None:
        if name == "synthetic" and self.output is not None:
            shift = self.values[self.prepared.collapsed]
            distribution = convolved(self.output, distribution, shift)
        found = distribution.log_prob(value)
        self.likelihood[name] = found
        self.factors.append(found)

    def _transform(self, latent: Latent, distribution: Any) -> Tensor:
        sets = self.density.data_sets if latent.per_data_set else 1
        flat = self.vectors[:, latent.start : latent.stop]
        free = flat.reshape(self.batch, sets, *latent.shape)
        if latent.non_centred:
            value = unstandardised(normal_of(distribution), free)
            each = -0.5 * free.square() - 0.5 * math.log(2 * math.pi)
            event = len(distribution.event_shape)
            self.factors.append(each.sum(tuple(range(-event, 0))) if event else each)
            return value
        transform = biject_to(support_of(distribution))
        value = transform(free)
        jacobian = transform.log_abs_det_jacobian(free, value)
        self.factors.append(distribution.log_prob(value) + jacobian)
        return value

    def _enumerate(self, msg: Any) -> Tensor:
        distribution = msg["fn"]
        support = distribution.enumerate_support(expand=False)
        values, event = support.shape[0], support.dim() - 1 - len(distribution.batch_shape)
        own = support.shape[support.dim() - event :]
        dimension = _FIRST_ENUMERATED - len(self.enumerated)
        value = support.reshape(values, *(1,) * (-dimension - 1), *own)
        plates = {frame.dim for frame in msg["cond_indep_stack"] if frame.vectorized}
        if msg["name"] in CHAIN_SITES:
            plates.add(_REPLICATES)
        self.enumerated.append((dimension, plates))
        self.factors.append(distribution.log_prob(value))
        return value

    def total(self) -> Tensor:
        """The sum of all log densities with discrete sites summed out: (B,)."""
        factors = self.factors
        for dimension, plates in reversed(self.enumerated):
            own = [f for f in factors if f.dim() >= -dimension and f.shape[dimension] > 1]
            factors = [f for f in factors if not any(f is one for one in own)]
            outside = [d for d in (*_PLATES, _REPLICATES) if d not in plates]
            joint: Tensor | float = 0.0
            for factor in own:  # rows are independent given the site: their densities multiply
                joint = joint + factor.sum(outside, keepdim=True)
            assert isinstance(joint, Tensor)
            factors.append(joint.logsumexp(dimension, keepdim=True))
        total = self.vectors.new_zeros(self.batch)
        for factor in factors:
            inner = min(3, factor.dim())
            summed = factor.sum(tuple(range(-inner, 0))) if inner else factor
            total = total + summed.reshape(-1)
        return total


def normal_of(distribution: Any) -> Any:
    """What an `Independent` distribution is made of."""
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution


def standardised(normal: Normal | MultivariateNormal, value: Tensor) -> Tensor:
    """What a standard normal has to be for the value."""
    if isinstance(normal, Normal):
        return (value - normal.loc) / normal.scale
    difference = (value - normal.loc).unsqueeze(-1)
    return torch.linalg.solve_triangular(normal.scale_tril, difference, upper=False).squeeze(-1)


def unstandardised(normal: Normal | MultivariateNormal, free: Tensor) -> Tensor:
    """The value of a normal for a standard normal one."""
    if isinstance(normal, Normal):
        return normal.loc + normal.scale * free
    return normal.loc + (normal.scale_tril @ free.unsqueeze(-1)).squeeze(-1)


def support_of(distribution: Any) -> Any:
    """The support by which a site is mapped to real numbers: of a mixture, that of a component."""
    if isinstance(distribution, MixtureSameFamily):
        return distribution.component_distribution.support
    return distribution.support


def convolved(output: Any, noise: Any, placeholder: Tensor) -> Any:
    """Distribution of output + c + noise, where `noise` is Normal(placeholder + c, scale).

    Args:
        output: normal, or a mixture of normals, of vectors.
        noise: `Normal(…).to_event(1)`.
        placeholder: the value of the output at which `noise` was built.
    """
    shift = noise.base_dist.loc - placeholder
    variance = noise.base_dist.scale.square()
    if isinstance(output, MixtureSameFamily):
        parts = _convolved_normal(
            output.component_distribution, shift.unsqueeze(-2), variance.unsqueeze(-2)
        )
        mixing = output.mixture_distribution
        batch = torch.broadcast_shapes(mixing.batch_shape, parts.batch_shape[:-1])
        logits = mixing.logits.expand(*batch, mixing.logits.shape[-1])
        return MixtureSameFamily(
            Categorical(logits=logits, validate_args=False),
            parts.expand((*batch, parts.batch_shape[-1])),
            validate_args=False,
        )
    return _convolved_normal(output, shift, variance)


def _convolved_normal(normal: Any, shift: Tensor, variance: Tensor) -> Any:
    if isinstance(normal, MultivariateNormal):
        covariance = normal.covariance_matrix + torch.diag_embed(variance)
        return MultivariateNormal(normal.loc + shift, covariance, validate_args=False)
    base = normal.base_dist
    scale = (base.scale.square() + variance).sqrt()
    loc = (base.loc + shift).expand(torch.broadcast_shapes(base.loc.shape, scale.shape))
    return Independent(Normal(loc, scale.expand(loc.shape), validate_args=False), 1)
