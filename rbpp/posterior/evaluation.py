"""One run of a process at a batch of unconstrained vectors, and the log densities that it meets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import MixtureSameFamily, biject_to

from rbpp.internals import site_is_subsample
from rbpp.posterior.normals import log_density, normal_of, unstandardised
from rbpp.processes.convolution import convolved, has_shared_shift
from rbpp.processes.handlers import CHAIN_SITES, is_deterministic

if TYPE_CHECKING:
    from rbpp.posterior.density import ConditionedDensity
    from rbpp.posterior.sites import Latent

_REPLICATES, _PLATES = -3, (-1, -2)
# Dimension of the first enumerated site; the next one is left of it.
_FIRST_ENUMERATED = -5


class Enough(Exception):  # noqa: N818 (no error)
    """The last site that counts has been met: what the model does after it is of no use."""


class Evaluation(Messenger):
    """One run of the process at a batch of vectors, whose log densities it collects.

    Values of discrete sites may be given, (B, data sets or 1, plates) + event: they are then not
    summed out. Of a plate some rows may be taken: their log densities count for all of them. Rows
    whose density is the same in every world are looked at on request (`all_rows`).
    """

    def __init__(
        self,
        density: ConditionedDensity,
        vectors: Tensor,
        discrete: Mapping[str, Tensor] | None = None,
        rows: Mapping[str, Tensor] | None = None,
        all_rows: bool = False,
    ) -> None:
        super().__init__()
        self.density, self.vectors, self.batch = density, vectors, len(vectors)
        self.prepared = density.prepared
        self.latents = {latent.name: latent for latent in self.prepared.latents}
        self.factors: list[_Factor] = []
        self.likelihood: dict[str, Tensor] = {}
        self.values: dict[str, Tensor] = {}
        self.plates: dict[int, str] = {}  # of the site that is being run
        self.output: Any = None  # distribution of a collapsed output
        self.enumerated: list[_Enumerated] = []
        self.discrete, self.rows, self.all_rows = discrete or {}, rows or {}, all_rows
        self.distributions: dict[str, Any] = {}  # of observed and latent sites
        self.missing = {*self.latents, *self.prepared.enumerated, *density.observed}
        if not all_rows:
            self.missing -= density.fixed

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if site_is_subsample(msg) and name in self.rows:
            msg["value"] = self.rows[name]
        if site_is_subsample(msg) or is_deterministic(msg):
            return
        self.plates = {f.dim: f.name for f in msg["cond_indep_stack"] if f.vectorized}
        if name in CHAIN_SITES:
            self.plates[_REPLICATES] = ""
        if name in self.density.observed:
            value = self._taken(name, self.density.observed[name])
            value = value.expand(self.batch, *value.shape[1:])
            if self.all_rows or name not in self.density.fixed:
                self._observe(name, msg["fn"], value)
        elif name in self.latents:
            value = self._transform(self.latents[name], msg["fn"])
        elif name in self.prepared.enumerated:
            value = self._enumerate(msg)
        elif name == self.prepared.collapsed:
            self.output = msg["fn"]
            value = self._taken(name, self.density.constant[name])
            value = value.expand(self.batch, self.density.data_sets, *value.shape[2:])
        else:
            value = self.density.constant[name]
        self.values[name] = value
        msg["value"], msg["is_observed"], msg["done"] = value, True, True
        self.missing.discard(name)
        if not self.missing:
            raise Enough

    def _observe(self, name: str, distribution: Any, value: Tensor) -> None:
        if name == "synthetic" and self.output is not None:
            shift = self.values[self.prepared.collapsed]
            if self.density.shared_shift is None:
                self.density.shared_shift = has_shared_shift(distribution, shift)
            distribution = convolved(self.output, distribution, shift, self.density.shared_shift)
        self.distributions[name] = distribution
        found = log_density(distribution, value, self.density.blocks.get(name, 1))
        self.likelihood[name] = found
        site = self.density.process.sites[name]
        plate = next(iter(site.plates), "")
        if plate in self.rows:
            found = found * (site.rows / len(self.rows[plate]))
        self._factor(found)

    def _taken(self, name: str, value: Tensor) -> Tensor:
        """The rows of a value that this run is about."""
        site = self.density.process.sites[name]
        plate = next(iter(site.plates), "")
        if plate not in self.rows:
            return value
        axis = site.batch_dimensions - 1 - len(site.shape)
        return value.index_select(axis, self.rows[plate].to(value.device))

    def _transform(self, latent: Latent, distribution: Any) -> Tensor:
        flat = self.vectors[:, latent.start : latent.stop]
        free = flat.reshape(self.batch, -1, *latent.shape)
        self.distributions[latent.name] = distribution
        block = self.density.blocks.get(latent.name, 1)
        if latent.non_centred:
            each = -0.5 * free.square() - 0.5 * math.log(2 * math.pi)
            event = len(distribution.event_shape)
            self._factor(each.sum(tuple(range(-event, 0))) if event else each)
            return unstandardised(normal_of(distribution), free, block)
        transform = biject_to(support_of(distribution))
        value = transform(free)
        jacobian = transform.log_abs_det_jacobian(free, value)
        self._factor(log_density(distribution, value, block) + jacobian)
        return value

    def _enumerate(self, msg: Any) -> Tensor:
        distribution = msg["fn"]
        if msg["name"] in self.discrete:
            value = self.discrete[msg["name"]]
            self._factor(distribution.log_prob(value))
            return value
        support = support_values(distribution).to(self.vectors.device)
        dimension = _FIRST_ENUMERATED - len(self.enumerated)
        value = support.reshape(len(support), *(1,) * (-dimension - 1), *support.shape[1:])
        self.enumerated.append(_Enumerated(msg["name"], dimension, self.plates, value))
        self._factor(distribution.log_prob(value))
        return value

    def _factor(self, value: Tensor) -> None:
        self.factors.append(_Factor(value, self.plates))

    def eliminated(self) -> tuple[list[_Factor], list[tuple[_Enumerated, Tensor]]]:
        """Factors with discrete sites summed out, and of each site the joint before its sum.

        Sites in more plates first: those outside see one factor per row.
        """
        factors, joints = self.factors, []
        for site in sorted(self.enumerated, key=lambda one: (-len(one.plates), one.dimension)):
            own = [factor for factor in factors if factor.depends_on(site.dimension)]
            factors = [factor for factor in factors if not factor.depends_on(site.dimension)]
            # Rows are independent given the site: their densities multiply.
            joint = sum((one.within(site.plates) for one in own), torch.zeros(()))
            joints.append((site, joint))
            factors.append(_Factor(joint.logsumexp(site.dimension, keepdim=True), site.plates))
        return factors, joints

    def total(self) -> Tensor:
        """The sum of all log densities with discrete sites summed out: (B,)."""
        fixed = 0.0 if self.all_rows else self.density.fixed_part
        total = self.vectors.new_full((self.batch,), fixed)
        for factor in self.eliminated()[0]:
            inner = min(3, factor.value.dim())
            summed = factor.value.sum(tuple(range(-inner, 0))) if inner else factor.value
            total = total + summed.reshape(-1)
        return total

    def drawn(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Values of the discrete sites given the vectors: what was summed out last comes first."""
        _, joints = self.eliminated()
        chosen: dict[int, Tensor] = {}
        values = {}
        for site, joint in reversed(joints):
            for dimension, index in chosen.items():
                if joint.dim() >= -dimension and joint.shape[dimension] > 1:
                    shape = torch.broadcast_shapes(joint.shape[dimension + 1 :], index.shape)
                    wide = joint.expand(*joint.shape[: dimension + 1], *shape)
                    index = index.expand(shape).unsqueeze(0)
                    index = index.expand(*wide.shape[:dimension], 1, *shape)
                    joint = wide.gather(dimension, index)
            logits = joint.movedim(site.dimension, -1)
            logits = logits.reshape(*logits.shape[-5:])  # (B, data sets, plate, plate, values)
            uniform = torch.rand(logits.shape, generator=generator, dtype=logits.dtype)
            index = (logits - (-uniform.to(logits).log()).log()).argmax(-1)
            chosen[site.dimension] = index
            event = site.value.reshape(site.value.shape[0], *site.value.shape[-site.dimension :])
            values[site.name] = event[index]
        return values


