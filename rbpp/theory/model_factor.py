"""e_M, the generator's own randomness: where a process has it, and how to hold it fixed.

A process may have no site `model_factor`: e_M is then all that the prompt leaves open. It may
sample the site above the output, or compute it below, e_M = M(p) − h(e_p) (Definition 4.1).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rbpp.processes.handlers import PROMPT_SITES
from rbpp.processes.replicas import Replicas, Values

Kind = Literal["absent", "above", "below"]
_TOLERANCE = 1e-8  # of agreement, relative to the size of the values


def factor_kind(replicas: Replicas) -> Kind:
    """Where the model factor is relative to the output."""
    site = replicas.sites.get("model_factor")
    if site is None:
        return "absent"
    return "above" if site.random else "below"


def sites_above_output(replicas: Replicas) -> tuple[str, ...]:
    """Sites given which D_gen is the distribution of a row: all above the output."""
    factor = ("model_factor",) if factor_kind(replicas) == "above" else ()
    return ("anchor", *PROMPT_SITES, *factor)


def has_row_factors(replicas: Replicas) -> bool:
    """Whether the model factor is above the output, one for each row."""
    return factor_kind(replicas) == "above" and replicas.sites["model_factor"].rows > 1


def sites_above_rows(replicas: Replicas) -> tuple[str, ...]:
    """Sites given which rows are independent: the prompt, and a model factor that rows share."""
    shared = factor_kind(replicas) == "above" and not has_row_factors(replicas)
    return (*PROMPT_SITES, *(("model_factor",) if shared else ()))


def output_with_factor(replicas: Replicas, values: Values, factor: Tensor) -> Tensor | None:
    """The output that has this model factor under the prompts of `values`.

    For M(p) = h(e_p) + e_M, of numbers, or of letters modulo their number: shift the output by the
    difference of the factors, and let the process say whether the factor is now the wanted one.

    Args:
        values: draws whose prompts are kept.
        factor: the model factor to have, in the shape of the site.

    Returns:
        The output, or `None` where M(p) is composed otherwise.
    """
    if factor_kind(replicas) != "below" or values["output"].shape != factor.shape:
        return None
    moved = values["output"] - values["model_factor"] + factor
    letters = replicas.sites["output"].letters
    if letters is not None:
        moved = moved % letters
    elif replicas.sites["output"].discrete:
        return None
    found = replicas.computed({**values, "output": moved}, "model_factor")
    size = 1 + float(factor.abs().max())
    same = bool(((found - factor).abs() <= _TOLERANCE * size).all())
    return moved if same else None


def is_additive(replicas: Replicas, values: Values) -> bool:
    """Whether M(p) = h(e_p) + e_M, tried with the factors of other data sets.

    The entropy of the factor is then H(e_M) = H(M(p) | p), since a shift by h(e_p) keeps volumes.
    """
    if factor_kind(replicas) != "below":
        return False
    others = values["model_factor"].roll(1, dims=1)
    return output_with_factor(replicas, values, others) is not None


def log_volume_of_prompt(replicas: Replicas, values: Values, name: str) -> Tensor | None:
    """log |det ∂prompt/∂anchor| of every data set, (worlds, R): the Jacobian of Appendix C.

    It differentiates through the process. The prompt must have a row for every anchor row that
    depends on that row alone; else the result is `None`.
    """
    anchor, prompt = values["anchor"], values[name]
    if not anchor.is_floating_point() or anchor.shape != prompt.shape or anchor.dim() > 5:
        return None
    if torch.equal(anchor, prompt):
        return anchor.new_zeros(anchor.shape[:2], dtype=torch.float64)
    free = {key: value for key, value in values.items() if key not in PROMPT_SITES}
    moved = anchor.clone()
    moved[..., 0, :] += 0.1
    shifted = replicas.computed({**free, "anchor": moved}, name)
    if shifted.shape != prompt.shape or not torch.equal(shifted[..., 1:, :], prompt[..., 1:, :]):
        return None
    variable = anchor.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        computed = replicas.computed({**free, "anchor": variable}, name, gradient=True)
        if not computed.requires_grad:
            return None
        rows = [
            torch.autograd.grad(computed[..., column].sum(), variable, retain_graph=True)[0]
            for column in range(computed.shape[-1])
        ]
    volume = torch.linalg.slogdet(torch.stack(rows, -2)).logabsdet.double()
    return volume.flatten(2).sum(-1)
