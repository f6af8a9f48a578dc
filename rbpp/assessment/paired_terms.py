"""ΔI and I(p; M(p)) where every generated row comes with its prompt and its answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from rbpp.assessment.copies import index_of_equal
from rbpp.assessment.entropy import entropy_of_sample
from rbpp.assessment.log_ratio import FEWEST_UNITS
from rbpp.assessment.sources import Representation
from rbpp.assessment.weighted_rows import Array, Draws, Index, Sample
from rbpp.checks import Check
from rbpp.compute import Compute
from rbpp.data.embed import embed
from rbpp.data.reduce import principal_components
from rbpp.data.rows import Rows
from rbpp.estimate import Estimate, exactly
from rbpp.paired.class_mixtures import LEAST_PER_CLASS
from rbpp.paired.mutual_information import mutual_information
from rbpp.paired.paired_rows import LEAST_ROWS

# Principal components of the prompts and of the outputs: the joint mixture has twice as many, and
# an estimate from a few hundred rows is worth little in more.
DIMENSION = 3
# More prompts than these are no classes with a mixture each, however many outputs they have.
MOST_CLASSES = 16


def paired_terms(
    rows: Rows, draws: Draws, representation: Representation, compute: Compute
) -> tuple[dict[str, Estimate], Check]:
    """Information of the prompt in the output, and the information gain, of a whole data set.

    ΔI = H(M(p) | p) = H(M(p)) − I(p; M(p))   (Definition 4.2), on principal components of the
    outputs in their own units. Prompts that repeat are units, in one of three ways:

    - up to 16 prompts, each of 20 outputs or more, are classes: I(p; M(p)) is that of a label;
    - where half of the rows or more share their prompt, ΔI is the entropy of the outputs about
      their prompt's mean, times √(m / (m − 1)) of m outputs, and I(p; M(p)) = H(M(p)) − ΔI.
      It is exact for Gaussian outputs of one covariance, and else an upper side of ΔI: by
      Lieb's form of the entropy power inequality, h(Σ aᵢ yᵢ) ≥ Σ aᵢ² h(yᵢ) for Σ aᵢ² = 1;
    - otherwise one row of every prompt is kept, and prompts are principal components: I(p; M(p))
      of the projection is a lower bound of that of the texts.

    Args:
        rows: with `prompt` and `output` among their paired fields.
        draws: of the terms, whose seed is that of `compute`.
        representation: of text.
        compute: device of the embedding model and the fits, workers, progress, seed.

    Returns:
        `information_prompt_output` and `information_gain` (chain, draw) in nats, and a check; no
        terms, and the reason in the check, where the pairs allow none.

    Lieb, Proof of an entropy conjecture of Wehrl, Comm. Math. Phys. 62 (1978).
    """
    sizes = {"pairs": len(rows)}
    try:
        prompt = index_of_equal(rows.paired["prompt"])
        sizes["prompts"] = int(prompt.max()) + 1
        found, said = _terms(rows, prompt, draws, representation, compute)
    except ValueError as error:
        found, said = {}, f"no ΔI and no I(p; M(p)): {error}"
    return {name: one * len(rows) for name, one in found.items()}, Check(
        "paired prompt and output", "unknown", said, sizes
    )


def _coordinates(rows: Rows, name: str, representation: Representation, compute: Compute) -> Array:
    """Principal components of a paired field (n, d), in the units of the field."""
    part, origin = rows.paired[name], f"{rows.origin}, {name}"
    if isinstance(part, np.ndarray):
        one = Rows(rows.source, origin, rows.ids, embedding=part)
        representation = replace(representation, model=None)
    else:
        one = Rows(rows.source, origin, rows.ids, text=part)
    (vectors,), _ = embed([one], representation, compute)
    axes = principal_components([vectors])
    return (axes(vectors) * axes.scale)[:, :DIMENSION]


def _terms(
    rows: Rows, prompt: Index, draws: Draws, representation: Representation, compute: Compute
) -> tuple[dict[str, Estimate], str]:
    """Per row, by what the repeats of prompts allow, and in words what that was."""
    outputs = _coordinates(rows, "output", representation, compute)
    size = np.bincount(prompt)
    of = f"of {outputs.shape[1]} principal components of the outputs and"
    draws = replace(draws, seed=compute.spawn("pairs").seed)
    if 2 <= len(size) <= MOST_CLASSES and size.min() >= LEAST_PER_CLASS:
        said = f"{of} {len(size)} prompts, each a class"
        return _of_given(prompt.astype(str), outputs, draws, compute, said)
    shared = size[prompt] > 1
    if shared.mean() >= 0.5 and (size > 1).sum() >= FEWEST_UNITS:
        within, weight = _about_means(outputs, prompt)
        gain = _entropy(Sample(within[shared], prompt[shared], weight[shared]), draws)
        whole = _entropy(Sample(outputs, prompt), draws)
        information = (whole - gain).map(lambda value: value.clamp_min(0))
        return {"information_gain": gain, "information_prompt_output": information}, (
            f"{of} {len(size)} prompts, each a unit, which {shared.mean():.0%} of the rows share: "
            "ΔI is of outputs about the mean of their prompt, an upper side where these are not "
            "Gaussian or spread unequally"
        )
    if len(size) < LEAST_ROWS:
        raise ValueError(
            f"Expected {LEAST_ROWS} distinct prompts, or {FEWEST_UNITS} that repeat and hold half "
            f"of the rows, or 2 to {MOST_CLASSES} of {LEAST_PER_CLASS} outputs each; got "
            f"{len(size)} distinct prompts of {len(prompt)} rows"
        )
    first = np.sort(np.unique(prompt, return_index=True)[1])
    given = _coordinates(rows, "prompt", representation, compute)[first]
    said = f"{of} {given.shape[1]} of {len(first)} distinct prompts"
    return _of_given(given, outputs[first], draws, compute, said)


def _of_given(
    given: Any, outputs: Array, draws: Draws, compute: Compute, said: str
) -> tuple[dict[str, Estimate], str]:
    """I(p; M(p)) of labels or coordinates of prompts, and what H(M(p)) leaves beyond it."""
    chains, each = draws.shape
    information = mutual_information(
        given, outputs, chains=chains, draws=each, seed=compute.seed, compute=compute
    ).terms["mutual_information"]
    found = {"information_prompt_output": information}
    try:
        entropy = _entropy(outputs, draws)
    except ValueError as error:
        return found, f"{said}; no ΔI: {error}"
    return found | {"information_gain": entropy - information}, said


def _entropy(rows: Array | Sample, draws: Draws) -> Estimate:
    found = entropy_of_sample(rows, draws.enough()).value
    return exactly(found[: draws.count].reshape(draws.shape))


def _about_means(outputs: Array, prompt: Index) -> tuple[Array, Array]:
    """Outputs less the mean of their prompt, at the covariance of outputs; what each counts."""
    size = np.bincount(prompt)
    mean = np.stack([np.bincount(prompt, column) for column in outputs.T], axis=1) / size[:, None]
    free = (1 - 1 / size)[prompt]
    return (outputs - mean[prompt]) / np.sqrt(np.where(free > 0, free, 1))[:, None], free
