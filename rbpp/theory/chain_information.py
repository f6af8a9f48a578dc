"""Terms of the chain that need no learner: entropies, ΔI, and what the prompt tells of the output.

All in nats and per data set; entropies of continuous sites at the stated resolution. Each term has
two sides where it is not estimated without bias, or is missing with a reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from rbpp.estimate import Estimate, exactly, mean_estimate
from rbpp.processes.handlers import FREE_SITES, PROMPT_SITES
from rbpp.processes.replicas import Replicas, Site, Values
from rbpp.theory.curated_entropy import NO_DENSITY, curated_entropy, hides_density, is_copy
from rbpp.theory.information import contrastive_bounds, midpoint
from rbpp.theory.model_factor import factor_kind, is_additive, log_volume_of_prompt
from rbpp.theory.terms import EstimatedTerms

# Draws of what lies between two sites, to integrate their density over it.
INTERMEDIATE_DRAWS = 32
_JACOBIAN_DRAWS = 64


def chain_information(
    replicas: Replicas, values: Values, *, pairs: int, resolution: float
) -> EstimatedTerms:
    """Entropies and informations along anchor → prompt → output → synthetic.

    Args:
        replicas: the process in its worlds.
        values: draws of it, at least `pairs` replicates.
        pairs: contrastive samples; lower sides of informations cannot exceed log(pairs).
        resolution: Δ per coordinate, for continuous sites.

    Raises:
        ValueError: where the output is a deterministic function of the prompt between continuous
            variables, so that the prompt tells infinitely much of it.
    """
    _refuse_infinite(replicas)
    found = EstimatedTerms()
    few = values.first(pairs)
    found.terms["entropy_anchor"] = _entropy(replicas, values, "anchor", resolution)
    _prompt_to_output(replicas, values, few, found, resolution)
    _model_factor(replicas, values, found, resolution)
    _prompt_factor(replicas, values, few, found, resolution)
    _anchor_to_output(replicas, few, found)
    _synthetic(replicas, values, found, resolution)
    return found


def _refuse_infinite(replicas: Replicas) -> None:
    output = replicas.sites["output"]
    if output.random or output.discrete:
        return
    upstream = "prompt and model_factor" if factor_kind(replicas) == "above" else "prompt"
    raise ValueError(
        f"Expected a finite I(prompt; output); got infinitely much: site 'output' is a "
        f"deterministic function of {upstream} between continuous variables. Sample 'output' "
        f"around that value, with noise at the resolution that matters to you"
    )


def _entropy(replicas: Replicas, values: Values, name: str, resolution: float) -> Estimate:
    """−E log p(site | what is above it), at the resolution if it is continuous."""
    site = replicas.sites[name]
    if not site.random:
        zero = values["anchor"].new_zeros(replicas.worlds, dtype=torch.float64)
        return exactly(zero, "given what is above it")
    found = mean_estimate(-replicas.log_density(values, name), method="log density")
    return _at_resolution(found, site, resolution)


def _at_resolution(entropy: Estimate, site: Site, resolution: float) -> Estimate:
    """H ≈ h − coordinates · log Δ, at Δ per coordinate; of letters the entropy itself."""
    return entropy if site.discrete else entropy - site.coordinates * math.log(resolution)


def _prompt_to_output(
    replicas: Replicas, values: Values, few: Values, found: EstimatedTerms, resolution: float
) -> None:
    given_all = _entropy(replicas, values, "output", resolution)
    prompt = few.of(*PROMPT_SITES)

    def information(sites: Mapping[str, Tensor]) -> Estimate:
        return midpoint(*contrastive_bounds(replicas.pairs(few, "output", sites)))

    if factor_kind(replicas) != "above":
        about_prompt = information(prompt)
        gain = given_all
    else:
        factor = {"model_factor": few["model_factor"]}
        both, about_factor = information({**prompt, **factor}), information(factor)
        scores = _integrated_pairs(replicas, few, ("anchor", *PROMPT_SITES), "factor")
        about_prompt = _integrated(scores, both - about_factor)
        gain = given_all + about_factor
    found.terms["information_gain"] = gain
    found.terms["information_prompt_output"] = about_prompt
    found.terms["entropy_output"] = gain + about_prompt


def _integrated_pairs(
    replicas: Replicas, few: Values, held: tuple[str, ...], label: str
) -> list[Tensor]:
    """log mean_k p(output_i | held_j, fresh draw k of what is between them), (worlds, R, R), over
    each half of the draws."""
    # What does not lie between, and what comes after it, need not be drawn.
    given = few.of(*held, *FREE_SITES, "output", "synthetic")
    totals: list[Tensor | None] = [None, None]
    for index in range(INTERMEDIATE_DRAWS):
        between = replicas.draw(few.count, f"{label} {index}", given)
        part = replicas.pairs(few, "output", between.of(*PROMPT_SITES, "model_factor"))
        total = totals[index % 2]
        totals[index % 2] = part if total is None else torch.logaddexp(total, part)
    return [total - math.log(INTERMEDIATE_DRAWS / 2) for total in totals if total is not None]


def _integrated(halves: list[Tensor], sides: Estimate) -> Estimate:
    """An information from scores that only estimate a density, with two halves of their draws.

    InfoNCE bounds from below whatever the scores are. From above the given upper side does. The
    value is the middle of the contrastive bounds of the scores, kept between both. The logarithm of
    an average over k draws is too low by a term in 1/k: what all draws gain over half of them is
    added, and half of it is in the error.
    """
    assert sides.lower is not None
    assert sides.upper is not None
    middle = _contrast(torch.logaddexp(*halves) - math.log(2))
    gained = middle.value - (_contrast(halves[0]).value + _contrast(halves[1]).value) / 2
    assert middle.lower is not None
    lower = replace(
        middle.lower,
        value=torch.maximum(middle.lower.value, sides.lower.value.clamp_min(0)),
    )
    value = torch.minimum(torch.maximum(middle.value + gained, lower.value), sides.upper.value)
    found = Estimate(value, middle.standard_error, middle.count).between(lower, sides.upper)
    return found.widened(gained / 2)


def _contrast(scores: Tensor) -> Estimate:
    possible = scores.diagonal(dim1=-2, dim2=-1) > -math.inf
    floor = scores.masked_fill(scores == -math.inf, -1e6)  # possible, but not among the few draws
    return midpoint(*contrastive_bounds(torch.where(possible.unsqueeze(-1), scores, floor)))


def _model_factor(
    replicas: Replicas, values: Values, found: EstimatedTerms, resolution: float
) -> None:
    name, kind = "entropy_model_factor", factor_kind(replicas)
    if kind == "above":
        found.terms[name] = _entropy(replicas, values, "model_factor", resolution)
    elif kind == "absent":
        found.terms[name] = found.terms["information_gain"]
        found.notes[name] = (
            "no site model_factor: e_M is all that the prompt leaves open, and H(e_M) is at least "
            "H(M(p) | p), which stands for it"
        )
    elif is_additive(replicas, values):
        found.terms[name] = found.terms["information_gain"]
        found.notes[name] = (
            "M(p) = h(e_p) + e_M: the factor has the entropy that the prompt leaves in the output"
        )
    else:
        found.missing[name] = (
            "site model_factor is computed from output otherwise than as output − h(prompt): the "
            "process does not give its density"
        )


def _prompt_factor(
    replicas: Replicas, values: Values, few: Values, found: EstimatedTerms, resolution: float
) -> None:
    term = "entropy_prompt_factor"
    name = "prompt_factor" if "prompt_factor" in replicas.sites else "prompt"
    site = replicas.sites[name]
    if not site.random:
        found.terms[term] = found.terms["entropy_anchor"]
        volume = log_volume_of_prompt(replicas, values.first(_JACOBIAN_DRAWS), name)
        if volume is not None:
            found.terms[term] += mean_estimate(volume, method="Jacobian")
        else:
            found.notes[term] = (
                f"site {name} is a function of the anchors: H(S_anchor) stands for its entropy, "
                "which is that if the function is invertible and at most that if not"
            )
        return
    given_above = _entropy(replicas, values, name, resolution)
    gaussian = _gaussian_entropy(replicas, values, name, resolution)
    if gaussian is not None:
        found.terms[term] = gaussian.between(given_above, gaussian)
        found.notes[term] = f"site {name} is random: the value is an upper side"
        return
    drawn = f"site {name} is random given what is above it, and"
    if not site.discrete:
        found.missing[term] = (
            f"{drawn} has too many coordinates ({site.coordinates}) for its entropy to be bounded "
            f"from {values.count} draws"
        )
        return
    # H(e_p) = H(e_p | above) + I(above; e_p): letters have no Gaussian above them.
    above = few.of("anchor", *(["prompt"] if name != "prompt" else []))
    entropy = given_above + midpoint(*contrastive_bounds(replicas.pairs(few, name, above)))
    if entropy.upper is not None and bool(entropy.upper.value.isfinite().all()):
        found.terms[term] = entropy
    else:
        found.missing[term] = (
            f"{drawn} its letters differ too much between {few.count} draws for its entropy to "
            "be bounded from above"
        )


def _gaussian_entropy(
    replicas: Replicas, values: Values, name: str, resolution: float
) -> Estimate | None:
    """Entropy of the Gaussian with the site's covariance, an upper bound of the site's entropy.

    The log determinant of a covariance of few draws is too small; what it lacks in expectation,
    and its error, are those of normal draws (Wishart).
    """
    site, count = replicas.sites[name], values.count
    if site.discrete or count < 4 * site.coordinates:
        return None
    flat = values[name].reshape(replicas.worlds, count, -1)
    centred = flat - flat.mean(1, keepdim=True)
    covariance = centred.mT @ centred / (count - 1)
    size = site.coordinates
    halves = (count - 1 - torch.arange(size, dtype=torch.float64, device=flat.device)) / 2
    lacking = size * math.log((count - 1) / 2) - float(halves.digamma().sum())
    constant = size * math.log(2 * math.pi * math.e) + lacking
    value = 0.5 * (constant + torch.logdet(covariance))
    spread = 0.5 * math.sqrt(float(torch.polygamma(1, halves).sum()))
    error = torch.full_like(value, spread)
    found = Estimate(value, error, count, "upper", method="Gaussian of the same covariance")
    return _at_resolution(found, site, resolution)


def _anchor_to_output(replicas: Replicas, few: Values, found: EstimatedTerms) -> None:
    information = found.terms["information_prompt_output"]
    if replicas.sites["prompt"].random:
        assert information.upper is not None
        zero = exactly(torch.zeros_like(information.value), "zero")
        ceiling = replace(information.upper, method="data processing")
        scores = _integrated_pairs(replicas, few, ("anchor",), "between")
        information = _integrated(scores, information.between(zero, ceiling))
    found.terms["information_anchor_output"] = information


def _synthetic(
    replicas: Replicas, values: Values, found: EstimatedTerms, resolution: float
) -> None:
    """H(S_gen): that of the output without curation, an average over outputs with it."""
    name, site = "entropy_synthetic", replicas.sites["synthetic"]
    if hides_density(replicas, values):
        found.missing[name] = NO_DENSITY
    elif is_copy(replicas, values):
        found.terms[name] = found.terms["entropy_output"]
    else:
        found.terms[name] = _at_resolution(curated_entropy(replicas, values), site, resolution)
