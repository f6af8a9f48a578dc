"""Files and Python objects to tables of named columns, losing nothing on the way.

A file is read whole or refused: whatever cannot be read, is cut short or has no place in a table
ends in one line that names the file and the row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rbpp.data import arrays, columnar, folders
from rbpp.data.columnar import is_columnar, read_columns, read_partitions
from rbpp.data.delimited import read_delimited, read_text
from rbpp.data.records import read_json, read_json_lines
from rbpp.data.source_files import (
    STANDARD_INPUT,
    SourceFile,
    check_regular,
    guarded,
    is_remote,
    open_source,
    refuse,
)
from rbpp.data.table import Table, from_rows, refuse_repeated


def read_tables(data: Any, *, split: str | None = None, array: str | None = None) -> list[Table]:
    """Tables of a file, a folder of shards, or a Python object.

    Args:
        data: a path to `.json`, `.jsonl`, `.csv`, `.tsv`, `.txt`, each of them also packed as
            `.gz`, `.bz2`, `.xz` or `.zst`, to `.npy`, `.npz`, to Parquet, Arrow or Feather under
            any ending, to a folder of those, to Parquet or Arrow files in folders NAME=VALUE, to a
            `datasets` data set on disk; a pattern such as `part-*.jsonl`; an address that fsspec
            knows, such as `hf://`; `-`, standard input; or an array, a tensor, a data frame, a
            `datasets.Dataset`, a list of texts, of records or of vectors.
        split: which of several splits that a folder or a `DatasetDict` holds.
        array: which of the arrays of an archive, where they differ in length.

    Raises:
        ValueError: naming the file and the row that cannot be read.

    >>> read_tables(["first", "second"])[0].columns
    {'text': ['first', 'second']}
    """
    if isinstance(data, Path) or (isinstance(data, str) and data):
        return _read_path(data, split, array)
    if (
        isinstance(data, Mapping)
        and data
        and all(hasattr(one, "column_names") for one in data.values())
    ):
        names = [str(name) for name in data]
        return [_from_object(data[folders.chosen_split(f"<{type(data).__name__}>", names, split)])]
    return [_from_object(data)]


def _read_path(data: str | Path, split: str | None, array: str | None) -> list[Table]:
    text = str(data)
    if text == STANDARD_INPUT or is_remote(text):
        return [_read_file(open_source(text), array)]
    path = Path(data)
    if folders.is_pattern(text):
        files: Sequence[Path] = folders.of_pattern(text, split)
    else:
        check_regular(path)
        files = [path]
        if path.is_dir():
            files, partitioned = folders.of_folder(path, split)
            if partitioned is not None:
                return read_partitions(partitioned, files)
    return [_read_file(open_source(file), array) for file in files]


def _read_file(file: SourceFile, array: str | None) -> Table:
    """The table of one file: by how it begins, then by its ending."""
    with guarded(file.name, "a file that can be read"):
        if is_columnar(file.head):
            return read_columns(file)
        if file.head.startswith((arrays.NPY, arrays.ZIP)):
            return arrays.read_arrays(file, array)
        if file.name == STANDARD_INPUT:
            return _read_unnamed(file)
        if file.suffix in (".npy", ".npz"):
            return arrays.read_arrays(file, array)
        if file.suffix not in _READERS:
            known = ", ".join([*_READERS, ".npy", ".npz"])
            got = file.suffix or "no suffix"
            refuse(file.name, f"a file of {known}", f"{got}: save it as one of these")
        return _READERS[file.suffix](file)


def _read_unnamed(file: SourceFile) -> Table:
    """Standard input: JSON by its first letter, else a table if every line has as many fields."""
    first = file.head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if first == b"{":
        return read_json(file)
    if first == b"[":
        return read_json_lines(file)
    found = read_text(file)
    if list(found.columns) != ["text"] or len(found) < 2:
        return found
    try:
        table = read_delimited(file)
    except ValueError:
        return found
    return table if len(table.columns) > 1 else found


def _from_object(data: Any) -> Table:
    kind = f"<{type(data).__name__}>"
    if isinstance(data, Table):
        return data
    if hasattr(data, "detach"):  # a tensor
        data = arrays.as_numpy(data)
    if np.ma.is_masked(data):
        refuse(kind, "rows without masked values", "some")
    if isinstance(data, np.ndarray):
        if data.ndim == 0:
            refuse(kind, "rows", "a single number")
        name = "text" if data.dtype.kind in "UT" else "embedding"
        return Table(kind, {name: data.tolist() if name == "text" else data}, _count(data))
    for rows_of in ("to_list", "to_pylist"):  # a datasets.Dataset, a table of Arrow
        if hasattr(data, "column_names") and hasattr(data, rows_of):
            return from_rows(getattr(data, rows_of)(), kind, range(1, len(data) + 1), "row")
    if hasattr(data, "columns") and hasattr(data, "to_dict"):  # a data frame
        refuse_repeated([str(name) for name in data.columns], f"{kind}: Expected distinct fields")
        columns = {str(name): data[name].to_list() for name in data.columns}
        return Table(kind, columns, range(1, len(data) + 1))
    if isinstance(data, list | tuple):
        return from_rows(list(data), kind, _count(data), "row")
    if hasattr(data, "column_names") and hasattr(data, "__iter__"):  # datasets.IterableDataset
        refuse(kind, "rows that have a number", "a stream: give list(data.take(n))")
    raise ValueError(
        f"Expected a path, array, tensor, data frame, data set or list of rows; got {kind}"
    )


def _count(rows: Any) -> range:
    return range(1, len(rows) + 1)


_READERS: dict[str, Callable[[SourceFile], Table]] = {
    ".json": read_json,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".txt": read_text,
    **dict.fromkeys(columnar.SUFFIXES, read_columns),
}
