"""Component labels: the posterior does not know them, and plots of single components need them.

Stephens, Dealing with label switching in mixture models, JRSS B 62 (2000), reviews the problem.
Here every draw is matched to one reference draw.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from rbpp.mixtures.mixture import GaussianMixture
from rbpp.mixtures.normal_wishart import Draws


def relabelled(draws: Draws, reference: Draws) -> Draws:
    """Draws (…) with their components in the order that best matches the reference draw.

    Components are assigned one to one so that their summed symmetrised Kullback-Leibler divergences
    from the reference's are least.
    """
    cost = symmetric_divergence(reference.mixture(), draws.mixture())
    batch = cost.shape[:-2]
    flat = cost.flatten(0, -3).nan_to_num(posinf=1e300).cpu().numpy() if batch else cost[None]
    order = np.stack([linear_sum_assignment(matrix)[1] for matrix in flat])
    index = torch.as_tensor(order, device=cost.device).reshape(cost.shape[:-1])
    weights, means, precision = draws
    return Draws(
        weights.gather(-1, index),
        means.gather(-2, index.unsqueeze(-1).expand_as(means)),
        precision.gather(-3, index[..., None, None].expand_as(precision)),
    )


def symmetric_divergence(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    """D_KL(p_i ‖ q_j) + D_KL(q_j ‖ p_i) of all pairs of components (…, K_p, K_q), in nats."""
    left, right = p.precision_cholesky.unsqueeze(-3), q.precision_cholesky.unsqueeze(-4)
    own, other = p.scale_tril.unsqueeze(-3), q.scale_tril.unsqueeze(-4)
    shift = (p.means.unsqueeze(-2) - q.means.unsqueeze(-3)).unsqueeze(-2)
    traces = (right.mT @ own).square().sum((-2, -1)) + (left.mT @ other).square().sum((-2, -1))
    distance = (shift @ left).square().sum((-2, -1)) + (shift @ right).square().sum((-2, -1))
    return 0.5 * (traces + distance) - p.dimension
