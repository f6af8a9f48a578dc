"""An assessment as tables, by row, component and label; that of all rows also as a file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import logsumexp
from torch import Tensor

from rbpp.assessment.answers import Likely, headline, task_name, which_rows
from rbpp.assessment.assessment import Assessment
from rbpp.assessment.label_score import wrong_labels
from rbpp.assessment.log_ratio import whitened
from rbpp.assessment.neighbours import nearest
from rbpp.assessment.pooled_mixture import fit_mixture
from rbpp.assessment.share_terms import Shares
from rbpp.assessment.sources import Sources
from rbpp.assessment.weighted_rows import Array, Draws, Index
from rbpp.checks import Check, Verdict
from rbpp.compute import Compute
from rbpp.files import written_whole

# Principal components of the mixture that the map shows.
_DIMENSION = 8
# A component with less than this share in every source is empty.
EMPTY = 0.005
_LARGEST_REDUNDANCY = 10.0
_EXAMPLES, _KEYWORDS = 3, 6
# A label of the task is missing from the synthetic rows below the first of these parts of its share
# in the task, and too rare below the second.
MISSING, RARE = 0.1, 0.5
# More wrong labels than this share speak against the labels.
_MOST_WRONG = 0.05
_NEIGHBOURS = 5
AXES = ("first principal component", "second principal component")
# What a row that is not in the sample takes from its neighbours in it.
_PLACED = ("off_task", "novel", "uncovered", "wrong_label")


@dataclass(frozen=True)
class Components:
    """Components of a mixture of all rows, by source.

    Attributes:
        members: probabilities (n, K) of every source's rows.
        weights: draws (num_samples, source, K) of every source's weights.
    """

    members: Mapping[str, Array]
    weights: Array

    @property
    def effective(self) -> Array:
        """exp of the entropy of the synthetic source's weights, draws (num_samples,)."""
        own = self.weights[:, list(self.members).index("synthetic")]
        return np.asarray(np.exp(-(own * np.log(np.maximum(own, 1e-300))).sum(-1)))


