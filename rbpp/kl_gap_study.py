"""The paper's Gaussian-mixture study (Section 4.4, Figures 2, 4 and 5), with its uncertainty.

For every world of the `gaussian_mixture` process, mixtures are fitted to the anchors and to the
synthetic rows, as posteriors; the KL gap is D(π_anchor ‖ G) − D(π_gen ‖ G), and in the coverage
direction D(G ‖ π_anchor) − D(G ‖ π_gen). Three spreads are kept apart: between worlds (dim
`world`), of the posterior (dims `chain`, `draw`), and of the Monte Carlo integral (the `_mcse`
companion).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributions import MixtureSameFamily

from rbpp import inference_data, sentences, validate
from rbpp.compute import Compute
from rbpp.display import DEFAULT_VIEW, Part, Table, View
from rbpp.estimate import Estimate
from rbpp.inference_data import InferenceData
from rbpp.mixtures.ascent import Ascent
from rbpp.mixtures.cavi import cavi
from rbpp.mixtures.conjugate import default_prior
from rbpp.mixtures.divergences import expected_log_ratio, kl_divergence
from rbpp.mixtures.histograms import histogram_divergence
from rbpp.mixtures.mixture import GaussianMixture
from rbpp.processes.loading import PAPER_KNOBS, knob_name
from rbpp.processes.process import draw, load_process
from rbpp.result import Result

# The parts of the generator that K, J and L count.
PARTS = ("anchor-sampled", "unsampled", "irrelevant")
# Of two starts the better after three passes goes on, until a pass gains less than 3e-4 nats a
# row. Eight starts to 1e-6 each take ten times as long; they moved medians over 100 worlds by 0.4
# nats at K = 2 and 0.1 at K = 8 and 15, a small part of the spread between worlds.
STARTS, FIRST_PASSES, TOLERANCE = 2, 3, 3e-4
# Nats that a log density in float32 may at most be off before divergences are computed in float64;
# what gaps were off, in worlds where it was 0.004, was 2e-4 at most.
LARGEST_ROUNDING = 0.05
# Knobs of rows that the study does not look at.
UNUSED_ROWS = ("targets", "unprompted_outputs")
# Worlds that are drawn and fitted together; a study of more has several batches at each value.
WORLDS_AT_ONCE = 100


@dataclass(frozen=True)
class Worlds:
    """Worlds of the `gaussian_mixture` process: W of them in every leading dimension.

    Attributes:
        anchor, synthetic: rows, (W, m, d) and (W, n, d).
        truth: the task G, K + J components, batch (W,).
        generator: the prompted generator M, K + J + L components, batch (W,).
        parts: the part of each generator component: anchor-sampled, unsampled or irrelevant.
    """

    anchor: Tensor
    synthetic: Tensor
    truth: GaussianMixture
    generator: GaussianMixture
    parts: tuple[str, ...]

    @property
    def anchor_components(self) -> int:
        """K, the components that the anchors were sampled from."""
        return self.parts.count("anchor-sampled")


def sample_worlds(
    count: int, *, seed: int = 0, compute: Compute | None = None, **knobs: Any
) -> Worlds:
    """Draw `count` worlds of the `gaussian_mixture` process.

    Args:
        count: number of worlds W.
        seed: decides the worlds; the same seed and knobs give the same worlds.
        compute: device of the tensors, which are drawn on the CPU: the same on every device.
        knobs: knobs of the process, its own arguments, by name or letter (K, J, L).
    """
    device = Compute.of(compute).device
    # Rows of the task and of the unprompted generator are drawn by the process, and not needed.
    knobs = {**dict.fromkeys(UNUSED_ROWS, 1), **knobs}
    process = load_process("gaussian_mixture", **knobs)
    run = draw(process, (count, 1), Compute(seed=seed), fast_mixtures=True)
    sizes = (process.knobs[name] for name in PAPER_KNOBS.values())
    rows = {
        site: process.sites[site].plain(run.values[site]).squeeze(1).to(device)
        for site in ("anchor", "synthetic")
    }
    return Worlds(
        **rows,
        truth=_of_first_row(run.distributions["target"], device),
        generator=_of_first_row(run.distributions["output"], device),
        parts=tuple(part for part, size in zip(PARTS, sizes, strict=True) for _ in range(size)),
    )


def _of_first_row(distribution: MixtureSameFamily, device: str) -> GaussianMixture:
    """The mixture (W,) that the rows of a plate come from: all have the same."""
    normals: Any = distribution.component_distribution
    parameters = (distribution.mixture_distribution.probs, normals.loc, normals.covariance_matrix)
    # In front of the components: world, replicate, and the two dimensions of plates.
    first = (value[:, 0, 0, 0].to(device) for value in parameters)
    return GaussianMixture(*first, validate_args=False)


def fit_worlds(
    worlds: Worlds, compute: Compute | None = None, *, posterior_draws: int = 8
) -> tuple[GaussianMixture, GaussianMixture]:
    """Posterior draws of π_anchor (K components) and π_gen (K + J + L), batch (draw, W).

    Each is the conjugate variational posterior from the best of `STARTS` starts by its ELBO. It is
    fitted on the device, and drawn from on the CPU: so that the draws are the same.
    """
    compute, fits = Compute.of(compute), []
    for name, rows, components in (
        ("anchor", worlds.anchor, worlds.anchor_components),
        ("synthetic", worlds.synthetic, worlds.generator.components),
    ):
        source, own = compute.generator("fit", name), rows.to(compute.device)
        fitted = partial(cavi, own, default_prior(own, components), components)
        # Passes over the rows are in float32; statistics and draws are in float64.
        ascent = Ascent(tolerance=TOLERANCE, dtype=torch.float32)
        short = replace(ascent, max_iterations=FIRST_PASSES)
        first = fitted(restarts=STARTS, generator=source, ascent=short).best_of(STARTS)
        fit = fitted(initial=first, ascent=ascent).best().map(lambda value: value.cpu())
        fits.append(fit.draw(posterior_draws, source).mixture())
    return fits[0], fits[1]


def kl_gaps(
    anchor: GaussianMixture,
    synthetic: GaussianMixture,
    truth: GaussianMixture,
    compute: Compute | None = None,
    *,
    points: int = 512,
    histogram_redraws: int = 0,
) -> dict[str, Estimate]:
    """KL gaps of fitted mixtures (…, W) against the truth (W,), in nats, by variable name.

    `kl_gap` is the paper's (Section 4.4): what it punishes is mass where G has none.
    `kl_gap_coverage` turns both divergences round: what it punishes is mass of G that a fit misses.

    Args:
        anchor, synthetic: posterior draws of π_anchor and π_gen.
        truth: G.
        compute: where divergences are computed, and the seed of the points; estimates come back to
            the CPU.
        points: quasi-random points of each divergence.
        histogram_redraws: where positive, `kl_gap_histogram` too: the reference script's estimator,
            averaged over that many redraws of its 1,000 points.
    """
    compute = Compute.of(compute)
    mixtures = (anchor, synthetic, truth)
    dtype = torch.float32 if _rounding(mixtures) < LARGEST_ROUNDING else torch.float64
    own, theirs, task = (one.map(lambda value: value.to(compute.device, dtype)) for one in mixtures)
    towards, away = (
        kl_divergence(fit, task, num_samples=points, generator=compute.generator("gap", name))
        for name, fit in (("anchor", own), ("synthetic", theirs))
    )
    gaps = {
        "kl_gap": towards - away,
        "kl_gap_coverage": expected_log_ratio(
            task, theirs, own, num_samples=points, generator=compute.generator("coverage")
        ),
    }
    gaps = {name: gap.map(lambda value: value.cpu().double()) for name, gap in gaps.items()}
    if histogram_redraws:
        source = compute.generator("histogram")
        before, after = (
            histogram_divergence(fit, truth, redraws=histogram_redraws, generator=source)
            for fit in (anchor, synthetic)
        )
        gaps["kl_gap_histogram"] = before - after
    return gaps


def _rounding(mixtures: Sequence[GaussianMixture]) -> float:
    """What a log density of one of them may be off in float32: unit × precision × distance².

    The distance is that from the mean of any of them: divergences are taken about one of these.
    """
    centres = [mixture.mean.unsqueeze(-2) for mixture in mixtures]
    largest = 0.0
    for mixture in mixtures:
        precision = mixture.precision_cholesky.square().sum((-2, -1)).amax(-1)
        for centre in centres:
            away = (mixture.means - centre).square().sum(-1).amax(-1)
            largest = max(largest, float((precision * away).max()))
    return largest * torch.finfo(torch.float32).eps


@dataclass(frozen=True, kw_only=True, repr=False)
class Study(Result):
    """The KL gaps as one knob moves, and all that a figure of them needs.

    The terms are `kl_gap`, `kl_gap_coverage` and, on request, `kl_gap_histogram`, with dimensions
    (chain, draw, KNOB, world), in nats. The draws are those of the fitted mixtures, given the rows
    of each world; the spread between worlds is that along `world`.

    Attributes:
        vary: the knob that moves.
        values: its values.
        gaps: (draw, value, world) in nats by variable name.
    """

    vary: str
    values: Sequence[int]
    gaps: Mapping[str, Estimate]

    def __post_init__(self) -> None:
        del self.__dict__["idata"]  # made where it is asked for

    @cached_property  # type: ignore[misc]
    def idata(self) -> InferenceData:
        """The gaps as InferenceData: ArviZ takes longer to import than a thousand worlds to fit."""
        chain = {name: gap.map(lambda value: value[None]) for name, gap in self.gaps.items()}
        variables = inference_data.from_estimates(chain)
        worlds = next(iter(variables.values())).shape[-1]
        return inference_data.make(
            variables,
            constant_data=self.settings,
            dims={name: [self.vary, "world"] for name in variables},
            coords={self.vary: np.asarray(self.values), "world": np.arange(worlds)},
        )

    @property
    def has_draws(self) -> bool:
        """That there is InferenceData."""
        return True

    def figures(self, hdi_prob: float = 0.94) -> Mapping[str, Callable[[], Any]]:
        """This column of the paper's Figure 4."""

        def draw() -> Any:
            from rbpp import plots

            return plots.plot_studies({self.vary: self}, hdi_prob)

        return {"kl_gap": draw}

    def answer(self, view: View = DEFAULT_VIEW) -> tuple[str, ...]:
        """How the gaps move with the knob, and in how many worlds they are positive."""
        means = {name: gap.value.numpy().mean(0) for name, gap in self._shown(view).items()}
        units = dict.fromkeys(means, view.units)
        return tuple(sentences.of_gaps(self.vary, self.values, means, units))

    def _body(self, view: View) -> list[Part]:
        """Per direction and value the worlds' quantiles, then the other spreads.

        Of every world the posterior mean counts; the last columns are medians over worlds of the
        posterior standard deviation and of the Monte Carlo standard error.
        """
        parts: list[Part] = []
        for name, shown in self._shown(view).items():
            gaps, errors = shown.value.numpy(), shown.standard_error.numpy()
            lines = [[self.vary, "median", "5 %", "95 %", "> 0 [%]", "posterior sd", "mcse"]]
            means = gaps.mean(0)
            for place, value in enumerate(self.values):
                low, median, high = np.percentile(means[place], [5, 50, 95])
                spread = np.median(gaps[:, place].std(0))
                mcse = np.median(errors[:, place].mean(0))
                line = [f"{number:.3f}" for number in (median, low, high, spread, mcse)]
                above = f"{100 * (means[place] > 0).mean():.0f}"
                lines.append([f"{value}", *line[:3], above, *line[3:]])
            parts += [f"{name} [{view.units}], {means.shape[-1]} worlds", Table(lines)]
        return parts

    def _shown(self, view: View) -> dict[str, Estimate]:
        """The gaps in these units; they are per row already."""
        self._divisors(view.per_row)  # refuses, where no rows are counted
        return {name: gap * _SCALES[view.units] for name, gap in self.gaps.items()}


