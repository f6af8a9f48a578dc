"""Pareto-smoothed importance sampling: how far a posterior approximation can be trusted.

The largest importance ratios are replaced by quantiles of a generalised Pareto distribution that is
fitted to them; its shape k̂ says how heavy their tail is. Below 0.7 the corrected estimates converge
at a usable rate, above they do not.

Vehtari, Simpson, Gelman, Yao and Gabry, Pareto smoothed importance sampling, JMLR 25 (2024). The
Pareto fit is that of Zhang and Stephens, A new and efficient estimation method for the generalized
Pareto distribution, Technometrics 51 (2009).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SMALLEST_TAIL = 5


def pareto_smooth(log_ratios: Tensor) -> tuple[Tensor, Tensor]:
    """Smoothed, normalised log importance weights, and k̂.

    Args:
        log_ratios: log p − log q of draws from q, (…, draws), up to a constant.

    Returns:
        Log weights (…, draws) whose exponentials sum to one, and k̂ (…): infinite where there are
        too few draws to see a tail.

    Raises:
        ValueError: if a log ratio is nan or +inf.

    >>> round(pareto_smooth(torch.zeros(100))[0].exp().sum().item(), 6)
    1.0
    """
    if bool((log_ratios.isnan() | (log_ratios == torch.inf)).any()):
        raise ValueError("Expected finite log ratios; got nan or infinity")
    count = log_ratios.shape[-1]
    size = math.ceil(min(0.2 * count, 3 * math.sqrt(count)))
    flat = (log_ratios - log_ratios.amax(-1, keepdim=True)).reshape(-1, count).double()
    shape = flat.new_full((len(flat),), torch.inf)
    if size >= _SMALLEST_TAIL:
        order = flat.argsort(-1)
        tail = order[:, -size:]
        cutoff = flat.gather(-1, order[:, -size - 1, None]).clamp_min(
            math.log(torch.finfo(flat.dtype).tiny)
        )
        exceedance = flat.gather(-1, tail).exp() - cutoff.exp()
        # A tail of ratios that are equal up to rounding is no tail: the weights are what they are.
        # Half the digits are left to the rounding of the two log densities in the difference.
        rounding = math.sqrt(torch.finfo(log_ratios.dtype).eps)
        usable = exceedance[:, -1] > rounding * cutoff.squeeze(-1).exp()
        shape = torch.where(usable, shape, -torch.inf)
        if bool(usable.any()):
            excess = exceedance[usable].clamp_min(torch.finfo(flat.dtype).tiny)
            fitted, scale = generalized_pareto(excess)
            rank = torch.arange(size, dtype=flat.dtype, device=flat.device)
            quantile = _quantile((rank + 0.5) / size, fitted[:, None], scale[:, None])
            smooth = (quantile + cutoff[usable].exp()).log().clamp_max(0)
            flat[usable] = flat[usable].scatter(-1, tail[usable], smooth)
            shape[usable] = fitted
    weights = (flat - flat.logsumexp(-1, keepdim=True)).reshape(log_ratios.shape)
    return weights, shape.reshape(log_ratios.shape[:-1])


def generalized_pareto(excess: Tensor) -> tuple[Tensor, Tensor]:
    """Shape k̂ and scale of a generalised Pareto distribution, from sorted excesses (fits, n)."""
    count = excess.shape[-1]
    grid = 30 + int(math.sqrt(count))
    quartile = excess[:, int(count / 4 + 0.5) - 1, None]
    index = torch.arange(1, grid + 1, dtype=excess.dtype, device=excess.device)
    candidates = 1 / excess[:, -1:] + (1 - (grid / (index - 0.5)).sqrt()) / (3 * quartile)
    shapes = torch.log1p(-candidates.unsqueeze(-1) * excess.unsqueeze(-2)).mean(-1)
    profile = count * ((-candidates / shapes).log() - shapes - 1)
    weights = profile.softmax(-1)
    point = (candidates * weights).sum(-1)
    shape = torch.log1p(-point.unsqueeze(-1) * excess).mean(-1)
    scale = -shape / point
    # A weak prior towards 0.5, worth ten observations, steadies the shape for few.
    return (count * shape + 10 * 0.5) / (count + 10), scale


def _quantile(probability: Tensor, shape: Tensor, scale: Tensor) -> Tensor:
    log_survival = torch.log1p(-probability)
    near_zero = shape.abs() < 1e-10
    safe = torch.where(near_zero, 1.0, shape)
    return scale * torch.where(near_zero, -log_survival, torch.expm1(-safe * log_survival) / safe)
