"""How much of each part of the chain reaches the learner: informations with W. All in nats.

W is downstream of data sets that are themselves random, so that p(W | prompt) is an integral. What
is left of I(S_gen; W) once some sites are held fixed needs none: for fixed c, I(S; W | c) is
that of a learner of data sets drawn given c, and I(c; W) = I(S; W) − I(S; W | c) by the chain rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rbpp.estimate import Estimate
from rbpp.processes.replicas import Replicas, Values
from rbpp.theory.factors import factor_kind, output_with_factor
from rbpp.theory.information import Bracket, golden_formula, mean_estimate, sandwich
from rbpp.theory.learners import FOLDS, Learned, Prepared, divergences

# Data sets in one sandwich: its lower side is cut at log 64 = 4.2 nats, its cost is the square.
SANDWICH_PAIRS = 64
# The same for data sets that share what is held, of which there are several groups.
_HELD_PAIRS = 16
_TESTED = 4  # W per setting and half in the contrast of settings
# Standard errors by which a value may lie beyond its sides, which are estimates too.
_CLEAR = 2.0
# By which a side has to be tighter than another to replace it. At 2, in one world of forty a noisy
# sandwich undercut a sound golden formula, and Lemma 4.8 seemed violated there.
_OVERRULES = 4.0


@dataclass(frozen=True)
class Held:
    """Learners of data sets that share what is held fixed: (worlds, groups, inner).

    Attributes:
        learned: the laws q(W | S), grouped.
        information: I(S; W | held), per world.
        groups, inner: how many settings of what is held, and data sets for each.
    """

    learned: Learned
    information: Bracket
    groups: int
    inner: int


def learner_information(
    learned: Learned, count: int, generator: torch.Generator, *, pairs: int = SANDWICH_PAIRS
) -> Bracket:
    """I(S; W) of `count` data sets (…, R): sandwich and golden formula, on either side the tighter.

    The value is the golden formula with r the closest law of q's own family, fitted within and
    across data sets, in the proportion in which the errors of both fits cancel to first order.
    """
    across, within = divergences(learned, count)
    golden = golden_formula(across)
    few = learned.select(slice(0, min(count, pairs)))
    low, high = few.cross_log_prob(few.draw(generator))
    own = torch.eye(low.shape[-1], dtype=torch.bool, device=low.device)
    # Where the density itself is only bounded, each side of the sandwich takes what keeps it valid.
    lower = sandwich(torch.where(own, low, high))[0]
    upper = sandwich(torch.where(own, high, low))[1]
    best = mean_estimate(_middle(across, within))
    upper, upper_by = _smaller(golden, "golden formula", upper, "sandwich")
    usable = best.value.isfinite()
    value = Estimate(
        torch.where(usable, best.value, (lower.value + upper.value) / 2),
        torch.where(usable, best.standard_error, upper.standard_error),
        count,
    )
    return Bracket(lower, upper, "sandwich", upper_by, value)


def held_information(
    replicas: Replicas,
    prepared: Prepared,
    values: Values,
    held: Iterable[str],
    *,
    groups: int,
    inner: int,
    label: str,
    generator: torch.Generator,
) -> Held | None:
    """I(S_gen; W | held sites): learners of fresh data sets, `inner` for each of `groups` settings.

    `None` where a model factor below the output cannot be held while the prompt varies.

    Args:
        replicas: the process in its worlds.
        prepared: the learner.
        values: draws whose first `groups` replicates give the settings.
        held: sites held fixed; what is not downstream of them and matters is drawn afresh.
        groups, inner: number of settings and of data sets for each, both at least 2.
        label: names the draws.
        generator: source of W.
    """
    names = set(held)
    shifted = "model_factor" in names and factor_kind(replicas) == "below"
    if shifted:  # it follows from the output
        names.discard("model_factor")
    given = {
        name: values[name][:, :groups].repeat_interleave(inner, 1)
        for name in names
        if name in values
    }
    # What has no part in W is not worth drawing again.
    idle = ["target", "unprompted", *(["anchor"] if "prompt" in names else [])]
    given |= {name: values[name][:, :1] for name in idle if name in values and name not in given}
    if shifted and "output" not in names:
        fresh = replicas.draw(groups * inner, f"{label}, prompts", given=given)
        factor = values["model_factor"][:, :groups].repeat_interleave(inner, 1)
        output = output_with_factor(replicas, fresh, factor)
        if output is None:
            return None
        prompts = ("anchor", "prompt", "prompt_factor")
        given |= {name: fresh[name] for name in prompts if name in fresh}
        given["output"] = output
    drawn = replicas.draw(groups * inner, label, given=given)
    learned = prepared.fit(replicas.rows(drawn, "synthetic")).grouped(groups)
    each = learner_information(learned, inner, generator, pairs=_HELD_PAIRS)
    assert each.value is not None

    def averaged(side: Estimate) -> Estimate:
        found = mean_estimate(side.value, side.direction)
        return Estimate(found.value, found.standard_error, side.count, side.direction)

    bracket = Bracket(
        averaged(each.lower),
        averaged(each.upper),
        each.lower_by,
        each.upper_by,
        averaged(each.value),
    )
    return Held(learned, bracket, groups, inner)


def carried_information(
    total: Bracket,
    everything: Learned,
    count: int,
    held: Held,
    generator: torch.Generator,
    ceilings: Iterable[Estimate] = (),
) -> tuple[Bracket, Estimate | None]:
    """I(held; W) = I(S; W) − I(S; W | held), between rigorous sides.

    The lower side contrasts W with laws fitted to other data sets of every setting: a lower bound
    whatever the fit (Poole et al. 2019, equation 10). The upper side is the smallest of the upper
    side of I(S; W), what data processing allows (`ceilings`), and the difference of opposite sides.
    The value is the plain difference, or that of divergences of the same data sets to the law of W
    in all settings and to that in their own, whichever has the smaller error; kept between the
    sides.

    Args:
        total: I(S; W).
        everything: the laws of `count` data sets with nothing held, whose information is `total`.
        held: the laws with the part held.
        generator: source of W.
        ceilings: further upper bounds.

    Returns:
        The information, and where the plain difference is its value, what was taken from I(S; W):
        their errors are independent, that of the difference is not independent of I(S; W)'s.
    """
    lower = _contrast(held, generator)
    zero = Estimate(torch.zeros_like(lower.value), torch.zeros_like(lower.value), lower.count)
    lower, lower_by = _larger(lower, "contrast of settings", zero, "zero")
    difference = _difference(total.upper, held.information.lower)
    upper, upper_by = difference, "difference"
    upper, upper_by = _smaller(upper, upper_by, total.upper, "information of all data")
    for ceiling in ceilings:
        upper, upper_by = _smaller(upper, upper_by, ceiling, "data processing")
    across, within = divergences(everything, count)
    own = _middle(*divergences(held.learned, held.inner))
    excess = (across - _middle(across, within)).mean(-1)  # of a law fitted to other data sets
    apart = held.learned.divergence(everything.grouped(1)) - own
    paired = mean_estimate(apart.mean(-1) - excess.unsqueeze(-1))
    plain = _difference(total.best(), held.information.best())
    # Where data sets differ more than settings do, pairing cancels it; else it only loses draws.
    # One choice for all worlds: choosing in each would favour errors that look small by chance.
    use_plain = bool(plain.standard_error.square().mean() < paired.standard_error.square().mean())
    found = _kept(plain if use_plain else paired, lower, upper, lower_by, upper_by)
    if not use_plain:
        return found, None
    left = held.information.best()
    return found, Estimate(total.best().value - found.best().value, left.standard_error, left.count)


def split_information(whole: Held, part: Held) -> Bracket:
    """I(b; W | a) = I(S; W | a) − I(S; W | a, b), for what `part` holds beyond `whole`."""
    first, second = whole.information, part.information
    lower = _difference(first.lower, second.upper)
    zero = Estimate(torch.zeros_like(lower.value), torch.zeros_like(lower.value), lower.count)
    lower, lower_by = _larger(lower, "difference", zero, "zero")
    upper, upper_by = _smaller(
        _difference(first.upper, second.lower), "difference", first.upper, first.upper_by
    )
    return _kept(_difference(first.best(), second.best()), lower, upper, lower_by, upper_by)


def _middle(across: Tensor, within: Tensor) -> Tensor:
    """Between divergences to laws fitted to the rest and to all, whose errors cancel about.

    A fit of p parameters to R data sets costs p/2R out of sample and gains as much within.
    """
    folds = min(FOLDS, across.shape[-1])
    share = folds / (2 * folds - 1)  # across has (folds − 1) / folds of the data, within all
    return share * within + (1 - share) * across


def _contrast(held: Held, generator: torch.Generator) -> Estimate:
    """mean [ score_j(W_j) − log mean_k score_k(W_j) ] with scores fitted on the other half."""
    index = torch.arange(held.inner)
    sides = []
    for half in (0, 1):
        tested, fitted = index[index % 2 == half][:_TESTED], index[index % 2 != half]
        drawn = held.learned.select(tested).draw(generator)
        flat = _merged(drawn, held.groups, len(tested))
        scores = held.learned.critic(flat, fitted)
        scores = scores.unflatten(-2, (held.groups, len(tested)))  # (…, setting, W, scored by)
        own = scores.diagonal(dim1=-3, dim2=-1).mT
        sides.append((own - scores.logsumexp(-1) + math.log(held.groups)).mean(-1))
    return mean_estimate(torch.stack(sides).mean(0), "lower")


def _merged(drawn: Any, groups: int, count: int) -> Any:
    """W (worlds, groups, count, …) as (worlds, groups · count, …), whatever holds it."""
    if isinstance(drawn, Tensor):
        return drawn.flatten(1, 2)
    if isinstance(drawn, dict):
        return {name: value.flatten(1, 2) for name, value in drawn.items()}
    return type(drawn)(*(value.flatten(1, 2) for value in drawn))


def _difference(first: Estimate, second: Estimate) -> Estimate:
    error = (first.standard_error.square() + second.standard_error.square()).sqrt()
    value = first.value - second.value
    # ∞ − ∞ says nothing: as an upper side it is none.
    return Estimate(value.nan_to_num(math.inf), error, min(first.count, second.count))


def _kept(
    value: Estimate, lower: Estimate, upper: Estimate, lower_by: str, upper_by: str
) -> Bracket:
    # Sides are estimates too: crossed by their errors, they meet.
    upper = Estimate(
        torch.maximum(upper.value, lower.value), upper.standard_error, upper.count, "upper"
    )
    inside = torch.minimum(
        torch.maximum(value.value, lower.value - _CLEAR * lower.standard_error),
        upper.value + _CLEAR * upper.standard_error.nan_to_num(0.0, posinf=0.0),
    )
    best = Estimate(inside, value.standard_error, value.count)
    return Bracket(lower, upper, lower_by, upper_by, best)


def _smaller(
    first: Estimate, first_by: str, second: Estimate, second_by: str
) -> tuple[Estimate, str]:
    # Only where it is smaller by more than their errors: the smallest of several noisy numbers is
    # too small.
    margin = _OVERRULES * (first.standard_error.square() + second.standard_error.square()).sqrt()
    smaller = second.value + margin.nan_to_num(0.0, posinf=0.0) < first.value
    return _chosen(first, first_by, second, second_by, smaller)


def _larger(
    first: Estimate, first_by: str, second: Estimate, second_by: str
) -> tuple[Estimate, str]:
    return _chosen(first, first_by, second, second_by, second.value > first.value)


def _chosen(
    first: Estimate, first_by: str, second: Estimate, second_by: str, choose: Tensor
) -> tuple[Estimate, str]:
    """Per world the tighter of two sides, and the name of whichever is it in most worlds."""
    chosen = Estimate(
        torch.where(choose, second.value, first.value),
        torch.where(choose, second.standard_error, first.standard_error),
        first.count,
        first.direction,
    )
    return chosen, second_by if bool(choose.double().mean() > 0.5) else first_by
