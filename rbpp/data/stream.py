"""Rows that need not fit in memory: a stream of parts, each read in chunks when its turn comes.

A part is a recipe, small enough to be sent to another machine; its rows are read where they are
worked on. A chunk is what is in memory at a time. Shards are `.npy` arrays, Parquet, Feather and
Arrow files, the latter also as `datasets` writes them, and folders of these.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rbpp.data import columnar, folders
from rbpp.data.arrays import read_header
from rbpp.data.column_kinds import refuse_no_measurements
from rbpp.data.columnar import ARROW, is_parquet, saved_indices
from rbpp.data.measurements import number_columns
from rbpp.data.source_files import check_regular, guarded, refuse
from rbpp.data.table import Table, refuse_repeated


class Chunk(NamedTuple):
    """Rows (n, d), with a weight (n,) each, or None."""

    rows: Tensor
    weights: Tensor | None = None


Part = Callable[[], Iterable[Chunk]]
Stream = Sequence[Part]

# Of 16 float32 coordinates 3 MB: large against what it costs to open a file or to start a task.
CHUNK_ROWS = 50_000
# Rows by which a column is known that is no measurement.
_LOOKED_AT = 1000
SUFFIXES = (".npy", *columnar.SUFFIXES)
# From here on rows are streamed: as float64, with what a fit keeps of them, they take several times
# the bytes of the file.
STREAM_BYTES = 2**30
# Of a digest: files up to this size are read whole; of larger ones as many bytes, evenly spread,
# and the time of the last change.
_WHOLE, _BLOCK = 2**28, 2**20


def tensor_stream(rows: Tensor, chunk_rows: int) -> Stream:
    """A stream of the rows (n, d) of a tensor."""
    return [partial(list, [Chunk(part)]) for part in rows.split(chunk_rows)]


def scaled_stream(stream: Stream, centre: np.ndarray, divisor: np.ndarray) -> Stream:
    """A stream of rows less their centre (d,), over a divisor (d,)."""
    return [
        partial(_scaled, part, torch.from_numpy(centre), torch.from_numpy(divisor))
        for part in stream
    ]


def row_stream(
    path: str | Path,
    *,
    field: str | None = None,
    weight_field: str | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> Stream:
    """A stream of the rows of a file, or of a folder of shards in order of their names.

    Only sizes are read here. Memory then holds one chunk, whatever the file's size. A part is a
    chunk; of Parquet it is a row group, or as many as make a chunk.

    Args:
        path: a `.npy` array (n, d), a Parquet, Feather or Arrow file, a folder of these, or a data
            set on disk as `datasets` saves it.
        field: the column with a vector per row; by default all columns of numbers are coordinates.
        weight_field: the column with the rows' weights.
        chunk_rows: rows per chunk.

    Raises:
        ValueError: naming the file, if it cannot be read as rows of numbers.
    """
    if chunk_rows < 1:
        raise ValueError(f"Expected chunk_rows ≥ 1; got {chunk_rows}")
    shards = shard_files(path)
    if any(shard.suffix.lower() == ".npy" for shard in shards) and (field or weight_field):
        refuse(path, "a file with columns for a named field", "an array")
    columns = Columns(field, weight_field)
    parts: list[Part] = []
    for shard in shards:
        if shard.suffix.lower() == ".npy":
            parts += _array_parts(shard, chunk_rows)
        else:
            parts += _columnar_parts(shard, columns, chunk_rows)
    return parts


def shard_files(path: str | Path) -> list[Path]:
    """The files that a path stands for, in order: those that are read into memory, too.

    Raises:
        ValueError: if there are none, or one of another kind.
    """
    path = Path(path)
    check_regular(path)
    shards = [path]
    if path.is_dir():
        files, partitioned = folders.of_folder(path)
        if partitioned is not None:
            refuse(path, "files in the folder itself", "some in folders NAME=VALUE")
        shards = list(files)
    for shard in shards:
        check_regular(shard)
        if shard.suffix.lower() not in SUFFIXES:
            got = shard.suffix or "no suffix"
            refuse(shard, "a .npy, .parquet, .feather or .arrow file", got)
    return shards


def is_large(path: str | Path) -> bool:
    """Whether a file or folder that can be streamed has so many bytes that it should be."""
    try:
        return sum(shard.stat().st_size for shard in shard_files(path)) >= STREAM_BYTES
    except (ValueError, OSError):  # what it is, the reader of rows in memory will say
        return False


def _scaled(part: Part, centre: Tensor, divisor: Tensor) -> Iterator[Chunk]:
    for chunk in part():
        yield chunk._replace(rows=(chunk.rows - centre) / divisor)


def _array_parts(path: Path, chunk_rows: int) -> list[Part]:
    header = read_header(path)
    if len(header.shape) != 2 or header.shape[1] == 0:
        refuse(path, "an array (rows, dimension)", f"shape {header.shape}")
    first = next(_of_array(path, 0, _LOOKED_AT), None)
    if first is not None:
        refuse_no_measurements(str(path), first.rows.numpy())
    return [
        partial(_of_array, path, start, start + chunk_rows)
        for start in range(0, header.shape[0], chunk_rows)
    ]


def _of_array(path: Path, start: int, stop: int) -> Iterator[Chunk]:
    header = read_header(path)
    order: Literal["F", "C"] = "F" if header.fortran else "C"
    # A new map for every chunk: pages of an old one would stay resident.
    mapped = np.memmap(path, header.dtype, "r", header.offset, header.shape, order)
    yield Chunk(_rows(np.array(mapped[start:stop]), path, start))


class Columns(NamedTuple):
    """The columns that hold coordinates and weights; without a field, all but the weights."""

    field: str | None
    weight_field: str | None

    def of(self, names: Sequence[str], path: Path) -> tuple[list[str], list[str]]:
        """Names of the coordinates, and of all columns to read."""
        for name in self:
            if name is not None and name not in names:
                refuse(path, f"a field {name!r}", ", ".join(names))
        refuse_repeated(names, f"{path}: Expected distinct fields")
        wanted = [self.field] if self.field else [n for n in names if n != self.weight_field]
        return wanted, wanted + ([self.weight_field] if self.weight_field else [])

    def chunk(self, batch: Any, path: Path, start: int) -> Chunk:
        """A chunk from a record batch whose first row is row `start` of the file."""
        wanted, _ = self.of(batch.schema.names, path)
        batch.validate(full=True)
        coordinates = [_matrix(batch.column(name), path, name, start) for name in wanted]
        weights = None
        if self.weight_field is not None:
            values = _matrix(batch.column(self.weight_field), path, self.weight_field, start)
            weights = torch.from_numpy(values[:, 0].astype(np.float64))
        return Chunk(_rows(np.concatenate(coordinates, 1), path, start), weights)


def _columnar_parts(path: Path, columns: Columns, chunk_rows: int) -> list[Part]:
    """Parts of a Parquet, Feather or Arrow file; of Parquet one for every group of rows or more."""
    import pyarrow

    with guarded(
        path, "a Parquet file" if is_parquet(_head(path), path.suffix) else "an Arrow file"
    ):
        source, schema = _opened(path)
        wanted, _ = columns.of(schema.names, path)
        stream = isinstance(source, pyarrow.Table)
        if columns.field is None:
            first = (
                source.select(wanted).slice(0, _LOOKED_AT)
                if stream
                else source.head(_LOOKED_AT, columns=wanted, batch_readahead=0, use_threads=False)
            )
            _refuse_no_measurements(first, saved_indices(schema), path)
        sizes = [group.num_rows for group in getattr(source, "row_groups", [])]
    if not sizes:
        starts = range(0, source.num_rows, chunk_rows) if stream else [0]
        return [partial(_of_columns, path, None, at, columns, chunk_rows) for at in starts]
    parts: list[Part] = []
    groups: list[int] = []
    start = held = 0
    for group, size in enumerate(sizes):
        groups, held = [*groups, group], held + size
        if held >= chunk_rows or group == len(sizes) - 1:
            parts.append(partial(_of_columns, path, groups, start, columns, chunk_rows))
            groups, start, held = [], start + held, 0
    return parts


def _refuse_no_measurements(first: Any, saved: tuple[str, ...], path: Path) -> None:
    """Refuse columns that are none by their names, or by the first rows, as in memory."""
    first.validate(full=True)  # of damaged buffers Arrow reads what lies beside them
    found = {name: first.column(name).to_pylist() for name in first.column_names}
    if not any(isinstance(values[0], list) for values in found.values() if values):
        number_columns(Table(str(path), found, range(1, len(first) + 1), indices=saved))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(ARROW))


def _opened(path: Path, groups: list[int] | None = None) -> tuple[Any, Any]:
    """What reads a file's rows, and its schema: a fragment of a data set; a table of a stream."""
    import pyarrow.dataset
    import pyarrow.fs

    head, here = _head(path), pyarrow.fs.LocalFileSystem()
    if is_parquet(head, path.suffix):
        kind = pyarrow.dataset.ParquetFileFormat(pre_buffer=False)
        fragment = kind.make_fragment(str(path), here, row_groups=groups)
    elif head == ARROW:
        fragment = pyarrow.dataset.IpcFileFormat().make_fragment(str(path), here)
    else:
        with pyarrow.memory_map(str(path)) as source:  # nothing is read before it is used
            table = pyarrow.ipc.open_stream(source).read_all()
        return table, table.schema
    return fragment, fragment.physical_schema


