"""Rank synthetic sets by what they teach about real rows: log-loss of what is learned from each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rbpp import inference_data, validate
from rbpp.assessment import label_score, ranking_checks
from rbpp.assessment.copies import index_of_equal
from rbpp.assessment.ranking_checks import Consensus, Judges
from rbpp.assessment.ranking_probabilities import (
    OF_TEXTS,
    Discrepancy,
    pairwise,
    probability_best,
    probability_trained_best,
    row_difference_sd,
)
from rbpp.assessment.ranking_sources import (
    Kind,
    Prepared,
    PreparedSet,
    Source,
    learned,
    learner,
    prepare,
)
from rbpp.assessment.set_scores import SetScore, score_set, set_draws
from rbpp.assessment.stored_ranking import Stored
from rbpp.assessment.weighted_rows import Draws
from rbpp.checks import Check
from rbpp.compute import Compute
from rbpp.estimate import Estimate, exactly
from rbpp.randomness import spawn

# Where few real rows have labels and the consensus stands in for the others, the labelled ones
# count at least this much. A half and a fifth do as well (docs/measurements/ranking.md).
_LABELLED_SHARE = 1 / 3
# Sets of fewer rows do not set the equal size: all the others would be cut to nothing.
_LEAST_EQUAL_SIZE = 50


@dataclass(frozen=True)
class Ranking:
    """What `rank_sets` found.

    Attributes:
        kind: what was scored: log p of `"labels"` given texts, of `"outputs"` given prompts, or
            of `"texts"`.
        lines: best first, one a set: `name`, `score`, `sd`, `hdi_low`, `hdi_high`, `p_best`,
            `rank_mean`, `score_equal_size`, `p_best_equal_size`, `p_trained_best`, `rows`,
            `score_of_real_rows` (what as many real rows teach) and `real_rows` (how many those
            are).
        pairs: (K, K) arrays; see `rbpp.assessment.ranking_probabilities.pairwise`.
        checks: what may mislead.
        scores: by name, with the influence of each row.
        terms: `score` and `score_equal_size`, (draws, K): a draw has one weight of each real row
            for all sets, so that a difference of two sets has the error that it has.
        judges: of the sets.
        label_names: names of the labels.
        digests: of the rows of each set, by name; copies of each other have the same.
        kept: places of the rows of each set that are scored, by name.
        settings: what the numbers depend on.
    """

    kind: Kind
    lines: list[dict[str, Any]]
    pairs: dict[str, np.ndarray]
    checks: list[Check]
    scores: dict[str, SetScore]
    terms: dict[str, Estimate]
    judges: Judges
    label_names: list[str] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    kept: dict[str, np.ndarray] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Of the sets, stored ones first."""
        return list(self.scores)

    @property
    def measured(self) -> dict[str, Any]:
        """What the checks measured, by name: of new sets, numbers by their names."""
        return {name: one for check in self.checks for name, one in check.measured.items()}


@dataclass(frozen=True)
class Decision:
    """How it is decided which set is better.

    Attributes:
        hdi_prob: probability of the intervals.
        equivalent: nats a row within which two scores make no difference in practice.
        equivalent_share: the same for shares.
        discrepancy: between the score and what training gives; by default that of the kind of
            score.

    Raises:
        ValueError: if one of them is out of range.
    """

    hdi_prob: float = 0.94
    equivalent: float = 0.02
    equivalent_share: float = 0.02
    discrepancy: Discrepancy | None = None

    def __post_init__(self) -> None:
        validate.probability("hdi_prob", self.hdi_prob)
        validate.number("equivalent", self.equivalent, least=0)
        validate.number("equivalent_share", self.equivalent_share, least=0)


