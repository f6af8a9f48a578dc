"""Shares of rows off the task, uncovered, novel and copied, and style: numbers and rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rbpp.assessment.copies import CopiedRows, copied_rows, index_of_equal, same_rows
from rbpp.assessment.marks import MarkedShare, share_from_marks
from rbpp.assessment.neighbours import kth_distance
from rbpp.assessment.off_task import OffTask, VectorKind, novel, off_task, refused, uncovered
from rbpp.assessment.scores import LEAST_ROWS
from rbpp.assessment.sources import Sources
from rbpp.assessment.style import Style, style_of
from rbpp.assessment.weighted_rows import DRAWS, Array, Draws, interval
from rbpp.estimate import Estimate, exactly

# Rows of all first halves together, over which the shares of two halves are averaged.
_REFERENCE_ROWS = 500


@dataclass(frozen=True)
class Shares:
    """What is off the task, uncovered, novel and copied.

    Attributes:
        irrelevant: of the synthetic rows.
        uncovered: of the task's rows.
        style: of the synthetic rows.
        same: whether the synthetic rows are the task's.
        output: of the rows before curation, or None.
        novel: of the synthetic rows, or None.
        copied: synthetic rows that repeat anchors, or None.
        marked: what marks say, or None.
        references: what the same numbers are for two halves of the task.
    """

    irrelevant: OffTask
    uncovered: OffTask
    style: Style
    same: bool
    output: OffTask | None = None
    novel: OffTask | None = None
    copied: CopiedRows | None = None
    marked: MarkedShare | None = None
    references: Mapping[str, float] = field(default_factory=dict)

    @property
    def probability(self) -> Array:
        """Of every synthetic row to be off the task (n,); nan where nothing can be said."""
        return self.irrelevant.probability if self.marked is None else self.marked.probability

    @cached_property
    def terms(self) -> dict[str, Estimate]:
        """Draws of every share that can be told (num_samples,), by name."""
        found = {name: one.estimate for name, one in self._told.items()}
        if self.output is not None and not self.output.refusal:
            found["irrelevant_share_output"] = self.output.estimate
        if self.marked is not None:
            found["irrelevant_share"] = exactly(self.marked.draws)
        return found

    @cached_property
    def limits(self) -> dict[str, float]:
        """Single numbers: `NAME_at_least`, `NAME_at_most`, `copied_share`, `style_…`."""
        found: dict[str, float] = {}
        for name, one in self._told.items():
            found |= {f"{name}_at_least": one.at_least, f"{name}_at_most": one.at_most}
        seen, most = self.irrelevant.visibility, self.irrelevant.at_most_with_classes
        if seen is not None and most is not None and self.marked is None:
            found["irrelevant_share_at_most_with_classes"] = most
        if seen is not None and most is not None and not self.uncovered.refusal:
            divided = self.uncovered.at_most / max(seen, 1e-9)
            found["uncovered_share_at_most_with_classes"] = min(1.0, divided)
        if self.marked is not None:
            low, high = interval(self.marked.draws)
            found |= {"irrelevant_share_at_least": low, "irrelevant_share_at_most": high}
        if self.copied is not None:
            found["copied_share"] = self.copied.copied_share
        return found if self.same else found | _numbers_of(self.style)

    @property
    def least(self) -> float:
        """The largest share that either source has and the other lacks, at least."""
        names = ("irrelevant_share_at_least", "uncovered_share_at_least")
        return max(self.limits.get(name, 0.0) for name in names)

    @property
    def _told(self) -> dict[str, OffTask]:
        named = {
            "irrelevant_share": self.irrelevant,
            "uncovered_share": self.uncovered,
            "novel_share": self.novel,
        }
        return {n: one for n, one in named.items() if one is not None and not one.refusal}


def find_shares(
    sources: Sources, drawn: Draws = DRAWS, marks: Mapping[int, bool] | None = None
) -> Shares:
    """Shares of the synthetic source against the task.

    Args:
        sources: with `synthetic` and a task.
        drawn: draws of each share.
        marks: synthetic row to whether it is off the task.

    Raises:
        ValueError: if the task or the synthetic source has fewer than 10 rows.
    """
    kind = VectorKind(sources.embedding.lexical, sources.lifted)
    task, made = sources.task, sources.sample("synthetic")
    target, rows = sources.content(task), made.rows
    same = is_same(sources, task, "synthetic")
    if same:
        irrelevant, missed = _none(len(rows), drawn.count), _none(len(target), drawn.count)
    else:
        labels = classes_of(sources, task)
        classes = None if labels is None else np.array([label or "" for label in labels])
        irrelevant = off_task(target, made, drawn, kind, labels=classes)
        missed = _missed(sources, drawn, kind)
        if irrelevant.refusal:  # style is in the way of the other direction too
            missed = refused(missed.score, missed.refusal or irrelevant.refusal)
    output = added = copied = None
    if "output" in sources.names and len(sources.rows["output"]) >= LEAST_ROWS:
        output = off_task(target, sources.sample("output"), drawn, kind)
    anchors = sources.content("anchor") if "anchor" in sources.names else None
    if anchors is not None and task != "anchor" and len(anchors) >= LEAST_ROWS:
        added = novel(anchors, irrelevant, made, drawn, kind)
    references = _references(sources, drawn)
    if anchors is not None and len(np.unique(sources.vectors["anchor"], axis=0)) >= 3:
        copied = _copied(sources, None if task == "anchor" else target)
        if np.isfinite(copied.reference_share):
            references["copied_share"] = copied.reference_share
    return Shares(
        irrelevant,
        missed,
        style_of(target.astype(np.float32), rows.astype(np.float32)),
        same,
        output=output,
        novel=added,
        copied=copied,
        marked=share_from_marks(irrelevant.score, marks, drawn, made.weight) if marks else None,
        references=references,
    )


def _missed(sources: Sources, drawn: Draws, kind: VectorKind) -> OffTask:
    """The task's rows that the synthetic ones do not account for.

    So few distinct rows have no distances of their own to compare with: a row of the task is then
    covered if one of them is nearer to it than its fifth neighbour (Naeem and others, Reliable
    fidelity and diversity metrics for generative models, ICML 2020).
    """
    asked, rows = sources.sample(sources.task), sources.content("synthetic")
    if sources.copies["synthetic"].distinct >= LEAST_ROWS:
        return uncovered(asked, rows, drawn, kind)
    target = asked.rows
    near = kth_distance(target, target, min(5, len(target) - 1), own=True)
    away = kth_distance(target, rows, 1)
    apart = (away > near).astype(float)
    random = np.random.default_rng([drawn.seed, 9])
    weights = random.standard_exponential((drawn.count, len(target)))
    return OffTask(
        exactly(weights @ apart / weights.sum(1)).between(0.0, 1.0),
        probability=apart,
        score=away / np.maximum(near, 1e-9),
    )


def is_same(sources: Sources, first: str, second: str) -> bool:
    """Whether two sources hold the same rows."""
    one, other = sources.rows[first], sources.rows[second]
    if one.text is not None and other.text is not None:
        return same_rows(one.text, other.text)
    if sources.vectors[first].shape[1] != sources.vectors[second].shape[1]:
        return False
    arrays = [rows.embedding for rows in (one, other) if rows.columns is None]
    mine, theirs = arrays if len(arrays) == 2 else (None, None)
    if mine is not None and theirs is not None and mine.dtype != theirs.dtype:
        return same_rows(mine.astype("f4"), theirs.astype("f4"))  # one has half the digits
    return same_rows(sources.vectors[first], sources.vectors[second])


def classes_of(sources: Sources, name: str) -> list[str | None] | None:
    """Labels of a source's rows, if two classes of ten rows or more have all of them."""
    labels = sources.rows[name].labels
    if labels is None:
        return None
    counts = np.unique([label for label in labels if label is not None], return_counts=True)[1]
    return labels if (counts >= LEAST_ROWS).sum() >= 2 else None


