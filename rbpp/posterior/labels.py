"""Components that the posterior cannot tell apart, and one order for all draws.

A density that stays the same when two members of a plate change places has a copy of every mode for
each order. That is tested by numbers, not read off the model. What does not depend on labels needs
nothing of this; sites of single components are matched to a reference draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.distributions import biject_to, constraints

from rbpp.posterior.density import ConditionedDensity
from rbpp.posterior.sites import Latent
from rbpp.processes.handlers import ROW_PLATES

_TESTED, _TOLERANCE = 4, 1e-7


@dataclass(frozen=True)
class Symmetry:
    """Members of a plate, or entries along an axis of a site, that may change places.

    Attributes:
        plate: its name, or the site's.
        classes: members (places in the plate) that may change places among themselves.
        blocks: places in the vector of every member's own coordinates (K, L).
        carried: places (M, L') of rows of the chain that go with the first M members.
        simplices: start and stop of the unconstrained weights that have an entry per member.
        axis: of the site, −1 the last; 0 where it is a plate.
    """

    plate: str
    classes: tuple[tuple[int, ...], ...]
    blocks: Tensor
    carried: Tensor
    simplices: tuple[tuple[int, int], ...] = ()
    axis: int = 0

    @property
    def members(self) -> str:
        """What has no order."""
        return (
            f"entries of {self.plate} along axis {self.axis}"
            if self.axis
            else f"members of plate {self.plate}"
        )

    def describe(self) -> str:
        """What is symmetric, in words."""
        if self.axis:
            return f"{self.members} can change places; draws have the order that matches one best"
        listed = " and ".join(
            f"{len(members)} members" if len(self.classes) == 1 else str(list(members))
            for members in self.classes
        )
        return (
            f"plate {self.plate}: {listed} can change places without a trace in the density; "
            "draws are put in the order that best matches one of them"
        )

    def permuted(self, vectors: Tensor, order: Tensor) -> Tensor:
        """Vectors (N, D) whose member j is what member order[:, j] was."""
        result = vectors.clone()
        for places in (self.blocks, self.carried):
            if places.numel():
                own = vectors[:, places.flatten()].unflatten(-1, places.shape)
                index = order[:, : len(places)].unsqueeze(-1).expand_as(own)
                result[:, places.flatten()] = own.gather(1, index).flatten(1)
        transform = biject_to(constraints.simplex)
        for start, stop in self.simplices:
            weights = transform(vectors[:, start:stop]).gather(-1, order)
            result[:, start:stop] = transform.inv(weights)
        return result

    def relabelled(self, vectors: Tensor, reference: Tensor) -> Tensor:
        """Vectors (N, D) in the order that is nearest to the reference (D,)."""
        own, target = vectors[:, self.blocks], reference[self.blocks]
        spread = own.flatten(0, 1).var(0).clamp_min(1e-12)
        difference = target.unsqueeze(-2) - own.unsqueeze(-3)  # (N, target, own, L)
        cost = (difference.square() / spread).sum(-1).nan_to_num(1e300).cpu().numpy()
        order = np.tile(np.arange(len(self.blocks)), (len(vectors), 1))
        for members in map(list, self.classes):
            for row, matrix in enumerate(cost[:, members][:, :, members]):
                order[row, members] = np.asarray(members)[linear_sum_assignment(matrix)[1]]
        return self.permuted(vectors, torch.as_tensor(order, device=vectors.device))


class _Probe:
    """A density at draws of the prior: what leaves it as it is, is a symmetry."""

    def __init__(self, density: ConditionedDensity, seed: int) -> None:
        self.density, self.vectors = density, density.prior_vectors(_TESTED, seed)
        with torch.no_grad():
            self.values = density(self.vectors)

    def is_unmoved(self, one: Symmetry, order: Tensor) -> bool:
        """Whether members can take this order (K,)."""
        orders = order.to(self.vectors.device).expand(len(self.vectors), -1)
        with torch.no_grad():
            after = self.density(one.permuted(self.vectors, orders))
        return bool(self.values.isfinite().all()) and torch.allclose(
            after, self.values, rtol=_TOLERANCE, atol=_TOLERANCE
        )


def symmetries(density: ConditionedDensity, seed: int) -> list[Symmetry]:
    """Plates of the world whose members may change places without changing the density."""
    world = density.prepared.world
    sizes: dict[str, int] = {}
    for site in (latent.site for latent in world):
        for axis, plate in enumerate(site.plates[: site.batch_dimensions]):
            if plate not in ROW_PLATES.values():
                sizes[plate] = site.shape[site.batch_dimensions - 1 - axis]
    probe, found = _Probe(density, seed), list[Symmetry]()
    for plate, size in sizes.items():
        if size > 1:
            found += _of_plate(probe, plate, size)
    for latent in world:
        found += _along_axes(probe, latent)
    return found


def described(found: Sequence[Symmetry]) -> dict[str, str]:
    """What has no order, and that in words: once where every component has the same symmetry."""
    return {one.members: one.describe() for one in found}


def _along_axes(probe: _Probe, latent: Latent) -> list[Symmetry]:
    """Axes of a site's event along which entries may change places, as columns of A in A Aᵀ.

    Any order is a product of a swap and shifts, so that these two are tested, of every member of
    the plates by itself.
    """
    site = latent.site
    event = site.shape[site.batch_dimensions :]
    if math.prod(latent.shape) != math.prod(site.shape) or len(event) < 2:
        return []
    found: list[Symmetry] = []
    for axis in range(-len(event), 0):
        size = event[axis]
        if size == 1:
            continue
        orders = torch.arange(size).roll(1), torch.tensor([1, 0, *range(2, size)])
        nothing = torch.empty(size, 0, dtype=torch.long)
        along = [
            Symmetry(
                latent.name,
                (tuple(range(size)),),
                own.movedim(axis, 0).flatten(1),
                nothing,
                axis=axis,
            )
            for own in latent.places.reshape(-1, *event)
        ]
        if all(probe.is_unmoved(one, order) for one in along for order in orders):
            found += along
    return found


def one_order(found: Sequence[Symmetry], vectors: Tensor, reference: Tensor) -> Tensor:
    """Vectors (…, D) with every symmetric plate in the order of the reference."""
    flat = vectors.reshape(-1, vectors.shape[-1])
    for symmetry in found:
        flat = symmetry.relabelled(flat, reference)
    return flat.reshape(vectors.shape)


def _of_plate(probe: _Probe, plate: str, size: int) -> list[Symmetry]:
    """The symmetry of one plate, with rows of the chain going along in blocks or staying."""
    prepared = probe.density.prepared
    inside = [one for one in prepared.world if plate in one.site.plates]
    blocks = _joined([_places(one, one.site.plates.index(plate), size, 1) for one in inside], size)
    simplices = tuple(
        (one.start, one.stop)
        for one in prepared.world
        if one.site.shape == (size,) and one.stop - one.start == size - 1
    )
    chain = [one for one in prepared.latents if one.per_data_set and one.site.plates]
    candidates = []
    for members in (*range(size, 1, -1), 0):
        along = [
            _places(one, 0, members, one.site.rows // members)
            for one in chain
            if members and one.site.rows % members == 0
        ]
        if along or not members:
            carried = _joined(along, members)
            whole = Symmetry(plate, (), blocks, carried=carried, simplices=simplices)
            candidates.append(replace(whole, classes=_classes(probe, whole)))
    best = max(candidates, key=lambda one: sum(map(len, one.classes)))
    return [best] if best.classes else []


def _classes(probe: _Probe, symmetry: Symmetry) -> tuple[tuple[int, ...], ...]:
    """Sets of members of which any two can be swapped."""
    size = len(symmetry.blocks)
    classes: list[list[int]] = []
    for member in range(size):
        for known in classes:
            if known[0] < len(symmetry.carried) <= member:  # one has rows, the other none
                continue
            order = torch.arange(size)
            order[member], order[known[0]] = known[0], member
            if probe.is_unmoved(symmetry, order):
                known.append(member)
                break
        else:
            classes.append([member])
    return tuple(tuple(members) for members in classes if len(members) > 1)


def _places(latent: Latent, plate: int, size: int, block: int) -> Tensor:
    """Places (size, L) in the vector of a latent's coordinates by member of its plate."""
    axis = 1 + latent.site.padding + latent.site.batch_dimensions - 1 - plate
    return latent.places.movedim(axis, 0).unflatten(0, (size, block)).flatten(1)


def _joined(parts: Sequence[Tensor], size: int) -> Tensor:
    return torch.cat([*parts, torch.empty(size, 0, dtype=torch.long)], -1)
