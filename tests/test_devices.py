"""Estimators work where their rows are: nothing in them is made on the default device.

There need not be another device to see it: here every tensor that is made without saying where is
put on `meta`, from where no number comes back and which no other tensor mixes with.
"""

import pytest
import torch
from torch.overrides import TorchFunctionMode

from rbpp.compute import Compute
from rbpp.data.stream import tensor_stream
from rbpp.mixtures.ascent import Ascent
from rbpp.mixtures.cavi import cavi
from rbpp.mixtures.conjugate import default_prior
from rbpp.mixtures.divergences import (
    entropy,
    jensen_shannon,
    kl_divergence,
    total_variation,
)
from rbpp.mixtures.mixture import GaussianMixture
from rbpp.mixtures.normal_wishart import expectations
from rbpp.mixtures.posterior import Settings, mixture_posterior
from rbpp.mixtures.standardisation import standardisation
from rbpp.mixtures.stream import part_statistics
from rbpp.mixtures.sufficient import natural_parameters
from rbpp.paired.candidates import MARGINS, pair_densities
from rbpp.paired.mutual_information import mutual_information
from rbpp.randomness import generator
from rbpp.theory.information import contrastive_bounds

FACTORIES = {
    getattr(torch, name)
    for name in (
        "arange as_tensor empty eye full linspace logspace ones rand randint randn randperm tensor "
        "tril_indices triu_indices zeros"
    ).split()
}


class Elsewhere(TorchFunctionMode):
    """Tensors made without a device are not where the others are; numbers mix with any."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        given = (kwargs or {}).get("device") is not None
        of_tensor = bool(args) and isinstance(args[0], torch.Tensor)
        if function in FACTORIES and not given and not of_tensor and made.dim():
            return made.to("meta")
        return made


def rows():
    found = torch.randn(120, 3, generator=generator(0), dtype=torch.float64)
    found[60:] += 5
    return found


def mixture():
    scale = torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
    means = 3 * torch.randn(4, 2, 3, generator=generator(1), dtype=torch.float64)
    return GaussianMixture(torch.full((4, 2), 0.5, dtype=torch.float64), means, scale)


def ascent():
    data = rows()
    options = {"sample_weights": data.new_ones(len(data))}
    prior = default_prior(data, 3)
    for dtype in (torch.float32, torch.float64):
        fit = cavi(
            data,
            prior,
            3,
            restarts=2,
            generator=generator(0),
            **options,
            ascent=Ascent(dtype=dtype),
        ).best()
        fit.draw(5, generator(0)).mixture()
        fit.expected().responsibilities(data)


def a_part():
    data = rows()
    prior = default_prior(data, 3).parameters(3).map(lambda value: value.unsqueeze(0))
    natural = natural_parameters(prior, expectations(prior))
    (part,) = tensor_stream(data, 200)
    members = torch.zeros(1, dtype=torch.long, device=data.device)
    part_statistics(standardisation(data), natural, members, part)


def divergences():
    p, q = mixture(), mixture()
    entropy(p, num_samples=64, generator=generator(0))
    for function in (kl_divergence, total_variation, jensen_shannon):
        function(p, q, num_samples=64, generator=generator(0))


def pairs():
    data = rows()
    fold = torch.arange(len(data), device=data.device) % 5
    pair_densities(data, 1, fold, 3, MARGINS, 0)


@pytest.mark.parametrize(
    "work",
    [
        ascent,
        a_part,
        divergences,
        lambda: contrastive_bounds(torch.randn(50, 50, generator=generator(0), device="cpu")),
        lambda: mixture_posterior(rows(), 2, Settings(chains=2, draws=50)),
        pairs,
    ],
    ids=["cavi", "stream", "divergences", "contrast", "fit_mixture", "pairs"],
)
def test_tensors_are_made_where_the_rows_are(work, monkeypatch):
    for name in ("rows", "mixture"):  # made before: they are the user's
        made = globals()[name]()
        monkeypatch.setitem(globals(), name, lambda made=made: made)
    with Elsewhere():
        work()


def test_a_tensor_on_the_default_device_would_show():
    with Elsewhere(), pytest.raises((RuntimeError, NotImplementedError)):
        bool((rows().sum() + torch.ones(2)).any())


@pytest.mark.parametrize(
    "work",
    [
        lambda data: mutual_information(data[:, 0], data[:, 1], compute=Compute(device="meta")),
    ],
    ids=["mutual_information"],
)
def test_rows_go_to_the_device_that_is_named(work):
    with pytest.raises((RuntimeError, NotImplementedError), match=r"(?i)meta"):
        work(rows())
