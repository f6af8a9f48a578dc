"""Off task or another author: planted shares come back, a style is no claim."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.special import ndtri

from rbpp.assessment.excess import OFF_TASK, THRESHOLDS, Excess
from rbpp.assessment.grid import grid_posterior, off_task_model
from rbpp.assessment.neighbours import unit_length
from rbpp.assessment.off_task import (
    OffTask,
    VectorKind,
    novel,
    off_task,
    share_of,
    uncovered,
    visibility,
)
from rbpp.assessment.scores import Scores, off_task_scores
from rbpp.assessment.share_terms import Shares
from rbpp.assessment.style import Style, auc
from rbpp.assessment.weighted_rows import Draws, Sample
from rbpp.estimate import exactly

DIMENSION = 32
# The same topics with every seed: others may lie nearer to each other, and are other tasks.
CENTRES = np.random.Generator(np.random.PCG64(100)).normal(size=(12, DIMENSION)) / np.sqrt(
    DIMENSION
)
STYLE = 0.25 * np.eye(DIMENSION)[0]


def rows(count: int, seed: int, centres: slice, spread: float = 0.5) -> np.ndarray:
    """Rows about some of twelve topics."""
    random = np.random.default_rng(seed)
    where = CENTRES[centres]
    noise = spread * random.normal(size=(count, DIMENSION)) / np.sqrt(DIMENSION)
    return where[random.integers(len(where), size=count)] + noise


TASK, OTHER = slice(0, 6), slice(6, 12)


def planted(share: float, seed: int, style: np.ndarray | float = 0.0, count: int = 300):
    """Target and synthetic rows, and which of these are off the task."""
    extra = round(share * count)
    target = unit_length(rows(300, 10 * seed, TASK))
    clean, foreign = rows(count - extra, 10 * seed + 1, TASK), rows(extra, 10 * seed + 2, OTHER)
    synthetic = unit_length(np.concatenate([clean, foreign])) + style
    return target, synthetic, np.arange(count) >= count - extra


STYLES = {"one author": 0.0, "two authors": STYLE}
SHARES = (0.0, 0.05, 0.2, 0.4)


@pytest.fixture(scope="module")
def planted_and_found():
    """By share and style: what is said of three data sets, and which of their rows are foreign."""
    return {
        (share, style): [
            (off_task(target, synthetic), foreign)
            for target, synthetic, foreign in (planted(share, seed, offset) for seed in range(3))
        ]
        for share in SHARES
        for style, offset in STYLES.items()
    }


def test_ends_hold_the_planted_shares(planted_and_found, margin):
    held = [
        one.at_least <= share <= one.at_most + 1e-6
        for (share, _), found in planted_and_found.items()
        for one, _ in found
    ]
    # Three standard errors below 94 % of 24.
    margin(sum(held) - 19)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("share", SHARES)
def test_planted_shares_come_back(share, style, planted_and_found):
    found = planted_and_found[share, style]
    # Of these topics: others may lie nearer to each other.
    assert np.mean([abs(one.share - share) for one, _ in found]) < 0.05
    for one, foreign in found:
        if share:
            assert auc(one.score[~foreign], one.score[foreign]) > 0.97
            assert auc(one.probability[~foreign], one.probability[foreign]) > 0.97
        assert one.probability.mean() == pytest.approx(one.share, abs=1e-3)
    if share == 0.4:
        assert all(one.at_least > 0.05 for one, _ in found)


def test_the_passage_from_one_author_to_another_has_no_jump(margin):
    """The share moves by less than 3 points between styles that differ by a tenth."""
    shares = [
        off_task(*planted(0.2, 1, length * STYLE)[:2]).share for length in np.linspace(0, 1, 11)
    ]
    # Five standard errors: the largest step is 0.008 ± 0.004 over 10 data sets.
    margin(0.027 - np.abs(np.diff(shares)))


def test_the_same_file_twice_reads_nothing():
    target = unit_length(rows(200, 0, TASK))
    for found in (off_task(target, target), uncovered(target, target)):
        assert found.share < 0.005
        assert found.at_least == 0
        assert found.at_most < 0.06
    assert novel(target, off_task(target, target), target).share < 0.01


def test_copies_count_once_with_their_weights():
    target, synthetic, _ = planted(0.2, 0)
    repeated = np.concatenate([synthetic, np.repeat(synthetic[-1:], 300, axis=0)])
    weights = np.ones(600)
    weights[299:] = 1 / 301
    once = off_task(target, synthetic).share
    found = off_task(target, Sample(repeated, weight=weights))
    assert found.share == pytest.approx(once, abs=0.01)
    assert len(found.probability) == 600
    assert np.ptp(found.probability[299:]) == 0
    assert off_task(target, repeated).share > once + 0.2


def test_five_tasks_forty_times_each_are_on_the_task(margin):
    ends = []
    for seed in range(8):
        target = unit_length(rows(150, 2 * seed, TASK))
        five = np.repeat(unit_length(rows(5, 2 * seed + 1, TASK)), 40, axis=0)
        found = off_task(target, Sample(five, weight=np.full(200, 1 / 40)))
        # Five rows tell next to nothing of a share; forty copies of each must not tell more.
        assert found.at_least == 0
        low, high = (
            (0, 1) if found.refusal else np.quantile(found.estimate.value.numpy(), [0.03, 0.97])
        )
        ends.append((low, high, uncovered(target, five).at_most))
    low, high, most = np.mean(ends, 0)
    # Means of eight: over 20 data sets 0.00001 ± 0.00003, of which the largest was 0.0001, and 0.60
    # ± 0.29; over 40 0.68 ± 0.21. The others are five standard errors away.
    margin(0.001 - low)
    margin(high - 0.1)
    margin(most - 0.3)


# Five standard errors of a mean of twelve: over 100 data sets 0.039 ± 0.025, 0.028 ± 0.020 and
# 0.006 ± 0.007.
@pytest.mark.parametrize(("share", "most"), [(0.0, 0.075), (0.2, 0.056), (0.4, 0.017)])
def test_uncovered_rows_are_found(share, most, margin):
    away = []
    for seed in range(3, 15):
        target, synthetic, foreign = planted(share, seed, STYLE)
        found = uncovered(synthetic, target)
        away.append(abs(found.share - share))
        assert found.at_least <= share + 1e-9 <= found.at_most + 1e-6
        if share:
            # The least of 200 data sets was 0.9998: one in 5,000 pairs the wrong way round.
            margin(auc(found.score[~foreign], found.score[foreign]) - 0.999)
    margin(most - np.mean(away))


def test_novel_rows_are_on_the_task_and_foreign_to_the_anchors(margin):
    anchors = unit_length(rows(400, 0, slice(0, 3)))
    target = unit_length(rows(600, 1, TASK))
    parts = [rows(400, 2, slice(0, 3)), rows(120, 3, slice(3, 6)), rows(80, 4, OTHER)]
    synthetic = unit_length(np.concatenate(parts))
    irrelevant = off_task(target, synthetic)
    found = novel(anchors, irrelevant, synthetic)
    # Five standard errors over 20 data sets: 0.005 ± 0.007 of the share, whose ends are 0.01 ± 0.02
    # and 0.31 ± 0.03, and 0.9997 ± 0.0008, 0.002 ± 0.006 and 0.002 ± 0.005 of the three kinds.
    margin(0.04 - abs(found.share - 0.2))
    margin((0.2 - found.at_least, found.at_most - 0.2))
    kinds = np.repeat([0, 1, 2], [400, 120, 80])
    means = [found.probability[kinds == kind].mean() for kind in range(3)]
    margin((means[1] - 0.995, 0.033 - means[0], 0.028 - means[2]))


def test_a_class_that_cannot_be_seen_widens_at_most():
    target, synthetic, _ = planted(0.0, 0)
    random = np.random.default_rng(0)
    # Topics as classes can be seen; classes at random cannot.
    seen = np.linalg.norm(target[:, None] - unit_length(CENTRES[TASK]), axis=-1).argmin(1)
    unseen = random.integers(3, size=300)
    assert visibility(target, seen) > 0.8
    assert visibility(target, unseen) < 0.4
    found = [off_task(target, synthetic, labels=labels) for labels in (seen, unseen)]
    ends = [one.at_most_with_classes for one in found]
    assert found[0].at_most == found[1].at_most
    assert found[0].at_most <= ends[0] < ends[1] <= 1
    assert off_task(target, synthetic).at_most_with_classes is None


def test_counts_of_words_are_refused_where_there_is_a_style(margin):
    target, synthetic, _ = planted(0.2, 0, 3 * STYLE)
    far = synthetic.copy()
    # A style that moves half of the rows cannot be one offset.
    far[::2] += 1.5 * np.eye(DIMENSION)[1]
    found = off_task(target, far, kind=VectorKind(lexical=True))
    assert np.isnan(found.share)
    assert (found.at_least, found.at_most) == (0, 1)
    assert "model=…" in found.refusal
    assert "result.ask(…)" in found.refusal
    # One author: noise counts as a style in 39 of 100 data sets; of 50 it is more than 30 once in a
    # thousand times.
    refused = [
        bool(off_task(*planted(0.2, seed)[:2], kind=VectorKind(lexical=True)).refusal)
        for seed in range(50)
    ]
    margin(30 - sum(refused))


def test_the_grid_is_the_posterior_of_nuts():
    """Mean of the share within four Monte Carlo errors and a cell of the grid."""
    import pyro
    import torch
    from pyro.infer import MCMC, NUTS

    from rbpp.randomness import seeded

    random = np.random.default_rng(0)
    scores = np.concatenate([0.3 + random.normal(size=140), 4 + random.normal(size=60)])
    scores = np.clip(scores, -3, 6)
    found = grid_posterior(scores, np.ones(200), target_rows=300, style=1.0)
    model, seen = off_task_model(), torch.as_tensor(scores, dtype=torch.float32)
    kernel = NUTS(model, max_tree_depth=3)
    with seeded(0):
        chain = MCMC(kernel, num_samples=120, warmup_steps=60, disable_progbar=True)
        chain.run(scores=seen, target_rows=300, style=1.0)
    pyro.clear_param_store()
    draws = chain.get_samples()["irrelevant_share"]
    error = float(draws.std()) / np.sqrt(30)
    cell = float(found.edges[-1] - found.edges[-2])
    assert float(draws.mean()) == pytest.approx(found.mean, abs=4 * error + cell / 4)


def test_the_model_simulates_what_it_conditions_on(margin):
    """Share of rows beyond three of the prior's own draws, against the normal mixture's tail."""
    import pyro

    from rbpp.randomness import seeded

    values = {"shift": 0.0, "scale": 1.0, "irrelevant_share": 0.3, "distance": 4.0, "width": 1.0}
    import torch

    data = {name: torch.tensor(value) for name, value in values.items()}
    with seeded(0):
        drawn = pyro.poutine.condition(off_task_model(), data)(rows=4000)
    expected = 0.7 * 0.0228 + 0.3 * 0.9772
    # Four standard errors of a proportion.
    margin(4 - abs(float((drawn > 2).double().mean()) - expected) / 0.0078)


def test_style_alone_is_refused_unless_the_rows_are_known_to_be_apart():
    """One direction in which one side alone is spread, to either side, and nothing else differs."""
    random = np.random.default_rng(0)
    task = np.eye(3)[random.integers(0, 3, 400)] + 0.1 * random.normal(size=(400, 3))
    wrote = np.repeat([0.0, 2.0], 200) * random.choice([-1, 1], 400)
    target, synthetic = np.split(np.concatenate([task, wrote[:, None]], 1), 2)
    found = off_task(target, synthetic)
    assert "sees style only" in found.refusal
    assert found.estimate.value.isnan().all()
    assert np.isfinite(found.score).all()  # what marks go by
    assert not off_task(target, synthetic, apart=True).refusal


def test_draws_are_repeatable_and_follow_their_options():
    target, synthetic, _ = planted(0.2, 0)
    one, again = (off_task(target, synthetic, Draws(seed=1)) for _ in range(2))
    assert torch.equal(one.estimate.value, again.estimate.value)
    other = off_task(target, synthetic, Draws(50, 2))
    assert len(other.estimate.value) == 50
    assert not torch.equal(other.estimate.value, one.estimate.value[:50])


# Five standard errors of a mean of 25: over 20 seeds 0.0138 ± 0.0012 and 0.0072 ± 0.0005.
@pytest.mark.parametrize(("style", "read"), [(0.0, 0.0198), (1.0, 0.0096)])
def test_scores_of_one_distribution_are_no_claim(style, read, margin):
    """In 25 draws of one distribution nothing is claimed, and little is read."""
    found = []
    for seed in range(25):
        random = np.random.default_rng(seed)
        scores = Scores(random.normal(size=300), random.normal(size=300), style)
        excess = Excess(scores, OFF_TASK, np.ones(300))
        found.append(share_of(excess, Draws(200, seed)))
    assert not any(one.at_least > 0.05 for one in found)
    margin(read - np.mean([one.share for one in found]))
    # At most two of 25: over 500 it is 0.8 %, of which three are one in 800.
    margin(0.1 - np.mean([one.at_most < 0.02 for one in found]))


def test_the_excess_is_the_weight_of_a_mixture_whose_known_part_is_given():
    """S = 0.7 T + 0.3 beyond every threshold: (S − T) / (1 − T) is 0.3 at each of them."""
    known = ndtri((np.arange(1400) + 0.5) / 1400)
    rows = np.concatenate([known, np.full(600, 5.0)])
    found = Excess(Scores(known, rows, 0.0), OFF_TASK, np.ones(2000))
    share = found._share(1.0, 1.64).value.numpy()
    inside = (found.own.value.numpy() <= 0.5) & (THRESHOLDS < 4.9)
    assert share[inside] == pytest.approx(0.3, abs=1e-9)
    assert 0.2 < found.at_least < 0.3 < found.at_most < 0.35
    draws = found.draws(4000, np.random.default_rng(0))
    # A stretch of the tail takes at most (C − 1) T from it, at a threshold that T hardly passes.
    assert draws.mean() == pytest.approx(0.3, abs=0.01)


def parts(share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three common Gaussian parts in 8 dimensions, and one that the synthetic rows alone have."""
    random = np.random.default_rng(seed)
    centres = 3 / np.sqrt(2) * np.eye(4, 8)
    rows = []
    for weight in (0.0, share):
        part = random.choice(4, 300, p=[*[(1 - weight) / 3] * 3, weight])
        rows.append(centres[part] + random.normal(size=(300, 8)))
    return rows[0], rows[1]


