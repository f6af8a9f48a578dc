"""Rows to vectors: numbers as they are, text by TF-IDF or a sentence-transformers model."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from rbpp.compute import Compute
from rbpp.data import embedding_model, measurements
from rbpp.data.rows import Rows, refuse_absent
from rbpp.data.source_files import refuse
from rbpp.data.static_embedding import DEFAULT, POTION, static_embedding

# Latent semantic dimensions kept of TF-IDF: neighbourhoods are sharper in 100 than in 30 (1,000
# code tasks with 5 % role-play among them against 1,000 without: area under the ROC curve of the
# share of neighbours 0.978 and 0.990).
LATENT_DIMENSIONS = 100
# Texts of a task.
_SHARD = 256
# Thai, Lao, Myanmar, Khmer, kana, Han with its extensions: scripts without spaces between words.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U000323af"
)
_RUNS = re.compile(f"[{_UNSPACED}]+")
_TOKENS = re.compile(rf"[{_UNSPACED}]+|[^\W{_UNSPACED}]+|[^\w\s]")


LEXICAL = "tfidf"
# Rows of a source that are looked at, and how many there have to be; what share of the rows has a
# word of a template, and what share of a row they are. Of English instructions and answers 0.1 to
# 0.4 are words that 80 % of the rows have.
_LOOKED_AT, _LEAST_ROWS, _IN_ALL, _TEMPLATE = 300, 40, 0.8, 0.7


@dataclass(frozen=True)
class Representation:
    """How rows become numbers.

    Attributes:
        model: of text: `"wordllama"`, the default, `"potion-base-8M"` or a folder of a model2vec
            model (see `rbpp.data.static_embedding`); `"tfidf"`, TF-IDF and truncated SVD, fitted on
            the rows of all sources together; or a sentence-transformers model, a folder or the name
            of one on the hub.
        dimension: principal components d; `rbpp.data.reduce.dimension_rule` by default.
        cache: folder of embeddings of a sentence-transformers model, keyed by text and model; by
            default `$XDG_CACHE_HOME/rbpp/embeddings`.
    """

    model: str | None = None
    dimension: int | None = None
    cache: Path | str | None = None


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
    representation: Representation | None = None,
    compute: Compute | None = None,
) -> tuple[list[np.ndarray], Embedding]:
    """Vectors (n, D) of the rows of every source, and how they were made.

    Args:
        sources: all with text, or all with embeddings.
        representation: the model of text and its cache; principal components come later.
        compute: where the model runs, workers over shards of text, progress, and the seed of the
            randomised SVD.

    Raises:
        ValueError: if some sources have text and some embeddings, embeddings differ in dimension,
            columns differ in their names, or a model is named for rows without text.
        ImportError: naming the packages to install, if a model is named and its package is absent.

    Warns:
        UserWarning: if rows are longer than the model reads, or are mostly one template, which
            TF-IDF then reads in place of the default.
    """
    representation = representation or Representation()
    model = representation.model
    refuse_absent(sources)
    notes = "".join(f"; {note}" for rows in sources for note in rows.notes)
    with_text = [rows for rows in sources if rows.text is not None]
    if not with_text:
        if model is not None:
            raise ValueError(
                f"Expected text for the embedding model {model}; got embeddings in "
                f"{sources[0].origin}"
            )
        numbers, how = _of_numbers(sources)
        return numbers, Embedding(how + notes)
    if len(with_text) != len(sources):
        other = next(rows for rows in sources if rows.text is None)
        raise ValueError(
            f"Expected text in all sources or embeddings in all; got text in "
            f"{with_text[0].origin} and embeddings in {other.origin}"
        )
    _refuse_other_roles(sources)
    texts = [rows.text for rows in sources if rows.text is not None]
    if model != LEXICAL and (share := _template(texts)) >= _TEMPLATE:
        hides = f"{share:.0%} of a row are words that nearly all rows have, as of a preamble or a"
        way = "leave it out of the text, or name model='tfidf', which weighs such words"
        if model is None:  # the default is ours to choose
            model, way = LEXICAL, "it is read by TF-IDF, which weighs such words little"
        warnings.warn(f"{hides} template, and hide what differs: {way}", stacklevel=2)
        notes += f"; {share:.0%} of a row are words that nearly all rows have"
    if model is None or model in (DEFAULT, POTION) or _is_static(model):
        vectors, embedding = _static(texts, model)
    elif model == LEXICAL:
        vectors, how = _latent_semantics(texts, Compute.of(compute).seed)
        for rows, part in zip(sources, vectors, strict=True):
            if np.abs(part - part[0]).max() < 1e-9:
                got = f"{len(rows)} that cannot be told apart by theirs"
                refuse(f"{rows.origin} ({rows.source})", "rows that share words with others", got)
        embedding = Embedding(how, text=True, lexical=True)
    else:
        vectors, cuts = _by_model(texts, model, representation.cache, Compute.of(compute))
        how = f"sentence-transformers {model}"
        for rows, cut in zip(sources, cuts, strict=True):
            if cut.any():
                longer = f"{int(cut.sum())} of {len(cut)} rows of {rows.source}"
                how += f"; {longer} cut at what the model reads"
                warnings.warn(
                    f"{rows.origin}: {longer} are longer than {model} reads, and their ends are "
                    "not seen: name a model for longer texts, or tfidf, which reads all",
                    stacklevel=2,
                )
        embedding = Embedding(how, text=True, cut=tuple(int(cut.sum()) for cut in cuts))
    return vectors, replace(embedding, how=embedding.how + notes)


def _template(texts: Sequence[Sequence[str]]) -> float:
    """What share of a row are words that nearly all rows have; 0 of too few rows.

    A vector of a whole text may be one of its template: of 320 words from a preamble in front of
    40 others, the default model saw 4 % off the task where 31 % were, and TF-IDF 31 %.
    """
    distinct = dict.fromkeys(text for source in texts for text in source[:_LOOKED_AT])
    rows = [_tokens(text) for text in distinct]
    if len(rows) < _LEAST_ROWS:
        return 0.0
    often = Counter(word for row in rows for word in set(row))
    common = {word for word, count in often.items() if count >= _IN_ALL * len(rows)}
    return float(np.median([sum(word in common for word in row) / len(row) for row in rows if row]))


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


def _by_model(
    texts: Sequence[list[str]], model: str, cache: Path | str | None, compute: Compute
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Vectors of every source, and which of its rows are cut."""
    mark = embedding_model.fingerprint(model)
    work = partial(embedding_model.encode, model, mark, compute.device)

    def encode(distinct: list[str]) -> np.ndarray:
        shards = [distinct[first : first + _SHARD] for first in range(0, len(distinct), _SHARD)]
        return np.concatenate(list(compute.each(work, shards, "embedding")))

    try:
        found = [embedding_model.cached(text, mark, cache, encode) for text in texts]
        return [vectors for vectors, _ in found], [cut for _, cut in found]
    finally:
        embedding_model.load.cache_clear()


