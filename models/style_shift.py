"""Rows of text in a few coordinates: M(p) = h(e_p) + g(e_M), a prompt's content and a style.

    anchor    ~ N(centre, scale²)
    prompt    = anchor                       all anchors; each answer is to one of them
    h(e_p)    = centre + faithfulness · (e_p − centre)    for the row e_p that is answered
    g(e_M)    ~ N(shift, spread²)            the generator's own style and variety
    output    = h(e_p) + g(e_M)              which row it answers is not known: a mixture
    synthetic = output (+ ε)

Given embedded rows `rbpp infer` finds the style's shift |E g(e_M)| and how much of the variance the
prompt explains. Rows are in no order. Without a prompt the generator answers N(centre + shift, …),
spread as its answers to all prompts are.
"""

import pyro
import pyro.distributions as dist
import torch


def model(
    anchors: int = 40,
    outputs: int = 120,
    targets: int = 100,
    unprompted_outputs: int = 100,
    dimension: int = 8,
    extent: float = 1.0,
    noise: float = 0.0,
) -> torch.Tensor:
    """Knobs: sizes; `extent`, the order of magnitude of the coordinates; `noise` of curation."""
    if extent <= 0 or noise < 0:
        raise ValueError(f"Expected extent above 0 and noise of 0 or more; got {extent}, {noise}")
    zero = torch.zeros(dimension)
    # The world: the task, how the prompt is followed, and the generator's own part.
    centre = pyro.sample("centre", dist.Normal(zero, extent).to_event(1))
    scale = extent * pyro.sample("scale", dist.LogNormal(zero - 1.0, 1.0).to_event(1))
    faithfulness = pyro.sample("faithfulness", dist.Beta(1.0, 1.0))
    shift = pyro.sample("shift", dist.Normal(zero, extent).to_event(1))
    spread = extent * pyro.sample("spread", dist.LogNormal(zero - 1.0, 1.0).to_event(1))
    pyro.deterministic("shift_length", shift.norm(dim=-1), event_dim=0)
    explained = (faithfulness.unsqueeze(-1) * scale).square().sum(-1)
    share = explained / (explained + spread.square().sum(-1))
    pyro.deterministic("prompt_share", share, event_dim=0)

    with pyro.plate("targets", targets):
        pyro.sample("target", dist.Normal(centre, scale).to_event(1))
    everything = ((faithfulness.unsqueeze(-1) * scale).square() + spread.square()).sqrt()
    with pyro.plate("unprompted_outputs", unprompted_outputs):
        pyro.sample("unprompted", dist.Normal(centre + shift, everything).to_event(1))

    with pyro.plate("anchors", anchors):
        anchor = pyro.sample("anchor", dist.Normal(centre, scale).to_event(1))
    prompt = pyro.deterministic("prompt", anchor)

    content = centre + faithfulness.unsqueeze(-1) * (prompt - centre)
    means = (content + shift).unsqueeze(-3)
    answers = dist.MixtureSameFamily(
        dist.Categorical(logits=torch.zeros_like(means[..., 0])),
        dist.Normal(means, spread.unsqueeze(-2).expand_as(means)).to_event(1),
    )
    with pyro.plate("outputs", outputs):
        output = pyro.sample("output", answers)
        if noise > 0:
            return pyro.sample("synthetic", dist.Normal(output, noise).to_event(1))
        return pyro.deterministic("synthetic", output, event_dim=1)
