"""What tells two contents of the same files apart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

# Files up to this size are read whole; of larger ones as many bytes, evenly spread, and the time of
# the last change.
_WHOLE, _BLOCK = 2**28, 2**20


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