def default_components(rows: int) -> int:
    """One per 40 rows, 4 to 20.

    >>> default_components(100), default_components(2000)
    (4, 20)
    """
    return min(20, max(4, rows // 40))


def find_components(sources: Sources, count: int | None, drawn: Draws) -> Components:
    """Fit a mixture to the rows of all sources, and draw the weights that each gives it.

    A source's weights have a Dirichlet posterior, of a sparse prior and its independent rows.

    Raises:
        ValueError: if there are more components than rows, or none.
    """
    rows = np.concatenate([sources.coordinates[name][:, :_DIMENSION] for name in sources.names])
    weight = np.concatenate([sources.weights(name) for name in sources.names])
    most = len(rows)
    if count is None:
        count = min(default_components(most), most)
    if not isinstance(count, int | np.integer) or not 1 <= count <= most:
        raise ValueError(f"Expected components from 1 to the {most} rows; got {count}")
    random = np.random.default_rng([drawn.seed, 7])
    table = whitened(rows, weight)
    mixture = fit_mixture(table, weight, int(count), random)
    joint = mixture.log_joint(np.square(mixture.standardized(table)).sum(-1))
    member = np.exp(joint - logsumexp(joint, axis=0)).T
    ends = np.cumsum([len(sources.rows[name]) for name in sources.names])[:-1]
    members = dict(zip(sources.names, np.split(member, ends), strict=True))
    weights = []
    for name, own in members.items():
        mass = own.T @ sources.weights(name)
        mass = mass * min(1.0, sources.unit_count(name) / mass.sum())
        weights.append(random.dirichlet(mass + 0.5 / len(mass), drawn.count))
    return Components(members, np.stack(weights, 1))


@dataclass(frozen=True)
class Labels:
    """Labels that are wrong, missing or too few among the synthetic rows.

    Attributes:
        table: one line per label: `rows`, `share`, and where the task has labels `task_share`,
            `p_missing`, `p_too_few`; None where labels are not looked at.
        columns: `wrong_label` and `suggested_label` of the synthetic rows, by name.
        share_wrong: share of the labels that are wrong.
        why: labels are not looked at.
    """

    table: pd.DataFrame | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    share_wrong: float = math.nan
    why: str = ""

    def check(self) -> Check:
        """Whether labels are right, and none lacks or is rare."""
        if self.table is None:
            return Check("labels", "unknown", f"not looked at: {self.why}")
        said = [f"{self.share_wrong:.1%} of the synthetic labels are wrong"]
        bad = self.share_wrong > _MOST_WRONG
        for column, word in (("p_missing", "missing"), ("p_too_few", "too few")):
            if column in self.table:
                names = list(self.table.loc[self.table[column] > 0.9, "label"])
                said += [f"{word}: {', '.join(names)}"] if names else []
                bad = bad or bool(names)
        verdict: Verdict = "violated" if bad else "holds"
        return Check("labels are right and all there", verdict, "; ".join(said))


def row_table(
    sources: Sources, shares: Shares, components: Components, labels: Labels
) -> pd.DataFrame:
    """One line per row; see `rbpp.assessment.assessment.Assessment`."""
    parts = []
    for name in sources.names:
        rows, member = sources.rows[name], components.members[name]
        nothing = [None] * len(rows)
        part: dict[str, Any] = {
            "source": name,
            "id": rows.ids,
            "group": nothing if rows.groups is None else rows.groups,
            "off_task": np.nan,
            "novel": np.nan,
            "uncovered": shares.uncovered.probability if name == sources.task else np.nan,
            "redundancy": redundancy(sources, name),
            "component": member.argmax(1),
            "component_probability": member.max(1),
            "copy_of": nothing,
            "copy": "",
            **_on_map(sources.coordinates[name]),
            "text": nothing if rows.text is None else rows.text,
        }
        if name == "synthetic":
            part["off_task"] = shares.probability
            if shares.novel is not None:
                part["novel"] = shares.novel.probability
            if shares.copied is not None:
                part["copy"] = kinds = shares.copied.kind()
                ids = sources.rows["anchor"].ids
                part["copy_of"] = [
                    ids[index] if kind else None
                    for kind, index in zip(kinds, shares.copied.source, strict=True)
                ]
        if name == "output" and shares.output is not None:
            part["off_task"] = shares.output.probability
        parts.append(pd.DataFrame(part))
    table = pd.concat([part.astype(object) for part in parts], ignore_index=True)
    numbers = [*("off_task", "novel", "uncovered", "redundancy", "component_probability", "x", "y")]
    table = table.astype(dict.fromkeys(numbers, float) | {"component": int})
    for name, column in labels.columns.items():
        table[name] = None if name.startswith("suggested") else np.nan
        table.loc[table["source"] == "synthetic", name] = column
    return table


def redundancy(sources: Sources, name: str) -> Array:
    """log of the median nearest-neighbour distance over the row's own, at most 10."""
    content = sources.content(name).astype(np.float32)
    if len(content) < 2:
        return np.zeros(len(content))
    distance = nearest(content, content, 1, own=True)[0][:, 0].astype(float)
    copies = np.bincount(sources.copies[name].group)[sources.copies[name].group] > 1
    exact = copies & (distance < 2e-3)
    typical = np.median(distance[~exact]) if (~exact).any() else 1.0
    near = -np.log(np.maximum(distance / max(typical, 1e-300), np.exp(-_LARGEST_REDUNDANCY)))
    return np.where(exact, _LARGEST_REDUNDANCY, near)


def component_table(sources: Sources, components: Components, rows: pd.DataFrame) -> pd.DataFrame:
    """One line per component; see `rbpp.assessment.assessment.Assessment`."""
    share = components.weights.mean(0)
    names = sources.names
    order = np.argsort(-share[names.index("synthetic")], kind="stable")
    keywords = _keywords(sources, components)
    lines = []
    for component in order:
        own = rows[rows["component"] == component]
        chances = {
            "p_irrelevant": _mean(own, "synthetic", "off_task"),
            "p_uncovered": _mean(own, sources.task, "uncovered"),
            "p_unsampled": _mean(own, "synthetic", "novel"),
        }
        spread = np.cov(own[["x", "y"]].to_numpy(), rowvar=False) if len(own) > 2 else np.eye(2)
        lines.append(
            {
                "component": int(component),
                "part": _part(chances, float(share[:, component].max())),
                **chances,
                **{f"share_{name}": float(share[i, component]) for i, name in enumerate(names)},
                "nearest": _nearest(own),
                "keywords": keywords[component],
                "x": float(own["x"].mean()) if len(own) else 0.0,
                "y": float(own["y"].mean()) if len(own) else 0.0,
                "xx": float(spread[0, 0]),
                "xy": float(spread[0, 1]),
                "yy": float(spread[1, 1]),
            }
        )
    return pd.DataFrame(lines).set_index("component")


def find_labels(sources: Sources, drawn: Draws) -> Labels:
    """Labels of the synthetic rows, beside those of the task where it has some."""
    made = sources.rows["synthetic"].labels
    if made is None or len({label for label in made if label is not None}) < 2:
        return Labels(why="no labels of two kinds among the synthetic rows")
    real = sources.rows[sources.task].labels
    names = sorted({label for label in [*made, *(real or [])] if label is not None})
    place, labels = _coded(made, names)
    vectors = torch.as_tensor(sources.content("synthetic")[place]).double()
    known, real_labels = _coded(real or [], names)
    real_rows = None
    if len(known) >= 10:
        real_rows = torch.as_tensor(sources.content(sources.task)[known]).double()
    try:
        found = wrong_labels(vectors, labels, len(names), real_rows, real_labels, drawn.seed)
    except ValueError as error:
        return Labels(why=str(error))
    wrong, suggested = np.full(len(made), np.nan), np.full(len(made), None)
    wrong[place] = found.probability_wrong
    suggested[place] = np.array(names, dtype=object)[found.suggested]
    counts = np.bincount(labels.numpy(), minlength=len(names))
    random = np.random.default_rng([drawn.seed, 8])
    own = random.dirichlet(counts + 0.5, drawn.count)
    table = pd.DataFrame({"label": names, "rows": counts, "share": counts / counts.sum()})
    if real_rows is not None:
        task = np.bincount(real_labels.numpy(), minlength=len(names))
        wanted = random.dirichlet(task + 0.5, drawn.count)
        table["task_share"] = task / task.sum()
        table["p_missing"] = (own < MISSING * wanted).mean(0)
        table["p_too_few"] = (own < RARE * wanted).mean(0)
    columns = {"wrong_label": wrong, "suggested_label": suggested}
    return Labels(table, columns, float(found.share_wrong))


def _coded(labels: Sequence[str | None], names: Sequence[str]) -> tuple[Index, Tensor]:
    """Places of the labels that are not missing, and their numbers among the names."""
    codes = pd.Categorical(labels, names).codes
    place = np.flatnonzero(codes >= 0)
    return place, torch.as_tensor(codes[place].astype(np.int64))


def place_rows(
    sources: Sources, name: str, vectors: np.ndarray, sample: pd.DataFrame
) -> dict[str, np.ndarray]:
    """Columns of rows that are not in the sample: the mean over their neighbours in it.

    Args:
        sources: with the sample.
        name: of the source.
        vectors: (n, D), of rows of it.
        sample: lines of the sample's rows of this source.
    """
    k = min(_NEIGHBOURS, len(sample))
    content = sources.content(name, vectors).astype(np.float32)
    _, near = nearest(content, sources.content(name).astype(np.float32), k)
    placed = [column for column in _PLACED if column in sample]
    return {
        **{column: sample[column].to_numpy(float)[near].mean(1) for column in placed},
        "redundancy": np.full(len(vectors), np.nan),
        **{
            column: sample[column].to_numpy()[near[:, 0]]
            for column in ("component", "component_probability")
        },
        **_on_map(sources.projection(vectors)),
    }


def _on_map(coordinates: np.ndarray) -> dict[str, np.ndarray]:
    one = coordinates.shape[1] == 1
    return {"x": coordinates[:, 0], "y": 0 * coordinates[:, 0] if one else coordinates[:, 1]}


def _mean(rows: pd.DataFrame, source: str, column: str) -> float:
    values = rows.loc[rows["source"] == source, column].dropna()
    return float(values.mean()) if len(values) else 0.0


def _part(chances: Mapping[str, float], largest_share: float) -> str:
    if largest_share < EMPTY:
        return "empty"
    for part in ("irrelevant", "uncovered", "unsampled"):
        if chances[f"p_{part}"] > 0.5:
            return part
    return "shared"


def _nearest(rows: pd.DataFrame) -> list[str]:
    """Texts or ids of the rows nearest to the middle of a component, real ones where it has two."""
    real = rows[rows["source"].isin(["anchor", "target"])]
    rows = real if len(real) >= 2 else rows
    away = (rows["x"] - rows["x"].mean()) ** 2 + (rows["y"] - rows["y"].mean()) ** 2
    ordered = rows.loc[away.sort_values(kind="stable").index]
    said = [
        t if isinstance(t, str) else i for t, i in zip(ordered["text"], ordered["id"], strict=True)
    ]
    return list(dict.fromkeys(map(str, said)))[:_EXAMPLES]


def _keywords(sources: Sources, components: Components) -> list[list[str]]:
    """Words that a component's rows use more than the others do."""
    count = components.weights.shape[-1]
    if any(rows.text is None for rows in sources.rows.values()):
        return [[] for _ in range(count)]
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [text for rows in sources.rows.values() for text in rows.text or []]
    vectorizer = TfidfVectorizer(stop_words="english", sublinear_tf=True, max_features=20_000)
    try:
        words = vectorizer.fit_transform(texts)
    except ValueError:  # nothing but stop words
        return [[] for _ in range(count)]
    names = vectorizer.get_feature_names_out()
    overall = np.asarray(words.mean(0)).ravel()
    likely = np.concatenate(list(components.members.values()))
    result: list[list[str]] = []
    for column in likely.T:
        total = column.sum()
        if total < 1:
            result.append([])
            continue
        excess = (words.T @ column) / total - overall
        result.append([str(names[place]) for place in np.argsort(-excess)[:_KEYWORDS]])
    return result


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
    last = which_rows(task_name(sources), likely, found.answers[0]["verdict"])
    said = [*found.answers[:-1], last]
    return replace(found, answers=said, headline=headline(said))


def _parts(sources: Sources, rows: pd.DataFrame, name: str) -> Iterator[pd.DataFrame]:
    """Lines of all rows of a source, in order."""
    sample = rows[rows["source"] == name].reset_index(drop=True)
    if name not in sources.places:
        yield sample
        return
    place = sources.places[name]
    for start, vectors in sources.chunks(name):
        columns: dict[str, Any] = place_rows(sources, name, vectors, sample)
        columns |= {
            "source": name,
            "id": np.arange(start + 1, start + len(vectors) + 1).astype(str),
        }
        part = pd.DataFrame(
            {column: columns.get(column) for column in sample.columns}, range(len(vectors))
        )
        low, high = np.searchsorted(place, [start, start + len(vectors)])
        inside, own = place[low:high] - start, sample.iloc[low:high]
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
