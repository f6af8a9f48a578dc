"""Files of log-probabilities: one process in every layout gives the same numbers, or one line."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.log_probabilities import Letters
from rbpp import channel_information, command, log_probabilities
from rbpp.channel.read import read_log_probabilities

PROMPTS, OUTPUTS = 6, 2


@pytest.fixture(scope="module")
def given():
    """A full matrix, with everything beside it."""
    found = Letters().draw(PROMPTS, OUTPUTS, np.random.default_rng(0))
    count = PROMPTS * OUTPUTS
    return found | {
        "tokens": np.arange(2, 2 + count),
        "log_prob_unprompted": np.full(count, -2.0),
        "kept": np.arange(count) % 3 > 0,
    }


def pieces(total, count):
    """Log-probabilities of `count` tokens that add up."""
    return [total / count] * count


def step(value, token=7):
    return {str(token): {"logprob": value, "rank": 1, "decoded_token": "x"}}


def pair_lines(given, answer):
    """A line for every output and prompt; `answer` makes it of log-probability and tokens."""
    lines = []
    for row, own in enumerate(given["prompt"]):
        tokens = int(given["tokens"][row])
        under = [*enumerate(given["log_prob"][row]), (None, given["log_prob_unprompted"][row])]
        for prompt, value in under:
            name = None if prompt is None else f"p{prompt}"
            said = {"output": row, "prompt": name, "own": f"p{own}"}
            kept = bool(given["kept"][row])
            lines.append(answer(said, float(value), tokens) | {"kept": kept})
    return lines


def plain(said, value, tokens):
    return said | {"log_prob": value, "tokens": tokens}


def vllm_server(said, value, tokens):
    steps = [None, step(-3.0), *(step(one) for one in pieces(value, tokens))]
    choice = {"index": 0, "text": "x", "logprobs": None, "prompt_logprobs": steps}
    return said | {
        "prompt_tokens": 2,
        "response": {"status_code": 200, "body": {"choices": [choice]}},
    }


def vllm_python(said, value, tokens):
    ids = [3, 5, *range(10, 10 + tokens)]
    steps = [None, {"5": {"logprob": -3.0}, "4": {"logprob": -0.1}}]
    steps += [
        {str(token): {"logprob": one}, "0": {"logprob": -0.2}}
        for token, one in zip(ids[2:], pieces(value, tokens), strict=True)
    ]
    return said | {"output_tokens": tokens, "prompt_logprobs": steps, "prompt_token_ids": ids}


def echo(said, value, tokens):
    values = [None, -3.0, *pieces(value, tokens), -0.7]
    custom = json.dumps(said | {"prompt_tokens": 2})
    logprobs = {"tokens": ["x"] * len(values), "token_logprobs": values}
    body = {"choices": [{"logprobs": logprobs}], "usage": {"completion_tokens": 1}}
    return {"custom_id": custom, "response": {"body": body}}


ANSWERS = {one.__name__: one for one in (plain, vllm_server, vllm_python, echo)}


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def write(name, given, folder):
    if name == "npz":
        np.savez(folder / "scores.npz", **given)
        return folder / "scores.npz"
    if name in ("parquet", "jsonl"):
        frame = pd.DataFrame({key: list(value) for key, value in given.items()})
        if name == "parquet":
            frame.to_parquet(folder / "scores.parquet")
            return folder / "scores.parquet"
        frame.to_json(folder / "scores.jsonl", orient="records", lines=True, double_precision=15)
        return folder / "scores.jsonl"
    return write_lines(folder / "pairs.jsonl", pair_lines(given, ANSWERS[name]))


@pytest.mark.parametrize("name", ["npz", "parquet", "jsonl", *ANSWERS])
def test_every_layout_gives_the_same_numbers(name, given, tmp_path):
    data = read_log_probabilities(write(name, given, tmp_path))
    expected = channel_information(log_probabilities(**given), draws=50)
    found = channel_information(data, draws=50)
    path_entropy = name in ("npz", "parquet", "jsonl")
    assert (data.path_entropy is not None) == path_entropy
    assert set(found.terms) == set(expected.terms)
    for key, term in expected.terms.items():
        torch.testing.assert_close(
            found.terms[key].value, term.value, rtol=1e-6, atol=1e-6, equal_nan=True
        )
    assert data.tokens.tolist() == given["tokens"].tolist()
    assert data.kept.tolist() == given["kept"].tolist()
    if not path_entropy:
        assert found.rows["prompt"].tolist() == [f"p{own}" for own in given["prompt"]]


def test_generated_answers_give_the_gain(tmp_path):
    """Chat completions with several choices, completions, and vLLM's Python outputs."""
    lines = [
        {
            "custom_id": "first",
            "response": {
                "body": {
                    "choices": [
                        {
                            "index": 0,
                            "logprobs": {"content": [{"logprob": -1.0}, {"logprob": -0.5}]},
                        },
                        {"index": 1, "logprobs": {"content": [{"logprob": -2.0}]}},
                    ]
                }
            },
        },
        {"prompt_id": 2, "choices": [{"logprobs": {"token_logprobs": [-0.25, -0.5]}}]},
        {
            "prompt": "the third",
            "outputs": [
                {"index": 0, "token_ids": [5, 6], "logprobs": [step(-1.0, 5), step(-3.0, 6)]},
                {"index": 1, "cumulative_logprob": -7.5, "logprobs": None},
            ],
        },
    ]
    data = read_log_probabilities(write_lines(tmp_path / "answers.jsonl", lines))
    assert data.own.tolist() == [-1.5, -2.0, -0.75, -4.0, -7.5]
    assert data.prompt.tolist() == [0, 0, 1, 2, 2]
    assert data.output_names == ("first/0", "first/1", "2/0", "the third/0", "the third/1")
    assert set(channel_information(data).terms) >= {"information_gain"}


