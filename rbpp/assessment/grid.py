"""The posterior of the model of scores (`models/_off_task.py`) by enumeration of its parameters.

Five parameters and scores in bins: every cell of a grid is evaluated, by the log joint density of
the Pyro model itself. There is no start to depend on and no mode to miss, which a chain that moves
in small steps does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pyro import poutine
from scipy.stats import beta

from rbpp import shipped

Array = NDArray[np.float64]

LOWEST, HIGHEST, _BINS = -3.0, 6.0, 61
# Prior standard deviations at which shift, scale and width are looked at, and the distances.
_SHIFTS, _SCALES = np.linspace(-2.4, 2.4, 9), np.linspace(-2.0, 2.0, 5)
_WIDTHS, _DISTANCES = np.array([-1.2, 0.0, 1.2]), np.linspace(2.0, 6.0, 5)
# Edges of the cells of the share. The prior has half of its mass below 1 %.
_EDGES = np.concatenate([[0.0, 0.002], np.linspace(0.01, 0.85, 23)])


@dataclass(frozen=True)
class GridPosterior:
    """The posterior of the two groups of scores.

    Attributes:
        edges: of the cells of the share (P + 1,).
        share: probability of every cell (P,).
        points: scores (B,).
        responsibility: probability of a row at each of them to be foreign (B,).
    """

    edges: Array
    share: Array
    points: Array
    responsibility: Array

    @property
    def mean(self) -> float:
        """The posterior mean of the share."""
        return float(self.share @ (self.edges[1:] + self.edges[:-1]) / 2)

    def draw(self, count: int, generator: np.random.Generator) -> Array:
        """Draws of the share, evenly within cells."""
        cell = generator.choice(len(self.share), count, p=self.share)
        low, high = self.edges[cell], self.edges[cell + 1]
        return low + (high - low) * generator.random(count)

    def probability(self, scores: Array) -> Array:
        """Of rows with these scores to be foreign."""
        return np.interp(scores, self.points, self.responsibility)


def grid_posterior(
    scores: Array, weights: Array, *, target_rows: int, style: float
) -> GridPosterior:
    """The posterior given scores z (n,), each row counting as its weight.

    Args:
        scores: clipped to [−3, 6], in bins of 0.15.
        weights: (n,), how many independent rows each stands for.
        target_rows: of the reference, whose scores set the scale.
        style: from 0 to 1, how much of a style there may be.
    """
    points = np.linspace(LOWEST, HIGHEST, _BINS)
    place = np.clip(np.rint((scores - LOWEST) / (points[1] - points[0])), 0, _BINS - 1)
    counts = np.bincount(place.astype(int), weights, minlength=_BINS)
    spread = np.hypot(0.05 + 0.75 * style, np.sqrt(2 / target_rows))
    axes = {
        "shift": spread * _SHIFTS,
        "scale": np.exp(-0.05 + 0.1 * _SCALES),
        "distance": _DISTANCES,
        "width": np.exp(-0.15 + 0.35 * _WIDTHS),
        "irrelevant_share": (_EDGES[1:] + _EDGES[:-1]) / 2,
    }
    cells = torch.meshgrid(
        *[torch.as_tensor(axis, dtype=torch.float32) for axis in axes.values()], indexing="ij"
    )
    values = {name: cell.reshape(-1, 1) for name, cell in zip(axes, cells, strict=True)}
    full = counts > 0
    seen = torch.as_tensor(points[full], dtype=torch.float32), torch.as_tensor(counts[full])
    conditioned = poutine.condition(off_task_model(), values)
    rows = len(seen[0])
    trace = poutine.trace(conditioned).get_trace(rows, *seen, target_rows, style)
    # Densities become masses by the widths of the cells: of the share's own prior exactly, since it
    # has no finite density at 0; of the log-normal ones by their own axis, on which they are even.
    sites: Mapping[str, Any] = trace.nodes
    # The normals are the same at every share: their densities are evaluated at one of them, in
    # float64, in which the two of a cell never vanish together.
    mixture = sites["score"]["fn"]
    groups, normals = mixture.mixture_distribution, mixture.component_distribution
    shares = len(_EDGES) - 1
    own, foreign = _normals(normals, slice(None, None, shares), seen[0]).exp().unbind(-1)
    mass_own, mass_foreign = groups.probs[:shares, 0].double().unsqueeze(1).unbind(-1)
    density = mass_own * own.unsqueeze(1) + mass_foreign * foreign.unsqueeze(1)
    log_joint = (density.log() @ seen[1]).flatten()
    for name in ("shift", "scale", "width"):
        log_joint = log_joint + sites[name]["fn"].log_prob(values[name]).squeeze(-1)
        if name != "shift":
            log_joint = log_joint + values[name].log().squeeze(-1)
    mass = _prior_mass(sites["irrelevant_share"]["fn"])
    log_joint = log_joint.reshape(-1, len(mass)) + mass.log()
    joint = log_joint.flatten().softmax(0)
    share = joint.reshape(-1, len(mass)).sum(0)
    kept = joint > 1e-7
    parts = _normals(normals, kept, torch.as_tensor(points)) + groups.probs[kept, :1].log()
    foreign = joint[kept] @ parts.softmax(-1)[..., 1] / joint[kept].sum()
    # A row further out than another is no less foreign, however wide the foreign group is.
    ordered = np.maximum.accumulate(foreign.numpy())
    return GridPosterior(_EDGES, share.numpy(), points, ordered)


def _normals(normals: Any, cells: Any, points: torch.Tensor) -> torch.Tensor:
    """Log densities of both groups in some cells of the grid (cells, points, 2).

    The normals are the same for every bin; what they say of all is read from the first.
    """
    loc, scale = (value[cells, :1].double() for value in (normals.loc, normals.scale))
    return torch.distributions.Normal(loc, scale).log_prob(points.double().unsqueeze(-1))


def _prior_mass(prior: Any) -> torch.Tensor:
    """Mass of the share's cells under its Beta prior (P,), by the incomplete beta function."""
    concentrations = prior.concentration1, prior.concentration0
    mass = np.diff(beta.cdf(_EDGES, *(float(one.flatten()[0]) for one in concentrations)))
    return torch.as_tensor(np.maximum(mass, 1e-300))


@lru_cache(maxsize=1)
def off_task_model() -> Callable[..., torch.Tensor]:
    """The model in `models/_off_task.py`; it is no process, and not listed with them."""
    module = shipped.load(shipped.folder("models") / "_off_task.py", "rbpp_off_task_model")
    found: Callable[..., torch.Tensor] = module.model
    return found


def at_share(probability: Array, share: float, weights: Array) -> Array:
    """Probabilities whose log odds are moved by a constant so that their mean is the share."""
    logits = np.log(np.clip(probability, 1e-9, 1 - 1e-9))
    logits = logits - np.log1p(-np.clip(probability, 1e-9, 1 - 1e-9))
    low, high = -25.0, 25.0
    mass = weights / weights.sum()
    for _ in range(60):
        middle = (low + high) / 2
        mean = float(mass @ (1 / (1 + np.exp(-(logits + middle)))))
        low, high = (middle, high) if mean < share else (low, middle)
    return np.asarray(1 / (1 + np.exp(-(logits + low))))
