"""What the statements rest on, each as a check of what was estimated for a process."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from rbpp.checks import Check, Verdict, verdict_of, worst
from rbpp.estimate import Estimate
from rbpp.theory.audit import check_at_most_zero, number, root_mean_square
from rbpp.theory.information import sides_in_words
from rbpp.theory.lemmas import LemmaSetting
from rbpp.theory.settings import LemmaConstants
from rbpp.theory.world_estimates import WorldEstimates
from rbpp.variables import VARIABLES


@dataclass(frozen=True)
class Evidence:
    """What is known of a process when its statements are audited.

    Attributes:
        terms: all terms, per world.
        found: what they follow from, with the reasons of missing terms.
        constants: of the lemmas, as they were given.
        setting: of the lemmas.
        process_checks: of `rbpp.check`: Markov structure, rows, prompt.
    """

    terms: Mapping[str, Estimate]
    found: WorldEstimates
    constants: LemmaConstants
    setting: LemmaSetting
    process_checks: Sequence[Check] = ()


# None where there is nothing to assume.
Assumption = Callable[[Evidence], Check | None]


def markov(known: Evidence) -> Check:
    """The chain is Markov given the world."""
    text = "anchor → prompt → output → synthetic is Markov given the world"
    return _of_process(text, "markov", known.process_checks)


def loss_in_range(known: Evidence) -> Check:
    """The loss is in [0, C]."""
    bound = known.constants.loss_bound
    text = f"the loss is in [0, C], C = {bound:g}"
    if known.found.facts.losses is None:
        return Check(text, "unknown", "the learner has no loss on rows")
    low, high = (bound * value for value in known.found.facts.losses)
    holds = low >= 0 and high <= bound * (1 + 1e-9)
    measured = {"lowest": low, "highest": high}
    return Check(text, verdict_of(holds), f"losses from {low:.3g} to {high:.3g}", measured)


def sub_gaussian_loss(known: Evidence) -> Check:
    """The loss is σ-sub-Gaussian."""
    sigma, how = known.setting.mean_sub_gaussian, known.setting.sub_gaussian_from
    text = f"the loss is σ-sub-Gaussian, σ = {sigma:.3g} ({how})"
    by_range = known.constants.sub_gaussian is None
    verdict: Verdict = "holds" if by_range else "unknown"
    if known.found.sub_gaussian is None:
        return Check(text, verdict, "no losses to compare with", {"sigma": sigma})
    found = float(known.found.sub_gaussian.max() * known.setting.loss_bound)
    message = f"from losses {found:.3g}"
    if known.constants.sub_gaussian == "estimate":
        message += "; an estimate is no bound: rare rows may need more"
    elif not by_range and found > sigma * 1.02:
        verdict = "violated"
    return Check(text, verdict, message, {"sigma": sigma, "from_losses": found})


def layers_contract(known: Evidence) -> Check | None:
    """Hidden layers contract information."""
    layers, contraction = known.constants.layers, known.constants.contraction
    if not layers:
        return None
    text = f"{layers} hidden layers contract information by η = {contraction:g} each"
    return Check(text, "unknown", "a property of the user's network, taken as given")


def independent_rows(known: Evidence) -> Check:
    """The rows of S_gen are independent."""
    shared = "prompt and e_M" if known.found.facts.factor == "above" else "prompt"
    information = known.terms["information_prompt_output"]
    return Check(
        f"the n = {known.found.facts.rows['synthetic']} rows of S_gen are independent",
        "holds",
        f"given the {shared}, by the plate; D_gen is their distribution given it. Marginally the "
        f"rows share it: I(e_p; M(p)) = {number(information)} nats",
    )


def exchangeable_rows(known: Evidence) -> Check | None:
    """Rows do not depend on each other, as the check of the process saw it."""
    if not known.process_checks:
        return None
    text = "rows do not depend on each other, nor their distribution on their position"
    return _of_process(text, "rows", known.process_checks)


def upper_side_used(known: Evidence) -> Check:
    """The bound has the upper side of I(S; W) in it."""
    found = known.terms.get("information_synthetic_learner")
    message = "" if found is None else sides_in_words(found)
    from_below = found is not None and found.end("upper") is None
    return Check("I(S; W) is an upper side of it", "unknown" if from_below else "holds", message)


def factors_independent(known: Evidence) -> Check:
    """e_M is independent of e_p."""
    messages = {
        "absent": "by construction: e_M is what the prompt leaves open",
        "above": "sampled without the prompt, if the graph says so",
        "below": "M(p) = h(e_p) + e_M, with e_M drawn apart from the prompt",
    }
    return Check("e_M is independent of e_p", "holds", messages[known.found.facts.factor])


def output_of_factors(known: Evidence) -> Check:
    """M(p) is a function of e_p and e_M."""
    text = "M(p) is a function of e_p and e_M"
    if known.found.facts.factor == "above" and known.found.facts.output_random:
        return Check(text, "violated", "output is sampled beyond prompt and model_factor")
    return Check(text, "holds", _remark(known, "entropy_model_factor"))


def model_factor_known(known: Evidence) -> Check | None:
    """I(e_M; W) is estimated, and not only bounded from above."""
    found = known.terms.get("information_model_factor_learner")
    if found is None or found.direction != "upper":
        return None
    message = known.found.notes.get("information_model_factor_learner", "")
    return Check("I(e_M; W) can be estimated", "unknown", message)


def entropies_count_states(known: Evidence) -> Check:
    """Entropies are those of letters, or of numbers at a fine enough resolution."""
    text = "entropies count states"
    if known.found.facts.discrete:
        return Check(text, "holds", "letters: entropies are finite sums")
    negative = [
        name
        for name in ("entropy_anchor", "information_gain", "entropy_synthetic")
        if name in known.terms and bool((known.terms[name].value < 0).any())
    ]
    message = f"at resolution Δ = {known.constants.resolution:g} per coordinate"
    if negative:
        return Check(text, "violated", f"{message}, {', '.join(negative)} < 0: take Δ smaller")
    return Check(text, "holds", message)


def prompting_factor_exists(known: Evidence) -> Check:
    """λ exists."""
    text = "λ ≥ 1 with H(e_p) ≤ λ I(e_p; M(p)) exists"
    factor = known.terms.get("prompting_factor")
    if factor is None:
        return Check(text, "unknown", known.found.missing.get("entropy_prompt_factor", ""))
    information = known.terms["information_prompt_output"]
    infinite = factor.value.isinf()
    least = [one.interval(2.0)[0] for one in (information, information.lower) if one is not None]
    none = (torch.stack(least).amax(0) <= 0) | infinite
    if not bool(none.any()):
        return Check(text, "holds", f"λ = {number(factor)}")
    return Check(
        text,
        "violated" if bool(infinite.any()) else "undecided",
        f"I(e_p; M(p)) is 0 within its error in {int(none.sum())} of {none.numel()} worlds, where "
        "λ is infinite or not known; δ_p = max(0, H(e_p) − I(e_p; M(p))) needs none",
    )


def prompt_invertible(known: Evidence) -> Check:
    """φ_T is invertible."""
    text = "φ_T is invertible"
    if known.process_checks:
        return _of_process(text, "invertible", known.process_checks)
    if known.found.facts.prompt_random:
        return Check(text, "violated", "the prompt is sampled given the anchors")
    if "entropy_prompt_factor" in known.found.notes:
        message = "a function of the anchors; not differentiable row by row"
        return Check(text, "unknown", message)
    return Check(text, "holds", "its Jacobian is finite at every draw")


def retention_not_negative(known: Evidence) -> Check:
    """α ≥ 0."""
    retention = known.terms.get("anchor_retention")
    if retention is None:
        return Check("α ≥ 0", "unknown")
    return check_at_most_zero("α ≥ 0", -retention, f"α = {number(retention)}")


def curation_adds_no_entropy(known: Evidence) -> Check:
    """Curation adds no entropy: what Theorem 4.10 as published needs, and what its slack is."""
    text = "H(S_gen) ≤ H(M(p)) + I(S_anchor; M(p)) − I(h(e_p); M(p)): curation adds no entropy"
    slack = known.terms.get("slack_bound_ggmi")
    if slack is None:
        return Check(text, "unknown", known.found.missing.get("entropy_synthetic", ""))
    added = known.terms["entropy_synthetic"] - known.terms["entropy_output"]
    return check_at_most_zero(text, -slack, f"H(S_gen) − H(M(p)) = {number(added)} nats")


def anchors_are_task_rows(known: Evidence) -> Check:
    """The anchors have the distribution of the task."""
    text = f"the m = {known.found.facts.rows['anchor']} anchors are rows of the task D"
    error = known.terms.get("generalization_error_anchor")
    gap = known.terms.get("estimation_gap_anchor")
    if error is None or gap is None:
        return Check(text, "unknown", known.found.missing.get("generalization_error_anchor", ""))
    shift = error - gap
    noise = root_mean_square(shift.standard_error) / math.sqrt(shift.value.numel())
    differs = float(shift.value.abs().mean()) > 4 * noise
    message = f"risk of W' on D minus that on the anchors' distribution: {number(shift)}"
    return Check(text, "violated" if differs else "holds", message)


def total_variation_known(*names: str) -> Assumption:
    """The total variations of a statement are the largest difference on any event.

    Args:
        names: the terms of total variation in the statement's bound.
    """

    def check(known: Evidence) -> Check:
        verdict: Verdict = "holds"
        messages = dict[str, None]()  # a reason that two terms share is said once
        for name in names:
            found, symbol = known.terms.get(name), _symbol(name)
            if found is None:
                verdict = "unknown"
                messages[known.found.missing.get(name, "")] = None
                continue
            if found.end("lower") is None or found.end("upper") is None:
                verdict = "unknown"
            words = {"lower": "is at least", "upper": "is at most"}.get(found.direction, "=")
            message = f"{found.method}; {symbol} {words} {float(found.value.mean()):.3g}"
            messages[message] = None
        said = "; ".join(message for message in messages if message)
        return Check("TV = sup_A |P(A) − Q(A)|", verdict, said)

    return check


def known_from_both_sides(name: str) -> Assumption:
    """An information is known well enough to compare with."""

    def check(known: Evidence) -> Check:
        found = known.terms.get(name)
        verdict: Verdict = "holds"
        if found is None or found.far_apart:
            verdict = "unknown"
        message = "" if found is None else sides_in_words(found)
        return Check(f"{name} is known from both sides", verdict, message)

    return check


def _symbol(name: str) -> str:
    """The symbol of a total variation, with which its meaning begins."""
    return VARIABLES[name].long_name.partition(")")[0] + ")"


def _remark(known: Evidence, name: str) -> str:
    return known.found.notes.get(name) or known.found.missing.get(name, "")


def _of_process(text: str, rule: str, checks: Sequence[Check]) -> Check:
    """What the check of the process says of a rule: the worst of its verdicts."""
    found = worst(check for check in checks if check.measured.get("rule") == rule)
    if found is None:
        return Check(text, "unknown", "not checked here: `check` of the process does")
    if found.verdict == "holds":
        return Check(text, "holds", "nothing against it in graph and interventions")
    return Check(text, found.verdict, found.message)
