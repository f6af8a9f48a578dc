"""How many components: counts compared by the predictive density of rows left out.

PSIS-LOO leaves a row out by reweighting the posterior draws by 1 / p(row | draw), Pareto-smoothed;
draws of an approximation are corrected by p / q on the way (Magnusson, Andersen, Jonasson and
Vehtari, Bayesian leave-one-out cross-validation for large data, ICML 2019). With more components
than the rows need, variational draws follow single rows more closely than weights can undo: on 180
rows of three clusters it prefers six of them by 7 nats, at k̂ = 1.1, where new rows prefer three
by 12. Folds refit from new starts, which coordinate ascent does in one batch, and find the three.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from rbpp.estimate import Estimate
from rbpp.mixtures.cavi import cavi
from rbpp.mixtures.posterior import ASCENT_OPTIONS, MixturePosterior, fit_mixture
from rbpp.mixtures.psis import pareto_smooth
from rbpp.randomness import generator, spawn


@dataclass(frozen=True)
class ComponentCount:
    """One count of a comparison.

    Attributes:
        components: K.
        elpd: expected log predictive density of the rows, their sum (nats). Its standard error is
            that of the sum over rows as a sample.
        difference: to the best count; zero for that one. Standard error of the paired difference.
        pareto_k: largest k̂ over the rows; above 0.7 the row's density is not to be trusted.
        posterior: the fit.
    """

    components: int
    elpd: Estimate
    difference: Estimate
    pareto_k: float
    posterior: MixturePosterior


def compare_component_counts(
    data: Tensor,
    counts: Sequence[int],
    *,
    method: Literal["folds", "psis"] = "folds",
    folds: int = 10,
    **options: Any,
) -> list[ComponentCount]:
    """Fit every count and rank them by the predictive density of rows left out, best first.

    Args:
        data: rows (n, d).
        counts: the K to compare.
        method: `"folds"` refits without each fold of the rows by coordinate ascent; `"psis"`
            reweights the draws of any engine, and is to be trusted where `pareto_k` is below 0.7.
        folds: number of folds.
        options: of `fit_mixture`.

    Raises:
        ValueError: if there are no counts, folds do not fit the rows, or as `fit_mixture`.
    """
    if not counts:
        raise ValueError("Expected at least one component count; got none")
    if method not in ("folds", "psis"):
        raise ValueError(f"Expected method folds or psis; got {method}")
    if method == "folds" and not 2 <= folds <= len(data):
        raise ValueError(f"Expected folds from 2 to the {len(data)} rows; got {folds}")
    for name in ("sample_weights", "mask"):
        if options.get(name) is not None:
            raise ValueError(f"Expected rows without {name} for a comparison by rows; got some")
    fits = [fit_mixture(data, count, **options) for count in counts]
    found = []
    for fit in fits:
        pointwise, shape = leave_one_out(fit, data)
        if method == "folds":
            pointwise = _left_out_by_folds(fit, data, folds, options)
        found.append((pointwise, shape))
    best = max(range(len(counts)), key=lambda index: found[index][0].sum().item())
    ranked = [
        ComponentCount(
            count,
            _sum_over_rows(pointwise),
            _sum_over_rows(pointwise - found[best][0]),
            shape.max().item(),
            fit,
        )
        for count, fit, (pointwise, shape) in zip(counts, fits, found, strict=True)
    ]
    return sorted(ranked, key=lambda entry: -entry.elpd.value.item())


def leave_one_out(posterior: MixturePosterior, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Log predictive density of every row given the others (n,), and its k̂ (n,).

    All chains are pooled, each with the same weight.
    """
    likelihood = posterior.log_likelihood(rows).flatten(0, 1).mT  # (n, draws)
    if posterior.log_q is None:
        weights, shape = pareto_smooth(-likelihood)
    else:
        weights, shape = pareto_smooth(
            (posterior.log_prob - posterior.log_q).flatten() - likelihood
        )
    return (weights + likelihood).logsumexp(-1), shape


def _left_out_by_folds(
    posterior: MixturePosterior, rows: Tensor, folds: int, options: dict[str, Any]
) -> Tensor:
    """Log predictive density of every row under the fit without its fold, (n,)."""
    seed = options.get("seed", 0)
    order = torch.randperm(len(rows), generator=generator(spawn(seed, "folds")))
    fold = torch.empty(len(rows), dtype=torch.long)
    fold[order] = torch.arange(len(rows)) % folds
    fold = fold.to(rows.device)
    kept = fold != torch.arange(folds, device=rows.device).unsqueeze(-1)
    fits = cavi(
        rows.expand(folds, *rows.shape),
        posterior.prior,
        posterior.components,
        mask=kept,
        restarts=options.get("restarts", 4) * options.get("starts", 5),
        generator=generator(spawn(seed, "fold starts"), rows.device),
        **{name: options[name] for name in ASCENT_OPTIONS & set(options)},
    ).best()
    density = fits.predictive().log_prob(rows.unsqueeze(-2))  # (n, folds)
    return density.gather(-1, fold.unsqueeze(-1)).squeeze(-1).double()


def _sum_over_rows(pointwise: Tensor) -> Estimate:
    count = len(pointwise)
    return Estimate(pointwise.sum(), pointwise.std() * math.sqrt(count), count)
