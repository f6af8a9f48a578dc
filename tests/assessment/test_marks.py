"""Marks: rows along the score, a sheet there and back, refusals, and a posterior like NUTS's."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from rbpp.assessment.marks import (
    COLUMNS,
    log_posterior_grid,
    read_marks,
    rows_digest,
    rows_to_ask,
    share_from_marks,
    write_sheet,
)
from rbpp.assessment.weighted_rows import Draws

TEXTS = ["=SUM(A1)", "two, with a comma", 'three "quoted"\nover two lines', "vier – äöü", "五"]


def fill(path, marks, **changes):
    """Fill a sheet in, and change cells of its rows by (row, column)."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        line["off_task"] = marks.get(int(line["row"]), "")
        for place, value in changes.items():
            row, column = place.split("_", 1)
            if line["row"] == row[1:]:
                line[column] = value
    write(path, lines)
    return lines


def write(path, lines, delimiter=","):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter=delimiter)
        writer.writeheader()
        writer.writerows(lines)


@pytest.fixture
def sheet(tmp_path):
    path = tmp_path / "marks.csv"
    write_sheet(path, [0, 1, 2, 4], TEXTS, ids=list("abcde"))
    return path


def test_rows_are_spread_along_the_score():
    score = np.random.default_rng(0).permutation(100).astype(float)
    asked = rows_to_ask(score, 20)
    expected = [*(7.5 * (np.arange(10) + 0.5)), *(75 + 2.5 * (np.arange(10) + 0.5))]
    assert np.array_equal(np.sort(score[asked]), np.array(expected, int))
    assert np.array_equal(asked, np.sort(asked))
    for count in (1, 2, 3, 20, 21, 25, 40):
        rows = rows_to_ask(score[:count], 20)
        assert len(set(rows.tolist())) == len(rows) == min(count, 20)


def test_a_sheet_comes_back_as_it_was_filled(sheet):
    fill(sheet, {0: "1", 1: " no ", 4: "1.0"})
    assert read_marks(sheet, TEXTS, list("abcde")) == {0: True, 1: False, 4: True}


def test_spreadsheets_may_use_semicolons_and_reflow_text(sheet):
    lines = fill(sheet, {0: "y", 2: "0"}, r2_text='three "quoted" over  two lines')
    write(sheet, lines, ";")
    assert read_marks(sheet, TEXTS) == {0: True, 2: False}


