"""One set of Gaussian components for all sources.

The components are fitted to the pool: which source a row is from enters by the contrast alone, in
which the row's own label is left out. With weights per source in the fit, two components come to
lie in one place, one for each source, and a difference is claimed that is none (of 300 rows a side
of one distribution, the upper end was 0.16 at worst; so it is 0.13). What each source holds of the
components is the second step, `rbpp.sources.shares`.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from rbpp.compute import Compute
from rbpp.mixtures.cavi import cavi
from rbpp.mixtures.conjugate import MixturePrior, VariationalMixture, default_prior
from rbpp.randomness import generator as new_generator

Engine = Literal["cavi", "svi"]
# Dirichlet concentration of the pool's weights: well below 1, so that components that nobody needs
# go empty.
CONCENTRATION = 0.1
LARGEST_COUNT = 20
# One component per this many rows: with fewer rows its full covariance is mostly prior.
ROWS_PER_COMPONENT = 40
# Shares of the rows, highest and lowest in contrast, that a restart gives components of their own.
_ENDS = (0.02, 0.04)
# Rows beyond which k-means sees a sample: more do not change which clumps there are.
_SEEDING_ROWS = 20_000


def component_rule(rows: int) -> int:
    """K = one per 40 rows, between 4 and 20.

    >>> component_rule(600), component_rule(5000)
    (15, 20)
    """
    return min(LARGEST_COUNT, max(4, rows // ROWS_PER_COMPONENT))


def fit_shared(
    rows: Tensor,
    components: int,
    *,
    restarts: int = 4,
    engine: Engine = "cavi",
    compute: Compute,
) -> VariationalMixture:
    """Variational posterior of the shared mixture, from restarts that look where sources differ.

    Rare off-task rows lie among the leftovers of a k-means start, and coordinate ascent does not
    leave that optimum. So the rows highest and lowest in the last coordinate, the contrast of two
    sources, start in components of their own.

    Args:
        rows: (n, d); the last coordinate is the contrast.
        components: K, at least 4.
        restarts: independent starts; the leading dimension of the result.
        engine: `"cavi"`, coordinate ascent, or `"svi"`, Pyro's stochastic gradients, which starts
            where the other does and takes some thirty times as long.
        compute: device of the fit, and the seed of the starts; the result is on the CPU.

    Raises:
        ValueError: as `rbpp.mixtures.cavi`, and on another engine.
    """
    if engine not in get_args(Engine):
        raise ValueError(f"Expected an engine of {', '.join(get_args(Engine))}; got {engine}")
    labels = torch.stack(
        [
            _labels(rows, components, restart, compute.spawn(restart).seed)
            for restart in range(restarts)
        ]
    ).to(compute.device)
    rows = rows.to(compute.device)
    prior = default_prior(rows, components, concentration=CONCENTRATION)
    starts = _from_labels(rows, labels, prior, components)
    if engine == "svi":
        from rbpp.sources.shared_svi import fit_by_svi

        return fit_by_svi(rows, prior, starts, seed=compute.spawn("svi").seed).to("cpu")
    return cavi(
        rows,
        prior,
        components,
        restarts=restarts,
        initial=starts,
        tolerance=1e-5,
        max_iterations=150,
    ).to("cpu")


def common_order(fit: VariationalMixture, members: Tensor, heaviest: Tensor) -> Tensor:
    """Order of the components (restart, K) in which all restarts show them alike.

    As in the restart of highest ELBO, where those with the most rows among `heaviest` come first;
    the components of the other restarts are assigned to these by the rows that they share.

    Args:
        fit: restarts in the leading dimension.
        members: responsibilities (restart, n, K).
        heaviest: (n,), True for the rows that decide the order.
    """
    from scipy.optimize import linear_sum_assignment

    assert fit.elbo is not None
    best = int(fit.elbo.argmax())
    leading = members[best][:, members[best][heaviest].sum(0).argsort(descending=True)]
    order = []
    for own in members:
        _, column = linear_sum_assignment((leading.mT @ own).numpy(), maximize=True)
        order.append(torch.as_tensor(column))
    return torch.stack(order)


def reordered(fit: VariationalMixture, order: Tensor) -> VariationalMixture:
    """The fit with the components of every restart in the given order (restart, K)."""
    restart = torch.arange(len(order)).unsqueeze(-1)
    return VariationalMixture(
        concentration=fit.concentration[restart, order],
        mean=fit.mean[restart, order],
        mean_precision=fit.mean_precision[restart, order],
        degrees_of_freedom=fit.degrees_of_freedom[restart, order],
        scale=fit.scale[restart, order],
        elbo=fit.elbo,
        converged=fit.converged,
        iterations=fit.iterations,
    )


def _labels(rows: Tensor, components: int, restart: int, seed: int) -> Tensor:
    """First component of every row: k-means, and the two ends of the contrast."""
    from sklearn.cluster import KMeans

    values = rows.cpu().numpy()
    chosen = values
    if len(values) > _SEEDING_ROWS:
        picked = torch.randperm(len(values), generator=new_generator(seed))[:_SEEDING_ROWS]
        chosen = values[picked.numpy()]
    means = KMeans(min(components - 2, len(values)), n_init=1, random_state=seed % 2**32)
    labels = means.fit(chosen).predict(values)
    order = np.argsort(values[:, -1], kind="stable")
    end = max(2, round(_ENDS[restart % len(_ENDS)] * len(values)))
    labels[order[:end]] = components - 2
    labels[order[-end:]] = components - 1
    return torch.as_tensor(labels, dtype=torch.long, device=rows.device)


def _from_labels(
    rows: Tensor, labels: Tensor, prior: MixturePrior, components: int
) -> VariationalMixture:
    """The posterior given hard labels (restart, n): conjugate updates of the prior."""
    one_hot = torch.nn.functional.one_hot(labels, components).to(rows.dtype)
    counts = one_hot.sum(1)
    means = one_hot.mT @ rows / counts.clamp_min(1).unsqueeze(-1)
    centred = rows - means.gather(1, labels.unsqueeze(-1).expand(-1, -1, rows.shape[1]))
    scatter = torch.stack(
        [
            torch.stack([(part * member[:, None]).mT @ part for member in members.mT])
            for part, members in zip(centred, one_hot, strict=True)
        ]
    )
    precision = prior.mean_precision + counts
    shift = means - prior.mean
    pull = prior.mean_precision * counts / precision
    return VariationalMixture(
        concentration=prior.concentration + counts,
        mean=(prior.mean_precision * prior.mean + counts.unsqueeze(-1) * means)
        / precision.unsqueeze(-1),
        mean_precision=precision,
        degrees_of_freedom=prior.degrees_of_freedom + counts,
        scale=prior.scale
        + scatter
        + pull[..., None, None] * shift.unsqueeze(-1) * shift.unsqueeze(-2),
    )
