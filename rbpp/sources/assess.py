"""The main job: what synthetic data adds, how faithful it is, what is off-task, what it misses.

One mixture is shared by all sources, each with weights of its own: from their posterior come the
partition into the paper's parts K, J and L, and every share and divergence between sources. The
entropies and the KL gap, for which the shape inside components matters, come from mixtures fitted
to each source alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from rbpp import inference_data
from rbpp.data.reduce import SHARED_DIMENSION
from rbpp.data.rows import Rows, read_rows
from rbpp.mixtures.conjugate import VariationalMixture
from rbpp.randomness import spawn
from rbpp.sources import findings
from rbpp.sources.assessment import Assessment
from rbpp.sources.learned_terms import learned_terms
from rbpp.sources.own_mixtures import REFITS, OwnMixtures, fit_own
from rbpp.sources.paired_terms import paired_terms
from rbpp.sources.scene import Scene, check_draws, lay_out
from rbpp.sources.share_terms import share_terms, shared_posterior
from rbpp.sources.shared_mixture import Engine
from rbpp.sources.shares import Shares
from rbpp.threads import Map

__all__ = ["Assessment", "assess", "assess_rows"]

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
    engine: Engine = "cavi",
    chains: int = 4,
    draws: int = 250,
    seed: int = 0,
    device: str = "cpu",
    cache: Any = None,
    mapper: Map = map,
    quiet: bool = True,
) -> Assessment:
    """Assess synthetic data against the real rows it was made from and for.

    Args:
        anchor: real rows that the generation started from: a file, a folder, or a Python object
            (see `rbpp.data.read.read_tables`).
        synthetic: the generated rows, curated if they were.
        target: held-out real rows of the task. Without them the anchors stand in, and what is
            novel cannot be told from what is irrelevant.
        output: what the generator gave before curation.
        unprompted: what it gives without the prompt.
        text_fields, embedding_field, id_field, group_field: as for `rbpp.data.rows.read_rows`.
        prompt_field, output_field: fields of the synthetic rows (or of the outputs, where given)
            whose pairs carry ΔI and I(p; M(p)).
        embedding_model: sentence-transformers model for text; TF-IDF and SVD without it.
        dimension: principal components d; `rbpp.data.reduce.dimension_rule` by default.
        components: components K of the shared mixture; one per 40 rows, 4 to 20, by default.
        engine: that fits the shared mixture: `"cavi"`, coordinate ascent, or `"svi"`, Pyro's
            stochastic gradients, which is a check of the other and takes some thirty times as long
            (the sensitivity table, of shares that no components enter, keeps the first).
        chains: restarts, the chains of the result.
        draws: draws per chain. Entropies, KL divergences and the KL gap have
            `rbpp.sources.own_mixtures.REFITS` distinct ones, which are repeated.
        seed: decides every random number.
        device: where an embedding model runs and mixtures are fitted.
        cache: folder of cached embeddings.
        mapper: over what is independent (shards of text, sources, dimensions of the sensitivity
            table), such as that of a cluster.
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
        engine=engine,
        chains=chains,
        draws=draws,
        seed=seed,
        device=device,
        cache=cache,
        mapper=mapper,
        quiet=quiet,
    )


def assess_rows(
    sources: Sequence[Rows],
    *,
    embedding_model: str | None = None,
    dimension: int | None = None,
    components: int | None = None,
    engine: Engine = "cavi",
    chains: int = 4,
    draws: int = 250,
    seed: int = 0,
    device: str = "cpu",
    cache: Any = None,
    mapper: Map = map,
    quiet: bool = True,
) -> Assessment:
    """As `assess`, for rows that are read, with their roles as their sources.

    Without target rows the anchors stand in for them. Without either nothing can be novel, and
    there is no KL gap.
    """
    scene = lay_out(
        sources,
        embedding_model=embedding_model,
        dimension=dimension,
        seed=seed,
        device=device,
        cache=cache,
        mapper=mapper,
        quiet=quiet,
    )
    return assess_scene(
        scene,
        components=components,
        engine=engine,
        chains=chains,
        draws=draws,
        seed=seed,
        device=device,
        mapper=mapper,
        pairs={"model": embedding_model, "cache": cache, "quiet": quiet},
    )[0]


