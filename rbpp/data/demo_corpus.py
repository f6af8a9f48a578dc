"""Real text without a file or a network, with a generator whose off-task share is known.

The task is what the Python standard library's documentation strings say of numbers, dates, text
and containers. The anchors are passages of some modules; the held-out target has others of those
and of further modules. The generator is a small n-gram language model with a part for every module,
trained on the spot on the task's subjects and on mail and network protocols, so that it has parts
that the task has not. It is prompted with the anchors, a filter curates what it answers, and it
records which part of it every sample came from.
"""

from __future__ import annotations

import ast
import importlib.util
import random
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rbpp.randomness import spawn

ANCHOR_MODULES = ("fractions", "statistics", "numbers", "datetime", "heapq")
TARGET_MODULES = (
    "_pydecimal calendar random collections operator bisect colorsys queue zoneinfo _strptime "
    "functools copy enum difflib typing string textwrap pprint dataclasses weakref graphlib reprlib"
).split()
OFF_TASK_MODULES = (
    "smtplib ftplib imaplib poplib nntplib mailbox email http urllib socketserver xmlrpc ssl "
    "socket asyncio wsgiref"
).split()
# How often a sample comes from the off-task part, prompted and not: the prompt helps, but not
# enough.
PROMPTED_SHARE, UNPROMPTED_SHARE = 0.3, 0.6
# How often an answer on the task stays with the subject of its prompt; else it takes another.
_FAITHFUL = 0.25
# More samples than passages were read would recite each many times, in places of their own.
_SAMPLES, _UNPROMPTED = 600, 300
_ORDER = 3
_WORDS = range(5, 41)
# A row is a passage of sentences up to this many words: one sentence alone ("Return the value.")
# says too little of its subject.
_PASSAGE = 40
_END = ""
# What the filter knows of the off-task part: enough to lower its share, not to remove it.
_BLOCKED = re.compile(r"\b(smtp|ftp|imap|pop3|nntp|http|mail|url|ssl)", re.IGNORECASE)
_WORD = re.compile(r"[\w'-]+|[^\w\s]")


@dataclass(frozen=True)
class DemoCorpus:
    """The built-in corpus.

    Attributes:
        sources: records with `id` and `text` by role: anchor, target, output (before the filter),
            unprompted, and synthetic (after the filter).
        off_task: of every synthetic row, whether it came from the generator's off-task part.
        modules: those found of the anchors, the target and the off-task part.
    """

    sources: dict[str, list[dict[str, str]]]
    off_task: list[bool]
    modules: dict[str, list[str]]

    @property
    def off_task_share(self) -> float:
        """The true share of off-task rows: what `irrelevant_share` should find."""
        return sum(self.off_task) / len(self.off_task)


class NGrams:
    """An n-gram language model that backs off to shorter contexts where it has seen too little."""

    def __init__(self, sentences: Iterable[str]) -> None:
        self.followers: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for sentence in sentences:
            words = [_END] * _ORDER + _WORD.findall(sentence) + [_END]
            for end in range(_ORDER, len(words)):
                for length in range(_ORDER + 1):
                    self.followers[tuple(words[end - length : end])].append(words[end])

    def sample(self, start: list[str], chance: random.Random) -> str:
        """A sentence that begins with `start`, as far as the model can go on from it."""
        words = [_END] * _ORDER + start
        while len(words) < _ORDER + max(_WORDS):
            for length in range(_ORDER, -1, -1):
                options = self.followers.get(tuple(words[len(words) - length :]))
                # One follower alone would recite the training text; mostly it may.
                if options and (length == 0 or len(options) > 1 or chance.random() < 0.7):
                    break
            assert options
            word = chance.choice(options)
            if word == _END:
                break
            words.append(word)
        return _joined(words[_ORDER:])


