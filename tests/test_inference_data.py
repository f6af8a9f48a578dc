"""InferenceData under whichever ArviZ is installed; nothing here needs torch."""

import subprocess
import sys
import warnings

import matplotlib
import numpy as np
import pytest
import xarray as xr

from rbpp import inference_data
from rbpp.inference_data import (
    group_datasets,
    highest_density_interval,
    read,
    term_table,
    with_attrs,
    write,
)
from rbpp.variables import VARIABLES

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz as az

matplotlib.use("Agg")
CHAINS, DRAWS, ROWS, WORLDS = 4, 250, 40, 3
# The variables table of the design: names that programs outside this repository rely on.
CONTRACT = """
entropy_anchor entropy_output entropy_synthetic entropy_gap information_gain
information_prompt_output entropy_model_factor compression_bottleneck efficiency
information_synthetic_learner information_synthetic_learner_lower
information_synthetic_learner_upper information_anchor_learner information_anchor_learner_lower
information_anchor_learner_upper bound_information_flow bound_chain_rule task_divergence
generation_divergence total_divergence generalization_error bound_synthetic bound_synthetic_sharp
bound_anchor ggmi bound_ggmi bound_ggmi_corrected kl_gap kl_gap_coverage kl_gap_histogram
irrelevant_share uncovered_share novel_share effective_components mutual_information
""".split()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def data(rng):
    """All groups, with a scalar term, a term per world, and parameters."""
    shape = (CHAINS, DRAWS)
    data = inference_data.make(
        {
            "ggmi": rng.normal(2, 1, shape),
            "ggmi_mcse": np.full(shape, 0.25),
            "kl_gap": rng.normal(0, 1, (*shape, WORLDS)),
            "weight": rng.dirichlet(np.ones(2), shape),
            "mean": rng.normal(0, 1, (*shape, 2, 3)),
        },
        sample_stats={"lp": rng.normal(0, 1, shape), "elbo": -np.arange(CHAINS, dtype=float)},
        log_likelihood={"rows": rng.normal(-3, 0.1, (*shape, ROWS))},
        observed_data={"rows": rng.normal(0, 1, (ROWS, 3))},
        constant_data={"seed": 3, "noise": 0.5, "name": "π", "flag": True, "sizes": [2, 3]},
        dims={
            "kl_gap": ["world"],
            "weight": ["component"],
            "mean": ["component", "dim"],
        },
        coords={"world": ["a", "b", "c"]},
    )
    return with_attrs(data, settings={"seed": 3}, title="test", count=2)


def same(left, right):
    """Every group, variable, dimension, coordinate and attribute alike."""
    first, second = group_datasets(left), group_datasets(right)
    assert first.keys() == second.keys()
    for name, group in first.items():
        xr.testing.assert_identical(group, second[name])
    assert dict(left.attrs) == dict(right.attrs)
    return True


@pytest.mark.parametrize("name", CONTRACT)
def test_every_contract_variable_is_described(name):
    variable = VARIABLES[name]
    assert variable.long_name
    assert variable.units in ("nats", "loss", "1")
    assert any(character.isdigit() for character in variable.equation)
    companion = VARIABLES[f"{name}_mcse"]
    assert companion.units == variable.units
    assert "Monte Carlo" in companion.long_name


def test_a_term_that_nothing_describes_is_an_error():
    with pytest.raises(ValueError, match="describes; got entropy_unheard_of"):
        inference_data.from_estimates({"entropy_unheard_of": None})


def test_type_is_that_of_the_installed_arviz(data):
    modern = int(az.__version__.split(".")[0]) >= 1
    assert isinstance(data, xr.DataTree) == modern
    assert type(data).__name__ == ("DataTree" if modern else "InferenceData")


def test_groups_dims_coords_and_attributes(data):
    groups = group_datasets(data)
    assert set(groups) == {
        "posterior",
        "sample_stats",
        "log_likelihood",
        "observed_data",
        "constant_data",
    }
    posterior = groups["posterior"]
    assert posterior["mean"].dims == ("chain", "draw", "component", "dim")
    assert posterior["kl_gap"].dims == ("chain", "draw", "world")
    assert list(posterior["world"].values) == ["a", "b", "c"]
    assert posterior.sizes["chain"] == CHAINS
    assert posterior.sizes["draw"] == DRAWS
    assert posterior["ggmi"].attrs == VARIABLES["ggmi"].attrs
    assert posterior["weight"].attrs == {}
    assert groups["sample_stats"]["elbo"].dims == ("chain", "draw")
    assert groups["observed_data"]["rows"].shape == (ROWS, 3)
    assert groups["constant_data"]["seed"].item() == 3


