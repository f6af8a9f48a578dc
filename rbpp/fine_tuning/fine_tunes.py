"""Bounds of fine-tunes from a supersample: posterior, plug-in, what permuted masks give, checks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rbpp import inference_data, sentences, validate
from rbpp.checks import Check, compared, verdict_of, worst
from rbpp.compute import Compute
from rbpp.display import DEFAULT_VIEW, Part, Table, View
from rbpp.estimate import Estimate, exactly
from rbpp.fine_tuning.cmi import (
    OF_PAIRS,
    OF_POOL,
    Condition,
    PairInformation,
    PooledInformation,
    Statement,
    bounds_of_pairs,
    bounds_of_pool,
    empirical_tables,
    information_of_pool,
    information_of_rows,
    pair_information,
)
from rbpp.fine_tuning.memorisation import row_losses
from rbpp.fine_tuning.pooled_losses import mean_tables, pooled_losses
from rbpp.fine_tuning.supersample import Supersample, supersample
from rbpp.inference_data import InferenceData
from rbpp.randomness import generator, spawn
from rbpp.result import Result
from rbpp.threads import block_threads

STATEMENTS: tuple[Statement[PairInformation] | Statement[PooledInformation], ...] = (
    *OF_PAIRS,
    *OF_POOL,
)
BOUNDS = tuple(one.right for one in STATEMENTS)
# What every statement rests on, beside its own conditions.
_ALWAYS = ("coins", "losses in range")
_NULL_DRAWS = 50
_NULL_POSTERIORS = 2
# Below as many fine-tunes a mask the posterior of a single row leans on its prior.
_LEAST_PER_MASK = 10
_LARGEST_Z = 4.0  # checked differences beyond as many standard errors are no chance


@dataclass(frozen=True, kw_only=True, repr=False)
class FineTuneBounds(Result):
    """Posteriors of the gap, the losses, the informations and the bounds, (chain, draw).

    Attributes:
        comparison: bound name to `plug_in`, `corrected` (Miller and Madow), `null_plug_in` and
            `null` (plug-in and posterior mean with permuted masks), `slack` (posterior mean of the
            bound less the gap) and, of the interpolation bound alone, which is no theorem without
            its condition, `probability_holds`. Of the others
            it is 1 by construction, since every draw is a distribution of the losses: nan here.
    """

    idata: InferenceData
    comparison: Mapping[str, Mapping[str, float]]

    @property
    def measured_gap(self) -> float:
        """Mean held-out loss minus mean training loss, as observed."""
        return float(self.settings["measured_gap"])

    def figures(self, hdi_prob: float = 0.94) -> Mapping[str, Callable[[], Any]]:
        """Every bound beside the gap."""
        from rbpp.plots import plot_fine_tune_bounds

        return {"cmi": lambda: plot_fine_tune_bounds(self.idata, hdi_prob)}

    def details(self) -> Mapping[str, Any]:
        """The other estimates of every bound."""
        return {"bounds": self.comparison, "measured_gap": self.measured_gap}

    def answer(self, view: View = DEFAULT_VIEW) -> tuple[str, ...]:
        """The gap, the tightest bound of it, and how sure they are."""
        return tuple(
            sentences.of_fine_tunes(
                self._table(view),
                self.terms["generalization_gap"].value.flatten().numpy(),
                self.comparison,
                float(self.settings["loss_bound"]),
                self.checks,
            )
        )

    def _body(self, view: View) -> list[Part]:
        """The terms, and every bound beside its other estimates."""
        terms = self._table(view)
        columns = ("plug_in", "corrected", "null", "null_plug_in", "slack")
        lines = [["bound", "mean", *(name.replace("_", " ") for name in columns)]]
        for name, others in self.comparison.items():
            numbers = (terms[name]["mean"], *(others[column] for column in columns))
            lines.append([name, *(f"{value:.3f}" for value in numbers)])
        terms_shown = super()._body(view)
        return [*terms_shown, Table(lines), f"measured gap: {self.measured_gap:.4g}"]


def fine_tune_bounds(
    losses: Any,
    masks: Any = None,
    *,
    loss_bound: float | None = None,
    chains: int = 4,
    draws: int = 250,
    permutations: int = 20,
    seed: int = 0,
    compute: Compute | None = None,
) -> FineTuneBounds:
    """Every bound of `rbpp.fine_tuning.cmi` with its posterior, beside what else is said of it.

    Args:
        losses: (k, n, 2) loss of fine-tune k on the two rows of pair n, in [0, C]; or a
            `rbpp.fine_tuning.supersample.Supersample`, which has masks and C.
        masks: (k, n) column, 0 or 1, of the row that fine-tune k trained on, by fair coins.
        loss_bound: C; 1 where absent.
        chains: independent restarts.
        draws: posterior draws per chain.
        permutations: permutations of the masks behind the plug-in estimate's null.
        seed: decides every random number.
        compute: progress. Chains are as short as a task of a cluster would be to send: they run in
            threads of this process, on the CPU.

    Raises:
        ValueError: if `chains`, `draws` or `permutations` is below 1, 2 or 1, or losses or masks
            are refused by `rbpp.fine_tuning.supersample.supersample`.
    """
    compute = Compute.of(compute, seed)
    validate.count("chains", chains)
    validate.count("draws", draws, 2)
    validate.count("permutations", permutations)
    data = _supersample(losses, masks, loss_bound)

    def draw(chain: int) -> dict[str, Tensor]:
        return draw_bounds(data, draws, compute.generator("chain", chain))

    with block_threads(torch.device("cpu")) as apply:
        found = list(compute.shown(apply(draw, range(chains)), chains, "chains"))
    posterior = {name: torch.stack([part[name] for part in found]) for name in found[0]}
    rows_gap, none = posterior.pop("rows_gap"), posterior.pop("none")
    comparison = _comparison(data, permutations, compute.seed)
    for one in STATEMENTS:
        gap = posterior[one.left] if one in OF_POOL else rows_gap
        # Equal but for rounding counts as holding: the interpolation bound is an equality.
        holds = posterior[one.right] >= gap - 1e-9 * data.loss_bound
        found_of = comparison[one.right]
        found_of["slack"] = float((posterior[one.right] - gap).mean())
        # A theorem holds in every draw: that says nothing of these fine-tunes.
        found_of["probability_holds"] = (
            float(holds.double().mean()) if "interpolation" in one.rests_on else math.nan
        )
    checks = _checks(data, posterior["generalization_gap"], rows_gap, none)
    settings = {
        "fine_tunes": len(data.masks),
        "pairs": data.masks.shape[1],
        "loss_bound": data.loss_bound,
        "resolution": "losses of 0 and C" if data.binary else "losses rounded at random to 0 or C",
        "measured_gap": float((data.held_out - data.training).mean()) * data.loss_bound,
        "permutations": permutations,
        "seed": compute.seed,
    }
    columns = {key: [comparison[name][key] for name in BOUNDS] for key in comparison[BOUNDS[0]]}
    return FineTuneBounds(
        idata=inference_data.make(
            inference_data.from_estimates({n: exactly(draws) for n, draws in posterior.items()}),
            constant_data={**settings, **columns},
            dims={key: ["bound"] for key in columns},
            coords={"bound": list(BOUNDS)},
        ),
        checks=(*checks.values(), *_audit(comparison, posterior, rows_gap, checks)),
        settings=settings,
        notes=_few_fine_tunes(len(data.masks) / 2),
        comparison=comparison,
    )


def _few_fine_tunes(per_mask: float) -> tuple[str, ...]:
    """What a reader of the bounds must know where these lean on their prior."""
    if per_mask >= _LEAST_PER_MASK:
        return ()
    names = ", ".join(one.right for one in OF_PAIRS)
    return (
        f"Of {per_mask:g} fine-tunes for either mask of a pair, bounds of single rows ({names}) "
        f"may be below the gap: they need {_LEAST_PER_MASK}.",
    )


def _supersample(losses: Any, masks: Any, loss_bound: float | None) -> Supersample:
    if not isinstance(losses, Supersample):
        if masks is None:
            raise ValueError("Expected masks beside the losses; got none")
        return supersample(losses, masks, loss_bound=loss_bound)
    if masks is not None or loss_bound is not None:
        raise ValueError("Expected a supersample alone, which has masks and loss_bound; got both")
    return losses


def draw_bounds(data: Supersample, draws: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Draws (draw,) of losses, gap, informations and bounds, in units of the loss and in nats.

    `rows_gap` is the gap by the row model, from which the conditional bounds come, and `none`
    whether the draw has no memorised row.
    """
    rows = row_losses(data, draws, generator)
    pairs = information_of_rows(rows.training, rows.held_out)
    pooled = pooled_losses(data, draws, generator)
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
    comparison: Mapping[str, Mapping[str, float]],
    posterior: Mapping[str, Tensor],
    rows_gap: Tensor,
    checks: Mapping[str, Check],
) -> Iterator[Check]:
    """One check per statement: it holds by construction wherever what it rests on holds."""
    for one in STATEMENTS:
        rests_on = tuple(checks[key] for key in (*_ALWAYS, *one.rests_on))
        gap = posterior[one.left] if one in OF_POOL else rows_gap
        bound, found = posterior[one.right], comparison[one.right]
        weakest = worst(rests_on)
        assert weakest is not None
        verdict = weakest.verdict
        message = "a theorem of any distribution of the losses: it holds in every draw"
        if verdict != "holds":
            verdict = "unknown" if verdict == "violated" else verdict
            message = f"what it rests on is not sure: {weakest.statement}"
        yield Check(
            one.name,
            verdict,
            message,
            compared(
                one.left,
                one.right,
                left=float(gap.mean()),
                right=float(bound.mean()),
                slack=found["slack"],
                slack_sd=float((bound - gap).std()),
                probability_holds=found["probability_holds"],
            ),
            assumptions=rests_on,
        )


