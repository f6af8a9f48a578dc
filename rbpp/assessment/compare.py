"""Which synthetic data is better to train on: a ranking by what is learned from each version.

The score is the log-probability that what is learned from a version gives real rows: of the label
given the text, of the output given the prompt, or of the text. Shares off the task and missed,
divergences of the texts, copies and labels stand beside it and are not added: on sets whose outcome
after training is known they predict little (docs/measurements/ranking.md).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from rbpp import inference_data, validate
from rbpp.assessment import stored_ranking
from rbpp.assessment.comparison import Comparison
from rbpp.assessment.comparison_words import headline, notes
from rbpp.assessment.copies import copied_rows
from rbpp.assessment.divergence import kl_divergence_of_samples, kl_gap_of_samples
from rbpp.assessment.log_ratio import FEWEST_UNITS, LogRatio, log_ratio
from rbpp.assessment.off_task import VectorKind, off_task, uncovered
from rbpp.assessment.ranking import Decision, Ranking, rank_sets
from rbpp.assessment.ranking_probabilities import practical
from rbpp.assessment.scores import LEAST_ROWS
from rbpp.assessment.source_checks import independent
from rbpp.assessment.sources import Fields, Representation, Sampling, Sources, random_places
from rbpp.assessment.versions import Versions, key, name_versions, read_record, read_versions
from rbpp.assessment.weighted_rows import Draws, Sample
from rbpp.compute import Compute
from rbpp.estimate import Estimate, exactly, stack
from rbpp.mixtures.continuous import one_scale
from rbpp.variables import VARIABLES

_CHAINS = 4
# Each pair of so many versions is compared in the score, and in what stands beside it; of more
# versions each is compared with the best.
_ALL_PAIRS, _ALL_PAIRS_BESIDE = 20, 5


def compare(
    versions: Mapping[str, Any] | Sequence[Any],
    reference: Any,
    *,
    anchor: Any = None,
    fields: Fields | None = None,
    representation: Representation | None = None,
    sampling: Sampling | None = None,
    against: Any = None,
    shares: bool = True,
    decision: Decision | None = None,
    draws: int = 500,
    seed: int = 0,
    compute: Compute | None = None,
) -> Comparison:
    """Rank synthetic data sets by what they teach about real rows, nats a row; larger is better.

        score_k = mean over real rows of log p_k(label | text), log p_k(output | prompt)
                  or log p_k(text)

    The first where `fields` name labels, the second where they name prompt and output. Real rows
    without labels are judged by the consensus of the other versions. Arrays are taken as they are;
    text is embedded.

    Args:
        versions: data by name, or files, which are named by their stems.
        reference: real rows of the task that no version was made from.
        anchor: real rows the generation started from: `kl_gap` and copies are looked at.
        fields: which fields are read.
        representation: how rows become numbers.
        sampling: read files of vectors in chunks and score samples of them.
        against: stored results, a file of `Comparison.store` or its `record`: the versions are
            ranked beside those, and one version is enough.
        shares: also shares off the task and missed, and divergences, which stand beside the score.
        decision: probability of the intervals, and differences that make none in practice.
        draws: of each of four chains of independent draws.
        seed: decides every random number.
        compute: where it runs; a task per version.

    Raises:
        ValueError: naming what is wrong with a file, row, field, label or option; on stored results
            of another reference, embedding, or setting.
        OSError: if stored results cannot be read.

    >>> random = np.random.default_rng(0)
    >>> real = random.normal(size=(100, 3))
    >>> made = {"near": random.normal(size=(100, 3)), "far": random.normal(3, 1, (100, 3))}
    >>> [line["name"] for line in compare(made, real, shares=False).ranking]
    ['near', 'far']
    """
    compute, decision = Compute.of(compute, seed), decision or Decision()
    validate.count("draws", draws, least=2)
    fields, representation = fields or Fields(), representation or Representation()
    named = name_versions(versions, least=2 if against is None else 1)
    record = None if against is None else read_record(against)
    read = read_versions(named, reference, anchor, fields, representation, sampling, compute)
    sets, real = read.scored()
    stored = None if record is None else stored_ranking.read(record, str(read.embedding))
    ranking = rank_sets(sets, real, decision, stored, _CHAINS * draws, compute)
    checks = [*ranking.checks, *read.checks(fields)]
    diagnosed: dict[str, Diagnostics] = {}
    if shares:
        sources = read.sources(representation.dimension)
        beside = diagnose(sources, _CHAINS * draws, compute)
        checks += [independent(sources, name) for name in sources.names]
        if not sources.embedding.text:
            checks += [one_scale(rows, name) for name, rows in sources.vectors.items()]
        diagnosed = {name: beside[key(name)] for name in named}
    terms = _terms(ranking, diagnosed)
    lines = _diagnostics(ranking, diagnosed, record)
    ranked = [_shares(line, lines[line["name"]]) for line in ranking.lines]
    kept = stored_ranking.store(ranking, real, str(read.embedding))
    for name, line in lines.items():
        kept["sets"][name]["beside"] = {k: _plain(v) for k, v in line.items() if k != "name"}
    scored = {"reference": read.rows["target"], **{n: read.rows[key(n)] for n in named}}
    settings: dict[str, Any] = {
        "kind": ranking.kind,
        "embedding": str(read.embedding),
        "columns": next(iter(read.vectors.values())).shape[1],
        "rows": {name: one.size for name, one in scored.items()},
        **ranking.settings,
        "draws": draws,
        "equivalent_share": decision.equivalent_share,
    }
    if sampling is not None:
        settings["sample_rows"] = {name: len(one) for name, one in scored.items()}
    return Comparison(
        idata=inference_data.make(
            inference_data.from_estimates(terms),
            constant_data={"seed": compute.seed},
            dims={name: ["version"] for name in terms},
            coords={"version": ranking.names},
        ),
        checks=tuple(checks),
        settings=settings,
        headline=headline(ranking),
        notes=notes(ranking, terms, diagnosed, len(scored["reference"])),
        kind=ranking.kind,
        ranking=ranked,
        differences=_differences(ranking, terms, decision),
        diagnostics=[lines[line["name"]] for line in ranked],
        influence=_influence(read, ranking),
        record=kept,
        series=ranking.names if record is not None else (),
    )


def _terms(ranking: Ranking, diagnosed: Mapping[str, Diagnostics]) -> dict[str, Estimate]:
    """Terms (chain, draw, version); nan of versions that are not there to be diagnosed."""
    terms, names = dict(ranking.terms), ranking.names
    for term, known in next(iter(diagnosed.values())).terms.items() if diagnosed else ():
        nothing = exactly(torch.full_like(known.value, torch.nan))
        own = (diagnosed[n].terms[term] if n in diagnosed else nothing for n in names)
        terms[term] = stack([*own], -1)
    shape = (_CHAINS, -1, len(names))
    return {name: one.map(lambda value: value.reshape(shape)) for name, one in terms.items()}


# Columns beside the score that the ranking's checks measured.
_OF_CHECKS = {
    "repeated_share": "repeated_share",
    "reference_copied_share": "copied_share",
    "label_disagreement": "disagreement",
    "label_balance_distance": "balance_distance",
}


def _diagnostics(
    ranking: Ranking, diagnosed: Mapping[str, Diagnostics], record: Mapping[str, Any] | None
) -> dict[str, dict[str, Any]]:
    """What stands beside the score of every version, in numbers."""
    measured, old = ranking.measured, {} if record is None else record["sets"]
    columns = {name: own for name, own in _OF_CHECKS.items() if own in measured}
    lines: dict[str, dict[str, Any]] = {}
    for name in ranking.names:
        line: dict[str, Any] = {"name": name}
        lines[name] = line
        if name in old:
            line |= old[name].get("beside", {})
            continue
        line |= {column: float(measured[own][name]) for column, own in columns.items()}
        if name in diagnosed:
            one = diagnosed[name]
            line |= one.numbers | {term: own.value.mean().item() for term, own in one.terms.items()}
    return lines


def _shares(line: Mapping[str, Any], beside: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the ranking with precision and coverage; nan where they are not known."""
    shares = [beside.get(name) for name in ("irrelevant_share", "uncovered_share")]
    precision, coverage = (float("nan") if one is None else 1 - one for one in shares)
    return {**line, "precision": precision, "coverage": coverage}


