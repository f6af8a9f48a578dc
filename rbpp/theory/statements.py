"""The paper's statements about a chain, each with its assumptions as far as they were measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from rbpp import inference_data
from rbpp.checks import Check, worst
from rbpp.estimate import Estimate
from rbpp.theory.audit import Assumption, Statement, entry, judged, number
from rbpp.theory.chain import Chain
from rbpp.theory.composition import INEQUALITIES
from rbpp.variables import VARIABLES

NAMES = {
    "bound_lemma_3_1": "Lemma 3.1",
    "bound_lemma_4_4": "Lemma 4.4",
    "bound_information_flow": "Lemma 4.5",
    "information_step": "Lemma 4.5, proof step",
    "bound_chain_rule": "chain-rule bound (ours)",
    "bound_lemma_4_6": "Lemma 4.6",
    "bound_synthetic": "Theorem 4.7",
    "bound_synthetic_sharp": "Theorem 4.7, sharp (ours)",
    "bound_anchor": "Lemma 4.8",
    "bound_ggmi": "Theorem 4.10",
    "bound_ggmi_corrected": "Theorem 4.10, corrected (ours)",
}

_FLOW = ("entropy_model_factor", "entropy_prompt_factor")
_TASK = ("generalization_error",)
# What a process or a learner may not give, of what a statement is made of.
RESTS_ON = {
    "bound_lemma_3_1": (*_TASK, "task_divergence", "generation_divergence"),
    "bound_lemma_4_4": ("estimation_gap",),
    "bound_information_flow": _FLOW,
    "information_step": _FLOW,
    "bound_chain_rule": (),
    "bound_lemma_4_6": ("estimation_gap", *_FLOW),
    "bound_synthetic": (*_TASK, "task_divergence", "generation_divergence", *_FLOW),
    "bound_synthetic_sharp": (*_TASK, "total_divergence"),
    "bound_anchor": ("generalization_error_anchor",),
    "bound_ggmi": ("entropy_synthetic",),
    "bound_ggmi_corrected": ("entropy_synthetic",),
}


def audit_chain(chain: Chain, findings: Sequence[Check] = ()) -> list[dict[str, Any]]:
    """One entry per statement of the paper, and per statement that repairs or sharpens one.

    Args:
        chain: the terms.
        findings: of `rbpp.processes.contract.check` on the process: Markov structure, rows, prompt.
    """
    markov = _found(
        "anchor → prompt → output → synthetic is Markov given the world", "markov", findings
    )
    loss, rows, independent = _loss(chain), _rows(chain), _independence(chain)
    resolution, layers = _resolution(chain), _layers(chain)
    factor, retention, curation = _factor(chain), _retention(chain), _curation(chain)
    invertible = _prompt(chain, findings)
    known = [
        _known(chain, n) for n in ("information_synthetic_learner", "information_anchor_learner")
    ]
    assumptions: dict[str, list[Assumption]] = {
        "bound_lemma_3_1": [loss, _divergence_direction(chain)],
        "bound_lemma_4_4": [
            *layers,
            rows,
            *_exchangeable(findings),
            _saturation(chain, "information_synthetic_learner"),
        ],
        "bound_information_flow": [markov, independent, resolution, factor, _prompting(chain)],
        "information_step": [independent, *_factor_known(chain)],
        "bound_chain_rule": [markov, independent, factor],
        "bound_lemma_4_6": [*layers, rows, resolution],
        "bound_synthetic": [loss, *layers, rows, resolution],
        "bound_synthetic_sharp": [loss, *layers, rows],
        "bound_anchor": [*layers, _anchors_on_task(chain)],
        "bound_ggmi": [markov, invertible, retention, curation, resolution, *known],
        "bound_ggmi_corrected": [markov, invertible, retention, resolution, *known],
    }
    entries = [
        entry(
            Statement(name, INEQUALITIES[right], right, f"slack_{right}", assumptions[right]),
            chain.terms,
            _missing(chain, right),
        )
        for right, name in NAMES.items()
    ]
    if _factor_known(chain):  # with the upper side in its place the step cannot be seen to fail
        step = entries[list(NAMES).index("information_step")]
        step |= {"verdict": "unknown", "probability_holds": math.nan}
    return entries


def _missing(chain: Chain, right: str) -> dict[str, str]:
    """Reasons of what a statement lacks; all there are where none of its own terms has one."""
    own = {name: reason for name, reason in chain.missing.items() if name in RESTS_ON[right]}
    return own or dict(chain.missing)


def _factor_known(chain: Chain) -> list[Assumption]:
    """What hinders a verdict on the proof's step: nothing, if the process has e_M."""
    note = chain.notes.get("information_model_factor_learner")
    return [] if note is None else [Assumption("I(e_M; W) can be estimated", "unknown", note)]


