"""The table of all rows as a Parquet file, also of sources of which numbers are samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rbpp.assessment.answers import Likely, headline, task_name, which_rows
from rbpp.assessment.assessment import Assessment
from rbpp.assessment.sources import Sources
from rbpp.assessment.tables import place_rows
from rbpp.compute import Compute
from rbpp.files import written_whole


def write_rows(
    path: Path | str, sources: Sources, found: Assessment, *, compute: Compute | None = None
) -> Assessment:
    """Write the table of all rows, whole or not at all.

    A second reading gives every row outside of the samples what its neighbours in the sample have.

    Args:
        path: of the file.
        sources: that were assessed.
        found: their assessment.
        compute: progress.

    Returns:
        The assessment, whose last answer counts all rows.
    """
    import pyarrow
    import pyarrow.parquet

    compute = Compute.of(compute)
    likely = Likely()
    with written_whole(path) as aside, ExitStack() as stack:
        writer = None
        for name in compute.shown(sources.names, len(sources.names), "rows"):
            for part in _parts(sources, found.rows, name):
                table = pyarrow.Table.from_pandas(_typed(part), preserve_index=False)
                writer = writer or stack.enter_context(
                    pyarrow.parquet.ParquetWriter(aside, table.schema)
                )
                writer.write_table(table.cast(writer.schema))
                if name == "synthetic":
                    likely = likely.with_more(Likely.of(part["off_task"].to_numpy(float)))
    if "synthetic" not in sources.places:
        return found
    settled = found.answers[0]["verdict"] != "unclear"
    last = which_rows(task_name(sources), likely, settled=settled)
    answers = [*found.answers[:-1], last]
    return replace(found, answers=answers, headline=headline(answers))


def _parts(sources: Sources, rows: pd.DataFrame, name: str) -> Iterator[pd.DataFrame]:
    """Lines of all rows of a source, in order."""
    sample = rows[rows["source"] == name].reset_index(drop=True)
    if name not in sources.places:
        yield sample
        return
    place = sources.places[name]
    for start, vectors in sources.chunks(name):
        low, high = np.searchsorted(place, [start, start + len(vectors)])
        columns: dict[str, Any] = place_rows(sources, name, vectors, sample)
        numbers = np.arange(start + 1, start + len(vectors) + 1).astype(str)
        part = pd.DataFrame(
            {column: columns.get(column) for column in sample.columns},
            index=range(len(vectors)),
        )
        part["source"], part["id"] = name, numbers
        inside = place[low:high] - start
        own = sample.iloc[low:high]
        for column in sample.columns:
            # Neighbours in a sample are further than those among all rows.
            if column != "redundancy":
                values = np.array(part[column], dtype=object)
                values[inside] = own[column].to_numpy(object)
                part[column] = values
        yield part


def _typed(rows: pd.DataFrame) -> pd.DataFrame:
    words = {"source", "id", "group", "copy", "copy_of", "suggested_label", "text"}
    kinds: dict[str, Any] = {
        name: "string" if name in words else float for name in rows.columns if name != "component"
    }
    return rows.astype({**kinds, "component": int})
