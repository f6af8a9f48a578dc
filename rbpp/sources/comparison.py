"""What a comparison of synthetic data sets consists of, and the conditions that are asked of it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

from rbpp import inference_data
from rbpp.display import Units, align
from rbpp.inference_data import InferenceData
from rbpp.result import Result

_CONDITION = re.compile(
    r"\s*(?:(?P<version>.+):)?\s*(?P<term>\w+)\s*(?P<sign>[<>])\s*(?P<value>[-+.\deE]+)"
    r"\s+with\s+(?P<probability>[.\d]+)\s*"
)


@dataclass(frozen=True, kw_only=True, repr=False)
class Comparison(Result):
    """What `compare` found: terms and `score` of every version, (chain, draw, version).

    Attributes:
        ranking: best first: `name`, `score`, `sd`, `hdi_low`, `hdi_high`, `p_best`, `rank_mean`,
            and `p_rank`, the probability of each rank; a larger score is better.
        differences: per term and pair of versions: `term`, `first`, `second`, `mean`, `sd`,
            `hdi_low`, `hdi_high` of first − second, `p_better`, `p_equivalent`, `p_worse` of the
            first, and `equivalent`, half the width of the region of practical equivalence.
        fail_if: conditions that were asked, each with the versions for which it holds.
    """

    label_before: ClassVar[str] = "version"

    idata: InferenceData
    ranking: Sequence[dict[str, Any]]
    differences: Sequence[dict[str, Any]]
    fail_if: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def asked(self, conditions: Sequence[str]) -> Comparison:
        """The same with the conditions of `fails` answered, in `fail_if` and in the notes.

        Raises:
            ValueError: as `fails`.
        """
        failed = {condition: fails(self, condition) for condition in conditions}
        holding = [
            f"{text}: holds for {', '.join(names)}" for text, names in failed.items() if names
        ]
        return replace(self, fail_if=failed, notes=(*self.notes, *holding))

    def figures(self, hdi_prob: float = 0.94) -> Mapping[str, Callable[[], Any]]:
        """The ranking, with the intervals that it was made with."""
        from rbpp import plots

        return {"ranking": lambda: plots.plot_ranking(self.ranking)}

    def details(self) -> Mapping[str, Any]:
        """Ranking, differences and conditions."""
        return {
            "ranking": self.ranking,
            "differences": self.differences,
            "fail_if": self.fail_if,
        }

    def _body(self, hdi_prob: float, units: Units, *, per_row: bool) -> str:
        """Ranking and differences, in place of the terms of every version."""
        ranking = [["rank", "version", "score", "sd", "low", "high", "P(best)", "mean rank"]]
        for place, line in enumerate(self.ranking, 1):
            ranking.append(
                [
                    str(place),
                    line["name"],
                    *(f"{line[key]:.4g}" for key in ("score", "sd", "hdi_low", "hdi_high")),
                    f"{line['p_best']:.2f}",
                    f"{line['rank_mean']:.1f}",
                ]
            )
        differences = [["term", "first − second", "mean", "low", "high", "P(better)", "P(equal)"]]
        for line in self.differences:
            differences.append(
                [
                    line["term"],
                    f"{line['first']} − {line['second']}",
                    *(f"{line[key]:.4g}" for key in ("mean", "hdi_low", "hdi_high")),
                    f"{line['p_better']:.2f}",
                    f"{line['p_equivalent']:.2f}",
                ]
            )
        return "\n\n".join([align(ranking), align(differences)])


def fails(comparison: Comparison, condition: str) -> list[str]:
    """Versions for which a condition holds with the probability that it names.

    Args:
        comparison: what `compare` returned.
        condition: `TERM > VALUE with PROBABILITY` (or `<`), for any version, or for the one named
            before a colon, `new: irrelevant_share > 0.1 with 0.9`.

    Raises:
        ValueError: if the condition cannot be read, or names an unknown term or version.
    """
    posterior = inference_data.terms_of(comparison.idata)
    asked = check_condition(condition, [str(name) for name in posterior["version"].values])
    if asked.term not in posterior:
        terms = [str(term) for term in posterior if not str(term).endswith("_mcse")]
        closest = difflib.get_close_matches(asked.term, terms, n=1)
        hint = f": did you mean {closest[0]!r}?" if closest else ""
        raise ValueError(f"Expected one of the terms {', '.join(terms)}; got {asked.term!r}{hint}")
    found = []
    for name in asked.versions:
        draws = posterior[asked.term].sel(version=name).values
        holds = draws > asked.value if asked.sign == ">" else draws < asked.value
        if holds.mean() >= asked.probability:
            found.append(name)
    return found


class Condition(NamedTuple):
    """`TERM SIGN VALUE with PROBABILITY`, of these versions."""

    versions: list[str]
    term: str
    sign: str
    value: float
    probability: float


def check_condition(condition: str, versions: list[str]) -> Condition:
    """The condition of `fails`, read before there is a comparison to ask.

    Args:
        condition: as for `fails`.
        versions: the names of all.

    Raises:
        ValueError: if the condition cannot be read, or names an unknown version.

    >>> check_condition("new: irrelevant_share > 0.1 with 0.9", ["old", "new"]).versions
    ['new']
    """
    match = _CONDITION.fullmatch(condition)
    if match is None:
        raise ValueError(
            f"Expected a condition as 'irrelevant_share > 0.1 with 0.9'; got {condition!r}"
        )
    try:
        value, required = float(match["value"]), float(match["probability"])
    except ValueError:
        raise ValueError(f"Expected numbers in the condition; got {condition!r}") from None
    if not 0 < required <= 1:
        raise ValueError(
            f"Expected a probability above 0, up to 1; got {required} in {condition!r}"
        )
    chosen = versions if match["version"] is None else [match["version"].strip()]
    if chosen[0] not in versions:
        raise ValueError(f"Expected one of the versions {', '.join(versions)}; got {chosen[0]!r}")
    return Condition(chosen, match["term"], match["sign"], value, required)
