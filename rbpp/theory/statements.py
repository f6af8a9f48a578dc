"""The statements of the theory, one entry each: bounds, what they bound, and what they rest on.

Terms, slacks, audit, figure and tables are made from these entries: `register` adds another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rbpp.checks import Check, compared
from rbpp.estimate import Estimate, delta_method
from rbpp.theory import assumptions as assume
from rbpp.theory import lemmas
from rbpp.theory.assumptions import Assumption, Evidence
from rbpp.theory.audit import (
    Judgement,
    judge,
    mean_of,
    number,
    root_mean_square,
    spread_of,
)
from rbpp.theory.corners import between_corners
from rbpp.theory.lemmas import LemmaSetting
from rbpp.theory.terms import Terms, add_derived, add_identities
from rbpp.theory.world_estimates import REST, WorldEstimates
from rbpp.variables import VARIABLES, Variable, describe, require_described


@dataclass(frozen=True, kw_only=True)
class Statement:
    """left ≤ right, for two terms.

    Attributes:
        name: of the lemma or theorem.
        left: the term that is bounded.
        right: the term that bounds it.
        formula: `right` from the terms and the setting; it may use the right sides of earlier
            entries.
        slack: right − left in a form in which large terms have cancelled; the difference if None.
        needs: terms that not every process and learner gives; their reasons are told.
        assumptions: what the statement rests on.
        hidden_by: terms that hide a violation where only an upper bound of them is known.
        variable: meaning and units of `right`, where `rbpp.variables` does not have it.
    """

    name: str
    left: str
    right: str
    formula: Callable[[Terms, LemmaSetting], Tensor]
    slack: Callable[[Terms], Tensor] | None = None
    needs: Sequence[str] = ()
    assumptions: Sequence[Assumption] = ()
    hidden_by: Sequence[str] = ()
    variable: Variable | None = None


# By the name of the right side, in the order of the audit.
STATEMENTS: dict[str, Statement] = {}


def register(statement: Statement) -> None:
    """Add a statement; terms, audit, figure and tables have it from then on.

    Raises:
        ValueError: if a side is described neither by the entry nor by `rbpp.variables`, or a
            statement of another name has this right side: it would go unsaid from then on.
    """
    there = STATEMENTS.get(statement.right)
    if there is not None and there.name != statement.name:
        raise ValueError(
            f"Expected a right side that no other statement has; got {statement.right} of "
            f"{statement.name}, which {there.name} has"
        )
    own = statement.variable
    require_described([statement.left, *([] if own else [statement.right])])
    if own is not None and not own.bound:
        own = replace(own, bound=True, panel="")  # among bounds, and not among terms
    describe(statement.right, own or replace(VARIABLES[statement.right], bound=True))
    STATEMENTS[statement.right] = statement


_FACTORS = ("entropy_model_factor", "entropy_prompt_factor")
_DIVERGENCES = ("task_divergence", "generation_divergence")
_BOTH_DIVERGENCES = assume.total_variation_known(*_DIVERGENCES)
_GAP = (assume.sub_gaussian_loss, assume.layers_contract, assume.independent_rows)
_LEARNERS = (
    assume.known_from_both_sides("information_synthetic_learner"),
    assume.known_from_both_sides("information_anchor_learner"),
)


def _gain(term: Terms) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The first arguments of Theorem 4.10 in both forms."""
    return (
        term["information_gain"],
        term["anchor_retention"],
        term["entropy_anchor_given_learner"],
        term["entropy_gap"],
    )


