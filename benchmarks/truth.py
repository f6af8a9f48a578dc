"""Is it true? Known shares of real text, planted, against the intervals that rbpp gives them.

    python benchmarks/truth.py --data DIR                          planted, uncovered, same
    python benchmarks/truth.py --data DIR --parts ranking --embedding-model PATH_OR_NAME

DIR holds code_alpaca_2k.json (CodeAlpaca), gpt4_codegen.json and gpt4_roleplay.json (GPTeacher),
self_instruct_seed_tasks.jsonl and user_oriented_instructions.jsonl (Self-Instruct), and
synque_sentiment/ (SynQuE). benchmarks/truth.md is the output.

- planted: target and synthetic are disjoint random parts of the code tasks; a share of the
  synthetic rows is replaced by role-play. True value: that share. Also the area under the ROC curve
  of the rows' off-task probability.
- uncovered: general tasks replace a share of the target's rows instead.
- same: disjoint random parts of one data set. A claim of difference is an answer "above" with a
  probability over 0.9 (irrelevant or uncovered share above 5 %, total variation above 10 %).
- ranking: Spearman correlation over 32 synthetic sets of the ranking by `rbpp compare` with the F1
  on real data of a model trained on each, against five draws of 198 real rows, with a bootstrap
  interval over the sets.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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
REAL_DRAWS = (42, 43, 44, 45, 46)


@dataclass(frozen=True)
class Run:
    """One data set with a known share: what was true, and what was found of it."""

    size: int
    share: float
    mean: float
    low: float
    high: float
    area: float
    seconds: float

    @property
    def covered(self) -> bool:
        """Whether the 94 % interval holds the true share."""
        return self.low <= self.share <= self.high


def texts(path: Path, field: str) -> list[str]:
    """The distinct texts of a file, in its order."""
    from rbpp.data.rows import read_rows

    found = read_rows(path, path.stem, text_fields=field.split(","))
    assert found.text is not None
    return list(dict.fromkeys(found.text))


def found_shares(target: list[str], synthetic: list[str], seed: int):
    """Terms of the shares, and the rows' table, of two lists of texts."""
    from rbpp.data.rows import read_rows
    from rbpp.sources.findings import row_table
    from rbpp.sources.scene import lay_out
    from rbpp.sources.share_terms import share_terms, shared_posterior

    scene = lay_out([read_rows(target, "target"), read_rows(synthetic, "synthetic")], seed=seed)
    fit, shares, members = shared_posterior(
        scene, scene.projection.dimension, None, chains=4, draws=250, seed=seed
    )
    terms, _ = share_terms(scene, fit, shares, seed)
    return terms, row_table(scene, shares, members)


