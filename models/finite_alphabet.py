"""A chain of letters: every entropy and information is a finite sum.

    anchor    ~ the task's table               q letters
    prompt    = π(anchor)                      φ_T: a permutation of the letters
    output    = h(e_p) + e_M   modulo q        h(e_p): the sum of the prompt rows' answers
    synthetic = output + ε     modulo q        ε: how curation replaces letters

The task is the anchors' table; without a prompt the generator answers e_M.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor


def model(
    letters: int = 3,
    anchors: int = 1,
    outputs: int = 2,
    targets: int = 100,
    unprompted_outputs: int = 100,
    curation_noise: float = 0.2,
    concentration: float = 1.0,
) -> Tensor:
    """Knobs: q; sizes; the share of letters that curation may change; how even the tables are."""
    if letters < 2:
        raise ValueError(f"Expected letters ≥ 2; got {letters}")
    if not 0 <= curation_noise <= 1:
        raise ValueError(f"Expected curation_noise between 0 and 1; got {curation_noise}")

    # The world: random tables.
    table = dist.Dirichlet(torch.full((letters,), concentration))
    task = pyro.sample("task", table)
    generator = pyro.sample("generator", table)
    replacement = pyro.sample("replacement", table)
    ranks = pyro.sample("ranks", dist.Normal(torch.zeros(letters), 1.0).to_event(1))
    permutation = pyro.deterministic("permutation", ranks.argsort(-1), event_dim=1)
    uniform = dist.Categorical(logits=torch.zeros(letters, letters))
    answers = pyro.sample("answers", uniform.to_event(1))
    unchanged = torch.eye(letters)[0]
    curation = (1 - curation_noise) * unchanged + curation_noise * replacement

    with pyro.plate("targets", targets):
        pyro.sample("target", letter(task))
    with pyro.plate("unprompted_outputs", unprompted_outputs):
        pyro.sample("unprompted", letter(generator))

    with pyro.plate("anchors", anchors):
        anchor = pyro.sample("anchor", letter(task))
        prompt = pyro.deterministic("prompt", look_up(permutation, anchor), event_dim=1)

    answer = look_up(answers, prompt).sum(-2, keepdim=True) % letters
    curated = pyro.plate("outputs", outputs)
    with curated:
        output = pyro.sample("output", letter(shifted(generator, answer)))
        pyro.deterministic("model_factor", (output - answer) % letters, event_dim=1)
        return pyro.sample("synthetic", letter(shifted(curation, output)))


def letter(table: Tensor) -> dist.Independent:
    """One letter with these probabilities, as a row of dimension one."""
    return dist.Categorical(table.unsqueeze(-2)).to_event(1)


def look_up(table: Tensor, index: Tensor) -> Tensor:
    """table[index] for an index (…, 1) into the last dimension, whatever stands in front."""
    batch = torch.broadcast_shapes(table.shape[:-1], index.shape[:-1])
    return table.expand(*batch, -1).gather(-1, index.expand(*batch, -1))


def shifted(table: Tensor, shift: Tensor) -> Tensor:
    """The table of (X + shift) modulo q for X with the given table."""
    letters = table.shape[-1]
    return look_up(table, (torch.arange(letters) - shift) % letters)
