"""Files and Python objects to tables of named columns, losing nothing on the way.

A file is read whole or refused: whatever cannot be read, is cut short or has no place in a table
ends in one line that names the file and the row.
"""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow.dataset

# A row of text or of numbers is far smaller; a longer line is a file without line breaks or a
# broken one, and reading it whole would take the machine's memory before any error.
LONGEST_LINE = 2**26
LARGEST_JSON = 2**31

_COLUMNAR = {".parquet", ".arrow", ".feather"}
# What stands beside the shards in folders that other programs write.
_NOT_SHARDS = {".md", ".crc", ".lock", ""}


@dataclass(frozen=True)
class Table:
    """Columns of equal length, with the place every row came from.

    Attributes:
        origin: the file, or a description of the Python object.
        columns: values by field name; `None` where a row has no such field.
        numbers: the number of every row in its file, counted from 1.
        unit: what the numbers count, `"row"` or `"line"`.
    """

    origin: str
    columns: Mapping[str, Sequence[Any] | np.ndarray]
    numbers: Sequence[int]
    unit: str = "row"

    def __len__(self) -> int:
        return len(self.numbers)

    def place(self, index: int) -> str:
        """Where row `index` (from 0) stands, for error messages."""
        return f"{self.origin}, {self.unit} {self.numbers[index]}"


def read_tables(data: Any) -> list[Table]:
    """Tables of a file, a folder of shards, or a Python object.

    Args:
        data: a path to `.json`, `.jsonl`, `.csv`, `.tsv`, `.txt`, `.parquet`, `.arrow`,
            `.feather`, `.npy`, `.npz`, to a folder of those, to Parquet or Arrow files in folders
            NAME=VALUE, or to a `datasets` dataset on disk; or an array, a tensor, a data frame, a
            `datasets.Dataset`, a list of texts, of records or of vectors.

    Raises:
        ValueError: naming the file and the row that cannot be read.

    >>> read_tables(["first", "second"])[0].columns
    {'text': ['first', 'second']}
    """
    if isinstance(data, str | Path):
        return _read_path(Path(data))
    return [_from_object(data)]


def _read_path(path: Path) -> list[Table]:
    if not path.exists():
        raise ValueError(f"{path}: Expected a file or folder; got no such path")
    if path.is_dir():
        return _read_folder(path)
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        known = ", ".join(_READERS)
        raise ValueError(f"{path}: Expected a file of {known}; got {suffix or 'no suffix'}")
    try:
        return [_READERS[suffix](path)]
    except OSError as error:
        raise ValueError(f"{path}: Expected a readable file; got {error}") from error


def _read_folder(folder: Path) -> list[Table]:
    if (folder / "dataset_dict.json").exists():
        splits = _described(folder / "dataset_dict.json", "splits")
        if len(splits) != 1:
            raise ValueError(
                f"{folder}: Expected one data set; got the splits {', '.join(splits)}: "
                f"give {folder / splits[0] if splits else folder} or another of them"
            )
        return _read_path(folder / splits[0])
    if (folder / "state.json").exists() and (folder / "dataset_info.json").exists():
        if _described(folder / "state.json", "_indices_data_files"):
            raise ValueError(f"{folder}: Expected a data set saved with flatten_indices()")
        files = _described(folder / "state.json", "_data_files")
        if not files or not all(isinstance(entry, dict) and "filename" in entry for entry in files):
            raise ValueError(f"{folder / 'state.json'}: Expected the names of data files; got none")
        return [_read_columns(folder / entry["filename"]) for entry in files]
    shards = sorted(
        path
        for path in folder.iterdir()
        if path.name[0] not in "._" and path.suffix.lower() not in _NOT_SHARDS and path.is_file()
    )
    partitions = [
        path for path in sorted(folder.rglob("*=*/*")) if path.suffix.lower() in _COLUMNAR
    ]
    if shards and partitions:
        raise ValueError(
            f"{folder}: Expected data files in it or in folders NAME=VALUE; got both: "
            f"{shards[0].name} and {partitions[0].relative_to(folder)}"
        )
    if partitions:
        return _read_partitions(folder, partitions)
    if not shards:
        raise ValueError(f"{folder}: Expected a folder with data files; got none")
    return [table for shard in shards for table in _read_path(shard)]


