"""Parquet, Arrow and Feather, whole or in parts, under any ending."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rbpp.data.source_files import SourceFile, check_regular, check_room, guarded, refuse
from rbpp.data.table import Table, refuse_repeated

PARQUET, ARROW, FEATHER = b"PAR1", b"ARROW1", b"FEA1"
SUFFIXES = (".parquet", ".arrow", ".feather")
# Bytes that a cell takes as a Python object beside its content.
_CELL_BYTES = 16


def is_columnar(head: bytes) -> bool:
    """Whether a file begins as Parquet, Arrow or Feather do."""
    return head.startswith((PARQUET, ARROW, FEATHER))


def is_parquet(head: bytes, suffix: str) -> bool:
    """Whether a file is Parquet: by how it begins, or by its ending where that says nothing."""
    return head.startswith(PARQUET) or (suffix.lower() == ".parquet" and not is_columnar(head))


def read_columns(file: SourceFile) -> Table:
    """A whole file of columns.

    Raises:
        ValueError: naming the file.
    """
    import pyarrow

    parquet = is_parquet(file.head, file.suffix)
    with guarded(file.name, "a Parquet file" if parquet else "an Arrow file"):
        source = pyarrow.BufferReader(file.read()) if file.path is None else file.path
        if parquet:
            import pyarrow.parquet

            opened = pyarrow.parquet.ParquetFile(source)
            _check_metadata(file, opened.metadata)
            with guarded(file.name, "a whole file"):
                content = opened.read(use_threads=False)
        elif file.head.startswith(FEATHER):
            import pyarrow.feather

            content = pyarrow.feather.read_table(source)
        else:
            arrow = (
                pyarrow.ipc.open_file if file.head.startswith(ARROW) else pyarrow.ipc.open_stream
            )
            with source if file.path is None else pyarrow.memory_map(str(source)) as opened:
                content = arrow(opened).read_all()
    with guarded(file.name, "a whole file"):
        return _from_arrow(content, file.name)


def _check_metadata(file: SourceFile, metadata: Any) -> None:
    """Hold what a Parquet file says of itself against the memory."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    if any(group.num_rows < 0 for group in groups) or metadata.num_rows < 0:
        refuse(file.name, "a Parquet file", "a negative number of rows")
    cells = metadata.num_rows * max(metadata.num_columns, 1)
    check_room(file.name, sum(group.total_byte_size for group in groups) + _CELL_BYTES * cells)


def read_partitions(folder: Path, shards: Sequence[Path]) -> list[Table]:
    """Shards in folders NAME=VALUE, as Spark and others write them: each NAME is a column."""
    import pyarrow
    import pyarrow.dataset

    kinds = {"parquet" if shard.suffix.lower() == ".parquet" else "ipc" for shard in shards}
    if len(kinds) > 1:
        refuse(folder, "files of one format", "Parquet and Arrow")
    tables = []
    for shard in shards:
        check_regular(shard)
    with guarded(folder, "whole files"):
        dataset = pyarrow.dataset.dataset(
            [str(shard) for shard in shards],
            format=kinds.pop(),
            partitioning=pyarrow.dataset.partitioning(flavor="hive"),
            partition_base_dir=str(folder),
        )
        # File by file: the columns that only some of them have are kept, and rows have a place.
        for fragment in dataset.get_fragments():
            table = _from_arrow(fragment.to_table(), fragment.path)
            keys = pyarrow.dataset.get_partition_keys(fragment.partition_expression)
            folders = {name: [value] * len(table) for name, value in keys.items()}
            tables.append(replace(table, columns={**table.columns, **folders}))
    return tables


def _from_arrow(content: Any, origin: str) -> Table:
    content.validate(full=True)  # of damaged buffers Arrow reads what lies beside them
    refuse_repeated(content.column_names, f"{origin}: Expected distinct fields")
    check_room(origin, content.nbytes + _CELL_BYTES * content.num_rows * content.num_columns)
    columns = {
        name: _values(content.column(place), origin, name)
        for place, name in enumerate(content.column_names)
    }
    numbers = range(1, content.num_rows + 1)
    return Table(origin, columns, numbers, indices=saved_indices(content.schema))


def _values(column: Any, origin: str, name: str) -> list[Any]:
    import pyarrow

    kind = column.type
    if pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
        with guarded(f"{origin}, field {name!r}", "text as UTF-8"):
            column = column.cast(pyarrow.string())
    return list(column.to_pylist())


def saved_indices(schema: Any) -> tuple[str, ...]:
    """Columns that hold the index of the data frame that was saved, by pandas' own record."""
    names = [name for name in schema.names if name.startswith("__index_level_")]
    try:
        known = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))["index_columns"]
    except (ValueError, KeyError, TypeError):
        known = []
    for name in known:
        if isinstance(name, str) and name in schema.names and name not in names:
            names.append(name)
    return tuple(names)
