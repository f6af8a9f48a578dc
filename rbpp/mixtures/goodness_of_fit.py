"""Do held-out rows look like draws of the mixture that was fitted to the others?

Each half of the rows is held against the mixture fitted to the other half. Two transforms of a
held-out row are uniform under that mixture: the share of its draws that are less likely than the
row, and its distribution function at each coordinate. Anderson and Darling's A² measures how far
they are from uniform, tails included. What A² is by chance is known from data sets that the mixture
itself has made, fitted and held out in the same way (parametric bootstrap), so that the number of
rows, of components and of dimensions, and the error of the fit, are all accounted for.

Anderson and Darling, A test of goodness of fit, JASA 49 (1954).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rbpp import validate
from rbpp.checks import Check
from rbpp.mixtures.ascent import Ascent
from rbpp.mixtures.cavi import cavi, fitted_prior
from rbpp.mixtures.mixture import GaussianMixture
from rbpp.randomness import generator, spawn

# A sample shows what matters; in more dimensions the projections on the leading principal axes are
# looked at, which are mixtures of as many components if the rows are.
_MOST_ROWS, _MOST_DIMENSIONS, _LEAST_ROWS_PER_PARAMETER = 1000, 6, 2
_REFERENCE_DRAWS = 2000
_STARTS, _ASCENT = 5, Ascent(tolerance=1e-4, max_iterations=100)
SMALLEST_PROBABILITY = 0.02


@dataclass(frozen=True)
class GoodnessOfFit:
    """How held-out rows compare with the mixture's own.

    Attributes:
        probability: of such a misfit, or a larger one, in rows that the mixture made.
        misfit: largest A² of the two transforms over its average in rows that the mixture made.
        shortfall: how far the log density per held-out row, in nats, is below what the mixture's
            own rows have; negative where they are more likely, as rows of a bounded range are.
        rows, dimension: of what was looked at.
    """

    probability: float
    misfit: float
    shortfall: float
    rows: int
    dimension: int


def goodness_of_fit(
    rows: Tensor,
    components: int,
    concentration: float = 1.0,
    seed: int = 0,
    replicates: int = 99,
) -> GoodnessOfFit | None:
    """Test that rows (n, d) come from a Gaussian mixture of `components`; None for too few rows.

    Args:
        rows: at most 1,000 of them, and their 6 leading principal components, are looked at.
        components: K.
        concentration: of the prior's Dirichlet over the weights.
        seed: of the halves, the data sets and the starts.
        replicates: data sets that the mixture makes; the smallest probability is one in as many.

    Raises:
        ValueError: on unusable rows or options.

    >>> rows = torch.randn(200, 1, generator=torch.Generator().manual_seed(0))
    >>> goodness_of_fit(rows, 1).probability > SMALLEST_PROBABILITY
    True
    >>> goodness_of_fit(rows.exp(), 1).probability > SMALLEST_PROBABILITY
    False
    """
    validate.count("components", components)
    validate.count("replicates", replicates)
    source = generator(spawn(seed, "goodness of fit"))
    values = _projected(rows.detach().cpu().double())
    values = values[torch.randperm(len(values), generator=source)[:_MOST_ROWS]]
    count, dimension = values.shape
    half = count // 2
    parameters = components * (dimension + 1) * (dimension + 2) // 2
    if half < _LEAST_ROWS_PER_PARAMETER * parameters:
        return None
    values = values[: 2 * half]
    prior = fitted_prior(values, components, source, concentration)
    whole = cavi(values, prior, components, restarts=_STARTS, generator=source).best()
    made = whole.expected().sample((replicates, 2 * half), generator=source)
    sets = torch.cat([values.unsqueeze(0), made])  # (1 + replicates, n, d)
    halves = sets.unflatten(1, (2, half))
    start = whole.map(lambda value: value.expand(1, *halves.shape[:2], *value.shape).contiguous())
    fits = cavi(
        halves,
        prior,
        components,
        initial=start,
        ascent=_ASCENT,
    ).best()
    likelihood, coordinates, shortfall = _misfits(fits.expected(), halves.flip(1), source)
    # Each misfit in units of what it is by chance.
    relative = torch.stack([likelihood, coordinates])
    worst = (relative / relative[:, 1:].mean(-1, keepdim=True)).amax(0)
    larger = int((worst[1:] >= worst[0]).sum())
    return GoodnessOfFit(
        (1 + larger) / (1 + replicates),
        worst[0].item(),
        (shortfall[0] - shortfall[1:].mean()).item(),
        2 * half,
        dimension,
    )


def goodness_check(found: GoodnessOfFit | None) -> Check:
    """The check of it, for the audit of whatever rests on a mixture."""
    statement = "held-out rows look like the mixture's own"
    if found is None:
        return Check(statement, "unknown", "too few rows for the components", required=False)
    side = "below" if found.shortfall > 0 else "above"
    message = (
        f"misfit {found.misfit:.3g} times that of the mixture's own rows, P = "
        f"{found.probability:.2g}; log density {abs(found.shortfall):.2g} nats a row {side} theirs"
    )
    violated = found.probability <= SMALLEST_PROBABILITY
    if violated:
        message += ": intervals of densities do not cover; more components, or another scale"
    return Check(
        statement,
        "violated" if violated else "holds",
        message,
        {
            "probability": found.probability,
            "threshold": SMALLEST_PROBABILITY,
            "misfit": found.misfit,
            "shortfall": found.shortfall,
        },
    )


def anderson_darling(uniform: Tensor) -> Tensor:
    """A² (…) of values (…, n) that are uniform on (0, 1) if the hypothesis holds.

    >>> anderson_darling((torch.arange(100) + 0.5) / 100) < 0.1
    tensor(True)
    """
    ordered = uniform.sort(-1).values
    count = uniform.shape[-1]
    odd = 2 * torch.arange(1, count + 1, dtype=ordered.dtype, device=ordered.device) - 1
    logs = ordered.log() + torch.log1p(-ordered.flip(-1))
    return -count - (odd * logs).sum(-1) / count


def _projected(rows: Tensor) -> Tensor:
    """Rows on their leading principal axes; in their own coordinates where these are few."""
    if rows.shape[-1] <= _MOST_DIMENSIONS:
        return rows
    centred = rows - rows.mean(0)
    return centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:_MOST_DIMENSIONS].mT


def _misfits(
    mixture: GaussianMixture, left_out: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """A² by log density and by the worst coordinate, and the shortfall, each (sets,).

    Args:
        mixture: batch (sets, 2), of either half.
        left_out: rows of the other half (sets, 2, n, d).
        generator: of the reference draws.
    """
    drawn = mixture.sample((_REFERENCE_DRAWS,), generator=generator).movedim(0, -2)
    own = mixture.log_prob_rows(drawn)
    density = mixture.log_prob_rows(left_out)
    place = torch.searchsorted(own.sort(-1).values, density.contiguous())
    uniform = (place + 0.5) / (_REFERENCE_DRAWS + 1)
    likelihood = anderson_darling(uniform.flatten(1).double())
    spread = mixture.covariances.diagonal(dim1=-2, dim2=-1).sqrt()
    shift = left_out.unsqueeze(-2) - mixture.means.unsqueeze(-3)  # (sets, 2, n, K, d)
    normal = torch.special.ndtr(shift / spread.unsqueeze(-3))
    cumulative = (mixture.weights[..., None, :, None] * normal).sum(-2)
    least = 0.5 / (_REFERENCE_DRAWS + 1)
    cumulative = cumulative.clamp(least, 1 - least).flatten(1, 2)
    coordinates = anderson_darling(cumulative.movedim(-1, 1)).amax(-1)
    return likelihood, coordinates, (own.mean(-1) - density.mean(-1)).mean(-1)
