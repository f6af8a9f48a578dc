"""What a comparison of synthetic data sets consists of, in numbers, words and figures."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from rbpp import inference_data
from rbpp.assessment.comparison_words import difference_table, ranking_table
from rbpp.assessment.conditions import answer, check_condition
from rbpp.display import DEFAULT_VIEW, Part, Table, View
from rbpp.files import written_whole
from rbpp.inference_data import InferenceData
from rbpp.result import Result

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True, repr=False)
class Comparison(Result):
    """What `compare` found: terms and `score` of every version, (chain, draw, version).

    Attributes:
        kind: what was scored: `"labels"` given texts, `"outputs"` given prompts, or `"texts"`.
        ranking: best first: `name`, `score`, `sd`, `hdi_low`, `hdi_high`, `p_best`, `rank_mean`,
            `score_equal_size`, `p_best_equal_size`, `p_trained_best`, `precision`, `coverage`,
            `rows`, and `score_of_real_rows`, what `real_rows` real rows teach.
        differences: per term and pair of versions: `term`, `first`, `second`, `mean`, `sd`,
            `hdi_low`, `hdi_high` of first − second, `p_better`, `p_equivalent`, `p_worse` of the
            first, and `equivalent`, half the width of the region of practical equivalence; of the
            score also `p_larger` and `p_trained_better`.
        diagnostics: a line a version, not added to the score.
        influence: a line for every scored row: `version`, `id`, `text`, `label`, and `influence`,
            what the row adds to its version's score, nats.
        record: what `rbpp.compare(against=…)` takes; see `rbpp.assessment.stored_ranking`.
        series: versions in the order in which they were stored, where there were stored ones.
        fail_if: conditions that were asked, each with the versions for which it holds.
    """

    label_before: ClassVar[str] = "version"

    idata: InferenceData
    kind: str
    ranking: Sequence[dict[str, Any]]
    differences: Sequence[dict[str, Any]]
    diagnostics: Sequence[dict[str, Any]] = ()
    influence: pd.DataFrame
    record: Mapping[str, Any] = field(default_factory=dict)
    series: Sequence[str] = ()
    fail_if: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def asked(self, conditions: Sequence[str]) -> Comparison:
        """The same with conditions answered, in `fail_if` and in the notes.

        Args:
            conditions: see `rbpp.assessment.conditions.check_condition`.

        Raises:
            ValueError: if a condition cannot be read, or names an unknown term or version.
        """
        failed, notes = {}, []
        for condition in conditions:
            failed[condition], unknown = self._answered(condition)
            if failed[condition]:
                notes.append(f"{condition}: holds for {', '.join(failed[condition])}")
            if unknown:
                notes.append(f"{condition}: cannot be answered for {', '.join(unknown)}")
        return replace(self, fail_if=failed, notes=(*self.notes, *notes))

    def store(self, path: str | os.PathLike[str]) -> None:
        """Write `record` to a JSON file, whole or not at all.

        Raises:
            OSError: if the file cannot be written.
        """
        with written_whole(path) as aside:
            aside.write_text(json.dumps(self.record), encoding="utf-8")

    def figures(self, hdi_prob: float = 0.94) -> Mapping[str, Callable[[], Any]]:
        """The ranking, with the intervals that it was made with, and what stands beside it."""
        from rbpp import plots

        drawn: dict[str, Callable[[], Any]] = {
            "ranking": lambda: plots.plot_ranking(self.ranking),
            "score_by_rows": lambda: plots.plot_score_by_rows(self.ranking),
            "pairs": lambda: plots.plot_pairs(self.ranking, self.differences),
        }
        if self.series:
            drawn["series"] = lambda: plots.plot_series(self.ranking, self.series)
        return drawn

    def details(self) -> Mapping[str, Any]:
        """Ranking, differences, diagnostics and conditions."""
        return {
            "kind": self.kind,
            "ranking": self.ranking,
            "differences": self.differences,
            "diagnostics": self.diagnostics,
            "fail_if": self.fail_if,
        }

    def answer(self, view: View = DEFAULT_VIEW) -> tuple[str, ...]:
        """Who is first and how sure that is, and where numbers disagree."""
        return (*self.headline, *self.notes)

    def _answered(self, condition: str) -> tuple[list[str], list[str]]:
        posterior = inference_data.terms_of(self.idata)
        versions = [str(name) for name in posterior["version"].values]
        numbers = {line["name"]: dict(line) for line in self.ranking}
        for line in self.diagnostics:
            numbers[line["name"]] |= line
        known = {key for line in numbers.values() for key in line} | set(map(str, posterior))
        asked = check_condition(condition, versions, sorted(known))
        draws: dict[str, dict[str, np.ndarray]] = {}
        for name in versions:
            own = posterior.sel(version=name)
            draws[name] = {str(term): own[term].values.ravel() for term in posterior}
            for term, share in (("precision", "irrelevant_share"), ("coverage", "uncovered_share")):
                if share in draws[name]:
                    draws[name][term] = 1 - draws[name][share]
        return answer(asked, draws, numbers)

    def _body(self, view: View) -> list[Part]:
        """Ranking and differences, in place of the terms of every version."""
        ranking = ranking_table(self.ranking)
        return [Table(ranking), Table(difference_table(self.ranking, self.differences))]
