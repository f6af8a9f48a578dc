"""Which rows of one source another source does not account for: a two-groups model of p-values.

Every row has a score that is higher the more its surroundings belong to the first source and not to
the reference. The rank of a row's score among those of the reference's rows is a conformal p-value:
uniform for rows that come from the reference's distribution, whatever that is and whatever the
score. A row that the reference does not account for has a p-value near zero, so that the p-values'
law is

    f(p) = Σ_c w_c U(p; 0, c) + Σ_b v_b Beta(p; 1, b),   c ≤ 1, b ≥ 16.

U(0, 1) is the reference itself, U(0, c) a source confined to a part of it of mass c, evenly: such
a source lacks much of the reference and has nothing foreign. The Beta laws, no two rows in a
hundred of the reference deep, are the foreign rows, and Σ v their share. Foreign rows that lie no
deeper in the reference's tail than its own are not told from it: where the score is blunt, the
share is a lower bound.

Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World (2005), for the p-values; Efron,
Large-Scale Inference (2010), for two groups; Storey, A direct approach to false discovery rates,
JRSS B 64 (2002), for the share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rbpp.internals import standard_gamma
from rbpp.threads import one_thread

# Parts of the reference that a source may be confined to. Below a fifth it is its own place.
CONFINED = (1.0, 0.8, 0.65, 0.5, 0.4, 0.32, 0.25, 0.2)
# Beta(1, b) has half its mass below 0.7 / b: from the rarest twenty-fifth of the reference on.
FOREIGN = (16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
# Dirichlet concentrations. The sparse prior gives groups that the rows do not ask for nothing: two
# halves of one source have a share of exactly zero in most draws.
_WHOLE, _PART, _STRANGE = 1.0, 0.05, 0.03
# Scores of neighbours go together, and tail counts of p-values vary 1.6 to 2.8 times as much as
# independent ones would (labels permuted, 300 and 800 rows a side): a row counts as 4/7 of one.
DESIGN_EFFECT = 1.75
# Rows beyond which a random subset decides the shares: more do not narrow them visibly.
_MOST_ROWS = 20_000
# Draws of a chain come from so many walkers side by side.
_WALKERS, _BURN_IN, _EXCHANGES, _THINNING = 16, 10, 200, 4
_BINS = 120
_LEAST = 1e-12


@dataclass(frozen=True)
class Foreign:
    """What a reference does not account for in a source.

    Attributes:
        share: of the source's rows, posterior draws (chain, draw); exactly zero in draws where no
            row is foreign.
        probability: of every row of the source to be foreign (n,).
    """

    share: Tensor
    probability: Tensor


@one_thread()
def foreign_rows(
    reference: Tensor,
    source: Tensor,
    *,
    chains: int,
    draws: int,
    effect: float = 1.0,
    reference_effect: float = 1.0,
    generator: torch.Generator,
) -> Foreign:
    """Metropolis draws of the two-groups model, the reference's law by the Bayesian bootstrap.

    Args:
        reference: scores of the reference's rows (m,), higher where the source prevails. A row's
            own label must not have entered its score, in neither source.
        source: scores of the source's rows (n,).
        chains, draws: of the result.
        effect, reference_effect: design effects of grouped rows, on top of that of the scores.
        generator: source of all randomness.

    Raises:
        ValueError: if a source has no rows, or a score is not finite.
    """
    for name, scores in (("reference", reference), ("source", source)):
        if scores.dim() != 1 or not len(scores) or not bool(scores.isfinite().all()):
            raise ValueError(f"Expected finite scores (n,) of the {name}; got {scores}")
    reference = _subset(reference.double(), generator).sort().values
    chosen = _subset(source.double(), generator)
    place = _places(reference, chosen)
    everyone = _places(reference, source.double())
    edges = _edges()
    masses = _masses(edges)
    evidence = 1 / (DESIGN_EFFECT * effect)
    walkers, rounds = chains * _WALKERS, -(-draws // _WALKERS)
    weights = _dirichlet(torch.ones(walkers, len(masses), dtype=torch.float64), generator)
    shares, probability, seen = [], torch.zeros(len(source), dtype=torch.float64), 0
    for step in range(_BURN_IN + rounds):
        law = _bootstrap((walkers, len(reference)), DESIGN_EFFECT * reference_effect, generator)
        counts = _histogram(_p_values(law, *place, generator), edges)
        weights = _exchanges(weights, counts * evidence, masses, generator)
        if step < _BURN_IN:
            continue
        joint = weights.unsqueeze(-1) * masses
        foreign = joint[:, len(CONFINED) :].sum(1) / joint.sum(1)
        rows = torch.binomial(counts, foreign.clamp(0, 1), generator=generator).sum(-1)
        shares.append(weights[:, len(CONFINED) :].sum(-1) * (rows > 0))
        p_values = _p_values(law[::_THINNING], *everyone, generator)
        for own, values in zip(weights[::_THINNING], p_values, strict=True):
            joint = _densities(values) * own
            probability += joint[:, len(CONFINED) :].sum(-1) / joint.sum(-1)
            seen += 1
    share = torch.stack(shares, -1).unflatten(0, (chains, _WALKERS)).mT.flatten(1)
    return Foreign(share[:, :draws], probability / seen)


def _edges() -> Tensor:
    """Bins of p-values, finer towards zero, with an edge wherever a group has one."""
    fine = torch.logspace(-5, 0, _BINS, dtype=torch.float64)
    return torch.cat([fine.new_zeros(1), fine, fine.new_tensor(CONFINED)]).unique()


def _masses(edges: Tensor) -> Tensor:
    """Probability of every bin in every group, (group, bin)."""
    column = edges.unsqueeze(-1)
    confined, foreign = edges.new_tensor(CONFINED), edges.new_tensor(FOREIGN)
    below = torch.cat([(column / confined).clamp_max(1), 1 - (1 - column) ** foreign], -1)
    return below.diff(dim=0).mT


def _histogram(p_values: Tensor, edges: Tensor) -> Tensor:
    """Rows in every bin, (walker, bin)."""
    place = torch.bucketize(p_values, edges[1:-1], right=True)
    counts = p_values.new_zeros(len(p_values), len(edges) - 1)
    return counts.scatter_add_(1, place, torch.ones_like(p_values))


def _exchanges(weights: Tensor, counts: Tensor, masses: Tensor, random: torch.Generator) -> Tensor:
    """Metropolis steps in which two groups share their weight anew, all walkers at once.

    Half of the proposals come from the prior, by which one group can take all that another has:
    groups overlap so much that allocating rows to them one by one hardly moves. The others are
    steps of the log odds.

    Args:
        weights: (walker, group).
        counts: effective rows (walker, bin).
        masses: (group, bin).
    """
    prior = _prior()
    walkers, groups = weights.shape
    first = torch.randint(groups, (_EXCHANGES, walkers), generator=random)
    second = torch.randint(groups - 1, (_EXCHANGES, walkers), generator=random)
    pair = torch.stack([first, second + (second >= first)], -1)
    shape = prior[pair]
    fresh = _dirichlet(shape, random)[..., 0].clamp(_LEAST, 1 - _LEAST).numpy()
    normal = torch.randn(_EXCHANGES, walkers, generator=random, dtype=torch.float64)
    stride = 2 * 10 ** -torch.rand(_EXCHANGES, walkers, generator=random, dtype=torch.float64)
    factor = (normal * stride).exp().numpy()
    chance = torch.rand(_EXCHANGES, walkers, generator=random, dtype=torch.float64).log().numpy()
    return torch.from_numpy(
        _walk(
            weights.numpy().copy(),
            counts.numpy(),
            masses.numpy(),
            pair.numpy(),
            shape.numpy(),
            fresh,
            factor,
            chance,
        )
    )


def _walk(
    weights: np.ndarray,
    counts: np.ndarray,
    masses: np.ndarray,
    pair: np.ndarray,
    shape: np.ndarray,
    fresh: np.ndarray,
    factor: np.ndarray,
    chance: np.ndarray,
) -> np.ndarray:
    """The steps of `_exchanges`, on arrays: they are small, and calls of torch take thrice as long.

    Args:
        weights, counts, masses: as there; `weights` are overwritten.
        pair: (step, walker, 2), the groups of every step.
        shape: their Dirichlet concentrations, same shape.
        fresh: (step, walker), the share of the first of the two that odd steps propose.
        factor: (step, walker), by which even steps multiply its odds.
        chance: (step, walker), log of a uniform number.
    """
    everyone = np.arange(len(weights))
    density = weights @ masses
    for step, (one, other) in enumerate(pair.swapaxes(1, 2)):
        first, second = weights[everyone, one], weights[everyone, other]
        total = first + second
        share = np.minimum(np.maximum(first / total, _LEAST), 1 - _LEAST)
        if step % 2:
            proposed, gain = fresh[step], 0.0
        else:
            odds = share / (1 - share) * factor[step]
            proposed = np.minimum(np.maximum(odds / (1 + odds), _LEAST), 1 - _LEAST)
            gain = shape[step, :, 0] * np.log(proposed / share)
            gain = gain + shape[step, :, 1] * np.log((1 - proposed) / (1 - share))
        change = (total * (proposed - share))[:, None] * (masses[one] - masses[other])
        ratio = np.maximum(1 + change / density, _LEAST)
        gain = gain + np.einsum("wb,wb->w", counts, np.log(ratio))
        accepted = chance[step] < gain
        share = np.where(accepted, proposed, share)
        weights[everyone, one] = total * share
        weights[everyone, other] = total * (1 - share)
        density += change * accepted[:, None]
    return weights / weights.sum(-1, keepdims=True)


def _subset(scores: Tensor, generator: torch.Generator) -> Tensor:
    if len(scores) <= _MOST_ROWS:
        return scores
    return scores[torch.randperm(len(scores), generator=generator)[:_MOST_ROWS]]


def _places(reference: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """How many of the sorted reference's scores lie below each score, and at most at it."""
    below = torch.searchsorted(reference, scores, right=False)
    return below, torch.searchsorted(reference, scores, right=True)


