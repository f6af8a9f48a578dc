"""Posteriors of worlds: exact ones, engines beside each other, ArviZ on what comes out."""

import math
import warnings
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import Normal

import rbpp
from rbpp import inference_data
from rbpp.compute import Compute
from rbpp.mixtures.until_level import Ascended
from rbpp.posterior import auto, variational
from rbpp.posterior.density import ConditionedDensity
from rbpp.posterior.labels import symmetries
from rbpp.processes.simulation import simulate_tensors
from rbpp.randomness import seeded
from tests.posterior.test_density import coin, readme, readme_moments

HERE = Path(__file__).parent


def funnel(outputs: int = 6):
    """The spread of the anchors is latent: no normal stands for this posterior."""
    spread = pyro.sample("spread", dist.LogNormal(0.0, 1.0))
    with pyro.plate("anchors", 4):
        anchor = pyro.sample(
            "anchor", dist.Normal(torch.zeros(1), spread.unsqueeze(-1)).to_event(1)
        )
    prompt = pyro.deterministic("prompt", anchor)
    with pyro.plate("outputs", outputs):
        output = pyro.sample("output", dist.Normal(prompt.mean(-2, keepdim=True), 1.0).to_event(1))
        pyro.sample("synthetic", dist.Normal(output, 0.3).to_event(1))


def other_centre(anchors: int = 4, outputs: int = 6):
    """The README's process with a prior that its rows contradict."""
    centre = pyro.sample("centre", dist.Normal(0.0, 0.1).expand([1]).to_event(1))
    with pyro.plate("anchors", anchors):
        anchor = pyro.sample("anchor", dist.Normal(centre, 0.1).to_event(1))
    prompt = pyro.deterministic("prompt", anchor)
    with pyro.plate("outputs", outputs):
        where = prompt.mean(-2, keepdim=True)
        output = pyro.sample("output", dist.Normal(where, 0.5).to_event(1))
        pyro.sample("synthetic", dist.Normal(output, 0.1).to_event(1))


def rows_of(process, seed=1, site="synthetic", **knobs):
    """One data set."""
    process = rbpp.load_process(process, **knobs)
    return simulate_tensors(process, compute=Compute(seed=seed)).sites[site][0, 0]


def draws_of(posterior, name):
    """All draws of a site, flat."""
    values = inference_data.group_datasets(posterior.idata)["posterior"][name].values
    return values.reshape(-1, *values.shape[2:])


def test_posterior_of_the_readme_is_the_closed_form(margin):
    rows = rows_of(readme)
    posterior = rbpp.infer(readme, {"synthetic": rows}, seed=1)
    covariance, with_centre = readme_moments(4, 6)
    gain = torch.linalg.solve(covariance, with_centre)
    mean, sd = float(gain @ rows[:, 0]), math.sqrt(9 - float(gain @ with_centre))
    centre = draws_of(posterior, "centre")[:, 0]
    assert (posterior.engine, posterior.exact) == ("laplace", True)
    # 1,000 draws: 0.03 standard deviations of the mean, 2 % of the spread.
    margin(4 * sd / math.sqrt(1000) - abs(centre.mean() - mean))
    margin(4 - abs(centre.std() / sd - 1) * math.sqrt(2000))


@pytest.mark.parametrize(
    "engine", ["auto", "hmc", pytest.param("nuts", marks=pytest.mark.slow), "svi"]
)
def test_letters_have_their_exact_posterior(engine, margin):
    """P(kind | rows) with all normals integrated out by hand."""
    rows = torch.full((5, 1), 1.2, dtype=torch.float64)
    posterior = rbpp.infer(coin, {"synthetic": rows}, engine=engine, draws=400, seconds=1000)
    logits = []
    for kind, (share, mean) in enumerate([(0.2, -2.0), (0.3, 0.0), (0.5, 2.0)]):
        covariance = torch.full((5, 5), 1.5) + torch.eye(5)
        location = torch.full((5,), mean + kind)
        normal = torch.distributions.MultivariateNormal(location.double(), covariance.double())
        logits.append(math.log(share) + float(normal.log_prob(rows[:, 0])))
    exact = torch.tensor(logits).softmax(-1).numpy()
    shares = np.bincount(draws_of(posterior, "kind"), minlength=3) / 1600
    # Chains move between letters as the normals do: 400 effective draws are what they promise.
    margin(4 * np.sqrt(exact * (1 - exact) / 400) + 0.002 - np.abs(shares - exact))


