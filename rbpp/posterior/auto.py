"""Which inference: the normal at the optimum where it can be trusted, else many short chains."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from rbpp import validate
from rbpp.compute import Compute
from rbpp.posterior.density import ConditionedDensity
from rbpp.posterior.hmc import APPROXIMATE_RHAT, CHAINS, Chains, sample
from rbpp.posterior.laplace import Weighted, approximate
from rbpp.posterior.optimum import SCREENED, Optimum, climbed, find_optima

Engine = Literal["auto", "laplace", "hmc", "svi", "nuts"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
# A Hessian of more coordinates takes longer than chains do.
LARGEST_LAPLACE = 1000
_RESULT_CHAINS = 4


@dataclass(frozen=True)
class VectorDraws:
    """Draws of the unconstrained vector, and how they came about.

    Attributes:
        vectors: (chain, draw, D).
        log_density: (chain, draw), up to the posterior's constant.
        log_q: log density of the approximation (chain, draw), where there is one.
        engine: that made them.
        story: what was tried and why it was kept or left, a line each.
        pareto_k: k̂ of the importance ratios, nan where there are none.
        efficiency: effective sample size as a share of the draws, nan likewise.
        rhat: largest split R-hat of the chains, nan where there are no chains.
        sample_size: smallest effective sample size of a coordinate.
        exact: whether the draws are draws of the posterior up to their number; else approximate.
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
    optima: Sequence[Optimum] = field(default_factory=tuple)


def infer_vectors(
    density: ConditionedDensity,
    *,
    engine: Engine = "auto",
    draws: int = 250,
    seconds: float = 60.0,
    accept: bool = False,
    compute: Compute | None = None,
) -> VectorDraws:
    """Posterior draws of the unconstrained vector.

    `"auto"` takes the first that its own diagnostics trust: importance-resampled draws of the
    normal at the optimum, the same of Student's t, and Hamiltonian Monte Carlo of 32 chains.

    Args:
        density: the posterior's.
        engine: `"laplace"` or `"hmc"` insist on one of them.
        draws: per chain of the result, which has four chains.
        seconds: limit for the search and the chains.
        accept: hand on what no diagnostic trusts, and say so.
        compute: seed.

    Raises:
        ValueError: if nothing could be trusted within the limit, saying what was tried; if the data
            are impossible under the process.
    """
    validate.choice("engine", engine, ENGINES)
    validate.count("draws", draws)
    validate.number("seconds", seconds, above=0)
    compute = Compute.of(compute)
    if density.size == 0:
        raise ValueError("Expected latent sites to infer; got a process whose sites are all given")
    ends = time.monotonic() + seconds
    late: Callable[[], bool] = lambda: time.monotonic() > ends  # noqa: E731
    story = density.prepared.describe()
    optima = find_optima(density, compute.spawn("starts").seed, out_of_time=late)
    sound = [one for one in optima if one.sound]
    story.append(_said_of(optima))
    best: Weighted | None = None
    if engine in ("auto", "laplace") and sound and density.size <= LARGEST_LAPLACE:
        for student in (False, True):
            generator = compute.generator("laplace", int(student))
            weighted = approximate(density, sound, generator, student=student)
            story.append(
                f"{weighted.name}: Pareto k {weighted.pareto_k:.2f}, "
                f"{100 * weighted.efficiency:.0f} % of the draws effective"
            )
            if best is None or weighted.pareto_k < best.pareto_k:
                best = weighted
            if weighted.trusted:
                return _of_weighted(weighted, draws, compute, story, optima)
    if engine == "laplace":
        reason = "no optimum with curvature in every direction" if best is None else story[-1]
        if accept and best is not None:
            return _of_weighted(best, draws, compute, story, optima, exact=False)
        raise ValueError(f"Expected a posterior that a normal can stand for; got {reason}")
    chains = _chains(density, optima, best, compute, late)
    story.append(_said_of_chains(chains))
    if chains is not None and (chains.rhat <= APPROXIMATE_RHAT or accept):
        return _of_chains(chains, draws, compute, story, optima)
    raise ValueError(
        f"Expected draws that diagnostics trust within {seconds:g} seconds; got none: "
        f"{'; '.join(story[-3:])}. Give more seconds, or accept=True for what there is"
    )


