"""A ranking as a small record, so that a new set is scored beside it without the other sets."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from rbpp import validate
from rbpp.assessment import density_score, label_score, output_score
from rbpp.assessment.ranking import EQUIVALENT_NATS, Ranking, beside_real_rows, summarise
from rbpp.assessment.ranking_checks import Consensus, checks
from rbpp.assessment.ranking_probabilities import Discrepancy
from rbpp.assessment.ranking_sources import Kind, Source, copies_of, learner, prepare
from rbpp.assessment.set_scores import SetScore, score_set
from rbpp.compute import Compute
from rbpp.randomness import spawn

_VERSION = 3


def store(ranking: Ranking, real: Source, embedding: str) -> dict[str, Any]:
    """The record of a ranking: nothing but texts, numbers, lists and dictionaries.

    It holds digests of the real rows, the embedding's name and the settings of the score; of every
    set the score of each real row; and the label probabilities that judged them, never a row. Sets
    are in the order in which they were stored.

    Args:
        ranking: what `rank_sets` or `rank_against` returned.
        real: the real rows that it was given.
        embedding: what made embeddings of texts, such as a model's name and version.
    """
    lines = {line["name"]: line for line in ranking.lines}
    return {
        "version": _VERSION,
        "kind": ranking.kind,
        "digests": _digests(real, embedding, ranking.kind),
        "settings": dict(ranking.settings),
        "label_names": list(ranking.label_names),
        "consensus": None if ranking.consensus is None else asdict(ranking.consensus),
        "target": None if ranking.target is None else _packed(ranking.target),
        "real_weights": _packed(ranking.real_weights),
        "sets": {
            name: {
                "digest": ranking.digests[name],
                "values": _packed(score.values),
                "equal_values": _packed(score.equal_values),
                "sd": score.sd,
                "equal_sd": score.equal_sd,
                "size": score.size,
                **{key: lines[name][key] for key in ("rows", "score_of_real_rows", "real_rows")},
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
    equivalent: float = EQUIVALENT_NATS,
    seed: int = 0,
    compute: Compute | None = None,
) -> Ranking:
    """Rank new sets beside those of a record, which are not there.

    Real rows without labels are judged by the consensus that the record holds, in which the new
    sets have no vote.

    Args:
        record: from `store`.
        sets: one or more, with names that the record lacks.
        real, embedding: the same as in the record.
        draws, hdi_prob, equivalent, seed, compute: as for `rank_sets`.

    Raises:
        ValueError: if the record is none, or the real rows, the embedding, the settings or the kind
            of score are others than the record's, or a name is in both.
    """
    validate.count("draws", draws, least=2)
    validate.probability("hdi_prob", hdi_prob)
    validate.number("equivalent", equivalent, least=0)
    compute = Compute.of(compute, seed)
    if record.get("version") != _VERSION or "sets" not in record:
        raise ValueError(
            f"Expected stored results of version {_VERSION}; got {record.get('version')!r}"
        )
    prepared = prepare(sets, real, least=1, label_names=record["label_names"])
    if prepared.kind != record["kind"]:
        raise ValueError(f"Expected sets with {record['kind']}; got {prepared.kind}")
    for what, found in _digests(real, embedding, prepared.kind).items():
        if record["digests"][what] != found:
            raise ValueError(
                f"Expected the {what} of the stored results, with digest "
                f"{record['digests'][what][:12]}; got another, {found[:12]}"
            )
    if twice := sorted(set(sets) & set(record["sets"])):
        raise ValueError(f"Expected names that the stored results lack; got {', '.join(twice)}")
    target = None if record["target"] is None else torch.as_tensor(_unpacked(record["target"]))
    weights = _unpacked(record["real_weights"])
    weights /= weights.sum()
    old = record["sets"]

    def work(place: int) -> SetScore:
        return score_set(
            learner(prepared, place, target),
            len(prepared.rows[place]),
            record["settings"]["equal_size"],
            weights,
            prepared.units[place],
            spawn(compute.seed, "set", prepared.names[place]),
        )

    new_scores = compute.each(work, range(len(sets)), "scoring sets")
    scores = {name: _score(one) for name, one in old.items()}
    scores |= dict(zip(prepared.names, new_scores, strict=True))
    sizes = [one["rows"] for one in old.values()] + [len(rows) for rows in prepared.rows]
    digests = [one["digest"] for one in old.values()] + prepared.digests
    ranking = summarise(
        scores,
        prepared.kind,
        sizes,
        weights,
        prepared.real_units,
        [*(None for _ in old), *prepared.units],
        copies_of(digests),
        draws=draws,
        hdi_prob=hdi_prob,
        equivalent=equivalent,
        discrepancy=Discrepancy(),
        seed=compute.seed,
    )
    agreed = None if record["consensus"] is None else Consensus(**record["consensus"])
    new = [line for line in ranking.lines if line["name"] in sets]
    beside_real_rows(new, prepared, compute.seed)
    for line in ranking.lines:
        if line["name"] in old:
            line |= {key: old[line["name"]][key] for key in ("score_of_real_rows", "real_rows")}
    return replace(
        ranking,
        checks=checks(prepared, target, ranking.lines, agreed),
        target=None if target is None else target.numpy(),
        label_names=list(record["label_names"]),
        digests=dict(zip(scores, digests, strict=True)),
        kept=dict(zip(prepared.names, prepared.kept, strict=True)),
        consensus=agreed,
    )


def _score(stored: Mapping[str, Any]) -> SetScore:
    return SetScore(
        values=_unpacked(stored["values"]),
        # The bootstrap needs the spread alone: any rows with this influence have it.
        influence=stored["sd"] / np.sqrt(200) * np.tile([1.0, -1.0], 100),
        equal_values=_unpacked(stored["equal_values"]),
        equal_sd=stored["equal_sd"],
        size=stored["size"],
        sd=stored["sd"],
    )


def _digests(real: Source, embedding: str, kind: Kind) -> dict[str, str]:
    """What the numbers of two runs must share to be compared."""
    constants = {
        "labels": (
            label_score.PRIOR_ROWS,
            label_score.PRIOR_ROWS_OF_VOTES,
            label_score.LEAST_ROWS_OF_MEAN,
            label_score.FLOOR,
        ),
        "outputs": (output_score.PRIOR_ROWS,),
        "texts": (density_score.PRIOR_ROWS,),
    }
    return {
        "reference": _digest_of(real),
        "embedding": _digest(embedding.encode()),
        "settings": _digest(repr((kind, constants[kind])).encode()),
    }


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