def test_a_latent_spread_has_the_posterior_that_quadrature_gives(margin):
    rows = rows_of(funnel, seed=5)
    posterior = rbpp.infer(funnel, {"synthetic": rows}, seed=1, draws=500)
    grid = torch.linspace(-6, 6, 4001, dtype=torch.float64)
    spread = grid.exp()
    # The rows' mean is sufficient: anchors' mean has variance spread² / 4, rows 1.09 / 6 beside it.
    mean = rows.mean()
    log = Normal(0.0, (spread.square() / 4 + 1.09 / 6).sqrt()).log_prob(mean)
    weights = (log + Normal(0.0, 1.0).log_prob(grid)).softmax(-1)
    exact_mean = float(weights @ grid)
    exact_sd = math.sqrt(float(weights @ grid.square()) - exact_mean**2)
    log_spread = np.log(draws_of(posterior, "spread"))
    assert posterior.exact
    # Four standard errors of 400 effective draws, of the mean and of the spread.
    margin(4 * exact_sd / math.sqrt(400) - abs(log_spread.mean() - exact_mean))
    margin(4 / math.sqrt(2 * 400) - abs(log_spread.std() / exact_sd - 1))


@pytest.mark.parametrize("guide", ["normal", "multivariate", "lowrank", "flow"])
def test_guides_find_the_closed_form(guide, margin):
    rows = rows_of(readme, anchors=1, outputs=4)
    posterior = rbpp.infer(
        readme, {"synthetic": rows}, engine="svi", guide=guide, seconds=100, seed=2
    )
    assert posterior.engine == "svi"
    laplace = rbpp.infer(readme, {"synthetic": rows}, engine="laplace", seed=2)
    found, exact = draws_of(posterior, "centre"), draws_of(laplace, "centre")
    # Means of 1,000 draws beside 1,000 differ by √(2 / 1000) = 0.045 spreads, spreads by
    # √(1 / 1000) = 0.032: limits are 4.5 and 4.7 of them.
    margin(0.2 - abs(found.mean() - exact.mean()) / exact.std())
    margin(0.15 - abs(found.std() / exact.std() - 1))


def test_a_guide_of_ones_own_and_subsampled_rows(margin):
    rows = rows_of(other_centre, outputs=40)
    posterior = rbpp.infer(
        other_centre,
        {"synthetic": rows},
        engine="svi",
        guide=f"{HERE / 'guides.py'}:guide",
        batch_rows=10,
        seconds=100,
    )
    exact = rbpp.infer(other_centre, {"synthetic": rows}, engine="laplace")
    found, expected = draws_of(posterior, "centre"), draws_of(exact, "centre")
    # 4.5 standard errors √(2 / 1000) of the difference of two means of 1,000 draws.
    margin(0.2 - abs(found.mean() - expected.mean()) / expected.std())


def test_a_guide_of_ones_own_that_ends_without_an_elbo_is_refused(monkeypatch):
    """Pyro steps by gradients that are not finite too: a finite ELBO before says nothing."""
    monkeypatch.setattr(
        variational, "until_level", lambda *_, **__: Ascended([-1.0] * 200 + [math.nan], True)
    )
    with pytest.raises(ValueError, match="finite ELBO; got nan"):
        rbpp.infer(
            readme,
            {"synthetic": rows_of(readme)},
            engine="svi",
            guide=f"{HERE / 'guides.py'}:guide",
        )


def test_rows_of_a_batch_estimate_the_density_without_bias(margin):
    process = rbpp.load_process(readme, outputs=12)
    density = ConditionedDensity(process, {"synthetic": rows_of(readme, outputs=12)})
    vector = density.prior_vectors(1, 0)
    source = torch.Generator().manual_seed(0)
    values = torch.stack([density.of_rows(vector, 3, source)[0] for _ in range(400)])
    margin(4 - float(abs(values.mean() - density(vector)[0]) / (values.std() / 20)))


@pytest.fixture(scope="module")
def posterior():
    return rbpp.infer(readme, {"synthetic": rows_of(readme)}, keep=["anchor"], seed=1)


def test_everything_arviz_does_works(posterior):
    with warnings.catch_warnings(), seeded(0):  # ArviZ draws from global state
        warnings.simplefilter("ignore")
        import arviz as az

        summary = az.summary(posterior.idata)
        assert "centre[0]" in summary.index
        assert any(name.startswith("anchor[") for name in summary.index)
        az.plot_pair(posterior.idata, var_names=["centre", "anchor"])
        az.plot_ppc(posterior.idata)
        loo = az.loo(posterior.idata)
        assert np.isfinite(loo.elpd_loo if hasattr(loo, "elpd_loo") else loo.elpd)
        other = rbpp.infer(other_centre, {"synthetic": rows_of(readme)}, seed=1)
        table = az.compare({"readme": posterior.idata, "other": other.idata})
        assert table.index[0] == "readme"
        from matplotlib import pyplot

        pyplot.close("all")


