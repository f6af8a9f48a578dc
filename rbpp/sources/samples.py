"""Uniform samples of sources larger than memory, and the moments of all their rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from rbpp.compute import Compute
from rbpp.data.moments import StreamSummary, summarise
from rbpp.data.reduce import Projection, moment_components
from rbpp.data.rows import Rows
from rbpp.data.stream import CHUNK_ROWS, Stream, row_stream, shard_files

# Rows of each source that the posterior is of. An assessment of twice as many takes some four times
# as long: neighbours are sought among all of them.
SAMPLE_ROWS = 10_000


class Sampled(NamedTuple):
    """A source: its parts, what one reading tells of it, and its sample as rows."""

    stream: Stream
    summary: StreamSummary
    rows: Rows


def sample_source(
    path: Path | str,
    role: str,
    *,
    name: str | None = None,
    embedding_field: str | None = None,
    chunk_rows: int = CHUNK_ROWS,
    sample_rows: int = SAMPLE_ROWS,
    compute: Compute,
) -> Sampled:
    """Read a source once.

    Args:
        path: a `.npy` array, a Parquet or Arrow file, a folder of these, or a saved data set.
        role: of the source.
        name: decides the sample together with the seed; by default the role.
        embedding_field: the column with a vector per row, of files that have columns.
        chunk_rows: rows in memory.
        sample_rows: most rows of the sample.
        compute: workers over parts of the source, and the seed of the sample.

    Raises:
        ValueError: naming the file, if it has no such rows, fewer than two, or rows that are all
            the same.
    """
    if embedding_field is None and any(shard.suffix != ".npy" for shard in shard_files(path)):
        raise ValueError(f"{path}: Expected an embedding field of a file with columns; got none")
    stream = row_stream(Path(path).resolve(), field=embedding_field, chunk_rows=chunk_rows)
    if not stream:
        raise ValueError(f"{path}: Expected rows for {role}; got none")
    summary = summarise(
        stream,
        sample_rows=sample_rows,
        seed=compute.spawn("rows", name or role).seed,
        mapper=compute.workers,
    )
    if summary.count < 2 or not bool((summary.covariance.diagonal() > 0).any()):
        raise ValueError(f"{path} ({role}): Expected at least 2 rows that differ; got others")
    order = summary.place.argsort()
    summary = replace(summary, sample=summary.sample[order], place=summary.place[order])
    rows = Rows(
        role,
        str(path),
        [str(place + 1) for place in summary.place.tolist()],
        embedding=summary.sample.numpy(),
        whole=summary.count,
    )
    return Sampled(stream, summary, rows)


def common_components(sources: Sequence[Sampled], dimension: int | None) -> Projection:
    """Principal components of all rows of all sources, sampled or not.

    Raises:
        ValueError: if sources differ in dimension, or there are not so many components.
    """
    for source in sources:
        widths = [len(other.summary.mean) for other in (source, sources[0])]
        if widths[0] != widths[1]:
            raise ValueError(
                f"{source.rows.origin}: Expected embeddings of dimension {widths[1]} as in "
                f"{sources[0].rows.origin}; got {widths[0]}"
            )
    summaries = [source.summary for source in sources]
    return moment_components(
        [summary.count for summary in summaries],
        [summary.mean.numpy() for summary in summaries],
        [summary.covariance.numpy() for summary in summaries],
        dimension,
    )
