"""What an assessment assumes of its sources, and what of it could be checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from rbpp.assessment.share_terms import Shares
from rbpp.assessment.sources import GENERATED, Sources
from rbpp.checks import Check, Verdict, verdict_of
from rbpp.mixtures.continuous import one_scale
from rbpp.mixtures.row_order import row_order

FEW_ROWS = 30
# Share of rows that repeat another from which a source has collapsed.
_MANY_COPIES = 0.05


def source_checks(sources: Sources) -> Iterator[Check]:
    """Of the rows alone."""
    if sources.roles[sources.task] != "target":
        yield Check(
            "target data",
            "unknown",
            "no target rows: the anchors stand in for the task, so that what is new on the "
            "task (novel) cannot be told from what is off it (irrelevant), and the KL gap has "
            "no anchors of its own to compare with",
        )
    counts = {name: rows.size for name, rows in sources.rows.items()}
    few = {name: count for name, count in counts.items() if count < FEW_ROWS}
    message = f"every source has at least {FEW_ROWS} rows"
    if few:
        message = f"fewer than {FEW_ROWS} rows in {', '.join(few)}: its intervals are wide"
    measured = {"fewest": min(counts.values()), "few": few}
    yield Check("enough rows", verdict_of(not few), message, measured)
    explained = float(sources.projection.explained.sum())
    yield Check(
        "projection",
        "unknown",
        f"{sources.projection.dimension} principal components hold {explained:.0%} of the "
        "variance: informations and divergences are those of the projection, lower bounds of "
        "those of the whole rows",
        {"explained_variance": explained},
    )
    for name, rows in sources.rows.items():
        if rows.groups is not None:
            number = sources.unit_count(name)
            message = f"{len(rows)} rows in {number} groups: intervals count groups, not rows"
            yield Check(f"groups of {name}", "holds", message, {"groups": number})
        else:
            yield independent(sources, name)
    if not sources.embedding.text:
        yield from (one_scale(rows, name) for name, rows in sources.vectors.items())
    yield from _repeated(sources)
    yield from _read(sources)
    if sources.places:
        sampled = [
            f"{len(sources.rows[name]):,} of {counts[name]:,} {name}" for name in sources.places
        ]
        yield Check(
            "rows of the samples",
            "unknown",
            f"the numbers are those of {', '.join(sampled)} rows, drawn uniformly: intervals are "
            "those of the samples; other rows have the probabilities of their neighbours in them, "
            "and what is redundant among them is not known",
            {"rows": sum(len(rows) for rows in sources.rows.values())},
        )


def independent(sources: Sources, name: str) -> Check:
    """Whether rows that follow each other in a file are alike, in three principal components."""
    first = np.sort(np.unique(sources.units(name), return_index=True)[1])  # copies: reported apart
    return row_order(
        sources.coordinates[name][first, :3],
        f"rows of {name} do not depend on their neighbours",
        "name it (group=…)",
    )


def share_checks(sources: Sources, shares: Shares) -> Iterator[Check]:
    """Of what the shares rest on."""
    if shares.same:
        yield Check(
            "synthetic rows are other rows",
            "violated",
            f"the synthetic rows are the rows of the {sources.task}: every difference is 0 for "
            "that reason",
        )
    refusal, seen = shares.irrelevant.refusal, shares.irrelevant.visibility
    message = refusal or f"by {sources.embedding}"
    yield Check("style can be told from content", verdict_of(not refusal), message)
    if shares.marked is not None:
        moved = shares.marked.moved
        message = f"if one in twenty marks is wrong, the share off the task moves by {moved:+.1%}"
        yield Check("marks", "holds", message, {"moved": moved})
    if seen is not None:
        yield Check(
            "a class that is left out can be seen",
            "unknown",
            f"{seen:.0%} of the rows of a class of the task look foreign to the others: at most, "
            "with classes, divides by it",
            {"visibility": seen},
        )


def reference_check(values: Mapping[str, float], references: Mapping[str, float]) -> Check:
    """Numbers that two halves of the task have as well."""
    statement = "beyond two halves of the task"
    both = {n: v for n, v in values.items() if n in references and n != "style_separation"}
    large = {n: v for n, v in both.items() if references[n] > 0 and references[n] >= v}
    if not both:
        message = "the task has too few rows to compare two halves of it"
        return Check(statement, "unknown", message)
    message = "every number is larger than the same number for two halves of the task"
    if large:
        listed = [f"{name} {references[name]:.3g} (here {v:.3g})" for name, v in large.items()]
        message = f"two halves of the task differ as much: {', '.join(listed)}"
    verdict: Verdict = "undecided" if large else "holds"
    return Check(statement, verdict, message, {"as_large": sorted(large)})


def known_share(least: float, most: float, truth: float) -> Check:
    """Whether at least and at most hold the off-task share that the generator recorded."""
    return Check(
        "true off-task share",
        verdict_of(least <= truth <= most),
        f"the generator recorded {truth:.1%} off-task rows; at least {least:.1%} and at most "
        f"{most:.1%} were said to be",
        {"truth": truth, "low": least, "high": most},
    )


def _repeated(sources: Sources) -> Iterator[Check]:
    for name, own in sources.copies.items():
        if own.distinct == len(own.group):
            continue
        counted = "count as one row" if sources.roles[name] in GENERATED else "are kept"
        yield Check(
            f"rows of {name} are distinct",
            "violated" if own.near > _MANY_COPIES else "undecided",
            f"{len(own.group) - own.distinct} of {len(own.group)} rows repeat another "
            f"({own.exact:.0%} exactly, {own.near:.0%} nearly or exactly), the commonest "
            f"stands there {own.largest} times; {own.distinct} are distinct, and copies {counted}",
            {"distinct": own.distinct, "exact": own.exact, "near": own.near},
        )


def _read(sources: Sources) -> Iterator[Check]:
    """Rows that the embedding model cut or could not read."""
    for what, counts in (
        ("are read to their end", sources.embedding.cut),
        ("have words that the model knows", sources.embedding.unread),
    ):
        if not counts:
            continue
        few = {name: count for name, count in zip(sources.names, counts, strict=True) if count}
        said = "; ".join(f"{count} of {name} do not" for name, count in few.items())
        message = said or f"by {sources.embedding}"
        yield Check(f"rows {what}", verdict_of(not few), message, {"rows": few})
