"""Which files a folder or a pattern stands for: one set of rows, never two that are held apart."""

from __future__ import annotations

import glob
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rbpp.data import columnar
from rbpp.data.source_files import check_regular, guarded, open_source, refuse
from rbpp.data.table import Table

# What stands beside the shards in folders that other programs write.
_NOT_SHARDS = {".md", ".crc", ".lock", ".yaml", ".yml", ""}
# Words of a file's name that say which split it holds, and columns that say so of a row.
_SPLITS = set(
    "train training trainset trn test testing testset tst validation valid val dev development "
    "eval evaluation holdout heldout".split()
)
_SPLIT_COLUMNS = {"split", "subset", "partition", "set"}
_TRUTHS = {"true", "false", "yes", "no", "0", "1"}
# Parts of words by which files are splits where they differ in nothing else, as mytrain and mytest.
_SPLIT_PARTS = re.compile(
    "train(?:ing)?|test(?:ing)?|valid(?:ation)?|holdout|dev|eval|tr|te|val|ts"
)
# What distilabel saves beside the steps of a pipeline.
_BESIDE = {"artifacts", "distiset_configs"}
# Files that describe a data set, beside it.
_DESCRIPTIONS = {"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json"}
# Bytes of each of three parts by which a copy of a file is known.
_PART = 2**16
_PATTERN = re.compile(r"[*?\[]")


class Found(NamedTuple):
    """Shards of one data set, and the folder whose subfolders NAME=VALUE hold them, if so."""

    files: Sequence[Path]
    partitioned: Path | None = None


def is_pattern(text: str) -> bool:
    """Whether a path is a pattern such as `part-*.jsonl`, and no file of that name exists."""
    return _PATTERN.search(text) is not None and not Path(text).exists()


def of_pattern(text: str, split: str | None = None) -> list[Path]:
    """The files that a pattern stands for.

    Raises:
        ValueError: if there are none, or of several splits.
    """
    with guarded(text, "a pattern of files"):
        files = sorted(Path(name) for name in glob.glob(text, recursive=True))
    files = [path for path in files if path.is_file()]
    if not files:
        refuse(text, "a pattern that some files have", "none")
    return _of_split(text, files, split)


def of_folder(folder: Path, split: str | None = None) -> Found:
    """The files of one data set in a folder.

    A folder of shards, of Parquet or Arrow files in folders NAME=VALUE, what `datasets` saves, or
    what distilabel saves, where it is of one step.

    Args:
        folder: the folder.
        split: which of several splits, such as `"train"`.

    Raises:
        ValueError: naming the splits or folders of which one must be given.
    """
    with guarded(folder, "a folder that can be read"):
        if (folder / "dataset_dict.json").exists():
            folder = _of_dictionary(folder, split)
            split = None
        if (folder / "state.json").exists():
            return Found(_saved_files(folder))
        entries = sorted(folder.iterdir())
        shards = [
            path
            for path in entries
            if path.name[0] not in "._"
            and path.suffix.lower() not in _NOT_SHARDS
            and path.name not in _DESCRIPTIONS
            and not path.is_dir()
        ]
        partitions = [
            path
            for path in sorted(folder.rglob("*=*/*"))
            if path.suffix.lower() in columnar.SUFFIXES
        ]
        if shards and partitions:
            refuse(
                folder,
                "data files in it or in folders NAME=VALUE",
                f"both: {shards[0].name} and {partitions[0].relative_to(folder)}",
            )
        if partitions:
            return Found(partitions, folder)
        if shards:
            return Found(_of_split(folder, shards, split))
        return _inner(folder, [path for path in entries if path.is_dir()], split)


def chosen_split(place: object, splits: Sequence[str], split: str | None, which: str = "") -> str:
    """The split that is asked for, or the only one.

    Args:
        place: what has them.
        splits: their names.
        split: the one that is asked for; None asks for none.
        which: what to do where there are several and none is asked for, behind their names.

    Raises:
        ValueError: if there are several, or not the one that is asked for.
    """
    names = ", ".join(splits)
    if split is None and len(splits) > 1:
        refuse(place, "one data set", f"the splits {names}{which}")
    if split is not None and split not in splits:
        refuse(place, f"one of the splits {names}", split)
    return splits[0] if split is None else split


