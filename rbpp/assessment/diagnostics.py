"""What stands beside a score and is not added to it: shares, divergences and copies."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rbpp.assessment.copies import copied_rows
from rbpp.assessment.divergence import kl_divergence_of_samples, kl_gap_of_samples
from rbpp.assessment.log_ratio import LogRatio, log_ratio
from rbpp.assessment.off_task import VectorKind, off_task, uncovered
from rbpp.assessment.scores import LEAST_ROWS
from rbpp.assessment.sources import SAMPLE_ROWS, Sources
from rbpp.assessment.weighted_rows import Array, Draws, Sample
from rbpp.compute import Compute

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
    drawn = Draws(draws, compute.seed)

    def work(name: str) -> Diagnostics:
        return _of(name, sources, anchor, drawn)

    return dict(zip(names, compute.each(work, names, "diagnostics"), strict=True))


def _of(name: str, sources: Sources, anchor: LogRatio | None, drawn: Draws) -> Diagnostics:
    target, made = sources.content("target"), sources.content(name)
    nothing = np.full(drawn.count, np.nan)
    terms: dict[str, Array] = {"irrelevant_share": nothing, "uncovered_share": nothing}
    terms |= {"kl_synthetic": nothing, "kl_synthetic_coverage": nothing}
    numbers: dict[str, float] = {}
    refusals = []
    kind = VectorKind(lexical=sources.embedding.lexical)
    if min(len(target), len(made)) < LEAST_ROWS:
        refusals.append(f"shares need {LEAST_ROWS} rows on both sides")
    else:
        off = off_task(target, sources.sample(name), drawn, kind)
        missed = uncovered(sources.sample("target"), made, drawn, kind)
        for term, share in (("irrelevant_share", off), ("uncovered_share", missed)):
            if share.refusal:
                refusals.append(share.refusal)
            else:
                terms[term] = share.draws
    if _units(sources, name, "target") < _LEAST_UNITS:
        refusals.append(f"divergences need {_LEAST_UNITS} independent rows on both sides")
    else:
        ratio, enough = _ratio(sources, name, drawn.seed), drawn.at_least(_LEAST_DRAWS)
        found = {
            "kl_synthetic": kl_divergence_of_samples(ratio, "forward", enough).draws,
            "kl_synthetic_coverage": kl_divergence_of_samples(ratio, "reverse", enough).draws,
        }
        if anchor is not None:
            found["kl_gap"] = kl_gap_of_samples(anchor, ratio, enough).draws
        terms |= {term: values[: drawn.count] for term, values in found.items()}
    if "anchor" in sources.names and len(sources.content("anchor")) >= 3:
        copied = copied_rows(made, sources.content("anchor"), target)
        numbers["copied_share"] = copied.copied_share
    return Diagnostics(terms, numbers, tuple(dict.fromkeys(refusals)))


def _ratio(sources: Sources, name: str, seed: int) -> LogRatio:
    one, other = (
        Sample(sources.coordinates[role], sources.units(role)) for role in (name, "target")
    )
    return log_ratio(one, other, seed=seed)


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
