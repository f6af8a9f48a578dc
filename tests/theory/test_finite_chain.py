"""Finite chains by enumeration: the table of the theory's audit, on random chains."""

import finite_chain
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rbpp.randomness import generator

ROUNDING = 1e-9  # nats; sums of at most a few thousand float64 products

chains = st.builds(
    lambda seed, size, concentration, curation: finite_chain.random_chains(
        50,
        alphabet=size,
        concentration=concentration,
        curation=curation,
        generator=generator(seed),
    ),
    st.integers(0, 2**32),
    st.integers(2, 4),
    st.sampled_from([0.1, 1.0, 5.0]),
    st.sampled_from([None, 0.0, 0.1, 0.9]),
)


@settings(max_examples=40, deadline=None)
@given(chains)
def test_what_holds_holds_on_every_chain(chain):
    term = finite_chain.terms(chain)
    information = term["information_synthetic_learner"]
    for name in ("bound_information_flow", "bound_chain_rule"):
        assert bool((information <= term[name] + ROUNDING).all()), name
    without_prompting = term["bound_information_flow"] - term["prompting_inefficiency"]
    assert bool((information <= without_prompting + ROUNDING).all())
    assert bool((term["bound_chain_rule"] <= term["bound_information_flow"] + ROUNDING).all())
    assert bool((term["ggmi"] <= term["bound_ggmi_corrected"] + ROUNDING).all())
    for name, value in term.items():
        if name.startswith(("information", "entropy_anchor", "curation_leak")):
            assert bool((value >= -ROUNDING).all()), name


@settings(max_examples=40, deadline=None)
@given(chains)
def test_identities_of_the_theory(chain):
    term = finite_chain.terms(chain)
    identity = (
        term["entropy_gap"]
        + term["entropy_synthetic_given_learner"]
        - term["entropy_anchor_given_learner"]
        + term["learner_gap"]
    )
    torch.testing.assert_close(term["ggmi"], identity, atol=1e-9, rtol=0)
    slack = term["information_gain"] + term["entropy_gap"] - term["entropy_anchor_given_output"]
    torch.testing.assert_close(term["bound_ggmi"] - term["ggmi"], slack, atol=1e-6, rtol=0)
    # An invertible prompt carries what the anchor carries.
    for anchor, prompt in (
        ("information_anchor_output", "information_prompt_output"),
        ("information_anchor_synthetic_learner", "information_prompt_learner"),
    ):
        torch.testing.assert_close(term[anchor], term[prompt], atol=1e-9, rtol=0)
    gain = finite_chain.conditional_mutual_information(chain.joint("peo"))
    torch.testing.assert_close(term["information_gain"], gain, atol=1e-9, rtol=0)


def test_the_proof_step_fails_and_the_published_theorem_fails_under_curation():
    """The shares of the theory's table, on chains with its own mixture of alphabets."""
    chain = finite_chain.random_chains(2000, alphabet=3, curation=0.2, generator=generator(0))
    term = finite_chain.terms(chain)
    step = term["information_output_learner"] - term["information_step"]
    assert 0.2 < float((step > ROUNDING).double().mean()) < 0.9
    assert float(step.max()) > 0.1
    assert float((term["ggmi"] > term["bound_ggmi"] + ROUNDING).double().mean()) > 0.9
    clean = finite_chain.terms(
        finite_chain.random_chains(2000, curation=0.0, generator=generator(1))
    )
    assert bool((clean["ggmi"] <= clean["bound_ggmi"] + ROUNDING).all())
    assert bool((clean["curation_leak"].abs() < ROUNDING).all())


def test_a_chain_by_hand():
    """Exclusive or of two fair bits, learned exactly: W knows neither factor alone."""
    half = torch.full((2,), 0.5, dtype=torch.float64)
    copy = torch.eye(2, dtype=torch.float64)
    either = copy[torch.tensor([[0, 1], [1, 0]])]
    term = finite_chain.terms(finite_chain.FiniteChain(half, copy, half, either, copy, copy, copy))
    bit = torch.log(torch.tensor(2.0, dtype=torch.float64))
    for name in ("information_prompt_learner", "information_model_factor_learner"):
        assert float(term[name]) == pytest.approx(0, abs=1e-12)
    for name in (
        "information_synthetic_learner",
        "information_model_factor_learner_given_prompt",
        "information_gain",
        "bound_chain_rule",
    ):
        assert float(term[name]) == pytest.approx(float(bit)), name
    assert float(term["information_output_learner"] - term["information_step"]) > 0.69


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"anchor": torch.tensor([0.5, 0.6])}, "anchor to hold distributions"),
        ({"anchor": torch.tensor([1.5, -0.5])}, "anchor to hold distributions"),
        ({"anchor": torch.tensor([1, 0])}, "floating"),
        ({"learner": torch.eye(3)}, "learner to fit"),
        ({"output": torch.eye(2)}, "output in floating point with at least 3"),
    ],
)
def test_refuses_tables_that_are_no_chain(change, message):
    half, copy = torch.full((2,), 0.5), torch.eye(2)
    tables = {
        "anchor": half,
        "prompt": copy,
        "model_factor": torch.ones(1),
        "output": copy[:, None],
        "synthetic": copy,
        "learner": copy,
        "anchor_learner": copy,
    }
    with pytest.raises(ValueError, match=message):
        finite_chain.FiniteChain(**{**tables, **change})
