"""ΔI and I(p; M(p)) where every generated row comes with its prompt and its answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from rbpp.compute import Compute
from rbpp.data.embed import embed
from rbpp.data.reduce import principal_components
from rbpp.data.rows import Rows
from rbpp.paired.mutual_information import mutual_information
from rbpp.randomness import spawn
from rbpp.sources.own_mixtures import REFITS, fit_own

# Principal components of the prompts and of the outputs: the joint mixture has twice as many, and
# an estimate from a few hundred rows is worth little in more.
DIMENSION = 3


def paired_terms(
    rows: Rows,
    *,
    chains: int,
    draws: int,
    seed: int,
    model: str | None = None,
    device: str = "cpu",
    cache: Any = None,
    quiet: bool = True,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Information of the prompt in the output, and the information gain, of a whole data set.

    ΔI = H(M(p) | p) = H(M(p)) − I(p; M(p))   (Definition 4.2), both on principal components:
    I(p; M(p)) of the projection is a lower bound of that of the texts.

    Args:
        rows: with `prompt` and `output` among their paired fields.
        chains, draws: shape of the terms.
        seed: decides every random number.
        model, cache, quiet: as for `rbpp.data.embed.embed`.
        device: where the embedding model runs and mixtures are fitted.

    Returns:
        `information_prompt_output` and `information_gain` (chain, draw) in nats, and a line for
        the audit; no terms, and the reason in that line, where the pairs allow none, as when
        prompts repeat.
    """
    line: dict[str, Any] = {
        "name": "paired prompt and output",
        "holds": None,
        "measured": len(rows),
    }
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
                device=device,
                cache=cache,
                seed=seed,
                quiet=quiet,
            )
            projected = principal_components([vectors])(vectors)
            coordinates.append(torch.as_tensor(projected[:, :DIMENSION]))
        information = mutual_information(
            *coordinates,
            draws=draws,
            chains=chains,
            seed=seed,
            compute=Compute(device=device),
        )
    except ValueError as error:
        line["message"] = f"no ΔI and no I(p; M(p)): {error}"
        return {}, line
    mixtures = fit_own(
        [coordinates[1]], groups=[None], chains=chains, seed=spawn(seed, "pairs"), device=device
    )
    entropy = mixtures.entropy(0)[0][:, torch.arange(draws) % REFITS]
    shared = information.draws
    line["message"] = (
        f"of {coordinates[0].shape[1]} principal components of the prompts and "
        f"{coordinates[1].shape[1]} of the outputs"
    )
    return {
        "information_prompt_output": shared * len(rows),
        "information_gain": (entropy - shared) * len(rows),
    }, line
