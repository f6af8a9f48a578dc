"""Coordinate ascent against closed forms, and against itself under known invariances."""

import math

import pytest
import torch
from scipy import stats

from rbpp.mixtures.ascent import Ascent
from rbpp.mixtures.cavi import cavi
from rbpp.mixtures.conjugate import MixturePrior, default_prior
from rbpp.randomness import generator


def clusters(count=60, centres=(0.0, 5.0, 9.0), dimension=2, seed=1, dtype=torch.float64):
    source = generator(seed)
    parts = [
        torch.randn(count, dimension, generator=source, dtype=torch.float64) + centre
        for centre in centres
    ]
    return torch.cat(parts).to(dtype)


def test_single_gaussian_is_the_closed_form_posterior():
    rows = clusters(40, (2.0,), 3)
    prior = MixturePrior(1.0, torch.tensor([1.0, 0.0, -1.0]).double(), 0.5, 6.0, 2 * torch.eye(3))
    fit = cavi(rows, prior, 1, generator=generator(0)).best()
    n, mean = len(rows), rows.mean(0)
    scatter = (rows - mean).mT @ (rows - mean)
    kappa = 0.5 + n
    shift = (mean - prior.mean).unsqueeze(-1)
    torch.testing.assert_close(fit.mean[0], (0.5 * prior.mean + n * mean) / kappa)
    torch.testing.assert_close(fit.mean_precision, torch.tensor([kappa], dtype=torch.float64))
    torch.testing.assert_close(fit.degrees_of_freedom[0].item(), 6.0 + n)
    torch.testing.assert_close(
        fit.scale[0], prior.scale + scatter + 0.5 * n / kappa * shift @ shift.mT
    )
    assert fit.converged.item()


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_elbo_of_a_single_gaussian_is_the_log_evidence(dimension):
    rows = clusters(25, (2.0,), dimension)
    prior = default_prior(rows, 1)
    fit = cavi(rows, prior, 1, generator=generator(0)).best()
    # Chain rule: the evidence is the product of one-step predictive densities, Student's t each.
    evidence = 0.0
    for seen in range(len(rows)):
        if seen:
            parameters = cavi(rows[:seen], prior, 1, generator=generator(0)).best()
        else:
            parameters = prior.parameters(1)
        freedom = parameters.degrees_of_freedom[0].item() - dimension + 1
        kappa = parameters.mean_precision[0].item()
        distribution = stats.multivariate_t(
            parameters.mean[0].numpy(),
            (parameters.scale[0] * (kappa + 1) / (kappa * freedom)).numpy(),
            freedom,
        )
        evidence += float(distribution.logpdf(rows[seen].numpy()))
    assert fit.elbo.item() == pytest.approx(evidence, rel=1e-9)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("dimension", [1, 2, 4])
def test_shapes_and_monotone_elbo(batch, dimension):
    rows = clusters(20, dimension=dimension).expand(*batch, 60, dimension)
    prior = default_prior(rows, 3)
    fit = cavi(
        rows,
        prior,
        3,
        restarts=2,
        generator=generator(0),
        history=True,
    )
    assert fit.concentration.shape == (2, *batch, 3)
    assert fit.mean.shape == (2, *batch, 3, dimension)
    assert fit.scale.shape == (2, *batch, 3, dimension, dimension)
    assert fit.elbo.shape == fit.converged.shape == fit.iterations.shape == (2, *batch)
    assert fit.converged.all()
    history = fit.elbo_history
    assert history.shape == (int(fit.iterations.max()), 2, *batch)
    rise = history.diff(dim=0)
    assert (rise[~rise.isnan()] > -1e-8).all()
    last = history.nan_to_num(nan=-math.inf).amax(0)
    torch.testing.assert_close(last, fit.elbo)
    best = fit.best()
    assert best.batch_shape == batch
    torch.testing.assert_close(best.elbo, fit.elbo.amax(0))


