"""Posteriors over the terms and bounds of the reverse-bottleneck theory of synthetic data.

The names below are loaded when they are first used: importing rbpp is free, changes nothing, and
needs neither torch nor Pyro.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from rbpp.assess import assess as assess
    from rbpp.chain import chain_terms as chain_terms
    from rbpp.compare import compare as compare
    from rbpp.contract import check as check
    from rbpp.divergences import entropy as entropy
    from rbpp.divergences import jensen_shannon as jensen_shannon
    from rbpp.divergences import kl_divergence as kl_divergence
    from rbpp.divergences import total_variation as total_variation
    from rbpp.mixture import GaussianMixture as GaussianMixture
    from rbpp.mutual_information import mutual_information as mutual_information
    from rbpp.posterior import MixturePosterior as MixturePosterior
    from rbpp.posterior import fit_mixture as fit_mixture
    from rbpp.process import load_process as load_process
    from rbpp.process import simulate as simulate
    from rbpp.randomness import generator as generator
    from rbpp.results import Estimate as Estimate

_MODULES = {
    "Estimate": "rbpp.results",
    "GaussianMixture": "rbpp.mixture",
    "MixturePosterior": "rbpp.posterior",
    "assess": "rbpp.assess",
    "chain_terms": "rbpp.chain",
    "check": "rbpp.contract",
    "compare": "rbpp.compare",
    "entropy": "rbpp.divergences",
    "fit_mixture": "rbpp.posterior",
    "generator": "rbpp.randomness",
    "jensen_shannon": "rbpp.divergences",
    "kl_divergence": "rbpp.divergences",
    "load_process": "rbpp.process",
    "mutual_information": "rbpp.mutual_information",
    "simulate": "rbpp.process",
    "total_variation": "rbpp.divergences",
}

__all__ = [*_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps an exported function in its place where its module has the same name.

    Importing `rbpp.mutual_information` sets that attribute of the package to the module; the name
    that a user types, `rbpp.mutual_information(x, y)`, is the function of it.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _MODULES.get(name) == value.__name__:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
