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
from rbpp.processes.replicas import Replicas, Values
from rbpp.theory.information import contrastive_bounds, cross_entropy
from rbpp.theory.model_factor import factor_kind

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
_IDLE = ("target", "unprompted")
# Stands for log 0 where no output of the pool could have become this row.
_UNSEEN = -1e6
NO_DENSITY = (
    "site synthetic is a deterministic function of output, other than a copy: the process does not "
    "give its density"
)


def is_copy(replicas: Replicas, values: Values) -> bool:
    """Whether the synthetic data are the output as it is: ε = 0."""
    same = values["synthetic"].shape == values["output"].shape
    return (
        not replicas.sites["synthetic"].random
        and same
        and bool((values["synthetic"] == values["output"]).all())
    )


def hides_density(replicas: Replicas, values: Values) -> bool:
    """Whether curation is a deterministic function of the output other than a copy."""
    return not replicas.sites["synthetic"].random and not is_copy(replicas, values)


def curated_entropy(replicas: Replicas, values: Values) -> Estimate:
    """H(S_gen) with both sides; differential for continuous rows.

    Upper side: −E log q(S_gen), where q averages over prompts other than that of S_gen. It bounds
    H(S_gen) whatever q is (Gibbs' inequality). Lower side: H(S_gen | above), from averages that
    contain the output which the row was made from, plus the InfoNCE bound of I(above; S_gen).
    Value: midway between the averages with and without the prompt of S_gen, whose errors cancel to
    first order, both corrected for the size of the pool.

    Args:
        replicas: the process in its worlds.
        values: draws of it.
    """
    scores, optimism = prompt_scores(replicas, values)
    upper = cross_entropy(scores)[1]
    contrast = contrastive_bounds(scores)[0]
    above = replace(contrast, value=contrast.value.clamp_min(0), limit=math.inf)
    lower = _entropy_given_above(replicas, values) + above
    lower = replace(
        lower,
        value=torch.minimum(lower.value, upper.value),
        direction="lower",
        method="contrast of prompts",
    )
    with_own, without = cross_entropy(scores + optimism)
    middle = (with_own.value + without.value) / 2
    # The second order of the pool's bias. Where it is not small against the Monte Carlo error,
    # higher orders matter too, and the lower side is off by about as much: take the middle.
    bias, noise = upper.value - without.value, without.standard_error
    share = bias.square() / (bias.square() + (noise / 2).square()).clamp_min(1e-300)
    value = torch.lerp(middle, lower.value, share / 2)
    error = (noise.square() + (bias / 2).square()).sqrt()
    return Estimate(
        value,
        error,
        upper.count,
        lower=lower,
        upper=replace(upper, method="average over prompts"),
    )


def prompt_scores(replicas: Replicas, values: Values) -> tuple[Tensor, Tensor]:
    """log q(S_i | what is above the output in data set j), and its bias: (worlds, R, R).

    Every q is normalised in S_i, and does not depend on S_i for j ≠ i. The logarithm of an average
    over a pool is too low by half its relative variance, Σ (w f)² / (Σ w f)² for every row; the
    second result is that bias, as a positive number.
    """
    rows = replicas.sites["output"].rows
    if _has_row_factors(replicas):
        make, count, pool_rows = _own_pools, _OWN_DATA_SETS, _OWN_POOL_ROWS
    else:
        make, count = _common_pool, min(_DATA_SETS, math.isqrt(_SUMS // rows))
        pool_rows = min(_POOL_ROWS, _PAIRS // (rows * count))
    few = {name: value[:, :count] for name, value in values.items()}
    pool, log_weight = make(replicas, few, max(1, pool_rows // rows))
    total = log_square = None
    # Rows of output have one distribution: each may have become any row of S. Some shifts at once.
    kept = max(1, _KEPT // (few["output"].shape[:4].numel() * pool.shape[1]))
    for shifts in torch.arange(rows).split(kept):
        parts = [_shifted(replicas, few, pool, log_weight, int(shift)) for shift in shifts]
        density = torch.cat([part[0] for part in parts], -1)
        weight = torch.cat([part[1] for part in parts], -2).exp()
        largest = density.amax(-1, keepdim=True).clamp_min(_UNSEEN)
        relative = exp_(density.sub_(largest))
        total = _added(total, (relative @ weight).log() + largest)
        square = relative.square_() @ weight.square()
        log_square = _added(log_square, square.log() + 2 * largest)
    assert total is not None
    assert log_square is not None
    seen = total > _UNSEEN
    optimism = torch.where(seen, 0.5 * (log_square - 2 * total).exp(), 0.0)
    return total.clamp_min(_UNSEEN).sum(1), optimism.sum(1)


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
    idle: Values = {name: few[name][:, :1] for name in _IDLE if name in few}
    fresh = replicas.draw(count, "curated pool", given=idle)
    names = _above(replicas)
    own = replicas.pairs(fresh, "output", {name: fresh[name] for name in names}, per_row=True)
    pooled = own.logsumexp(2, keepdim=True)
    weight = replicas.pairs(fresh, "output", {name: few[name] for name in names}, per_row=True)
    weight = weight - pooled
    total = weight.logsumexp((1, 3), keepdim=True)
    return fresh["output"], weight - total.clamp_min(_UNSEEN)


def _own_pools(replicas: Replicas, few: Values, count: int) -> tuple[Tensor, Tensor]:
    """The same with `count` outputs for each prompt, of weight zero under the other prompts."""
    settings = few["output"].shape[1]
    pool = _fresh_outputs(replicas, few, count, "curated pools")
    mine = torch.eye(settings, dtype=pool.dtype, device=pool.device).repeat_interleave(count, 0)
    weight = (mine / (count * pool.shape[3])).log()
    return pool, weight[None, :, :, None].expand(len(pool), -1, -1, pool.shape[3])


def _fresh_outputs(replicas: Replicas, few: Values, count: int, label: str) -> Tensor:
    """`count` outputs for each data set, given what is above them: (worlds, R · count, 1, rows)."""
    held = {name: few[name] for name in ("anchor", *_above(replicas)) if name in few}
    given = {name: value.repeat_interleave(count, 1) for name, value in held.items()}
    # These sites have no part in the output: a draw of them would be wasted.
    given |= {name: few[name][:, :1] for name in _IDLE if name in few}
    return replicas.draw(few["output"].shape[1] * count, label, given=given)["output"]


def _above(replicas: Replicas) -> tuple[str, ...]:
    """Sites given which rows are independent: the prompt, and a model factor that rows share."""
    shared = factor_kind(replicas) == "above" and not _has_row_factors(replicas)
    names = ("prompt", "prompt_factor", *(("model_factor",) if shared else ()))
    return tuple(name for name in names if name in replicas.sites)


def _has_row_factors(replicas: Replicas) -> bool:
    """Whether the model factor is above the output, one for each row."""
    return factor_kind(replicas) == "above" and replicas.sites["model_factor"].rows > 1


def _entropy_given_above(replicas: Replicas, values: Values) -> Estimate:
    """A lower bound of H(S_gen | above), by averages over outputs that contain the true one."""
    rows = replicas.sites["output"].rows
    settings = _FRESH_PAIRS // (_FRESH_ROWS * rows)
    settings = min(max(8, settings), _SETTINGS, values["output"].shape[1])
    draws = max(1, _FRESH_ROWS // rows)
    few = {name: value[:, :settings] for name, value in values.items()}
    fresh = _fresh_outputs(replicas, few, draws, "curation")
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
