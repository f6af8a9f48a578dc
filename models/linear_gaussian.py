"""A chain of linear maps and normal noise: every entropy and information is a log-determinant.

    anchor    = μ + F z                       z, e, ε, …: independent standard normals
    prompt    = A anchor (+ noise)            φ_T: A is invertible
    output    = h(e_p) + e_M                  h(e_p) = b + H × mean of the prompt's rows
    synthetic = output + ε                    e_M = G e, in the output's units: g is the identity

The task is N(μ, F Fᵀ); without a prompt the generator answers N(b, G Gᵀ).
"""

from collections.abc import Mapping

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor


def model(
    anchors: int = 4,
    outputs: int = 8,
    targets: int = 100,
    unprompted_outputs: int = 100,
    dimension: int = 2,
    prompt_noise: float = 0.0,
    curation_noise: float = 0.5,
    spread: float = 0.3,
) -> Tensor:
    """Knobs: sizes; standard deviations of the noises; `spread` of the maps around the identity."""
    # The world: two centres and four square maps, invertible with probability one.
    centre = dist.Normal(torch.zeros(dimension), 1.0).to_event(1)
    around_identity = dist.Normal(torch.eye(dimension), spread).to_event(2)
    task_mean = pyro.sample("task_mean", centre)
    generator_mean = pyro.sample("generator_mean", centre)
    task_map = pyro.sample("task_map", around_identity)
    prompt_map = pyro.sample("prompt_map", around_identity)
    answer_map = pyro.sample("answer_map", around_identity)
    generator_map = pyro.sample("generator_map", around_identity)
    generator_covariance = generator_map @ generator_map.mT

    task = dist.MultivariateNormal(task_mean, task_map @ task_map.mT)
    with pyro.plate("targets", targets):
        pyro.sample("target", task)
    with pyro.plate("unprompted_outputs", unprompted_outputs):
        pyro.sample("unprompted", dist.MultivariateNormal(generator_mean, generator_covariance))

    with pyro.plate("anchors", anchors):
        anchor = pyro.sample("anchor", task)
        prompt = (prompt_map @ anchor.unsqueeze(-1)).squeeze(-1)
        if prompt_noise > 0:
            prompt = pyro.sample("prompt", dist.Normal(prompt, prompt_noise).to_event(1))
        else:
            prompt = pyro.deterministic("prompt", prompt, event_dim=1)

    summary = prompt.mean(-2, keepdim=True)  # all that the generator reads off the prompt
    answer = generator_mean + (answer_map @ summary.unsqueeze(-1)).squeeze(-1)
    with pyro.plate("outputs", outputs):
        output = pyro.sample("output", dist.MultivariateNormal(answer, generator_covariance))
        pyro.deterministic("model_factor", output - answer, event_dim=1)
        if curation_noise > 0:
            return pyro.sample("synthetic", dist.Normal(output, curation_noise).to_event(1))
        return pyro.deterministic("synthetic", output, event_dim=1)


def loadings(
    world: Mapping[str, Tensor],
    *,
    anchors: int = 4,
    outputs: int = 8,
    prompt_noise: float = 0.0,
    curation_noise: float = 0.5,
    **_: float,  # the other knobs change no loading
) -> dict[str, Tensor]:
    """Each site as a linear map of one vector of independent standard normals, (…, rows·d, noises).

    With L_a and L_b of two sites, Cov(a, b) = L_a L_bᵀ, and for all rows together
    h(a) = ½ log det(2πe L_a L_aᵀ), I(a; b) = ½ log(det Σ_a det Σ_b / det Σ_ab).
    Rows are flattened: entry row·d + coordinate.
    """
    dimension = world["task_map"].shape[-1]
    sizes = [rows * dimension for rows in (anchors, anchors, outputs, outputs)]
    normals = torch.eye(sum(sizes), dtype=world["task_map"].dtype)
    of_anchor, of_prompt, of_model, of_curation = normals.split(sizes)

    def each(rows: int, matrix: Tensor) -> Tensor:
        return torch.kron(normals[:rows, :rows], matrix.contiguous())

    averaging = torch.ones_like(normals[:outputs, :anchors]) / anchors
    anchor = each(anchors, world["task_map"]) @ of_anchor
    prompt = each(anchors, world["prompt_map"]) @ anchor + prompt_noise * of_prompt
    model_factor = each(outputs, world["generator_map"]) @ of_model
    answer = torch.kron(averaging, world["answer_map"].contiguous()) @ prompt
    output = answer + model_factor
    return {
        "anchor": anchor,
        "prompt": prompt,
        "model_factor": model_factor,
        "output": output,
        "synthetic": output + curation_noise * of_curation,
    }
