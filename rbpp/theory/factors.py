"""e_M, the generator's own source of randomness: where a process has it, and how to hold it fixed.

A process may lack the site `model_factor` (then e_M is all that the prompt leaves open), sample it
above the output, or compute it below: e_M = M(p) − h(e_p), as Definition 4.1 has it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rbpp.processes.replicas import Replicas, Values

Kind = Literal["absent", "above", "below"]
_TOLERANCE = 1e-8  # of agreement, relative to the size of the values


def factor_kind(replicas: Replicas) -> Kind:
    """Where the model factor is relative to the output."""
    site = replicas.sites.get("model_factor")
    if site is None:
        return "absent"
    return "above" if site.random else "below"


def output_with_factor(replicas: Replicas, values: Values, factor: Tensor) -> Tensor | None:
    """The output that has this model factor under the prompts of `values`, if one can tell.

    For M(p) = h(e_p) + e_M, of numbers or of letters modulo their number: the output is moved by
    the difference of the factors, and the process is asked whether it now has the factor.

    Args:
        values: draws whose prompts are kept.
        factor: the model factor to have, in the shape of the site.

    Returns:
        The output, or `None` where the composition is not of this kind.
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
    """Whether M(p) = h(e_p) + e_M: factors of other data sets move the output as they should.

    The factor then has the entropy that the prompt leaves in the output, H(e_M) = H(M(p) | p),
    since the shift by h(e_p) changes no volume.
    """
    if factor_kind(replicas) != "below":
        return False
    others = values["model_factor"].roll(1, dims=1)
    return output_with_factor(replicas, values, others) is not None


def log_volume_of_prompt(replicas: Replicas, values: Values, name: str) -> Tensor | None:
    """log |det ∂prompt/∂anchor| of every data set, (worlds, R): the Jacobian of Appendix C.

    By differentiation through the process, for a prompt with one row per anchor row that depends on
    that row alone; `None` where the prompt is not of this kind.
    """
    anchor, prompt = values["anchor"], values[name]
    if not anchor.is_floating_point() or anchor.shape != prompt.shape or anchor.dim() > 5:
        return None
    if torch.equal(anchor, prompt):
        return anchor.new_zeros(anchor.shape[:2], dtype=torch.float64)
    free = {key: value for key, value in values.items() if key not in ("prompt", "prompt_factor")}
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