def _known(chain: Chain, name: str) -> Assumption:
    line = chain.estimators.get(name, "")
    verdict = "unknown" if "too far apart" in line else "holds"
    return Assumption(f"{name} is known from both sides", verdict, line)  # type: ignore[arg-type]


def to_inference_data(chain: Chain) -> Any:
    """The chain as InferenceData: worlds are the draws of one chain.

    A term NAME has NAME_mcse, and NAME_lower and NAME_upper where it was estimated between two
    sides. `slack_*` are right minus left of the audited statements.
    """
    posterior: dict[str, Any] = {}
    order = [name for name in VARIABLES if name in chain.terms]
    for name in [*order, *(name for name in chain.terms if name not in order)]:
        _add(posterior, name, chain.terms[name])
        sides = chain.sides.get(name)
        if sides is not None and name in VARIABLES:
            _add(posterior, f"{name}_lower", sides.lower)
            _add(posterior, f"{name}_upper", sides.upper)
    for name, value in chain.world.items():
        if value.shape[0] == chain.settings["worlds"] and name not in posterior:
            posterior[name] = value.squeeze(1).cpu().numpy()[None]
    attrs = {"estimators": chain.estimators, "missing": chain.missing, "notes": chain.notes}
    return inference_data.make(posterior, constant_data=chain.settings, attrs=attrs)


def _add(posterior: dict[str, Any], name: str, estimate: Estimate) -> None:
    posterior[name] = estimate.value.cpu().numpy()[None]
    posterior[f"{name}_mcse"] = estimate.standard_error.cpu().numpy()[None]


def _loss(chain: Chain) -> Assumption:
    bound = chain.settings["loss_bound"]
    text = f"the loss is in [0, C], C = {bound:g}"
    if chain.facts["losses"] is None:
        return Assumption(text, "unknown", "the learner has no loss on rows")
    low, high = (bound * value for value in chain.facts["losses"])
    verdict = "holds" if low >= 0 and high <= bound * (1 + 1e-9) else "violated"
    return Assumption(text, verdict, f"losses from {low:.3g} to {high:.3g}")  # type: ignore[arg-type]


def _layers(chain: Chain) -> list[Assumption]:
    sigma, how = chain.settings["sub_gaussian"], chain.settings["sub_gaussian_from"]
    estimated = chain.facts["estimated_sub_gaussian"]
    text = f"the loss is σ-sub-Gaussian, σ = {sigma:.3g} ({how})"
    measured = "no losses to compare with"
    verdict = "holds" if how.startswith("range") else "unknown"
    if estimated is not None:
        found = float(estimated.max())
        measured = f"from losses {found:.3g}"
        if how == "given" and found > sigma * 1.02:
            verdict = "violated"
        if how.startswith("estimate"):
            measured += "; an estimate is no bound: rare rows may need more"
    result = [Assumption(text, verdict, measured)]  # type: ignore[arg-type]
    count, contraction = chain.settings["layers"], chain.settings["contraction"]
    if count:
        text = f"{count} hidden layers contract information by η = {contraction:g} each"
        result.append(
            Assumption(text, "unknown", "a property of the user's network, taken as given")
        )
    return result


def _rows(chain: Chain) -> Assumption:
    text = f"the n = {chain.rows['synthetic']} rows of S_gen are independent"
    kind = chain.facts["factor"]
    shared = "prompt and e_M" if kind == "above" else "prompt"
    information = chain.terms["information_prompt_output"]
    return Assumption(
        text,
        "holds",
        f"given the {shared}, by the plate; D_gen is read as their law given it. Marginally they "
        f"share it: I(e_p; M(p)) = {number(information)} nats",
    )


def _independence(chain: Chain) -> Assumption:
    text = "e_M is independent of e_p"
    kind = chain.facts["factor"]
    if kind == "absent":
        return Assumption(text, "holds", "by construction: e_M is what the prompt leaves open")
    if kind == "above":
        return Assumption(text, "holds", "sampled without the prompt, if the graph says so")
    return Assumption(text, "holds", "M(p) = h(e_p) + e_M, with e_M drawn apart from the prompt")


def _factor(chain: Chain) -> Assumption:
    text = "M(p) is a function of e_p and e_M"
    if chain.facts["factor"] == "above" and chain.facts["output_random"]:
        return Assumption(text, "violated", "output is sampled beyond prompt and model_factor")
    note = chain.notes.get("entropy_model_factor") or chain.missing.get("entropy_model_factor", "")
    return Assumption(text, "holds", note)


def _resolution(chain: Chain) -> Assumption:
    text = "entropies count states"
    if chain.facts["discrete"]:
        return Assumption(text, "holds", "letters: entropies are finite sums")
    low = [
        name
        for name in ("entropy_anchor", "information_gain", "entropy_synthetic")
        if name in chain.terms and bool((chain.terms[name].value < 0).any())
    ]
    measured = f"at resolution Δ = {chain.settings['resolution']:g} per coordinate"
    if low:
        return Assumption(text, "violated", f"{measured}, {', '.join(low)} < 0: take Δ smaller")
    return Assumption(text, "holds", measured)


