"""Curation as ε: a filter, replacement of what it rejects, quantisation, and a reviser's hand.

    anchor    ~ N(task mean, 1)
    prompt    = anchor                                   nothing but the examples
    output    ~ a share of answers around the prompt's mean, the rest off-task
    synthetic : kept with probability accept(output), then rounded to steps and revised with noise;
                a rejected row is written anew by the curator

The curator knows the task's centre (as a reader of its description would), not the prompt.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor


def model(
    anchors: int = 20,
    outputs: int = 100,
    targets: int = 100,
    unprompted_outputs: int = 100,
    dimension: int = 2,
    off_task: float = 0.3,
    radius: float = 3.0,
    softness: float = 0.2,
    step: float = 0.5,
    noise: float = 0.1,
) -> Tensor:
    """Knobs: sizes, and

    off_task: share of the generator's answers that ignore the prompt;
    radius: distance from the task's centre up to which the filter keeps a row; 0 keeps all;
    softness: width of the filter's doubt at that distance; 0 makes it sharp;
    step: width of the quantisation; 0 leaves values as they are;
    noise: standard deviation of the revision, above 0 so that curated rows have a density.
    """
    if noise <= 0 or not 0 < off_task < 1 or min(radius, softness, step) < 0:
        raise ValueError(
            "Expected noise above 0, off_task between 0 and 1, and radius, softness and step of 0 "
            f"or more; got {noise=}, {off_task=}, {radius=}, {softness=}, {step=}"
        )
    # The world: where the task is, and where the generator goes when it ignores the prompt.
    centre = dist.Normal(torch.zeros(dimension), 3.0).to_event(1)
    task_mean = pyro.sample("task_mean", centre)
    generator_mean = pyro.sample("generator_mean", centre)

    with pyro.plate("targets", targets):
        pyro.sample("target", dist.Normal(task_mean, 1.0).to_event(1))
    with pyro.plate("unprompted_outputs", unprompted_outputs):
        pyro.sample("unprompted", dist.Normal(generator_mean, 2.0).to_event(1))

    with pyro.plate("anchors", anchors):
        anchor = pyro.sample("anchor", dist.Normal(task_mean, 1.0).to_event(1))
    prompt = pyro.deterministic("prompt", anchor)

    examples = prompt.mean(-2, keepdim=True)
    shares = torch.tensor([1 - off_task, off_task])
    with pyro.plate("outputs", outputs):
        output = pyro.sample("output", either(shares, (examples, 1.0), (generator_mean, 2.0)))
        kept = accept(output, task_mean, radius, softness)
        rounded = step * (output / step).round() if step > 0 else output
        curated = either(torch.stack([kept, 1 - kept], -1), (rounded, noise), (task_mean, 1.0))
        return pyro.sample("synthetic", curated)


def accept(row: Tensor, centre: Tensor, radius: float, softness: float) -> Tensor:
    """Probability that the filter keeps a row."""
    inside = radius - (row - centre).norm(dim=-1)
    if radius == 0:
        return torch.ones_like(inside)
    return torch.sigmoid(inside / softness) if softness > 0 else (inside > 0).to(row.dtype)


def either(
    probabilities: Tensor, first: tuple[Tensor, float], second: tuple[Tensor, float]
) -> dist.MixtureSameFamily:
    """One of two normal rows, each given by its mean and standard deviation."""
    means = torch.stack(torch.broadcast_tensors(first[0], second[0]), -2)
    scales = torch.tensor([first[1], second[1]]).unsqueeze(-1).expand_as(means)
    weights = probabilities.expand(means.shape[:-1])
    return dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(means, scales).to_event(1))
