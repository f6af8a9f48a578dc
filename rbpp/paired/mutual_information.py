"""Mutual information of paired rows, where no conditional density is known (equation A.5).

A mixture q of the joint rows gives log q(x, y) / q(x) q(y) of every row in closed form. Its average
over the rows that q was fitted to is too large, over rows left out too small, and for a model that
holds by the same amount to first order: the estimate lies between the two. Which margins, how many
components, or an average over all of them, is decided by the density of rows left out, in every
posterior draw anew.

A draw is a draw of the law of the rows, Dirichlet(1, …, 1) over them (Rubin 1981), and so needs no
model to be true; a draw of the place between the two averages, which is the wider the poorer the
model family; and a choice of the model by the rows as drawn. Measured in benchmarks/.

Rubin, The Bayesian bootstrap, Annals of Statistics 9 (1981).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import digamma
from torch import Tensor

from rbpp.container import inference_data
from rbpp.mixtures.normal_wishart import log_prob
from rbpp.mixtures.psis import pareto_smooth
from rbpp.paired.joint_mixture import (
    PairDensity,
    growing_mixtures,
    neighbour_log_density,
    random_folds,
    stacked,
)
from rbpp.paired.margins import (
    NORMAL_SCORES,
    RAW,
    STUDENT_FREEDOMS,
    margin_log_density,
    normal_log_density,
    normal_scores,
    student_pair_density,
    student_scores,
)
from rbpp.paired.paired_rows import paired_rows
from rbpp.randomness import generator, spawn
from rbpp.results import Estimate

FOLDS = 5
_LARGEST = 64
# Joint dimensions beyond which a mixture may have more parameters than rows: without the second
# component nothing but a normal or a t could be seen there.
_MANY_DIMENSIONS, _PARAMETERS_PER_ROW = 12, 1.5
# Standard errors of the paired difference by which a larger model must win, and by which an average
# must, whose weights the rows left out have chosen: on normal rows it follows single ones.
_LEAST_ADVANTAGE, _LEAST_ADVANTAGE_AVERAGED = 1.0, 2.0
# Where the truth lies between the held-out average (0) and the fitted one (1). For a model that
# holds, the deficits are as 1 / (rows fitted to). An average over mixtures is chosen where no one
# of them is good, and falls short of the law as much as it follows its rows too closely: on 20
# cases of bounded noise, rolls, galaxies, spirals and waves the place was 0.5 to 1.8.
_PLACE, _PLACE_AVERAGED = 1 / (2 - 1 / FOLDS), 0.9
_SPREAD, _SPREAD_AVERAGED = 0.2, 0.45
# Relative: of the known excess of one component over the truth.
_SPREAD_NORMAL = 0.1
_JUDGED_DRAWS = 200
_BLOCK_ELEMENTS = 2**22


@dataclass(frozen=True)
class PairModel:
    """One model of the joint rows, as its rows left out judge it. In nats.

    Attributes:
        margins: coordinates it was fitted in: raw, normal scores, or scores of Student's t.
        components: K; zero for the average over all of these margins by stacking.
        weight: share of the posterior draws that choose it.
        held_out: average log density ratio of rows left out.
        fitted: the same of rows fitted to.
        advantage: log density per row left out over independent margins, on which models compete.
    """

    margins: str
    components: int
    weight: float
    held_out: float
    fitted: float
    advantage: float


@dataclass(frozen=True)
class MutualInformation:
    """Posterior draws of I(X; Y) in nats, with what judges them.

    Attributes:
        draws: (chain, draw), never negative.
        standard_error: (chain, draw), Monte Carlo error by the random folds.
        pareto_k: (chain,) tail shape k̂ of the variational posterior of the best single mixture;
            above 0.7 that approximation is poor. The draws do not rest on it.
        held_out_log_density: of the chosen joint model, per row left out, in standardised or
            normal-score coordinates.
        neighbour_log_density: the same by k nearest neighbours. Where it is larger the model misses
            structure, and the estimate is rather too small; in many dimensions it is itself low.
        models: every model of the first chain, heaviest first.
        rows, dim_x, dim_y: of the data.
    """

    draws: Tensor
    standard_error: Tensor
    pareto_k: Tensor
    held_out_log_density: Estimate
    neighbour_log_density: Estimate
    models: tuple[PairModel, ...]
    rows: int
    dim_x: int
    dim_y: int

    @property
    def mean(self) -> float:
        """Posterior mean."""
        return self.draws.mean().item()

    @property
    def standard_deviation(self) -> float:
        """Posterior standard deviation."""
        return self.draws.std().item()

    def interval(self, probability: float = 0.9) -> tuple[float, float]:
        """Equal-tailed posterior interval.

        Raises:
            ValueError: if the probability is not inside (0, 1).
        """
        if not 0 < probability < 1:
            raise ValueError(f"Expected a probability between 0 and 1; got {probability}")
        levels = self.draws.new_tensor([(1 - probability) / 2, (1 + probability) / 2])
        low, high = torch.quantile(self.draws.flatten(), levels).tolist()
        return low, high

    @property
    def margins(self) -> dict[str, float]:
        """Posterior probability of the margins."""
        return self._weights("margins")

    @property
    def components(self) -> dict[int, float]:
        """Posterior probability of the component counts; zero is the average over them."""
        return self._weights("components")

    def _weights(self, name: str) -> dict[Any, float]:
        total: dict[Any, float] = {}
        for model in self.models:
            if model.weight > 0:
                key = getattr(model, name)
                total[key] = total.get(key, 0.0) + model.weight
        return total

    def to_inference_data(self, settings: dict[str, Any] | None = None) -> Any:
        """InferenceData with `mutual_information`, `mutual_information_mcse` and `pareto_k`."""
        models = {
            f"model_{name}": np.array([getattr(model, name) for model in self.models])
            for name in ("margins", "components", "weight", "held_out", "fitted", "advantage")
        }
        return inference_data(
            {
                "mutual_information": self.draws,
                "mutual_information_mcse": self.standard_error,
            },
            sample_stats={"pareto_k": self.pareto_k},
            constant_data={
                "rows": self.rows,
                "dim_x": self.dim_x,
                "dim_y": self.dim_y,
                "held_out_log_density": self.held_out_log_density.value,
                "neighbour_log_density": self.neighbour_log_density.value,
                **models,
                **(settings or {}),
            },
            dims={name: ["model"] for name in models},
        )


def mutual_information(
    x: Any,
    y: Any,
    *,
    draws: int = 1000,
    chains: int = 1,
    components: int = _LARGEST,
    margins: Sequence[str] = (RAW, NORMAL_SCORES, "t scores"),
    seed: int = 0,
) -> MutualInformation:
    """Posterior of I(X; Y) = E log p(x, y) / p(x) p(y) in nats, from paired rows alone (A.5).

    Args:
        x, y: paired rows, (n, d) or (n,), as arrays, tensors or lists.
        draws: posterior draws per chain.
        chains: independent partitions into folds and starts, each a fit of its own.
        components: largest mixture considered; n rows allow no more than about one parameter each.
        margins: coordinates considered: `"raw"`, `"normal scores"`, `"t scores"`. Information does
            not depend on them, the quality of a mixture does.
        seed: decides every random number.

    Raises:
        ValueError: if the rows are not paired, too few, not finite, constant, tied or repeated, if
            columns are linearly dependent (X and Y sharing a direction have infinite information),
            or an option is out of range.

    >>> x = torch.randn(500, generator=torch.Generator().manual_seed(0))
    >>> noise = torch.randn(500, generator=torch.Generator().manual_seed(1))
    >>> result = mutual_information(x, x + noise)
    >>> abs(result.mean - 0.5 * math.log(2)) < 0.1
    True
    """
    rows, dim_x = paired_rows(x, y)
    for name, value in (("draws", draws), ("chains", chains), ("components", components)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"Expected {name} ≥ 1; got {value!r}")
    known = (RAW, NORMAL_SCORES, "t scores")
    if isinstance(margins, str) or not margins or set(margins) - set(known):
        raise ValueError(f"Expected margins among {', '.join(known)}; got {margins!r}")
    found = [
        _chain(rows, dim_x, draws, components, tuple(margins), spawn(seed, "chain", chain))
        for chain in range(chains)
    ]
    first = found[0]
    return MutualInformation(
        torch.stack([one.draws for one in found]),
        torch.stack([one.standard_error for one in found]),
        torch.stack([_pareto_k(one.chosen, rows, one.seed) for one in found]),
        first.held_out_log_density,
        first.neighbour_log_density,
        first.models,
        len(rows),
        dim_x,
        rows.shape[-1] - dim_x,
    )


@dataclass(frozen=True)
class _Chain:
    """What one partition into folds gives; `chosen` is the best single mixture."""

    draws: Tensor
    standard_error: Tensor
    chosen: PairDensity | None
    held_out_log_density: Estimate
    neighbour_log_density: Estimate
    models: tuple[PairModel, ...]
    seed: int


def _chain(
    rows: Tensor, dim_x: int, draws: int, components: int, margins: tuple[str, ...], seed: int
) -> _Chain:
    count = len(rows)
    fold = random_folds(count, FOLDS, generator(spawn(seed, "folds")))
    found = _pair_densities(rows, dim_x, fold, components, margins, seed)
    # On common ground: log density over that of independent margins, whatever the coordinates.
    advantage = torch.stack([one.held_out[0] - one.margin_log_density for one in found])
    fitted = torch.stack([one.fitted_ratio for one in found])
    held_out = torch.stack([one.held_out_ratio for one in found])
    ladder = _ladder(found, advantage)
    error = _fold_error(fitted - held_out, fold)

    averaged = torch.tensor([one.components == 0 for one in found])
    single = torch.tensor([one.components == 1 for one in found])
    place = torch.where(averaged, _PLACE_AVERAGED, _PLACE).double()
    spread = torch.where(averaged, _SPREAD_AVERAGED, _SPREAD).double()
    least = torch.where(averaged, _LEAST_ADVANTAGE_AVERAGED, _LEAST_ADVANTAGE).double()
    optimism = _normal_optimism(count, dim_x, rows.shape[-1] - dim_x)
    source = generator(spawn(seed, "draws"))
    values, choices = [], []
    for size in _block_sizes(draws, count):
        share = torch._standard_gamma(torch.ones(size, count).to(rows), generator=source)
        share = share / share.sum(-1, keepdim=True)
        choice = _choices(share @ advantage.mT, advantage, ladder, least)
        noise = torch.randn(size, generator=source, dtype=rows.dtype)
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
    best = int(weight.argmax())
    singles = [i for i, one in enumerate(found) if one.fit is not None]
    judged = max(singles, key=lambda i: advantage[i].mean().item()) if singles else None
    return _Chain(
        torch.cat(values),
        # The excess of one component is known; elsewhere the gap is measured on random folds.
        torch.where(single, 0.0, torch.maximum(1 - place, spread) * error)[choice],
        None if judged is None else found[judged],
        *_log_densities(rows, found[best], advantage[best]),
        tuple(
            PairModel(
                found[i].margins,
                found[i].components,
                weight[i].item(),
                held_out[i].mean().item(),
                fitted[i].mean().item(),
                advantage[i].mean().item(),
            )
            for i in torch.stack([weight, advantage.mean(-1)], -1)
            .mul(torch.tensor([1.0, 1e-9]))
            .sum(-1)
            .argsort(descending=True)
            .tolist()
        ),
        seed,
    )


def _pair_densities(
    rows: Tensor,
    dim_x: int,
    fold: Tensor,
    components: int,
    margins: tuple[str, ...],
    seed: int,
) -> list[PairDensity]:
    """Every model considered, with the density of its own margins."""
    count, dimension = rows.shape
    parameters = dimension * (dimension + 3) // 2 + 1
    share = _PARAMETERS_PER_ROW if dimension > _MANY_DIMENSIONS else 1.0
    largest = max(1, min(components, int(share * count / parameters)))
    standardised = (rows - rows.mean(0)) / rows.std(0)
    found: list[PairDensity] = []
    for name in (RAW, NORMAL_SCORES):
        if name not in margins:
            continue
        if name == RAW:
            values = standardised
            own = margin_log_density(values, fold, generator(spawn(seed, "margins"))).sum(-1)
        else:
            values = normal_scores(rows)
            own = normal_log_density(values).sum(-1)
        starts = generator(spawn(seed, "starts", name))
        grown = list(growing_mixtures(values, dim_x, fold, name, own, largest, starts))
        found += grown
        if len(grown) > 1:
            found.append(stacked(grown))
    if "t scores" in margins:
        for freedom in STUDENT_FREEDOMS:
            values = student_scores(rows, freedom)
            found.append(student_pair_density(values, dim_x, fold, freedom))
    return found


def _ladder(found: list[PairDensity], advantage: Tensor) -> list[int]:
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
        reached: advantage (draws, models) on the rows as drawn.
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


def _normal_optimism(count: int, dim_x: int, dim_y: int) -> float:
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


def _log_densities(
    rows: Tensor, chosen: PairDensity, advantage: Tensor
) -> tuple[Estimate, Estimate]:
    """Log density per row left out of the chosen model, and by nearest neighbours."""
    if chosen.margins == RAW:
        values, density = (rows - rows.mean(0)) / rows.std(0), chosen.held_out[0]
    else:
        values = normal_scores(rows)
        density = advantage + normal_log_density(values).sum(-1)
    return _average(density), _average(neighbour_log_density(values))


def _average(values: Tensor) -> Estimate:
    count = len(values)
    return Estimate(values.mean(), values.std() / math.sqrt(count), count)


def _pareto_k(model: PairDensity | None, rows: Tensor, seed: int) -> Tensor:
    """k̂ of the variational posterior of a mixture, nan where there is none."""
    if model is None or model.fit is None or model.prior is None:
        return rows.new_tensor(math.nan)
    values = (rows - rows.mean(0)) / rows.std(0) if model.margins == RAW else normal_scores(rows)
    drawn = model.fit.draw(_JUDGED_DRAWS, generator(spawn(seed, "judged")))
    prior = log_prob(model.prior.parameters(model.components), drawn)
    joint = prior + drawn.mixture().log_prob_rows(values).sum(-1)
    # One component is conjugate and its posterior exact: ratios equal up to rounding have no tail.
    return pareto_smooth((joint - model.fit.log_prob(drawn)).round(decimals=6))[1]


def _block_sizes(draws: int, count: int) -> list[int]:
    size = max(1, _BLOCK_ELEMENTS // count)
    whole, rest = divmod(draws, size)
    return [size] * whole + [rest] * (rest > 0)
