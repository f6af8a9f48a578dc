"""ΔI and I(p; M(p)) where every generated row comes with its prompt and its answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rbpp.assessment.entropy import entropy_of_sample
from rbpp.checks import Check
from rbpp.compute import Compute
from rbpp.data.embed import embed
from rbpp.data.reduce import principal_components
from rbpp.data.rows import Rows
from rbpp.estimate import Estimate, exactly
from rbpp.paired.mutual_information import mutual_information

# Principal components of the prompts and of the outputs: the joint mixture has twice as many, and
# an estimate from a few hundred rows is worth little in more.
DIMENSION = 3


def paired_terms(
    rows: Rows,
    *,
    chains: int,
    draws: int,
    compute: Compute,
    model: str | None = None,
    cache: Any = None,
) -> tuple[dict[str, Estimate], Check]:
    """Information of the prompt in the output, and the information gain, of a whole data set.

    ΔI = H(M(p) | p) = H(M(p)) − I(p; M(p))   (Definition 4.2), both on principal components:
    I(p; M(p)) of the projection is a lower bound of that of the texts.

    Args:
        rows: with `prompt` and `output` among their paired fields.
        chains, draws: shape of the terms.
        compute: device of the embedding model and the fits, workers, progress, seed.
        model, cache: as for `rbpp.data.embed.embed`.

    Returns:
        `information_prompt_output` and `information_gain` (chain, draw) in nats, and a check; no
        terms, and the reason in the check, where the pairs allow none, as when prompts repeat.
    """
    found: dict[str, Estimate] = {}
    coordinates = []
    try:
        for name in ("prompt", "output"):
            part = rows.paired[name]
            own = (
                Rows(rows.source, f"{rows.origin}, {name}", rows.ids, embedding=part)
                if isinstance(part, np.ndarray)
                else Rows(rows.source, f"{rows.origin}, {name}", rows.ids, text=part)
            )
            (vectors,), _ = embed(
                [own],
                model=model if own.text is not None else None,
                device=compute.device,
                cache=cache,
                seed=compute.seed,
                quiet=not compute.progress,
            )
            projected = principal_components([vectors])(vectors)
            coordinates.append(torch.as_tensor(projected[:, :DIMENSION]))
        information = mutual_information(
            *coordinates, draws=draws, chains=chains, seed=compute.seed, compute=compute
        )
    except ValueError as error:
        message = f"no ΔI and no I(p; M(p)): {error}"
    else:
        shared = information.terms["mutual_information"]
        found["information_prompt_output"] = shared * len(rows)
        try:
            entropy = entropy_of_sample(
                coordinates[1].numpy(),
                draws=max(100, chains * draws),
                seed=compute.spawn("pairs").seed,
            )
        except ValueError as error:
            why = f"; no ΔI: {error}"
        else:
            why = ""
            rate = torch.as_tensor(entropy.draws[: chains * draws]).reshape(chains, draws)
            found["information_gain"] = (exactly(rate) - shared) * len(rows)
        message = (
            f"of {coordinates[0].shape[1]} principal components of the prompts and "
            f"{coordinates[1].shape[1]} of the outputs{why}"
        )
    return found, Check("paired prompt and output", "unknown", message, {"pairs": len(rows)})
