"""Arrays of NumPy: `.npy` and `.npz`, whose headers are held against what is there."""

from __future__ import annotations

import io
import math
import os
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from rbpp.data.source_files import SourceFile, check_room, guarded, open_source, refuse
from rbpp.data.table import Table

NPY, ZIP = b"\x93NUMPY", b"PK"
_WAY_OUT = "objects, which are not unpickled: save it as numbers, np.stack(list(x))"


class Header(NamedTuple):
    """What the first bytes of a `.npy` file say."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    offset: int

    @property
    def size(self) -> int:
        """Bytes of its numbers."""
        return math.prod(self.shape) * self.dtype.itemsize

    def filled(self, content: bytearray, name: str) -> np.ndarray:
        """The array of these bytes."""
        if len(content) != self.size:
            _refuse_length(name, self.size, len(content))
        flat = np.frombuffer(content, self.dtype)
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


def as_numpy(values: Any) -> np.ndarray:
    """An array of what users hold: a tensor, wherever it lives, an array, or lists of one length.

    Raises:
        ValueError: if lists differ in length.
    """
    if hasattr(values, "detach"):  # a tensor, whose module is not imported here
        values = values.detach().cpu()
        # NumPy has no bfloat16, which float32 holds without loss.
        values = values.float() if "bfloat16" in str(values.dtype) else values
    return np.asarray(values)


def numbers(name: str, values: Any) -> np.ndarray:
    """Numbers in float64 of what users hold; see `as_numpy`.

    Raises:
        ValueError: naming them, if they are no numbers, or lists that differ in length.
    """
    try:
        array = as_numpy(values)
    except ValueError as error:
        raise ValueError(f"Expected {name} as one array; got rows that differ in length") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"Expected {name} as an array of numbers; got {array.dtype}")
    return array.astype(np.float64)


def read_arrays(file: SourceFile, field: str | None = None) -> Table:
    """The arrays of a file as columns; of those of different length the one that is named.

    Raises:
        ValueError: naming the file.
    """
    arrays = _arrays(file)
    if field in arrays:
        arrays = {field: arrays[field]}
    lengths = {name: len(array) for name, array in arrays.items() if array.ndim}
    if len(set(lengths.values())) != 1 or len(lengths) != len(arrays):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        way = ": name one with embedding=…" if len(arrays) > 1 else ""
        refuse(file.name, "arrays with one first axis, the rows", f"{shapes or 'none'}{way}")
    return Table(file.name, dict(arrays), range(1, next(iter(lengths.values())) + 1))


def read_archive(file: SourceFile) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file by name, of whatever lengths; nothing is unpickled.

    Raises:
        ValueError: naming the file.
    """
    with guarded(file.name, "an archive of NumPy arrays (.npz)"):
        if not file.head.startswith(ZIP):
            refuse(file.name, "an archive of NumPy arrays (.npz)", "another beginning")
        return _members(file)


def load(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a `.npz` file by name, or that of a `.npy` file, called `embedding`.

    Raises:
        ValueError: naming the file.
    """
    return _arrays(open_source(path))


def _arrays(file: SourceFile) -> dict[str, np.ndarray]:
    with guarded(file.name, "NumPy arrays"):
        if not file.head.startswith(ZIP):
            with file.opened() if file.path else io.BytesIO(file.read()) as stream:
                return {"embedding": _array(stream, file.name)}
        if file.suffix == ".npy":
            refuse(file.name, "one array, as .npy holds it", "an archive of them: call it .npz")
        return _members(file)


def read_header(path: Path) -> Header:
    """The header of an `.npy` file on disk, whose length is held against it.

    Raises:
        ValueError: naming the file.
    """
    file = open_source(path)
    with guarded(path, "an array of numbers"):
        if file.path is None or not file.head.startswith(NPY):
            refuse(path, "an array of numbers", "another beginning than that of .npy")
        with path.open("rb") as stream:
            return _header(stream, str(path), file.size)


def _array(stream: IO[bytes], name: str) -> np.ndarray:
    size = None
    if stream.seekable():
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
    header = _header(stream, name, size)
    check_room(name, header.size)
    return header.filled(bytearray(stream.read(header.size + 1)), name)


def _header(stream: IO[bytes], name: str, size: int | None) -> Header:
    version = np.lib.format.read_magic(stream)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        refuse(name, "version 1 or 2 of .npy", version)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        refuse(name, "an array of numbers (allow_pickle=False)", _WAY_OUT)
    if any(isinstance(side, bool) or side < 0 for side in shape):
        refuse(name, "an array with sides of 0 or more", f"shape {shape}")
    found = Header(tuple(shape), fortran, dtype, stream.tell())
    if size is not None and size - found.offset != found.size:
        _refuse_length(name, found.size, size - found.offset)
    return found


def _refuse_length(name: str, wanted: int, there: int) -> None:
    what = "less (is the file cut?)" if there < wanted else "more than the header says"
    refuse(name, f"{wanted} bytes of numbers, as the header says", what)


def _members(file: SourceFile) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    name = file.name
    with file.opened() as stream, zipfile.ZipFile(stream) as archive:
        entries = archive.infolist()
        check_room(name, sum(entry.file_size for entry in entries), file.size)
        if any(entry.filename.endswith(".xml") for entry in entries):
            refuse(name, "arrays of NumPy", "a workbook or document: save the sheet as CSV")
        for entry in entries:
            key = entry.filename.removesuffix(".npy")
            if key == entry.filename:
                got = f"the file {entry.filename!r}: unpack it, or save arrays as .npz"
                refuse(name, "arrays (.npy) in the archive", got)
            if key in arrays:
                refuse(name, "distinct arrays in the archive", f"{key!r} twice")
            if entry.flag_bits & 1:
                refuse(name, "an archive without a password", f"{key!r} encrypted")
            place = f"{name}, array {key!r}"
            with archive.open(entry) as member:
                header = _header(member, place, entry.file_size)
                # To its end: its checksum is tested.
                arrays[key] = header.filled(bytearray(member.read()), place)
    return arrays