for _statement in (
    Statement(
        name="Lemma 3.1",
        left="generalization_error",
        right="bound_lemma_3_1",
        formula=lambda term, setting: lemmas.lemma_3_1(
            term["task_divergence"],
            term["generation_divergence"],
            term["absolute_estimation_gap"],
            setting.loss_bound,
        ),
        needs=("generalization_error", *_DIVERGENCES),
        assumptions=(assume.loss_in_range, _BOTH_DIVERGENCES),
    ),
    Statement(
        name="Lemma 4.4",
        left="estimation_gap",
        right="bound_lemma_4_4",
        formula=lambda term, setting: lemmas.lemma_4_4(
            term.upper("information_synthetic_learner"),
            setting.rows["synthetic"],
            **setting.constants,
        ),
        needs=("estimation_gap",),
        assumptions=(*_GAP, assume.exchangeable_rows, assume.upper_side_used),
    ),
    Statement(
        name="Lemma 4.5",
        left="information_synthetic_learner",
        right="bound_information_flow",
        formula=lambda term, _: lemmas.information_flow(
            term["information_gain"],
            term["compression_bottleneck"],
            term["entropy_model_factor"],
            term["efficiency"],
        ),
        needs=_FACTORS,
        assumptions=(
            assume.markov,
            assume.factors_independent,
            assume.entropies_count_states,
            assume.output_of_factors,
            assume.prompting_factor_exists,
        ),
    ),
    Statement(
        name="Lemma 4.5, proof step",
        left="information_output_learner",
        right="information_step",
        formula=lambda term, _: (
            term["information_prompt_learner"] + term["information_model_factor_learner"]
        ),
        needs=_FACTORS,
        assumptions=(assume.factors_independent, assume.model_factor_known),
        hidden_by=("information_model_factor_learner",),
    ),
    Statement(
        name="chain-rule bound (ours)",
        left="information_synthetic_learner",
        right="bound_chain_rule",
        formula=lambda term, _: lemmas.chain_rule(
            term["curation_leak"],
            term["information_prompt_learner"],
            term["information_model_factor_learner_given_prompt"],
        ),
        assumptions=(assume.markov, assume.factors_independent, assume.output_of_factors),
    ),
    Statement(
        name="Lemma 4.6",
        left="estimation_gap",
        right="bound_lemma_4_6",
        formula=lambda term, setting: lemmas.lemma_4_4(
            term["bound_information_flow"], setting.rows["synthetic"], **setting.constants
        ),
        needs=("estimation_gap", *_FACTORS),
        assumptions=(*_GAP, assume.entropies_count_states),
    ),
    Statement(
        name="Theorem 4.7",
        left="generalization_error",
        right="bound_synthetic",
        formula=lambda term, setting: lemmas.theorem_4_7(
            term["task_divergence"],
            term["generation_divergence"],
            term["bound_information_flow"],
            setting.rows["synthetic"],
            loss_bound=setting.loss_bound,
            **setting.constants,
        ),
        needs=("generalization_error", *_DIVERGENCES, *_FACTORS),
        assumptions=(
            assume.loss_in_range,
            _BOTH_DIVERGENCES,
            *_GAP,
            assume.entropies_count_states,
        ),
    ),
    Statement(
        name="Theorem 4.7, sharp (ours)",
        left="generalization_error",
        right="bound_synthetic_sharp",
        formula=lambda term, setting: lemmas.sharp_bound(
            term["total_divergence"],
            torch.maximum(term["bound_chain_rule"], term.upper("information_synthetic_learner")),
            setting.rows["synthetic"],
            loss_bound=setting.loss_bound,
            **setting.constants,
        ),
        needs=("generalization_error", "total_divergence"),
        assumptions=(
            assume.loss_in_range,
            assume.total_variation_known("total_divergence"),
            *_GAP,
        ),
    ),
    Statement(
        name="Lemma 4.8",
        left="generalization_error_anchor",
        right="bound_anchor",
        formula=lambda term, setting: lemmas.lemma_4_4(
            term.upper("information_anchor_learner"), setting.rows["anchor"], **setting.constants
        ),
        needs=("generalization_error_anchor",),
        assumptions=(
            assume.sub_gaussian_loss,
            assume.layers_contract,
            assume.anchors_are_task_rows,
        ),
    ),
    Statement(
        name="Theorem 4.10",
        left="ggmi",
        right="bound_ggmi",
        formula=lambda term, _: lemmas.theorem_4_10(
            *_gain(term),
            term["entropy_synthetic_given_learner"],
            term["learner_gap"],
        ),
        slack=lambda term: (
            (term["information_anchor_output"] - term["information_prompt_output"])
            - (term["entropy_synthetic"] - term["entropy_output"])
        ),
        needs=("entropy_synthetic",),
        assumptions=(
            assume.markov,
            assume.prompt_invertible,
            assume.retention_not_negative,
            assume.curation_adds_no_entropy,
            assume.entropies_count_states,
            *_LEARNERS,
        ),
    ),
    Statement(
        name="Theorem 4.10, corrected (ours)",
        left="ggmi",
        right="bound_ggmi_corrected",
        formula=lambda term, _: lemmas.theorem_4_10_corrected(
            *_gain(term),
            term["entropy_gap_output"],
            term["entropy_synthetic_given_learner"],
            term["learner_gap"],
        ),
        slack=lambda term: term["information_anchor_output"] - term["information_prompt_output"],
        needs=("entropy_synthetic",),
        assumptions=(
            assume.markov,
            assume.prompt_invertible,
            assume.retention_not_negative,
            assume.entropies_count_states,
            *_LEARNERS,
        ),
    ),
):
    register(_statement)


