"""What stands beside a score and is not added to it: shares, divergences and copies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from rbpp.assessment.copies import copied_rows
from rbpp.assessment.divergence import kl_divergence_of_samples, kl_gap_of_samples
from rbpp.assessment.log_ratio import LogRatio, log_ratio
from rbpp.assessment.off_task import off_task, uncovered
from rbpp.assessment.scores import LEAST_ROWS
from rbpp.assessment.sources import SAMPLE_ROWS, Sources
from rbpp.compute import Compute

Array = NDArray[np.float64]
_LEAST_UNITS, _LEAST_DRAWS = 16, 100


@dataclass(frozen=True)
class Diagnostics:
    """Of one version.

    Attributes:
        terms: draws by name, (draws,); nan where nothing can be said.
        numbers: by name.
        refusals: why nothing can be said.
    """

    terms: dict[str, Array]
    numbers: dict[str, float]
    refusals: tuple[str, ...]


def diagnose(sources: Sources, draws: int, compute: Compute) -> dict[str, Diagnostics]:
    """Shares, divergences and copies of every synthetic source.

    Args:
        sources: the target, anchors if there are any, and the versions.
        draws: of every term.
        compute: one task per version.
    """
    sources = _sampled(sources, compute)
    names = [name for name in sources.names if sources.roles[name] == "synthetic"]
    _ = sources.lifted and sources.content(names[0])  # cached once, and not in every task
    anchor = None
    if "anchor" in sources.names and _units(sources, "anchor", "target") >= _LEAST_UNITS:
        anchor = _ratio(sources, "anchor", compute.seed)
    work = partial(_of, sources=sources, anchor=anchor, draws=draws, seed=compute.seed)
    return dict(zip(names, compute.each(work, names, "diagnostics"), strict=True))


def _of(
    name: str, *, sources: Sources, anchor: LogRatio | None, draws: int, seed: int
) -> Diagnostics:
    target, made = sources.content("target"), sources.content(name)
    nothing = np.full(draws, np.nan)
    terms: dict[str, Array] = {"irrelevant_share": nothing, "uncovered_share": nothing}
    terms |= {"kl_synthetic": nothing, "kl_synthetic_coverage": nothing}
    numbers: dict[str, float] = {}
    refusals = []
    lexical = sources.embedding.lexical
    if min(len(target), len(made)) < LEAST_ROWS:
        refusals.append(f"shares need {LEAST_ROWS} rows on both sides")
    else:
        off = off_task(
            target,
            made,
            weights=sources.weights(name),
            units=sources.units(name),
            lexical=lexical,
            num_samples=draws,
            seed=seed,
        )
        missed = uncovered(
            target,
            made,
            units=sources.units("target"),
            lexical=lexical,
            num_samples=draws,
            seed=seed,
        )
        for term, found in (("irrelevant_share", off), ("uncovered_share", missed)):
            if found.refusal:
                refusals.append(found.refusal)
            else:
                terms[term] = found.draws
    if _units(sources, name, "target") < _LEAST_UNITS:
        refusals.append(f"divergences need {_LEAST_UNITS} independent rows on both sides")
    else:
        ratio = _ratio(sources, name, seed)
        count = max(draws, _LEAST_DRAWS)
        for term, direction in (("kl_synthetic", "forward"), ("kl_synthetic_coverage", "reverse")):
            divergence = kl_divergence_of_samples(ratio, direction, draws=count, seed=seed)  # type: ignore[arg-type]
            terms[term] = divergence.draws[:draws]
        if anchor is not None:
            gap = kl_gap_of_samples(anchor, ratio, draws=count, seed=seed)
            terms["kl_gap"] = gap.draws[:draws]
    if "anchor" in sources.names and len(sources.content("anchor")) >= 3:
        copied = copied_rows(made, sources.content("anchor"), target)
        numbers["copied_share"] = copied.copied_share
    return Diagnostics(terms, numbers, tuple(dict.fromkeys(refusals)))


def _ratio(sources: Sources, name: str, seed: int) -> LogRatio:
    return log_ratio(
        sources.coordinates[name],
        sources.coordinates["target"],
        first_unit=sources.units(name),
        second_unit=sources.units("target"),
        seed=seed,
    )


def _units(sources: Sources, *names: str) -> int:
    return min(len(np.unique(sources.units(name))) for name in names)


def _sampled(sources: Sources, compute: Compute) -> Sources:
    """At most `SAMPLE_ROWS` rows of each source: neighbours are sought among all pairs."""
    rows, vectors = dict(sources.rows), dict(sources.vectors)
    coordinates = dict(sources.coordinates)
    for name, own in sources.vectors.items():
        if len(own) > SAMPLE_ROWS:
            random = np.random.default_rng([compute.spawn("diagnosed rows", name).seed])
            place = np.sort(random.choice(len(own), SAMPLE_ROWS, replace=False))
            rows[name] = rows[name].select(place)
            vectors[name], coordinates[name] = own[place], coordinates[name][place]
    return replace(sources, rows=rows, vectors=vectors, coordinates=coordinates)
