"""Bounds of fine-tunes from a supersample: posterior, plug-in, what permuted masks give, audit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rbpp import inference_data
from rbpp.fine_tuning.cmi import (
    CONDITIONAL_BOUNDS,
    POOLED_BOUNDS,
    PairInformation,
    PooledInformation,
    bounds_of_pairs,
    bounds_of_pool,
    empirical_tables,
    information_of_pool,
    information_of_rows,
    pair_information,
)
from rbpp.fine_tuning.memorisation import row_losses
from rbpp.fine_tuning.pooled_losses import mean_tables, pooled_losses
from rbpp.fine_tuning.supersample import Supersample
from rbpp.progress import progress
from rbpp.randomness import generator, spawn
from rbpp.threads import block_threads

BOUNDS = CONDITIONAL_BOUNDS + POOLED_BOUNDS
_NULL_DRAWS = 50
_NULL_POSTERIORS = 2
_LARGEST_Z = 4.0  # audited differences beyond as many standard errors are no chance


@dataclass(frozen=True)
class FineTuneBounds:
    """What `fine_tune_bounds` finds.

    Attributes:
        data: InferenceData: the gap, losses, informations and bounds as (chain, draw).
        comparison: bound name to `plug_in`, `corrected` (Miller and Madow), `null_plug_in` and
            `null` (plug-in and posterior mean with permuted masks), `slack` (posterior mean of the
            bound less the gap) and `probability_holds`. The posterior is over laws of the losses,
            and under each of them the theorems are true: the probability is 1 for all of them, and
            below it only for the interpolation bound, where that is no theorem.
        audit: one mapping per assumption: `assumption`, `verdict`, `measured`.
        settings: what the numbers depend on.
    """

    data: Any
    comparison: dict[str, dict[str, float]]
    audit: list[dict[str, Any]]
    settings: dict[str, Any]


def fine_tune_bounds(
    data: Supersample,
    *,
    chains: int = 4,
    draws: int = 250,
    permutations: int = 20,
    seed: int = 0,
    quiet: bool = True,
) -> FineTuneBounds:
    """Every bound of `rbpp.fine_tuning.cmi` with its posterior, beside what else is said of it.

    Args:
        data: losses and masks; see `rbpp.fine_tuning.supersample`.
        chains: independent restarts.
        draws: posterior draws per chain.
        permutations: permutations of the masks behind the plug-in estimate's null.
        seed: decides every random number.
        quiet: no progress bar.

    Raises:
        ValueError: if `chains`, `draws` or `permutations` is below 1, 2 or 1.
    """
    for what, value, least in (
        ("chains", chains, 1),
        ("draws", draws, 2),
        ("permutations", permutations, 1),
    ):
        if value < least:
            raise ValueError(f"Expected {what} of at least {least}; got {value}")
    with block_threads(torch.device("cpu")) as apply:
        found = list(
            progress(
                apply(
                    lambda chain: draw_bounds(data, draws, generator(spawn(seed, "chain", chain))),
                    range(chains),
                ),
                chains,
                "chains",
                quiet,
            )
        )
    posterior = {name: torch.stack([part[name] for part in found]) for name in found[0]}
    rows_gap, none = posterior.pop("rows_gap"), posterior.pop("none")
    comparison = _comparison(data, permutations, seed)
    for name in BOUNDS:
        gap = posterior["generalization_gap"] if name in POOLED_BOUNDS else rows_gap
        # Equal but for rounding counts as holding: the interpolation bound is an equality.
        holds = posterior[name] >= gap - 1e-9 * data.loss_bound
        comparison[name]["slack"] = float((posterior[name] - gap).mean())
        comparison[name]["probability_holds"] = float(holds.double().mean())
    measured = float((data.held_out - data.training).mean()) * data.loss_bound
    audit = _audit(data, posterior["generalization_gap"], rows_gap, none)
    settings = {
        "fine_tunes": len(data.masks),
        "pairs": data.masks.shape[1],
        "loss_bound": data.loss_bound,
        "resolution": "losses of 0 and C" if data.binary else "losses rounded at random to 0 or C",
        "measured_gap": measured,
        "permutations": permutations,
    }
    return FineTuneBounds(
        inference_data.make(
            posterior,
            constant_data={
                "seed": seed,
                **settings,
                **{
                    key: [comparison[name][key] for name in BOUNDS] for key in comparison[BOUNDS[0]]
                },
            },
            dims={key: ["bound"] for key in comparison[BOUNDS[0]]},
            coords={"bound": list(BOUNDS)},
        ),
        comparison,
        audit,
        settings,
    )


def draw_bounds(data: Supersample, draws: int, source: torch.Generator) -> dict[str, Tensor]:
    """Draws (draw,) of losses, gap, informations and bounds, in units of the loss and in nats.

    `rows_gap` is the gap by the row model, from which the conditional bounds come, and `none`
    whether the draw has no memorised row.
    """
    rows = row_losses(data, draws=draws, generator=source)
    pairs = information_of_rows(rows.training, rows.held_out)
    pooled = pooled_losses(data, draws=draws, generator=source)
    pool = information_of_pool(pooled.table)
    scale = data.loss_bound
    losses = {
        "training_loss": pooled.table[:, 1, :].sum(-1),
        "held_out_loss": pooled.table[:, :, 1].sum(-1),
        "generalization_gap": pooled.table[:, 0, 1] - pooled.table[:, 1, 0],
        "rows_gap": (rows.held_out - rows.training).mean((-1, -2)),
    }
    return {
        **{name: value * scale for name, value in losses.items()},
        "information_loss_pair": pairs.pair.mean(-1),
        "information_loss_difference_conditional": pairs.difference.mean(-1),
        "information_loss_difference": pool.difference,
        "information_single_loss": pool.single,
        **{name: value * scale for name, value in bounds_of_pairs(pairs).items()},
        **{name: value * scale for name, value in bounds_of_pool(pool).items()},
        "none": rows.none.to(torch.float64),
    }


def _comparison(data: Supersample, permutations: int, seed: int) -> dict[str, dict[str, float]]:
    """Plug-in, bias-corrected and null values of every bound."""
    source = generator(spawn(seed, "permutations"))
    shuffled = [data.permuted(source) for _ in range(permutations)]
    null_plug_in = [plug_in_bounds(other) for other in shuffled]
    null = [
        draw_bounds(shuffled[index % permutations], _NULL_DRAWS, source)
        for index in range(_NULL_POSTERIORS)
    ]
    plain, corrected = plug_in_bounds(data), plug_in_bounds(data, corrected=True)
    return {
        name: {
            "plug_in": plain[name],
            "corrected": corrected[name],
            "null_plug_in": sum(values[name] for values in null_plug_in) / permutations,
            "null": sum(float(values[name].mean()) for values in null) / len(null),
        }
        for name in BOUNDS
    }


def plug_in_bounds(data: Supersample, *, corrected: bool = False) -> dict[str, float]:
    """Every bound of the shares as observed; corrected by Miller and Madow's (cells − 1) / 2k."""
    tables = empirical_tables(data)
    pair, difference = pair_information(tables)
    pool = information_of_pool(mean_tables(data).mean(0))
    spread, single = pool.difference, pool.single
    if corrected:
        fine_tunes, pairs = data.masks.shape
        cells = (tables.sum(1).flatten(-2) > 0).sum(-1)
        concordant = tables[..., 0, 0] + tables[..., 1, 1]
        steps = (torch.stack([tables[..., 0, 1], concordant, tables[..., 1, 0]]) > 0).any(-1).sum(0)
        pair = (pair - (cells - 1) / (2 * fine_tunes)).clamp_min(0)
        difference = (difference - (steps - 1) / (2 * fine_tunes)).clamp_min(0)
        spread = (spread - 1 / (2 * fine_tunes * pairs)).clamp_min(0)
        single = (single - 1 / (4 * fine_tunes * pairs)).clamp_min(0)
    training = pool.training_loss
    values = {
        **bounds_of_pairs(PairInformation(pair, difference, training)),
        **bounds_of_pool(PooledInformation(spread, single, training)),
    }
    return {name: float(value) * data.loss_bound for name, value in values.items()}


