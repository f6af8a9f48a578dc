"""Every lemma as a formula: values by hand, broadcasting, preconditions."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rbpp.theory import lemmas

number = st.floats(0.0, 20.0)
CONSTANTS = {"sub_gaussian": 0.5}


def test_lemma_3_1_adds_the_divergences_and_the_gap():
    assert float(lemmas.lemma_3_1(0.2, 0.3, -0.1, loss_bound=2.0)) == pytest.approx(1.1)


def test_lemma_4_4_is_xu_and_raginsky_without_layers_and_shrinks_with_them():
    plain = lemmas.lemma_4_4(3.0, 50, sub_gaussian=0.5)
    assert float(plain) == pytest.approx(math.sqrt(2 * 0.25 / 50 * 3.0))
    deep = lemmas.lemma_4_4(3.0, 50, sub_gaussian=0.5, layers=4, contraction=0.7)
    assert float(deep / plain) == pytest.approx(math.exp(-2 * math.log(1 / 0.7)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": 0}, "rows"),
        ({"rows": 5, "layers": -1}, "layers"),
        ({"rows": 5, "layers": 0.5}, "layers"),
        ({"rows": 5, "contraction": 1.0}, "contraction"),
        ({"rows": 5, "contraction": 0.0}, "contraction"),
        ({"rows": 5, "sub_gaussian": 0.0}, "sub_gaussian"),
        ({"rows": 5, "sub_gaussian": math.nan}, "sub_gaussian"),
    ],
)
def test_lemma_4_4_refuses_constants_outside_their_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        lemmas.lemma_4_4(1.0, **{"sub_gaussian": 0.5, **arguments})


def test_a_negative_estimate_counts_as_no_information_and_nan_stays_nan():
    found = lemmas.lemma_4_4(torch.tensor([-0.1, math.nan, 2.0]), 100, sub_gaussian=0.5)
    assert found[0] == 0
    assert found[1].isnan()
    assert found[2] == pytest.approx(0.1)


@given(number, number, number, number, number, number)
def test_sharp_bound_is_never_above_theorem_4_7(task, generation, gain, learner, factor, leak):
    """For any terms that a chain can have: smaller divergence, smaller information."""
    conditional = min(factor, gain)  # I(e_M; W | e_p) ≤ H(e_M), and here the smaller of both
    chain = lemmas.chain_rule(leak, learner, conditional)
    flow = lemmas.information_flow(gain, learner, factor, leak)
    assert float(chain) <= float(flow) + 1e-9
    total = min(1.0, task + generation)
    sharp = lemmas.sharp_bound(total, chain, 100, loss_bound=1.0, **CONSTANTS)
    paper = lemmas.theorem_4_7(task, generation, flow, 100, loss_bound=1.0, **CONSTANTS)
    assert float(sharp) <= float(paper) + 1e-9


@given(number, number)
def test_prompting_inefficiency_is_what_lambda_says(entropy, information):
    found = float(lemmas.prompting_inefficiency(entropy, information))
    if information > 1e-6:
        factor = float(lemmas.prompting_factor(entropy, information))
        assert factor >= 1
        assert found == pytest.approx(factor * information - information, abs=1e-6)
    assert found >= 0


def test_theorem_4_10_is_the_corrected_one_when_curation_adds_no_entropy():
    terms = torch.tensor([2.0, 0.5, 3.0, 1.0, 4.0, 0.25])
    stated = lemmas.theorem_4_10(*terms)
    assert float(stated) == pytest.approx(2 - 1.5 * 3 + 2 * 1 + 4 + 0.25)
    corrected = lemmas.theorem_4_10_corrected(*terms[:4], terms[3] + 0.7, *terms[4:])
    assert float(corrected - stated) == pytest.approx(0.7)


def test_draws_and_worlds_broadcast():
    information = torch.linspace(0, 1, 4)[:, None]
    divergence = torch.linspace(0, 1, 3)
    found = lemmas.theorem_4_7(
        divergence, divergence, information, 10, loss_bound=1.0, sub_gaussian=0.5
    )
    assert found.shape == (4, 3)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_loss_bound_must_be_a_positive_number(value):
    with pytest.raises(ValueError, match="loss_bound"):
        lemmas.sub_gaussian_constant(value)
    with pytest.raises(ValueError, match="loss_bound"):
        lemmas.distribution_shift(0.1, value)


def test_divergences_cannot_be_negative():
    with pytest.raises(ValueError, match="total variation"):
        lemmas.distribution_shift(-0.1, 1.0)
