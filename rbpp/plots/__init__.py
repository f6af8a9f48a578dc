"""Figures: functions of results that return matplotlib axes, and compute nothing new."""

from rbpp.plots.bounds import plot_bounds, plot_terms
from rbpp.plots.predictive import plot_predictive
from rbpp.plots.ranking import plot_pairs, plot_ranking, plot_score_by_rows, plot_series
from rbpp.plots.sources import COMPONENT_COLOURS, SOURCE_COLOURS, plot_map
from rbpp.plots.study import plot_chain, plot_kl_gap, plot_parts, plot_studies
from rbpp.plots.style import ANCHOR_COLOUR, PART_COLOURS, SYNTHETIC_COLOUR, ellipse, interval
from rbpp.plots.terms import plot_fine_tune_bounds, plot_forest, plot_outputs

__all__ = [
    "ANCHOR_COLOUR",
    "COMPONENT_COLOURS",
    "PART_COLOURS",
    "SOURCE_COLOURS",
    "SYNTHETIC_COLOUR",
    "ellipse",
    "interval",
    "plot_bounds",
    "plot_chain",
    "plot_fine_tune_bounds",
    "plot_forest",
    "plot_kl_gap",
    "plot_map",
    "plot_outputs",
    "plot_pairs",
    "plot_parts",
    "plot_predictive",
    "plot_ranking",
    "plot_score_by_rows",
    "plot_series",
    "plot_studies",
    "plot_terms",
]
