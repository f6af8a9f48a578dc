"""Text to vectors: a static embedding, TF-IDF and truncated SVD, or sentence-transformers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rbpp.data.rows import Rows
from rbpp.data.static_embedding import DEFAULT, POTION, static_embedding
from rbpp.files import written_whole
from rbpp.progress import progress

if TYPE_CHECKING:
    from rbpp.threads import Map

# Latent semantic dimensions kept of TF-IDF: the neighbourhoods that the mixture's contrast
# coordinate is read from are sharper in 100 than in 30 (1,000 code tasks with 5 % role-play among
# them against 1,000 without: area under the ROC curve of the share of neighbours 0.978 and 0.990).
LATENT_DIMENSIONS = 100
# Texts that a model sees at once, and texts of a task.
_BATCH, _SHARD = 64, 256
LEXICAL = "tfidf"


@dataclass(frozen=True)
class Embedding:
    """How rows became vectors.

    Attributes:
        how: in words.
        text: whether the rows are text.
        lexical: whether vectors count words, so that style and content are one.
        cut: rows that the model cut, by source; rows without any token it knows likewise.
        unread: see `cut`.
    """

    how: str
    text: bool = False
    lexical: bool = False
    cut: tuple[int, ...] = ()
    unread: tuple[int, ...] = ()

    def __str__(self) -> str:
        return self.how


def embed(
    sources: Sequence[Rows],
    *,
    model: str | None = None,
    device: str = "cpu",
    cache: Path | str | None = None,
    seed: int = 0,
    mapper: Map = map,
    quiet: bool = False,
) -> tuple[list[np.ndarray], Embedding]:
    """Vectors (n, D) of the rows of every source, and how they were made.

    Args:
        sources: all with text, or all with embeddings.
        model: of text: `"wordllama"`, the default, `"potion-base-8M"` or a folder of a model2vec
            model (see `rbpp.data.static_embedding`); `"tfidf"`, TF-IDF and truncated SVD, fitted on
            the rows of all sources together; or a sentence-transformers model, a folder or the name
            of one on the hub.
        device: where the model runs.
        cache: folder of the model's embeddings, keyed by text and model; by default
            `$XDG_CACHE_HOME/rbpp/embeddings`.
        seed: of the randomised SVD.
        mapper: over shards of text that a model embeds, such as that of a cluster.
        quiet: no progress bar.

    Raises:
        ValueError: if some sources have text and some embeddings, embeddings differ in dimension,
            or a model is named for rows without text.
        ImportError: naming the extra to install, if a model is named and its package is absent.
    """
    with_text = [rows for rows in sources if rows.text is not None]
    if not with_text:
        if model is not None:
            raise ValueError(
                f"Expected text for the embedding model {model}; got embeddings in "
                f"{sources[0].origin}"
            )
        return _given(sources), Embedding("embeddings as given")
    if len(with_text) != len(sources):
        other = next(rows for rows in sources if rows.text is None)
        raise ValueError(
            f"Expected text in all sources or embeddings in all; got text in "
            f"{with_text[0].origin} and embeddings in {other.origin}"
        )
    texts = [rows.text for rows in sources if rows.text is not None]
    if model is None or model in (DEFAULT, POTION) or _is_static(model):
        return _static(texts, model)
    if model == LEXICAL:
        vectors, how = _latent_semantics(texts, seed)
        for rows, part in zip(sources, vectors, strict=True):
            if np.abs(part - part[0]).max() < 1e-9:
                raise ValueError(
                    f"{rows.origin} ({rows.source}): Expected rows that share words with others; "
                    f"got {len(rows)} that cannot be told apart by theirs"
                )
        return vectors, Embedding(how, text=True, lexical=True)
    folder = Path(cache) if cache is not None else _default_cache()
    mark = _fingerprint(model)
    work = partial(_encode, model=model, mark=mark, device=device)

    def encode(distinct: list[str]) -> np.ndarray:
        shards = [distinct[first : first + _SHARD] for first in range(0, len(distinct), _SHARD)]
        return np.concatenate(list(progress(mapper(work, shards), len(shards), "embedding", quiet)))

    try:
        vectors = [_cached(text, mark, folder, encode) for text in texts]
        return vectors, Embedding(f"sentence-transformers {model}", text=True)
    finally:
        _load.cache_clear()


def _is_static(model: str) -> bool:
    """Whether a folder holds a model2vec model."""
    config = Path(model) / "config.json"
    return config.is_file() and "model2vec" in config.read_text(encoding="utf-8")


def _static(
    texts: Sequence[Sequence[str]], model: str | None
) -> tuple[list[np.ndarray], Embedding]:
    found = [static_embedding(list(source), model) for source in texts]
    embedding = Embedding(
        found[0].how,
        text=True,
        cut=tuple(len(one.cut) for one in found),
        unread=tuple(len(one.unread) for one in found),
    )
    return [one.vectors for one in found], embedding


def _given(sources: Sequence[Rows]) -> list[np.ndarray]:
    found = [rows.embedding for rows in sources if rows.embedding is not None]
    for rows, vectors in zip(sources, found, strict=True):
        if vectors.shape[1] != found[0].shape[1]:
            raise ValueError(
                f"{rows.origin}: Expected embeddings of dimension {found[0].shape[1]} as in "
                f"{sources[0].origin}; got {vectors.shape[1]}"
            )
    return found


def _latent_semantics(texts: Sequence[Sequence[str]], seed: int) -> tuple[list[np.ndarray], str]:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    pool = [text for source in texts for text in source]
    # Words that stand in one row relate it to no other. Function words stay: "you are" is what
    # tells a role-play from a code task (300 rows a side: 0.947 with them, 0.892 without). The
    # token pattern keeps single characters, so that no row of symbols is empty.
    for least in (2, 1):
        vectorizer = TfidfVectorizer(
            sublinear_tf=True, min_df=least, token_pattern=r"(?u)\w+|[^\w\s]", dtype=np.float64
        )
        try:
            weights = vectorizer.fit_transform(pool)
        except ValueError:
            continue
        if weights.shape[1] > 2:
            break
    else:
        raise ValueError("Expected rows that share some words; got texts without any in common")
    kept = min(LATENT_DIMENSIONS, weights.shape[1] - 1, weights.shape[0] - 1)
    vectors = TruncatedSVD(kept, random_state=seed % 2**32).fit_transform(weights)
    ends = np.cumsum([len(source) for source in texts])[:-1]
    return np.split(vectors, ends), f"TF-IDF and truncated SVD to {kept} dimensions"


def _encode(texts: list[str], *, model: str, mark: str, device: str) -> np.ndarray:
    """Embeddings of one shard: the unit of work of a cluster's workers."""
    encoder = _load(model, mark, device)
    parts = [
        encoder.encode(texts[first : first + _BATCH], show_progress_bar=False)
        for first in range(0, len(texts), _BATCH)
    ]
    return np.concatenate(parts).astype(np.float32)