def test_members_of_a_batch_do_not_see_each_other():
    many = torch.stack([clusters(30, seed=seed) for seed in range(5)])
    start = cavi(
        many, default_prior(many, 3), 3, generator=generator(0), ascent=Ascent(max_iterations=1)
    )
    fit = cavi(many, default_prior(many, 3), 3, initial=start)
    for index in range(5):
        alone = cavi(
            many[index],
            default_prior(many[index], 3),
            3,
            initial=start.select((slice(None), index)),
        )
        torch.testing.assert_close(alone.elbo[0], fit.elbo[0, index])
        torch.testing.assert_close(alone.scale[0], fit.scale[0, index])
        assert alone.iterations[0] == fit.iterations[0, index]


def test_weights_are_repetitions_and_masks_are_omissions():
    rows = clusters()
    prior = default_prior(rows, 3)
    times = torch.randint(1, 4, (len(rows),), generator=generator(4))
    repeated = cavi(rows.repeat_interleave(times, 0), prior, 3, generator=generator(0))
    weighted = cavi(rows, prior, 3, sample_weights=times.double(), generator=generator(0))
    torch.testing.assert_close(repeated.elbo, weighted.elbo)
    torch.testing.assert_close(repeated.scale, weighted.scale)
    kept = torch.rand(len(rows), generator=generator(3)) > 0.3
    holes = torch.where(kept.unsqueeze(-1), rows, torch.nan)
    dropped = cavi(rows[kept], prior, 3, generator=generator(0))
    masked = cavi(holes, prior, 3, sample_weights=kept, generator=generator(0))
    torch.testing.assert_close(dropped.elbo, masked.elbo)
    torch.testing.assert_close(dropped.mean, masked.mean)
    torch.testing.assert_close(
        default_prior(rows[kept], 3).scale, default_prior(holes, 3, sample_weights=kept).scale
    )
    repeated_prior = default_prior(rows.repeat_interleave(times, 0), 3)
    torch.testing.assert_close(
        repeated_prior.scale, default_prior(rows, 3, sample_weights=times.double()).scale
    )


