"""Pyro's No-U-Turn sampler on the same log density: the slow reference of the other engines."""

from __future__ import annotations

import warnings

import torch
from pyro.infer import MCMC, NUTS
from torch import Tensor

from rbpp.posterior.density import ConditionedDensity
from rbpp.posterior.limit import NEVER, Limit, OutOfTime
from rbpp.randomness import seeded, spawn


def nuts(
    density: ConditionedDensity,
    starts: Tensor,
    scale: Tensor,
    draws: int,
    seed: int = 0,
    out_of_time: Limit = NEVER,
    *,
    warmup: int = 200,
) -> tuple[Tensor, Tensor] | None:
    """One chain per start, in whitened coordinates.

    Args:
        density: the posterior's.
        starts: (chains, D).
        scale: W (D, D): coordinates are start + W x.
        draws: of each chain, after those of adaptation.
        seed: of all chains.
        out_of_time: asked at every step; what is not done then is given up.
        warmup: steps of adaptation.

    Returns:
        Vectors (chain, draw, D) and log densities (chain, draw); None if time was up first.
    """
    centre = starts.mean(0)
    inverse = torch.linalg.inv(scale)

    def potential(values: dict[str, Tensor]) -> Tensor:
        vector = centre + scale @ values["whitened"]
        return -density(vector.unsqueeze(0)).squeeze(0)

    def stop(*_: object) -> None:
        if out_of_time():
            raise OutOfTime

    points = []
    for chain, start in enumerate(starts):
        with seeded(spawn(seed, "nuts", chain)), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sampler = MCMC(
                NUTS(potential_fn=potential),
                num_samples=draws,
                warmup_steps=warmup,
                initial_params={"whitened": inverse @ (start - centre)},
                disable_progbar=True,
                hook_fn=stop,
            )
            try:
                sampler.run()
            except OutOfTime:
                return None
            points.append(centre + sampler.get_samples()["whitened"] @ scale.mT)
    vectors = torch.stack(points)
    with torch.no_grad():
        return vectors, density(vectors.flatten(0, 1)).unflatten(0, vectors.shape[:2])
