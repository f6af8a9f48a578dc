"""Pairs that were given a wrong number: strong dependence, functions, classes, ties, series."""

import math

import numpy as np
import pytest

from rbpp.paired.dependence import effective_rows, independence_check
from rbpp.paired.labels import is_labels, label_information
from rbpp.paired.mutual_information import mutual_information
from rbpp.paired.paired_rows import paired_rows


def holds(x, y, truth, **options):
    """The truth within five posterior standard deviations."""
    found = mutual_information(x, y, draws=200, **options)
    return abs(found.mean - truth) < 5 * found.draws.std()


@pytest.mark.parametrize("noise", [0.01, 0.003])
def test_strong_dependence_has_its_information(noise):
    random = np.random.default_rng(0)
    x = random.normal(size=1000)
    assert holds(x, x + noise * random.normal(size=1000), 0.5 * math.log1p(noise**-2))


@pytest.mark.parametrize("correlation", [0.999, 0.999999])
def test_a_correlation_of_nearly_one_has_its_information(correlation):
    random = np.random.default_rng(0)
    x, noise = random.normal(size=(2, 600))
    y = correlation * x + math.sqrt(1 - correlation**2) * noise
    assert holds(x, y, -0.5 * math.log(1 - correlation**2))


@pytest.mark.parametrize("function", [np.exp, np.square, np.sin])
def test_a_function_has_infinite_information(function):
    x = np.random.default_rng(0).normal(size=500)
    with pytest.raises(ValueError, match="infinite"):
        mutual_information(x, function(x))


def test_classes_with_noise_are_their_labels_or_refused():
    random = np.random.default_rng(0)
    label = random.integers(0, 4, 600)
    x, y = label + 1e-3 * random.normal(size=(2, 600))
    found = mutual_information(x, y, draws=200)
    assert found.mean == pytest.approx(math.log(4), abs=0.1)
    label = random.integers(0, 40, 1000)
    with pytest.raises(ValueError, match="40 and 40 classes: give the classes as labels"):
        mutual_information(*(label + 1e-3 * random.normal(size=(2, 1000))))


def test_rounded_values_are_ties():
    random = np.random.default_rng(1)
    x = random.normal(size=600)
    y = x + random.normal(size=600)
    assert holds(x.round(1), y.round(1), 0.5 * math.log(2))


def test_the_misfit_of_a_product_is_in_its_interval():
    """y = x · noise has I = 0.420, and 200 rows too few for the mixtures that would show it."""
    held = 0
    for seed in range(3):
        x, noise = np.random.default_rng(seed).normal(size=(2, 200))
        low, high = mutual_information(x, x * noise, draws=300, seed=seed).interval(0.94)
        held += low < 0.420 < high
    assert held >= 2


def test_one_outlier_does_not_decide():
    random = np.random.default_rng(2)
    x = random.normal(size=300)
    y = x + random.normal(size=300)
    x[7] = 1e6
    assert holds(x, y, 0.5 * math.log(2))


def test_labels_have_a_dirichlet_posterior(margin):
    table = np.array([[0.3, 0.05, 0.05], [0.02, 0.2, 0.08], [0.1, 0.1, 0.1]])
    truth = (table * np.log(table / table.sum(1, keepdims=True) / table.sum(0))).sum()
    covered = 0
    for seed in range(60):
        cell = np.random.default_rng(seed).choice(9, 300, p=table.ravel())
        draws = label_information(cell // 3, cell % 3, 400, seed).numpy()
        low, high = np.quantile(draws, [0.03, 0.97])
        covered += low <= truth <= high
    margin(covered - 51)  # three standard errors below 94 % of 60
    random = np.random.default_rng(0)
    label = random.integers(0, 40, 1000)
    same = mutual_information(label, label.astype(str), draws=200)
    assert same.mean == pytest.approx(math.log(40), abs=0.06)
    assert same.models == ()
    apart = mutual_information(label % 10, random.integers(0, 10, 1000), draws=200)
    assert apart.mean < 0.01  # the plug-in estimate is (10 − 1)² / 2n = 0.04


def test_labels_are_told_from_measurements():
    assert is_labels(["a", "b", "a"])
    assert is_labels(np.arange(50) % 5)
    assert not is_labels(np.arange(50))
    assert not is_labels(np.linspace(0, 1, 50))
    assert not is_labels(np.zeros((50, 2)))


def series(factor, seed):
    random = np.random.default_rng(seed)
    values = random.normal(size=(2, 1000))
    for index in range(1, 1000):
        values[:, index] += factor * values[:, index - 1]
    return values


@pytest.mark.parametrize("factor", [0.5, 0.9, 0.99, 1.0])
def test_time_series_are_noticed(factor):
    x, y = series(factor, 0)[..., None]
    assert independence_check(x, y, 1).verdict == "violated"
    if factor < 0.99:  # for larger ones 1,000 rows are too few for the limit
        truth = 1000 * (1 - factor**2) / (1 + factor**2)
        assert effective_rows(x, y) == pytest.approx(truth, rel=0.35)


def test_independent_rows_are_not_accused():
    for seed in range(30):
        x, y = series(0.0, seed)[..., None]
        assert independence_check(x, y, 1).verdict == "holds"


def test_a_block_widens_the_interval_and_is_checked():
    x, y = series(0.9, 1)
    y = y + x  # some information: at none every draw is zero
    single = mutual_information(x, y, draws=300, components=1, margins=["raw"])
    blocked = mutual_information(x, y, draws=300, components=1, margins=["raw"], block=50)
    assert single.checks[0].verdict == "violated"
    assert blocked.checks[0].verdict == "holds"
    assert blocked.draws.std() > 1.5 * single.draws.std()
    with pytest.raises(ValueError, match="at least 10 blocks"):
        mutual_information(x, y, block=101)


@pytest.mark.parametrize(("noise", "refused"), [(0.0, True), (0.002, True), (0.1, False)])
def test_what_differs_by_its_rounding_alone_is_refused(noise, refused):
    random = np.random.default_rng(0)
    x = random.normal(size=600)
    y = np.round(x + noise * random.normal(size=600), 2)
    if refused:
        with pytest.raises(ValueError, match="by more than their rounding"):
            paired_rows(x, y)
    else:
        paired_rows(x, y)