def test_generated_answers_join_with_scored_ones(tmp_path):
    def generated(name, value):
        return {"prompt_id": name, "choices": [{"logprobs": {"token_logprobs": [value]}}]}

    def scored(output, prompt, value):
        return {"output": output, "prompt": prompt, "log_prob": value, "tokens": 1}

    lines = [
        generated("a", -1.0),
        generated("b", -2.0),
        scored("a/0", "b", -5.0),
        scored("b/0", "a", -6.0),
    ]
    data = read_log_probabilities(write_lines(tmp_path / "both.jsonl", lines))
    assert data.own.tolist() == [-1.0, -2.0]
    assert data.log_prob.tolist() == [[-5.0], [-6.0]]


def scored(**more):
    return {"output": "o", "prompt": "p", "own": "p", "log_prob": -1.0} | more


def answered(values, **more):
    logprobs = {"token_logprobs": values}
    return {"output": "o", "prompt": "p", "choices": [{"logprobs": logprobs}]} | more


BAD_LINES = {
    "no prompt": ([{"output": "o", "log_prob": -1.0}], "Expected `prompt`"),
    "no own": ([scored(own=None)], "under its own prompt; got no own prompt named"),
    "own not scored": ([scored(own="q")], "got none under its own prompt"),
    "two owns": ([scored(), scored(prompt="q", own="q")], "line 2: Expected one own prompt"),
    "twice": ([scored(), scored()], "line 2: Expected output 'o' once under prompt 'p'"),
    "tokens": (
        [scored(tokens=3), scored(prompt="q", tokens=4)],
        "line 2: Expected one number of tokens.*got 4 after 3: it is cut into other tokens",
    ),
    "uneven": (
        [scored(), scored(prompt="q"), scored(output="r", prompt="q", own="q")],
        "output 'r' under 2 prompts",
    ),
    "positive": ([scored(log_prob=0.5)], "line 1: Expected log-probabilities of at most 0"),
    "text": ([scored(log_prob="x")], "Expected a number; got 'x'"),
    "where": ([answered([None, -1.0, -2.0])], "Expected prompt_tokens or output_tokens"),
    "too many": (
        [answered([None, -1.0], prompt_tokens=5)],
        "an output behind 5 tokens.*got 2 tokens",
    ),
    "first": ([answered([None, -1.0], prompt_tokens=0)], "every token of the output; got none"),
    "no echo": ([answered([-1.0, -2.0], prompt_tokens=1)], "Expected an echo of the prompt"),
    "not given": (
        [answered([None, -9999.0], prompt_tokens=1)],
        "got -9999, which stands for none",
    ),
    "no logprobs": ([{"prompt": "p", "choices": [{"text": "x"}]}], "Expected `logprobs`"),
    "nothing": ([{"prompt": "p", "text": "x"}], "Expected log-probabilities of what"),
    "no name": ([{"choices": [{"logprobs": None}]}], "Expected the name of the prompt"),
    "several tokens": (
        [
            {
                "prompt": "p",
                "outputs": [{"logprobs": [{"1": {"logprob": -1}, "2": {"logprob": -2}}]}],
            }
        ],
        "Expected one token at position 0",
    ),
    "refused": (
        [{"custom_id": "a", "response": {"status_code": 400, "body": {"error": "too long"}}}],
        "got the error too long",
    ),
    "another form": ([{"prompt": "p", "choices": "none"}], "line 1: .* got another form"),
    "another start": ([answered([None, -1.0], prompt_tokens="x")], "line 1: .*another form"),
    "one prompt": ([scored()], "at least 2 prompts"),
    "kept": ([scored(kept="yes")], "field 'kept': Expected true or false"),
    "rows differ": (
        [{"log_prob": [-1, -2], "prompt": 0}, {"log_prob": [-1], "prompt": 1}],
        "line 2, field 'log_prob': Expected 2 numbers",
    ),
    "sides": ([{"log_prob": [-1, -2, -3]}] * 2, "Expected `prompt`.*sides that differ"),
    "above zero": (
        [{"log_prob": [-1, 0.5]}, {"log_prob": [-1, -2]}],
        "at most 0; got 0.5 in row 0, column 1 of log_prob",
    ),
    "null": (
        [{"log_prob": [-1, None], "prompt": 0}, {"log_prob": [-1, -2], "prompt": 1}],
        "line 1, field 'log_prob': Expected numbers; got nothing",
    ),
    "misspelled": (
        [{"log_prob": [-1, -2], "prompts": 0}, {"log_prob": [-1, -2], "prompts": 1}],
        "did you mean 'prompt'",
    ),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_named(name, tmp_path, capsys):
    lines, message = BAD_LINES[name]
    path = write_lines(tmp_path / "bad.jsonl", lines)
    with pytest.raises(ValueError, match=message) as caught:
        read_log_probabilities(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert command.main(["channel", str(path), "--device", "cpu"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_bad_archives_are_refused(tmp_path, given):
    path = tmp_path / "bad.npz"
    np.savez(path, prompt=given["prompt"])
    with pytest.raises(ValueError, match="Expected an array log_prob; got prompt"):
        read_log_probabilities(path)
    np.savez(path, log_prob=given["log_prob"], promt=given["prompt"])
    with pytest.raises(ValueError, match="did you mean 'prompt'"):
        read_log_probabilities(path)
    np.savez(path, log_prob=given["log_prob"], kept=np.array([object()]), allow_pickle=True)
    with pytest.raises(ValueError, match="not unpickled"):
        read_log_probabilities(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"bad\.npz"):
        read_log_probabilities(path)
    with pytest.raises(ValueError, match="no such path"):
        read_log_probabilities(tmp_path / "absent.npz")


def test_the_program_reports_and_writes_rows(tmp_path, given, capsys):
    path = write("npz", given, tmp_path)
    rows = tmp_path / "rows.parquet"
    arguments = ["channel", str(path), "--device", "cpu", "--draws", "50"]
    assert command.main([*arguments, "--per-token", "--units", "bits", "--rows", str(rows)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Information in bits per token: 12 outputs of 6 prompts, 90 tokens")
    assert "bits per token" in out
    assert len(pd.read_parquet(rows)) == 12
    assert command.main([*arguments, "--json", "--per-row"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["terms"]["information_gain"]["mean"] == pytest.approx(
        -given["log_prob"][np.arange(12), given["prompt"]].mean(), rel=0.2
    )
    assert command.main([*arguments, "--per-row", "--per-token"]) == 2
    given = given | {
        "log_prob": np.where(np.arange(12)[:, None] == 3, -math.inf, given["log_prob"])
    }
    write("npz", given, tmp_path)
    assert command.main(arguments) == 2
    assert "--leave-out-impossible" in capsys.readouterr().err
    assert command.main([*arguments, "--leave-out-impossible"]) == 0
