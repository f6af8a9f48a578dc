"""Every output against the prompts: log of its mean probability, with and without its own prompt.

The prompt of output i has the share v of all outputs. Over all prompts, or its own and others drawn
at random,

    joint_i = log [ Σ_j v_j p(o_i | p_j) / Σ_j v_j ]                      own prompt included
    rest_i  = log [ Σ_{j ≠ own} v_j p(o_i | p_j) / (1 − v_own) ]          own prompt left out

The mean of own_i − joint_i is a lower bound of the information: it is that between the output and
which of these prompts it has, whatever the prompts are (InfoNCE, with shares). The mean of own_i −
rest_i is an upper bound. Where M others stand for all J − 1, the second sum is scaled up to be
unbiased (Horvitz and Thompson 1952), and minus its log is then too large in expectation: a bound
still. To first order the two errors are of one size, χ²/2J, and of opposite sign.

Poole, Ozair, van den Oord, Alemi and Tucker, On Variational Bounds of Mutual Information, ICML
2019.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rbpp.channel.log_probabilities import LogProbabilities
from rbpp.estimate import Estimate, exactly

_BLOCK_ELEMENTS = 2**20
_HALVINGS = 60


@dataclass(frozen=True)
class Side:
    """What one side of the information compares outputs with. In nats.

    Attributes:
        log_prob: (n,) log-probability of every output; −∞ where that leaves it impossible.
        slope: (R, J) Σ_i ρ_i ∂ log_prob_i / ∂ log v_j: how the mean over every set of rows changes
            with the share of every prompt.
        error: (R,) Monte Carlo error of the means by the choice of others; None where all prompts
            are compared with.
    """

    log_prob: Tensor
    slope: Tensor
    error: Tensor | None

    def information(self, draws: Tensor, which: int) -> Estimate:
        """Draws of a set's mean information, with the error by the choice of others."""
        if self.error is None:
            return exactly(draws)
        return Estimate(draws, self.error[which].expand_as(draws))


@dataclass(frozen=True)
class Contrast:
    """All outputs against the prompts.

    Attributes:
        joint: of the lower side: the mean over prompts, the own one included.
        marginal: of the upper side: the other prompts, mixed with the unprompted model where there
            is one.
        mixed: share of the unprompted model in that mixture.
        limit: the largest value of the mean of own − joint: log(1 + M) of M others of equal shares.
    """

    joint: Side
    marginal: Side
    mixed: float
    limit: float


def prompt_shares(data: LogProbabilities) -> Tensor:
    """(J,) share of the outputs that every prompt has."""
    return torch.bincount(data.prompt, minlength=data.prompts).double() / len(data)


