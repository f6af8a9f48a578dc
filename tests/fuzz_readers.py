"""Damaged files of every format: rows, or a line that names the file, and nothing else.

    python tests/fuzz_readers.py        500 files a format
    python tests/fuzz_readers.py 50     fewer

Bytes are changed, cut out, repeated or cut off; the seed is fixed. What a format without a checksum
cannot show, a changed digit, is no fault here.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.feather
import pyarrow.parquet

from rbpp.data.read import read_tables
from rbpp.data.rows import read_rows
from rbpp.data.stream import SUFFIXES, row_stream

FILES = 500
LONGEST = 400


def contents() -> dict[str, bytes]:
    """A small whole file of every format, by its name."""
    values = np.random.default_rng(0).normal(size=(20, 3)).round(4)
    frame = pd.DataFrame(values, columns=list("abc"))
    records = [{"text": f"row {place}", "v": row} for place, row in enumerate(values.tolist())]
    lines = "".join(json.dumps(record) + "\n" for record in records).encode()
    table = pyarrow.Table.from_pylist(records)
    plain = pyarrow.Table.from_pandas(frame, preserve_index=False)
    turns = [[{"role": "user", "content": f"ask {place}"}] for place in range(20)]
    talks = "".join(json.dumps({"messages": said}) + "\n" for said in turns).encode()
    found = {
        "x.jsonl": lines,
        "x.json": json.dumps(records).encode(),
        "talks.jsonl": talks,
        "x.csv": frame.to_csv(index=False).encode(),
        "x.tsv": frame.to_csv(index=False, sep="\t").encode(),
        "x.txt": frame.to_csv(index=False, header=False, sep=" ").encode(),
        "x.jsonl.gz": gzip.compress(lines, mtime=0),
        "x.jsonl.bz2": bz2.compress(lines),
        "x.jsonl.zst": pyarrow.compress(lines, "zstd", asbytes=True),
    }
    for name, write in (
        ("x.npy", lambda file: np.save(file, values)),
        ("x.npz", lambda file: np.savez(file, v=values)),
        ("y.npz", lambda file: np.savez_compressed(file, v=values)),
        ("x.parquet", lambda file: pyarrow.parquet.write_table(table, file)),
        ("x.feather", lambda file: pyarrow.feather.write_feather(table, file)),
        ("y.parquet", lambda file: pyarrow.parquet.write_table(plain, file)),
        ("y.feather", lambda file: pyarrow.feather.write_feather(plain, file)),
    ):
        file = io.BytesIO()
        write(file)
        found[name] = file.getvalue()
    for name, rows in (("x.arrow", table), ("y.arrow", plain)):
        stream = io.BytesIO()
        with pyarrow.ipc.new_stream(stream, rows.schema) as writer:
            writer.write_table(rows)
        found[name] = stream.getvalue()
    return found


def mutated(content: bytes, generator: np.random.Generator) -> bytes:
    """The content with some damage."""
    found = bytearray(content)
    place = int(generator.integers(len(found)))
    width = int(generator.integers(1, 20))
    kind = generator.integers(6)
    if kind == 0:
        found[place] ^= 1 << int(generator.integers(8))
    elif kind == 1:
        found[place : place + width] = generator.bytes(width)
    elif kind == 2:
        del found[place:]
    elif kind == 3:
        del found[place : place + width]
    elif kind == 4:
        found[place:place] = found[place : place + 8 * width]
    else:
        found[place : place + width] = bytes(width)
    return bytes(found)


def in_chunks(path: Path) -> None:
    """Read what can be read so."""
    if path.suffix in SUFFIXES:
        for part in row_stream(path, chunk_rows=8):
            list(part())


def faults(folder: Path, files: int, seed: int = 0) -> list[str]:
    """What was neither read nor refused in one line with the file's name."""
    rng = np.random.default_rng(seed)
    readers = (read_tables, lambda path: read_rows(path, "anchor"), in_chunks)
    found = []
    for name, content in contents().items():
        path = folder / name
        for number in range(files):
            path.write_bytes(mutated(content, rng))
            for reader in readers:
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        reader(path)
                except ValueError as error:
                    message = str(error)
                    if name not in message or "\n" in message or len(message) > LONGEST:
                        found.append(f"{name} {number}: {message[:200]!r}")
                except Exception as error:
                    found.append(f"{name} {number}: {type(error).__name__}: {error}"[:300])
    return found


def main() -> int:
    """Print every fault; 1 where there are some."""
    files = int(sys.argv[1]) if len(sys.argv) > 1 else FILES
    with tempfile.TemporaryDirectory() as folder:
        found = faults(Path(folder), files)
    print("\n".join(found))
    print(f"{files} files of each of {len(contents())} formats: {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
