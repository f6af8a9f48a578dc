"""Terms of a chain: what estimators return, and what follows from it by arithmetic.

A term is known by its name in `rbpp.variables`. One that is not described there is an error: no
table would show it. Information is in nats and per data set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rbpp.estimate import Estimate
from rbpp.theory import lemmas
from rbpp.theory.lemmas import LemmaSetting
from rbpp.theory.model_factor import Kind
from rbpp.variables import require_described


@dataclass
class EstimatedTerms:
    """What an estimator found.

    Attributes:
        terms: name to estimate.
        missing: name to the reason why there is no such term.
        notes: name to what the estimate stands for, where that needs saying.
        rests: for an information of W that is I(S_gen; W) minus an estimate of its own, that
            estimate: its error is independent of that of I(S_gen; W), the information's is not.
        paired: the same informations in another way, between which `WorldEstimates.settled`
            chooses.
    """

    terms: dict[str, Estimate] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    rests: dict[str, Estimate] = field(default_factory=dict)
    paired: dict[str, Estimate] = field(default_factory=dict)

    def __ior__(self, other: EstimatedTerms) -> EstimatedTerms:
        for name, found in vars(self).items():
            found |= getattr(other, name)
        return self


@dataclass(frozen=True, kw_only=True)
class ProcessFacts:
    """What the terms and the audit need to know of a process and its learners.

    Attributes:
        factor: where the process has the model factor.
        prompt_random: whether the prompt is more than a function of the anchors.
        curated: whether S_gen is other than the output.
        discrete: whether rows of S_gen are letters or counts.
        output_random: whether the output is sampled.
        losses: smallest and largest loss in [0, 1] of W on fresh rows, where it has a loss.
        rows: rows of the data sets `anchor` and `synthetic`.
        learner, anchor_learner: what they are, in words.
        coordinates: numbers or letters in all rows of these data sets.
    """

    factor: Kind
    prompt_random: bool
    curated: bool
    discrete: bool
    output_random: bool
    losses: tuple[float, float] | None
    rows: dict[str, int]
    learner: str
    anchor_learner: str
    coordinates: dict[str, int] = field(default_factory=dict)


class Terms(dict[str, Tensor]):
    """Values of terms by name; a term that is described but not there is nan.

    Args:
        values: name to value; all of one shape.
        uppers: upper sides of some of them, for bounds that stay bounds only with those.

    >>> terms = Terms({"ggmi": torch.tensor(1.0)})
    >>> terms["entropy_gap"].item()
    nan
    """

    def __init__(
        self, values: Mapping[str, Tensor], uppers: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__(values)
        self.uppers = uppers or {}

    def __missing__(self, name: str) -> Tensor:
        require_described([name])
        return torch.full_like(next(iter(self.values())), math.nan).detach()

    def upper(self, name: str) -> Tensor:
        """The upper side where there is one, with the derivative of the term itself."""
        value = self[name]
        return value if name not in self.uppers else value + (self.uppers[name] - value).detach()


# By arithmetic alone, in this order: each may use those before it, and what the lemmas need too.
DERIVED: dict[str, Callable[[Terms, LemmaSetting], Tensor]] = {
    "prompting_inefficiency": lambda t, _: lemmas.prompting_inefficiency(
        t["entropy_prompt_factor"], t["information_prompt_output"]
    ),
    "prompting_factor": lambda t, _: lemmas.prompting_factor(
        t["entropy_prompt_factor"], t["information_prompt_output"]
    ),
    "entropy_gap": lambda t, _: t["entropy_anchor"] - t["entropy_synthetic"],
    "entropy_gap_output": lambda t, _: t["entropy_anchor"] - t["entropy_output"],
    "entropy_anchor_given_output": lambda t, _: (
        t["entropy_anchor"] - t["information_anchor_output"]
    ),
    "entropy_anchor_given_learner": lambda t, _: (
        t["entropy_anchor"] - t["information_anchor_synthetic_learner"]
    ),
    "entropy_anchor_given_anchor_learner": lambda t, _: (
        t["entropy_anchor"] - t["information_anchor_learner"]
    ),
    "entropy_synthetic_given_learner": lambda t, _: (
        t["entropy_synthetic"] - t["information_synthetic_learner"]
    ),
    "compression_bottleneck": lambda t, _: lemmas.compression_bottleneck(
        t["information_model_factor_learner"], t["information_prompt_learner"]
    ),
    "efficiency": lambda t, _: lemmas.efficiency(t["curation_leak"], t["prompting_inefficiency"]),
    "ggmi": lambda t, _: lemmas.ggmi(
        t["information_anchor_learner"], t["information_synthetic_learner"]
    ),
    "learner_gap": lambda t, _: (
        t["entropy_anchor_given_learner"] - t["entropy_anchor_given_anchor_learner"]
    ),
    "anchor_retention": lambda t, _: lemmas.anchor_retention(
        t["entropy_anchor_given_output"], t["entropy_anchor_given_learner"]
    ),
    "information_output_learner": lambda t, _: (
        t["information_synthetic_learner"] - t["curation_leak"]
    ),
}


def absences(found: EstimatedTerms, facts: ProcessFacts, setting: LemmaSetting) -> dict[str, str]:
    """Why there is no such term, by name, of those that would follow from others by arithmetic.

    What is lacking is named; its own reason, where there is one, is in `found.missing`.

    Args:
        found: the estimates, and the reasons of missing ones.
        facts: of the process.
        setting: of the lemmas.
    """
    shape = next((term.value for term in found.terms.values()), torch.zeros(1)).double()
    there = [name for name, term in found.terms.items() if not bool(term.value.isnan().all())]
    terms = _Traced({name: torch.ones_like(shape) for name in (*there, *found.rests)})
    add_identities(terms, facts)
    add_derived(terms, setting)
    reasons = {}
    for name, roots in terms.lacking.items():
        if roots and name not in found.missing:
            lacks = " and ".join(roots)
            told = any(root in found.missing for root in roots)
            verb = "is" if len(roots) == 1 else "are"
            reasons[name] = f"needs {lacks}, which {verb} {'missing' if told else 'not estimated'}"
    return reasons


class _Traced(Terms):
    """Terms that remember which of them each was made of: reads before a write belong to it."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__(values)
        self.lacking: dict[str, list[str]] = {}
        self._read: list[str] = []

    def __getitem__(self, name: str) -> Tensor:
        self._read += self.lacking.get(name, [] if name in self else [name])
        return super().__getitem__(name)

    def __setitem__(self, name: str, value: Tensor) -> None:
        # An identity gives an estimated term another way: what it lacks is then lacking anyway.
        self.lacking[name] = list(dict.fromkeys(self._read))
        self._read = []
        super().__setitem__(name, value)