def _of_columns(
    path: Path, groups: list[int] | None, start: int, columns: Columns, chunk_rows: int
) -> Iterator[Chunk]:
    import pyarrow

    source, schema = _opened(path, groups)
    _, names = columns.of(schema.names, path)
    with guarded(path, "a whole file"):
        if isinstance(source, pyarrow.Table):
            part = source.select(names).slice(start, chunk_rows)
            part.validate(full=True)
            batches = iter(part.combine_chunks().to_batches())
        else:
            # Read ahead, batches would be held that nobody has asked for yet.
            batches = source.to_batches(
                columns=names, batch_size=chunk_rows, batch_readahead=0, use_threads=False
            )
    while True:
        with guarded(path, "a whole file"):
            batch = next(batches, None)
            if batch is None:
                return
            found = columns.chunk(batch, path, start)
        yield found
        start += batch.num_rows


def _matrix(column: Any, path: Path, name: str, start: int) -> np.ndarray:
    """A column of numbers (n, 1) or of vectors of one length (n, d)."""
    import pyarrow

    if column.null_count:
        row = start + int(np.flatnonzero(column.is_null())[0])
        refuse(f"{path}, row {row}, field {name!r}", "a value", "nothing")
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
            where = f"{path}, row {start + row}, field {name!r}"
            refuse(where, f"a vector of dimension {lengths[0]}", lengths[row])
        values = flat.to_numpy(zero_copy_only=False).reshape(len(column), -1)
    else:
        values = column.to_numpy(zero_copy_only=False)[:, None]
    if values.dtype.kind not in "fiu":
        refuse(f"{path}, field {name!r}", "numbers", kind)
    return values


def _rows(values: np.ndarray, path: Path, start: int) -> Tensor:
    if values.dtype.kind not in "fiu":
        refuse(path, "numbers", values.dtype)
    if values.dtype != np.float32:
        values = values.astype(np.float64)
    finite = np.isfinite(values).all(1)
    if not finite.all():
        refuse(f"{path}, row {start + int(np.argmin(finite))}", "finite numbers", "others")
    return torch.from_numpy(values)


def data_digest(files: Iterable[Path]) -> str:
    """A digest of the contents of files, in order.

    >>> data_digest([]) == data_digest([])
    True
    """
    found = hashlib.blake2b(digest_size=16)
    for path in files:
        about = path.stat()
        found.update(f"{path.name} {about.st_size}\n".encode("utf-8", "surrogateescape"))
        with path.open("rb") as stream:
            if about.st_size <= _WHOLE:
                while block := stream.read(_BLOCK):
                    found.update(block)
                continue
            found.update(f"{about.st_mtime_ns}\n".encode())
            blocks = _WHOLE // _BLOCK
            for place in range(blocks):
                stream.seek(place * (about.st_size - _BLOCK) // (blocks - 1))
                found.update(stream.read(_BLOCK))
    return found.hexdigest()
