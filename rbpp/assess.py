"""The main job: what synthetic data adds, how faithful it is, what is off-task, what it misses.

One mixture is shared by all sources, each with weights of its own: from their posterior come the
partition into the paper's parts K, J and L, and every share and divergence between sources. The
entropies and the KL gap, for which the shape inside components matters, come from mixtures fitted
to each source alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from rbpp import container, findings
from rbpp.assessment import Assessment
from rbpp.conjugate import VariationalMixture
from rbpp.own_mixtures import REFITS, OwnMixtures, fit_own
from rbpp.randomness import generator as new_generator
from rbpp.randomness import spawn
from rbpp.reduce import SHARED_DIMENSION
from rbpp.rows import Rows, read_rows
from rbpp.scene import Scene, lay_out
from rbpp.shared_mixture import (
    common_order,
    component_rule,
    fit_shared,
    reordered,
    responsibilities,
)
from rbpp.shares import Shares, design_effect, partition, source_weights

__all__ = ["Assessment", "assess", "assess_rows"]

_DIVERGENCE_POINTS = 2000
_SENSITIVITY = (2, 4, 8, 16)


def assess(
    anchor: Any = None,
    synthetic: Any = None,
    *,
    target: Any = None,
    output: Any = None,
    unprompted: Any = None,
    text_fields: Sequence[str] = (),
    embedding_field: str | None = None,
    id_field: str | None = None,
    group_field: str | None = None,
    prompt_field: str | None = None,
    output_field: str | None = None,
    embedding_model: str | None = None,
    dimension: int | None = None,
    components: int | None = None,
    chains: int = 4,
    draws: int = 250,
    seed: int = 0,
    device: str = "cpu",
    cache: Any = None,
    quiet: bool = True,
) -> Assessment:
    """Assess synthetic data against the real rows it was made from and for.

    Args:
        anchor: real rows that the generation started from: a file, a folder, or a Python object
            (see `rbpp.read.read_tables`).
        synthetic: the generated rows, curated if they were.
        target: held-out real rows of the task. Without them the anchors stand in, and what is
            novel cannot be told from what is irrelevant.
        output: what the generator gave before curation.
        unprompted: what it gives without the prompt.
        text_fields, embedding_field, id_field, group_field: as for `rbpp.rows.read_rows`.
        prompt_field, output_field: fields of the synthetic rows (or of the outputs, where given)
            whose pairs carry ΔI and I(p; M(p)).
        embedding_model: sentence-transformers model for text; TF-IDF and SVD without it.
        dimension: principal components d; `rbpp.reduce.dimension_rule` by default.
        components: components K of the shared mixture; one per 40 rows, 4 to 20, by default.
        chains: restarts, the chains of the result.
        draws: draws per chain.
        seed: decides every random number.
        device: where an embedding model runs.
        cache: folder of cached embeddings.
        quiet: no progress bar.

    Raises:
        ValueError: naming the source, file, row and field of bad input.
    """
    given = {
        "anchor": anchor,
        "target": target,
        "output": output,
        "unprompted": unprompted,
        "synthetic": synthetic,
    }
    if given["anchor"] is None and given["target"] is None:
        raise ValueError("Expected anchor or target rows; got neither")
    if given["synthetic"] is None:
        raise ValueError("Expected synthetic rows; got none")
    pair_role = "output" if given["output"] is not None else "synthetic"
    pairs = {"prompt": prompt_field, "output": output_field}
    if (prompt_field is None) != (output_field is None):
        raise ValueError("Expected a prompt field and an output field; got one of them")
    sources = [
        read_rows(
            data,
            role,
            text_fields=text_fields,
            embedding_field=embedding_field,
            id_field=id_field,
            group_field=group_field if role in ("synthetic", "output", "unprompted") else None,
            paired_fields={name: field for name, field in pairs.items() if field}
            if role == pair_role
            else None,
        )
        for role, data in given.items()
        if data is not None
    ]
    return assess_rows(
        sources,
        embedding_model=embedding_model,
        dimension=dimension,
        components=components,
        chains=chains,
        draws=draws,
        seed=seed,
        device=device,
        cache=cache,
        quiet=quiet,
    )


def assess_rows(
    sources: Sequence[Rows],
    *,
    embedding_model: str | None = None,
    dimension: int | None = None,
    components: int | None = None,
    chains: int = 4,
    draws: int = 250,
    seed: int = 0,
    device: str = "cpu",
    cache: Any = None,
    quiet: bool = True,
) -> Assessment:
    """As `assess`, for rows that are read, with their roles as their sources.

    Without target rows the anchors stand in for them. Without either nothing can be novel, and
    there is no KL gap.
    """
    if chains < 1 or draws < 2:
        raise ValueError(f"Expected chains ≥ 1 and draws ≥ 2; got {chains} and {draws}")
    scene = lay_out(
        sources,
        embedding_model=embedding_model,
        dimension=dimension,
        seed=seed,
        device=device,
        cache=cache,
        quiet=quiet,
    )
    shared = _shared_dimension(scene.projection.dimension)
    fit, shares, members = _shared_posterior(
        scene, shared, components, chains=chains, draws=draws, seed=seed
    )
    terms, errors = _share_terms(scene, fit, shares, seed)
    density, density_errors, mixtures = _density_terms(scene, chains, draws, seed)
    terms |= density
    errors |= density_errors
    audit: list[dict[str, Any]] = []
    sensitivity = _sensitivity(scene, shared, components, seed, terms)
    data = container.inference_data(
        {
            **{name: value.numpy() for name, value in terms.items()},
            **{f"{name}_mcse": value.numpy() for name, value in errors.items()},
            "source_weights": shares.weights.numpy(),
        },
        sample_stats={"elbo": findings.elbo(fit)},
        constant_data={
            "seed": seed,
            "dimension": scene.projection.dimension,
            "shared_dimension": shared,
            "components": fit.components,
            **{f"rows_{rows.source}": len(rows) for rows in scene.sources},
        },
        dims={"source_weights": ["source", "component"]},
        coords={"source": scene.roles, "component": list(range(fit.components))},
    )
    rows = findings.row_table(scene, shares, members)
    table = findings.component_table(scene, fit, shares, members)
    settings = findings.settings(scene, fit, shared, mixtures, seed)
    audit += findings.audit(scene, fit, terms, settings)
    return Assessment(
        data=data,
        rows=rows,
        components=table,
        sensitivity=sensitivity,
        audit=audit,
        answers=findings.answers(scene, terms, rows),
        settings=settings,
        axes=("first principal component", "contrast: synthetic above, task below"),
    )


def _shared_dimension(dimension: int) -> int:
    return min(SHARED_DIMENSION, dimension)


def _shared_posterior(
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
    sources = len(scene.sources)
    fit = fit_shared(rows, source, sources, number, restarts=chains, seed=spawn(seed, "shared"))
    members = responsibilities(fit, rows, source)
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
    weights, follows = source_weights(
        torch.stack(counts, 1),
        torch.stack(variances, 1),
        scene.reference,
        draws=draws,
        generator=new_generator(spawn(seed, "weights")),
    )
    shares = partition(
        weights,
        follows,
        reference=scene.reference,
        synthetic=scene.index("synthetic"),
        anchor=scene.index("anchor") if "anchor" in scene.roles else scene.reference,
    )
    return fit, shares, members


def _share_terms(
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


def _density_terms(
    scene: Scene, chains: int, draws: int, seed: int
) -> tuple[dict[str, Tensor], dict[str, Tensor], OwnMixtures]:
    """Entropies, KL divergences and the KL gap of the sources' own mixtures, with their errors.

    A draw is a refit; draws beyond the number of refits repeat them.
    """
    made, task, roles = scene.index("synthetic"), scene.reference, scene.roles
    mixtures = fit_own(
        scene.coordinates, groups=scene.groups, chains=chains, seed=spawn(seed, "densities")
    )
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for role in ("anchor", "output", "synthetic"):
        if role in roles:
            index = scene.index(role)
            value, error = mixtures.entropy(index)
            count = len(scene.sources[index])  # rows are independent given the mixture
            found[f"entropy_{role}"] = value * count, error * count
    if "anchor" in roles:
        found["entropy_gap"] = _minus(found["entropy_anchor"], found["entropy_synthetic"])
    found["kl_synthetic"] = mixtures.divergence(made, task)
    found["kl_synthetic_coverage"] = mixtures.divergence(task, made)
    if "anchor" in roles and scene.index("anchor") != task:
        seeds = scene.index("anchor")
        found["kl_anchor"] = mixtures.divergence(seeds, task)
        found["kl_anchor_coverage"] = mixtures.divergence(task, seeds)
        found["kl_gap"] = _minus(found["kl_anchor"], found["kl_synthetic"])
        found["kl_gap_coverage"] = _minus(
            found["kl_anchor_coverage"], found["kl_synthetic_coverage"]
        )
    refit = torch.arange(draws) % REFITS
    terms = {name: value[:, refit] for name, (value, _) in found.items()}
    errors = {name: error[:, refit] for name, (_, error) in found.items()}
    return terms, errors, mixtures


def _minus(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return first[0] - second[0], (first[1].square() + second[1].square()).sqrt()


def _sensitivity(
    scene: Scene,
    chosen: int,
    components: int | None,
    seed: int,
    terms: dict[str, Tensor],
) -> Any:
    """The shares again with other numbers of principal components beside the contrast."""
    lines = []
    for dimension in sorted({*_SENSITIVITY, chosen}):
        if dimension > scene.projection.dimension:
            continue
        if dimension == chosen:
            found = terms
        else:
            fit, shares, _ = _shared_posterior(
                scene, dimension, components, chains=2, draws=100, seed=seed
            )
            found, _ = _share_terms(scene, fit, shares, seed)
        lines.append(
            findings.sensitivity_line(
                dimension, scene.projection.explained, found, dimension == chosen
            )
        )
    return pd.DataFrame(lines)