@dataclass(frozen=True)
class _Enumerated:
    """A discrete site in a run: its dimension, the plates it is in, and its values."""

    name: str
    dimension: int
    plates: Mapping[int, str]
    value: Tensor


@dataclass(frozen=True)
class _Factor:
    """Log densities of a site, and the plates that its dimensions stand for."""

    value: Tensor
    plates: Mapping[int, str]

    def depends_on(self, dimension: int) -> bool:
        """Whether it differs along the dimension of a discrete site."""
        return self.value.dim() >= -dimension and self.value.shape[dimension] > 1

    def within(self, plates: Mapping[int, str]) -> Tensor:
        """Summed over the plates that a site is not in."""
        outside = [
            place
            for place in (*_PLATES, _REPLICATES)
            if self.value.dim() >= -place and self.plates.get(place) != plates.get(place)
        ]
        return self.value.sum(outside, keepdim=True) if outside else self.value


def support_values(distribution: Any) -> Tensor:
    """All values (V, *event shape) of a discrete distribution; of a vector of letters all words."""
    event = distribution.event_shape
    letters = normal_of(distribution).enumerate_support(expand=False).flatten()
    if not event:
        return letters
    words = torch.cartesian_prod(*[letters] * math.prod(event))
    return words.reshape(-1, *event)


def support_of(distribution: Any) -> Any:
    """The support by which a site is mapped to real numbers: of a mixture, that of a component."""
    if isinstance(distribution, MixtureSameFamily):
        return distribution.component_distribution.support
    return distribution.support