def rank_sets(
    sets: Mapping[str, Source],
    real: Source,
    decision: Decision | None = None,
    stored: Stored | None = None,
    draws: int = 2000,
    compute: Compute | None = None,
) -> Ranking:
    """Rank sets by what is learned from them about real rows, nats a row; larger is better.

        score_k = mean over real rows of log p_k(label | text), log p_k(output | prompt)
                  or log p_k(text)

    by what sets and real rows have: labels, outputs, or texts alone. Where real rows lack labels,
    the mean prediction of the other sets stands in (`label_score.consensus`), or the consensus of
    stored results, in which these sets have no vote.

    Args:
        sets: at least two, or one beside stored results.
        real: real rows of the task.
        decision: probability of the intervals, and differences that make none in practice.
        stored: results of other sets by the same real rows, from `stored_ranking.read`.
        draws: of the Bayesian bootstrap over rows of sets and real rows.
        compute: where it runs, one task per set, and the seed of draws and subsets.

    Raises:
        ValueError: naming the set, on rows that are no finite numbers, of other lengths or widths,
            fewer than two, and on labels that cannot be learned from (see
            `label_score.encode_labels`); on stored results of other real rows, another embedding,
            setting or kind, or of sets with these names.
    """
    compute, decision = Compute.of(compute), decision or Decision()
    drawn = Draws(validate.count("draws", draws, least=2), compute.seed)
    if stored is None:
        prepared = prepare(sets, real)
        judges = _judges(prepared, compute)
        sizes = [len(one.rows) for one in prepared.sets]
        size = min([one for one in sizes if one >= _LEAST_EQUAL_SIZE] or sizes)
    else:
        prepared = prepare(sets, real, least=1, label_names=stored.label_names)
        stored.check(prepared.kind, sets, real)
        size, judges = stored.equal_size, stored.judges

    def work(place: int) -> SetScore:
        own = prepared.sets[place]
        return score_set(
            learner(prepared, place, judges.target_of(place)),
            len(own.rows),
            size,
            judges.weights,
            own.units,
            spawn(compute.seed, "set", own.name if stored else int(prepared.copies[place])),
        )

    new = compute.each(work, range(len(sets)), "scoring sets")
    scores = dict(zip(prepared.names, new, strict=True))
    return _ranked(prepared, judges, scores, stored, decision, drawn)


def _ranked(
    prepared: Prepared,
    judges: Judges,
    scores: dict[str, SetScore],
    stored: Stored | None,
    decision: Decision,
    drawn: Draws,
) -> Ranking:
    """The ranking of new sets, beside stored ones that come first."""
    draws, seed = drawn.count, drawn.seed
    beside = _beside_real_rows(prepared, seed)
    digests = {one.name: one.digest for one in prepared.sets}
    units = {one.name: one.units for one in prepared.sets}
    if stored is not None:
        scores, beside = stored.scores | scores, stored.lines | beside
        digests = stored.digests | digests
    names, weights, copies = list(scores), judges.weights, index_of_equal(list(digests.values()))
    source = np.random.default_rng(spawn(seed, "real rows"))
    values = np.stack([one.values for one in scores.values()])
    equal = np.stack([one.equal_values for one in scores.values()])
    score, score_equal = values @ weights, equal @ weights
    all_draws, equal_draws = _real_draws(
        [values, equal], weights, prepared.real_units, draws, source
    )
    # Copies share the draws of the first of them: they tie in every draw.
    for copy in np.unique(copies):
        members = np.flatnonzero(copies == copy)
        name = names[members[0]]
        own = np.random.default_rng(spawn(seed, "bootstrap", int(copy)))
        # Rows in another order are summed in another one.
        score[members], score_equal[members] = score[members[0]], score_equal[members[0]]
        all_draws[members] += set_draws(scores[name], units.get(name), draws, own)
        equal_draws[members] += own.normal(size=draws) * scores[name].equal_sd
    distinct = np.unique(copies, return_index=True)[1]
    discrepancy = decision.discrepancy
    if discrepancy is None:
        discrepancy = OF_TEXTS if prepared.kind == "texts" else Discrepancy()
    nothing = discrepancy.says_nothing
    between = discrepancy.variance(score[distinct], row_difference_sd(values[distinct]))
    trained = probability_trained_best(all_draws, copies, between, source, nothing)
    ranks = (-all_draws).argsort(0).argsort(0) + 1
    ends = [inference_data.highest_density_interval(own, decision.hdi_prob) for own in all_draws]
    columns = {
        "score": score,
        "sd": [own.std() for own in all_draws],
        "hdi_low": [low for low, _ in ends],
        "hdi_high": [high for _, high in ends],
        "p_best": probability_best(all_draws, copies),
        "rank_mean": [ranks[copies == copy].mean() for copy in copies],
        "score_equal_size": score_equal,
        "p_best_equal_size": probability_best(equal_draws, copies),
        "p_trained_best": trained,
    }
    lines: list[dict[str, Any]] = [
        {
            "name": names[place],
            **{name: float(column[place]) for name, column in columns.items()},
            **beside[names[place]],
        }
        for place in np.argsort(-score, kind="stable")
    ]
    return Ranking(
        kind=prepared.kind,
        lines=lines,
        pairs=pairwise(score, all_draws, copies, between, decision.equivalent, nothing),
        checks=ranking_checks.checks(prepared, judges, lines),
        scores=scores,
        terms={"score": exactly(all_draws.T), "score_equal_size": exactly(equal_draws.T)},
        judges=judges,
        label_names=prepared.label_names,
        digests=digests,
        kept={one.name: one.kept for one in prepared.sets},
        settings={
            "equal_size": max(one.size for one in scores.values()),
            "draws": draws,
            "hdi_prob": decision.hdi_prob,
            "equivalent": decision.equivalent,
            "discrepancy_sd": float(np.sqrt(between)),
            "score_says_nothing": nothing,
            "seed": seed,
        },
    )


