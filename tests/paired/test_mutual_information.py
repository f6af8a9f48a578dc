"""Mutual information of paired rows: known values, invariances, every option, every bad input."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rbpp.command import main
from rbpp.inference_data import read
from rbpp.mixtures.cavi import cavi
from rbpp.mixtures.conjugate import default_prior
from rbpp.mixtures.normal_wishart import Parameters
from rbpp.paired.information_draws import normal_optimism
from rbpp.paired.joint_mixture import (
    Coordinates,
    expected_scale,
    fold_masks,
    growing_mixtures,
    of_own_fold,
    random_folds,
    split,
    stacking_weights,
)
from rbpp.paired.margins import (
    margin_log_density,
    normal_scores,
    student_log_density,
    student_pair_density,
    student_scores,
)
from rbpp.paired.mutual_information import mutual_information
from rbpp.paired.paired_rows import paired_rows
from rbpp.randomness import generator

ROWS = 400
# Known distributions are estimated from random rows: four posterior standard deviations, whose
# false-alarm rate is below 1e-4 for each of the few cases (the seeds are fixed on top).
TOLERANCE = 4


def normal_pair(count=ROWS, dim=1, correlation=0.8, seed=0):
    rng = np.random.default_rng(seed)
    x, noise = rng.standard_normal((2, count, dim))
    return x, correlation * x + math.sqrt(1 - correlation**2) * noise


def normal_truth(dim=1, correlation=0.8):
    return -0.5 * dim * math.log(1 - correlation**2)


@pytest.fixture(scope="module")
def pair():
    return normal_pair()


@pytest.fixture(scope="module")
def found(pair):
    return mutual_information(*pair)


def close(result, truth):
    return abs(result.mean - truth) < TOLERANCE * result.draws.std()


@pytest.mark.parametrize("dim", [1, 4])
def test_normal_rows(dim):
    result = mutual_information(*normal_pair(dim=dim))
    assert close(result, normal_truth(dim))
    assert result.components.get(1, 0) > 0.8  # one component is enough and is known to be


def test_many_dimensions_need_no_shrinkage_by_hand():
    """20 + 20 dimensions of 600 rows: the fitted average alone is 0.33 too large."""
    result = mutual_information(*normal_pair(600, 20, 0.2), draws=300)
    fitted = max(model.fitted for model in result.models if model.components == 1)
    assert close(result, normal_truth(20, 0.2))
    assert fitted - normal_truth(20, 0.2) > 0.25


def test_independent_rows_have_none_and_draws_are_never_negative():
    rng = np.random.default_rng(1)
    result = mutual_information(rng.standard_normal((ROWS, 2)), rng.standard_normal((ROWS, 2)))
    assert result.mean < 0.02
    assert result.draws.min() >= 0


def test_two_crossing_bars_need_a_mixture():
    """Uncorrelated, and yet X gives Y up to its sign."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal(1000)
    sign = rng.choice([-1, 1], 1000)
    y = sign * 0.95 * x + math.sqrt(1 - 0.95**2) * rng.standard_normal(1000)
    result = mutual_information(x, y)
    # By quadrature of ½ Σ_± N(0, [[1, ±0.95], [±0.95, 1]]) against its margins.
    grid = np.linspace(-6, 6, 1201)
    u, v = np.meshgrid(grid, grid, indexing="ij")
    root = math.sqrt(1 - 0.95**2)
    kernel = sum(np.exp(-((v - s * 0.95 * u) ** 2) / 2 / root**2) for s in (-1, 1)) / 2 / root
    margin = np.exp(-(u**2) / 2) / math.sqrt(2 * math.pi)
    joint = margin * kernel / math.sqrt(2 * math.pi)
    ratio = np.log(np.maximum(kernel, 1e-300)) + v**2 / 2
    truth = (joint * ratio).sum() * (grid[1] - grid[0]) ** 2
    assert close(result, truth)
    assert result.components.get(1, 0) < 0.01
    assert result.components.get(2, 0) > 0.5