def halves(
    sources: Sources, most: int, split: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two random halves of the task's independent units, of at most so many rows each."""
    unit = sources.units(sources.task)
    random = np.random.default_rng([most, len(unit), *[split] * (split > 0)])
    side = random.permutation(int(unit.max()) + 1)[unit] % 2
    first, second = np.flatnonzero(side == 0), np.flatnonzero(side == 1)
    return (
        np.sort(random.permutation(first)[:most]),
        np.sort(random.permutation(second)[:most]),
    )


def _references(sources: Sources, drawn: Draws) -> dict[str, float]:
    """Shares of one half of the task against the other, and its style.

    One split of a few rows may read anything from 0 to 9 %: shares are means over several.
    """
    target, most = sources.content(sources.task), len(sources.rows["synthetic"])
    first, second = halves(sources, most)
    if min(len(first), len(second)) < LEAST_ROWS:
        return {}
    found: dict[str, list[float]] = {"irrelevant_share": [], "uncovered_share": []}
    for split in range(max(1, _REFERENCE_ROWS // len(first))):
        one, other = (target[half] for half in halves(sources, most, split))
        if min(len(one), len(other)) < LEAST_ROWS:
            continue
        for name, compare in (("irrelevant_share", off_task), ("uncovered_share", uncovered)):
            shares = compare(one, other, drawn, VectorKind(numbers=sources.lifted))
            found[name] += [] if shares.refusal else [shares.share]
    style = style_of(target[first].astype(np.float32), target[second].astype(np.float32))
    means = {name: float(np.mean(values)) for name, values in found.items() if values}
    return means | _numbers_of(style)


def _numbers_of(style: Style) -> dict[str, float]:
    return {
        "style_offset": style.length.value.item(),
        "style_separation": style.separation.value.item(),
        "style_shift": style.shift.value.item(),
    }


def _copied(sources: Sources, held_out: np.ndarray | None) -> CopiedRows:
    found = copied_rows(sources.content("synthetic"), sources.content("anchor"), held_out)
    if not sources.lifted:
        return found
    # In few dimensions rows come as near as rounding without being the same.
    anchors, rows = (sources.vectors[name].astype(float) for name in ("anchor", "synthetic"))
    index = index_of_equal(np.concatenate([anchors, rows]))
    return replace(found, exact=np.isin(index[len(anchors) :], index[: len(anchors)]))


def _none(rows: int, num_samples: int) -> OffTask:
    """Of the same rows twice: nothing is foreign."""
    nothing = np.zeros(rows)
    return OffTask(exactly(np.zeros(num_samples)).between(0.0, 0.0), nothing, nothing)