def test_indexing_by_group_and_variable(data):
    assert data["posterior"]["ggmi"].shape == (CHAINS, DRAWS)
    assert "ggmi" in data["posterior"]
    assert data["posterior"]["ggmi"].attrs["units"] == "nats"


def test_mcse_takes_the_dimensions_of_its_term(rng):
    values = rng.normal(size=(1, 5, WORLDS))
    data = inference_data.make(
        {"kl_gap": values, "kl_gap_mcse": values}, dims={"kl_gap": ["world"]}
    )
    assert data["posterior"]["kl_gap_mcse"].dims == ("chain", "draw", "world")


def test_summary(data):
    summary = az.summary(data, var_names=["ggmi", "kl_gap"])
    assert list(summary.index) == ["ggmi", "kl_gap[a]", "kl_gap[b]", "kl_gap[c]"]
    assert float(summary.loc["ggmi", "mean"]) == pytest.approx(2, abs=0.15)
    assert float(summary.loc["ggmi", "r_hat"]) < 1.05


def test_rhat_tells_restarts_that_disagree(rng):
    agree = rng.normal(size=(CHAINS, DRAWS))
    data = inference_data.make({"ggmi": agree, "kl_gap": agree + 10 * np.arange(CHAINS)[:, None]})
    rhat = az.rhat(data)
    rhat = rhat["posterior"] if "posterior" in getattr(rhat, "children", {}) else rhat
    assert float(rhat["ggmi"]) < 1.05
    assert float(rhat["kl_gap"]) > 2


def test_loo(data):
    loo = az.loo(data)
    value = loo.elpd if hasattr(loo, "elpd") else loo.elpd_loo
    # The rows are near independent of the draw: log mean of exp(−3 ± 0.1), each.
    assert value == pytest.approx(-3 * ROWS, abs=1)


@pytest.mark.parametrize("name", ["plot_forest", "plot_trace", "plot_trace_dist"])
@pytest.mark.filterwarnings("ignore")
def test_plots(data, name):
    if not hasattr(az, name):
        pytest.skip(f"ArviZ {az.__version__} has no {name}")
    assert getattr(az, name)(data, var_names=["ggmi", "kl_gap"]) is not None


def test_round_trip_through_netcdf(data, tmp_path):
    path = tmp_path / "π one.nc"
    write(data, path)
    assert same(read(path), data)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    write(with_attrs(read(path), title="again"), path)  # in place: the file is not held open
    assert read(path).attrs["title"] == "again"


def test_arviz_reads_what_is_written(data, tmp_path):
    write(data, tmp_path / "x.nc")
    own = az.from_netcdf(tmp_path / "x.nc")
    assert own["posterior"]["ggmi"].attrs["equation"] == "Definition 4.9"
    assert own.attrs["settings"] == '{"seed": 3}'


def test_failed_write_leaves_the_old_file(data, tmp_path):
    path = tmp_path / "x.nc"
    write(data, path)
    before = path.read_bytes()
    with pytest.raises(Exception):  # noqa: B017 - whatever the backend says of the attribute
        write(_with_unwritable_attribute(data), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x.nc"]


def _with_unwritable_attribute(data):
    broken = with_attrs(data)
    broken.attrs["bad"] = object()
    return broken


@pytest.mark.parametrize("content", [b"", b"no NetCDF", b"\x89HDF\r\n\x1a\n" + b"x" * 40])
def test_reading_another_file_is_one_clear_error(content, tmp_path):
    path = tmp_path / "x.nc"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"Expected a NetCDF file of rbpp; got .*x\.nc"):
        read(path)


def test_reading_a_cut_file_is_one_clear_error(data, tmp_path):
    path = tmp_path / "x.nc"
    write(data, path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="Expected a NetCDF file"):
        read(path)


def test_reading_netcdf_without_a_posterior_names_what_is_there(tmp_path):
    path = tmp_path / "x.nc"
    xr.Dataset({"a": 1}).to_netcdf(path, group="other", engine="h5netcdf")
    with pytest.raises(ValueError, match=r"group `posterior`.*got groups \['other'\]"):
        read(path)
    xr.Dataset({"a": 1}).to_netcdf(path, group="posterior", engine="h5netcdf")
    with pytest.raises(ValueError, match="dimensions chain and draw"):
        read(path)


