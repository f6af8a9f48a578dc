"""What the information of log-probabilities rests on, and whether it is so."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rbpp.channel.contrast import Contrast, prompt_shares
from rbpp.channel.log_probabilities import LogProbabilities
from rbpp.checks import Check
from rbpp.estimate import Estimate

# Of 200 data sets of 10 prompts and more intervals of 94 % held the truth of two processes in 88 to
# 97 % (benchmarks/log_probabilities.py): what is rare has mostly not been seen in fewer.
_LEAST_PROMPTS = 20
_LARGEST_Z = 4.0


def channel_checks(
    data: LogProbabilities, found: Contrast | None, information: Tensor, refused: str
) -> tuple[Check, ...]:
    """Enough prompts; sides that decide; possible outputs; outputs of this distribution."""
    checks = [_enough(data), _possible(data), _drawn(data)]
    if found is not None:
        lower, upper = information.mean(0).tolist()
        checks.append(
            Check(
                "both sides of I(p; M(p)) leave it a value",
                "undecided" if refused else "holds",
                f"{lower:.4g} and {upper:.4g} nats an output, limit {found.limit:.4g}"
                + (f": {refused}" if refused else ""),
                {"lower": lower, "upper": upper, "limit": found.limit},
                required=False,
            )
        )
    return tuple(checks)


def _enough(data: LogProbabilities) -> Check:
    """Prompts of many outputs weigh more: so many of equal weight tell as much (Kish)."""
    groups = len(torch.unique(data.prompt))
    equal = float(1 / prompt_shares(data).square().sum())
    enough = equal > _LEAST_PROMPTS - 0.5
    found = f"{groups}"
    if equal < groups - 0.5:
        found += f", which tell as much as {equal:.0f} with as many outputs each"
    return Check(
        f"there are at least {_LEAST_PROMPTS} prompts, the units of every interval",
        "holds" if enough else "undecided",
        found + ("" if enough else ": intervals may be too narrow"),
        {"prompts": groups, "equal_prompts": equal, "threshold": _LEAST_PROMPTS},
    )


def _possible(data: LogProbabilities) -> Check:
    count = len(data.impossible)
    first = ", ".join(map(str, data.impossible[:5]))
    return Check(
        "every output is possible under its own prompt",
        "violated" if count else "holds",
        f"rows {first}{', …' if count > 5 else ''} are not, and are left out: {count} of "
        f"{count + len(data)}"
        if count
        else f"{len(data)} of {len(data)}",
        {"left_out": count},
    )


def _drawn(data: LogProbabilities) -> Check:
    """Surprise less the entropy along the path is a martingale of mean zero under the model."""
    statement = "outputs were drawn from this very distribution"
    if data.path_entropy is None:
        return Check(
            statement,
            "unknown",
            "there is no `path_entropy`; of other outputs ΔI is a cross-entropy",
            required=False,
        )
    excess = _mean_over_groups(-data.own - data.path_entropy, data.prompt)
    mean, error = excess.value.item(), excess.standard_error.item()
    z = mean / error if error > 0 else (0.0 if abs(mean) < 1e-6 else math.copysign(math.inf, mean))
    found = f"surprise exceeds the entropy along outputs by {mean:.4g} ± {error:.2g} nats an output"
    apart = abs(z) > _LARGEST_Z
    return Check(
        statement,
        "violated" if apart else "holds",
        found + (": ΔI is a cross-entropy, of another model or temperature" if apart else ""),
        {"excess": mean, "error": error, "z": z},
        required=False,
    )


def _mean_over_groups(values: Tensor, prompt: Tensor) -> Estimate:
    """Mean over rows, with the error of all outputs of a prompt together."""
    _, member = torch.unique(prompt, return_inverse=True)
    mean = values.mean()
    sums = torch.bincount(member, values - mean)
    count = len(sums)
    error = (sums.square().sum() * count / (count - 1)).sqrt() / len(values)
    return Estimate(mean, error, count)
