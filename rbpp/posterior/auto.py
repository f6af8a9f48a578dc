"""Which inference: the normal at the optimum where it can be trusted, else many short chains."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from itertools import cycle
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from rbpp import validate
from rbpp.compute import Compute
from rbpp.posterior.density import ConditionedDensity, Prepared
from rbpp.posterior.hmc import (
    APPROXIMATE_RHAT,
    LARGEST_RHAT,
    Chains,
    chains_of,
    effective_sample_size,
    sample,
    split_rhat,
)
from rbpp.posterior.labels import Symmetry, described, one_order, symmetries
from rbpp.posterior.laplace import FEW, FREEDOM, MATCHED_FREEDOM, Weighted, approximate, matched
from rbpp.posterior.limit import Limit
from rbpp.posterior.nuts import nuts
from rbpp.posterior.optimum import SCREENED, Optimum, climbed, find_optima, values_of
from rbpp.posterior.starts import fitted_starts
from rbpp.posterior.variational import fit_guide

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
class VectorDraws:
    """Draws of the unconstrained vector, and how they came about.

    Attributes:
        vectors: (chain, draw, D), components of symmetric plates in one order.
        log_density: (chain, draw), up to the posterior's constant.
        log_q: log density of the approximation (chain, draw), where there is one.
        engine: that made them.
        story: what was tried and why it was kept or left, a line each.
        pareto_k: k̂ of the importance ratios, nan where there are none.
        efficiency: effective sample size as a share of the draws, nan likewise.
        rhat: largest split R-hat of what is reported, nan where there are no chains.
        sample_size: smallest effective sample size of what is reported.
        exact: whether the diagnostics trust them as draws of the posterior; else approximate.
        modes: number of distinct optima within 10 nats of the best.
        symmetries: of components.
    """

    vectors: Tensor
    log_density: Tensor
    log_q: Tensor | None
    engine: str
    story: tuple[str, ...]
    pareto_k: float = float("nan")
    efficiency: float = float("nan")
    rhat: float = float("nan")
    sample_size: float = float("nan")
    exact: bool = True
    modes: int = 0
    symmetries: tuple[Symmetry, ...] = ()


def infer_vectors(
    density: ConditionedDensity,
    *,
    engine: Engine = "auto",
    guide: str = "auto",
    draws: int = 250,
    seconds: float = 60.0,
    accept: bool = False,
    batch_rows: int | None = None,
    compute: Compute | None = None,
) -> VectorDraws:
    """Posterior draws of the unconstrained vector.

    `"auto"` takes the first that its own diagnostics trust: importance-resampled draws of the
    normal at the optimum, the same of Student's t, and Hamiltonian Monte Carlo of 32 chains.

    Args:
        density: the posterior's.
        engine: insists on one of them.
        guide: of engine `"svi"`; see `rbpp.posterior.variational.fit_guide`.
        draws: per chain of the result, which has four chains.
        seconds: limit for the search and the chains.
        accept: hand on what no diagnostic trusts, and say so.
        batch_rows: observed rows per step of engine `"svi"`.
        compute: seed and device.

    Raises:
        ValueError: if nothing could be trusted within the limit, saying what was tried; if the data
            are impossible under the process.
    """
    validate.choice("engine", engine, ENGINES)
    validate.count("draws", draws)
    validate.number("seconds", seconds, above=0)
    if engine != "svi" and (guide != "auto" or batch_rows is not None):
        raise ValueError(f"Expected engine svi with a guide or batch_rows; got engine {engine}")
    if batch_rows is not None:
        validate.count("batch_rows", batch_rows)
    if density.size == 0:
        raise ValueError("Expected latent sites to infer; got a process whose sites are all given")
    search = _Search(density, draws, seconds, accept, Compute.of(compute))
    if engine in ("auto", "laplace"):
        found = search.laplace(insist=engine == "laplace")
        if found is not None:
            return found
    if engine == "svi":
        return search.svi(guide, batch_rows)
    return search.nuts() if engine == "nuts" else search.hmc()


@dataclass
class _Search:
    """The engines, one after the other, on one clock."""

    density: ConditionedDensity
    draws: int
    seconds: float
    accept: bool
    compute: Compute
    story: list[str] = field(default_factory=list)
    best: Weighted | None = None

    def __post_init__(self) -> None:
        self.late = Limit.after(self.seconds)
        limit = Limit.after(_SEARCH_SHARE * self.seconds)
        self.story += self.density.prepared.describe()
        self.symmetries = tuple(symmetries(self.density, self.compute.spawn("symmetry").seed))
        self.story += described(self.symmetries).values()
        fitted = fitted_starts(self.density, self.symmetries, self.compute.spawn("fitted").seed)
        if fitted is not None:
            self.story.append("starts at the means of a mixture fitted to the rows")
        self.optima = find_optima(
            self.density,
            self.compute.spawn("starts").seed,
            fitted=fitted,
            arrange=partial(one_order, self.symmetries),
            out_of_time=limit,
        )
        self.sound = [one for one in self.optima if one.sound]
        self.usable = self.sound or [one for one in self.optima if not one.stray]
        self.story.append(_said_of(self.optima))
        if limit():
            self.story.append("the search for optima ended with its share of the time")

    def laplace(self, *, insist: bool) -> VectorDraws | None:
        """Normal, then Student's t, at the optima; None where neither is trusted."""
        if self.sound:
            for freedom in (None, FREEDOM):
                weighted = self._approximated(freedom)
                self._weigh(weighted)
                if weighted.trusted:
                    return self._of_weighted(weighted)
            for number in range(_MATCHINGS):
                centre = None if self.best is None else matched(self.best)
                if centre is None or self.late():
                    break
                generator = self.compute.generator("matched", number)
                weighted = approximate(self.density, [centre], generator, freedom=MATCHED_FREEDOM)
                self._weigh(replace(weighted, name=f"{weighted.name.split(' at ')[0]} matched"))
                if weighted.trusted:
                    return self._of_weighted(weighted)
        if not insist:
            return None
        if self.accept and self.best is not None:
            return self._of_weighted(self.best)
        reason = "no optimum with curvature in every direction" if self.best is None else ""
        raise self._refusal(reason or self.story[-1])

    def svi(self, guide: str, batch_rows: int | None) -> VectorDraws:
        """A guide fitted in whitened coordinates."""
        centre, scale = self._whitened()
        weighted, ended = fit_guide(
            self.density,
            guide,
            centre,
            scale,
            self.compute.generator("guide"),
            batch_rows=batch_rows,
            out_of_time=self.late,
        )
        self.story.append(ended)
        self._weigh(weighted)
        if not weighted.trusted and not self.accept:
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
            least_draws=-(-self.draws * RESULT_CHAINS // len(starts)),
            reported=self.density.prepared.reported,
            arrange=self._ordered if self.symmetries else None,
            out_of_time=self.late,
        )
        self.story.append(_said_of_chains(found, self.density.prepared))
        if found is not None and not _is_of(self.density, found):
            raise ValueError(
                f"Expected {self.density.process.name} to use torch wherever latent sites count; "
                "got draws whose density is another in a run of the model (NumPy, or .tolist()?)"
            )
        if found is None or (found.rhat > APPROXIMATE_RHAT and not self.accept):
            raise self._refusal("; ".join(self.story[-3:]))
        return self._of_chains(found)

    def nuts(self) -> VectorDraws:
        """Pyro's sampler, one chain after the other."""
        starts, scale = self._starts()
        seed = self.compute.spawn("nuts").seed
        run = nuts(
            self.density,
            starts[:RESULT_CHAINS],
            scale,
            draws=self.draws,
            seed=seed,
            out_of_time=self.late,
        )
        if run is None:
            raise self._refusal("the No-U-Turn sampler did not end")
        vectors = one_order(self.symmetries, run[0], self._reference)
        judged = torch.cat([vectors[..., self.density.prepared.reported], run[1].unsqueeze(-1)], -1)
        rhat = float(split_rhat(judged).max())
        size = float(effective_sample_size(judged).min())
        self.story.append(f"No-U-Turn sampler: R-hat {rhat:.3f}, effective sample size {size:.0f}")
        if rhat > APPROXIMATE_RHAT and not self.accept:
            raise self._refusal(self.story[-1])
        return VectorDraws(
            vectors=vectors,
            log_density=run[1],
            log_q=None,
            rhat=rhat,
            sample_size=size,
            exact=rhat <= LARGEST_RHAT,
            **self._common("nuts"),
        )

    def _approximated(self, freedom: float | None) -> Weighted:
        """Draws at the optima with their weights: few, where few say that they are of no use."""
        label = int(freedom is not None)
        few = self.compute.generator("few", label)
        found = approximate(self.density, self.sound, few, freedom=freedom, count=FEW)
        if found.hopeless:
            return found
        generator = self.compute.generator("laplace", label)
        return approximate(self.density, self.sound, generator, freedom=freedom)

    @property
    def _reference(self) -> Tensor:
        return self.optima[0].point

    def _ordered(self, vectors: Tensor) -> Tensor:
        return one_order(self.symmetries, vectors, self._reference)

    def _whitened(self) -> tuple[Tensor, Tensor]:
        """Centre and scale of coordinates in which the posterior is roughly standard normal."""
        if self.usable:
            return self.usable[0].point, self.usable[0].scale
        prior = self.density.prior_vectors(SCREENED, self.compute.spawn("whitened").seed)
        return prior.mean(0), torch.diag_embed(prior.std(0).clamp_min(1e-3))

    def _starts(self) -> tuple[Tensor, Tensor]:
        """Distinct draws of the approximation, by weight; else what climbed from the prior."""
        count = chains_of(self.density)
        if self.best is None and self.sound:
            self._weigh(self._approximated(FREEDOM))
        if self.best is not None:
            generator = self.compute.generator("starts")
            chosen = _without_replacement(self.best.log_weights, count, generator)
            return self.best.vectors[chosen.to(self.best.vectors.device)], self.sound[0].scale
        if self.usable:
            generator = self.compute.generator("starts")
            normals = torch.randn(count, self.density.size, generator=generator).double()
            points = [
                one.point + one.scale @ own
                for own, one in zip(normals.to(self._reference), cycle(self.usable))
            ]
            return torch.stack(points), self.usable[0].scale
        prior = self.density.prior_vectors(SCREENED, self.compute.spawn("chains").seed)
        starts = climbed(self.density, prior, count, self.late)
        return starts, torch.diag_embed(prior.std(0).clamp_min(1e-3))

    def _weigh(self, weighted: Weighted) -> None:
        self.story.append(
            f"{weighted.name}: Pareto k {weighted.pareto_k:.2f}, "
            f"{100 * weighted.efficiency:.0f} % of the draws effective"
        )
        if self.best is None or weighted.pareto_k < self.best.pareto_k:
            self.best = weighted

    def _of_weighted(self, weighted: Weighted) -> VectorDraws:
        index, _ = weighted.resampled(
            RESULT_CHAINS * self.draws, self.compute.generator("resampled")
        )
        index = index.reshape(RESULT_CHAINS, self.draws).to(weighted.vectors.device)
        return VectorDraws(
            vectors=one_order(self.symmetries, weighted.vectors[index], self._reference),
            log_density=weighted.log_density[index],
            log_q=weighted.log_q[index],
            pareto_k=weighted.pareto_k,
            efficiency=weighted.efficiency,
            exact=weighted.trusted,
            **self._common("svi" if weighted.name.startswith("guide") else "laplace"),
        )

    def _of_chains(self, chains: Chains) -> VectorDraws:
        """Four chains of the asked number of draws: groups of short chains, one after the other."""
        groups = chains.vectors.shape[0] // RESULT_CHAINS
        regroup = partial(_regrouped, groups=groups, draws=self.draws)
        there_are = groups * chains.vectors.shape[1]
        if there_are < self.draws:
            self.story.append(
                f"{there_are} draws a chain instead of the {self.draws} asked for: time was up"
            )
        return VectorDraws(
            vectors=regroup(chains.vectors),
            log_density=regroup(chains.log_density),
            log_q=None,
            rhat=chains.rhat,
            sample_size=chains.sample_size,
            exact=chains.converged,
            **self._common("hmc"),
        )

    def _common(self, engine: str) -> dict[str, Any]:
        return {
            "engine": engine,
            "story": tuple(self.story),
            "modes": len(self.optima),
            "symmetries": self.symmetries,
        }

    def _refusal(self, reason: str) -> ValueError:
        return ValueError(
            f"Expected draws that diagnostics trust within {self.seconds:g} seconds; got none: "
            f"{reason}. Give more seconds, observe more sites, or accept what there is"
        )


def _without_replacement(log_weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Distinct indices drawn by weights (Gumbel's trick): copies of one start would never part."""
    uniform = torch.rand(len(log_weights), generator=generator, dtype=log_weights.dtype)
    keys = log_weights.cpu() - (-uniform.log()).log()
    return keys.topk(count).indices


def _regrouped(values: Tensor, groups: int, draws: int) -> Tensor:
    """(chain, draw, …) of many short chains as four long ones of so many draws, evenly thinned."""
    longer = values.unflatten(0, (RESULT_CHAINS, groups)).flatten(1, 2)
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