def _differences(
    ranking: Ranking, terms: Mapping[str, Estimate], decision: Decision
) -> list[dict[str, Any]]:
    place = {name: index for index, name in enumerate(ranking.names)}
    names = [line["name"] for line in ranking.lines]
    found = []
    for name, term in terms.items():
        variable = VARIABLES[name]
        if variable.larger_is == "neither":
            continue
        most = _ALL_PAIRS if name in ("score", "score_equal_size") else _ALL_PAIRS_BESIDE
        nats = variable.units == "nats"
        width = decision.equivalent if nats else decision.equivalent_share
        sign = 1 if variable.larger_is == "better" else -1
        for one, two in itertools.combinations(names, 2):
            if len(names) > most and one != names[0]:
                break  # each with the best
            first, second = place[one], place[two]
            draws = (_of_version(term, first) - _of_version(term, second)).value.flatten().numpy()
            if np.isnan(draws).any():
                continue
            low, high = inference_data.highest_density_interval(draws, decision.hdi_prob)
            line = {
                "term": name,
                "first": one,
                "second": two,
                "mean": float(draws.mean()),
                "sd": float(draws.std()),
                "hdi_low": low,
                "hdi_high": high,
                **{key: float(p) for key, p in practical(sign * draws, width).items()},
                "equivalent": width,
            }
            if name == "score":
                line |= {key: float(ranking.pairs[key][first, second]) for key in _OF_SCORES}
            found.append(line)
    return found


