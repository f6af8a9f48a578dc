"""Rows of real text: passages of the standard library's documentation strings, in characters.

Torch and NumPy are all that this folder needs where it generates and trains, so that these stages
run on a machine that has nothing else. The text comes from the Python that runs `corpus`.
"""

from __future__ import annotations

import ast
import json
import re
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

LENGTH = 64  # characters of a row
LETTERS = " abcdefghijklmnopqrstuvwxyz0123456789.,;:'()-_/=*%&<>[]`!?\"#"
SEPARATOR = len(LETTERS)  # stands before every row
TASK_MODULES = (
    *("fractions", "statistics", "numbers", "datetime", "heapq", "_pydecimal", "calendar"),
    *("random", "collections", "operator", "bisect", "colorsys", "queue", "zoneinfo", "_strptime"),
    *("functools", "copy", "enum", "difflib", "typing", "string", "textwrap", "pprint"),
    *("dataclasses", "weakref", "graphlib", "reprlib"),
)
OFF_TASK_MODULES = (
    *("smtplib", "ftplib", "imaplib", "poplib", "nntplib", "mailbox", "email", "http", "urllib"),
    *("socketserver", "xmlrpc", "ssl", "socket", "asyncio", "wsgiref"),
)
_LEFT_OUT = {"site-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}
# Rows that stand side by side go to one part: the next row would give half a sentence away.
_BLOCK = 4
_PARTS = {"seen": 0.35, "anchor": 0.2, "target": 0.2, "test": 0.25}
Rows = dict[str, np.ndarray]


def corpus(data: Sequence[Path], seed: int) -> Rows:
    """Rows of characters (N, 64) by part, and the module of every row.

    `seen`: of the task, for the generating model; `anchor`; `target`: real rows for predictions;
    `test`: real rows for outcomes; `off_task`: of other subjects, that the generating model has
    seen too; `general`: all else, which the model to be post-trained has seen as well.

    Args:
        data: files whose texts are the task, in place of documentation strings.
        seed: decides the parts.
    """
    chance = np.random.default_rng(seed)
    found: dict[str, list[np.ndarray]] = {name: [] for name in (*_PARTS, "off_task", "general")}
    origin: dict[str, list[np.ndarray]] = {name: [] for name in found}

    def add(part: str, rows: np.ndarray, module: int) -> None:
        found[part].append(rows)
        origin[part].append(np.full(len(rows), module))

    of_task = {f"data:{path.stem}" for path in data} or set(TASK_MODULES)
    for number, (module, text) in enumerate(_texts(data)):
        rows = rows_of(text)
        if len(rows) < 2 * _BLOCK:
            continue
        if module in OFF_TASK_MODULES:
            add("off_task", rows, number)
        elif module not in of_task:
            add("general", rows, number)
        else:
            blocks = [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]
            names = chance.choice(list(_PARTS), len(blocks), p=list(_PARTS.values()))
            for name, block in zip(names, blocks, strict=True):
                add(name, block, number)
    rows = {name: np.concatenate(parts) for name, parts in found.items()}
    return rows | {f"{name}_module": np.concatenate(parts) for name, parts in origin.items()}


def _texts(data: Sequence[Path]) -> Iterator[tuple[str, str]]:
    root = Path(sysconfig.get_paths()["stdlib"])
    by_module: dict[str, list[str]] = {}
    for path in sorted(root.rglob("*.py")):
        if _LEFT_OUT & set(path.relative_to(root).parts):
            continue
        module = path.relative_to(root).parts[0].removesuffix(".py")
        by_module.setdefault(module, []).extend(_documentation(path))
    for module, parts in by_module.items():
        yield module, " ".join(parts)
    for path in data:
        yield f"data:{path.stem}", " ".join(_strings_of(path))


def _strings_of(path: Path) -> Iterator[str]:
    """Running text of a file: all of it, or of JSON and JSON Lines every string of some words."""
    text = path.read_text(encoding="utf-8", errors="ignore")
    if path.suffix not in (".json", ".jsonl"):
        yield text
        return
    records = [text] if path.suffix == ".json" else text.splitlines()
    for record in records:
        yield from _strings(json.loads(record))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if value.count(" ") >= 4:
            yield value
    elif isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


def _documentation(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return
    for node in ast.walk(tree):
        if isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ) and (text := ast.get_docstring(node)):
            yield from _paragraphs(text)


def _paragraphs(text: str) -> Iterator[str]:
    """Running text: no examples, lists or signatures."""
    for paragraph in re.split(r"\n\s*\n", text):
        if not re.search(r">>>|^\s*[-*|]|::|^ {4}", paragraph, re.MULTILINE):
            running = " ".join(paragraph.split())
            if len(running) > 40:
                yield running


def rows_of(text: str) -> np.ndarray:
    """Whole words up to 64 characters a row, filled up with spaces: (N, 64) of letters' numbers."""
    rows, row = [], ""
    for word in text.lower().split():
        word = "".join(letter for letter in word if letter in LETTERS)[:LENGTH]
        if len(row) + 1 + len(word) > LENGTH:
            rows.append(row)
            row = word
        else:
            row = f"{row} {word}".strip()
    return encode(rows)


def encode(rows: Iterable[str]) -> np.ndarray:
    """Rows of at most 64 characters as numbers of letters."""
    place = {letter: number for number, letter in enumerate(LETTERS)}
    padded = [row[:LENGTH].ljust(LENGTH) for row in rows]
    return np.array([[place[letter] for letter in row] for row in padded], np.uint8).reshape(
        -1, LENGTH
    )


def decode(rows: np.ndarray) -> list[str]:
    """The text of rows, spaces at the end left out."""
    return ["".join(LETTERS[number] for number in row).rstrip() for row in rows]


def damaged(rows: np.ndarray, share: float, kind: str, chance: np.random.Generator) -> np.ndarray:
    """Curation noise: a share of the words of every row dropped, or put in random places."""
    if share == 0:
        return rows
    texts = []
    for text in decode(rows):
        words = text.split()
        touched = chance.random(len(words)) < share
        if kind == "dropped":
            words = [word for word, gone in zip(words, touched, strict=True) if not gone]
        else:
            places = np.flatnonzero(touched)
            moved = [words[place] for place in chance.permutation(places)]
            for place, word in zip(places, moved, strict=True):
                words[place] = word
        texts.append(" ".join(words))
    return encode(texts)
