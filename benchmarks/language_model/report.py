"""Stage `report`: tables of outcomes, of every inequality, and of who ordered the cells."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from scipy.stats import t as student

from . import smollm2_study, text
from .figure import draw
from .generate import load, say
from .grid import LINES, SCHEDULES, SMOOTHING, Size
from .measured import (
    ALIKE,
    INEQUALITIES,
    INFORMATIONS,
    LARGE,
    SMALL,
    anchor_entropy,
    inequalities,
    measured_table,
    with_models,
)
from .predict import BASELINES, ORDERINGS, SIGNS

_MARKS = "<!-- tables: written by benchmarks/language_models.py report -->"
_BOOTSTRAPS = 500
_FEWEST = 10  # cells that a rank correlation is given of
_SIDES = ("lower", "upper")
_CONDITIONAL = "### Conditional mutual information"
# R(W) on D, the loss on real text, is the sum of these.
_PARTS = {
    "far_from_task": "R(W) on D − R(W) on D_gen",
    "estimation_gap": "R(W) on D_gen − on S_gen",
    "training_loss": "R(W) on S_gen",
}


def report(work: Path, size: Size, prefix: Path, page: Path) -> None:
    """Tables, figure and page; tables and figure begin with `prefix`."""
    predicted = pd.read_csv(f"{prefix}_predictions.csv")
    if (work / f"{size.outcomes}_anchors.npz").exists():
        measured = measured_table(work, size, predicted)
        measured.to_csv(f"{prefix}_outcomes.csv", index=False, float_format="%.5g")
    else:
        say(f"no outcomes in {work}: tables are made of {prefix}_outcomes.csv")
    measured = pd.read_csv(f"{prefix}_outcomes.csv")
    written = page.read_text(encoding="utf-8") if page.exists() else f"{_MARKS}\n{_MARKS}\n"
    both = with_models(predicted.merge(measured, on="name"))
    sides = inequalities(both)
    ranks = rank_correlations(both)
    tables = [
        *_heading(both, size),
        *_inequality_table(sides),
        *_learner_table(both),
        *(_conditional(work) or _section(written, _CONDITIONAL)),
        *_rank_table(ranks),
        *_part_table(both),
        *_line_table(both, size),
    ]
    for name in SCHEDULES:
        other = size.scheduled(name)
        if name != size.schedule and (work / f"{other.outcomes}_anchors.npz").exists():
            again = measured_table(work, other, predicted)
            again.to_csv(f"{prefix}_{other.outcomes}.csv", index=False, float_format="%.5g")
            tables += _schedule_table(name, both, with_models(predicted.merge(again, on="name")))
    draw(sides, ranks, Path(f"{prefix}.png"))
    before, _, after = written.split(_MARKS)
    page.write_text(_MARKS.join([before, "\n" + "\n".join(tables) + "\n", after]), encoding="utf-8")
    say(f"{page}")


def _section(page: str, heading: str) -> list[str]:
    """A section of the page as it is; none if it has none."""
    _, found, after = page.partition(heading)
    return ["", *f"{found}{after.split('### ')[0]}".rstrip().splitlines()] if found else []


def _schedule_table(name: str, first: pd.DataFrame, other: pd.DataFrame) -> list[str]:
    """Whether another training of the fine-tunes orders the same cells alike."""
    both = first.merge(other[["name", "loss", "loss_anchor"]], on="name", suffixes=("", "_other"))
    columns = (("first", "loss"), (name, "loss_other"))
    better = [f"{(both[loss] < both['loss_base']).mean():.0%} ({n})" for n, loss in columns]
    rho, low, high = _rho(both["loss"], both["loss_other"])
    lines = [
        "",
        f"### The schedule `{name}` on {len(both)} of the cells",
        "",
        f"Median losses {both['loss'].median():.4f} (first) and "
        f"{both['loss_other'].median():.4f} ({name}), base {both['loss_base'].iloc[0]:.4f}; better "
        f"than base: {' and '.join(better)}. The two losses order the cells alike with ρ = "
        f"{rho:.2f} ({low:.2f} to {high:.2f}).",
        "",
        f"| predictor | ρ, first | 94 % | ρ, {name} | 94 % |",
        "|---|---:|---:|---:|---:|",
    ]
    for predictor, sign in SIGNS.items():
        if predictor not in both:
            continue
        part = both[[predictor, "loss", "loss_other"]].dropna()
        if len(part) >= _FEWEST and part[predictor].nunique() > 1:
            found = [_rho(sign * part[predictor], part[loss]) for _, loss in columns]
            shown = " | ".join(f"{r:.2f} | {low:.2f} to {high:.2f}" for r, low, high in found)
            lines.append(f"| `{predictor}` | {shown} |")
    return lines


def _rho(first: pd.Series, second: pd.Series) -> tuple[float, float, float]:
    """Spearman's ρ with its 94 % interval by resampling cells."""
    values = np.stack([first, second])
    count = values.shape[1]
    index = np.random.default_rng(0).integers(count, size=(_BOOTSTRAPS, count))
    drawn = np.concatenate([np.arange(count)[None], index])
    ranks = rankdata(values[:, drawn], axis=-1)
    ranks -= ranks.mean(-1, keepdims=True)
    scale = np.sqrt((ranks**2).sum(-1).prod(0))
    found = (ranks.prod(0).sum(-1) / np.where(scale > 0, scale, np.nan)).tolist()
    low, high = np.nanquantile(found[1:], [0.03, 0.97])
    return found[0], float(low), float(high)


