"""Options of the programs that read the rows of several sources: assess and compare."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rbpp import options

if TYPE_CHECKING:
    from rbpp.assessment.sources import Fields, Representation, Sampling
    from rbpp.data.rows import Reading


def add_fields(parser: argparse.ArgumentParser) -> None:
    """What to read of every file; for `rbpp assess` and `rbpp compare`."""
    options.add(
        parser.add_argument_group("what to read of them"),
        *("--text-field", "--embedding-field", "--columns", "--ignore", "--split"),
        *("--standardise", "--id-field", "--group-field", "--label-field", "--embedding-model"),
        "--cache",
    )


def reading(arguments: argparse.Namespace, *, numbers_only: bool = False) -> Reading:
    """What the options of columns, split and standardisation say."""
    from rbpp.data.rows import Reading

    return Reading(
        columns=tuple(arguments.columns),
        ignore=tuple(arguments.ignore),
        split=arguments.split,
        standardise=arguments.standardise,
        numbers_only=numbers_only,
    )


def add_stream(parser: argparse.ArgumentParser) -> None:
    """Sources larger than memory; for `rbpp assess` and `rbpp compare`."""
    large = parser.add_argument_group(
        "sources larger than memory: numbers in .npy, Parquet and Arrow files or folders of them"
    )
    large.add_argument(
        "--stream",
        action="store_true",
        help="a posterior of samples, all rows read in chunks (by itself from 1 GiB on)",
    )
    options.add(large, "--chunk-rows", "--sample-rows")


def streams(arguments: argparse.Namespace, paths: Sequence[Any]) -> bool:
    """Whether the sources are streamed: asked for, or better for the size of one of them.

    Raises:
        ValueError: if it is asked for with an option that needs all rows in memory, or the other
            way round.
    """
    from rbpp.data.stream import is_large, shard_files

    against = [
        f"--{name.replace('_', '-')}"
        for name in _IN_MEMORY
        if getattr(arguments, name, None) not in (None, False, [])
    ]
    if arguments.stream and against:
        raise ValueError(f"--stream: expected vectors alone; got {against[0]}")
    if arguments.stream:
        return True
    for name in ("chunk_rows", "sample_rows"):
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')}: expected --stream with it; got none")
    if against or not any(is_large(path) for path in paths):
        return False
    try:
        shards = [shard for path in paths for shard in shard_files(path)]
    except (ValueError, OSError):  # one of them is of a kind that is read whole
        return False
    return arguments.embedding_field is not None or all(s.suffix == ".npy" for s in shards)


_IN_MEMORY = (
    "text_field",
    "embedding_model",
    "id_field",
    "group_field",
    "columns",
    "ignore",
    "split",
    "prompt_field",
    "output_field",
    "label_field",
    "generator_field",
    "demo",
)


def read_groups(
    arguments: argparse.Namespace, *, streamed: bool
) -> tuple[Fields, Representation, Sampling | None]:
    """What to read of the files, how rows become numbers, and how streams are sampled."""
    from rbpp.assessment.sources import Fields, Representation, Sampling
    from rbpp.data.stream import CHUNK_ROWS

    fields = Fields(
        text=[name for field in arguments.text_field for name in field.split(",")],
        embedding=arguments.embedding_field,
        id=arguments.id_field,
        group=arguments.group_field,
        label=arguments.label_field,
        prompt=getattr(arguments, "prompt_field", None),
        output=getattr(arguments, "output_field", None),
        generator=getattr(arguments, "generator_field", None),
        reading=reading(arguments),
    )
    representation = Representation(
        model=arguments.embedding_model, dimension=arguments.dimension, cache=arguments.cache
    )
    if not streamed:
        return fields, representation, None
    chunk, sample = arguments.chunk_rows or CHUNK_ROWS, arguments.sample_rows
    sampling = Sampling(chunk) if sample is None else Sampling(chunk, sample)
    return fields, representation, sampling