def _of_dictionary(folder: Path, split: str | None) -> Path:
    splits = _described(folder / "dataset_dict.json", "splits")
    if not splits or not all(_is_plain(name) for name in splits):
        refuse(folder / "dataset_dict.json", "the names of splits", "others or none")
    which = f": give {folder / splits[0]} or another of them, or split={splits[0]!r}"
    place = folder / chosen_split(folder, splits, split, which)
    if not place.exists():
        refuse(place, "a file or folder", "no such path")
    if (place / "dataset_dict.json").exists():
        refuse(place, "a data set", "a folder of splits")
    return place


def _saved_files(folder: Path) -> list[Path]:
    """The Arrow files of a data set as `datasets` saves it."""
    state = folder / "state.json"
    if _described(state, "_indices_data_files"):
        refuse(folder, "a data set saved with flatten_indices()", "one with an index")
    files = _described(state, "_data_files")
    names = [entry.get("filename") if isinstance(entry, dict) else None for entry in files]
    if not names or not all(_is_plain(name) for name in names):
        refuse(state, "the names of data files", "others or none")
    if len(set(names)) < len(names):
        refuse(state, "distinct names of data files", "one twice")
    return [folder / str(name) for name in names]


def _is_plain(name: Any) -> bool:
    """Whether it names something in the folder itself, and nothing outside."""
    return (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and not any(letter in name for letter in "/\\\0")
    )


def _described(path: Path, name: str) -> list[Any]:
    """A list in one of the files that describe a data set on disk, empty where there is none."""
    check_regular(path)
    with guarded(path, "JSON (is the file cut?)"):
        content = json.loads(open_source(path).read().decode("utf-8"))
    found = content.get(name) if isinstance(content, dict) else None
    return found if isinstance(found, list) else []


def _of_split(place: object, files: Sequence[Path], split: str | None) -> list[Path]:
    """Shards of one split: rows that are held out never stand among the others by accident."""
    splits: dict[str, list[Path]] = {}
    for path in files:
        splits.setdefault(_split_of(path), []).append(path)
    if len(splits) == 1:
        splits = _alike_but_for_a_part(files) or splits
    named = [name for name in splits if name]
    if split is not None:
        if split not in named:
            refuse(place, f"one of the splits {', '.join(named) or '(none)'}", split)
        return splits[split]
    if named and len(splits) > 1:
        others = f" and {splits[''][0].name}" if "" in splits else ""
        refuse(
            place,
            "one data set",
            f"the splits {', '.join(named)}{others}: choose one with split={named[0]!r}, or give "
            "its files",
        )
    _refuse_twice(place, files)
    return list(files)


def _split_of(path: Path) -> str:
    """The split that a file holds by its name or its folder's; empty where neither says so."""
    name = path.name.lower().replace("held-out", "heldout").replace("held_out", "heldout")
    words = [word for word in re.split(r"[^a-z]+", name) if word in _SPLITS]
    folder = path.parent.name.lower()
    return words[-1] if words else folder if folder in _SPLITS else ""


def _alike_but_for_a_part(files: Sequence[Path]) -> dict[str, list[Path]] | None:
    """Files by the word of a split inside their names, where that is all that tells two apart."""
    found: dict[tuple[str, str], list[Path]] = {}
    for path in files:
        stem = re.sub(r"\d+", "", path.name.lower().partition(".")[0])
        for part in _SPLIT_PARTS.finditer(stem):
            rest = f"{stem[: part.start()]}*{stem[part.end() :]}"
            found.setdefault((rest, part[0]), []).append(path)
    rests = [rest for rest, _ in found]
    again = next((rest for rest in rests if rests.count(rest) > 1), None)
    if again is None:
        return None
    return {part: paths for (rest, part), paths in found.items() if rest == again}


