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

import difflib
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rbpp import inference_data
from rbpp.data.embed import embed
from rbpp.data.reduce import Projection, principal_components
from rbpp.data.rows import Rows, read_rows
from rbpp.progress import progress
from rbpp.randomness import spawn
from rbpp.sources.own_mixtures import OwnMixtures, fit_own
from rbpp.sources.scene import arrange, check_draws, group_index
from rbpp.sources.share_terms import share_terms, shared_posterior
from rbpp.threads import Map
from rbpp.variables import VARIABLES

# Differences within these make none in practice (the region of practical equivalence): of shares
# and divergences, and of nats per row.
EQUIVALENT_SHARE, EQUIVALENT_NATS = 0.02, 0.1
# More versions than this are compared with the best alone, not each with each.
_ALL_PAIRS = 5
_CONDITION = re.compile(
    r"\s*(?:(?P<version>.+):)?\s*(?P<term>\w+)\s*(?P<sign>[<>])\s*(?P<value>[-+.\deE]+)"
    r"\s+with\s+(?P<probability>[.\d]+)\s*"
)


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
        data: InferenceData by version: its terms (chain, draw), and `score`.
        ranking: best first: `name`, `score`, `sd`, `hdi_low`, `hdi_high`, `p_best`, `rank_mean`,
            and `p_rank`, the probability of each rank; a larger score is better.
        differences: per term and pair of versions: `term`, `first`, `second`, `mean`, `sd`,
            `hdi_low`, `hdi_high` of first − second, `p_better`, `p_equivalent`, `p_worse` of the
            first, and `equivalent`, half the width of the region of practical equivalence.
        settings: what the numbers depend on.
    """

    data: dict[str, Any]
    ranking: list[dict[str, Any]]
    differences: list[dict[str, Any]]
    settings: dict[str, Any]


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
    seed: int = 0,
    device: str = "cpu",
    cache: Any = None,
    mapper: Map = map,
    quiet: bool = True,
) -> Comparison:
    """Compare synthetic data sets by what they are to one reference.

    Args:
        versions: data by name, or files, which are named by their stems.
        reference: real rows of the task.
        anchor: real rows the generation started from; the score is then the KL gap itself.
        text_fields, embedding_field, id_field, group_field, embedding_model, dimension,
            components, chains, draws, seed, device, cache, quiet: as in `rbpp.assess`.
        equivalent_share, equivalent_nats: half the width of the region of practical equivalence
            for shares and divergences, and for nats per row.
        shares: also the shares and divergences, which need a shared mixture per version; the
            ranking does not.
        hdi_prob: probability of the intervals.
        mapper: over versions and shards of text, such as that of a cluster.

    Raises:
        ValueError: as `assess`; and on fewer than two versions or two of one name, or a width or
            probability outside its range.
    """
    named = name_versions(versions)
    options: dict[str, Any] = {
        "text_fields": text_fields,
        "embedding_field": embedding_field,
        "id_field": id_field,
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
        seed=seed,
        device=device,
        cache=cache,
        mapper=mapper,
        quiet=quiet,
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
    seed: int = 0,
    device: str = "cpu",
    cache: Any = None,
    mapper: Map = map,
    quiet: bool = True,
) -> Comparison:
    """As `compare`, for rows that are read.

    Args:
        named: rows of every version, of the role `"synthetic"`.
        real: target rows, then anchors if there are any.
        projection: principal components of more rows than these; by default of these.
    """
    check_draws(chains, draws)
    if not 0 < hdi_prob < 1:
        raise ValueError(f"Expected hdi_prob between 0 and 1; got {hdi_prob}")
    for kind, width in (("share", equivalent_share), ("nats", equivalent_nats)):
        if not 0 <= width < math.inf:
            raise ValueError(f"Expected an equivalent {kind} of 0 or more; got {width}")
    made = list(named.values())
    vectors, embedding = embed(
        [*real, *made],
        model=embedding_model,
        device=device,
        cache=cache,
        seed=seed,
        mapper=mapper,
        quiet=quiet,
    )
    if projection is None:
        projection = principal_components(vectors, dimension)
    mixtures = fit_own(
        [torch.as_tensor(projection(part)) for part in vectors],
        groups=[group_index(rows) for rows in [*real, *made]],
        chains=chains,
        seed=spawn(seed, "densities"),
        device=device,
        mapper=mapper,
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
        seed=seed,
        device=device,
    )
    places = range(len(real), len(vectors))
    found = mapper(work, places) if shares else [({}, {})] * len(named)
    terms, errors = {}, {}
    shown = progress(found, len(named), "versions", quiet)
    for name, place, (own, own_errors) in zip(named, places, shown, strict=True):
        density, density_errors = _density_terms(mixtures, place, len(real) > 1)
        terms[name], errors[name] = density | own, density_errors | own_errors
    longest = draws if shares else None
    data = {
        name: inference_data.make(
            _same_draws(
                {**terms[name], **{f"{k}_mcse": v for k, v in errors[name].items()}}, longest
            ),
            constant_data={"seed": seed, "dimension": projection.dimension},
        )
        for name in named
    }
    ranking = _ranking({name: terms[name]["score"] for name in named}, hdi_prob)
    names = [line["name"] for line in ranking]
    pairs = (
        list(itertools.combinations(names, 2))
        if len(names) <= _ALL_PAIRS
        else [(names[0], other) for other in names[1:]]
    )
    equivalent = {"1": equivalent_share, "nats": equivalent_nats}
    differences = [
        _difference(term, one, two, terms[one][term], terms[two][term], equivalent, hdi_prob)
        for term in terms[names[0]]
        for one, two in pairs
        if term in VARIABLES and VARIABLES[term].larger_is != "neither"
    ]
    settings = {
        "embedding": embedding,
        "dimension": projection.dimension,
        "explained_variance": float(projection.explained.sum()),
        "rows": {"reference": real[0].size, **{name: rows.size for name, rows in named.items()}},
        "score": "kl_gap" if len(real) > 1 else "-kl_synthetic",
        "equivalent_share": equivalent_share,
        "equivalent_nats": equivalent_nats,
        "seed": seed,
    }
    return Comparison(data, ranking, differences, settings)


def fails(comparison: Comparison, condition: str) -> list[str]:
    """Versions for which a condition holds with the probability that it names.

    Args:
        comparison: what `compare` returned.
        condition: `TERM > VALUE with PROBABILITY` (or `<`), for any version, or for the one named
            before a colon, `new: irrelevant_share > 0.1 with 0.9`.

    Raises:
        ValueError: if the condition cannot be read, or names an unknown term or version.
    """
    asked = check_condition(condition, list(comparison.data))
    found = []
    for name in asked.versions:
        posterior = inference_data.group_datasets(comparison.data[name])["posterior"]
        if asked.term not in posterior:
            terms = [str(term) for term in posterior if not str(term).endswith("_mcse")]
            closest = difflib.get_close_matches(asked.term, terms, n=1)
            hint = f": did you mean {closest[0]!r}?" if closest else ""
            raise ValueError(
                f"Expected one of the terms {', '.join(terms)}; got {asked.term!r}{hint}"
            )
        draws = posterior[asked.term].values
        holds = draws > asked.value if asked.sign == ">" else draws < asked.value
        if holds.mean() >= asked.probability:
            found.append(name)
    return found


class Condition(NamedTuple):
    """`TERM SIGN VALUE with PROBABILITY`, of these versions."""

    versions: list[str]
    term: str
    sign: str
    value: float
    probability: float


def check_condition(condition: str, versions: list[str]) -> Condition:
    """The condition of `fails`, read before there is a comparison to ask.

    Args:
        condition: as for `fails`.
        versions: the names of all.

    Raises:
        ValueError: if the condition cannot be read, or names an unknown version.

    >>> check_condition("new: irrelevant_share > 0.1 with 0.9", ["old", "new"]).versions
    ['new']
    """
    match = _CONDITION.fullmatch(condition)
    if match is None:
        raise ValueError(
            f"Expected a condition as 'irrelevant_share > 0.1 with 0.9'; got {condition!r}"
        )
    try:
        value, required = float(match["value"]), float(match["probability"])
    except ValueError:
        raise ValueError(f"Expected numbers in the condition; got {condition!r}") from None
    if not 0 < required <= 1:
        raise ValueError(
            f"Expected a probability above 0, up to 1; got {required} in {condition!r}"
        )
    chosen = versions if match["version"] is None else [match["version"].strip()]
    if chosen[0] not in versions:
        raise ValueError(f"Expected one of the versions {', '.join(versions)}; got {chosen[0]!r}")
    return Condition(chosen, match["term"], match["sign"], value, required)


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


def _density_terms(
    mixtures: OwnMixtures, made: int, with_anchor: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Terms (chain, refit) of a version's own mixture; the reference is source 0, anchors 1."""
    found = {
        "kl_synthetic": mixtures.divergence(made, 0),
        "kl_synthetic_coverage": mixtures.divergence(0, made),
        "entropy": mixtures.entropy(made),
    }
    terms = {name: value for name, (value, _) in found.items()}
    errors = {name: error for name, (_, error) in found.items()}
    terms["score"], errors["score"] = -terms["kl_synthetic"], errors["kl_synthetic"]
    if with_anchor:
        before, error = mixtures.divergence(1, 0)
        terms["kl_gap"] = before - terms["kl_synthetic"]
        errors["kl_gap"] = (error.square() + errors["kl_synthetic"].square()).sqrt()
        terms["score"], errors["score"] = terms["kl_gap"], errors["kl_gap"]
    return terms, errors


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
    seed: int,
    device: str,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
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
        seed=seed,
        device=device,
    )
    return share_terms(scene, fit, shares, seed)


def _same_draws(values: dict[str, Tensor], draws: int | None) -> dict[str, np.ndarray]:
    """All with the same number of draws: refits are repeated up to the draws of the shares.

    The ranking and the differences are of the distinct refits alone.
    """
    if draws is None:
        return {name: value.numpy() for name, value in values.items()}
    return {
        name: value[:, torch.arange(draws) % value.shape[1]].numpy()
        for name, value in values.items()
    }


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
