"""Pareto smoothing against ArviZ's, and on ratios whose answer is known."""

import arviz as az
import numpy as np
import pytest
import torch

from rbpp.mixtures.psis import generalized_pareto, pareto_smooth
from rbpp.randomness import generator


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_smoothing_is_that_of_arviz(scale):
    ratios = scale * torch.randn(3, 1000, generator=generator(0), dtype=torch.float64)
    weights, shape = pareto_smooth(ratios)
    if hasattr(az, "psislw"):
        expected, shapes = az.psislw(ratios.numpy())
        np.testing.assert_allclose(weights.numpy(), expected, atol=1e-9)
        np.testing.assert_allclose(shape.numpy(), shapes, atol=1e-9)
    torch.testing.assert_close(weights.exp().sum(-1), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("shape", [0.2, 0.7, 1.5])
def test_pareto_shape_is_recovered(shape, margin):
    uniform = torch.rand(20, 2000, generator=generator(0), dtype=torch.float64)
    excess = torch.expm1(-shape * torch.log1p(-uniform)) / shape
    fitted, scale = generalized_pareto(excess.sort(-1).values)
    # The shape's standard error is (1 + k) / √n for one sample, here the mean of 20.
    tolerance = 4 * (1 + shape) / (2000 * 20) ** 0.5 + 10 / 2000
    margin(tolerance - abs(fitted.mean().item() - shape))
    margin(0.05 - abs(scale.mean().item() - 1))


def test_equal_ratios_are_left_alone():
    weights, shape = pareto_smooth(torch.zeros(2, 100))
    torch.testing.assert_close(weights.exp(), torch.full((2, 100), 0.01, dtype=torch.float64))
    assert (shape == -torch.inf).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ratios_equal_up_to_rounding_have_no_tail(dtype):
    log_density = -1000 + 30 * torch.randn(2, 1000, generator=generator(0), dtype=torch.float64)
    ratios = (log_density + 0.1).to(dtype) - log_density.to(dtype)
    assert ratios.std() > 0
    assert (pareto_smooth(ratios)[1] == -torch.inf).all()


def test_too_few_draws_show_no_tail():
    weights, shape = pareto_smooth(torch.arange(10.0))
    assert shape == torch.inf
    torch.testing.assert_close(weights, torch.arange(10.0).double().log_softmax(-1))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_bad_ratios_are_named(value):
    with pytest.raises(ValueError, match="finite log ratios"):
        pareto_smooth(torch.tensor([0.0, value]))