def test_offset_of_a_million_standard_deviations_changes_nothing():
    rows = clusters()
    offset = 1e6 * torch.tensor([1.0, -1.0])
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 1e-2)):
        near, far = (
            cavi(x, default_prior(x, 3), 3, generator=generator(0), ascent=Ascent(dtype=dtype))
            for x in (rows, rows + offset)
        )
        torch.testing.assert_close(far.elbo, near.elbo, rtol=0, atol=tolerance)
        torch.testing.assert_close(far.mean - offset, near.mean, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_of_the_rows_is_kept(dtype):
    rows = clusters(dtype=dtype)
    fit = cavi(rows, default_prior(rows, 3), 3, generator=generator(0)).best()
    assert fit.mean.dtype == fit.scale.dtype == dtype
    assert fit.elbo.dtype == torch.float64
    exact = cavi(rows.double(), default_prior(rows.double(), 3), 3, generator=generator(0)).best()
    assert fit.elbo.item() == pytest.approx(exact.elbo.item(), abs=0.01)


def test_chunks_and_stored_features_change_nothing(monkeypatch):
    rows = torch.stack([clusters(seed=seed) for seed in range(3)])
    prior = default_prior(rows, 3)

    def fit(**knobs):
        return cavi(
            rows,
            prior,
            3,
            restarts=2,
            generator=generator(0),
            ascent=Ascent(**knobs),
        )

    whole = fit()
    torch.testing.assert_close(fit(chunk_rows=7).elbo, whole.elbo)
    monkeypatch.setattr("rbpp.mixtures.sufficient._STORED_ELEMENTS", 0)
    torch.testing.assert_close(fit(chunk_rows=50).elbo, whole.elbo)
    monkeypatch.setattr("rbpp.mixtures.sufficient._BLOCK_ELEMENTS", 2)
    torch.testing.assert_close(fit().scale, whole.scale)


def test_sparse_weights_empty_what_is_not_needed():
    rows = clusters(100)
    prior = default_prior(rows, 3, concentration=0.01)
    fit = cavi(rows, prior, 8, restarts=10, generator=generator(0)).best()
    mass = fit.concentration - 0.01
    torch.testing.assert_close(
        mass.sort().values[-3:], torch.full((3,), 100.0, dtype=torch.float64), rtol=0, atol=1
    )


def test_tolerance_restarts_and_iterations_do_what_they_say():
    rows = clusters(40, (0.0, 2.0, 4.0))
    prior = default_prior(rows, 3)
    loose, tight = (
        cavi(rows, prior, 3, generator=generator(0), ascent=Ascent(tolerance=tolerance))
        for tolerance in (1e-3, 1e-9)
    )
    assert loose.iterations.item() < tight.iterations.item()
    assert loose.elbo.item() < tight.elbo.item()
    cut = cavi(rows, prior, 3, generator=generator(0), ascent=Ascent(max_iterations=2))
    assert not cut.converged.item()
    assert cut.iterations.item() == 2


def bad_cases():
    rows = clusters(10)
    prior = default_prior(rows, 3)
    start = generator(0)
    holes = rows.clone()
    holes[3, 1] = torch.nan
    return {
        "nan": ((holes, prior, 3), {"generator": start}, r"nan at index \(3, 1\)"),
        "integers": ((rows.long(), prior, 3), {"generator": start}, "floating-point"),
        "dimension": ((rows[:, :1], prior, 3), {"generator": start}, r"rows \(…, n, 2\)"),
        "components": ((rows[:2], prior, 3), {"generator": start}, "components=3"),
        "none": ((rows, prior, 0), {"generator": start}, "components=0"),
        "generator": ((rows, prior, 3), {}, "generator"),
        "weights": (
            (rows, prior, 3),
            {"generator": start, "sample_weights": -torch.ones(30)},
            "sample_weights ≥ 0",
        ),
        "weight shape": (
            (rows, prior, 3),
            {"generator": start, "sample_weights": torch.ones(4)},
            "sample_weights of shape",
        ),
        "mask": (
            (rows, prior, 3),
            {"generator": start, "sample_weights": torch.zeros(30, dtype=torch.bool)},
            "positive weight",
        ),
    }


@pytest.mark.parametrize("case", bad_cases())
def test_bad_input_is_named(case):
    positional, named, message = bad_cases()[case]
    with pytest.raises(ValueError, match=message):
        cavi(*positional, **named)


def test_a_poor_initial_posterior_is_named():
    rows = clusters()
    fit = cavi(rows, default_prior(rows, 2), 2, generator=generator(0))
    with pytest.raises(ValueError, match="of 3 components"):
        cavi(rows, default_prior(rows, 3), 3, initial=fit)
    many = cavi(rows, default_prior(rows, 2), 2, restarts=2, generator=generator(0))
    with pytest.raises(ValueError, match="batch shape"):
        cavi(rows, default_prior(rows, 2), 2, initial=many, restarts=3)


def test_an_iteration_waits_for_few_scalars_whatever_the_rows():
    """Each would stop an accelerator: those that decide what has settled, and no more."""

    def reads(count, iterations):
        rows = torch.randn(count, 3, generator=generator(0), dtype=torch.float64)
        prior = default_prior(rows, 4)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as record:
            cavi(
                rows,
                prior,
                4,
                generator=generator(0),
                ascent=Ascent(tolerance=-1.0, max_iterations=iterations, chunk_rows=50),
            )
        events = record.key_averages()
        return sum(e.count for e in events if e.key == "aten::_local_scalar_dense")

    each = [(reads(count, 7) - reads(count, 3)) / 4 for count in (200, 1000)]
    assert each[0] == each[1]
    assert each[0] < 12
