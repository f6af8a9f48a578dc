"""What may mislead a ranking: few rows, copies, labels that are missing, unlike or contradicted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from rbpp.assessment.label_score import wrong_labels
from rbpp.assessment.ranking_sources import MOST_GIVEN, Prepared
from rbpp.checks import Check, Verdict

# What checks are about that say whether there is enough to rank by.
ENOUGH_ROWS = "enough rows"
_FEW_ROWS, _FEW_REAL_ROWS, _FEW_OF_A_LABEL, _FEW_VOTERS = 20, 30, 5, 6
# Fleiss' kappa below which votes agree slightly at most (Landis and Koch, 1977).
_FLAT = 0.2


@dataclass(frozen=True)
class Consensus:
    """What stands for labels that real rows lack.

    Attributes:
        voters: sets, or generators where sets name theirs; copies of one set have one vote.
        agreement: Fleiss' kappa of their likeliest labels, see `label_score.agreement`.
        without_label: real rows that lack a label.
    """

    voters: int
    agreement: float
    without_label: int


@dataclass(frozen=True)
class Judges:
    """Real rows, with what stands for their labels.

    Attributes:
        weights: of the real rows in a score, (m,), with sum 1.
        target: label probabilities of the real rows, (m, labels), by the consensus of all sets
            where a row has no label; None without labels.
        consensus: on labels that real rows lack; None where none lacks one.
        apart: `target` for each set, whose own vote is left out; none where no set has a vote.
    """

    weights: np.ndarray
    target: Tensor | None = None
    consensus: Consensus | None = None
    apart: Sequence[Tensor] = ()

    def target_of(self, place: int) -> Tensor | None:
        """Label probabilities for the set in this place."""
        return self.apart[place] if self.apart else self.target


def checks(prepared: Prepared, judges: Judges, lines: list[dict[str, Any]]) -> list[Check]:
    """All checks of a ranking.

    Args:
        prepared: the sources.
        judges: of the sets.
        lines: of the ranking.
    """
    found = [*_rows(prepared), *_repeats(prepared), _sizes(lines)]
    if judges.target is not None:
        found += [*_labels(prepared, judges.target), _disagreement(prepared, judges.target)]
    if judges.consensus is not None:
        found.append(_consensus(judges.consensus))
    return found


def _listed(names: Iterable[str], between: str = ", ") -> str:
    names = list(names)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return between.join(names[:5]) + more


def unless(
    statement: str,
    bad: object,
    message: str,
    measured: Mapping[str, Any] | None = None,
    verdict: Verdict = "violated",
) -> Check:
    """A check that holds unless there is something bad, of which the message tells."""
    if not bad:
        return Check(statement, "holds", measured=measured or {})
    return Check(statement, verdict, message, measured or {})


def _rows(prepared: Prepared) -> list[Check]:
    few = {one.name: len(one.rows) for one in prepared.sets if len(one.rows) < _FEW_ROWS}
    count = len(prepared.real)
    found = [
        unless(
            "every set has enough rows to be ranked",
            few,
            f"fewer than {_FEW_ROWS} rows: {_listed(few)}",
            {"rows": few} if few else {},
        ),
        unless(
            "there are enough real rows",
            count < _FEW_REAL_ROWS,
            f"{count} real rows say little: {_FEW_REAL_ROWS} or more are wanted",
        ),
    ]
    return [replace(check, about=ENOUGH_ROWS) for check in found]


def _sizes(lines: list[dict[str, Any]]) -> Check:
    best, equal = lines[0], max(lines, key=lambda line: line["score_equal_size"])
    return unless(
        "the best set is the best at equal size too",
        best["name"] != equal["name"],
        f"{best['name']} is best as it is ({best['rows']} rows), {equal['name']} at equal size",
        verdict="undecided",
    )


def _repeats(prepared: Prepared) -> list[Check]:
    own = {one.name: one.repeated for one in prepared.sets}
    from_real = {one.name: one.given for one in prepared.sets}
    groups = Counter(prepared.copies.tolist())
    copies = [n for n, c in zip(prepared.names, prepared.copies, strict=True) if groups[c] > 1]
    repeated = [n for n, share in own.items() if share > 0.1]
    taken = [n for n, share in from_real.items() if share > MOST_GIVEN]
    left_out = ": of every set, the row nearest to the real row that is predicted is left out"
    left_out = left_out if prepared.kind == "texts" else ""
    return [
        unless(
            "no rows of a set repeat",
            repeated,
            f"more than a tenth of the rows repeat in {_listed(repeated)}",
            {"repeated_share": own},
        ),
        unless(
            "no two sets are copies of each other",
            copies,
            f"{_listed(copies)} have the same rows as another: they tie",
        ),
        unless(
            "no set has rows of the real rows that judge it",
            taken,
            f"{_listed(taken)} would be judged by rows that it was given{left_out}",
            {"copied_share": from_real},
        ),
    ]


def _labels(prepared: Prepared, target: Tensor) -> list[Check]:
    names = prepared.label_names
    shares = target.mean(0).numpy()
    counts = {
        one.name: np.bincount(one.second.numpy(), minlength=len(names)) for one in prepared.sets
    }

    def of_sets(holds: Callable[[np.ndarray], np.ndarray]) -> dict[str, list[str]]:
        found = {n: [names[c] for c in np.flatnonzero(holds(own))] for n, own in counts.items()}
        return {name: some for name, some in found.items() if some}

    lacking = of_sets(lambda own: (own == 0) & (shares > 1e-3))
    few = of_sets(lambda own: (own > 0) & (own < _FEW_OF_A_LABEL))
    missing = {one.name: one.missing for one in prepared.sets if one.missing}
    everywhere = np.sum(list(counts.values()), 0)
    foreign = [names[c] for c in np.flatnonzero((shares <= 1e-12) & (everywhere > 0))]
    unlike = {n: float(0.5 * np.abs(own / own.sum() - shares).sum()) for n, own in counts.items()}
    skewed = [name for name, distance in unlike.items() if distance > 0.25]
    return [
        unless(
            "every set has the labels of the real rows",
            lacking,
            _listed((f"{n} lacks {_listed(some)}" for n, some in lacking.items()), "; "),
            {"lacking": lacking} if lacking else {},
        ),
        unless(
            "the real rows have the labels of the sets",
            foreign,
            f"no real row has {_listed(foreign)}",
        ),
        unless(
            f"every label has {_FEW_OF_A_LABEL} rows or more",
            few,
            _listed((f"{n} has few of {_listed(some)}" for n, some in few.items()), "; "),
            {"few": few} if few else {},
            "undecided",
        ),
        unless(
            "every row has a label",
            missing,
            _listed((f"{n}: {m} rows without are left out" for n, m in missing.items()), "; "),
            {"missing": missing} if missing else {},
        ),
        unless(
            "the labels are balanced as in the real rows",
            skewed,
            f"another balance in {_listed(skewed)}",
            {"balance_distance": unlike},
            "undecided",
        ),
    ]


def _disagreement(prepared: Prepared, target: Tensor) -> Check:
    """Expected share of labels that the real rows, or the consensus on them, contradict."""
    statement = "the real rows do not contradict the labels"
    if len(prepared.real) < 10:
        return Check(statement, "unknown", "fewer than 10 real rows")
    classes = len(prepared.label_names)
    share = {}
    for one in prepared.sets:
        found = wrong_labels(one.rows, one.second, classes, prepared.real, target)
        share[one.name] = float(found.probability_wrong.mean())
    many = [name for name, value in share.items() if value > 0.2]
    return unless(
        statement,
        many,
        f"more than a fifth of the labels may be wrong in {_listed(many)}",
        {"disagreement": share},
        "undecided",
    )


def _consensus(agreed: Consensus) -> Check:
    messages = []
    if agreed.voters < _FEW_VOTERS:
        messages.append(f"{agreed.voters} voters, of which {_FEW_VOTERS} or more are wanted")
    if not agreed.agreement >= _FLAT:
        messages.append("the sets do not agree on labels of the real rows")
    return unless(
        "the consensus of the sets stands for labels that the real rows lack",
        messages,
        "; ".join(messages),
        asdict(agreed),
    )
