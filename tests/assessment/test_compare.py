"""Comparisons of versions whose order is known."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from rbpp import plots
from rbpp.assessment.compare import compare
from rbpp.assessment.ranking import Decision, rank_sets
from rbpp.assessment.ranking_sources import Source
from rbpp.assessment.sources import Fields, Representation, Sampling
from rbpp.compute import Compute

DRAWS = 100
CENTRES = np.random.default_rng(0).normal(size=(4, 5)) * 4
POSITIVE, NEGATIVE, OTHER = (
    "gain rise profit strong record good".split(),
    "loss fall drop weak cut bad".split(),
    "shares company bank market oil year report plan deal sales".split(),
)


def rows_of(components: list[int], count: int, seed: int) -> np.ndarray:
    """Rows around some of the centres."""
    random = np.random.default_rng(seed)
    return CENTRES[random.choice(components, count)] + random.normal(size=(count, 5))


TARGET = rows_of([0, 1, 2], 400, 1)
VERSIONS = {
    "off": rows_of([0, 1, 2, 3], 400, 2),  # a quarter is off-task
    "good": rows_of([0, 1, 2], 400, 3),
    "narrow": rows_of([0], 400, 4),  # a third of the task
}


def headlines(count: int, seed: int, wrong: float = 0.0, mixed: float = 0.1) -> list[dict]:
    """Headlines with a sentiment: a share of the words of the other one, and wrong labels."""
    random = np.random.default_rng(seed)
    found = []
    for index in range(count):
        label = index % 2
        words = list(random.choice(OTHER, 4))
        for _ in range(3):
            side = label if random.random() > mixed else 1 - label
            words.append(random.choice([POSITIVE, NEGATIVE][side]))
        said = label if random.random() > wrong else 1 - label
        text = " ".join(random.permutation(words))
        found.append({"text": text, "label": ["up", "down"][said], "made by": f"model {seed}"})
    return found


LABELLED = Fields(text=["text"], label="label")
REAL = headlines(150, 100)
LABELLED_VERSIONS = {
    "clean": headlines(150, 1),
    "some wrong": headlines(150, 2, wrong=0.3),
    "swapped": headlines(150, 3, wrong=0.9),
}


@pytest.fixture(scope="module")
def found() -> Any:
    return compare(VERSIONS, TARGET, draws=DRAWS)


@pytest.fixture(scope="module")
def labelled() -> Any:
    return compare(LABELLED_VERSIONS, REAL, fields=LABELLED, shares=False, draws=DRAWS)


def names(comparison: Any) -> list[str]:
    return [line["name"] for line in comparison.ranking]


def difference(comparison: Any, term: str, first: str, second: str) -> tuple[dict, int]:
    for line in comparison.differences:
        if (line["term"], {line["first"], line["second"]}) == (term, {first, second}):
            return line, 1 if line["first"] == first else -1
    raise AssertionError(f"no difference of {term} between {first} and {second}")


def check(comparison: Any, statement: str) -> Any:
    (one,) = [c for c in comparison.checks if statement in c.statement]
    return one


def test_ranking_is_best_first_with_what_the_contract_names(found: Any) -> None:
    assert names(found) == ["good", "off", "narrow"]
    scores = [line["score"] for line in found.ranking]
    assert scores == sorted(scores, reverse=True)
    keys = "name score sd hdi_low hdi_high p_best rank_mean score_equal_size p_best_equal_size"
    expected = {*keys.split(), "p_trained_best", "precision", "coverage"}
    assert all(expected <= set(line) for line in found.ranking)
    assert found.ranking[0]["p_best"] > 0.9
    for line in found.ranking:
        assert line["hdi_low"] <= line["score"] <= line["hdi_high"]
    assert sum(line["p_best"] for line in found.ranking) == pytest.approx(1)


def test_scores_are_those_of_rank_sets_on_the_rows_as_they_are(found: Any) -> None:
    ranking = rank_sets({n: Source(x) for n, x in VERSIONS.items()}, Source(TARGET), draws=2000)
    for line in ranking.lines:
        (own,) = [one for one in found.ranking if one["name"] == line["name"]]
        assert own["score"] == pytest.approx(line["score"], rel=1e-12)
        assert own["score_equal_size"] == pytest.approx(line["score_equal_size"], rel=1e-12)
    scaled = compare({n: 10 * x for n, x in VERSIONS.items()}, 10 * TARGET, shares=False)
    # Arrays are not normalised: in units ten times as large a density is 10⁻⁵ of what it was.
    shift = found.ranking[0]["score"] - scaled.ranking[0]["score"]
    assert shift == pytest.approx(5 * np.log(10), abs=1e-6)


def test_precision_and_coverage_are_what_was_planted(found: Any) -> None:
    lines = {line["name"]: line for line in found.ranking}
    assert lines["off"]["precision"] == pytest.approx(0.75, abs=0.08)
    assert lines["narrow"]["coverage"] == pytest.approx(1 / 3, abs=0.08)
    assert min(lines["good"]["precision"], lines["good"]["coverage"]) > 0.93


def test_without_shares_nothing_stands_beside_the_score(labelled: Any) -> None:
    assert set(labelled.terms) == {"score", "score_equal_size"}
    assert all(np.isnan(line["precision"]) for line in labelled.ranking)
    assert '"precision": null' in labelled.to_json()


def test_terms_are_draws_by_version(found: Any) -> None:
    score = found.idata["posterior"]["score"]
    assert dict(score.sizes) == {"chain": 4, "draw": DRAWS, "version": 3}
    for line in found.ranking:
        draws = score.sel(version=line["name"]).values
        assert len(np.unique(draws)) == draws.size
        assert draws.mean() == pytest.approx(line["score"], abs=0.3 * line["sd"])
        assert draws.std() == pytest.approx(line["sd"], rel=1e-9)
    assert "off/irrelevant_share" in json.loads(found.to_json())["terms"]
    assert found.terms["kl_synthetic"].value.shape == (4, DRAWS, 3)


def test_differences_say_which_is_better_in_which_term(found: Any) -> None:
    line, sign = difference(found, "irrelevant_share", "off", "good")
    assert sign * line["mean"] == pytest.approx(0.25, abs=0.08)
    assert line["p_better" if sign == -1 else "p_worse"] > 0.95
    line, _ = difference(found, "score", "good", "off")
    scores = {one["name"]: one["score"] for one in found.ranking}
    assert line["mean"] == pytest.approx(scores["good"] - scores["off"])
    assert 0.5 <= line["p_trained_better"] < line["p_larger"]
    for line in found.differences:
        total = line["p_better"] + line["p_equivalent"] + line["p_worse"]
        assert total == pytest.approx(1)
        assert line["hdi_low"] <= line["mean"] <= line["hdi_high"]


def test_widths_of_practical_equivalence() -> None:
    made = {"one": rows_of([0, 1, 2], 300, 5), "two": rows_of([0, 1, 2], 300, 6)}
    wide = compare(made, TARGET, decision=Decision(equivalent=5.0), shares=False, draws=DRAWS)
    assert difference(wide, "score", "one", "two")[0]["p_equivalent"] == 1
    assert "tie" in wide.headline[0]
    narrow = compare(made, TARGET, decision=Decision(equivalent=0.0), shares=False, draws=DRAWS)
    assert difference(narrow, "score", "one", "two")[0]["p_equivalent"] == 0
    for width, least, most in ((0.5, 1.0, 1.0), (0.0, 0.0, 0.5)):
        one = compare(made, TARGET, decision=Decision(equivalent_share=width), draws=DRAWS)
        assert least <= difference(one, "uncovered_share", "one", "two")[0]["p_equivalent"] <= most


def test_labels_decide_and_wrong_ones_are_named(labelled: Any) -> None:
    assert labelled.kind == "labels"
    assert names(labelled) == ["clean", "some wrong", "swapped"]
    wrong = {line["name"]: line["label_disagreement"] for line in labelled.diagnostics}
    assert wrong["clean"] < wrong["some wrong"] < wrong["swapped"]
    assert "log p(label | text) of 150 real rows" in labelled.notes[0]


def test_wrong_labels_rank_below_where_classes_overlap() -> None:
    """They make a set less sure, which the log-loss of a learner that is too sure rewards."""
    made = {
        "wrong": headlines(150, 2, wrong=0.25, mixed=0.3),
        "clean": headlines(150, 1, mixed=0.3),
    }
    real = headlines(300, 100, mixed=0.3)
    result = compare(made, real, fields=LABELLED, shares=False, draws=DRAWS)
    assert names(result) == ["clean", "wrong"]
    assert not any(note.startswith("Labels speak") for note in result.notes)


def test_labels_that_speak_against_the_first_are_told() -> None:
    """Many rows teach more than a few, some wrong labels or not."""
    made = {"few": headlines(6, 1), "wrong": headlines(400, 2, wrong=0.15)}
    real = headlines(300, 100, mixed=0.2)
    result = compare(made, real, fields=LABELLED, shares=False, draws=DRAWS)
    assert names(result)[0] == "wrong"
    assert any(note.startswith("Labels speak for few") for note in result.notes)


def test_consensus_stands_in_for_labels_and_generators_share_a_vote() -> None:
    """Five near copies of a bad set, by one generator, do not outvote three others."""
    made = {f"good {k}": headlines(150, k) for k in range(3)}
    bad = {f"bad {k}": headlines(150, 50 + k, wrong=0.9) for k in range(5)}
    bad = {n: [{**row, "made by": "one model"} for row in rows] for n, rows in bad.items()}
    real = [{"text": row["text"]} for row in REAL]
    options: dict[str, Any] = {"shares": False, "draws": DRAWS}
    alone = compare(made | bad, real, fields=LABELLED, **options)
    assert names(alone)[0].startswith("bad")
    fields = Fields(text=["text"], label="label", generator="made by")
    capped = compare(made | bad, real, fields=fields, **options)
    assert set(names(capped)[:3]) == set(made)
    consensus = check(capped, "consensus")
    assert (consensus.measured["voters"], consensus.measured["without_label"]) == (4, 150)
    assert consensus.verdict == "violated"  # fewer than six voters
    assert "4 voters" in consensus.message


def test_outputs_given_prompts() -> None:
    random = np.random.default_rng(0)
    slope = random.normal(size=(4, 3))

    def pairs(count: int, noise: float) -> list[dict[str, list[float]]]:
        x = random.normal(size=(count, 4))
        y = x @ slope + noise * random.normal(size=(count, 3))
        return [{"ask": list(a), "say": list(b)} for a, b in zip(x, y, strict=True)]

    fields = Fields(prompt="ask", output="say")
    made = {"noisy": pairs(120, 3.0), "near": pairs(120, 0.3)}
    result = compare(made, pairs(100, 0.3), fields=fields, draws=DRAWS)
    assert result.kind == "outputs"
    assert names(result) == ["near", "noisy"]
    assert check(result, "independent").verdict == "holds"
    repeated = [{**row, "ask": made["near"][k // 6]["ask"]} for k, row in enumerate(made["near"])]
    twice = {"near": made["near"], "twenty prompts": repeated}
    result = compare(twice, pairs(100, 0.3), fields=fields, shares=False, draws=DRAWS)
    assert check(result, "independent").verdict == "undecided"


def test_text_outputs_are_embedded() -> None:
    made = {
        "answers": [{"q": f"is {row['text']} up", "a": row["label"]} for row in REAL[:60]],
        "nonsense": [{"q": f"is {row['text']} up", "a": "banana tree"} for row in REAL[:30]]
        + [{"q": f"is {row['text']} up", "a": "green boat"} for row in REAL[30:60]],
    }
    real = [{"q": f"is {row['text']} up", "a": row["label"]} for row in REAL[60:]]
    result = compare(made, real, fields=Fields(prompt="q", output="a"), shares=False, draws=DRAWS)
    assert names(result) == ["answers", "nonsense"]


def test_a_better_small_set_is_first_at_equal_size_and_a_line_says_so() -> None:
    """A wider distribution of many rows against the true one of few, as many columns as rows."""
    random = np.random.default_rng(3)
    made = {
        "few": random.normal(size=(60, 24)),
        "many": random.normal(size=(2000, 24)) * 1.25,
    }
    result = compare(made, random.normal(size=(300, 24)), shares=False, draws=DRAWS)
    assert names(result)[0] == "many"
    assert any("Size decides" in note and "few at equal size" in note for note in result.notes)


def test_a_diagnostic_that_speaks_for_another_is_told() -> None:
    """Labels are right and a quarter of the texts is off the task."""
    random = np.random.default_rng(1)

    def rows(count: int, off: float, wrong: float) -> list[dict[str, Any]]:
        label = random.integers(0, 2, count)
        x = random.normal(size=(count, 5)) + np.eye(2, 5)[label] * 3
        away = random.random(count) < off
        x[away] += [0, 0, 0, 0, 9]
        said = np.where(random.random(count) < wrong, 1 - label, label)
        return [{"x": list(a), "y": int(b)} for a, b in zip(x, said, strict=True)]

    made = {"right": rows(400, 0.25, 0.0), "wrong": rows(400, 0.0, 0.45)}
    fields = Fields(embedding="x", label="y")
    result = compare(made, rows(300, 0.0, 0.0), fields=fields, draws=DRAWS)
    assert names(result) == ["right", "wrong"]
    assert "precision speaks for wrong and not for right." in result.notes


def test_copies_tie_and_are_called_so() -> None:
    made = {"one": VERSIONS["good"], "same": VERSIONS["good"][::-1], "off": VERSIONS["off"]}
    result = compare(made, TARGET, shares=False, draws=DRAWS)
    assert result.headline[0].startswith("one and same tie ahead of 1 other")
    assert check(result, "copies of each other").verdict == "violated"
    line, _ = difference(result, "score", "one", "same")
    assert (line["mean"], line["p_larger"], line["p_trained_better"]) == (0, 0.5, 0.5)


def test_anchors_give_the_gap_and_their_copies() -> None:
    anchor = rows_of([0], 60, 7)
    made = {"copies": np.concatenate([anchor, VERSIONS["good"][:60]]), **VERSIONS}
    result = compare(made, TARGET, anchor=anchor, draws=DRAWS)
    lines = {line["name"]: line for line in result.diagnostics}
    assert lines["copies"]["copied_share"] > 0.4 > lines["good"]["copied_share"]
    assert lines["good"]["kl_gap"] > 1
    same = compare(VERSIONS, TARGET, anchor=TARGET, shares=False, draws=DRAWS)
    assert check(same, "anchors are other rows").verdict == "violated"


def test_two_rows_against_two_are_flagged() -> None:
    made = {"one": VERSIONS["good"][:2], "two": VERSIONS["off"][:2]}
    result = compare(made, TARGET[:2], draws=DRAWS)
    assert result.headline[0].startswith("Too few rows to rank by")
    assert check(result, "enough rows").verdict == "violated"
    assert check(result, "enough real rows").verdict == "violated"
    assert np.isnan(result.ranking[0]["precision"])
    assert any("shares need" in note for note in result.notes)


@pytest.mark.parametrize("names", [("few", "good"), ("good", "few")])
def test_a_version_of_too_few_rows_has_no_gap_and_the_others_keep_theirs(names: Any) -> None:
    sizes = {"few": 12, "good": 60}
    made = {name: VERSIONS["good"][: sizes[name]] for name in names}
    result = compare(made, TARGET[:60], anchor=VERSIONS["narrow"][:60], draws=DRAWS)
    gap = result.idata["posterior"]["kl_gap"]
    assert gap.sel(version="few").isnull().all()
    assert gap.sel(version="good").notnull().all()


def test_influence_names_the_rows_that_decide(labelled: Any) -> None:
    """A row's influence is what its weight adds: without it the score is that much smaller."""
    own = labelled.influence[labelled.influence["version"] == "some wrong"]
    assert len(own) == 150
    assert own["influence"].sum() == pytest.approx(0, abs=1e-9)
    worst = own.sort_values("influence").head(3)["id"].astype(int) - 1
    kept = [r for i, r in enumerate(LABELLED_VERSIONS["some wrong"]) if i not in set(worst)]
    cleaned = compare(
        {**LABELLED_VERSIONS, "cleaned": kept}, REAL, fields=LABELLED, shares=False, draws=DRAWS
    )
    scores = {line["name"]: line["score"] for line in cleaned.ranking}
    gain = -own["influence"].sort_values().head(3).sum()
    assert scores["cleaned"] - scores["some wrong"] == pytest.approx(gain, rel=0.3)


