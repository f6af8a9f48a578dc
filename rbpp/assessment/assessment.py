"""What an assessment of synthetic data consists of: numbers, tables, checks and answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd

from rbpp.display import DEFAULT_VIEW, View
from rbpp.estimate import Estimate
from rbpp.inference_data import InferenceData, Term
from rbpp.result import Result
from rbpp.variables import VARIABLES


@dataclass(frozen=True, kw_only=True, repr=False)
class Assessment(Result):
    """The result of `rbpp.assess`, and all that a report of it needs.

    In `idata`, `posterior` has the terms as (chain, draw), every draw one of its own, and
    `source_weights` (chain, draw, source, component). The headline are the answers.

    Attributes:
        numbers: terms that are single numbers: `NAME_at_least`, `NAME_at_most`, `copied_share`,
            `style_…`, `kl_…_lower`, and divergences that have no upper or no lower end in these
            samples: medians between the ends that there are.
        references: of a term's name, the same number for two halves of the task's rows.
        rows: one line per row of every source (of the samples, where there are some):

            - `source`, `id`, `group` (missing where there are none), `text` (likewise);
            - `off_task`: probability that a generated row is off the task; `novel`: that a
              synthetic row is on the task and where the anchors have nothing; `uncovered`: that a
              row of the task lies where the synthetic data has nothing; nan for rows of which it
              is not asked, and where it cannot be told;
            - `redundancy`: how much nearer the row's nearest neighbour in its own source is than
              that of a typical row there, as the log of the ratio of distances; above 0 the row
              says what another says, and a repeated row has the largest value, 10;
            - `copy`: `"copy"` or `"paraphrase"` of the anchor `copy_of`, or empty;
            - `wrong_label`, `suggested_label`: where rows have labels;
            - `component`, `component_probability`: the likeliest component and how likely it is;
            - `x`, `y`: place on the map (see `axes`).
        components: one line per component, the index being its number, heaviest in the synthetic
            data first: `part` (`"shared"` K, `"unsampled"` J, `"irrelevant"` L, `"uncovered"` and
            `"empty"`), the mean probabilities of its rows `p_irrelevant`, `p_uncovered`,
            `p_unsampled`, `share_SOURCE` per source (posterior mean), `nearest` (list of up to
            three texts or ids), `keywords` (list; empty where there is no text), and on the map its
            mean `x`, `y` and covariance `xx`, `xy`, `yy`.
        labels: one line per label, or None; see `rbpp.assessment.tables.Labels`.
        answers: mappings with `question`, `sentence`, `probability` (that the sentence's claim
            holds; nan where it is none), `verdict` (`"good"`, `"bad"` or `"unclear"`).
        score: of every synthetic row (n,), how far off the task it looks: the covariate of marks.
        axes: what `x` and `y` of the map are.
        said: what its advice goes through; see `reworded`.
    """

    idata: InferenceData
    numbers: Mapping[str, Estimate] = field(default_factory=dict)
    references: Mapping[str, float] = field(default_factory=dict)
    rows: pd.DataFrame
    components: pd.DataFrame
    labels: pd.DataFrame | None = None
    answers: Sequence[dict[str, Any]]
    score: np.ndarray
    axes: tuple[str, str]
    said: Callable[[str], str] = str

    @cached_property
    def synthetic(self) -> pd.DataFrame:
        """The lines of the synthetic rows."""
        return self.rows[self.rows["source"] == "synthetic"]

    @property
    def task(self) -> str:
        """What stands for the task: `"target"`, or `"anchor"` in its place."""
        return "target" if "share_target" in self.components else "anchor"

    @property
    def texts(self) -> list[str]:
        """Texts of the synthetic rows, or their ids where there are none: what is marked."""
        own = self.synthetic
        return [
            text if isinstance(text, str) else str(name)
            for text, name in zip(own["text"], own["id"], strict=True)
        ]

    def ask(self, path: Any, count: int = 20) -> None:
        """Write the rows to mark as a CSV file; see `rbpp.assessment.marks.write_sheet`.

        Args:
            path: of the file.
            count: of rows.

        Raises:
            ValueError: if the numbers are those of a sample, whose rows a file does not number.
        """
        from rbpp.assessment.marks import rows_to_ask, write_sheet

        if "sample_rows" in self.settings:
            raise ValueError("Expected sources that are read whole to mark rows of; got samples")
        chosen = rows_to_ask(self.score, count)
        write_sheet(path, chosen.tolist(), self.texts, list(self.synthetic["id"].astype(str)))

    def reworded(self, said: Callable[[str], str]) -> Self:
        """As of every result, with answers and advice."""
        found = super().reworded(said)
        answers = [{**line, "sentence": said(line["sentence"])} for line in self.answers]
        vars(found).update(answers=answers, said=said)
        return found

    def _table(self, view: View) -> dict[str, Term]:
        """Every term in numbers; single numbers have no `sd`."""
        found = super()._table(view)
        for name, number in self.numbers.items():
            nats = VARIABLES[name].units == "nats"
            scale = math.log(2) if nats and view.units == "bits" else 1.0
            mean, low, high = (
                value.item() / scale if value.isfinite() else None
                for value in (number.value, *number.bounds)
            )
            found[name] = {"mean": mean, "sd": None, "hdi_low": low, "hdi_high": high, "mcse": None}
        return found

    def figures(self, hdi_prob: float = 0.94) -> Mapping[str, Callable[[], Any]]:
        """The map of the rows, and the shares and divergences."""
        from rbpp import plots

        shares = [name for name in self.terms if name.endswith(("_share", "_divergence"))]
        return {
            "map": lambda: plots.plot_map(self.rows, self.components, self.axes),
            "shares": lambda: plots.plot_forest(self.idata, shares, hdi_prob),
        }

    def details(self) -> Mapping[str, Any]:
        """Answers, references, and the tables of components and labels."""
        found: dict[str, Any] = {
            "answers": self.answers,
            "references": dict(self.references),
            "components": self.components.reset_index().to_dict("records"),
        }
        if self.labels is not None:
            found["labels"] = self.labels.to_dict("records")
        return found

    def answer(self, view: View = DEFAULT_VIEW) -> tuple[str, ...]:
        """The answers, and last what to do."""
        from rbpp.assessment.answers import ADVICE, VERDICTS, advice, headline

        verdict, steps = advice(self)
        following = " ".join([VERDICTS[verdict], *steps[:2]]).removesuffix(".")
        return (*self.headline, *headline([{"question": ADVICE, "sentence": following}]))

    def _units(self, view: View) -> dict[str, str]:
        found = super()._units(view)
        for name in self.numbers:
            found[name] = view.units if VARIABLES[name].units == "nats" else VARIABLES[name].units
        return found

    def _references(self) -> Mapping[str, float]:
        return self.references
