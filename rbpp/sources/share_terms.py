"""Terms of the weights that sources have on shared components: shares, parts, divergences."""

from __future__ import annotations

import torch
from torch import Tensor

from rbpp.mixtures.conjugate import VariationalMixture
from rbpp.randomness import generator as new_generator
from rbpp.randomness import spawn
from rbpp.sources.scene import Scene
from rbpp.sources.shared_mixture import (
    common_order,
    component_rule,
    fit_shared,
    reordered,
)
from rbpp.sources.shares import Shares, design_effect, partition, source_weights

_DIVERGENCE_POINTS = 2000


def shared_posterior(
    scene: Scene, dimension: int, components: int | None, *, chains: int, draws: int, seed: int
) -> tuple[VariationalMixture, Shares, Tensor]:
    """The shared mixture, the shares, and the rows' responsibilities (chain, n, K).

    Components are ordered alike in all chains: as in the chain of highest ELBO, the heaviest of
    the synthetic data first.
    """
    rows, source = scene.rows(dimension), scene.source
    number = components if components is not None else component_rule(len(rows))
    if number < 4 or number > len(rows):
        raise ValueError(f"Expected components from 4 to the {len(rows)} rows; got {number}")
    fit = fit_shared(rows, number, restarts=chains, seed=spawn(seed, "shared"))
    members = fit.expected().responsibilities(rows)
    order = common_order(fit, members, source == scene.index("synthetic"))
    fit = reordered(fit, order)
    members = members.gather(-1, order.unsqueeze(1).expand_as(members))
    counts, variances = [], []
    for index, groups in enumerate(scene.groups):
        own = members[:, source == index]
        effect = (
            torch.ones(chains)
            if groups is None
            else torch.tensor([design_effect(part, groups) for part in own])
        ).to(own)
        counts.append(own.sum(1) / effect[:, None])
        variances.append((own * (1 - own)).sum(1) / effect[:, None])
    weights, factors, follows = source_weights(
        torch.stack(counts, 1),
        torch.stack(variances, 1),
        scene.reference,
        draws=draws,
        generator=new_generator(spawn(seed, "weights")),
    )
    shares = partition(
        weights,
        factors,
        follows,
        reference=scene.reference,
        synthetic=scene.index("synthetic"),
        anchor=scene.index("anchor") if "anchor" in scene.roles else scene.reference,
    )
    return fit, shares, members


def share_terms(
    scene: Scene, fit: VariationalMixture, shares: Shares, seed: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Terms (chain, draw) of the weights, and the Monte Carlo errors of the divergences."""
    made, task = scene.index("synthetic"), scene.reference
    weights = shares.weights
    own = weights[:, :, made]
    terms = {
        "irrelevant_share": (own * shares.irrelevant).sum(-1),
        "uncovered_share": (weights[:, :, task] * shares.uncovered).sum(-1),
        "effective_components": torch.special.entr(own).sum(-1).exp(),
    }
    if "target" in scene.roles and "anchor" in scene.roles:
        terms["novel_share"] = (own * shares.unsampled).sum(-1)
    pairs = {"total_divergence": (task, made)}
    if "unprompted" in scene.roles:
        unprompted = scene.index("unprompted")
        pairs |= {
            "task_divergence": (task, unprompted),
            "generation_divergence": (unprompted, made),
        }
    if "output" in scene.roles:
        output = scene.index("output")
        pairs["curation_divergence"] = (output, made)
        terms["irrelevant_share_output"] = (weights[:, :, output] * shares.irrelevant).sum(-1)
    errors = {}
    random = new_generator(spawn(seed, "divergence"))
    points = _component_densities(fit, random)
    for name, (first, second) in pairs.items():
        terms[name], errors[name] = _total_variation(
            points, weights[:, :, first], weights[:, :, second]
        )
    return terms, errors


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


def _total_variation(points: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """TV = E |p − q| / (p + q) over ½(p + q), stratified by component, with its error.

    Args:
        points: (chain, K, M, K).
        first, second: weights (chain, draw, K).
    """
    half = (first + second) / 2
    difference = torch.einsum("ckml,cdl->cdkm", points, first - second).abs()
    ratio = difference / torch.einsum("ckml,cdl->cdkm", points, first + second).clamp_min(1e-300)
    value = (half * ratio.mean(-1)).sum(-1)
    variance = (half.square() * ratio.var(-1) / ratio.shape[-1]).sum(-1)
    return value, variance.sqrt()
