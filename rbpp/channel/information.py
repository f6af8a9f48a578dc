"""Every information that log-probabilities of outputs under prompts give, with its posterior.

Outputs are discrete, their probabilities exact: ΔI = H(M(p) | p) is the mean surprise under the own
prompt, I(p; M(p)) lies between contrasts with other prompts (`rbpp.channel.contrast`), and their
sum is H(M(p)). Prompts are the units, drawn from a population.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rbpp import inference_data, validate
from rbpp.channel.checks import channel_checks
from rbpp.channel.contrast import Contrast, contrast, prompt_shares
from rbpp.channel.log_probabilities import LogProbabilities, log_probabilities
from rbpp.channel.result import (
    ALL,
    ChannelInformation,
    determined_by_prompt,
    ignores_prompt,
)
from rbpp.compute import Compute
from rbpp.estimate import SATURATION_MARGIN, Estimate, exactly
from rbpp.theory.lemmas import prompting_factor, prompting_inefficiency

# Sides further apart (nats of one output) leave the value open: it is refused.
LARGEST_DISTANCE = 1.0
# Of 5 prompts intervals of 94 % held the information in 50 % of data sets of a process whose sides
# saturate, of 10 in 88 % and more (benchmarks/log_probabilities.py).
FEWEST_PROMPTS = 10
_BLOCK_ELEMENTS = 2**22
_LEAST_CONCENTRATION = 0.05
_LEAST_FREEDOM = 3  # below, draws of t would have no mean


def channel_information(
    log_prob: LogProbabilities | Any,
    *,
    per_token: bool = False,
    draws: int = 1000,
    seed: int = 0,
    compute: Compute | None = None,
) -> ChannelInformation:
    """ΔI, I(p; M(p)) from both sides and H(M(p)) of a model's log-probabilities.

    With outputs o_i of prompts p_i (Definition 4.2, Lemma 4.5), per output,

        ΔI = H(M(p) | p)   = −mean_i log p(o_i | p_i)
        I(p; M(p))        ≥  mean_i [log p(o_i | p_i) − log mean_j p(o_i | p_j)]
                          ≤  mean_i [log p(o_i | p_i) − log r_i(o_i)]

    with r_i the mean over prompts other than p_i, mixed with the unprompted model where there is
    one. The lower side cannot exceed log(1 + M) of M other prompts. Where it is near that, where
    the sides are over a nat of one output apart, and with fewer than 10 prompts, I has its sides
    and no value, and so has H(M(p)) = ΔI + I. Elsewhere both errors are of one size to first order,
    and each draw of the value is at a random place between the draws of the sides.

    The population is that of outputs: a prompt weighs as many as it has. Draws are of the Bayesian
    bootstrap of prompts, so that all outputs of a prompt go together.

    Args:
        log_prob: what `rbpp.log_probabilities` has checked, or nats alone: a square matrix whose
            prompt i is output i's, or a vector under the own prompts.
        per_token: show information per token; needs `tokens`.
        draws: posterior draws.
        seed: decides every random number.
        compute: progress over the draws, which are made on the CPU.

    Returns:
        Terms `information_gain`, `information_prompt_output` and `entropy_output` with their
        `_lower` and `_upper`, in nats per data set of n outputs; `prompting_factor` and
        `prompting_inefficiency` among the prompts of a row; shares of outputs; the same of kept and
        of dropped outputs.

    Raises:
        ValueError: as `log_probabilities`; if `draws` is below 2, or tokens are asked for and not
            known.

    >>> found = channel_information([[-0.1, -3.0], [-4.0, -0.3]])
    >>> round(found.terms["information_gain"].value.mean().item(), 1)
    0.4
    """
    validate.count("draws", draws, 2)
    compute = Compute.of(compute, seed)
    data = log_prob if isinstance(log_prob, LogProbabilities) else log_probabilities(log_prob)
    if per_token and data.tokens is None:
        raise ValueError("Expected `tokens`, the number of tokens of every output; got none")
    channel = _Channel(data)
    found, information = channel.contrast, channel.information
    generator = np.random.default_rng(compute.spawn("prompts").seed)
    means = bootstrap_means(channel.statistics(), data.prompt, draws, generator, compute)
    place = torch.as_tensor(generator.uniform(size=(1, draws)))
    terms, refused = channel.terms(means, place)
    settings = {
        "outputs": len(data),
        "prompts": len(torch.unique(data.prompt)),
        "others": data.others,
        "left_out": len(data.impossible),
        "unprompted_share": None if found is None else found.mixed,
        "limit": None if found is None else found.limit,
        "draws": draws,
        "seed": compute.seed,
    }
    rows_of_sets = {
        f"{name}_{rows}{side}": int((weights > 0).sum())
        for name in ("information_gain", "information_prompt_output")
        for rows, weights in channel.sets.items()
        if rows != ALL
        for side in ("", "_lower", "_upper", "_mcse", "_lower_mcse", "_upper_mcse")
    }
    result = ChannelInformation(
        idata=inference_data.make(
            inference_data.from_estimates(terms),
            observed_data={"surprise": -data.own, "prompt_information": information},
            constant_data=settings,
            dims={"surprise": ["row"], "prompt_information": ["row", "side"]},
            coords={"side": ["lower", "upper"]},
        ),
        checks=channel_checks(data, found, information, refused),
        settings=settings,
        notes=channel.notes(),
        row_counts={"synthetic": len(data), **rows_of_sets},
        data=data,
        prompt_information=information,
        refused=refused,
        per_token=per_token,
        token_draws={
            rows: means[f"tokens {rows}"] for rows in channel.sets if data.tokens is not None
        },
    )
    return replace(result, headline=result.sentences())


class _Channel:
    """Log-probabilities and what every output has beside the others.

    Attributes:
        data: the log-probabilities.
        sets: weights (n,) of sum 1 of all outputs, and of those that a filter kept and dropped.
        contrast: None where there is nothing to compare with.
        information: (n, 2) of every output from both sides; nan without a contrast.
    """

    def __init__(self, data: LogProbabilities) -> None:
        self.data = data
        sets = {ALL: torch.ones(len(data)).double()}
        if data.kept is not None:
            parts = {"kept": data.kept.double(), "dropped": (~data.kept).double()}
            sets |= {name: part for name, part in parts.items() if bool(part.any())}
        self.sets = {name: part / part.sum() for name, part in sets.items()}
        self.contrast: Contrast | None = None
        self.information = torch.full((len(data), 2), math.nan).double()
        if data.others or data.unprompted is not None:
            self.contrast = contrast(data, torch.stack([*self.sets.values()]))
            sides = self.contrast.joint.log_prob, self.contrast.marginal.log_prob
            self.information = data.own.unsqueeze(-1) - torch.stack(sides, -1)

    def statistics(self) -> dict[str, Mean]:
        """What is a mean over outputs, by name and set of rows."""
        data, found = self.data, self.contrast
        statistics: dict[str, Mean] = {}
        lower, upper = self.information.unbind(-1)
        for place, (rows, weights) in enumerate(self.sets.items()):
            statistics[f"gain {rows}"] = Mean(-data.own, weights)
            if data.tokens is not None:
                statistics[f"tokens {rows}"] = Mean(data.tokens, weights)
            if found is not None:
                statistics[f"lower {rows}"] = Mean(lower, weights, -found.joint.slope[place])
                statistics[f"upper {rows}"] = Mean(upper, weights, -found.marginal.slope[place])
        shares: dict[str, Tensor] = {}
        if found is not None:
            shares["prompt_ignored_share"] = ignores_prompt(upper)
            shares["prompt_determined_share"] = determined_by_prompt(-data.own, upper)
        if data.kept is not None:
            shares["kept_share"] = data.kept
        return statistics | {
            name: Mean(which.double(), self.sets[ALL], share=True) for name, which in shares.items()
        }

    def terms(self, means: Mapping[str, Tensor], place: Tensor) -> tuple[dict[str, Estimate], str]:
        """Terms per data set (1, draw), and why the information has no value, if it has none."""
        data, found = self.data, self.contrast
        terms: dict[str, Estimate] = {}
        refused = ""
        for index, (rows, weights) in enumerate(self.sets.items()):
            count, end = int((weights > 0).sum()), "" if rows == ALL else f"_{rows}"
            gain = exactly(means[f"gain {rows}"].clamp_min(0)) * count
            terms[f"information_gain{end}"] = gain
            if found is None:
                continue
            lower = found.joint.information(means[f"lower {rows}"].clamp_min(0), index)
            upper = found.marginal.information(means[f"upper {rows}"].clamp_min(0), index)
            value = _between(lower, upper, place)
            reason = _refusal(data, found, self.information[weights > 0].mean(0).tolist())
            if reason:
                value = exactly(torch.full_like(value.value, math.nan))
            told = value.between(lower, upper) * count
            terms[f"information_prompt_output{end}"] = told
            if rows == ALL:
                refused = reason
                terms["entropy_output"] = (gain + told).between(
                    gain + lower * count, gain + upper * count
                )
                entropy = torch.full_like(lower.value, found.limit)
                terms["prompting_factor"] = exactly(prompting_factor(entropy, lower.value))
                terms["prompting_inefficiency"] = (
                    exactly(prompting_inefficiency(entropy, lower.value)) * count
                )
        shares = {name: values for name, values in means.items() if name.endswith("_share")}
        terms |= {name: exactly(values) for name, values in shares.items()}
        if data.tokens is not None:
            terms["tokens_per_output"] = exactly(means[f"tokens {ALL}"])
        return terms, refused

    def notes(self) -> tuple[str, ...]:
        """What the numbers do not say of themselves."""
        data, found, notes = self.data, self.contrast, []
        if found is not None and data.others:
            which = (
                "all prompts"
                if data.columns is None
                else f"its own and {data.others} other prompts"
            )
            notes.append(
                "prompting_factor and prompting_inefficiency are of telling an output's prompt "
                f"among {which}: their entropy is {found.limit:.4g} nats an output"
            )
            if found.mixed > 1e-4:
                notes.append(
                    f"the upper side's marginal is {100 * found.mixed:.3g} % the unprompted model, "
                    "the rest the other prompts"
                )
        if data.kept is not None:
            notes.append(
                "kept and dropped are of the model before the filter; the distribution of what is "
                "kept has at most the information_gain_kept, and less by at most −log kept_share "
                "an output"
            )
        unused = data.prompts - int((prompt_shares(data) > 0).sum())
        if unused:
            notes.append(f"{unused} prompts have no output and no weight")
        return tuple(notes)


def _between(lower: Estimate, upper: Estimate, place: Tensor) -> Estimate:
    """A random place between both sides, draw by draw."""
    value = lower.value + place * (upper.value - lower.value).clamp_min(0)
    if lower.direction == "exact":
        return exactly(value)
    return Estimate(value, (lower.standard_error + upper.standard_error) / 2)


def _refusal(data: LogProbabilities, found: Contrast, sides: list[float]) -> str:
    """Why the mean sides leave the value open; empty if they do not."""
    lower, upper = sides
    if data.others == 0:
        return "there is no other prompt to compare with, and so no lower side but 0"
    if not math.isfinite(upper):
        return (
            "some outputs are impossible under every other prompt, so that nothing bounds it from "
            "above (log_prob_unprompted would)"
        )
    if lower > found.limit - SATURATION_MARGIN:
        return f"the lower side is at its limit, log(1 + {data.others}) of {data.others} others"
    compared = min(len(torch.unique(data.prompt)), data.others + 1)
    if compared < FEWEST_PROMPTS:
        return f"its sides come from {compared} prompts, fewer than {FEWEST_PROMPTS}"
    if upper - lower > LARGEST_DISTANCE:
        return f"the sides are {upper - lower:.2g} nats an output apart"
    return ""


@dataclass(frozen=True)
class Mean:
    """Σ_i w_i x_i / Σ_i w_i of values x (n,) and weights w (n,) of sum 1.

    Attributes:
        slope: (J,) what it changes by with the relative change of every prompt's weight besides.
        share: whether values are 0 or 1.
    """

    values: Tensor
    weights: Tensor
    slope: Tensor | None = None
    share: bool = False


def bootstrap_means(
    means: Mapping[str, Mean],
    prompt: Tensor,
    draws: int,
    generator: np.random.Generator,
    compute: Compute | None = None,
) -> dict[str, Tensor]:
    """Bayesian-bootstrap draws (1, draws) of every mean by name, +∞ where a value is.

    Prompts are the units, drawn from a population, and all outputs of a prompt go together. Under
    weights Dirichlet(1, …) of G prompts intervals of few of them are too short, for three reasons:
    the variance of a mean is too small by (G − 1) / (G + 1), the variance itself is not known, and
    rare outputs of large surprise have mostly not been seen. So weights are Dirichlet(1 − 4/G, …),
    and draws of nats are spread around the estimate as Student's t of G − 1 degrees of freedom are
    around a normal. benchmarks/log_probabilities.py says how often they hold the truth. A share has
    half a prompt of each kind beside those that were seen (Jeffreys): none of ten is not surely
    none.

    A sum over prompts inside a logarithm enters to first order in the weights: drawn anew it would
    have its bias of second order twice.

    Args:
        means: by name; a prompt weighs all of its outputs alike, in all of them.
        prompt: (n,) prompt of every output.
        draws: how many.
        generator: of the weights.
        compute: progress.

    Rubin, The Bayesian bootstrap, Annals of Statistics 9 (1981).
    """
    groups, member = torch.unique(prompt, return_inverse=True)
    count = len(groups)
    parts, unmoved = list(means.values()), torch.zeros(count, dtype=torch.float64)

    def by_group(values: Iterable[Tensor]) -> Tensor:
        """Sums (group, mean)."""
        return torch.stack([torch.bincount(member, one) for one in values], 1)

    top = by_group(one.values.where(one.values.isfinite(), 0.0) * one.weights for one in parts)
    bottom = by_group(one.weights for one in parts)
    change = [unmoved if one.slope is None else one.slope[groups] for one in parts]
    share = torch.tensor([one.share for one in parts])
    concentration = max(1 - 4 / count, _LEAST_CONCENTRATION)
    step = max(1, _BLOCK_ELEMENTS // count)
    found, starts = [], range(0, draws, step)
    for start in Compute.of(compute).shown(starts, len(starts), "draws"):
        size = min(step, draws - start)
        weight = torch.as_tensor(generator.standard_gamma(concentration, (size, count)))
        scale = count / weight.sum(-1, keepdim=True)
        # Of few prompts a weight can underflow, and a set of rows may have no other.
        weight = (weight * scale).clamp_min(1e-12)
        halves = generator.standard_gamma(concentration / 2, (2, size, 1))
        unseen = torch.as_tensor(halves) * scale / count * share
        ratio = (weight @ top + unseen[0]) / (weight @ bottom + unseen.sum(0))
        found.append(ratio + (weight - 1) @ torch.stack(change, 1))
    drawn = torch.cat(found)
    freedom = max(count - 1, _LEAST_FREEDOM)
    wider = torch.as_tensor((freedom / generator.chisquare(freedom, (draws, 1))) ** 0.5)
    centre = top.sum(0) / bottom.sum(0)
    drawn = torch.where(share, drawn, centre + wider * (drawn - centre))
    endless = [bool((one.values.isinf() & (one.weights > 0)).any()) for one in parts]
    drawn[:, endless] = torch.inf
    return {name: drawn[None, :, place] for place, name in enumerate(means)}
