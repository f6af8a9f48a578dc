"""A comparison in rows and in sentences, which HTML, Markdown and the terminal render.

Who is first, what ties, and where scores and diagnostics disagree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rbpp.assessment.ranking_checks import ENOUGH_ROWS
from rbpp.wording import chance, count, is_share, listed, quantity, shortened

if TYPE_CHECKING:
    from rbpp.assessment.compare import Diagnostics
    from rbpp.assessment.ranking import Ranking
    from rbpp.estimate import Estimate

# A difference is told with this probability, and a tie is called one.
SURE = 0.95
# Versions whose deciding rows are shown, rows of each on either side, characters of each.
_VERSIONS, _ROWS, _LONGEST = 8, 3, 200
# Pairs of versions in words; the figure has all of them.
_PAIRS = 15
# More lines than this of differences are in the JSON object alone.
_MOST_DIFFERENCES = 12
_FULL = ("score", "score_equal_size")
# Of a ranking alone: one less a share that is a variable.
_SHARES = ("precision", "coverage")
SCORED = {
    "labels": "the label of real rows given their text",
    "outputs": "the output of real rows given their prompt",
    "texts": "the text of real rows",
}
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
Line = Mapping[str, Any]


def ranking_table(ranking: Sequence[Line]) -> list[list[str]]:
    """Versions, best first, with precision and coverage where they are known; a heading first."""
    header = ["version", "score", "P(best)", "P(trained best)", "equal size: score", "P(best)"]
    shares = _SHARES if any(_known(line["precision"]) for line in ranking) else ()
    lines = [[*header, *shares]]
    for line in ranking:
        lines.append(
            [
                f"{line['name']} ({count(line['rows'], 'row')})",
                _interval(line, "score"),
                chance(line["p_best"]),
                chance(line["p_trained_best"]),
                quantity(line["score_equal_size"]),
                chance(line["p_best_equal_size"]),
                *(quantity(line[key], share=True) for key in shares),
            ]
        )
    return lines


def difference_table(ranking: Sequence[Line], differences: Sequence[Line]) -> list[list[str]]:
    """Differences from the best version, those of scores first; a heading before them."""
    best = ranking[0]["name"]
    shown = [one for one in differences if best in (one["first"], one["second"])]
    shown = sorted(shown, key=lambda one: one["term"] not in _FULL)[:_MOST_DIFFERENCES]
    return [
        ["term", "first − second", "difference", "P(better)", "P(equal)"],
        *(
            [
                one["term"],
                f"{one['first']} − {one['second']}",
                _interval(one, "mean", share=one["term"] in _SHARES or is_share(one["term"])),
                chance(one["p_better"]),
                chance(one["p_equivalent"]),
            ]
            for one in shown
        ),
    ]


def ranking_rows(ranking: Sequence[Line]) -> list[list[str]]:
    """Rank, version, score [of real rows], probabilities, equal size and rows, best first."""
    found = []
    for place, line in enumerate(ranking, 1):
        score, real = _interval(line, "score"), line["score_of_real_rows"]
        found.append(
            [
                str(place),
                line["name"],
                f"{score} [{quantity(real)}]" if _known(real) else score,
                chance(line["p_best"]),
                chance(line["p_trained_best"]),
                f"{quantity(line['score_equal_size'])} ({chance(line['p_best_equal_size'])})",
                f"{line['rows']:,}",
            ]
        )
    return found


def pair_rows(differences: Sequence[Line]) -> list[list[str]]:
    """Who is better than whom in the score, best first."""
    lines = [line for line in differences if line["term"] == "score"]
    keys = ("p_larger", "p_equivalent", "p_trained_better")
    return [
        [line["first"], line["second"], _interval(line, "mean"), *(chance(line[k]) for k in keys)]
        for line in lines[:_PAIRS]
    ]


def diagnostic_rows(diagnostics: Sequence[Line]) -> dict[str, Any]:
    """What stands beside the score, a row a version."""
    names = list(dict.fromkeys(key for line in diagnostics for key in line if key != "name"))
    return {
        "header": ["version", *(name.replace("_", " ") for name in names)],
        "rows": [[line["name"], *(quantity(line.get(n)) for n in names)] for line in diagnostics],
        "numbers": range(1, len(names) + 1),
    }


def deciding_rows(ranking: Sequence[Line], influence: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows that add most to the score of a version, and those that take most from it."""
    found: list[dict[str, Any]] = []
    for name in (line["name"] for line in ranking):
        own = influence[influence["version"] == name]
        if own.empty or len(found) == _VERSIONS:
            continue
        ordered = own.sort_values("influence", ascending=False)
        helping, harming = ordered.head(_ROWS), ordered.tail(_ROWS).iloc[::-1]
        found.append({"name": name, "helping": _quotes(helping), "harming": _quotes(harming)})
    return found


def _quotes(rows: pd.DataFrame) -> list[tuple[str, str]]:
    found = []
    for row in rows.itertuples():
        text = row.text if isinstance(row.text, str) else f"row {row.id}"
        label = f", label {row.label}" if isinstance(row.label, str) else ""
        found.append((shortened(text, _LONGEST), f"{row.id}{label}: {row.influence:+.2g} nats"))
    return found


def _interval(line: Line, key: str, *, share: bool = False) -> str:
    return quantity(line[key], line["hdi_low"], line["hdi_high"], share=share)


def _known(value: float | None) -> bool:
    return value is not None and bool(np.isfinite(value))


def ties(ranking: Ranking) -> list[str]:
    """Versions that tie with the first: copies, and those equivalent to it with `SURE`."""
    first, *others = (line["name"] for line in ranking.lines)
    equal = _beside_first(ranking, "p_equivalent")
    return [
        name
        for name in others
        if equal[name] >= SURE or ranking.digests[name] == ranking.digests[first]
    ]


def _beside_first(ranking: Ranking, what: str) -> dict[str, float]:
    """What the best version is to each one, by name."""
    first = ranking.names.index(ranking.lines[0]["name"])
    return dict(zip(ranking.names, ranking.pairs[what][first], strict=True))


def headline(ranking: Ranking) -> tuple[str, ...]:
    """The answer, or why there is none."""
    best = ranking.lines[0]
    larger = _beside_first(ranking, "p_larger")
    few = [
        check.message
        for check in ranking.checks
        if check.about == ENOUGH_ROWS and check.verdict != "holds"
    ]
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
    taken = ranking.measured["copied_share"]
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
    terms: Mapping[str, Estimate],
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


def _disagreement(ranking: Ranking, term: Estimate, said: str) -> list[str]:
    """Whether another version than the first is better in a diagnostic, and sure to be."""
    names = ranking.names
    first = names.index(ranking.lines[0]["name"])
    flat = term.value.flatten(0, 1).numpy()
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
    shares: dict[str, float] = ranking.measured.get("disagreement", {})
    first = ranking.lines[0]["name"]
    fewest = min(shares, key=lambda name: shares[name], default=first)
    if first not in shares or shares[first] - shares[fewest] < _MORE_WRONG:
        return []
    return [
        f"Labels speak for {fewest}: the reference contradicts {shares[first]:.0%} of the labels "
        f"of {first} and {shares[fewest]:.0%} of its."
    ]
