"""Between which values a composed term is, whatever the sides of its estimates leave open."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from rbpp.estimate import Estimate, Side, exactly
from rbpp.variables import VARIABLES


def between_corners(
    term: Estimate,
    formulas: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]],
    known: Mapping[str, Estimate],
    name: str,
) -> Estimate:
    """A composed term between the least and the largest value that its estimates leave open.

    Every estimate is at whichever of its ends moves the term that way, by the slope at the values.
    Where an estimate bounds its quantity from one side alone, its other end is the limit of its
    variable, or infinite: so is the term's end then.

    Args:
        term: as composed of the values.
        formulas: from values of the estimates to terms.
        known: the estimates.
        name: of the term.
    """
    variables = {
        key: one.value.double().detach().clone().requires_grad_(True) for key, one in known.items()
    }
    value = formulas(variables)[name]
    if not value.requires_grad:
        return term.between(exactly(value), exactly(value))
    gradients = torch.autograd.grad(value.sum(), list(variables.values()), allow_unused=True)
    slopes = {
        key: torch.zeros_like(variables[key]) if slope is None else slope
        for key, slope in zip(known, gradients, strict=True)
    }

    def corner(sign: int) -> Estimate:
        at, square = {}, torch.zeros_like(value).detach()
        infinite = torch.zeros_like(value, dtype=torch.bool)
        for key, one in known.items():
            rising = sign * slopes[key]
            low, high = one.end("lower"), one.end("upper")
            unlimited = torch.zeros_like(infinite)
            if low is None:
                low = _limit(key, one, "lower")
                unlimited |= (rising < 0) & low.value.isinf()
            if high is None:
                high = _limit(key, one, "upper")
                unlimited |= (rising > 0) & high.value.isinf()
            at[key], error = (
                torch.where(
                    rising == 0,
                    getattr(one, of),
                    torch.where(rising > 0, getattr(high, of), getattr(low, of)),
                ).double()
                for of in ("value", "standard_error")
            )
            part = (slopes[key] * error).square()
            square = square + torch.where((rising == 0) | (error == 0), 0.0, part)
            at[key] = torch.where(unlimited, variables[key].detach(), at[key])
            infinite |= unlimited
        found = torch.where(infinite, sign * math.inf, formulas(at)[name].detach())
        return Estimate(found, square.sqrt(), direction="upper" if sign > 0 else "lower")

    return term.between(corner(-1), corner(1))


def _limit(name: str, estimate: Estimate, side: Side) -> Estimate:
    """Where a quantity ends whose estimate bounds it from the other side alone."""
    described = VARIABLES.get(name)
    limits = (-math.inf, math.inf) if described is None else (described.least, described.most)
    return exactly(torch.full_like(estimate.value, limits[side == "upper"]))
