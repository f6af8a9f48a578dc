"""Which synthetic data is better: differences with their posteriors, a ranking, conditions.

The headline score is the KL gap (Section 4.4), D_KL(π_anchor ‖ G) − D_KL(π_gen ‖ G), and without
anchors its part that differs between versions, −D_KL(π_gen ‖ G). It is

    h(π_gen) + E_{π_gen} log G + constant,

the information gain per row (ΔI, as all rows of a version come from one prompt) and how typical
its rows are of the task. Diversity alone would be raised by off-task rows, typicality alone by a
single typical row repeated; their sum is highest where π_gen is G. What it says is about densities
inside components too: weights on shared components lose it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rbpp import inference_data, validate
from rbpp.compute import Compute
from rbpp.data.embed import embed
from rbpp.data.reduce import Projection, principal_components
from rbpp.data.rows import Reading, Rows, read_rows
from rbpp.estimate import Estimate, stack
from rbpp.sources.comparison import Comparison
from rbpp.sources.findings import enough_rows, projected
from rbpp.sources.own_mixtures import OwnMixtures, fit_own, repeated
from rbpp.sources.scene import arrange, check_draws, group_index
from rbpp.sources.share_terms import share_terms, shared_posterior
from rbpp.variables import VARIABLES

# Differences within these make none in practice (the region of practical equivalence): of shares
# and divergences, and of nats per row.
EQUIVALENT_SHARE, EQUIVALENT_NATS = 0.02, 0.1
# More versions than this are compared with the best alone, not each with each.
_ALL_PAIRS = 5


def compare(
    versions: Mapping[str, Any] | Sequence[Any],
    reference: Any,
    *,
    anchor: Any = None,
    text_fields: Sequence[str] = (),
    embedding_field: str | None = None,
    id_field: str | None = None,
    group_field: str | None = None,
    embedding_model: str | None = None,
    dimension: int | None = None,
    components: int | None = None,
    chains: int = 4,
    draws: int = 250,
    equivalent_share: float = EQUIVALENT_SHARE,
    equivalent_nats: float = EQUIVALENT_NATS,
    shares: bool = True,
    hdi_prob: float = 0.94,
    cache: Any = None,
    reading: Reading | None = None,
    seed: int = 0,
    compute: Compute | None = None,
) -> Comparison:
    """Compare synthetic data sets by what they are to one reference.

    Args:
        versions: data by name, or files, which are named by their stems.
        reference: real rows of the task.
        anchor: real rows the generation started from; the score is then the KL gap itself.
        text_fields, embedding_field, id_field, group_field, embedding_model, dimension,
            components, chains, draws, cache, seed: as in `rbpp.assess`.
        equivalent_share, equivalent_nats: half the width of the region of practical equivalence
            for shares and divergences, and for nats per row.
        shares: also the shares and divergences, which need a shared mixture per version; the
            ranking does not.
        hdi_prob: probability of the intervals.
        compute: device, workers over versions and shards of text, progress.

    Raises:
        ValueError: as `assess`; and on fewer than two versions or two of one name, or a width or
            probability outside its range.
    """
    named = name_versions(versions)
    options: dict[str, Any] = {
        "text_fields": text_fields,
        "embedding_field": embedding_field,
        "id_field": id_field,
        "reading": reading,
    }
    real = [read_rows(reference, "target", **options)]
    if anchor is not None:
        real.append(read_rows(anchor, "anchor", **options))
    made = [
        read_rows(data, "synthetic", group_field=group_field, **options) for data in named.values()
    ]
    return compare_rows(
        dict(zip(named, made, strict=True)),
        real,
        embedding_model=embedding_model,
        dimension=dimension,
        components=components,
        chains=chains,
        draws=draws,
        equivalent_share=equivalent_share,
        equivalent_nats=equivalent_nats,
        shares=shares,
        hdi_prob=hdi_prob,
        cache=cache,
        seed=seed,
        compute=compute,
    )


def compare_rows(
    named: Mapping[str, Rows],
    real: Sequence[Rows],
    *,
    projection: Projection | None = None,
    embedding_model: str | None = None,
    dimension: int | None = None,
    components: int | None = None,
    chains: int = 4,
    draws: int = 250,
    equivalent_share: float = EQUIVALENT_SHARE,
    equivalent_nats: float = EQUIVALENT_NATS,
    shares: bool = True,
    hdi_prob: float = 0.94,
    cache: Any = None,
    seed: int = 0,
    compute: Compute | None = None,
) -> Comparison:
    """As `compare`, for rows that are read.

    Args:
        named: rows of every version, of the role `"synthetic"`.
        real: target rows, then anchors if there are any.
        projection: principal components of more rows than these; by default of these.
    """
    compute = Compute.of(compute, seed)
    check_draws(chains, draws)
    validate.probability("hdi_prob", hdi_prob)
    for kind, width in (("share", equivalent_share), ("nats", equivalent_nats)):
        if not 0 <= width < math.inf:
            raise ValueError(f"Expected an equivalent {kind} of 0 or more; got {width}")
    made = list(named.values())
    vectors, embedding = embed(
        [*real, *made],
        model=embedding_model,
        device=compute.device,
        cache=cache,
        seed=compute.seed,
        mapper=compute.workers,
        quiet=not compute.progress,
    )
    if projection is None:
        projection = principal_components(vectors, dimension)
    mixtures = fit_own(
        [torch.as_tensor(projection(part)) for part in vectors],
        groups=[group_index(rows) for rows in [*real, *made]],
        chains=chains,
        compute=compute.spawn("densities"),
    )
    work = partial(
        _share_terms,
        sources=[*real, *made],
        vectors=vectors,
        projection=projection,
        embedding=embedding,
        components=components,
        chains=chains,
        draws=draws,
        compute=compute.task(),
    )
    places = range(len(real), len(vectors))
    found = compute.each(work, places, "versions") if shares else iter([{}] * len(named))
    density, share = {}, {}
    for name, place, own in zip(named, places, found, strict=True):
        density[name], share[name] = _density_terms(mixtures, place, len(real) > 1), own
    terms = {name: {**density[name], **share[name]} for name in named}
    by_version = _along_versions(list(density.values()))
    if shares:
        by_version = {name: repeated(term, draws) for name, term in by_version.items()}
        by_version |= _along_versions(list(share.values()))
    variables = inference_data.from_estimates(by_version)
    ranking = _ranking({name: terms[name]["score"].value for name in named}, hdi_prob)
    names = [line["name"] for line in ranking]
    pairs = (
        list(itertools.combinations(names, 2))
        if len(names) <= _ALL_PAIRS
        else [(names[0], other) for other in names[1:]]
    )
    equivalent = {"1": equivalent_share, "nats": equivalent_nats}
    differences = [
        _difference(
            term, one, two, terms[one][term].value, terms[two][term].value, equivalent, hdi_prob
        )
        for term in terms[names[0]]
        for one, two in pairs
        if term in VARIABLES and VARIABLES[term].larger_is != "neither"
    ]
    settings: dict[str, Any] = {
        "embedding": embedding,
        "dimension": projection.dimension,
        "explained_variance": float(projection.explained.sum()),
        "rows": {"reference": real[0].size, **{name: rows.size for name, rows in named.items()}},
        "score": "kl_gap" if len(real) > 1 else "-kl_synthetic",
        "equivalent_share": equivalent_share,
        "equivalent_nats": equivalent_nats,
        "seed": compute.seed,
    }
    best = ranking[0]
    return Comparison(
        idata=inference_data.make(
            variables,
            constant_data={"seed": compute.seed, "dimension": projection.dimension},
            dims={name: ["version"] for name in variables},
            coords={"version": list(named)},
        ),
        checks=(
            enough_rows(settings["rows"]),
            projected(settings["dimension"], settings["explained_variance"]),
        ),
        settings=settings,
        headline=(
            f"{best['name']} ranks first: it is the best with probability {best['p_best']:.2f}.",
        ),
        ranking=ranking,
        differences=differences,
    )


def name_versions(versions: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    """Versions by name; files by their stems."""
    if isinstance(versions, Mapping):
        named = dict(versions)
    elif not isinstance(versions, list | tuple):  # one version: its letters or rows are none
        raise ValueError(
            f"Expected versions by name or a list of them; got <{type(versions).__name__}>"
        )
    else:
        names = [
            Path(data).stem if isinstance(data, str | Path) else f"version {place}"
            for place, data in enumerate(versions, 1)
        ]
        if len(set(names)) < len(names):  # the same file name in several folders
            names = [str(data) for data in versions]
        named = dict(zip(names, versions, strict=True))
        if len(named) < len(names):
            raise ValueError(f"Expected versions of different names; got {', '.join(names)}")
    if len(named) < 2:
        raise ValueError(f"Expected at least 2 versions to compare; got {len(named)}")
    return named


def _density_terms(mixtures: OwnMixtures, made: int, with_anchor: bool) -> dict[str, Estimate]:
    """Terms (chain, refit) of a version's own mixture; the reference is source 0, anchors 1."""
    found = {
        "kl_synthetic": mixtures.divergence(made, 0),
        "kl_synthetic_coverage": mixtures.divergence(0, made),
        "entropy": mixtures.entropy(made),
    }
    found["score"] = -found["kl_synthetic"]
    if with_anchor:
        found["kl_gap"] = mixtures.divergence(1, 0) - found["kl_synthetic"]
        found["score"] = found["kl_gap"]
    return found