def test_heavy_tails_are_a_student():
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((800, 2)) / np.sqrt(rng.chisquare(1, (800, 1)))
    result = mutual_information(rows[:, :1], rows[:, 1:])
    assert close(result, 0.2242)  # h(t₁) + h(t₁) − h(t₁ in two dimensions)
    assert any("t scores" in name for name in result.margins)


@pytest.mark.parametrize("name", ["exp", "order"])
def test_monotone_maps_leave_it(pair, found, name):
    """Ranks are the same: the estimate differs by the choice of margins only."""
    maps = {"exp": np.exp, "order": lambda v: -5 * v + 100}
    result = mutual_information(maps[name](pair[0]), maps[name](pair[1]))
    assert abs(result.mean - found.mean) < found.draws.std()


def test_it_is_symmetric_in_x_and_y(pair, found):
    assert abs(mutual_information(pair[1], pair[0]).mean - found.mean) < found.draws.std()


def test_the_seed_decides_every_number(pair, found):
    again = mutual_information(*pair)
    assert torch.equal(found.draws, again.draws)
    other = mutual_information(*pair, seed=1)
    assert not torch.equal(found.draws, other.draws)


def test_lists_tensors_and_arrays_are_the_same_rows(pair, found):
    tensors = mutual_information(
        torch.as_tensor(pair[0]), torch.as_tensor(pair[1]).float().double()
    )
    lists = mutual_information(pair[0].tolist(), pair[1][:, 0])
    assert abs(tensors.mean - found.mean) < 1e-4
    assert torch.equal(lists.draws, found.draws)


def test_options_do_what_they_say(pair, found):
    result = mutual_information(*pair, draws=50, chains=2, components=1, margins=["raw"])
    assert result.draws.shape == (2, 50) == result.standard_error.shape
    assert not torch.equal(result.draws[0], result.draws[1])
    assert {(model.margins, model.components) for model in result.models} == {("raw", 1)}
    assert {model.margins.split(",")[0] for model in found.models} == {
        "raw",
        "normal scores",
        "t scores",
    }
    assert max(model.components for model in found.models) > 1


def test_interval_widens_with_its_probability(found):
    narrow, wide = found.interval(0.5), found.interval(0.99)
    assert wide[0] < narrow[0] < found.mean < narrow[1] < wide[1]
    low, high = found.interval()
    below, above = (found.draws < low).double().mean(), (found.draws > high).double().mean()
    assert float(below) == pytest.approx(0.03, abs=0.01)
    assert float(above) == pytest.approx(0.03, abs=0.01)
    with pytest.warns(DeprecationWarning, match="probability is now eti_prob"):
        assert found.interval(probability=0.5) == narrow
    with pytest.raises(ValueError, match="eti_prob between 0 and 1; got 1"):
        found.interval(1)


def test_intervals_cover(pair, margin):
    """40 normal samples: 90 % intervals that cover fewer than 30 have a chance below 1 in 200."""
    covered = 0
    for seed in range(40):
        result = mutual_information(
            *normal_pair(200, correlation=0.5, seed=seed),
            components=1,
            margins=["t scores"],
            draws=400,
        )
        low, high = result.interval(0.9)
        covered += low <= normal_truth(correlation=0.5) <= high
    margin(covered - 30)


def test_inference_data_round_trip(found):
    data = found.idata
    term = data["posterior"]["mutual_information"]
    assert term.shape == (1, 1000)
    assert term.attrs["equation"] == "A.5"
    assert data["posterior"]["mutual_information_mcse"].shape == (1, 1000)
    assert "pareto_k" in data["sample_stats"]
    weights = data["constant_data"]["model_weight"].values
    assert weights.sum() == pytest.approx(1)


def test_neighbours_notice_a_model_that_is_too_simple():
    rng = np.random.default_rng(4)
    angle = rng.uniform(0, 2 * math.pi, 800)
    ring = np.stack([np.cos(angle), np.sin(angle)], 1) + 0.05 * rng.standard_normal((800, 2))
    poor = mutual_information(ring[:, 0], ring[:, 1], components=1, margins=["raw"], draws=100)
    good = mutual_information(ring[:, 0], ring[:, 1], draws=100)

    def excess(result):
        return (result.neighbour_log_density.value - result.held_out_log_density.value).item()

    assert excess(poor) > 0.5
    assert excess(good) < 0.2
    assert good.models[0].held_out > poor.models[0].held_out + 0.5
    assert good.draws.std() < poor.draws.std()


