"""Sources larger than memory: the posterior of samples of them, and a place in it for every row.

A first reading of every source gives its moments, from which the principal components follow, and
a uniform sample. The posterior is that of the samples: its intervals are as wide as theirs. A
second reading gives every row the probabilities that rows of the samples have where it lies. Memory
holds the samples and a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rbpp.checks import Check, verdict_of
from rbpp.compute import Compute
from rbpp.data.stream import CHUNK_ROWS, Part
from rbpp.files import written_whole
from rbpp.sources import findings
from rbpp.sources.assess import assess_scene
from rbpp.sources.assessment import Assessment, headline
from rbpp.sources.compare import (
    EQUIVALENT_NATS,
    EQUIVALENT_SHARE,
    compare_rows,
    name_versions,
)
from rbpp.sources.comparison import Comparison
from rbpp.sources.placement import Placement, placement_of
from rbpp.sources.samples import SAMPLE_ROWS, Sampled, common_components, sample_source
from rbpp.sources.scene import ROLES, arrange, check_roles
from rbpp.sources.shared_mixture import Engine

GIVEN = "embeddings as given"


def assess_streams(
    paths: Mapping[str, Path | str],
    *,
    rows_file: Path | str | None = None,
    embedding_field: str | None = None,
    chunk_rows: int = CHUNK_ROWS,
    sample_rows: int = SAMPLE_ROWS,
    dimension: int | None = None,
    components: int | None = None,
    engine: Engine = "cavi",
    chains: int = 4,
    draws: int = 250,
    seed: int = 0,
    compute: Compute | None = None,
) -> Assessment:
    """As `rbpp.assess`, of files of numbers that need not fit in memory.

    Args:
        paths: files by role, as `sample_source` takes them.
        rows_file: Parquet file for the table of all rows, as `Assessment.rows` has it. Rows are
            named by their places, from 1. `redundancy` is missing for sources that were sampled.
        embedding_field, chunk_rows, sample_rows: as for `sample_source`.
        dimension: principal components.
        components, engine, chains, draws: as for `rbpp.assess`.
        seed: decides every random number.
        compute: device, workers over parts of the sources and what else is independent, progress.

    Returns:
        Terms, answers and tables as of `rbpp.assess`, whose `rows` are those of the samples.

    Raises:
        ValueError: on unusable files, roles or options.

    >>> import pathlib, tempfile
    >>> place = pathlib.Path(tempfile.mkdtemp())
    >>> for role in ("target", "synthetic"):
    ...     np.save(place / f"{role}.npy", np.random.default_rng(len(role)).normal(size=(200, 3)))
    >>> files = {role: place / f"{role}.npy" for role in ("target", "synthetic")}
    >>> found = assess_streams(files, sample_rows=100, draws=20, chains=1)
    >>> found.settings["rows"], found.settings["sample_rows"]
    ({'target': 200, 'synthetic': 200}, {'target': 100, 'synthetic': 100})
    """
    compute = Compute.of(compute, seed)
    check_roles(list(paths))
    sources = {
        role: sample_source(
            paths[role],
            role,
            embedding_field=embedding_field,
            chunk_rows=chunk_rows,
            sample_rows=sample_rows,
            compute=compute,
        )
        for role in ROLES
        if role in paths
    }
    found = list(sources.values())
    scene = arrange(
        [source.rows for source in found],
        [source.summary.sample.numpy() for source in found],
        common_components(found, dimension),
        GIVEN,
    )
    assessed, (fit, shares) = assess_scene(
        scene, components=components, engine=engine, chains=chains, draws=draws, compute=compute
    )
    sizes = {role: len(source.rows) for role, source in sources.items()}
    whole = {role: source.summary.count for role, source in sources.items()}
    settings = {**assessed.settings, "sample_rows": sizes, "chunk_rows": chunk_rows}
    assessed = replace(
        assessed, settings=settings, checks=(*assessed.checks, _sampled(sizes, whole))
    )
    if rows_file is None:
        return assessed
    placement = placement_of(scene, fit, shares)
    drop = _write_rows(rows_file, sources, placement, assessed, compute)
    last = findings.which_rows(findings.task_name(scene), whole["synthetic"], *drop)
    answers = [*assessed.answers[:-1], last]
    return replace(assessed, answers=answers, headline=headline(answers))


def compare_streams(
    versions: Mapping[str, Any] | Sequence[Any],
    reference: Path | str,
    *,
    anchor: Path | str | None = None,
    embedding_field: str | None = None,
    chunk_rows: int = CHUNK_ROWS,
    sample_rows: int = SAMPLE_ROWS,
    dimension: int | None = None,
    components: int | None = None,
    chains: int = 4,
    draws: int = 250,
    equivalent_share: float = EQUIVALENT_SHARE,
    equivalent_nats: float = EQUIVALENT_NATS,
    shares: bool = True,
    hdi_prob: float = 0.94,
    seed: int = 0,
    compute: Compute | None = None,
) -> Comparison:
    """As `rbpp.compare`, of files of numbers that need not fit in memory: of samples of them.

    Args:
        versions, reference, anchor: files, as `sample_source` takes them.
        embedding_field, chunk_rows, sample_rows: as for `sample_source`.
        dimension: principal components, of all rows.
        components, chains, draws, equivalent_share, equivalent_nats, shares, hdi_prob, seed,
            compute: as for `rbpp.compare`.

    Raises:
        ValueError: on unusable files or options.
    """
    compute = Compute.of(compute, seed)
    named = name_versions(versions)
    reading: dict[str, Any] = {
        "embedding_field": embedding_field,
        "chunk_rows": chunk_rows,
        "sample_rows": sample_rows,
        "compute": compute,
    }
    real = [sample_source(reference, "target", **reading)]
    if anchor is not None:
        real.append(sample_source(anchor, "anchor", **reading))
    made = {
        name: sample_source(path, "synthetic", name=f"version {name}", **reading)
        for name, path in named.items()
    }
    found = compare_rows(
        {name: source.rows for name, source in made.items()},
        [source.rows for source in real],
        projection=common_components([*real, *made.values()], dimension),
        components=components,
        chains=chains,
        draws=draws,
        equivalent_share=equivalent_share,
        equivalent_nats=equivalent_nats,
        shares=shares,
        hdi_prob=hdi_prob,
        seed=seed,
        compute=compute,
    )
    sizes = {"reference": len(real[0].rows), **{name: len(s.rows) for name, s in made.items()}}
    return replace(found, settings={**found.settings, "sample_rows": sizes})


class _Task(NamedTuple):
    """A part of a source, and the number of its first row."""

    role: str
    part: Part
    start: int


def _write_rows(
    path: Path | str,
    sources: Mapping[str, Sampled],
    placement: Placement,
    assessed: Assessment,
    compute: Compute,
) -> tuple[int, float]:
    """Write the table of all rows; how many synthetic ones should go, and their chances' sum."""
    import pyarrow.parquet

    tasks = [task for role, source in sources.items() for task in _tasks(role, source)]
    known = {role: _known(assessed, role, source) for role, source in sources.items()}
    work = partial(_place_part, placement=placement, known=known)
    drop, total = 0, 0.0
    with written_whole(path) as aside, ExitStack() as stack:
        writer = None
        found = compute.each(work, tasks, "rows")
        for task, columns in zip(tasks, found, strict=True):
            table = _table(task, columns)
            writer = writer or stack.enter_context(
                pyarrow.parquet.ParquetWriter(aside, table.schema)
            )
            writer.write_table(table)
            if task.role == "synthetic":
                likely = columns["off_task"][columns["off_task"] > 0.5]
                drop, total = drop + len(likely), total + float(likely.sum())
    return drop, total


