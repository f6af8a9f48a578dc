"""One shape for what was looked at."""

import math

import pytest

from rbpp.checks import Check, verdict_of, verdict_of_probability, violations, worst


def test_refuses_a_word_that_is_no_verdict():
    with pytest.raises(ValueError, match="got 'consistent'"):
        Check("statement", "consistent")


def test_json_has_the_numbers_beside_the_words():
    inner = Check("rows are independent", "unknown", required=False)
    entry = Check("Lemma 4.4", "holds", "", {"slack": 0.5}, (inner,)).to_json()
    assert entry == {
        "statement": "Lemma 4.4",
        "verdict": "holds",
        "message": "",
        "slack": 0.5,
        "assumptions": [
            {
                "statement": "rows are independent",
                "verdict": "unknown",
                "message": "",
                "required": False,
            }
        ],
    }


@pytest.mark.parametrize(
    ("probability", "verdict"),
    [
        (1.0, "holds"),
        (0.95, "holds"),
        (0.5, "undecided"),
        (0.05, "violated"),
        (math.nan, "unknown"),
    ],
)
def test_verdict_of_a_probability(probability, verdict):
    assert verdict_of_probability(probability) == verdict


def test_verdict_of_yes_and_no():
    assert [verdict_of(value) for value in (True, False, None)] == ["holds", "violated", "unknown"]


def test_worst_and_violations():
    checks = [
        Check("a", "holds"),
        Check("b", "unknown"),
        Check("c", "violated", required=False),
        Check("d", "violated"),
    ]
    assert worst(checks).statement == "c"
    assert worst([]) is None
    assert [check.statement for check in violations(checks)] == ["d"]
    assert [check.statement for check in violations(checks, required=False)] == ["c", "d"]
