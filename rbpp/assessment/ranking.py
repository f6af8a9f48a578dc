"""Rank synthetic sets by what they teach about real rows: log-loss of what is learned from each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rbpp import inference_data, validate
from rbpp.assessment import density_score, label_score, output_score, ranking_checks
from rbpp.assessment.ranking_checks import Consensus
from rbpp.assessment.ranking_probabilities import (
    Discrepancy,
    pairwise,
    probability_best,
    probability_trained_best,
    row_difference_sd,
)
from rbpp.assessment.ranking_sources import Kind, Prepared, Source, learner, prepare
from rbpp.assessment.set_scores import SetScore, score_set, set_draws
from rbpp.checks import Check
from rbpp.compute import Compute
from rbpp.randomness import spawn

# Where few real rows have labels and the consensus stands in for the others, the labelled ones
# count at least this much. A half and a fifth do as well (docs/measurements/ranking.md).
_LABELLED_SHARE = 1 / 3
# Sets of fewer rows do not set the equal size: all the others would be cut to nothing.
_LEAST_EQUAL_SIZE = 50
EQUIVALENT_NATS = 0.02


@dataclass(frozen=True)
class Ranking:
    """What `rank_sets` found.

    Attributes:
        kind: what was scored: log p of `"labels"` given texts, of `"outputs"` given prompts, or
            of `"texts"`.
        names: of the sets, in the order given.
        lines: best first, one a set: `name`, `score`, `sd`, `hdi_low`, `hdi_high`, `p_best`,
            `rank_mean`, `score_equal_size`, `p_best_equal_size`, `p_trained_best`, `rows`,
            `score_of_real_rows` (what as many real rows teach) and `real_rows` (how many those
            are).
        pairs: (K, K) arrays; see `rbpp.assessment.ranking_probabilities.pairwise`.
        checks: what may mislead.
        scores: by name, with the influence of each row.
        draws: of the scores, (K, draws).
        equal_draws: of the scores at equal size, (K, draws).
        real_weights: of the real rows in a score, (m,), with sum 1.
        target: label probabilities that stand for the real rows' labels, (m, labels), by the
            consensus of all sets where a row has none; None without labels.
        label_names: names of the labels.
        digests: of the rows of each set, by name; copies of each other have the same.
        kept: places of the rows of each set that are scored, by name.
        consensus: of the sets on labels that real rows lack; None where none lacks one.
        settings: what the numbers depend on.
    """

    kind: Kind
    names: list[str]
    lines: list[dict[str, Any]]
    pairs: dict[str, np.ndarray]
    checks: list[Check]
    scores: dict[str, SetScore]
    draws: np.ndarray
    equal_draws: np.ndarray
    real_weights: np.ndarray
    target: np.ndarray | None = None
    label_names: list[str] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    kept: dict[str, np.ndarray] = field(default_factory=dict)
    consensus: Consensus | None = None
    settings: dict[str, Any] = field(default_factory=dict)


def rank_sets(
    sets: Mapping[str, Source],
    real: Source,
    *,
    draws: int = 2000,
    hdi_prob: float = 0.94,
    equivalent: float = EQUIVALENT_NATS,
    discrepancy: Discrepancy | None = None,
    seed: int = 0,
    compute: Compute | None = None,
) -> Ranking:
    """Rank sets by what is learned from them about real rows, nats a row; larger is better.

        score_k = mean over real rows of log p_k(label | text), log p_k(output | prompt)
                  or log p_k(text)

    by what sets and real rows have: labels, outputs, or texts alone. Where real rows lack labels,
    the mean prediction of the other sets stands in (`label_score.consensus`).

    Args:
        sets: at least two.
        real: real rows of the task.
        draws: of the Bayesian bootstrap over rows of sets and real rows.
        hdi_prob: probability of the intervals.
        equivalent: nats a row within which two scores make no difference in practice.
        discrepancy: between the score and what training gives.
        seed: of draws and subsets.
        compute: where it runs; one task per set.

    Raises:
        ValueError: naming the set, on rows that are no finite numbers, of other lengths or widths,
            fewer than two, and on labels that cannot be learned from (see
            `label_score.encode_labels`).
    """
    validate.count("draws", draws, least=2)
    validate.probability("hdi_prob", hdi_prob)
    validate.number("equivalent", equivalent, least=0)
    compute = Compute.of(compute, seed)
    prepared = prepare(sets, real)
    targets, weights, all_target, agreed = _targets(prepared, compute)
    sizes = [len(rows) for rows in prepared.rows]
    size = min([n for n in sizes if n >= _LEAST_EQUAL_SIZE] or sizes)

    def work(place: int) -> SetScore:
        return score_set(
            learner(prepared, place, targets[place] if targets else None),
            sizes[place],
            size,
            weights,
            prepared.units[place],
            spawn(compute.seed, "set", int(prepared.copies[place])),
        )

    found = list(compute.each(work, range(len(sizes)), "scoring sets"))
    scores = dict(zip(prepared.names, found, strict=True))
    ranking = summarise(
        scores,
        prepared.kind,
        sizes,
        weights,
        prepared.real_units,
        prepared.units,
        prepared.copies,
        draws=draws,
        hdi_prob=hdi_prob,
        equivalent=equivalent,
        discrepancy=discrepancy or Discrepancy(),
        seed=compute.seed,
    )
    beside_real_rows(ranking.lines, prepared, compute.seed)
    return replace(
        ranking,
        checks=ranking_checks.checks(prepared, all_target, ranking.lines, agreed),
        target=None if all_target is None else all_target.numpy(),
        label_names=prepared.label_names,
        digests=dict(zip(prepared.names, prepared.digests, strict=True)),
        kept=dict(zip(prepared.names, prepared.kept, strict=True)),
        consensus=agreed,
    )


def summarise(
    scores: Mapping[str, SetScore],
    kind: Kind,
    sizes: list[int],
    real_weights: np.ndarray,
    real_units: np.ndarray | None,
    units: Sequence[np.ndarray | None],
    copies: np.ndarray,
    *,
    draws: int,
    hdi_prob: float,
    equivalent: float,
    discrepancy: Discrepancy,
    seed: int,
) -> Ranking:
    """Draws, probabilities and the ranking of scores, without what needs the rows."""
    names = list(scores)
    source = np.random.default_rng(spawn(seed, "real rows"))
    values = np.stack([one.values for one in scores.values()])
    equal = np.stack([one.equal_values for one in scores.values()])
    score, score_equal = values @ real_weights, equal @ real_weights
    all_draws, equal_draws = _real_draws([values, equal], real_weights, real_units, draws, source)
    # Copies share the draws of the first of them: they tie in every draw.
    for copy in np.unique(copies):
        members = np.flatnonzero(copies == copy)
        first = list(scores.values())[members[0]]
        own = np.random.default_rng(spawn(seed, "bootstrap", int(copy)))
        # Rows in another order are summed in another one.
        score[members], score_equal[members] = score[members[0]], score_equal[members[0]]
        all_draws[members] += set_draws(first, units[members[0]], draws, own)
        equal_draws[members] += own.normal(size=draws) * first.equal_sd
    distinct = np.unique(copies, return_index=True)[1]
    between = discrepancy.variance(score[distinct], row_difference_sd(values[distinct]))
    pairs = pairwise(score, all_draws, copies, between, equivalent)
    best = probability_best(all_draws, copies)
    best_equal = probability_best(equal_draws, copies)
    trained = probability_trained_best(all_draws, copies, between, source)
    ranks = (-all_draws).argsort(0).argsort(0) + 1
    lines = []
    for place in np.argsort(-score, kind="stable"):
        low, high = inference_data.highest_density_interval(all_draws[place], hdi_prob)
        lines.append(
            {
                "name": names[place],
                "score": float(score[place]),
                "sd": float(all_draws[place].std()),
                "hdi_low": float(low),
                "hdi_high": float(high),
                "p_best": float(best[place]),
                "rank_mean": float(ranks[copies == copies[place]].mean()),
                "score_equal_size": float(score_equal[place]),
                "p_best_equal_size": float(best_equal[place]),
                "p_trained_best": float(trained[place]),
                "rows": sizes[place],
            }
        )
    return Ranking(
        kind=kind,
        names=names,
        lines=lines,
        pairs=pairs,
        checks=[],
        scores=dict(scores),
        draws=all_draws,
        equal_draws=equal_draws,
        real_weights=real_weights,
        settings={
            "equal_size": max(one.size for one in scores.values()),
            "draws": draws,
            "hdi_prob": hdi_prob,
            "equivalent": equivalent,
            "discrepancy_sd": float(np.sqrt(between)),
            "seed": seed,
        },
    )


def _real_draws(
    values: list[np.ndarray],
    weights: np.ndarray,
    units: np.ndarray | None,
    draws: int,
    source: np.random.Generator,
) -> list[np.ndarray]:
    """Bayesian-bootstrap draws of each set's mean over real rows; the same draws for all sets."""
    count = len(weights) if units is None else int(units.max()) + 1
    found: list[list[np.ndarray]] = [[] for _ in values]
    for start in range(0, draws, 200):
        drawn = source.exponential(size=(min(200, draws - start), count))
        drawn = weights * (drawn if units is None else drawn[:, units])
        drawn /= drawn.sum(1, keepdims=True)
        for place, one in enumerate(values):
            found[place].append(one @ drawn.T)
    return [np.concatenate(one, 1) for one in found]


