from __future__ import annotations

import itertools

import pytest
import torch

from rbpp.processes.density import log_density
from rbpp.processes.process import load_process
from rbpp.processes.simulation import simulate


def letters(*shape):
    """Every combination of three letters in rows, as (combination, rows, 1)."""
    return torch.tensor(list(itertools.product(range(3), repeat=shape[0]))).unsqueeze(-1)


def tables(process, simulation):
    """p(anchor), p(output | prompt) and p(synthetic | output) of each world, by enumeration."""
    world = simulation.world
    anchor, output = letters(1), letters(2)
    first = log_density(process, {**world, "anchor": anchor[:, None, None]}, ["anchor"])
    given = {**world, "prompt": anchor[:, None, None, None], "output": output[:, None, None]}
    second = log_density(process, given, ["output"])
    given = {**world, "output": output[:, None, None, None], "synthetic": output[:, None, None]}
    third = log_density(process, given, ["synthetic"])
    return (
        first["anchor"].squeeze(-1).exp(),
        second["output"].squeeze(-1).exp(),
        third["synthetic"].squeeze(-1).exp(),
    )


def test_tables_are_distributions():
    process = load_process("finite_alphabet")
    simulation = simulate(process, worlds=4)
    anchor, output, synthetic = tables(process, simulation)
    assert (anchor.shape, output.shape, synthetic.shape) == ((3, 4), (3, 9, 4), (9, 9, 4))
    for table, dimension in ((anchor, 0), (output, 1), (synthetic, 1)):
        torch.testing.assert_close(table.sum(dimension), torch.ones_like(table.sum(dimension)))


def test_tables_are_those_of_the_story():
    process = load_process("finite_alphabet")
    simulation = simulate(process, worlds=3)
    _, output, synthetic = tables(process, simulation)
    for world in range(3):
        value = {name: table[world, 0] for name, table in simulation.world.items()}
        curation = 0.2 * value["replacement"]
        curation[0] += 0.8
        for prompt in range(3):
            answer = int(value["answers"][prompt])
            for index, (first, second) in enumerate(itertools.product(range(3), repeat=2)):
                distribution = value["generator"]
                expected = distribution[(first - answer) % 3] * distribution[(second - answer) % 3]
                torch.testing.assert_close(output[prompt, index, world], expected)
        for above, below in itertools.product(enumerate(letters(2)), repeat=2):
            shift = (below[1] - above[1]).flatten() % 3
            expected = curation[shift].prod()
            torch.testing.assert_close(synthetic[above[0], below[0], world], expected)


def test_frequencies_are_the_sums(margin):
    """Chi-square of synthetic pairs against the sum over anchors and outputs."""
    replicates = 20_000
    process = load_process("finite_alphabet", concentration=3.0)
    simulation = simulate(process, replicates=replicates, seed=11)
    anchor, output, synthetic = (table[..., 0] for table in tables(process, simulation))
    permutation = simulation.derived["permutation"].flatten()
    assert sorted(permutation.tolist()) == [0, 1, 2]
    by_prompt = torch.zeros(3, dtype=anchor.dtype).index_add(0, permutation, anchor)
    expected = by_prompt @ output @ synthetic * replicates
    pairs = simulation.sites["synthetic"][0].squeeze(-1)
    found = torch.bincount(3 * pairs[:, 0] + pairs[:, 1], minlength=9)
    # 8 degrees of freedom: beyond 26.1 once in a thousand.
    margin(26.1 - float(((found - expected) ** 2 / expected).sum()))


def test_factor_and_prompt_are_read_off():
    simulation = simulate(load_process("finite_alphabet", anchors=3), worlds=5, replicates=4)
    sites, world = simulation.sites, simulation.world
    permutation = simulation.derived["permutation"].unsqueeze(-2).expand(5, 4, 3, 3)
    assert torch.equal(permutation.gather(-1, sites["anchor"]), sites["prompt"])
    answers = world["answers"].unsqueeze(-2).expand(5, 4, 3, 3).gather(-1, sites["prompt"])
    answer = answers.sum(-2, keepdim=True)
    assert torch.equal((answer + sites["model_factor"]) % 3, sites["output"])


@pytest.mark.parametrize("noise", [-0.1, 1.1])
def test_noise_is_a_share(noise):
    process = load_process("finite_alphabet", curation_noise=noise)
    with pytest.raises(ValueError, match="curation_noise between 0 and 1"):
        simulate(process)


def test_no_noise_leaves_every_letter():
    sites = simulate(load_process("finite_alphabet", curation_noise=0.0), worlds=20).sites
    assert torch.equal(sites["synthetic"], sites["output"])


def test_knobs_change_what_they_name():
    sites = load_process("finite_alphabet", anchors=4, outputs=5, letters=6).sites
    assert (sites["anchor"].shape, sites["output"].shape) == ((4, 1), (5, 1))
    assert sites["task"].shape == (6,)
    even, uneven = (
        simulate(load_process("finite_alphabet", concentration=c), worlds=300).world["task"].std()
        for c in (10.0, 0.3)
    )
    assert even < uneven / 2
    sizes = load_process("finite_alphabet", targets=3, unprompted_outputs=2).sites
    assert (sizes["target"].shape, sizes["unprompted"].shape) == ((3, 1), (2, 1))