def _prompting(chain: Chain) -> Assumption:
    factor = chain.terms.get("prompting_factor")
    text = "λ ≥ 1 with H(e_p) ≤ λ I(e_p; M(p)) exists"
    if factor is None:
        return Assumption(text, "unknown", chain.missing.get("entropy_prompt_factor", ""))
    information = chain.terms["information_prompt_output"]
    none = (information.value <= 2 * information.standard_error) | factor.value.isinf()
    if bool(none.any()):
        measured = (
            f"I(e_p; M(p)) is 0 within its error in {int(none.sum())} of {none.numel()} worlds, "
            "where λ is infinite or not known; δ_p = max(0, H(e_p) − I(e_p; M(p))) needs none"
        )
        return Assumption(
            text, "violated" if bool(factor.value.isinf().any()) else "unknown", measured
        )
    return Assumption(text, "holds", f"λ = {number(factor)}")


def _prompt(chain: Chain, findings: Sequence[Check]) -> Assumption:
    text = "φ_T is invertible"
    if findings:
        return _found(text, "invertible", findings)
    if chain.facts["prompt_random"]:
        return Assumption(text, "violated", "the prompt is sampled given the anchors")
    note = chain.notes.get("entropy_prompt_factor")
    if note is None:
        return Assumption(text, "holds", "its Jacobian is finite at every draw")
    return Assumption(text, "unknown", "a function of the anchors; not differentiable row by row")


def _found(text: str, rule: str, findings: Sequence[Check]) -> Assumption:
    """What the check of the process says of a rule: the worst of its verdicts."""
    found = worst(finding for finding in findings if finding.measured.get("rule") == rule)
    if found is not None and found.verdict == "holds":
        return Assumption(text, "holds", "nothing against it in graph and interventions")
    if found is not None:
        return Assumption(text, found.verdict, found.message)  # type: ignore[arg-type]
    return Assumption(text, "unknown", "not checked here: rbpp check does")


def _exchangeable(findings: Sequence[Check]) -> list[Assumption]:
    if not findings:
        return []
    return [
        _found("rows do not depend on each other, nor their law on their place", "rows", findings)
    ]


def _retention(chain: Chain) -> Assumption:
    retention = chain.terms.get("anchor_retention")
    if retention is None:
        return Assumption("α ≥ 0", "unknown", "")
    excess = Estimate(-retention.value, retention.standard_error, retention.count)
    return judged("α ≥ 0", excess, f"α = {number(retention)}")


def _curation(chain: Chain) -> Assumption:
    text = "H(S_gen) ≤ H(M(p)) + I(S_anchor; M(p)) − I(h(e_p); M(p)): curation adds no entropy"
    slack = chain.terms.get("slack_bound_ggmi")
    if slack is None:
        return Assumption(text, "unknown", chain.missing.get("entropy_synthetic", ""))
    synthetic, output = chain.terms["entropy_synthetic"], chain.terms["entropy_output"]
    difference = Estimate(synthetic.value - output.value, slack.standard_error, synthetic.count)
    excess = Estimate(-slack.value, slack.standard_error, slack.count)
    return judged(text, excess, f"H(S_gen) − H(M(p)) = {number(difference)} nats")


def _anchors_on_task(chain: Chain) -> Assumption:
    text = f"the m = {chain.rows['anchor']} anchors are rows of the task D"
    error = chain.terms.get("generalization_error_anchor")
    gap = chain.terms.get("estimation_gap_anchor")
    if error is None or gap is None:
        return Assumption(text, "unknown", chain.missing.get("generalization_error_anchor", ""))
    noise = (error.standard_error.square() + gap.standard_error.square()).sqrt()
    difference = Estimate(error.value - gap.value, noise, error.count)
    away = float(difference.value.abs().mean())
    differs = away > 4 * float(noise.square().mean().sqrt()) / math.sqrt(noise.numel())
    return Assumption(
        text,
        "violated" if differs else "holds",
        f"risk of W' on D minus that on the anchors' law: {number(difference)}",
    )


def _saturation(chain: Chain, name: str) -> Assumption:
    line = chain.estimators.get(name, "")
    return Assumption("I(S; W) is an upper side of it", "holds", line)


def _divergence_direction(chain: Chain) -> Assumption:
    found = chain.terms.get("generation_divergence")
    text = "TV = sup_A |P(A) − Q(A)|"
    if found is None:
        return Assumption(text, "unknown", chain.missing.get("generation_divergence", ""))
    curated = not chain.facts["copy"]
    how = "density ratios; curated rows from above" if curated else "density ratios"
    terms = torch.stack([estimate.value for estimate in (found,)])
    return Assumption(text, "holds", f"{how}; TV(D_M, D_gen) = {float(terms.mean()):.3g}")
