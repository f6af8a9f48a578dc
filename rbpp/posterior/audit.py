"""Does the process make rows like these, and do the rows say anything of its world?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from rbpp.checks import Check
from rbpp.mixtures.goodness_of_fit import anderson_darling
from rbpp.mixtures.psis import pareto_smooth
from rbpp.processes.process import Process
from rbpp.randomness import generator

# Of data sets (draws, R, rows, d): (draws, numbers).
Statistic = Callable[[Tensor], Tensor]
# Two-sided posterior-predictive p-value, after Bonferroni over coordinates, below which rows are
# unlike those of the process.
LEAST_P = 0.01
# A world site whose posterior is the prior, within what a thousand draws can tell.
_SAME_SHIFT, _SAME_SCALE = 0.15, 0.1
# Rows and draws of the neighbour distances, which are quadratic in rows.
_NEIGHBOUR_ROWS, _AUDITED_DRAWS = 300, 400
# Rows that are left out: at least so many, of which a twentieth may change the posterior so that
# weights do not tell what it is without them; data sets of uniform ranks.
_LEAST_LEFT_OUT, _LARGEST_PARETO_K, _MOST_INFLUENTIAL, _CHANCE = 20, 0.7, 0.05, 2000


def identification(
    posterior: Mapping[str, Tensor], prior: Mapping[str, Tensor], pruned: tuple[str, ...]
) -> Check:
    """Whether the posterior of every world site differs from its prior.

    Args:
        posterior, prior: world site to (draws, …).
        pruned: sites that no data depend on.
    """
    same = [name for name in posterior if name in pruned or _is_prior(posterior[name], prior[name])]
    statement = "the data inform every site of the world"
    shares = {"not_identified": len(same), "world_sites": len(posterior)}
    if not same:
        return Check(statement, "holds", "every posterior differs from its prior", shares)
    return Check(
        statement,
        "violated",
        f"{', '.join(same)}: the posterior is the prior; observe sites that depend on it",
        shares,
        required=False,
    )


def predictive_checks(
    process: Process, observed: Mapping[str, Tensor], drawn: Mapping[str, Tensor]
) -> list[Check]:
    """Posterior-predictive p-values of moments, tails and neighbour distances of every site.

    Args:
        process: at the sizes of the data.
        observed: site to data sets (R, *shape of a plain run).
        drawn: site to new data sets (draws, R, *shape).
    """
    checks = []
    for name, rows in observed.items():
        new = drawn[name][:_AUDITED_DRAWS]
        statistics = _of_letters(rows, new) if process.sites[name].discrete else _of_vectors(rows)
        for label, statistic in statistics.items():
            checks.append(_judged(name, label, statistic(rows.unsqueeze(0))[0], statistic(new)))
    return checks


def left_out_check(name: str, rows: Tensor, drawn: Tensor, likelihood: Tensor, seed: int) -> Check:
    """Whether every row looks like new ones given the others: leave-one-out predictive ranks.

    The rank of a row's coordinate among its new values, draws weighted by Pareto-smoothed 1 / p(row
    | draw), is uniform where the process makes such rows: that is what held-out rows would show
    after as many fits as there are rows. Anderson and Darling's A² judges each coordinate.

    Vehtari, Gelman and Gabry, Practical Bayesian model evaluation using leave-one-out
    cross-validation and WAIC, Statistics and Computing 27 (2017).

    Args:
        name: of the site.
        rows: data sets (R, rows, d).
        drawn: new data sets (draws, R, rows, d).
        likelihood: log density of every row (draws, R, rows).
        seed: of ties and of what A² is by chance.
    """
    statement = f"rows of {name} that are left out look like new ones"
    count = rows.shape[-2] * rows.shape[0]
    if count < _LEAST_LEFT_OUT:
        return Check(statement, "unknown", f"{count} rows are too few", required=False)
    log_weights, k = pareto_smooth(-likelihood.flatten(1).mT)
    bad = float((k > _LARGEST_PARETO_K).double().mean())
    if bad > _MOST_INFLUENTIAL:
        message = f"{bad:.0%} of the rows change the posterior too much to be left out by weights"
        return Check(statement, "unknown", message, {"influential": bad}, required=False)
    own, new = rows.flatten(0, 1), drawn.flatten(1, 2)
    weights = log_weights.exp().mT.unsqueeze(-1)  # (draws, rows, 1)
    source = generator(seed)
    rank = (weights * (new < own)).sum(0)
    draws = len(new)
    jitter = torch.rand(rank.shape, generator=source, dtype=rank.dtype)
    rank = (rank * draws + jitter) / (draws + 1)  # (rows, d) in (0, 1)
    found = anderson_darling(rank.mT)
    chance = anderson_darling(torch.rand(_CHANCE, count, generator=source, dtype=rank.dtype))
    worst = int(found.argmax())
    larger = float((chance >= found[worst]).double().mean())
    p_value = min(1.0, max(larger, 1 / _CHANCE) * len(found))
    where = f" in coordinate {worst}" if len(found) > 1 else ""
    return Check(
        statement,
        "violated" if p_value < LEAST_P else "holds",
        f"ranks of {count} rows given the others: A² {float(found[worst]):.3g}{where}, "
        f"p = {p_value:.3g}",
        {"p_value": p_value, "misfit": float(found[worst]), "influential": bad},
        required=False,
    )


def _judged(site: str, label: str, value: Tensor, values: Tensor) -> Check:
    """One statistic (coordinates,) beside that of the draws (draws, coordinates)."""
    above = (values >= value).double().mean(0)
    below = (values <= value).double().mean(0)
    each = (2 * torch.minimum(above, below)).clamp(1 / (len(values) + 1), 1.0)
    worst = int(each.argmin())
    p_value = min(1.0, float(each[worst]) * value.numel())
    seen = float(value.flatten()[worst])
    low, high = (float(values[:, worst].quantile(q)) for q in (0.03, 0.97))
    where = f" in coordinate {worst}" if value.numel() > 1 else ""
    message = f"{label} {seen:.4g}{where}; new rows {low:.4g} to {high:.4g}, p = {p_value:.3g}"
    return Check(
        f"new rows of {site} are like yours: {label}",
        "violated" if p_value < LEAST_P else "holds",
        message,
        {"p_value": p_value, "observed": seen, "predicted_low": low, "predicted_high": high},
        required=False,
    )


def _of_vectors(rows: Tensor) -> dict[str, Statistic]:
    """Of data sets (…, R, rows, d), where these (R, rows, d) were seen."""
    statistics: dict[str, Statistic] = {"mean": lambda x: x.mean((-3, -2))}
    count = rows.shape[-2]
    if count < 3:
        return statistics
    statistics["standard deviation"] = lambda x: x.std(-2).mean(-2)
    centred = (rows - rows.mean(-2, keepdim=True)).flatten(0, -2)
    leading = torch.linalg.svd(centred, full_matrices=False)[2][0]
    if count >= 10:  # flat or heavy along the widest direction: other components, other tails
        statistics["kurtosis along the widest direction"] = lambda x: _kurtosis(x @ leading)
    statistics["log distance to the nearest neighbour"] = _neighbours
    return statistics


def _of_letters(rows: Tensor, new: Tensor) -> dict[str, Statistic]:
    letters = torch.unique(torch.cat([rows.flatten(), new.flatten()]))
    return {
        "share of each letter": lambda x: (x.flatten(1).unsqueeze(-1) == letters).double().mean(1)
    }


def _kurtosis(values: Tensor) -> Tensor:
    """Mean kurtosis (draws, 1) of data sets (draws, R, rows)."""
    centred = values - values.mean(-1, keepdim=True)
    variance = centred.square().mean(-1).clamp_min(1e-300)
    return (centred.pow(4).mean(-1) / variance.square()).mean(-1, keepdim=True)


def _neighbours(values: Tensor) -> Tensor:
    """Mean log distance (draws, 1) from a row to the nearest other row of its data set."""
    found = []
    for one in values[..., :_NEIGHBOUR_ROWS, :]:
        distance = torch.cdist(one, one)
        distance.diagonal(dim1=-2, dim2=-1).fill_(math.inf)
        nearest = distance.min(-1).values
        found.append(nearest.clamp_min(1e-300).log().mean())
    return torch.stack(found).unsqueeze(-1)


def _is_prior(posterior: Tensor, prior: Tensor) -> bool:
    """Whether no element of a site has another place or spread than before."""
    after, before = (v.reshape(len(v), -1).double() for v in (posterior, prior))
    if after.shape[1] == 0:
        return True
    spread = before.std(0).clamp_min(1e-12)
    shift = ((after.mean(0) - before.mean(0)) / spread).abs()
    scale = (after.std(0).clamp_min(1e-12) / spread).log().abs()
    return bool((shift < _SAME_SHIFT).all() and (scale < _SAME_SCALE).all())
