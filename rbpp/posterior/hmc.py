"""Hamiltonian Monte Carlo of many short chains at once, which stops by itself.

One gradient of 32 chains costs little more than that of one, since the time of a Pyro model is
Python's. Chains run in coordinates that the approximation at the optimum, and later the draws
themselves, have whitened. Rounds of 50, 100, 200, … draws go on until split R-hat and effective
sample size of every coordinate say that the last round is one of the posterior.

Where draws are fewer than coordinates, the slopes that the chains met whiten, trajectories are as
long as chains move far by them for what they cost, and rounds are put together.

Neal, MCMC using Hamiltonian dynamics, 2011; Hoffman and Gelman, The No-U-Turn sampler, JMLR 15
(2014), for the adaptation of the step size; Hoffman, Radul and Sountsov, An adaptive-MCMC scheme
for setting trajectory lengths in Hamiltonian Monte Carlo, AISTATS 2021; Sountsov and Hoffman,
Focusing on difficult directions for learning HMC trajectory lengths, 2021; Vehtari et al.,
Rank-normalization, folding, and localization, Bayesian Analysis 16 (2021), for R-hat.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from rbpp.posterior.density import ConditionedDensity
from rbpp.posterior.limit import NEVER, Limit

# Chains, the fewer the longer a run of the model takes, and the vectors that one such run holds.
CHAINS = (32, 16, 8)
FIRST_ROUND, LONGEST_ROUND, MOST_ROUNDS, LEAST_DRAWS = 50, 800, 32, 20
LARGEST_RHAT, LEAST_SAMPLE_SIZE = 1.01, 400.0
APPROXIMATE_RHAT = 1.05
# Trajectories of about a quarter period of a standard normal in whitened coordinates. Where slopes
# whiten, flat directions are longer than one: of the paper's mixture in 432 coordinates 50 draws of
# 32 chains had R-hat 1.9 at 1.6, and 39 draws 1.1 at 6.
_LENGTH, _ACCEPTANCE, _MOST_LEAPS = 1.6, 0.8, 256
_LENGTHS, _LENGTH_RATE = (0.8, 20.0), 0.1
# Slopes for which the first metric counts, as a share of the coordinates; later ones count for this
# share of the slopes that made them. Slopes of a trajectory that are kept: neighbours say the same.
_SHRINKAGE, _KEPT_SLOPES = 0.5, 8
# Rounds are put together, and the coordinates stay, from the first on whose chains stand in about
# one place; those of the first round are made better once more.
_SETTLED_RHAT = 1.1
# Before the first round: moves, and the longest trajectory while the coordinates are poor. Each
# window ends by whitening with the spread of all chains.
_WINDOWS = ((20, 12), (20, 24), (30, 48))
_ADAPTATION = 25


@dataclass(frozen=True)
class Chains:
    """The last round of chains.

    Attributes:
        vectors: (chain, draw, D).
        log_density: (chain, draw).
        rhat: largest split R-hat of a coordinate.
        worst: the coordinate that has it; D where it is the log density.
        sample_size: smallest effective sample size of a coordinate.
    """

    vectors: Tensor
    log_density: Tensor
    rhat: float
    worst: int
    sample_size: float

    @property
    def converged(self) -> bool:
        """Whether R-hat and the effective sample size are those of draws of the posterior."""
        return self.rhat <= LARGEST_RHAT and self.sample_size >= LEAST_SAMPLE_SIZE

    @property
    def diagnostics(self) -> dict[str, float]:
        """The numbers that say so."""
        return {"rhat": self.rhat, "sample_size": self.sample_size}


def sample(
    density: ConditionedDensity,
    starts: Tensor,
    scale: Tensor,
    generator: torch.Generator,
    *,
    least_draws: int = 0,
    reported: Tensor | None = None,
    arrange: Callable[[Tensor], Tensor] = lambda vectors: vectors,
    out_of_time: Limit = NEVER,
) -> Chains | None:
    """Chains from `starts` until they agree, or time is up.

    Args:
        density: the posterior's.
        starts: (chains, D), distinct.
        scale: W (D, D): coordinates are start + W x, with x roughly standard normal.
        generator: source of all randomness.
        least_draws: of each chain: a last round that is shorter goes on until it has them.
        reported: coordinates that are judged, beside the log density; all by default. Copies of a
            mode under a symmetry of the others are then no disagreement.
        arrange: takes vectors (…, D) to copies of the same density in one order of components.
        out_of_time: asked between trajectories.

    Returns:
        The last round that was completed to at least 20 draws a chain, with fewer than
        `least_draws` only where time was up; None if there is none.
    """
    state = _State(density, starts, scale, generator, out_of_time)
    for moves, leaps in _WINDOWS:
        state.warm_up(moves, leaps)
    state.arrange(arrange)
    state.adapt()
    if state.many:
        state.level()
        state.adapt()
    found, draws = None, FIRST_ROUND
    before = starts.new_empty(len(starts), 0, density.size), starts.new_empty(len(starts), 0)
    for number in range(1, MOST_ROUNDS + 1):
        new = state.run(draws)
        vectors, values = (torch.cat(parts, 1) for parts in zip(before, new, strict=True))
        if vectors.shape[1] >= LEAST_DRAWS:
            found = judged(arrange(vectors), values, reported)
        if found is None or found.converged or out_of_time():
            break
        settled = found.rhat < _SETTLED_RHAT
        state.arrange(arrange)
        if number == 1 or not settled:
            state.whiten(found.vectors)
            state.adapt()
        if settled:
            before = vectors, values
        else:
            draws = min(2 * draws, LONGEST_ROUND)
    if found is not None and found.vectors.shape[1] < least_draws and not out_of_time():
        more = state.run(least_draws - found.vectors.shape[1])
        vectors = torch.cat([found.vectors, more[0]], 1)
        values = torch.cat([found.log_density, more[1]], 1)
        found = judged(arrange(vectors), values, reported)
    return found


class _State:
    """Where all chains are, and how they move."""

    def __init__(
        self,
        density: ConditionedDensity,
        starts: Tensor,
        scale: Tensor,
        generator: torch.Generator,
        out_of_time: Limit,
    ) -> None:
        self.density, self.generator = density, generator
        self.out_of_time = out_of_time
        self.rescale(scale)
        self.points = starts.clone()
        self.values, self.slopes = density.gradient(self.points)
        self.step = 0.5 / max(1, density.size) ** 0.25
        # Draws of a window fewer than the coordinates say little of how these spread.
        self.many = len(starts) * _WINDOWS[-1][0] < density.size
        self.met: list[Tensor] = []  # slopes since coordinates were last whitened by them
        self.weight = _SHRINKAGE * density.size  # slopes for which the present metric counts
        self.length, self.gain = _LENGTH, (0.0, 0.0, 0)

    def arrange(self, order: Callable[[Tensor], Tensor]) -> None:
        """Move every chain to the copy of its point that has the components in one order."""
        self.points = order(self.points)
        self.values, self.slopes = self.density.gradient(self.points)

    def rescale(self, scale: Tensor) -> None:
        """Take W (D, D) for the scale."""
        self.scale, self.inverse = scale, torch.linalg.inv(scale)
        self.metric = scale @ scale.mT

    def whiten(self, vectors: Tensor) -> None:
        """Take the spread of the draws for the scale, shrunk to what it was where they are few.

        Of draws fewer than coordinates the spread would shorten the steps by a quarter: then that
        of the slopes.
        """
        if self.many:
            return self.level()
        flat = vectors.flatten(0, 1)
        count, size = flat.shape
        centred = flat - flat.mean(0)
        own = centred.mT @ centred / (count - 1)
        share = count / (count + 5 * size)
        blend = share * own + (1 - share) * self.metric
        with suppress(RuntimeError):  # chains that stand still have no spread in some direction
            self.rescale(torch.linalg.cholesky(blend))

    def level(self) -> None:
        """Whiten by the slopes that were met: their mean square becomes one in every direction.

        The mean of g gᵀ over the posterior is that of its curvature, E[−∇²]: of a normal, the
        inverse of the covariance. Every leap gives a slope, and along a ridge that curves they know
        the curvature of all of it, where the Hessian at one point misleads.
        """
        if not self.met:
            return
        slopes = torch.cat(self.met) @ self.scale
        self.met.clear()
        total = slopes.mT @ slopes
        total.diagonal().add_(self.weight)
        count = len(slopes) + self.weight
        values, vectors = torch.linalg.eigh(total / count)
        self.rescale(self.scale @ (vectors * values.rsqrt()))
        self.weight = _SHRINKAGE * count

    def warm_up(self, moves: int, leaps: int) -> None:
        """Short trajectories, the second half of which says how the chains spread."""
        seen = self.adapt(moves, leaps)
        if len(seen) > 4:
            self.whiten(torch.stack(seen[len(seen) // 2 :], 1))

    def adapt(self, moves: int = _ADAPTATION, leaps: int = _MOST_LEAPS) -> list[Tensor]:
        """Step size by dual averaging (Hoffman and Gelman 2014, section 3.2); points passed."""
        centre, average, error, seen = math.log(3 * self.step), 0.0, 0.0, []
        for number in range(1, moves + 1):
            rate = self.move(leaps, lengthen=self.many and leaps == _MOST_LEAPS)
            seen.append(self.points)
            error += (_ACCEPTANCE - rate - error) / (number + 10)
            log_step = centre - math.sqrt(number) / 0.05 * error
            weight = number**-0.75
            average = weight * log_step + (1 - weight) * average
            self.step = min(math.exp(log_step), 2.0)
            if self.out_of_time():
                break
        self.step = min(math.exp(average), 2.0)
        return seen

    def run(self, draws: int) -> tuple[Tensor, Tensor]:
        """Vectors (chain, draw, D) and log densities of a round, shorter where time is up."""
        points, values = [], []
        for _ in range(draws):
            self.move()
            points.append(self.points)
            values.append(self.values)
            if self.out_of_time():
                break
        return torch.stack(points, 1), torch.stack(values, 1)

    def move(self, leaps: int = _MOST_LEAPS, *, lengthen: bool = False) -> float:
        """One trajectory of every chain; mean acceptance probability.

        Momenta are those of the coordinates themselves, with the metric's inverse for covariance,
        so that a leap has one product with a matrix. On request the length of further trajectories
        is adapted.
        """
        white = torch.randn(
            self.points.shape, generator=self.generator, dtype=self.points.dtype
        ).to(self.points.device)
        jitter = float(torch.rand((), generator=self.generator))
        count = max(1, min(leaps, round((0.5 + jitter) * self.length / self.step)))
        points, values, slopes = self.points, self.values, self.slopes
        momentum = white @ self.inverse + 0.5 * self.step * slopes
        passed: list[Tensor] = []
        for leap in range(1, count + 1):
            points = points + (self.step * momentum) @ self.metric
            values, slopes = self.density.gradient(points)
            momentum = momentum + (self.step if leap < count else 0.5 * self.step) * slopes
            passed.append(slopes)
            if self.out_of_time():  # nobody asks for this draw
                return 0.0
        moved = momentum @ self.scale
        gain = values - self.values + 0.5 * (white.square() - moved.square()).sum(-1)
        gain = gain.nan_to_num(-math.inf)
        if lengthen:
            moves = (points - points.mean(0)) @ self.inverse.mT
            before = (self.points - self.points.mean(0)) @ self.inverse.mT
            change = moves.square().sum(-1) - before.square().sum(-1)
            slope = change * (moves * moved).sum(-1) * (0.5 + jitter) * self.length
            slope = slope - change.square() / 4
            self._lengthen(slope.nan_to_num(0.0, 0.0, 0.0), gain.clamp_max(0).exp())
        uniform = torch.rand(len(gain), generator=self.generator, dtype=gain.dtype).to(gain.device)
        taken = uniform.log() < gain
        if self.many:  # where trajectories diverge, slopes are of nowhere
            self.met += [one[taken] for one in passed[:: -(-count // _KEPT_SLOPES)]]
        self.points = torch.where(taken.unsqueeze(-1), points, self.points)
        self.values = torch.where(taken, values, self.values)
        self.slopes = torch.where(taken.unsqueeze(-1), slopes, self.slopes)
        return float(gain.clamp_max(0).exp().mean())

    def _lengthen(self, slopes: Tensor, rates: Tensor) -> None:
        """Move the length uphill in how much squared distances from the centre change by it.

        That is a quarter of the mean square of these changes (ChEES) over the length, since every
        leap costs. Slopes by the logarithm of the length, one of every chain, count as likely as
        its move is accepted; Adam takes their sign and size.
        """
        slope = float((rates * slopes).sum() / rates.sum().clamp_min(1e-9))
        first, second, count = self.gain
        first, second, count = 0.9 * first + 0.1 * slope, 0.95 * second + 0.05 * slope**2, count + 1
        self.gain = first, second, count
        size = math.sqrt(second / (1 - 0.95**count)) + 1e-12
        change = _LENGTH_RATE * first / (1 - 0.9**count) / size
        self.length = min(max(self.length * math.exp(change), _LENGTHS[0]), _LENGTHS[1])


def judged(vectors: Tensor, log_density: Tensor, reported: Tensor | None = None) -> Chains:
    """Chains (chain, draw, D) with the worst diagnostics of their coordinates and log density.

    Args:
        vectors, log_density: (chain, draw, D), (chain, draw).
        reported: coordinates that are judged; all by default.
    """
    size = vectors.shape[-1]
    places = torch.arange(size) if reported is None else reported
    places = torch.cat([places, torch.tensor([size])])
    own = torch.cat([vectors, log_density.unsqueeze(-1)], -1)[..., places.to(vectors.device)]
    rhat = split_rhat(own).nan_to_num(math.inf)
    worst = int(places[rhat.argmax().cpu()])
    sample_size = effective_sample_size(own).nan_to_num(0.0).min()
    return Chains(vectors, log_density, float(rhat.max()), worst, float(sample_size))


def chains_of(density: ConditionedDensity) -> int:
    """How many chains: few where each of them costs as much as the first."""
    return next((count for count in CHAINS if density.at_once >= count), CHAINS[-1])


def split_rhat(draws: Tensor) -> Tensor:
    """Split R-hat of every coordinate (D,) of draws (chain, draw, D)."""
    half = draws.shape[1] // 2
    halves = torch.cat([draws[:, :half], draws[:, half : 2 * half]])
    within = halves.var(1).mean(0)
    between = halves.mean(1).var(0) * half
    return (((half - 1) / half * within + between / half) / within.clamp_min(1e-300)).sqrt()


def effective_sample_size(draws: Tensor) -> Tensor:
    """Effective sample size (D,) of draws (chain, draw, D) by Geyer's initial positive pairs.

    Autocorrelations are averages over chains (Vehtari et al. 2021, equations 10 to 13). Pyro's
    function of the same name needs memory that is quadratic in draws.
    """
    chains, count, _ = draws.shape
    centred = draws - draws.mean(1, keepdim=True)
    spectrum = torch.fft.rfft(centred, 2 * count, dim=1)
    covariance = torch.fft.irfft(spectrum.abs().square(), 2 * count, dim=1)[:, :count] / count
    within = covariance[:, 0].mean(0) * count / (count - 1)
    between = draws.mean(1).var(0) if chains > 1 else torch.zeros_like(within)
    total = within * (count - 1) / count + between
    correlation = 1 - (within - covariance.mean(0) * count / (count - 1)) / total.clamp_min(1e-300)
    even = correlation[: count // 2 * 2].unflatten(0, (-1, 2)).sum(1)
    positive = (even > 0).long().cumprod(0).bool()
    monotone = torch.where(positive, even, torch.zeros_like(even)).cummin(0).values.clamp_min(0)
    time = (-1 + 2 * monotone.sum(0)).clamp_min(1 / math.log10(max(10, chains * count)))
    return chains * count / time