def assess_scene(
    scene: Scene,
    *,
    components: int | None = None,
    engine: Engine = "cavi",
    chains: int = 4,
    draws: int = 250,
    seed: int = 0,
    device: str = "cpu",
    mapper: Map = map,
    pairs: dict[str, Any] | None = None,
) -> tuple[Assessment, tuple[VariationalMixture, Shares]]:
    """As `assess`, for sources that are laid out; with the shared mixture and its shares.

    Args:
        scene: the sources.
        components, engine, chains, draws, seed, device, mapper: as for `assess`.
        pairs: other options of `rbpp.sources.paired_terms.paired_terms`.
    """
    check_draws(chains, draws)
    shared = min(SHARED_DIMENSION, scene.projection.dimension)
    fit, shares, members = shared_posterior(
        scene,
        scene.projection.dimension,
        components,
        chains=chains,
        draws=draws,
        seed=seed,
        engine=engine,
        device=device,
    )
    terms, errors = share_terms(scene, fit, shares, seed)
    density, density_errors, mixtures = _density_terms(scene, chains, draws, seed, device, mapper)
    learned = learned_terms(scene, terms, chains=chains, draws=draws, seed=seed)
    terms |= density | learned.terms
    errors |= density_errors | learned.errors
    audit: list[dict[str, Any]] = []
    for paired in (rows for rows in scene.sources if rows.paired):
        own, finding = paired_terms(
            paired,
            chains=chains,
            draws=draws,
            seed=spawn(seed, "pairs"),
            device=device,
            **(pairs or {}),
        )
        terms |= own
        audit.append(finding)
    sensitivity = _sensitivity(scene, components, seed, terms, device, mapper)
    data = inference_data.make(
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
            **{f"rows_{rows.source}": rows.size for rows in scene.sources},
        },
        dims={"source_weights": ["source", "component"]},
        coords={"source": scene.roles, "component": list(range(fit.components))},
    )
    rows = findings.row_table(scene, shares, members)
    table = findings.component_table(scene, fit, shares, members)
    settings = {
        **findings.settings(scene, fit, shared, mixtures, seed),
        "engine": engine,
        "learner_rows": learned.rows,
    }
    audit += [*findings.audit(scene, fit, terms, settings), *learned.audit]
    found = Assessment(
        data=data,
        rows=rows,
        components=table,
        sensitivity=sensitivity,
        audit=audit,
        answers=findings.answers(scene, terms, rows),
        settings=settings,
        axes=("first principal component", "contrast: synthetic above, task below"),
    )
    return found, (fit, shares)


def _density_terms(
    scene: Scene, chains: int, draws: int, seed: int, device: str, mapper: Map
) -> tuple[dict[str, Tensor], dict[str, Tensor], OwnMixtures]:
    """Entropies, KL divergences and the KL gap of the sources' own mixtures, with their errors.

    A draw is a refit; draws beyond the number of refits repeat them, so that diagnostics that
    count draws, as the effective sample size, see more of these terms than there are.
    """
    made, task, roles = scene.index("synthetic"), scene.reference, scene.roles
    mixtures = fit_own(
        scene.coordinates,
        groups=scene.groups,
        chains=chains,
        seed=spawn(seed, "densities"),
        device=device,
        mapper=mapper,
    )
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for role in ("anchor", "output", "synthetic"):
        if role in roles:
            index = scene.index(role)
            value, error = mixtures.entropy(index)
            count = scene.sources[index].size  # rows are independent given the mixture
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
    components: int | None,
    seed: int,
    terms: dict[str, Tensor],
    device: str,
    mapper: Map,
) -> Any:
    """The shares again with other numbers of principal components."""
    chosen = scene.projection.dimension
    others = [dimension for dimension in _SENSITIVITY if dimension < chosen]
    work = partial(_terms_in, scene=scene, components=components, seed=seed, device=device)
    found = {**dict(zip(others, mapper(work, others), strict=True)), chosen: terms}
    return pd.DataFrame(
        [
            findings.sensitivity_line(
                dimension, scene.projection.explained, found[dimension], dimension == chosen
            )
            for dimension in found
        ]
    )


def _terms_in(
    dimension: int, *, scene: Scene, components: int | None, seed: int, device: str
) -> dict[str, Tensor]:
    fit, shares, _ = shared_posterior(
        scene, dimension, components, chains=2, draws=100, seed=seed, device=device
    )
    return share_terms(scene, fit, shares, seed)[0]