def test_stored_results_rank_a_new_version_and_draw_a_series(labelled: Any, tmp_path: Any) -> None:
    labelled.store(tmp_path / "one.json")
    new = {"third": headlines(150, 9, wrong=0.1)}
    options: dict[str, Any] = {"fields": LABELLED, "shares": False, "draws": DRAWS}
    beside = compare(new, REAL, against=tmp_path / "one.json", **options)
    assert set(names(beside)) == {*LABELLED_VERSIONS, "third"}
    assert list(beside.series) == [*LABELLED_VERSIONS, "third"]
    whole = compare({**LABELLED_VERSIONS, **new}, REAL, **options)
    for line in whole.ranking:
        (own,) = [one for one in beside.ranking if one["name"] == line["name"]]
        assert own["score"] == pytest.approx(line["score"], abs=1e-5)
        assert own["sd"] == pytest.approx(line["sd"], rel=0.25)
        assert own["rows"] == line["rows"]
    kept = {line["name"]: line for line in beside.diagnostics}
    assert kept["clean"]["label_disagreement"] == pytest.approx(
        next(li for li in labelled.diagnostics if li["name"] == "clean")["label_disagreement"]
    )
    beside.store(tmp_path / "two.json")
    copy = {"fourth": new["third"]}
    again = compare(copy, REAL, against=tmp_path / "two.json", **options)
    assert len(again.ranking) == 5
    line, _ = difference(again, "score", "third", "fourth")
    assert line["p_larger"] == 0.5
    axis = plots.plot_series(again.ranking, again.series)
    assert [text.get_text() for text in axis.get_xticklabels()] == list(again.series)
    assert "series" in again.figures()
    assert "series" not in labelled.figures()


