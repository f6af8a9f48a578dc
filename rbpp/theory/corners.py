"""Between which values a composed term is, whatever the sides of its estimates leave open."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from rbpp.estimate import Direction, Estimate, Side, exactly
from rbpp.variables import VARIABLES

# Of a term, by whether there is no estimate of its lower end and of its upper end.
_DIRECTIONS: dict[tuple[bool, bool], Direction] = {
    (False, False): "unbiased",
    (False, True): "lower",
    (True, False): "upper",
    (True, True): "biased",
}


def between_corners(
    term: Estimate,
    formulas: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]],
    known: Mapping[str, Estimate],
    name: str,
) -> Estimate:
    """A composed term between the least and the largest value that its estimates leave open.

    Every estimate is at whichever of its ends moves the term that way, by the slope at the values.
    Where an estimate bounds its quantity from one side alone, its other end is the limit of its
    variable, or infinite: so is the term's end then, and `direction` says which side the value is.

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

    def corner(sign: int) -> tuple[Estimate, bool]:
        """That end, and whether some estimate has none there."""
        at, square = {}, torch.zeros_like(value).detach()
        one_sided, infinite = False, torch.zeros_like(value, dtype=torch.bool)
        for key, one in known.items():
            rising = sign * slopes[key]
            low, low_open = _end(key, one, "lower")
            high, high_open = _end(key, one, "upper")
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
            if low_open or high_open:
                without = (rising < 0) & low_open | (rising > 0) & high_open
                one_sided |= bool(without.any())
                unlimited = without & at[key].isinf()
                at[key] = torch.where(unlimited, variables[key].detach(), at[key])
                infinite |= unlimited
        found = torch.where(infinite, sign * math.inf, formulas(at)[name].detach())
        return Estimate(found, square.sqrt(), direction="upper" if sign > 0 else "lower"), one_sided

    lower, from_above = corner(-1)
    upper, from_below = corner(1)
    direction = _DIRECTIONS[from_above, from_below]
    return replace(term.between(lower, upper), direction=direction)


def _end(name: str, estimate: Estimate, side: Side) -> tuple[Estimate, bool]:
    """An end of what is known of a quantity; and whether it is but the limit of its variable."""
    found = estimate.end(side)
    if found is not None:
        return found, False
    sign, described = (-1 if side == "lower" else 1), VARIABLES.get(name)
    limit = sign * math.inf
    if described is not None:
        limit = described.least if side == "lower" else described.most
    return exactly(torch.full_like(estimate.value, limit)), True
