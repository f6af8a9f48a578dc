"""A sentence-transformers model, and the cache of what it has embedded."""

from __future__ import annotations

import hashlib
import os
import urllib.request
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from rbpp.files import keep_arrays, kept_arrays

# Texts that a model sees at once.
_BATCH = 64
# Seconds within which a hub has to answer.
_PATIENCE = 8.0


def encode(model: str, mark: str, device: str, texts: list[str]) -> np.ndarray:
    """Embeddings of one shard (n, D + 1): the unit of work of a cluster's workers.

    The last column is one where a text is longer than the model reads.
    """
    encoder = load(model, mark, device)
    parts = [
        encoder.encode(texts[first : first + _BATCH], show_progress_bar=False)
        for first in range(0, len(texts), _BATCH)
    ]
    vectors = np.concatenate(parts).astype(np.float32)
    return np.concatenate([vectors, _cut(encoder, texts)[:, None]], 1)


@lru_cache(maxsize=1)
def load(model: str, mark: str, device: str) -> Any:
    """The model, once in every process that embeds; `mark` changes with its files.

    Raises:
        ImportError: naming the packages to install.
        ValueError: if there is no such model, or the hub does not answer.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise ImportError(
            f"The embedding model {model} needs: pip install sentence-transformers"
        ) from None
    if not Path(model).is_dir() and _snapshot(model) is None:
        check_hub(model)
    try:
        return SentenceTransformer(model, device=device)
    except Exception as error:
        lines = str(error).strip().splitlines()
        raise ValueError(
            f"Expected a sentence-transformers model (folder or hub name); got "
            f"{model}: {(lines or [type(error).__name__])[0][:160]}"
        ) from error


def check_hub(model: str) -> None:
    """Refuse a name on a hub that does not answer, before minutes of further tries.

    Raises:
        ValueError: naming the model and the hub.
    """
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        request = urllib.request.Request(hub, method="HEAD")
        with urllib.request.urlopen(request, timeout=_PATIENCE):
            return
    except (OSError, ValueError) as error:
        if getattr(error, "code", None) is not None:  # an answer, if not a friendly one
            return
        raise ValueError(
            f"Expected an embedding model that is on this machine, or a hub that answers; got "
            f"{model}, and no answer from {hub}: give the folder of a model"
        ) from error


def cached(
    texts: Sequence[str],
    mark: str,
    folder: Path | str | None,
    encode_texts: Callable[[list[str]], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of a source and which of its texts are cut, from the cache where they are there.

    An entry that is damaged or of other content is made again; a cache that cannot be written costs
    a warning.
    """
    key = hashlib.blake2b(digest_size=16)
    for part in (mark, *texts):
        content = part.encode("utf-8", "surrogatepass")
        key.update(len(content).to_bytes(8, "big") + content)
    path: Path | None = None
    try:
        path = _folder(folder) / f"{key.hexdigest()}.npz"
        found = (kept_arrays(path) or {}).get("rows")
        if found is not None and len(found) == len(texts):
            return found[:, :-1], found[:, -1] > 0
    except (OSError, RuntimeError) as error:
        _warn(folder, error)
        path = None
    distinct = list(dict.fromkeys(texts))
    place = {text: index for index, text in enumerate(distinct)}
    made = encode_texts(distinct)[[place[text] for text in texts]]
    if not np.isfinite(made).all():
        raise ValueError("Expected finite embeddings of every text; got others from the model")
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            keep_arrays(path, {"rows": made})
        except OSError as error:
            _warn(path.parent, error)
    return made[:, :-1], made[:, -1] > 0


def fingerprint(model: str) -> str:
    """The model's name; of a folder the sizes and times of its files, of a hub's its commit."""
    folder = Path(model)
    if not folder.is_dir():
        return f"{model} {_snapshot(model) or ''}".strip()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    marks = [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
    return "\n".join([str(folder.resolve()), *marks])


def _cut(encoder: Any, texts: Sequence[str]) -> np.ndarray:
    """One for every text of more word pieces than the model reads (n,)."""
    limit, tokenizer = getattr(encoder, "max_seq_length", None), getattr(encoder, "tokenizer", None)
    cut = np.zeros(len(texts), np.float32)
    if limit is None or tokenizer is None:
        return cut
    # A piece has a character at least: shorter texts need not be looked at.
    long = [index for index, text in enumerate(texts) if len(text) + 2 > limit]
    if long:
        pieces = tokenizer([texts[index] for index in long], truncation=False, verbose=False)
        for index, found in zip(long, pieces["input_ids"], strict=True):
            cut[index] = len(found) > limit
    return cut


def _snapshot(model: str) -> str | None:
    """The commit of a hub's model that is on this machine."""
    home = os.environ.get("HF_HOME") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "huggingface"
    )
    hub = Path(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub"))
    names = [model] if "/" in model else [f"sentence-transformers/{model}", model]
    for name in names:
        try:
            reference = hub / f"models--{name.replace('/', '--')}" / "refs" / "main"
            return reference.read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            continue
    return None


def _folder(given: Path | str | None) -> Path:
    if given is not None:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rbpp" / "embeddings"


def _warn(place: object, error: Exception) -> None:
    reason = getattr(error, "strerror", None) or error
    warnings.warn(f"embeddings are not kept: {place or 'no home'}: {reason}", stacklevel=3)