def _audit(
    data: Supersample, pooled_gap: Tensor, rows_gap: Tensor, none: Tensor
) -> list[dict[str, Any]]:
    """What the bounds and their posteriors rest on, measured."""
    fine_tunes, pairs = data.masks.shape
    heads = float(data.masks.double().mean())
    coin = (heads - 0.5) / (0.5 / math.sqrt(fine_tunes * pairs))
    interpolates = data.binary and not bool(data.training.any())
    correlation, error = _pair_correlation(data)
    apart = float((pooled_gap.mean() - rows_gap.mean()).abs())
    spread = float((pooled_gap.var() + rows_gap.var()).sqrt())
    gap, gap_sd = float(pooled_gap.mean()), float(pooled_gap.std())
    largest = float(torch.maximum(data.training, data.held_out).max()) * data.loss_bound
    agree = apart <= _LARGEST_Z * spread + 1e-9
    return [
        _entry("masks are fair coins", abs(coin) <= _LARGEST_Z, f"share of ones {heads:.3f}"),
        _entry(
            "losses lie in [0, C]",
            True,
            f"largest {largest:.4g} of C = {data.loss_bound:g}",
        ),
        _entry(
            "every training loss is 0 and losses are 0 or C (interpolation bound alone)",
            interpolates,
            f"mean training loss {float(data.training.mean()) * data.loss_bound:.4g}",
        ),
        _entry(
            "losses of a pair are independent given its mask (conditional bounds' posterior)",
            abs(correlation) <= _LARGEST_Z * error,
            f"correlation {correlation:.3f} ± {error:.3f}",
        ),
        _entry(
            "the row model and the pooled table agree on the gap",
            agree,
            f"apart by {apart:.3g}, spread {spread:.3g}",
        ),
        _entry(
            "held-out rows are not better than training rows (masks name the trained column)",
            gap >= -_LARGEST_Z * gap_sd,
            f"gap {gap:.4g} ± {gap_sd:.2g}",
        ),
        {
            "assumption": "no row is memorised (prior probability 0.5; no bound needs it)",
            "verdict": "unknown",
            "measured": f"posterior probability {float(none.mean()):.2f}",
        },
    ]


def _entry(assumption: str, fine: bool, measured: str) -> dict[str, Any]:
    return {
        "assumption": assumption,
        "verdict": "holds" if fine else "violated",
        "measured": measured,
    }


def _pair_correlation(data: Supersample) -> tuple[float, float]:
    """Correlation of a pair's two losses around their means given the mask, and its error."""
    products, squares = 0.0, [0.0, 0.0]
    count = 0
    for mask in (0, 1):
        inside = (data.masks == mask).to(torch.float64)
        total = inside.sum(0)
        usable = total > 1
        residuals = []
        for column in data.columns.unbind(-1):
            mean = (inside * column).sum(0) / total.clamp_min(1)
            residuals.append((inside * (column - mean))[:, usable])
        products += float((residuals[0] * residuals[1]).sum())
        squares = [
            before + float(r.square().sum()) for before, r in zip(squares, residuals, strict=True)
        ]
        count += int(total[usable].sum() - usable.sum())
    if min(squares) == 0 or count < 2:
        return 0.0, math.inf
    return products / math.sqrt(squares[0] * squares[1]), 1 / math.sqrt(count)
