"""Former names of arguments, which are taken for one version."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
Found = TypeVar("Found")


def renamed(**former: str) -> Callable[[Callable[P, Found]], Callable[P, Found]]:
    """Take arguments by their former names too: NEW="old" for each.

    Warns:
        DeprecationWarning: naming both, where a former name is given.

    Raises:
        TypeError: if an argument is given by both.

    >>> @renamed(num_samples="draws")
    ... def entropy(*, num_samples=1024):
    ...     return num_samples
    >>> with warnings.catch_warnings(record=True) as told:
    ...     warnings.simplefilter("always")
    ...     entropy(draws=64), str(told[0].message)
    (64, 'entropy: draws is now num_samples')
    """

    def decorated(function: Callable[P, Found]) -> Callable[P, Found]:
        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> Found:
            given: dict[str, Any] = kwargs
            for new, old in former.items():
                if old not in given:
                    continue
                if new in given:
                    raise TypeError(f"Expected {new} once; got it as {old} too")
                told = f"{function.__name__}: {old} is now {new}"
                warnings.warn(told, DeprecationWarning, stacklevel=2)
                given[new] = given.pop(old)
            return function(*args, **kwargs)

        return called

    return decorated