def _of_version(term: Estimate, place: int) -> Estimate:
    return term.map(lambda value: value[..., place])


_OF_SCORES = ("mean", "p_larger", "p_trained_better")


def _influence(read: Versions, ranking: Ranking) -> pd.DataFrame:
    """What each scored row adds to its version's score."""
    parts = []
    for name in read.names:
        rows, kept = read.rows[key(name)], ranking.kept[name]
        columns: dict[str, Any] = {
            "version": name,
            "id": [rows.ids[index] for index in kept],
            "text": None if rows.text is None else [rows.text[index] for index in kept],
            "label": None if rows.labels is None else [rows.labels[index] for index in kept],
            "influence": ranking.scores[name].influence,
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else value


@dataclass(frozen=True)
class Diagnostics:
    """Of one version.

    Attributes:
        terms: draws by name, (draws,); nan where nothing can be said.
        numbers: by name.
        refusals: why nothing can be said.
    """

    terms: dict[str, Estimate]
    numbers: dict[str, float]
    refusals: tuple[str, ...]


def diagnose(sources: Sources, draws: int, compute: Compute) -> dict[str, Diagnostics]:
    """Shares, divergences and copies of every synthetic source.

    Args:
        sources: the target, anchors if there are any, and the versions.
        draws: of every term.
        compute: one task per version.
    """
    # Neighbours are sought among all pairs of rows.
    sources = sources.select(random_places(sources, "diagnosed rows", compute))
    names = [name for name in sources.names if sources.roles[name] == "synthetic"]
    _ = sources.lifted and sources.content(names[0])  # cached once, and not in every task
    anchor = None
    if "anchor" in sources.names and _enough_units(sources, "anchor"):
        anchor = _ratio(sources, "anchor", compute.seed)
    drawn = Draws(draws, compute.seed)

    def work(name: str) -> Diagnostics:
        return _of(name, sources, anchor, drawn)

    return dict(zip(names, compute.each(work, names, "diagnostics"), strict=True))


def _of(name: str, sources: Sources, anchor: LogRatio | None, drawn: Draws) -> Diagnostics:
    target, made = sources.content("target"), sources.content(name)
    known = ["irrelevant_share", "uncovered_share", "kl_synthetic", "kl_synthetic_coverage"]
    known += [] if anchor is None else ["kl_gap"]
    terms = dict.fromkeys(known, exactly(np.full(drawn.count, np.nan)))
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
                terms[term] = exactly(share.estimate.value)
    if not _enough_units(sources, name):
        refusals.append(f"divergences need {FEWEST_UNITS} independent rows on both sides")
    else:
        ratio, enough = _ratio(sources, name, drawn.seed), drawn.enough()
        found = {
            "kl_synthetic": kl_divergence_of_samples(ratio, "forward", enough),
            "kl_synthetic_coverage": kl_divergence_of_samples(ratio, "reverse", enough),
        }
        if anchor is not None:
            found["kl_gap"] = kl_gap_of_samples(anchor, ratio, enough)
        terms |= {term: exactly(one.value[: drawn.count]) for term, one in found.items()}
    if "anchor" in sources.names and len(sources.content("anchor")) >= 3:
        copied = copied_rows(made, sources.content("anchor"), target)
        numbers["copied_share"] = copied.copied_share
    return Diagnostics(terms, numbers, tuple(dict.fromkeys(refusals)))


def _enough_units(sources: Sources, name: str) -> bool:
    return min(sources.unit_count(name), sources.unit_count("target")) >= FEWEST_UNITS


def _ratio(sources: Sources, name: str, seed: int) -> LogRatio:
    one, other = (
        Sample(sources.coordinates[role], sources.units(role)) for role in (name, "target")
    )
    return log_ratio(one, other, seed)
