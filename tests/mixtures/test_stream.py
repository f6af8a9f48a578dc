"""Streams against the fit in memory."""

from functools import partial

import pytest
import torch

from rbpp.checkpoint import Checkpoint
from rbpp.compute import Compute
from rbpp.data.stream import Chunk, tensor_stream
from rbpp.mixtures.ascent import Ascent
from rbpp.mixtures.cavi import cavi
from rbpp.mixtures.stream import Passes, stream_posterior
from rbpp.randomness import generator


def clusters(count=400, dtype=torch.float64):
    source = generator(1)
    parts = [torch.randn(count, 2, generator=source) + centre for centre in (0.0, 5.0, 9.0)]
    rows = torch.cat(parts).to(dtype)
    return rows[torch.randperm(len(rows), generator=source)]


def fitted(stream, components, **options):
    """The variational posterior of a stream, and the prior that its sample asked for."""
    posterior, _ = stream_posterior(stream, components, **{"chains": 1, "draws": 2, **options})
    return posterior.variational, posterior.prior


def stream_of(chunks):
    """A stream with a part for every chunk."""
    return [partial(list, [chunk]) for chunk in chunks]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chunk_rows", [100, 170, 5000])
def test_exact_passes_reach_the_fit_in_memory(dtype, chunk_rows):
    rows = clusters(dtype=dtype)
    fit, prior = fitted(
        tensor_stream(rows, chunk_rows), 3, chains=2, passes=Passes(sample_rows=300)
    )
    whole = cavi(rows, prior.to(rows), 3, restarts=3, generator=generator(0)).best()
    tolerance = 1e-2 if dtype == torch.float32 else 1e-3
    assert fit.elbo.shape == (2,)
    assert (fit.elbo - whole.elbo).abs().max() < tolerance
    assert fit.converged.all()


def test_a_stochastic_pass_comes_close():
    rows = clusters(2000)
    fit, prior = fitted(
        tensor_stream(rows, 100),
        3,
        passes=Passes(sample_rows=50, stochastic=1, exact=0),
    )
    assert fit.elbo.isnan().all()
    whole = cavi(rows, prior, 3, restarts=3, generator=generator(0)).best()
    found = cavi(rows, prior, 3, initial=fit, ascent=Ascent(max_iterations=1))
    # Ten noisy chunks are in the average at any time: within a hundredth of a nat per row.
    assert (whole.elbo - found.elbo).item() < 0.01 * len(rows)
    sample_only, _ = fitted(
        tensor_stream(rows, 100),
        3,
        passes=Passes(sample_rows=50, stochastic=0, exact=0),
    )
    start = cavi(rows, prior, 3, initial=sample_only, ascent=Ascent(max_iterations=1))
    assert found.elbo.item() > start.elbo.item()


def test_weights_of_chunks_count():
    rows = clusters(100)
    times = torch.randint(1, 4, (300,), generator=generator(0))

    weighted = stream_of(
        Chunk(rows[part], times[part].double())
        for part in (slice(start, start + 70) for start in range(0, 300, 70))
    )
    fit, prior = fitted(weighted, 3, passes=Passes(sample_rows=300))
    whole = cavi(
        rows,
        prior,
        3,
        sample_weights=times.double(),
        restarts=3,
        generator=generator(0),
    ).best()
    assert fit.elbo.item() == pytest.approx(whole.elbo.item(), abs=1e-3)


@pytest.mark.parametrize("done", [1, 3, 6])
def test_a_run_that_was_cut_off_ends_with_the_same_numbers(tmp_path, done):
    options = {"chains": 2, "passes": Passes(sample_rows=100, exact=6, steps=3)}
    stream = tensor_stream(clusters(), 100)
    reads = []

    def cut_off(function, items):
        reads.append(len(items))
        if len(reads) > done:
            raise KeyboardInterrupt
        return map(function, items)

    with pytest.raises(KeyboardInterrupt):
        fitted(
            stream, 4, **options, compute=Compute(workers=cut_off, checkpoint=Checkpoint(tmp_path))
        )
    before = len(reads)
    again, _ = fitted(stream, 4, **options, compute=Compute(checkpoint=Checkpoint(tmp_path)))
    whole, _ = fitted(stream, 4, **options)
    assert before == done + 1
    for name in ("mean", "scale", "concentration", "elbo", "iterations"):
        assert torch.equal(getattr(again, name), getattr(whole, name)), name


def test_order_in_which_parts_are_done_does_not_matter():
    stream = tensor_stream(clusters(), 100)
    passes = Passes(sample_rows=100)

    def backwards(function, items):
        return reversed([function(item) for item in reversed(list(items))])

    here, there = (
        fitted(stream, 3, passes=passes, compute=Compute(workers=mapper))[0]
        for mapper in (map, backwards)
    )
    assert torch.equal(here.scale, there.scale)
    assert torch.equal(here.elbo, there.elbo)


@pytest.mark.parametrize(
    ("options", "passes", "message"),
    [
        ({"chains": 0}, {}, "chains to be a whole number of 1 or more; got 0"),
        ({}, {"exact": -1}, "exact to be a whole number of 0 or more; got -1"),
        ({}, {"steps": 0}, "steps to be a whole number of 1 or more; got 0"),
        ({"components": 500}, {}, "components from 1 to the 300 rows"),
    ],
)
def test_options_out_of_range_are_named(options, passes, message):
    stream = tensor_stream(clusters(100), 100)
    with pytest.raises(ValueError, match=message):
        fitted(stream, **{"components": 2, **options}, passes=Passes(**passes))
