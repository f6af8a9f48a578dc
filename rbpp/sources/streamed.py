"""Comparisons of sources larger than memory, of samples of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rbpp.compute import Compute
from rbpp.data.stream import CHUNK_ROWS
from rbpp.sources.compare import (
    EQUIVALENT_NATS,
    EQUIVALENT_SHARE,
    compare_rows,
    name_versions,
)
from rbpp.sources.comparison import Comparison
from rbpp.sources.samples import SAMPLE_ROWS, common_components, sample_source


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