def _chains(
    density: ConditionedDensity,
    optima: Sequence[Optimum],
    best: Weighted | None,
    compute: Compute,
    late: Callable[[], bool],
) -> Chains | None:
    """Chains from distinct draws of the approximation, by their weights; else from the prior."""
    generator = compute.generator("chains")
    if best is not None:
        chosen = _without_replacement(best.log_weights, CHAINS, generator)
        starts, scale = best.vectors[chosen], optima[0].scale
    else:
        prior = density.prior_vectors(SCREENED, compute.spawn("chains").seed)
        starts = climbed(density, prior, CHAINS, late)
        scale = torch.diag_embed(prior.std(0).clamp_min(1e-3))
    return sample(
        density, starts, scale, generator, reported=density.prepared.reported, out_of_time=late
    )


def _without_replacement(log_weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Distinct indices drawn by weights (Gumbel's trick): copies of one start would never part."""
    uniform = torch.rand(len(log_weights), generator=generator, dtype=log_weights.dtype)
    keys = log_weights.cpu() - (-uniform.log()).log()
    return keys.topk(count).indices


def _of_weighted(
    weighted: Weighted,
    draws: int,
    compute: Compute,
    story: Sequence[str],
    optima: Sequence[Optimum],
    *,
    exact: bool = True,
) -> VectorDraws:
    index, _ = weighted.resampled(_RESULT_CHAINS * draws, compute.generator("resampled"))
    index = index.reshape(_RESULT_CHAINS, draws)
    return VectorDraws(
        vectors=weighted.vectors[index],
        log_density=weighted.log_density[index],
        log_q=weighted.log_q[index],
        engine="laplace",
        story=tuple(story),
        pareto_k=weighted.pareto_k,
        efficiency=weighted.efficiency,
        exact=exact and weighted.trusted,
        optima=tuple(optima),
    )


def _of_chains(
    chains: Chains, draws: int, compute: Compute, story: Sequence[str], optima: Sequence[Optimum]
) -> VectorDraws:
    """Four chains of the asked number of draws: groups of the short chains, one after the other."""
    vectors, values = chains.vectors, chains.log_density
    groups = vectors.shape[0] // _RESULT_CHAINS
    vectors = vectors.unflatten(0, (_RESULT_CHAINS, groups)).flatten(1, 2)
    values = values.unflatten(0, (_RESULT_CHAINS, groups)).flatten(1, 2)
    step = torch.linspace(0, vectors.shape[1] - 1, min(draws, vectors.shape[1])).long()
    return VectorDraws(
        vectors=vectors[:, step],
        log_density=values[:, step],
        log_q=None,
        engine="hmc",
        story=tuple(story),
        rhat=chains.rhat,
        sample_size=chains.sample_size,
        exact=chains.converged,
        optima=tuple(optima),
    )


def _said_of(optima: Sequence[Optimum]) -> str:
    values = ", ".join(f"{one.value:.1f}" for one in optima)
    poor = sum(not one.sound for one in optima)
    without = f", {poor} without curvature in some direction" if poor else ""
    return f"{len(optima)} optima at log density {values}{without}"


def _said_of_chains(chains: Chains | None) -> str:
    if chains is None:
        return "Hamiltonian Monte Carlo: fewer than 20 draws a chain within the time"
    return (
        f"Hamiltonian Monte Carlo: {len(chains.vectors)} chains of {chains.vectors.shape[1]} "
        f"draws, R-hat {chains.rhat:.3f}, effective sample size {chains.sample_size:.0f}"
    )