def _targets(
    prepared: Prepared, compute: Compute
) -> tuple[list[Tensor] | None, np.ndarray, Tensor | None, Consensus | None]:
    """Label probabilities of the real rows for each set, weights of the real rows, and for all.

    Last the consensus, where real rows lack labels.
    """
    count = len(prepared.real)
    weights = np.full(count, 1 / count)
    if prepared.kind != "labels":
        return None, weights, None, None
    classes = len(prepared.label_names)
    known = prepared.real_second >= 0
    one_hot = torch.nn.functional.one_hot(prepared.real_second.clamp(min=0), classes).double()
    if bool(known.all()):
        return [one_hot] * len(prepared.rows), weights, one_hot, None

    def predict(place: int) -> Tensor:
        log_p = label_score.log_probabilities(
            prepared.rows[place],
            prepared.second[place],
            prepared.real,
            classes,
            prior_rows=prepared.prior_rows,
        )
        return log_p.float()  # 200 sets × thousands of rows × labels stay in memory

    predictions = list(compute.each(predict, range(len(prepared.rows)), "consensus"))
    voters = _voters(prepared)
    targets = []
    for place in range(len(predictions)):
        # A set and its copies have one vote, and none on themselves.
        own = [k for k, copy in enumerate(prepared.copies) if copy == prepared.copies[place]]
        others = [k for k in range(len(predictions)) if k not in own]
        if not others:
            raise ValueError(
                "Expected labels of real rows, or sets that differ and stand in for them; "
                "got copies of one set"
            )
        agreed = label_score.consensus(
            [predictions[k] for k in others], [voters[k] for k in others]
        )
        targets.append(torch.where(known[:, None], one_hot, agreed.double()))
    agreed = label_score.consensus(predictions, voters)
    labelled = known.numpy()
    if labelled.any():
        share = max(_LABELLED_SHARE, labelled.mean())
        weights = np.where(labelled, share / labelled.sum(), (1 - share) / (~labelled).sum())
    target = torch.where(known[:, None], one_hot, agreed.double())
    found = Consensus(
        voters=len(set(voters)),
        agreement=label_score.agreement(predictions, voters),
        without_label=int((~labelled).sum()),
    )
    return targets, weights, target, found


