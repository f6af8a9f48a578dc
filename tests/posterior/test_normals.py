"""Densities of rows that share covariances, against torch's own row by row."""

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal

import rbpp
from rbpp.compute import Compute
from rbpp.posterior.density import ConditionedDensity
from rbpp.posterior.normals import block_length, log_density, standardised, unstandardised
from rbpp.processes.simulation import simulate_tensors
from rbpp.randomness import generator


def factors(*shape: int, seed: int = 0) -> torch.Tensor:
    """Lower factors (*shape, 3, 3)."""
    root = torch.randn(*shape, 3, 3, generator=generator(seed), dtype=torch.float64)
    return torch.linalg.cholesky(root @ root.mT + torch.eye(3))


def rows(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, 3, generator=generator(seed), dtype=torch.float64)


@pytest.mark.parametrize("batch", [(), (5,), (5, 1)])
@pytest.mark.parametrize(("members", "length"), [(2, 4), (1, 6), (3, 1)])
def test_blocks_of_rows_with_one_covariance(batch, members, length):
    tril = factors(*batch, members).repeat_interleave(length, -3)
    normal = MultivariateNormal(rows(*batch, members * length, seed=2), scale_tril=tril)
    found = block_length(normal)
    assert found == length
    value = rows(*batch, members * length)
    torch.testing.assert_close(log_density(normal, value, found), normal.log_prob(value))
    free = standardised(normal, value)
    torch.testing.assert_close(unstandardised(normal, free, found), value)


@pytest.mark.parametrize("distribution", [Normal(torch.zeros(4), 1.0), Categorical(torch.ones(3))])
def test_other_distributions_have_no_blocks(distribution):
    assert block_length(distribution) == 1
    uneven = MultivariateNormal(
        torch.zeros(5, 3).double(), scale_tril=factors(2)[[0, 0, 0, 1, 1]], validate_args=False
    )
    assert block_length(uneven) == 1


@pytest.mark.parametrize("batch", [(), (5,), (5, 2)])
@pytest.mark.parametrize("shared", [True, False])
def test_mixtures_that_all_rows_share_or_not(batch, shared):
    """(…, rows or 1, components, d), as a process has them in a plate."""
    own = 1 if shared else 7
    normals = MultivariateNormal(rows(*batch, own, 4), scale_tril=factors(*batch, own, 4))
    logits = torch.randn(*batch, own, 4, generator=generator(3), dtype=torch.float64)
    mixture = MixtureSameFamily(Categorical(logits=logits), normals).expand((*batch, 7))
    value = rows(*batch, 7, seed=5)
    torch.testing.assert_close(log_density(mixture, value), mixture.log_prob(value))


def test_rows_that_no_world_moves_are_looked_at_once():
    """The mixture of prompted answers is that of the anchors' moments: given anchors, a number."""
    knobs = {"K": 2, "J": 0, "L": 0, "anchors_per_component": 5, "outputs": 9, "noise": 0.1}
    process = rbpp.load_process("gaussian_mixture", **knobs)
    values = simulate_tensors(process, compute=Compute(seed=3)).sites
    data = {name: values[name][0, 0] for name in ("anchor", "synthetic")}
    both = ConditionedDensity(process, data)
    anchors = ConditionedDensity(process, {"anchor": data["anchor"]})
    assert both.fixed == {"synthetic"}
    assert both.blocks == {"anchor": 5}
    assert not anchors.fixed
    vectors = both.prior_vectors(2, 1)
    likelihood = both.evaluate(vectors, generator(0))[1]["synthetic"]
    assert likelihood.shape == (2, 1, 9)
    torch.testing.assert_close(both(vectors), anchors(vectors) + likelihood.sum((-2, -1)))
    other = rbpp.load_process("gaussian_mixture", **{**knobs, "J": 1})
    assert not ConditionedDensity(other, data).fixed
