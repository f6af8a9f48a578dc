"""Every term of a finite chain as an exact sum: the ground truth of the estimators. All in nats.

    python examples/finite_chain.py

A chain is a handful of probability tables; every leading dimension of the tables is a batch of
chains. An alphabet is that of whole data sets: the anchors, the outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

import rbpp
from rbpp.internals import standard_gamma

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
        anchor: (…, A) distribution of the anchor data set.
        prompt: (…, A, P) that of the prompt given it; a permutation matrix if φ_T is invertible.
        model_factor: (…, E) distribution of e_M, independent of the prompt.
        output: (…, P, E, O) that of M(p) given prompt and e_M; rows one-hot for M(p) = h + g.
        synthetic: (…, O, G) distribution of S_gen given the output: the curation.
        learner: (…, G, W) distribution of W given S_gen.
        anchor_learner: (…, A, V) distribution of W' given S_anchor.

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
        """Joint distribution of variables, letters of a p e o s w v: (…, sizes in their order).

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
    return with_bounds(result)


def with_bounds(term: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The terms, what follows from them, and every bound of an information."""
    found = rbpp.terms.Terms(term)
    one = {"anchor": 1, "synthetic": 1}  # a whole data set is a letter
    setting = rbpp.lemmas.LemmaSetting(rows=one, coordinates=one, loss_bound=1.0, sub_gaussian=0.5)
    rbpp.terms.add_derived(found, setting)
    for right, statement in rbpp.statements.STATEMENTS.items():
        if rbpp.variables.VARIABLES[right].units == "nats":
            found[right] = statement.formula(found, setting)
    return dict(found)


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
        concentration: of the Dirichlet that the tables are drawn from; small ones are sparse.
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
        anchor=table(),
        prompt=identity[order],
        model_factor=table(),
        output=identity[total],
        synthetic=synthetic,
        learner=table(size),
        anchor_learner=table(size),
    )


def main(seed: int = 0) -> dict[str, float]:
    """Print every term and bound of one random chain of three letters."""
    chain = random_chains(1, curation=0.1, generator=rbpp.generator(seed))
    found = {name: float(value) for name, value in terms(chain).items()}
    for name, value in found.items():
        print(f"{name:48} {value:9.4f}")
    return found


if __name__ == "__main__":
    main()
