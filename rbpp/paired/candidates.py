"""The models of paired rows that compete: mixtures of every size and Student's t, in each margin.

On common ground, log density over that of independent margins: coordinates then do not matter.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from rbpp.paired.joint_mixture import (
    Coordinates,
    PairDensity,
    growing_mixtures,
    with_average,
)
from rbpp.paired.margins import (
    NORMAL_SCORES,
    RAW,
    STUDENT_FREEDOMS,
    STUDENT_SCORES,
    margin_log_density,
    normal_log_density,
    normal_scores,
    student_pair_density,
    student_scores,
    uniform_scores,
)
from rbpp.randomness import generator, spawn
from rbpp.threads import block_threads

MARGINS = (RAW, NORMAL_SCORES, STUDENT_SCORES)
# Share of rows with the same rank in x and y, above which scores are no coordinates.
_MOST_EQUAL_RANKS = 0.05
# Joint dimensions beyond which a mixture may have more parameters than rows: without the second
# component nothing but a normal or a t could be seen there.
_MANY_DIMENSIONS, _PARAMETERS_PER_ROW = 12, 1.5
# From as many components on, margins whose mixtures are behind by as many nats a row stop growing.
_RACE_COMPONENTS, _BEHIND = 48, 0.1


def pair_densities(
    rows: Tensor,
    dim_x: int,
    fold: Tensor,
    components: int,
    margins: Collection[str],
    seed: int,
) -> list[PairDensity]:
    """Every model considered, with the density of its own margins.

    Args:
        rows: (n, d), X in the first `dim_x` columns.
        dim_x: dimension of X.
        fold: (n,) the fold that a row belongs to: the fit without that fold does not see it.
        components: largest mixture.
        margins: coordinates, of `MARGINS`.
        seed: of the starts.
    """
    if RAW in margins and _ranks_agree(rows, dim_x):
        margins = (RAW,)
    largest = _largest(len(rows), rows.shape[-1], components)
    growing: dict[str, Iterator[PairDensity]] = {}
    for name in (RAW, NORMAL_SCORES):
        if name in margins:
            own = coordinates(rows, name, fold, generator(spawn(seed, "margins")))
            starts = generator(spawn(seed, "starts", name))
            growing[name] = growing_mixtures(own, dim_x, largest, starts)
    found: list[PairDensity] = []
    for grown in _race(growing, rows.device).values():
        found += with_average(grown)
    if STUDENT_SCORES in margins:
        for freedom in STUDENT_FREEDOMS:
            values = student_scores(rows, freedom)
            found.append(student_pair_density(values, dim_x, fold, freedom))
    return found


def coordinates(
    rows: Tensor, margins: str, fold: Tensor, generator: torch.Generator
) -> Coordinates:
    """Standardised rows, or their normal scores."""
    if margins == RAW:
        values = (rows - rows.mean(0)) / rows.std(0)
        density = margin_log_density(values, fold, generator)
    else:
        values = normal_scores(rows)
        density = normal_log_density(values)
    return Coordinates(margins, values, fold, density.sum(-1))


def advantages(found: Collection[PairDensity]) -> Tensor:
    """Log density of held-out rows over that of independent margins: (models, n)."""
    return torch.stack([one.held_out[0] - one.own.log_density for one in found])


def _largest(count: int, dimension: int, components: int) -> int:
    """Mixtures have about as many parameters as there are rows, at most."""
    parameters = dimension * (dimension + 3) // 2 + 1
    share = _PARAMETERS_PER_ROW if dimension > _MANY_DIMENSIONS else 1.0
    return max(1, min(components, int(share * count / parameters)))


def _ranks_agree(rows: Tensor, dim_x: int) -> bool:
    """Whether noise is finer than the rows are dense, so that ranks of x and y are often the same.

    Scores would then lie on a line, on which a mixture finds as much information as it has room.
    """
    scores = uniform_scores(rows)
    x, y = scores[:, :dim_x].unsqueeze(-1), scores[:, dim_x:].unsqueeze(-2)
    equal = torch.maximum((x == y).double().mean(0), (x == 1 - y).double().mean(0))
    return bool((equal > _MOST_EQUAL_RANKS).any())


def _race(
    growing: dict[str, Iterator[PairDensity]], device: torch.device
) -> dict[str, list[PairDensity]]:
    """Mixtures in each coordinates, grown side by side; what falls far behind stops growing."""
    found: dict[str, list[PairDensity]] = {name: [] for name in growing}
    running = list(growing)
    with block_threads(device) as apply:
        while running:
            # Each margins' generator is its own: side by side they draw what they would alone.
            steps = apply(lambda name: (name, next(growing[name], None)), running)
            running = []
            for name, grown in steps:
                if grown is not None:
                    found[name].append(grown)
                    running.append(name)
            reached = {name: _reached(grown) for name, grown in found.items()}
            running = [
                name
                for name in running
                if found[name][-1].components < _RACE_COMPONENTS
                or reached[name] >= max(reached.values()) - _BEHIND
            ]
    return found


def _reached(grown: list[PairDensity]) -> float:
    return float(advantages(grown).mean(-1).max()) if grown else -math.inf
