"""What an assessment of synthetic data consists of: numbers, tables, checks and answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rbpp.inference_data import InferenceData
from rbpp.result import Result


@dataclass(frozen=True, kw_only=True, repr=False)
class Assessment(Result):
    """The result of `rbpp.assess`, and all that a report of it needs.

    In `idata`, `posterior` has the terms as (chain, draw), and `source_weights` (chain, draw,
    source, component), components in the order of `components`; `sample_stats` has `elbo`;
    `constant_data` the settings that are numbers. The headline are the answers.

    Attributes:
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
        answers: five mappings, the answer in five lines: `question`, `sentence`, `probability`
            (that the sentence's claim holds), `verdict` (`"good"`, `"bad"` or `"unclear"`).
        axes: what `x` and `y` of the map are.
    """

    idata: InferenceData
    rows: pd.DataFrame
    components: pd.DataFrame
    sensitivity: pd.DataFrame
    answers: Sequence[dict[str, Any]]
    axes: tuple[str, str]

    def figures(self, hdi_prob: float = 0.94) -> Mapping[str, Callable[[], Any]]:
        """The map of the rows, and the shares and divergences."""
        from rbpp import plots

        shares = [name for name in self.terms if name.endswith(("_share", "_divergence"))]
        return {
            "map": lambda: plots.plot_map(self.rows, self.components, self.axes),
            "shares": lambda: plots.plot_forest(self.idata, shares, hdi_prob),
        }

    def details(self) -> Mapping[str, Any]:
        """Answers and the tables of components and of the sensitivity."""
        return {
            "answers": self.answers,
            "components": self.components.reset_index().to_dict("records"),
            "sensitivity": self.sensitivity.to_dict("records"),
        }


def headline(answers: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The answers as lines, the questions in a column."""
    return tuple(f"{line['question']:22} {line['sentence']}" for line in answers)
