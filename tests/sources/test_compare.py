"""Comparisons of versions whose order is known, and conditions for continuous integration."""

import json

import numpy as np
import pytest

from rbpp import command
from rbpp.plots import plot_ranking
from rbpp.sources.compare import compare
from rbpp.sources.comparison import fails

CENTRES = np.random.default_rng(0).normal(size=(4, 5)) * 4
OPTIONS = {"chains": 2, "draws": 40}


def rows_of(components, count, seed):
    random = np.random.default_rng(seed)
    return CENTRES[random.choice(components, count)] + random.normal(size=(count, 5))


TARGET = rows_of([0, 1, 2], 500, 1)
VERSIONS = {
    "off": rows_of([0, 1, 2, 3], 500, 2),  # a quarter is off-task
    "good": rows_of([0, 1, 2], 500, 3),
    "narrow": rows_of([0], 500, 4),  # a third of the task
}


@pytest.fixture(scope="module")
def found():
    return compare(VERSIONS, TARGET, **OPTIONS)


def difference(found, term, first, second):
    for line in found.differences:
        if (line["term"], {line["first"], line["second"]}) == (term, {first, second}):
            return line, 1 if line["first"] == first else -1
    raise AssertionError(f"no difference of {term} between {first} and {second}")


def test_ranking_is_best_first_with_the_probability_of_each_rank(found):
    names = [line["name"] for line in found.ranking]
    assert names[0] == "good"
    assert found.ranking[0]["p_best"] > 0.9
    assert [line["score"] for line in found.ranking] == sorted(
        (line["score"] for line in found.ranking), reverse=True
    )
    ranks = np.array([line["p_rank"] for line in found.ranking])
    np.testing.assert_allclose(ranks.sum(0), 1)
    np.testing.assert_allclose(ranks.sum(1), 1)
    for line in found.ranking:
        expected = np.dot(line["p_rank"], [1, 2, 3])
        assert line["rank_mean"] == pytest.approx(expected)
        assert line["hdi_low"] <= line["score"] <= line["hdi_high"]


def test_the_figure_shows_the_ranking_best_above(found):
    axis = plot_ranking(found.ranking)
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        line["name"] for line in found.ranking
    ]
    assert axis.get_ylim()[0] > axis.get_ylim()[1]
    assert f"P(best) {found.ranking[0]['p_best']:.2f}" in {text.get_text() for text in axis.texts}


def test_differences_say_which_is_better_in_which_term(found):
    line, sign = difference(found, "irrelevant_share", "off", "good")
    assert sign * line["mean"] == pytest.approx(0.25, abs=0.08)
    assert line["p_better" if sign == -1 else "p_worse"] > 0.95
    line, sign = difference(found, "uncovered_share", "narrow", "good")
    assert line["p_better" if sign == -1 else "p_worse"] > 0.95
    for line in found.differences:
        total = line["p_better"] + line["p_equivalent"] + line["p_worse"]
        assert total == pytest.approx(1)


def test_equal_versions_are_equivalent():
    versions = {"one": rows_of([0, 1, 2], 500, 5), "two": rows_of([0, 1, 2], 500, 6)}
    # 500 rows tell a share to two points or so, as wide as what is equivalent by default.
    default, found = (
        difference(compare(versions, TARGET, **width, **OPTIONS), "irrelevant_share", "one", "two")
        for width in ({}, {"equivalent_share": 0.05})
    )
    assert 0.5 < default[0]["p_equivalent"] < found[0]["p_equivalent"]
    assert found[0]["p_equivalent"] > 0.9
    wider = compare(versions, TARGET, equivalent_nats=100.0, **OPTIONS)
    line, _ = difference(wider, "kl_synthetic", "one", "two")
    assert line["p_equivalent"] == 1
    strict = compare(versions, TARGET, equivalent_share=0.0, **OPTIONS)
    line, _ = difference(strict, "total_divergence", "one", "two")
    assert line["p_better"] + line["p_worse"] > 0.5


def test_anchors_make_the_score_the_kl_gap():
    anchor = rows_of([0], 60, 7)
    found = compare(VERSIONS, TARGET, anchor=anchor, shares=False, **OPTIONS)
    assert found.settings["score"] == "kl_gap"
    posterior = found.idata["posterior"]
    np.testing.assert_allclose(posterior["score"], posterior["kl_gap"])
    assert "irrelevant_share" not in posterior