def test_a_cell_is_no_formula(sheet):
    assert ",'=SUM(A1)," in sheet.read_text(encoding="utf-8-sig")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"r1_row": "5"}, "Expected a row of 0 to 4; got '5'"),
        ({"r1_row": "-1"}, "Expected a row of 0 to 4; got '-1'"),
        ({"r1_row": "one"}, "Expected a row of 0 to 4; got 'one'"),
        ({"r1_text": "another"}, "Expected the text of row 1, 'two, with a comma'; got 'another'"),
        ({"r1_id": "z"}, "Expected the id of row 1, 'b'; got 'z'"),
        ({"r1_off_task": "maybe"}, "Expected off_task 0 or 1, or blank; got 'maybe'"),
        ({"r1_off_task": "0.5"}, "Expected off_task 0 or 1, or blank; got '0.5'"),
        ({"r1_digest": "0123"}, "Expected a sheet of these rows"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(sheet, changes, message):
    fill(sheet, dict.fromkeys(range(5), "1"), **changes)
    with pytest.raises(ValueError, match=r"marks\.csv, sheet row 2: ") as caught:
        read_marks(sheet, TEXTS, list("abcde"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_row_marked_both_ways_is_refused_and_twice_the_same_is_not(sheet):
    lines = fill(sheet, {0: "1", 1: "0"})
    write(sheet, [*lines, lines[0]])
    assert read_marks(sheet, TEXTS) == {0: True, 1: False}
    write(sheet, [*lines, {**lines[0], "off_task": "0"}])
    with pytest.raises(ValueError, match="Expected one mark of row 0; got both"):
        read_marks(sheet, TEXTS)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "marks.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="Expected columns row and off_task; got a, b"):
        read_marks(path, TEXTS)
    path.write_bytes(b"row,off_task\n\xff\xfe,1\n")
    with pytest.raises(ValueError, match="Expected a CSV file in UTF-8"):
        read_marks(path, TEXTS)
    assert rows_digest(TEXTS) != rows_digest(TEXTS[::-1])


@pytest.mark.parametrize(
    ("share", "shift", "asked", "largest_error"),
    # Mean errors of 80 data sets have five standard errors to the last number, over eight seeds:
    # 0.0211, 0.054, 0.057, 0.0212, 0.028 and 0.044, each ± 0.0002 to 0.0026. Twenty marks of rows
    # that overlap by half leave 0.08.
    [
        (0.0, 1.0, 20, 0.0222),
        (0.2, 1.0, 20, 0.068),
        (0.5, 1.0, 40, 0.070),
        (0.0, 3.0, 20, 0.0222),
        (0.2, 3.0, 20, 0.039),
        (0.5, 3.0, 20, 0.052),
    ],
)
def test_intervals_hold_the_share(share, shift, asked, largest_error, margin):
    """94 % intervals of 80 data sets: 68 are three standard errors below that rate."""
    held, errors = 0, []
    for seed in range(80):
        random = np.random.default_rng([seed, int(10 * share), int(shift)])
        foreign = random.random(300) < share
        score = random.normal(size=300) + shift * foreign
        marks = {int(row): bool(foreign[row]) for row in rows_to_ask(score, asked)}
        found = share_from_marks(score, marks, Draws(400, seed))
        low, high = np.quantile(found.draws, [0.03, 0.97])
        held += low - 1e-9 <= foreign.mean() <= high + 1e-9
        errors.append(abs(found.share - foreign.mean()))
    margin(held - 68)
    margin(largest_error - np.mean(errors))


def test_marked_rows_count_as_marked_and_wrong_marks_move_the_answer():
    score = np.linspace(-2, 4, 200)
    marks = {int(row): bool(score[row] > 2) for row in rows_to_ask(score)}
    found = share_from_marks(score, marks)
    assert all(found.probability[row] == mark for row, mark in marks.items())
    none = share_from_marks(score, dict.fromkeys(marks, False))
    assert none.share < 0.05
    assert none.draws_if_wrong.std() != none.draws.std()
    weights = np.where(score > 2, 3.0, 1.0)
    assert share_from_marks(score, marks, weights=weights).share > found.share + 0.1


def test_the_grid_is_the_posterior_of_nuts():
    """Posterior means of intercept and slope within four Monte Carlo errors of a chain's."""
    import pyro
    import pyro.distributions as dist
    import torch
    from pyro.infer import MCMC, NUTS

    from rbpp.randomness import seeded

    random = np.random.default_rng(0)
    covariate = random.normal(size=20)
    marked = (random.random(20) < 1 / (1 + np.exp(1 - 2 * covariate))).astype(float)
    intercepts, slopes, log_joint = log_posterior_grid(covariate, marked)
    joint = np.exp(log_joint - log_joint.max())
    joint /= joint.sum()
    expected = float(joint.sum(1) @ intercepts), float(joint.sum(0) @ slopes)

    def model():
        a = pyro.sample("a", dist.Normal(-1.5, 2.0))
        b = pyro.sample("b", dist.HalfNormal(2.0))
        with pyro.plate("marks", 20):
            logits = a + b * torch.as_tensor(covariate, dtype=torch.float32)
            seen = torch.as_tensor(marked, dtype=torch.float32)
            pyro.sample("mark", dist.Bernoulli(logits=logits), obs=seen)

    with seeded(0):
        chain = MCMC(
            NUTS(model, max_tree_depth=4), num_samples=200, warmup_steps=100, disable_progbar=True
        )
        chain.run()
    pyro.clear_param_store()
    for name, value in zip("ab", expected, strict=True):
        draws = chain.get_samples()[name]
        # An effective sample size of a third of the draws, as these chains have.
        error = float(draws.std()) / np.sqrt(60)
        assert float(draws.mean()) == pytest.approx(value, abs=4 * error)


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match="Expected marks of rows 0 to 2; got"):
        share_from_marks(np.zeros(3), {})
    with pytest.raises(ValueError, match="Expected marks of rows 0 to 2; got"):
        share_from_marks(np.zeros(3), {3: True})
    with pytest.raises(ValueError, match="Expected finite scores"):
        rows_to_ask(np.array([np.nan]))
    with pytest.raises(ValueError, match="Expected rows of 0 to 4; got 5"):
        write_sheet(tmp_path / "sheet.csv", [5], TEXTS)
