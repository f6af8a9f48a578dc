"""Mutual information of paired rows, where no conditional density is known (equation A.5).

A mixture q of the joint rows gives log q(x, y) / q(x) q(y) of every row in closed form. Its average
over the rows that q was fitted to is too large, that over held-out rows too small. Where the model
holds, both err by the same amount to first order, and the estimate lies between the two. Held-out
rows decide the margins and the number of components, or an average over all of them, anew in every
posterior draw.

Each draw has three parts: weights of the rows, Dirichlet(1, …, 1) (the Bayesian bootstrap, Rubin
1981), which need no model to be true; the model that these weights prefer; and a place between the
two averages, whose spread is the larger the poorer the model family. Measured in benchmarks/.

Rubin, The Bayesian bootstrap, Annals of Statistics 9 (1981).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rbpp import inference_data, sentences, validate
from rbpp.checks import Check, verdict_of
from rbpp.compute import Compute
from rbpp.display import DEFAULT_VIEW, Part, Table, View
from rbpp.estimate import Estimate, mean_estimate, stack
from rbpp.inference_data import InferenceData
from rbpp.mixtures.psis import pareto_smooth
from rbpp.paired.candidates import MARGINS, advantages, pair_densities
from rbpp.paired.class_mixtures import class_codes, class_densities
from rbpp.paired.dependence import independence_check
from rbpp.paired.information_draws import FOLDS, PairModel, information_draws
from rbpp.paired.joint_mixture import PairDensity, random_folds
from rbpp.paired.labels import is_classes, is_labels, label_information, labels_of
from rbpp.paired.margins import normal_scores
from rbpp.paired.misfit import (
    log_densities,
    neighbour_bias,
    neighbour_information,
    with_misfit,
)
from rbpp.paired.paired_rows import measured_rows, paired_rows
from rbpp.randomness import generator, spawn
from rbpp.renamed import renamed
from rbpp.result import Result

_LARGEST = 128
_JUDGED_DRAWS = 200
# Vehtari, Simpson, Gelman, Yao and Gabry (2024).
_LARGEST_PARETO_K = 0.7
# Standard errors by which the neighbours' density, less its bias on normal rows, must exceed the
# model's to count.
_LARGEST_EXCESS = 3.5
_SHOWN_MODELS = 6
_LEAST_BLOCKS = 10


@dataclass(frozen=True, kw_only=True, repr=False)
class MutualInformation(Result):
    """Posterior draws of I(X; Y) in nats, never negative, with what judges them.

    `idata` has `mutual_information` and its Monte Carlo error by the random folds (chain, draw), a
    chain being one partition into folds, and `pareto_k` (chain,) in `sample_stats`.

    Attributes:
        held_out_log_density: of the chosen joint model, per held-out row, in standardised or
            normal-score coordinates.
        neighbour_log_density: the same by k nearest neighbours. Where it is larger the model misses
            structure, and the estimate is rather too small; in many dimensions it is itself low.
        models: every model of the first chain, heaviest first.
    """

    idata: InferenceData
    held_out_log_density: Estimate | None = None
    neighbour_log_density: Estimate | None = None
    models: tuple[PairModel, ...] = ()

    @property
    def draws(self) -> Tensor:
        """(chain, draw)."""
        return self.terms["mutual_information"].value

    @property
    def standard_error(self) -> Tensor:
        """Monte Carlo error of every draw, (chain, draw)."""
        return self.terms["mutual_information"].standard_error

    @property
    def mean(self) -> float:
        """Posterior mean."""
        return self.draws.mean().item()

    @renamed(eti_prob="probability")
    def interval(self, eti_prob: float = 0.94) -> tuple[float, float]:
        """Equal-tailed posterior interval, whose coverage was measured; tables have the
        highest-density interval, as those of all results.

        Args:
            eti_prob: probability of the equal-tailed interval.

        Raises:
            ValueError: if the probability is not inside (0, 1).
        """
        validate.probability("eti_prob", eti_prob)
        levels = self.draws.new_tensor([(1 - eti_prob) / 2, (1 + eti_prob) / 2])
        low, high = torch.quantile(self.draws.flatten(), levels).tolist()
        return low, high

    @property
    def margins(self) -> dict[str, float]:
        """Posterior probability of the margins."""
        return _weights(self.models, "margins")

    @property
    def components(self) -> dict[int, float]:
        """Posterior probability of the component counts; zero is the average over them."""
        return _weights(self.models, "components")

    def figures(self, hdi_prob: float = 0.94) -> Mapping[str, Callable[[], Any]]:
        """The posterior mean and interval."""
        from rbpp import plots

        return {"mi": lambda: plots.plot_forest(self.idata, ["mutual_information"], hdi_prob)}

    def details(self) -> Mapping[str, Any]:
        """The models."""
        return {"models": [vars(model) for model in self.models]}

    def answer(self, view: View = DEFAULT_VIEW) -> tuple[str, ...]:
        """How much the rows share, and how sure that is."""
        table = self._table(view)
        draws = self.draws.flatten().numpy()
        return tuple(sentences.of_information(table, view.units, draws, self.checks))

    def _body(self, view: View) -> list[Part]:
        """The term, and the heaviest models below it."""
        terms = super()._body(view)
        if not self.models:
            return terms
        lines = [["margins", "components", "weight", "held out", "fitted"]]
        for model in self.models[:_SHOWN_MODELS]:
            count = str(model.components) if model.components else "averaged"
            numbers = (model.weight, model.held_out, model.fitted)
            lines.append([model.margins, count, *(f"{value:.3f}" for value in numbers)])
        return [*terms, Table(lines)]


def mutual_information(
    x: Any,
    y: Any,
    *,
    draws: int = 1000,
    chains: int = 1,
    components: int = _LARGEST,
    margins: Sequence[str] = MARGINS,
    block: int = 1,
    seed: int = 0,
    compute: Compute | None = None,
) -> MutualInformation:
    """Posterior of I(X; Y) = E log p(x, y) / p(x) p(y) in nats, from paired rows alone (A.5).

    Args:
        x, y: paired rows, (n, d) or (n,), as arrays, tensors or lists. One or both may be labels:
            strings, booleans, or whole numbers of fewer than 20 values (of up to 100 where both
            are), each in five rows or more.
        draws: posterior draws per chain.
        chains: independent partitions into folds and starts, each a fit of its own.
        components: largest mixture considered; n rows allow no more than about one parameter each.
        margins: coordinates considered: `"raw"`, `"normal scores"`, `"t scores"`. Information does
            not depend on them, the quality of a mixture does.
        block: successive rows that may depend on each other: they are held out together, and have
            one weight in a draw. At least ten blocks.
        seed: decides every random number.
        compute: device of the fits, workers over chains, progress. Draws are made, and the result
            is, on the CPU.

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
    own = Compute.of(compute, seed)
    asked = _Asked(draws, chains, components, margins, block=block, compute=own)
    for option, value in (("draws", draws), ("chains", chains), ("components", components)):
        validate.count(option, value)
    if is_labels(x) and is_labels(y):
        return _of_labels(x, y, asked)
    if is_classes(x) or is_classes(y):
        label, values, name = (x, y, "y") if is_classes(x) else (y, x, "x")
        return _of_classes(label, values, name, asked)
    rows, dim_x = paired_rows(x, y)
    rows = rows.to(asked.compute.device)
    validate.count("block", block)
    if len(rows) < _LEAST_BLOCKS * block:
        raise ValueError(
            f"Expected at least {_LEAST_BLOCKS} blocks of rows; got {len(rows)} rows in blocks of "
            f"{block}"
        )
    if isinstance(margins, str) or not margins or set(margins) - set(MARGINS):
        raise ValueError(f"Expected margins among {', '.join(MARGINS)}; got {margins!r}")
    of_task = replace(asked, compute=asked.compute.task())
    work = partial(_chain, rows, dim_x, of_task)
    found = list(asked.compute.each(work, range(chains), "chains"))
    models = found[0].models
    held_out, neighbours = found[0].log_densities
    pareto_k = torch.stack([one.pareto_k for one in found])
    settings = {
        "rows": len(rows),
        "dim_x": dim_x,
        "dim_y": rows.shape[-1] - dim_x,
        "block": block,
        "seed": asked.compute.seed,
    }
    columns = {
        f"model_{name}": np.array([getattr(model, name) for model in models])
        for name in ("margins", "components", "weight", "held_out", "fitted", "advantage")
    }
    idata = inference_data.make(
        inference_data.from_estimates({"mutual_information": stack([one.draws for one in found])}),
        sample_stats={"pareto_k": pareto_k},
        constant_data={
            **settings,
            "held_out_log_density": held_out.value,
            "neighbour_log_density": neighbours.value,
            **columns,
        },
        dims={name: ["model"] for name in columns},
    )
    return MutualInformation(
        idata=idata,
        checks=(
            independence_check(rows[:, :dim_x].cpu().numpy(), rows[:, dim_x:].cpu().numpy(), block),
            _structure(found[0].excess),
            _approximation(float(pareto_k.max())),
        ),
        settings={**settings, "margins": _weights(models, "margins")},
        held_out_log_density=held_out,
        neighbour_log_density=neighbours,
        models=models,
    )


