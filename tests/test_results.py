"""Estimates carry their error."""

import pytest
import torch

from rbpp.results import Estimate


def test_interval_widens_with_z():
    estimate = Estimate(torch.tensor([1.0, 2.0]), torch.tensor([0.1, 0.2]), 100)
    low, high = estimate.interval(2.0)
    torch.testing.assert_close(low, torch.tensor([0.8, 1.6]))
    torch.testing.assert_close(high, torch.tensor([1.2, 2.4]))
    assert estimate.direction == "unbiased"


def test_refuses_an_error_of_another_shape():
    with pytest.raises(ValueError, match=r"one shape; got \(2,\) and \(3,\)"):
        Estimate(torch.zeros(2), torch.zeros(3), 10)