def contrast(data: LogProbabilities, sets: Tensor) -> Contrast:
    """Two passes over the log-probabilities, a block of rows at a time.

    Args:
        data: outputs and prompts.
        sets: (R, n) weights ρ of the rows, each of sum 1.
    """
    shares = prompt_shares(data)
    log_shares = shares.log()
    own_share = log_shares[data.prompt]
    others, pool = data.others, data.prompts - 1
    log_scale = math.log(pool / others) if others else 0.0
    summed, mass = torch.empty_like(data.own), torch.empty_like(data.own)
    for rows, scores, weights in _blocks(data, log_shares):
        summed[rows], mass[rows] = scores.logsumexp(-1), weights.logsumexp(-1)
    total = torch.logaddexp(mass, own_share)
    log_sum = torch.logaddexp(summed, data.own + own_share)
    own_in_joint = (data.own + own_share - log_sum).exp()
    rest_in_joint = (summed - log_sum).exp()
    rest = summed + log_scale - torch.log1p(-own_share.exp())
    mixed, marginal, rest_in_marginal = _mixture(rest, data.unprompted)

    slopes = torch.zeros(2, len(sets), data.prompts, dtype=torch.float64)
    met = torch.zeros(len(sets), data.prompts, dtype=torch.float64)
    squares = torch.zeros_like(data.own)
    for rows, scores, weights in _blocks(data, log_shares):
        possible = summed[rows] > -math.inf
        scores -= torch.where(possible, summed[rows], 0.0).unsqueeze(-1)
        part = scores.exp_()
        squares[rows] = part.square().sum(-1)
        columns = None if data.columns is None else data.columns[rows]
        _add(slopes[0], sets[:, rows], part * rest_in_joint[rows, None], columns)
        _add(slopes[1], sets[:, rows], part * rest_in_marginal[rows, None], columns)
        in_codebook = (weights - total[rows, None]).exp()
        _add(slopes[0], -sets[:, rows], in_codebook, columns)
        if columns is not None:
            _add(met, sets[:, rows], torch.ones_like(part), columns)
    if data.columns is not None:
        # A prompt that was drawn more often than others by chance counts no more for it.
        of_own = torch.zeros_like(met).index_add_(1, data.prompt, sets)
        slopes *= torch.where(met > 0, (1 - of_own) * (others / pool) / met, 0.0)
    own_part = own_in_joint - (own_share - total).exp()
    slopes[0].index_add_(1, data.prompt, sets * own_part)
    # The normaliser 1 − v_own changes with the share of every other prompt.
    balance = sets * (rest_in_marginal / (1 - own_share.exp()))
    of_own = torch.zeros_like(slopes[1]).index_add_(1, data.prompt, balance)
    slopes[1] -= shares * (balance.sum(-1, keepdim=True) - of_own)

    # Variance of a sum over M of J − 1, drawn without replacement, relative to its square.
    variance = torch.zeros_like(data.own)
    if 0 < others < pool:
        spread = (others * squares - 1) / (others - 1) if others > 1 else squares * math.inf
        variance = (spread * (1 - others / pool)).clamp_min(0)
    errors = [
        None
        if data.columns is None
        else (sets.square() * torch.where(part > 0, variance * part.square(), 0.0)).sum(-1).sqrt()
        for part in (rest_in_joint, rest_in_marginal)
    ]
    limit = float((total - own_share).mean())
    joint, upper = map(Side, (log_sum - total, marginal), slopes, errors)
    return Contrast(joint, upper, mixed, limit)


def _blocks(data: LogProbabilities, log_shares: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Rows, log v_j p(o_i | p_j) and log v_j of their columns; −∞ in the own column."""
    count, width = data.log_prob.shape
    step = max(1, _BLOCK_ELEMENTS // max(1, width))
    for start in range(0, count, step):
        rows = slice(start, min(start + step, count))
        if data.columns is None:
            weights = log_shares.expand(rows.stop - start, width).clone()
            weights[torch.arange(rows.stop - start), data.prompt[rows]] = -math.inf
        else:
            weights = log_shares[data.columns[rows]]
        yield rows, data.log_prob[rows] + weights, weights


def _add(slope: Tensor, sets: Tensor, part: Tensor, columns: Tensor | None) -> None:
    """slope (R, J) += Σ_i sets (R, i) · part (i, column)."""
    if columns is None:
        slope += sets @ part
        return
    for index, weights in enumerate(sets):
        slope[index].index_add_(0, columns.flatten(), (weights[:, None] * part).flatten())


def _mixture(rest: Tensor, unprompted: Tensor | None) -> tuple[float, Tensor, Tensor]:
    """log(α q + (1 − α) rest) with the α of the largest mean log, and the part of rest in it.

    Any α gives an upper bound of the information. The mean log is concave in α, and its slope has
    the sign of mean_i P(unprompted | i) − α.
    """
    if unprompted is None:
        return 0.0, rest, torch.where(rest > -math.inf, 1.0, 0.0).double()
    ahead = unprompted - rest
    ahead = ahead[~ahead.isnan()]  # both impossible: no α helps
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        posterior = torch.sigmoid(ahead + math.log(middle) - math.log1p(-middle))
        if float(posterior.mean()) > middle:
            low = middle
        else:
            high = middle
        if high - low < 1e-9:
            break
    share = (low + high) / 2
    first, second = unprompted + math.log(share), rest + math.log1p(-share)
    marginal = torch.logaddexp(first, second)
    part = torch.where(marginal > -math.inf, (second - marginal).exp(), 0.0)
    return share, marginal, part
