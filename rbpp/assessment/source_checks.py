"""What an assessment assumes of its sources, and what of it could be checked."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rbpp.assessment.share_terms import Shares
from rbpp.assessment.sources import GENERATED, Sources
from rbpp.checks import Check, verdict_of
from rbpp.mixtures.continuous import one_scale
from rbpp.mixtures.row_order import row_order

FEW_ROWS = 30
# Share of rows that repeat another from which a source has collapsed.
_MANY_COPIES = 0.05


def source_checks(sources: Sources) -> list[Check]:
    """Of the rows alone."""
    found: list[Check] = []
    if sources.roles[sources.task] != "target":
        found.append(
            Check(
                "target data",
                "unknown",
                "no target rows: the anchors stand in for the task, so that what is new on the "
                "task (novel) cannot be told from what is off it (irrelevant), and the KL gap has "
                "no anchors of its own to compare with",
            )
        )
    found.append(enough_rows({name: rows.size for name, rows in sources.rows.items()}))
    found.append(projected(sources.projection.dimension, float(sources.projection.explained.sum())))
    for name, rows in sources.rows.items():
        if rows.groups is not None:
            number = int(sources.units(name).max()) + 1
            message = f"{len(rows)} rows in {number} groups: intervals count groups, not rows"
            found.append(Check(f"groups of {name}", "holds", message, {"groups": number}))
        else:
            found.append(independent(sources, name))
    if not sources.embedding.text:
        found += [one_scale(rows, name) for name, rows in sources.vectors.items()]
    found += _repeated(sources) + _read(sources)
    if sources.places:
        found.append(_sampled(sources))
    return found


def enough_rows(counts: Mapping[str, int]) -> Check:
    """Whether every source has rows enough, by its number of rows."""
    few = {name: count for name, count in counts.items() if count < FEW_ROWS}
    return Check(
        "enough rows",
        verdict_of(not few),
        f"fewer than {FEW_ROWS} rows in {', '.join(few)}: its intervals are wide"
        if few
        else f"every source has at least {FEW_ROWS} rows",
        {"fewest": min(counts.values()), "few": few},
    )


def projected(dimension: int, explained: float) -> Check:
    """That the numbers are those of a projection."""
    return Check(
        "projection",
        "unknown",
        f"{dimension} principal components hold {explained:.0%} of the variance: informations and "
        "divergences are those of the projection, lower bounds of those of the whole rows",
        {"explained_variance": explained},
    )


def independent(sources: Sources, name: str) -> Check:
    """Whether rows that follow each other in a file are alike, in three principal components."""
    first = np.sort(np.unique(sources.units(name), return_index=True)[1])  # copies: reported apart
    return row_order(
        sources.coordinates[name][first, :3],
        f"rows of {name} do not depend on their neighbours",
        "name it (group=…)",
    )


def share_checks(sources: Sources, shares: Shares) -> list[Check]:
    """Of what the shares rest on."""
    found: list[Check] = []
    if shares.same:
        found.append(
            Check(
                "synthetic rows are other rows",
                "violated",
                f"the synthetic rows are the rows of the {sources.task}: every difference is 0 for "
                "that reason",
            )
        )
    refusal = shares.irrelevant.refusal
    found.append(
        Check(
            "style can be told from content",
            verdict_of(not refusal),
            refusal or f"by {sources.embedding}",
        )
    )
    if shares.marked is not None:
        found.append(
            Check(
                "marks",
                "holds",
                f"if one in twenty marks is wrong, the share off the task moves by "
                f"{shares.marked.moved:+.1%}",
                {"moved": shares.marked.moved},
            )
        )
    if shares.irrelevant.visibility is not None:
        found.append(
            Check(
                "a class that is left out can be seen",
                "unknown",
                f"{shares.irrelevant.visibility:.0%} of the rows of a class of the task look "
                "foreign to the others: at most, with classes, divides by it",
                {"visibility": shares.irrelevant.visibility},
            )
        )
    return found


def reference_check(values: Mapping[str, float], references: Mapping[str, float]) -> Check:
    """Numbers that two halves of the task have as well."""
    both = {n: v for n, v in values.items() if n in references and n != "style_separation"}
    large = {n: v for n, v in both.items() if references[n] > 0 and references[n] >= v}
    if not both:
        return Check(
            "beyond two halves of the task",
            "unknown",
            "the task has too few rows to compare two halves of it",
        )
    listed = ", ".join(f"{name} {references[name]:.3g} (here {v:.3g})" for name, v in large.items())
    return Check(
        "beyond two halves of the task",
        "undecided" if large else "holds",
        f"two halves of the task differ as much: {listed}"
        if large
        else "every number is larger than the same number for two halves of the task",
        {"as_large": sorted(large)},
    )


def known_share(least: float, most: float, truth: float) -> Check:
    """Whether at least and at most hold the off-task share that the generator recorded."""
    return Check(
        "true off-task share",
        verdict_of(least <= truth <= most),
        f"the generator recorded {truth:.1%} off-task rows; at least {least:.1%} and at most "
        f"{most:.1%} were said to be",
        {"truth": truth, "low": least, "high": most},
    )


def _repeated(sources: Sources) -> list[Check]:
    found = []
    for name in sources.names:
        own = sources.copies[name]
        if own.distinct == len(own.group):
            continue
        counted = "count as one row" if sources.roles[name] in GENERATED else "are kept"
        found.append(
            Check(
                f"rows of {name} are distinct",
                "violated" if own.near > _MANY_COPIES else "undecided",
                f"{len(own.group) - own.distinct} of {len(own.group)} rows repeat another "
                f"({own.exact:.0%} exactly, {own.near:.0%} nearly or exactly), the commonest "
                f"stands there {own.largest} times; {own.distinct} are distinct, and copies "
                f"{counted}",
                {"distinct": own.distinct, "exact": own.exact, "near": own.near},
            )
        )
    return found


def _read(sources: Sources) -> list[Check]:
    """Rows that the embedding model cut or could not read."""
    found = []
    for what, counts in (
        ("are read to their end", sources.embedding.cut),
        ("have words that the model knows", sources.embedding.unread),
    ):
        if not counts:
            continue
        few = {name: count for name, count in zip(sources.names, counts, strict=True) if count}
        found.append(
            Check(
                f"rows {what}",
                verdict_of(not few),
                "; ".join(f"{count} of {name} do not" for name, count in few.items())
                if few
                else f"by {sources.embedding}",
                {"rows": few},
            )
        )
    return found


def _sampled(sources: Sources) -> Check:
    sampled = [
        f"{len(sources.rows[name]):,} of {sources.rows[name].size:,} {name}"
        for name in sources.places
    ]
    return Check(
        "rows of the samples",
        "unknown",
        f"the numbers are those of {', '.join(sampled)} rows, drawn uniformly: intervals are "
        "those of the samples; other rows have the probabilities of their neighbours in them, and "
        "what is redundant among them is not known",
        {"rows": sum(len(rows) for rows in sources.rows.values())},
    )