def test_groups_and_dimensions(posterior):
    groups = inference_data.group_datasets(posterior.idata)
    assert dict(groups["posterior"].sizes) == {"chain": 4, "draw": 250, "dim": 1, "anchors": 4}
    assert groups["prior"]["centre"].shape == (4, 250, 1)
    assert groups["posterior_predictive"]["synthetic"].dims == ("chain", "draw", "outputs", "dim")
    assert groups["log_likelihood"]["synthetic"].shape == (4, 250, 6)
    assert groups["observed_data"]["synthetic"].shape == (6, 1)
    assert int(groups["constant_data"]["outputs"]) == 6
    assert set(groups["sample_stats"]) >= {"lp", "log_q", "pareto_k", "efficiency"}


def test_log_likelihood_and_prediction_are_those_of_the_process(posterior, margin):
    groups = inference_data.group_datasets(posterior.idata)
    rows = torch.as_tensor(groups["observed_data"]["synthetic"].values)[:, 0]
    new = groups["posterior_predictive"]["synthetic"].values[..., 0]
    centre = groups["posterior"]["centre"].values
    # New rows are the centre and noise of 1/4 + 0.01 + 0.25 + 0.01.
    margin(0.05 - abs(np.std(new - centre) / math.sqrt(0.52) - 1))
    likelihood = groups["log_likelihood"]["synthetic"].values
    assert likelihood.max() <= float(Normal(rows, math.sqrt(0.26)).log_prob(rows).max()) + 1e-9


def test_data_sets_share_a_world(margin):
    simulated = simulate_tensors(rbpp.load_process(readme), replicates=5, compute=Compute(seed=3))
    rows = simulated.sites["synthetic"][0]
    posterior = rbpp.infer(readme, {"synthetic": rows}, seed=0)
    groups = inference_data.group_datasets(posterior.idata)
    assert groups["posterior_predictive"]["synthetic"].sizes["replicate"] == 5
    # Five means of rows, each of the centre with variance 1/4 + 0.01 + 0.26/6.
    precision = 1 / 9 + 5 / (0.26 + 0.26 / 6)
    centre = draws_of(posterior, "centre")
    margin(4 - abs(centre.std() * precision**0.5 - 1) * math.sqrt(2000))


def test_other_sites_are_observed_too(margin):
    simulated = simulate_tensors(rbpp.load_process(readme), compute=Compute(seed=3))
    rows = {name: simulated.sites[name][0, 0] for name in ("anchor", "synthetic")}
    posterior = rbpp.infer(readme, rows, seed=0)
    centre = draws_of(posterior, "centre")
    # Given the anchors nothing else speaks of the centre.
    margin(4 - abs(centre.std() * (1 / 9 + 4) ** 0.5 - 1) * math.sqrt(2000))


def test_the_size_of_a_plate_is_set_to_the_rows():
    posterior = rbpp.infer(readme, {"synthetic": rows_of(readme, outputs=11)}, seed=0)
    assert posterior.process.knobs["outputs"] == 11
    with pytest.raises(ValueError, match="gives plate 'anchors' 7 rows"):
        anchors = np.zeros((7, 2))
        rbpp.infer("gaussian_mixture", {"anchor": anchors})


def test_sites_that_no_data_inform_are_named():
    rows = rows_of("invertible_prompt", site="anchor")
    posterior = rbpp.infer("invertible_prompt", {"anchor": rows}, seed=0, seconds=60)
    (check,) = [one for one in posterior.checks if one.statement.startswith("the data inform")]
    assert check.verdict == "violated"
    assert {"offset", "shear", "coupling", "generator_mean"} <= set(
        check.message.partition(":")[0].split(", ")
    )
    assert "task_mean" not in check.message


def test_rows_that_the_process_does_not_make_are_told_apart():
    generator = np.random.default_rng(0)
    alike = rbpp.infer(readme, {"synthetic": rows_of(readme, outputs=60)}, seed=0)
    assert all(one.verdict == "holds" for one in alike.checks if "like yours" in one.statement)
    lumps = np.where(generator.random((60, 1)) < 0.5, -4.0, 4.0)
    lumps = lumps + 0.01 * generator.normal(size=lumps.shape)
    posterior = rbpp.infer(readme, {"synthetic": lumps}, seed=0)
    verdicts = {one.statement: one.verdict for one in posterior.checks}
    assert verdicts["new rows of synthetic are like yours: standard deviation"] == "violated"
    assert verdicts["new rows of synthetic are like yours: log distance to the nearest neighbour"]


