"""Files that are written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rbpp

if TYPE_CHECKING:
    import numpy as np

_CHECKSUM = "checksum of the arrays"


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to an `.npz` file, whole or not at all; nothing in it is pickled.

    Raises:
        ValueError: naming an array of Python objects.
        OSError: if the file cannot be written.
    """
    import numpy as np

    named: dict[str, Any] = dict(arrays)
    for name, array in named.items():
        if array.dtype.hasobject:  # NumPy before 2.2 has no allow_pickle here
            raise ValueError(f"Expected numbers or text in {name}; got Python objects")
    with written_whole(path) as aside, aside.open("wb") as file:
        np.savez(file, **named)


def keep_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays with a checksum by which `kept_arrays` knows them again.

    Raises:
        ValueError, OSError: as `write_arrays`.
    """
    import numpy as np

    write_arrays(path, {**arrays, _CHECKSUM: np.asarray(_checksum(arrays))})


def kept_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Arrays that `keep_arrays` wrote; None where they are absent, damaged or of another version.

    Raises:
        PermissionError: if the file may not be read.
    """
    import numpy as np

    try:
        # NumPy leaves open what it refuses.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
        checksum = str(found.pop(_CHECKSUM))
    except PermissionError:
        raise
    except Exception:  # whatever a damaged archive makes NumPy and zipfile raise
        return None
    return found if checksum == _checksum(found) else None


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    content = hashlib.blake2b(rbpp.__version__.encode(), digest_size=16)
    for name in sorted(arrays):
        array = arrays[name]
        content.update(f"{name} {array.dtype.str} {array.shape}".encode())
        content.update(array.tobytes())
    return content.hexdigest()


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write to; the file takes its own place when the block ends without an error.

    It is written beside its place, flushed to the disk and moved: a reader never sees half a file,
    and what stood there stays until the new file is complete. Two writers have two such files.

    Raises:
        OSError: if the folder cannot be written to, or the disk is full.
    """
    target = Path(path)
    try:
        handle, name = tempfile.mkstemp(
            prefix=f".{target.name}.", suffix=".part", dir=target.parent
        )
    except OSError as error:  # named by the file that was meant, not by the one beside it
        raise type(error)(error.errno, error.strerror, str(target)) from None
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        os.chmod(aside, _mode(target))
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def _mode(target: Path) -> int:
    """Permissions of the file that is replaced, or those that a new file gets."""
    try:
        return target.stat().st_mode & 0o777
    except OSError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask
