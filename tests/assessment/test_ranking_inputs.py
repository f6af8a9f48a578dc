"""Bad input of a ranking, what its checks name, and stored results."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from ranked_sets import classes, line, verdict

from rbpp.assessment.comparison_words import headline
from rbpp.assessment.ranking import Decision, rank_sets
from rbpp.assessment.ranking_sources import Source
from rbpp.assessment.stored_ranking import read, store
from rbpp.compute import Compute

# ---- bad input ---------------------------------------------------------------------------------

GOOD = Source(*classes(0, 60))
REAL = Source(*classes(9, 60))


@pytest.mark.parametrize(
    ("sets", "real", "message"),
    [
        ({"a": GOOD}, REAL, "2 sets or more"),
        ({"a": GOOD, "b": Source(GOOD.rows)}, REAL, "labels in every set or in none"),
        ({"a": Source(GOOD.rows), "b": Source(GOOD.rows)}, REAL, "labels in the sets"),
        ({"a": GOOD, "b": Source(GOOD.rows[:, :3], GOOD.labels)}, REAL, "columns"),
        ({"a": GOOD, "b": Source(GOOD.rows[:1], GOOD.labels[:1])}, REAL, "at least 2 rows"),
        ({"a": GOOD, "b": GOOD}, Source(REAL.rows[:1], REAL.labels[:1]), "at least 2 rows"),
        ({"a": GOOD, "b": Source(GOOD.rows * np.nan, GOOD.labels)}, REAL, "finite"),
        ({"a": GOOD, "b": Source(GOOD.rows, GOOD.labels[:5])}, REAL, "60 labels"),
        ({"a": GOOD, "b": GOOD}, Source(REAL.rows, ["x", "y", "z"] * 20), "share"),
        (
            {"a": Source(GOOD.rows, [1] * 60), "b": Source(GOOD.rows, [1] * 60)},
            Source(REAL.rows),
            "at least two labels",
        ),
        (
            {"a": GOOD, "b": Source(GOOD.rows, [f"id{k}" for k in range(60)])},
            REAL,
            "60 rows of set 'b', which looks like an identifier",
        ),
        (
            {"a": GOOD, "b": Source(*classes(1, 60))},
            Source(REAL.rows, [f"id{k}" for k in range(60)]),
            "60 rows of the real rows, which looks like an identifier",
        ),
        ({"a": GOOD, "b": Source(GOOD.rows, [None] * 60)}, REAL, "missing ones alone"),
        (
            {"a": Source(GOOD.rows, [None] * 60), "b": Source(GOOD.rows, [""] * 60)},
            Source(REAL.rows),
            "none but missing ones",
        ),
        ({"a": GOOD, "b": GOOD}, Source(REAL.rows), "copies of one set"),
        ({"a": GOOD, "b": GOOD}, Source(np.ones((60, 8)), REAL.labels), "copies of one row"),
        (
            {"a": Source(GOOD.rows, outputs=GOOD.rows), "b": Source(GOOD.rows, outputs=GOOD.rows)},
            Source(REAL.rows),
            "outputs of the real rows",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_named(sets: dict[str, Source], real: Source, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank_sets(sets, real)


def test_labels_as_text_and_as_numbers_are_the_same() -> None:
    x, y = classes(1, 60)
    sets = {"a": GOOD, "b": Source(x, [f"{label}.0" for label in y])}
    numbers = rank_sets({"a": GOOD, "b": Source(x, y)}, REAL)
    assert rank_sets(sets, REAL).lines == numbers.lines
    assert rank_sets(sets, Source(REAL.rows, REAL.labels.astype(float))).lines == numbers.lines


def test_a_label_that_a_set_lacks_costs_ten_nats() -> None:
    x, y = classes(1, 300)
    lacking = Source(x[y < 2], y[y < 2])
    ranking = rank_sets({"a": GOOD, "b": lacking}, REAL)
    assert ranking.scores["b"].values[REAL.labels == 2].tolist() == [-10.0] * 20
    assert verdict(ranking, "every set has the labels") == "violated"
    extra = rank_sets({"a": GOOD, "b": Source(x, np.where(y == 2, 7, y))}, REAL)
    assert verdict(extra, "the real rows have the labels") == "violated"


def test_two_rows_are_ranked_and_named() -> None:
    two = Source(GOOD.rows[:2], GOOD.labels[:2])
    ranking = rank_sets({"a": GOOD, "two": two}, REAL)
    assert ranking.lines[-1]["name"] == "two"
    assert verdict(ranking, "enough rows to be ranked") == "violated"
    assert ranking.settings["equal_size"] == 60
    few = rank_sets(
        {"a": GOOD, "b": Source(*classes(1, 60))}, Source(REAL.rows[:3], REAL.labels[:3])
    )
    assert verdict(few, "enough real rows") == "violated"
    assert few.lines[0]["real_rows"] == 0
    for found in (ranking, few):  # the answer says so, in whatever words the check is put
        renamed = [replace(check, statement="in other words") for check in found.checks]
        assert headline(replace(found, checks=renamed))[0].startswith("Too few rows to rank by")
    good = rank_sets({"a": GOOD, "b": Source(*classes(1, 60))}, REAL)
    assert not headline(good)[0].startswith("Too few")


def test_missing_labels_repeats_and_rows_of_the_reference_are_named() -> None:
    x, y = classes(1, 60)
    some = y.astype(object)
    some[:10] = None
    sets = {
        "missing": Source(x, some),
        "real": REAL,
        "repeats": Source(np.tile(x[:30], (2, 1)), np.tile(y[:30], 2)),
        "skewed": Source(np.tile(x, (1, 1)), np.where(np.arange(60) < 50, 0, y)),
    }
    ranking = rank_sets(sets, REAL)
    messages = {check.statement: check.message for check in ranking.checks}
    assert "missing: 10 rows" in messages["every row has a label"]
    assert line(ranking, "missing")["rows"] == 50
    assert "real would" in messages["no set has rows of the real rows that judge it"]
    assert "in repeats" in messages["no rows of a set repeat"]
    assert "skewed" in messages["the labels are balanced as in the real rows"]


def test_more_than_two_hundred_sets() -> None:
    sets = {str(k): Source(*classes(k, 30, wrong=k / 400)) for k in range(205)}
    ranking = rank_sets(sets, Source(classes(999, 40)[0]), draws=100)
    assert sum(one["p_best"] for one in ranking.lines) == pytest.approx(1)
    assert ranking.pairs["mean"].shape == (205, 205)


def test_seed_draws_and_width_change_the_intervals() -> None:
    sets = {"a": GOOD, "b": Source(*classes(1, 60))}
    base = line(rank_sets(sets, REAL), "a")
    assert line(rank_sets(sets, REAL), "a") == base
    assert line(rank_sets(sets, REAL, compute=Compute(seed=1)), "a")["sd"] != base["sd"]
    assert line(rank_sets(sets, REAL, draws=100), "a")["sd"] != base["sd"]
    assert line(rank_sets(sets, REAL, Decision(0.5)), "a")["hdi_low"] > base["hdi_low"]
    wide = rank_sets(sets, REAL, Decision(equivalent=10.0))
    assert wide.pairs["p_equivalent"][0, 1] == 1


# ---- stored results ----------------------------------------------------------------------------


@pytest.mark.parametrize("labelled", [True, False])
def test_a_new_set_is_ranked_against_stored_results(labelled: bool) -> None:
    wrong = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    sets = {str(w): Source(*classes(k, 150, wrong=w)) for k, w in enumerate(wrong)}
    new = {"new": Source(*classes(50, 150, wrong=0.25))}
    real = REAL if labelled else Source(REAL.rows)
    record = json.loads(json.dumps(store(rank_sets(sets, real), real, "model 1")))
    found = rank_sets(new, real, stored=read(record, "model 1"))
    whole = rank_sets(sets | new, real)
    assert len(found.lines) == 8
    # With real labels it is the same number; the consensus is now without the new set's vote.
    tolerance = 1e-5 if labelled else 0.05
    for name in (*sets, "new"):
        assert line(found, name)["score"] == pytest.approx(
            line(whole, name)["score"], abs=tolerance
        )
        assert line(found, name)["sd"] == pytest.approx(line(whole, name)["sd"], rel=0.25)


def test_other_references_embeddings_and_labels_are_refused() -> None:
    sets = {"a": GOOD, "b": Source(*classes(1, 60))}
    record = store(rank_sets(sets, REAL), REAL, "model 1")
    new = {"new": Source(*classes(2, 60))}
    with pytest.raises(ValueError, match="embedding of the stored"):
        rank_sets(new, REAL, stored=read(record, "model 2"))
    with pytest.raises(ValueError, match="reference of the stored"):
        rank_sets(new, Source(REAL.rows + 1, REAL.labels), stored=read(record, "model 1"))
    with pytest.raises(ValueError, match="names that the stored results lack"):
        rank_sets({"a": GOOD}, REAL, stored=read(record, "model 1"))
    with pytest.raises(ValueError, match="Expected the labels"):
        rank_sets({"new": Source(GOOD.rows, GOOD.labels + 1)}, REAL, stored=read(record, "model 1"))
    with pytest.raises(ValueError, match="version"):
        read({"version": 0}, "model 1")


def test_rows_made_from_the_reference_do_not_win_by_it():
    """Half a column shuffled in the real rows, against new rows of the same distribution."""
    random = np.random.default_rng(0)

    def drawn(count):
        common = random.normal(size=(count, 1))
        return common + 0.3 * random.normal(size=(count, 4))

    real, new = drawn(500), drawn(500)
    flipped = real.copy()
    chosen = random.choice(500, 300, replace=False)
    flipped[chosen, 0] = random.permutation(flipped[chosen, 0])
    ranking = rank_sets({"flipped": Source(flipped), "new": Source(new)}, Source(real), draws=100)
    assert [line["name"] for line in ranking.lines] == ["new", "flipped"]
    apart = rank_sets(
        {"flipped": Source(flipped), "new": Source(new)}, Source(drawn(500)), draws=100
    )
    assert [line["name"] for line in apart.lines] == ["new", "flipped"]
    # Of every set the nearest rows are left out then, and not where no set was made from it.
    whole = rank_sets({"other": Source(drawn(500)), "new": Source(new)}, Source(real), draws=100)
    assert line(ranking, "new")["score"] < line(whole, "new")["score"]
