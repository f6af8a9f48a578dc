"""Information of measurements and a label against quadrature, and what is refused."""

import json

import numpy as np
import pytest
from scipy.stats import norm

from rbpp import command
from rbpp.paired.mutual_information import mutual_information

SHARES, MEANS = np.array([0.5, 0.3, 0.2]), np.array([0.0, 1.5, 4.0])


def classes(rows: int, seed: int, apart: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Normals of unit variance, a mean for each letter."""
    random = np.random.default_rng(seed)
    index = random.choice(3, rows, p=SHARES)
    return apart * MEANS[index] + random.normal(size=rows), np.array(list("abc"))[index]


def information(apart: float) -> float:
    """I(X; C) by quadrature, in nats."""
    grid = np.linspace(-8, 8 + 4 * apart, 20001)
    joint = norm.pdf(grid, apart * MEANS[:, None]) * SHARES[:, None]
    ratio = joint / joint.sum(0) / SHARES[:, None]
    return float((joint * np.log(np.maximum(ratio, 1e-300))).sum() * (grid[1] - grid[0]))


@pytest.mark.parametrize("apart", [0.0, 0.5, 1.0])
def test_information_of_a_label_is_that_of_quadrature(apart, margin):
    x, label = classes(400, 1, apart)
    found = mutual_information(x, label, draws=200)
    # Standard error of the mean of log p(x | c) / p(x) over 400 rows, and of the places between.
    margin(4 - abs(found.mean - information(apart)) / max(found.draws.std(), 0.01))


def test_both_orders_and_every_kind_of_label_are_one():
    x, label = classes(300, 2)
    first = mutual_information(x, label, draws=100)
    index = np.searchsorted(list("abc"), label)
    assert mutual_information(label, x, draws=100).mean == pytest.approx(first.mean)
    assert mutual_information(x, index, draws=100).mean == pytest.approx(first.mean)
    assert first.settings["classes"] == 3


def test_a_label_tells_no_more_than_itself():
    x, label = classes(200, 3, 20.0)
    share = np.unique(label, return_counts=True)[1] / 200
    found = mutual_information(x, label, draws=100)
    assert found.mean == pytest.approx(-(share * np.log(share)).sum(), abs=0.02)
    assert float(found.draws.max()) <= -(share * np.log(share)).sum() + 1e-12


@pytest.mark.parametrize(
    ("x", "label", "match"),
    [
        (
            np.arange(100.0),
            np.array(["a"] * 95 + ["b"] * 5),
            "20 rows of every class; got 5 of 'b'",
        ),
        (np.arange(100.0), np.array(["a"] * 100), "two classes or more"),
        (np.arange(90.0), np.array(["a", "b"] * 50), "got 100 for 90 rows"),
        (np.arange(40.0), np.array(["a", "b"] * 20), "at least 50 paired rows"),
        (np.full(100, np.nan), np.array(["a", "b"] * 50), "finite"),
    ],
)
def test_refused(x, label, match):
    with pytest.raises(ValueError, match=match):
        mutual_information(x, label, draws=10)


def test_the_command_reads_a_label_from_a_field(tmp_path, capsys):
    x, label = classes(200, 4)
    np.save(tmp_path / "x.npy", x[:, None])
    table = tmp_path / "y.csv"
    table.write_text("kind,other\n" + "".join(f"{one},1\n" for one in label))
    files = [str(tmp_path / "x.npy"), str(table)]
    assert command.main(["mi", *files, "--y-label", "kind", "--draws", "100", "--json"]) == 0
    term = json.loads(capsys.readouterr().out)["terms"]["mutual_information"]
    same = mutual_information(x, label, draws=100)
    assert term["mean"] == pytest.approx(same.mean)
    assert command.main(["mi", *files, "--y-label", "sort", "--draws", "100"]) == 2
    assert "'sort'" in capsys.readouterr().err
    table.write_text("kind,other\n,1\n" + "".join(f"{one},1\n" for one in label[1:]))
    assert command.main(["mi", *files, "--y-label", "kind"]) == 2
    assert "none in row 1" in capsys.readouterr().err