def planted(clean: list[str], foreign: list[str], share: float, size: int, seed: int, part: str):
    """A run with `foreign` rows in the synthetic data (part irrelevant) or target (uncovered)."""
    from sklearn.metrics import roc_auc_score

    from rbpp.container import highest_density_interval

    random = np.random.default_rng([seed, size])
    order = random.permutation(len(clean))
    size = min(size, int(len(clean) // 2 / (1 - share)))  # half of the clean rows is for the other
    extra = round(share * size)
    kept = size - extra
    mixed = [clean[i] for i in order[:kept]]
    mixed += [foreign[i] for i in random.permutation(len(foreign))[:extra]]
    pure = [clean[i] for i in order[kept : kept + min(size, len(clean) - kept)]]
    began = time.perf_counter()
    pair = (pure, mixed) if part == "irrelevant" else (mixed, pure)
    terms, rows = found_shares(*pair, seed)
    draws = terms[f"{part}_share"].flatten().numpy()
    low, high = highest_density_interval(draws, 0.94)
    area = float("nan")
    if extra:
        source, column = ("synthetic", "off_task") if part == "irrelevant" else ("target", part)
        score = rows.loc[rows["source"] == source, column]
        area = roc_auc_score(np.arange(len(mixed)) >= kept, score)
    seconds = time.perf_counter() - began
    return Run(len(mixed), extra / len(mixed), draws.mean(), low, high, area, seconds)


def same(rows: list[str], size: int, seed: int) -> tuple[bool, dict[str, float]]:
    """Whether two disjoint random parts are claimed to differ, and the probabilities behind it."""
    from rbpp.sources.findings import SMALL_DIVERGENCE, SMALL_SHARE, SURE

    random = np.random.default_rng([seed, size])
    order = random.permutation(len(rows))
    half = min(size, len(rows) // 2)
    first = [rows[i] for i in order[:half]]
    second = [rows[i] for i in order[half : 2 * half]]
    terms, _ = found_shares(first, second, seed)
    above = {
        name: float((terms[name] > small).double().mean())
        for name, small in (
            ("irrelevant_share", SMALL_SHARE),
            ("uncovered_share", SMALL_SHARE),
            ("total_divergence", SMALL_DIVERGENCE),
        )
    }
    return max(above.values()) >= SURE, above


def planted_table(runs: list[Run]) -> list[str]:
    """Markdown: by true share, then over all."""
    lines = [
        "| true share | runs | mean found | mean error | coverage | mean interval | largest upper "
        "end | area under ROC (mean, least) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    by_share = {share: [run for run in runs if abs(run.share - share) < 0.01] for share in SHARES}
    for name, group in [*((f"{s:.0%}", g) for s, g in by_share.items()), ("all", runs)]:
        if not group:
            continue
        error = np.mean([abs(run.mean - run.share) for run in group])
        areas = [run.area for run in group if run.area == run.area]
        area = f"{np.mean(areas):.3f}, {min(areas):.3f}" if areas else "–"
        lines.append(
            f"| {name} | {len(group)} | {np.mean([run.mean for run in group]):.1%} | {error:.1%} | "
            f"{sum(run.covered for run in group)}/{len(group)} | "
            f"[{np.mean([run.low for run in group]):.1%}, "
            f"{np.mean([run.high for run in group]):.1%}] | "
            f"{max(run.high for run in group):.1%} | {area} |"
        )
    return lines


def ranking(data: Path, model: str, cache: Path | None, seed: int) -> list[str]:
    """Markdown: rank correlation of the headline ranking with what training gave."""
    from scipy.stats import spearmanr

    from rbpp.sources.compare import compare

    folder = data / "synque_sentiment"
    with (folder / "task_performance.csv").open() as source:
        truth = {row["dataset_name"]: float(row["test_f1_mean"]) for row in csv.DictReader(source)}
    versions = {name: folder / "synthetic" / f"{name}.json" for name in truth}
    reached = np.array(list(truth.values()))
    random = np.random.default_rng(seed)
    lines = ["| real rows | Spearman | 94 % interval over the sets |", "|---|---|---|"]
    scores = []
    for draw in REAL_DRAWS:
        result = compare(
            versions,
            folder / "real" / f"balanced_real_seed={draw}.json",
            text_fields=["headline"],
            embedding_model=model,
            cache=cache,
            seed=seed,
            shares=False,
        )
        score = {line["name"]: line["score"] for line in result.ranking}
        scores.append(np.array([score[name] for name in truth]))
        lines.append(_correlation(f"draw {draw}", [scores[-1]], reached, random, spearmanr))
    lines.append(_correlation("mean of five", scores, reached, random, spearmanr))
    return lines


def _correlation(name, scores, reached, random, spearmanr) -> str:
    def mean(index):
        return np.mean([spearmanr(score[index], reached[index]).statistic for score in scores])

    everyone = np.arange(len(reached))
    spread = [mean(random.choice(everyone, len(everyone))) for _ in range(1000)]
    low, high = np.quantile(spread, [0.03, 0.97])
    return f"| {name} | {mean(everyone):.3f} | [{low:.2f}, {high:.2f}] |"


def main() -> None:
    """Run the parts that are asked for and print their tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", default=["planted", "uncovered", "same"])
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--text", choices=FIELDS, default="instruction")
    parser.add_argument("--embedding-model")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    data, (field, general_field) = arguments.data, FIELDS[arguments.text]

    if {"planted", "uncovered", "same"} & set(arguments.parts):
        code = texts(data / "code_alpaca_2k.json", field)
        code = list(dict.fromkeys(code + texts(data / "gpt4_codegen.json", field)))
        role_play = texts(data / "gpt4_roleplay.json", field)
        general = texts(data / "self_instruct_seed_tasks.jsonl", general_field)
        general += texts(data / "user_oriented_instructions.jsonl", general_field)
    for part, name, foreign in (
        ("planted", "irrelevant", "role_play"),
        ("uncovered", "uncovered", "general"),
    ):
        if part not in arguments.parts:
            continue
        rows = role_play if foreign == "role_play" else general
        runs = []
        for index in range(arguments.runs):
            share = SHARES[index % len(SHARES)]
            size = SIZES[(index // len(SHARES) + index) % len(SIZES)]
            if share * size > len(rows):  # no more foreign rows than there are
                size = max(n for n in SIZES if share * n <= len(rows))
            run = planted(code, rows, share, size, arguments.seed + index, name)
            runs.append(run)
            print(run, file=sys.stderr, flush=True)
        print(f"\n## {name} share, {foreign.replace('_', '-')} ({arguments.text})\n")
        print("\n".join(planted_table(runs)), flush=True)
    if "same" in arguments.parts:
        claims = []
        for index in range(arguments.runs):
            rows = (code, role_play, code, general)[index % 4]
            claim, above = same(rows, SIZES[index % len(SIZES)], arguments.seed + index)
            claims.append(claim)
            print(claim, above, file=sys.stderr, flush=True)
        print("\n## same distribution\n")
        print(f"Claims of a difference: {sum(claims)} of {len(claims)} runs.", flush=True)
    if "ranking" in arguments.parts:
        print("\n## ranking\n")
        print("\n".join(ranking(data, arguments.embedding_model, arguments.cache, arguments.seed)))


if __name__ == "__main__":
    main()
