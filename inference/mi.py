"""Mutual information of paired rows, with its posterior.

  rbpp mi x.npy y.npy
  rbpp mi before.csv after.csv --columns height,weight --units bits

X and Y hold one row per line or record, in the same order: .npy, .npz, CSV, Parquet, JSON or JSON
lines with numbers, or a vector per row. No conditional density is needed: mixtures of the joint
rows, on margins and of sizes that held-out rows decide, give the information and its interval. The
checks say whether the nearest neighbours of the rows see structure that the mixtures miss, and
whether rows depend on their neighbours in order (--block). Two columns of whole numbers that repeat
are labels or counts, and their information has a Dirichlet posterior. Labels beside measurements,
from --x-label or --y-label or a column of few whole numbers, have a mixture in each class.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rbpp import command, options

if TYPE_CHECKING:
    import numpy as np

    from rbpp.data.rows import Rows
    from rbpp.paired.mutual_information import MutualInformation


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    parser.add_argument("x", metavar="X", help="file or folder of the rows of X")
    parser.add_argument("y", metavar="Y", help="those of Y, in the same order")
    parser.add_argument("--x-field", metavar="F", help="the field of X with a vector per row")
    parser.add_argument("--y-field", metavar="F", help="the field of Y with a vector per row")
    parser.add_argument("--x-label", metavar="F", help="the field of X with a label per row")
    parser.add_argument("--y-label", metavar="F", help="the field of Y with a label per row")
    options.add(parser, "--columns", "--ignore", "--draws")
    parser.add_argument(
        "--chains",
        type=options.positive_integer,
        default=1,
        metavar="N",
        help="independent partitions into folds, each fitted anew (1)",
    )
    parser.add_argument(
        "--components",
        type=options.positive_integer,
        default=128,
        metavar="K",
        help="largest mixture considered (128)",
    )
    parser.add_argument(
        "--block",
        type=options.positive_integer,
        default=1,
        metavar="N",
        help="successive rows that may depend on each other, as in time series (1)",
    )


def run(arguments: argparse.Namespace) -> MutualInformation:
    """Estimate, and judge the models behind the estimate."""
    from rbpp.paired.mutual_information import mutual_information

    x, y = _read(arguments)
    with options.open_compute(arguments) as compute:
        return mutual_information(
            x,
            y,
            draws=arguments.draws,
            chains=arguments.chains,
            components=arguments.components,
            block=arguments.block,
            seed=arguments.seed,
            compute=compute,
        )


def _read(arguments: argparse.Namespace) -> list[np.ndarray]:
    """Numbers (n, d) or labels (n,) of X and of Y."""
    from rbpp.data.rows import refuse_absent

    found: list[np.ndarray] = []
    numbers = []
    for name in ("X", "Y"):
        label = getattr(arguments, f"{name.lower()}_label")
        if label is not None:
            found.append(_labels(arguments, name, label))
            continue
        rows = _numbers(arguments, name)
        assert rows.embedding is not None
        numbers.append(rows)
        found.append(rows.embedding)
    if numbers:
        refuse_absent(numbers)
    return found


def _numbers(arguments: argparse.Namespace, name: str) -> Rows:
    from rbpp.data.rows import Fields, Reading, read_rows

    path, field = (getattr(arguments, f"{name.lower()}{end}") for end in ("", "_field"))
    reading = Reading(
        columns=tuple(arguments.columns), ignore=tuple(arguments.ignore), numbers_only=True
    )
    try:
        rows = read_rows(path, name, Fields(embedding=field, reading=reading))
    except ValueError as error:
        option, known = f"--{name.lower()}-field", str(error).rpartition("the file has ")[2]
        if "embedding=" not in str(error):  # an option of other programs
            raise
        raise ValueError(
            f"{path}: Expected rows of numbers, or the name of the field with the vectors of "
            f"{name} ({option}); got no name, and the file has {known}"
        ) from error
    if rows.embedding is None:
        raise ValueError(f"{path}: Expected rows of numbers for {name}; got text")
    return rows


def _labels(arguments: argparse.Namespace, name: str, label: str) -> np.ndarray:
    import numpy as np

    from rbpp.data.fields import classes
    from rbpp.data.read import read_tables

    path, field = (getattr(arguments, f"{name.lower()}{end}") for end in ("", "_field"))
    if field is not None:
        raise ValueError(f"Expected --{name.lower()}-field or --{name.lower()}-label; got both")
    found = classes(read_tables(path), label)
    if found is None or None in found:
        where = "none" if found is None else f"none in row {found.index(None) + 1}"
        raise ValueError(f"{path}: Expected a label {label!r} of every row of {name}; got {where}")
    return np.array(found, dtype=str)


if __name__ == "__main__":
    sys.exit(command.main([Path(__file__).stem, *sys.argv[1:]]))
