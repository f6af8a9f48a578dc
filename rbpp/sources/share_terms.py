"""Terms of the weights that sources have on shared components: shares, parts, divergences."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from rbpp.compute import Compute
from rbpp.data.reduce import SHARED_DIMENSION
from rbpp.estimate import Estimate, exactly
from rbpp.mixtures.conjugate import VariationalMixture
from rbpp.randomness import generator as new_generator
from rbpp.randomness import spawn
from rbpp.sources.scene import Scene, contrasts
from rbpp.sources.shared_mixture import (
    Engine,
    common_order,
    component_rule,
    fit_shared,
    reordered,
)
from rbpp.sources.shares import (
    Shares,
    design_effect,
    source_weights,
    unsampled_components,
)
from rbpp.sources.two_groups import Foreign, foreign_rows

_DIVERGENCE_POINTS = 2000


def shared_posterior(
    scene: Scene,
    dimension: int,
    components: int | None,
    *,
    chains: int,
    draws: int,
    engine: Engine = "cavi",
    compute: Compute,
) -> tuple[VariationalMixture, Shares, Tensor]:
    """The shared mixture, the shares, and the rows' responsibilities (chain, n, K).

    Components are ordered alike in all chains: as in the chain of highest ELBO, the heaviest of
    the synthetic data first.

    Args:
        scene: the sources.
        dimension: principal components that the contrasts see, and of which the mixture sees the
            first `SHARED_DIMENSION`.
        components: K, or `component_rule` of the rows.
        chains, draws: of the posterior.
        engine: that fits the components; see `rbpp.sources.shared_mixture.fit_shared`.
        compute: device of the fit, and the seed.
    """
    made, task = scene.index("synthetic"), scene.reference
    scores = scene.contrasts
    if dimension != scene.projection.dimension:
        scores = contrasts(scene, task, made, dimension)
    rows, source = scene.rows(min(SHARED_DIMENSION, dimension), scores), scene.source
    number = components if components is not None else component_rule(len(rows))
    if number < 4 or number > len(rows):
        raise ValueError(f"Expected components from 4 to the {len(rows)} rows; got {number}")
    fit = fit_shared(rows, number, restarts=chains, engine=engine, compute=compute.spawn("shared"))
    members = fit.expected().responsibilities(rows)
    order = common_order(fit, members, source == made)
    fit = reordered(fit, order)
    members = members.gather(-1, order.unsqueeze(1).expand_as(members))
    counts, variances, effects = [], [], []
    for index, groups in enumerate(scene.groups):
        own = members[:, source == index]
        effect = (
            torch.ones(chains)
            if groups is None
            else torch.tensor([design_effect(part, groups) for part in own])
        ).to(own)
        effects.append(float(effect.mean()))
        counts.append(own.sum(1) / effect[:, None])
        variances.append((own * (1 - own)).sum(1) / effect[:, None])
    weights, factors, follows = source_weights(
        torch.stack(counts, 1),
        torch.stack(variances, 1),
        task,
        draws=draws,
        generator=compute.generator("weights"),
    )

    def foreign(name: str, index: int, other: int, own: list[Tensor]) -> Foreign:
        """Rows of source `index` that source `other` does not account for."""
        return foreign_rows(
            own[other],
            own[index],
            chains=chains,
            draws=draws,
            effect=effects[index],
            reference_effect=effects[other],
            generator=compute.generator(name),
        )

    irrelevant = foreign("irrelevant", made, task, scores)
    uncovered = foreign("uncovered", task, made, [-score for score in scores])
    before = None
    if "output" in scene.roles:
        output = scene.index("output")
        before = foreign("output", output, task, contrasts(scene, task, output, dimension))

    def rate(found: Foreign, index: int) -> Tensor:
        own = members[:, source == index]
        return (own * found.probability.unsqueeze(-1)).sum(1) / own.sum(1).clamp_min(1e-9)

    shares = Shares(
        weights,
        unsampled_components(
            weights,
            factors,
            reference=task,
            anchor=scene.index("anchor") if "anchor" in scene.roles else task,
        ),
        follows,
        irrelevant,
        uncovered,
        before,
        rate(irrelevant, made),
        rate(uncovered, task),
    )
    return fit, shares, members


def share_terms(
    scene: Scene, fit: VariationalMixture, shares: Shares, seed: int
) -> dict[str, Estimate]:
    """Terms (chain, draw) of the shares; divergences have a Monte Carlo error."""
    made, task = scene.index("synthetic"), scene.reference
    weights = shares.weights
    own = weights[:, :, made]
    terms = {
        "irrelevant_share": exactly(shares.irrelevant.share),
        "uncovered_share": exactly(shares.uncovered.share),
        "effective_components": exactly(torch.special.entr(own).sum(-1).exp()),
    }
    if "target" in scene.roles and "anchor" in scene.roles:
        on_task = 1 - shares.irrelevant_rate.unsqueeze(1)
        terms["novel_share"] = exactly((own * shares.unsampled * on_task).sum(-1))
    pairs = {"total_divergence": (task, made)}
    if "unprompted" in scene.roles:
        unprompted = scene.index("unprompted")
        pairs |= {
            "task_divergence": (task, unprompted),
            "generation_divergence": (unprompted, made),
        }
    if "output" in scene.roles:
        pairs["curation_divergence"] = (scene.index("output"), made)
    if shares.irrelevant_output is not None:
        terms["irrelevant_share_output"] = exactly(shares.irrelevant_output.share)
    random = new_generator(spawn(seed, "divergence"))
    points = _component_densities(fit, random)
    for name, (first, second) in pairs.items():
        terms[name] = _total_variation(points, weights[:, :, first], weights[:, :, second])
    # TV is at least the share of either source that the other lacks: weights miss what differs
    # inside components.
    total = terms["total_divergence"]
    least = torch.maximum(shares.irrelevant.share, shares.uncovered.share)
    terms["total_divergence"] = replace(total, value=torch.maximum(total.value, least))
    return terms


def _component_densities(fit: VariationalMixture, random: torch.Generator) -> Tensor:
    """Densities of all components at draws from each, relative to their sum: (chain, K, M, K)."""
    mixture = fit.expected()
    each = max(32, _DIVERGENCE_POINTS // fit.components)
    shape = (*fit.mean.shape[:2], each, fit.dimension)
    noise = torch.randn(shape, generator=random, dtype=fit.mean.dtype)
    scale = mixture.scale_tril
    points = fit.mean.unsqueeze(2) + noise @ scale.mT
    result = []
    for chain in range(len(fit.mean)):
        member = mixture.select(chain)
        joint = member.component_log_prob_rows(points[chain].flatten(0, 1))
        result.append((joint - member.weights.log()).softmax(-1).unflatten(0, (-1, each)))
    return torch.stack(result)


def _total_variation(points: Tensor, first: Tensor, second: Tensor) -> Estimate:
    """TV = E |p − q| / (p + q) over ½(p + q), stratified by component.

    Args:
        points: (chain, K, M, K).
        first, second: weights (chain, draw, K).
    """
    half = (first + second) / 2
    difference = torch.einsum("ckml,cdl->cdkm", points, first - second).abs()
    ratio = difference / torch.einsum("ckml,cdl->cdkm", points, first + second).clamp_min(1e-300)
    value = (half * ratio.mean(-1)).sum(-1)
    variance = (half.square() * ratio.var(-1) / ratio.shape[-1]).sum(-1)
    return Estimate(value, variance.sqrt(), ratio.shape[-1] * ratio.shape[-2])
