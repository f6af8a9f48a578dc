"""Total variation between distributions of rows, TV(p, q) = sup_A |P(A) − Q(A)|, from densities.

D is the distribution of rows of the site `target`, D_M that of `unprompted`, D_gen that of a row of
S_gen given all that is above the output; divergences from D_gen are averages over that.

Estimators are siblings of one signature, `(replicas, values, first, second) -> Estimate`, the
distributions being named by their sites. `total_variation` says which one serves which pair.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from rbpp.estimate import Estimate, mean_estimate
from rbpp.processes.handlers import FREE_SITES
from rbpp.processes.replicas import Replicas, Values
from rbpp.theory.curated_entropy import NO_DENSITY, hides_density, is_copy
from rbpp.theory.curated_rows import can_propose, fresh_outputs, is_known, of_own, row_scores
from rbpp.theory.information import midpoint
from rbpp.theory.model_factor import sites_above_output
from rbpp.theory.terms import EstimatedTerms

# Prompts, and rows from either distribution.
_SETTINGS = 16
_POINTS = 512
# For curated rows: fewer, since the density of each is an average over as many outputs.
_CURATED_SETTINGS, _CURATED_POINTS, _CURATION_DRAWS = 8, 256, 400
_PASS_ELEMENTS = 2**22
_NAMES = {
    "task_divergence": ("target", "unprompted"),
    "generation_divergence": ("unprompted", "synthetic"),
    "total_divergence": ("target", "synthetic"),
}


def total_variations(replicas: Replicas, values: Values) -> EstimatedTerms:
    """TV(D, D_M), TV(D_M, D_gen) and TV(D, D_gen), or why one is missing."""
    found = EstimatedTerms()
    for name, (first, second) in _NAMES.items():
        lacking = [reason for site in (first, second) if (reason := _lacking(replicas, site))]
        if not lacking and second == "synthetic" and hides_density(replicas, values):
            lacking = [NO_DENSITY]
        if lacking:
            found.missing[name] = "; ".join(lacking)
        else:
            found.terms[name] = total_variation(replicas, values, first, second)
    return found


def total_variation(replicas: Replicas, values: Values, first: str, second: str) -> Estimate:
    """TV of the distributions of rows of two sites, by the estimator that serves them."""
    if second != "synthetic":
        return between_free_rows(replicas, values, first, second)
    if is_copy(replicas, values):
        return between_free_and_output_rows(replicas, values, first, "output")
    if replicas.integrates_output:
        return between_free_and_output_rows(replicas, values, first, second)
    return between_free_and_curated_rows(replicas, values, first, second)


def between_free_rows(replicas: Replicas, values: Values, first: str, second: str) -> Estimate:
    """TV(p, q) = E_{½(p+q)} |p − q| / (p + q), an average of numbers in [0, 1] of rows of both."""
    sides = []
    for source in (first, second):
        points = _points(replicas, values, source, 2 * _POINTS)
        each = _relative_difference(replicas, values, (first, second), points)
        sides.append(mean_estimate(each.squeeze(1), method="density ratios"))
    return (sides[0] + sides[1]) / 2


def between_free_and_output_rows(
    replicas: Replicas, values: Values, first: str, second: str
) -> Estimate:
    """The same formula for a distribution and rows given their prompt; a mean over prompts.

    Args:
        replicas, values, first: as for the others.
        second: `output`, or `synthetic` where noise is added to the output in closed form.
    """
    settings = min(_SETTINGS, values.count)
    free = _points(replicas, values, first, _POINTS)
    own = values[second][:, :settings].unsqueeze(0)
    at_free, at_own = (
        _relative_difference(replicas, values, (first, second), points).mean(-1)
        for points in (free, own)
    )
    each = mean_estimate((at_free + at_own) / 2, method="density ratios")
    return _with_shared_rows(each, 0.25, free.shape[0] * free.shape[4])


def between_free_and_curated_rows(
    replicas: Replicas, values: Values, first: str, second: str
) -> Estimate:
    """TV(p, q) between two sides, with an unbiased estimate q̂ of q, the output integrated out.

    Upper side: E_p (1 − q̂/p)₊, too large in expectation by Jensen's inequality. Lower side:
    P(q̂ < p) − Q(q̂ < p), since TV is the largest of such differences. The value is the middle, with
    half the distance in its error, which is infinite where q̂ rests on too few draws.
    """
    points = _points(replicas, values, first, _CURATED_POINTS)
    log_free = _log_density_at(replicas, values, first, points)  # (worlds, 1, N)
    settings = min(_CURATED_SETTINGS, values.count)
    own = values[second][:, :settings].movedim(1, 0).unsqueeze(2)
    log_free_own = _log_density_at(replicas, values, first, own)
    log_free_own = log_free_own.squeeze(1).unflatten(1, (settings, -1))
    score = _proposed if can_propose(replicas) else _pooled
    at_free, at_own, known = score(replicas, values, first, second, points, own)
    ratio = (at_free - log_free).nan_to_num(-math.inf)
    above = (-torch.expm1(ratio)).clamp_min(0).mean(-1)
    below = (at_free < log_free).double().mean(-1) - (at_own < log_free_own).double().mean(-1)
    method = "share of rows where the estimated density is smaller"
    lower = mean_estimate(below, "lower", method=method)
    upper = mean_estimate(above, "upper", method="density ratios; curated rows from above")
    unknown = torch.where(known, 0.0, math.inf)
    lower, upper = (
        _with_shared_rows(side, 1.0, log_free.shape[-1]).widened(unknown) for side in (lower, upper)
    )
    lower = replace(lower, value=torch.minimum(lower.value.clamp_min(0), upper.value))
    return replace(midpoint(lower, upper), method="density ratios of curated rows, two sides")


def _proposed(
    replicas: Replicas, values: Values, first: str, second: str, points: Tensor, own: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """log q̂ at free points (worlds, P, N) and at own rows (worlds, P, rows), and whether both rest
    on enough draws."""
    settings = own.shape[0]
    free = _in_plate(points, replicas.sites[second].rows)
    placed = torch.cat([own, free]).squeeze(2).movedim(0, 1)
    scores = row_scores(replicas, values.first(settings), placed, f"curated {first}")
    at_own = of_own(scores.log_density)
    at_free = scores.log_density[:, settings:].movedim(2, 1).flatten(2)
    count = points.shape[0] * points.shape[4]
    return at_free[..., :count], at_own, scores.is_known()


def _pooled(
    replicas: Replicas, values: Values, first: str, second: str, points: Tensor, own: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The same from outputs that serve all rows."""
    settings = own.shape[0]
    draws = max(1, _CURATION_DRAWS // replicas.sites["output"].rows)
    above = sites_above_output(replicas)
    few, label = values.first(settings), f"curated {first}"
    outputs = fresh_outputs(replicas, few, draws, label, above)
    at_free, _ = _log_average(replicas, outputs, points, second, settings)
    at_own, effective = _log_average(replicas, outputs, own, second, settings)
    at_own, effective = (
        of_own(value.unflatten(2, (settings, -1)).transpose(1, 2)) for value in (at_own, effective)
    )
    return at_free, at_own, is_known(effective)


def _log_average(
    replicas: Replicas, outputs: Tensor, points: Tensor, name: str, settings: int
) -> tuple[Tensor, Tensor]:
    """log mean over rows of output of the density of curated rows at points, and the effective
    sample size of that mean: (worlds, P, N)."""
    rows = replicas.sites["output"].rows
    draws = outputs.shape[1] // settings
    # One point against every row of output at a time, the points as further runs of the process.
    flat = points.movedim(0, 2).flatten(2, 4).movedim(2, 0)  # (N, worlds, 1) + event
    flat = flat.unsqueeze(3).unsqueeze(3)
    logs, sizes = [], []
    for chunk in flat.split(max(1, _PASS_ELEMENTS // outputs.numel())):
        found = replicas.row_log_density({"output": outputs.unsqueeze(0), name: chunk}, name)
        found = found.expand(-1, -1, -1, rows)
        scores = found.unflatten(2, (settings, draws)).flatten(3)
        logs.append(scores.logsumexp(-1))
        sizes.append((2 * logs[-1] - (2 * scores).logsumexp(-1)).exp().nan_to_num(0.0))
    log_sum, effective = (torch.cat(parts).movedim(0, -1) for parts in (logs, sizes))
    return log_sum - math.log(draws * rows), effective


def _with_shared_rows(each: Estimate, weight: float, count: int) -> Estimate:
    """Prompts share `count` rows: add their error to that of the spread over prompts.

    A mean of numbers in [0, 1] has a variance of at most ¼ / count.
    """
    return each.widened(torch.full_like(each.value, math.sqrt(weight * 0.25 / count)))


def _lacking(replicas: Replicas, name: str) -> str:
    """Why the rows of a free site have no density, if so."""
    if name not in FREE_SITES:
        return ""
    if name not in replicas.sites:
        return f"the process has no site {name}"
    random = replicas.sites[name].random
    return "" if random else f"site {name} is deterministic: it has no density"


def _points(replicas: Replicas, values: Values, name: str, count: int) -> Tensor:
    """`count` rows (or a few more) of a site, in whole plates: (groups, worlds, 1, 1, n)."""
    rows = replicas.sites[name].rows
    groups = min(-(-count // rows), values[name].shape[1])
    return values[name][:, -groups:].movedim(1, 0).unsqueeze(2)


def _in_plate(points: Tensor, rows: int) -> Tensor:
    """Points (groups, worlds, P, 1, n) + event regrouped into plates of another size."""
    groups, worlds, settings, _, count = points.shape[:5]
    event = points.shape[5:]
    flat = points.movedim(0, 2).reshape(worlds, settings, groups * count, *event)
    whole = -(-flat.shape[2] // rows) * rows
    index = torch.arange(whole, device=flat.device) % flat.shape[2]
    regrouped = flat[:, :, index].reshape(worlds, settings, whole // rows, 1, rows, *event)
    return regrouped.movedim(2, 0)


def _log_density_at(replicas: Replicas, values: Values, name: str, points: Tensor) -> Tensor:
    """log density of rows of site `name` at points (G, worlds, P, 1, n): (worlds, P, N)."""
    count = points.shape[0] * points.shape[4]
    placed = _in_plate(points, replicas.sites[name].rows)
    found = replicas.row_log_density(
        {**_fixed(replicas, values, name), name: placed},
        name,
        integrate_output=name == "synthetic",
    )
    return found.movedim(0, 2).flatten(2)[..., :count]


def _fixed(replicas: Replicas, values: Values, name: str) -> dict[str, Tensor]:
    """What a row of a distribution is conditional on, for a few prompts."""
    if name in FREE_SITES:
        return {}
    above = values.of(*sites_above_output(replicas)).first(_SETTINGS)
    return {key: value.unsqueeze(0) for key, value in above.items()}


def _relative_difference(
    replicas: Replicas, values: Values, names: tuple[str, str], points: Tensor
) -> Tensor:
    """|p − q| / (p + q) at points, (worlds, P, N); zero where both densities vanish."""
    first, second = (_log_density_at(replicas, values, name, points) for name in names)
    difference = torch.where(first == second, 0.0, first - second)
    return torch.tanh(difference.abs() / 2)
