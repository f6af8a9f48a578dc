"""`rbpp.fit_mixture`: the posterior of the Gaussian mixture that rows come from, as a result."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.stats import f as f_distribution
from torch import Tensor

from rbpp import inference_data, sentences
from rbpp.checks import Check, verdict_of
from rbpp.compute import Compute
from rbpp.data.stream import Stream, row_stream
from rbpp.display import DEFAULT_VIEW, Part, Table, View
from rbpp.estimate import exactly
from rbpp.inference_data import InferenceData
from rbpp.mixtures.ascent import Ascent
from rbpp.mixtures.component_count import ComponentCount, compare_component_counts
from rbpp.mixtures.conjugate import MixturePrior, row_weights
from rbpp.mixtures.continuous import continuous_rows
from rbpp.mixtures.divergences import entropy
from rbpp.mixtures.engines import Gradient, Sampling
from rbpp.mixtures.gibbs import gibbs_movement
from rbpp.mixtures.goodness_of_fit import goodness_check, goodness_of_fit
from rbpp.mixtures.mixture import GaussianMixture
from rbpp.mixtures.posterior import Engine, MixturePosterior, Settings, as_rows, mixture_posterior
from rbpp.mixtures.row_order import row_order
from rbpp.mixtures.stream import Passes, stream_posterior
from rbpp.randomness import spawn
from rbpp.result import Result

# Vehtari, Simpson, Gelman, Yao and Gabry (2024) for k, of whose bound of 0.7 only 0.5 parted right
# from wrong posteriors; Vehtari et al. (2021) for R-hat, whose 1.01 is for samplers: independent
# chains of an approximation agree or clearly do not.
SURE_PARETO_K, LARGEST_PARETO_K, LARGEST_RHAT = 0.5, 0.7, 1.05
# Effective sample size over draws: weights can correct the draws; they hardly have to.
LEAST_SAMPLE_SHARE, SURE_SAMPLE_SHARE = 0.1, 0.5
# Rows of a component for each dimension from which the prior decides little.
ROWS_PER_DIMENSION = 5
_SHOWN_DIMENSIONS = 4
_CHANCE = 1e-3  # that chains of independent draws are taken for different ones


@dataclass(frozen=True, kw_only=True, repr=False)
class Fit(Result):
    """The posterior of a Gaussian mixture: draws, entropy, and how far to trust them.

    Attributes:
        posterior: the draws, their components in the order of the draw of highest density.
        comparison: the component counts compared, best first; empty where one was given.
    """

    idata: InferenceData
    posterior: MixturePosterior
    comparison: tuple[ComponentCount, ...] = ()

    @property
    def mixture(self) -> GaussianMixture:
        """The drawn mixtures, batch (chain, draw)."""
        return self.posterior.mixture

    def figures(self, hdi_prob: float = 0.94) -> Mapping[str, Callable[[], Any]]:
        """`fit`: entropy and effective number of components with their intervals."""
        from rbpp import plots

        names = ["entropy", "effective_components"]
        return {"fit": lambda: plots.plot_forest(self.idata, names, hdi_prob)}

    def details(self) -> Mapping[str, Any]:
        """`comparison`, where several counts were compared."""
        return {"comparison": self._compared} if self.comparison else {}

    def answer(self, view: View = DEFAULT_VIEW) -> tuple[str, ...]:
        """How many components there are, and how sure that is."""
        table = self._table(view)
        weight = self.idata["posterior"]["weight"].values
        weights = weight.reshape(-1, weight.shape[-1])
        return tuple(sentences.of_fit(table, view.units, weights, self._compared, self.checks))

    def _body(self, view: View) -> list[Part]:
        parts = [*super()._body(view), _component_table(self.idata)]
        if self.comparison:
            numbers = [[f"{value:.5g}" for value in entry.values()] for entry in self._compared]
            parts.append(Table([list(self._compared[0]), *numbers]))
        return parts

    @property
    def _compared(self) -> list[dict[str, float]]:
        return [
            {
                "components": entry.components,
                "elpd": entry.elpd.value.item(),
                "elpd_se": entry.elpd.standard_error.item(),
                "difference": entry.difference.value.item(),
                "difference_se": entry.difference.standard_error.item(),
            }
            for entry in self.comparison
        ]


def fit_mixture(
    data: Any,
    components: int | Sequence[int],
    *,
    engine: Engine = "cavi",
    prior: MixturePrior | None = None,
    concentration: float = 1.0,
    sample_weights: Tensor | None = None,
    chains: int = 4,
    draws: int = 1000,
    points: int = 256,
    log_likelihood: bool = False,
    seed: int = 0,
    ascent: Ascent | None = None,
    gradient: Gradient | None = None,
    sampling: Sampling | None = None,
    compute: Compute | None = None,
) -> Fit:
    """Posterior over the Gaussian mixture that rows come from.

    Args:
        data: rows (n, d), a tensor, an array or lists.
        components: K; of several, the one that predicts held-out rows best. Or give more than
            needed with a small `concentration`, such as 1 / K.
        engine: `"cavi"` (conjugate coordinate ascent), `"svi"` (a Pyro autoguide) or `"nuts"`.
        prior: by default weak and at the scale that the rows ask for: that of Fraley and Raftery,
            its scale fitted to the rows.
        concentration: of the default prior's Dirichlet over the weights.
        sample_weights: non-negative weight of every row (n,); weight 2 is the row twice.
        chains: independent fits.
        draws: posterior draws per chain.
        points: quasi-random points of each entropy.
        log_likelihood: keep the log likelihood of every row and draw, which `az.loo` needs.
        seed: decides every random number.
        ascent, gradient, sampling: settings of the engines.
        compute: device of the fit; by default that of the rows.

    Returns:
        `Fit`; its `idata` has `weight`, `mean`, `covariance`, `entropy` and `effective_components`.

    Raises:
        ValueError: on unusable rows or options.

    >>> rows = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    >>> fit = fit_mixture(rows, components=2, chains=2, draws=100)
    >>> fit.idata["posterior"]["entropy"].shape
    (2, 100)
    """
    rows = as_rows(data)
    if compute is not None:
        rows = rows.to(compute.device)
    counted = rows if sample_weights is None else rows[row_weights(rows, sample_weights) > 0]
    judged = list(continuous_rows(counted))
    settings = Settings(
        engine,
        prior,
        concentration,
        sample_weights,
        chains=chains,
        draws=draws,
        seed=seed,
        ascent=ascent or Ascent(),
        gradient=gradient,
        sampling=sampling,
    )
    comparison: list[ComponentCount] = []
    if isinstance(components, Sequence):
        counts = list(components)
        comparison = compare_component_counts(rows, counts, settings)
        posterior = comparison[0].posterior
    else:
        counts = [components]
        posterior = mixture_posterior(rows, components, settings)
    unweighted = rows if sample_weights is None else None
    judged.append(_approximation(posterior, unweighted, seed))
    judged.append(
        row_order(
            rows.double().cpu().numpy(),
            "rows do not depend on their neighbours",
            "give one row of each, or of a series its differences",
        )
    )
    if unweighted is not None:
        found = goodness_of_fit(rows, posterior.components, concentration, spawn(seed, "fit"))
        judged.append(goodness_check(found))
    return _result(
        posterior,
        counts,
        len(rows),
        points,
        seed,
        judged,
        rows if log_likelihood else None,
        tuple(comparison),
    )


def fit_mixture_stream(
    stream: Stream | Path | str,
    components: int,
    *,
    concentration: float = 1.0,
    chains: int = 4,
    draws: int = 1000,
    points: int = 256,
    seed: int = 0,
    passes: Passes | None = None,
    compute: Compute | None = None,
) -> Fit:
    """`fit_mixture` of rows larger than memory, by coordinate ascent; k̂ is not judged.

    Args:
        stream: of `rbpp.data.stream.row_stream`, or a path that it reads.
        components, concentration, chains, draws, points, seed: as for `fit_mixture`.
        passes: readings of the rows.
        compute: its workers work on parts of the rows, and its checkpoint keeps what is done.

    Raises:
        ValueError: on unusable rows or options.
    """
    compute = Compute.of(compute, seed)
    parts = row_stream(stream) if isinstance(stream, str | Path) else stream
    posterior, summary = stream_posterior(
        parts, components, concentration, chains, draws, passes, compute
    )
    judged = [_approximation(posterior, None, seed)]
    return _result(posterior, [components], summary.count, points, seed, judged)


def _result(
    posterior: MixturePosterior,
    compared: Sequence[int],
    count: int,
    points: int,
    seed: int,
    judged: Sequence[Check],
    rows: Tensor | None = None,
    comparison: tuple[ComponentCount, ...] = (),
) -> Fit:
    shown = posterior.relabelled()
    idata = _inference_data(shown, rows, count, points, seed)
    return Fit(
        idata=idata,
        checks=(*_checks(idata, posterior), _enough_rows(idata, count), *judged),
        settings={
            "engine": posterior.engine,
            "components": posterior.components,
            "components_compared": list(compared),
            "rows": count,
            "dimension": posterior.draws.means.shape[-1],
            "digest": posterior.digest,
            "points": points,
            "seed": seed,
        },
        posterior=shown,
        comparison=comparison,
    )


def _inference_data(
    posterior: MixturePosterior, rows: Tensor | None, count: int, points: int, seed: int
) -> InferenceData:
    """Parameters, terms that do not depend on labels, and `sample_stats`; rows where given."""
    mixture = posterior.mixture
    stats = {"lp": posterior.log_prob, "elbo": posterior.elbo, "pareto_k": posterior.pareto_k}
    if posterior.log_q is not None:
        stats["log_q"] = posterior.log_q
    dims = {
        "weight": ["component"],
        "mean": ["component", "dim"],
        "covariance": ["component", "dim", "dim_other"],
    }
    likelihood = observed = None
    if rows is not None:
        likelihood, observed = {"row": posterior.log_likelihood(rows)}, {"rows": rows}
        dims |= {"row": ["observation"], "rows": ["observation", "dim"]}
    terms = {
        "entropy": entropy(mixture, num_samples=points, seed=spawn(seed, "entropy")),
        # The number of equally weighted components with the same entropy of weights.
        "effective_components": exactly(torch.special.entr(mixture.weights).sum(-1).exp()),
    }
    return inference_data.make(
        {
            "weight": mixture.weights,
            "mean": mixture.means,
            "covariance": mixture.covariances,
            **inference_data.from_estimates(terms),
        },
        sample_stats=stats,
        log_likelihood=likelihood,
        observed_data=observed,
        constant_data={
            "engine": posterior.engine,
            "digest": posterior.digest,
            "components": posterior.components,
            "seed": seed,
            "row_count": count,
        },
        dims=dims,
    )


def _checks(idata: InferenceData, posterior: MixturePosterior) -> tuple[Check, ...]:
    """Whether chains settled and agree, and importance weights could correct the draws."""
    found = []
    if posterior.settled is not None:
        unsettled = float((~posterior.settled).sum())
        statement = "the ascent of every chain has settled"
        found.append(_at_most(statement, "unsettled chains", "unsettled_chains", unsettled, 0.0))
    if idata["posterior"].sizes["chain"] > 1:
        import arviz

        rhat = float(arviz.rhat(idata, var_names=["entropy"])["entropy"])
        found.append(_at_most("chains agree on the entropy", "R-hat", "r_hat", rhat, LARGEST_RHAT))
        if posterior.components > 1:  # one alone is what the entropy is of
            found.append(_same_components(idata, posterior))
    return tuple(found)


def _same_components(idata: InferenceData, posterior: MixturePosterior) -> Check:
    """Whether chains have the same components: their labels are matched already.

    Chains that ended in different optima can agree on the entropy: one mixture density has many
    decompositions where rows hardly part. Then entropies stand, and weights, means and covariances
    of single components are those of no one posterior mode. So it is undecided, and no violation.
    """
    import arviz

    found = arviz.rhat(idata, var_names=["weight", "mean"])
    rhat = max(float(found[name].max()) for name in ("weight", "mean"))
    # The largest of many numbers, of few draws perhaps: independent draws of one posterior pass.
    halves = 2 * idata["posterior"].sizes["chain"]
    each = max(2, idata["posterior"].sizes["draw"] // 2)
    level = _CHANCE / (2 * sum(found[name].size for name in ("weight", "mean")))
    ratio = float(f_distribution.isf(level, halves - 1, halves * (each - 1)))
    most = max(LARGEST_RHAT, math.sqrt(1 + (ratio - 1) / each))
    agree = rhat <= most
    message = f"R-hat {rhat:.3g} of weights and means, to be {most:.3g} at most"
    if not agree:
        low, high = float(posterior.elbo.min()), float(posterior.elbo.max())
        ends = f" (ELBO {low:.1f} to {high:.1f})" if low == low else ""
        message += (
            f": with labels matched, chains are in different optima{ends}; read entropy and "
            "density, or give fewer components or more starts"
        )
    return Check(
        "chains agree on the components",
        "holds" if agree else "undecided",
        message,
        {"r_hat": rhat, "threshold": most},
        required=False,
    )


def _enough_rows(idata: InferenceData, count: int) -> Check:
    """Whether rows and not the prior decide covariances.

    Of a standard normal in 20 dimensions, whose entropy is 28.4 nats, 40 rows gave 25.9 ± 0.4, 60
    gave 27.2 ± 0.4, 100 gave 28.0 ± 0.3 and 200 gave 28.3 ± 0.2.
    """
    posterior = idata["posterior"]
    dimension = posterior.sizes["dim"]
    each = count / max(float(posterior["effective_components"].median()), 1.0)
    least = ROWS_PER_DIMENSION * dimension
    message = f"{each:.3g} rows a component of {dimension} dimensions, to be {least} at least"
    return Check(
        "rows decide the covariances, and not the prior",
        "holds" if each >= least else "violated",
        message if each >= least else f"{message}: give more rows, or dimension=…",
        {"rows_per_component": each, "threshold": float(least)},
    )


def _approximation(posterior: MixturePosterior, rows: Tensor | None, seed: int) -> Check:
    """Whether the draws are the posterior's.

    Importance ratios decide where they are good. Where they are not, coordinate ascent may still
    have what does not depend on labels right: sweeps of an exact sampler tell. They also tell where
    a guide of `svi` is too narrow along a few of its coordinates, which ratios of many forgive.
    """
    statement = "the approximation is near the posterior"
    pareto_k = float(posterior.pareto_k.max())
    values = {"pareto_k": pareto_k, "threshold": SURE_PARETO_K}
    if pareto_k != pareto_k:  # nuts approximates nothing; a stream is not judged
        return Check(statement, "unknown", "Pareto k: not measured", values)
    share = float(posterior.sample_share.min())
    values["sample_share"] = share
    message = f"Pareto k {pareto_k:.3g}, effective draws {share:.0%}"
    good = pareto_k < SURE_PARETO_K and share > LEAST_SAMPLE_SHARE
    moved = None
    if rows is not None and not (good and posterior.engine == "cavi"):
        moved = gibbs_movement(
            rows.double(),
            posterior.prior,
            posterior.draws,
            most_draws=128 if posterior.engine == "cavi" else 1000,  # which see 0.7 of the spread
            seed=seed,
        )
    if moved is not None:
        values |= {"gibbs_shift": moved.shift, "gibbs_spread": moved.spread}
        message += (
            f"; exact sweeps shift entropy, likelihood or mean by {abs(moved.shift):.2g} sd and "
            f"leave {1 / moved.spread:.2g} of the spread"
        )
        if moved.is_seen:
            return Check(statement, "violated", message, values)
    usable = pareto_k < LARGEST_PARETO_K and share > LEAST_SAMPLE_SHARE
    # Ratios that are usable, most draws effective and sweeps that see nothing agree.
    agreed = moved is not None and usable and share > SURE_SAMPLE_SHARE
    by_sweeps = moved is not None and posterior.engine == "cavi"
    if good or agreed or by_sweeps:
        if agreed and not good:
            message += ": both vouch for it"
        elif by_sweeps and not good:
            message += ": these alone vouch for it, and for what does not depend on labels only"
        return Check(statement, "holds", message, values)
    return Check(statement, "undecided" if usable else "violated", message, values)


def _at_most(statement: str, what: str, name: str, measured: float, threshold: float) -> Check:
    message = f"{what} {measured:.3g}, to be {threshold:g} at most"
    verdict = verdict_of(measured <= threshold)
    return Check(statement, verdict, message, {name: measured, "threshold": threshold})


def _component_table(idata: InferenceData | None) -> Table:
    """Weight and mean of every component, in the order of the draw of highest density."""
    assert idata is not None
    posterior = idata["posterior"]
    lines = [["component", "weight", "sd", "mean"]]
    weight, mean = posterior["weight"], posterior["mean"].mean(("chain", "draw")).values
    for index, centre in enumerate(mean):
        draws = weight.isel(component=index)
        shown = ", ".join(f"{value:.4g}" for value in centre[:_SHOWN_DIMENSIONS])
        more = ", …" if len(centre) > _SHOWN_DIMENSIONS else ""
        spread = float(draws.std())
        lines.append(
            [str(index), f"{float(draws.mean()):.3f}", f"{spread:.3f}", f"({shown}{more})"]
        )
    return Table(lines)
