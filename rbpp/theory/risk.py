"""What training on synthetic rows costs on the task, and how far apart the laws of the rows are.

Losses are in [0, 1] here and scaled by C where they are reported. D_gen is the law of a row given
everything above the outputs, as D_gen depends on the generator and the prompt alone: given those,
rows are independent, which the lemmas need.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rbpp.estimate import Estimate
from rbpp.processes.replicas import Replicas, Values
from rbpp.theory.factors import factor_kind
from rbpp.theory.flow import is_copy
from rbpp.theory.information import mean_estimate
from rbpp.theory.learners import Learned, Prepared

# Prompts and rows from either law for total variations.
_SETTINGS = 16
_POINTS = 512
# For curated rows, whose density is an average over outputs: fewer, since each costs as many.
_CURATED_SETTINGS, _CURATED_POINTS, _CURATION_DRAWS = 8, 256, 400
_PASS_ELEMENTS = 2**22
_ABOVE = ("anchor", "prompt", "prompt_factor")


@dataclass(frozen=True)
class Risks:
    """Risks of a learner, per world; differences are averages over replicates of differences.

    Attributes:
        error: R_D(W) − R̂_S(W), the measured generalization error; `None` without `target`.
        gap: R_{D_S}(W) − R̂_S(W), where D_S is the law of the rows themselves.
        absolute_gap: the mean of its absolute value.
        on_own_law, on_sample: the two risks of `gap`.
        losses: losses of W on fresh rows of the law, (worlds, R, n).
    """

    error: Estimate | None
    gap: Estimate
    absolute_gap: Estimate
    on_own_law: Estimate
    on_sample: Estimate
    losses: Tensor


def synthetic_risks(
    replicas: Replicas,
    prepared: Prepared,
    learned: Learned,
    values: Values,
    generator: torch.Generator,
) -> Risks | None:
    """Risks of W trained on S_gen; `None` where the learner has no loss."""
    names = [*_ABOVE, *(["model_factor"] if factor_kind(replicas) == "above" else [])]
    held = {name: values[name] for name in (*names, "target", "unprompted") if name in values}
    fresh = replicas.draw(values["anchor"].shape[1], "fresh synthetic", given=held)
    return _risks(replicas, prepared, learned, values, fresh, "synthetic", generator)


def anchor_risks(
    replicas: Replicas,
    prepared: Prepared,
    learned: Learned,
    values: Values,
    generator: torch.Generator,
) -> Risks | None:
    """Risks of W' trained on the anchors; their own law is that of another replicate's anchors."""
    fresh = {**values, "anchor": values["anchor"].roll(1, dims=1)}
    return _risks(replicas, prepared, learned, values, fresh, "anchor", generator)


def _risks(
    replicas: Replicas,
    prepared: Prepared,
    learned: Learned,
    values: Values,
    fresh: Values,
    name: str,
    generator: torch.Generator,
) -> Risks | None:
    parameters = learned.draw(generator)
    sample = prepared.loss(parameters, replicas.rows(values, name))
    own = prepared.loss(parameters, replicas.rows(fresh, name))
    if sample is None or own is None:
        return None
    task = None
    if "target" in replicas.sites:
        task = prepared.loss(parameters, replicas.rows(values, "target"))
    gap = own.mean(-1) - sample.mean(-1)
    # The absolute value of a noisy risk is too large by its noise: the average over many fresh
    # rows would be smaller. It errs on the side of a larger left-hand side.
    return Risks(
        None if task is None else mean_estimate(task.mean(-1) - sample.mean(-1)),
        mean_estimate(gap),
        mean_estimate(gap.abs(), "upper"),
        mean_estimate(own.mean(-1)),
        mean_estimate(sample.mean(-1)),
        own,
    )


def estimated_sub_gaussian(losses: Tensor, temperatures: int = 25) -> Tensor:
    """σ of losses (…, R, n) under the law of a row, the largest over W: (…).

    sup_λ sqrt(2 log E exp(λ(loss − E loss)) / λ²) with the rows' mean in place of the expectation:
    an estimate, not a bound, and too small where rare rows matter. σ = C/2 is safe.
    """
    centred = (losses - losses.mean(-1, keepdim=True)).double()
    scale = centred.std().clamp_min(1e-12)
    grid = torch.logspace(-1, 1, temperatures, dtype=torch.float64, device=losses.device) / scale
    rate = torch.cat([grid, -grid])
    count = math.log(losses.shape[-1])
    largest = losses.new_zeros(losses.shape[:-2], dtype=torch.float64)
    for value in rate:
        cumulant = (value * centred).logsumexp(-1) - count
        largest = torch.maximum(largest, (2 * cumulant / value**2).amax(-1))
    return largest.clamp_min(0).sqrt()


def total_variations(
    replicas: Replicas, values: Values
) -> tuple[dict[str, Estimate], dict[str, str]]:
    """TV(D, D_M), TV(D_M, D_gen), TV(D, D_gen), and why one is missing: by density ratios.

    TV(p, q) = E_{½(p+q)} |p − q| / (p + q), an average of numbers in [0, 1]; divergences from D_gen
    are averages over prompts. Where curation has to be integrated out, TV = E_p (1 − q/p)₊ with an
    unbiased estimate of q: by Jensen's inequality too large, never too small.
    """
    found: dict[str, Estimate] = {}
    missing: dict[str, str] = {}
    laws = {"task": "target", "generator": "unprompted"}
    sites = replicas.sites
    absent = {
        law: f"the process has no site {site}" for law, site in laws.items() if site not in sites
    }
    for law, site in laws.items():
        if law not in absent and not sites[site].random:
            absent[law] = f"site {site} is deterministic: it has no density"
    if absent:
        missing["task_divergence"] = "; ".join(absent.values())
    else:
        found["task_divergence"] = _between(replicas, values, "target", "unprompted")
    for law, name in (("generator", "generation_divergence"), ("task", "total_divergence")):
        if law in absent:
            missing[name] = absent[law]
        elif is_copy(replicas, values):
            found[name] = _from_output(replicas, values, laws[law])
        elif sites["synthetic"].random:
            found[name] = _from_curated(replicas, values, laws[law])
        else:
            missing[name] = (
                "site synthetic is a deterministic function of output, other than a copy: the "
                "process does not give its density"
            )
    return found, missing


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
    found = replicas.row_log_density({**_fixed(replicas, values, name), name: placed}, name)
    return found.movedim(0, 2).flatten(2)[..., :count]


def _fixed(replicas: Replicas, values: Values, name: str) -> Values:
    """What a row of D, D_M or D_gen is conditional on, a few settings of it."""
    if name in ("target", "unprompted"):
        return {}
    names = [*_ABOVE, *(["model_factor"] if factor_kind(replicas) == "above" else [])]
    settings = min(_SETTINGS, values["anchor"].shape[1])
    return {key: values[key][:, :settings].unsqueeze(0) for key in names if key in values}


def _symmetric(first: Tensor, second: Tensor) -> Tensor:
    """|p − q| / (p + q) of log densities; where both vanish the laws agree."""
    difference = torch.where(first == second, 0.0, first - second)
    return torch.tanh(difference.abs() / 2)


def _between(replicas: Replicas, values: Values, first: str, second: str) -> Estimate:
    sides = []
    for source in (first, second):
        points = _points(replicas, values, source, 2 * _POINTS)
        logs = [_log_density_at(replicas, values, name, points) for name in (first, second)]
        sides.append(mean_estimate(_symmetric(*logs).squeeze(1)))
    return _halves(sides)


def _halves(sides: list[Estimate]) -> Estimate:
    value = (sides[0].value + sides[1].value) / 2
    error = (sides[0].standard_error.square() + sides[1].standard_error.square()).sqrt() / 2
    return Estimate(value, error, sum(side.count for side in sides))


def _from_output(replicas: Replicas, values: Values, law: str) -> Estimate:
    """TV between a law of rows and the output given its prompt, averaged over prompts."""
    settings = min(_SETTINGS, values["anchor"].shape[1])
    from_law = _points(replicas, values, law, _POINTS)
    own = values["output"][:, :settings].unsqueeze(0)
    sides = []
    for points in (from_law, own):
        first = _log_density_at(replicas, values, law, points)
        second = _log_density_at(replicas, values, "output", points)
        sides.append(_symmetric(first, second).mean(-1))
    # Prompts share the rows of the law: their spread and that of the rows both count.
    each = mean_estimate((sides[0] + sides[1]) / 2)
    shared = from_law.shape[0] * from_law.shape[4]
    error = (each.standard_error.square() + 0.25 * 0.25 / shared).sqrt()
    return Estimate(each.value, error, each.count)


def _from_curated(replicas: Replicas, values: Values, law: str) -> Estimate:
    points = _points(replicas, values, law, _CURATED_POINTS)
    log_law = _log_density_at(replicas, values, law, points)  # (worlds, 1, N)
    fixed = _fixed(replicas, values, "output")
    settings = min(_CURATED_SETTINGS, next(iter(fixed.values())).shape[2])
    fixed = {key: value[:, :, :settings] for key, value in fixed.items()}
    rows = replicas.sites["output"].rows
    draws = max(1, _CURATION_DRAWS // rows)
    given = {key: value[0].repeat_interleave(draws, 1) for key, value in fixed.items()}
    idle: Values = {key: values[key][:, :1] for key in ("target", "unprompted") if key in values}
    outputs = replicas.draw(settings * draws, f"curated {law}", given={**given, **idle})["output"]
    # One point against every row of output at a time, the points as further runs of the process.
    flat = points.movedim(0, 2).flatten(2, 4).movedim(2, 0)  # (N, worlds, 1) + event
    flat = flat.unsqueeze(3).unsqueeze(3)
    step = max(1, _PASS_ELEMENTS // outputs.numel())
    logs = []
    for chunk in flat.split(step):
        placed = {"output": outputs.unsqueeze(0), "synthetic": chunk}
        found = replicas.row_log_density(placed, "synthetic").expand(-1, -1, -1, rows)
        logs.append(found.unflatten(2, (settings, draws)).flatten(3).logsumexp(-1))
    log_curated = torch.cat(logs).movedim(0, -1) - math.log(draws * rows)
    ratio = (log_curated - log_law).nan_to_num(-math.inf)
    each = (-torch.expm1(ratio)).clamp_min(0).mean(-1)
    mean = mean_estimate(each)
    error = (mean.standard_error.square() + 0.25 / log_law.shape[-1]).sqrt()
    return Estimate(mean.value, error, mean.count, "upper")
