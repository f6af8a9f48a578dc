"""Text to vectors by a table of token vectors: no network, no torch, a few thousand rows a second.

A row's vector is the mean of its tokens' vectors, at unit length. The tables come from language
models by distillation, so that words that mean the same have vectors that are near.

- WordLlama's table lies in its wheel: 32,000 tokens of Llama 2 in 256 dimensions. What its
  vocabulary lacks it reads byte by byte, so that no language is without tokens. It cuts nothing.
- A folder of model2vec (`model.safetensors`, `tokenizer.json`, `config.json`), which the user
  names, such as potion-base-8M. Vocabularies of English models read most of Chinese, Japanese and
  Thai as one unknown token.

Lee Miller, WordLlama (2024), https://github.com/dleemiller/WordLlama; Stephan Tulkens and Thomas
van Dongen, Model2Vec (2024), https://github.com/MinishLab/model2vec.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

# Chosen on the scenarios of docs/measurements/scenarios.md, on the half that is not reported there,
# and on rows in languages without spaces; the page has the figures.
DEFAULT = "wordllama"
POTION = "potion-base-8M"
_BATCH = 512
_INSTALL = "pip install wordllama"


@dataclass(frozen=True)
class StaticEmbedding:
    """Vectors of texts, and what the model did not see of them.

    Attributes:
        vectors: (n, D), float32, at unit length; zero for rows without a known token.
        cut: indices of the rows that are longer than the model reads.
        unread: indices of the rows without any token that the model knows.
        how: the model, in words.
    """

    vectors: np.ndarray
    cut: np.ndarray
    unread: np.ndarray
    how: str


@dataclass(frozen=True)
class _Table:
    tokenizer: Any
    vectors: np.ndarray
    unknown: int | None
    limit: int | None
    how: str


def static_embedding(texts: Sequence[str], model: str | Path | None = None) -> StaticEmbedding:
    """Mean token vectors at unit length, e(x) = Σ_t v_t / |Σ_t v_t|.

    Args:
        texts: rows (n,).
        model: a folder of a model2vec model; `"wordllama"`, the default; or `"potion-base-8M"`
            where the wheel of mostlyai-qa is installed, which carries it.

    Raises:
        ValueError: if the folder holds no such model, or there are no texts.
        ImportError: naming what to install, if the model's package is absent.
    """
    if isinstance(texts, str) or not len(texts):
        raise ValueError(f"Expected one text or more; got {texts!r}")
    table = _load(str(DEFAULT if model is None else model))
    found = np.zeros((len(texts), table.vectors.shape[1]), dtype=np.float32)
    cut, unread = [], []
    for first in range(0, len(texts), _BATCH):
        batch = [str(text) for text in texts[first : first + _BATCH]]
        encoded = table.tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        for row, entry in enumerate(encoded, first):
            tokens = np.asarray(entry.ids, dtype=np.int64)
            if table.limit is not None and len(tokens) > table.limit:
                cut.append(row)
                tokens = tokens[: table.limit]
            if table.unknown is not None:
                tokens = tokens[tokens != table.unknown]
            total = table.vectors[tokens].sum(0, dtype=np.float64)
            length = float(np.linalg.norm(total))
            if length > 0:
                found[row] = total / length
            else:
                unread.append(row)
    return StaticEmbedding(found, np.array(cut, int), np.array(unread, int), table.how)


def potion_folder() -> Path | None:
    """The folder of potion-base-8M in the wheel of mostlyai-qa, or None."""
    package = _package("mostlyai")
    folder = None if package is None else package / "qa" / "assets" / "embedders" / POTION
    return folder if folder is not None and folder.is_dir() else None


@lru_cache(maxsize=2)
def _load(model: str) -> _Table:
    if model == "wordllama":
        return _wordllama()
    folder = potion_folder() if model == POTION and not Path(model).is_dir() else Path(model)
    if folder is None:
        raise ImportError(f"The embedding model {model} needs: pip install --no-deps mostlyai-qa")
    return _model2vec(folder)


def _wordllama() -> _Table:
    # The files are read without the package: its import sets up the logging of the whole process,
    # and its `load` looks for the tokenizer in a folder that the wheel does not have.
    package = _package("wordllama")
    if package is None:
        raise ImportError(f"The default embedding of text needs: {_INSTALL}")
    weights = package / "weights" / "l2_supercat_256.safetensors"
    tokenizer = package / "tokenizers" / "l2_supercat_tokenizer_config.json"
    if not weights.is_file() or not tokenizer.is_file():
        raise ImportError(f"The package at {package} has no weights; reinstall: {_INSTALL}")
    vectors = _tensors(weights)["embedding.weight"]
    return _Table(_tokenizer(tokenizer), vectors, None, None, "WordLlama, 256 dimensions")


def _model2vec(folder: Path) -> _Table:
    names = ("model.safetensors", "tokenizer.json", "config.json")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"Expected a model2vec model in {folder}; got no {', '.join(missing)}")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tensors = _tensors(folder / "model.safetensors")
    if "embeddings" not in tensors:
        raise ValueError(f"Expected a model2vec model in {folder}; got tensors {sorted(tensors)}")
    vectors = tensors["embeddings"]
    # Newer models share vectors between tokens, or weigh tokens.
    if "mapping" in tensors:
        vectors = vectors[tensors["mapping"].astype(int)]
    if "weights" in tensors:
        vectors = vectors * tensors["weights"][:, None]
    tokenizer = _tokenizer(folder / "tokenizer.json")
    unknown = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    token = unknown.get("unk_token")
    number = tokenizer.token_to_id(token) if token else None
    # As model2vec itself reads a model: 512 tokens unless its configuration says otherwise.
    limit = config.get("max_length", 512)
    return _Table(tokenizer, vectors, number, limit, f"model2vec {folder.name}")


def _tokenizer(path: Path) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _tensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return {name: array.astype(np.float32) for name, array in load_file(path).items()}


def _package(name: str) -> Path | None:
    """Where a package lies, without importing it."""
    found = importlib.util.find_spec(name)
    places = [] if found is None else list(found.submodule_search_locations or [])
    return Path(places[0]) if places else None
