"""The one door through which the files of a user come in.

Whatever a file holds ends in its rows or in one line that names it: regular files only, sizes that
a file declares are held against the memory that there is, and nothing is unpickled.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import io
import lzma
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

STANDARD_INPUT = "-"
LONGEST_MESSAGE, _LEAST_SAID = 200, 150
# What unpacks to more than this is held against what it is packed in: text shrinks to a tenth, and
# gzip cannot do better than 1,032.
SURELY_SMALL, LARGEST_RATIO = 2**28, 200
# Rows become Python objects and float64 beside what was read.
SHARE_OF_MEMORY = 0.5


def _zstd(raw: IO[bytes]) -> Any:
    import pyarrow

    return pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, mode="r"), "zstd")


# Ending of a packed file to how it begins, and what unpacks it.
_PACKED: dict[str, tuple[bytes, Callable[[IO[bytes]], Any]]] = {
    ".gz": (b"\x1f\x8b", lambda raw: gzip.GzipFile(fileobj=raw)),
    ".bz2": (b"BZh", bz2.BZ2File),
    ".xz": (b"\xfd7zXZ\x00", lzma.LZMAFile),
    ".zst": (b"\x28\xb5\x2f\xfd", _zstd),
}
_REMOTE = re.compile(r"([a-z][a-z0-9+]+):/+(.+)", re.DOTALL)


class FileError(ValueError):
    """A file of the user that is refused, in one line that names it."""


def refuse(place: object, expected: str, got: object) -> NoReturn:
    """Raise a `FileError` of at most `LONGEST_MESSAGE` characters, where the file's name is short.

    Of a longer name the message keeps `_LEAST_SAID` characters: what to do stands at its end.
    """
    text = " ".join(f"Expected {expected}; got {got}".split())
    room = max(LONGEST_MESSAGE - len(str(place)) - 2, _LEAST_SAID)
    raise FileError(f"{place}: {text if len(text) <= room else text[: room - 1] + '…'}")


@contextlib.contextmanager
def guarded(place: object, expected: str) -> Iterator[None]:
    """What a library raises about a file, as one line that names it.

    Raises:
        ValueError: for every exception but those of the program (exits, interrupts).
    """
    try:
        yield
    except FileError:
        raise
    except MemoryError:
        refuse(place, expected, "more than there is memory for")
    except RecursionError:
        refuse(place, expected, "values nested too deep (recursion)")
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(f"{place}"):
            raise  # said already, with its row
        lines = str(error).strip().splitlines()
        refuse(place, expected, lines[0] if lines else type(error).__name__)


def memory() -> int:
    """Bytes that this process may still take: of the machine, or of its control group."""
    found = [sys.maxsize]
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                found.append(1024 * int(line.split()[1]))
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        found.append(limit - int((group / "memory.current").read_text(encoding="ascii")))
    return max(min(found), 2**26)


def check_room(place: object, size: int, packed: int | None = None) -> None:
    """Refuse what a file says that it unpacks to, before any of it is made.

    Raises:
        ValueError: if that is more than the memory, or far more than text or numbers shrink by.
    """
    limit = int(SHARE_OF_MEMORY * memory())
    if size > limit:
        refuse(place, f"at most {limit} bytes, half of the memory", f"{size} of them")
    if packed is not None and size > SURELY_SMALL and size > LARGEST_RATIO * packed:
        refuse(
            place,
            f"a file that unpacks to at most {LARGEST_RATIO} times its size",
            f"{size} bytes of {packed}: unpack it yourself if you trust it",
        )


def check_regular(path: Path) -> None:
    """Refuse what is neither a regular file nor a folder: it may hang, and never end.

    Raises:
        ValueError: naming the path, and standard input as the way out.
    """
    special = path.is_absolute() and str(path).startswith(("/dev/", "/proc/"))
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        code = getattr(error, "errno", None)
        if code == errno.ENOENT:
            refuse(path, "a file or folder", "no such path")
        if code == errno.ELOOP:
            refuse(path, "a file or folder", "a link that leads to itself")
        refuse(path, "a file or folder", getattr(error, "strerror", None) or error)
    if special or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        refuse(path, "a regular file", "a pipe or a device: give - to read standard input")


@dataclass(frozen=True)
class SourceFile:
    """A file that is known to be readable.

    Attributes:
        name: what errors call it.
        suffix: of its format, in small letters: `.jsonl` of `x.jsonl.gz`.
        head: its first bytes, unpacked.
        size: bytes as they lie there, packed or not.
        path: where it can be mapped into memory; None if it is packed, remote or standard input.
        opened: its bytes, unpacked, from the start; refuses to give more than memory holds.
    """

    name: str
    suffix: str
    head: bytes
    size: int
    path: Path | None
    opened: Callable[[], IO[bytes]]

    def read(self) -> bytes:
        """All bytes."""
        with self.opened() as stream:
            return stream.read()


def open_source(data: str | Path) -> SourceFile:
    """The file of a path, of an address with `://`, or of `-`, standard input.

    Raises:
        ValueError: if it is no regular file, cannot be opened, or is larger than memory.
    """
    text = str(data)
    if text == STANDARD_INPUT:
        content = sys.stdin.buffer.read(int(SHARE_OF_MEMORY * memory()))
        return _packed_or_not(text, "", len(content), None, lambda: io.BytesIO(content))
    if is_remote(text):
        content = _fetched(text)
        return _packed_or_not(text, text, len(content), None, lambda: io.BytesIO(content))
    path = Path(data)
    check_regular(path)
    with guarded(path, "a readable file"):
        size = path.stat().st_size
        found = _packed_or_not(text, path.name, size, path, lambda: path.open("rb"))
    return found


def is_remote(text: str) -> bool:
    """Whether a path is an address such as `hf://` or `https://` (a drive letter is none)."""
    return _REMOTE.fullmatch(text) is not None and not os.path.exists(text)


def _packed_or_not(
    name: str, file: str, size: int, path: Path | None, raw: Callable[[], IO[bytes]]
) -> SourceFile:
    with raw() as stream:
        head = stream.read(16)
    parts = Path(file).suffixes
    kind = next((key for key, (magic, _) in _PACKED.items() if head.startswith(magic)), None)
    if parts and parts[-1].lower() in _PACKED:
        if kind is None and head:
            refuse(name, f"a file packed as {parts[-1]}", "another beginning")
        parts = parts[:-1]
    suffix = parts[-1].lower() if parts else ""
    opened = raw
    if kind is not None:
        path, opened = None, lambda: io.BufferedReader(_Bounded(raw(), name, kind, size))
        with guarded(name, f"a whole {kind} file"), opened() as stream:
            head = stream.read(16)
    return SourceFile(name, suffix, head, size, path=path, opened=opened)


class _Bounded(io.RawIOBase):
    """What a packed file unpacks to, as long as it is in proportion."""

    def __init__(self, raw: IO[bytes], name: str, kind: str, size: int) -> None:
        self._raw, self._name, self._kind, self._size = raw, name, kind, size
        self._inner = _PACKED[kind][1](raw)
        self._given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with guarded(self._name, f"a whole {self._kind} file"):
            content = self._inner.read(len(buffer))
        self._given += len(content)
        if self._given > SURELY_SMALL:
            check_room(self._name, self._given, self._size)
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        if not self.closed:
            with contextlib.suppress(Exception):
                self._inner.close()
            self._raw.close()
        super().close()


def _fetched(address: str) -> bytes:
    """The bytes behind an address, which only a user who names it causes to be read."""
    found = _REMOTE.fullmatch(address)
    assert found is not None
    root = "/" if found[1] in ("file", "local") else ""
    url = f"{found[1]}://{root}{found[2]}"  # a path has lost the second slash
    import fsspec  # type: ignore[import-untyped]

    try:
        kind = fsspec.get_filesystem_class(found[1])
    except (ImportError, ValueError) as error:
        refuse(address, f"a package that reads {found[1]}://", f"none: {error}")
    limit = int(SHARE_OF_MEMORY * memory())
    with guarded(address, "an address that can be read"), fsspec.open(url, "rb") as stream:
        content = bytes(stream.read(limit + 1))
    assert kind is not None
    check_room(address, len(content))
    return content
