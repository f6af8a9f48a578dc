"""How many rows are beyond a reference's tail, and what share of foreign rows that shows.

Of S(z > t) = (1 − π) S₀(z > t) + π F(z > t), with rows that are not foreign beyond t C times as
often as the reference's, S₀ = C T, and all foreign rows beyond it,

    π(t, C) = (S(z > t) − C T(z > t)) / (1 − C T(z > t)),

the weight in a mixture of which one component is known.

Blanchard, Lee and Scott, Semi-supervised novelty detection, JMLR 11 (2010).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtr

from rbpp.assessment.grid import HIGHEST
from rbpp.assessment.scores import Scores
from rbpp.estimate import Estimate

Array = NDArray[np.float64]

# Scores of neighbours go together: a row tells as much as 1/1.75 of an independent one.
DESIGN_EFFECT = 1.75
THRESHOLDS = np.linspace(-1.0, HIGHEST, 71)
# The stretch without style, and the one that *at least* allows for at any style.
_SAME_STRETCH, _SURE_STRETCH = 1.25, 4.0
# Standard errors of *at least* and *at most*, and the least share that is claimed.
_SURE_ERRORS, _MOST_ERRORS, _LEAST_CLAIM = 2.5, 1.64, 0.05
# The largest part of the reference, stretched, beyond a threshold of a draw; and the least that is
# left of the reference before a threshold, as a divisor.
_MOST_BEYOND, _LEAST_LEFT = 0.5, 0.4


@dataclass(frozen=True)
class Tail:
    """What a full style may do to the tail of rows that are not foreign.

    Attributes:
        stretch: least and most times as many rows beyond a threshold as the reference has there.
        beyond: the largest part of the reference beyond a threshold that is looked at, without
            style and in full style: further in, a style moves rows that are not foreign too.
        margin: what *at most* adds, since a matched null hides some of what is uncovered.
    """

    stretch: tuple[float, float]
    beyond: tuple[float, float]
    margin: float = 0.0


# Chosen on the choosing half of docs/measurements/scenarios.md, apart for rows off the task and
# rows uncovered, whose own distances are matched.
OFF_TASK = Tail((1.5, 5.0), (0.35, 0.2))
UNCOVERED = Tail((1.0, 2.5), (0.5, 0.3), 0.04)
# Measurements have no style that moves every row, and parts that overlap. Chosen on other seeds of
# the overlapping parts of that page.
OFF_TASK_NUMBERS = replace(OFF_TASK, beyond=(0.5, 0.5))
UNCOVERED_NUMBERS = replace(UNCOVERED, beyond=(0.6, 0.6))


@dataclass(frozen=True)
class Excess:
    """The rows beyond every threshold, beside the reference's.

    Attributes:
        scores: of both.
        tail: of the rows that are not foreign.
        weights: of the rows (n,).
        design: rows that tell as much as one independent one.
    """

    scores: Scores
    tail: Tail
    weights: Array
    design: float = 1.0

    @cached_property
    def found(self) -> Estimate:
        """S(z > t) at every threshold."""
        return _proportion(beyond(self.scores.rows, THRESHOLDS, self.weights), self._size)

    @cached_property
    def own(self) -> Estimate:
        """T(z > t) at every threshold."""
        return _proportion(beyond(self.scores.reference, THRESHOLDS), self._count)

    @property
    def at_least(self) -> float:
        """The largest π(t, 4) less 2.5 standard errors; 0 where it is below 5 %."""
        least, _ = self._share(_SURE_STRETCH, _SURE_ERRORS).interval(_SURE_ERRORS)
        lower = least.max().item()
        return lower if lower >= _LEAST_CLAIM else 0.0

    @property
    def at_most(self) -> float:
        """The largest π(t, 1) and 1.64 standard errors, as far in as the style lets one look."""
        _, most = self._share(1.0, _MOST_ERRORS).interval(_MOST_ERRORS)
        return most[self.own.value <= self._beyond].max().item()

    @property
    def difference(self) -> float:
        """The largest S(z > t) − T(z > t) and 1.64 standard errors: what a visibility divides."""
        _, most = (self.found - self.own).interval(_MOST_ERRORS)
        return most.max().item()

    def draws(self, count: int, generator: np.random.Generator) -> Array:
        """Bayesian-bootstrap draws of π(t, C), at least 0, each with a C and at its best t."""
        found, reference = self.found.value.numpy(), self.own.value.numpy()
        least, most = (
            np.interp(self.scores.style, [0, 1], [_SAME_STRETCH, end]) for end in self.tail.stretch
        )
        stretch = np.exp(generator.uniform(np.log(least), np.log(most), count))
        own = stretch[:, None] * reference
        allowed = (own < _MOST_BEYOND) & (reference <= self._beyond) & (THRESHOLDS > -1e-9)
        share = np.where(allowed, (found - own) / np.where(allowed, 1 - own, 1), -np.inf)
        best = share.argmax(1)
        rows = _proportions(found[best], self._size / DESIGN_EFFECT, generator)
        own = stretch * _proportions(reference[best], self._count / DESIGN_EFFECT, generator)
        return np.maximum(0.0, (rows - own) / np.maximum(1 - own, _MOST_BEYOND))

    def _share(self, stretch: float, errors: float) -> Estimate:
        """π(t, C) at every threshold, to be read so many standard errors away."""
        found, own, size = self.found, stretch * self.own, self._size
        left = (1 - own.value).clamp(min=_LEAST_LEFT)
        share = ((found.value - own.value) / left).clamp(max=1.0)
        error = found.standard_error
        if stretch > 1:  # of a few rows that agree the standard error is too small
            rows = found.value.numpy() * size
            low = betaincinv(rows + 0.5, size - rows + 0.5, ndtr(-errors))
            error = error.maximum((found.value - torch.as_tensor(low)) / errors)
        # The derivative of π by C T is −(1 − π) / (1 − C T).
        of_own = (1 - share).clamp(0, 1) * own.standard_error
        return Estimate(share, error / left).widened(of_own / left)

    @property
    def _beyond(self) -> float:
        return float(np.interp(self.scores.style, [0, 1], self.tail.beyond))

    @property
    def _size(self) -> float:
        """Independent rows that tell as much as the weighted ones."""
        mass = self.weights / self.weights.sum()
        return float(1 / np.square(mass).sum()) / self.design

    @property
    def _count(self) -> int:
        return len(self.scores.reference)


def beyond(values: np.ndarray, thresholds: Array, weights: Array | None = None) -> Array:
    """Share of the values above every threshold."""
    above = values[:, None] > thresholds
    return above.mean(0) if weights is None else weights @ above / weights.sum()


def _proportion(share: Array, size: float) -> Estimate:
    """A proportion of so many rows; none of them is as if one were beyond."""
    variance = np.maximum(share, 1 / size) * (1 - share) / size
    return Estimate(torch.as_tensor(share), torch.as_tensor(np.sqrt(variance)))


def _proportions(shares: Array, size: float, generator: np.random.Generator) -> Array:
    """Draws of proportions that the Bayesian bootstrap of so many rows gives: beta ones."""
    inside = (shares > 0) & (shares < 1)
    drawn = np.where(inside, shares, 0.5) * size
    return np.where(inside, generator.beta(drawn, size - drawn), shares)
