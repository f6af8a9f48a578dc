"""Where the proof of Lemma 4.5 fails, and the lemma does not.

The proof bounds I(M(p); W) by I(e_p; W) + I(e_M; W). But e_p and e_M are independent, so that what
W knows of both together is at least what it knows of them one by one, and can be more: learning the
exclusive or of two fair bits tells nothing of either bit and one whole bit of the pair.

On random finite chains every term is a finite sum, so nothing below is an estimate.

    python examples/lemma_4_5_proof_step.py
"""

import finite_chain
import torch

import rbpp

ROUNDING = 1e-9


def exclusive_or() -> dict[str, torch.Tensor]:
    """e_p and e_M fair bits, M(p) their exclusive or, S_gen = M(p), W = S_gen."""
    half = torch.full((2,), 0.5, dtype=torch.float64)
    copy = torch.eye(2, dtype=torch.float64)
    either = copy[torch.tensor([[0, 1], [1, 0]])]
    chain = finite_chain.FiniteChain(
        anchor=half,
        prompt=copy,
        model_factor=half,
        output=either,
        synthetic=copy,
        learner=copy,
        anchor_learner=copy,
    )
    return finite_chain.terms(chain)


def random_chains(count: int = 2000, curation: float = 0.0) -> dict[str, torch.Tensor]:
    """Chains of two, three and four letters, additive composition, random learners."""
    parts = [
        finite_chain.terms(
            finite_chain.random_chains(
                count // 3, alphabet=letters, curation=curation, generator=rbpp.generator(letters)
            )
        )
        for letters in (2, 3, 4)
    ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def share(violation: torch.Tensor) -> str:
    """How many chains violate, and by how much at most."""
    violated = violation > ROUNDING
    most = max(0.0, float(violation.max()))
    return f"{float(violated.double().mean()):6.1%} of chains, by up to {most:5.3f} nats"


def main() -> dict[str, float]:
    """Print the exclusive or, then the shares over random chains; return the largest violations."""
    bit = exclusive_or()
    print("exclusive or of two fair bits, in nats")
    for name in (
        "information_prompt_learner",
        "information_model_factor_learner",
        "information_output_learner",
        "information_model_factor_learner_given_prompt",
        "bound_chain_rule",
        "bound_information_flow",
    ):
        print(f"  {name:46s} {float(bit[name]):6.3f}")
    term = random_chains()
    learned, output = term["information_synthetic_learner"], term["information_output_learner"]
    flow, chain = term["bound_information_flow"], term["bound_chain_rule"]
    without = flow - term["prompting_inefficiency"]
    print(f"\n{len(learned)} random chains: violated in")
    print(f"  the proof's step      {share(output - term['information_step'])}")
    print(f"  Lemma 4.5 as stated   {share(learned - flow)}")
    print(f"  Lemma 4.5, δ_p = 0    {share(learned - without)}")
    print(f"  chain-rule bound      {share(learned - chain)}")
    looser = flow / chain.clamp_min(ROUNDING)
    print(f"\nLemma 4.5 is {float(looser.median()):.0f} times the chain-rule bound, at the median.")
    return {
        "exclusive_or": float(bit["information_output_learner"] - bit["information_step"]),
        "step": float((output - term["information_step"]).max()),
        "lemma": float((learned - flow).max()),
        "chain_rule": float((learned - chain).max()),
    }


if __name__ == "__main__":
    main()
