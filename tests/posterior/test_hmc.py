"""Chains in more coordinates than a window has draws: slopes whiten, trajectories grow."""

from dataclasses import replace
from types import SimpleNamespace

import torch

from rbpp.posterior import hmc
from rbpp.posterior.auto import _said_of_chains
from rbpp.posterior.sites import Latent, Prepared
from rbpp.randomness import generator

# As few chains as the library runs, in more coordinates than they have draws in a window.
_SIZE, _CHAINS = 260, hmc.CHAINS[-1]


class Ridge:
    """A normal whose standard deviations go from 0.01 to 1, in turned coordinates."""

    size, at_once = _SIZE, _CHAINS

    def __init__(self) -> None:
        square = torch.randn(_SIZE, _SIZE, generator=generator(0), dtype=torch.float64)
        self.axes = torch.linalg.qr(square).Q
        self.deviations = torch.logspace(-2, 0, _SIZE, dtype=torch.float64)
        self.calls = 0

    def gradient(self, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls += 1
        along = vectors @ self.axes
        slope = -(along / self.deviations.square()) @ self.axes.mT
        return -0.5 * (along / self.deviations).square().sum(-1), slope


def test_a_normal_in_many_coordinates_has_its_spread(margin, monkeypatch):
    # Of the 16 halves of 8 chains with an effective sample size of E, R-hat² - 1 is about χ²/E with
    # 15 degrees of freedom. Of 24 seeds a draw of the slowest coordinate was worth 0.16 of one or
    # more: 100 rounds have E = 6000, where 1.01 is a χ² of 120, and stop at it but for 1e-15.
    monkeypatch.setattr(hmc, "MOST_ROUNDS", 100)
    density = Ridge()
    starts = 0.1 * torch.randn(_CHAINS, _SIZE, generator=generator(1), dtype=torch.float64)
    found = hmc.sample(density, starts, torch.eye(_SIZE).double(), generator(2))
    assert found.converged
    along = found.vectors @ density.axes / density.deviations
    # Of the draws' mean squares each has a standard error of about sqrt(2 / effective draws).
    spread = along.square().mean((0, 1))
    margin(5 - float((spread - 1).abs().max()) / (2 / found.sample_size) ** 0.5)
    assert found.vectors.shape[1] > 50  # rounds are put together


class TwoPlaces:
    """Three normals, the second of them in two places far apart."""

    size, at_once = 3, 4

    def gradient(self, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        near = vectors.clone()
        near[:, 1] -= 20 * vectors[:, 1].sign()
        return -0.5 * near.square().sum(-1), -near


def test_the_coordinate_that_chains_disagree_on_is_named(monkeypatch):
    monkeypatch.setattr(hmc, "MOST_ROUNDS", 1)
    starts = torch.randn(4, 3, generator=generator(1), dtype=torch.float64)
    starts[:, 1] += torch.tensor([-20.0, 20.0, -20.0, 20.0])
    found = hmc.sample(TwoPlaces(), starts, torch.eye(3).double(), generator(2))
    assert found.rhat > 2
    assert found.worst == 1
    latents = [Latent(SimpleNamespace(name=name), (1,), n, n + 1) for n, name in enumerate("abc")]
    assert "(of b)" in _said_of_chains(found, Prepared(tuple(latents), ()))
    other = replace(found, worst=3)
    assert "(of the log density)" in _said_of_chains(other, Prepared(tuple(latents), ()))


class Round:
    """A standard normal."""

    size, at_once = _SIZE, _CHAINS

    def gradient(self, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return -0.5 * vectors.square().sum(-1), -vectors


def test_trajectories_are_as_long_as_pays(margin):
    """Of a standard normal squared distances change by 2 sin²(t) d: the best t is known."""
    starts = torch.randn(64, _SIZE, generator=generator(1), dtype=torch.float64)
    state = hmc._State(Round(), starts, torch.eye(_SIZE).double(), generator(2), hmc.NEVER)
    lengths = []
    for _ in range(400):
        state.step = 0.2
        state.move(lengthen=True)
        lengths.append(state.length)
    grid = torch.linspace(0.5, 4.0, 701, dtype=torch.float64)
    jitter = torch.linspace(0.5, 1.5, 201, dtype=torch.float64)
    best = float(grid[((grid[:, None] * jitter).sin().square().mean(-1) / grid).argmax()])
    found = sum(lengths[200:]) / 200
    # Five standard errors: over eight seeds 0.019 ± 0.015, of 1.02.
    margin(0.1 * best - abs(found - best))


def test_rounds_whose_chains_agree_are_put_together(monkeypatch):
    monkeypatch.setattr(hmc, "LARGEST_RHAT", 1.0)  # never enough: all rounds are run
    monkeypatch.setattr(hmc, "MOST_ROUNDS", 3)
    starts = torch.randn(8, 3, generator=generator(1), dtype=torch.float64)
    starts[:, 1] += 20
    one = hmc.sample(TwoPlaces(), starts, torch.eye(3).double(), generator(2))
    assert one.rhat < 1.1
    assert one.vectors.shape[1] == 3 * hmc.FIRST_ROUND
    starts[::2, 1] -= 40
    two = hmc.sample(TwoPlaces(), starts, torch.eye(3).double(), generator(2))
    assert two.rhat > 2
    assert two.vectors.shape[1] == 4 * hmc.FIRST_ROUND  # the last one, doubled twice


def test_a_metric_counts_for_half_of_the_slopes_that_made_it():
    """Slopes with twice the metric's precision, as many as it counts for: the mean of both."""
    state = hmc._State(
        Round(),
        torch.zeros(_CHAINS, _SIZE).double(),
        torch.eye(_SIZE).double(),
        generator(2),
        hmc.NEVER,
    )
    axes = torch.eye(_SIZE, dtype=torch.float64) * (2 * _SIZE) ** 0.5  # mean square 2 a direction
    for expected, weight in ((5 / 3, 0.75 * _SIZE), ((5 / 3 * 0.75 + 2) / 1.75, 0.875 * _SIZE)):
        state.met = [axes]
        state.level()
        torch.testing.assert_close(state.metric, torch.eye(_SIZE).double() / expected)
        assert state.weight == weight
