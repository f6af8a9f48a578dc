"""Posterior draws of a Gaussian mixture: three engines, one carrier.

`mixture_posterior` is what the library itself calls; users call `rbpp.fit_mixture`, whose result
has the draws, the derived terms and the checks.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from rbpp import validate
from rbpp.mixtures.ascent import Ascent
from rbpp.mixtures.cavi import cavi, fitted_prior
from rbpp.mixtures.conjugate import MixturePrior, VariationalMixture, row_weights
from rbpp.mixtures.engines import Drawn, Gradient, Sampling, draw_by_pyro
from rbpp.mixtures.mixture import GaussianMixture
from rbpp.mixtures.mixture_model import MixtureData
from rbpp.mixtures.normal_wishart import Draws
from rbpp.mixtures.psis import pareto_smooth
from rbpp.randomness import generator, spawn

Engine = Literal["cavi", "svi", "nuts"]
_DRAWS_PER_BLOCK = 2**24  # (draw, row) pairs whose log likelihoods are held at once


@dataclass(frozen=True, kw_only=True)
class MixturePosterior:
    """Posterior draws of a mixture, with what judges them. Leading dimensions (chain, draw).

    Attributes:
        draws: weights (chain, draw, K), means (…, K, d), precision_cholesky (…, K, d, d).
        log_prob: log joint density of draw and rows in nats (chain, draw); nan for a stream.
        log_q: log density under the approximation (chain, draw), or None for `nuts`.
        elbo: per chain (chain,), nan for `nuts`. That of `cavi` is its mean-field bound in closed
            form, that of `svi` the mean of log_prob − log_q, which sums the assignments out.
        pareto_k: per chain, the tail shape k̂ of the importance ratios; above 0.7 the approximation
            is too poor to be corrected. nan for `nuts` and for a stream.
        engine: that drew them.
        prior: of the mixture.
        digest: SHA-256 of the rows.
        variational: the `VariationalMixture` per chain, for `cavi`.
        settled: per chain (chain,), whether its ELBO was level in the end; None for `nuts`.
    """

    draws: Draws
    log_prob: Tensor
    log_q: Tensor | None
    elbo: Tensor
    pareto_k: Tensor
    engine: Engine
    prior: MixturePrior
    digest: str
    variational: VariationalMixture | None = None
    settled: Tensor | None = None

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

    @cached_property
    def sample_share(self) -> Tensor:
        """Effective sample size of importance sampling over the number of draws (chain,)."""
        return 1 / (2 * self.log_weights).exp().sum(-1) / self.log_prob.shape[-1]

    def resampled(self, seed: int = 0) -> MixturePosterior:
        """Draws of the posterior itself: resampled by their smoothed importance weights.

        Trustworthy where `pareto_k` is below 0.5. The draws no longer come from the approximation:
        `log_q` is None.
        """
        random = generator(spawn(seed, "resampled"))
        chains, count = self.log_prob.shape
        cumulative = self.log_weights.exp().cumsum(-1)
        # One uniform per stratum: less noise than independent choices.
        grid = torch.arange(count, dtype=cumulative.dtype)
        points = (grid + torch.rand(chains, 1, generator=random, dtype=cumulative.dtype)) / count
        index = torch.searchsorted(cumulative, points * cumulative[:, -1:]).clamp_max(count - 1)
        order = torch.stack([torch.randperm(count, generator=random) for _ in range(chains)])
        chosen = index.gather(-1, order)
        chain = torch.arange(chains, device=chosen.device).unsqueeze(-1)
        return replace(
            self,
            draws=self.draws.map(lambda value: value[chain, chosen]),
            log_prob=self.log_prob[chain, chosen],
            log_q=None,
            variational=None,
        )

    def relabelled(self, reference: Draws | None = None) -> MixturePosterior:
        """Components in the order that best matches a reference draw, for component-wise plots.

        Densities, entropies and divergences do not depend on the order and need no relabelling.

        Args:
            reference: a draw without leading dimensions; by default the one of highest `log_prob`.
        """
        if reference is None:
            best = int(self.log_prob.nan_to_num(nan=-torch.inf).flatten().argmax())
            reference = self.draws.map(lambda value: value.flatten(0, 1)[best])
        return replace(self, draws=relabelled(self.draws, reference), variational=None)

    def log_likelihood(self, rows: Tensor) -> Tensor:
        """Log density of every row (n, d) under every draw: (chain, draw, n), in nats."""
        return self.mixture.log_prob_rows(rows.to(self.draws.means))


def relabelled(draws: Draws, reference: Draws) -> Draws:
    """Draws (…) with their components in the order that best matches the reference draw.

    Components are assigned one to one so that their summed symmetrised Kullback-Leibler divergences
    from the reference's are least.

    Stephens, Dealing with label switching in mixture models, JRSS B 62 (2000), reviews the problem.
    """
    cost = symmetric_divergence(reference.mixture(), draws.mixture())
    flat = cost.flatten(0, -3).nan_to_num(posinf=1e300) if cost.dim() > 2 else cost[None]
    order = np.stack([linear_sum_assignment(matrix)[1] for matrix in flat.cpu().numpy()])
    index = torch.as_tensor(order, device=cost.device).reshape(cost.shape[:-1])
    weights, means, precision = draws
    return Draws(
        weights.gather(-1, index),
        means.gather(-2, index.unsqueeze(-1).expand_as(means)),
        precision.gather(-3, index[..., None, None].expand_as(precision)),
    )


def symmetric_divergence(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    """D_KL(p_i ‖ q_j) + D_KL(q_j ‖ p_i) of all pairs of components (…, K_p, K_q), in nats."""
    left, right = p.precision_cholesky.unsqueeze(-3), q.precision_cholesky.unsqueeze(-4)
    own, other = p.scale_tril.unsqueeze(-3), q.scale_tril.unsqueeze(-4)
    shift = (p.means.unsqueeze(-2) - q.means.unsqueeze(-3)).unsqueeze(-2)
    traces = (right.mT @ own).square().sum((-2, -1)) + (left.mT @ other).square().sum((-2, -1))
    distance = (shift @ left).square().sum((-2, -1)) + (shift @ right).square().sum((-2, -1))
    return 0.5 * (traces + distance) - p.dimension


@dataclass(frozen=True)
class Settings:
    """How a posterior is drawn: the options of `fit_mixture` that it shares with comparisons.

    Raises:
        ValueError: if an option is out of range, or is of another engine.
    """

    engine: Engine = "cavi"
    prior: MixturePrior | None = None
    concentration: float = 1.0
    sample_weights: Tensor | None = None
    chains: int = 4
    draws: int = 1000
    seed: int = 0
    ascent: Ascent = field(default_factory=Ascent)
    gradient: Gradient | None = None
    sampling: Sampling | None = None

    def __post_init__(self) -> None:
        validate.choice("engine", self.engine, get_args(Engine))
        for name, own in (("gradient", "svi"), ("sampling", "nuts")):
            if getattr(self, name) is not None and self.engine != own:
                raise ValueError(
                    f"Expected engine {own} with {name} settings; got engine {self.engine}"
                )
        validate.count("chains", self.chains)
        validate.count("starts", self.ascent.starts)
        validate.count("draws", self.draws)

    @property
    def by_pyro(self) -> Gradient | Sampling | None:
        """Settings of the engine; None for coordinate ascent."""
        if self.engine == "cavi":
            return None
        if self.engine == "svi":
            return self.gradient or Gradient()
        return self.sampling or Sampling()

    def generator(self, label: str, device: torch.device) -> torch.Generator:
        """A generator for the part of the work that the label names."""
        return generator(spawn(self.seed, label), device)


def mixture_posterior(
    data: Any, components: int, settings: Settings | None = None
) -> MixturePosterior:
    """Posterior draws of the Gaussian mixture that rows come from; arguments of `fit_mixture`.

    Raises:
        ValueError: on unusable rows or options.

    >>> rows = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    >>> mixture_posterior(rows, 2, Settings(chains=2, draws=100)).mixture.batch_shape
    torch.Size([2, 100])
    """
    data, settings = as_rows(data), settings or Settings()
    validate.count("components", components)
    how, ascent, sample_weights = settings.by_pyro, settings.ascent, settings.sample_weights
    prior = settings.prior
    if prior is None:
        prior = fitted_prior(
            data,
            components,
            settings.generator("prior", data.device),
            settings.concentration,
            sample_weights,
            ascent,
        )
    fits = cavi(
        data,
        prior,
        components,
        sample_weights=sample_weights,
        restarts=settings.chains * ascent.starts,
        generator=settings.generator("starts", data.device),
        ascent=ascent if how is None or how.warm_start else replace(ascent, max_iterations=1),
    ).best_of(ascent.starts)
    fits = fits.double()
    weights = None
    if sample_weights is not None:
        weights = row_weights(data, sample_weights).double()
        data, weights = data[weights > 0], weights[weights > 0]
    observed = MixtureData(data.double(), weights)
    if how is None:
        drawn = draws_of(fits, settings.draws, spawn(settings.seed, "draws"))
    else:
        drawn = draw_by_pyro(how, observed, prior, fits, settings.draws, settings.seed)
    joint = _log_joint(drawn.draws, prior, observed)
    elbo = pareto_k = joint.new_full((settings.chains,), torch.nan, device="cpu")
    if drawn.log_q is not None:
        ratio = (joint - drawn.log_q).cpu()
        elbo = fits.elbo.cpu() if how is None else ratio.mean(-1)
        pareto_k = pareto_smooth(ratio)[1]
    return MixturePosterior(
        draws=drawn.draws,
        log_prob=joint,
        log_q=drawn.log_q,
        elbo=elbo,
        pareto_k=pareto_k,
        engine=settings.engine,
        prior=prior,
        digest=hashlib.sha256(np.ascontiguousarray(data.detach().cpu()).tobytes()).hexdigest(),
        variational=fits if how is None else None,
        settled=drawn.settled,
    )


def draws_of(fits: VariationalMixture, count: int, seed: int) -> Drawn:
    """Draws (chain, count, …) of a variational posterior (chain,), and their log density."""
    found = fits.draw(count, generator(seed, fits.mean.device))
    draws = found.map(lambda value: value.movedim(0, 1))
    return Drawn(draws, fits.log_prob(found).mT, fits.converged)


def as_rows(data: Any) -> Tensor:
    """Rows (n, d) as a tensor of floats; one that is such already stays where and as it is.

    Raises:
        ValueError: if they are not finite real numbers, or fewer than their dimensions.
    """
    if not isinstance(data, Tensor):
        try:
            array = np.asarray(data)
        except ValueError:
            raise ValueError("Expected rows of one length; got ragged rows") from None
        if array.dtype.kind not in "fiu":
            raise ValueError(f"Expected rows of real numbers; got dtype {array.dtype}")
        kind = np.float32 if array.dtype == np.float32 else np.float64
        # In one order in memory, whatever the array's: sums in another order round otherwise.
        data = torch.tensor(np.ascontiguousarray(array, dtype=kind))
    if data.dim() != 2 or 0 in data.shape:
        raise ValueError(f"Expected rows (n, d); got shape {tuple(data.shape)}")
    if len(data) < data.shape[1]:
        raise ValueError(
            f"Expected at least as many rows as dimensions; got {len(data)} rows of "
            f"{data.shape[1]} dimensions"
        )
    if not bool(data.isfinite().all()):
        row, column = (~data.isfinite()).nonzero()[0].tolist()
        raise ValueError(
            f"Expected finite rows; got {data[row, column].item()} in row {row}, column {column}"
        )
    return data if data.is_floating_point() or data.is_complex() else data.double()


def _log_joint(draws: Draws, prior: MixturePrior, observed: MixtureData) -> Tensor:
    """Log prior of the draw plus the weighted log likelihood of the rows, (chain, draw)."""
    mixture, components = draws.mixture(), draws.means.shape[-2]
    total = prior.parameters(components).map(Tensor.double).log_prob(draws)
    step = max(1, _DRAWS_PER_BLOCK // total.numel())
    for start in range(0, len(observed.rows), step):
        part = slice(start, start + step)
        likelihood = mixture.log_prob_rows(observed.rows[part])
        if observed.weights is not None:
            likelihood = likelihood * observed.weights[part]
        total = total + likelihood.sum(-1)
    return total