def all_terms(found: WorldEstimates, setting: LemmaSetting) -> dict[str, Estimate]:
    """Every term, bound and slack that follows from what was estimated in the worlds.

    Errors of the estimated terms count as independent and go through the formulas by the delta
    method. A term that enters a bound twice, or both sides of it, is then the one number it is.

    Args:
        found: the estimates.
        setting: of the lemmas.

    Raises:
        ValueError: if a term is not described in `rbpp.variables`.
    """
    require_described(found.terms)
    uppers = {n: e.upper.value.double() for n, e in found.terms.items() if e.upper is not None}

    def formulas(values: Mapping[str, Tensor]) -> Terms:
        terms = Terms({n: v for n, v in values.items() if not n.startswith(REST)}, uppers)
        for name in found.rests:
            terms[name] = terms["information_synthetic_learner"] - values[REST + name]
        add_identities(terms, found.facts)
        add_derived(terms, setting)
        for right, statement in STATEMENTS.items():
            terms[right] = statement.formula(terms, setting)
            slack = statement.slack
            terms[f"slack_{right}"] = (
                terms[right] - terms[statement.left] if slack is None else slack(terms)
            )
        require_described(terms)
        return terms

    rests = {REST + name: rest for name, rest in found.rests.items()}
    known = {**found.terms, **rests}
    composed = delta_method(formulas, known)
    for right in STATEMENTS:
        name = f"slack_{right}"
        composed[name] = between_corners(composed[name], formulas, known, name)
    return {
        name: _completed(name, term, found)
        for name, term in composed.items()
        if name not in found.missing and not bool(term.value.isnan().all())
    }


def _completed(name: str, term: Estimate, found: WorldEstimates) -> Estimate:
    """A composed term with what its own estimate has besides value and error."""
    described = VARIABLES.get(name)
    is_side = described is not None and described.stands_as == "upper side" and not described.part
    stands_in = found.facts.factor == "absent" and name == "information_model_factor_learner"
    # A bound of a term that is known from below alone is no upper side of anything.
    if stands_in or (is_side and term.direction not in ("lower", "biased")):
        term = replace(term, direction="upper")
    own = found.terms.get(name)
    if own is None:
        return term
    return replace(own, value=term.value, standard_error=term.standard_error)


def audit(known: Evidence) -> tuple[Check, ...]:
    """One check per statement."""
    return tuple(_check(statement, known) for statement in STATEMENTS.values())


def _check(statement: Statement, known: Evidence) -> Check:
    slack = known.terms.get(f"slack_{statement.right}")
    judged = Judgement("unknown") if slack is None else judge(slack)
    if slack is None or judged.nothing_known:
        judged = replace(judged, message=_lacking(statement, known))
    hidden = any(
        known.terms[name].direction == "upper"
        for name in statement.hidden_by
        if name in known.terms
    )
    if hidden:  # with an upper bound in its place a violation could not be seen
        judged = Judgement("unknown")
    rests_on = (assumption(known) for assumption in statement.assumptions)
    messages = (judged.message, _of_absolute_gap(statement, known))
    found = check_of(
        statement,
        known.terms,
        slack,
        replace(judged, message="; ".join(message for message in messages if message)),
    )
    return replace(found, assumptions=tuple(check for check in rests_on if check is not None))


def check_of(
    statement: Statement,
    terms: Mapping[str, Estimate],
    slack: Estimate | None,
    judged: Judgement,
) -> Check:
    """What was found of a statement, with both its sides in numbers.

    Args:
        statement: left ≤ right.
        terms: the sides, where they are known.
        slack: right − left, where it is known.
        judged: whether it is at least zero.
    """
    measured = compared(
        statement.left,
        statement.right,
        left=mean_of(terms.get(statement.left)),
        right=mean_of(terms.get(statement.right)),
        slack=mean_of(slack),
        slack_sd=spread_of(slack),
        slack_mcse=math.nan if slack is None else root_mean_square(slack.standard_error),
        probability_holds=judged.probability,
    )
    return Check(statement.name, judged.verdict, judged.message, measured)


def _of_absolute_gap(statement: Statement, known: Evidence) -> str:
    """What a bound of E[R − R̂] leaves open: |R − R̂| may be larger."""
    gap, right = known.terms.get("absolute_estimation_gap"), known.terms.get(statement.right)
    if statement.left != "estimation_gap" or gap is None or right is None:
        return ""
    above = gap.value > right.value
    text = f"it bounds E[R − R̂]; E|R − R̂| is {number(gap)}"
    if not bool(above.any()):
        return text
    return f"{text}, above the bound in {int(above.sum())} of {above.numel()} worlds"


def _lacking(statement: Statement, known: Evidence) -> str:
    """Why a statement cannot be judged: reasons of its own terms, or else all there are."""
    own = [reason for name, reason in known.found.missing.items() if name in statement.needs]
    reasons = own or list(known.found.missing.values())
    # One reason of several terms, or one part of such a reason, is said once.
    parts = dict.fromkeys(part for text in reasons for part in text.split("; "))
    return f"not every term is there ({'; '.join(parts)})"
