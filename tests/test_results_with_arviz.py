"""ArviZ reads the InferenceData of every job's result without help: summaries, plots, frames."""

import warnings

import numpy as np
import pytest

from benchmarks.log_probabilities import Letters
from rbpp.assessment.assess import assess
from rbpp.assessment.compare import compare
from rbpp.channel.information import channel_information
from rbpp.channel.log_probabilities import log_probabilities
from rbpp.fine_tuning.fine_tunes import fine_tune_bounds
from rbpp.inference_data import group_datasets, terms_group, terms_of
from rbpp.kl_gap_study import study
from rbpp.mixtures.fit import fit_mixture
from rbpp.paired.mutual_information import mutual_information
from rbpp.posterior.worlds import infer
from rbpp.processes.simulation import simulate
from rbpp.theory.bounds import bounds
from rbpp.theory.settings import SampleSizes
from tests.posterior.test_density import readme

with warnings.catch_warnings():  # ArviZ 0.23 announces 1.0 whenever it is imported
    warnings.simplefilter("ignore", FutureWarning)
    import arviz

RANDOM = np.random.default_rng(0)
ROWS = {name: RANDOM.normal(size=(90, 2)) for name in ("anchor", "target", "first", "second")}
SMALL = {"chains": 2, "draws": 40}


def fine_tunes():
    masks = RANDOM.integers(0, 2, (6, 20))
    trained = np.stack([masks == 0, masks == 1], -1)
    losses = RANDOM.random((6, 20, 2)) * np.where(trained, 0.1, 1)  # rows are memorised
    return fine_tune_bounds(losses, masks, permutations=1, **SMALL)


def information():
    return mutual_information(
        ROWS["first"], ROWS["first"] + ROWS["second"], components=2, margins=["raw"], **SMALL
    )


def channel():
    outputs = Letters().draw(20, 2, np.random.default_rng(0), None)
    return channel_information(log_probabilities(**outputs), draws=40)


# A new job joins by a line: a small result, the group of its terms, and terms without repeated
# draws in any chain. Of an assessment these are the terms of the shared mixture.
JOBS = {
    "fit": (
        lambda: fit_mixture(ROWS["first"], 2, points=64, **SMALL),
        "posterior",
        ["entropy", "effective_components"],
    ),
    "channel": (channel, "posterior", ["information_gain", "information_prompt_output"]),
    "infer": (
        lambda: infer(readme, {"synthetic": ROWS["first"][:9, :1]}, draws=40),
        "posterior",
        ["centre"],
    ),
    "bounds": (
        lambda: bounds(
            "linear_gaussian",
            sizes=SampleSizes(worlds=5, replicates=16, pairs=8, groups=4, inner=4),
        ),
        "prior",
        ["entropy_anchor", "information_gain"],
    ),
    "assess": (
        lambda: assess(ROWS["anchor"], ROWS["first"], target=ROWS["target"], **SMALL),
        "posterior",
        ["effective_components", "information_synthetic_learner"],
    ),
    "compare": (
        lambda: compare({"one": ROWS["first"], "two": ROWS["second"]}, ROWS["target"], draws=40),
        "posterior",
        ["score", "score_equal_size"],
    ),
    "cmi": (fine_tunes, "posterior", ["held_out_loss", "bound_cmi_evaluated"]),
    "mi": (information, "posterior", ["mutual_information"]),
    "kl-gap": (
        lambda: study("K", [2, 3], worlds=2, posterior_draws=4, points=64),
        "posterior",
        ["kl_gap", "kl_gap_coverage"],
    ),
}


@pytest.fixture(scope="module", params=JOBS)
def job(request):
    make, group, distinct = JOBS[request.param]
    return make(), group, distinct


def test_terms_are_in_their_group(job):
    result, group, distinct = job
    assert terms_group(result.idata) == group
    assert set(distinct) <= set(terms_of(result.idata).data_vars)
    assert set(distinct) <= set(result.terms)


