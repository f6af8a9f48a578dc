"""Guides as a user would write them."""

import pyro
import pyro.distributions as dist
import torch


def guide(size):
    """Independent normals in whitened coordinates."""
    loc = pyro.param("loc", torch.zeros(size, dtype=torch.float64))
    scale = pyro.param(
        "scale", torch.ones(size, dtype=torch.float64), constraint=dist.constraints.positive
    )
    pyro.sample("whitened", dist.Normal(loc, scale).to_event(1))


def other_site(size):
    """No site named `whitened`."""
    pyro.sample("x", dist.Normal(torch.zeros(size), 1.0).to_event(1))