@lru_cache(maxsize=1)
def _load(model: str, mark: str, device: str) -> Any:
    """The model, once in every process that embeds; `mark` changes with its files."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise ImportError(f"The embedding model {model} needs: pip install 'rbpp[text]'") from None
    try:
        return SentenceTransformer(model, device=device)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"Expected a sentence-transformers model (folder or hub name); got "
            f"{model}: {str(error).splitlines()[0]}"
        ) from error


def _cached(
    texts: Sequence[str], mark: str, folder: Path, encode: Callable[[list[str]], np.ndarray]
) -> np.ndarray:
    """Embeddings of a source from its file in the cache, which they enter if they are new."""
    key = hashlib.blake2b(digest_size=16)
    for part in (mark, *texts):
        key.update(len(part).to_bytes(8, "big") + part.encode("utf-8", "surrogatepass"))
    path = folder / f"{key.hexdigest()}.npy"
    try:
        vectors = np.load(path, allow_pickle=False)
        if vectors.ndim == 2 and len(vectors) == len(texts):
            return vectors
    except (OSError, ValueError, EOFError):
        pass  # absent, or cut short by whoever wrote it: made again below
    distinct = list(dict.fromkeys(texts))
    place = {text: index for index, text in enumerate(distinct)}
    vectors = encode(distinct)[[place[text] for text in texts]]
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as aside, aside.open("wb") as file:
        np.save(file, vectors, allow_pickle=False)
    return vectors


def _fingerprint(model: str) -> str:
    """The model's name, and for a folder the sizes and times of its files."""
    folder = Path(model)
    if not folder.is_dir():
        return model
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    marks = [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
    return "\n".join([str(folder.resolve()), *marks])


def _default_cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "rbpp" / "embeddings"
