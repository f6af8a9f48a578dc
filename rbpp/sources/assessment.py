"""What an assessment of synthetic data consists of: numbers, tables, audit and answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from rbpp.checks import Check, verdict_of
from rbpp.inference_data import InferenceData


@dataclass(frozen=True)
class Assessment:
    """The result of `rbpp.assess`, and all that a report of it needs.

    Attributes:
        data: InferenceData. `posterior` has the terms of the design's table as (chain, draw), and
            `source_weights` (chain, draw, source, component), components in the order of
            `components`; `sample_stats` has `elbo`; `constant_data` the settings that are numbers.
        rows: one line per row of every source, in the sources' order:

            - `source`, `id`, `group` (missing where there are none), `text` (likewise);
            - `off_task`: probability that the row lies where the task has (nearly) nothing;
              `novel`: that it is on the task and where the anchors have nothing;
              `uncovered`: that it lies where the synthetic data has (nearly) nothing;
            - `redundancy`: how much nearer the row's nearest neighbour in its own source is than
              that of a typical row there, as the log of the ratio of distances; above 0 the row
              says what another says, and a repeated row has the largest value, 10;
            - `component`, `component_probability`: the likeliest component and how likely it is;
            - `x`, `y`: place on the map (two coordinates of the mixture, see `axes`).
        components: one line per component, the index being its number, heaviest in the synthetic
            data first: `part` (the likeliest of `"shared"` K, `"unsampled"` J, `"irrelevant"` L,
            `"uncovered"` and `"empty"`), the probabilities `p_irrelevant`, `p_uncovered`,
            `p_unsampled`, `share_SOURCE` per source (posterior mean), `nearest` (list of up to
            three row texts or ids nearest to its mean, real ones where it has some), `keywords`
            (list; empty where there is no text), and on the map its mean `x`, `y` and covariance
            `xx`, `xy`, `yy`.
        sensitivity: one line per dimension d tried: `dimension`, `explained_variance`,
            `irrelevant_share`, `irrelevant_low`, `irrelevant_high`, `total_divergence`, `chosen`.
        audit: one mapping per statement: `name`, `holds` (True, False, or None for what cannot
            be told), `measured`, `message`.
        answers: five mappings, the answer in five lines: `question`, `sentence`, `probability`
            (that the sentence's claim holds), `verdict` (`"good"`, `"bad"` or `"unclear"`).
        settings: what the numbers depend on: embedding, dimension and its rule, explained
            variance, components, row counts by source, seed, thresholds.
        axes: what `x` and `y` of the map are.
    """

    data: Any
    rows: pd.DataFrame
    components: pd.DataFrame
    sensitivity: pd.DataFrame
    audit: list[dict[str, Any]]
    answers: list[dict[str, Any]]
    settings: dict[str, Any]
    axes: tuple[str, str]

    @property
    def idata(self) -> InferenceData:
        """`data`, under the name that every result has."""
        found: InferenceData = self.data
        return found

    @property
    def checks(self) -> tuple[Check, ...]:
        """`audit` in the form that every result has."""
        return tuple(
            Check(str(entry["name"]), verdict_of(entry["holds"]), str(entry["message"]))
            for entry in self.audit
        )
