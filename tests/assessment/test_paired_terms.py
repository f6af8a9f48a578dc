"""ΔI and I(p; M(p)) of rows whose prompts repeat, against closed forms."""

import math

import numpy as np
import pytest

from rbpp.assessment.paired_terms import paired_terms
from rbpp.assessment.sources import Representation
from rbpp.assessment.weighted_rows import Draws
from rbpp.compute import Compute
from rbpp.data.rows import Rows

DRAWS = Draws(200, chains=2)


def terms(prompt, output):
    """Per row, and what the check says."""
    ids = [str(place) for place in range(len(output))]
    rows = Rows("synthetic", "synthetic", ids, embedding=output)
    rows.paired.update(prompt=prompt, output=output)
    found, check = paired_terms(rows, DRAWS, Representation(), Compute(seed=3))
    assert check.statement == "paired prompt and output"
    return {name: one.value / len(output) for name, one in found.items()}, check


def normal_entropy(variance, dimension=3):
    return dimension / 2 * math.log(2 * math.pi * math.e * variance)


def pairs(prompts, outputs, noise, seed, spread=1.0):
    """Outputs μ_p + noise · ε of prompts μ_p ~ N(0, spread² I)."""
    random = np.random.default_rng(seed)
    centre = np.repeat(spread * random.normal(size=(prompts, 3)), outputs, axis=0)
    prompt = [f"prompt {index}" for index in np.repeat(np.arange(prompts), outputs)]
    return prompt, centre + noise * random.normal(size=centre.shape)


@pytest.mark.parametrize(("prompts", "outputs"), [(150, 2), (60, 6)])
def test_repeated_prompts_are_units(prompts, outputs, margin):
    """Gaussian outputs: ΔI = ½ d log 2πe σ², I = ½ d log(1 + 1/σ²); within four of their sd."""
    found, check = terms(*pairs(prompts, outputs, 0.5, seed=prompts))
    gain, shared = found["information_gain"], found["information_prompt_output"]
    margin(4 - abs(gain.mean() - normal_entropy(0.25)) / gain.std())
    margin(4 - abs(shared.mean() - 1.5 * math.log(5)) / shared.std())
    assert gain.std() < 0.15
    assert check.measured == {"pairs": prompts * outputs, "prompts": prompts}
    assert "each a unit" in check.message


def test_the_spread_counts_prompts_and_not_rows():
    """Six times the outputs of 60 prompts tell no more of the distribution of prompts."""
    few, many = (
        terms(*pairs(60, outputs, 0.1, seed=1))[0]["information_prompt_output"].std()
        for outputs in (2, 12)
    )
    assert many > 0.5 * few


def test_few_prompts_of_many_outputs_are_classes(margin):
    """Far apart, four equal classes share log 4 with their outputs, and ΔI is that of the noise."""
    prompt, output = pairs(4, 60, 0.5, seed=5, spread=30.0)
    found, check = terms(prompt, output)
    assert "each a class" in check.message
    margin(0.03 - abs(found["information_prompt_output"].mean() - math.log(4)))
    gain = found["information_gain"]
    margin(4 - abs(gain.mean() - normal_entropy(0.25)) / gain.std())


def test_units_are_those_of_the_outputs():
    prompt, output = pairs(40, 3, 0.5, seed=2)
    one, ten = (terms(prompt, scale * output)[0] for scale in (1.0, 10.0))
    shift = 3 * math.log(10)
    assert ten["information_gain"].mean() - one["information_gain"].mean() == pytest.approx(shift)
    assert ten["information_prompt_output"].mean() == pytest.approx(
        one["information_prompt_output"].mean().item(),
        abs=0.05,  # starts of the fits differ
    )


def test_a_few_repeats_leave_one_row_of_each_prompt():
    """Prompts that are vectors; 5 of 205 repeat, and the rest are pairs of correlation 0.8."""
    random = np.random.default_rng(4)
    prompt = random.normal(size=(205, 3))
    prompt[200:] = prompt[:5]
    output = 0.8 * prompt + 0.6 * random.normal(size=(205, 3))
    found, check = terms(prompt, output)
    assert "200 distinct prompts" in check.message
    truth = -1.5 * math.log(1 - 0.64)
    assert found["information_prompt_output"].mean() == pytest.approx(truth, abs=0.35)


def test_too_few_prompts_say_what_is_needed():
    prompt, output = pairs(10, 6, 0.5, seed=6)
    found, check = terms(prompt, output)
    assert not found
    assert "got 10 distinct prompts of 60 rows" in check.message


def test_equal_outputs_of_a_prompt_have_no_density():
    prompt, output = pairs(40, 3, 0.0, seed=7)
    found, check = terms(prompt, output)
    assert not found
    assert "no ΔI" in check.message
