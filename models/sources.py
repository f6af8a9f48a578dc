"""Real data: one set of Gaussian components shared by all sources, each with weights of its own.

The weights are sparse, and their zeros are the paper's parts: in the anchors and the target (K), in
the target alone (J), in what the generator makes and not in the target (L). Prompting pulls the
generator's own weights towards the components that the anchors are in. `rbpp assess` fits these
components and weights to data; here they are drawn, and everything is known.
"""

import pyro
import pyro.distributions as dist
import torch


def rows(
    weights: torch.Tensor, means: torch.Tensor, scales: torch.Tensor
) -> dist.MixtureSameFamily:
    """Rows of one source: a mixture of the shared components with the source's weights."""
    normals = dist.Normal(means.unsqueeze(-3), scales.unsqueeze(-3)).to_event(1)
    batch = torch.broadcast_shapes(weights.shape, normals.batch_shape)
    return dist.MixtureSameFamily(dist.Categorical(weights.expand(batch)), normals.expand(batch))


def model(
    components: int = 6,
    dimension: int = 2,
    concentration: float = 0.5,
    guidance: float = 0.7,
    anchors: int = 50,
    outputs: int = 200,
    targets: int = 200,
    unprompted_outputs: int = 200,
    extent: float = 4.0,
    noise: float = 0.0,
) -> torch.Tensor:
    """Knobs: `concentration` of the sparse weights; `guidance`, 0 to 1, how far the prompt pulls
    the generator from its own weights to the anchors'; `extent` of the components' means.
    """
    if components < 1 or not 0 <= guidance <= 1:
        raise ValueError(
            f"Expected one component or more, guidance in [0, 1]; got {components}, {guidance}"
        )
    # The world: where the components are, and what each source has of them.
    with pyro.plate("components", components):
        means = pyro.sample("means", dist.Normal(0.0, extent).expand([dimension]).to_event(1))
        scales = pyro.sample("scales", dist.LogNormal(0.0, 0.3).expand([dimension]).to_event(1))
    sparse = dist.Dirichlet(torch.full((components,), concentration))
    task = pyro.sample("target_weights", sparse)
    seeds = pyro.sample("anchor_weights", sparse)
    own = pyro.sample("unprompted_weights", sparse)

    with pyro.plate("targets", targets):
        pyro.sample("target", rows(task, means, scales))
    with pyro.plate("unprompted_outputs", unprompted_outputs):
        pyro.sample("unprompted", rows(own, means, scales))

    # The anchors come from the task's components only: their weights within those of the task.
    both = seeds * task
    with pyro.plate("anchors", anchors):
        anchor = pyro.sample("anchor", rows(both / both.sum(-1, keepdim=True), means, scales))
    prompt = pyro.deterministic("prompt", anchor)

    # The prompt shows the generator which components the anchors are in.
    normals = dist.Normal(means.unsqueeze(-3), scales.unsqueeze(-3)).to_event(1)
    shown = normals.log_prob(prompt.unsqueeze(-2)).softmax(-1).mean(-2, keepdim=True)
    prompted = (1 - guidance) * own + guidance * shown
    with pyro.plate("outputs", outputs):
        output = pyro.sample("output", rows(prompted, means, scales))
        if noise > 0:
            return pyro.sample("synthetic", dist.Normal(output, noise).to_event(1))
        return pyro.deterministic("synthetic", output, event_dim=1)
