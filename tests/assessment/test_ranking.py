"""Ranking sets by what they teach: ground truth by other implementations, refits and made sets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from ranked_sets import classes, line, verdict
from scipy import stats
from sklearn.linear_model import Ridge

from rbpp.assessment import density_score, label_score, output_score
from rbpp.assessment.label_score import wrong_labels
from rbpp.assessment.ranking import Decision, rank_sets
from rbpp.assessment.ranking_probabilities import (
    Discrepancy,
    pairwise,
    probability_best,
    probability_trained_best,
)
from rbpp.assessment.ranking_sources import Source
from rbpp.assessment.set_scores import score_set, set_draws

# ---- the scores against other implementations --------------------------------------------------


def test_label_score_is_a_discriminant_with_the_shrunk_covariance() -> None:
    x, y = classes(0, 300)
    real, _ = classes(1, 50)
    origin = real.mean(0)
    scale = np.square(real - origin).sum(1).mean() / 8
    left = np.concatenate([x[y == c] - x[y == c].mean(0) for c in range(3)])
    s = label_score.PRIOR_ROWS
    covariance = (left.T @ left + s * scale * np.eye(8)) / (len(x) - 3 + s)
    counts = np.bincount(y)
    joint = np.stack(
        [
            stats.multivariate_normal(
                counts[c] / (counts[c] + 2) * (x[y == c].mean(0) - x.mean(0)), covariance
            ).logpdf(real - origin)
            + np.log((counts[c] + 0.5) / (len(x) + 1.5))
            for c in range(3)
        ],
        1,
    )
    expected = joint - np.logaddexp.reduce(joint, 1, keepdims=True)
    found = label_score.log_probabilities(*map(torch.as_tensor, (x, y, real)), 3)
    np.testing.assert_allclose(found.numpy(), expected.clip(min=-10), rtol=1e-8, atol=1e-8)


def test_label_score_does_not_blame_labels_for_a_shift_of_the_set() -> None:
    x, y = classes(0, 300)
    real, _ = classes(1, 50)
    arguments = torch.as_tensor(y), torch.as_tensor(real), 3
    moved = label_score.log_probabilities(torch.as_tensor(x + 5.0), *arguments)
    torch.testing.assert_close(label_score.log_probabilities(torch.as_tensor(x), *arguments), moved)


def test_output_score_is_the_matrix_t_predictive() -> None:
    source = np.random.default_rng(0)
    x, y = source.normal(size=(60, 4)), source.normal(size=(60, 3))
    y += x @ source.normal(size=(4, 3))
    real_x, real_y = source.normal(size=(20, 4)), source.normal(size=(20, 3))
    penalty = float(np.square(real_x - real_x.mean(0)).sum(1).mean())
    ridge = Ridge(penalty).fit(x, y)
    centred = x - x.mean(0)
    left = y - ridge.predict(x)
    scale = np.square(real_y - real_y.mean(0)).sum(1).mean() / 3
    s = output_score.PRIOR_ROWS
    scatter = left.T @ left + penalty * ridge.coef_ @ ridge.coef_.T + s * scale * np.eye(3)
    precision = centred.T @ centred + penalty * np.eye(4)
    expected = []
    for one, two in zip(real_x, real_y, strict=True):
        at = one - x.mean(0)
        wide = 1 + 1 / 60 + at @ np.linalg.solve(precision, at)
        freedom = s + 59
        distribution = stats.multivariate_t(
            ridge.predict(one[None])[0], wide * scatter / freedom, df=freedom
        )
        expected.append(distribution.logpdf(two))
    found = output_score.log_densities(*map(torch.as_tensor, (x, y, real_x, real_y)))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-8)


def test_density_score_integrates_to_one() -> None:
    source = np.random.default_rng(0)
    rows = np.concatenate([source.normal(size=(60, 1)) - 3, source.normal(size=(60, 1)) + 3])
    grid = np.linspace(-15, 15, 2001)[:, None]
    found = density_score.log_densities(
        torch.as_tensor(rows), torch.as_tensor(grid), scale=torch.tensor(9.0, dtype=torch.float64)
    )
    assert np.trapezoid(found.exp().numpy(), grid[:, 0]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("kind", ["labels", "outputs", "texts"])
def test_first_order_bootstrap_has_the_spread_of_refits(
    kind: str, margin: Callable[..., None]
) -> None:
    # Sets that are off: at a perfect one the derivative is as small as what is of second order, and
    # the first order alone has √(2/3) of the spread.
    x, y = classes(0, 200, wrong=0.3)
    real, real_y = classes(1, 100)
    inputs, target = torch.as_tensor(x), torch.as_tensor(real)
    source = np.random.default_rng(2)
    outputs = torch.as_tensor(0.3 * x[:, :3] + source.normal(size=(200, 3)))

    def learn(index: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        if kind == "labels":
            log_p = label_score.log_probabilities(
                inputs[index], torch.as_tensor(y)[index], target, 3, weights
            )
            return log_p.gather(1, torch.as_tensor(real_y)[:, None])[:, 0]
        if kind == "outputs":
            return output_score.log_densities(
                inputs[index], outputs[index], target, target[:, :3], weights
            )
        return density_score.log_densities(inputs[index] + 0.5, target, weights)

    score = score_set(learn, 200, 200, np.full(100, 0.01))
    found = set_draws(score, None, 4000, np.random.default_rng(3)).std()
    everything = torch.arange(200)
    refits = [
        float(learn(everything, torch.as_tensor(200 * source.dirichlet(np.ones(200)))).mean())
        for _ in range(150)
    ]
    # The standard deviation of 150 refits has an error of 6 %; three of them.
    margin(0.2 - abs(found / np.std(refits) - 1))


# ---- what it ranks -----------------------------------------------------------------------------


def test_fewer_wrong_labels_rank_higher_beside_what_real_rows_teach() -> None:
    sets = {f"{w:.0%}": Source(*classes(k, 300, wrong=w)) for k, w in enumerate((0.7, 0.0, 0.4))}
    ranking = rank_sets(sets, Source(*classes(9, 300)))
    assert [one["name"] for one in ranking.lines] == ["0%", "40%", "70%"]
    best = line(ranking, "0%")
    assert best["p_best"] > 0.99
    assert best["real_rows"] == 240
    # As many real rows teach as much as a perfect set; both are of one distribution.
    assert best["score_of_real_rows"] == pytest.approx(best["score"], abs=0.1)
    index = [ranking.names.index(name) for name in ("0%", "70%")]
    assert ranking.pairs["p_better"][tuple(index)] > 0.99
    assert ranking.pairs["p_worse"][tuple(reversed(index))] > 0.99
    measured = next(c.measured for c in ranking.checks if "contradict" in c.statement)
    assert measured["disagreement"]["0%"] < 0.1 < 0.3 < measured["disagreement"]["70%"]


def test_consensus_ranks_without_real_labels() -> None:
    wrong = [0.0, 0.1, 0.2, 0.3, 0.5, 0.6, 0.65]
    sets = {str(w): Source(*classes(k, 300, wrong=w)) for k, w in enumerate(wrong)}
    real, labels = classes(9, 200)
    ranking = rank_sets(sets, Source(real))
    found = [line(ranking, str(w))["score"] for w in wrong]
    assert stats.spearmanr(found, wrong).statistic < -0.9
    assert verdict(ranking, "consensus") == "holds"
    some = np.where(np.arange(200) < 20, labels.astype(object), None)
    mixed = rank_sets(sets, Source(real, some))
    assert mixed.judges.weights[:20].sum() == pytest.approx(1 / 3)
    assert stats.spearmanr([line(mixed, str(w))["score"] for w in wrong], wrong).statistic < -0.9


def test_votes_of_a_generator_are_capped() -> None:
    """Eight sets of one generator that permutes labels lose the vote against three others."""
    permuted = [(x, (y + 1) % 3) for x, y in (classes(k, 200) for k in range(8))]
    sets = {f"bad {k}": Source(*one, generator="bad") for k, one in enumerate(permuted)}
    sets |= {f"good {k}": Source(*classes(20 + k, 200), generator=f"good {k}") for k in range(3)}
    real = Source(classes(9, 200)[0])
    assert rank_sets(sets, real).lines[0]["name"].startswith("good")
    free = {name: Source(one.rows, one.labels) for name, one in sets.items()}
    assert rank_sets(free, real).lines[0]["name"].startswith("bad")


def test_few_sets_or_a_flat_consensus_are_named() -> None:
    few = {str(k): Source(*classes(k, 100)) for k in range(3)}
    assert verdict(rank_sets(few, Source(classes(9, 50)[0])), "consensus") == "violated"
    random = {str(k): Source(*classes(k, 100, wrong=2 / 3)) for k in range(8)}
    ranking = rank_sets(random, Source(classes(9, 50)[0]))
    assert verdict(ranking, "consensus") == "violated"
    assert any("do not agree" in check.message for check in ranking.checks)


@pytest.mark.parametrize("columns", [1, 3])
def test_outputs_rank_by_how_well_they_answer(columns: int) -> None:
    source = np.random.default_rng(0)
    matrix = source.normal(size=(6, columns))

    def pairs(rows: int, noise: float) -> Source:
        x = source.normal(size=(rows, 6))
        y = x @ matrix + noise * source.normal(size=(rows, columns))
        return Source(x, outputs=y[:, 0] if columns == 1 else y)

    sets = {str(noise): pairs(100, noise) for noise in (8.0, 0.3, 3.0)}
    ranking = rank_sets(sets, pairs(200, 0.3))
    assert ranking.kind == "outputs"
    assert [one["name"] for one in ranking.lines] == ["0.3", "3.0", "8.0"]


@pytest.mark.parametrize("seed", range(3))
def test_better_rows_win_against_more_rows(seed: int) -> None:
    source = np.random.default_rng(seed)
    sets = {
        "perfect": Source(source.normal(size=(300, 16))),
        "bad": Source(source.normal(size=(1500, 16)) + 0.3),
    }
    ranking = rank_sets(sets, Source(source.normal(size=(400, 16))))
    assert ranking.settings["equal_size"] == 300
    assert line(ranking, "perfect")["p_best_equal_size"] >= 0.95


@pytest.mark.parametrize("seed", range(3))
def test_full_coverage_with_some_rows_off_the_task_beats_missing_modes(seed: int) -> None:
    source = np.random.default_rng(seed)
    means = 2 * source.normal(size=(6, 16))

    def mixture(rows: int, shares: list[float]) -> Source:
        which = source.choice(6, rows, p=shares)
        return Source(means[which] + source.normal(size=(rows, 16)))

    sets = {
        "covers": mixture(600, [0.19] * 5 + [0.05]),
        "misses": mixture(600, [1 / 3] * 3 + [0] * 3),
    }
    ranking = rank_sets(sets, mixture(400, [0.2] * 5 + [0]))
    assert line(ranking, "covers")["p_best_equal_size"] >= 0.95


def test_one_distribution_and_unequal_sizes_are_not_told_apart_at_equal_size(
    margin: Callable[..., None],
) -> None:
    """Within [.1, .9] in at least 95 % of pairs.

    Of 60 pairs, more than 8 outside have a probability of 0.003 at a rate of 5 %, of 3e-7 at the
    1.5 % that 600 pairs had, and of 0.87 at the 20 % of probabilities that are uniform.
    """
    outside = 0
    for seed in range(60):
        source = np.random.default_rng(seed)
        few, many = [(60, 300), (100, 500), (100, 300)][seed % 3]
        sets = {
            "few": Source(source.normal(size=(few, 6))),
            "many": Source(source.normal(size=(many, 6))),
        }
        found = rank_sets(sets, Source(source.normal(size=(100, 6))), draws=300)
        outside += not 0.1 <= line(found, "few")["p_best_equal_size"] <= 0.9
    margin(8 - outside)


# ---- probabilities -----------------------------------------------------------------------------


def test_copies_tie() -> None:
    x, y = classes(0, 100)
    order = np.random.default_rng(0).permutation(100)
    sets = {"a": Source(x, y), "b": Source(x[order], y[order])}
    ranking = rank_sets(sets, Source(*classes(9, 100)))
    for name in ("p_best", "p_best_equal_size", "p_trained_best"):
        assert [one[name] for one in ranking.lines] == [0.5, 0.5]
    assert ranking.pairs["p_trained_better"][0, 1] == ranking.pairs["p_larger"][0, 1] == 0.5
    assert ranking.pairs["p_equivalent"][0, 1] == 1
    assert verdict(ranking, "no two sets are copies") == "violated"


def test_probability_of_training_is_the_normal_probability_of_the_difference() -> None:
    source = np.random.default_rng(0)
    draws = np.array([0.3, 0.0])[:, None] + 0.1 * source.normal(size=(2, 200_000))
    copies = np.arange(2)
    found = probability_trained_best(draws, copies, 0.25, source)
    expected = stats.norm.cdf(0.3 / np.sqrt(0.02 + 0.25))
    assert found[0] == pytest.approx(expected, abs=0.005)  # four errors
    pairs = pairwise(np.array([0.3, 0.0]), draws, copies, 0.25, 0.02)
    assert pairs["p_trained_better"][0, 1] == pytest.approx(expected, abs=1e-3)
    assert probability_best(draws, copies)[0] > found[0]
    mixed = pairwise(np.array([0.3, 0.0]), draws, copies, 0.25, 0.02, 0.2)
    expected = 0.8 * pairs["p_trained_better"] + 0.1
    np.testing.assert_allclose(mixed["p_trained_better"], expected)
    mixed_best = probability_trained_best(draws, copies, 0.25, source, 0.2)
    assert mixed_best[0] == pytest.approx(0.8 * found[0] + 0.1, abs=0.005)


def test_no_score_is_surer_of_training_than_tasks_have_shown() -> None:
    """However far apart scores are: at most 0.9 of labels, and hardly more than half of texts."""
    labels = {"good": Source(*classes(0, 300)), "bad": Source(*classes(1, 300, wrong=0.9))}
    real = Source(*classes(9, 300))
    sure = line(rank_sets(labels, real), "good")
    assert sure["p_best"] == 1
    assert 0.7 < sure["p_trained_best"] <= 0.9
    near = Discrepancy(between=0.1, row=0.0, says_nothing=0.0)
    free = rank_sets(labels, real, Decision(discrepancy=near))
    assert line(free, "good")["p_trained_best"] > 0.99
    texts = {"good": Source(classes(0, 300)[0]), "far": Source(classes(1, 300)[0] + 3)}
    found = rank_sets(texts, Source(real.rows))
    assert line(found, "good")["p_best"] == 1
    assert 0.5 < line(found, "good")["p_trained_best"] < 0.6
    copies = {**labels, "copy": labels["good"]}
    total = sum(one["p_trained_best"] for one in rank_sets(copies, real).lines)
    assert total == pytest.approx(1)


def test_discrepancy_of_few_sets_rests_on_its_prior() -> None:
    wide = Discrepancy(between=2.0, row=0.5, prior_sets=4.0)
    assert wide.variance(np.zeros(2), 2.0) == pytest.approx(4 * 1 / 5)
    many = wide.variance(np.random.default_rng(0).normal(size=10_000), 2.0)
    assert many == pytest.approx(4.0, rel=0.1)
    changed = [Discrepancy(between=1.0), Discrepancy(row=1.0), Discrepancy(prior_sets=1.0)]
    scores = np.array([0.0, 1.0, 3.0])
    assert len({one.variance(scores, 2.0) for one in [wide, *changed]}) == 4


def test_rows_of_one_unit_count_once() -> None:
    x, y = classes(0, 100)
    real = Source(*classes(9, 100))
    other = Source(*classes(1, 300))
    alone = rank_sets({"a": Source(x, y), "b": other}, real)
    repeated = Source(np.repeat(x, 4, 0), np.repeat(y, 4), units=np.repeat(np.arange(100), 4))
    ranked = rank_sets({"a": repeated, "b": other}, real)
    free = rank_sets({"a": Source(repeated.rows, repeated.labels), "b": other}, real)
    spread = [
        float(np.sqrt(np.square(np.bincount(u, weights=r.scores["a"].influence)).sum()))
        for r, u in ((alone, np.arange(100)), (ranked, repeated.units), (free, np.arange(400)))
    ]
    assert spread[1] == pytest.approx(spread[0], rel=0.35)
    assert spread[2] == pytest.approx(spread[1] / 2, rel=0.01)


# ---- wrong labels ------------------------------------------------------------------------------


@pytest.mark.parametrize("judge", ["the set", "real rows"])
def test_wrong_labels_are_found_with_probabilities_that_hold(
    judge: str, margin: Callable[..., None]
) -> None:
    x, clean = classes(0, 900)
    source = np.random.default_rng(1)
    wrong = source.random(900) < 0.15
    labels = np.where(wrong, (clean + source.integers(1, 3, 900)) % 3, clean)
    real = tuple(map(torch.as_tensor, classes(2, 300))) if judge == "real rows" else (None, None)
    found = wrong_labels(torch.as_tensor(x), torch.as_tensor(labels), 3, *real)
    p = found.probability_wrong
    margin(0.05 - abs(found.share_wrong - wrong.mean()))  # errors: 0.012 of the share and of r
    sure = p > 0.8
    margin(sure.sum() - 60)
    margin(wrong[sure].mean() - 0.8)
    margin(0.06 - wrong[p < 0.05].mean())
    margin((found.suggested[wrong & sure] == clean[wrong & sure]).mean() - 0.85)