def _bootstrap(shape: tuple[int, int], effect: float, generator: torch.Generator) -> Tensor:
    """Cumulative weights (walker, m + 1) of rows whose counts vary `effect` times too much."""
    concentration = torch.full(shape, 1 / effect, dtype=torch.float64)
    cumulative = standard_gamma(concentration, generator=generator).cumsum(-1)
    return torch.nn.functional.pad(cumulative / cumulative[:, -1:], (1, 0))


def _p_values(law: Tensor, below: Tensor, most: Tensor, generator: torch.Generator) -> Tensor:
    """Share of the reference above each score, (walker, n); ties, and the row, broken at random."""
    count = law.shape[1] - 1
    above, tied = 1 - law[:, most], law[:, most] - law[:, below]
    point = torch.rand(above.shape, generator=generator, dtype=law.dtype)
    value = (above * count + point * (tied * count + 1)) / (count + 1)
    return value.clamp(1e-12, 1 - 1e-12)


def _densities(p_values: Tensor) -> Tensor:
    """Density of every group at every p-value, (n, groups)."""
    column = p_values.unsqueeze(-1)
    confined = column.new_tensor(CONFINED)
    foreign = column.new_tensor(FOREIGN)
    return torch.cat(
        [
            (column <= confined) / confined,
            foreign * ((foreign - 1) * torch.log1p(-column)).exp(),
        ],
        -1,
    )


def _prior() -> Tensor:
    confined = [_WHOLE] + [_PART] * (len(CONFINED) - 1)
    return torch.tensor(confined + [_STRANGE] * len(FOREIGN), dtype=torch.float64)


def _dirichlet(shape: Tensor, generator: torch.Generator) -> Tensor:
    # Gammas of small shape underflow to zero: both of two at once would have no ratio.
    weights = standard_gamma(shape, generator=generator).clamp_min(1e-300)
    return weights / weights.sum(-1, keepdim=True)
