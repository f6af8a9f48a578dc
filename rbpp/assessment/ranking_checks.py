"""What may mislead a ranking: few rows, copies, labels that are missing, unlike or contradicted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

from rbpp.assessment.labels import wrong_labels
from rbpp.assessment.ranking_sources import MOST_GIVEN, Prepared, row_digests
from rbpp.checks import Check, Verdict

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


def checks(
    prepared: Prepared,
    target: Tensor | None,
    lines: list[dict[str, Any]],
    agreed: Consensus | None,
) -> list[Check]:
    """All checks of a ranking.

    Args:
        prepared: the sources.
        target: label probabilities of the real rows.
        lines: of the ranking.
        agreed: what stands for labels that real rows lack.
    """
    found = [_rows(prepared), _real_rows(prepared), *_repeats(prepared), _sizes(lines)]
    if prepared.kind == "labels" and target is not None:
        found += [*_labels(prepared, target), _disagreement(prepared, target)]
        if agreed is not None:
            found.append(_consensus(agreed))
    return found


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _rows(prepared: Prepared) -> Check:
    few = {
        n: len(r) for n, r in zip(prepared.names, prepared.rows, strict=True) if len(r) < _FEW_ROWS
    }
    return Check(
        "every set has enough rows to be ranked",
        "violated" if few else "holds",
        f"fewer than {_FEW_ROWS} rows: {_listed(few)}" if few else "",
        {"rows": few} if few else {},
    )


def _real_rows(prepared: Prepared) -> Check:
    count = len(prepared.real)
    enough = count >= _FEW_REAL_ROWS
    message = "" if enough else f"{count} real rows say little: {_FEW_REAL_ROWS} or more are wanted"
    return Check("there are enough real rows", "holds" if enough else "violated", message)


def _sizes(lines: list[dict[str, Any]]) -> Check:
    best, equal = lines[0], max(lines, key=lambda line: line["score_equal_size"])
    same = best["name"] == equal["name"]
    message = (
        ""
        if same
        else f"{best['name']} is best as it is ({best['rows']} rows), {equal['name']} at equal size"
    )
    return Check(
        "the best set is the best at equal size too", "holds" if same else "undecided", message
    )


def _repeats(prepared: Prepared) -> list[Check]:
    digests = [row_digests(r, r.new_zeros(len(r), 0)) for r in prepared.rows]
    own = {n: 1 - len(set(d)) / len(d) for n, d in zip(prepared.names, digests, strict=True)}
    from_real = dict(zip(prepared.names, prepared.given, strict=True))
    groups = Counter(prepared.copies.tolist())
    copies = [n for n, c in zip(prepared.names, prepared.copies, strict=True) if groups[c] > 1]
    repeated = [n for n, share in own.items() if share > 0.1]
    taken = [n for n, share in from_real.items() if share > MOST_GIVEN]
    left_out = ": of every set, the row nearest to the real row that is predicted is left out"
    left_out = left_out if prepared.kind == "texts" else ""
    return [
        Check(
            "no rows of a set repeat",
            "violated" if repeated else "holds",
            f"more than a tenth of the rows repeat in {_listed(repeated)}" if repeated else "",
            {"repeated_share": own},
        ),
        Check(
            "no two sets are copies of each other",
            "violated" if copies else "holds",
            f"{_listed(copies)} have the same rows as another: they tie" if copies else "",
        ),
        Check(
            "no set has rows of the real rows that judge it",
            "violated" if taken else "holds",
            f"{_listed(taken)} would be judged by rows that it was given{left_out}"
            if taken
            else "",
            {"copied_share": from_real},
        ),
    ]


def _labels(prepared: Prepared, target: Tensor) -> list[Check]:
    names = prepared.label_names
    shares = target.mean(0).numpy()
    lacking: dict[str, list[str]] = {}
    few: dict[str, list[str]] = {}
    unlike: dict[str, float] = {}
    for name, labels in zip(prepared.names, prepared.second, strict=True):
        counts = np.bincount(labels.numpy(), minlength=len(names))
        lost = [names[c] for c in np.flatnonzero((counts == 0) & (shares > 1e-3))]
        short = [names[c] for c in np.flatnonzero((counts > 0) & (counts < _FEW_OF_A_LABEL))]
        lacking |= {name: lost} if lost else {}
        few |= {name: short} if short else {}
        unlike[name] = float(0.5 * np.abs(counts / counts.sum() - shares).sum())
    missing = {n: m for n, m in zip(prepared.names, prepared.missing, strict=True) if m}
    foreign = [
        names[c]
        for c in np.flatnonzero(shares <= 1e-12)
        if any(int(c) in labels.tolist() for labels in prepared.second)
    ]
    skewed = [name for name, distance in unlike.items() if distance > 0.25]
    return [
        Check(
            "every set has the labels of the real rows",
            "violated" if lacking else "holds",
            "; ".join(f"{n} lacks {_listed(some)}" for n, some in list(lacking.items())[:5]),
            {"lacking": lacking} if lacking else {},
        ),
        Check(
            "the real rows have the labels of the sets",
            "violated" if foreign else "holds",
            f"no real row has {_listed(foreign)}" if foreign else "",
        ),
        Check(
            f"every label has {_FEW_OF_A_LABEL} rows or more",
            "undecided" if few else "holds",
            "; ".join(f"{n} has few of {_listed(some)}" for n, some in list(few.items())[:5]),
            {"few": few} if few else {},
        ),
        Check(
            "every row has a label",
            "violated" if missing else "holds",
            "; ".join(f"{n}: {m} rows without are left out" for n, m in list(missing.items())[:5]),
            {"missing": missing} if missing else {},
        ),
        Check(
            "the labels are balanced as in the real rows",
            "undecided" if skewed else "holds",
            f"another balance in {_listed(skewed)}" if skewed else "",
            {"balance_distance": unlike},
        ),
    ]


def _disagreement(prepared: Prepared, target: Tensor) -> Check:
    """Expected share of labels that the real rows, or the consensus on them, contradict."""
    statement = "the real rows do not contradict the labels"
    if len(prepared.real) < 10:
        return Check(statement, "unknown", "fewer than 10 real rows")
    share = {
        name: float(
            wrong_labels(
                rows, labels, len(prepared.label_names), prepared.real, target
            ).probability_wrong.mean()
        )
        for name, rows, labels in zip(prepared.names, prepared.rows, prepared.second, strict=True)
    }
    many = [name for name, value in share.items() if value > 0.2]
    return Check(
        statement,
        "undecided" if many else "holds",
        f"more than a fifth of the labels may be wrong in {_listed(many)}" if many else "",
        {"disagreement": share},
    )


def _consensus(agreed: Consensus) -> Check:
    verdict: Verdict = "holds"
    messages = []
    if agreed.voters < _FEW_VOTERS:
        messages.append(f"{agreed.voters} voters, of which {_FEW_VOTERS} or more are wanted")
    if not agreed.agreement >= _FLAT:
        messages.append("the sets do not agree on labels of the real rows")
    if messages:
        verdict = "violated"
    return Check(
        "the consensus of the sets stands for labels that the real rows lack",
        verdict,
        "; ".join(messages),
        asdict(agreed),
    )
