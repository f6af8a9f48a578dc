"""Planted shares of real text by one author each, against what `assess` says of them.

    python benchmarks/truth.py --data DIR [--text whole] [--runs N] [--parts planted same …]

DIR holds code_alpaca_2k.json (CodeAlpaca), gpt4_codegen.json and gpt4_roleplay.json (GPTeacher),
self_instruct_seed_tasks.jsonl and user_oriented_instructions.jsonl (Self-Instruct).
docs/measurements/truth.md is the output. Two authors are in `scenarios.py`.

- planted: target and synthetic are disjoint random parts of the code tasks; a share of the
  synthetic rows is replaced by role-play. True value: that share.
- uncovered: general tasks replace a share of the target's rows instead. Those that speak of code
  are left out (`CODE`; 35 of 426 instructions): the code tasks cover them, so that no share is
  known. `--parts uncovered_all` plants them too.
- left_out: general tasks replace a share of the synthetic rows, and the target has none.
- same: disjoint random parts of one data set. A claim of difference is an *at least* above 5 %.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rbpp.assessment.off_task import OffTask, off_task, uncovered
from rbpp.assessment.style import auc
from rbpp.assessment.weighted_rows import Draws
from rbpp.data.rows import Fields, read_rows
from rbpp.data.static_embedding import static_embedding

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
SIZES = (300, 500, 1000, 2000, 4000)
# What a row's text is: its instruction, or all of it; in the tasks of a language model, and in the
# tasks written by people.
FIELDS = {
    "instruction": ("instruction", "instruction"),
    "whole": (
        "instruction,input,output|response",
        "instruction,instances.0.input,instances.0.output",
    ),
}
CODE = re.compile(
    r"\b(code|coding|program|programming|python|javascript|java|sql|html|css|script|algorithm|regex"
    r"|latex|bash|excel|sheets|variable|syntax|command)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Run:
    """A data set with a known share, what was found of it, and the area under the ROC curve."""

    size: int
    share: float
    found: OffTask
    area: float

    @property
    def holds(self) -> bool:
        """Whether [at least, at most] holds the true share."""
        return self.found.at_least <= self.share <= self.found.at_most


def vectors(path: Path, field: str) -> np.ndarray:
    """Embeddings of the distinct texts of a file, in its order."""
    found = read_rows(path, path.stem, Fields(text=field.split(",")))
    assert found.text is not None
    return static_embedding(list(dict.fromkeys(found.text))).vectors


def planted(
    clean: np.ndarray, foreign: np.ndarray, share: float, size: int, seed: int, part: str
) -> Run:
    """A run with `foreign` rows in the synthetic data (part irrelevant) or target (uncovered)."""
    random = np.random.default_rng([seed, size])
    order = random.permutation(len(clean))
    size = min(size, int(len(clean) // 2 / (1 - share)))  # half of the clean rows is for the other
    extra = round(share * size)
    kept = size - extra
    mixed = np.concatenate([clean[order[:kept]], foreign[random.permutation(len(foreign))[:extra]]])
    pure = clean[order[kept : kept + min(size, len(clean) - kept)]]
    found = (
        off_task(pure, mixed, Draws(seed=seed))
        if part == "irrelevant"
        else uncovered(mixed, pure, Draws(seed=seed))
    )
    area = auc(found.probability[:kept], found.probability[kept:]) if extra else float("nan")
    return Run(len(mixed), extra / len(mixed), found, area)


def same(rows: np.ndarray, size: int, seed: int) -> bool:
    """Whether two disjoint random parts are claimed to differ."""
    order = np.random.default_rng([seed, size]).permutation(len(rows))
    half = min(size, len(rows) // 2)
    first, second = rows[order[:half]], rows[order[half : 2 * half]]
    return any(
        compare(first, second, Draws(seed=seed)).at_least > 0.05
        for compare in (off_task, uncovered)
    )


def table(runs: list[Run]) -> list[str]:
    """Markdown: by true share, then over all."""
    lines = [
        "| true share | runs | mean found | mean error | [at least, at most] holds | mean ends "
        "| largest at least | area under ROC (mean, least) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    by_share = {share: [run for run in runs if abs(run.share - share) < 0.01] for share in SHARES}
    for name, group in [*((f"{s:.0%}", g) for s, g in by_share.items()), ("all", runs)]:
        if not group:
            continue
        error = np.mean([abs(run.found.share - run.share) for run in group])
        areas = [run.area for run in group if run.area == run.area]
        area = f"{np.mean(areas):.3f}, {min(areas):.3f}" if areas else "–"
        lines.append(
            f"| {name} | {len(group)} | {np.mean([run.found.share for run in group]):.1%} | "
            f"{error:.1%} | {sum(run.holds for run in group)}/{len(group)} | "
            f"[{np.mean([run.found.at_least for run in group]):.1%}, "
            f"{np.mean([run.found.at_most for run in group]):.1%}] | "
            f"{max(run.found.at_least for run in group):.1%} | {area} |"
        )
    return lines


def main() -> None:
    """Run the parts that are asked for and print their tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", default=["planted", "uncovered", "left_out", "same"])
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--text", choices=FIELDS, default="instruction")
    parser.add_argument("--most-rows", type=int, default=max(SIZES), help="of a source")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    data, (field, general_field) = arguments.data, FIELDS[arguments.text]
    sizes = [size for size in SIZES if size <= arguments.most_rows]

    both = [vectors(data / f"{name}.json", field) for name in ("code_alpaca_2k", "gpt4_codegen")]
    code = np.unique(np.concatenate(both), axis=0)
    role_play = vectors(data / "gpt4_roleplay.json", field)
    names = ("self_instruct_seed_tasks", "user_oriented_instructions")
    found = [
        read_rows(data / f"{n}.jsonl", n, Fields(text=general_field.split(","))) for n in names
    ]
    texts = [text for one in found for text in one.text or ()]
    general = static_embedding(texts).vectors
    plain = general[[not CODE.search(text) for text in texts]]
    for part, name, title, rows in (
        ("planted", "irrelevant", "role-play", role_play),
        ("uncovered", "uncovered", "general", plain),
        ("uncovered_all", "uncovered", "general, code among them", general),
        ("left_out", "irrelevant", "general", plain),
    ):
        if part not in arguments.parts:
            continue
        runs = []
        for index in range(arguments.runs):
            share = SHARES[index % len(SHARES)]
            size = sizes[(index // len(SHARES) + index) % len(sizes)]
            if share * size > len(rows):  # no more foreign rows than there are
                size = max(n for n in sizes if share * n <= len(rows))
            runs.append(planted(code, rows, share, size, arguments.seed + index, name))
            print(part, index, file=sys.stderr, flush=True)
        print(f"\n## {name} share, {title} ({arguments.text})\n")
        print("\n".join(table(runs)), flush=True)
    if "same" in arguments.parts:
        claims = 0
        for index in range(arguments.runs):
            rows = (code, role_play, code, general)[index % 4]
            claims += same(rows, sizes[index % len(sizes)], arguments.seed + index)
        print("\n## same distribution\n")
        print(f"Claims of a difference: {claims} of {arguments.runs} runs.", flush=True)


if __name__ == "__main__":
    main()