def _described(path: Path, name: str) -> list[Any]:
    """A list in one of the files that describe a data set on disk, empty where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: Expected JSON; got {error} (is the file cut?)") from error
    found = content.get(name) if isinstance(content, dict) else None
    return found if isinstance(found, list) else []


def _read_json(path: Path) -> Table:
    size = path.stat().st_size
    if size > LARGEST_JSON:
        raise ValueError(
            f"{path}: Expected at most {LARGEST_JSON} bytes of JSON; got {size}: "
            "write one object a line (.jsonl) or Parquet"
        )
    try:
        text = path.read_bytes().decode("utf-8-sig")
        content = json.loads(text)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: Expected UTF-8; got {error}") from error
    except json.JSONDecodeError as error:
        # A text that never ends is reported where it starts.
        early = error.msg.startswith("Unterminated") or error.pos >= len(text) - 2
        cut = " (the file ends early: is it cut?)" if early else ""
        raise ValueError(
            f"{path}, line {error.lineno}: Expected JSON; got {_json_fault(error)}{cut}"
        ) from error
    except (ValueError, RecursionError) as error:  # a number of too many digits, nested too deep
        raise ValueError(f"{path}: Expected JSON; got {_first_line(error)}") from error
    if isinstance(content, dict):
        rows = [value for value in content.values() if isinstance(value, list)]
        if len(content) == 1 and rows:
            content = rows[0]
        elif len(rows) == len(content) and len({len(column) for column in rows}) == 1:
            return Table(str(path), content, range(1, len(rows[0]) + 1))
    if not isinstance(content, list):
        got = "an object" if isinstance(content, dict) else f"{content!r:.40}"
        raise ValueError(f"{path}: Expected a list of rows, or columns of equal length; got {got}")
    return _from_rows(content, str(path), range(1, len(content) + 1), "row")


def _read_json_lines(path: Path) -> Table:
    rows: list[Any] = []
    numbers: list[int] = []
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            cut = "" if line.endswith("\n") else " (the last line: is the file cut?)"
            raise ValueError(
                f"{path}, line {number}: Expected one JSON value; got {_json_fault(error)}{cut}"
            ) from error
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{path}, line {number}: Expected one JSON value; got {_first_line(error)}"
            ) from error
        numbers.append(number)
    return _from_rows(rows, str(path), numbers, "line")


def _read_csv(path: Path) -> Table:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.reader((line for _, line in _lines(path)), delimiter=delimiter, strict=True)
    previous = csv.field_size_limit(LONGEST_LINE)
    rows: list[list[str]] = []
    numbers: list[int] = []
    header: list[str] = []
    try:
        for row in reader:
            if not header:
                header = row
            elif len(row) == len(header):
                rows.append(row)
                numbers.append(reader.line_num)
            elif row:
                raise ValueError(
                    f"{path}, line {reader.line_num}: Expected {len(header)} fields as in the "
                    f"header; got {len(row)}"
                )
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {reader.line_num}: Expected CSV; got {error} (is the file cut?)"
        ) from error
    finally:
        csv.field_size_limit(previous)
    _refuse_repeated(header, f"{path}: Expected distinct fields in the header")
    columns = {name: [row[place] for row in rows] for place, name in enumerate(header)}
    return Table(str(path), columns, numbers, "line")


def _read_text(path: Path) -> Table:
    lines = [(number, line.rstrip("\r\n")) for number, line in _lines(path)]
    kept = [(number, line) for number, line in lines if line.strip()]
    return Table(
        str(path), {"text": [line for _, line in kept]}, [number for number, _ in kept], "line"
    )


def open_dataset(path: Path) -> pyarrow.dataset.Dataset:
    """The rows of a Parquet, Arrow or Feather file, of which nothing is read yet.

    `to_table` reads it whole, `to_batches` in parts, both with only the columns that are named.
    Arrow streams, which `datasets` saves, are mapped into memory, and read where they are used.

    Raises:
        ValueError: naming the file, if it is none of these.
    """
    import pyarrow
    import pyarrow.dataset

    parquet = path.suffix.lower() == ".parquet"
    try:
        try:
            return pyarrow.dataset.dataset(path, format="parquet" if parquet else "ipc")
        except pyarrow.ArrowInvalid:
            if parquet:
                raise
            with pyarrow.memory_map(str(path)) as source:
                return pyarrow.dataset.dataset(pyarrow.ipc.open_stream(source).read_all())
    except (pyarrow.ArrowException, OSError) as error:
        kind = "a Parquet" if parquet else "an Arrow"
        raise ValueError(f"{path}: Expected {kind} file; got {_first_line(error)}") from error


def _read_columns(path: Path) -> Table:
    import pyarrow

    dataset = open_dataset(path)
    try:
        return _from_arrow(dataset.to_table(), str(path))
    except (pyarrow.ArrowException, OSError) as error:  # its end is whole, its middle is not
        raise ValueError(f"{path}: Expected a whole file; got {_first_line(error)}") from error


def _read_partitions(folder: Path, shards: Sequence[Path]) -> list[Table]:
    """Shards in folders NAME=VALUE, as Spark and others write them: each NAME is a column."""
    import pyarrow
    import pyarrow.dataset

    kinds = {"parquet" if shard.suffix.lower() == ".parquet" else "ipc" for shard in shards}
    if len(kinds) > 1:
        raise ValueError(f"{folder}: Expected files of one format; got Parquet and Arrow")
    tables = []
    try:
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
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{folder}: Expected whole files; got {_first_line(error)}") from error
    return tables


def _read_array(path: Path) -> Table:
    try:
        with path.open("rb") as source:  # NumPy leaves open what it refuses
            content = np.load(source, allow_pickle=False)
            arrays = {"embedding": content} if isinstance(content, np.ndarray) else dict(content)
    except (ValueError, EOFError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: Expected NumPy arrays; got {_first_line(error)}") from error
    lengths = {name: len(array) for name, array in arrays.items() if array.ndim}
    if len(set(lengths.values())) != 1 or len(lengths) != len(arrays):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"{path}: Expected arrays with one first axis, the rows; got {shapes}")
    return Table(str(path), dict(arrays), range(1, next(iter(lengths.values())) + 1))


def _from_object(data: Any) -> Table:
    kind = f"<{type(data).__name__}>"
    if isinstance(data, Table):
        return data
    if hasattr(data, "detach") and hasattr(data, "cpu"):  # a tensor, wherever it lives
        data = data.detach().cpu()
        # NumPy has no bfloat16, which float32 holds without loss.
        data = (data.float() if "bfloat16" in str(data.dtype) else data).numpy()
    if np.ma.is_masked(data):
        raise ValueError(f"{kind}: Expected rows without masked values; got some")
    if isinstance(data, np.ndarray):
        if data.ndim == 0:
            raise ValueError(f"{kind}: Expected rows; got a single number")
        name = "text" if data.dtype.kind in "UT" else "embedding"
        return Table(kind, {name: data.tolist() if name == "text" else data}, _count(data))
    if hasattr(data, "column_names") and hasattr(data, "to_list"):  # datasets.Dataset
        return _from_rows(data.to_list(), kind, range(1, len(data) + 1), "row")
    if hasattr(data, "columns") and hasattr(data, "to_dict"):  # a data frame
        _refuse_repeated([str(name) for name in data.columns], f"{kind}: Expected distinct fields")
        columns = {str(name): data[name].to_list() for name in data.columns}
        return Table(kind, columns, range(1, len(data) + 1))
    if isinstance(data, list | tuple):
        return _from_rows(list(data), kind, _count(data), "row")
    raise ValueError(
        f"Expected a path, array, tensor, data frame, data set or list of rows; got {kind}"
    )


def _from_rows(rows: list[Any], origin: str, numbers: Sequence[int], unit: str) -> Table:
    """Columns of rows that are all records, all texts, or all vectors."""
    kinds = [_kind(row) for row in rows]
    for index, kind in enumerate(kinds):
        if kind is None or kind != kinds[0]:
            expected = kinds[0] or "a record, a text or a vector"
            raise ValueError(
                f"{origin}, {unit} {numbers[index]}: Expected {expected}; "
                f"got {kind or type(rows[index]).__name__}"
            )
    if not rows:
        return Table(origin, {}, [], unit)
    if kinds[0] == "a text":
        return Table(origin, {"text": rows}, numbers, unit)
    if kinds[0] == "a vector":
        return Table(origin, {"embedding": rows}, numbers, unit)
    fields = list(dict.fromkeys(str(field) for row in rows for field in row))
    columns = {field: [row.get(field) for row in rows] for field in fields}
    return Table(origin, columns, numbers, unit)


def _kind(row: Any) -> str | None:
    if isinstance(row, dict):
        return "a record"
    if isinstance(row, str):
        return "a text"
    if isinstance(row, list | tuple | np.ndarray):
        return "a vector"
    return None


def _from_arrow(content: Any, origin: str) -> Table:
    _refuse_repeated(content.column_names, f"{origin}: Expected distinct fields")
    columns = {
        name: content.column(place).to_pylist() for place, name in enumerate(content.column_names)
    }
    return Table(origin, columns, range(1, content.num_rows + 1))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Decoded lines with their numbers; refuses one that is too long before reading it whole."""
    with path.open("rb") as source:
        number = 0
        while line := source.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                raise ValueError(
                    f"{path}, line {number}: Expected at most {LONGEST_LINE} bytes; got more"
                )
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}, line {number}: Expected UTF-8; got {error.reason} at byte "
                    f"{error.start}"
                ) from error
            yield number, text


def _count(rows: Any) -> range:
    return range(1, len(rows) + 1)


def _refuse_repeated(names: Sequence[str], expected: str) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{expected}; got {repeated[0]} twice")


def _json_fault(error: json.JSONDecodeError) -> str:
    return f"{error.msg.removesuffix(' starting at')} at column {error.colno}"


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


_READERS: dict[str, Callable[[Path], Table]] = {
    ".json": _read_json,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".txt": _read_text,
    ".parquet": _read_columns,
    ".arrow": _read_columns,
    ".feather": _read_columns,
    ".npy": _read_array,
    ".npz": _read_array,
}
