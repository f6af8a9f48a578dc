"""From draws of scores to probabilities: which set is best, which of two, which trains best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr


@dataclass(frozen=True)
class Discrepancy:
    """How far the score may be from what training gives.

    With probability `says_nothing` the score tells nothing of a task, and any set may be best. Else
    it is off by a normal error: with K sets whose scores have the standard deviation `between`, and
    `row` that over real rows of the difference of two sets, of a difference

        variance = ((K − 1) (c · between)² + n₀ (a · row)²) / (K − 1 + n₀):

    few sets say little about how far apart sets lie. With the defaults, said and found agree over
    five tasks, and no pair is said to be surer than the pairs of these tasks were
    (docs/measurements/ranking.md).
    """

    between: float = 2.5
    row: float = 0.35
    prior_sets: float = 8.0
    says_nothing: float = 0.2

    def variance(self, scores: np.ndarray, row_sd: float) -> float:
        """Variance of the difference of two sets beside that of the bootstrap."""
        sets = len(scores)
        between = np.var(scores, ddof=1) if sets > 1 else 0.0
        total = (sets - 1) * self.between**2 * between + self.prior_sets * (self.row * row_sd) ** 2
        return float(total / (sets - 1 + self.prior_sets))


# Where texts alone are scored, larger scores trained better in half of the pairs of five tasks.
OF_TEXTS = Discrepancy(between=12.0, row=1.2, prior_sets=2.0)


def row_difference_sd(values: np.ndarray) -> float:
    """Standard deviation over real rows of the difference of two sets, from (K, m) scores."""
    if len(values) < 2:
        return 0.0
    apart = (values - values.mean(0)).var(1).sum() / (len(values) - 1)
    return float(np.sqrt(2 * apart))


def probability_best(draws: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """Share of draws in which each set is best, (K,); copies of one set share theirs equally.

    Args:
        draws: (K, draws) of the scores.
        copies: (K,) whole numbers: sets with one number have the same rows.
    """
    distinct, first, inverse, counts = np.unique(
        copies, return_index=True, return_inverse=True, return_counts=True
    )
    best = np.bincount(draws[first].argmax(0), minlength=len(distinct)) / draws.shape[1]
    return best[inverse] / counts[inverse]


def practical(difference: np.ndarray, equivalent: float) -> dict[str, np.ndarray]:
    """How probably draws (…, draws) are above, within and below what makes none in practice."""
    return {
        "p_better": (difference > equivalent).mean(-1),
        "p_equivalent": (np.abs(difference) <= equivalent).mean(-1),
        "p_worse": (difference < -equivalent).mean(-1),
    }


def pairwise(
    scores: np.ndarray,
    draws: np.ndarray,
    copies: np.ndarray,
    discrepancy: float,
    equivalent: float,
    says_nothing: float = 0.0,
) -> dict[str, np.ndarray]:
    """What each pair of sets is to each other, (K, K) each, row minus column.

    Args:
        scores: (K,).
        draws: (K, draws).
        copies: as in `probability_best`.
        discrepancy: variance of a difference, see `Discrepancy`.
        equivalent: differences within it are none in practice, nats a row.
        says_nothing: as in `Discrepancy`.

    Returns:
        `mean`, `sd`, `p_better`, `p_equivalent`, `p_worse` by the region of practical equivalence,
        `p_larger` (the score is the larger one; one half of a set and its copy), and
        `p_trained_better` = (1 − ε) Φ(mean / √(sd² + discrepancy)) + ε/2, ε = `says_nothing`.
    """
    lines = []
    for own in draws:  # differences of all pairs at once would be K² × draws
        difference = own - draws
        lines.append(
            {
                "sd": difference.std(1),
                **practical(difference, equivalent),
                "p_larger": (difference > 0).mean(1),
            }
        )
    found = {name: np.stack([line[name] for line in lines]) for name in lines[0]}
    same = copies[:, None] == copies[None, :]
    mean = np.where(same, 0.0, scores[:, None] - scores[None, :])
    found["p_larger"][same] = 0.5
    spread = np.sqrt(found["sd"] ** 2 + discrepancy)
    sure = ndtr(np.divide(mean, spread, out=np.zeros_like(mean), where=spread > 0))
    found["p_trained_better"] = (1 - says_nothing) * sure + says_nothing / 2
    return {"mean": mean, **found}


def probability_trained_best(
    draws: np.ndarray,
    copies: np.ndarray,
    discrepancy: float,
    generator: np.random.Generator,
    says_nothing: float = 0.0,
) -> np.ndarray:
    """Probability that a model trained on each set will be the best, (K,).

    Half the variance of a difference is each set's own.
    """
    _, inverse, counts = np.unique(copies, return_inverse=True, return_counts=True)
    noise = generator.normal(size=(len(counts), draws.shape[1])) * np.sqrt(discrepancy / 2)
    best = probability_best(draws + noise[inverse], copies)
    return (1 - says_nothing) * best + says_nothing / (len(counts) * counts[inverse])