_SCALES = {"nats": 1.0, "bits": 1 / math.log(2)}


def study(
    vary: str,
    values: Sequence[int],
    *,
    worlds: int = 100,
    posterior_draws: int = 8,
    points: int = 512,
    histogram_redraws: int = 0,
    seed: int = 0,
    compute: Compute | None = None,
    **knobs: Any,
) -> Study:
    """One column of the paper's Figure 4: the KL gaps as one knob moves, the others fixed.

    `kl_gap` is D(π_anchor ‖ G) − D(π_gen ‖ G) (Section 4.4), `kl_gap_coverage` D(G ‖ π_anchor) −
    D(G ‖ π_gen), in nats.

    Args:
        vary: the knob of `gaussian_mixture` that moves, by name or the paper's letter (K, J, L).
        values: its values.
        worlds: worlds at each value.
        posterior_draws: draws of each fitted mixture.
        points, histogram_redraws: as in `kl_gaps`.
        seed: decides worlds, fits and points.
        compute: device, workers over values and batches of worlds, progress, checkpoint.
        knobs: other knobs of the process, its own arguments, by name or letter.

    Raises:
        ValueError: if values are absent or repeated, a count is out of range, or a knob is unknown,
            out of range, or moved and set at once.
    """
    compute = Compute.of(compute, seed)
    if not values or len(set(values)) != len(values):
        raise ValueError(f"Expected distinct values of {vary}; got {list(values)}")
    amounts = {
        "posterior_draws": posterior_draws,
        "points": points,
        "histogram_redraws": histogram_redraws,
    }
    for name, amount in {"worlds": worlds, **amounts}.items():
        validate.count(name, amount, 0 if name == "histogram_redraws" else 1)
    if both := {name for name in knobs if knob_name(name) == knob_name(vary)}:
        raise ValueError(f"Expected {vary} either varied or set; got {both.pop()} set as well")
    work = partial(_one_batch, vary, knobs, amounts, compute.task())
    sizes = [min(WORLDS_AT_ONCE, worlds - done) for done in range(0, worlds, WORLDS_AT_ONCE)]
    batches = [_Batch(value, *part) for value in values for part in enumerate(sizes)]
    done = compute.steps(
        work, batches, lambda one: f"{vary}-{one.value}-{one.number}", f"kl-gap, {vary}"
    )
    by_batch = list(done)
    each = len(sizes)
    by_value = [by_batch[first : first + each] for first in range(0, len(batches), each)]

    def joined(name: str) -> Tensor:
        worlds = [np.concatenate([part[name] for part in parts], -1) for parts in by_value]
        return torch.as_tensor(np.stack(worlds, 1))

    names = [name for name in by_batch[0] if not name.endswith("_mcse")]
    gaps = {name: Estimate(joined(name), joined(f"{name}_mcse")) for name in names}
    return Study(
        settings={"worlds": worlds, **amounts, "seed": compute.seed, **knobs},
        vary=vary,
        values=tuple(values),
        gaps=gaps,
    )