def _refuse_twice(place: object, files: Sequence[Path]) -> None:
    """Refuse rows that stand there twice: in two formats, or in a copy of a file."""
    seen: dict[Any, Path] = {}
    sizes = Counter(path.stat().st_size for path in files)
    for path in files:
        size = path.stat().st_size
        marks: list[Any] = [(path.parent, path.name.partition(".")[0])]
        if size and sizes[size] > 1 and path.is_file():
            marks.append((size, *_parts(path, size)))
        for mark in marks:
            before = seen.setdefault(mark, path)
            numbered = len(mark) == 2 and before.suffix == path.suffix  # part.0.csv and part.1.csv
            if before is not path and not numbered:
                got = f"{before.name} and {path.name}: give one of them"
                refuse(place, "every row once", got)


def _parts(path: Path, size: int) -> list[bytes]:
    """Of a file the start, the middle and the end: files that differ do so in one of them."""
    found = []
    with path.open("rb") as stream:
        for start in (0, size // 2, max(size - _PART, 0)):
            stream.seek(start)
            found.append(stream.read(_PART))
    return found


def of_split(tables: Sequence[Table], split: str | None) -> list[Table]:
    """The rows of one split of tables that have a column which says the split of every row.

    Raises:
        ValueError: if they have several splits, of which none is chosen, or not the one that is.
    """
    for name in tables[0].columns:
        values = [table.columns.get(name, [None]) for table in tables]
        found = _splits_in(name, values)
        if len(found) > 1 or (found and name.lower() in _SPLIT_COLUMNS):
            break
    else:
        return list(tables)
    which = (
        f" in the field {name!r}: choose one with split={found[0]!r}, or read all with "
        f"ignore={name!r}"
    )
    chosen_split(tables[0].origin, found, split, which)
    kept = [
        [place for place, value in enumerate(column) if split in (None, str(value))]
        for column in values
    ]
    return [
        replace(
            table,
            columns={
                field: [column[place] for place in places]
                for field, column in table.columns.items()
                if field != name
            },
            numbers=[table.numbers[place] for place in places],
        )
        for table, places in zip(tables, kept, strict=True)
        if places
    ]


def _splits_in(name: str, values: Sequence[Iterable[Any]]) -> list[str]:
    """The splits that a column names, or tells apart by yes and no; none where it does neither."""
    found: dict[str, Any] = {}
    for column in values:
        for value in column:
            found.setdefault(str(value), value)
            if len(found) > len(_SPLITS):
                return []
    if all(value.lower() in _SPLITS for value in found):
        return list(found)
    asked = bool(_SPLITS & set(re.split(r"[^a-z]+", name.lower())))
    truths = all(
        isinstance(value, bool) or str(value).lower() in _TRUTHS for value in found.values()
    )
    return list(found) if asked and truths else []


def _inner(folder: Path, inner: Sequence[Path], split: str | None) -> Found:
    """A folder without data files of its own: a repository, or the steps of a pipeline."""
    shown = [path for path in inner if path.name[0] not in "._"]
    saved = [
        path.name
        for path in shown
        if (path / "dataset_dict.json").exists() or (path / "state.json").exists()
    ]
    holding = [
        path.name
        for path in shown
        if path.name in saved
        or any(entry.suffix.lower() not in _NOT_SHARDS for entry in path.iterdir())
    ]
    if split is not None and split in holding:
        return of_folder(folder / split)
    if len(saved) == 1 and set(holding) - {*saved} <= _BESIDE:
        place = folder / saved[0]
        if place.resolve() != folder.resolve():
            return of_folder(place, split)
    if holding:
        which = "the folder" if len(holding) == 1 else "the folders"
        got = f"{which} {', '.join(holding[:6])}: give {folder.name}/{holding[0]}"
        refuse(folder, "a folder with data files", got)
    refuse(folder, "a folder with data files", "none")