def _real_draws(
    values: list[np.ndarray],
    weights: np.ndarray,
    units: np.ndarray | None,
    draws: int,
    generator: np.random.Generator,
) -> list[np.ndarray]:
    """Bayesian-bootstrap draws of each set's mean over real rows; the same draws for all sets."""
    count = len(weights) if units is None else int(units.max()) + 1
    found: list[list[np.ndarray]] = [[] for _ in values]
    for start in range(0, draws, 200):
        drawn = generator.exponential(size=(min(200, draws - start), count))
        drawn = weights * (drawn if units is None else drawn[:, units])
        drawn /= drawn.sum(1, keepdims=True)
        for place, one in enumerate(values):
            found[place].append(one @ drawn.T)
    return [np.concatenate(one, 1) for one in found]


def _judges(prepared: Prepared, compute: Compute) -> Judges:
    """Labels of the real rows, or what the other sets agree on where real rows lack them."""
    count = len(prepared.real)
    weights = np.full(count, 1 / count)
    if prepared.kind != "labels":
        return Judges(weights)
    classes = len(prepared.label_names)
    known = prepared.real_second >= 0
    one_hot = torch.nn.functional.one_hot(prepared.real_second.clamp(min=0), classes).double()
    if bool(known.all()):
        return Judges(weights, one_hot)
    if len(set(prepared.copies)) < 2:
        raise ValueError(
            "Expected labels of real rows, or sets that differ and stand in for them; "
            "got copies of one set"
        )

    def predict(one: PreparedSet) -> Tensor:
        log_p = label_score.log_probabilities(
            one.rows, one.second, prepared.real, classes, prior_rows=prepared.prior_rows
        )
        return log_p.float()  # 200 sets × thousands of rows × labels stay in memory

    predictions = list(compute.each(predict, prepared.sets, "consensus"))
    # A set casts its generator's vote; copies cast that of the first of them.
    first = np.unique(prepared.copies, return_index=True)[1]
    voters = [prepared.sets[first[copy]].voter for copy in prepared.copies]

    def agreed(others: np.ndarray) -> Tensor:
        found = label_score.consensus([predictions[k] for k in others], [voters[k] for k in others])
        return torch.where(known[:, None], one_hot, found.double())

    labelled = known.numpy()
    if labelled.any():
        share = max(_LABELLED_SHARE, labelled.mean())
        weights = np.where(labelled, share / labelled.sum(), (1 - share) / (~labelled).sum())
    return Judges(
        weights,
        agreed(np.arange(len(predictions))),
        Consensus(
            len(set(voters)),
            label_score.agreement(predictions, voters),
            without_label=int((~labelled).sum()),
        ),
        # A set and its copies have one vote, and none on themselves.
        [agreed(np.flatnonzero(prepared.copies != copy)) for copy in prepared.copies],
    )


def _beside_real_rows(prepared: Prepared, seed: int) -> dict[str, dict[str, Any]]:
    """Rows of each set, and what as many real rows would teach, cross-fitted."""
    labels = prepared.kind == "labels"
    known = prepared.real_second >= 0 if labels else slice(None)
    real, second = prepared.real[known], prepared.real_second[known]
    most = len(real) - -(-len(real) // 5) if len(real) >= 10 else 0
    taught = {0: float("nan")}
    sizes = {one.name: len(one.rows) for one in prepared.sets}
    for size in {min(rows, most) for rows in sizes.values()} - {0}:
        found = real.new_empty(len(real))
        source = np.random.default_rng(seed if labels else spawn(seed, "folds"))
        for inside, outside in label_score.folds(len(real), source, size):
            log_p = learned(
                prepared, real[outside], second[outside], (real[inside], second[inside]),
                like=(real, second),
            )  # fmt: skip
            own = second[inside]
            found[inside] = log_p.gather(1, own[:, None])[:, 0] if labels else log_p
        taught[size] = float(found.mean())
    real_rows = {name: min(rows, most) for name, rows in sizes.items()}
    return {
        name: {"rows": sizes[name], "score_of_real_rows": taught[size], "real_rows": size}
        for name, size in real_rows.items()
    }
