"""A ranking as a small record, so that a new set is scored beside it without the other sets."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from rbpp.assessment.ranking import (
    EQUIVALENT_NATS,
    Ranking,
    summarise,
)
from rbpp.assessment.ranking_probabilities import Discrepancy
from rbpp.assessment.ranking_sources import Source, learner_of, prepare
from rbpp.assessment.set_scores import SetScore, score_set
from rbpp.randomness import spawn

_VERSION = 1


def store(ranking: Ranking, real: Source, embedding: str) -> dict[str, Any]:
    """The record of a ranking: nothing but texts, numbers, lists and dictionaries.

    It holds digests of the real rows and of the embedding's name, the score of each real row by
    each set, and the label probabilities that judged them, never a row.

    Args:
        ranking: what `rank_sets` returned.
        real: the real rows that it was given.
        embedding: what made embeddings of texts, such as a model's name and version.
    """
    sizes = {line["name"]: line["rows"] for line in ranking.lines}
    return {
        "version": _VERSION,
        "kind": ranking.kind,
        "digests": {"reference": _digest_of(real), "embedding": _digest(embedding.encode())},
        "settings": dict(ranking.settings),
        "label_names": list(ranking.label_names),
        "target": None if ranking.target is None else _packed(ranking.target),
        "real_weights": _packed(ranking.real_weights),
        "sets": {
            name: {
                "rows": sizes[name],
                "values": _packed(score.values),
                "equal_values": _packed(score.equal_values),
                "sd": float(np.sqrt(np.square(score.influence).sum())),
                "equal_sd": score.equal_sd,
                "size": score.size,
            }
            for name, score in ranking.scores.items()
        },
    }


def rank_against(
    record: Mapping[str, Any],
    sets: Mapping[str, Source],
    real: Source,
    embedding: str,
    *,
    draws: int = 2000,
    hdi_prob: float = 0.94,
    seed: int = 0,
) -> Ranking:
    """Rank new sets beside those of a record, which are not there.

    Real rows without labels are judged by the consensus that the record holds, in which the new
    sets have no vote.

    Args:
        record: from `store`.
        sets: one or more, with names that the record lacks.
        real, embedding: the same as in the record.

    Raises:
        ValueError: if the real rows, the embedding or the kind of score are others than the
            record's, or a name is in both.
    """
    if record.get("version") != _VERSION:
        raise ValueError(f"Expected a record of version {_VERSION}; got {record.get('version')!r}")
    for what, found in (
        ("reference", _digest_of(real)),
        ("embedding", _digest(embedding.encode())),
    ):
        if record["digests"][what] != found:
            raise ValueError(
                f"Expected the {what} of the stored results, with digest "
                f"{record['digests'][what][:12]}; got another, {found[:12]}"
            )
    if twice := sorted(set(sets) & set(record["sets"])):
        raise ValueError(f"Expected names that the stored results lack; got {', '.join(twice)}")
    prepared = prepare(sets, real, least=1, label_names=record["label_names"])
    if prepared.kind != record["kind"]:
        raise ValueError(f"Expected sets with {record['kind']}; got {prepared.kind}")
    target = None if record["target"] is None else torch.as_tensor(_unpacked(record["target"]))
    weights = _unpacked(record["real_weights"])
    weights /= weights.sum()
    scores = {
        name: SetScore(
            values=_unpacked(one["values"]),
            # The bootstrap needs the spread alone: any rows with this influence have it.
            influence=one["sd"] / np.sqrt(200) * np.tile([1.0, -1.0], 100),
            equal_values=_unpacked(one["equal_values"]),
            equal_sd=one["equal_sd"],
            size=one["size"],
        )
        for name, one in record["sets"].items()
    }
    sizes = [one["rows"] for one in record["sets"].values()]
    for place, name in enumerate(sets):
        rows, second = prepared.rows[place], prepared.second[place]
        learn = learner_of(
            prepared.kind, rows, second, prepared.real, prepared.real_second,
            len(record["label_names"]), target,
        )  # fmt: skip
        scores[name] = score_set(
            learn,
            len(rows),
            record["settings"]["equal_size"],
            weights,
            prepared.units[place],
            spawn(seed, "set", name),
        )
        sizes.append(len(rows))
    return summarise(
        scores,
        prepared.kind,
        sizes,
        weights,
        prepared.real_units,
        [*(None for _ in record["sets"]), *prepared.units],
        np.arange(len(scores)),
        draws=draws,
        hdi_prob=hdi_prob,
        equivalent=record["settings"].get("equivalent", EQUIVALENT_NATS),
        discrepancy=Discrepancy(),
        seed=seed,
    )


def _digest_of(source: Source) -> str:
    rows = np.ascontiguousarray(np.asarray(source.rows, dtype=np.float64))
    outputs = b"" if source.outputs is None else np.asarray(source.outputs, np.float64).tobytes()
    labels = "" if source.labels is None else repr([str(one) for one in source.labels])
    return _digest(repr(rows.shape).encode() + rows.tobytes() + outputs + labels.encode())


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _packed(values: np.ndarray) -> dict[str, Any]:
    """An array in single precision as text."""
    return {
        "shape": list(values.shape),
        "float32": base64.b64encode(values.astype("<f4").tobytes()).decode(),
    }


def _unpacked(packed: Mapping[str, Any]) -> np.ndarray:
    flat = np.frombuffer(base64.b64decode(packed["float32"]), dtype="<f4")
    return flat.astype(np.float64).reshape(packed["shape"])
