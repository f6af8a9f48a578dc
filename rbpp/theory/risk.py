"""Risks of the learners: on the task, on fresh rows, and on the rows they were trained on.

Losses are in [0, 1] here and scaled by C where they are reported. D_gen is the distribution of a
row given all that is above the output. It depends on generator and prompt alone; given those, rows
are independent, which the lemmas need.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rbpp.estimate import Estimate, mean_estimate
from rbpp.processes.handlers import FREE_SITES
from rbpp.theory.learner_information import Trained
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

    @property
    def extremes(self) -> tuple[float, float]:
        """Smallest and largest loss."""
        return float(self.losses.min()), float(self.losses.max())


def measured_risks(trained: Trained) -> Risks | None:
    """Risks of a learner; None where it has no loss.

    Fresh rows of S_gen are drawn given all that is above the output; those of the anchors are the
    anchors of other data sets.
    """
    replicas, values, site = trained.replicas, trained.values, trained.site
    parameters = trained.learned.draw(trained.generator)

    def losses(drawn: Mapping[str, Tensor], name: str) -> Tensor | None:
        return trained.prepared.loss(parameters, replicas.rows(drawn, name))

    held = values.of(*sites_above_output(replicas), *FREE_SITES)

    def fresh(index: int) -> Tensor | None:
        if site == "anchor":
            return losses({"anchor": values["anchor"].roll(index + 1, dims=1)}, site)
        label = "fresh synthetic" + (f" {index}" if index else "")
        return losses(replicas.draw(trained.count, label, held), site)

    sample = losses(values, site)
    if sample is None:
        return None
    task = losses(values, "target") if "target" in replicas.sites else None
    sets = [own for index in range(_FRESH_SETS) if (own := fresh(index)) is not None]
    gaps = [own.mean(-1) - sample.mean(-1) for own in sets]
    draws = f"learners of the {site} rows"
    return Risks(
        None if task is None else mean_estimate(task.mean(-1) - sample.mean(-1), draws=draws),
        mean_estimate(gaps[0], draws=draws),
        mean_estimate(absolute_value(torch.stack(gaps)), method="extrapolated in fresh rows"),
        sets[0],
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
