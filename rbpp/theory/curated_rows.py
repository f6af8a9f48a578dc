"""Density of curated rows by importance sampling of the outputs that they were made from.

p(s | above) = ∫ p(y | above) p(s | y) dy has an unbiased estimate from outputs y around the row s.
With draws of p(y) among them weights stay bounded where curation writes a row anew. The logarithm
of the estimate is too low. Once the output that s was made from is among the draws, it is too high:
E 1/p̂ = 1/p.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import StudentT, Transform, biject_to, constraints
from torch.distributions.transforms import identity_transform

from rbpp.processes.handlers import FREE_SITES
from rbpp.processes.replicas import Replicas, Values
from rbpp.randomness import normals, uniforms
from rbpp.theory.model_factor import has_row_factors, sites_above_rows

_DRAWS = 128
_FREEDOM = 5  # of Student's t around the row: heavier tails than normal noise
_WIDTH = 1.25  # of it, in robust standard deviations of output − row
_PRIOR = 0.4  # share of draws that do not look at the row
# Below it an average rests on too few draws for its error to be known.
LEAST_EFFECTIVE = 10.0
_WORST_ROWS = 0.1  # a world has the effective sample size of its row at this quantile
_SAME = identity_transform
# Stands for log 0 where no drawn output could have become this row.
UNSEEN = -1e6


@dataclass(frozen=True)
class RowScores:
    """Estimates of log p(row of point i | what is above the output in data set j).

    Attributes:
        log_density: (worlds, P, R, rows), of all pairs, or with R = 1 of j = i alone; too low in
            expectation.
        effective: effective sample size of every average, same shape.
        weights: number of draws behind each.
        own: the log weight of the output that a row was made from, (worlds, R, rows), where given.
    """

    log_density: Tensor
    effective: Tensor
    weights: int
    own: Tensor | None

    def with_own(self) -> Tensor:
        """The same for j = i with the true output among the draws: too high in expectation."""
        assert self.own is not None
        drawn = of_own(self.log_density) + math.log(self.weights)
        return torch.logaddexp(drawn, self.own) - math.log(self.weights + 1)

    def is_known(self) -> Tensor:
        """Whether averages of j = i rest on enough draws: (worlds,)."""
        return is_known(of_own(self.effective))


def of_own(scores: Tensor) -> Tensor:
    """Of (worlds, P, R, rows) the entries with j = i, of the first R points: (worlds, R, rows)."""
    if scores.shape[2] == 1:
        return scores[:, :, 0]
    return scores[:, : scores.shape[2]].diagonal(dim1=1, dim2=2).movedim(-1, 1)


def is_known(effective: Tensor) -> Tensor:
    """Whether averages of these effective sample sizes (worlds, …) have an error that is known."""
    return effective.flatten(1).quantile(_WORST_ROWS, -1) >= LEAST_EFFECTIVE


def can_propose(replicas: Replicas) -> bool:
    """Whether outputs around a row can be proposed: numbers of one shape, with a density."""
    output, synthetic = replicas.sites["output"], replicas.sites["synthetic"]
    return (
        output.random
        and synthetic.random
        and output.shape == synthetic.shape
        and not output.discrete
        and not synthetic.discrete
        and not has_row_factors(replicas)
    )


def row_scores(
    replicas: Replicas,
    few: Values,
    points: Tensor,
    label: str,
    *,
    own: bool = False,
    paired: bool = False,
) -> RowScores:
    """Score rows under what is above the output in R data sets.

    Args:
        replicas: the process in its worlds.
        few: R data sets of it.
        points: rows (worlds, P, 1, rows) + event.
        label: names the draws.
        own: whether the points are S_gen of the data sets, so that their outputs are known.
        paired: score point i under data set i alone.
    """
    above, count = few.of(*sites_above_rows(replicas)), points.shape[1]
    random = replicas.compute.generator(label, device=points.device)
    pool = None if paired else fresh_outputs(replicas, few, -(-2 * _DRAWS // few.count), label)
    free = _coordinates(replicas, few, points)
    residual = free.inv(few["output"].double()) - free.inv(few["synthetic"].double())
    event = tuple(range(residual.dim()))[4:]
    flat = residual.flatten(1, 3)
    centre = flat.median(1, keepdim=True).values
    scale = 1.4826 * (flat - centre).abs().median(1, keepdim=True).values
    scale = torch.maximum(_WIDTH * scale, 1e-3 * flat.std(1, keepdim=True)).clamp_min(1e-12)
    middle = free.inv(points.double()) + centre.unsqueeze(1).unsqueeze(1)
    width = scale.unsqueeze(1).unsqueeze(1).expand_as(middle)
    around = StudentT(float(_FREEDOM), middle, width, validate_args=False)

    def log_weight(output: Tensor, possible: Tensor) -> Tensor:
        """Of `output`; `possible` takes its place where no prompt gives it."""
        values = {"output": output, **above}
        if paired:
            conditional = replicas.row_log_density(values, "output").unsqueeze(2)
        else:
            conditional = replicas.pairs(values, "output", above, per_row=True)
        prior = conditional.logsumexp(2) - math.log(conditional.shape[2])
        beyond = prior == -math.inf
        output = torch.where(beyond.unsqueeze(2)[(..., *(None,) * len(event))], possible, output)
        inner = free.inv(output)
        near = around.log_prob(inner) - free.log_abs_det_jacobian(inner, output)
        near = (near.sum(event) if event else near).squeeze(2)
        proposal = torch.logaddexp(prior + math.log(_PRIOR), near + math.log1p(-_PRIOR))
        curated = replicas.row_log_density({"output": output, "synthetic": points}, "synthetic")
        return conditional + torch.where(beyond, 0.0, curated - proposal).unsqueeze(2)

    size = _DRAWS if pool is None else pool.shape[1]
    shifts = torch.randperm(size, generator=random, device=points.device)[:_DRAWS].tolist()
    total = square = torch.full((), -math.inf, dtype=torch.float64)
    for shift in shifts:
        if pool is None:
            prior = fresh_outputs(replicas, few, 1, f"{label} {shift}")
        else:
            prior = pool[:, (torch.arange(count) + shift) % size]
        normal = normals(points.shape, random, middle)
        chance = uniforms(points.shape[:4], random, middle)
        others = normals((_FREEDOM, *points.shape), random, middle)
        # Student's t is a normal over the root of a mean of squared normals.
        drawn = free(middle + width * normal / others.square().mean(0).sqrt())
        chosen = (chance < _PRIOR).reshape(*chance.shape, *(1,) * len(event))
        weight = log_weight(torch.where(chosen, prior, drawn), prior)
        total, square = torch.logaddexp(total, weight), torch.logaddexp(square, 2 * weight)
    found = (total - math.log(_DRAWS)).clamp_min(UNSEEN)
    effective = torch.where(total > UNSEEN, (2 * total - square).exp(), 0.0)
    true = None
    if own:
        true = of_own(log_weight(few["output"], few["output"]))
    return RowScores(found, effective, _DRAWS, true)


def _coordinates(replicas: Replicas, few: Values, points: Tensor) -> Transform:
    """From the line to the numbers that an output can be, where curated rows are such numbers too.

    Noise on positive rows is mostly a factor: on their logarithms it is alike for all.
    """
    support = replicas.support(few, "output")
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    try:
        free = biject_to(support)
        inside = all(bool(support.check(rows).all()) for rows in (points, few["synthetic"]))
    except NotImplementedError:
        return _SAME
    return free if inside and free.domain.event_dim == free.codomain.event_dim == 0 else _SAME


def fresh_outputs(
    replicas: Replicas, few: Values, count: int, label: str, above: Sequence[str] = ()
) -> Tensor:
    """`count` outputs for each data set, given what is above them: (worlds, R · count, 1, rows).

    `above` are the sites held besides the anchor, by default those of `sites_above_rows`.
    """
    held = few.of("anchor", *(above or sites_above_rows(replicas))).repeated(count)
    # Free sites have no part in the output: a draw of them would be wasted.
    given = held | few.of(*FREE_SITES).first(1)
    return replicas.draw(few.count * count, label, given)["output"]
