"""The prompt as a normalising flow of the anchors (Appendix C), and a generator that inverts it.

    anchor    ~ N(μ, F Fᵀ)
    prompt    = φ_T(anchor)            a shear and a coupling layer: p_p by change of variables
    output    ~ 1/m Σ_j N(φ_T⁻¹(prompt_j), spread²)   each answer varies one row of the prompt
    synthetic = output + ε             p_gen by convolution

The task is where the anchors come from; without a prompt the generator answers from its own normal.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.transforms import AffineCoupling, ComposeTransform, LowerCholeskyAffine
from torch import Tensor


def model(
    anchors: int = 5,
    outputs: int = 50,
    targets: int = 100,
    unprompted_outputs: int = 100,
    dimension: int = 2,
    spread: float = 0.5,
    noise: float = 0.2,
) -> Tensor:
    """Knobs: sizes; `spread` of the answers around their row; standard deviation `noise` of ε."""
    if dimension < 2:
        raise ValueError(f"Expected dimension of two or more to couple; got {dimension}")
    # The world: the task, the template of the prompt, the generator's own mean.
    centre = dist.Normal(torch.zeros(dimension), 2.0).to_event(1)
    square = dist.Normal(torch.eye(dimension), 0.3).to_event(2)
    task_mean = pyro.sample("task_mean", centre)
    task_map = pyro.sample("task_map", square)
    offset = pyro.sample("offset", centre)
    shear = pyro.sample("shear", square)
    coupling = pyro.sample("coupling", square)
    generator_mean = pyro.sample("generator_mean", centre)
    template = prompt_transform(offset, shear, coupling)

    task = dist.MultivariateNormal(task_mean, task_map @ task_map.mT)
    with pyro.plate("targets", targets):
        pyro.sample("target", task)
    with pyro.plate("unprompted_outputs", unprompted_outputs):
        pyro.sample("unprompted", dist.Normal(generator_mean, 2.0).to_event(1))

    with pyro.plate("anchors", anchors):
        anchor = pyro.sample("anchor", task)
        prompt = pyro.deterministic("prompt", template(anchor), event_dim=1)

    examples = template.inv(prompt)  # the generator sees through the template
    covariances = spread**2 * torch.eye(dimension).expand(*examples.shape, dimension)
    with pyro.plate("outputs", outputs):
        answers = dist.MixtureSameFamily(
            dist.Categorical(logits=torch.zeros_like(examples[..., 0]).unsqueeze(-2)),
            dist.MultivariateNormal(examples.unsqueeze(-3), covariances.unsqueeze(-4)),
        )
        output = pyro.sample("output", answers)
        if noise > 0:
            return pyro.sample("synthetic", dist.Normal(output, noise).to_event(1))
        return pyro.deterministic("synthetic", output, event_dim=1)


def prompt_transform(offset: Tensor, shear: Tensor, coupling: Tensor) -> ComposeTransform:
    """φ_T: a triangular affine map, then shift and scale of the last coordinates by the first."""
    diagonal = torch.diag_embed(shear.diagonal(dim1=-2, dim2=-1).exp())
    first = offset.shape[-1] // 2

    def shift_and_log_scale(x: Tensor) -> tuple[Tensor, Tensor]:
        mixed = (coupling[..., first:, :first] @ torch.tanh(x).unsqueeze(-1)).squeeze(-1)
        return 2 * mixed, mixed

    return ComposeTransform(
        [
            LowerCholeskyAffine(offset, shear.tril(-1) + diagonal),
            AffineCoupling(first, shift_and_log_scale),
        ]
    )


def prompt_distribution(
    task_mean: Tensor, task_map: Tensor, offset: Tensor, shear: Tensor, coupling: Tensor
) -> dist.TransformedDistribution:
    """p_p(p) = p_anchor(φ_T⁻¹(p)) |det ∂φ_T⁻¹/∂p|, the density of one row of the prompt."""
    task = dist.MultivariateNormal(task_mean, task_map @ task_map.mT)
    return dist.TransformedDistribution(task, [prompt_transform(offset, shear, coupling)])
