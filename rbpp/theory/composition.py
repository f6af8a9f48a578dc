"""From estimated terms to everything that follows from them, with the error that follows.

Independent Monte Carlo errors of the estimated terms go through the lemmas by the delta method: the
error of f is sqrt(Σ (∂f/∂term · error)²), with the derivatives by autograd. A term that enters a
bound twice, or both sides of it, then counts as the one number that it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from rbpp.estimate import Estimate
from rbpp.theory import bounds, exact
from rbpp.theory.factors import Kind

Terms = dict[str, Tensor]

# What chain_terms estimates; whatever of it a process does not give is nan.
PRIMITIVES = (
    "entropy_anchor",
    "information_gain",
    "information_prompt_output",
    "information_anchor_output",
    "entropy_synthetic",
    "entropy_model_factor",
    "entropy_prompt_factor",
    "information_synthetic_learner",
    "information_anchor_learner",
    "information_prompt_learner",
    "information_model_factor_learner",
    "information_model_factor_learner_given_prompt",
    "information_anchor_synthetic_learner",
    "curation_leak",
    "task_divergence",
    "generation_divergence",
    "total_divergence",
    "generalization_error",
    "estimation_gap",
    "absolute_estimation_gap",
    "generalization_error_anchor",
    "estimation_gap_anchor",
)


REST = tuple(
    f"rest_information_{name}_learner" for name in ("prompt", "model_factor", "anchor_synthetic")
)


UNKNOWN_FACTOR = "no site model_factor: I(e_M; W) is at most I(e_M; W | e_p), which stands for it"


def composer(
    *,
    kind: Kind,
    prompt_random: bool,
    curated: bool,
    factor_entropy: bool,
    rests: Collection[str],
    rows: Mapping[str, int],
    loss_bound: float,
    sub_gaussian: float | Tensor,
    layers: int,
    contraction: float,
    uppers: Mapping[str, Tensor],
) -> Callable[[Terms], Terms]:
    """The function from primitives to all terms, bounds and slacks for one kind of process.

    Args:
        kind: where the process has the model factor.
        prompt_random: whether the prompt is more than a function of the anchors.
        curated: whether S_gen is other than the output.
        factor_entropy: whether H(e_M) is known.
        rests: names of informations that are I(S_gen; W) minus a primitive `rest_NAME`.
        rows: rows of the data sets `anchor` and `synthetic`.
        loss_bound, sub_gaussian, layers, contraction: C, σ, ℓ, η.
        uppers: upper sides of the learners' informations, which Lemmas 4.4 and 4.8 need to bound.
    """
    constants: dict[str, Any] = {
        "sub_gaussian": sub_gaussian,
        "layers": layers,
        "contraction": contraction,
    }

    def compose(primitive: Terms) -> Terms:
        term = {name: value for name, value in primitive.items() if name not in REST}
        for name in rests:
            term[name] = term["information_synthetic_learner"] - primitive[f"rest_{name}"]
        _complete(term, kind, prompt_random, curated, factor_entropy)
        term |= exact.derived(term)
        term["information_output_learner"] = (
            term["information_synthetic_learner"] - term["curation_leak"]
        )
        term["information_step"] = (
            term["information_prompt_learner"] + term["information_model_factor_learner"]
        )
        _risk_bounds(term, rows, loss_bound, constants, uppers)
        _slacks(term)
        return term

    return compose


def _complete(
    term: Terms, kind: Kind, prompt_random: bool, curated: bool, factor_entropy: bool
) -> None:
    """Terms that are others in this kind of process."""
    term["entropy_output"] = term["information_gain"] + term["information_prompt_output"]
    if not curated:
        term["entropy_synthetic"] = term["entropy_output"]
    if not prompt_random:
        # The prompt is a function of the anchors: downstream, it carries what they carry.
        term["information_anchor_output"] = term["information_prompt_output"]
        term["information_anchor_synthetic_learner"] = term["information_prompt_learner"]
    if kind != "above":
        if factor_entropy:
            term["entropy_model_factor"] = term["information_gain"]
        # e_M is all that the prompt leaves open: the chain rule of I(M(p); W).
        rest = (
            term["information_synthetic_learner"]
            - term["curation_leak"]
            - term["information_prompt_learner"]
        )
        term["information_model_factor_learner_given_prompt"] = rest
        if kind == "absent":
            term["information_model_factor_learner"] = rest
    term["prompting_inefficiency"] = bounds.prompting_inefficiency(
        term["entropy_prompt_factor"], term["information_prompt_output"]
    )
    term["prompting_factor"] = bounds.prompting_factor(
        term["entropy_prompt_factor"], term["information_prompt_output"]
    )


def _risk_bounds(
    term: Terms,
    rows: Mapping[str, int],
    loss_bound: float,
    constants: Mapping[str, Any],
    uppers: Mapping[str, Tensor],
) -> None:
    def bounding(name: str) -> Tensor:
        return term[name] + (uppers[name] - term[name]).detach()

    flow, chain = term["bound_information_flow"], term["bound_chain_rule"]
    divergences = term["task_divergence"], term["generation_divergence"]
    n, m = rows["synthetic"], rows["anchor"]
    term["bound_lemma_3_1"] = bounds.lemma_3_1(
        *divergences, term["absolute_estimation_gap"], loss_bound
    )
    term["bound_lemma_4_4"] = bounds.lemma_4_4(
        bounding("information_synthetic_learner"), n, **constants
    )
    term["bound_lemma_4_6"] = bounds.lemma_4_6(flow, n, **constants)
    term["bound_synthetic"] = bounds.theorem_4_7(
        *divergences, flow, n, loss_bound=loss_bound, **constants
    )
    sharp = torch.maximum(chain, bounding("information_synthetic_learner"))
    term["bound_synthetic_sharp"] = bounds.sharp_bound(
        term["total_divergence"], sharp, n, loss_bound=loss_bound, **constants
    )
    term["bound_anchor"] = bounds.lemma_4_8(bounding("information_anchor_learner"), m, **constants)


INEQUALITIES = {
    "bound_information_flow": "information_synthetic_learner",
    "bound_chain_rule": "information_synthetic_learner",
    "information_step": "information_output_learner",
    "bound_lemma_3_1": "generalization_error",
    "bound_lemma_4_4": "estimation_gap",
    "bound_lemma_4_6": "estimation_gap",
    "bound_synthetic": "generalization_error",
    "bound_synthetic_sharp": "generalization_error",
    "bound_anchor": "generalization_error_anchor",
    "bound_ggmi": "ggmi",
    "bound_ggmi_corrected": "ggmi",
}


def _slacks(term: Terms) -> None:
    for right, left in INEQUALITIES.items():
        term[f"slack_{right}"] = term[right] - term[left]
    # In this form both sides' large entropies are gone before they are rounded.
    term["slack_bound_ggmi_corrected"] = (
        term["information_anchor_output"] - term["information_prompt_output"]
    )
    term["slack_bound_ggmi"] = term["slack_bound_ggmi_corrected"] - (
        term["entropy_synthetic"] - term["entropy_output"]
    )


def propagate(
    primitives: Mapping[str, Estimate],
    compose: Callable[[Terms], Terms],
    missing: Mapping[str, str],
) -> dict[str, Estimate]:
    """Everything that follows from the primitives, with delta-method errors; nan where one lacks.

    Args:
        primitives: estimates per world (worlds,), with independent errors.
        compose: from `composer`.
        missing: names not to report, with reasons.
    """
    shape = next(iter(primitives.values())).value
    variables, errors = {}, {}
    for name in (*PRIMITIVES, *REST):
        given = primitives.get(name)
        value = torch.full_like(shape, math.nan) if given is None else given.value.double()
        variables[name] = value.detach().clone().requires_grad_(True)
        error = torch.zeros_like(shape) if given is None else given.standard_error.double()
        errors[name] = error.detach()
    composed = compose(variables)
    count = min(estimate.count for estimate in primitives.values())
    found = {}
    for name, value in composed.items():
        if name in missing or bool(value.isnan().all()):
            continue
        gradients = torch.autograd.grad(
            value.sum(), list(variables.values()), retain_graph=True, allow_unused=True
        )
        square = torch.zeros_like(shape)
        for gradient, error in zip(gradients, errors.values(), strict=True):
            if gradient is not None:
                part = (gradient * error).square()
                # A root has no derivative at zero, and an error of zero adds nothing to anything.
                square = square + torch.where(error == 0, 0.0, part)
        own = primitives[name].count if name in primitives else count
        found[name] = Estimate(value.detach(), square.sqrt(), own)
    return found


def check_constants(
    loss_bound: float,
    sub_gaussian: float | str | None,
    layers: int,
    contraction: float,
    resolution: float,
) -> None:
    """Raise ValueError for a constant out of its range, before anything is computed."""
    bounds.sub_gaussian_constant(loss_bound)
    bounds.at_resolution(0.0, 1, resolution)
    if isinstance(sub_gaussian, str) and sub_gaussian != "estimate":
        raise ValueError(f'Expected a number for σ, or "estimate"; got {sub_gaussian!r}')
    sigma = sub_gaussian if isinstance(sub_gaussian, float | int) else 1.0
    bounds.lemma_4_4(0.0, 1, sub_gaussian=sigma, layers=layers, contraction=contraction)
