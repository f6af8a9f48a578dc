"""What an estimator returns: never a bare number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Direction = Literal["unbiased", "lower", "upper", "exact"]


@dataclass(frozen=True)
class Estimate:
    """A Monte Carlo estimate with its error.

    Attributes:
        value: the estimate; its shape is the batch shape of what was estimated.
        standard_error: Monte Carlo standard error, same shape as `value`; zero where exact.
        count: number of Monte Carlo draws behind every entry of `value`.
        direction: whether the expectation of `value` is the quantity itself (`"unbiased"`), a
            lower or an upper bound of it, or the quantity without any Monte Carlo (`"exact"`).
    """

    value: Tensor
    standard_error: Tensor
    count: int
    direction: Direction = "unbiased"

    def __post_init__(self) -> None:
        if self.value.shape != self.standard_error.shape:
            raise ValueError(
                "Expected value and standard_error of one shape; got "
                f"{tuple(self.value.shape)} and {tuple(self.standard_error.shape)}"
            )

    def interval(self, z: float = 1.96) -> tuple[Tensor, Tensor]:
        """The estimate plus and minus `z` standard errors."""
        return self.value - z * self.standard_error, self.value + z * self.standard_error
