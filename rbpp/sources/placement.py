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


@dataclass(frozen=True)
class Placement:
    """Places rows that were not assessed among those that were.

    Attributes:
        projection: the principal components.
        contrast: of the synthetic rows against the task.
        before: of the rows before curation against the task, or None.
        task: the role that stands for the task.
        fit: the shared mixture.
        shares: its posterior.
        curves: by role, scores of the sample in order, and the probability at each.
    """

    projection: Projection
    contrast: PairContrast
    before: PairContrast | None
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
            off_task = np.interp(score, *self.curves[role])
        elif role == "output" and self.before is not None:
            off_task = np.interp(self.before(vectors), *self.curves[role])
        if role == self.task:
            uncovered = np.interp(score, *self.curves[role])
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


def placement_of(scene: Scene, fit: VariationalMixture, shares: Shares) -> Placement:
    """From an assessed scene, its shared mixture and shares."""
    made, task = scene.index("synthetic"), scene.reference
    dimension = scene.projection.dimension
    curves = {
        "synthetic": _curve(scene.contrasts[made], shares.irrelevant.probability),
        scene.roles[task]: _curve(scene.contrasts[task], shares.uncovered.probability),
    }
    before = None
    if shares.irrelevant_output is not None:
        pair = (scene.vectors[task], scene.vectors[scene.index("output")])
        before = PairContrast(scene.projection, pair, dimension)
        scores = torch.as_tensor(before.own[1])
        curves["output"] = _curve(scores, shares.irrelevant_output.probability)
    contrast = PairContrast(scene.projection, (scene.vectors[task], scene.vectors[made]), dimension)
    return Placement(scene.projection, contrast, before, scene.roles[task], fit, shares, curves)


def _curve(scores: Tensor, probability: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Scores in order, each once, with the mean probability there."""
    place, inverse, count = np.unique(scores.numpy(), return_inverse=True, return_counts=True)
    return place, np.bincount(inverse, probability.double().numpy()) / count