def _tasks(role: str, source: Sampled) -> list[_Task]:
    sizes = source.summary.parts.tolist()
    starts = [0, *np.cumsum(sizes).tolist()]
    parts = zip(source.stream, starts, sizes, strict=False)
    return [_Task(role, part, start) for part, start, size in parts if size]


def _table(task: _Task, columns: Mapping[str, np.ndarray]) -> Any:
    import pyarrow

    count = len(columns["x"])
    nothing = pyarrow.nulls(count, pyarrow.string())
    return pyarrow.table(
        {
            "source": [task.role] * count,
            "id": np.arange(task.start + 1, task.start + count + 1).astype(str),
            "group": nothing,
            **columns,
            "text": nothing,
        }
    )


def _known(assessed: Assessment, role: str, source: Sampled) -> dict[str, np.ndarray]:
    """What the assessment says of the rows of the sample, and their places."""
    own = assessed.rows[assessed.rows["source"] == role]
    names = ("off_task", "novel", "uncovered", "component", "component_probability", "x", "y")
    columns = {name: own[name].to_numpy() for name in names}
    if len(own) == source.summary.count:  # neighbours in a sample are farther than those in all
        columns["redundancy"] = own["redundancy"].to_numpy()
    return {"place": source.summary.place.numpy(), **columns}


def _place_part(
    task: _Task, *, placement: Placement, known: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Columns of numbers of a part: the unit of work of a cluster's workers."""
    parts = list(_placed(task, placement, dict(known[task.role])))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _placed(
    task: _Task, placement: Placement, known: dict[str, np.ndarray]
) -> Iterator[dict[str, np.ndarray]]:
    start, place = task.start, known.pop("place")
    for chunk in task.part():
        columns = placement(task.role, chunk.rows.numpy())
        low, high = np.searchsorted(place, [start, start + len(chunk.rows)])
        for name, value in known.items():
            columns[name][place[low:high] - start] = value[low:high]
        start += len(chunk.rows)
        yield columns


def _sampled(sizes: Mapping[str, int], whole: Mapping[str, int]) -> Check:
    """Whether the posterior is that of all rows."""
    sampled = [f"{n:,} of {whole[role]:,} {role}" for role, n in sizes.items() if n < whole[role]]
    return Check(
        "rows of the samples",
        verdict_of(None if sampled else True),
        f"the posterior is that of {', '.join(sampled)} rows, drawn uniformly: its intervals are "
        "those of the samples; other rows have the probabilities of rows of the samples at their "
        "place, and what is redundant among them is not known"
        if sampled
        else "every source is small enough: the posterior is that of all rows",
        {"rows": sum(sizes.values())},
    )
