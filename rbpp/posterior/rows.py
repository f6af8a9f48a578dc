"""Rows of a process's sites, read from files: a table is a data set, a folder holds several."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from rbpp.data.arrays import load
from rbpp.data.rows import Fields, Reading, read_rows

# One data set per file, of these endings, in a folder of several.
_ENDINGS = (".npy", ".npz", ".csv", ".parquet", ".json", ".jsonl")


def read_sites(given: Iterable[str]) -> dict[str, np.ndarray]:
    """Rows (n, d) or data sets (R, n, d) by site, of texts SITE=FILE as on a command line.

    Raises:
        ValueError: for another form, a site given twice, a file that cannot be read, or data sets
            of different numbers of rows.
        OSError: if there is no such file.
    """
    found: dict[str, np.ndarray] = {}
    for one in given:
        site, equals, place = one.partition("=")
        if not equals or not site or not place:
            raise ValueError(f"Expected data='SITE=FILE'; got {one!r}")
        if site in found:
            raise ValueError(f"Expected data={site!r} once; got it twice (several: a folder)")
        found[site] = read_site(Path(place), site)
    return found


def read_site(path: Path, site: str) -> np.ndarray:
    """Rows (n, d), or data sets (R, n, d) of an array with three dimensions or of a folder.

    Letters and counts (a whole-number type) stay whole numbers. The columns of an array are taken
    as they are; those of a table have to be measurements.

    Raises:
        ValueError: as `read_sites`.
    """
    if path.is_dir():
        files = sorted(one for one in path.iterdir() if one.suffix in _ENDINGS)
        if not files:
            raise ValueError(f"Expected files of data sets of {site} in {path}; got none")
        sets = [read_site(one, site) for one in files]
        shapes = {one.shape for one in sets}
        if len(shapes) > 1 or sets[0].ndim != 2:
            listed = ", ".join(map(str, sorted(shapes)))
            raise ValueError(
                f"Expected data sets of {site} of one shape (rows, columns); got {listed}"
            )
        return np.stack(sets)
    # Programs of processes have no options for columns.
    reading = Reading(instead="the columns of an array, .npy, are taken as they are")
    if path.suffix == ".npy":
        array = load(path)["embedding"]
        if array.dtype.kind in "iub" or (array.ndim == 3 and array.dtype.kind == "f"):
            return _checked(array, path)
        if array.ndim == 2:
            names = tuple(f"column {place}" for place in range(1, array.shape[1] + 1))
            reading = replace(reading, columns=names)
    rows = read_rows(path, site, Fields(reading=reading))
    if rows.embedding is None:
        raise ValueError(f"Expected numbers in {path}; got text: embed it first")
    return _checked(np.asarray(rows.embedding), path)


def _checked(array: np.ndarray, path: Path) -> np.ndarray:
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(
            f"Expected rows (n, d) or data sets (R, n, d) in {path}; got shape {array.shape}"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"Expected finite numbers in {path}; got nan or infinity")
    return array.astype(np.int64) if array.dtype.kind in "iub" else array.astype(np.float64)