class _Batch(NamedTuple):
    """Some worlds at one value of the knob."""

    value: int
    number: int
    worlds: int


def _one_batch(
    knob: str,
    knobs: Mapping[str, Any],
    amounts: Mapping[str, int],
    compute: Compute,
    batch: _Batch,
) -> dict[str, np.ndarray]:
    """Gaps of some worlds (draw, world) and `NAME_mcse`: arrays, which checkpoints keep."""
    later = [batch.number] if batch.number else []
    own = compute.spawn(knob, str(batch.value), *later)
    drawn = sample_worlds(batch.worlds, seed=own.seed, **{**knobs, knob: batch.value})
    gaps = kl_gaps(
        *fit_worlds(drawn, own, posterior_draws=amounts["posterior_draws"]),
        drawn.truth,
        own,
        points=amounts["points"],
        histogram_redraws=amounts["histogram_redraws"],
    )
    return {name: value.numpy() for name, value in inference_data.from_estimates(gaps).items()}


@dataclass(frozen=True, kw_only=True, repr=False)
class FittedWorld(Result):
    """One world with the posteriors of both its mixtures.

    Its InferenceData has `anchor_*` and `synthetic_*` `weight`, `mean` and `covariance` in
    `posterior`, the rows in `observed_data`, and the generator with the part of each of its
    components in `constant_data`.
    """

    idata: InferenceData

    def figures(self, hdi_prob: float = 0.94) -> Mapping[str, Callable[[], Any]]:
        """`chain` and `parts`: the paper's Figures 2 and 5."""
        from rbpp import plots

        return {
            "chain": lambda: plots.plot_chain(self.idata),
            "parts": lambda: plots.plot_parts(self.idata),
        }


