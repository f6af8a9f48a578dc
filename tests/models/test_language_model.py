"""The process of a language model against sums over every row of an alphabet of 4 and length 4."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from rbpp.compute import Compute
from rbpp.processes.contract import check
from rbpp.processes.density import log_density
from rbpp.processes.process import load_process
from rbpp.processes.replicas import Replicas
from rbpp.processes.simulation import simulate
from rbpp.processes.token_rows import TokenRows
from rbpp.randomness import seeded
from rbpp.theory.chain_information import chain_information
from rbpp.theory.total_variation import total_variations

MODULE = load_process("language_model").model.__globals__
SmallTransformer, template = MODULE["SmallTransformer"], MODULE["template"]
ROWS = torch.tensor(list(itertools.product(range(4), repeat=4)))
SEPARATOR = torch.full((1,), 4)
GENERATOR, TASK = SmallTransformer(5, 1), SmallTransformer(5, 2)
ONE = {"anchors": 1, "examples": 1, "outputs": 1, "temperature": 0.8, "targets": 64}


def one_by_one(network, contexts, temperature=1.0):
    """p(row | context) of all 256 rows, a token and a context at a time: (contexts, 256)."""
    table = torch.ones(len(contexts), len(ROWS), dtype=torch.float64)
    for place, context in enumerate(contexts):
        for length in range(4):
            for beginning in itertools.product(range(4), repeat=length):
                read = torch.cat([context, torch.tensor(beginning, dtype=torch.long)])
                distribution = (network(read[None])[0, -1, :4] / temperature).softmax(-1)
                begins = (ROWS[:, :length] == torch.tensor(beginning)).all(-1)
                table[place, begins] *= distribution[ROWS[begins, length]]
    return table


@pytest.fixture(scope="module")
def exact():
    """The terms of a chain of one anchor and one output, by sums."""
    task = one_by_one(TASK, [SEPARATOR])[0]
    free = one_by_one(GENERATOR, [SEPARATOR], 0.8)[0]
    few = torch.arange(0, 256, 51)  # the other prompts by the distribution, which these rows check
    prompts = template(ROWS.unsqueeze(-2), 1, SEPARATOR)
    answers = TokenRows(GENERATOR, prompts.unsqueeze(-2), 4, 4, temperature=0.8)
    output = answers.log_prob(ROWS).exp()
    torch.testing.assert_close(
        output[few], one_by_one(GENERATOR, [prompts[place] for place in few], 0.8)
    )
    marginal = task @ output
    kept = task.log() >= -4 * math.log(5.0)
    curated = torch.where(kept, marginal, 0) + marginal[~kept].sum() * task
    by_prompt = torch.where(kept, output, 0) + output[:, ~kept].sum(-1, keepdim=True) * task

    def entropy(distribution):
        return -torch.special.xlogy(distribution, distribution).sum(-1)

    def variation(first, second):
        return (first - second).abs().sum(-1) / 2

    gain = float(task @ entropy(output))
    return {
        "entropy_anchor": float(entropy(task)),
        "information_gain": gain,
        "information_prompt_output": float(entropy(marginal)) - gain,
        "entropy_output": float(entropy(marginal)),
        "entropy_synthetic": float(entropy(curated)),
        "task_divergence": float(variation(task, free)),
        "generation_divergence": float(task @ variation(by_prompt, free)),
        "total_divergence": float(task @ variation(by_prompt, task)),
    }


def test_a_sum_over_all_rows_is_one():
    prompts = template(ROWS[:5].unsqueeze(-2), 1, SEPARATOR)
    for options in ({}, {"temperature": 0.5}, {"top_p": 0.7}):
        rows = TokenRows(GENERATOR, prompts.unsqueeze(-2), 4, 4, **options)
        total = rows.log_prob(ROWS).exp().sum(-1)
        torch.testing.assert_close(total, torch.ones(5, dtype=torch.float64))


def close(found, exact, names, margin):
    for name in names:
        error = float(found[name].standard_error) + 1e-3
        margin(4 - abs(float(found[name].value) - exact[name]) / error)


OUTPUTS = ("entropy_anchor", "information_gain", "information_prompt_output", "entropy_output")


def test_every_information_is_its_sum(exact, margin):
    replicas = Replicas(
        load_process("language_model", **ONE, perplexity=0.0), compute=Compute(seed=3)
    )
    found = chain_information(replicas, replicas.draw(96, "draws"), pairs=96, resolution=1.0).terms
    close(found, exact, OUTPUTS, margin)


@pytest.mark.slow
def test_curated_rows_are_their_sums(exact, margin):
    replicas = Replicas(load_process("language_model", **ONE), compute=Compute(seed=3))
    values = replicas.draw(64, "draws")
    found = chain_information(replicas, values, pairs=64, resolution=1.0).terms
    found = {**found, **total_variations(replicas, values).terms}
    close(found, exact, exact, margin)


def test_the_prompt_says_something_of_the_output(exact):
    assert exact["information_prompt_output"] > 0.02
    assert 0.05 < exact["total_divergence"] < exact["generation_divergence"] < 0.95


def test_the_contract_is_met():
    contract = check(load_process("language_model", outputs=2, targets=5), tries=3)
    assert {one.verdict for one in contract.checks} == {"holds"}


def test_nucleus_leaves_tokens_out():
    rows = TokenRows(GENERATOR, SEPARATOR, 4, 4, top_p=0.5)
    density = rows.log_prob(ROWS)
    assert bool((density == -math.inf).any())
    with seeded(0):
        drawn = rows.expand((500,)).sample()
    assert bool((rows.log_prob(drawn) > -math.inf).all())


def test_the_filter_keeps_rows_of_the_task():
    sites = simulate(load_process("language_model", outputs=200, perplexity=5.0)).sites
    output, synthetic = sites["output"], sites["synthetic"]
    task = TokenRows(TASK, SEPARATOR, 4, 4)
    kept = task.log_prob(output) >= -4 * math.log(5.0)
    assert 0.1 < float(kept.double().mean()) < 0.9
    assert torch.equal(synthetic[kept], output[kept])
    assert not torch.equal(synthetic[~kept], output[~kept])
    all_kept = simulate(load_process("language_model", perplexity=0.0)).sites
    assert torch.equal(all_kept["synthetic"], all_kept["output"])


def test_a_callable_and_given_rows_take_the_places_of_the_small_models(tmp_path):
    given = ROWS[[0, 0, 27, 200]]

    def last_again(tokens):
        return 8.0 * torch.nn.functional.one_hot(tokens % 4, 5).double()

    process = load_process("language_model", language_model=last_again, task=given, outputs=50)
    sites = simulate(process).sites
    same = (sites["output"][..., 1:] == sites["output"][..., :-1]).double().mean()
    assert float(same) > 0.95
    assert all(row in given.tolist() for row in sites["anchor"].reshape(-1, 4).tolist())
    np.save(tmp_path / "rows.npy", given.numpy())
    read = load_process("language_model", task=str(tmp_path / "rows.npy"))
    assert simulate(read).sites["anchor"].shape[-1] == 4


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"examples": 3}, "from 1 to all anchors"),
        ({"temperature": 0.0}, "temperature above 0"),
        ({"top_p": 1.5}, "top_p in"),
        ({"language_model": "/no/such/folder"}, "a folder with a causal language model"),
        ({"task": torch.zeros(3, 2)}, "rows of the task as whole numbers"),
        ({"task": torch.full((3, 4), 9)}, "tokens from 0 to letters"),
        ({"language_model": lambda t: torch.full((*t.shape, 5), math.nan)}, "finite logits"),
    ],
)
def test_what_is_no_language_model_is_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        simulate(load_process("language_model", **knobs))


def test_a_local_model_is_read_from_its_folder(tmp_path):
    transformers = pytest.importorskip("transformers", reason="pip install '.[lm]'")
    size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    config = transformers.LlamaConfig(
        vocab_size=6, num_attention_heads=1, num_key_value_heads=1, **size
    )
    with seeded(0):
        network = transformers.LlamaForCausalLM(config).eval()
    network.save_pretrained(tmp_path)
    process = load_process("language_model", language_model=str(tmp_path), outputs=3, targets=2)
    values = simulate(process).values
    found = log_density(process, {**values, "output": values["output"]}, ["output"], per_row=True)
    prompt, output = (
        values[name].reshape(-1, values[name].shape[-1]) for name in ("prompt", "output")
    )
    read = torch.cat([prompt.expand(3, -1), output], -1)
    with torch.no_grad():
        distribution = network(read[:, :-1]).logits[:, -4:, :4].double().log_softmax(-1)
    expected = distribution.gather(-1, output.unsqueeze(-1)).sum((-1, -2))
    torch.testing.assert_close(found["output"].flatten(), expected, atol=1e-5, rtol=0)
