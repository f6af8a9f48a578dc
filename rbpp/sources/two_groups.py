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

import torch
from torch import Tensor

# Parts of the reference that a source may be confined to. Below a fifth it is its own place.
CONFINED = (1.0, 0.8, 0.65, 0.5, 0.4, 0.32, 0.25, 0.2)
# Beta(1, b) has half its mass below 0.7 / b: from the rarest twenty-fifth of the reference on.
FOREIGN = (16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
# Dirichlet concentrations. The sparse prior gives groups that the rows do not ask for nothing: two
# halves of one source have a share of exactly zero in most draws.
_WHOLE, _PART, _STRANGE = 1.0, 0.05, 0.03
# Scores of neighbours go together, and tail counts of p-values vary 1.6 to 2.8 times as much as
# independent ones would (labels permuted, 300 and 800 rows a side): a row counts as half a row.
DESIGN_EFFECT = 2.0
# Rows beyond which a random subset decides the shares: more do not narrow them visibly.
_MOST_ROWS = 20_000
_BURN_IN, _STEPS, _THINNING = 80, 2, 4


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
    """Gibbs draws of the two-groups model, the reference's law by the Bayesian bootstrap.

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
    shares, probability, seen = [], torch.zeros(len(source), dtype=torch.float64), 0
    for _ in range(chains):
        weights = torch.full((len(CONFINED) + len(FOREIGN),), 0.05, dtype=torch.float64)
        kept = []
        for step in range(_BURN_IN + draws):
            law = _bootstrap(len(reference), DESIGN_EFFECT * reference_effect, generator)
            density = _densities(_p_values(law, *place, generator))
            for _ in range(_STEPS):
                odds = (density * weights).cumsum(-1)
                point = torch.rand(len(odds), 1, generator=generator, dtype=odds.dtype)
                group = (point * odds[:, -1:] > odds).sum(-1).clamp_max(odds.shape[1] - 1)
                counts = torch.bincount(group, minlength=len(weights))
                weights = _dirichlet(counts / (DESIGN_EFFECT * effect), generator)
            if step < _BURN_IN:
                continue
            some = bool(counts[len(CONFINED) :].any())
            kept.append(weights[len(CONFINED) :].sum() if some else weights.new_zeros(()))
            if step % _THINNING == 0:
                joint = _densities(_p_values(law, *everyone, generator)) * weights
                probability += joint[:, len(CONFINED) :].sum(-1) / joint.sum(-1)
                seen += 1
        shares.append(torch.stack(kept))
    return Foreign(torch.stack(shares), probability / max(1, seen))


def _subset(scores: Tensor, generator: torch.Generator) -> Tensor:
    if len(scores) <= _MOST_ROWS:
        return scores
    return scores[torch.randperm(len(scores), generator=generator)[:_MOST_ROWS]]


def _places(reference: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """How many of the sorted reference's scores lie below each score, and at most at it."""
    below = torch.searchsorted(reference, scores, right=False)
    return below, torch.searchsorted(reference, scores, right=True)


def _bootstrap(count: int, effect: float, generator: torch.Generator) -> Tensor:
    """Cumulative weights (count + 1,) of rows whose counts vary `effect` times too much."""
    shape = torch.full((count,), 1 / effect, dtype=torch.float64)
    weights = torch._standard_gamma(shape, generator=generator)
    cumulative = weights.cumsum(0)
    return torch.cat([cumulative.new_zeros(1), cumulative / cumulative[-1]])


def _p_values(law: Tensor, below: Tensor, most: Tensor, generator: torch.Generator) -> Tensor:
    """Share of the reference above each score; ties, and the row itself, broken at random."""
    count = len(law) - 1
    above, tied = 1 - law[most], law[most] - law[below]
    point = torch.rand(len(below), generator=generator, dtype=law.dtype)
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


def _dirichlet(counts: Tensor, generator: torch.Generator) -> Tensor:
    prior = counts.new_tensor(
        [_WHOLE] + [_PART] * (len(CONFINED) - 1) + [_STRANGE] * len(FOREIGN), dtype=torch.float64
    )
    # Gammas of small shape underflow to zero: a group at exactly zero could not come back.
    weights = torch._standard_gamma(prior + counts, generator=generator).clamp_min(1e-12)
    return weights / weights.sum()
