"""Do exact Gibbs sweeps leave the draws of an approximate posterior where they are?

Importance ratios of all the K (d + 1)(d + 2) / 2 parameters have heavy tails where components
overlap, however well the draws give what does not depend on labels. Sweeps of the Gibbs sampler
leave the exact posterior as it is: if they also leave entropies and log likelihoods of the draws as
these are, the draws give them. (The converse does not hold: a chain may be stuck.)

    z_i | w, μ, Λ ∝ w_k N(x_i; μ_k, Λ_k⁻¹);   w, μ, Λ | z conjugate (`normal_wishart`)

Diebolt and Robert, Estimation of finite mixture distributions through Bayesian sampling, JRSS B 56
(1994).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rbpp.mixtures.ascent import update
from rbpp.mixtures.conjugate import MixturePrior
from rbpp.mixtures.divergences import entropy
from rbpp.mixtures.normal_wishart import Draws
from rbpp.mixtures.standardisation import standardisation
from rbpp.mixtures.triangles import features
from rbpp.randomness import generator, spawn

_SWEEPS, _POINTS = 20, 256
_LARGEST_SHIFT, _LARGEST_SPREAD = 0.5, 1.25
_MOST_ELEMENTS = 2**25  # (draw, row, component) triples of a sweep


@dataclass(frozen=True)
class Movement:
    """What the sweeps did to entropy, mean log likelihood and the mixture's mean; the worst.

    Attributes:
        shift: of the mean, in standard deviations after the sweeps.
        spread: standard deviation before over that after.
        draws: number of draws moved.
    """

    shift: float
    spread: float
    draws: int

    @property
    def is_seen(self) -> bool:
        """Whether it is more than noise and matters: half a standard deviation, or a quarter of it.

        A mean that is off by half a standard deviation takes two points from a 94 % interval.
        """
        error = 2 / math.sqrt(self.draws)  # of the log of the spread; of the shift, √2 times that
        shifted = abs(self.shift) - math.sqrt(2) * error > _LARGEST_SHIFT
        return shifted or abs(math.log(self.spread)) - error > math.log(_LARGEST_SPREAD)


def gibbs_movement(
    rows: Tensor, prior: MixturePrior, draws: Draws, *, most_draws: int = 128, seed: int = 0
) -> Movement | None:
    """Move draws by Gibbs sweeps, and see what became of what does not depend on labels.

    Args:
        rows: that the draws are given, (n, d), float64.
        prior: of the mixture.
        draws: of the approximate posterior, (chain, draw, …).
        most_draws: so many of them are moved at most.
        seed: of the sweeps.

    Returns:
        The movement; None where the rows are too many for it.
    """
    flat = draws.map(lambda value: value.flatten(0, 1).double())
    components = flat.means.shape[-2]
    count = min(len(flat.weights), most_draws, _MOST_ELEMENTS // (len(rows) * components))
    if count < 2:
        return None
    chosen = torch.linspace(0, len(flat.weights) - 1, count).long().to(rows.device)
    units = standardisation(rows)
    standard = units.rows(rows)
    start = units.draws(flat.map(lambda value: value[chosen]))
    own = prior.standardised(units).parameters(components)
    columns = features(standard.mT)
    source = generator(spawn(seed, "gibbs"), rows.device)
    moved = start
    for _ in range(_SWEEPS):
        logits = moved.mixture().component_log_prob_rows(standard)
        uniform = torch.rand(*logits.shape[:-1], 1, generator=source, device=rows.device)
        cumulative = logits.softmax(-1).cumsum(-1)
        label = (uniform.to(cumulative) > cumulative).sum(-1).clamp_max(components - 1)
        held = torch.nn.functional.one_hot(label, components).to(columns)
        moments = held.mT @ columns.mT
        moved = update(own, moments).draw(1, source).map(lambda value: value.squeeze(0))
    before, after = (_terms(one, standard, seed) for one in (start, moved))
    sd = after.std(-1).clamp_min(torch.finfo(after.dtype).eps)
    shift = (before.mean(-1) - after.mean(-1)) / sd
    spread = (before.std(-1) / sd).clamp_min(torch.finfo(after.dtype).eps)
    # Of what moved, that which is farthest beyond its limit, or nearest to it.
    beyond = torch.maximum(
        shift.abs() / _LARGEST_SHIFT, spread.log().abs() / math.log(_LARGEST_SPREAD)
    )
    worst = int(beyond.argmax())
    return Movement(shift[worst].item(), spread[worst].item(), count)


def _terms(draws: Draws, rows: Tensor, seed: int) -> Tensor:
    """Entropy, mean log likelihood and mean of every draw, (2 + d, draws)."""
    mixture = draws.mixture()
    found = entropy(mixture, num_samples=_POINTS, seed=spawn(seed, "gibbs entropy"))
    return torch.stack([found.value, mixture.log_prob_rows(rows).mean(-1), *mixture.mean.mT])
