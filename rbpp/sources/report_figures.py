"""Names of `rbpp.plots` that `inference/` still imports from here."""

from rbpp.plots import plot_map as plot_map
from rbpp.plots import plot_ranking as plot_ranking