def _checks(
    data: Supersample, pooled_gap: Tensor, rows_gap: Tensor, none: Tensor
) -> dict[Condition | str, Check]:
    """What the bounds and their posteriors rest on, measured; those of a statement by name."""
    heads = float(data.masks.double().mean())
    coin = (heads - 0.5) / (0.5 / math.sqrt(data.masks.numel()))
    training = float(data.training.mean()) * data.loss_bound
    largest = float(torch.maximum(data.training, data.held_out).max()) * data.loss_bound
    pair = _pair_correlation(data)
    correlation, error = pair.value.item(), pair.standard_error.item()
    apart = float((pooled_gap.mean() - rows_gap.mean()).abs())
    spread = float((pooled_gap.var() + rows_gap.var()).sqrt())
    gap, gap_sd = float(pooled_gap.mean()), float(pooled_gap.std())
    no_row = float(none.mean())
    per_mask = len(data.masks) / 2
    return {
        "coins": Check(
            "masks are fair coins",
            verdict_of(abs(coin) <= _LARGEST_Z),
            f"share of ones {heads:.3f}",
            {"share_of_ones": heads, "z": coin},
        ),
        "fine-tunes enough": Check(
            "ten fine-tunes for either mask of a pair (bounds of single rows)",
            "holds" if per_mask >= _LEAST_PER_MASK else "undecided",
            f"{per_mask:g} on average"
            + ("" if per_mask >= _LEAST_PER_MASK else ": these bounds may be below the gap"),
            {"fine_tunes_per_mask": per_mask, "threshold": float(_LEAST_PER_MASK)},
        ),
        "losses in range": Check(
            "losses lie in [0, C]",
            "holds",
            f"largest {largest:.4g} of C = {data.loss_bound:g}",
            {"largest": largest, "loss_bound": data.loss_bound},
        ),
        "interpolation": Check(
            "every training loss is 0 and losses are 0 or C (interpolation bound alone)",
            verdict_of(data.binary and not bool(data.training.any())),
            f"mean training loss {training:.4g}",
            {"training_loss": training},
            required=False,
        ),
        "losses of a pair independent": Check(
            "losses of a pair are independent given its mask (conditional bounds' posterior)",
            verdict_of(abs(correlation) <= _LARGEST_Z * error),
            f"correlation {correlation:.3f} ± {error:.3f}",
            {"correlation": correlation, "error": error},
        ),
        "models agree": Check(
            "the row model and the pooled table agree on the gap",
            verdict_of(apart <= _LARGEST_Z * spread + 1e-9),
            f"apart by {apart:.3g}, spread {spread:.3g}",
            {"apart": apart, "spread": spread},
        ),
        "held out": Check(
            "held-out rows are not better than training rows (masks name the trained column)",
            verdict_of(gap >= -_LARGEST_Z * gap_sd),
            f"gap {gap:.4g} ± {gap_sd:.2g}",
            {"gap": gap, "gap_sd": gap_sd},
        ),
        "none memorised": Check(
            "no row is memorised (prior probability 0.5; no bound needs it)",
            "unknown",
            f"posterior probability {no_row:.2f}",
            {"probability": no_row},
            required=False,
        ),
    }


def _pair_correlation(data: Supersample) -> Estimate:
    """Correlation of a pair's two losses around their means given the mask."""
    products, squares = 0.0, [0.0, 0.0]
    count = 0
    for inside in data.trained.unbind(-1):
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
        return Estimate(torch.zeros((), dtype=torch.float64), torch.tensor(math.inf).double())
    correlation = products / math.sqrt(squares[0] * squares[1])
    value, error = torch.tensor([correlation, 1 / math.sqrt(count)], dtype=torch.float64)
    return Estimate(value, error, count)