def test_components_without_an_order_are_found_and_ordered():
    knobs = {"K": 2, "J": 1, "L": 0, "anchors_per_component": 4, "outputs": 12, "noise": 0.1}
    process = rbpp.load_process("gaussian_mixture", **knobs)
    values = simulate_tensors(process, compute=Compute(seed=1)).sites
    free = ConditionedDensity(process, {"synthetic": values["synthetic"][0, 0]})
    symmetry, *columns = symmetries(free, 0)
    assert symmetry.classes == ((0, 1),)
    assert [one.axis for one in columns] == [-1] * 3  # A and A with its columns swapped: one A Aᵀ
    vectors = free.prior_vectors(5, 3)
    order = torch.tensor([[1, 0, 2]]).expand(5, 3)
    swapped = symmetry.permuted(vectors, order)
    assert not torch.allclose(vectors, swapped)
    torch.testing.assert_close(free(vectors), free(swapped))
    torch.testing.assert_close(symmetry.relabelled(swapped[:1], vectors[0]), vectors[:1])
    # Anchors come in blocks by component: once they are given, components have an order.
    given = symmetries(ConditionedDensity(process, {"anchor": values["anchor"][0, 0]}), 0)
    assert [one.axis for one in given] == [-1] * 3
    one = columns[1]
    swapped = one.permuted(vectors, torch.tensor([[1, 0]]).expand(5, 2))
    assert not torch.allclose(vectors, swapped)
    torch.testing.assert_close(free(vectors), free(swapped))
    torch.testing.assert_close(one.relabelled(swapped[:1], vectors[0]), vectors[:1])


class Patience:
    """A limit that passes after so many questions, whatever the machine's speed."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0

    def before(self, seconds: float) -> "Patience":
        return self

    def allows(self, seconds: float) -> bool:
        return self.left > 0


def test_chains_have_the_draws_that_were_asked_for(monkeypatch):
    rows = rows_of(readme)
    posterior = rbpp.infer(readme, {"synthetic": rows}, engine="hmc", draws=900, seconds=600)
    group = inference_data.group_datasets(posterior.idata)["posterior"]
    assert (group.sizes["chain"], group.sizes["draw"]) == (4, 900)
    assert posterior.settings["draws"] == 900
    assert len(np.unique(group["centre"].values)) > 3000  # the others are rejected moves
    monkeypatch.setattr(auto.Limit, "after", lambda _: Patience(2000))
    few = rbpp.infer(readme, {"synthetic": rows}, engine="hmc", draws=10**5, accept=True)
    drawn = inference_data.group_datasets(few.idata)["posterior"].sizes["draw"]
    assert f"{drawn} draws a chain instead of the 100000 asked for" in few.story[-1]


def test_rows_left_out_look_like_new_ones_where_the_process_makes_them():
    process = rbpp.load_process(readme, outputs=60)
    rows = simulate_tensors(process, compute=Compute(seed=1)).sites["synthetic"][0, 0]
    sign = torch.arange(60, dtype=torch.float64).remainder(2).unsqueeze(-1) - 0.5
    apart = rows.mean() + 2 * sign + 0.2 * (rows - rows.mean())
    verdicts = []
    for given in (rows, apart):
        found = rbpp.infer(process, {"synthetic": given}, seconds=300)
        verdicts += [one.verdict for one in found.checks if "left out" in one.statement]
    assert verdicts == ["holds", "violated"]


def test_draws_that_nothing_trusts_are_refused_or_named():
    rows = rows_of(funnel, seed=5)
    with pytest.raises(ValueError, match="diagnostics trust within"):
        rbpp.infer(funnel, {"synthetic": rows}, engine="hmc", seconds=0.01)
    # Until its ELBO is level, so that the speed of the machine decides nothing.
    with pytest.raises(ValueError, match="diagnostics trust within"):
        rbpp.infer(funnel, {"synthetic": rows}, engine="svi", guide="normal", seconds=60)
    with pytest.warns(UserWarning, match="approximate posterior"):
        posterior = rbpp.infer(
            funnel,
            {"synthetic": rows},
            engine="svi",
            guide="normal",
            seconds=60,
            accept=True,
        )
    assert not posterior.exact
    assert posterior.checks[0].verdict == "undecided"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"data": {}}, "at least one site"),
        ({"data": {"synthetic": np.array([[np.nan]])}}, "finite rows"),
        ({"engine": "magic"}, "engine"),
        ({"guide": "flow"}, "engine svi"),
        ({"batch_rows": 3}, "engine svi"),
        ({"engine": "svi", "guide": "magic"}, "guide to be one of"),
        ({"engine": "svi", "guide": f"{HERE / 'guides.py'}:other_site"}, "one site 'whitened'"),
        ({"draws": 0}, "draws"),
        ({"seconds": 0}, "seconds"),
        ({"keep": ["target"]}, "to keep"),
    ],
)
def test_refused(options, match):
    options = {"data": {"synthetic": np.zeros((6, 1))}, **options}
    data = options.pop("data")
    with pytest.raises(ValueError, match=match):
        rbpp.infer(readme, data, **options)


def test_impossible_data_are_refused():
    with pytest.raises(ValueError, match="can have made"):
        rbpp.infer("gaussian_mixture", {"anchor": np.full((100, 2), 1e300)})
