"""What is assumed of the learners of an assessment, and whether their bounds hold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from rbpp.assessment.learned_information import MOST_ROWS, PAIRS, Learner
from rbpp.checks import Check, verdict_of
from rbpp.estimate import Estimate
from rbpp.mixtures.goodness_of_fit import goodness_check, goodness_of_fit
from rbpp.theory.audit import Judgement, judge_draws, mean_of, spread_of
from rbpp.theory.statements import STATEMENTS, Statement, check_of

LOSS_BOUND = 1.0
# Standard errors beyond which a shift of risk is one.
_CLEAR = 2.0
# Data sets of the mixture's own: the fewest with which a misfit can be told.
_REPLICATES = 49
_SHARP, _THEOREM = STATEMENTS["bound_synthetic_sharp"], STATEMENTS["bound_synthetic"]
# The statements whose sides a set of rows gives, and what their right sides have of it.
AUDITED = {
    _SHARP: "",
    replace(
        _SHARP,
        name=f"{_SHARP.name}, Bretagnolle–Huber",
        right="bound_synthetic_sharp_bretagnolle_huber",
    ): "",
    _THEOREM: "with I(S_gen; W) itself where the theorem has the larger bound of it by Lemma 4.5",
    STATEMENTS["bound_anchor"]: "",
}


def statement(terms: Mapping[str, Estimate], audited: Statement) -> Check:
    """One bound beside what it bounds: slack, and the probability that it holds."""
    left, right = audited.left, audited.right
    bound, form = float(terms[right].value.mean()), AUDITED[audited]
    if left not in terms:
        message = (
            f"{right} = {bound:.3g}; without target rows there is no error of the anchors' learner "
            "to set beside it"
        )
        return check_of(audited, terms, None, Judgement("unknown", message))
    measured = float(terms[left].value.mean())
    slack = terms[right] - terms[left]
    judged = judge_draws(slack)
    mean, spread = mean_of(slack), spread_of(slack)
    parts = [
        f"{left} {measured:.3g} ≤ {right} {bound:.3g}: slack {mean:.3g} ± {spread:.1g}, holds with "
        f"probability {judged.probability:.2f}",
        form,
        "at 1 or above it says nothing" if bound >= 1 else "",
    ]
    message = "; ".join(part for part in parts if part)
    return check_of(audited, terms, slack, replace(judged, message=message))


def unknown(terms: Mapping[str, Estimate], learners: Mapping[str, Learner]) -> Iterator[Check]:
    """Statements for which something is missing, each with what."""
    if "synthetic" in learners and "bound_synthetic" not in terms:
        message = "no unprompted rows: TV(D, D_M) and TV(D_M, D_gen) are unknown"
        yield Check(_THEOREM.name, "unknown", message)
    if "ggmi" in terms:
        gain = terms["ggmi"]
        assert gain.lower is not None
        assert gain.upper is not None
        low, high = float(gain.lower.value.mean()), float(gain.upper.value.mean())
        message = (
            f"GGMI = {float(gain.value.mean()):.3g} nats, between {low:.3g} and {high:.3g}: "
            f"lower sides of informations are cut at log {PAIRS} = {math.log(PAIRS):.2g}"
        )
        yield Check("Definition 4.9", "unknown", message, {"lower": low, "upper": high})
    elif learners:
        message = f"only the {next(iter(learners))} rows have a learner: no GGMI"
        yield Check("Definition 4.9", "unknown", message)
    if learners:
        message = (
            "need how S_gen and W vary with the anchors and the generator's own randomness, as "
            "H(S_anchor | W): many runs of the generator, of which one is here; `bounds` "
            "draws many of a process"
        )
        names = (STATEMENTS[right].name for right in ("bound_information_flow", "bound_ggmi"))
        yield Check(", ".join(names), "unknown", message)


def total_divergence(shift: Estimate, upper: float, least: float) -> Check:
    """Whether the upper side of TV is too small for a bound: by the risk of W and by the shares.

    TV is at least the difference of risks over C, and at least the share of either source that the
    other has nothing of.

    Args:
        shift: the difference of risks.
        upper: of TV, under the mixture model.
        least: the largest share that is claimed.
    """
    mean, error = shift.value.item(), shift.standard_error.item()
    covers = mean <= LOSS_BOUND * upper + _CLEAR * error
    return Check(
        "TV(D, D_gen) is not too small",
        verdict_of(covers and least <= upper),
        f"the upper side of TV is {upper:.3g} under the mixture model, and without a model there "
        f"is none; on rows that W has not seen it loses {mean:.3g} ± {error:.1g} more on the task "
        f"than on synthetic data, and TV cannot be below a share of {least:.3g}",
        {"upper": upper, "shift": mean, "shift_error": error, "at_least": least},
    )


def anchor_shift(shift: Estimate) -> Check:
    """Whether the risk of W' is the same on the anchors' distribution as on the task."""
    mean, error = shift.value.item(), shift.standard_error.item()
    return Check(
        "anchors are rows of the task",
        verdict_of(abs(mean) <= _CLEAR * error),
        f"on rows that W' has not seen it loses {mean:.3g} ± {error:.1g} more on the task than on "
        "anchors; Lemma 4.8 takes them for rows of one distribution",
        {"shift": mean, "shift_error": error},
    )


def learner(role: str, learner: Learner, losses: Mapping[str, float]) -> Check:
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
    return Check(
        f"learner of the {role} rows",
        verdict_of(losses["low"] >= 0 and losses["high"] <= LOSS_BOUND),
        f"W, a Gaussian mixture of {d} principal components, learns from {count} rows{used} after "
        f"a pilot of {len(learner.pilot)}; {independent}; losses from {losses['low']:.2g} to "
        f"{losses['high']:.2g} ≤ C = 1, so σ = 1/2 (from the losses {losses['sub_gaussian']:.2g}); "
        "the bootstrap stands for the distribution of S, by which I(S; W) is up to 10 % too small "
        "where components are skewed or heavy-tailed",
        {"rows": count, "units": learner.units, "dimension": d, **losses},
    )


def no_learner(role: str, why: str, rows: int) -> Check:
    """That so many rows of a source have no learner."""
    message = f"no learner, so no information and no bounds with it: {why}"
    return Check(f"learner of the {role} rows", "unknown", message, {"rows": rows})


def goodness(learner: Learner, seed: int) -> Check:
    """Whether rows that were held out look like those of the learner's mixture."""
    components = learner.prepared.components
    assert components is not None  # `prepare` makes a mixture
    found = goodness_of_fit(learner.rows, components, replicates=_REPLICATES, seed=seed)
    return replace(goodness_check(found), required=False)
