"""Mutual information from a known conditional density: bounds from both sides. All in nats.

The sandwich contrasts every pair with the others, in one matrix of log densities log p(b_i | a_j),
and cannot exceed log R from below. The golden formula needs a reference law and no contrast, so it
has the upper side where the sandwich is saturated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rbpp.results import Estimate

# A lower side within this distance of log R is cut by it: the truth may be anything above.
SATURATION_MARGIN = 0.7


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
    count = log_conditional.shape[-1]
    own = log_conditional.diagonal(dim1=-2, dim2=-1)
    joint = log_conditional.logsumexp(-1)
    lower = _contrast(own, log_conditional, joint, count)
    self_pair = torch.eye(count, dtype=torch.bool, device=log_conditional.device)
    others = log_conditional.masked_fill(self_pair, -math.inf)
    upper = _contrast(own, others, others.logsumexp(-1), count - 1)
    return (
        Estimate(lower[0], lower[1], count, "lower"),
        Estimate(upper[0], upper[1], count, "upper"),
    )


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


def _contrast(own: Tensor, matrix: Tensor, total: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """mean_i [own_i − (total_i − log count)] and its infinitesimal-jackknife standard error."""
    terms = own - (total - math.log(count))
    value = terms.mean(-1)
    # How much each a_j weighs in the sums of all b_i; a row without any mass has no shares.
    shares = (matrix - total.unsqueeze(-1)).exp().nan_to_num(0.0).sum(-2)
    influence = terms - value.unsqueeze(-1) - (shares - 1)
    size = own.shape[-1]
    error = influence.square().sum(-1).sqrt() / math.sqrt(size * (size - 1))
    return value, torch.where(error.isfinite(), error, math.inf)


def _check_matrix(matrix: Tensor) -> None:
    if matrix.dim() < 2 or matrix.shape[-1] != matrix.shape[-2] or matrix.shape[-1] < 2:
        raise ValueError(
            "Expected log densities of shape (…, R, R) with R ≥ 2 pairs; "
            f"got shape {tuple(matrix.shape)}"
        )
    if not matrix.is_floating_point():
        raise ValueError(f"Expected floating-point log densities; got {matrix.dtype}")
    wrong = matrix.isnan() | (matrix == math.inf)
    if bool(wrong.any()):
        where = tuple(wrong.nonzero()[0].tolist())
        raise ValueError(f"Expected log densities below +∞; got {matrix[where].item()} at {where}")
    own = matrix.diagonal(dim1=-2, dim2=-1)
    if bool((own == -math.inf).any()):
        where = tuple((own == -math.inf).nonzero()[0].tolist())
        raise ValueError(
            "Expected every pair to be possible under its own condition; got density zero for pair "
            f"{where[-1]} (index {where})"
        )
