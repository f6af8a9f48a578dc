"""A supersample of fine-tunes: pairs of rows, of which a fair coin put one into each training set.

Steinke and Zakynthinou (2020): n pairs of rows are fixed, and each of k fine-tunes trains on one
row of every pair. Its losses on the rows it saw and on those it did not see are what every bound of
conditional mutual information is about.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rbpp.data.arrays import load, numbers
from rbpp.data.source_files import FileError

# Of two fine-tunes with the same masks by chance, above which copies are not told from it.
_CHANCE = 1e-6


@dataclass(frozen=True)
class Supersample:
    """Losses of k fine-tunes on n pairs, by what each of them trained on.

    Attributes:
        training: (k, n) loss on the row of the pair that was trained on, divided by C.
        held_out: (k, n) loss on the other row, divided by C.
        masks: (k, n) column, 0 or 1, of the row that was trained on.
        loss_bound: C of a loss in [0, C].
    """

    training: Tensor
    held_out: Tensor
    masks: Tensor
    loss_bound: float

    @property
    def binary(self) -> bool:
        """Whether every loss is 0 or C."""
        both = torch.stack([self.training, self.held_out])
        return bool(((both == 0) | (both == 1)).all())

    @property
    def columns(self) -> Tensor:
        """(k, n, 2): the losses by column, whichever was trained on, divided by C."""
        by_role = torch.stack([self.training, self.held_out], dim=-1)
        return torch.where((self.masks == 1).unsqueeze(-1), by_role.flip(-1), by_role)

    @property
    def trained(self) -> Tensor:
        """(k, n, 2): 1.0 where the row of the column was trained on, else 0.0."""
        return torch.stack([self.masks == 0, self.masks == 1], dim=-1).to(torch.float64)

    def permuted(self, generator: torch.Generator) -> Supersample:
        """The same losses beside the masks of other fine-tunes: no loss depends on its mask.

        The masks move along one random cycle, so that none stays where it was.
        """
        count = len(self.masks)
        cycle = torch.randperm(count, generator=generator)
        masks = self.masks.clone()
        masks[cycle] = self.masks[cycle.roll(1)]
        return _by_role(self.columns, masks, self.loss_bound)


def rounded(mean: Tensor) -> Tensor:
    """Distribution (…, 2) of a loss with this mean, a share of C, rounded at random to 0 or C."""
    return torch.stack([1 - mean, mean], dim=-1)


def supersample(losses: Any, masks: Any, *, loss_bound: float | None = None) -> Supersample:
    """Check losses and masks, and sort the losses by what was trained on.

    Args:
        losses: (k, n, 2) loss of fine-tune k on the two rows of pair n, in [0, C].
        masks: (k, n) column, 0 or 1, of the row of the pair that fine-tune k trained on: a fair
            coin per pair and fine-tune.
        loss_bound: C; 1 where absent.

    Raises:
        ValueError: if a shape, a value or the range is not as above; if there is one fine-tune
            only, one is a copy of another, or losses or masks are all alike.

    >>> supersample([[[0, 1]], [[1, 0]]], [[0], [1]]).held_out.tolist()
    [[1.0], [1.0]]
    """
    values = numbers("losses", losses)
    if values.ndim != 3 or values.shape[-1] != 2 or 0 in values.shape:
        raise ValueError(f"Expected losses of shape (k, n, 2); got {values.shape}")
    columns = numbers("masks", masks)
    if columns.shape != values.shape[:2]:
        raise ValueError(
            f"Expected masks of shape {values.shape[:2]}, one per fine-tune and pair of the "
            f"losses; got {columns.shape}"
        )
    if len(values) < 2:
        raise ValueError("Expected losses of at least 2 fine-tunes (k); got 1")
    bound = 1.0 if loss_bound is None else float(loss_bound)
    if not 0 < bound < float("inf"):
        raise ValueError(f"Expected a loss bound C above 0; got {loss_bound}")
    _refuse("losses", values, ~np.isfinite(values), "finite losses")
    _refuse("masks", columns, (columns != 0) & (columns != 1), "masks of 0 and 1")
    hint = "; state the range with loss_bound=…" if loss_bound is None else ""
    _refuse("losses", values, (values < 0) | (values > bound), f"losses in [0, {bound:g}]", hint)
    if (values == values.flat[0]).all():
        raise ValueError(f"Expected losses that differ; got {values.flat[0]:g} everywhere")
    if (columns == columns.flat[0]).all():
        raise ValueError(
            f"Expected masks that a fair coin decided; got {columns.flat[0]:g} everywhere"
        )
    if (columns == columns[0]).all():
        raise ValueError(
            f"Expected masks drawn anew for every fine-tune; got the same in all {len(columns)}: "
            "what a row loses by being trained on is then seen in no row"
        )
    _refuse_copies(values, columns)
    return _by_role(
        torch.as_tensor(values / bound), torch.as_tensor(columns).to(torch.int64), bound
    )


def read_supersample(
    losses: str | os.PathLike[str],
    masks: str | os.PathLike[str] | None = None,
    *,
    loss_bound: float | None = None,
) -> Supersample:
    """Read `losses` and `masks` from one .npz with both, or from two .npy files; see `supersample`.

    Raises:
        ValueError: naming the file, as `supersample`, and if a file is no such file or lacks one.
        OSError: if there is no such file.
    """
    path = Path(losses)
    loaded = load(path)
    try:
        alone = list(loaded) == ["embedding"]  # a .npy file has no names
        if not alone:
            missing = {"losses"} | ({"masks"} if masks is None else set())
            missing -= set(loaded)
            if missing:
                raise ValueError(
                    f"Expected an array {' and '.join(sorted(missing))}; got "
                    f"{', '.join(sorted(loaded)) or 'none'}"
                )
        values = loaded["embedding" if alone else "losses"]
        if masks is not None:
            beside = load(Path(masks))
            columns = beside.get("masks", beside.get("embedding"))
            if columns is None:
                raise ValueError(f"Expected an array masks in {masks}; got none")
        elif not alone:
            columns = loaded["masks"]
        else:
            raise ValueError("Expected masks beside the losses: a second file, or one .npz of both")
        return supersample(values, columns, loss_bound=loss_bound)
    except FileError:  # which names its file
        raise
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _refuse_copies(values: np.ndarray, masks: np.ndarray) -> None:
    """A fine-tune that is there twice would count as two."""
    count, pairs = masks.shape
    if count * count * 2.0**-pairs > _CHANCE:  # coins of few pairs fall alike by themselves
        return
    first: dict[bytes, int] = {}
    for index, (own, mask) in enumerate(zip(values, masks, strict=True)):
        other = first.setdefault(own.tobytes() + mask.tobytes(), index)
        if other != index:
            raise ValueError(
                f"Expected fine-tunes that differ; got the losses and masks of fine-tune {other} "
                f"again in {index}: drop the copy"
            )


def _by_role(columns: Tensor, masks: Tensor, loss_bound: float) -> Supersample:
    index = masks.unsqueeze(-1)
    return Supersample(
        columns.gather(-1, index).squeeze(-1),
        columns.gather(-1, 1 - index).squeeze(-1),
        masks,
        loss_bound,
    )


def _refuse(
    what: str, values: np.ndarray, wrong: np.ndarray, expected: str, hint: str = ""
) -> None:
    if wrong.any():
        place = tuple(int(index) for index in np.argwhere(wrong)[0])
        raise ValueError(
            f"Expected {expected}; got {values[place]:g} in {what}{list(place)}"
            f" and {int(wrong.sum()) - 1} more{hint}"
        )
