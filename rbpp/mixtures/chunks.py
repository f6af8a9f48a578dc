"""Shards on disk as chunks of rows, a few at a time: `.npy`, Parquet, and folders of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rbpp.mixtures.stream import Chunk, Chunks

_READERS = (".npy", ".parquet")


def row_chunks(
    path: str | Path,
    *,
    field: str | None = None,
    weight_field: str | None = None,
    chunk_rows: int = 50_000,
) -> Chunks:
    """A re-readable stream of the rows of a file, or of a folder of shards in order of their names.

    Nothing is kept between chunks: memory holds one chunk, whatever the file's size.

    Args:
        path: a `.npy` array (n, d) or a Parquet file, or a folder of either.
        field: the Parquet column with a vector per row; by default all columns of numbers are
            coordinates.
        weight_field: the Parquet column with the rows' weights.
        chunk_rows: rows per chunk.

    Raises:
        ValueError: naming the file, if it cannot be read as rows of numbers.
    """
    if chunk_rows < 1:
        raise ValueError(f"Expected chunk_rows ≥ 1; got {chunk_rows}")
    shards = _shards(Path(path))
    if any(shard.suffix == ".npy" for shard in shards) and (field or weight_field):
        raise ValueError(f"{path}: Expected a Parquet file for a named field; got an array")

    def chunks() -> Iterator[Chunk]:
        for shard in shards:
            if shard.suffix == ".npy":
                yield from _of_array(shard, chunk_rows)
            else:
                yield from _of_parquet(shard, field, weight_field, chunk_rows)

    return chunks


def _shards(path: Path) -> list[Path]:
    if path.is_dir():
        shards = sorted(entry for entry in path.iterdir() if entry.suffix in _READERS)
        if not shards:
            raise ValueError(f"{path}: Expected a folder with .npy or .parquet files; got none")
        return shards
    if not path.is_file() or path.suffix not in _READERS:
        got = path.suffix or "no suffix" if path.is_file() else "no such file"
        raise ValueError(f"{path}: Expected a .npy or .parquet file; got {got}")
    return [path]


def _of_array(path: Path, chunk_rows: int) -> Iterator[Chunk]:
    try:
        shape = np.load(path, mmap_mode="r").shape
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: Expected an array of numbers; got {error}") from error
    if len(shape) != 2:
        raise ValueError(f"{path}: Expected an array (rows, dimension); got shape {shape}")
    for start in range(0, shape[0], chunk_rows):
        # A new map for every chunk: pages of an old one would stay resident.
        mapped = np.load(path, mmap_mode="r")
        yield Chunk(_rows(np.array(mapped[start : start + chunk_rows]), path, start))


def _of_parquet(
    path: Path, field: str | None, weight_field: str | None, chunk_rows: int
) -> Iterator[Chunk]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: Expected a Parquet file; got {error}") from error
    names = file.schema_arrow.names
    for name in (field, weight_field):
        if name is not None and name not in names:
            raise ValueError(f"{path}: Expected a field {name!r}; got {', '.join(names)}")
    wanted = [field] if field else [name for name in names if name != weight_field]
    columns = wanted + ([weight_field] if weight_field else [])
    start = 0
    for batch in file.iter_batches(batch_size=chunk_rows, columns=columns):
        coordinates = [_matrix(batch.column(name), path, name, start) for name in wanted]
        widths = {len(part) for part in coordinates}
        assert len(widths) == 1
        weights = None
        if weight_field is not None:
            weights = torch.from_numpy(
                _matrix(batch.column(weight_field), path, weight_field, start)[:, 0].copy()
            )
        yield Chunk(_rows(np.concatenate(coordinates, 1), path, start), weights)
        start += batch.num_rows


def _matrix(column: Any, path: Path, name: str, start: int) -> np.ndarray:
    """A column of numbers (n, 1) or of vectors of one length (n, d)."""
    import pyarrow

    if column.null_count:
        row = start + int(np.flatnonzero(column.is_null())[0])
        raise ValueError(f"{path}, row {row}, field {name!r}: Expected a value; got nothing")
    kind = column.type
    nested = pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind)
    if nested or pyarrow.types.is_fixed_size_list(kind):
        flat = column.flatten()
        lengths = (
            np.full(len(column), kind.list_size)
            if not nested
            else np.diff(column.offsets.to_numpy(zero_copy_only=False))
        )
        if len(set(lengths.tolist())) > 1:
            row = int(np.flatnonzero(lengths != lengths[0])[0])
            raise ValueError(
                f"{path}, row {start + row}, field {name!r}: Expected a vector of dimension "
                f"{lengths[0]}; got {lengths[row]}"
            )
        values = flat.to_numpy(zero_copy_only=False).reshape(len(column), -1)
    else:
        values = column.to_numpy(zero_copy_only=False)[:, None]
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{path}, field {name!r}: Expected numbers; got {kind}")
    return values


def _rows(values: np.ndarray, path: Path, start: int) -> torch.Tensor:
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{path}: Expected numbers; got {values.dtype}")
    if values.dtype != np.float32:
        values = values.astype(np.float64)
    finite = np.isfinite(values).all(1)
    if not finite.all():
        row = start + int(np.argmin(finite))
        raise ValueError(f"{path}, row {row}: Expected finite numbers; got others")
    return torch.from_numpy(values)


def tensor_chunks(rows: torch.Tensor, chunk_rows: int) -> Chunks:
    """A stream of the rows (n, d) of a tensor."""

    def chunks() -> Iterable[Chunk]:
        return (Chunk(part) for part in rows.split(chunk_rows))

    return chunks