def rank_correlations(both: pd.DataFrame) -> pd.DataFrame:
    """Spearman's ρ of every predictor, turned so that 1 is a perfect order, with 94 % intervals."""
    groups = {
        SMALL: both["model"] == SMALL,
        ALIKE: (both["model"] == SMALL) & (both["generator"] == "full"),
        f"{ALIKE}, n ≥ 256": (both["model"] == SMALL)
        & (both["generator"] == "full")
        & (both["rows"] >= 256),
        LARGE: both["model"] == LARGE,
    }
    found = []
    for group, chosen in groups.items():
        part = both[chosen]
        for predictor, sign in SIGNS.items():
            pair = part[[predictor, "loss"]].dropna() if predictor in part else part[[]]
            if len(pair.columns) < 2 or len(pair) < _FEWEST or pair[predictor].nunique() < 2:
                continue
            rho, low, high = _rho(sign * pair[predictor], pair["loss"])
            kind = "baseline" if predictor in BASELINES else "rbpp"
            found.append((group, predictor, kind, rho, low, high, len(pair)))
    columns = ["group", "predictor", "kind", "rho", "low", "high", "cells"]
    return pd.DataFrame(found, columns=columns)


def _heading(both: pd.DataFrame, size: Size) -> list[str]:
    small, large = both[both["model"] == SMALL], both[both["model"] == LARGE]
    lines = [
        f"{len(small)} cells of the small transformer with {size.replicates} data sets and "
        f"fine-tunes each, {len(large)} of SmolLM2. Losses are in nats a token (characters of the "
        f"small transformer), smoothed with α = {SMOOTHING}: C = {small['loss_bound'].iloc[0]:.2f}"
        + (f" and {large['loss_bound'].iloc[0]:.2f}." if len(large) else "."),
        "",
        "| | base | post-trained: best, median, worst cell | better than base | on anchors alone "
        "| better than those | error of a cell |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, part in ((SMALL, small), (LARGE, large)):
        if len(part):
            loss = part["loss"]
            lines.append(
                f"| {name} | {part['loss_base'].iloc[0]:.4f} | {loss.min():.4f}, "
                f"{loss.median():.4f}, {loss.max():.4f} | "
                f"{(loss < part['loss_base']).mean():.0%} | "
                f"{part['loss_anchor'].min():.4f} to {part['loss_anchor'].max():.4f} | "
                f"{(loss < part['loss_anchor']).mean():.0%} | {part['loss_se'].median():.4f} |"
            )
    return lines


def _inequality_table(sides: pd.DataFrame) -> list[str]:
    lines = [
        "",
        "### Every inequality, both sides",
        "",
        "| statement | model | cells | left, median | right, median | violated | right above C |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for (statement, model), part in sides.groupby(["statement", "model"], sort=False):
        violated = int((part["left"] > part["right"] + 1e-9).sum())
        vacuous = "–" if INEQUALITIES[statement][0] in INFORMATIONS else int(part["vacuous"].sum())
        lines.append(
            f"| {statement} | {model} | {len(part)} | {part['left'].median():.4g} | "
            f"{part['right'].median():.4g} | {violated} | {vacuous} |"
        )
    return lines


def _learner_table(both: pd.DataFrame) -> list[str]:
    """I(S_gen; W), I(S_anchor; W') and GGMI, both sides, by the number of rows."""
    lines = [
        "",
        "### What the weights know, nats a data set, medians over cells",
        "",
        "Lower sides by InfoNCE, at most the log of the replicates; upper sides the least of a "
        "variational bound, H(M(p)), and the anchors' code length under the base model.",
        "",
        "| model | n | I(S_gen; W) | H(M(p)) of the outputs | m | I(S_anchor; W') | GGMI |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for (model, rows, anchors), part in both.groupby(["model", "rows", "anchors"]):
        if anchors not in (8, 32):
            continue
        middle = part.median(numeric_only=True)
        part = part.assign(code=anchor_entropy(part))
        low, high = (middle[f"information_synthetic_learner_{side}"] for side in _SIDES)
        least, most = (middle[f"information_anchor_learner_{side}"] for side in _SIDES)
        whole = rows * (middle["information_gain"] + middle["information_prompt_output_upper"])
        high, most = min(high, whole), min(most, part["code"].median())
        lines.append(
            f"| {model} | {rows} | {low:.3g} to {high:.0f} | {whole:.0f} | {anchors} | "
            f"{least:.3g} to {most:.0f} | {least - high:.0f} to {most - low:.0f} |"
        )
    return lines


def _conditional(work: Path) -> list[str]:
    """Bounds of `rbpp cmi` on the supersample."""
    from rbpp.fine_tuning.fine_tunes import fine_tune_bounds

    if not (work / "outcomes_supersample.npz").exists():
        return []
    made = load(work / "outcomes_supersample.npz")
    losses = made["losses"].astype(float)
    largest = math.log(text.SEPARATOR / SMOOTHING)
    found = fine_tune_bounds(losses, made["masks"], loss_bound=largest, chains=2, draws=200)
    count, pairs = made["masks"].shape
    lines = [
        "",
        f"{_CONDITIONAL} of {count} fine-tunes on one of each of {pairs} pairs",
        "",
        "| term | posterior mean | 94 % interval |",
        "|---|---:|---:|",
    ]
    for name, term in found.table().items():
        if name.startswith(("bound_", "generalization_gap")):
            low, high = term["hdi_low"], term["hdi_high"]
            lines.append(f"| `{name}` | {term['mean']:.4g} | {low:.4g} to {high:.4g} |")
    return [
        *lines,
        "",
        f"Measured gap: {found.measured_gap:.4g} nats a character. The interpolation bound is a "
        "theorem for learners without training errors only, which this one is not.",
    ]


def _rank_table(ranks: pd.DataFrame) -> list[str]:
    lines = [
        "",
        "### Who orders the cells by the measured loss",
        "",
        "Spearman's ρ with the loss on real text, turned by the sign that was written down "
        "beforehand: 1 is the right order, −1 the reverse. 94 % intervals by resampling cells. The "
        "worst come first.",
    ]
    for group, part in ranks.groupby("group", sort=False):
        lines += [
            "",
            f"**{group}**",
            "",
            "| predictor | | ρ | 94 % | cells |",
            "|---|---|---:|---:|---:|",
        ]
        lines += [
            f"| `{row.predictor}` | {row.kind} | {row.rho:.2f} | {row.low:.2f} to {row.high:.2f} | "
            f"{row.cells} |"
            for row in part.sort_values("rho").itertuples()
        ]
    return lines


def _part_table(both: pd.DataFrame) -> list[str]:
    """The three parts of the loss on real text: how they follow ΔI, what a knob does to each."""
    both = both.assign(far_from_task=both["loss"] - both["training_loss"] - both["estimation_gap"])
    groups = {
        SMALL: both["model"] == SMALL,
        ALIKE: (both["model"] == SMALL) & (both["generator"] == "full"),
        LARGE: both["model"] == LARGE,
    }
    lines = [
        "",
        "### Three parts of the loss, and ΔI",
        "",
        "The loss on real text D is the loss on the rows S_gen, plus what those rows flatter it "
        "against fresh rows of their distribution D_gen (Lemma 4.6), plus what D_gen differs from "
        "D (Lemma 3.1). Spearman's ρ of ΔI with each, and of each with the loss, 94 % intervals by "
        "resampling cells.",
        "",
        "| cells | part | least, median, most | ρ with ΔI | ρ with the loss |",
        "|---|---|---:|---:|---:|",
    ]
    for name, chosen in groups.items():
        part = both[chosen]
        for column, what in _PARTS.items() if len(part) >= _FEWEST else ():
            ordered = [_rho(part[other], part[column]) for other in ("information_gain", "loss")]
            rhos = " | ".join(f"{r:.2f} ({low:.2f} to {high:.2f})" for r, low, high in ordered)
            least, middle, most = part[column].quantile([0, 0.5, 1])
            lines.append(f"| {name} | {what} | {least:.3f}, {middle:.3f}, {most:.3f} | {rhos} |")
    lines += [
        "",
        "From the first to the last value of a knob, all else as in the centre:",
        "",
        f"| model | knob | from, to | change of the loss | {' | '.join(_PARTS.values())} |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for model, knob, part in _lines(both):
        change = part[["loss", *_PARTS]].iloc[-1] - part[["loss", *_PARTS]].iloc[0]
        ends = f"{part[knob].iloc[0]}, {part[knob].iloc[-1]}"
        shown = " | ".join(f"{value:+.3f}" for value in change)
        lines.append(f"| {model} | {knob} | {ends} | {shown} |")
    return lines


def _lines(both: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Model, knob, and the cells in which it alone leaves the centre, in its order."""
    for model, prefix, knobs in (
        (SMALL, "", LINES),
        (LARGE, "smollm2-", smollm2_study.LINES),
    ):
        part = both[(both["model"] == model) & ~both["name"].str.contains("shuffled")]
        for knob in knobs:
            alone = part["name"].str.startswith(f"{prefix}line-{knob}-")
            found = part[alone | (part["name"] == f"{prefix}centre")].sort_values(knob)
            if len(found) > 1:
                yield model, knob, found


def _line_table(both: pd.DataFrame, size: Size) -> list[str]:
    """One knob at a time, all else as in the centre."""
    lines = [
        "",
        "### One knob at a time",
        "",
        "± is a standard error over data sets; Welch's t at 94 % compares the ends of a knob.",
        "",
        "| model | knob | the theory says | loss at each value | found |",
        "|---|---|---|---|---|",
    ]
    for model, knob, part in _lines(both):
        losses, errors = part["loss"].to_numpy(), part["loss_se"].fillna(0).to_numpy()
        change = losses[-1] - losses[0]
        expected = ORDERINGS[knob][0]
        agrees = "as said" if change * expected > 0 else "the reverse"
        replicates = (size if model == SMALL else smollm2_study.size_of(size)).replicates
        if not _differ(change, errors[[0, -1]], replicates):
            agrees = "undecided"
        shown = ", ".join(
            f"{value}: {loss:.4f} ± {error:.4f}"
            for value, loss, error in zip(part[knob], losses, errors, strict=True)
        )
        says = "less loss" if expected < 0 else "more loss"
        lines.append(f"| {model} | {knob} | {says} | {shown} | {agrees} |")
    return lines


def _differ(change: float, errors: np.ndarray, replicates: int) -> bool:
    """Whether two means of few replicates differ, by Welch's t at 94 %."""
    variance = errors**2
    if not variance.any():
        return change != 0
    freedom = variance.sum() ** 2 * (replicates - 1) / (variance**2).sum()
    return bool(abs(change) > student.ppf(0.97, freedom) * math.sqrt(variance.sum()))