def _along_versions(terms: Sequence[Mapping[str, Estimate]]) -> dict[str, Estimate]:
    """Terms of every version as terms (chain, draw, version)."""
    return {name: stack([own[name] for own in terms], -1) for name in terms[0]}


def _share_terms(
    place: int,
    *,
    sources: list[Rows],
    vectors: list[np.ndarray],
    projection: Projection,
    embedding: str,
    components: int | None,
    chains: int,
    draws: int,
    compute: Compute,
) -> dict[str, Estimate]:
    """Terms of the shared mixture of the reference, source 0, and the version at `place`."""
    pair = (0, place)
    scene = arrange(
        [sources[index] for index in pair],
        [vectors[index] for index in pair],
        projection,
        embedding,
    )
    fit, shares, _ = shared_posterior(
        scene,
        projection.dimension,
        components,
        chains=chains,
        draws=draws,
        compute=compute,
    )
    return share_terms(scene, fit, shares, compute.seed)


def _ranking(scores: dict[str, Tensor], hdi_prob: float) -> list[dict[str, Any]]:
    draws = torch.stack([value.flatten() for value in scores.values()])
    ranks = draws.argsort(0, descending=True).argsort(0) + 1
    lines = []
    for name, own, rank in zip(scores, draws, ranks, strict=True):
        low, high = inference_data.highest_density_interval(own.numpy(), hdi_prob)
        lines.append(
            {
                "name": name,
                "score": float(own.mean()),
                "sd": float(own.std()),
                "hdi_low": low,
                "hdi_high": high,
                "p_best": float((rank == 1).double().mean()),
                "rank_mean": float(rank.double().mean()),
                "p_rank": [
                    float((rank == place).double().mean()) for place in range(1, len(scores) + 1)
                ],
            }
        )
    return sorted(lines, key=lambda line: -line["score"])


def _difference(
    term: str,
    first: str,
    second: str,
    one: Tensor,
    two: Tensor,
    equivalent: dict[str, float],
    hdi_prob: float,
) -> dict[str, Any]:
    variable = VARIABLES[term]
    width = equivalent[variable.units]
    draws = (one - two).flatten()
    gain = draws if variable.larger_is == "better" else -draws
    low, high = inference_data.highest_density_interval(draws.numpy(), hdi_prob)
    return {
        "term": term,
        "first": first,
        "second": second,
        "mean": float(draws.mean()),
        "sd": float(draws.std()),
        "hdi_low": low,
        "hdi_high": high,
        "p_better": float((gain > width).double().mean()),
        "p_equivalent": float((gain.abs() <= width).double().mean()),
        "p_worse": float((gain < -width).double().mean()),
        "equivalent": width,
    }
