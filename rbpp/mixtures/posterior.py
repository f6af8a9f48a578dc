"""A posterior over Gaussian mixtures from rows: one call, three engines, one result."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from rbpp import inference_data
from rbpp.mixtures.cavi import cavi
from rbpp.mixtures.conjugate import MixturePrior, VariationalMixture, row_weights
from rbpp.mixtures.fitted_prior import fitted_prior
from rbpp.mixtures.mixture import GaussianMixture
from rbpp.mixtures.mixture_model import MixtureData
from rbpp.mixtures.normal_wishart import Draws, log_prob
from rbpp.mixtures.nuts import nuts
from rbpp.mixtures.psis import pareto_smooth
from rbpp.mixtures.relabelling import relabelled
from rbpp.mixtures.standardisation import standardisation
from rbpp.mixtures.svi import Drawn, svi
from rbpp.randomness import generator, spawn

Engine = Literal["cavi", "svi", "nuts"]
_DRAWS_PER_BLOCK = 2**24  # (draw, row) pairs whose log likelihoods are held at once


@dataclass(frozen=True)
class MixturePosterior:
    """Posterior draws of a mixture, with what judges them. Leading dimensions (chain, draw).

    Attributes:
        draws: weights (chain, draw, K), means (…, K, d), precision_cholesky (…, K, d, d).
        log_prob: log joint density of draw and rows in nats (chain, draw); nan where not asked for.
        log_q: log density under the approximation (chain, draw), or None for `nuts`.
        elbo: per chain (chain,), nan for `nuts`. That of `cavi` is its mean-field bound in closed
            form, that of `svi` the mean of log_prob − log_q, which sums the assignments out.
        pareto_k: per chain, the tail shape k̂ of the importance ratios; above 0.7 the approximation
            is too poor to be corrected. nan for `nuts`.
        engine: that drew them.
        prior: of the mixture.
        digest: SHA-256 of the rows.
        posterior: the `VariationalMixture` per chain, for `cavi`.
    """

    draws: Draws
    log_prob: Tensor
    log_q: Tensor | None
    elbo: Tensor
    pareto_k: Tensor
    engine: Engine
    prior: MixturePrior
    digest: str
    posterior: VariationalMixture | None = None

    @cached_property
    def mixture(self) -> GaussianMixture:
        """The mixtures, batch (chain, draw)."""
        return self.draws.mixture()

    @property
    def components(self) -> int:
        """Number of components K."""
        return self.draws.means.shape[-2]

    @cached_property
    def log_weights(self) -> Tensor:
        """Pareto-smoothed log importance weights (chain, draw), normalised within a chain."""
        if self.log_q is None:
            return torch.full_like(self.log_prob, -float(np.log(self.log_prob.shape[-1])))
        return pareto_smooth(self.log_prob - self.log_q)[0]

    def resampled(self, seed: int = 0) -> MixturePosterior:
        """Draws of the posterior itself: resampled by their smoothed importance weights.

        Trustworthy where `pareto_k` is below 0.7.
        """
        source = generator(spawn(seed, "resampled"))
        chains, count = self.log_prob.shape
        cumulative = self.log_weights.exp().cumsum(-1)
        # One uniform per stratum: less noise than independent choices.
        grid = torch.arange(count, dtype=cumulative.dtype)
        points = (grid + torch.rand(chains, 1, generator=source, dtype=cumulative.dtype)) / count
        index = torch.searchsorted(cumulative, points * cumulative[:, -1:]).clamp_max(count - 1)
        order = torch.stack([torch.randperm(count, generator=source) for _ in range(chains)])
        return self._take(index.gather(-1, order))

    def relabelled(self, reference: Draws | None = None) -> MixturePosterior:
        """Components in the order that best matches a reference draw, for component-wise plots.

        Densities, entropies and divergences do not depend on the order and need no relabelling.

        Args:
            reference: a draw without leading dimensions; by default the one of highest `log_prob`.
        """
        if reference is None:
            best = int(self.log_prob.nan_to_num(nan=-torch.inf).flatten().argmax())
            reference = Draws(*(value.flatten(0, 1)[best] for value in self.draws))
        return replace(self, draws=relabelled(self.draws, reference), posterior=None)

    def log_likelihood(self, rows: Tensor) -> Tensor:
        """Log density of every row (n, d) under every draw: (chain, draw, n), in nats."""
        return self.mixture.log_prob_rows(rows.to(self.draws.means))

    def to_inference_data(
        self,
        rows: Tensor | None = None,
        *,
        settings: dict[str, Any] | None = None,
    ) -> Any:
        """InferenceData with the mixture's parameters in `posterior`, and `sample_stats`.

        Args:
            rows: with them come `observed_data` and `log_likelihood`, which `az.loo` needs.
            settings: what else to keep in `constant_data`.
        """
        dims = {
            "weight": ["component"],
            "mean": ["component", "dim"],
            "covariance": ["component", "dim", "dim_other"],
            "row": ["observation"],
            "rows": ["observation", "dim"],
        }
        stats = {"lp": self.log_prob, "elbo": self.elbo, "pareto_k": self.pareto_k}
        if self.log_q is not None:
            stats["log_q"] = self.log_q
        likelihood = observed = None
        if rows is not None:
            likelihood = {"row": _array(self.log_likelihood(rows))}
            observed = {"rows": _array(rows)}
        constant = {"engine": self.engine, "digest": self.digest, "components": self.components}
        return inference_data.make(
            {
                "weight": _array(self.draws.weights),
                "mean": _array(self.draws.means),
                "covariance": _array(self.mixture.covariances),
            },
            sample_stats={name: _array(value) for name, value in stats.items()},
            log_likelihood=likelihood,
            observed_data=observed,
            constant_data={**constant, **(settings or {})},
            dims=dims if rows is not None else {k: v for k, v in dims.items() if k[:3] != "row"},
        )

    def _take(self, index: Tensor) -> MixturePosterior:
        """Draws at `index` (chain, draw) within every chain; they no longer come from q."""
        chain = torch.arange(len(index), device=index.device).unsqueeze(-1)
        return replace(
            self,
            draws=Draws(*(value[chain, index] for value in self.draws)),
            log_prob=self.log_prob[chain, index],
            log_q=None,
            posterior=None,
        )


def _rows(data: Any) -> Tensor:
    """Rows (n, d) as a tensor of floats; one that is such already stays where and as it is."""
    if not isinstance(data, Tensor):
        try:
            array = np.asarray(data)
        except ValueError:
            raise ValueError("Expected rows of one length; got ragged rows") from None
        if array.dtype.kind not in "fiu":
            raise ValueError(f"Expected rows of real numbers; got dtype {array.dtype}")
        data = torch.tensor(array.astype(np.float32 if array.dtype == np.float32 else np.float64))
    if data.dim() != 2 or 0 in data.shape:
        raise ValueError(f"Expected rows (n, d); got shape {tuple(data.shape)}")
    if len(data) < data.shape[1]:
        raise ValueError(
            f"Expected at least as many rows as dimensions; got {len(data)} rows of "
            f"{data.shape[1]} dimensions"
        )
    return data if data.is_floating_point() or data.is_complex() else data.double()


def fit_mixture(
    data: Any,
    components: int,
    *,
    engine: Engine = "cavi",
    prior: MixturePrior | None = None,
    concentration: float = 1.0,
    sample_weights: Tensor | None = None,
    mask: Tensor | None = None,
    restarts: int = 4,
    starts: int = 5,
    draws: int = 1000,
    seed: int = 0,
    judge: bool = True,
    **options: Any,
) -> MixturePosterior:
    """Posterior over the Gaussian mixture that rows come from.

    Args:
        data: rows (n, d), a tensor, an array or lists.
        components: K. To infer it, give more than needed with a small `concentration`, such as
            1 / K, or compare several by `rbpp.mixtures.component_count.compare_component_counts`.
        engine: `"cavi"` (conjugate coordinate ascent), `"svi"` (a Pyro autoguide) or `"nuts"`.
        prior: by default `fitted_prior`, weak and at the scale that the rows ask for.
        concentration: of the default prior's weights.
        sample_weights: non-negative weight of every row (n,).
        mask: False for rows to leave out (n,).
        restarts: independent chains.
        starts: k-means++ starts of each chain, of which it keeps the best.
        draws: posterior draws per chain.
        seed: of starts, engine and draws.
        judge: evaluate `log_prob`, and from it k̂; it costs draws × n densities per chain.
        options: of the engine: `tolerance`, `max_iterations`, `chunk_rows`, `dtype` for all;
            `guide`, `steps`, `learning_rate`, `particles`, `batch_rows` for `svi`; `warmup` for
            `nuts`; `warm_start` for both, False to begin at k-means centres with the scale factors
            at the identity and not at a coordinate-ascent fit.

    Raises:
        ValueError: on unusable rows or options.

    >>> rows = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    >>> posterior = fit_mixture(rows, 2, restarts=2, draws=100)
    >>> posterior.mixture.batch_shape
    torch.Size([2, 100])
    """
    data = _rows(data)
    if mask is None and not bool(data.isfinite().all()):
        row, column = (~data.isfinite()).nonzero()[0].tolist()
        raise ValueError(
            f"Expected finite rows; got {data[row, column].item()} in row {row}, column {column}"
        )
    if isinstance(components, bool) or not isinstance(components, int | np.integer):
        raise ValueError(f"Expected a whole number of components; got {components!r}")
    check_counts(restarts, starts, draws)
    ascent, own = _split_options(engine, options)
    if not own.get("warm_start", True):
        ascent["max_iterations"] = 1
    if prior is None:
        prior = fitted_prior(
            data,
            components,
            concentration=concentration,
            sample_weights=sample_weights,
            mask=mask,
            starts=starts,
            chunk_rows=ascent.get("chunk_rows"),
            generator=generator(spawn(seed, "prior"), data.device),
        )
    fits = cavi(
        data,
        prior,
        components,
        sample_weights=sample_weights,
        mask=mask,
        restarts=restarts * starts,
        generator=generator(spawn(seed, "starts"), data.device),
        **ascent,
    ).best_of(starts)
    fits = replace(
        fits, **{name: value.double() for name, value in fits.parameters._asdict().items()}
    )
    weights = None
    if sample_weights is not None or mask is not None:
        weights = row_weights(data, sample_weights, mask).double()
        kept = weights > 0
        data, weights = data[kept], weights[kept]
    observed = MixtureData(data.double(), weights)
    if engine == "cavi":
        found = fits.draw(draws, generator(spawn(seed, "draws"), data.device))
        drawn = Drawn(Draws(*(value.movedim(0, 1) for value in found)), None, None)
        drawn = drawn._replace(log_q=fits.log_prob(found).mT)
    else:
        run: Callable[..., Drawn] = svi if engine == "svi" else nuts
        drawn = by_gradient(run, observed, prior, components, fits, draws, seed, own)
    joint = torch.full(drawn.draws.means.shape[:2], torch.nan, dtype=torch.float64)
    if judge:
        joint = _log_joint(drawn.draws, prior, observed).cpu()
    elbo = pareto_k = joint.new_full((restarts,), torch.nan)
    if drawn.log_q is not None:
        ratio = joint - drawn.log_q.cpu()
        elbo = fits.elbo.cpu() if engine == "cavi" and fits.elbo is not None else ratio.mean(-1)
        pareto_k = pareto_smooth(ratio)[1] if judge else pareto_k
    return MixturePosterior(
        drawn.draws,
        joint.to(data.device),
        drawn.log_q,
        elbo,
        pareto_k,
        engine,
        prior,
        hashlib.sha256(np.ascontiguousarray(_array(data)).tobytes()).hexdigest(),
        fits if engine == "cavi" else None,
    )


def check_counts(restarts: int, starts: int, draws: int) -> None:
    """Refuse counts that are none."""
    for name, value in (("restarts", restarts), ("starts", starts), ("draws", draws)):
        if value < 1:
            raise ValueError(f"Expected {name} ≥ 1; got {value}")


ASCENT_OPTIONS = {"tolerance", "max_iterations", "chunk_rows", "dtype"}
_OWN_OPTIONS: dict[str, set[str]] = {
    "cavi": set(),
    "svi": {"guide", "steps", "learning_rate", "particles", "batch_rows", "warm_start"},
    "nuts": {"warmup", "warm_start"},
}


def _split_options(
    engine: Engine, options: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    if engine not in get_args(Engine):
        raise ValueError(f"Expected an engine of {', '.join(get_args(Engine))}; got {engine}")
    known = ASCENT_OPTIONS | _OWN_OPTIONS[engine]
    unknown = sorted(set(options) - known)
    if unknown:
        raise ValueError(
            f"Expected options of {engine} ({', '.join(sorted(known))}); got {', '.join(unknown)}"
        )
    ascent = {name: value for name, value in options.items() if name in ASCENT_OPTIONS}
    return ascent, {name: value for name, value in options.items() if name not in ascent}


def by_gradient(
    run: Callable[..., Drawn],
    observed: MixtureData,
    prior: MixturePrior,
    components: int,
    fits: VariationalMixture,
    draws: int,
    seed: int,
    options: dict[str, Any],
) -> Drawn:
    """Run SVI or NUTS on standardised rows, and map its draws back.

    Args:
        run: `rbpp.mixtures.svi.svi` or `rbpp.mixtures.nuts.nuts`.
        observed: rows in units of their own.
        prior: in the same units.
        components: K.
        fits: start of every chain, without other leading dimensions.
        draws: per chain.
        seed: of the engine and the draws.
        options: of the engine; `warm_start` False starts at the means of the fits alone.
    """
    units = standardisation(observed.rows, observed.weights)
    inside = replace(observed, rows=units.rows(observed.rows))
    warm = options.pop("warm_start", True)
    starts = []
    for chain in range(fits.batch_shape[0]):
        expected = fits.select(chain)
        weights = expected.concentration / expected.concentration.sum(-1, keepdim=True)
        mixture = expected.expected()
        means = (mixture.means - units.centre) / units.spread
        factor = mixture.precision_cholesky * units.spread.unsqueeze(-1)
        if not warm:
            weights = torch.full_like(weights, 1 / components)
            factor = torch.eye(means.shape[-1]).to(factor).expand_as(factor).contiguous()
        starts.append(Draws(weights, means, factor))
    drawn = run(
        inside,
        units.prior(prior),
        components,
        starts,
        draws=draws,
        seed=seed,
        **options,
    )
    log_q = drawn.log_q
    if log_q is not None:
        log_q = log_q - units.log_jacobian(components)
    return Drawn(units.draws_back(drawn.draws), log_q, drawn.losses)


def _log_joint(draws: Draws, prior: MixturePrior, observed: MixtureData) -> Tensor:
    """Log prior of the draw plus the weighted log likelihood of the rows, (chain, draw)."""
    mixture, components = draws.mixture(), draws.means.shape[-2]
    before = log_prob(prior.parameters(components).map(Tensor.double), draws)
    step = max(1, _DRAWS_PER_BLOCK // before.numel())
    total = before
    for start in range(0, len(observed.rows), step):
        part = slice(start, start + step)
        likelihood = mixture.log_prob_rows(observed.rows[part])
        if observed.weights is not None:
            likelihood = likelihood * observed.weights[part]
        total = total + likelihood.sum(-1)
    return total


def _array(value: Tensor) -> np.ndarray:
    return value.detach().cpu().numpy()
