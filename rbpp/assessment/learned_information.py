"""What a mixture learner knows of a source's rows: I(S; W) with the source's own distribution of S.

The learner is that of `rbpp bounds`, a draw of a conjugate mixture posterior. It sees a quarter of
the rows as its pilot and learns from the rest, S. The distribution of S is unknown: rows drawn with
replacement from the rest stand for it (the bootstrap), groups of rows whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rbpp.estimate import Estimate, delta_method, stack
from rbpp.internals import standard_gamma
from rbpp.theory.learner_information import learner_information
from rbpp.theory.learners import LearnerPosterior, PreparedLearner, mixture_learner

# Rows beyond which a random subset is learnt from: 320 fits of 1,500 rows take four seconds.
MOST_ROWS = 2000
# Principal components that the learner sees, and pilot rows for each of them at least.
DIMENSION, ROWS_PER_DIMENSION = 8, 4
# Data sets per estimate of I(S; W), and how many of them are contrastive samples: the
# lower side cannot exceed the log of their number, and the cost is its square.
DATA_SETS, PAIRS = 16, 8
# Draws of the distribution of S, over all chains: they give the estimate's spread.
DISTRIBUTIONS = 12
_LEAST = 1e-2  # nats: an information that counts as none has a logarithm


@dataclass(frozen=True)
class Learner:
    """A learner that has seen its pilot, and what it is to learn from.

    Attributes:
        prepared: the learner.
        pilot: rows (q, d) that it has seen.
        rows: S, (n, d), rows that it has not.
        unit: (n,), rows of one unit are not independent: the group, or the row itself.
        of: rows of the source, of which at most `MOST_ROWS` are used.
    """

    prepared: PreparedLearner
    pilot: Tensor
    rows: Tensor
    unit: Tensor
    of: int

    @property
    def units(self) -> int:
        """Number of independent units in S."""
        return int(self.unit.max()) + 1

    def learnt(self, count: int) -> LearnerPosterior:
        """q(W | S), `count` times over: a W drawn from each is a draw of its own."""
        return self.prepared.fit(self.rows[None, None]).select(torch.zeros(count, dtype=torch.long))


def pilot_dimension(units: int, available: int) -> int:
    """Principal components for a source of so many independent units.

    >>> pilot_dimension(1000, 32), pilot_dimension(60, 32), pilot_dimension(1000, 2)
    (8, 3, 2)
    """
    return max(1, min(DIMENSION, available, units // 4 // ROWS_PER_DIMENSION))


def prepare(rows: Tensor, group: Tensor | None, generator: torch.Generator) -> Learner:
    """Split a source into pilot and S, by group where there are groups, and show the pilot.

    Args:
        rows: (n, d).
        group: index of the group of every row (n,), or None.
        generator: source of all randomness.

    Raises:
        ValueError: if the pilot does not vary in some coordinate.
    """
    unit = group if group is not None else torch.arange(len(rows))
    order = torch.randperm(int(unit.max()) + 1, generator=generator)[unit].argsort(stable=True)
    order = order[:MOST_ROWS]
    place = unit[order].unique_consecutive(return_inverse=True)[1]
    rest = place >= (int(place.max()) + 1) // 4
    pilot, learnt = rows[order[~rest]], rows[order[rest]]
    unit = place[rest] - place[rest].min()
    prepared = mixture_learner().prepare(pilot.unsqueeze(0), generator)
    return Learner(prepared, pilot, learnt, unit, len(rows))


def information(learner: Learner, shape: tuple[int, int], generator: torch.Generator) -> Estimate:
    """Posterior draws (chain, draw) of I(S; W) in nats, with its lower and upper side.

    S are as many rows of the source's distribution as the learner has. Î is the information under
    the distribution of the rows themselves, I_k that under draw k of the distribution by the
    Bayesian bootstrap. I_k misses Î about as Î misses the truth: log I is normal with mean
    log Î − mean_k log(I_k / Î) and the standard deviation of log I_k, which has the Monte Carlo
    error of I_k in it. Of mixtures of Gaussian components (200 and 1,000 rows in 4 and 8
    dimensions) the mean of the draws was 0.98 to 1.04 of the truth, and intervals of 94 % held it
    for 46 of 48 data sets; of skewed and heavy-tailed components 0.90 to 1.02, for 34 of 40. Data
    sets drawn from a mixture fitted to the rows, and not from the rows, had 0.6 to 1.8 of it.

    Args:
        learner: of `prepare`.
        shape: of the draws, (chains, draws).
        generator: source of all randomness.
    """
    chains, _ = shape
    sampled = max(2, -(-DISTRIBUTIONS // chains))
    centres, ratios = [], []
    for _ in range(chains):
        own = bootstrap_weights(learner.unit, sampled, generator)
        uniform = torch.ones(1, len(learner.rows), dtype=torch.float64)
        index = torch.stack(
            [
                resampled(learner.unit, weights, generator)
                for weights in torch.cat([uniform, own])
                for _ in range(DATA_SETS)
            ]
        )
        learned = learner.prepared.fit(learner.rows[index].unsqueeze(0))
        own_rows = learned.select(slice(0, DATA_SETS))
        centres.append(learner_information(own_rows, generator, pairs=PAIRS))
        whole = learner_information(learned.grouped(1 + sampled), generator, pairs=2)
        logs = whole.value.squeeze(0).clamp_min(_LEAST).log()
        ratios.append(logs[1:] - logs[0])
    ratio = torch.stack(ratios)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    factor = torch.exp(ratio.std() * noise - ratio.mean())
    off = (ratio.std() / ratio.numel() ** 0.5).item()  # relative error of the mean ratio

    drawn = Estimate(factor, off * factor, ratio.numel())

    def times_drawn(estimates: Sequence[Estimate]) -> Estimate:
        """Draws of one side from its estimate in every chain."""
        centre = stack(estimates).map(lambda value: value.expand(shape))
        found = delta_method(
            lambda term: {"product": term["centre"] * term["drawn"]},
            {"centre": centre, "drawn": drawn},
        )
        return found["product"]

    lowers = [centre.lower for centre in centres if centre.lower is not None]
    uppers = [centre.upper for centre in centres if centre.upper is not None]
    return times_drawn(centres).between(times_drawn(lowers), times_drawn(uppers))


def bootstrap_weights(unit: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """Weights (draw, n) of the Bayesian bootstrap, of mean 1: Dirichlet(1, …, 1) over units."""
    ones = torch.ones(draws, int(unit.max()) + 1, dtype=torch.float64, device=unit.device)
    weights = standard_gamma(ones, generator)[:, unit]
    return weights / weights.mean(-1, keepdim=True)


def resampled(unit: Tensor, weights: Tensor, generator: torch.Generator) -> Tensor:
    """Index (n,) of n rows drawn with replacement, units whole but for the last, which may be cut.

    Args:
        unit: (n,), from 0 on.
        weights: (n,) of the rows; those of one unit are equal.
        generator: source of the draws.
    """
    count = len(unit)
    size = torch.bincount(unit)
    if int(size.max()) == 1:
        return torch.multinomial(weights, count, replacement=True, generator=generator)
    members = unit.argsort(stable=True).split(size.tolist())
    of_unit = weights[torch.stack([rows[0] for rows in members])]
    chosen: list[Tensor] = []
    found = 0
    while found < count:
        for place in torch.multinomial(of_unit, len(size), replacement=True, generator=generator):
            chosen.append(members[int(place)])
            found += len(chosen[-1])
    return torch.cat(chosen)[:count]
