"""Scores of synthetic rows: those on the task, moved by their author's style, and those off it.

A row's score says how far it is from where the target's rows are, in units in which the target's
own scores are standard normal. The author of the synthetic rows moves all of them by a style, so
that rows on the task are normal with a shift and a scale that are not known; rows off the task are
further out, by a distance that is not known either.
"""

import math

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine


def model(
    rows: int = 300,
    scores: torch.Tensor | None = None,
    counts: torch.Tensor | None = None,
    target_rows: int = 300,
    style: float = 1.0,
) -> torch.Tensor:
    """Knobs: `rows` to simulate, or the `scores` that were observed and how many rows each stands
    for (`counts`); `target_rows`, whose scores set the scale; `style`, from 0, both sources have
    one author, to 1, nothing is known of the style.
    """
    # What the author does to all rows. With one author the target's scores are distributed as the
    # synthetic ones, up to the noise of both quantiles of `target_rows` rows.
    spread = math.sqrt((0.05 + 0.75 * style) ** 2 + 2 / target_rows)
    shift = pyro.sample("shift", dist.Normal(0.0, spread))
    scale = pyro.sample("scale", dist.LogNormal(-0.05, 0.1))

    # What is foreign: how much, how far out, how wide.
    share = pyro.sample("irrelevant_share", dist.Beta(0.25, 4.0))
    distance = pyro.sample("distance", dist.Uniform(1.5, 6.5))
    width = pyro.sample("width", dist.LogNormal(-0.15, 0.35))

    groups = dist.Categorical(torch.stack([1 - share, share], -1))
    means = torch.stack([shift, shift + scale * distance], -1)
    normals = dist.Normal(means, torch.stack([scale, scale * width], -1))
    size = rows if scores is None else len(scores)
    weights = torch.ones(size) if counts is None else counts
    with pyro.plate("rows", size), poutine.scale(scale=weights):
        return pyro.sample("score", dist.MixtureSameFamily(groups, normals), obs=scores)
