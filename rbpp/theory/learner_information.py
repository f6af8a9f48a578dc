"""Informations of the learner's parameters W about the parts of the chain. All in nats.

W depends on data sets that are themselves random, so p(W | prompt) is an integral. What is left of
I(S_gen; W) once some sites c are held fixed needs none: for fixed c, I(S; W | c) is the information
of a learner of data sets drawn given c. The chain rule then has I(c; W) = I(S; W) − I(S; W | c).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rbpp.estimate import Estimate, exactly, mean_estimate
from rbpp.processes.handlers import FREE_SITES, PROMPT_SITES
from rbpp.processes.replicas import Replicas, Values
from rbpp.theory.information import contrastive_bounds, variational_upper_bound
from rbpp.theory.learners import (
    FOLDS,
    Learner,
    LearnerPosterior,
    PreparedLearner,
    divergences,
)
from rbpp.theory.model_factor import factor_kind, output_with_factor
from rbpp.theory.settings import SampleSizes

# Contrastive samples: the lower bound cannot exceed log 64 = 4.2 nats, the cost is the square.
CONTRASTIVE_SAMPLES = 64
# The same for data sets that share what is held fixed, of which there are several groups.
_INNER_CONTRASTIVE_SAMPLES = 16
_TESTED = 4  # W per outer sample and half, in the contrast of outer samples
# Of the distance between fits across and within few data sets, whose errors cancel to first
# order, what may be left: in 8 dimensions and 32 data sets 0.05 to 0.1, in 2 next to nothing.
_UNCANCELLED = 0.05
# Standard errors by which a value may lie beyond its sides, which are estimates too.
_CLEAR = 2.0
# Standard errors by which one upper side has to be below another to replace it. At 2, a noisy
# leave-one-out bound undercut a sound variational one in one world of forty, and Lemma 4.8 seemed
# violated there.
_OVERRULES = 4.0


@dataclass(frozen=True)
class Trained:
    """A learner and what it learned from the rows of a site, of every data set in every world.

    Attributes:
        replicas, values: the process in its worlds, and draws of it.
        site: whose rows are learned from.
        prepared, learned: the learner, and q(W | S).
        generator: source of W.
    """

    replicas: Replicas
    values: Values
    site: str
    prepared: PreparedLearner
    learned: LearnerPosterior
    generator: torch.Generator

    @staticmethod
    def of(
        learner: Learner,
        replicas: Replicas,
        values: Values,
        site: str,
        generator: torch.Generator,
    ) -> Trained:
        """Prepare the learner on pilot rows, and train it."""
        prepared = learner.prepare(pilot_rows(replicas, site), generator)
        learned = prepared.fit(replicas.rows(values, site))
        return Trained(replicas, values, site, prepared, learned=learned, generator=generator)

    @property
    def count(self) -> int:
        """Data sets in a world."""
        return self.values.count

    @property
    def information(self) -> Estimate:
        """I(S; W); see `learner_information`."""
        return learner_information(self.learned, self.generator)


def pilot_rows(replicas: Replicas, site: str) -> Tensor:
    """Rows of a data set of every world that no learner is trained on: (worlds, n, d)."""
    return replicas.rows(replicas.draw(1, "pilot"), site)[:, 0]


@dataclass(frozen=True)
class ConditionalInformation:
    """I(S; W | c) for sites c held fixed, from learners of data sets that share them.

    Attributes:
        learned: q(W | S), (worlds, outer, inner).
        information: I(S; W | c), per world.
        outer, inner: values of c, and data sets for each.
    """

    learned: LearnerPosterior
    information: Estimate
    outer: int
    inner: int


class InformationOfHeld(NamedTuple):
    """I(c; W) by a difference of informations, `plain`, and by paired data sets.

    `rest` is what the plain difference takes from I(S; W): its error is independent of that of
    I(S; W), the error of the difference is not.
    """

    plain: Estimate
    paired: Estimate
    rest: Estimate


def learner_information(
    learned: LearnerPosterior, generator: torch.Generator, *, pairs: int = CONTRASTIVE_SAMPLES
) -> Estimate:
    """I(S; W) of data sets (…, R) between its sides.

    Lower side: InfoNCE. Upper side: the smaller of the variational and the leave-one-out bound.
    Value: the variational formula with r the closest distribution of q's own family, fitted within
    and across data sets, in the proportion in which both fits' errors cancel to first order.

    Args:
        learned: q(W | S) of the data sets.
        generator: source of W.
        pairs: contrastive samples.
    """
    across, within = divergences(learned)
    count = across.shape[-1]
    few = learned.select(slice(0, min(count, pairs)))
    low, high = few.cross_log_prob(few.draw(generator))
    own = torch.eye(low.shape[-1], dtype=torch.bool, device=low.device)
    # Where the density is itself only bounded, each side takes the bound that keeps it valid.
    lower = contrastive_bounds(torch.where(own, low, high))[0]
    leave_one_out = contrastive_bounds(torch.where(own, high, low))[1]
    upper = _smaller(variational_upper_bound(across), leave_one_out)
    best = mean_estimate(_middle(across, within))
    usable = best.value.isfinite()
    return Estimate(
        torch.where(usable, best.value, (lower.value + upper.value) / 2),
        torch.where(usable, best.standard_error, upper.standard_error),
        count,
    ).between(lower, upper)


def conditional_information(
    trained: Trained, held: Iterable[str], sizes: SampleSizes, label: str
) -> ConditionalInformation | None:
    """I(S_gen; W | held sites), by learners of several data sets for each of several values.

    None where a model factor below the output cannot be held while the prompt varies.

    Args:
        trained: the learner of S_gen; its first data sets give the values of held sites.
        held: sites held fixed; all else that matters is drawn afresh.
        sizes: outer samples, as many as `groups`, and inner samples.
        label: names the draws.
    """
    outer, inner = min(sizes.groups, trained.count), sizes.inner
    replicas, values, generator = trained.replicas, trained.values, trained.generator
    names = set(held)
    shifted = "model_factor" in names and factor_kind(replicas) == "below"
    if shifted:  # it follows from the output
        names.discard("model_factor")
    # Idle sites have no part in W: a draw of them would be wasted.
    idle = values.of(*FREE_SITES, *(["anchor"] if "prompt" in names else []))
    given = idle.first(1) | values.of(*names).first(outer).repeated(inner)
    if shifted and "output" not in names:
        fresh = replicas.draw(outer * inner, f"{label}, prompts", given)
        factor = values.first(outer).repeated(inner)["model_factor"]
        output = output_with_factor(replicas, fresh, factor)
        if output is None:
            return None
        given |= fresh.of("anchor", *PROMPT_SITES) | {"output": output}
    drawn = replicas.draw(outer * inner, label, given)
    learned = trained.prepared.fit(replicas.rows(drawn, "synthetic")).grouped(outer)
    each = learner_information(learned, generator, pairs=_INNER_CONTRASTIVE_SAMPLES)
    found = _over_outer_samples(each)
    across, within = divergences(learned)
    left = _UNCANCELLED * (across - within).mean((-1, -2))
    return ConditionalInformation(learned, found.widened(left), outer, inner)


def information_of_held(
    total: Estimate,
    trained: Trained,
    held: ConditionalInformation,
    ceilings: Iterable[Estimate | None] = (),
) -> InformationOfHeld:
    """I(held; W) = I(S; W) − I(S; W | held), between its sides, in two ways.

    Lower side: InfoNCE of W among outer samples, with scores fitted to other data sets of each; it
    bounds whatever the fit (Poole et al. 2019, equation 10). Upper side: the smallest of the upper
    side of I(S; W), the `ceilings`, and the difference of opposite sides. Value: the plain
    difference, or that of divergences of the same data sets to the distribution of W over all outer
    samples and over their own; both kept between the sides. Pairing cancels what differs between
    data sets; where outer samples differ more it only loses draws.

    Args:
        total: I(S; W) of the learner.
        trained: the learner, with nothing held.
        held: what is left with the part held.
        ceilings: further upper bounds, by data processing.
    """
    assert total.upper is not None
    lower = _not_negative(_contrast_of_outer_samples(held, trained.generator))
    plain = _named_difference(total, held.information)
    assert plain.upper is not None
    upper = _smaller(plain.upper, replace(total.upper, method="information of all data"))
    for ceiling in ceilings:
        if ceiling is not None:
            upper = _smaller(upper, replace(ceiling, method="data processing"))
    across, within = divergences(trained.learned)
    own = _middle(*divergences(held.learned))
    excess = (across - _middle(across, within)).mean(-1)  # of a fit to other data sets
    apart = held.learned.divergence(trained.learned.grouped(1)) - own
    paired = mean_estimate(apart.mean(-1) - excess.unsqueeze(-1))
    plain, left = _kept(plain, lower, upper), held.information
    rest = Estimate(total.value - plain.value, left.standard_error, left.count)
    return InformationOfHeld(plain, _kept(paired, lower, upper), rest)


def information_given_held(whole: ConditionalInformation, part: ConditionalInformation) -> Estimate:
    """I(b; W | a) = I(S; W | a) − I(S; W | a, b), where `whole` holds a and `part` a and b."""
    difference = _named_difference(whole.information, part.information)
    assert difference.lower is not None
    assert difference.upper is not None
    assert whole.information.upper is not None
    lower = _not_negative(difference.lower)
    return _kept(difference, lower, _smaller(difference.upper, whole.information.upper))


def _over_outer_samples(each: Estimate) -> Estimate:
    """The mean over outer samples (worlds, outer), with the error of their spread."""
    found = mean_estimate(each.value)
    return replace(
        each,
        value=found.value,
        standard_error=found.standard_error,
        lower=None if each.lower is None else _over_outer_samples(each.lower),
        upper=None if each.upper is None else _over_outer_samples(each.upper),
    )


def _middle(across: Tensor, within: Tensor) -> Tensor:
    """Between divergences to distributions fitted to the other data sets and to all.

    A fit of p parameters to R data sets costs about p/2R out of sample and gains as much within.
    """
    folds = min(FOLDS, across.shape[-1])
    share = folds / (2 * folds - 1)  # across has (folds − 1) / folds of the data, within all
    return share * within + (1 - share) * across


def _contrast_of_outer_samples(
    held: ConditionalInformation, generator: torch.Generator
) -> Estimate:
    """mean [ score_j(W_j) − log mean_k score_k(W_j) ], with scores fitted to the other half."""
    index = torch.arange(held.inner)
    sides = []
    for half in (0, 1):
        tested, fitted = index[index % 2 == half][:_TESTED], index[index % 2 != half]
        drawn = held.learned.select(tested).draw(generator)
        scores = held.learned.critic(_merged(drawn), fitted)
        scores = scores.unflatten(-2, (held.outer, len(tested)))  # (…, outer, W, scored by)
        own = scores.diagonal(dim1=-3, dim2=-1).mT
        sides.append((own - scores.logsumexp(-1) + math.log(held.outer)).mean(-1))
    found = mean_estimate(torch.stack(sides).mean(0), "lower", method="contrast of outer samples")
    return replace(found, limit=math.log(held.outer))


def _merged(drawn: Any) -> Any:
    """W (worlds, outer, count, …) as (worlds, outer · count, …), whatever holds it."""
    if isinstance(drawn, Tensor):
        return drawn.flatten(1, 2)
    if isinstance(drawn, dict):
        return {name: value.flatten(1, 2) for name, value in drawn.items()}
    return type(drawn)(*(value.flatten(1, 2) for value in drawn))


def _named_difference(first: Estimate, second: Estimate) -> Estimate:
    """first − second with opposite sides; ∞ − ∞ bounds nothing and counts as ∞."""
    return _without_nan(first - second)


def _without_nan(estimate: Estimate) -> Estimate:
    return replace(
        estimate,
        value=estimate.value.nan_to_num(math.inf),
        method="difference",
        lower=None if estimate.lower is None else _without_nan(estimate.lower),
        upper=None if estimate.upper is None else _without_nan(estimate.upper),
    )


def _kept(value: Estimate, lower: Estimate, upper: Estimate) -> Estimate:
    """The value between these sides, or beyond by at most a few of their errors."""
    # Sides are estimates too: where their errors cross them, they meet.
    upper = replace(upper, value=torch.maximum(upper.value, lower.value), direction="upper")
    inside = torch.minimum(
        torch.maximum(value.value, lower.value - _CLEAR * lower.standard_error),
        upper.value + _CLEAR * upper.standard_error.nan_to_num(0.0, posinf=0.0),
    )
    return Estimate(inside, value.standard_error, value.count).between(lower, upper)


def _smaller(first: Estimate, second: Estimate) -> Estimate:
    """Per world the smaller upper side, the second only if smaller by more than the errors of both.

    The smallest of several noisy numbers would be too small.
    """
    margin = _OVERRULES * (first - second).standard_error
    smaller = second.value + margin.nan_to_num(0.0, posinf=0.0) < first.value
    return _chosen(first, second, smaller)


def _not_negative(first: Estimate) -> Estimate:
    """Per world the larger of a lower side and zero."""
    return _chosen(first, exactly(torch.zeros_like(first.value), "zero"), first.value < 0)


def _chosen(first: Estimate, second: Estimate, choose: Tensor) -> Estimate:
    """Per world one of two sides, with method and limit of whichever is it in most worlds."""
    common = second if bool(choose.double().mean() > 0.5) else first
    return Estimate(
        torch.where(choose, second.value, first.value),
        torch.where(choose, second.standard_error, first.standard_error),
        first.count,
        first.direction,
        method=common.method,
        limit=common.limit,
    )
