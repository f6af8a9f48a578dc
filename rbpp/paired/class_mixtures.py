"""Joint models of measurements and a label: the rows of each class have a mixture of their own.

log p(x, c) = log p(c) + log p(x | c), and p(x) is the sum over classes: the information I(X; C) is
that of a density on one side and a table on the other, and is estimated as that of two densities.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from rbpp.mixtures.ascent import Ascent
from rbpp.mixtures.cavi import cavi
from rbpp.mixtures.conjugate import default_prior
from rbpp.paired.candidates import coordinates
from rbpp.paired.joint_mixture import Coordinates, PairDensity, fit_masks, of_own_fold, with_average
from rbpp.paired.margins import NORMAL_SCORES, RAW
from rbpp.randomness import generator, spawn

# A class of fewer rows has no density of its own.
LEAST_PER_CLASS = 20
_SIZES = (1, 2, 3, 4, 6, 8, 12, 16)
_STARTS, _ASCENT = 3, Ascent(tolerance=1e-4, max_iterations=100)
_LEAST_GAIN = 0.002


def class_codes(label: np.ndarray) -> Tensor:
    """Labels (n,) as whole numbers from 0.

    Raises:
        ValueError: if there is one class, or one of fewer than 20 rows.
    """
    names, codes, counts = np.unique(label, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise ValueError(f"Expected two classes or more; got {str(names[0])!r} in every row")
    rare = int(counts.argmin())
    if counts[rare] < LEAST_PER_CLASS:
        raise ValueError(
            f"Expected at least {LEAST_PER_CLASS} rows of every class; got {counts[rare]} of "
            f"{str(names[rare])!r}: join it with another, or leave its rows out"
        )
    return torch.as_tensor(codes.ravel())


def class_densities(
    rows: Tensor,
    codes: Tensor,
    fold: Tensor,
    components: int,
    seed: int,
) -> list[PairDensity]:
    """Every model considered: raw rows or normal scores, and mixtures of 1, 2, 3, … components.

    Args:
        rows: (n, d).
        codes: class of every row (n,), from 0.
        fold: (n,) the fold that a row belongs to: the fit without that fold does not see it.
        components: of the mixture of a class, not to be exceeded.
        seed: of the starts.
    """
    dimension = rows.shape[-1]
    rarest = int(torch.bincount(codes).min())
    largest = max(1, min(components, rarest // (dimension * (dimension + 3) // 2 + 1)))
    found: list[PairDensity] = []
    for name in (RAW, NORMAL_SCORES):
        source = generator(spawn(seed, "classes", name))
        own = coordinates(rows, name, fold, source)
        grown: list[PairDensity] = []
        for size in (size for size in _SIZES if size <= largest):
            grown.append(_of_size(own, codes, size, source))
            reached = [float(one.held_out[0].mean()) for one in grown]
            if len(grown) > 2 and max(reached[-2:]) < max(reached[:-2]) + _LEAST_GAIN:
                break
        found += with_average(grown)
    return found


def _of_size(
    own: Coordinates, codes: Tensor, components: int, generator: torch.Generator
) -> PairDensity:
    """A mixture of so many components in every class, given all rows and without each fold."""
    classes = torch.arange(int(codes.max()) + 1, device=codes.device)
    of_class = codes == classes.unsqueeze(-1)
    masks = fit_masks(own.fold).unsqueeze(1) & of_class  # (fits, classes, n)
    data = own.rows.expand(*masks.shape, own.rows.shape[-1])
    fits = cavi(
        data,
        default_prior(data, components, sample_weights=masks),
        components,
        sample_weights=masks,
        restarts=_STARTS,
        generator=generator,
        ascent=_ASCENT,
    ).best()
    sizes = masks.sum(-1) + 0.5
    share = (sizes / sizes.sum(-1, keepdim=True)).log().unsqueeze(-1)
    joint = share + fits.expected().log_prob_rows(data)
    share = share.expand(joint.shape)
    place = torch.arange(len(codes), device=codes.device)
    parts = torch.stack([joint[:, codes, place], joint.logsumexp(1), share[:, codes, place]])
    held_out = torch.stack([of_own_fold(part[1:], own.fold) for part in parts])
    # Independence has the margins of the coordinates and the shares of the classes.
    own = replace(own, log_density=own.log_density + held_out[2])
    return PairDensity(own, components, parts[:, 0], held_out)
