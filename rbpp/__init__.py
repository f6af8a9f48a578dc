"""Posteriors over the terms and bounds of the reverse-bottleneck theory of synthetic data.

The names below are loaded when they are first used: importing rbpp is free, changes nothing, and
needs neither torch nor Pyro.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from rbpp import plots as plots
    from rbpp import variables as variables
    from rbpp.assessment.assess import assess as assess
    from rbpp.assessment.compare import compare as compare
    from rbpp.assessment.ranking import Decision as Decision
    from rbpp.assessment.sources import Fields as Fields
    from rbpp.assessment.sources import Representation as Representation
    from rbpp.assessment.sources import Sampling as Sampling
    from rbpp.channel.information import channel_information as channel_information
    from rbpp.channel.log_probabilities import LogProbabilities as LogProbabilities
    from rbpp.channel.log_probabilities import log_probabilities as log_probabilities
    from rbpp.channel.read import read_log_probabilities as read_log_probabilities
    from rbpp.channel.score import score_rows as score_rows
    from rbpp.channel.score_settings import ScoreSettings as ScoreSettings
    from rbpp.checks import Check as Check
    from rbpp.compute import Compute as Compute
    from rbpp.data.demo_corpus import demo_corpus as demo_corpus
    from rbpp.data.embed import embed as embed
    from rbpp.data.reduce import principal_components as principal_components
    from rbpp.data.rows import read_rows as read_rows
    from rbpp.estimate import Estimate as Estimate
    from rbpp.fine_tuning.fine_tunes import fine_tune_bounds as fine_tune_bounds
    from rbpp.inference_data import read as read
    from rbpp.kl_gap_study import FittedWorld as FittedWorld
    from rbpp.kl_gap_study import Study as Study
    from rbpp.kl_gap_study import sample_worlds as sample_worlds
    from rbpp.kl_gap_study import study as study
    from rbpp.kl_gap_study import world_posterior as world_posterior
    from rbpp.mixtures.divergences import entropy as entropy
    from rbpp.mixtures.divergences import jensen_shannon as jensen_shannon
    from rbpp.mixtures.divergences import kl_divergence as kl_divergence
    from rbpp.mixtures.divergences import total_variation as total_variation
    from rbpp.mixtures.fit import Fit as Fit
    from rbpp.mixtures.fit import fit_mixture as fit_mixture
    from rbpp.mixtures.fit import fit_mixture_stream as fit_mixture_stream
    from rbpp.mixtures.histograms import histogram_divergence as histogram_divergence
    from rbpp.mixtures.mixture import GaussianMixture as GaussianMixture
    from rbpp.mixtures.posterior import MixturePosterior as MixturePosterior
    from rbpp.paired.mutual_information import mutual_information as mutual_information
    from rbpp.posterior.worlds import WorldPosterior as WorldPosterior
    from rbpp.posterior.worlds import infer as infer
    from rbpp.processes.contract import check as check
    from rbpp.processes.process import load_process as load_process
    from rbpp.processes.simulation import simulate as simulate
    from rbpp.randomness import generator as generator
    from rbpp.randomness import spawn as spawn
    from rbpp.result import Result as Result
    from rbpp.theory.bounds import Bounds as Bounds
    from rbpp.theory.bounds import bounds as bounds
    from rbpp.theory.learners import mixture_learner as mixture_learner
    from rbpp.theory.learners import point_learner as point_learner
    from rbpp.theory.settings import LearnerChoice as LearnerChoice
    from rbpp.theory.settings import LemmaConstants as LemmaConstants
    from rbpp.theory.settings import SampleSizes as SampleSizes
    from rbpp.workers import open_workers as open_workers

# Module to the names that it gives.
_NAMES = {
    "rbpp.assessment.assess": "assess",
    "rbpp.assessment.compare": "compare",
    "rbpp.assessment.ranking": "Decision",
    "rbpp.assessment.sources": "Fields Representation Sampling",
    "rbpp.channel.information": "channel_information",
    "rbpp.channel.log_probabilities": "LogProbabilities log_probabilities",
    "rbpp.channel.read": "read_log_probabilities",
    "rbpp.channel.score": "score_rows",
    "rbpp.channel.score_settings": "ScoreSettings",
    "rbpp.checks": "Check",
    "rbpp.compute": "Compute",
    "rbpp.data.demo_corpus": "demo_corpus",
    "rbpp.data.embed": "embed",
    "rbpp.data.reduce": "principal_components",
    "rbpp.data.rows": "read_rows",
    "rbpp.estimate": "Estimate",
    "rbpp.fine_tuning.fine_tunes": "fine_tune_bounds",
    "rbpp.inference_data": "read",
    "rbpp.kl_gap_study": "FittedWorld Study sample_worlds study world_posterior",
    "rbpp.mixtures.divergences": "entropy jensen_shannon kl_divergence total_variation",
    "rbpp.mixtures.fit": "Fit fit_mixture fit_mixture_stream",
    "rbpp.mixtures.histograms": "histogram_divergence",
    "rbpp.mixtures.mixture": "GaussianMixture",
    "rbpp.mixtures.posterior": "MixturePosterior",
    "rbpp.paired.mutual_information": "mutual_information",
    "rbpp.posterior.worlds": "WorldPosterior infer",
    "rbpp.processes.contract": "check",
    "rbpp.processes.process": "load_process",
    "rbpp.processes.simulation": "simulate",
    "rbpp.randomness": "generator spawn",
    "rbpp.result": "Result",
    "rbpp.theory.bounds": "Bounds bounds",
    "rbpp.theory.learners": "mixture_learner point_learner",
    "rbpp.theory.settings": "LearnerChoice LemmaConstants SampleSizes",
    "rbpp.workers": "open_workers",
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}
# Modules that are reached by their name alone.
_SUBMODULES = {
    "lemmas": "rbpp.theory.lemmas",
    "plots": "rbpp.plots",
    "statements": "rbpp.theory.statements",
    "terms": "rbpp.theory.terms",
    "variables": "rbpp.variables",
}

__all__ = [*_MODULES, *_SUBMODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        value: Any = importlib.import_module(_SUBMODULES[name])
    elif name in _MODULES:
        value = getattr(importlib.import_module(_MODULES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__})
