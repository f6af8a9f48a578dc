"""Differential entropy of a sample of rows, in nats, by cross-fitted mixtures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from rbpp import validate
from rbpp.assessment.adaptation import FOLDS, TRAINING
from rbpp.assessment.copies import index_of_equal
from rbpp.assessment.log_ratio import FEWEST_UNITS, whitened_with_volume
from rbpp.assessment.pooled_mixture import fit_mixture, log_sum_exp
from rbpp.assessment.weighted_rows import (
    DRAWS,
    LEAST_DRAWS,
    Array,
    Draws,
    Index,
    WeightedRows,
    weighted_rows,
)
from rbpp.estimate import Estimate, exactly

COMPONENTS = (1, 3, 8)
STEPS, _STACKING_STEPS = 12, 50
# Parametric, or nearly so: a slower rate overcorrects where fits on fewer rows merge components.
RATES = (0.7, 1.2)


def entropy_of_sample(rows: Any, draws: Draws = DRAWS) -> Estimate:
    """Differential entropy h = −E log p(x) of one row, in nats, by Lebesgue measure of the columns.

    Rows multiplied by c have h + d log c: a caller that rescaled the rows adds −d log c to be back
    in the units of the file. n independent rows have n h.

    Mixtures of 1, 3 and 8 components are fitted without the rows of one fold, averaged with the
    weights that suit the other folds' held-out rows best, and read at that fold: an upper estimate,
    since −E log p̂ = h + KL(p ‖ p̂). Fits on 3/7 of the rows give the learning curve that takes the
    second term away. Draws are of the Bayesian bootstrap over units times the curve's rate.

    Args:
        rows: (n, d), an array or a `Sample`.
        draws: of the posterior; their seed is also that of folds and fits.

    Returns:
        Draws (draws,). Their `upper` is −Σ w log p̂(x) of rows that the fits did not see, above h on
        the mean: how far it is from their median is by how much the learning curve was
        extrapolated.

    Raises:
        ValueError: for equal rows of two units, or rows in a subspace: one with atoms, or on a
            plane, has no density, and its differential entropy is −∞.

    >>> rows = np.random.default_rng(0).standard_normal((2000, 1))
    >>> found = entropy_of_sample(rows)
    >>> bool(abs(found.value.median() - 0.5 * np.log(2 * np.pi * np.e)) < 0.05)
    True
    """
    validate.count("draws", draws.count, least=LEAST_DRAWS)
    sample = weighted_rows("rows", rows)
    if sample.units < FEWEST_UNITS:
        raise ValueError(
            f"Expected {FEWEST_UNITS} or more independent units in rows; got {sample.units}"
        )
    table, log_volume = _with_density(sample)
    generators = [np.random.default_rng([draws.seed, stream]) for stream in range(3)]
    fold = sample.folds(FOLDS, generators[0])
    densities = _held_out(table, sample.weight, fold, generators[1])
    log_density = np.stack([_stacked(each, sample.weight, fold) for each in densities])
    seen = -sample.bootstrap(draws.count, generators[2]) @ log_density.T + log_volume
    growth = np.maximum(seen[:, 1:].mean(1) - seen[:, 0], 0)
    found = seen[:, 0] - growth / ((7 / 3) ** generators[2].uniform(*RATES, draws.count) - 1)
    held_out = log_volume - float(log_density[0] @ sample.weight / sample.weight.sum())
    return replace(exactly(found), upper=exactly(held_out))


def _with_density(sample: WeightedRows) -> tuple[Array, float]:
    """Whitened rows, and log |det| of what was divided out; refuse what has no density."""
    group = index_of_equal(sample.rows)
    repeated = len({*zip(group, sample.unit, strict=True)}) - len({*group})
    if repeated:
        raise ValueError(
            "Expected rows with a density, whose differential entropy is finite; got "
            f"{repeated} rows that repeat another unit's (an atom: the entropy is −∞)"
        )
    table, log_volume = whitened_with_volume(sample.rows, sample.weight)
    dimension = sample.rows.shape[1]
    if table.shape[1] < dimension:
        raise ValueError(
            "Expected rows with a density, whose differential entropy is finite; got "
            f"rows in {table.shape[1]} of {dimension} dimensions (the entropy is −∞)"
        )
    return table, log_volume


def _held_out(table: Array, weight: Array, fold: Index, generator: np.random.Generator) -> Array:
    """(J, C, n): log densities of rows by C mixtures that did not see their fold."""
    dimension = table.shape[1]
    most = max(1.0, weight.sum() * 7 / 8 / (3 * max(dimension, 4)))
    sizes = [size for size in COMPONENTS if size <= most]
    found = np.empty((len(TRAINING), len(sizes), len(table)))
    for held_out in range(FOLDS):
        chosen = fold == held_out
        for index, steps in enumerate(TRAINING):
            seen = np.isin(fold, [(held_out + step) % FOLDS for step in steps])
            for place, size in enumerate(sizes):
                mixture = fit_mixture(table[seen], weight[seen], size, generator, STEPS)
                found[index, place, chosen] = mixture.log_density(table[chosen])
    return found


def _stacked(log_density: Array, weight: Array, fold: Index) -> Array:
    """(n,): log Σ_c a_c p_c(x), with a that maximizes the likelihood of the other folds' rows."""
    count = len(log_density)
    others = (fold != np.arange(FOLDS)[:, None]) * weight
    share = np.full((FOLDS, count), 1 / count)
    for _ in range(_STACKING_STEPS):
        joint = np.log(share)[:, :, None] + log_density
        member = np.exp(joint - log_sum_exp(joint, 1)[:, None])
        share = np.einsum("fcn,fn->fc", member, others) + 1.0
        share = share / share.sum(1, keepdims=True)
    joint = np.log(share).T[:, fold] + log_density
    return log_sum_exp(joint, 0)