CONDITIONS = {
    "irrelevant_share > 0.1 with 0.9": ["off"],
    "irrelevant_share>0.1 with .9": ["off"],
    "good: irrelevant_share > 0.1 with 0.9": [],
    "off: irrelevant_share > 0.1 with 0.9": ["off"],
    "uncovered_share > 0.5 with 0.9": ["narrow"],
    "good: irrelevant_share < 0.05 with 0.9": ["good"],
    "irrelevant_share > 0.9 with 0.5": [],
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_conditions_hold_for_the_versions_they_should(found, condition):
    assert sorted(fails(found, condition)) == CONDITIONS[condition]


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("irrelevant_share", "Expected a condition as"),
        ("irrelevant_share >= 0.1 with 0.9", "Expected a condition as"),
        ("irrelevant_share > 0.1 with 1.5", "probability above 0, up to 1"),
        ("irrelevant_share > 0.1 with 0", "probability above 0, up to 1"),
        ("irrelevant_share > - with 0.5", "Expected numbers"),
        ("wrong > 0.1 with 0.9", "Expected one of the terms"),
        ("irelevant_share > 0.1 with 0.9", "did you mean 'irrelevant_share'"),
        ("other: irrelevant_share > 0.1 with 0.9", "Expected one of the versions"),
    ],
)
def test_conditions_that_cannot_be_read_are_refused(found, condition, message):
    with pytest.raises(ValueError, match=message):
        fails(found, condition)


def test_one_version_is_not_compared():
    with pytest.raises(ValueError, match="at least 2 versions"):
        compare({"one": TARGET}, TARGET)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chains": 0}, "Expected whole chains ≥ 1"),
        ({"draws": 1}, "draws ≥ 2"),
        ({"hdi_prob": 2}, "Expected hdi_prob between 0 and 1; got 2"),
        ({"hdi_prob": float("nan")}, "Expected hdi_prob"),
        ({"equivalent_share": -1}, "Expected an equivalent share of 0 or more; got -1"),
        ({"equivalent_nats": float("nan")}, "Expected an equivalent nats"),
    ],
)
def test_numbers_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        compare(VERSIONS, TARGET, **options)


@pytest.mark.parametrize("versions", ["good.npy", TARGET])
def test_one_version_is_not_taken_for_several(versions):
    with pytest.raises(ValueError, match="Expected versions by name or a list of them"):
        compare(versions, TARGET)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("versions")
    paths = []
    for name, rows in {**VERSIONS, "target": TARGET}.items():
        paths.append(str(folder / f"{name}.npy"))
        np.save(paths[-1], rows)
    return paths


@pytest.mark.parametrize(
    ("condition", "status"),
    [("irrelevant_share > 0.1 with 0.9", 1), ("irrelevant_share > 0.9 with 0.9", 0)],
)
def test_command_exits_as_the_condition_says(files, condition, status, capsys):
    *versions, target = files
    arguments = [*versions[:2], "--reference", target, "--fail-if", condition, "--json"]
    arguments += ["--chains", "2", "--draws", "40", "--quiet"]
    assert command.main(["compare", *arguments]) == status
    printed = json.loads(capsys.readouterr().out)
    assert [line["name"] for line in printed["ranking"]] == ["good", "off"]
    expected = {"name", "score", "sd", "hdi_low", "hdi_high", "p_best", "rank_mean"}
    assert expected <= set(printed["ranking"][0])
    assert printed["fail_if"] == {condition: ["off"] if status else []}
    assert "good/irrelevant_share" in printed["terms"]


def test_command_prints_a_table_and_ranks_alone(files, capsys, tmp_path):
    *versions, target = files
    arguments = [*versions[:2], "--reference", target, "--no-shares", "--chains", "2"]
    assert command.main(["compare", *arguments, "--figures", str(tmp_path)]) == 0
    assert (tmp_path / "ranking.png").exists()
    printed = capsys.readouterr().out
    assert "P(best)" in printed
    assert "irrelevant_share" not in printed


def test_command_ends_with_one_line_on_bad_input(files, capsys):
    arguments = [files[0], files[1], "--reference", files[-1], "--fail-if", "x", "--no-shares"]
    assert command.main(["compare", *arguments, "--chains", "1"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize("condition", ["nonsense", "none: irrelevant_share > 0.1 with 0.9"])
def test_command_refuses_a_condition_before_it_reads(condition, capsys):
    arguments = ["absent.npy", "other.npy", "--reference", "absent.npy", "--fail-if", condition]
    assert command.main(["compare", *arguments]) == 2
    assert "absent.npy: Expected a file" not in capsys.readouterr().err