def test_parts_that_overlap_are_within_the_ends_of_measurements(margin):
    """Three standard deviations apart, as `Sources.content` places them, 40 % of one part."""
    from rbpp.assessment.sources import read_sources

    wider, exchanged, ends = [], [], []
    for seed in range(8):
        target, synthetic = parts(0.4, seed)
        sources = read_sources({"target": target, "synthetic": synthetic})
        assert sources.lifted
        first, second = sources.content("target"), sources.content("synthetic")
        found = off_task(first, second, kind=VectorKind(numbers=True))
        ends.append((found.at_least, found.at_most))
        wider.append(found.at_most - off_task(first, second).at_most)
        wide = uncovered(second, first, kind=VectorKind(numbers=True))
        exchanged.append(wide.at_most - uncovered(second, first).at_most)
    assert min(wider) >= 0
    margin(np.mean(wider))
    least, most = np.mean(ends, 0)
    margin((0.4 - least, most - 0.4))
    # The same rows exchanged, uncovered: no narrower, and wider where the other end is not above.
    assert min(exchanged) >= 0 < max(exchanged)


@pytest.mark.parametrize(
    ("target", "synthetic", "message"),
    [
        (np.ones((9, 3)), np.ones((20, 3)), "n of 10 or more"),
        (np.ones((20, 3)), np.ones((20, 4)), "one dimension; got 3 and 4"),
        (np.full((20, 3), np.nan), np.ones((20, 3)), "Expected finite rows"),
    ],
)
def test_refusals(target, synthetic, message):
    with pytest.raises(ValueError, match=message):
        off_task(target, synthetic)