def test_no_draw_of_a_chain_is_another_one_repeated(job):
    result, _, distinct = job
    for name in distinct:
        value = terms_of(result.idata)[name].transpose("chain", "draw", ...)
        for draws in value.values.reshape(*value.shape[:2], -1):
            assert len(np.unique(draws, axis=0)) == len(draws), name


@pytest.mark.filterwarnings("ignore")
def test_arviz_summarises_and_diagnoses(job):
    result, group, distinct = job
    summary = arviz.summary(result.idata, group=group, var_names=distinct)
    assert summary["mean"].notna().all()
    sizes = arviz.ess(group_datasets(result.idata)[group][distinct])
    total = terms_of(result.idata).sizes["chain"] * terms_of(result.idata).sizes["draw"]
    for name in distinct:
        assert (sizes[name] > 0).all()
        # Of independent draws: chance takes the estimate up to some twice their number.
        assert (sizes[name] < 3 * total).all()


@pytest.mark.filterwarnings("ignore")
def test_arviz_plots(job):
    result, group, distinct = job
    names = distinct if len(distinct) > 1 else [*distinct, *_another(result, distinct)]
    drawn = group_datasets(result.idata)[group]  # a forest knows no groups
    assert arviz.plot_forest(drawn, var_names=distinct, combined=True) is not None
    if sum(result.terms[name].value[0, 0].numel() for name in names) > 1:
        assert arviz.plot_pair(result.idata, group=group, var_names=names) is not None


def _another(result, names):
    """A term of the shape of these, for a plot of pairs."""
    shape = result.terms[names[0]].value.shape
    return [n for n, e in result.terms.items() if n not in names and e.value.shape == shape][:1]


@pytest.mark.filterwarnings("ignore")
def test_data_frames(job):
    result, group, distinct = job
    dataset = terms_of(result.idata)
    frame = dataset[distinct].to_dataframe()
    assert len(frame) == np.prod([dataset[distinct].sizes[name] for name in dataset[distinct].dims])
    if hasattr(result.idata, "to_dataframe"):
        assert (
            len(result.idata.to_dataframe(groups=[group]))
            == dataset.sizes["chain"] * (dataset.sizes["draw"])
        )


def test_what_every_result_can_do(job, tmp_path):
    result, _, distinct = job
    assert type(result).__name__ in repr(result)
    assert len(result.summary()) > 0
    assert result.checks or type(result).__name__ == "Study"
    assert "<table" in result._repr_html_()
    result.save(tmp_path / "result.nc")
    assert all(draw() is not None for draw in result.figures(0.5).values())
    assert distinct[0] in " ".join(result.table())


@pytest.mark.filterwarnings("ignore")
def test_arviz_joins_results_along_chains_and_draws(job):
    result, _, distinct = job
    if not hasattr(arviz, "concat"):
        pytest.skip("ArviZ 1.x leaves both to xarray")
    terms = terms_of(result.idata)[distinct[0]]
    for dimension in ("chain", "draw"):
        joined = arviz.concat([result.idata, result.idata], dim=dimension)
        assert terms_of(joined)[distinct[0]].sizes[dimension] == 2 * terms.sizes[dimension]


def test_worlds_that_no_data_conditioned_are_in_the_prior():
    """A simulation has worlds, and no terms of them."""
    idata = simulate("linear_gaussian", worlds=40).idata
    assert terms_group(idata) == "prior"
    worlds = group_datasets(idata)["prior"]
    for variable in worlds.data_vars.values():
        draws = variable.transpose("chain", "draw", ...).values[0].reshape(40, -1)
        assert len(np.unique(draws, axis=0)) == 40
    assert arviz.summary(idata, group="prior")["mean"].notna().all()
    assert all((sizes > 0).all() for sizes in arviz.ess(worlds).data_vars.values())
    names = list(worlds.data_vars)[:2]
    assert arviz.plot_forest(worlds, var_names=names, combined=True) is not None
    assert arviz.plot_pair(idata, group="prior", var_names=names) is not None
    assert len(worlds.to_dataframe())
    if hasattr(arviz, "concat"):
        twice = arviz.concat([idata, idata], dim="draw")
        assert group_datasets(twice)["prior"].sizes["draw"] == 80