def demo_corpus(seed: int = 0) -> DemoCorpus:
    """Read the documentation strings, train the generator, prompt it, curate what it answers.

    Args:
        seed: decides every random choice.

    Raises:
        ValueError: if the standard library has no readable sources here.
    """
    chance = random.Random(spawn(seed, "demo corpus"))
    found = {
        "anchor": _passages(ANCHOR_MODULES),
        "target": _passages(TARGET_MODULES),
        "off-task": _passages(OFF_TASK_MODULES),
    }
    seen: dict[str, list[str]] = {}
    held_out: list[str] = []
    for part, by_module in found.items():
        count = sum(len(passages) for passages in by_module.values())
        if count < 50:
            raise ValueError(
                f"Expected documentation strings of the standard library for the {part} part; "
                f"got {count} passages"
            )
        for module, passages in by_module.items():
            chance.shuffle(passages)
            # Half of the task's passages are held out: the generator has never seen them.
            half = (len(passages) + 1) // 2 if part != "off-task" else len(passages)
            seen[module] = passages[:half]
            held_out += passages[half:]
    models = {module: NGrams(passages) for module, passages in seen.items()}
    prompts = [(module, text) for module in found["anchor"] for text in seen[module]]

    def any_of(modules: Iterable[str]) -> str:
        names = list(modules)
        return chance.choices(names, [len(seen[name]) for name in names])[0]

    def generate(share: float, prompt: tuple[str, str] | None) -> tuple[str, bool]:
        off_task = chance.random() < share
        start: list[str] = []
        if off_task:
            module = any_of(found["off-task"])
        elif prompt is not None and chance.random() < _FAITHFUL:
            module, start = prompt[0], _WORD.findall(prompt[1])[:1]
        else:
            module = any_of([*found["anchor"], *found["target"]])
        text = models[module].sample(start, chance)
        while len(_WORD.findall(text)) < _PASSAGE:
            text = f"{text} {models[module].sample([], chance)}"
        return text, off_task

    output = [generate(PROMPTED_SHARE, chance.choice(prompts)) for _ in range(_SAMPLES)]
    unprompted = [generate(UNPROMPTED_SHARE, None) for _ in range(_UNPROMPTED)]
    curated = {text: off_task for text, off_task in output if len(_BLOCKED.findall(text)) < 2}
    texts = {
        "anchor": [text for _, text in prompts],
        "target": held_out,
        "output": [text for text, _ in output],
        "unprompted": [text for text, _ in unprompted],
        "synthetic": list(curated),
    }
    return DemoCorpus(
        {
            role: [{"id": f"{role}-{place}", "text": text} for place, text in enumerate(rows)]
            for role, rows in texts.items()
        },
        list(curated.values()),
        {part: list(by_module) for part, by_module in found.items()},
    )


def _passages(modules: Iterable[str]) -> dict[str, list[str]]:
    """Passages of the documentation strings, by module; modules not found are left out."""
    found = {}
    for name in modules:
        passages, length = [""], 0
        for path in _files(name):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(
                    node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
                ):
                    continue
                for sentence in _sentences(ast.get_docstring(node) or ""):
                    passages[-1] = f"{passages[-1]} {sentence}".strip()
                    length += len(_WORD.findall(sentence))
                    if length >= _PASSAGE:
                        passages.append("")
                        length = 0
        if len(passages) > 1:  # the last is unfinished
            found[name] = list(dict.fromkeys(passages[:-1]))
    return found


def _files(module: str) -> list[Path]:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return []
    path = Path(spec.origin)
    return sorted(path.parent.glob("*.py")) if path.name == "__init__.py" else [path]


def _sentences(text: str) -> list[str]:
    """Sentences of running text: no examples, lists or signatures."""
    kept = []
    for paragraph in re.split(r"\n\s*\n", text):
        if re.search(r">>>|^\s*[-*|]|::|^ {4}", paragraph, re.MULTILINE):
            continue
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", " ".join(paragraph.split())):
            words = _WORD.findall(sentence)
            if len(words) in _WORDS:
                kept.append(_joined(words))
    return kept


def _joined(words: list[str]) -> str:
    return re.sub(r"\s+([.,;:!?)\]])", r"\1", " ".join(words))
