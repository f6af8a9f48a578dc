"""A comparison in sentences: who is first, what ties, and where scores and diagnostics disagree."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rbpp.assessment.comparison_rows import SURE
from rbpp.assessment.diagnostics import Diagnostics
from rbpp.assessment.ranking import Ranking
from rbpp.wording import chance, listed

_FEW = ("every set has enough rows to be ranked", "there are enough real rows")
# Share of a version's rows that are the reference's, beyond which its score is not one.
_TAKEN = 0.01
# Labels that the reference contradicts, more than in another version, of which a line tells.
_MORE_WRONG = 0.1
# What stands beside the score, and whether more of it is better.
_BESIDE = {
    "irrelevant_share": ("precision", -1),
    "uncovered_share": ("coverage", -1),
    "kl_synthetic": ("the divergence of its texts", -1),
}
_WHAT = {
    "labels": "log p(label | text)",
    "outputs": "log p(output | prompt)",
    "texts": "log p(text)",
}


def ties(ranking: Ranking) -> list[str]:
    """Versions that tie with the first: copies, and those equivalent to it with `SURE`."""
    first, *others = (line["name"] for line in ranking.lines)
    equal = dict(zip(ranking.names, _beside_first(ranking, "p_equivalent"), strict=True))
    return [
        name
        for name in others
        if equal[name] >= SURE or ranking.digests[name] == ranking.digests[first]
    ]


def _beside_first(ranking: Ranking, what: str) -> np.ndarray:
    """What the best version is to each other one."""
    return ranking.pairs[what][ranking.names.index(ranking.lines[0]["name"])]


def _measured(ranking: Ranking, what: str) -> Mapping[str, float]:
    """What a check measured of each version, or nothing."""
    return next((c.measured[what] for c in ranking.checks if what in c.measured), {})


def headline(ranking: Ranking) -> tuple[str, ...]:
    """The answer, or why there is none."""
    best = ranking.lines[0]
    larger = dict(zip(ranking.names, _beside_first(ranking, "p_larger"), strict=True))
    few = [c.message for c in ranking.checks if c.statement in _FEW and c.verdict != "holds"]
    equal = ties(ranking)
    open_ = [
        line["name"]
        for line in ranking.lines[1:]
        if line["name"] not in equal and larger[line["name"]] < SURE
    ]
    chances = (
        f"its score is the largest with probability {chance(best['p_best'])}, and the model "
        f"trained on it will be the best of all with probability {chance(best['p_trained_best'])}"
    )
    if equal:
        told = f"{listed([best['name'], *equal])} tie"
        if rest := len(ranking.lines) - len(equal) - 1:
            told += f" ahead of {rest} other{'' if rest == 1 else 's'}"
        told = f"{told}."
    else:
        told = f"{best['name']} ranks first: {chances}."
    lines = [told]
    if open_:
        lines.append(f"It is not told apart from {listed(open_)}.")
    taken = _measured(ranking, "copied_share")
    if given := {name: share for name, share in taken.items() if share > _TAKEN}:
        name, share = max(given.items(), key=lambda item: item[1])
        others = f" (and rows of {len(given) - 1} more)" if len(given) > 1 else ""
        lines.append(
            f"{share:.0%} of the rows of {name} are rows of the reference{others}: "
            "it is judged by what it was given. Take other real rows."
        )
    if few:
        lines.insert(0, f"Too few rows to rank by: {'; '.join(few)}.")
    return tuple(lines)


def notes(
    ranking: Ranking,
    terms: Mapping[str, np.ndarray],
    diagnosed: Mapping[str, Diagnostics],
    real_rows: int,
) -> tuple[str, ...]:
    """What the numbers are, and where they disagree."""
    best = ranking.lines[0]
    found = [
        f"Score: mean {_WHAT[ranking.kind]} of {real_rows:,} real rows, nats a row, by what is "
        "learned from each version."
    ]
    if best["real_rows"]:
        found[0] += (
            f" {best['real_rows']:,} real rows in place of {best['name']} would score "
            f"{best['score_of_real_rows']:.3g}, and {best['name']} scores {best['score']:.3g}."
        )
    if ranking.kind == "texts":
        found.append(
            "Texts alone predict little of what training gives; where versions have labels or "
            "outputs, name them."
        )
    equal = max(ranking.lines, key=lambda line: line["score_equal_size"])
    if equal["name"] != best["name"]:
        found.append(
            f"Size decides: {best['name']} is first as it is ({best['rows']:,} rows), "
            f"{equal['name']} at equal size ({ranking.settings['equal_size']:,} rows), with "
            f"probability {chance(equal['p_best_equal_size'])}."
        )
    else:
        found.append(f"{best['name']} is first as it is and at equal size.")
    for term, (said, sign) in _BESIDE.items():
        if term in terms:
            found += _disagreement(ranking, sign * terms[term], said)
    found += _contradicted(ranking)
    for name, one in diagnosed.items():
        found += [f"{name}: {refusal}" for refusal in one.refusals]
    return tuple(found)


def _disagreement(ranking: Ranking, values: np.ndarray, said: str) -> list[str]:
    """Whether another version than the first is better in a diagnostic, and sure to be."""
    names = ranking.names
    first = names.index(ranking.lines[0]["name"])
    flat = values.reshape(-1, values.shape[-1])
    known = ~np.isnan(flat).any(0)
    if not known[first]:
        return []
    other = int(np.where(known, flat.mean(0), -np.inf).argmax())
    if other == first or (flat[:, other] > flat[:, first]).mean() < SURE:
        return []
    return [f"{said} speaks for {names[other]} and not for {names[first]}."]


def _contradicted(ranking: Ranking) -> list[str]:
    """Whether the first has more labels that the reference contradicts than another one.

    Log-loss punishes a set for being sure: where classes overlap, a set whose wrong labels make it
    less sure can score above a clean one.
    """
    shares = _measured(ranking, "disagreement")
    first = ranking.lines[0]["name"]
    fewest = min(shares, key=lambda name: shares[name], default=first)
    if first not in shares or shares[first] - shares[fewest] < _MORE_WRONG:
        return []
    return [
        f"Labels speak for {fewest}: the reference contradicts {shares[first]:.0%} of the labels "
        f"of {first} and {shares[fewest]:.0%} of its."
    ]
