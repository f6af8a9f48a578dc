"""A number with its Monte Carlo error: what an estimator returns, and how such numbers combine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Direction = Literal["exact", "unbiased", "lower", "upper", "biased"]
Side = Literal["lower", "upper"]
SIDES: tuple[Side, ...] = get_args(Side)

# A value within this distance of its limit is cut by it (nats, of informations).
SATURATION_MARGIN = 0.7
_OPPOSITE: dict[Direction, Side] = {"lower": "upper", "upper": "lower"}


@dataclass(frozen=True)
class Estimate:
    """A Monte Carlo estimate with its error, and bounds of it where an estimator gives them.

    `+` and `−` combine two estimates. Their errors count as independent, so the squares add up.
    Two estimates from the same draws are not independent: each then carries its per-draw values in
    `samples` under one name `draws`, and the error is that of the per-draw sum or difference.

    Draws of a posterior are entries of `value`, each without a Monte Carlo error (`exactly`). `+`
    and `−` then go draw by draw, and what both terms share leaves their difference.

    Attributes:
        value: the estimate; its shape is the batch shape of what was estimated.
        standard_error: Monte Carlo standard error, same shape as `value`; zero where exact.
        count: number of Monte Carlo draws behind every entry of `value`.
        direction: what the expectation of `value` is: the quantity itself (`"unbiased"`), a lower
            or an upper bound of it, something of unknown sign beside it (`"biased"`), or the
            quantity without any Monte Carlo (`"exact"`).
        lower, upper: bounds of the same quantity, where an estimator gives them; of the shape of
            `value`, or one for all entries.
        method: which estimator gave the value, in the field's words.
        limit: the largest value that the estimator can return, such as log R of a contrast of R
            pairs; infinite where there is no such limit.
        samples: per-draw values whose mean is `value`, (draws, …); None where they are not kept.
        draws: name of the draws behind `samples`; equal names mean the same draws.
        reason: why a side is open, where `direction` says that one is; empty where it is not known.

    >>> one = Estimate(torch.tensor(2.0), torch.tensor(0.3), 100)
    >>> other = Estimate(torch.tensor(0.5), torch.tensor(0.4), 50)
    >>> (one - other).value.item(), (one - other).standard_error.item(), (one - other).count
    (1.5, 0.5, 50)
    """

    value: Tensor
    standard_error: Tensor
    count: int = 1
    direction: Direction = "unbiased"
    lower: Estimate | None = None
    upper: Estimate | None = None
    method: str = ""
    limit: float = math.inf
    samples: Tensor | None = None
    draws: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        if self.value.shape != self.standard_error.shape:
            raise ValueError(
                "Expected value and standard_error of one shape; got "
                f"{tuple(self.value.shape)} and {tuple(self.standard_error.shape)}"
            )

    def __add__(self, other: Estimate | Tensor | float) -> Estimate:
        if not isinstance(other, Estimate):
            return self._affine(1.0, other)
        return _sum(self, other)

    __radd__ = __add__

    def __sub__(self, other: Estimate | Tensor | float) -> Estimate:
        return self + (-other)

    def __rsub__(self, other: Tensor | float) -> Estimate:
        return (-self) + other

    def __neg__(self) -> Estimate:
        return self * -1.0

    def __mul__(self, factor: float) -> Estimate:
        """The estimate in other units: `factor` is a constant, without error."""
        return self._affine(factor, 0.0)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Estimate:
        return self * (1 / divisor)

    def mean(self, dim: int | tuple[int, ...] | None = None) -> Estimate:
        """The mean over batch entries with independent errors, by default over all of them.

        The error is Monte Carlo error alone. How much the entries differ is another matter:
        `mean_estimate(estimate.value)` has that in its error.
        """
        dims = tuple(range(self.value.dim())) if dim is None else dim
        total = self.standard_error.square().sum(dims).sqrt()
        averaged = self.value.mean(dims)
        return replace(
            self._with_sides(lambda side: side.mean(dim)),
            value=averaged,
            standard_error=total * (averaged.numel() / max(1, self.value.numel())),
            samples=None,
            draws="",
        )

    def map(self, function: Callable[[Tensor], Tensor]) -> Estimate:
        """Apply a function of layout (indexing, reshaping, `.cpu()`) to value, error and sides.

        A function of the number itself, such as a root, is for `delta_method`: here it would be
        applied to the error as it is.
        """
        return replace(
            self._with_sides(lambda side: side.map(function)),
            value=function(self.value),
            standard_error=function(self.standard_error),
            samples=None,
            draws="",
        )

    def between(self, lower: Estimate | float, upper: Estimate | float) -> Estimate:
        """The same value with these two sides; numbers are exact."""
        low, high = (
            side if isinstance(side, Estimate) else exactly(side) for side in (lower, upper)
        )
        return replace(self, lower=low, upper=high)

    def end(self, side: Side) -> Estimate | None:
        """The side, or the estimate itself; None where it bounds the quantity from the other side.

        >>> least = Estimate(torch.tensor(0.3), torch.tensor(0.0), direction="lower")
        >>> least.end("lower") is least, least.end("upper") is None
        (True, True)
        """
        own = self.lower if side == "lower" else self.upper
        if own is None and _OPPOSITE.get(self.direction) != side:
            return self
        return own

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """Values of both sides, infinite where there is none.

        >>> Estimate(torch.tensor(1.0), torch.tensor(0.0), lower=exactly(0.5)).bounds
        (tensor(0.5000, dtype=torch.float64), tensor(inf))
        """
        none = torch.full_like(self.value, math.inf)
        return (
            -none if self.lower is None else self.lower.value,
            none if self.upper is None else self.upper.value,
        )

    def widened(self, by: Tensor) -> Estimate:
        """The same value with another independent error beside its own, of this size.

        >>> Estimate(torch.tensor(1.0), torch.tensor(3.0)).widened(torch.tensor(4.0)).standard_error
        tensor(5.)
        """
        return replace(self, standard_error=torch.hypot(self.standard_error, by))

    def interval(self, z: float = 1.96) -> tuple[Tensor, Tensor]:
        """The estimate plus and minus `z` standard errors."""
        return self.value - z * self.standard_error, self.value + z * self.standard_error

    @property
    def saturated(self) -> Tensor:
        """Whether an entry is so near its limit that the truth may be anything above: bool (…)."""
        return self.value > self.limit - SATURATION_MARGIN

    @property
    def far_apart(self) -> bool:
        """Whether the sides leave the value open: in the mean over entries they are further apart
        than one unit and than half the upper side, or there is no finite upper side, or one side
        alone."""
        if self.lower is None or self.upper is None:
            return self.end("lower") is None or self.end("upper") is None
        low, high = float(self.lower.value.mean()), float(self.upper.value.mean())
        return not math.isfinite(high) or high - low > max(1.0, high / 2)

    def _with_sides(self, function: Callable[[Estimate], Estimate]) -> Estimate:
        """The same value with a function of each side that there is."""
        lower, upper = self.lower, self.upper
        return replace(self, lower=lower and function(lower), upper=upper and function(upper))

    def _affine(self, factor: float, shift: Tensor | float) -> Estimate:
        """factor · estimate + shift, of a constant factor and a constant shift."""
        sided = self._with_sides(lambda side: side._affine(factor, shift))
        direction, ends = self.direction, (sided.lower, sided.upper)
        if factor < 0:
            direction, ends = _OPPOSITE.get(direction, direction), (sided.upper, sided.lower)
        value = factor * self.value + shift
        plain = not isinstance(shift, Tensor) or shift.dim() == 0
        return Estimate(
            value,
            (abs(factor) * self.standard_error).expand(value.shape),
            self.count,
            direction,
            lower=ends[0],
            upper=ends[1],
            method=self.method,
            samples=factor * self.samples + shift if self.samples is not None and plain else None,
            draws=self.draws if plain else "",
            reason=self.reason,
        )


def exactly(value: Tensor | NDArray[np.float64] | float, method: str = "") -> Estimate:
    """An estimate without Monte Carlo error; numbers and arrays become float64 tensors.

    >>> exactly(1.0).standard_error.item()
    0.0
    """
    if not isinstance(value, Tensor):
        value = torch.as_tensor(value, dtype=torch.float64)
    return Estimate(value, torch.zeros_like(value), 1, "exact", method=method)


def mean_estimate(
    values: Tensor, direction: Direction = "unbiased", *, method: str = "", draws: str = ""
) -> Estimate:
    """Mean over the last axis of independent values (…, R), with its standard error.

    Args:
        values: (…, R), R at least 2.
        direction: of the mean; see `Estimate`.
        method: which estimator gave the values.
        draws: name of the draws, so that differences to estimates of the same draws have the error
            that they have; the values are then kept.

    Raises:
        ValueError: if there are fewer than two values.

    >>> mean_estimate(torch.tensor([1.0, 3.0])).value.item()
    2.0
    """
    count = values.shape[-1]
    if count < 2:
        raise ValueError(f"Expected at least 2 values to average; got {count}")
    return Estimate(
        values.mean(-1),
        _error_of_mean(values, -1),
        count,
        direction,
        method=method,
        samples=values.movedim(-1, 0) if draws else None,
        draws=draws,
    )


def delta_method(
    function: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]],
    estimates: Mapping[str, Estimate],
) -> dict[str, Estimate]:
    """Functions of estimates with independent errors, with the error that follows.

    The error of f is sqrt(Σ (∂f/∂x · error of x)²), with the derivatives by autograd. A term that
    enters f twice then counts as the one number that it is. Where f depends on an estimate that
    bounds its quantity from one side alone, f is a bound too, by the sign of the derivative.

    Args:
        function: from named values of one shape to named values of the same shape, entry by entry.
        estimates: what it is a function of. A value that is nan makes what depends on it nan.

    >>> two = Estimate(torch.tensor([2.0]), torch.tensor([0.1]))
    >>> found = delta_method(lambda term: {"square": term["x"] ** 2}, {"x": two})["square"]
    >>> round(found.standard_error.item(), 6)
    0.4
    """
    variables = {
        name: estimate.value.double().detach().clone().requires_grad_(True)
        for name, estimate in estimates.items()
    }
    errors = [estimate.standard_error.double().detach() for estimate in estimates.values()]
    with torch.enable_grad():
        found = function(variables)
    fewest = min(estimate.count for estimate in estimates.values())
    result = {}
    for name, value in found.items():
        square, sides = torch.zeros_like(value).detach(), set[Direction]()
        if value.requires_grad:
            gradients = torch.autograd.grad(
                value.sum(), list(variables.values()), retain_graph=True, allow_unused=True
            )
            for gradient, error, one in zip(gradients, errors, estimates.values(), strict=True):
                if gradient is not None:
                    sides |= _sides_of(one, gradient)
                    part = (gradient * error).square()
                    # A root has no derivative at zero, and an error of zero adds nothing.
                    square = square + torch.where(error == 0, 0.0, part)
        own = estimates[name].count if name in estimates else fewest
        result[name] = Estimate(value.detach(), square.sqrt(), own, _common(["unbiased", *sides]))
    return result


def _sides_of(estimate: Estimate, slope: Tensor) -> set[Direction]:
    """Which bounds of a function an estimate makes that bounds its quantity from one side alone."""
    own = estimate.direction
    if own not in _OPPOSITE or estimate.end(_OPPOSITE[own]) is not None:
        return set()
    rising, falling = bool((slope > 0).any()), bool((slope < 0).any())
    return ({own} if rising else set()) | ({_OPPOSITE[own]} if falling else set())


def stack(estimates: Sequence[Estimate], dim: int = 0) -> Estimate:
    """Several estimates of one kind along a new dimension; sides where all have them."""
    lowers = [one.lower for one in estimates if one.lower is not None]
    uppers = [one.upper for one in estimates if one.upper is not None]
    return Estimate(
        torch.stack([one.value for one in estimates], dim),
        torch.stack([one.standard_error for one in estimates], dim),
        min(one.count for one in estimates),
        _common([one.direction for one in estimates]),
        lower=stack(lowers, dim) if len(lowers) == len(estimates) else None,
        upper=stack(uppers, dim) if len(uppers) == len(estimates) else None,
        method=estimates[0].method,
        limit=min(one.limit for one in estimates),
        reason=_joined("; ", (one.reason for one in estimates)),
    )


def _sum(first: Estimate, second: Estimate) -> Estimate:
    value = first.value + second.value
    samples, draws = None, ""
    same = bool(first.draws) and first.draws == second.draws
    if same and first.samples is not None and second.samples is not None:
        samples, draws = first.samples + second.samples, first.draws
        error = _error_of_mean(samples, 0)
    else:
        error = (first.standard_error.square() + second.standard_error.square()).sqrt()
    return Estimate(
        value,
        error.expand(value.shape),
        min(first.count, second.count)
        if "exact" not in (first.direction, second.direction)
        else max(first.count, second.count),
        _common([first.direction, second.direction]),
        lower=_side(first, second, "lower"),
        upper=_side(first, second, "upper"),
        method=_joined(", ", (first.method, second.method)),
        samples=samples,
        draws=draws,
        reason=_joined("; ", (first.reason, second.reason)),
    )


def _side(first: Estimate, second: Estimate, name: Side) -> Estimate | None:
    """The sum's side: of both sides, or of one side and a value that stands for its own side."""
    one, other = getattr(first, name), getattr(second, name)
    if one is None and other is None:
        return None
    stand_in = ("exact", "unbiased", name)
    if one is None:
        one = first if first.direction in stand_in else None
    if other is None:
        other = second if second.direction in stand_in else None
    return None if one is None or other is None else _sum(one, other)


def _common(directions: Sequence[Direction]) -> Direction:
    """Direction of a sum of terms with these directions."""
    signed = set(directions) - {"exact", "unbiased"}
    if not signed:
        return "exact" if set(directions) == {"exact"} else "unbiased"
    return signed.pop() if len(signed) == 1 else "biased"


def _joined(mark: str, said: Iterable[str]) -> str:
    """What is said, once each."""
    return mark.join(dict.fromkeys(one for one in said if one))


def _error_of_mean(values: Tensor, dim: int) -> Tensor:
    error = values.std(dim) / math.sqrt(values.shape[dim])
    # An infinite value makes the mean infinite and its deviation nan: the error is unknown.
    return torch.where(error.isnan(), math.inf, error)
