"""Units of the entropies of an assessment: the same beside every synthetic file, and said."""

import numpy as np
import pytest

from rbpp.assessment import density_terms
from rbpp.assessment.sources import read_sources
from rbpp.assessment.weighted_rows import Draws

RANDOM = np.random.default_rng(0)
ANCHOR, TARGET = RANDOM.normal(size=(60, 3)), RANDOM.normal(size=(80, 3))
SCALES = np.array([1.0, 30.0, 0.1])


def entropies(synthetic, scales):
    sources = {"anchor": ANCHOR, "synthetic": synthetic, "target": TARGET}
    found = density_terms.Densities(3)
    rows = read_sources({name: rows * scales for name, rows in sources.items()})
    density_terms._entropies(found, rows, Draws(100))
    (check,) = found.checks
    return {name: one.value for name, one in found.terms.items()}, check


@pytest.mark.parametrize(
    ("scales", "words"),
    [(np.ones(3), "units of the input"), (SCALES, "standard deviations of the columns")],
)
def test_two_synthetic_files_leave_the_anchors_entropy(scales, words):
    near, far = (
        entropies(spread * RANDOM.normal(size=(90, 3)) + spread, scales) for spread in (1.0, 5.0)
    )
    np.testing.assert_allclose(near[0]["entropy_anchor"], far[0]["entropy_anchor"], rtol=1e-6)
    assert far[0]["entropy_synthetic"].mean() > near[0]["entropy_synthetic"].mean() + 90
    assert words in far[1].message
    assert far[1].verdict == "holds"


def test_entropies_of_categories_say_that_they_do_not_compare():
    random = np.random.default_rng(1)

    def table(rows):
        kind = random.choice(["a", "b"], rows)
        return [
            {"x": float(x), "y": float(y), "kind": str(one)}
            for x, y, one in zip(*random.normal(size=(2, rows)), kind, strict=True)
        ]

    rows = read_sources({"anchor": table(60), "synthetic": table(60), "target": table(60)})
    _, unit, comparable = density_terms._task_units(rows)
    assert not comparable
    assert "other beside other synthetic rows" in unit
