"""What is assumed of the learners of an assessment, and whether their bounds hold: lines of audit.

Each has `name`, `holds` (None for what cannot be told), `measured` and `message`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rbpp.checks import verdict_of_probability
from rbpp.estimate import Estimate
from rbpp.sources.learned_information import MOST_ROWS, PAIRS, Learner
from rbpp.theory.audit import probability_holds

LOSS_BOUND = 1.0
# Standard errors beyond which a shift of risk is one.
_CLEAR = 2.0
# Probability from which a statement counts as violated.
_SURE = 0.95
_HOLDS = {"holds": True, "violated": False}
# Name, left and right side.
STATEMENTS = (
    ("Theorem 4.7, sharp", "generalization_error", "bound_synthetic_sharp"),
    ("Theorem 4.7", "generalization_error", "bound_synthetic"),
    ("Lemma 4.8", "generalization_error_anchor", "bound_anchor"),
)


def statement(
    terms: Mapping[str, Tensor], errors: Mapping[str, Tensor], name: str, left: str, right: str
) -> dict[str, Any]:
    """One bound beside what it bounds: slack, and the probability that it holds."""
    bound = terms[right]
    if left not in terms:
        return line(
            name,
            None,
            {"right": float(bound.mean())},
            f"{right} = {float(bound.mean()):.3g}; without target rows there is no error of the "
            "anchors' learner to set beside it",
        )
    slack = bound - terms[left]
    noise = (errors[right].square() + errors[left].square()).sqrt()
    chance = probability_holds(Estimate(slack.flatten(), noise.flatten(), slack.numel()))
    return line(
        name,
        _HOLDS.get(verdict_of_probability(chance)),
        {
            "left": float(terms[left].mean()),
            "right": float(bound.mean()),
            "slack": float(slack.mean()),
            "slack_sd": float(slack.std()),
            "probability_holds": chance,
        },
        f"{left} {float(terms[left].mean()):.3g} ≤ {right} {float(bound.mean()):.3g}: slack "
        f"{float(slack.mean()):.3g} ± {float(slack.std()):.1g}, holds with probability "
        f"{chance:.2f}" + ("; at 1 or above it says nothing" if float(bound.mean()) >= 1 else ""),
    )


def unknown(terms: Mapping[str, Tensor], learners: Mapping[str, Learner]) -> list[dict[str, Any]]:
    """Statements for which something is missing, each with what."""
    lines = []
    if "synthetic" in learners and "bound_synthetic" not in terms:
        message = "no unprompted rows: TV(D, D_M) and TV(D_M, D_gen) are unknown"
        lines.append(line("Theorem 4.7", None, None, message))
    if "ggmi" in terms:
        low, high = (float(terms[f"ggmi_{side}"].mean()) for side in ("lower", "upper"))
        message = (
            f"GGMI = {float(terms['ggmi'].mean()):.3g} nats, between {low:.3g} and {high:.3g}: "
            f"lower sides of informations are cut at log {PAIRS} = {math.log(PAIRS):.2g}"
        )
        lines.append(line("Definition 4.9", None, {"lower": low, "upper": high}, message))
    elif learners:
        message = f"only the {next(iter(learners))} rows have a learner: no GGMI"
        lines.append(line("Definition 4.9", None, None, message))
    if learners:
        message = (
            "need how S_gen and W vary with the anchors and the generator's own randomness, as "
            "H(S_anchor | W): many runs of the generator, of which one is here (rbpp bounds)"
        )
        lines.append(line("Lemma 4.5, Theorem 4.10", None, None, message))
    return lines


def total_divergence(
    shift: tuple[float, float], divergences: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Whether TV was estimated too small for a bound: by the risk of W and by the shares.

    TV is at least the difference of risks over C, and at least the share of either source that the
    other has nothing of.
    """
    mean, error = shift
    divergence = divergences["total_divergence"]
    shares = {
        name: divergences[name]
        for name in ("irrelevant_share", "uncovered_share")
        if name in divergences
    }
    beyond = [float((share > divergence).double().mean()) for share in shares.values()]
    covers = mean <= LOSS_BOUND * float(divergence.mean()) + _CLEAR * error
    below = ", ".join(f"{name} {float(share.mean()):.3g}" for name, share in shares.items())
    return line(
        "TV(D, D_gen) is not too small",
        covers and max(beyond, default=0.0) < _SURE,
        {
            "total_divergence": float(divergence.mean()),
            "shift": mean,
            "shift_error": error,
            **{name: float(share.mean()) for name, share in shares.items()},
        },
        f"C · TV of components' weights is {float(divergence.mean()):.3g}, without what differs "
        f"inside components; on rows that W has not seen it loses {mean:.3g} ± {error:.1g} more on "
        "the task than on synthetic data" + (f", and TV cannot be below {below}" if below else ""),
    )


def anchor_shift(shift: tuple[float, float]) -> dict[str, Any]:
    """Whether the risk of W' is the same on the anchors' law as on the task."""
    mean, error = shift
    return line(
        "anchors are rows of the task",
        abs(mean) <= _CLEAR * error,
        {"shift": mean, "shift_error": error},
        f"on rows that W' has not seen it loses {mean:.3g} ± {error:.1g} more on the task than on "
        "anchors; Lemma 4.8 takes them for rows of one law",
    )


def learner(role: str, learner: Learner, losses: Mapping[str, float]) -> dict[str, Any]:
    """What W learns from, and what the lemmas assume of its rows and its loss.

    Args:
        role: source of the rows.
        learner: that saw them.
        losses: their range, `low` and `high`, and `sub_gaussian`, their estimated σ.
    """
    count, d = len(learner.rows), learner.rows.shape[1]
    used = "" if learner.of <= MOST_ROWS else f" (of {MOST_ROWS} drawn from {learner.of})"
    independent = (
        f"{learner.units} groups count as independent"
        if learner.units < count
        else "rows count as independent, as no groups were given"
    )
    return line(
        f"learner of the {role} rows",
        losses["low"] >= 0 and losses["high"] <= LOSS_BOUND,
        {"rows": count, "units": learner.units, "dimension": d, **losses},
        f"W, a Gaussian mixture of {d} principal components, learns from {count} rows{used} after "
        f"a pilot of {len(learner.pilot)}; {independent}; losses from {losses['low']:.2g} to "
        f"{losses['high']:.2g} ≤ C = 1, so σ = 1/2 (from the losses {losses['sub_gaussian']:.2g}); "
        "the bootstrap stands for the law of S, by which I(S; W) is up to 10 % too small "
        "where components are skewed or heavy-tailed",
    )


def line(name: str, holds: bool | None, measured: Any, message: str) -> dict[str, Any]:
    """One line of the audit."""
    return {"name": name, "holds": holds, "measured": measured, "message": message}
