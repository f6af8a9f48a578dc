"""The sources of an assessment, laid out in the coordinates that the mixtures are fitted in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rbpp.compute import Compute
from rbpp.data.embed import embed
from rbpp.data.reduce import DEPTHS, Contrast, Projection, principal_components
from rbpp.data.rows import Rows

ROLES = ("anchor", "target", "output", "unprompted", "synthetic")


@dataclass(frozen=True)
class Scene:
    """The sources laid out for the mixtures.

    Attributes:
        sources: rows by role, in the order of `ROLES`.
        vectors: embeddings (n, D) of every source.
        coordinates: principal components (n, d) of every source.
        contrasts: of the synthetic rows against the reference (n,), of every source.
        projection: the principal components.
        embedding: how the vectors were made.
        groups: group index of every row (n,) by source, or None.
    """

    sources: list[Rows]
    vectors: list[np.ndarray]
    coordinates: list[Tensor]
    contrasts: list[Tensor]
    projection: Projection
    embedding: str
    groups: list[Tensor | None]

    @property
    def roles(self) -> list[str]:
        """The sources' roles, in order."""
        return [rows.source for rows in self.sources]

    def index(self, role: str) -> int:
        """Place of a role among the sources."""
        return self.roles.index(role)

    @property
    def source(self) -> Tensor:
        """The source of every row, (n,), the rows of all sources being one below the other."""
        sizes = torch.tensor([len(rows) for rows in self.sources])
        return torch.repeat_interleave(torch.arange(len(sizes)), sizes)

    def rows(self, dimension: int, contrasts: list[Tensor]) -> Tensor:
        """Rows (n, dimension + 1) of all sources: principal components, and the contrast last."""
        return torch.cat(
            [
                torch.cat([rows[:, :dimension], contrast[:, None]], 1)
                for rows, contrast in zip(self.coordinates, contrasts, strict=True)
            ]
        )

    @property
    def reference(self) -> int:
        """The target, or the anchors in its place."""
        return self.index("target" if "target" in self.roles else "anchor")


def lay_out(
    sources: Sequence[Rows],
    *,
    embedding_model: str | None = None,
    dimension: int | None = None,
    cache: Any = None,
    compute: Compute | None = None,
) -> Scene:
    """Embed the sources and project them: principal components of the pool, and the contrast.

    Raises:
        ValueError: on a role given twice or unknown, or a pool that does not vary.
    """
    compute = compute or Compute()
    check_roles([rows.source for rows in sources])
    ordered = sorted(sources, key=lambda rows: ROLES.index(rows.source))
    vectors, embedding = embed(
        ordered,
        model=embedding_model,
        device=compute.device,
        cache=cache,
        seed=compute.seed,
        mapper=compute.workers,
        quiet=not compute.progress,
    )
    return arrange(ordered, vectors, principal_components(vectors, dimension), str(embedding))


def check_draws(chains: int, draws: int) -> None:
    """Raises ValueError unless both are whole numbers, of one chain and two draws at least."""
    whole = isinstance(chains, Integral) and isinstance(draws, Integral)
    if not whole or chains < 1 or draws < 2:
        raise ValueError(f"Expected whole chains ≥ 1 and draws ≥ 2; got {chains} and {draws}")


def check_roles(roles: list[str]) -> None:
    """Raises ValueError on a role given twice or unknown, or where one that is needed lacks."""
    if len(set(roles)) != len(roles) or not set(roles) <= set(ROLES):
        raise ValueError(f"Expected each of {', '.join(ROLES)} at most once; got {roles}")
    if "synthetic" not in roles or not {"anchor", "target"} & set(roles):
        raise ValueError(f"Expected synthetic rows and anchor or target rows; got {roles}")


def arrange(
    sources: list[Rows], vectors: list[np.ndarray], projection: Projection, embedding: str
) -> Scene:
    """A scene from vectors and a projection that may have been fitted to more than its sources."""
    scene = Scene(
        sources,
        vectors,
        [torch.as_tensor(projection(part)) for part in vectors],
        [],
        projection,
        embedding,
        [group_index(rows) for rows in sources],
    )
    made = scene.index("synthetic")
    scene.contrasts.extend(contrasts(scene, scene.reference, made, projection.dimension))
    return scene


class PairContrast:
    """How much a row's surroundings belong to the second of two sources rather than the first.

    The mean over the first 1, 2 and 4 × `dimension` principal components, as far as there are so
    many, standardised over the rows of both.

    Args:
        projection: the principal components.
        pair: vectors (n, D) of both sources.
        dimension: principal components of the first of the means.

    Attributes:
        own: of the rows of both sources, (n,) each.
    """

    def __init__(
        self, projection: Projection, pair: tuple[np.ndarray, np.ndarray], dimension: int
    ) -> None:
        deep = np.concatenate([projection.deep(part) for part in pair])
        label = np.repeat([0.0, 1.0], [len(part) for part in pair])
        self._projection = projection
        self._depths = sorted({min(times * dimension, deep.shape[1]) for times in DEPTHS})
        self._contrasts = [Contrast(deep[:, :depth], label) for depth in self._depths]
        both = np.mean([found.own for found in self._contrasts], axis=0)
        self._centre, self._spread = both.mean(), max(both.std(), 1e-9)
        self.own = np.split((both - self._centre) / self._spread, [len(pair[0])])

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Of rows (m, D) of neither source, or not among those given: (m,)."""
        deep = self._projection.deep(vectors)
        found = [
            place(deep[:, :depth])
            for depth, place in zip(self._depths, self._contrasts, strict=True)
        ]
        return (np.mean(found, axis=0) - self._centre) / self._spread


def contrasts(scene: Scene, first: int, second: int, dimension: int) -> list[Tensor]:
    """The contrast of two sources for the rows of all, a tensor (n,) for every source."""
    vectors = scene.vectors
    found = PairContrast(scene.projection, (vectors[first], vectors[second]), dimension)
    own = {first: found.own[0], second: found.own[1]}
    return [
        torch.as_tensor(own[index] if index in own else found(part))
        for index, part in enumerate(vectors)
    ]


def group_index(rows: Rows) -> Tensor | None:
    """Index of the group of every row (n,), or None where no groups were given."""
    if rows.groups is None:
        return None
    return torch.as_tensor(np.unique(np.asarray(rows.groups), return_inverse=True)[1])
