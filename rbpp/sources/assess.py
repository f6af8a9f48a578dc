"""The main job: what synthetic data adds, how faithful it is, what is off-task, what it misses.

One mixture is shared by all sources, each with weights of its own: from their posterior come the
partition into the paper's parts K, J and L, and every share and divergence between sources. The
entropies and the KL gap, for which the shape inside components matters, come from mixtures fitted
to each source alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from rbpp import inference_data
from rbpp.checks import Check
from rbpp.compute import Compute
from rbpp.data.reduce import SHARED_DIMENSION
from rbpp.data.rows import Reading, Rows, read_rows
from rbpp.estimate import Estimate
from rbpp.mixtures.conjugate import VariationalMixture
from rbpp.sources import findings
from rbpp.sources.assessment import Assessment, headline
from rbpp.sources.learned_terms import learned_terms
from rbpp.sources.own_mixtures import OwnMixtures, fit_own, repeated
from rbpp.sources.paired_terms import paired_terms
from rbpp.sources.scene import Scene, check_draws, lay_out
from rbpp.sources.share_terms import share_terms, shared_posterior
from rbpp.sources.shared_mixture import Engine
from rbpp.sources.shares import Shares

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
    cache: Any = None,
    reading: Reading | None = None,
    seed: int = 0,
    compute: Compute | None = None,
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
        cache: folder of cached embeddings.
        reading: which columns of tables, and which of several splits.
        seed: decides every random number.
        compute: device of an embedding model and the fits, workers over what is independent (shards
            of text, sources, dimensions of the sensitivity table), progress.

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
            reading=reading,
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
        cache=cache,
        seed=seed,
        compute=compute,
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
    cache: Any = None,
    seed: int = 0,
    compute: Compute | None = None,
) -> Assessment:
    """As `assess`, for rows that are read, with their roles as their sources.

    Without target rows the anchors stand in for them. Without either nothing can be novel, and
    there is no KL gap.
    """
    compute = Compute.of(compute, seed)
    scene = lay_out(
        sources,
        embedding_model=embedding_model,
        dimension=dimension,
        cache=cache,
        compute=compute,
    )
    return assess_scene(
        scene,
        components=components,
        engine=engine,
        chains=chains,
        draws=draws,
        compute=compute,
        pairs={"model": embedding_model, "cache": cache},
    )[0]


def assess_scene(
    scene: Scene,
    *,
    components: int | None = None,
    engine: Engine = "cavi",
    chains: int = 4,
    draws: int = 250,
    compute: Compute,
    pairs: dict[str, Any] | None = None,
) -> tuple[Assessment, tuple[VariationalMixture, Shares]]:
    """As `assess`, for sources that are laid out; with the shared mixture and its shares.

    Args:
        scene: the sources.
        components, engine, chains, draws, compute: as for `assess`.
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
        engine=engine,
        compute=compute,
    )
    terms = share_terms(scene, fit, shares, compute.seed)
    mixtures = fit_own(
        scene.coordinates,
        groups=scene.groups,
        chains=chains,
        compute=compute.spawn("densities"),
    )
    learned = learned_terms(scene, terms, chains=chains, draws=draws, seed=compute.seed)
    density = _density_terms(scene, mixtures)
    terms |= {name: repeated(term, draws) for name, term in density.items()} | learned.terms
    checks: list[Check] = []
    for paired in (rows for rows in scene.sources if rows.paired):
        own, check = paired_terms(
            paired,
            chains=chains,
            draws=draws,
            compute=compute.spawn("pairs"),
            **(pairs or {}),
        )
        terms |= own
        checks.append(check)
    sensitivity = _sensitivity(scene, components, terms, compute)
    idata = inference_data.make(
        {**inference_data.from_estimates(terms), "source_weights": shares.weights},
        sample_stats={"elbo": findings.elbo(fit)},
        constant_data={
            "seed": compute.seed,
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
        **findings.settings(scene, fit, shared, mixtures, compute.seed),
        "engine": engine,
        "learner_rows": learned.rows,
    }
    checks += [*findings.checks(scene, fit, terms, settings), *learned.checks]
    answers = findings.answers(scene, terms, rows)
    counts = settings["rows"]
    found = Assessment(
        idata=idata,
        checks=tuple(checks),
        settings=settings,
        headline=headline(answers),
        row_counts={
            "synthetic": counts["synthetic"],
            "anchor": counts.get("anchor", counts["synthetic"]),
            # Learners leave a pilot out: their informations are about fewer rows.
            **learned.row_counts,
        },
        rows=rows,
        components=table,
        sensitivity=sensitivity,
        answers=answers,
        axes=("first principal component", "contrast: synthetic above, task below"),
    )
    return found, (fit, shares)


def _density_terms(scene: Scene, mixtures: OwnMixtures) -> dict[str, Estimate]:
    """Entropies, KL divergences and the KL gap of the sources' own mixtures, (chain, refit)."""
    made, task, roles = scene.index("synthetic"), scene.reference, scene.roles
    found: dict[str, Estimate] = {}
    for role in ("anchor", "output", "synthetic"):
        if role in roles:
            index = scene.index(role)
            # Rows are independent given the mixture.
            found[f"entropy_{role}"] = mixtures.entropy(index) * scene.sources[index].size
    if "anchor" in roles:
        found["entropy_gap"] = found["entropy_anchor"] - found["entropy_synthetic"]
    found["kl_synthetic"] = mixtures.divergence(made, task)
    found["kl_synthetic_coverage"] = mixtures.divergence(task, made)
    if "anchor" in roles and scene.index("anchor") != task:
        seeds = scene.index("anchor")
        found["kl_anchor"] = mixtures.divergence(seeds, task)
        found["kl_anchor_coverage"] = mixtures.divergence(task, seeds)
        found["kl_gap"] = found["kl_anchor"] - found["kl_synthetic"]
        found["kl_gap_coverage"] = found["kl_anchor_coverage"] - found["kl_synthetic_coverage"]
    return found


def _sensitivity(
    scene: Scene, components: int | None, terms: Mapping[str, Estimate], compute: Compute
) -> pd.DataFrame:
    """The shares again with other numbers of principal components."""
    chosen = scene.projection.dimension
    others = [dimension for dimension in _SENSITIVITY if dimension < chosen]
    work = partial(_terms_in, scene=scene, components=components, compute=compute.task())
    again = compute.each(work, others, "dimensions")
    found = {**dict(zip(others, again, strict=True)), chosen: terms}
    return pd.DataFrame(
        [
            findings.sensitivity_line(
                dimension, scene.projection.explained, found[dimension], dimension == chosen
            )
            for dimension in found
        ]
    )


def _terms_in(
    dimension: int, *, scene: Scene, components: int | None, compute: Compute
) -> dict[str, Estimate]:
    fit, shares, _ = shared_posterior(
        scene, dimension, components, chains=2, draws=100, compute=compute
    )
    return share_terms(scene, fit, shares, compute.seed)