def _voters(prepared: Prepared) -> list[str]:
    """Whose vote a set casts: its generator's; copies cast that of the first of them."""
    first = {copy: prepared.voters[k] for k, copy in reversed(list(enumerate(prepared.copies)))}
    return [first[copy] for copy in prepared.copies]


def beside_real_rows(lines: list[dict[str, Any]], prepared: Prepared, seed: int) -> None:
    """Add what as many real rows as each set has would teach, cross-fitted."""
    known = (
        prepared.real_second >= 0
        if prepared.kind == "labels"
        else torch.ones(len(prepared.real), dtype=torch.bool)
    )
    real, second = prepared.real[known], prepared.real_second[known]
    most = len(real) - -(-len(real) // 5) if len(real) >= 10 else 0
    done: dict[int, float] = {}
    for line in lines:
        size = min(line["rows"], most)
        if size and size not in done:
            done[size] = _cross_fitted(prepared, real, second, size, seed)
        line["score_of_real_rows"] = done.get(size, float("nan"))
        line["real_rows"] = size


def _cross_fitted(prepared: Prepared, real: Tensor, second: Tensor, size: int, seed: int) -> float:
    classes = len(prepared.label_names)
    if prepared.kind == "labels":
        log_p = label_score.learned_from_real(
            real,
            second,
            classes,
            size,
            seed,
            prior_rows=prepared.prior_rows,
            temperature=prepared.temperature,
        )
        return float(log_p.gather(1, second[:, None]).mean())
    source = np.random.default_rng(spawn(seed, "folds"))
    fold = source.permutation(len(real)) % 5
    found = np.empty(len(real))
    for place in range(5):
        inside = np.flatnonzero(fold == place)
        outside = torch.as_tensor(source.permutation(np.flatnonzero(fold != place))[:size])
        if prepared.kind == "outputs":
            found[inside] = output_score.log_densities(
                real[outside],
                second[outside],
                real[inside],
                second[inside],
                input_scale=output_score.total_variance(real),
                output_scale=output_score.total_variance(second) / second.shape[1],
            )
        else:
            scale = output_score.total_variance(real) / real.shape[1]
            found[inside] = density_score.log_densities(
                real[outside], real[inside], scale=scale, leave_nearest=prepared.leave_nearest
            )
    return float(found.mean())