@dataclass(frozen=True)
class _Asked:
    """What is asked of the posterior, as `mutual_information` has it, and where it is computed."""

    draws: int
    chains: int
    components: int
    margins: Sequence[str]
    block: int
    compute: Compute

    @property
    def seeds(self) -> list[int]:
        """A seed for every chain."""
        return [self.compute.spawn("chain", chain).seed for chain in range(self.chains)]


def _of_labels(x: Any, y: Any, asked: _Asked) -> MutualInformation:
    """Of two columns of labels: no density, and so no models."""
    first, second = labels_of(x), labels_of(y)
    if len(first) != len(second):
        raise ValueError(f"Expected as many rows of x as of y; got {len(first)} and {len(second)}")
    found = torch.stack(
        [label_information(first, second, asked.draws, seed) for seed in asked.seeds]
    )
    settings = {
        "rows": len(first),
        "classes_x": len(np.unique(first)),
        "classes_y": len(np.unique(second)),
        "seed": asked.compute.seed,
    }
    return _beside_labels(Estimate(found, torch.zeros_like(found), len(first)), settings)


def _of_classes(label: Any, values: Any, name: str, asked: _Asked) -> MutualInformation:
    """Of measurements, argument `name`, and a label: a mixture in each class."""
    rows, names = measured_rows(name, values), labels_of(label)
    if len(rows) != len(names):
        raise ValueError(f"Expected a label of every row; got {len(names)} for {len(rows)} rows")
    codes = class_codes(names)
    found = []
    for seed in asked.seeds:
        fold = random_folds(len(rows), FOLDS, generator(spawn(seed, "folds")))
        densities = class_densities(rows, codes, fold, asked.components, seed)
        found.append(information_draws(densities, asked.draws, spawn(seed, "draws")))
    # No label tells more than itself.
    share = torch.bincount(codes).double() / len(codes)
    most = float(torch.special.entr(share).sum())
    drawn = stack([one.draws for one in found]).map(lambda value: value.clamp_max(most))
    settings = {
        "rows": len(rows),
        "dim": rows.shape[-1],
        "classes": len(share),
        "seed": asked.compute.seed,
    }
    return _beside_labels(drawn, settings, found[0].models)


