"""When work is given up."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass


class OutOfTime(Exception):  # noqa: N818 (no error)
    """A limit was reached inside another library's loop, which knows none."""


@dataclass(frozen=True)
class Limit:
    """A moment, in seconds of the monotonic clock; never by default."""

    ends: float = math.inf

    @classmethod
    def after(cls, seconds: float) -> Limit:
        """So many seconds from now."""
        return cls(time.monotonic() + seconds)

    def __call__(self) -> bool:
        """Whether it has passed."""
        return time.monotonic() > self.ends

    def before(self, seconds: float) -> Limit:
        """So many seconds earlier."""
        return Limit(self.ends - seconds)

    def allows(self, seconds: float) -> bool:
        """Whether work of so many seconds would end before it."""
        return time.monotonic() + seconds < self.ends


NEVER = Limit()
