"""The variables that rbpp reports: name, meaning, units and the paper's number, in one table.

A variable NAME may come with `NAME_lower` and `NAME_upper` (two sides of an estimate in nats) and
with `NAME_mcse` (its Monte Carlo standard error, one per posterior draw).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Variable:
    """What a reported number means.

    Attributes:
        long_name: a phrase, with the paper's symbol.
        units: `"nats"`, `"loss"` (the units of the user's loss) or `"1"` (share, ratio, count).
        equation: the paper's number of the definition, lemma, theorem or section.
        larger_is: how a larger value speaks of synthetic data.
        rows: the data set that a quantity in nats is about, whose row count `--per-row` divides by;
            `None` where the quantity already is that of one row.
        stands_as: what the number is where its interval does not hold the quantity as often as it
            says (docs/measurements/coverage.md): `"estimate"`, or `"upper side"` of the quantity.
            Every output says so: `meaning` ends with it.
    """

    long_name: str
    units: Literal["nats", "loss", "1"]
    equation: str
    larger_is: Literal["better", "worse", "neither"] = "neither"
    rows: Literal["anchor", "synthetic"] | None = None
    stands_as: Literal["", "estimate", "upper side"] = ""

    @property
    def meaning(self) -> str:
        """The phrase, and what the number stands as: what outputs print."""
        return f"{self.long_name}; an {self.stands_as}" if self.stands_as else self.long_name

    @property
    def attrs(self) -> dict[str, str]:
        """The attributes that the variable carries in InferenceData."""
        attrs = {"long_name": self.meaning, "units": self.units, "equation": self.equation}
        return {**attrs, "stands_as": self.stands_as} if self.stands_as else attrs


# Output, synthetic data and what a learner of them holds are of n rows. So is a difference of an
# anchor term and a synthetic one: dividing both sides of a bound by one number keeps it a bound.
_VARIABLES = {
    "entropy_anchor": Variable("H(S_anchor), entropy of the anchors", "nats", "A.1", rows="anchor"),
    "entropy_output": Variable(
        "H(M(p)), entropy of the outputs", "nats", "A.1", "better", "synthetic"
    ),
    "entropy_synthetic": Variable(
        "H(S_gen), entropy of the synthetic data", "nats", "A.1", "better", "synthetic"
    ),
    "entropy_gap": Variable(
        "ΔH = H(S_anchor) − H(S_gen), entropy gap", "nats", "Theorem 4.10", rows="synthetic"
    ),
    "information_gain": Variable(
        "ΔI = H(M(p) | h(e_p)), information gain", "nats", "Definition 4.2", "better", "synthetic"
    ),
    "information_prompt_output": Variable(
        "I(e_p; M(p)), information of the prompt in outputs", "nats", "Lemma 4.5", rows="synthetic"
    ),
    "entropy_model_factor": Variable(
        "H(e_M), entropy of the model's factor", "nats", "Lemma 4.5", rows="synthetic"
    ),
    "compression_bottleneck": Variable(
        "B_syn = I(e_M; W) + I(e_p; W), compression bottleneck",
        "nats",
        "Definition 4.3",
        "worse",
        "synthetic",
    ),
    "efficiency": Variable(
        "δ_{ε,p}, what curation and prompting lose", "nats", "Lemma 4.5", "worse", "synthetic"
    ),
    "information_synthetic_learner": Variable(
        "I(S_gen; W), information of the learner about the synthetic data",
        "nats",
        "Lemma 4.4",
        "worse",
        "synthetic",
    ),
    "information_anchor_learner": Variable(
        "I(S_anchor; W'), information of the anchors' learner about the anchors",
        "nats",
        "Lemma 4.8",
        rows="anchor",
    ),
    "bound_information_flow": Variable(
        "bound of I(S_gen; W): ΔI + B_syn + H(e_M) + δ_{ε,p}",
        "nats",
        "Lemma 4.5",
        "worse",
        "synthetic",
    ),
    "bound_chain_rule": Variable(
        "bound of I(S_gen; W): δ_ε + I(e_p; W) + I(e_M; W | e_p)",
        "nats",
        "Lemma 4.5 (chain rule, ours)",
        "worse",
        "synthetic",
    ),
    "task_divergence": Variable("TV(D, D_M), task divergence", "1", "Lemma 3.1", "worse"),
    "generation_divergence": Variable(
        "TV(D_M, D_gen), generation divergence", "1", "Lemma 3.1", "worse"
    ),
    "total_divergence": Variable(
        "TV(D, D_gen), task to synthetic data", "1", "Lemma 3.1 (sharp)", "worse"
    ),
    "generalization_error": Variable(
        "Err(π^gen), measured generalization error", "loss", "Lemma 3.1", "worse"
    ),
    "bound_synthetic": Variable(
        "bound of the generalization error after synthetic data", "loss", "Theorem 4.7", "worse"
    ),
    "bound_synthetic_sharp": Variable(
        "sharp bound of the same error, with TV(D, D_gen), of samples under a mixture model",
        "loss",
        "Theorem 4.7 (sharp)",
        "worse",
        stands_as="upper side",
    ),
    "bound_anchor": Variable(
        "bound of the generalization error after anchors alone",
        "loss",
        "Lemma 4.8",
        stands_as="upper side",
    ),
    "ggmi": Variable(
        "GGMI = I(S_anchor; W') − I(S_gen; W)", "nats", "Definition 4.9", "better", "synthetic"
    ),
    "bound_ggmi": Variable(
        "bound of GGMI, as stated", "nats", "Theorem 4.10", "better", "synthetic"
    ),
    "bound_ggmi_corrected": Variable(
        "bound of GGMI, corrected for noisy curation",
        "nats",
        "Theorem 4.10 (corrected)",
        "better",
        "synthetic",
    ),
    "kl_gap": Variable("D(π_anchor ‖ G) − D(π_gen ‖ G), KL gap", "nats", "Section 4.4", "better"),
    "kl_gap_coverage": Variable(
        "D(G ‖ π_anchor) − D(G ‖ π_gen), KL gap in coverage", "nats", "Section 4.4", "better"
    ),
    "kl_synthetic": Variable("D(π_gen ‖ G)", "nats", "Section 4.4", "worse"),
    "kl_synthetic_coverage": Variable("D(G ‖ π_gen)", "nats", "Section 4.4", "worse"),
    "kl_anchor": Variable("D(π_anchor ‖ G)", "nats", "Section 4.4"),
    "kl_anchor_coverage": Variable("D(G ‖ π_anchor)", "nats", "Section 4.4"),
    "kl_gap_histogram": Variable(
        "the reference script's histogram gap (no divergence)", "nats", "Section 4.4"
    ),
    "score": Variable(
        "log-probability of real rows under what a set teaches, per row",
        "nats",
        "log-loss (ours)",
        "better",
    ),
    "score_equal_size": Variable(
        "the same of random subsets of one size", "nats", "log-loss (ours)", "better"
    ),
    "irrelevant_share": Variable(
        "share of the synthetic data that is off the task", "1", "Section 3.1", "worse"
    ),
    "irrelevant_share_output": Variable(
        "share of the uncurated outputs that is off the task", "1", "Section 3.1"
    ),
    "curation_divergence": Variable(
        "TV of the outputs before and after curation", "1", "Lemma 3.1"
    ),
    "uncovered_share": Variable(
        "share of the task that the synthetic data misses", "1", "Section 3.1", "worse"
    ),
    "irrelevant_share_at_least": Variable(
        "off task whatever the author's style, at least", "1", "Section 3.1", "worse"
    ),
    "irrelevant_share_at_most": Variable(
        "off task at most, if what is off the task is unlike it", "1", "Section 3.1", "worse"
    ),
    "irrelevant_share_at_most_with_classes": Variable(
        "off task at most, if another class of the task counts too", "1", "Section 3.1", "worse"
    ),
    "uncovered_share_at_least": Variable(
        "share of the task that is missed, at least", "1", "Section 3.1", "worse"
    ),
    "uncovered_share_at_most": Variable(
        "missed at most, if what is missed is unlike the synthetic data",
        "1",
        "Section 3.1",
        "worse",
    ),
    "uncovered_share_at_most_with_classes": Variable(
        "missed at most, if a class of the task that is left out counts too",
        "1",
        "Section 3.1",
        "worse",
    ),
    "novel_share_at_least": Variable("novel, at least", "1", "Section 3.1", "better"),
    "novel_share_at_most": Variable("novel, at most", "1", "Section 3.1", "better"),
    "copied_share": Variable(
        "share of the synthetic data nearer to an anchor than real rows are to each other",
        "1",
        "Section 3.1",
        "worse",
    ),
    "style_offset": Variable(
        "|δ|, the offset of the author's style in the representation", "1", "Lemma 3.1"
    ),
    "style_separation": Variable(
        "how well style alone tells the sources apart (AUC)", "1", "Lemma 3.1"
    ),
    "style_shift": Variable("|δ| over the spread of the task's rows", "1", "Lemma 3.1"),
    "distinguishability": Variable(
        "TV of real and synthetic rows, style included", "1", "Lemma 3.1 (sharp)", "worse"
    ),
    "bound_synthetic_sharp_bretagnolle_huber": Variable(
        "the same, with Bretagnolle and Huber's bound of TV", "loss", "Theorem 4.7 (sharp)", "worse"
    ),
    "wrong_label_share": Variable(
        "share of the synthetic labels that are wrong", "1", "Section 3.1", "worse"
    ),
    "novel_share": Variable(
        "share of the synthetic data on the task, beyond the anchors", "1", "Section 3.1", "better"
    ),
    "effective_components": Variable(
        "exp of the entropy of the weights, effective components", "1", "Section 3.1"
    ),
    "entropy": Variable("h(x), entropy of one row under a fitted mixture", "nats", "A.1"),
    "mutual_information": Variable("I(X; Y), mutual information of paired rows", "nats", "A.5"),
    # What the terms above are made of.
    "entropy_prompt_factor": Variable(
        "H(e_p), entropy of the prompt's factor", "nats", "Lemma E.1", rows="synthetic"
    ),
    "information_anchor_output": Variable(
        "I(S_anchor; M(p)), information of the anchors in the outputs",
        "nats",
        "Theorem 4.10",
        rows="synthetic",
    ),
    "information_output_learner": Variable(
        "I(M(p); W), information of the learner about the outputs",
        "nats",
        "Lemma 4.5",
        rows="synthetic",
    ),
    "information_anchor_synthetic_learner": Variable(
        "I(S_anchor; W), information of the learner about the anchors",
        "nats",
        "Theorem 4.10",
        rows="synthetic",
    ),
    "information_prompt_learner": Variable(
        "I(e_p; W), information of the learner about the prompt",
        "nats",
        "Definition 4.3",
        rows="synthetic",
    ),
    "information_model_factor_learner": Variable(
        "I(e_M; W), information of the learner about the model's factor",
        "nats",
        "Definition 4.3",
        rows="synthetic",
    ),
    "information_model_factor_learner_given_prompt": Variable(
        "I(e_M; W | e_p), the same given the prompt",
        "nats",
        "Lemma 4.5 (chain rule, ours)",
        rows="synthetic",
    ),
    "information_step": Variable(
        "I(e_p; W) + I(e_M; W), the proof's step for I(M(p); W)",
        "nats",
        "Lemma 4.5 (proof)",
        rows="synthetic",
    ),
    "curation_leak": Variable(
        "δ_ε = I(S_gen; W) − I(M(p); W), curation's leak", "nats", "Lemma 4.5", "worse", "synthetic"
    ),
    "prompting_inefficiency": Variable(
        "δ_p = λ I(e_p; M(p)) − I(h(e_p); M(p))", "nats", "Lemma 4.5", "worse", "synthetic"
    ),
    "prompting_factor": Variable(
        "λ, least with H(e_p) ≤ λ I(e_p; M(p)), a ratio whose error is rough",
        "1",
        "Lemma E.1",
        stands_as="estimate",
    ),
    "entropy_gap_output": Variable(
        "ΔH_M = H(S_anchor) − H(M(p))", "nats", "Theorem 4.10 (corrected)", rows="synthetic"
    ),
    "entropy_anchor_given_output": Variable(
        "H(S_anchor | M(p))", "nats", "Theorem 4.10", rows="synthetic"
    ),
    "entropy_anchor_given_learner": Variable(
        "H(S_anchor | W)", "nats", "Theorem 4.10", rows="synthetic"
    ),
    "entropy_anchor_given_anchor_learner": Variable(
        "H(S_anchor | W')", "nats", "Theorem 4.10", rows="synthetic"
    ),
    "entropy_synthetic_given_learner": Variable(
        "H(S_gen | W)", "nats", "Theorem 4.10", rows="synthetic"
    ),
    "learner_gap": Variable(
        "ε_{W,p} = H(S_anchor | W) − H(S_anchor | W')", "nats", "Theorem 4.10", rows="synthetic"
    ),
    "anchor_retention": Variable(
        "α with H(S_anchor | M(p)) = α H(S_anchor | W)", "1", "Theorem 4.10"
    ),
    # The risks that the bounds are of, and the lemmas between the terms and Theorem 4.7.
    "generalization_error_anchor": Variable(
        "generalization error after anchors alone, measured", "loss", "Lemma 4.8"
    ),
    "estimation_gap": Variable(
        "R_{D_gen}(π) − R̂_{S_gen}(π), expected over learners", "loss", "Lemma 4.4"
    ),
    "estimation_gap_anchor": Variable(
        "R_D(π) − R̂_{S_anchor}(π), expected over learners", "loss", "Lemma 4.8"
    ),
    "absolute_estimation_gap": Variable(
        "|R_{D_gen}(π) − R̂_{S_gen}(π)|, expected over learners", "loss", "Lemma 3.1"
    ),
    "bound_lemma_3_1": Variable("bound by both divergences", "loss", "Lemma 3.1"),
    "bound_lemma_4_4": Variable(
        "bound by I(S_gen; W)", "loss", "Lemma 4.4", stands_as="upper side"
    ),
    "bound_lemma_4_6": Variable("bound by Lemma 4.5", "loss", "Lemma 4.6"),
    # What a model's log-probabilities of its outputs show (rbpp.channel).
    "information_gain_kept": Variable(
        "ΔI of the outputs that a filter kept", "nats", "Definition 4.2", rows="synthetic"
    ),
    "information_gain_dropped": Variable(
        "ΔI of the outputs that a filter dropped", "nats", "Definition 4.2", rows="synthetic"
    ),
    "information_prompt_output_kept": Variable(
        "information of the prompt in outputs kept", "nats", "Lemma 4.5", rows="synthetic"
    ),
    "information_prompt_output_dropped": Variable(
        "information of the prompt in outputs dropped", "nats", "Lemma 4.5", rows="synthetic"
    ),
    "kept_share": Variable("share of the outputs that a filter kept", "1", "Section 3.1"),
    "prompt_ignored_share": Variable(
        "share of the outputs that ignore their prompt", "1", "Lemma 4.5", "worse"
    ),
    "prompt_determined_share": Variable(
        "share of the outputs that their prompt all but determines, as copies of it",
        "1",
        "Definition 4.2",
        "worse",
    ),
    "tokens_per_output": Variable("tokens of an output", "1", "A.1"),
    # What fine-tunes on a supersample show (conditional mutual information, rbpp.fine_tuning.cmi).
    "generalization_gap": Variable(
        "R(W) − R̂(W), held-out minus training loss", "loss", "Lemma 4.4", "worse"
    ),
    "training_loss": Variable("R̂(W), loss on the rows trained on", "loss", "Lemma 4.4"),
    "held_out_loss": Variable("R(W), loss on the rows left out", "loss", "Lemma 4.4", "worse"),
    "information_loss_pair": Variable(
        "mean of I(L_i; U_i | Z) over pairs", "nats", "Steinke & Zakynthinou 2020", "worse"
    ),
    "information_loss_difference_conditional": Variable(
        "mean of I(ΔL_i; U_i | Z) over pairs", "nats", "Wang & Mao 2023", "worse"
    ),
    "information_loss_difference": Variable(
        "I(ΔL; U) of a pair at random", "nats", "Wang & Mao 2023", "worse"
    ),
    "information_single_loss": Variable(
        "I(L; B) of a row at random, B: trained on or not", "nats", "Wang & Mao 2023", "worse"
    ),
    "bound_cmi_evaluated": Variable(
        "bound of the gap by evaluated CMI", "loss", "Steinke & Zakynthinou 2020", "worse"
    ),
    "bound_cmi_linear": Variable(
        "bound of the gap linear in evaluated CMI", "loss", "Steinke & Zakynthinou 2020", "worse"
    ),
    "bound_cmi_samplewise": Variable(
        "bound of the gap by samplewise (functional) CMI",
        "loss",
        "Harutyunyan et al. 2021; Hellström & Durisi 2022",
        "worse",
    ),
    "bound_cmi_binary_kl": Variable(
        "bound of the gap by binary KL, samplewise CMI", "loss", "Hellström & Durisi 2022", "worse"
    ),
    "bound_cmi_loss_difference_conditional": Variable(
        "bound of the gap by the CMI of loss differences", "loss", "Wang & Mao 2023", "worse"
    ),
    "bound_cmi_loss_difference": Variable(
        "bound of the gap by the MI of a loss difference", "loss", "Wang & Mao 2023", "worse"
    ),
    "bound_cmi_single_loss": Variable(
        "bound of the gap by the MI of a single loss", "loss", "Wang & Mao 2023", "worse"
    ),
    "bound_cmi_single_loss_centred": Variable(
        "the same, of the centred loss", "loss", "Wang & Mao 2023 (centred, ours)", "worse"
    ),
    "bound_cmi_fast_rate": Variable(
        "bound of the gap, weighted (fast rate)", "loss", "Wang & Mao 2023", "worse"
    ),
    "bound_cmi_binary_kl_pooled": Variable(
        "bound of the gap by binary KL, pair at random",
        "loss",
        "Hellström & Durisi 2022 (pooled, ours)",
        "worse",
    ),
    "bound_cmi_interpolation": Variable(
        "the gap of interpolating learners, I(ΔL; U) / log 2", "loss", "Wang & Mao 2023", "worse"
    ),
}


VARIABLES: dict[str, Variable] = {}


def describe(name: str, variable: Variable, *, bounds: bool = False) -> None:
    """Describe a variable, and the companions that it may come with.

    Args:
        name: of the variable.
        variable: what it means.
        bounds: whether it bounds another from above, so that there is a slack_NAME.
    """
    described = {name: variable}
    if bounds:
        described[f"slack_{name}"] = replace(
            variable, long_name=f"slack of the {variable.long_name}", larger_is="neither"
        )
    if variable.units == "nats":
        for side in ("lower", "upper"):
            described[f"{name}_{side}"] = replace(
                variable, long_name=f"{variable.meaning}: {side} estimate", stands_as=""
            )
    for key, one in described.items():
        VARIABLES[key] = one
        VARIABLES[f"{key}_mcse"] = replace(
            one,
            long_name=f"{one.meaning}: Monte Carlo standard error",
            larger_is="neither",
            stands_as="",
        )


for _name, _variable in _VARIABLES.items():
    describe(_name, _variable, bounds=_name.startswith("bound_") or _name == "information_step")