def test_reading_no_file_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        read(tmp_path / "absent.nc")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"posterior": {"ggmi": [1.0, 2.0]}}, r"ggmi of shape \(chain, draw, …\); got \(2,\)"),
        ({"posterior": {"ggmi": np.empty((1, 0))}}, r"ggmi of shape .*; got \(1, 0\)"),
        (
            {"posterior": {"ggmi": np.ones((1, 4)), "kl_gap": np.ones((1, 5))}},
            "Expected 4 of dimension draw in posterior variable kl_gap",
        ),
        (
            {"posterior": {"ggmi": np.ones((2, 4))}, "sample_stats": {"elbo": np.ones(3)}},
            "Expected 2 of dimension chain in sample_stats variable elbo",
        ),
        (
            {"posterior": {"ggmi": np.ones((1, 4, 2))}, "dims": {"ggmi": ["a", "b"]}},
            r"dimensions \['a', 'b'\] in posterior variable ggmi; got 1 dimension",
        ),
        (
            {"posterior": {"ggmi": 1.0}, "constant_data": {"knob": object()}},
            "constant_data variable knob of numbers, booleans or strings",
        ),
        (
            {"posterior": {"x": np.ones((1, 1, 2))}, "dims": {"x": ["a"]}, "coords": {"a": [1]}},
            "'?a'?",
        ),
    ],
)
def test_bad_arrays_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        inference_data.make(**arguments)


def test_terms_table_against_numpy_and_arviz(data):
    table = term_table(data, 0.5)
    assert list(table) == ["ggmi", "kl_gap[a]", "kl_gap[b]", "kl_gap[c]"]
    draws = data["posterior"]["ggmi"].values.ravel()
    term = table["ggmi"]
    assert set(term) == {"mean", "sd", "hdi_low", "hdi_high", "mcse"}
    assert term["mean"] == pytest.approx(draws.mean())
    assert term["sd"] == pytest.approx(draws.std(ddof=1))
    assert term["mcse"] == pytest.approx(0.25)
    assert table["kl_gap[a]"]["mcse"] is None
    hdi = np.asarray(az.hdi(draws, **{_hdi_argument(): 0.5}))
    assert (term["hdi_low"], term["hdi_high"]) == pytest.approx(tuple(hdi))


def _hdi_argument():
    return "prob" if int(az.__version__.split(".")[0]) >= 1 else "hdi_prob"


@pytest.mark.parametrize("probability", [0.01, 0.5, 0.94, 0.999])
def test_interval_holds_its_share_and_is_the_shortest(rng, probability):
    draws = rng.gamma(2, size=400)
    low, high = highest_density_interval(draws, probability)
    inside = ((draws >= low) & (draws <= high)).mean()
    assert inside == pytest.approx(probability, abs=1 / 400 + 1e-9)
    tails = (1 - probability) / 2
    equal_tailed = np.quantile(draws, [tails, 1 - tails], method="inverted_cdf")
    assert high - low <= np.ptp(equal_tailed) + 1e-12


@pytest.mark.parametrize("probability", [0, 1, -0.1, 94, float("nan")])
def test_probability_outside_its_range(data, probability):
    with pytest.raises(ValueError, match="hdi_prob between 0 and 1"):
        term_table(data, probability)


def test_one_draw_has_no_spread():
    data = inference_data.make({"ggmi": 1.5, "ggmi_mcse": 0.1})
    assert term_table(data)["ggmi"] == {
        "mean": 1.5,
        "sd": None,
        "hdi_low": None,
        "hdi_high": None,
        "mcse": pytest.approx(0.1),
    }


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_draw_that_is_no_number_gives_no_number(bad):
    draws = np.array([[1.0, bad, 2.0]])
    term = term_table(inference_data.make({"ggmi": draws}))["ggmi"]
    assert set(term.values()) == {None}


def test_terms_of_two_dimensions_carry_both_labels(rng):
    values = rng.normal(size=(1, 6, 2, 3))
    data = inference_data.make(
        {"kl_gap": values}, dims={"kl_gap": ["K", "world"]}, coords={"K": [2, 15]}
    )
    table = term_table(data)
    assert list(table)[-1] == "kl_gap[15, 2]"
    assert table["kl_gap[15, 2]"]["mean"] == pytest.approx(values[0, :, 1, 2].mean())


def test_tensors_are_taken_as_they_are():
    torch = pytest.importorskip("torch")
    tensor = torch.ones(1, 3, dtype=torch.float32, requires_grad=True)
    for given in (tensor, tensor.bfloat16()):  # NumPy has none: float32 holds it without loss
        array = inference_data.make({"ggmi": given})["posterior"]["ggmi"]
        assert array.dtype == np.float32
        assert array.values.tolist() == [[1.0, 1.0, 1.0]]


def test_torch_is_not_imported():
    program = (
        "import sys, rbpp, rbpp.inference_data, rbpp.variables, rbpp.display, rbpp.command\n"
        "rbpp.inference_data.term_table(rbpp.inference_data.make({'ggmi': 1.0}))\n"
        "assert 'torch' not in sys.modules and 'pyro' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)