def test_streams_are_ranked_by_samples(tmp_path: Any) -> None:
    for name, rows in {**VERSIONS, "real": TARGET}.items():
        table = pyarrow.table({"vector": list(rows.astype(np.float32))})
        pyarrow.parquet.write_table(table, tmp_path / f"{name}.parquet", row_group_size=90)
    files = [tmp_path / f"{name}.parquet" for name in VERSIONS]
    fields = Fields(embedding="vector")
    sampling = Sampling(chunk_rows=70, sample_rows=200)
    result = compare(
        files, tmp_path / "real.parquet", fields=fields, sampling=sampling, draws=DRAWS
    )
    assert names(result) == ["good", "off", "narrow"]
    assert result.settings["rows"] == {"reference": 400, "off": 400, "good": 400, "narrow": 400}
    assert result.settings["sample_rows"]["off"] == 200
    assert "200 of 400" in check(result, "rows of the samples").message
    with pytest.raises(ValueError, match="streams of vectors alone; got a label field"):
        compare(
            files,
            tmp_path / "real.parquet",
            fields=Fields(embedding="vector", label="y"),
            sampling=sampling,
        )


def test_every_option_changes_something(found: Any) -> None:
    first = found.ranking[0]
    other = compare(VERSIONS, TARGET, draws=DRAWS, seed=1).ranking[0]
    assert other["sd"] != first["sd"]
    assert other["score"] == pytest.approx(first["score"])
    half = compare(VERSIONS, TARGET, decision=Decision(0.5), draws=DRAWS, shares=False).ranking[0]
    assert half["hdi_low"] > first["hdi_low"]
    two = compare(
        VERSIONS, TARGET, representation=Representation(dimension=2), draws=DRAWS
    ).diagnostics[0]
    assert two["kl_synthetic"] != found.diagnostics[0]["kl_synthetic"]
    seeded = compare(VERSIONS, TARGET, draws=DRAWS, compute=Compute(seed=9), seed=1)
    assert seeded.ranking[0]["sd"] == other["sd"]


