"""Terms of the chain that need no learner: entropies, ΔI, and what the prompt says of the output.

All in nats and per data set; entropies of continuous sites at the stated resolution. Each term
comes between two sides, or is missing with a reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from rbpp.estimate import Estimate
from rbpp.processes.replicas import Replicas, Site, Values
from rbpp.theory import bounds
from rbpp.theory.curated import curated_entropy
from rbpp.theory.factors import factor_kind, is_additive, log_volume_of_prompt
from rbpp.theory.information import Bracket, mean_estimate, sandwich

# Draws of what lies between two sites, where their density has to be integrated over it.
INTERMEDIATE_DRAWS = 32
_JACOBIAN_DRAWS = 64
_PROMPT_SITES = ("prompt", "prompt_factor")


@dataclass
class Flow:
    """Terms by name, each with its two sides, and why others are missing.

    Attributes:
        terms: names of `rbpp.variables` and of `rbpp.theory.exact.terms`.
        missing: name to reason.
        notes: name to what its value stands for, where that needs saying.
    """

    terms: dict[str, Bracket] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def flow(replicas: Replicas, values: Values, *, pairs: int, resolution: float) -> Flow:
    """Entropies and informations along anchor → prompt → output → synthetic.

    Args:
        replicas: the process in its worlds.
        values: draws of it, at least `pairs` replicates.
        pairs: replicates in a sandwich, whose lower sides are cut at log(pairs).
        resolution: Δ per coordinate, for continuous sites.

    Raises:
        ValueError: where the output is a deterministic function of the prompt between continuous
            variables, so that the prompt says infinitely much of it.
    """
    _refuse_infinite(replicas)
    found = Flow()
    few = {name: value[:, :pairs] for name, value in values.items()}
    found.terms["entropy_anchor"] = _entropy(replicas, values, "anchor", resolution)
    _prompt_to_output(replicas, values, few, found, resolution)
    _factors(replicas, values, few, found, resolution)
    _anchor_to_output(replicas, few, found)
    _curated(replicas, values, found, resolution)
    return found


def is_copy(replicas: Replicas, values: Values) -> bool:
    """Whether the synthetic data are the output as it is: ε = 0."""
    same = values["synthetic"].shape == values["output"].shape
    return (
        not replicas.sites["synthetic"].random
        and same
        and bool((values["synthetic"] == values["output"]).all())
    )


def exactly(estimate: Estimate, by: str = "log density") -> Bracket:
    """A term with an unbiased estimate: both sides are it."""
    return Bracket(estimate, estimate, by, by, estimate)


def plus(first: Bracket, second: Bracket, sign: int = 1) -> Bracket:
    """Sum (or difference, `sign` −1) of two terms with its sides and independent errors."""
    other = (second.lower, second.upper) if sign > 0 else (second.upper, second.lower)
    by = (second.lower_by, second.upper_by) if sign > 0 else (second.upper_by, second.lower_by)

    def combined(one: Estimate, two: Estimate) -> Estimate:
        error = (one.standard_error.square() + two.standard_error.square()).sqrt()
        return Estimate(one.value + sign * two.value, error, min(one.count, two.count))

    return Bracket(
        combined(first.lower, other[0]),
        combined(first.upper, other[1]),
        f"{first.lower_by}, {by[0]}" if by[0] != first.lower_by else by[0],
        f"{first.upper_by}, {by[1]}" if by[1] != first.upper_by else by[1],
        combined(first.best(), second.best()),
    )


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


def _entropy(replicas: Replicas, values: Values, name: str, resolution: float) -> Bracket:
    """−E log p(site | what is above it), at the resolution if it is continuous."""
    site = replicas.sites[name]
    if not site.random:
        zero = values["anchor"].new_zeros(replicas.worlds, dtype=torch.float64)
        return exactly(Estimate(zero, zero, 1, "exact"), "given what is above it")
    found = mean_estimate(-replicas.log_density(values, name))
    return exactly(_at_resolution(found, site.discrete, site.coordinates, resolution))


def _at_resolution(
    estimate: Estimate, discrete: bool, coordinates: int, resolution: float
) -> Estimate:
    if discrete:
        return estimate
    value = bounds.at_resolution(estimate.value, coordinates, resolution)
    return Estimate(value, estimate.standard_error, estimate.count, estimate.direction)


def _bracket_at_resolution(bracket: Bracket, site: Site, resolution: float) -> Bracket:
    sides = (
        _at_resolution(side, site.discrete, site.coordinates, resolution)
        for side in (bracket.lower, bracket.upper, bracket.best())
    )
    lower, upper, value = sides
    return replace(bracket, lower=lower, upper=upper, value=value)


def _prompt_to_output(
    replicas: Replicas, values: Values, few: Values, found: Flow, resolution: float
) -> None:
    given_all = _entropy(replicas, values, "output", resolution)
    prompt = {name: few[name] for name in _PROMPT_SITES if name in few}
    if factor_kind(replicas) != "above":
        information = Bracket(*sandwich(replicas.pairs(few, "output", prompt)))
        gain = given_all
    else:
        factor = {"model_factor": few["model_factor"]}
        both = Bracket(*sandwich(replicas.pairs(few, "output", {**prompt, **factor})))
        given_prompt = Bracket(*sandwich(replicas.pairs(few, "output", factor)))
        scores = _integrated_pairs(replicas, few, ("anchor", *_PROMPT_SITES), "factor")
        information = _integrated(scores, plus(both, given_prompt, -1))
        gain = plus(given_all, given_prompt)
        found.terms["information_factors_output"] = both
    found.terms["information_gain"] = gain
    found.terms["information_prompt_output"] = information
    found.terms["entropy_output"] = plus(gain, information)


def _integrated_pairs(replicas: Replicas, few: Values, held: tuple[str, ...], label: str) -> Tensor:
    """log mean_k p(output_i | held_j, what is between, drawn afresh): a score for the contrast."""
    given = {name: few[name] for name in held if name in few}
    idle: Values = {name: few[name] for name in ("target", "unprompted") if name in few}
    total = None
    for index in range(INTERMEDIATE_DRAWS):
        count = few["output"].shape[1]
        fresh = replicas.draw(count, f"{label} {index}", given={**given, **idle})
        between = {n: fresh[n] for n in (*_PROMPT_SITES, "model_factor") if n in fresh}
        part = replicas.pairs(few, "output", between)
        total = part if total is None else torch.logaddexp(total, part)
    assert total is not None
    return total - math.log(INTERMEDIATE_DRAWS)


def _integrated(scores: Tensor, sides: Bracket) -> Bracket:
    """An information from scores that only estimate a density.

    The contrast bounds from below whatever the scores are. From above the given sides do; the value
    is the middle of the contrast with and without the pair itself, as far as they allow.
    """
    possible = scores.diagonal(dim1=-2, dim2=-1) > -math.inf
    floor = scores.masked_fill(scores == -math.inf, -1e6)  # drawn too few times to have been seen
    low, high = sandwich(torch.where(possible.unsqueeze(-1), scores, floor))
    lower = Estimate(
        torch.maximum(low.value, sides.lower.value.clamp_min(0)), low.standard_error, low.count
    )
    middle = Bracket(low, high).best()
    kept = torch.minimum(torch.maximum(middle.value, lower.value), sides.upper.value)
    value = Estimate(kept, middle.standard_error, middle.count)
    return Bracket(lower, sides.upper, "contrast", sides.upper_by, value)


def _factors(
    replicas: Replicas, values: Values, few: Values, found: Flow, resolution: float
) -> None:
    kind = factor_kind(replicas)
    if kind == "above":
        found.terms["entropy_model_factor"] = _entropy(replicas, values, "model_factor", resolution)
    elif kind == "below" and is_additive(replicas, values):
        found.terms["entropy_model_factor"] = found.terms["information_gain"]
        found.notes["entropy_model_factor"] = (
            "M(p) = h(e_p) + e_M: the factor has the entropy that the prompt leaves in the output"
        )
    elif kind == "below":
        found.missing["entropy_model_factor"] = (
            "site model_factor is computed from output otherwise than as output − h(prompt): the "
            "process does not give its density"
        )
    else:
        found.terms["entropy_model_factor"] = found.terms["information_gain"]
        found.notes["entropy_model_factor"] = (
            "no site model_factor: e_M is all that the prompt leaves open, and H(e_M) is at least "
            "H(M(p) | p), which stands for it"
        )
    name = "prompt_factor" if "prompt_factor" in replicas.sites else "prompt"
    site = replicas.sites[name]
    if site.random:
        low = _entropy(replicas, values, name, resolution)
        high = _gaussian_entropy(replicas, values, name, resolution)
        if high is not None:
            term = Bracket(low.lower, high, low.lower_by, "Gaussian of the same covariance", high)
            found.notes["entropy_prompt_factor"] = (
                f"site {name} is random: the value is an upper side"
            )
        elif site.discrete:
            # H(e_p) = H(e_p | above) + I(above; e_p): letters have no Gaussian above them.
            above = {key: few[key] for key in ("anchor", "prompt") if key != name}
            term = plus(low, Bracket(*sandwich(replicas.pairs(few, name, above))))
            if not bool(term.upper.value.isfinite().all()):
                found.missing["entropy_prompt_factor"] = (
                    f"site {name} is random given what is above it, and its letters differ too "
                    f"much between {_count(few)} draws for its entropy to be bounded from above"
                )
                return
        else:
            found.missing["entropy_prompt_factor"] = (
                f"site {name} is random given what is above it, and has too many coordinates "
                f"({site.coordinates}) for its entropy to be bounded from {_count(values)} draws"
            )
            return
    else:
        term = found.terms["entropy_anchor"]
        draws = {key: value[:, :_JACOBIAN_DRAWS] for key, value in values.items()}
        volume = log_volume_of_prompt(replicas, draws, name)
        if volume is not None:
            term = plus(term, exactly(mean_estimate(volume), "Jacobian"))
        else:
            found.notes["entropy_prompt_factor"] = (
                f"site {name} is a function of the anchors: H(S_anchor) stands for its entropy, "
                "which is that if the function is invertible and at most that if not"
            )
    found.terms["entropy_prompt_factor"] = term


def _gaussian_entropy(
    replicas: Replicas, values: Values, name: str, resolution: float
) -> Estimate | None:
    """Entropy of the Gaussian with the site's covariance: at least that of the site."""
    site, count = replicas.sites[name], _count(values)
    if site.discrete or count < 4 * site.coordinates:
        return None
    flat = values[name].reshape(replicas.worlds, count, -1)
    centred = flat - flat.mean(1, keepdim=True)
    covariance = centred.mT @ centred / (count - 1)
    size = flat.shape[-1]
    log_det = torch.logdet(covariance)
    value = 0.5 * (size * math.log(2 * math.pi * math.e) + log_det)
    error = torch.full_like(value, math.sqrt(size / (2 * count)))  # of half a log determinant
    estimate = Estimate(value, error, count, "upper")
    return _at_resolution(estimate, False, size, resolution)


def _count(values: Values) -> int:
    return values["anchor"].shape[1]


def _anchor_to_output(replicas: Replicas, few: Values, found: Flow) -> None:
    information = found.terms["information_prompt_output"]
    if not replicas.sites["prompt"].random:
        found.terms["information_anchor_output"] = information
        return
    scores = _integrated_pairs(replicas, few, ("anchor",), "between")
    zero = Estimate(*(torch.zeros_like(information.lower.value),) * 2, information.lower.count)
    sides = Bracket(zero, information.upper, "zero", "data processing")
    found.terms["information_anchor_output"] = _integrated(scores, sides)


def _curated(replicas: Replicas, values: Values, found: Flow, resolution: float) -> None:
    """H(S_gen): that of the output without curation, an average over outputs with it."""
    site = replicas.sites["synthetic"]
    if is_copy(replicas, values):
        found.terms["entropy_synthetic"] = found.terms["entropy_output"]
        return
    if not site.random:
        found.missing["entropy_synthetic"] = (
            "site synthetic is a deterministic function of output, other than a copy: the process "
            "does not give its density"
        )
        return
    found.terms["entropy_synthetic"] = _bracket_at_resolution(
        curated_entropy(replicas, values), site, resolution
    )
