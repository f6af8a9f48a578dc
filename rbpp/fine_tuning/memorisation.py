"""Posterior of what each row's loss owes to having been trained on.

Every row of a supersample has two mean losses: a where it was trained on, b where it was not. A row
alone has seen too few fine-tunes to tell them apart, so that its plug-in information is noise. The
rows' (a, b) come from one unknown distribution instead, a mixture of many kernels on a grid of
(logit a + logit b) / 2 and logit b − logit a, which all rows together inform.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rbpp.fine_tuning.supersample import Supersample
from rbpp.internals import standard_gamma
from rbpp.randomness import uniforms

# Prior probability that no row at all is memorised (a = b everywhere). Otherwise the share of rows
# with a = b is uniform on [0, 1].
PRIOR_NONE = 0.5
# Concentration of the Dirichlet prior over kernels, for those with a = b and for the others. Far
# lower, and the Gibbs sampler hardly leaves the kernels that it is in; far higher, and the kernels'
# layout, not the rows, decides.
PRIOR_ROWS = 12.0
# Logits of difference over which that prior falls to 1 / e.
SHIFT_SCALE = 2.0
# Gibbs sweeps between kept draws, and draws thrown away before, each of as many sweeps.
THINNING, WARM_UP = 4, 100
# A quasi-binomial row may count as at most this many times its fine-tunes.
LARGEST_GAIN = 50.0


@dataclass(frozen=True)
class RowLosses:
    """Draws of the rows' mean losses, as a share of C.

    Attributes:
        training: (draw, n, 2) mean loss of each row in the fine-tunes that trained on it.
        held_out: (draw, n, 2) mean loss in those that did not.
        none: (draw,) whether the draw has a = b in every row.
    """

    training: Tensor
    held_out: Tensor
    none: Tensor


def row_losses(data: Supersample, draws: int, generator: torch.Generator) -> RowLosses:
    """Draws of every row's mean losses by Gibbs sampling.

    Losses between 0 and C count as what random rounding to 0 or C makes of them, which keeps their
    means; their spread around a row's mean, smaller than that of rounded ones, is estimated over
    all rows and makes a fine-tune count more (quasi-binomial).

    Args:
        data: the supersample.
        draws: draws kept.
        generator: source of randomness.
    """
    counts = _row_counts(data)
    unique, row_of = counts.unique(dim=0, return_inverse=True)
    training, held_out = _grid()
    kernels, same, prior = _kernels()
    likelihood = _likelihood(unique, training, held_out)
    evidence = likelihood @ kernels.T
    rows = len(row_of)
    weights = prior / prior.sum()
    kept, none = [], []
    for step in range((WARM_UP + draws) * THINNING):
        kernel = _choose(evidence * weights, row_of, generator)
        counted = torch.bincount(kernel, minlength=len(same)).to(torch.float64)
        share = _share_of_same(float(counted[same].sum()), rows, generator)
        weights = standard_gamma(prior + counted, generator)
        weights = torch.where(
            same,
            share * weights / weights[same].sum(),
            (1 - share) * weights / weights[~same].sum(),
        )
        if step >= WARM_UP * THINNING and step % THINNING == 0:
            within = kernels[kernel] * likelihood[row_of]
            kept.append(_choose(within, torch.arange(rows), generator))
            none.append(bool(same[kernel].all()))
    nodes = torch.stack(kept).reshape(draws, -1, 2)
    return RowLosses(training[nodes], held_out[nodes], torch.tensor(none))


def _choose(weights: Tensor, line: Tensor, generator: torch.Generator) -> Tensor:
    """One column per entry of `line`, drawn by the weights (lines, columns) of that line."""
    cumulative = weights.cumsum(1)
    # One sorted list for all: line i's cumulative weights lie in (i, i + 1].
    ladder = cumulative / cumulative[:, -1:] + torch.arange(len(weights))[:, None]
    uniform = uniforms((len(line),), generator, weights)
    place = torch.searchsorted(ladder.reshape(-1), line + uniform) - line * weights.shape[1]
    return place.clamp(0, weights.shape[1] - 1)


def _share_of_same(agreeing: float, rows: int, generator: torch.Generator) -> float:
    """The share of rows with a = b: exactly 1 or uniform before, given how many there are now."""
    if agreeing == rows:
        # Under a uniform share, rows all agree with probability 1 / (rows + 1).
        leave = (1 - PRIOR_NONE) / ((1 - PRIOR_NONE) + PRIOR_NONE * (rows + 1))
        if float(torch.rand((), generator=generator, dtype=torch.float64)) >= leave:
            return 1.0
    shape = torch.tensor([1 + agreeing, 1 + rows - agreeing], dtype=torch.float64)
    first, second = standard_gamma(shape, generator).tolist()
    return float(first / (first + second))


def _likelihood(unique: Tensor, training: Tensor, held_out: Tensor) -> Tensor:
    """(rows, nodes) binomial likelihood of the row counts, up to a factor per row."""
    trained, trained_loss, held, held_loss = (unique[:, i, None] for i in range(4))
    log_likelihood = (
        torch.xlogy(trained_loss, training)
        + torch.xlogy(trained - trained_loss, 1 - training)
        + torch.xlogy(held_loss, held_out)
        + torch.xlogy(held - held_loss, 1 - held_out)
    )
    return (log_likelihood - log_likelihood.amax(1, keepdim=True)).exp()


def _row_counts(data: Supersample) -> Tensor:
    """(2n, 4): fine-tunes that trained on the row, their summed loss, the others, theirs."""
    trained, losses = data.trained, data.columns
    gain = 1.0 if data.binary else _precision_gain(losses, trained)
    parts = []
    for inside in (trained, 1 - trained):
        parts += [inside.sum(0).reshape(-1) * gain, (inside * losses).sum(0).reshape(-1) * gain]
    return torch.stack(parts, dim=-1)


def _precision_gain(losses: Tensor, trained: Tensor) -> float:
    """How many 0-1 losses one loss is worth: mean of p(1 − p) over mean variance, rows pooled."""
    rounded, spread = 0.0, 0.0
    for inside in (trained, 1 - trained):
        count = inside.sum(0)
        usable = count > 1
        mean = (inside * losses).sum(0) / count.clamp_min(1)
        variance = (inside * (losses - mean).square()).sum(0) / (count - 1).clamp_min(1)
        bernoulli = mean * (1 - mean) + variance / count.clamp_min(1)
        rounded += float(bernoulli[usable].sum())
        spread += float(variance[usable].sum())
    return min(max(rounded / max(spread, 1e-300), 1.0), LARGEST_GAIN) if rounded > 0 else 1.0


_CENTRE = torch.linspace(-5.5, 5.5, 45, dtype=torch.float64)
_STEPS = (0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 8)
_SHIFT = torch.tensor(sorted((0.0, *_STEPS, *(-step for step in _STEPS))), dtype=torch.float64)


def _grid() -> tuple[Tensor, Tensor]:
    """Training loss and held-out loss at every node."""
    middle, shift = torch.meshgrid(_CENTRE, _SHIFT, indexing="ij")
    training, held_out = torch.sigmoid(middle - shift / 2), torch.sigmoid(middle + shift / 2)
    curve = torch.sigmoid(_CENTRE)
    none, all_ = torch.zeros_like(curve), torch.ones_like(curve)
    ends = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    # Losses that are exactly 0 in training (interpolation), or exactly C out of it.
    return (
        torch.cat([training.reshape(-1), none, curve, ends[:, 0]]),
        torch.cat([held_out.reshape(-1), curve, all_, ends[:, 1]]),
    )


def _kernels() -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities (kernel, node), which kernels have a = b, and the Dirichlet prior over them.

    Narrow and broad in the middle of the two logits, since populations may be alike or not; in
    their difference exactly 0, around 0, or on the side of memorisation. The prior falls off with
    the difference: fifteen fine-tunes that never erred say little against a = 0, and what they
    leave open is the prior's, which must not make up memorisation.
    """

    def normal(values: Tensor, mean: float, spread: float) -> Tensor:
        weight = (-((values - mean) ** 2) / (2 * spread**2)).exp()
        return weight / weight.sum()

    middles = torch.stack(
        [normal(_CENTRE, at / 2, 0.25) for at in range(-10, 11)]
        + [normal(_CENTRE, float(at), 1.5) for at in range(-4, 5, 2)]
    )
    # The nodes of the difference lie apart unevenly: each stands for the range nearest to it.
    edges = torch.cat([_SHIFT[:1], (_SHIFT[1:] + _SHIFT[:-1]) / 2, _SHIFT[-1:]])
    widths = edges.diff()
    shifts = [(_SHIFT == 0).to(torch.float64)]
    fall = [0.0]
    for mean, spread in (
        *((0.0, spread) for spread in (0.2, 0.5, 1.0)),
        *((mean, mean / 4) for mean in (0.5, 1.0, 2.0, 4.0)),
    ):
        weight = normal(_SHIFT, mean, spread) * widths
        shifts.append(weight / weight.sum())
        fall.append(max(mean, spread))
    inner = torch.einsum("cm,ds->cdms", middles, torch.stack(shifts)).flatten(2).flatten(0, 1)
    kernels = torch.block_diag(inner, middles, middles, torch.eye(3, dtype=torch.float64))
    training, held_out = _grid()
    same = (kernels * (training != held_out)).sum(1) == 0
    size = torch.tensor(fall * len(middles) + [fall[-1]] * (2 * len(middles) + 3))
    prior = torch.where(same, 1.0, (-size / SHIFT_SCALE).exp()).to(torch.float64)
    prior = torch.where(same, prior / prior[same].sum(), prior / prior[~same].sum())
    return kernels, same, PRIOR_ROWS * prior
