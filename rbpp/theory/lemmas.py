"""The paper's lemmas and theorems, as pure functions of their terms.

Every argument is a number or a tensor. Leading dimensions broadcast: draws of the terms give draws
of the bounds. Information is in nats and per data set. Under a root, an information that a Monte
Carlo error made negative counts as zero; a nan term gives a nan bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

from rbpp import validate

Value = Tensor | float
_ROUNDING = 1e-9  # nats: an information computed as zero


class GapConstants(TypedDict):
    """σ, ℓ and η of `lemma_4_4`, and of what has it in it."""

    sub_gaussian: Value
    layers: int
    contraction: Value


@dataclass(frozen=True, kw_only=True)
class LemmaSetting:
    """What the lemmas need besides terms.

    Attributes:
        rows: rows of the data sets `anchor` and `synthetic`.
        coordinates: numbers or letters in all rows of each of them.
        resolution: Δ per coordinate at which entropies of numbers are read.
        loss_bound: C.
        sub_gaussian: σ, a number or one per world.
        sub_gaussian_from: where σ comes from, in words.
        layers, contraction: ℓ and η.

    Raises:
        ValueError: if rows or coordinates lack one of the data sets.
    """

    rows: Mapping[str, int]
    coordinates: Mapping[str, int]
    loss_bound: float
    sub_gaussian: Value
    sub_gaussian_from: str = "given"
    layers: int = 0
    contraction: float = 0.5
    resolution: float = 1.0

    def __post_init__(self) -> None:
        for name, sizes in (("rows", self.rows), ("coordinates", self.coordinates)):
            if not {"anchor", "synthetic"} <= set(sizes):
                raise ValueError(
                    f"Expected {name} of the data sets anchor and synthetic, as in "
                    f'{name}={{"anchor": 4, "synthetic": 8}}; got {dict(sizes)}'
                )

    @property
    def constants(self) -> GapConstants:
        """σ, ℓ and η as the lemmas take them."""
        return {
            "sub_gaussian": self.sub_gaussian,
            "layers": self.layers,
            "contraction": self.contraction,
        }

    @property
    def mean_sub_gaussian(self) -> float:
        """σ, its mean over worlds."""
        return float(_tensor(self.sub_gaussian).mean())


def sub_gaussian_constant(loss_bound: Value) -> Tensor:
    """σ = C / 2 of a loss in [0, C] (Hoeffding's lemma).

    >>> sub_gaussian_constant(1.0).item()
    0.5
    """
    loss_bound = _tensor(loss_bound)
    _require("loss_bound C", loss_bound, loss_bound > 0, "above 0")
    return loss_bound / 2


def distribution_shift(divergences: Value, loss_bound: Value) -> Tensor:
    """C · Σ TV: by how much the risk on D can exceed that under D_gen (Lemma 3.1).

    Args:
        divergences: the sum TV(D, D_M) + TV(D_M, D_gen), or the one TV(D, D_gen), in [0, 2].
        loss_bound: C of a loss in [0, C].
    """
    divergences, loss_bound = _tensor(divergences), _tensor(loss_bound)
    _require("total variation", divergences, ~(divergences < 0), "at least 0")
    _require("loss_bound C", loss_bound, loss_bound > 0, "above 0")
    return loss_bound * divergences


def lemma_3_1(
    task_divergence: Value, generation_divergence: Value, estimation_gap: Value, loss_bound: Value
) -> Tensor:
    """Generalization error of the post-trained model, split in three (Lemma 3.1):

        Err(π^gen) ≤ C [ TV(D, D_M) + TV(D_M, D_gen) ] + | R_{D_gen}(π) − R̂_{S_gen}(π) |.

    Precondition: loss in [0, C]. TV = sup_A |P(A) − Q(A)|.

    >>> lemma_3_1(0.1, 0.2, -0.05, loss_bound=1.0).item()
    0.35...
    """
    divergences = _tensor(task_divergence) + generation_divergence
    return distribution_shift(divergences, loss_bound) + _tensor(estimation_gap).abs()


def lemma_4_4(
    information: Value,
    rows: int,
    sub_gaussian: Value,
    layers: int = 0,
    contraction: Value = 0.5,
) -> Tensor:
    """Expected generalization gap of a learner by what it knows of its rows (Lemma 4.4):

        E[R(W) − R̂_S(W)] ≤ exp( −(ℓ/2) log(1/η) ) · sqrt( (2σ²/n) · I(S; W) ).

    Preconditions: the n rows are independent given what they share; the loss is σ-sub-Gaussian
    under the distribution of a row for every W; each of ℓ hidden layers contracts information by η.
    With ℓ = 0 it is the bound of Xu and Raginsky (2017), and needs no contraction. Lemma 4.6 has a
    bound of I(S_gen; W) in place of the information; Lemma 4.8 has I(S_anchor; W') and n = m.

    Args:
        information: I(S; W) in nats, or a bound of it; below 0 (Monte Carlo error) counts as 0.
        rows: n.
        sub_gaussian: σ; C/2 for a loss in [0, C].
        layers: ℓ.
        contraction: η, in (0, 1); unused where ℓ = 0.

    Raises:
        ValueError: if a constant is outside its range.

    >>> lemma_4_4(2.0, 100, sub_gaussian=0.5).item()
    0.1
    """
    information, sub_gaussian = _tensor(information), _tensor(sub_gaussian)
    contraction = _tensor(contraction)
    if rows < 1:
        raise ValueError(f"Expected rows n ≥ 1; got {rows}")
    validate.count("layers ℓ", layers, 0)
    _require("sub_gaussian σ", sub_gaussian, sub_gaussian > 0, "above 0")
    _require("contraction η", contraction, (contraction > 0) & (contraction < 1), "inside (0, 1)")
    compression = torch.exp(layers / 2 * contraction.log())
    root = (2 * sub_gaussian.square() / rows * information.clamp_min(0)).sqrt()
    return compression * root


def compression_bottleneck(model_factor_learner: Value, prompt_factor_learner: Value) -> Tensor:
    """B_syn = I(e_M; W) + I(e_p; W) (Definition 4.3)."""
    return _tensor(model_factor_learner) + prompt_factor_learner


def efficiency(curation: Value, prompting: Value) -> Tensor:
    """δ_{ε,p} = δ_ε + δ_p (Lemma 4.5): what curation leaks, and the inefficiency of the prompt."""
    return _tensor(curation) + prompting


def prompting_factor(entropy_prompt_factor: Value, information_prompt_output: Value) -> Tensor:
    """λ ≥ 1, the least factor with H(e_p) ≤ λ I(e_p; M(p)) (Lemma E.1).

    Infinite where the output says nothing of a prompt that has an entropy.

    >>> prompting_factor(1.0, 0.25).item(), prompting_factor(1.0, 0.0).item()
    (4.0, inf)
    """
    entropy, information = _tensor(entropy_prompt_factor), _tensor(information_prompt_output)
    none = information <= _ROUNDING
    ratio = entropy / torch.where(none, torch.ones_like(information), information)
    without = torch.where(entropy > _ROUNDING, math.inf, 1.0)
    factor = torch.where(none, without.to(ratio), ratio.clamp_min(1.0))
    return torch.where(entropy.isnan() | information.isnan(), math.nan, factor)


def prompting_inefficiency(
    entropy_prompt_factor: Value, information_prompt_output: Value
) -> Tensor:
    """δ_p = λ I(e_p; M(p)) − I(h(e_p); M(p)), with I(h(e_p); M(p)) = I(e_p; M(p)).

    It equals max(0, H(e_p) − I(e_p; M(p))). In this form it needs no λ, which is infinite where the
    output carries nothing of the prompt.

    >>> prompting_inefficiency(1.0, 0.25).item()
    0.75
    """
    return (_tensor(entropy_prompt_factor) - information_prompt_output).clamp_min(0.0)


def information_flow(
    information_gain: Value, bottleneck: Value, entropy_model_factor: Value, efficiency: Value
) -> Tensor:
    """I(S_gen; W) ≤ ΔI + B_syn + H(e_M) + δ_{ε,p} (Lemma 4.5).

    Entropies of continuous variables must be read at a resolution: differential entropies change
    with the unit, and then the bound means nothing.

    >>> information_flow(1.0, 0.5, 0.25, 0.25).item()
    2.0
    """
    return _tensor(information_gain) + bottleneck + entropy_model_factor + efficiency


def chain_rule(
    curation: Value, prompt_factor_learner: Value, model_factor_learner_given_prompt: Value
) -> Tensor:
    """I(S_gen; W) ≤ δ_ε + I(e_p; W) + I(e_M; W | e_p): the chain-rule bound.

    It needs no entropy, and so no resolution. Where both exist it is at most that of Lemma 4.5.

    >>> chain_rule(0.1, 0.2, 0.3).item()
    0.6...
    """
    return _tensor(curation) + prompt_factor_learner + model_factor_learner_given_prompt


def theorem_4_7(
    task_divergence: Value,
    generation_divergence: Value,
    information_bound: Value,
    rows: int,
    *,
    loss_bound: Value,
    sub_gaussian: Value,
    layers: int = 0,
    contraction: Value = 0.5,
) -> Tensor:
    """Generalization error of a model post-trained on synthetic rows (Theorem 4.7):

        E Err(π^gen) ≤ C [ TV(D, D_M) + TV(D_M, D_gen) ]
                       + exp( −(ℓ/2) log(1/η) ) · sqrt( (2σ²/n) · [ΔI + B_syn + H(e_M) + δ_{ε,p}] ).

    Preconditions: those of Lemmas 3.1 and 4.4; `information_bound` bounds I(S_gen; W). Constants
    are those of `lemma_4_4`: σ, ℓ and η.
    """
    shift = distribution_shift(_tensor(task_divergence) + generation_divergence, loss_bound)
    return shift + lemma_4_4(information_bound, rows, sub_gaussian, layers, contraction)


def sharp_bound(
    total_divergence: Value,
    information_bound: Value,
    rows: int,
    *,
    loss_bound: Value,
    sub_gaussian: Value,
    layers: int = 0,
    contraction: Value = 0.5,
) -> Tensor:
    """Theorem 4.7 with TV(D, D_gen) and the chain-rule bound: never larger than the theorem.

    TV(D, D_gen) ≤ TV(D, D_M) + TV(D_M, D_gen) by the triangle inequality, and the chain-rule bound
    is at most that of Lemma 4.5.
    """
    shift = distribution_shift(total_divergence, loss_bound)
    return shift + lemma_4_4(information_bound, rows, sub_gaussian, layers, contraction)


def ggmi(information_anchor_learner: Value, information_synthetic_learner: Value) -> Tensor:
    """GGMI, the generalization gain: I(S_anchor; W') − I(S_gen; W) (Definition 4.9)."""
    return _tensor(information_anchor_learner) - information_synthetic_learner


def anchor_retention(
    entropy_anchor_given_output: Value, entropy_anchor_given_learner: Value
) -> Tensor:
    """α with H(S_anchor | M(p)) = α H(S_anchor | W) (Theorem 4.10).

    Precondition of the theorem: α ≥ 0. Differential entropies can be negative; at a fine enough
    resolution both are positive. Where the output leaves nothing open, α = 0.

    >>> anchor_retention(0.0, 0.0).item()
    0.0
    """
    output = _tensor(entropy_anchor_given_output)
    ratio = output / entropy_anchor_given_learner
    return torch.where(output == 0, torch.zeros_like(ratio), ratio)


def theorem_4_10(
    information_gain: Value,
    retention: Value,
    entropy_anchor_given_learner: Value,
    entropy_gap: Value,
    entropy_synthetic_given_learner: Value,
    learner_gap: Value,
) -> Tensor:
    """Upper bound of the generalization gain as published (Theorem 4.10):

        GGMI ≤ ΔI − (α + 1) H(S_anchor | W) + 2 ΔH + H(S_gen | W) + ε_{W,p}.

    Precondition: H(S_gen) ≤ H(M(p)) + [I(S_anchor; M(p)) − I(h(e_p); M(p))]. Curation that adds
    entropy breaks it, and the statement with it: see `theorem_4_10_corrected`.

    Args:
        information_gain: ΔI.
        retention: α, with H(S_anchor | M(p)) = α H(S_anchor | W).
        entropy_anchor_given_learner: H(S_anchor | W).
        entropy_gap: ΔH = H(S_anchor) − H(S_gen).
        entropy_synthetic_given_learner: H(S_gen | W).
        learner_gap: ε_{W,p} = H(S_anchor | W) − H(S_anchor | W').
    """
    return theorem_4_10_corrected(
        information_gain,
        retention,
        entropy_anchor_given_learner,
        entropy_gap,
        entropy_gap,
        entropy_synthetic_given_learner,
        learner_gap,
    )


def theorem_4_10_corrected(
    information_gain: Value,
    retention: Value,
    entropy_anchor_given_learner: Value,
    entropy_gap: Value,
    entropy_gap_output: Value,
    entropy_synthetic_given_learner: Value,
    learner_gap: Value,
) -> Tensor:
    """Theorem 4.10 with the output's entropy in one of its two ΔH, which holds for any curation:

        GGMI ≤ ΔI − (α + 1) H(S_anchor | W) + ΔH + ΔH_M + H(S_gen | W) + ε_{W,p}.

    Its slack is I(S_anchor; M(p)) − I(h(e_p); M(p)) ≥ 0.

    Args:
        entropy_gap_output: ΔH_M = H(S_anchor) − H(M(p)); the others as for `theorem_4_10`.
    """
    return (
        _tensor(information_gain)
        - (_tensor(retention) + 1) * entropy_anchor_given_learner
        + entropy_gap
        + entropy_gap_output
        + entropy_synthetic_given_learner
        + learner_gap
    )


def _tensor(value: Value) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)


def _require(name: str, value: Tensor, valid: Tensor, expectation: str) -> None:
    if not bool(valid.all()) or bool((value == math.inf).any()):
        wrong = value[~(valid & value.isfinite())].flatten()[0].item()
        raise ValueError(f"Expected {name} finite and {expectation}; got {wrong}")
