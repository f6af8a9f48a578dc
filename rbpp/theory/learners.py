"""Learners: distributions q(W | S) of parameters W that can be drawn from and evaluated.

A learner first sees a pilot data set of the same world, independent of what it learns from later.
The pilot gives a pre-trained model to start from and a scale for the loss. After that the learner
is a map from data sets to distributions, batched over data sets, and I(S; W) is a property of that
map and of the distribution of S.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from rbpp import validate
from rbpp.mixtures.ascent import Ascent
from rbpp.mixtures.cavi import cavi
from rbpp.mixtures.conjugate import MixturePrior, VariationalMixture, default_prior
from rbpp.mixtures.normal_wishart import Draws, Parameters
from rbpp.randomness import normals
from rbpp.theory import matching
from rbpp.theory.permanent import log_permanent

FOLDS = 8  # of cross-fitting r in the variational bound: more folds cost more and gain little
_COMPONENT_CHOICES = (1, 2, 3, 4, 5, 6, 8, 10)
_PILOT_ITERATIONS = 150
_NUMBERS_AT_ONCE, _NUMBERS_OF_PART = 2**22, 2**20  # of rows in one fit


class LearnerPosterior(Protocol):
    """q(W | S) of a batch of data sets (…, R)."""

    def select(self, index: Any) -> LearnerPosterior:
        """The data sets at `index` of the last batch dimension."""

    def grouped(self, groups: int) -> LearnerPosterior:
        """R split into groups of data sets that share something: (worlds, groups, R / groups)."""

    def draw(self, generator: torch.Generator) -> Any:
        """One W per data set."""

    def cross_log_prob(self, parameters: Any) -> tuple[Tensor, Tensor]:
        """Bounds from below and above of log q(W_i | S_j) up to a function of W: (…, R_W, R_S)."""

    def divergence(self, others: Any) -> Tensor:
        """KL(q(·|S_i) ‖ r), (…, R), with r of q's family, the closest to the `others`."""

    def critic(self, parameters: Any, members: Tensor) -> Tensor:
        """Score of W_i under a distribution fitted to the `members` of group j: (…, R_W, groups).

        For grouped data sets. InfoNCE with any score is a lower bound; it is tight with a score
        close to the log density of W in the group.
        """


def no_loss(parameters: Any, rows: Tensor) -> Tensor | None:
    """That of a learner without one."""
    return None


@dataclass(frozen=True)
class PreparedLearner:
    """A learner that has seen its pilot data.

    Attributes:
        fit: learn from data sets (worlds, R, n, d).
        loss: in [0, 1], of W (worlds, R) on rows (worlds, R, n, d): (worlds, R, n); None if none.
        components: of a mixture, as given or chosen on the pilot; None of other learners.
    """

    fit: Callable[[Tensor], LearnerPosterior]
    loss: Callable[[Any, Tensor], Tensor | None] = no_loss
    components: int | None = None


@dataclass(frozen=True)
class Learner:
    """A learner by name.

    Attributes:
        name: short name.
        description: one phrase for the report, with what was chosen.
        prepare: (pilot rows (worlds, n, d), generator) to a `PreparedLearner`.
        settle: (pilot rows, generator) to a learner that leaves nothing to choose, for worlds that
            are prepared apart; None where there is nothing to choose.
    """

    name: str
    description: str
    prepare: Callable[[Tensor, torch.Generator], PreparedLearner]
    settle: Callable[[Tensor, torch.Generator], Learner] | None = None


