"""Log-probabilities from a file: arrays, a table with a row per output, or a server's answers."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rbpp.channel.log_probabilities import LogProbabilities, log_probabilities
from rbpp.channel.pairs import columns_of, read_pairs
from rbpp.data.arrays import ZIP, read_archive
from rbpp.data.read import read_tables
from rbpp.data.source_files import LONGEST_MESSAGE, open_source
from rbpp.data.table import Table

# Arrays of numbers with a row per output; and those that name, or say how they were made.
FIELDS = (
    "log_prob",
    "prompt",
    "others",
    "tokens",
    "log_prob_unprompted",
    "path_entropy",
    "kept",
)
_NAMES, _ABOUT = ("prompt_names", "output_names"), ("settings",)


def read_log_probabilities(
    path: Path | str, *, leave_out_impossible: bool = False
) -> LogProbabilities:
    """Read log-probabilities of outputs under prompts.

    Args:
        path: `.npz` of arrays by the names of `log_probabilities`; Parquet, JSON Lines, JSON, Arrow
            or CSV with these fields and a row per output; or JSON Lines of pairs of an output and a
            prompt, as vLLM or a server like OpenAI's answers (`rbpp.channel.pairs`).
        leave_out_impossible: see `log_probabilities`.

    Raises:
        ValueError: naming the file, and the row and field or array that is not as expected.
    """
    origin, columns = _columns(path)
    if "log_prob" not in columns:
        raise ValueError(
            f"{origin}: Expected an array log_prob; got {', '.join(sorted(columns)) or 'none'}"
        )
    known = [*FIELDS, *_NAMES, *_ABOUT]
    for name in columns:
        close = difflib.get_close_matches(name, known, 1, 0.7)
        if name not in known and close and close[0] not in columns:
            raise ValueError(
                f"{origin}: Expected fields of {', '.join(known)}; got {name!r}: did you mean "
                f"{close[0]!r}?"
            )
    given = {name: columns[name] for name in (*FIELDS, *_NAMES) if name in columns}
    try:
        return log_probabilities(**given, leave_out_impossible=leave_out_impossible)
    except ValueError as error:
        raise ValueError(f"{origin}: {error}"[: len(origin) + 2 * LONGEST_MESSAGE]) from error


def _columns(path: Path | str) -> tuple[str, dict[str, Any]]:
    """What the file is called in messages, and what it has, by the names of the arguments."""
    if Path(path).suffix == ".npz" or (
        Path(path).is_file() and open_source(path).head.startswith(ZIP)
    ):
        arrays = read_archive(open_source(path))
        names = {name: tuple(map(str, arrays[name])) for name in _NAMES if name in arrays}
        return str(path), {**arrays, **names}
    (table, *more) = read_tables(path)
    if more:
        raise ValueError(f"{path}: Expected one file of log-probabilities; got {1 + len(more)}")
    if not len(table):
        raise ValueError(f"{path}: Expected log-probabilities; got no rows")
    columns: dict[str, Any] = dict(table.columns)
    matrix = any(
        isinstance(value, list | tuple | np.ndarray) for value in columns.get("log_prob", ())
    )
    if not matrix and not set(columns) <= {*FIELDS, *_NAMES}:
        return table.origin, columns_of(read_pairs(table))
    for name in {*FIELDS} & {*columns}:
        columns[name] = _column(table, name, columns[name])
    columns.pop("prompt_names", None)  # a row is an output
    if "output_names" in columns:
        columns["output_names"] = tuple(map(str, columns["output_names"]))
    return table.origin, columns


def _column(table: Table, name: str, values: Sequence[Any] | np.ndarray) -> np.ndarray:
    """One array of a field; a row that does not fit the others is named."""
    lists = [isinstance(value, list | tuple | np.ndarray) for value in values]
    first = len(values[0]) if lists[0] else 0
    for index, (value, is_list) in enumerate(zip(values, lists, strict=True)):
        if is_list != lists[0] or (is_list and len(value) != first):
            wanted = f"{first} numbers, as in the first row" if lists[0] else "a number"
            got = f"{len(value)} of them" if is_list else repr(value)[:40]
            raise ValueError(f"{table.place(index)}, field {name!r}: Expected {wanted}; got {got}")
        for part in value if is_list else [value]:
            if isinstance(part, str) or part is None or isinstance(part, dict | list):
                raise ValueError(
                    f"{table.place(index)}, field {name!r}: Expected numbers; got "
                    f"{'nothing' if part is None else repr(part)[:40]}"
                )
    return np.asarray(list(values))
