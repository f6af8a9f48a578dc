"""Risks of the learners: on the task, on fresh rows, and on the rows they were trained on.

Losses are in [0, 1] here and scaled by C where they are reported. D_gen is the distribution of a
row given all that is above the output. It depends on generator and prompt alone; given those, rows
are independent, which the lemmas need.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rbpp.estimate import Estimate, mean_estimate
from rbpp.processes.replicas import Replicas, Values
from rbpp.theory.learners import LearnerPosterior, PreparedLearner
from rbpp.theory.model_factor import sites_above_output

# Sets of fresh rows, an even number, for the mean absolute gap.
_FRESH_SETS = 4
# Of λ times the losses' standard deviation, either sign.
_TEMPERATURES = torch.logspace(-1, 1, 25, dtype=torch.float64)


@dataclass(frozen=True)
class Risks:
    """Risks of a learner per world, as means over replicates of differences.

    Attributes:
        error: R_D(W) − R̂_S(W), the measured generalization error; None without `target`.
        gap: R_{D_S}(W) − R̂_S(W), where D_S is the distribution of the rows themselves.
        absolute_gap: the mean of its absolute value, without the part that is noise of the risk.
        losses: losses of W on fresh rows, (worlds, R, n).
    """

    error: Estimate | None
    gap: Estimate
    absolute_gap: Estimate
    losses: Tensor


def synthetic_risks(
    replicas: Replicas,
    prepared: PreparedLearner,
    learned: LearnerPosterior,
    values: Values,
    generator: torch.Generator,
) -> Risks | None:
    """Risks of W trained on S_gen; None where the learner has no loss."""
    names = (*sites_above_output(replicas), "target", "unprompted")
    held = {name: values[name] for name in names if name in values}

    def fresh(index: int) -> Values:
        label = "fresh synthetic" + (f" {index}" if index else "")
        return replicas.draw(values["anchor"].shape[1], label, given=held)

    return _risks(replicas, prepared, learned, values, fresh, "synthetic", generator)


def anchor_risks(
    replicas: Replicas,
    prepared: PreparedLearner,
    learned: LearnerPosterior,
    values: Values,
    generator: torch.Generator,
) -> Risks | None:
    """Risks of W' trained on the anchors; the anchors of other replicates are the fresh rows."""

    def fresh(index: int) -> Values:
        return {**values, "anchor": values["anchor"].roll(index + 1, dims=1)}

    return _risks(replicas, prepared, learned, values, fresh, "anchor", generator)


def _risks(
    replicas: Replicas,
    prepared: PreparedLearner,
    learned: LearnerPosterior,
    values: Values,
    fresh: Callable[[int], Values],
    name: str,
    generator: torch.Generator,
) -> Risks | None:
    parameters = learned.draw(generator)
    sample = prepared.loss(parameters, replicas.rows(values, name))
    own = prepared.loss(parameters, replicas.rows(fresh(0), name))
    if sample is None or own is None:
        return None
    task = None
    if "target" in replicas.sites:
        task = prepared.loss(parameters, replicas.rows(values, "target"))
    gap = own.mean(-1) - sample.mean(-1)
    draws = f"learners of the {name} rows"
    gaps = [gap]
    for index in range(1, _FRESH_SETS):
        losses = prepared.loss(parameters, replicas.rows(fresh(index), name))
        assert losses is not None
        gaps.append(losses.mean(-1) - sample.mean(-1))
    return Risks(
        None if task is None else mean_estimate(task.mean(-1) - sample.mean(-1), draws=draws),
        mean_estimate(gap, draws=draws),
        mean_estimate(absolute_value(torch.stack(gaps)), method="extrapolated in fresh rows"),
        own,
    )


def absolute_value(estimates: Tensor) -> Tensor:
    """|x| from an even number of independent unbiased estimates of x, along the first axis.

    The absolute value of a mean of k estimates is too large by a term in 1/k: with halves of the
    estimates beside all of them it cancels.

    >>> absolute_value(torch.tensor([-1.0, -1.0, -3.0, -3.0])).item()
    2.0
    """
    first, second = estimates.chunk(2)
    halves = (first.mean(0).abs() + second.mean(0).abs()) / 2
    return 2 * estimates.mean(0).abs() - halves


def estimated_sub_gaussian(losses: Tensor) -> Tensor:
    """σ of losses (…, R, n) under the distribution of a row, the largest over W: (…).

    sup_λ sqrt(2 log E exp(λ(loss − E loss)) / λ²), with the mean over rows as the expectation. An
    estimate, not a bound: too small where rare rows matter. σ = C/2 is safe.
    """
    centred = (losses - losses.mean(-1, keepdim=True)).double()
    scale = centred.std().clamp_min(1e-12)
    grid = _TEMPERATURES.to(losses.device) / scale
    count = math.log(losses.shape[-1])
    largest = losses.new_zeros(losses.shape[:-2], dtype=torch.float64)
    for rate in torch.cat([grid, -grid]):
        cumulant = (rate * centred).logsumexp(-1) - count
        largest = torch.maximum(largest, (2 * cumulant / rate**2).amax(-1))
    return largest.clamp_min(0).sqrt()