def _of_numbers(sources: Sequence[Rows]) -> tuple[list[np.ndarray], str]:
    """Coordinates of tables and arrays, in the order of the first source's columns."""
    parts: list[np.ndarray] = []
    names, kinds = sources[0].columns, sources[0].categories
    for rows in sources:
        part = rows.embedding
        assert part is not None
        if set(rows.categories) != set(kinds) or (
            names is not None and rows.columns is not None and set(rows.columns) != set(names)
        ):
            mine = {*(names or ()), *kinds}
            differ = sorted({*(rows.columns or ()), *rows.categories} ^ mine) or sorted(kinds)
            expected = f"the columns of {sources[0].origin}, numbers or categories as there"
            refuse(rows.origin, expected, f"a difference in {', '.join(map(repr, differ))}")
        if names is not None and rows.columns is not None:
            part = part[:, [rows.columns.index(name) for name in names]]
        elif part.shape[1] != parts[0].shape[1] if parts else False:
            expected = f"embeddings of dimension {parts[0].shape[1]} as in {sources[0].origin}"
            refuse(rows.origin, expected, part.shape[1])
        measurements.refuse_far_rows(f" of {rows.origin}", part)
        parts.append(part)
    if kinds:
        return measurements.encoded(parts, [rows.categories for rows in sources])
    made, how = measurements.standardised(parts, names, sources[0].standardise)
    return made, how or "embeddings as given"


def _refuse_other_roles(sources: Sequence[Rows]) -> None:
    """Refuse a place of chat records that is another role's in another source."""
    for rows in sources:
        for name, role in rows.roles.items():
            first = sources[0].roles.get(name, role)
            if role != first:
                turns = name.split(".")[0]
                refuse(
                    f"{rows.origin}, field {name!r}",
                    f"turns of the {first} as in {sources[0].origin}",
                    f"those of the {role}: name the role, {turns}.user or {turns}.assistant",
                )


def _latent_semantics(texts: Sequence[Sequence[str]], seed: int) -> tuple[list[np.ndarray], str]:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    pool = [text for source in texts for text in source]
    unspaced = any(_RUNS.search(text) for text in pool)
    # Words that stand in one row relate it to no other. Function words stay: "you are" is what
    # tells a role-play from a code task (300 rows a side: 0.947 with them, 0.892 without). The
    # token pattern keeps single characters, so that no row of symbols is empty.
    words = {"analyzer": _tokens} if unspaced else {"token_pattern": r"(?u)\w+|[^\w\s]"}
    for least in (2, 1):
        vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=least, dtype=np.float64, **words)
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
    kind = "TF-IDF (pairs of characters where words have no spaces)" if unspaced else "TF-IDF"
    return np.split(vectors, ends), f"{kind} and truncated SVD to {kept} dimensions"


def _tokens(text: str) -> list[str]:
    """Words and symbols; of scripts without spaces every two neighbouring characters.

    >>> _tokens("Ab 素数和")
    ['ab', '素数', '数和']
    """
    found = []
    for token in _TOKENS.findall(text.lower()):
        if len(token) > 1 and _RUNS.match(token):
            found += [token[place : place + 2] for place in range(len(token) - 1)]
        else:
            found.append(token)
    return found
