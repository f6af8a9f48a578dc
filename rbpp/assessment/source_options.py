"""Options of the programs that read the rows of several sources: assess and compare."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbpp.options import positive_integer

if TYPE_CHECKING:
    from rbpp.assessment.sources import Fields, Representation, Sampling
    from rbpp.data.rows import Reading


def add_fields(parser: argparse.ArgumentParser) -> None:
    """What to read of every file; for `rbpp assess` and `rbpp compare`."""
    fields = parser.add_argument_group("what to read of them")
    fields.add_argument(
        "--text-field",
        metavar="F",
        action="append",
        default=[],
        help="a text field, a path a.0.b, alternatives a|b, or turns of chat records: messages, "
        "messages.user, messages.-1; several are joined in order",
    )
    fields.add_argument("--embedding-field", metavar="F", help="a field with a vector per row")
    add_reading(fields)
    fields.add_argument("--id-field", metavar="F", help="distinct ids (id, where there is one)")
    fields.add_argument(
        "--group-field",
        metavar="F",
        help="generated rows with equal values, as of one prompt, are not independent",
    )
    fields.add_argument("--label-field", metavar="F", help="a class of every row")
    fields.add_argument(
        "--embedding-model",
        metavar="PATH_OR_NAME",
        help="of text: wordllama, tfidf, or a model2vec or sentence-transformers model (wordllama)",
    )
    fields.add_argument(
        "--cache", metavar="DIR", type=Path, help="of embeddings (~/.cache/rbpp/embeddings)"
    )


def add_reading(parser: argparse._ActionsContainer, standardise: str = "auto") -> None:
    """Which columns of a table, and which split: a `rbpp.data.rows.Reading`."""
    add_columns(parser)
    parser.add_argument("--split", metavar="NAME", help="which of several splits of a data set")
    parser.add_argument(
        "--standardise",
        choices=["auto", "yes", "no"],
        default=standardise,
        help="columns of a table over their standard deviation; auto: where the largest is above "
        f"ten times the smallest ({standardise})",
    )


def add_columns(parser: argparse._ActionsContainer) -> None:
    """Which columns of a table."""
    parser.add_argument(
        "--columns",
        metavar="A,B",
        type=names,
        action="extend",
        default=[],
        help="the columns of a table that are measurements",
    )
    parser.add_argument(
        "--ignore",
        metavar="A,B",
        type=names,
        action="extend",
        default=[],
        help="columns that are left out, such as an index, ids or a label",
    )


def names(text: str) -> list[str]:
    """Names between commas.

    >>> names("id, split")
    ['id', 'split']
    """
    found = [name.strip() for name in text.split(",")]
    if not all(found):
        raise argparse.ArgumentTypeError(f"Expected names between commas; got {text!r}")
    return found


def reading(arguments: argparse.Namespace, *, numbers_only: bool = False) -> Reading:
    """What the options of `add_reading` say."""
    from rbpp.data.rows import Reading

    return Reading(
        columns=tuple(arguments.columns),
        ignore=tuple(arguments.ignore),
        split=arguments.split,
        standardise=arguments.standardise,
        numbers_only=numbers_only,
    )


def add_fits(parser: argparse.ArgumentParser) -> None:
    """Size and length of the fits; for `rbpp assess` and `rbpp compare`."""
    parser.add_argument(
        "--dimension", type=int, metavar="D", help="principal components; min(rows, 32)"
    )
    parser.add_argument(
        "--components", type=int, metavar="K", help="of the mixture of all rows; rows / 40, 4 to 20"
    )
    parser.add_argument("--chains", type=int, default=4, metavar="C", help="of the result (4)")
    parser.add_argument("--draws", type=int, default=250, metavar="N", help="per chain (250)")


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
    large.add_argument(
        "--chunk-rows", type=positive_integer, metavar="N", help="rows in memory (50000)"
    )
    large.add_argument(
        "--sample-rows", type=positive_integer, metavar="N", help="of each source (4000)"
    )


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
