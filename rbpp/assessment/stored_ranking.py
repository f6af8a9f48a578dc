"""A ranking as a small record, so that a new set is scored beside it without the other sets."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rbpp.assessment import density_score, label_score, output_score
from rbpp.assessment.ranking_checks import Consensus, Judges
from rbpp.assessment.ranking_sources import Kind, Source
from rbpp.assessment.set_scores import SetScore

if TYPE_CHECKING:
    from rbpp.assessment.ranking import Ranking

_VERSION = 4


def store(ranking: Ranking, real: Source, embedding: str) -> dict[str, Any]:
    """The record of a ranking: nothing but texts, numbers, lists and dictionaries.

    It holds digests of the real rows, the embedding's name and the settings of the score; of every
    set the score of each real row; and the label probabilities that judged them, never a row. Sets
    are in the order in which they were stored.

    Args:
        ranking: what `rank_sets` returned.
        real: the real rows that it was given.
        embedding: what made embeddings of texts, such as a model's name and version.
    """
    lines = {line["name"]: line for line in ranking.lines}
    target, consensus = ranking.judges.target, ranking.judges.consensus
    return {
        "version": _VERSION,
        "kind": ranking.kind,
        "digests": _digests(real, embedding, ranking.kind),
        "settings": dict(ranking.settings),
        "label_names": list(ranking.label_names),
        "consensus": None if consensus is None else asdict(consensus),
        "target": None if target is None else _packed(target.numpy()),
        "real_weights": _packed(ranking.judges.weights),
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


@dataclass(frozen=True)
class Stored:
    """Stored results, for `rank_sets`: those of the sets by name, and what judged them."""

    kind: Kind
    made_by: Mapping[str, str]
    embedding: str
    scores: dict[str, SetScore]
    lines: dict[str, dict[str, Any]]
    digests: dict[str, str]
    label_names: list[str]
    judges: Judges
    equal_size: int

    def check(self, kind: Kind, names: Iterable[str], real: Source) -> None:
        """Whether sets of this kind and with these names can be ranked beside these."""
        if kind != self.kind:
            raise ValueError(f"Expected sets with {self.kind}; got {kind}")
        for what, found in _digests(real, self.embedding, kind).items():
            if self.made_by[what] != found:
                raise ValueError(
                    f"Expected the {what} of the stored results, with digest "
                    f"{self.made_by[what][:12]}; got another, {found[:12]}"
                )
        if twice := sorted(set(names) & set(self.scores)):
            raise ValueError(f"Expected names that the stored results lack; got {', '.join(twice)}")


def read(record: Mapping[str, Any], embedding: str) -> Stored:
    """The results of a record of `store`, which embeddings of this name have to be beside.

    Raises:
        ValueError: if it is none, or one of another version.
    """
    if record.get("version") != _VERSION or "sets" not in record:
        raise ValueError(
            f"Expected stored results of version {_VERSION}; got {record.get('version')!r}"
        )
    sets, target, consensus = record["sets"], record["target"], record["consensus"]
    weights = _unpacked(record["real_weights"])
    kept = ("rows", "score_of_real_rows", "real_rows")
    return Stored(
        kind=record["kind"],
        made_by=record["digests"],
        embedding=embedding,
        scores={name: _score(one) for name, one in sets.items()},
        lines={name: {key: one[key] for key in kept} for name, one in sets.items()},
        digests={name: one["digest"] for name, one in sets.items()},
        label_names=list(record["label_names"]),
        judges=Judges(
            weights / weights.sum(),
            None if target is None else torch.as_tensor(_unpacked(target)),
            None if consensus is None else Consensus(**consensus),
        ),
        equal_size=record["settings"]["equal_size"],
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
