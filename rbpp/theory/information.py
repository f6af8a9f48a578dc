"""Mutual information from a known conditional density: bounds from both sides. All in nats.

The sandwich contrasts every pair with the others, in one matrix of log densities log p(b_i | a_j),
and cannot exceed log R from below. The golden formula needs a reference law and no contrast, so it
has the upper side where the sandwich is saturated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rbpp.elementwise import exp_
from rbpp.estimate import Estimate
from rbpp.threads import block_elements

# A lower side within this distance of log R is cut by it: the truth may be anything above.
SATURATION_MARGIN = 0.7
# Of a pass over a matrix of pairs: what stays in a processor's cache (2 MB of float64).
_BLOCK_ELEMENTS = 2**18


def sandwich(log_conditional: Tensor) -> tuple[Estimate, Estimate]:
    """Lower and upper bound of I(a; b) from the conditional log density of b given a.

    With pairs (a_i, b_i), i = 1..R, independent of each other,

        lower = mean_i [ log p(b_i|a_i) − log (1/R) Σ_j p(b_i|a_j) ]            ≤ log R
        upper = mean_i [ log p(b_i|a_i) − log (1/(R−1)) Σ_{j≠i} p(b_i|a_j) ]

    (Poole et al. 2019, equations 10 and 17; their expectations bound I from either side.) Density
    zero (−∞) of b_i under another a_j stays in the sums: the upper side is +∞ where all others are
    impossible, since then nothing bounds I from above.

    Args:
        log_conditional: (…, R, R), entry [i, j] is log p(b_i | a_j); densities or probabilities.

    Returns:
        (lower, upper), values of shape (…); standard errors by the infinitesimal jackknife over
        pairs, which accounts for every pair's part in the sums of the others.

    Raises:
        ValueError: if the matrix is not square, R < 2, an entry is nan or +∞, or a pair is
            impossible under its own condition.

    Poole, Ozair, van den Oord, Alemi and Tucker, On Variational Bounds of Mutual Information, ICML
    2019 (https://arxiv.org/abs/1905.06922).

    >>> lower, upper = sandwich(torch.zeros(4, 4))  # b is independent of a
    >>> lower.value.item(), upper.value.item()
    (0.0, 0.0)
    """
    _check_matrix(log_conditional)
    return sandwich_of_rows(_copied_rows(log_conditional))


def sandwich_of_rows(blocks: Iterable[Tensor]) -> tuple[Estimate, Estimate]:
    """`sandwich` of a matrix given as its rows in order, some at a time; memory is one block's.

    Args:
        blocks: tensors (…, r, R), together the R rows of the matrix. They are overwritten, and
            done with when the next is asked for: one buffer can serve all.

    >>> matrix = torch.randn(6, 6, generator=generator)
    >>> torch.equal(sandwich_of_rows(iter(matrix.clone().split(2)))[0].value,
    ...             sandwich(matrix)[0].value)
    True
    """
    return _contrast(_row_sums(blocks))


def cross_entropy(log_conditional: Tensor) -> tuple[Estimate, Estimate]:
    """−E log (1/R) Σ_j p(b_i | a_j), the entropy of b, with and without its own a.

    Without its own a: an upper side of h(b), whatever density the scores are of (Gibbs'
    inequality). With it, the error of the averages is of the other sign and to first order of the
    same size.

    Args:
        log_conditional: (…, R, R), as for `sandwich`.

    Returns:
        (with, without), values of shape (…), errors by the infinitesimal jackknife.
    """
    _check_matrix(log_conditional)
    sums = _row_sums(_copied_rows(log_conditional))
    # The sandwich of own scores that are zero is what is left of it.
    return _contrast(replace(sums, own=torch.zeros_like(sums.own)))


@dataclass(frozen=True)
class _RowSums:
    """Of a matrix of pairs: own (…, R), log sums of rows with and without it, and the shares of
    every column in the rows' sums."""

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


def mean_estimate(values: Tensor, direction: str = "unbiased") -> Estimate:
    """Mean over the last axis of independent values (…, R), with its standard error.

    >>> mean_estimate(torch.tensor([1.0, 3.0])).value.item()
    2.0
    """
    count = values.shape[-1]
    if count < 2:
        raise ValueError(f"Expected at least 2 values to average; got {count}")
    error = values.std(-1) / math.sqrt(count)
    # An infinite value makes the mean infinite and its deviation nan: the error is unknown.
    error = torch.where(error.isnan(), math.inf, error)
    return Estimate(values.mean(-1), error, count, direction)  # type: ignore[arg-type]


def golden_formula(divergences: Tensor) -> Estimate:
    """Upper bound of I(S; W) from divergences to a reference law: E_S KL(q(W|S) ‖ r(W)).

    The formula is an identity with r the marginal law of W, and larger by KL(marginal ‖ r) for any
    other. It bounds for every r that does not depend on the S it is compared with: fit r to some
    data sets and average over the others.

    Args:
        divergences: KL(q(W|S_i) ‖ r), or log q(W_i|S_i) − log r(W_i) with W_i ~ q(·|S_i): (…, R).

    Returns:
        Estimate of shape (…), direction "upper".

    Polyanskiy and Wu, Information Theory: From Coding to Learning, 2022, equation 4.3.
    """
    return mean_estimate(divergences, "upper")


@dataclass(frozen=True)
class Bracket:
    """A quantity between two bounds, and which estimator gave which side.

    Attributes:
        lower, upper: the two sides, of one shape.
        lower_by, upper_by: names of the estimators.
        value: best single number between the sides, where something better than the middle is
            known; else the middle, or the finite side where the other is infinite.
    """

    lower: Estimate
    upper: Estimate
    lower_by: str = "sandwich"
    upper_by: str = "sandwich"
    value: Estimate | None = None

    def best(self) -> Estimate:
        """`value`, or the middle of the two sides with the larger of their errors."""
        if self.value is not None:
            return self.value
        low, high = self.lower.value, self.upper.value
        middle = torch.where(high.isfinite(), (low + high) / 2, low)
        error = torch.maximum(self.lower.standard_error, self.upper.standard_error)
        error = torch.where(high.isfinite(), error, self.lower.standard_error)
        return Estimate(middle, error, self.lower.count)

    @property
    def width(self) -> Tensor:
        """Distance of the two sides."""
        return self.upper.value - self.lower.value


def saturated(lower: Estimate, count: int | None = None) -> Tensor:
    """Whether a lower side is cut by log R, so that the truth may lie far above it: bool (…)."""
    return lower.value > math.log(count or lower.count) - SATURATION_MARGIN


def statement(bracket: Bracket, informative: float = 1.0) -> str:
    """One line: which estimator gave which side, what is cut, and whether the sides say anything.

    The sides say nothing when they are further apart than `informative` nats and than half the
    upper side.
    """
    low, high = float(bracket.lower.value.mean()), float(bracket.upper.value.mean())
    parts = [
        f"lower side {low:.3g} by {bracket.lower_by}",
        f"upper side {high:.3g} by {bracket.upper_by}",
    ]
    if bracket.lower_by == "sandwich" and bool(saturated(bracket.lower).any()):
        limit = math.log(bracket.lower.count)
        parts.append(f"the sandwich is saturated near log {bracket.lower.count} = {limit:.3g}")
    if not math.isfinite(high) or high - low > max(informative, high / 2):
        parts.append("the sides are too far apart to say more than that it lies between them")
    return "; ".join(parts)


def _contrast(sums: _RowSums) -> tuple[Estimate, Estimate]:
    """Lower and upper side of mean_i [own_i − log mean_j], with their errors."""
    count = sums.own.shape[-1]
    sides = []
    for total, shares, terms, direction in (
        (sums.joint, sums.joint_shares, count, "lower"),
        (sums.others, sums.others_shares, count - 1, "upper"),
    ):
        each = sums.own - (total - math.log(terms))
        value = each.mean(-1)
        # Infinitesimal jackknife: how much each a_j weighs in the sums of all b_i counts too.
        influence = each - value.unsqueeze(-1) - (shares - 1)
        error = influence.square().sum(-1).sqrt() / math.sqrt(count * (count - 1))
        error = torch.where(error.isfinite(), error, math.inf)
        sides.append(Estimate(value, error, count, direction))  # type: ignore[arg-type]
    return sides[0], sides[1]


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
