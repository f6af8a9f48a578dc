"""Generalization bounds of real fine-tunes from conditional mutual information, with posteriors.

I(S; W) of a network cannot be estimated. What its losses tell of a fair coin can: which of two
rows was trained on. Pair i of a supersample has losses L_i = (L_i0, L_i1) and a mask U_i, the
column that was trained on. Everything is given the supersample Z; the expectation over
supersamples follows.

All bounds are about random losses in {0, C} with the means of the real ones, which real losses
become by random rounding. That changes no gap and, by the data-processing inequality, only lowers
the information: the bounds stay bounds, and are the sharper for it. For 0-1 losses it changes
nothing.

References:
    Steinke & Zakynthinou, Reasoning about generalization via conditional mutual information, 2020,
    https://arxiv.org/abs/2001.09122. Harutyunyan et al., Information-theoretic generalization
    bounds for black-box learning algorithms, 2021, https://arxiv.org/abs/2110.01584. Hellström &
    Durisi, A new family of generalization bounds using samplewise evaluated CMI, 2022,
    https://arxiv.org/abs/2210.06422. Wang & Mao, Tighter information-theoretic generalization
    bounds from supersamples, 2023, https://arxiv.org/abs/2302.02432.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeVar

import torch
from torch import Tensor

from rbpp.fine_tuning.supersample import Supersample, rounded

LOG2 = math.log(2)


@dataclass(frozen=True)
class PairInformation:
    """What the losses of each pair tell of its mask, in nats.

    Attributes:
        pair: (…, n) I(L_i; U_i | Z), at most log 2.
        difference: (…, n) I(L_i1 − L_i0; U_i | Z).
        training_loss: (…,) mean loss on the rows trained on, as a share of C.
    """

    pair: Tensor
    difference: Tensor
    training_loss: Tensor


@dataclass(frozen=True)
class PooledInformation:
    """The same of a pair taken at random, its columns in random order.

    Attributes:
        difference: (…,) I(ΔL; U), which equals I(L; U) for losses in {0, C}.
        single: (…,) I(L; B) of the loss of one row and whether it was trained on.
        training_loss: (…,) as a share of C.
    """

    difference: Tensor
    single: Tensor
    training_loss: Tensor


def jensen_shannon_divergence(first: Tensor, second: Tensor) -> Tensor:
    """I(X; U) of a fair coin U that chooses which of two distributions X has, in nats.

    Args:
        first, second: probabilities (…, cells).

    >>> jensen_shannon_divergence(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])).item()
    0.693...
    """
    entropy = torch.special.entr
    mixed = entropy((first + second) / 2) - (entropy(first) + entropy(second)) / 2
    return mixed.sum(-1).clamp_min(0)


def pair_information(tables: Tensor) -> tuple[Tensor, Tensor]:
    """I(L_i; U_i | Z) and I(L_i1 − L_i0; U_i | Z) of distributions of a pair's rounded losses.

    Args:
        tables: (…, 2, 2, 2): mask, loss of column 0, loss of column 1; sums to 1 for either mask.

    Returns:
        Two tensors (…), in nats.
    """
    pair = tables.flatten(-2)
    same = tables[..., 0, 0] + tables[..., 1, 1]
    difference = torch.stack([tables[..., 0, 1], same, tables[..., 1, 0]], dim=-1)
    return (
        jensen_shannon_divergence(pair[..., 0, :], pair[..., 1, :]),
        jensen_shannon_divergence(difference[..., 0, :], difference[..., 1, :]),
    )


def row_tables(training: Tensor, held_out: Tensor) -> Tensor:
    """Distributions of a pair's rounded losses, which are independent given the mask.

    Args:
        training, held_out: (…, 2) mean loss of either row, trained on and not, as a share of C.

    Returns:
        (…, 2, 2, 2), as `pair_information` takes it.
    """
    trained, held = rounded(training), rounded(held_out)
    sides = (trained[..., 0, :], held[..., 1, :]), (held[..., 0, :], trained[..., 1, :])
    return torch.stack([one.unsqueeze(-1) * other.unsqueeze(-2) for one, other in sides], dim=-3)


def empirical_tables(data: Supersample) -> Tensor:
    """(n, 2, 2, 2) the shares that `pair_information` takes, as observed: the plug-in estimate."""
    one = rounded(data.columns)
    joint = one[..., 0, :].unsqueeze(-1) * one[..., 1, :].unsqueeze(-2)
    counts = torch.einsum("knu,knab->nuab", data.trained, joint)
    # A mask that never came leaves nothing to tell apart: it gets the distribution of the other.
    total = data.trained.sum(0)[..., None, None]
    shares = counts / total.clamp_min(1)
    return torch.where(total > 0, shares, shares.flip(1))


def information_of_rows(training: Tensor, held_out: Tensor) -> PairInformation:
    """Of the mean losses (…, n, 2) of the rows, as a share of C."""
    pair, difference = pair_information(row_tables(training, held_out))
    return PairInformation(pair, difference, training.mean((-1, -2)))


def information_of_pool(table: Tensor) -> PooledInformation:
    """Of the distribution (…, 2, 2) of a random pair: training loss (row), held-out loss (column).

    >>> information_of_pool(torch.tensor([[0.7, 0.3], [0.0, 0.0]])).difference.item() / 0.3
    0.693...
    """
    swapped = table.transpose(-1, -2)
    return PooledInformation(
        jensen_shannon_divergence(table.flatten(-2), swapped.flatten(-2)),
        jensen_shannon_divergence(table.sum(-1), table.sum(-2)),
        table[..., 1, :].sum(-1),
    )


Given = TypeVar("Given", PairInformation, PooledInformation)
# What a statement rests on, beside fair coins and losses in [0, C].
Condition = Literal["fine-tunes enough", "losses of a pair independent", "interpolation"]
_OF_SINGLE_ROWS: tuple[Condition, ...] = ("fine-tunes enough", "losses of a pair independent")


@dataclass(frozen=True)
class Statement(Generic[Given]):
    """The expected gap is at most `right`, a theorem about any distribution of the losses.

    Attributes:
        name: of the bound.
        right: its variable.
        formula: the bound as a share of C.
        rests_on: what else the theorem, or the posterior of its right side, needs.
    """

    name: str
    right: str
    formula: Callable[[Given], Tensor]
    rests_on: tuple[Condition, ...] = ()

    left: ClassVar[str] = "generalization_gap"


# By the average information of the pairs:
# - evaluated (Steinke & Zakynthinou 2020): sqrt(2 I / n) with I = I(L; U | Z) of all pairs
#   together, which no table of k fine-tunes shows; here I is its least value, the sum over pairs,
#   and the result still bounds the gap, because the samplewise bound does.
# - linear (the same): R ≤ 2 R̂ + 3 I / n.
# - samplewise (Harutyunyan et al. 2021; Hellström & Durisi 2022): mean_i sqrt(2 I(L_i; U_i | Z)).
#   For 0-1 losses of two classes it is the f-CMI bound.
# - binary KL (Hellström & Durisi 2022): d(R̂ ‖ (R̂ + R) / 2) ≤ mean_i I(L_i; U_i | Z).
# - loss difference (Wang & Mao 2023): mean_i sqrt(2 I(ΔL_i; U_i | Z)).
OF_PAIRS: tuple[Statement[PairInformation], ...] = (
    Statement(
        "bound by evaluated CMI",
        "bound_cmi_evaluated",
        lambda given: (2 * given.pair.mean(-1)).sqrt(),
        _OF_SINGLE_ROWS,
    ),
    Statement(
        "bound linear in evaluated CMI",
        "bound_cmi_linear",
        lambda given: given.training_loss + 3 * given.pair.mean(-1),
        _OF_SINGLE_ROWS,
    ),
    Statement(
        "bound by samplewise CMI",
        "bound_cmi_samplewise",
        lambda given: (2 * given.pair).sqrt().mean(-1),
        _OF_SINGLE_ROWS,
    ),
    Statement(
        "bound by binary KL, samplewise CMI",
        "bound_cmi_binary_kl",
        lambda given: binary_kl_bound(given.pair.mean(-1), given.training_loss),
        _OF_SINGLE_ROWS,
    ),
    Statement(
        "bound by the CMI of loss differences",
        "bound_cmi_loss_difference_conditional",
        lambda given: (2 * given.difference).sqrt().mean(-1),
        _OF_SINGLE_ROWS,
    ),
)
# By the information of a pair taken at random:
# - loss difference (Wang & Mao 2023, ld-MI): sqrt(2 I(ΔL; U)).
# - single loss (the same): 2 sqrt(2 I(L; B)); centred (ours): sqrt(2 I(L; B)), since L − C/2 has
#   the same covariance with a fair coin and half the range.
# - fast rate (the same): C₁ R̂ + min{I(L; U), 2 I(L; B)} / C₂, the best of all valid constants.
# - binary KL of a random pair: as for the pairs, by joint convexity.
# - interpolation (Wang & Mao 2023): I(ΔL; U) / log 2, equal to the gap if every training loss is 0
#   and losses are 0 or C, and no bound otherwise.
OF_POOL: tuple[Statement[PooledInformation], ...] = (
    Statement(
        "bound by the MI of a loss difference",
        "bound_cmi_loss_difference",
        lambda given: (2 * given.difference).sqrt(),
    ),
    Statement(
        "bound by the MI of a single loss",
        "bound_cmi_single_loss",
        lambda given: 2 * (2 * given.single).sqrt(),
    ),
    Statement(
        "bound by the MI of a single centred loss (ours)",
        "bound_cmi_single_loss_centred",
        lambda given: (2 * given.single).sqrt(),
    ),
    Statement(
        "bound at the fast rate",
        "bound_cmi_fast_rate",
        lambda given: fast_rate_bound(
            torch.minimum(given.difference, 2 * given.single), given.training_loss
        ),
    ),
    Statement(
        "bound by binary KL, pair at random (ours)",
        "bound_cmi_binary_kl_pooled",
        lambda given: binary_kl_bound(given.difference, given.training_loss),
    ),
    Statement(
        "bound of interpolating learners",
        "bound_cmi_interpolation",
        lambda given: given.difference / LOG2,
        ("interpolation",),
    ),
)


def bounds_of_pairs(information: PairInformation) -> dict[str, Tensor]:
    """Bounds of the expected gap by the average information of the pairs, as a share of C."""
    return {one.right: one.formula(information) for one in OF_PAIRS}


def bounds_of_pool(information: PooledInformation) -> dict[str, Tensor]:
    """Bounds of the expected gap by the information of a random pair, as a share of C."""
    return {one.right: one.formula(information) for one in OF_POOL}


def fast_rate_bound(information: Tensor, training_loss: Tensor) -> Tensor:
    """min over C₂ in (0, log 2) of C₁ R̂ + I / C₂ with C₁ = −log(2 − e^C₂) / C₂ − 1.

    Each C₂ gives a bound of the expected gap for losses in [0, 1]: with it, e^{C₂ (L − (1 + C₁) L̂)}
    has mean at most 1 over the coin. With R̂ = 0 and C₂ = log 2 it is I / log 2.

    >>> fast_rate_bound(torch.tensor(0.1), torch.tensor(0.0)).item() / 0.1 * math.log(2)
    1.0...
    """
    # Closer and closer to log 2, where C₁ diverges: the less is lost in training, the closer. In
    # float64, since 2 − e^C₂ of the last ones is below the resolution of float32.
    rates = LOG2 * (1 - torch.logspace(-0.02, -9, 96, dtype=torch.float64))
    weights = -torch.log(2 - rates.exp()) / rates - 1
    values = training_loss.unsqueeze(-1) * weights + information.unsqueeze(-1) / rates
    return values.amin(-1).to(information.dtype)


def binary_kl_bound(information: Tensor, training_loss: Tensor) -> Tensor:
    """The largest R − R̂ with d(R̂ ‖ (R̂ + R) / 2) ≤ I and R ≤ 1, losses in [0, 1].

    d(q ‖ p) = q log(q / p) + (1 − q) log((1 − q) / (1 − p)).

    >>> binary_kl_bound(torch.tensor(0.1), torch.tensor(0.0)).item()  # 2 (1 − e^−0.1)
    0.190...
    """
    low = training_loss.expand_as(information).clone()
    high = (1 + low) / 2
    for _ in range(60):  # bisection: halves (1 − R̂) / 2 down to rounding
        middle = (low + high) / 2
        inside = _binary_divergence(training_loss, middle) <= information
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    return 2 * (low - training_loss)


def _binary_divergence(first: Tensor, second: Tensor) -> Tensor:
    return (
        torch.xlogy(first, first)
        - torch.xlogy(first, second)
        + torch.xlogy(1 - first, 1 - first)
        - torch.xlogy(1 - first, 1 - second)
    )
