"""The paper's simulation (Section 3.1, Appendix B): a mixture task, a generator that knows more.

The components come in three parts, in this order, with equal weights in every mixture:

- anchor-sampled (K, `anchor_components`): in the task, and the anchors are drawn from them;
- unsampled (J, `unsampled_components`): in the task, but no anchor shows them;
- irrelevant (L, `irrelevant_components`): only in the generator.

The other letters of the paper: N is `anchors_per_component`, n is `outputs`, d is `dimension`, and
ε is normal with standard deviation `noise`.
"""

import pyro
import pyro.distributions as dist
import torch

PARTS = ("anchor-sampled", "unsampled", "irrelevant")


def parts(
    anchor_components: int, unsampled_components: int, irrelevant_components: int
) -> torch.Tensor:
    """The part of each component as an index into PARTS, in the components' order."""
    sizes = torch.tensor([anchor_components, unsampled_components, irrelevant_components])
    return torch.repeat_interleave(torch.arange(len(PARTS)), sizes)


def mixture(means: torch.Tensor, covariances: torch.Tensor) -> dist.MixtureSameFamily:
    """Equal-weight mixture of the components in the last batch dimension, for rows of a plate."""
    weights = dist.Categorical(logits=torch.zeros_like(means[..., 0]).unsqueeze(-2))
    normals = dist.MultivariateNormal(means.unsqueeze(-3), covariances.unsqueeze(-4))
    return dist.MixtureSameFamily(weights, normals)


def model(
    anchor_components: int = 2,
    unsampled_components: int = 2,
    irrelevant_components: int = 2,
    anchors_per_component: int = 50,
    outputs: int = 200,
    targets: int = 200,
    unprompted_outputs: int = 200,
    dimension: int = 2,
    noise: float = 0.0,
    extent: float = 10.0,
    jitter: float = 0.05,
) -> torch.Tensor:
    """Knobs: see above; `extent` bounds the means, `jitter` keeps A Aᵀ away from singular.

    The prompt hands the anchors over as they are (φ_T is the identity). Prompted, the generator
    answers with the anchors' empirical means and covariances in place of its first K components.
    Unprompted it is what it was before: the K + J components of the task and the L irrelevant ones.
    """
    K, J, L = anchor_components, unsampled_components, irrelevant_components
    if K < 1 or J < 0 or L < 0:
        raise ValueError(f"Expected one anchor component or more, others 0 or more; got {K, J, L}")
    if anchors_per_component <= dimension:
        raise ValueError(
            f"Expected anchors_per_component above dimension={dimension}, for empirical "
            f"covariances of full rank; got {anchors_per_component}"
        )

    # The world: where the components are, and their shapes A Aᵀ + jitter.
    with pyro.plate("components", K + J + L):
        means = pyro.sample("means", dist.Uniform(0.0, extent).expand([dimension]).to_event(1))
        factors = pyro.sample(
            "factors", dist.Uniform(0.0, 1.0).expand([dimension, dimension]).to_event(2)
        )
        pyro.deterministic("part", parts(K, J, L), event_dim=0)
    covariances = factors @ factors.mT + jitter * torch.eye(dimension)

    # The task, K + J components, and the generator before it is prompted.
    with pyro.plate("targets", targets):
        pyro.sample("target", mixture(means[..., : K + J, :], covariances[..., : K + J, :, :]))
    with pyro.plate("unprompted_outputs", unprompted_outputs):
        pyro.sample("unprompted", mixture(means, covariances))

    # The anchors, N from each of the first K components, go into the prompt as they are.
    N = anchors_per_component
    scales = torch.linalg.cholesky(covariances[..., :K, :, :])  # once for all N
    with pyro.plate("anchors", K * N):
        anchor = pyro.sample(
            "anchor",
            dist.MultivariateNormal(
                means[..., :K, :].repeat_interleave(N, -2),
                scale_tril=scales.repeat_interleave(N, -3),
            ),
        )
    prompt = pyro.deterministic("prompt", anchor)

    # What the prompt tells the generator: the empirical means and covariances of each group.
    groups = prompt.unflatten(-2, (K, N))
    centred = groups - groups.mean(-2, keepdim=True)
    empirical = centred.mT @ centred / (N - 1)
    own_means, own_covariances = means[..., K:, :], covariances[..., K:, :, :]
    batch = prompt.shape[:-2]
    prompted = mixture(
        torch.cat([groups.mean(-2), own_means.expand(*batch, *own_means.shape[-2:])], -2),
        torch.cat([empirical, own_covariances.expand(*batch, *own_covariances.shape[-3:])], -3),
    )
    with pyro.plate("outputs", outputs):
        output = pyro.sample("output", prompted)
        if noise > 0:
            return pyro.sample("synthetic", dist.Normal(output, noise).to_event(1))
        return pyro.deterministic("synthetic", output, event_dim=1)
