"""H(S_gen) where curation is random, with the output integrated out. In nats.

Rows are independent given the prompt. The density of a curated row is an average of
p(row | row of output) over outputs. One pool of outputs serves all prompts: the importance weights
p(output | prompt) / p(output) turn it into a pool of each prompt. The error of the pool is then
alike under all prompts, and cancels where prompts are compared.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from rbpp.elementwise import exp_
from rbpp.estimate import Estimate, mean_estimate
from rbpp.processes.handlers import FREE_SITES
from rbpp.processes.replicas import Replicas, Values
from rbpp.theory.curated_rows import (
    UNSEEN,
    can_propose,
    fresh_outputs,
    row_scores,
)
from rbpp.theory.information import contrastive_bounds, cross_entropy, midpoint
from rbpp.theory.model_factor import has_row_factors, sites_above_rows

# Data sets to average over, and rows of output in the pool that they share. The error on
# linear_gaussian is 0.25 nats, half of what a pool for each prompt reaches in the same time.
_DATA_SETS, _POOL_ROWS = 128, 1024
# In one world: (row, row of output) pairs, and (data set, data set, row) sums over the pool.
_PAIRS, _SUMS = 2**22, 2**19
# Densities of pairs kept at once, in all worlds.
_KEPT = 2**23
# A pool for each prompt, where every row has a model factor of its own and no pool can be shared.
_OWN_DATA_SETS, _OWN_POOL_ROWS = 48, 256
# Settings of the lower side, and rows of output drawn for each.
_SETTINGS, _FRESH_ROWS, _FRESH_PAIRS = 64, 512, 2**21
# Rows scored under every data set, in all worlds, where outputs are proposed around each row.
_SCORES, _LEAST_DATA_SETS = 2**18, 16
NO_DENSITY = (
    "site synthetic is a deterministic function of output, other than a copy: the process does not "
    "give its density"
)


def is_copy(replicas: Replicas, values: Values) -> bool:
    """Whether the synthetic data are the output as it is: ε = 0.

    Letters that curation draws with probability one are a copy too.
    """
    output, synthetic = values["output"], values["synthetic"]
    if synthetic.shape != output.shape or not bool((synthetic == output).all()):
        return False
    site = replicas.sites["synthetic"]
    if not site.random:
        return True
    return site.discrete and bool((replicas.row_log_density(values, "synthetic") > -1e-9).all())


def hides_density(replicas: Replicas, values: Values) -> bool:
    """Whether curation is a deterministic function of the output other than a copy."""
    return not replicas.sites["synthetic"].random and not is_copy(replicas, values)


def curated_entropy(replicas: Replicas, values: Values) -> Estimate:
    """H(S_gen) with both sides; differential for continuous rows.

    Upper side: −E log q(S_gen), where q averages over prompts other than that of S_gen. It bounds
    H(S_gen) whatever q is (Gibbs' inequality). Lower side: H(S_gen | above) plus the InfoNCE bound
    of I(above; S_gen). The value is between them, with half their distance in its error. Where the
    densities rest on too few draws, the error is unknown: infinite.

    The density of a row given what is above the output is in closed form where output and noise are
    normal. For other numbers outputs around the row are drawn; for letters, and where every row has
    a model factor of its own, outputs of a pool serve all rows.

    Args:
        replicas: the process in its worlds.
        values: draws of it.
    """
    if replicas.integrates_output and not has_row_factors(replicas):
        return _by_convolution(replicas, values)
    if can_propose(replicas):
        return _by_proposals(replicas, values)
    return _by_pool(replicas, values)


def _by_convolution(replicas: Replicas, values: Values) -> Estimate:
    few = values.first(_DATA_SETS)
    above = few.of(*sites_above_rows(replicas))
    lower, upper = cross_entropy(replicas.pairs(few, "synthetic", above, integrate_output=True))
    method = "noise added in closed form, average over prompts"
    return midpoint(
        replace(lower, method=f"{method} with the own one"),
        replace(upper, method=f"{method} without the own one"),
    )


def _by_proposals(replicas: Replicas, values: Values) -> Estimate:
    """H(S_gen | above) of many data sets and I(above; S_gen) of fewer, whose pairs cost more."""
    shape = values["output"].shape
    count = max(math.isqrt(_SCORES // (shape[0] * shape[3])), _LEAST_DATA_SETS)
    few, many = values.first(count), values.first(_SETTINGS)
    pairs = row_scores(replicas, few, few["synthetic"], "curated pairs", own=True)
    each = row_scores(replicas, many, many["synthetic"], "curated rows", own=True, paired=True)
    scores = pairs.log_density.sum(-1)
    own = torch.eye(scores.shape[-1], dtype=torch.bool, device=scores.device)
    from_above = torch.where(own, pairs.with_own().sum(-1).unsqueeze(-1), scores)
    lower = mean_estimate(-each.with_own().sum(-1), "lower") + _not_negative(scores)
    upper = mean_estimate(-each.log_density.squeeze(2).sum(-1), "upper")
    upper = upper + contrastive_bounds(from_above)[1]
    lower = replace(lower, value=torch.minimum(lower.value, upper.value))
    unknown = torch.where(each.is_known() & pairs.is_known(), 0.0, math.inf)
    lower, upper = (
        replace(side, method="outputs proposed around the rows").widened(unknown)
        for side in (lower, upper)
    )
    return midpoint(lower, upper)


def _not_negative(scores: Tensor) -> Estimate:
    """The InfoNCE bound, which is at least zero and has no limit once added to an entropy."""
    contrast = contrastive_bounds(scores)[0]
    return replace(contrast, value=contrast.value.clamp_min(0), limit=math.inf)


def _by_pool(replicas: Replicas, values: Values) -> Estimate:
    """The value is midway between the averages with and without the prompt of S_gen, whose errors
    cancel to first order, both corrected for the size of the pool."""
    scores, optimism = prompt_scores(replicas, values)
    upper = cross_entropy(scores)[1]
    lower = _entropy_given_above(replicas, values) + _not_negative(scores)
    least = torch.minimum(lower.value, upper.value)
    lower = replace(lower, value=least, method="contrast of prompts")
    with_own, without = cross_entropy(scores + optimism)
    middle = (with_own.value + without.value) / 2
    # The second order of the pool's bias. Where it is not small against the Monte Carlo error,
    # higher orders matter too, and the lower side is off by about as much: take the middle.
    bias, noise = upper.value - without.value, without.standard_error
    share = bias.square() / (bias.square() + (noise / 2).square()).clamp_min(1e-300)
    value = torch.lerp(middle, lower.value, share / 2)
    value = torch.minimum(torch.maximum(value, lower.value), upper.value)
    upper = replace(upper, method="average over prompts")
    found = Estimate(value, noise, upper.count).between(lower, upper)
    return found.widened((upper.value - lower.value) / 2)


def prompt_scores(replicas: Replicas, values: Values) -> tuple[Tensor, Tensor]:
    """log q(S_i | what is above the output in data set j), and its bias: (worlds, R, R).

    Every q is normalised in S_i, and does not depend on S_i for j ≠ i. The logarithm of an average
    over a pool is too low by half its relative variance, Σ (w f)² / (Σ w f)² for every row; the
    second result is that bias, as a positive number.
    """
    rows = replicas.sites["output"].rows
    if has_row_factors(replicas):
        make, count, pool_rows = _own_pools, _OWN_DATA_SETS, _OWN_POOL_ROWS
    else:
        make, count = _common_pool, min(_DATA_SETS, math.isqrt(_SUMS // rows))
        pool_rows = min(_POOL_ROWS, _PAIRS // (rows * count))
    few = values.first(count)
    pool, log_weight = make(replicas, few, max(1, pool_rows // rows))
    total = log_square = None
    # Rows of output have one distribution: each may have become any row of S. Some shifts at once.
    kept = max(1, _KEPT // (few["output"].shape[:4].numel() * pool.shape[1]))
    for shifts in torch.arange(rows).split(kept):
        parts = [_shifted(replicas, few, pool, log_weight, int(shift)) for shift in shifts]
        density = torch.cat([part[0] for part in parts], -1)
        weight = torch.cat([part[1] for part in parts], -2).exp()
        largest = density.amax(-1, keepdim=True).clamp_min(UNSEEN)
        relative = exp_(density.sub_(largest))
        total = _added(total, (relative @ weight).log() + largest)
        square = relative.square_() @ weight.square()
        log_square = _added(log_square, square.log() + 2 * largest)
    assert total is not None
    assert log_square is not None
    seen = total > UNSEEN
    optimism = torch.where(seen, 0.5 * (log_square - 2 * total).exp(), 0.0)
    return total.clamp_min(UNSEEN).sum(1), optimism.sum(1)


def _shifted(
    replicas: Replicas, few: Values, pool: Tensor, log_weight: Tensor, shift: int
) -> tuple[Tensor, Tensor]:
    """log p(row of S | the row of the pool `shift` places before), (worlds, rows, R, P), and the
    weights of those rows of the pool, (worlds, rows, P, R)."""
    swapped = {"output": pool.roll(shift, dims=3)}
    density = replicas.pairs(few, "synthetic", swapped, per_row=True)
    return density.movedim(-1, 1), log_weight.roll(shift, dims=3).movedim(-1, 1)


def _added(total: Tensor | None, part: Tensor) -> Tensor:
    return part if total is None else torch.logaddexp(total, part)


def _common_pool(replicas: Replicas, few: Values, count: int) -> tuple[Tensor, Tensor]:
    """Outputs (worlds, P, 1, rows) + event of fresh prompts, and log weights (worlds, P, R, rows).

    A weight is p(output | above_j) over the density of the pool, an average over its prompts.
    """
    fresh = replicas.draw(count, "curated pool", few.of(*FREE_SITES).first(1))
    names = sites_above_rows(replicas)
    own, other = (
        replicas.pairs(fresh, "output", drawn.of(*names), per_row=True) for drawn in (fresh, few)
    )
    weight = other - own.logsumexp(2, keepdim=True)
    total = weight.logsumexp((1, 3), keepdim=True)
    return fresh["output"], weight - total.clamp_min(UNSEEN)


def _own_pools(replicas: Replicas, few: Values, count: int) -> tuple[Tensor, Tensor]:
    """The same with `count` outputs for each prompt, of weight zero under the other prompts."""
    settings = few.count
    pool = fresh_outputs(replicas, few, count, "curated pools")
    mine = torch.eye(settings, dtype=pool.dtype, device=pool.device).repeat_interleave(count, 0)
    weight = (mine / (count * pool.shape[3])).log()
    return pool, weight[None, :, :, None].expand(len(pool), -1, -1, pool.shape[3])


def _entropy_given_above(replicas: Replicas, values: Values) -> Estimate:
    """A lower bound of H(S_gen | above), by averages over outputs that contain the true one."""
    rows = replicas.sites["output"].rows
    settings = _FRESH_PAIRS // (_FRESH_ROWS * rows)
    settings = min(max(8, settings), _SETTINGS, values.count)
    draws = max(1, _FRESH_ROWS // rows)
    few = values.first(settings)
    fresh = fresh_outputs(replicas, few, draws, "curation")
    own = few["output"].unsqueeze(2)
    outputs = torch.cat([fresh.unflatten(1, (settings, draws)), own], 2)
    scores = _row_scores(replicas, few["synthetic"], outputs)
    average = scores.logsumexp((-1, -2)) - math.log(scores.shape[-1] * scores.shape[-2])
    return mean_estimate(-average.sum(-1), "lower")


def _row_scores(replicas: Replicas, synthetic: Tensor, outputs: Tensor) -> Tensor:
    """log p(row of S_gen | row of output) of pairs: (worlds, settings, rows, draws, rows).

    Args:
        synthetic: S_gen of every setting, (worlds, settings, 1, rows) + event.
        outputs: outputs of every setting, (worlds, settings, draws, 1, rows) + event.
    """
    parts = []
    for row in range(synthetic.shape[3]):
        value = synthetic[:, :, :, row : row + 1].unsqueeze(2).expand(outputs.shape)
        found = replicas.row_log_density(
            {"output": outputs.flatten(1, 2), "synthetic": value.flatten(1, 2)}, "synthetic"
        )
        parts.append(found.reshape(*outputs.shape[:3], -1))
    return torch.stack(parts, 2)
