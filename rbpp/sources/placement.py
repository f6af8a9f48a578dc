"""Rows that were not assessed, placed among those that were."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rbpp.data.reduce import SHARED_DIMENSION, Projection
from rbpp.mixtures.conjugate import VariationalMixture
from rbpp.sources import findings
from rbpp.sources.scene import PairContrast, Scene
from rbpp.sources.shares import Shares
from rbpp.sources.strangeness import Strangeness
from rbpp.sources.two_groups import Foreign


@dataclass(frozen=True)
class Placement:
    """Places rows that were not assessed among those that were.

    Attributes:
        projection: the principal components.
        contrast: of the synthetic rows against the task.
        before: of the rows before curation against the task, or None.
        strange: by role, strangeness of its rows to what may account for them.
        task: the role that stands for the task.
        fit: the shared mixture.
        shares: its posterior.
        curves: by role, strangeness of the sample in order, and the probability at each.
    """

    projection: Projection
    contrast: PairContrast
    before: PairContrast | None
    strange: dict[str, Strangeness]
    task: str
    fit: VariationalMixture
    shares: Shares
    curves: dict[str, tuple[np.ndarray, np.ndarray]]

    def __call__(self, role: str, vectors: np.ndarray) -> dict[str, np.ndarray]:
        """The columns of the table of rows that are numbers, for vectors (n, D) of a role."""
        coordinates = torch.as_tensor(self.projection(vectors))
        score = self.contrast(vectors)
        seen = coordinates[:, : min(SHARED_DIMENSION, self.projection.dimension)]
        members = self.fit.expected().responsibilities(
            torch.cat([seen, torch.as_tensor(score)[:, None]], 1)
        )
        likely = members.mean(0)
        off_task, uncovered, unsampled = (
            value.numpy() for value in findings.chances(self.shares, members)
        )
        if role == "synthetic":
            off_task = self._chance(role, score, vectors)
        elif role == "output" and self.before is not None:
            off_task = self._chance(role, self.before(vectors), vectors)
        if role == self.task:
            uncovered = self._chance(role, -score, vectors)
        return {
            "off_task": off_task,
            "novel": unsampled * (1 - off_task),
            "uncovered": uncovered,
            "redundancy": np.full(len(vectors), np.nan),
            "component": likely.argmax(-1).numpy(),
            "component_probability": likely.max(-1).values.numpy(),
            "x": coordinates[:, 0].numpy(),
            "y": score,
        }

    def _chance(self, role: str, score: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        return np.interp(self.strange[role](score, vectors), *self.curves[role])


def placement_of(scene: Scene, fit: VariationalMixture, shares: Shares) -> Placement:
    """From an assessed scene of vectors as given, its shared mixture and shares."""
    made, task = scene.index("synthetic"), scene.reference
    dimension = scene.projection.dimension
    first, second = scene.contrasts[task].numpy(), scene.contrasts[made].numpy()
    strange, curves = {}, {}

    def follow(role: str, own: np.ndarray, other: int, others: np.ndarray, found: Foreign) -> None:
        """A role by its contrast, and that of the source that may account for it."""
        strange[role] = Strangeness(others, scene.vectors[other])
        score = strange[role](own, scene.vectors[scene.index(role)])
        curves[role] = _curve(score, found.probability)

    follow("synthetic", second, task, first, shares.irrelevant)
    follow(scene.roles[task], -first, made, -second, shares.uncovered)
    before = None
    if shares.irrelevant_output is not None:
        pair = (scene.vectors[task], scene.vectors[scene.index("output")])
        before = PairContrast(scene.projection, pair, dimension)
        follow("output", before.own[1], task, before.own[0], shares.irrelevant_output)
    contrast = PairContrast(scene.projection, (scene.vectors[task], scene.vectors[made]), dimension)
    return Placement(
        scene.projection, contrast, before, strange, scene.roles[task], fit, shares, curves
    )


def _curve(scores: np.ndarray, probability: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Scores in order, each once, with the mean probability there."""
    place, inverse, count = np.unique(scores, return_inverse=True, return_counts=True)
    return place, np.bincount(inverse, probability.double().numpy()) / count