def mixture_learner(
    components: int | None = None,
    *,
    concentration: float = 1.0,
    restarts: int = 4,
    max_iterations: int = 60,
) -> Learner:
    """W is a draw of the variational posterior of a Gaussian mixture (Dirichlet × normal-Wishart).

    Ascent starts from a fit to the pilot data, the pre-trained model, and the prior has the pilot's
    scale. So q(W|S) is a deterministic function of S, and components correspond between data sets.
    The order of components is no information: densities are summed over it.

    Args:
        components: K; `None` chooses it by the evidence lower bound of the pilot data.
        concentration: of the Dirichlet prior.
        restarts: of the pilot fit.
        max_iterations: of the ascent from the pilot fit.
    """
    if components is not None:
        validate.count("components", components)

    def pilot_mixture(
        pilot: Tensor, generator: torch.Generator, choices: Sequence[int]
    ) -> _PilotMixture:
        rows = pilot.double()
        best: tuple[float, MixturePrior, VariationalMixture] | None = None
        worse = 0  # choices in a row without gain; the evidence falls once there are enough
        for choice in choices:
            if best is not None and (choice > rows.shape[-2] // 2 or worse == 2):
                break
            prior = default_prior(rows, choice, concentration=concentration)
            fit = cavi(
                rows,
                prior,
                choice,
                restarts=restarts,
                generator=generator,
                ascent=Ascent(tolerance=1e-5, max_iterations=_PILOT_ITERATIONS),
            ).best()
            # All K! orders of the components are one mixture: its evidence counts each of them.
            evidence = float(fit.elbo.mean()) + math.lgamma(choice + 1)
            worse += 1
            if best is None or evidence > best[0]:
                best, worse = (evidence, prior, fit), 0
        assert best is not None
        level = best[2].expected().log_prob_rows(rows).mean(-1)
        return _PilotMixture(best[1], best[2], level, max_iterations)

    def of(count: int | None) -> Learner:
        choices = _COMPONENT_CHOICES if count is None else (count,)

        def prepare(pilot: Tensor, generator: torch.Generator) -> PreparedLearner:
            own = pilot_mixture(pilot, generator, choices)
            return PreparedLearner(own.fit, own.loss, own.start.components)

        def settle(pilot: Tensor, generator: torch.Generator) -> Learner:
            return of(pilot_mixture(pilot, generator, choices).start.components)

        chosen = "components chosen on pilot data" if count is None else f"{count} components"
        description = f"draw of a conjugate mixture posterior, {chosen}"
        return Learner("mixture", description, prepare, settle if count is None else None)

    return of(components)


@dataclass(frozen=True)
class _PilotMixture:
    prior: MixturePrior
    start: VariationalMixture
    level: Tensor  # (worlds,): mean log density of the pilot, where the loss is one half
    max_iterations: int

    def fit(self, data: Tensor) -> _MixturePosterior:
        # The work on a row takes many times its memory: data sets too large come in parts.
        if data.numel() <= _NUMBERS_AT_ONCE:
            return self._fit(data.double())
        parts = -(-data.numel() // _NUMBERS_OF_PART)
        chunks = data.split(max(1, data.shape[1] // parts), 1)
        fits = [self._fit(chunk.double()).parameters for chunk in chunks]
        joined = (torch.cat(values, 1) for values in zip(*fits, strict=True))
        return _MixturePosterior(Parameters(*joined))

    def _fit(self, data: Tensor) -> _MixturePosterior:
        own = self.prior
        of_rows = (own.mean, own.mean_precision, own.degrees_of_freedom, own.scale)
        prior = MixturePrior(own.concentration, *(value.unsqueeze(1) for value in of_rows))
        fit = cavi(
            data,
            prior,
            self.start.components,
            initial=self.start.map(
                lambda value: value[None, :, None].expand(1, *data.shape[:2], *value.shape[1:])
            ),
            ascent=Ascent(max_iterations=self.max_iterations, tolerance=1e-5),
        )
        parameters = fit.map(lambda value: value[0])
        # Statistics multiply means by precisions; centred on the pilot's mean they do not cancel.
        return _MixturePosterior(replace(parameters, mean=parameters.mean - self._origin()))

    def _origin(self) -> Tensor:
        return self.prior.mean[:, None, None]

    def loss(self, parameters: Draws, rows: Tensor) -> Tensor:
        draws = parameters._replace(means=parameters.means + self._origin())
        log_density = draws.mixture().log_prob_rows(rows.double())
        return torch.sigmoid(self.level[:, None, None] - log_density)


@dataclass(frozen=True)
class _MixturePosterior:
    parameters: Parameters

    def select(self, index: Any) -> _MixturePosterior:
        axis = self.parameters.mean_precision.dim() - 2
        return _MixturePosterior(
            self.parameters.map(lambda value: value[(*[slice(None)] * axis, index)])
        )

    def grouped(self, groups: int) -> _MixturePosterior:
        return _MixturePosterior(
            self.parameters.map(lambda value: value.unflatten(1, (groups, -1)))
        )

    def critic(self, parameters: Draws, members: Tensor) -> Tensor:
        expected = matching.expected_statistics(self.parameters)[..., members, :, :].mean(-3)
        fitted = _MixturePosterior(matching.match(expected, self.parameters.mean.shape[-1]))
        return fitted.cross_log_prob(parameters)[0]

    def draw(self, generator: torch.Generator) -> Draws:
        return self.parameters.draw(1, generator).map(lambda value: value[0])

    def cross_log_prob(self, parameters: Draws) -> tuple[Tensor, Tensor]:
        statistics = matching.statistics(parameters)
        natural, constant, total = matching.natural_parameters(self.parameters)
        *batch, drawn, components, _ = statistics.shape
        fitted = natural.shape[-3]
        pairs = statistics.flatten(-3, -2) @ natural.flatten(-3, -2).mT
        pairs = pairs.unflatten(-1, (fitted, components)).unflatten(-3, (drawn, components))
        pairs = pairs.movedim(-3, -2) + constant[..., None, :, None, :]
        flat = pairs.reshape(-1, *pairs.shape[-4:])
        sides = [log_permanent(matrix) for matrix in flat]
        shape = (*batch, drawn, fitted)
        low, high = (torch.stack(side).reshape(shape) for side in zip(*sides, strict=True))
        return low + total.unsqueeze(-2), high + total.unsqueeze(-2)

    def divergence(self, others: _MixturePosterior) -> Tensor:
        # The divergence of ordered mixtures bounds that of unordered ones: forgetting the order is
        # a Markov kernel.
        expected = matching.expected_statistics(self.parameters)
        mean = matching.expected_statistics(others.parameters).mean(-3, keepdim=True)
        reference = matching.match(mean, self.parameters.mean.shape[-1])
        own = _expected_log_density(expected, self.parameters)
        return own - _expected_log_density(expected, reference)


def _expected_log_density(expected: Tensor, parameters: Parameters) -> Tensor:
    natural, constant, total = matching.natural_parameters(parameters)
    return (expected * natural).sum((-1, -2)) + constant.sum(-1) + total


def point_learner(
    noise: float | Tensor = 0.1,
    *,
    estimate: Callable[[Tensor], Tensor] | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Learner:
    """W is a point estimate plus Gaussian noise, W = f(S) + τ ξ: without noise I(S; W) is infinite.

    Args:
        noise: τ, above 0, a number or one per coordinate of the estimate.
        estimate: f, from (…, n, d) to (…, q); the mean of the rows by default.
        loss: (W (…, q), rows (…, n, d)) to losses in [0, 1] (…, n); by default that of a location,
            1 − exp(−|row − W|² / 2s²) with s² the pilot's mean square deviation.
    """
    scale = torch.as_tensor(noise, dtype=torch.float64)
    if not bool((scale > 0).all()) or not bool(scale.isfinite().all()):
        raise ValueError(f"Expected noise above 0; got {noise}: without it I(S; W) is infinite")

    def prepare(pilot: Tensor, generator: torch.Generator) -> PreparedLearner:
        rows = pilot.double()
        spread = (rows - rows.mean(-2, keepdim=True)).square().sum(-1).mean(-1)

        def of_location(parameters: Tensor, rows: Tensor) -> Tensor:
            distance = (rows - parameters.unsqueeze(-2)).square().sum(-1)
            return -torch.expm1(-distance / (2 * spread[:, None, None]))

        own_loss = loss or (of_location if estimate is None else no_loss)
        return noisy_point(scale, estimate or _mean, own_loss)

    what = "mean of the rows" if estimate is None else getattr(estimate, "__name__", "estimate")
    return Learner("point", f"{what} plus Gaussian noise of scale {noise}", prepare)


def _mean(rows: Tensor) -> Tensor:
    return rows.mean(-2)


def noisy_point(
    noise: Tensor,
    estimate: Callable[[Tensor], Tensor],
    loss: Callable[[Tensor, Tensor], Tensor | None],
) -> PreparedLearner:
    """A point estimate plus noise, with its loss: `point_learner` says of what."""

    def fit(data: Tensor) -> LearnerPosterior:
        centre = estimate(data.double())
        return _PointPosterior(centre, noise.to(centre).expand(centre.shape[-1]))

    return PreparedLearner(fit, lambda parameters, rows: loss(parameters, rows.double()))


@dataclass(frozen=True)
class _PointPosterior:
    centre: Tensor
    noise: Tensor

    def select(self, index: Any) -> _PointPosterior:
        return _PointPosterior(self.centre[..., index, :], self.noise)

    def grouped(self, groups: int) -> _PointPosterior:
        return _PointPosterior(self.centre.unflatten(1, (groups, -1)), self.noise)

    def critic(self, parameters: Tensor, members: Tensor) -> Tensor:
        chosen = (self.centre / self.noise)[..., members, :]
        factor, mean = _matched_gaussian(chosen)
        shift = (parameters / self.noise).unsqueeze(-3) - mean  # (…, groups, R_W, q)
        white = torch.linalg.solve_triangular(factor, shift.mT, upper=False)
        log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return (-0.5 * white.square().sum(-2) - log_det.unsqueeze(-1)).mT

    def draw(self, generator: torch.Generator) -> Tensor:
        return self.centre + self.noise * normals(self.centre.shape, generator, self.centre)

    def cross_log_prob(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        scaled = (parameters / self.noise).unsqueeze(-2) - (self.centre / self.noise).unsqueeze(-3)
        value = -0.5 * scaled.square().sum(-1)
        return value, value

    def divergence(self, others: _PointPosterior) -> Tensor:
        # In units of the noise: q is N(f, I), r is N(mean f, I + covariance of f).
        return gaussian_divergence(self.centre / self.noise, others.centre / self.noise)


def gaussian_divergence(centres: Tensor, members: Tensor) -> Tensor:
    """KL(N(centre_i, I) ‖ r), r the Gaussian matched to N(member, I) over the members: (…, R)."""
    factor, mean = _matched_gaussian(members)
    trace = torch.cholesky_inverse(factor).diagonal(dim1=-2, dim2=-1).sum(-1)
    white = torch.linalg.solve_triangular(factor, (centres - mean).mT, upper=False)
    log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    constant = trace - centres.shape[-1] + log_det
    return 0.5 * (white.square().sum(-2) + constant.unsqueeze(-1))


def _matched_gaussian(members: Tensor) -> tuple[Tensor, Tensor]:
    """Cholesky factor and mean of the Gaussian matched to N(member, I): (…, q, q), (…, 1, q)."""
    mean = members.mean(-2, keepdim=True)
    centred = members - mean
    identity = torch.eye(members.shape[-1], dtype=members.dtype, device=members.device)
    return torch.linalg.cholesky(centred.mT @ centred / members.shape[-2] + identity), mean


def divergences(learned: LearnerPosterior) -> tuple[Tensor, Tensor]:
    """KL(q(·|S_i) ‖ r), (…, R), with r fitted to the other folds, which bounds, and to all."""
    within = learned.divergence(learned)
    index = torch.arange(within.shape[-1])
    folds = min(FOLDS, len(index))
    across = within.clone()
    for fold in range(folds):
        own = index[index % folds == fold]
        rest = learned.select(index[index % folds != fold])
        across[..., own] = learned.select(own).divergence(rest)
    return across, within
