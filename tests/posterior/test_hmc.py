"""Chains in more coordinates than a window has draws: slopes whiten, trajectories grow."""

import torch

from rbpp.posterior.hmc import sample
from rbpp.randomness import generator

_SIZE, _CHAINS = 150, 4


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


def test_a_normal_in_many_coordinates_has_its_spread(margin):
    density = Ridge()
    starts = 0.1 * torch.randn(_CHAINS, _SIZE, generator=generator(1), dtype=torch.float64)
    found = sample(density, starts, torch.eye(_SIZE).double(), generator(2))
    assert found.converged
    along = found.vectors @ density.axes / density.deviations
    # Of the draws' mean squares each has a standard error of about sqrt(2 / effective draws).
    spread = along.square().mean((0, 1))
    margin(5 * (2 / found.sample_size) ** 0.5 - float((spread - 1).abs().max()))
    assert found.vectors.shape[1] > 50  # rounds are put together