def bad(**changes):
    x, y = normal_pair(200)
    return {"x": x, "y": y} | changes


def with_value(value):
    x = normal_pair(200, 2)[0]
    x[7, 1] = value
    return x


COUNTS = np.arange(200.0) % 5
BAD = {
    "unpaired": (bad(y=normal_pair(199)[1]), "as many rows of x as of y; got 200 and 199"),
    "few": (bad(x=np.arange(9.0), y=np.arange(9.0)), "at least 50 paired rows; got 9"),
    "wide": (bad(x=normal_pair(200, 250)[0]), "more rows than the 251 columns"),
    "nan": (bad(x=with_value(math.nan)), "finite x; got nan in row 7, column 1"),
    "infinite": (bad(x=with_value(math.inf)), "finite x; got inf in row 7, column 1"),
    "constant": (bad(y=np.full(200, 3.0)), "y to vary in every column; got 3 throughout column 0"),
    "huge": (bad(x=normal_pair(200)[0] * 1e200), "values of x between .* in column 0"),
    "tiny": (bad(y=normal_pair(200)[1] * 1e-300), "values of y between .* in column 0"),
    "discrete": (
        bad(y=np.column_stack([COUNTS, normal_pair(200)[1]])),
        "continuous columns of y; got 5 distinct values in the 200 rows of column 0",
    ),
    "one class": (bad(x=["a"] * 200), "two classes or more; got 'a' in every row"),
    "text": (bad(x=[["a", "b"]] * 200), "x of real numbers; got dtype <U1"),
    "ragged": (bad(x=[[1.0], [1.0, 2.0]] * 100), "x of rows of one length|x of real numbers"),
    "cube": (bad(x=np.zeros((200, 2, 2))), "x of shape"),
    "empty": (bad(x=np.zeros((200, 0))), "x of shape"),
    "repeated": (
        {side: np.repeat(rows, 2, 0)[:200] for side, rows in bad().items()},
        "rows that differ; got 50.0% that repeat another",
    ),
    "same": (bad(y=normal_pair(200)[0] * 2 + 1), "mutual information is infinite"),
    "copied column": (
        bad(x=np.repeat(normal_pair(200)[0], 2, 1)),
        "columns of x of which none is a linear function",
    ),
    "draws": (bad(draws=0), "draws to be a whole number of 1 or more; got 0"),
    "chains": (bad(chains=0), "chains to be a whole number of 1 or more; got 0"),
    "components": (bad(components=1.5), "components to be a whole number of 1 or more; got 1.5"),
    "margins": (bad(margins=["ranks"]), "margins among raw, normal scores, t scores"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    arguments, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        mutual_information(**arguments)


def test_paired_rows_keep_their_order(pair):
    rows, dim_x = paired_rows(pair[0][:, 0], pair[1])
    assert dim_x == 1
    assert np.array_equal(rows.numpy(), np.hstack(pair))


def test_folds_leave_every_row_out_once():
    fold = random_folds(53, 5, generator(0))
    assert fold.bincount().tolist() == [11, 11, 11, 10, 10]
    masks = fold_masks(fold)
    assert (~masks).sum(0).tolist() == [1] * 53
    values = torch.arange(5.0).unsqueeze(-1).expand(5, 53)
    assert torch.equal(of_own_fold(values, fold), fold.float())


def test_stacking_finds_the_mixture_of_densities():
    """Rows of 0.7 N(−2, 1) + 0.3 N(2, 1), candidates the two parts and a useless third."""
    source = generator(0)
    side = torch.where(torch.rand(20_000, generator=source) < 0.7, -2.0, 2.0)
    rows = side + torch.randn(20_000, generator=source)
    density = torch.stack([-0.5 * (rows - mean).square() for mean in (-2.0, 2.0, 9.0)])
    weights = stacking_weights(density)
    # Standard error of the share of 20,000 rows: 0.0033; five of them.
    assert weights == pytest.approx([0.7, 0.3, 0.0], abs=0.017)


def test_a_split_keeps_weights_means_and_covariance():
    """Cutting a normal in two loses nothing of its first two moments."""
    rows = normal_scores(torch.as_tensor(np.hstack(normal_pair(400, 2))))
    fold = random_folds(400, 5, generator(0))
    own = torch.zeros(400)
    model = next(growing_mixtures(Coordinates("raw", rows, fold, own), 2, 1, generator(0)))
    cut = split(model.fit, 2).expected()
    whole = model.fit.expected()
    assert cut.components == 2
    assert torch.allclose(cut.mean, whole.mean, atol=1e-8)
    assert torch.allclose(cut.covariance, whole.covariance, rtol=1e-6, atol=1e-8)


def test_held_out_densities_are_of_fits_without_the_row():
    """Against a fit of the other folds alone, whose prior has not seen the fold either."""
    rows = torch.as_tensor(np.hstack(normal_pair(103)))
    fold = random_folds(103, 5, generator(0))
    own = Coordinates("raw", rows, fold, torch.zeros(103))
    model = next(growing_mixtures(own, 1, 1, generator(0)))
    kept = fold != 3
    prior = default_prior(rows[kept], 1)
    prior = replace(prior, scale=0.3 * prior.scale)
    alone = cavi(rows[kept], prior, 1, generator=generator(0)).best().expected()
    assert torch.allclose(model.held_out[0][~kept], alone.log_prob_rows(rows[~kept]))
    margin = alone.marginal([1]).log_prob_rows(rows[~kept, 1:])
    assert torch.allclose(model.held_out[2][~kept], margin)
    torch.testing.assert_close(model.prior.scale[0], 0.3 * default_prior(rows, 1).scale)


def test_the_prior_learns_how_thin_components_are():
    """The harmonic mean of two covariances, with half the volume for twice as many components."""
    covariances = torch.stack([torch.diag(torch.tensor([1.0, 1e-4])), torch.eye(2)]).double()
    freedom = torch.tensor([10.0, 20.0]).double()
    fit = Parameters(
        torch.ones(1, 1, 1, 2).double(),
        torch.zeros(1, 1, 2, 2).double(),
        torch.ones(1, 1, 2).double(),
        freedom.expand(1, 1, 2),
        (freedom[:, None, None] * covariances).expand(1, 1, 2, 2, 2),
    )
    prior = default_prior(torch.as_tensor(np.hstack(normal_pair(50))).unsqueeze(0), 2)
    learned = expected_scale(fit.select(0), prior, 4)
    harmonic = torch.diag(torch.tensor([1.0, 2 / (1e4 + 1)])).double()
    expected = 0.5 * prior.degrees_of_freedom * harmonic
    torch.testing.assert_close(learned[0], expected)


def test_margin_densities_are_those_of_the_distribution():
    """Held-out log density of uniform, normal and Cauchy columns, against minus their entropies."""
    rng = np.random.default_rng(5)
    columns = [rng.random(2000), rng.standard_normal(2000), rng.standard_cauchy(2000)]
    rows = torch.as_tensor(np.stack(columns, 1))
    found = margin_log_density(rows, random_folds(2000, 5, generator(0)), generator(0)).mean(0)
    truth = [0.0, -0.5 * math.log(2 * math.pi * math.e), -math.log(4 * math.pi)]
    # Sampling error of an average log density is at most 1.8 / sqrt(2000) = 0.04, and a mixture's
    # rounded corners cost it 0.05 on the uniform.
    assert found.tolist() == pytest.approx(truth, abs=0.12)


def test_student_density_is_scipys():
    from scipy.stats import multivariate_t

    scale = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    rows = torch.randn(9, 2, generator=generator(0), dtype=torch.float64)
    expected = multivariate_t(np.zeros(2), scale.numpy(), df=3).logpdf(rows.numpy())
    assert torch.allclose(student_log_density(rows, scale, 3.0), torch.as_tensor(expected))


def test_student_pair_density_of_its_own_rows():
    rng = np.random.default_rng(6)
    rows = rng.standard_normal((3000, 3)) / np.sqrt(rng.chisquare(4, (3000, 1)) / 4)
    values = student_scores(torch.as_tensor(rows), 4.0)
    fold = random_folds(3000, 5, generator(0))
    found = student_pair_density(values, 1, fold, 4.0)
    # I(one coordinate; two others) of an uncorrelated t₄, from the entropies.
    assert found.held_out_ratio.mean().item() == pytest.approx(0.0713, abs=0.04)


def test_optimism_of_a_normal_is_what_simulation_finds(margin):
    source = generator(0)
    rows = torch.randn(4000, 60, 5, generator=source, dtype=torch.float64)
    covariance = rows.mT @ rows / 60  # known mean: one degree of freedom more than n − 1
    x, y = torch.logdet(covariance[:, :2, :2]), torch.logdet(covariance[:, 2:, 2:])
    information = 0.5 * (x + y - torch.logdet(covariance))
    error = information.std() / math.sqrt(4000)
    margin(4 * error - abs(information.mean() - normal_optimism(61, 2, 3)))


def test_command(tmp_path, capsys):
    x, y = normal_pair(300, 2)
    np.save(tmp_path / "x.npy", x)
    np.savetxt(tmp_path / "y.csv", y, delimiter=",", header="a,b", comments="")
    output = tmp_path / "mi.nc"
    arguments = [
        str(tmp_path / "x.npy"),
        str(tmp_path / "y.csv"),
        "--draws",
        "100",
        "--chains",
        "2",
    ]
    arguments += ["--components", "2", "--device", "cpu", "--output", str(output)]
    arguments += ["--figures", str(tmp_path / "figures")]
    assert main(["mi", *arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["terms"]["mutual_information"]["mean"] == pytest.approx(normal_truth(2), abs=0.25)
    assert report["settings"]["rows"] == 300
    assert {entry["verdict"] for entry in report["audit"]} <= {"holds", "violated"}
    assert max(model["components"] for model in report["models"]) <= 2
    assert read(output)["posterior"]["mutual_information"].shape == (2, 100)
    assert (tmp_path / "figures" / "mi.png").stat().st_size > 0
    assert (
        main(["mi", *arguments[:2], "--draws", "20", "--components", "2", "--device", "cpu"]) == 0
    )
    shown = capsys.readouterr().out.splitlines()
    assert any("mutual_information" in line and "nats" in line for line in shown)
    assert any("held out" in line for line in shown)


@pytest.mark.parametrize("problem", ["unpaired", "text", "missing", "unnamed"])
def test_command_names_bad_files(tmp_path, capsys, problem):
    x, y = normal_pair(100)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y[:99])
    (tmp_path / "text.csv").write_text("word\n" + "\n".join(f"word {i}" for i in range(100)))
    np.savez(tmp_path / "several.npz", x=x, y=x)
    other = {
        "unpaired": "y.npy",
        "text": "text.csv",
        "missing": "absent.npy",
        "unnamed": "several.npz",
    }[problem]
    assert main(["mi", str(tmp_path / "x.npy"), str(tmp_path / other)]) == 2
    error = capsys.readouterr().err
    expected = {
        "unpaired": "100 and 99",
        "text": "got text",
        "missing": "absent.npy",
        "unnamed": "the vectors of Y (--y-field); got no name, and the file has 'x', 'y'",
    }[problem]
    assert expected in error
    assert len(error.strip().splitlines()) == 1


def test_command_takes_named_fields(tmp_path, capsys):
    x, y = normal_pair(100)
    records = [{"a": [u], "b": [v]} for u, v in zip(x[:, 0], y[:, 0], strict=True)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    arguments = [str(path), str(path), "--x-field", "a", "--y-field", "b", "--components", "1"]
    assert main(["mi", *arguments, "--json", "--device", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out)["terms"]["mutual_information"]["mean"]
    assert found == pytest.approx(normal_truth(), abs=0.3)
