"""Which inference: the normal at the optimum where it can be trusted, else many short chains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import cycle
from typing import Literal, get_args

import torch
from torch import Tensor

from rbpp import validate
from rbpp.compute import Compute
from rbpp.posterior.density import ConditionedDensity
from rbpp.posterior.hmc import (
    APPROXIMATE_RHAT,
    LARGEST_RHAT,
    Chains,
    chains_of,
    judged,
    sample,
)
from rbpp.posterior.labels import Symmetry, described, one_order, symmetries
from rbpp.posterior.laplace import FEW, FREEDOM, MATCHED_FREEDOM, Weighted, approximate, matched
from rbpp.posterior.limit import Limit
from rbpp.posterior.nuts import nuts
from rbpp.posterior.optimum import SCREENED, Optimum, climbed, find_optima, values_of
from rbpp.posterior.sites import Prepared
from rbpp.posterior.starts import fitted_starts
from rbpp.posterior.variational import Target, fit_guide

Engine = Literal["auto", "laplace", "hmc", "svi", "nuts"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
# Of the seconds, for the search of optima: the rest is for chains.
_SEARCH_SHARE = 0.4
RESULT_CHAINS = 4
# Times that Student's t is moved to the moments of the weighted draws.
_MATCHINGS = 3
# Draws of each chain at which the model is run once more.
_COMPARED = 8


@dataclass(frozen=True)
class Inference:
    """How a posterior is found, and when what was found is good enough: see `rbpp.infer`.

    Raises:
        ValueError: for an engine that there is not, a number that is none, or what belongs to
            engine svi where another is asked for.
    """

    engine: Engine = "auto"
    guide: str = "auto"
    draws: int = 250
    seconds: float = 60.0
    accept: bool = False
    batch_rows: int | None = None

    def __post_init__(self) -> None:
        validate.choice("engine", self.engine, ENGINES)
        validate.count("draws", self.draws)
        validate.number("seconds", self.seconds, above=0)
        if self.engine != "svi" and (self.guide != "auto" or self.batch_rows is not None):
            raise ValueError(
                f"Expected engine svi with a guide or batch_rows; got engine {self.engine}"
            )
        if self.batch_rows is not None:
            validate.count("batch_rows", self.batch_rows)


@dataclass(frozen=True)
class VectorDraws:
    """Draws of the unconstrained vector, and how they came about.

    Attributes:
        engine: that made them.
        exact: whether the diagnostics trust them as draws of the posterior; else approximate.
        diagnostics: `pareto_k` k̂ of the importance ratios and `efficiency`, the effective sample
            size as a share of the draws; of chains `rhat`, the largest split R-hat, and
            `sample_size`, the smallest effective one, of what is reported.
        vectors: (chain, draw, D), components of symmetric plates in one order.
        log_density: (chain, draw), up to the posterior's constant.
        log_q: log density of the approximation (chain, draw), where there is one.
        story: what was tried and why it was kept or left, a line each.
        modes: number of distinct optima within 10 nats of the best.
        symmetries: of components.
    """

    engine: str
    exact: bool
    diagnostics: Mapping[str, float]
    vectors: Tensor
    log_density: Tensor
    log_q: Tensor | None = None
    story: tuple[str, ...] = ()
    modes: int = 0
    symmetries: tuple[Symmetry, ...] = ()


def infer_vectors(
    density: ConditionedDensity, given: Inference | None = None, compute: Compute | None = None
) -> VectorDraws:
    """Posterior draws of the unconstrained vector.

    Raises:
        ValueError: if nothing could be trusted within the limit, saying what was tried; if the data
            are impossible under the process.
    """
    if density.size == 0:
        raise ValueError("Expected latent sites to infer; got a process whose sites are all given")
    search = _Search(density, given or Inference(), Compute.of(compute))
    found = search.run()
    story, modes = tuple(search.story), len(search.optima)
    return replace(found, story=story, modes=modes, symmetries=search.symmetries)


@dataclass
class _Search:
    """The engines, one after the other, on one clock."""

    density: ConditionedDensity
    given: Inference
    compute: Compute
    story: list[str] = field(default_factory=list)
    best: Weighted | None = None

    def __post_init__(self) -> None:
        self.late = Limit.after(self.given.seconds)
        limit = Limit.after(_SEARCH_SHARE * self.given.seconds)
        self.story += self.density.prepared.describe()
        self.symmetries = tuple(symmetries(self.density, self.compute.spawn("symmetry").seed))
        self.story += described(self.symmetries).values()
        fitted = fitted_starts(self.density, self.symmetries, self.compute.spawn("fitted").seed)
        if fitted is not None:
            self.story.append("starts at the means of a mixture fitted to the rows")
        self.optima = find_optima(
            self.density,
            self.compute.spawn("starts").seed,
            fitted,
            arrange=partial(one_order, self.symmetries),
            out_of_time=limit,
        )
        self.sound = [one for one in self.optima if one.sound]
        self.usable = self.sound or [one for one in self.optima if not one.stray]
        self.story.append(_said_of(self.optima))
        if limit():
            self.story.append("the search for optima ended with its share of the time")

    def run(self) -> VectorDraws:
        """The engine that is asked for, or the first that is trusted."""
        engine = self.given.engine
        found = self.laplace() if engine in ("auto", "laplace") else None
        if found is not None:
            return found
        if engine == "svi":
            return self.svi()
        return self.nuts() if engine == "nuts" else self.hmc()

    def laplace(self) -> VectorDraws | None:
        """The first approximation that is trusted; None where none is and others may be tried."""
        for weighted in self._approximations() if self.sound else ():
            if self._weigh(weighted):
                return self._of_weighted(weighted)
        if self.given.engine == "auto":
            return None
        if self.given.accept and self.best is not None:
            return self._of_weighted(self.best)
        reason = "no optimum with curvature in every direction" if self.best is None else ""
        raise self._refusal(reason or self.story[-1])

    def _approximations(self) -> Iterator[Weighted]:
        """Normal, then Student's t at the optima, then the latter at the moments of the best."""
        for freedom in (None, FREEDOM):
            yield self._approximated(freedom)
        for number in range(_MATCHINGS):
            centre = None if self.best is None else matched(self.best)
            if centre is None or self.late():
                return
            generator = self.compute.generator("matched", number)
            weighted = approximate(self.density, [centre], MATCHED_FREEDOM, generator)
            yield replace(weighted, name=f"{weighted.name.split(' at ')[0]} matched")

    def svi(self) -> VectorDraws:
        """A guide fitted in whitened coordinates."""
        centre, scale = self._whitened()
        target = Target(
            self.density, centre, scale, self.compute.generator("guide"), self.given.batch_rows
        )
        weighted, ended = fit_guide(target, self.given.guide, self.late)
        self.story.append(ended)
        if not self._weigh(weighted) and not self.given.accept:
            raise self._refusal(self.story[-1])
        return self._of_weighted(weighted)

    def hmc(self) -> VectorDraws:
        """Many short chains."""
        starts, scale = self._starts()
        found = sample(
            self.density,
            self._ordered(starts),
            scale,
            self.compute.generator("chains"),
            least_draws=-(-self.given.draws * RESULT_CHAINS // len(starts)),
            reported=self.density.prepared.reported,
            arrange=self._ordered,
            out_of_time=self.late,
        )
        self.story.append(_said_of_chains(found, self.density.prepared))
        if found is not None and not _is_of(self.density, found):
            raise ValueError(
                f"Expected {self.density.process.name} to use torch wherever latent sites count; "
                "got draws whose density is another in a run of the model (NumPy, or .tolist()?)"
            )
        if found is None or (found.rhat > APPROXIMATE_RHAT and not self.given.accept):
            raise self._refusal("; ".join(self.story[-3:]))
        # Groups of short chains, one after the other.
        draws, there_are = self.given.draws, found.log_density.numel() // RESULT_CHAINS
        if there_are < draws:
            self.story.append(
                f"{there_are} draws a chain instead of the {draws} asked for: time was up"
            )
        return VectorDraws(
            "hmc",
            found.converged,
            found.diagnostics,
            vectors=_regrouped(found.vectors, draws),
            log_density=_regrouped(found.log_density, draws),
        )

    def nuts(self) -> VectorDraws:
        """Pyro's sampler, one chain after the other."""
        starts, scale = self._starts()
        seed = self.compute.spawn("nuts").seed
        run = nuts(self.density, starts[:RESULT_CHAINS], scale, self.given.draws, seed, self.late)
        if run is None:
            raise self._refusal("the No-U-Turn sampler did not end")
        found = judged(self._ordered(run[0]), run[1], self.density.prepared.reported)
        self.story.append(
            f"No-U-Turn sampler: R-hat {found.rhat:.3f}, effective sample size "
            f"{found.sample_size:.0f}"
        )
        if found.rhat > APPROXIMATE_RHAT and not self.given.accept:
            raise self._refusal(self.story[-1])
        return VectorDraws(
            "nuts",
            found.rhat <= LARGEST_RHAT,
            found.diagnostics,
            vectors=found.vectors,
            log_density=found.log_density,
        )

    def _approximated(self, freedom: float | None) -> Weighted:
        """Draws at the optima with their weights: few, where few say that they are of no use."""
        label = int(freedom is not None)
        few, enough = (self.compute.generator(name, label) for name in ("few", "laplace"))
        found = approximate(self.density, self.sound, freedom, few, FEW)
        if found.hopeless:
            return found
        return approximate(self.density, self.sound, freedom, enough)

    def _ordered(self, vectors: Tensor) -> Tensor:
        return one_order(self.symmetries, vectors, self.optima[0].point)

    def _whitened(self) -> tuple[Tensor, Tensor]:
        """Centre and scale of coordinates in which the posterior is roughly standard normal."""
        if self.usable:
            return self.usable[0].point, self.usable[0].scale
        prior, scale = self._prior("whitened")
        return prior.mean(0), scale

    def _prior(self, label: str) -> tuple[Tensor, Tensor]:
        """Draws of the prior, and the scale that makes their spread one in every coordinate."""
        prior = self.density.prior_vectors(SCREENED, self.compute.spawn(label).seed)
        return prior, torch.diag_embed(prior.std(0).clamp_min(1e-3))

    def _starts(self) -> tuple[Tensor, Tensor]:
        """Distinct draws of the approximation, by weight; else what climbed from the prior."""
        count = chains_of(self.density)
        if self.best is None and self.sound:
            self._weigh(self._approximated(FREEDOM))
        generator = self.compute.generator("starts")
        if self.best is not None:
            chosen = _without_replacement(self.best.log_weights, count, generator)
            return self.best.vectors[chosen.to(self.best.vectors.device)], self.sound[0].scale
        if self.usable:
            normals = torch.randn(count, self.density.size, generator=generator).double()
            points = [
                one.point + one.scale @ own
                for own, one in zip(normals.to(self.usable[0].point), cycle(self.usable))
            ]
            return torch.stack(points), self.usable[0].scale
        prior, scale = self._prior("chains")
        return climbed(self.density, prior, count, self.late), scale

    def _weigh(self, weighted: Weighted) -> bool:
        """Whether an approximation is trusted, which is told and kept in mind."""
        self.story.append(
            f"{weighted.name}: Pareto k {weighted.pareto_k:.2f}, "
            f"{100 * weighted.efficiency:.0f} % of the draws effective"
        )
        if self.best is None or weighted.pareto_k < self.best.pareto_k:
            self.best = weighted
        return weighted.trusted

    def _of_weighted(self, weighted: Weighted) -> VectorDraws:
        count = RESULT_CHAINS * self.given.draws
        index = weighted.resampled(count, self.compute.generator("resampled"))
        index = index.reshape(RESULT_CHAINS, -1).to(weighted.vectors.device)
        return VectorDraws(
            "svi" if weighted.name.startswith("guide") else "laplace",
            weighted.trusted,
            {"pareto_k": weighted.pareto_k, "efficiency": weighted.efficiency},
            vectors=self._ordered(weighted.vectors[index]),
            log_density=weighted.log_density[index],
            log_q=weighted.log_q[index],
        )

    def _refusal(self, reason: str) -> ValueError:
        return ValueError(
            f"Expected draws that diagnostics trust within {self.given.seconds:g} seconds; got "
            f"none: {reason}. Give more seconds, observe more sites, or accept what there is"
        )


def _without_replacement(log_weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Distinct indices drawn by weights (Gumbel's trick): copies of one start would never part."""
    uniform = torch.rand(len(log_weights), generator=generator, dtype=log_weights.dtype)
    keys = log_weights.cpu() - (-uniform.log()).log()
    return keys.topk(count).indices


def _regrouped(values: Tensor, draws: int) -> Tensor:
    """(chain, draw, …) of many short chains as four long ones of so many draws, evenly thinned."""
    longer = values.unflatten(0, (RESULT_CHAINS, -1)).flatten(1, 2)
    step = torch.linspace(0, longer.shape[1] - 1, min(draws, longer.shape[1])).round().long()
    return longer[:, step.to(values.device)]


def _said_of(optima: list[Optimum]) -> str:
    values = ", ".join(f"{one.value:.1f}" for one in optima)
    poor = sum(not one.sound for one in optima)
    without = f", {poor} flat in some direction or not looked at" if poor else ""
    word = "optimum" if len(optima) == 1 else "optima"
    return f"{len(optima)} {word} at log density {values}{without}"


def _is_of(density: ConditionedDensity, chains: Chains) -> bool:
    """Whether a run of the model has the densities that its recorded operations gave."""
    some = slice(None, None, -(-chains.vectors.shape[1] // _COMPARED))
    found = values_of(density, chains.vectors[:, some].flatten(0, 1))
    return torch.allclose(found, chains.log_density[:, some].flatten(), rtol=1e-6, atol=1e-6)


def _said_of_chains(chains: Chains | None, prepared: Prepared) -> str:
    if chains is None:
        return "Hamiltonian Monte Carlo: fewer than 20 draws a chain within the time"
    sites = [one.name for one in prepared.latents if one.start <= chains.worst < one.stop]
    worst = f" (of {sites[0] if sites else 'the log density'})"
    return (
        f"Hamiltonian Monte Carlo: {len(chains.vectors)} chains of {chains.vectors.shape[1]} "
        f"draws, R-hat {chains.rhat:.3f}{'' if chains.converged else worst}, effective sample size "
        f"{chains.sample_size:.0f}"
    )