def world_posterior(
    *, posterior_draws: int = 100, seed: int = 0, compute: Compute | None = None, **knobs: Any
) -> FittedWorld:
    """One world, with the posteriors of both its mixtures: what Figures 2 and 5 show.

    Args:
        posterior_draws: draws of each fitted mixture.
        seed: decides the world and the fits.
        compute: device of the fits.
        knobs: knobs of the process, as for `sample_worlds`.
    """
    compute = Compute.of(compute, seed)
    worlds = sample_worlds(1, seed=seed, **knobs)
    fits = fit_worlds(worlds, compute, posterior_draws=posterior_draws)
    posterior: dict[str, np.ndarray] = {}
    dims: dict[str, list[str]] = {"anchor": ["anchor_row", "dim"], "synthetic": ["row", "dim"]}
    for source, fit in zip(("anchor", "synthetic"), fits, strict=True):
        for name, value, own in (
            ("weight", fit.weights, []),
            ("mean", fit.means, ["dim"]),
            ("covariance", fit.covariances, ["dim", "other_dim"]),
        ):
            posterior[f"{source}_{name}"] = value[:, 0].numpy()[None]
            dims[f"{source}_{name}"] = [f"{source}_component", *own]
    constant = {
        "generator_mean": worlds.generator.means[0].numpy(),
        "generator_covariance": worlds.generator.covariances[0].numpy(),
        "generator_part": np.asarray(worlds.parts),
        "seed": seed,
    }
    dims["generator_part"] = ["generator_component"]
    dims["generator_mean"] = ["generator_component", "dim"]
    dims["generator_covariance"] = ["generator_component", "dim", "other_dim"]
    rows = {"anchor": worlds.anchor[0].numpy(), "synthetic": worlds.synthetic[0].numpy()}
    return FittedWorld(
        idata=inference_data.make(posterior, observed_data=rows, constant_data=constant, dims=dims),
        settings={"posterior_draws": posterior_draws, "seed": seed, **knobs},
        headline=(
            f"Mixtures fitted to {len(rows['anchor'])} anchors and {len(rows['synthetic'])} "
            "synthetic rows of one world: the figures chain and parts show them.",
        ),
    )
