"""Every term of a finite chain as an exact sum: the ground truth of the estimators. All in nats.

A chain is a handful of probability tables; every leading dimension of the tables is a batch of
chains. An alphabet is that of whole data sets: the anchors, the outputs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from rbpp.internals import standard_gamma
from rbpp.theory import bounds

_TABLES = {
    "anchor": "a",
    "prompt": "ap",
    "model_factor": "e",
    "output": "peo",
    "synthetic": "os",
    "learner": "sw",
    "anchor_learner": "av",
}


@dataclass(frozen=True)
class FiniteChain:
    """Probability tables of a chain S_anchor → p → M(p) → S_gen → W, and S_anchor → W'.

    Attributes:
        anchor: (…, A) law of the anchor data set.
        prompt: (…, A, P) law of the prompt given it; a permutation matrix where φ_T is invertible.
        model_factor: (…, E) law of e_M, independent of the prompt.
        output: (…, P, E, O) law of M(p) given prompt and e_M; each row one-hot for M(p) = h + g.
        synthetic: (…, O, G) law of S_gen given the output: the curation.
        learner: (…, G, W) law of W given S_gen.
        anchor_learner: (…, A, V) law of W' given S_anchor.

    Raises:
        ValueError: if a table has a negative entry, does not sum to one over its last dimension, or
            does not fit the table before it.
    """

    anchor: Tensor
    prompt: Tensor
    model_factor: Tensor
    output: Tensor
    synthetic: Tensor
    learner: Tensor
    anchor_learner: Tensor

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        for name, letters in _TABLES.items():
            table = getattr(self, name)
            if not table.is_floating_point() or table.dim() < len(letters):
                raise ValueError(
                    f"Expected {name} in floating point with at least {len(letters)} dimensions; "
                    f"got {table.dtype} of shape {tuple(table.shape)}"
                )
            for letter, size in zip(letters, table.shape[-len(letters) :], strict=True):
                if sizes.setdefault(letter, size) != size:
                    raise ValueError(
                        f"Expected {name} to fit the other tables; got size {size} where they have "
                        f"{sizes[letter]}"
                    )
            total = table.sum(-1)
            if bool((table < 0).any()) or not torch.allclose(
                total, torch.ones_like(total), atol=1e-6
            ):
                raise ValueError(f"Expected {name} to hold distributions along its last dimension")

    def joint(self, variables: str) -> Tensor:
        """Joint law of some variables, letters of a p e o s w v: (…, sizes in the order given).

        >>> uniform = torch.full((2,), 0.5)
        >>> copy = torch.eye(2)
        >>> chain = FiniteChain(uniform, copy, torch.ones(1), copy[:, None], copy, copy, copy)
        >>> chain.joint("aw")
        tensor([[0.5000, 0.0000],
                [0.0000, 0.5000]])
        """
        terms = [f"...{letters}" for letters in _TABLES.values()]
        tables = [getattr(self, field.name) for field in fields(self)]
        return torch.einsum(f"{','.join(terms)}->...{variables}", *tables)


def entropy(joint: Tensor, dimensions: int = 1) -> Tensor:
    """H = −Σ p log p over the last `dimensions` dimensions; 0 log 0 is 0.

    >>> entropy(torch.tensor([0.5, 0.5])).item()
    0.693147...
    """
    return -torch.special.xlogy(joint, joint).flatten(-dimensions).sum(-1)


def mutual_information(joint: Tensor) -> Tensor:
    """I(x; y) of a joint table (…, X, Y)."""
    return entropy(joint.sum(-1)) + entropy(joint.sum(-2)) - entropy(joint, 2)


def conditional_mutual_information(joint: Tensor) -> Tensor:
    """I(x; y | z) of a joint table (…, Z, X, Y)."""
    return (
        entropy(joint.sum(-1), 2)
        + entropy(joint.sum(-2), 2)
        - entropy(joint, 3)
        - entropy(joint.sum((-1, -2)))
    )


def terms(chain: FiniteChain) -> dict[str, Tensor]:
    """Every term of a finite chain, and every bound of an information, exactly.

    Returns:
        Name to tensor of the batch shape, in nats: the names of `rbpp.variables`, and the terms
        that they are made of (`information_prompt_learner` is I(e_p; W), and so on).
    """

    def information(pair: str) -> Tensor:
        return mutual_information(chain.joint(pair))

    anchor, output = entropy(chain.joint("a")), entropy(chain.joint("o"))
    synthetic, factor = entropy(chain.joint("s")), entropy(chain.joint("e"))
    result = {
        "entropy_anchor": anchor,
        "entropy_output": output,
        "entropy_synthetic": synthetic,
        "entropy_gap": anchor - synthetic,
        "entropy_model_factor": factor,
        "entropy_prompt_factor": entropy(chain.joint("p")),
        "information_prompt_output": information("po"),
        "information_anchor_output": information("ao"),
        "information_output_learner": information("ow"),
        "information_synthetic_learner": information("sw"),
        "information_anchor_learner": information("av"),
        "information_anchor_synthetic_learner": information("aw"),
        "information_prompt_learner": information("pw"),
        "information_model_factor_learner": information("ew"),
        "information_model_factor_learner_given_prompt": conditional_mutual_information(
            chain.joint("pew")
        ),
    }
    result["information_gain"] = output - result["information_prompt_output"]
    result["curation_leak"] = (
        result["information_synthetic_learner"] - result["information_output_learner"]
    )
    result["prompting_inefficiency"] = bounds.prompting_inefficiency(
        result["entropy_prompt_factor"], result["information_prompt_output"]
    )
    result |= derived(result)
    result["information_step"] = (  # the proof's step bounds I(M(p); W) by this
        result["information_prompt_learner"] + result["information_model_factor_learner"]
    )
    return result


def derived(term: dict[str, Tensor]) -> dict[str, Tensor]:
    """What follows from the terms by arithmetic alone, exact or estimated.

    Args:
        term: the terms that `terms` computes first: entropies, informations, ΔI, δ_ε and δ_p.
    """
    anchor = term["entropy_anchor"]
    result = {
        "entropy_gap": anchor - term["entropy_synthetic"],
        "entropy_gap_output": anchor - term["entropy_output"],
        "entropy_anchor_given_output": anchor - term["information_anchor_output"],
        "entropy_anchor_given_learner": anchor - term["information_anchor_synthetic_learner"],
        "entropy_anchor_given_anchor_learner": anchor - term["information_anchor_learner"],
        "entropy_synthetic_given_learner": (
            term["entropy_synthetic"] - term["information_synthetic_learner"]
        ),
        "compression_bottleneck": bounds.compression_bottleneck(
            term["information_model_factor_learner"], term["information_prompt_learner"]
        ),
        "efficiency": bounds.efficiency(term["curation_leak"], term["prompting_inefficiency"]),
        "ggmi": bounds.ggmi(
            term["information_anchor_learner"], term["information_synthetic_learner"]
        ),
        "bound_chain_rule": bounds.chain_rule(
            term["curation_leak"],
            term["information_prompt_learner"],
            term["information_model_factor_learner_given_prompt"],
        ),
    }
    result["learner_gap"] = (
        result["entropy_anchor_given_learner"] - result["entropy_anchor_given_anchor_learner"]
    )
    result["anchor_retention"] = bounds.anchor_retention(
        result["entropy_anchor_given_output"], result["entropy_anchor_given_learner"]
    )
    result["bound_information_flow"] = bounds.information_flow(
        term["information_gain"],
        result["compression_bottleneck"],
        term["entropy_model_factor"],
        result["efficiency"],
    )
    gain = (
        term["information_gain"],
        result["anchor_retention"],
        result["entropy_anchor_given_learner"],
        result["entropy_gap"],
    )
    rest = (result["entropy_synthetic_given_learner"], result["learner_gap"])
    result["bound_ggmi"] = bounds.theorem_4_10(*gain, *rest)
    result["bound_ggmi_corrected"] = bounds.theorem_4_10_corrected(
        *gain, result["entropy_gap_output"], *rest
    )
    return result


def random_chains(
    count: int,
    *,
    alphabet: int = 3,
    concentration: float = 1.0,
    curation: float | None = None,
    generator: torch.Generator,
) -> FiniteChain:
    """Random chains with invertible prompt and additive composition, M(p) = h(e_p) + g(e_M) mod q.

    Args:
        count: number of chains, the batch size.
        alphabet: q, the size of every alphabet.
        concentration: of the Dirichlet laws that the tables are drawn from; small ones are sparse.
        curation: probability that curation replaces an output by a uniform letter; `None` draws the
            whole table at random, 0 is no curation.
        generator: source of the draws.
    """
    size = alphabet

    def table(*shape: int) -> Tensor:
        alpha = torch.full((count, *shape, size), concentration, dtype=torch.float64)
        gamma = standard_gamma(alpha, generator=generator)
        gamma = gamma.clamp_min(torch.finfo(gamma.dtype).tiny)
        return gamma / gamma.sum(-1, keepdim=True)

    identity = torch.eye(size, dtype=torch.float64)
    order = torch.rand(count, size, generator=generator).argsort(-1)
    letters = torch.randint(size, (2, count, size), generator=generator)  # h and g
    total = (letters[0].unsqueeze(-1) + letters[1].unsqueeze(-2)) % size
    if curation is None:
        synthetic = table(size)
    else:
        synthetic = ((1 - curation) * identity + curation / size).expand(count, size, size)
    return FiniteChain(
        table(), identity[order], table(), identity[total], synthetic, table(size), table(size)
    )
