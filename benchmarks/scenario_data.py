"""Rows with a known share off task: real and generated texts, and what is planted among them.

Every scenario has target rows of one author and synthetic rows of the same or of another author, of
which a known share is foreign:

- far: rows of another task by the author of the synthetic rows;
- mid: rows of a related task (reviews of businesses among those of films, general news among
  financial headlines, general instructions among code tasks);
- near: rows of a class of the same task that the target lacks, by the same author.

The folder is the one of `truth.py`, with `outcomes/` (kinit-sk/LLM-div-incts, arXiv 2401.06643) in
it.
The halves are fixed: whatever was chosen was chosen on HALVES["choose"], and HALVES["report"] is
what the page shows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

HALVES = {"choose": ("fb", "ag_news", "code"), "report": ("yelp", "sst5", "headlines")}
SHARES = (0.0, 0.05, 0.2, 0.4)
# (task, author of the target, author of the synthetic rows)
PAIRS = {
    "fb": (("people", "gpt4"), ("llama", "play")),
    "ag_news": (("people", "mistral"), ("gpt", "llama")),
    "code": (("davinci", "gpt4"),),
    "yelp": (("people", "gpt"), ("llama", "gpt4")),
    "sst5": (("people", "llama"), ("mistral", "gpt4")),
    "headlines": (("people", "qwen2.5-32b"), ("llama3.1-8b", "qwen2.5-7b")),
}
SAME = {
    "fb": "people",
    "ag_news": "gpt",
    "code": "davinci",
    "yelp": "people",
    "sst5": "gpt4",
    "headlines": "qwen2.5-7b",
}
FAR = {
    "fb": "ag_news",
    "ag_news": "yelp",
    "code": "roleplay",
    "yelp": "ag_news",
    "sst5": "fb",
    "headlines": "fb",
}
MID = {"yelp": "sst5", "sst5": "yelp", "headlines": "ag_news", "ag_news": "headlines"}
# Who stands in where an author did not write the foreign task.
STAND_IN = {"qwen2.5-32b": "gpt", "qwen2.5-7b": "llama", "llama3.1-8b": "llama", "davinci": "gpt4"}
# Classes with fewer real rows than this are no part of a task here.
LEAST_OF_A_CLASS = 100


@dataclass(frozen=True)
class Scenario:
    """Texts with a known answer.

    Attributes:
        name: task, authors, content and draw.
        author: "same" or "other".
        content: "far", "mid" or "near".
        target, synthetic: texts.
        foreign: which synthetic rows are foreign, (n,).
        labels: classes of the target's rows, or None.
    """

    name: str
    author: str
    content: str
    target: list[str]
    synthetic: list[str]
    foreign: np.ndarray
    labels: np.ndarray | None

    @property
    def share(self) -> float:
        """The true share of foreign rows."""
        return float(self.foreign.mean())


class Texts:
    """Texts by task and author, with classes where they have them; read once from a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cache  # noqa: B019 - one instance a run
    def of(self, task: str, author: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Distinct texts (n,), and their classes."""
        if task in ("code", "roleplay", "general"):
            return self._instructions(task, author), None
        rows = self._headlines(author) if task == "headlines" else self._outcomes(task, author)
        texts: dict[str, str] = {}
        for text, label in rows:
            texts.setdefault(text, label)
        return np.array(list(texts), dtype=object), np.array(list(texts.values()))

    def _instructions(self, task: str, author: str) -> np.ndarray:
        file = {
            "code": {"davinci": "code_alpaca_2k.json", "gpt4": "gpt4_codegen.json"}.get(author),
            "roleplay": "gpt4_roleplay.json",
        }.get(task)
        if file is None:
            found = []
            for name in ("self_instruct_seed_tasks.jsonl", "user_oriented_instructions.jsonl"):
                lines = (self.folder / name).read_text(encoding="utf-8").splitlines()
                found += [json.loads(line)["instruction"] for line in lines]
        else:
            found = [row["instruction"] for row in json.loads((self.folder / file).read_text())]
        return np.array(list(dict.fromkeys(found)), dtype=object)

    def _headlines(self, author: str) -> list[tuple[str, str]]:
        folder = self.folder / "synque_sentiment"
        files = (
            [folder / "real" / "balanced_real.json"]
            if author == "people"
            else sorted((folder / "synthetic").glob(f"{author}_*.json"))
        )
        rows = [row for file in files for row in json.loads(file.read_text())]
        return [(row["headline"], str(row["sentiment"])) for row in rows if row["headline"]]

    def _outcomes(self, task: str, author: str) -> list[tuple[str, str]]:
        real, sets = _tables(self.folder / "outcomes")
        own = real[real.task == task]
        counts = own.label.value_counts()
        kept = set(counts.index[counts >= LEAST_OF_A_CLASS])
        if author != "people":
            own = sets[sets.set.str.startswith(f"{task}/{author}/")]
        own = own[own.label.isin(kept)]
        return list(zip(own.text, own.label.astype(str), strict=True))


@lru_cache(maxsize=1)
def _tables(folder: Path):
    import pandas as pd

    real = pd.read_parquet(folder / "real.parquet").astype({"label": str})
    return real, pd.read_parquet(folder / "sets.parquet").astype({"label": str})


def scenarios(
    texts: Texts,
    half: str,
    *,
    author: str = "other",
    contents: tuple[str, ...] = ("far", "mid", "near"),
    sizes: tuple[int, int] = (300, 300),
    shares: tuple[float, ...] = SHARES,
    draws: int = 1,
    seed: int = 0,
):
    """The scenarios of a half, one at a time.

    Args:
        texts: of the folder.
        half: "choose" or "report".
        author: whether both sources have one author.
        contents: kinds of foreign rows.
        sizes: rows of the target and of the synthetic file, fewer where there are not so many.
        shares: of foreign rows.
        draws: of every scenario.
        seed: of the draws.
    """
    for task in HALVES[half]:
        pairs = PAIRS[task] if author == "other" else ((SAME[task], SAME[task]),)
        for number, (of_target, of_synthetic) in enumerate(pairs):
            for content in contents:
                for draw in range(draws):
                    random = np.random.default_rng(
                        [seed, draw, number, *map(ord, task + content), *sizes]
                    )
                    found = _pool(texts, task, of_target, of_synthetic, content, random)
                    if found is None:
                        continue
                    name = f"{task} {of_target}→{of_synthetic} {content} {draw}"
                    for share in shares:
                        if share == 0 and task == "code" and author == "other":
                            continue  # GPT-4's web tasks are foreign to davinci's as they are
                        yield _draw(name, author, content, found, sizes, share, random)


def _pool(texts, task, of_target, of_synthetic, content, random):
    """Target texts and classes, clean synthetic texts, and foreign ones; None if there are none."""
    target, labels = texts.of(task, of_target)
    clean, clean_labels = texts.of(task, of_synthetic)
    if content == "near":
        if labels is None:
            return None
        counts = {label: int((labels == label).sum()) for label in np.unique(labels)}
        left_out = random.choice(sorted(counts))
        foreign = clean[clean_labels == left_out]
        clean = clean[clean_labels != left_out]
        target, labels = target[labels != left_out], labels[labels != left_out]
    else:
        other = (FAR if content == "far" else MID).get(task)
        if content == "mid" and task == "code":
            other = "general"
        if other is None:
            return None
        writer = of_synthetic
        if task in ("headlines", "code") or other in ("headlines", "roleplay", "general"):
            writer = STAND_IN.get(of_synthetic, of_synthetic)
        if other == "headlines":
            writer = {"people": "people", "mistral": "qwen2.5-7b", "llama": "llama3.1-8b"}.get(
                of_synthetic, "qwen2.5-32b"
            )
        foreign, _ = texts.of(other, writer)
    return target, labels, clean, foreign, of_target == of_synthetic


def _draw(name, author, content, found, sizes, share, random) -> Scenario:
    target, labels, clean, foreign, shared = found
    wanted, size = sizes
    if shared:
        # One author: two parts of the same texts, disjoint.
        order = random.permutation(len(target))
        half = len(order) // 2
        clean = target[order[half:]]
        target = target[order[:half]]
        labels = None if labels is None else labels[order[:half]]
    size = min(size, int(len(clean) / (1 - share)), int(len(foreign) / max(share, 1e-9)))
    extra = round(share * size)
    chosen = random.permutation(len(target))[:wanted]
    rows = [*random.permutation(clean)[: size - extra], *random.permutation(foreign)[:extra]]
    marks = np.arange(size) >= size - extra
    order = random.permutation(size)
    return Scenario(
        name,
        author,
        content,
        list(target[chosen]),
        [rows[i] for i in order],
        marks[order],
        None if labels is None else labels[chosen],
    )
