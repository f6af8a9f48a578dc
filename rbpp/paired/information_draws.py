"""Posterior draws of mutual information from models that compete for the rows.

Each draw has three parts. Weights of the rows, Dirichlet(1, …, 1), stand for their distribution
(the Bayesian bootstrap, Rubin 1981). These weights choose the model. The information is then drawn
between two averages of the model's log density ratio: that over held-out rows, which is too small,
and that over the rows fitted to, which is too large.

Rubin, The Bayesian bootstrap, Annals of Statistics 9 (1981).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import digamma
from torch import Tensor

from rbpp.estimate import Estimate
from rbpp.internals import standard_gamma
from rbpp.mixtures.normal_wishart import normalized
from rbpp.paired.candidates import advantages
from rbpp.paired.joint_mixture import PairDensity
from rbpp.randomness import generator

FOLDS = 5
# Standard errors of the paired difference by which a larger model must win. An average over models
# needs twice as many, because the held-out rows have chosen its weights too.
_LEAST_ADVANTAGE, _LEAST_ADVANTAGE_AVERAGED = 1.0, 2.0
# Where the truth lies between the held-out average (0) and the fitted one (1). For a model that
# holds, the deficits are as 1 / (rows fitted to). An average over mixtures is chosen where none of
# them is good. It then misses as much of the true density as it overfits: on 20 cases of bounded
# noise, rolls, galaxies, spirals and waves the place was 0.5 to 1.8.
_PLACE, _PLACE_AVERAGED = 1 / (2 - 1 / FOLDS), 0.9
_SPREAD, _SPREAD_AVERAGED = 0.2, 0.45
# Relative: of the known excess of one component over the truth.
_SPREAD_NORMAL = 0.1
_BLOCK_ELEMENTS = 2**22


@dataclass(frozen=True)
class PairModel:
    """One model of the joint rows, judged by held-out rows. In nats.

    Attributes:
        margins: coordinates it was fitted in: raw, normal scores, or scores of Student's t.
        components: K; zero for the average over all of these margins by stacking.
        weight: share of the posterior draws that choose it.
        held_out: average log density ratio of held-out rows.
        fitted: the same of rows fitted to.
        advantage: log density per held-out row over that of independent margins, by which models
            are chosen.
    """

    margins: str
    components: int
    weight: float
    held_out: float
    fitted: float
    advantage: float


@dataclass(frozen=True)
class InformationDraws:
    """Draws of I(X; Y) in nats from one partition into folds.

    Attributes:
        draws: (draw,), with the Monte Carlo error of each by the random folds.
        preferred: index of the model that most draws choose.
        models: every model, heaviest first.
    """

    draws: Estimate
    preferred: int
    models: tuple[PairModel, ...]


def information_draws(
    found: Sequence[PairDensity],
    draws: int,
    seed: int,
    block: int = 1,
    dim_x: int | None = None,
) -> InformationDraws:
    """Draws of the information, each under the model that its weights of the rows prefer.

    Args:
        found: the models.
        draws: number of draws.
        seed: of the draws.
        block: successive rows that have one share.
        dim_x: dimension of X, where a model of one component is a normal of X and Y, so that its
            excess is known.
    """
    fold = found[0].own.fold.cpu()
    count, dimension = found[0].own.rows.shape
    advantage = advantages(found).cpu()
    fitted = torch.stack([one.fitted_ratio for one in found]).cpu()
    held_out = torch.stack([one.held_out_ratio for one in found]).cpu()
    ladder = _ladder(found, advantage)
    averaged = torch.tensor([one.components == 0 for one in found])
    single = torch.tensor([dim_x is not None and one.components == 1 for one in found])
    place = torch.where(averaged, _PLACE_AVERAGED, _PLACE).double()
    spread = torch.where(averaged, _SPREAD_AVERAGED, _SPREAD).double()
    least = torch.where(averaged, _LEAST_ADVANTAGE_AVERAGED, _LEAST_ADVANTAGE).double()
    optimism = 0.0 if dim_x is None else normal_optimism(count, dim_x, dimension - dim_x)
    source = generator(seed)
    values, choices = [], []
    most = max(1, _BLOCK_ELEMENTS // count)
    for start in range(0, draws, most):
        size = min(most, draws - start)
        share = standard_gamma(torch.ones(size, -(-count // block)).to(fitted), source)
        share = normalized(share.repeat_interleave(block, -1)[:, :count])
        choice = _choices(share @ advantage.mT, advantage, ladder, least)
        noise = torch.randn(size, generator=source, dtype=fitted.dtype)
        own = choice.unsqueeze(-1)
        low = (share @ held_out.mT).gather(-1, own).squeeze(-1)
        high = (share @ fitted.mT).gather(-1, own).squeeze(-1)
        excess = torch.where(
            single[choice],
            optimism * (1 + _SPREAD_NORMAL * noise),
            (1 - place[choice] - spread[choice] * noise) * (high - low),
        )
        values.append((high - excess).clamp_min(0))
        choices.append(choice)
    choice = torch.cat(choices)
    weight = torch.bincount(choice, minlength=len(found)).double() / draws
    error = _fold_error(fitted - held_out, fold)
    models = [
        PairModel(
            margins=one.own.margins,
            components=one.components,
            weight=weight[index].item(),
            held_out=held_out[index].mean().item(),
            fitted=fitted[index].mean().item(),
            advantage=advantage[index].mean().item(),
        )
        for index, one in enumerate(found)
    ]
    # The excess of one component is known; elsewhere the gap is measured on random folds.
    own_error = torch.where(single, 0.0, torch.maximum(1 - place, spread) * error)[choice]
    return InformationDraws(
        Estimate(torch.cat(values), own_error, FOLDS),
        int(weight.argmax()),
        tuple(sorted(models, key=lambda model: (-model.weight, -model.advantage))),
    )


def _ladder(found: Sequence[PairDensity], advantage: Tensor) -> list[int]:
    """The best model of each size, small ones first, the averages last."""
    by_size: dict[int, int] = {}
    for index, one in enumerate(found):
        rival = by_size.get(one.components)
        if rival is None or advantage[index].mean() > advantage[rival].mean():
            by_size[one.components] = index
    return [by_size[size] for size in sorted(by_size, key=lambda size: size or math.inf)]


def _choices(reached: Tensor, advantage: Tensor, ladder: list[int], least: Tensor) -> Tensor:
    """The model (draws,) at which climbing the ladder ends, each step by a clear advantage.

    Args:
        reached: mean advantage (draws, models) under the drawn weights of the rows.
        advantage: of every row (models, n).
        ladder: models from small to large.
        least: standard errors (models,) by which a model must beat a smaller one.
    """
    choice = torch.full((len(reached),), ladder[0])
    for index in ladder[1:]:
        error = (advantage[index] - advantage).std(-1) / math.sqrt(advantage.shape[-1])
        gain = reached[:, index] - reached.gather(-1, choice.unsqueeze(-1)).squeeze(-1)
        choice = torch.where(gain > least[index] * error[choice], index, choice)
    return choice


def normal_optimism(count: int, dim_x: int, dim_y: int) -> float:
    """By how much a normal's information at its fitted covariance exceeds the truth on average.

    ½ Σ_{i ≤ dim_x} ψ((n − i) / 2) − ψ((n − dim_y − i) / 2), about dim_x · dim_y / 2n; for the t it
    holds to that order. Known, it costs none of the variance of a gap that was measured.
    """
    index = np.arange(1, dim_x + 1)
    left = np.maximum(count - dim_y - index, 1)
    return float(0.5 * (digamma((count - index) / 2) - digamma(left / 2)).sum())


def _fold_error(gap: Tensor, fold: Tensor) -> Tensor:
    """Standard error (models,) that the random folds give to the average gap; gap (models, n)."""
    means = torch.stack([gap[:, fold == index].mean(-1) for index in range(FOLDS)])
    return means.std(0) / math.sqrt(FOLDS)
