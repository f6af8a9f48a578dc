"""Mutual information from a known conditional density: bounds from both sides. All in nats.

The contrastive bounds compare every pair with the others, in one matrix of log densities
log p(b_i | a_j); the lower one cannot exceed log R. The variational upper bound needs a reference
distribution and no other pairs, so it bounds from above where the contrastive bounds are saturated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from rbpp.elementwise import exp_
from rbpp.estimate import SIDES, Estimate, mean_estimate
from rbpp.threads import block_elements

# Of a pass over a matrix of pairs: what stays in a processor's cache (2 MB of float64).
_BLOCK_ELEMENTS = 2**18


def contrastive_bounds(log_conditional: Tensor) -> tuple[Estimate, Estimate]:
    """InfoNCE and leave-one-out bound of I(a; b), from the conditional log density of b given a.

    With pairs (a_i, b_i), i = 1..R, independent of each other,

        lower = mean_i [ log p(b_i|a_i) − log (1/R) Σ_j p(b_i|a_j) ]            ≤ log R
        upper = mean_i [ log p(b_i|a_i) − log (1/(R−1)) Σ_{j≠i} p(b_i|a_j) ]

    (Poole et al. 2019, equations 10 and 17.) Their expectations bound I from below and above. A
    density of zero (−∞) of b_i under another a_j stays in the sums. The upper bound is +∞ where b_i
    is impossible under all others, since then nothing bounds I from above.

    Args:
        log_conditional: (…, R, R), entry [i, j] is log p(b_i | a_j); densities or probabilities.

    Returns:
        (lower, upper), values of shape (…). The standard errors are those of the infinitesimal
        jackknife over pairs, which accounts for every pair's part in the sums of the others. The
        lower bound has the limit log R.

    Raises:
        ValueError: if the matrix is not square, R < 2, an entry is nan or +∞, or a pair is
            impossible under its own condition.

    Poole, Ozair, van den Oord, Alemi and Tucker, On Variational Bounds of Mutual Information, ICML
    2019 (https://arxiv.org/abs/1905.06922).

    >>> lower, upper = contrastive_bounds(torch.zeros(4, 4))  # b is independent of a
    >>> lower.value.item(), upper.value.item()
    (0.0, 0.0)
    """
    _check_matrix(log_conditional)
    return contrastive_bounds_of_rows(_copied_rows(log_conditional))


def contrastive_bounds_of_rows(blocks: Iterable[Tensor]) -> tuple[Estimate, Estimate]:
    """`contrastive_bounds` of a matrix that comes as blocks of rows; memory is one block's.

    Args:
        blocks: tensors (…, r, R), together the R rows of the matrix in order. A block is
            overwritten, and no longer read once the next is asked for: one buffer can serve all.

    >>> matrix = torch.randn(6, 6, generator=generator)
    >>> torch.equal(contrastive_bounds_of_rows(iter(matrix.clone().split(2)))[0].value,
    ...             contrastive_bounds(matrix)[0].value)
    True
    """
    lower, upper = _contrast(_row_sums(blocks))
    lower = replace(lower, method="InfoNCE", limit=math.log(lower.count))
    return lower, replace(upper, method="leave-one-out")


def cross_entropy(log_conditional: Tensor) -> tuple[Estimate, Estimate]:
    """−E log (1/R) Σ_j p(b_i | a_j), the entropy of b, with and without the term of its own a.

    Without that term it is an upper bound of h(b), whatever density the scores belong to (Gibbs'
    inequality). With that term the error has the other sign and, to first order, the same size.

    Args:
        log_conditional: (…, R, R), as for `contrastive_bounds`.

    Returns:
        (with, without), values of shape (…), errors by the infinitesimal jackknife.
    """
    _check_matrix(log_conditional)
    sums = _row_sums(_copied_rows(log_conditional))
    # With own scores of zero the contrastive bounds are minus the cross-entropies.
    return _contrast(replace(sums, own=torch.zeros_like(sums.own)))


@dataclass(frozen=True)
class _RowSums:
    """Of a matrix of pairs: the diagonal `own`, log sums of rows with and without it, and the share
    of every column in these sums, added up over rows; each (…, R)."""

    own: Tensor
    joint: Tensor
    joint_shares: Tensor
    others: Tensor
    others_shares: Tensor


def _copied_rows(matrix: Tensor) -> Iterator[Tensor]:
    """Copies of some rows at a time: the matrix is read once, and nothing of its size is made."""
    elements = block_elements(_BLOCK_ELEMENTS, matrix.device)
    step = max(1, elements // matrix[..., 0, :].numel())
    buffer = torch.empty_like(matrix[..., :step, :])
    for block in matrix.split(step, -2):
        yield buffer[..., : block.shape[-2], :].copy_(block)


def _row_sums(blocks: Iterable[Tensor]) -> _RowSums:
    """One pass over the rows of a matrix, in place, while each block is in the cache."""
    owns: list[Tensor] = []
    joints: list[Tensor] = []
    others: list[Tensor] = []
    shares: Tensor | None = None
    start = 0
    for block in blocks:
        count = block.shape[-1]
        stop = start + block.shape[-2]
        if stop > count:
            raise ValueError(f"Expected R rows of R columns; got more than {count} rows")
        self_pair = block.diagonal(offset=start, dim1=-2, dim2=-1)
        own = self_pair.clone()
        self_pair.fill_(-math.inf)
        largest = block.amax(-1, keepdim=True)
        _check_rows(block, own, largest, start)
        largest.masked_fill_(largest == -math.inf, 0.0)  # no other is possible: their sum is zero
        rest = exp_(block.sub_(largest)).sum(-1)
        largest = largest.squeeze(-1)
        other = largest + rest.log()
        joint = torch.logaddexp(other, own)
        inverse = torch.where(rest > 0, 1 / rest, 0.0)
        part = torch.stack([(largest - joint).exp(), inverse], -2) @ block
        part[..., 0, start:stop] += (own - joint).exp()
        shares = part if shares is None else shares + part
        for kept, values in ((owns, own), (joints, joint), (others, other)):
            kept.append(values)
        start = stop
    if shares is None or start != shares.shape[-1]:
        raise ValueError(f"Expected R rows of R columns; got {start} rows")
    own, joint, other = (torch.cat(parts, -1) for parts in (owns, joints, others))
    return _RowSums(own, joint, shares[..., 0, :], other, shares[..., 1, :])


def variational_upper_bound(divergences: Tensor) -> Estimate:
    """Upper bound of I(S; W) by divergences to a reference: E_S KL(q(W|S) ‖ r(W)).

    It is the variational bound of Barber and Agakov. It is an identity with r the marginal of W
    ("golden formula"), and larger by KL(marginal ‖ r) for any other r. It bounds for every r that
    does not depend on the S it is compared with: fit r to some data sets, average over the others.

    Args:
        divergences: KL(q(W|S_i) ‖ r), or log q(W_i|S_i) − log r(W_i) with W_i ~ q(·|S_i): (…, R).

    Returns:
        Estimate of shape (…), direction "upper".

    Polyanskiy and Wu, Information Theory: From Coding to Learning, 2022, equation 4.3.
    """
    return mean_estimate(divergences, "upper", method="variational upper bound")


def midpoint(lower: Estimate, upper: Estimate) -> Estimate:
    """The middle of two bounds with both as its sides; the lower one where the upper is infinite.

    The error has half their distance in it, beside the larger of their errors: both come from the
    same draws.

    >>> zero, two = (Estimate(torch.tensor(v), torch.tensor(0.0)) for v in (0.0, 2.0))
    >>> middle = midpoint(zero, two)
    >>> middle.value.item(), middle.standard_error.item()
    (1.0, 1.0)
    """
    low, high = lower.value, upper.value
    bounded = high.isfinite()
    error = torch.maximum(lower.standard_error, upper.standard_error)
    found = Estimate(
        torch.where(bounded, (low + high) / 2, low),
        torch.where(bounded, error, lower.standard_error),
        lower.count,
    )
    return found.widened(torch.where(bounded, (high - low) / 2, 0.0)).between(lower, upper)


def sides_in_words(estimate: Estimate) -> str:
    """One line: which estimator gave which side, and whether the sides say anything."""
    parts, sides = [], {name: estimate.end(name) for name in SIDES}
    for name, side in sides.items():
        if side is None:
            parts.append(f"no {name} side")
        elif side is not estimate or estimate.direction == name:
            parts.append(f"{name} side {float(side.value.mean()):.3g} by {side.method}")
    lower = estimate.lower
    if lower is not None and bool(lower.saturated.any()):
        parts.append(f"the lower side is saturated near its limit {lower.limit:.3g}")
    if estimate.far_apart and None not in sides.values():
        parts.append("the sides are too far apart to say more than that it lies between them")
    return "; ".join(parts)


def _contrast(sums: _RowSums) -> tuple[Estimate, Estimate]:
    """Bounds from below and above: mean_i [own_i − log mean_j], with and without j = i."""
    count = sums.own.shape[-1]

    def side(
        direction: Literal["lower", "upper"], total: Tensor, shares: Tensor, terms: int
    ) -> Estimate:
        each = sums.own - (total - math.log(terms))
        value = each.mean(-1)
        # Infinitesimal jackknife: how much each a_j weighs in the sums of all b_i counts too.
        influence = each - value.unsqueeze(-1) - (shares - 1)
        error = influence.square().sum(-1).sqrt() / math.sqrt(count * (count - 1))
        return Estimate(value, torch.where(error.isfinite(), error, math.inf), count, direction)

    lower = side("lower", sums.joint, sums.joint_shares, count)
    upper = side("upper", sums.others, sums.others_shares, count - 1)
    return lower, upper


def _check_matrix(matrix: Tensor) -> None:
    if matrix.dim() < 2 or matrix.shape[-1] != matrix.shape[-2] or matrix.shape[-1] < 2:
        raise ValueError(
            "Expected log densities of shape (…, R, R) with R ≥ 2 pairs; "
            f"got shape {tuple(matrix.shape)}"
        )
    if not matrix.is_floating_point():
        raise ValueError(f"Expected floating-point log densities; got {matrix.dtype}")


def _check_rows(block: Tensor, own: Tensor, largest: Tensor, start: int) -> None:
    """`largest` of the other pairs per row: it is nan or +∞ where an entry is."""
    wrong = largest.isnan().any() | (largest == math.inf).any() | ~own.isfinite().all()
    if not bool(wrong):
        return
    block.diagonal(offset=start, dim1=-2, dim2=-1).copy_(own)
    entries = block.isnan() | (block == math.inf)
    if bool(entries.any()):
        *batch, row, column = entries.nonzero()[0].tolist()
        value, where = block[(*batch, row, column)].item(), (*batch, start + row, column)
        raise ValueError(f"Expected log densities below +∞; got {value} at {where}")
    *batch, row = (own == -math.inf).nonzero()[0].tolist()
    raise ValueError(
        "Expected every pair to be possible under its own condition; got density zero for pair "
        f"{start + row} (index {(*batch, start + row)})"
    )