def test_the_figures_show_ranking_pairs_and_rows(found: Any) -> None:
    axis = plots.plot_ranking(found.ranking)
    assert [label.get_text() for label in axis.get_yticklabels()] == names(found)
    assert axis.get_ylim()[0] > axis.get_ylim()[1]
    assert f"P(best) {found.ranking[0]['p_best']:.2f}" in {text.get_text() for text in axis.texts}
    axis = plots.plot_score_by_rows(found.ranking)
    assert {text.get_text() for text in axis.texts} == set(VERSIONS)
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["400"]  # beside 320 real rows
    few = [{**line, "real_rows": 100} for line in found.ranking]
    ticks = plots.plot_score_by_rows(few).get_xticklabels()
    assert {tick.get_text() for tick in ticks} == {"400", "100"}
    axis = plots.plot_pairs(found.ranking, found.differences)
    table = np.asarray(axis.images[0].get_array())
    line, _ = difference(found, "score", "good", "off")
    assert table[0, 1] == pytest.approx(line["p_larger"])
    assert table[1, 0] == pytest.approx(1 - line["p_larger"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 1}, "draws to be a whole number of 2 or more"),
        ({"fields": Fields(embedding="embedding", label="y")}, "field 'y' with labels"),
        ({"against": {"version": 1}}, "stored results of version"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare(VERSIONS, TARGET, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hdi_prob": 2}, "hdi_prob between 0 and 1; got 2"),
        ({"equivalent_share": -1}, "equivalent_share to be a finite number of 0 or more"),
        ({"equivalent": float("nan")}, "equivalent to be a finite number"),
    ],
)
def test_decisions_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Decision(**options)


def test_other_references_are_refused(labelled: Any) -> None:
    with pytest.raises(ValueError, match="reference of the stored results"):
        compare({"new": headlines(50, 8)}, REAL[:100], fields=LABELLED, against=labelled.record)
    with pytest.raises(ValueError, match="Expected sets with labels; got texts"):
        compare({"new": headlines(50, 8)}, REAL, fields=Fields(text=["text"]),
                against=labelled.record)  # fmt: skip


@pytest.mark.parametrize("versions", ["good.npy", TARGET])
def test_one_version_is_not_taken_for_several(versions: Any) -> None:
    with pytest.raises(ValueError, match="Expected versions by name or a list of them"):
        compare(versions, TARGET)
    with pytest.raises(ValueError, match="at least 2 versions"):
        compare({"one": TARGET}, TARGET)
