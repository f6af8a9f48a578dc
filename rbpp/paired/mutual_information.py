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
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rbpp import inference_data
from rbpp.estimate import Estimate
from rbpp.mixtures.normal_wishart import log_prob
from rbpp.mixtures.psis import pareto_smooth
from rbpp.paired.candidates import MARGINS, advantages, coordinates, pair_densities
from rbpp.paired.information_draws import FOLDS, InformationDraws, PairModel, information_draws
from rbpp.paired.joint_mixture import PairDensity, neighbour_log_density, random_folds
from rbpp.paired.margins import NORMAL_SCORES, RAW, normal_log_density
from rbpp.paired.paired_rows import paired_rows
from rbpp.randomness import generator, spawn

_LARGEST = 128
_JUDGED_DRAWS = 200


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
        return inference_data.make(
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
    margins: Sequence[str] = MARGINS,
    seed: int = 0,
    device: str = "cpu",
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
        device: of the fits; draws are made, and the result is, on the CPU.

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
    rows = rows.to(device)
    for name, value in (("draws", draws), ("chains", chains), ("components", components)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"Expected {name} ≥ 1; got {value!r}")
    if isinstance(margins, str) or not margins or set(margins) - set(MARGINS):
        raise ValueError(f"Expected margins among {', '.join(MARGINS)}; got {margins!r}")
    found = [
        _chain(rows, dim_x, draws, components, margins, spawn(seed, "chain", chain))
        for chain in range(chains)
    ]
    first = found[0]
    return MutualInformation(
        torch.stack([one.drawn.draws for one in found]),
        torch.stack([one.drawn.standard_error for one in found]),
        torch.stack([_pareto_k(one.judged, rows, one.seed) for one in found]),
        *_log_densities(rows, first.preferred),
        first.drawn.models,
        len(rows),
        dim_x,
        rows.shape[-1] - dim_x,
    )


@dataclass(frozen=True)
class _Chain:
    """What one partition into folds gives; `judged` is the best single mixture."""

    drawn: InformationDraws
    preferred: PairDensity
    judged: PairDensity | None
    seed: int


def _chain(
    rows: Tensor, dim_x: int, draws: int, components: int, margins: Collection[str], seed: int
) -> _Chain:
    fold = random_folds(len(rows), FOLDS, generator(spawn(seed, "folds"))).to(rows.device)
    found = pair_densities(rows, dim_x, fold, components, margins, seed)
    dim_y = rows.shape[-1] - dim_x
    drawn = information_draws(found, fold, dim_x, dim_y, draws, spawn(seed, "draws"))
    mixtures = [one for one in found if one.fit is not None]
    reached = advantages(mixtures).mean(-1) if mixtures else None
    judged = None if reached is None else mixtures[int(reached.argmax())]
    return _Chain(drawn, found[drawn.preferred], judged, seed)


def _log_densities(rows: Tensor, chosen: PairDensity) -> tuple[Estimate, Estimate]:
    """Log density per row left out of the chosen model, and by nearest neighbours."""
    values = coordinates(rows, chosen.margins)
    density = chosen.held_out[0]
    if chosen.margins not in (RAW, NORMAL_SCORES):  # scores of t: in normal scores like the others
        density = density - chosen.margin_log_density + normal_log_density(values).sum(-1)
    return _average(density.cpu()), _average(neighbour_log_density(values))


def _average(values: Tensor) -> Estimate:
    count = len(values)
    return Estimate(values.mean(), values.std() / math.sqrt(count), count)


def _pareto_k(model: PairDensity | None, rows: Tensor, seed: int) -> Tensor:
    """k̂ of the variational posterior of a mixture, nan where there is none."""
    if model is None or model.fit is None or model.prior is None:
        return torch.tensor(math.nan, dtype=rows.dtype)
    values = coordinates(rows, model.margins)
    drawn = model.fit.draw(_JUDGED_DRAWS, generator(spawn(seed, "judged"), rows.device))
    prior = log_prob(model.prior.parameters(model.components), drawn)
    joint = prior + drawn.mixture().log_prob_rows(values).sum(-1)
    # One component is conjugate and its posterior exact: ratios equal up to rounding have no tail.
    return pareto_smooth((joint - model.fit.log_prob(drawn)).round(decimals=6))[1].cpu()