def add_derived(terms: Terms, setting: LemmaSetting) -> None:
    """Add whatever follows from the terms by arithmetic, estimated or exact."""
    for name, formula in DERIVED.items():
        terms[name] = formula(terms, setting)


def add_identities(terms: Terms, facts: ProcessFacts) -> None:
    """Add the terms that equal others in this kind of process."""
    terms["entropy_output"] = terms["information_gain"] + terms["information_prompt_output"]
    if not facts.curated:
        terms["entropy_synthetic"] = terms["entropy_output"]
    if not facts.prompt_random:
        # The prompt is a function of the anchors: downstream it carries what they carry.
        terms["information_anchor_output"] = terms["information_prompt_output"]
        terms["information_anchor_synthetic_learner"] = terms["information_prompt_learner"]
    if facts.factor == "above":
        return
    if "entropy_model_factor" in terms:
        terms["entropy_model_factor"] = terms["information_gain"]
    # e_M is all that the prompt leaves open: the chain rule of I(M(p); W).
    rest = (
        terms["information_synthetic_learner"]
        - terms["curation_leak"]
        - terms["information_prompt_learner"]
    )
    terms["information_model_factor_learner_given_prompt"] = rest
    if facts.factor == "absent":
        terms["information_model_factor_learner"] = terms[
            "information_model_factor_learner_given_prompt"
        ]
