"""What every job returns: terms with their draws, checks, and what the numbers depend on."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

from rbpp import display, inference_data, wording
from rbpp.checks import Check, violations
from rbpp.display import DEFAULT_VIEW, Part, Units, View
from rbpp.inference_data import InferenceData, Term

if TYPE_CHECKING:
    import pandas as pd

    from rbpp.estimate import Estimate, Side


@dataclass(frozen=True, kw_only=True, repr=False)
class Result:
    """The base of every job's result. Information is in nats and per data set.

    Attributes:
        idata: `arviz.InferenceData`, or `xarray.DataTree` under ArviZ 1.x. The terms are in the
            group `posterior`, or in `prior` where no data was observed; None where a job has none.
        checks: what was looked at, and what was found.
        settings: what the numbers depend on.
        headline: the answer in a few plain sentences.
        notes: what a table of numbers cannot say of its terms, a line each.
        row_counts: of the data sets `anchor` and `synthetic`, or of a term's own rows under its
            name: what `per_row` divides by.
    """

    idata: InferenceData | None = None
    checks: tuple[Check, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    headline: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    row_counts: Mapping[str, int] = field(default_factory=dict)

    # Dimension whose label stands before a term's name in tables and JSON.
    label_before: ClassVar[str] = ""
    # Whether its checks are what the result is about, and shown one by one.
    every_check: ClassVar[bool] = False
    # So many notes are shown where nobody asks for all; None for all.
    few_notes: ClassVar[int | None] = 4

    @cached_property
    def terms(self) -> dict[str, Estimate]:
        """Name to value and Monte Carlo error, (chain, draw, …); sides where a term has them."""
        from rbpp.estimate import Estimate, exactly

        if self.idata is None:
            return {}
        import torch

        dataset = inference_data.terms_of(self.idata)

        def estimate(name: str) -> Estimate:
            value = torch.as_tensor(dataset[name].values.copy())
            error = dataset.get(f"{name}_mcse")
            if error is None:
                return exactly(value)
            return Estimate(value, torch.as_tensor(error.values.copy()).expand(value.shape))

        names = [
            name
            for name in map(str, dataset.data_vars)
            if "units" in dataset[name].attrs and not name.endswith("_mcse")
        ]
        sides = {f"{name}_{side}" for name in names for side in ("lower", "upper")}
        found = {name: estimate(name) for name in names if name not in sides}
        for name, value in found.items():
            if f"{name}_lower" in names and f"{name}_upper" in names:
                lower, upper = estimate(f"{name}_lower"), estimate(f"{name}_upper")
                found[name] = value.between(lower, upper)
        return found

    @property
    def has_draws(self) -> bool:
        """Whether there is InferenceData; a result that makes it on demand need not make it."""
        return self.idata is not None

    @property
    def versions(self) -> dict[str, str]:
        """Versions of rbpp and of the libraries that the numbers depend on."""
        return display.versions()

    def figures(self, hdi_prob: float = 0.94) -> Mapping[str, Callable[[], Any]]:
        """Name to a function that draws the figure, with intervals of `hdi_prob`, and returns its
        axes."""
        return {}

    def details(self) -> Mapping[str, Any]:
        """Further keys of the JSON object, which this kind of result has."""
        return {}

    def in_units(self, units: Units = "nats", *, per_row: bool = False) -> InferenceData | None:
        """InferenceData with information in other units.

        Args:
            units: nats or bits.
            per_row: divide by the number of rows.

        Raises:
            ValueError: if rows are asked for and the result knows no number of rows.
        """
        if self.idata is None:
            return None
        return display.convert(self.idata, units, self._divisors(per_row))

    def table(
        self, hdi_prob: float = 0.94, units: Units = "nats", *, per_row: bool = False
    ) -> dict[str, Term]:
        """Every term in numbers; see `rbpp.inference_data.term_table`."""
        return self._table(View(hdi_prob, units, per_row))

    def summary(
        self, hdi_prob: float = 0.94, units: Units = "nats", *, per_row: bool = False
    ) -> pd.DataFrame:
        """Every term in numbers, a row each.

        Args:
            hdi_prob: probability of the highest-density interval.
            units: nats or bits.
            per_row: information per row instead of per data set.

        Returns:
            Columns `mean`, `sd`, `hdi_low`, `hdi_high`, `mcse`.
        """
        import pandas as pd

        table = self._table(View(hdi_prob, units, per_row))
        return pd.DataFrame.from_dict(table, orient="index")

    def to_polars(
        self, hdi_prob: float = 0.94, units: Units = "nats", *, per_row: bool = False
    ) -> Any:
        """As `summary`, a `polars.DataFrame` whose first column is its index: `term`, or what a
        kind of result has in place of terms.

        Raises:
            ImportError: without polars.
        """
        try:
            import polars
        except ImportError:
            raise ImportError("Expected polars; install it with: pip install polars") from None
        frame = self.summary(hdi_prob, units, per_row=per_row)
        return polars.from_pandas(frame.rename_axis(frame.index.name or "term").reset_index())

    def to_json(
        self,
        hdi_prob: float = 0.94,
        units: Units = "nats",
        *,
        per_row: bool = False,
    ) -> str:
        """What the command prints with `--json`: one object; nan is null.

        Args:
            hdi_prob, units, per_row: as for `summary`.
        """
        return display.to_json(self.to_dict(View(hdi_prob, units, per_row)))

    def to_dict(
        self, view: View = DEFAULT_VIEW, settings: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """What `to_json` writes; `settings` are further ones, such as those of a command line."""
        return {
            "terms": self._table(view),
            "hdi_prob": view.hdi_prob,
            "audit": self.audit(view.units, per_row=view.per_row),
            "settings": {**(settings or {}), **self.settings},
            "versions": self.versions,
            **self.details(),
        }

    def audit(self, units: Units = "nats", *, per_row: bool = False) -> list[dict[str, Any]]:
        """The checks as JSON has them, in the units of the terms that they compare."""
        entries = [check.to_json() for check in self.checks]
        return display.convert_audit(entries, units, self._divisors(per_row))

    def save(
        self, path: str | os.PathLike[str], *, settings: Mapping[str, Any] | None = None
    ) -> None:
        """Write InferenceData with settings, checks and versions as attributes, to NetCDF.

        Args:
            path: of the file, which is written whole or not at all.
            settings: further settings, such as those of a command line.

        Raises:
            ValueError: if the result has no InferenceData.
            OSError: if the file cannot be written.
        """
        if self.idata is None:
            raise ValueError(
                "Expected a result with InferenceData to write; got one without: `to_json` has it"
            )
        attrs = {
            "settings": {**(settings or {}), **self.settings},
            "audit": self.audit(),
            "versions": self.versions,
        }
        encoded = {key: display.to_json(value) for key, value in attrs.items()}
        inference_data.write(inference_data.with_attrs(self.idata, **encoded), path)

    def reworded(self, said: Callable[[str], str]) -> Self:
        """The same with its texts through `said`, by which a command puts its options in the place
        of the arguments that they name."""
        found = copy(self)  # with what is kept of it: none of that is text
        vars(found).update(
            checks=tuple(check.reworded(said) for check in self.checks),
            headline=tuple(map(said, self.headline)),
            notes=tuple(map(said, self.notes)),
        )
        return found

    def answer(self, view: View = DEFAULT_VIEW) -> tuple[str, ...]:
        """The answer in plain sentences with their probabilities, in these units."""
        return self.headline

    def text(
        self,
        hdi_prob: float = 0.94,
        units: Units = "nats",
        *,
        per_row: bool = False,
        everything: bool = False,
    ) -> str:
        """Answer, terms, notes and checks as plain text.

        Args:
            hdi_prob, units, per_row: as for `summary`.
            everything: also terms and checks that are left out for brevity.
        """
        view = View(hdi_prob, units, per_row, rest_by="everything=True")
        parts = self.parts(view, everything=everything)
        return "\n\n".join(map(str, parts))

    def parts(self, view: View = DEFAULT_VIEW, *, everything: bool = False) -> list[Part]:
        """What `text` has, in pieces that the command prints to a terminal with its colours."""
        answer = self.answer(view)
        parts: list[Part] = [display.Lines(answer)] if answer else []
        parts += self._body(view)
        if everything and self.idata is not None:
            table = self._table(view)
            parts.append(display.format_terms(table, view.hdi_prob, self._units(view)))
        notes = tuple(note for note in self.notes if note not in answer)
        if not everything:
            notes = self._few(notes, view)
        if notes:
            parts.append(display.Lines(notes))
        checks = self.audit(view.units, per_row=view.per_row)
        if checks and (everything or self.every_check):
            parts.append(display.format_audit(checks))
        elif checks:
            parts += display.violated_and_rest(checks, view)
        return parts

    def _table(self, view: View) -> dict[str, Term]:
        shown = self.in_units(view.units, per_row=view.per_row)
        if shown is None:
            return {}
        return inference_data.term_table(shown, view.hdi_prob, prefix=self.label_before)

    def _body(self, view: View) -> list[Part]:
        """The terms that matter; a kind of result with tables of its own has them here."""
        table = self._table(view)
        if not table:
            return []
        units, references = self._units(view), self._references()
        return [display.group_terms(table, view, units, references, one_sided=self._one_sided())]

    def _units(self, view: View) -> dict[str, str]:
        """The units of every variable, as shown."""
        shown = self.in_units(view.units, per_row=view.per_row)
        terms = {} if shown is None else inference_data.terms_of(shown).items()
        return {str(name): str(term.attrs.get("units", "")) for name, term in dict(terms).items()}

    def _few(self, notes: tuple[str, ...], view: View) -> tuple[str, ...]:
        """The first notes and how many more there are; what a number depends on comes first."""
        if self.few_notes is None or len(notes) <= self.few_notes:
            return notes
        sides = tuple(f"{name}:" for name in self._one_sided())
        kept = [note for note in notes if sides and note.startswith(sides)]
        others = [note for note in notes if note not in kept]
        kept += others[: max(0, self.few_notes - len(kept))]
        shown = tuple(note for note in notes if note in kept)
        rest = len(notes) - len(shown)
        if not rest:
            return shown
        return (*shown, f"{wording.count(rest, 'more note')}{view.hint()}.")

    def _one_sided(self) -> Mapping[str, Side]:
        """Terms that are known from one side alone, and from which."""
        return {}

    def _references(self) -> Mapping[str, float]:
        """The same numbers for two halves of the task's rows, where there are some."""
        return {}

    def _divisors(self, per_row: bool) -> Mapping[str, int] | None:
        if per_row and not self.row_counts:
            raise ValueError("Expected rows to divide by; got a result without any data set")
        return self.row_counts if per_row else None

    def __str__(self) -> str:
        """`text`, as the command prints it."""
        return self.text()

    def __repr__(self) -> str:
        broken = len(violations(self.checks, required=False))
        return (
            f"<{type(self).__name__}: {len(self.table())} terms, {len(self.checks)} checks, "
            f"{broken} violated>"
        )

    def plot(self, name: str | None = None, hdi_prob: float = 0.94) -> Any:
        """Draw a figure of this result, and return its axes.

        Args:
            name: of the figure, a key of `figures`; the first where absent.
            hdi_prob: probability of the intervals.

        Raises:
            ValueError: if there is no such figure.
        """
        drawn = self.figures(hdi_prob)
        chosen = next(iter(drawn), None) if name is None else name
        if chosen is None or chosen not in drawn:
            known = ", ".join(drawn) or "none: this result has no figure"
            raise ValueError(f"Expected one of the figures {known}; got {name}")
        return drawn[chosen]()

    def _repr_html_(self) -> str:
        """For a notebook: the answer, what matters, and all terms and checks to unfold."""
        shown = [
            f"<pre>{html.escape(part)}</pre>" if isinstance(part, str) else part._repr_html_()
            for part in self.parts()
        ]
        folded = ""
        if self.idata is not None:
            frame = self.summary().to_html(float_format="{:.4g}".format, na_rep="–")
            folded += f"<details><summary>All terms</summary>{frame}</details>"
        if self.checks:
            checks = display.format_audit(self.audit())._repr_html_()
            folded += f"<details><summary>All checks</summary>{checks}</details>"
        return "\n".join([*shown, folded])
