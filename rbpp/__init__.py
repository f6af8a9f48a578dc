"""Posteriors over the terms and bounds of the reverse-bottleneck theory of synthetic data.

The names below are loaded when they are first used: importing rbpp is free, changes nothing, and
needs neither torch nor Pyro.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from rbpp.assessment.assess import assess as assess
    from rbpp.assessment.compare import compare as compare
    from rbpp.assessment.sources import Fields as Fields
    from rbpp.assessment.sources import Representation as Representation
    from rbpp.assessment.sources import Sampling as Sampling
    from rbpp.estimate import Estimate as Estimate
    from rbpp.fine_tuning.fine_tunes import fine_tune_bounds as fine_tune_bounds
    from rbpp.kl_gap_study import study as study
    from rbpp.mixtures.divergences import entropy as entropy
    from rbpp.mixtures.divergences import jensen_shannon as jensen_shannon
    from rbpp.mixtures.divergences import kl_divergence as kl_divergence
    from rbpp.mixtures.divergences import total_variation as total_variation
    from rbpp.mixtures.fit import Fit as Fit
    from rbpp.mixtures.fit import fit_mixture as fit_mixture
    from rbpp.mixtures.fit import fit_mixture_stream as fit_mixture_stream
    from rbpp.mixtures.mixture import GaussianMixture as GaussianMixture
    from rbpp.mixtures.posterior import MixturePosterior as MixturePosterior
    from rbpp.paired.mutual_information import mutual_information as mutual_information
    from rbpp.processes.contract import check as check
    from rbpp.processes.process import load_process as load_process
    from rbpp.processes.simulation import simulate as simulate
    from rbpp.randomness import generator as generator
    from rbpp.theory.bounds import bounds as bounds

_MODULES = {
    "Estimate": "rbpp.estimate",
    "Fields": "rbpp.assessment.sources",
    "Fit": "rbpp.mixtures.fit",
    "GaussianMixture": "rbpp.mixtures.mixture",
    "MixturePosterior": "rbpp.mixtures.posterior",
    "Representation": "rbpp.assessment.sources",
    "Sampling": "rbpp.assessment.sources",
    "assess": "rbpp.assessment.assess",
    "bounds": "rbpp.theory.bounds",
    "check": "rbpp.processes.contract",
    "compare": "rbpp.assessment.compare",
    "entropy": "rbpp.mixtures.divergences",
    "fine_tune_bounds": "rbpp.fine_tuning.fine_tunes",
    "fit_mixture": "rbpp.mixtures.fit",
    "fit_mixture_stream": "rbpp.mixtures.fit",
    "generator": "rbpp.randomness",
    "jensen_shannon": "rbpp.mixtures.divergences",
    "kl_divergence": "rbpp.mixtures.divergences",
    "load_process": "rbpp.processes.process",
    "mutual_information": "rbpp.paired.mutual_information",
    "simulate": "rbpp.processes.simulation",
    "study": "rbpp.kl_gap_study",
    "total_variation": "rbpp.mixtures.divergences",
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
