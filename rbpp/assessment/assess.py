"""The main job: what synthetic data adds, how faithful it is, what is off-task, what it misses.

Sources are read, embedded and projected once (`rbpp.assessment.sources`), whole or as samples.
Shares come from scores of rows against the task's own, style taken away
(`rbpp.assessment.off_task`), divergences and entropies from cross-fitted mixtures
(`rbpp.assessment.log_ratio`), bounds from a mixture as the learner.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rbpp import inference_data
from rbpp.assessment.answers import answers, headline
from rbpp.assessment.assessment import Assessment
from rbpp.assessment.density_terms import Densities, find_densities
from rbpp.assessment.learned_terms import Learned, Variation, learned_terms
from rbpp.assessment.marks import read_marks
from rbpp.assessment.paired_terms import paired_terms
from rbpp.assessment.share_terms import Shares, find_shares
from rbpp.assessment.source_checks import reference_check, share_checks, source_checks
from rbpp.assessment.sources import Fields, Representation, Sampling, Sources, read_sources
from rbpp.assessment.tables import AXES, component_table, find_components, find_labels, row_table
from rbpp.assessment.weighted_rows import Draws, interval
from rbpp.checks import Check
from rbpp.compute import Compute
from rbpp.estimate import exactly

__all__ = ["Assessment", "assess", "assess_sources"]


def assess(
    anchor: Any = None,
    synthetic: Any = None,
    *,
    target: Any = None,
    output: Any = None,
    unprompted: Any = None,
    fields: Fields | None = None,
    representation: Representation | None = None,
    sampling: Sampling | None = None,
    marks: Mapping[int, bool] | Path | str | None = None,
    components: int | None = None,
    chains: int = 4,
    draws: int = 250,
    seed: int = 0,
    compute: Compute | None = None,
) -> Assessment:
    """Assess synthetic data against the real rows it was made from and for.

    Args:
        anchor: real rows that the generation started from: a file, a folder, or a Python object
            (see `rbpp.data.read.read_tables`).
        synthetic: the generated rows, curated if they were.
        target: held-out real rows of the task. Without them the anchors stand in, and what is
            novel cannot be told from what is irrelevant.
        output: what the generator gave before curation.
        unprompted: what it gives without the prompt.
        fields: which fields of the files are read.
        representation: the embedding model of text, the number of principal components.
        sampling: read files of numbers in chunks, and take the numbers of samples.
        marks: synthetic row, counted from 0, to whether it is off the task; or a filled sheet that
            `Assessment.ask` wrote.
        components: of the mixture of all rows that the map and `effective_components` show; one per
            40 rows, 4 to 20, by default.
        chains, draws: of the result. Draws are independent: chains part them.
        seed: decides every random number.
        compute: device of an embedding model, workers over shards of text, progress.

    Raises:
        ValueError: naming the source, file, row and field of bad input.
    """
    compute = Compute.of(compute, seed)
    given = {
        "anchor": anchor,
        "target": target,
        "output": output,
        "unprompted": unprompted,
        "synthetic": synthetic,
    }
    return assess_sources(
        read_sources(checked_roles(given), fields, representation, sampling, compute),
        representation,
        Draws.per_chain(chains, draws, seed),
        marks,
        components,
        compute,
    )


def assess_sources(
    sources: Sources,
    representation: Representation | None = None,
    draws: Draws | None = None,
    marks: Mapping[int, bool] | Path | str | None = None,
    components: int | None = None,
    compute: Compute | None = None,
) -> Assessment:
    """As `assess`, of sources that are read.

    Args:
        sources: with `synthetic`, and `target` or `anchor`.
        representation: that the sources were read with: a number of principal components that the
            user gave is kept for divergences however few rows there are, and prompts and outputs
            are embedded in the same way.
        draws: of the result, and the seed of every random number.
        marks, components: as for `assess`.
        compute: as for `assess`.
    """
    representation = representation or Representation()
    draws = draws or Draws.per_chain()
    compute = Compute.of(compute, draws.seed)
    if isinstance(marks, Path | str):
        marks = _marks(sources, marks)
    mixture = find_components(sources, components, draws)
    shares = find_shares(sources, draws, marks)
    given = representation.dimension is not None
    densities = find_densities(sources, draws, shares.style.offset, given)
    told = {**shares.terms, **densities.terms, "effective_components": exactly(mixture.effective)}
    drawn = {
        name: exactly(one.value[: draws.count].reshape(draws.shape))
        for name, one in told.items()
        if not one.reason
    }
    # No total variation is below a share that one source has and the other lacks.
    for name in {"total_divergence", "distinguishability"} & set(drawn):
        drawn[name] = exactly(drawn[name].value.clamp(min=shares.least))
    labels = find_labels(sources, draws)
    learned = learned_terms(sources, drawn, _variation(shares, densities), draws)
    terms = drawn | learned.terms
    paired_checks: list[Check] = []
    for rows in (one for one in sources.rows.values() if one.paired):
        paired, check = paired_terms(rows, draws, representation, compute.spawn("pairs"))
        terms |= paired
        paired_checks.append(check)
    references = {**shares.references, **densities.references}
    numbers = {name: exactly(one) for name, one in shares.limits.items()} | densities.certified
    numbers |= {name: one for name, one in told.items() if one.reason}
    if labels.table is not None:
        numbers["wrong_label_share"] = exactly(labels.share_wrong)
    values = {name: one.value.item() for name, one in numbers.items()}
    means = {name: one.value.mean().item() for name, one in drawn.items()}
    lines = row_table(sources, shares, mixture, labels)
    said = answers(sources, shares, drawn, references, lines)
    weights = mixture.weights.reshape(*draws.shape, *mixture.weights.shape[1:])
    checks = [
        *source_checks(sources),
        *share_checks(sources, shares),
        reference_check(means | values, references),
        *densities.checks,
        *paired_checks,
        *learned.checks,
    ]
    if sources.rows["synthetic"].labels is not None:
        checks.append(labels.check())
    settings = _settings(sources, densities, learned, draws)
    settings["components"] = weights.shape[-1]
    if marks:
        settings["marks"] = len(marks)
    counts = settings["rows"]
    return Assessment(
        idata=inference_data.make(
            {**inference_data.from_estimates(terms), "source_weights": weights},
            constant_data={
                **{name: settings[name] for name in ("seed", "dimension", "divergence_dimension")},
                **values,
                **{f"reference_{name}": value for name, value in references.items()},
                **{f"rows_{name}": count for name, count in counts.items()},
            },
            dims={"source_weights": ["source", "component"]},
            coords={"source": sources.names, "component": list(range(weights.shape[-1]))},
        ),
        checks=tuple(checks),
        settings=settings,
        headline=headline(said),
        row_counts={
            "synthetic": counts["synthetic"],
            "anchor": counts.get("anchor", counts["synthetic"]),
            # Learners leave a pilot out: their informations are about fewer rows.
            **learned.row_counts,
        },
        numbers=numbers,
        references=references,
        rows=lines,
        components=component_table(sources, mixture, lines),
        labels=labels.table,
        answers=said,
        score=shares.irrelevant.score,
        axes=AXES,
    )


def checked_roles(given: Mapping[str, Any]) -> dict[str, Any]:
    """The sources that there are; raises ValueError where one that is needed is absent."""
    present = {role: data for role, data in given.items() if data is not None}
    if not {"anchor", "target"} & set(present):
        raise ValueError("Expected anchor or target rows; got neither")
    if "synthetic" not in present:
        raise ValueError("Expected synthetic rows; got none")
    return present


def _marks(sources: Sources, path: Path | str) -> dict[int, bool]:
    """The marks of a filled sheet of the synthetic rows."""
    if "synthetic" in sources.places:
        raise ValueError("Expected sources that are read whole beside marks; got samples")
    made = sources.rows["synthetic"]
    return read_marks(path, made.text if made.text is not None else made.ids, made.ids)


def _settings(
    sources: Sources, densities: Densities, learned: Learned, draws: Draws
) -> dict[str, Any]:
    """What the numbers depend on."""
    found: dict[str, Any] = {
        "embedding": str(sources.embedding),
        "dimension": sources.projection.dimension,
        "divergence_dimension": densities.dimension,
        "explained_variance": float(sources.projection.explained.sum()),
        "rows": {name: rows.size for name, rows in sources.rows.items()},
        "origins": {name: rows.origin for name, rows in sources.rows.items()},
        "learner_rows": learned.rows,
        "seed": draws.seed,
    }
    if sources.places:
        found["sample_rows"] = {name: len(rows) for name, rows in sources.rows.items()}
    return found | {"chains": draws.chains}


def _variation(shares: Shares, densities: Densities) -> Variation | None:
    """What is known of the total variation of task and synthetic rows."""
    found, least = densities.total_variation, shares.least
    if found is None:
        return Variation(0.0, 0.0, least) if shares.same else None
    upper, huber = interval(found.value.numpy())[1], found.bounds[1].item()
    return Variation(max(upper, least), max(huber, least), least)