def _beside_labels(
    drawn: Estimate, settings: dict[str, int], models: tuple[PairModel, ...] = ()
) -> MutualInformation:
    """What has no joint density that neighbours could judge."""
    idata = inference_data.make(
        inference_data.from_estimates({"mutual_information": drawn}), constant_data=settings
    )
    return MutualInformation(idata=idata, settings=settings, models=models)


def _weights(models: Sequence[PairModel], name: str) -> dict[Any, float]:
    """Posterior probability of every value of an attribute of the models."""
    total: dict[Any, float] = {}
    for model in models:
        if model.weight > 0:
            key = getattr(model, name)
            total[key] = total.get(key, 0.0) + model.weight
    return total


def _structure(excess: Estimate) -> Check:
    """Whether the joint model is as dense at the rows as the rows are."""
    measured, threshold = float(excess.value), _LARGEST_EXCESS * float(excess.standard_error)
    return Check(
        "the joint model misses no structure that nearest neighbours see",
        verdict_of(measured <= threshold),
        f"log density per row by neighbours exceeds that of held-out rows by {measured:.3g}, "
        f"threshold {threshold:.3g}",
        {"excess": measured, "threshold": threshold},
    )


def _approximation(pareto_k: float) -> Check:
    """Whether the variational posterior is near the exact one."""
    known = not math.isnan(pareto_k)
    return Check(
        "the variational posterior of the best single mixture is near the exact",
        verdict_of(pareto_k <= _LARGEST_PARETO_K if known else None),
        f"Pareto k {pareto_k:.2f}, threshold {_LARGEST_PARETO_K}"
        if known
        else "no mixture was fitted",
        {"pareto_k": pareto_k, "threshold": _LARGEST_PARETO_K},
        required=False,
    )