def test_refusals_of_weights_labels_and_other_rows():
    target, synthetic, _ = planted(0.0, 0)
    with pytest.raises(ValueError, match="Expected 300 finite weights above 0"):
        off_task(target, Sample(synthetic, weight=np.zeros(300)))
    with pytest.raises(ValueError, match=r"Expected labels \(300,\)"):
        off_task(target, synthetic, labels=np.zeros(4))
    with pytest.raises(ValueError, match="Expected two classes of 10 rows or more; got 1"):
        off_task(target, synthetic, labels=np.zeros(300))
    with pytest.raises(ValueError, match="of 300 synthetic rows; got 20"):
        novel(target, off_task(target, synthetic[:20]), synthetic)


def test_role_play_among_code_tasks(shared_data):
    """One author: halves of the code tasks, role-play planted in one of them."""
    pytest.importorskip("wordllama", reason="the wheel that carries the default table")
    from rbpp.data.static_embedding import static_embedding

    def texts(name):
        found = json.loads((shared_data / name).read_text(encoding="utf-8"))
        return list(dict.fromkeys(row["instruction"] for row in found))

    random = np.random.default_rng(0)
    clean = list(random.permutation(texts("code_alpaca_2k.json")))
    foreign = list(random.permutation(texts("gpt4_roleplay.json")))
    target = static_embedding(clean[:500]).vectors
    for share in (0.0, 0.2):
        extra = round(share * 500)
        synthetic = static_embedding(clean[500 : 1000 - extra] + foreign[:extra]).vectors
        found = off_task(target, synthetic)
        assert found.share == pytest.approx(share, abs=0.03)
        assert found.at_least <= share <= found.at_most
    scores = off_task_scores(target, synthetic).rows
    assert auc(scores[:400], scores[400:]) > 0.98


@pytest.mark.parametrize(
    ("irrelevant", "uncovered_share", "refusal", "least"),
    [(0.1, 0.3, "", 0.3), (0.3, 0.1, "", 0.3), (0.1, 0.3, "no rows", 0.1), (0.0, 0.0, "", 0.0)],
)
def test_either_source_alone_is_what_the_other_lacks_at_least(
    irrelevant, uncovered_share, refusal, least
):
    """Total variation is no less than either: rows that the synthetic data miss count too."""

    def told(at_least, refusal=""):
        share = exactly(np.full(4, 0.5)).between(at_least, 1.0)
        return OffTask(share, np.zeros(3), np.zeros(3), refusal=refusal)

    none = exactly(0.0)
    style = Style(np.zeros(2), none, 0.0, none, none, none)
    shares = Shares(told(irrelevant), told(uncovered_share, refusal), style, same=True)
    assert shares.least == least
