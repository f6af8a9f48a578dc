"""Coordinate-ascent variational inference for conjugate Gaussian mixtures, batched over fits.

Data sets × restarts are fitted at once; each stops when its own ELBO has settled. An iteration is
`statistics` (a pass over the rows, `sufficient`) and `update`, both also used by the streaming
and distributed engines: statistics of row chunks add up to those of the whole.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from rbpp.mixtures.ascent import Ascent, ascend, update
from rbpp.mixtures.conjugate import MixturePrior, VariationalMixture, default_prior, row_weights
from rbpp.mixtures.kmeans import kmeans_centres
from rbpp.mixtures.normal_wishart import Parameters
from rbpp.mixtures.standardisation import Standardisation, standardisation
from rbpp.mixtures.sufficient import Rows, Statistics, statistics
from rbpp.threads import block_threads

# Inverse variance of the clusters that turn centres into near-hard first responsibilities, in units
# of the data's standard deviation: far sharper than any component, far from overflow.
_START_PRECISION = 1e4
# Rounds of `fitted_prior`: each raises the ELBO; after three the scale has settled to a per cent,
# but for components of very different width, which take more.
_ROUNDS, _MOST_ROUNDS, _SETTLED, _PRIOR_TOLERANCE = 3, 20, 0.05, 1e-4
# Rows that repeat would pull the scale to zero: a component keeps at least this share of it.
# The prior precision of a mean stays as it is unless the rows ask for less than a tenth of it.
_FAR_BELOW = 0.1
_SMALLEST_SCALE, _SMALLEST_SCALE_DISTINCT = 1e-4, 1e-10


def cavi(
    data: Tensor,
    prior: MixturePrior,
    components: int,
    *,
    sample_weights: Tensor | None = None,
    restarts: int = 1,
    generator: torch.Generator | None = None,
    initial: Parameters | None = None,
    ascent: Ascent | None = None,
    history: bool = False,
) -> VariationalMixture:
    """Mean-field posterior of Gaussian mixtures with conjugate priors, in closed-form steps.

    Maximises the ELBO E_q[log p(rows, z, w, μ, Λ) − log q(z) q(w) q(μ, Λ)] from k-means++ starts.
    The ELBO never falls from one iteration to the next, and that is asserted.

    Args:
        data: rows (…, n, d) in floating point; the leading dimensions are data sets.
        prior: broadcasts over the data sets.
        components: K.
        sample_weights: non-negative weights (…, n), or a mask: weight 2 is the row twice. A row of
            weight 0 does not count, whatever it holds.
        restarts: independent starts of every data set.
        generator: source of the starts; needed unless `initial` is given.
        initial: parameters (restarts, …) to start from instead.
        ascent: when a fit stops, and how rows are passed over; `restarts` stands for its starts.
            Statistics and parameters are always accumulated in float64, and rows are centred and
            scaled first.
        history: keep the ELBO of every iteration.

    Returns:
        VariationalMixture with leading dimensions (restarts, …) and the dtype of the data.

    Raises:
        ValueError: on rows that are not finite, shapes that disagree, or more components than rows.
        ArithmeticError: if an ELBO falls by more than rounding explains.

    >>> from rbpp.mixtures.conjugate import default_prior
    >>> rows = torch.cat([torch.zeros(30, 1), torch.full((70, 1), 9.0)])
    >>> rows += torch.randn(100, 1, generator=torch.Generator().manual_seed(0))
    >>> start = torch.Generator().manual_seed(0)
    >>> fit = cavi(rows, default_prior(rows, 2), 2, generator=start).best()
    >>> (fit.concentration - 1).round().sort().values
    tensor([30., 70.])
    """
    weights = _check(data, prior, components, sample_weights)
    batch = data.shape[:-2]
    sets = batch.numel()
    flat_rows = data.reshape(sets, *data.shape[-2:])
    if weights is not None:
        weights = weights.reshape(sets, -1)
    units = standardisation(flat_rows, weights).whitened(flat_rows, weights)
    ascent = ascent or Ascent()
    dtype = ascent.dtype or (torch.float32 if data.is_cuda else data.dtype)
    rows = _standardised(flat_rows, weights, units, dtype)
    members = torch.arange(sets, device=data.device).repeat_interleave(restarts)
    own_units = units.map(lambda value: value[members])
    whole = _flat(prior.parameters(components), batch).select(members).map(Tensor.double)
    # All but the concentration is common to the components, and stands once for them.
    once = replace(whole.map(lambda value: value[:, :1]), concentration=whole.concentration)
    prior_parameters = own_units.parameters(once)
    if initial is None and generator is None:
        raise ValueError("Expected a generator for the starts, or initial; got neither")
    with block_threads(data.device) as mapper:

        def gather(natural: Tensor, which: Tensor) -> Statistics:
            return statistics(rows, natural, which, ascent.chunk_rows, mapper)

        if initial is not None:
            parameters = _from_initial(initial, restarts, batch, components)
            parameters = own_units.parameters(parameters)
        else:
            assert generator is not None
            centres = kmeans_centres(rows, members, components, generator, mapper)
            nearest = gather(centre_parameters(centres.mT.double()), members)
            parameters = update(prior_parameters, nearest.moments)
        fit = ascend(
            gather,
            members,
            prior_parameters,
            parameters,
            ascent,
            rounding=torch.finfo(dtype).eps,
            history=history,
        )
    jacobian = -(rows.weight * units.log_det())[members]

    def shaped(value: Tensor) -> Tensor:
        by_restart = value.unflatten(0, (sets, restarts)).movedim(1, 0)
        return by_restart.reshape(restarts, *batch, *value.shape[1:])

    trace = None
    if fit.elbo_history is not None:
        trace = torch.stack([shaped(value + jacobian) for value in fit.elbo_history])
    assert fit.converged is not None
    assert fit.iterations is not None
    found = own_units.parameters_back(fit).map(lambda value: shaped(value).to(data.dtype))
    return VariationalMixture(
        **vars(found),
        elbo=shaped(fit.elbo + jacobian),
        converged=shaped(fit.converged),
        iterations=shaped(fit.iterations),
        elbo_history=trace,
    )


def centre_parameters(centres: Tensor) -> Tensor:
    """Natural parameters (…, K, P) that give every row to its nearest centre (…, K, d)."""
    dimension = centres.shape[-1]
    row, column = torch.triu_indices(dimension, dimension, device=centres.device)
    quadratic = torch.where(row == column, -0.5 * _START_PRECISION, 0.0).to(centres)
    quadratic = quadratic.expand(*centres.shape[:-1], -1)
    constant = -0.5 * _START_PRECISION * centres.square().sum(-1, keepdim=True)
    return torch.cat([quadratic, _START_PRECISION * centres, constant], -1)


def fitted_prior(
    data: Tensor,
    components: int,
    generator: torch.Generator,
    concentration: float = 1.0,
    sample_weights: Tensor | None = None,
    ascent: Ascent | None = None,
) -> MixturePrior:
    """`default_prior` with its scale multiplied by the number that maximises the ELBO.

    `default_prior` expects a component to have 1/K of the data's volume. Where components are far
    apart that is far too much, and the posterior's covariances, and with them every entropy, are
    too large: for three components twelve standard deviations apart, 400 rows, by 0.09 nats beside
    a posterior standard deviation of 0.05, so that 48 % of 94 % intervals cover. With the scale
    fitted 95 % do; where components overlap nothing is lost.

    Args:
        data: rows (n, d) of one data set.
        components, concentration: as for `default_prior`.
        generator: source of the starts.
        sample_weights: as for `cavi`.
        ascent: its starts are those of the first fit, the later ones go on from the best; its
            `chunk_rows` are those of all.

    Raises:
        ValueError: as `default_prior` and `cavi`.
    """
    ascent = ascent or Ascent()
    own = Ascent(tolerance=_PRIOR_TOLERANCE, chunk_rows=ascent.chunk_rows)
    broad = default_prior(data.double(), components, concentration, sample_weights)
    distinct = len(torch.unique(data, dim=0)) == len(data)
    least = _SMALLEST_SCALE_DISTINCT if distinct else _SMALLEST_SCALE
    prior, fit = broad, None
    factor: Tensor | None = None
    for done in range(_MOST_ROUNDS):
        found = cavi(
            data,
            prior,
            components,
            sample_weights=sample_weights,
            restarts=ascent.starts if fit is None else 1,
            generator=generator,
            initial=fit,
            ascent=own,
        )
        fit = found.best_of(found.batch_shape[0])
        before, factor = factor, scale_factor(broad, fit.select(0)).clamp_min(least)
        prior = replace(
            broad,
            scale=broad.scale * factor[..., None, None],
            mean_precision=likeliest_mean_precision(broad, fit.select(0)),
        )
        settled = before is not None and bool((factor > (1 - _SETTLED) * before).all())
        if done + 1 >= _ROUNDS and settled:
            break
    return prior


def scale_factor(prior: MixturePrior, posterior: Parameters) -> Tensor:
    """The s for which the prior with scale s Ψ gives the posterior's precisions the highest mean.

    E_q[Σ_k log Wishart(Λ_k | ν, (s Ψ)⁻¹)] is largest at s = K ν d / Σ_k tr(Ψ E_q[Λ_k]): the step of
    empirical Bayes that raises the ELBO, all else held fixed. At most ν, where all components are
    empty or alike.

    Args:
        prior: of the posterior, up to its scale.
        posterior: leading dimensions (…).

    Returns:
        s, (…).
    """
    scale = posterior.scale.to(prior.scale.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(scale))
    precision = inverse * posterior.degrees_of_freedom[..., None, None]
    trace = (prior.scale.unsqueeze(-3) * precision).sum((-3, -2, -1))
    return posterior.components * prior.degrees_of_freedom * prior.dimension / trace


def likeliest_mean_precision(prior: MixturePrior, posterior: Parameters) -> Tensor:
    """The prior's κ, or the likeliest one, K d / Σ_k E_q[(μ_k − m)ᵀ Λ_k (μ_k − m)], if far below.

    The prior holds a mean within the width of its own component / √κ from m. Of a component that is
    narrow beside its distance from m the covariance would be that distance's, not that of its rows.
    """
    shift = (posterior.mean - prior.mean.unsqueeze(-2)).to(prior.scale).unsqueeze(-1)
    factor = torch.linalg.cholesky(posterior.scale.to(prior.scale))
    square = torch.linalg.solve_triangular(factor, shift, upper=False).square().sum((-2, -1))
    square = (
        posterior.degrees_of_freedom * square + prior.dimension / posterior.mean_precision
    ).sum(-1)
    likeliest = posterior.components * prior.dimension / square
    return torch.where(
        likeliest < _FAR_BELOW * prior.mean_precision, likeliest, prior.mean_precision
    )


def _check(
    data: Tensor,
    prior: MixturePrior,
    components: int,
    sample_weights: Tensor | None,
) -> Tensor | None:
    if data.dim() < 2 or not data.is_floating_point() or data.shape[-1] != prior.dimension:
        raise ValueError(
            f"Expected floating-point rows (…, n, {prior.dimension}) as in the prior; got "
            f"{data.dtype} of shape {tuple(data.shape)}"
        )
    weights = None if sample_weights is None else row_weights(data, sample_weights)
    finite = data.isfinite()
    if weights is not None:
        finite = finite | (weights == 0).unsqueeze(-1)
    if not bool(finite.all()):
        where = tuple((~finite).nonzero()[0].tolist())
        raise ValueError(f"Expected finite rows; got {data[where].item()} at index {where}")
    if components < 1 or components > data.shape[-2]:
        raise ValueError(
            f"Expected components from 1 to the {data.shape[-2]} rows; got components={components}"
        )
    return weights


def _standardised(
    data: Tensor, weights: Tensor | None, units: Standardisation, dtype: torch.dtype
) -> Rows:
    columns = units.rows(data).to(dtype).mT.contiguous()
    if weights is not None:
        weights = weights.to(dtype)
        columns = torch.where(weights.unsqueeze(-2) > 0, columns, 0.0)
    return Rows(columns, weights)


def _flat(parameters: Parameters, batch: torch.Size) -> Parameters:
    """Parameters of a batch that broadcasts to `batch`, as (D, …)."""
    depth = len(parameters.batch_shape)

    def flat(value: Tensor) -> Tensor:
        own = value.shape[depth:]
        return value.expand(*batch, *own).reshape(batch.numel(), *own)

    return parameters.map(flat)


def _from_initial(
    initial: Parameters,
    restarts: int,
    batch: torch.Size,
    components: int,
) -> Parameters:
    expected = torch.Size((restarts, *batch))
    if initial.components != components:
        raise ValueError(
            f"Expected an initial posterior of {components} components; got {initial.components}"
        )
    try:
        flat = _flat(initial.map(Tensor.double), expected)
    except RuntimeError:
        raise ValueError(
            f"Expected an initial posterior of batch shape {tuple(expected)}; "
            f"got {tuple(initial.batch_shape)}"
        ) from None
    return flat.map(
        lambda value: value.unflatten(0, (restarts, -1)).movedim(0, 1).flatten(0, 1).clone()
    )