@dataclass(frozen=True)
class _Chain:
    """What one partition into folds gives."""

    draws: Estimate
    models: tuple[PairModel, ...]
    log_densities: tuple[Estimate, Estimate]
    excess: Estimate
    pareto_k: Tensor


def _chain(rows: Tensor, dim_x: int, asked: _Asked, chain: int) -> _Chain:
    seed, block = asked.seeds[chain], asked.block
    fold = random_folds(len(rows), FOLDS, generator(spawn(seed, "folds")), block).to(rows.device)
    found = pair_densities(rows, dim_x, fold, asked.components, asked.margins, seed)
    drawn = information_draws(found, asked.draws, spawn(seed, "draws"), block, dim_x)
    mixtures = [one for one in found if one.fit is not None]
    # The best single mixture: it alone has a variational posterior to judge.
    judged = mixtures[int(advantages(mixtures).mean(-1).argmax())] if mixtures else None
    densities = log_densities(rows, found[drawn.preferred])
    excess = mean_estimate(densities[1] - densities[0]) - neighbour_bias(*rows.shape)
    draws = drawn.draws
    if rows.shape[-1] == 2:  # in more dimensions the neighbours' own bias is as large
        draws = with_misfit(
            draws,
            neighbour_information(normal_scores(rows.cpu())),
            float(found[drawn.preferred].held_out_ratio.mean()),
            excess,
            spawn(seed, "misfit"),
        )
    of_rows = mean_estimate(densities[0]), mean_estimate(densities[1])
    return _Chain(draws, drawn.models, of_rows, excess, _pareto_k(judged, seed))


def _pareto_k(model: PairDensity | None, seed: int) -> Tensor:
    """k̂ of the variational posterior of a mixture, nan where there is none."""
    if model is None or model.fit is None or model.prior is None:
        return torch.tensor(math.nan, dtype=torch.float64)
    rows = model.own.rows
    drawn = model.fit.draw(_JUDGED_DRAWS, generator(spawn(seed, "judged"), rows.device))
    joint = model.prior.log_prob(drawn) + drawn.mixture().log_prob_rows(rows).sum(-1)
    # One component is conjugate and its posterior exact: ratios equal up to rounding have no tail.
    return pareto_smooth((joint - model.fit.log_prob(drawn)).round(decimals=6))[1].cpu()
