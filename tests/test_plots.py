"""Figures draw what they are given, and return their axes."""

import matplotlib.colors
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.patches import Ellipse

from rbpp import inference_data, plots
from rbpp.kl_gap_study import study, world_posterior


@pytest.fixture(scope="module")
def world():
    return world_posterior(posterior_draws=5).idata


def ellipses(axis):
    return [patch for patch in axis.patches if isinstance(patch, Ellipse)]


def test_kl_gap_has_a_column_per_knob_and_a_row_per_direction():
    few = {"worlds": 4, "posterior_draws": 3, "points": 64}
    sweeps = {
        "K": study("K", [2, 3], **few).idata,
        "L": study("L", [1, 2], histogram_redraws=1, **few).idata,
    }
    axes = plots.plot_kl_gap(sweeps)
    assert axes.shape == (2, 2)  # the histogram is shown only where every sweep has it
    assert plots.plot_kl_gap({"L": sweeps["L"]}).shape == (3, 1)
    line = axes[0, 0].lines[0]
    expected = np.median(sweeps["K"]["posterior"]["kl_gap"].median(("chain", "draw")), axis=-1)
    np.testing.assert_allclose(line.get_ydata(), expected)
    assert axes[1, 1].get_xlabel() == "L"
    narrow = plots.plot_kl_gap(sweeps, hdi_prob=0.3)[0, 0]
    bars, shorter = (axis.collections[-1].get_segments()[0] for axis in (axes[0, 0], narrow))
    assert np.ptp(shorter[:, 1]) < np.ptp(bars[:, 1])
    given = pyplot.subplots(2, 2)[1]
    assert plots.plot_kl_gap(sweeps, given) is given


def test_chain_draws_an_ellipse_per_component_and_draw(world):
    axis = plots.plot_chain(world, draws=3)
    assert 3 * 2 < len(ellipses(axis)) <= 3 * (2 + 6)
    assert len(ellipses(plots.plot_chain(world, draws=1))) < len(ellipses(axis))
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["synthetic", "anchor"]


def test_parts_have_their_three_colours(world):
    axis = plots.plot_parts(world)
    colours = {matplotlib.colors.to_hex(patch.get_facecolor()) for patch in ellipses(axis)}
    assert colours == {colour.lower() for colour in plots.PART_COLOURS.values()}
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == ["synthetic", *plots.PART_COLOURS]


def test_an_ellipse_is_one_standard_deviation_along_the_principal_axes():
    covariance = np.array([[4.0, 0.0], [0.0, 1.0]])
    shape = plots.ellipse(np.array([1.0, 2.0]), covariance, 2)
    assert {shape.width, shape.height} == {8.0, 4.0}
    assert shape.center == (1.0, 2.0)


def test_forest_shows_the_named_terms_that_have_a_value():
    draws = np.linspace(0, 1, 20).reshape(1, 20)
    data = inference_data.make({"kl_gap": draws, "information_gain": np.full((1, 20), np.nan)})
    axis = plots.plot_forest(data, ["kl_gap", "information_gain", "absent"])
    assert len(axis.get_yticklabels()) == 1
    assert axis.get_xlabel() == "nats"
    wide, narrow = (
        plots.plot_forest(data, ["kl_gap"], hdi_prob=p).collections[0] for p in (0.9, 0.3)
    )
    assert np.ptp(wide.get_segments()[0][:, 0]) > np.ptp(narrow.get_segments()[0][:, 0])


def test_predictive_has_a_panel_per_coordinate_with_the_band_of_new_rows():
    new = np.random.default_rng(0).normal(size=(1, 50, 5, 2))
    data = inference_data.make(
        {"scale": np.ones((1, 50))},
        posterior_predictive={"output": new},
        observed_data={"output": np.zeros((5, 2))},
    )
    axes = plots.plot_predictive(data)
    assert [panel.get_visible() for panel in axes[0]] == [True, True, False, False]
    assert axes[0, 1].get_xlabel() == "output, coordinate 1"
    wide, narrow = (
        plots.plot_predictive(data, p)[0, 0].collections[0].get_paths()[0].get_extents().width
        for p in (0.94, 0.3)
    )
    assert narrow < wide
